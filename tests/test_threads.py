"""Any number of threads gives the same bits, and several refinements may run at once."""

import multiprocessing
import threading
import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest

from cardiacreg import Affine, InvalidInputError
from cardiacreg.atlases.ranking import rank_atlases
from cardiacreg.compute.threads import Progress, check_threads, run_tasks, slab_ranges
from cardiacreg.fusion.label_fusion import FusionOptions, fuse_labels
from cardiacreg.refinement._refine import refine
from cardiacreg.registration import label_consistency
from cardiacreg.registration.ffd_registration import RegistrationOptions, register_labels
from cardiacreg.transforms.resampling import add_label_votes, warp_labels, warp_volume
from tests.helpers.tiny_bank import (
    SPACING_MM,
    expect_tiny_findings,
    tiny_atlases,
    tiny_options,
    tiny_target,
)

pytestmark = expect_tiny_findings

OPTIONS = RegistrationOptions(
    spacings_mm=(32.0, 16.0), strides=(2, 1), iterations=(6, 6), estimate_shifts=True
)
MANY = pytest.mark.parametrize("threads", [2, 7])


def registered(threads):
    return register_labels(
        tiny_target().labels, tiny_atlases(1)[0].labels, options=OPTIONS, threads=threads
    )


@pytest.fixture(scope="module")
def serial():
    return registered(1)


def refined(threads):
    target = tiny_target()
    return refine(
        target.labels,
        image=target.image,
        atlases=tiny_atlases(),
        spacing_mm=SPACING_MM,
        options=tiny_options(),
        threads=threads,
    )


@pytest.fixture(scope="module")
def refined_serially():
    return refined(1)


def assert_same_result(found, expected):
    np.testing.assert_array_equal(found.labels.array, expected.labels.array)
    np.testing.assert_array_equal(found.confidence.array, expected.confidence.array)
    np.testing.assert_array_equal(found.slice_shifts_mm, expected.slice_shifts_mm)
    assert [(a.index, a.nmi, a.consistency_after, a.minimum_jacobian) for a in found.atlases] == [
        (a.index, a.nmi, a.consistency_after, a.minimum_jacobian) for a in expected.atlases
    ]


class TestSameBits:
    @MANY
    def test_registration(self, serial, threads, monkeypatch):
        monkeypatch.setattr(label_consistency, "_VOXELS_WORTH_THREADS", 0)
        found = registered(threads)
        assert found.consistency_after == serial.consistency_after
        np.testing.assert_array_equal(found.slice_shifts_mm, serial.slice_shifts_mm)
        np.testing.assert_array_equal(
            found.target_to_atlas.displacements_mm, serial.target_to_atlas.displacements_mm
        )

    @MANY
    def test_ranking(self, threads):
        atlases = tiny_atlases(5)
        identity = [Affine.identity()] * 5
        expected, found = (
            rank_atlases(tiny_target().labels, atlases, identity, threads=n) for n in (1, threads)
        )
        assert [(r.index, r.nmi) for r in found] == [(r.index, r.nmi) for r in expected]

    @MANY
    def test_warping(self, serial, threads):
        atlas, transform, grid = (
            tiny_atlases(1)[0],
            serial.target_to_atlas,
            tiny_atlases(1)[0].labels,
        )
        for source, warp in ((atlas.labels, warp_labels), (atlas.image, warp_volume)):
            expected, found = (warp(source, transform, grid, threads=n) for n in (1, threads))
            np.testing.assert_array_equal(found.array, expected.array)
        votes = [np.zeros((*grid.shape, 5), dtype=np.float32) for _ in range(2)]
        for array, n in zip(votes, (1, threads), strict=True):
            add_label_votes(array, atlas.labels, transform, grid, threads=n)
        np.testing.assert_array_equal(*votes)

    @MANY
    def test_fusion(self, threads):
        atlases = [(atlas.image, atlas.labels) for atlas in tiny_atlases()]
        options = FusionOptions(search=(3, 3, 3), patch=(3, 5, 1), bandwidth=50.0)
        expected, found = (
            fuse_labels(atlases[0][0], atlases, options=options, threads=n) for n in (1, threads)
        )
        np.testing.assert_array_equal(found.labels.array, expected.labels.array)
        np.testing.assert_array_equal(found.confidence.array, expected.confidence.array)

    @MANY
    def test_refinement(self, refined_serially, threads):
        assert_same_result(refined(threads), refined_serially)

    def test_two_refinements_at_once(self, refined_serially):
        results = [None, None]

        def work(n):
            results[n] = refined(2)

        workers = [threading.Thread(target=work, args=(n,)) for n in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        for result in results:
            assert_same_result(result, refined_serially)


def test_registrations_run_in_several_python_threads_and_in_other_processes(serial):
    """Four Python threads at once, a forked process and a spawned one: the bits of a serial run."""
    expected = serial.target_to_atlas.displacements_mm
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(registered, [1, 2, 1, 2]):
            np.testing.assert_array_equal(found.target_to_atlas.displacements_mm, expected)
    for method in sorted({"fork", "spawn"} & set(multiprocessing.get_all_start_methods())):
        context = multiprocessing.get_context(method)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads alive
            with ProcessPoolExecutor(1, mp_context=context) as processes:
                found = processes.submit(displacements_of_a_registration).result(timeout=300)
        np.testing.assert_array_equal(found, expected)


def displacements_of_a_registration():
    return np.array(registered(1).target_to_atlas.displacements_mm)


class TestTasks:
    @pytest.mark.parametrize("threads", [1, 2, 7])
    def test_results_keep_the_order_of_items(self, threads):
        assert run_tasks(lambda n: n * n, range(20), threads=threads) == [n * n for n in range(20)]

    @pytest.mark.parametrize("threads", [1, 3])
    def test_the_first_error_in_order_is_raised(self, threads):
        def fail(n):
            raise ValueError(str(n))

        with pytest.raises(ValueError, match="^0$"):
            run_tasks(fail, range(9), threads=threads)

    @pytest.mark.parametrize("threads", [1, 3])
    def test_progress_counts_up_and_raising_in_it_cancels(self, threads):
        seen, ran = [], []

        def progress(report):
            seen.append(report)
            if report.done == 3:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run_tasks(ran.append, range(500), threads=threads, step="x", progress=progress)
        assert seen == [Progress("x", n, 500) for n in (1, 2, 3)]
        assert len(ran) < 500 or threads > 1

    def test_tasks_inside_tasks_run_one_after_the_other(self):
        def outer(_):
            name = threading.current_thread().name
            inner = run_tasks(lambda _: threading.current_thread().name, range(4), threads=4)
            return inner == [name] * 4

        assert all(run_tasks(outer, range(4), threads=2))

    def test_no_items_give_no_results(self):
        assert run_tasks(abs, [], threads=4) == []

    @pytest.mark.parametrize("length, size", [(0, 3), (1, 3), (7, 3), (9, 3)])
    def test_slabs_cover_everything_once(self, length, size):
        slabs = slab_ranges(length, size)
        assert [n for start, stop in slabs for n in range(start, stop)] == list(range(length))
        assert all(0 < stop - start <= size for start, stop in slabs)

    def test_thread_counts_are_checked(self):
        assert check_threads(3) == 3
        assert check_threads(None) >= 1
        with pytest.raises(InvalidInputError) as caught:
            check_threads(0)
        assert caught.value.code == "BAD_THREADS"
