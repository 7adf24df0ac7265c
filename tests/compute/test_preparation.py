"""Kernels compiled side by side: what is listed is what a refinement uses, and processes end."""

import json
import subprocess
import sys

import pytest

from cardiacreg.compute import kernel_cache, preparation
from cardiacreg.compute.threads import Progress

SCRIPT = """
import json, sys, warnings
import numba.core.event as event
from cardiacreg import ResultWarning, InputWarning, refine
from cardiacreg.compute import preparation
from cardiacreg.phantoms.toy_heart import make_toy_heart
from cardiacreg.slice_motion.shift_statistics import FEWEST_ATLASES

class Compiled(event.Listener):
    names = []
    def on_start(self, found):
        function = found.data["dispatcher"].py_func
        self.names.append(function.__module__ + "." + function.__name__)
    def on_end(self, found):
        pass

warnings.simplefilter("ignore", InputWarning)
warnings.simplefilter("ignore", ResultWarning)
needed, told = preparation.needs_compiling(), []
heart, atlases = make_toy_heart(), [make_toy_heart(size=0.95)] * FEWEST_ATLASES
preparation.compile_kernels(2, told.append)
listener = Compiled()
event.register("numba:compile", listener)
refine(heart.labels, atlases=atlases, threads=1)
print(json.dumps([needed, preparation.needs_compiling(), listener.names, told]))
"""


@pytest.mark.slow
def test_a_refinement_compiles_nothing_that_is_not_listed(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    needed, again, compiled, told = json.loads(done.stdout)
    assert needed and not again and compiled == []
    counts = [Progress(*report).done for report in told]
    assert counts == sorted(counts) and counts[-1] == len(preparation.KERNELS)


def test_types_are_written_as_they_are_read():
    for _, _, words in preparation.KERNELS:
        assert kernel_cache.words_of(kernel_cache.types_of(words)) == words
    (read_only,) = kernel_cache.types_of("uint8[3]!")
    assert (read_only.ndim, read_only.layout, read_only.mutable) == (3, "C", False)


@pytest.fixture
def nothing_stored(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(preparation, "_done", [])
    monkeypatch.setattr(kernel_cache, "_troubles", [])
    return tmp_path


class Child:
    """A process that runs until it is killed."""

    def __init__(self):
        self.ended = []

    def poll(self):
        return None

    def wait(self, timeout=None):
        self.ended.append("waited")

    def kill(self):
        self.ended.append("killed")


def test_a_cancelled_preparation_leaves_no_process(nothing_stored, monkeypatch):
    child, calls = Child(), []

    def cancel(report):
        calls.append(report)
        if len(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(preparation, "_start", lambda part, count: child)
    monkeypatch.setattr(preparation, "compile_part", lambda part, count, tell: tell())
    assert preparation.needs_compiling()
    with pytest.raises(KeyboardInterrupt):
        preparation.compile_kernels(2, cancel)
    assert child.ended == ["killed", "waited"]
    assert calls[0].step == "compile" and calls[0].total == len(preparation.KERNELS)


@pytest.mark.parametrize("reason", ["one thread", "frozen", "no program"])
def test_without_processes_kernels_are_compiled_when_needed(nothing_stored, monkeypatch, reason):
    def start(part, count):
        raise AssertionError("a process was started")

    monkeypatch.setattr(preparation, "_start", start)
    if reason == "frozen":
        monkeypatch.setattr(sys, "frozen", True, raising=False)
    elif reason == "no program":
        monkeypatch.setattr(sys, "executable", "")
    preparation.compile_kernels(1 if reason == "one thread" else 2)
    assert list(nothing_stored.iterdir()) == []


def test_nothing_is_prepared_that_cannot_be_kept(nothing_stored, monkeypatch):
    monkeypatch.setattr(kernel_cache, "_troubles", ["no"])
    assert not preparation.needs_compiling()
    monkeypatch.setattr(kernel_cache, "_troubles", [])
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/dev/null/cache")
    assert not preparation.needs_compiling()
