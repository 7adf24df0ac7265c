"""How work is spread over threads: tasks on a pool, one level deep, results in order.

Every task writes its own outputs and nothing is summed across tasks in an order that depends on
scheduling, so that any number of threads gives the same bits. A task that starts tasks of its own runs
them one after the other, so pools never nest. A task runs in a copy of its caller's context, and what it
warns of is told in the caller's thread, in the order of the items.
"""

from __future__ import annotations

import contextvars
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from numbers import Integral
from typing import NamedTuple, TypeVar

from cardiacreg.errors import InvalidInputError, Note, kept_warnings, pass_on

Item = TypeVar("Item")
Result = TypeVar("Result")

_INSIDE_TASK = threading.local()


class Progress(NamedTuple):
    """What a progress callable receives.

    Parameters
    ----------
    step : str
        Name of the step.
    done, total : int
        Tasks of the step that are finished, and all of them.
    title : str
        What is being done, in words; empty where a step is called on its own.
    share : float, optional
        How much of the whole call is done, 0 to 1, which never shrinks; None where a step is called on
        its own.
    """

    step: str
    done: int
    total: int
    title: str = ""
    share: float | None = None


ProgressCallable = Callable[[Progress], None]


def available_threads() -> int:
    """Return the number of CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_threads(threads: int | None) -> int:
    """Return the thread count to use; ``None`` means every CPU this process may use.

    Raises
    ------
    InvalidInputError
        If `threads` is no whole number of at least 1.
    """
    if threads is None:
        return available_threads()
    given: object = threads
    if not isinstance(given, Integral) or threads < 1:
        raise InvalidInputError(
            f"threads: got {given!r}; needs a whole number of at least 1, or None for every CPU this "
            "process may use.",
            code="BAD_THREADS",
        )
    return int(threads)


def slab_ranges(length: int, size: int) -> list[tuple[int, int]]:
    """Split ``range(length)`` into consecutive (start, stop) pairs of at most `size`."""
    return [(start, min(start + size, length)) for start in range(0, length, size)]


def run_tasks(
    function: Callable[[Item], Result],
    items: Sequence[Item] | Iterable[Item],
    *,
    threads: int,
    step: str = "",
    progress: ProgressCallable | None = None,
) -> list[Result]:
    """Apply `function` to every item on up to `threads` threads and return the results in order.

    Parameters
    ----------
    function : callable
        Called once per item; exceptions are re-raised in the caller (the first in item order).
    items : sequence
        The work.
    threads : int
        Threads to use; called from inside another task, the items run one after the other.
    step : str
        Name reported to `progress`.
    progress : callable, optional
        Receives a `Progress` after each item; raising inside it cancels the remaining items.
    """
    work = list(items)
    if threads == 1 or len(work) <= 1 or getattr(_INSIDE_TASK, "value", False):
        return _run_serially(function, work, step, progress)
    with ThreadPoolExecutor(max_workers=min(threads, len(work))) as pool:
        futures = [
            pool.submit(contextvars.copy_context().run, _as_task, function, item) for item in work
        ]
        try:
            return _collect(futures, step, progress)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _run_serially(
    function: Callable[[Item], Result],
    work: list[Item],
    step: str,
    progress: ProgressCallable | None,
) -> list[Result]:
    results = []
    for done, item in enumerate(work, start=1):
        results.append(function(item))
        if progress is not None:
            progress(Progress(step, done, len(work)))
    return results


def _collect(futures: list, step: str, progress: ProgressCallable | None) -> list:  # type: ignore[type-arg]
    results = []
    for done, future in enumerate(futures, start=1):
        result, notes = future.result()
        pass_on(notes)
        results.append(result)
        if progress is not None:
            progress(Progress(step, done, len(futures)))
    return results


def _as_task(function: Callable[[Item], Result], item: Item) -> tuple[Result, list[Note]]:
    _INSIDE_TASK.value = True
    try:
        with kept_warnings() as notes:
            return function(item), notes
    finally:
        _INSIDE_TASK.value = False
