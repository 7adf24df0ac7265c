"""Warnings of one piece of work stay with it, whatever other threads do."""

import contextlib
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from cardiacreg import InputWarning, LabelMap
from cardiacreg.compute.threads import run_tasks
from cardiacreg.errors import ResultWarning, kept_warnings, pass_on, warn
from cardiacreg.refinement._refine import refine
from tests.helpers.tiny_bank import SPACING_MM, tiny_atlases, tiny_options, tiny_target


def told(message, category=InputWarning):
    warn(message, category)


def test_a_warning_is_shown_with_the_line_of_the_callers_caller():
    with pytest.warns(InputWarning, match="odd") as shown:
        told("odd")
    assert shown[0].filename == __file__


def test_kept_warnings_are_not_shown_before_they_are_passed_on():
    with kept_warnings() as notes:
        told("one")
        with kept_warnings() as inner:
            told("two", ResultWarning)
        assert [note.message for note in notes] == ["one"]
        pass_on(inner)
    assert [note.message for note in notes] == ["one", "two"]
    with pytest.warns(InputWarning) as shown:
        pass_on(notes)
    assert [str(each.message) for each in shown] == ["one", "two"]
    assert [each.category for each in shown] == [InputWarning, ResultWarning]


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_tasks_warn_in_the_order_of_the_items_and_in_their_callers_thread(threads):
    barrier = threading.Barrier(min(threads, 2))

    def work(item):
        if item < barrier.parties:
            barrier.wait() if threads > 1 else None
        told(f"item {item}")
        return item

    with kept_warnings() as notes:
        assert run_tasks(work, range(9), threads=threads) == list(range(9))
    assert [note.message for note in notes] == [f"item {n}" for n in range(9)]
    with pytest.warns(InputWarning) as shown:
        run_tasks(work, range(3), threads=threads)
    assert [str(each.message) for each in shown] == [f"item {n}" for n in range(3)]


def patient(kind):
    """A tiny heart about which there is a warning: "no RV", or "a gap" in its slices."""
    target = tiny_target().labels
    array = np.array(target.array)
    if kind == "no RV":
        array[array > 2] = 0
    else:
        array[:, :, 4] = 0
    return LabelMap(array, target.voxel_to_world)


@pytest.mark.parametrize("threads", [1, 2])
def test_two_patients_at_once_have_their_own_warnings(threads):
    """A progress callable lets both patients wait for each other in every step."""
    atlases, barrier = tiny_atlases(), threading.Barrier(2)

    def meet(progress):
        with contextlib.suppress(threading.BrokenBarrierError):
            barrier.wait(20)

    def one(kind, progress=None):
        return refine(
            patient(kind), atlases=atlases, spacing_mm=SPACING_MM, options=tiny_options(),
            threads=threads, progress=progress,
        )  # fmt: skip

    filters, show = list(warnings.filters), warnings.showwarning
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        during = list(warnings.filters)
        with ThreadPoolExecutor(2) as pool:
            both = list(pool.map(one, ("no RV", "a gap"), (meet, meet)))
        alone = [one(kind) for kind in ("no RV", "a gap")]
        assert warnings.filters == during
    assert warnings.filters == filters and warnings.showwarning is show
    assert any("RV cavity missing" in text for text in both[0].warnings)
    assert both[1].warnings == (
        "labels: slices [4] are empty between labelled slices; they are filled from the atlases.",
    )
    assert [result.warnings for result in both] == [result.warnings for result in alone]


def test_a_users_filter_does_not_empty_the_result():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        result = refine(
            patient("no RV"), atlases=tiny_atlases(), spacing_mm=SPACING_MM, options=tiny_options(),
            threads=1,
        )  # fmt: skip
    assert any("RV cavity missing" in text for text in result.warnings)
