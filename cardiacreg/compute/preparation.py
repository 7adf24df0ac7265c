"""Kernels of the default path compiled side by side, where none are stored yet.

Numba compiles one kernel at a time in a process. So processes of their own compile a part of the kernels
each into the cache on disk (`kernel_cache`), from where all load them. Where this cannot be (one thread,
no cache, no Python to start) kernels are compiled as they are needed, which takes longer and gives the
same code.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from cardiacreg.compute import kernel_cache
from cardiacreg.compute.cache_files import kernel_folder, why_not_writable
from cardiacreg.compute.progress import COMPILE
from cardiacreg.compute.threads import Progress, ProgressCallable

_WAIT_SECONDS = 0.25
_MOST_PROCESSES = 4
_CHILD = (
    "import sys; sys.path[:] = sys.argv[3:]; "
    "from cardiacreg.compute.preparation import compile_part; "
    "compile_part(int(sys.argv[1]), int(sys.argv[2]))"
)
Kernel = tuple[str, str, str]
KERNELS: tuple[Kernel, ...] = (
    (
        "registration.label_consistency", "_consistency_kernel",
        "int64 int64 float64[3] float64[3] float64[3] float64[2] uint8[3] int64[3] "
        "uint8[4] float64[2] float64[3] float64[2]",
    ),
    (
        "compute.lbfgs", "_advance",
        "int64[1] float64[1] float64[2] float64[2] float64[2] float64[1] float64 float64[1]",
    ),
    (
        "registration.affine_score", "score_affine",
        "float64[2] uint8[1] float64[2] float64[2] uint8[1] float64[2] uint8[4] float64[2] float64[2] "
        "float64[2] float64[1] float64[1]",
    ),
    (
        "transforms.jacobian", "_folding_kernel",
        "float64[4] float64[2] float64[2] float64[2] float64[3] float64 float64[4] float64[1]",
    ),
    (
        "registration.regularisation", "_bending_kernel",
        "float64[4] float64[3]! float64[3]! float64[3] float64 float64 float64[4]",
    ),
    (
        "transforms.jacobian", "_cubes_of_determinants",
        "float64[4] float64[2] float64[2] float64[2] float64[4]",
    ),
    (
        "atlases.scoring_points", "_count_pairs",
        "uint8[1] float32[2] uint8[3]! float64[2] int64[3]",
    ),
    (
        "transforms.jacobian", "_low_determinant_kernel",
        "float64[4] float64[2] float64[2] float64[2] float64[3] float64 float64[3]",
    ),
    (
        "transforms.bspline", "_fill_table",
        "float64[1] int64 int64 int64[1] float64[2]",
    ),
    (
        "registration.regularisation", "_multiply_leading",
        "float64[2] float64[3] float64[3]",
    ),
    (
        "transforms.jacobian", "_steepest_columns",
        "float64[4] float64[1] float64[3]",
    ),
    (
        "transforms.resampling", "_points_kernel",
        "float64[2] float64[2] int64[1] float64[2] float64[4] int64 bool[2] float64[4]",
    ),
    (
        "registration.regularisation", "_multiply_last",
        "float64[2] float64[4] float64[4]",
    ),
    (
        "registration.label_consistency", "_collect_gradient",
        "float64[3] float64[2] float64[2] float64[4]",
    ),
    (
        "transforms.resampling", "_votes_kernel",
        "float64[4] uint8[4] bool[2] float32[4] int64 float64[2]",
    ),
    (
        "registration.label_consistency", "place_control_points",
        "float64[4] float64[2] float64[1] float64[1] float64[3]",
    ),
    (
        "compute.decompositions", "_factorise",
        "float64[2]",
    ),
    (
        "transforms.bspline", "_contract_middle",
        "float64[3]! int64[1] float64[2] float64[3]",
    ),
    (
        "compute.decompositions", "_substitute",
        "float64[2] float64[2]",
    ),
    (
        "compute.decompositions", "_rotate",
        "float64[2] float64[2] int64",
    ),
    (
        "atlases.scoring_points", "_read_labels",
        "float32[2] uint8[3]! float64[2] uint8[1]",
    ),
    (
        "transforms.atlas_lookup", "_code_cells",
        "uint8[3]! uint8[1] uint8[4]",
    ),
    (
        "fusion.label_fusion", "_most_votes_kernel",
        "float32[2] uint8[1] uint8[1] float32[1]",
    ),
    (
        "transforms.resampling", "_reach_kernel",
        "float64[2] float64[2] int64[1] float64[4] int64 bool[3] bool[2]",
    ),
    (
        "fusion.label_fusion", "_share_kernel",
        "float32[2] uint8[1]! float32[1]",
    ),
    (
        "transforms.resampling", "_bins_kernel",
        "uint8[3] bool[3]",
    ),
)  # fmt: skip
"""Module, kernel and types of its arguments, in an order in which every second one takes about half of
the time; a test compares them with what a refinement uses."""
_done: list[bool] = []


def needs_compiling() -> bool:
    """Return whether kernels of the default path have yet to be compiled and can be stored."""
    if _done or kernel_cache.trouble() is not None or why_not_writable(kernel_folder()):
        return False
    found = not _is_stored(KERNELS[0])
    if not found:
        _done.append(True)
    return found


def compile_kernels(threads: int, progress: ProgressCallable | None = None) -> None:
    """Compile the kernels of the default path into the cache, in as many processes as threads.

    Parameters
    ----------
    threads : int
        With one nothing is done: kernels are compiled as they are needed.
    progress : callable, optional
        Told how many are there; raising inside it stops the processes.
    """
    _done.append(True)
    count = min(threads, _MOST_PROCESSES)
    if count < 2 or not _can_start_python():
        return

    def tell() -> None:
        if progress is not None:
            progress(Progress(COMPILE, sum(map(_is_stored, KERNELS)), len(KERNELS)))

    tell()
    children = [_start(part, count) for part in range(1, count)]
    try:
        compile_part(0, count, tell)
        while any(child.poll() is None for child in children):
            with suppress(subprocess.TimeoutExpired):
                children[0].wait(_WAIT_SECONDS)
            tell()
    finally:
        for child in children:
            child.kill()
            child.wait()


def compile_part(part: int, count: int, tell: Callable[[], None] = lambda: None) -> None:
    """Compile every `count`-th kernel, which loads those that are stored.

    Parameters
    ----------
    part, count : int
    tell : callable
        Called after each.
    """
    for each in KERNELS[part::count]:
        dispatcher, signature = _found(each)
        dispatcher.compile(signature)
        tell()


def _start(part: int, count: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", _CHILD, str(part), str(count), *map(os.path.abspath, sys.path)]
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def _can_start_python() -> bool:
    """Whether the program that runs is a Python that can be started again."""
    return bool(sys.executable) and not getattr(sys, "frozen", False)


def _is_stored(kernel: Kernel) -> bool:
    dispatcher, signature = _found(kernel)
    cache = getattr(dispatcher, "_cache", None)
    return not isinstance(cache, kernel_cache.KernelCache) or cache.holds(signature)


def _found(kernel: Kernel) -> tuple[Any, tuple[Any, ...]]:
    module, name, signature = kernel
    dispatcher = getattr(importlib.import_module(f"cardiacreg.{module}"), name)
    return dispatcher, kernel_cache.types_of(signature)
