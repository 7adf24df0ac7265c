"""The wheel of the checkout, built from a copy, so that no build output lands in the checkout."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("cardiacreg", "cardiacreg_nn")
BUILT = shutil.ignore_patterns("__pycache__", "*.so", "*.c", "*.egg-info", "build")


def skip_without_build_tools():
    if any(find_spec(name) is None for name in ("pip", "setuptools", "Cython")):
        pytest.skip("building a wheel needs pip, setuptools and Cython in this environment")


def copy_source(folder, *more):
    """Copy what a wheel is built from, and more folders of the checkout, into a folder."""
    skip_without_build_tools()
    for path in (*ROOT.glob("*.*"), ROOT / "LICENSE", ROOT / "Makefile"):
        if path.is_file():
            shutil.copy(path, folder)
    for name in (*PACKAGES, *more):
        shutil.copytree(ROOT / name, folder / name, ignore=BUILT)
    return folder


def build_wheel(source, output):
    """Build the wheel of a folder into another one."""
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    command = [sys.executable, "-m", "pip", "wheel", *options, "-w", str(output), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return next(Path(output).glob("*.whl"))


def unpack(wheel, folder):
    """Put what a wheel holds into a folder, as an installer would."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder
