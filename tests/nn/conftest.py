"""Tests of `cardiacreg_nn`; without torch none of them is collected."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

MISSING = [name for name in ("torch", "safetensors") if find_spec(name) is None]
collect_ignore_glob = ["test_*.py"] if MISSING else []


def pytest_report_header():
    """Say why the tests of the network are not there."""
    return f"tests/nn skipped: {', '.join(MISSING)} not installed" if MISSING else None


@pytest.fixture(autouse=True)
def one_thread():
    """Keep torch to one thread, so that parallel test processes do not fight."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
