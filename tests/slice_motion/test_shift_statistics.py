import numpy as np
import pytest
from hypothesis import given, strategies as st

from cardiacreg import Affine, LabelMap
from cardiacreg.phantoms.toy_heart import make_toy_heart
from cardiacreg.registration.ffd_registration import RegistrationOptions, prepare_target
from cardiacreg.slice_motion.rotations import estimate_shifts_and_rotations
from cardiacreg.slice_motion.shift_statistics import (
    _SIZES_MM,
    FEWEST_ATLASES,
    ShiftModel,
    _log_likelihoods,
    _measure,
    _near_labels,
    _regions,
    expected_shifts,
    most_likely_shifts,
)
from cardiacreg.slice_motion.shifts import estimate_slice_motion
from tests.helpers import naive

OPTIONS = RegistrationOptions(
    spacings_mm=(64.0,), strides=(2,), iterations=(10,), bending_weight=30.0, estimate_shifts=True
)


def bent_hearts(count, seed=0):
    """Tiny hearts of several sizes, placed so that their centre lines lean and bend."""
    rng = np.random.default_rng(seed)
    labels = make_toy_heart().labels
    found = []
    for size in rng.uniform(0.9, 1.1, count):
        matrix = np.diag([1 / size, 1 / size, 1.0, 1.0])
        matrix[:2, 2] = rng.normal(size=2) * 0.1
        found.append((labels, Affine(matrix)))
    return found


def stored_away(offsets):
    """The tiny heart with every slice stored some voxels from where it belongs."""
    labels = make_toy_heart().labels
    array = np.array(labels.array)
    for k, offset in enumerate(offsets):
        array[:, :, k] = np.roll(array[:, :, k], -np.asarray(offset), axis=(0, 1))
    return prepare_target(LabelMap(array, labels.voxel_to_world), OPTIONS)


def drawn_model(size_mm, seed, slices=9):
    """A target drawn from the model itself, and its true shifts: three centres and sizes per slice."""
    rng = np.random.default_rng(seed)
    numbers = slices * 9
    modes = rng.normal(size=(numbers, 5)) * 2.0
    covariance = modes @ modes.T
    variance = np.full(numbers, 0.04)
    design_matrix = np.zeros((slices, 3, 3, 2, slices))
    for axis in range(2):
        for k in range(slices):
            design_matrix[k, :, axis, axis, k] = 1
    design_matrix = design_matrix.reshape(numbers, -1)
    shifts = size_mm * rng.normal(size=(slices, 2))
    shape = modes @ rng.normal(size=5) + 0.2 * rng.normal(size=numbers)
    return ShiftModel(
        shape - design_matrix @ shifts.T.ravel(), covariance, variance, design_matrix
    ), shifts


class TestMeasuring:
    @pytest.mark.parametrize("case", ["itself", "a moved atlas"])
    def test_centres_and_sizes_are_those_of_the_voxels(self, case):
        target = stored_away(np.zeros((8, 2), int)).labels
        affine = np.eye(4)
        if case != "itself":
            affine[:3, :3] += np.random.default_rng(4).normal(size=(3, 3)) * 0.1
            affine[:3, 3] = (3.0, -2.0, 1.0)
        to_voxel = np.linalg.inv(target.voxel_to_world) @ affine @ target.voxel_to_world
        regions, slices = [(1,), (1, 2), (3, 4)], np.array([2, 3, 5])
        found = _measure(target, target, to_voxel, regions, slices, _near_labels(target))
        spacing = target.spacing_mm
        for s, k in enumerate(slices):
            for r, region in enumerate(regions):
                inside = [
                    (i * spacing[0], j * spacing[1])
                    for i in range(target.shape[0])
                    for j in range(target.shape[1])
                    if naive.nearest_label(target.array, naive.move(to_voxel, (i, j, k))) in region
                ]
                np.testing.assert_allclose(found[s, r, :2], np.mean(inside, axis=0))
                area = len(inside) * spacing[0] * spacing[1]
                np.testing.assert_allclose(found[s, r, 2], np.sqrt(area))

    def test_regions_hold_no_label_that_the_target_leaves_out(self):
        labels = make_toy_heart().labels
        array = np.where(labels.array == 3, 0, labels.array).astype(np.uint8)
        target = LabelMap(array, labels.voxel_to_world)
        told = prepare_target(target, OPTIONS, unknown_labels=(3,))
        assert _regions(told) == [(1,), (1, 2), (2,), (4,)]
        assert _regions(prepare_target(target, OPTIONS)) == [(1,), (1, 2), (2,)]
        assert _regions(prepare_target(labels, OPTIONS)) == [(1,), (1, 2), (2,), (4, 3)]


class TestShiftsGivenNumbers:
    def test_likelihoods_are_those_of_the_normal_distribution(self):
        model, _ = drawn_model(2.5, 1)
        shape = 2.0 * model.covariance + np.diag(model.variance)
        expected = []
        for size in _SIZES_MM:
            whole = shape + size**2 * model.design_matrix @ model.design_matrix.T
            square = model.difference @ np.linalg.solve(whole, model.difference)
            expected.append(-0.5 * (square + np.linalg.slogdet(whole)[1]))
        np.testing.assert_allclose(_log_likelihoods(model, shape), expected, rtol=1e-9)

    @given(st.integers(0, 1000))
    def test_mean_is_that_of_the_joint_normal_distribution(self, seed):
        model, _ = drawn_model(2.5, seed)
        found, size, variance_ratio, precision = most_likely_shifts(model, rounds=0)
        m, n = model.design_matrix.shape
        joint = np.zeros((n + m, n + m))  # of (s, y), y = -M s + e
        joint[:n, :n] = size**2 * np.eye(n)
        joint[:n, n:] = -joint[:n, :n] @ model.design_matrix.T
        joint[n:, :n] = joint[:n, n:].T
        joint[n:, n:] = model.design_matrix @ joint[:n, :n] @ model.design_matrix.T
        joint[n:, n:] += variance_ratio * model.covariance
        joint[n:, n:] += np.diag(model.variance)
        mean = joint[:n, n:] @ np.linalg.inv(joint[n:, n:]) @ model.difference
        np.testing.assert_allclose(found.T.ravel(), mean, atol=1e-8)
        if size == 0:
            assert not precision.any()
            return
        left = joint[:n, :n] - joint[:n, n:] @ np.linalg.inv(joint[n:, n:]) @ joint[n:, :n]
        np.testing.assert_allclose(precision @ left, np.eye(n), atol=1e-5)

    def test_error_is_small_against_the_shifts(self):
        errors = []
        for seed in range(20):
            model, shifts = drawn_model(2.5, seed)
            errors.append(np.sqrt(((most_likely_shifts(model).shifts_mm - shifts) ** 2).mean()))
        assert np.mean(errors) < 0.4

    def test_a_stranger_to_the_bank_is_recognised(self):
        narrow = [
            drawn_model(2.5, seed)[0]._replace(covariance=drawn_model(2.5, seed)[0].covariance / 5)
            for seed in range(10)
        ]
        usual = np.mean(
            [most_likely_shifts(drawn_model(2.5, s)[0]).variance_ratio for s in range(10)]
        )
        strange = np.mean([most_likely_shifts(each).variance_ratio for each in narrow])
        assert strange > 2 * usual

    def test_no_motion_is_recognised_and_size_is_found(self):
        sizes = {
            size: [most_likely_shifts(drawn_model(size, seed)[0]).size_mm for seed in range(20)]
            for size in (0.0, 1.0, 3.0)
        }
        assert np.mean(np.array(sizes[0.0]) == 0) > 0.6
        assert max(sizes[0.0]) <= 0.25
        assert np.median(sizes[1.0]) == pytest.approx(1.0, abs=0.3)
        assert np.median(sizes[3.0]) == pytest.approx(3.0, abs=1.0)

    def test_one_absurd_number_matters_little(self):
        errors = {rounds: [] for rounds in (0, 2)}
        for seed in range(10):
            model, shifts = drawn_model(2.5, seed)
            absurd = model.difference.copy()
            absurd[9 * 4] += 40.0  # the centre of one structure in slice 4
            for rounds, found in errors.items():
                estimate = most_likely_shifts(model._replace(difference=absurd), rounds)
                found.append(np.abs(estimate.shifts_mm - shifts).max())
        assert np.mean(errors[2]) < 0.3 * np.mean(errors[0])


class TestExpectedShifts:
    OFFSETS = np.array([[0, 0], [1, -1], [-1, 1], [1, 1], [-1, -1], [1, 0], [-1, 0], [0, 0]])

    def test_recovers_shifts_that_no_atlas_bends_like(self):
        target = stored_away(self.OFFSETS)
        found = expected_shifts(target, bent_hearts(40))
        assert found is not None
        labelled = np.flatnonzero(target.labels.array.any(axis=(0, 1)))
        truth = self.OFFSETS[labelled] * target.labels.spacing_mm[:2]
        error = found.shifts_mm[labelled] - (truth - truth.mean(axis=0))
        assert np.sqrt((error**2).mean()) < 0.35 * np.sqrt((truth**2).mean())
        np.testing.assert_allclose(found.shifts_mm[labelled].mean(axis=0), 0, atol=1e-12)
        others = np.setdiff1d(np.arange(8), labelled)
        assert not found.shifts_mm[others].any()

    def test_no_motion_gives_none_at_all_and_the_estimate_follows(self):
        target = stored_away(np.zeros((8, 2), int))
        atlases = bent_hearts(40)
        found = expected_shifts(target, atlases)
        assert found is not None
        assert found.size_mm == 0
        assert not found.shifts_mm.any()
        motion = estimate_slice_motion(target, atlases[:3], OPTIONS, statistics=atlases)
        assert not motion.shifts_mm.any()
        assert not motion.deformations
        asked = estimate_shifts_and_rotations(
            target.labels, lambda _: target, atlases[:3], OPTIONS, statistics=atlases
        )
        assert not asked.turns_degrees.any()

    def test_threads_and_order_of_atlases_do_not_matter(self):
        target, atlases = stored_away(self.OFFSETS), bent_hearts(30)
        one = expected_shifts(target, atlases)
        again = expected_shifts(target, atlases, threads=3)
        turned = expected_shifts(target, atlases[::-1])
        np.testing.assert_array_equal(one.shifts_mm, again.shifts_mm)
        np.testing.assert_allclose(one.shifts_mm, turned.shifts_mm, atol=1e-8)

    def test_too_few_atlases_tell_nothing(self):
        target = stored_away(self.OFFSETS)
        assert expected_shifts(target, bent_hearts(FEWEST_ATLASES - 1)) is None
        alone = estimate_slice_motion(target, bent_hearts(2), OPTIONS)
        few = estimate_slice_motion(target, bent_hearts(2), OPTIONS, statistics=bent_hearts(5))
        np.testing.assert_array_equal(alone.shifts_mm, few.shifts_mm)

    def test_atlases_elsewhere_tell_nothing(self):
        away = np.eye(4)
        away[0, 3] = 900.0
        far = [(labels, Affine(away)) for labels, _ in bent_hearts(30)]
        assert expected_shifts(stored_away(self.OFFSETS), far) is None
