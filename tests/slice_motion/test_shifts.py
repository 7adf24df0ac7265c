import numpy as np
import pytest

from cardiacreg import Affine, InvalidInputError, LabelMap, RefineOptions, Volume
from cardiacreg.phantoms.toy_heart import make_toy_heart
from cardiacreg.registration.ffd_registration import RegistrationOptions, prepare_target
from cardiacreg.slice_motion.rotations import (
    estimate_shifts_and_rotations,
    rotate_image,
    rotate_labels,
)
from cardiacreg.slice_motion.shifts import (
    estimate_slice_motion,
    fuse_estimates,
    robust_median,
    weighted_median,
)
from cardiacreg.slices import slice_axis_mm
from tests.helpers.strategies import oblique_matrix

OPTIONS = RegistrationOptions(
    spacings_mm=(64.0,), strides=(1,), iterations=(40,), bending_weight=3.0, estimate_shifts=True
)
VOXELS = np.array([[0, 0], [2, -1], [-2, 1], [1, 2], [-1, -2], [2, 1], [-2, -1], [0, 0]])


def moved_heart(matrix=None):
    """The tiny heart with slices stored away from where they belong, and their true shifts in mm."""
    labels = make_toy_heart().labels
    array = np.array(labels.array)
    for k, offset in enumerate(VOXELS):
        array[:, :, k] = np.roll(array[:, :, k], -offset, axis=(0, 1))
    return LabelMap(array, labels.voxel_to_world if matrix is None else matrix), VOXELS * 2.5


def atlases(matrix=None, count=1):
    labels = make_toy_heart().labels
    placed = LabelMap(labels.array, labels.voxel_to_world if matrix is None else matrix)
    return [(placed, Affine.identity())] * count


def spread(values):
    return float(np.sqrt(((values - values.mean(axis=0)) ** 2).mean()))


def turned():
    return oblique_matrix(np.random.default_rng(0), (2.5, 2.5, 8.0), left_handed=True)


@pytest.mark.parametrize("matrix", [None, turned()], ids=["straight", "oblique and left-handed"])
def test_recovers_shifts_in_the_targets_own_axes(matrix):
    target, truth = moved_heart(matrix)
    found = estimate_slice_motion(
        prepare_target(target, OPTIONS), atlases(matrix), OPTIONS
    ).shifts_mm
    assert found.shape == (8, 2)
    assert spread((found - truth)[1:7]) < 0.5 * spread(truth[1:7])


def test_sum_of_shifts_is_zero_and_unlabelled_slices_stay():
    found = estimate_slice_motion(
        prepare_target(moved_heart()[0], OPTIONS), atlases(), OPTIONS
    ).shifts_mm
    np.testing.assert_allclose(found[1:7].mean(axis=0), 0, atol=1e-12)
    assert not found[[0, 7]].any()


def test_a_heart_without_motion_stays():
    labels = make_toy_heart().labels
    found = estimate_slice_motion(prepare_target(labels, OPTIONS), atlases(), OPTIONS).shifts_mm
    np.testing.assert_allclose(found, 0, atol=1e-9)


def test_agreement_is_the_median_so_that_one_bad_atlas_does_not_count():
    target, _ = moved_heart()
    prepared = prepare_target(target, OPTIONS)
    stray = np.eye(4)
    stray[:3, 3] = (12.0, -9.0, 0.0)
    good = estimate_slice_motion(prepared, atlases(count=3), OPTIONS).shifts_mm
    mixed = estimate_slice_motion(
        prepared, [*atlases(count=3), (make_toy_heart().labels, Affine(stray))], OPTIONS
    ).shifts_mm
    assert spread(mixed - good) < 1.0


def test_an_atlas_that_does_not_overlap_has_no_say():
    target, _ = moved_heart()
    prepared = prepare_target(target, OPTIONS)
    far = np.eye(4)
    far[0, 3] = 900.0
    away = (make_toy_heart().labels, Affine(far))
    good = estimate_slice_motion(prepared, atlases(), OPTIONS).shifts_mm
    mixed = estimate_slice_motion(prepared, [away, *atlases(), away], OPTIONS).shifts_mm
    np.testing.assert_array_equal(mixed, good)


def test_progress_is_reported_per_atlas():
    seen = []
    estimate_slice_motion(
        prepare_target(moved_heart()[0], OPTIONS), atlases(count=2), OPTIONS, progress=seen.append
    )
    assert [(p.step, p.done, p.total) for p in seen] == [
        ("slice motion", 1, 2),
        ("slice motion", 2, 2),
    ]


class TestAgreement:
    def motions(self, size, own=0.5):
        """Shifts of twelve atlases that share an error and have one of their own."""
        rng = np.random.default_rng(1)
        return size * rng.normal(size=(9, 2)) + own * rng.normal(size=(12, 9, 2))

    def test_noise_goes_to_zero(self):
        assert not robust_median(self.motions(0.2), np.ones(12)).any()

    def test_clear_motion_is_kept(self):
        motions = self.motions(4.0)
        median = np.median(motions - motions.mean(axis=1, keepdims=True), axis=0)
        agreed = robust_median(motions, np.ones(12))
        np.testing.assert_allclose(agreed, median - median.mean(axis=0), rtol=0.01)

    def test_one_atlas_is_believed(self):
        motions = self.motions(1.0)[:1]
        agreed = robust_median(motions, np.ones(1))
        np.testing.assert_allclose(agreed, motions[0] - motions[0].mean(axis=0))

    def test_atlases_that_fit_better_say_more(self):
        """Four of twelve agree and fit clearly better: the others, all wrong alike, do not count."""
        rng = np.random.default_rng(2)
        truth, wrong = 8 * rng.normal(size=(9, 2)), rng.normal(size=(9, 2))
        motions = np.stack([truth] * 4 + [truth + wrong] * 8)
        consistencies = np.array([0.95] * 4 + [0.90] * 8)
        agreed = robust_median(motions, consistencies)
        assert spread(agreed - truth) < 0.02 * spread(wrong)
        assert spread(robust_median(motions, np.ones(12)) - truth) > 0.5 * spread(wrong)

    @pytest.mark.parametrize("count", [1, 2, 3, 6, 7])
    def test_median_of_equal_weights_is_the_usual_one(self, count):
        values = np.random.default_rng(count).normal(size=(count, 4, 2))
        found = weighted_median(values, np.ones(count))
        np.testing.assert_allclose(found, np.median(values, axis=0))


class TestCombination:
    """Registered shifts of twelve atlases, and shifts that statistics expect with some precision."""

    def given(self, seed=3, n=7):
        rng = np.random.default_rng(seed)
        expected = rng.normal(size=(n, 2))
        root = rng.normal(size=(2 * n, 2 * n))
        registered = expected - expected.mean(axis=0) + 0.3 * rng.normal(size=(12, n, 2))
        return registered, np.ones(12), expected, root @ root.T + np.eye(2 * n)

    def test_is_the_minimum_of_both_squared_distances(self):
        registered, consistencies, expected, precision = self.given()
        found = fuse_estimates(registered, consistencies, expected, precision)
        centred = registered - registered.mean(axis=1, keepdims=True)
        median = np.median(centred, axis=0)
        median -= median.mean(axis=0)
        strays = centred - median

        def cost(shifts):
            gap = (shifts - expected).T.ravel()
            total = gap @ precision @ gap
            for axis in range(2):
                covariance = 0.5 * strays[..., axis].T @ strays[..., axis] / 12 + 0.16 * np.eye(7)
                inverse = np.linalg.inv(covariance)
                off = shifts[:, axis] - median[:, axis]
                off -= inverse.sum(axis=0) @ off / inverse.sum()  # the best common shift is free
                total += off @ inverse @ off
            return total

        shared = np.linspace(-3, 3, 2401)
        along = min(shared, key=lambda c: cost(found + [c, 0.0]))
        across = min(shared, key=lambda c: cost(found + [along, c]))
        for _ in range(3):
            along = min(shared, key=lambda c: cost(found + [c, across]))
            across = min(shared, key=lambda c: cost(found + [along, c]))
        best = found + [along, across]
        rng = np.random.default_rng(0)
        for _ in range(50):
            assert cost(best + 0.1 * rng.normal(size=best.shape)) > cost(best)

    def test_who_is_sure_is_believed(self):
        registered, consistencies, expected, precision = self.given()
        sure = fuse_estimates(registered, consistencies, expected, 1e6 * precision)
        np.testing.assert_allclose(sure, expected - expected.mean(axis=0), atol=1e-3)
        unsure = fuse_estimates(registered, consistencies, expected, 1e-6 * np.eye(14))
        np.testing.assert_allclose(unsure, robust_median(registered, consistencies), atol=0.02)

    def test_mean_is_zero_and_a_shared_shift_of_the_atlases_says_nothing(self):
        registered, consistencies, expected, precision = self.given(4)
        found = fuse_estimates(registered, consistencies, expected, precision)
        np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-12)
        moved = fuse_estimates(registered + [5.0, -3.0], consistencies, expected, precision)
        np.testing.assert_allclose(moved, found, atol=1e-9)


class TestTurns:
    TRUTH = np.array([0, 8, -8, 5, 3, -6, -2, 0.0])

    def found(self, target, threads=1):
        def prepare(labels):
            return prepare_target(labels, OPTIONS)

        return estimate_shifts_and_rotations(
            target, prepare, atlases(count=3), OPTIONS, threads=threads
        )

    def test_are_recovered_where_target_and_atlas_share_a_lattice(self):
        """A descent stops at no turn there: the objective has a kink at every voxel."""
        labels = make_toy_heart().labels
        target = rotate_labels(labels, np.zeros((8, 2)), -self.TRUTH)
        found = self.found(target)
        held = slice(2, 7)  # the apical slice is round
        assert spread((found.turns_degrees - self.TRUTH)[held]) < 0.5 * spread(self.TRUTH[held])
        assert not found.turns_degrees[[0, 7]].any()
        still, better = (
            (array[:, :, held] != labels.array[:, :, held]).mean()
            for array in (target.array, found.turned.array)
        )
        assert better < 0.7 * still

    def test_are_none_in_a_heart_without_motion(self):
        labels = make_toy_heart().labels
        found = self.found(labels)
        np.testing.assert_allclose(found.turns_degrees, 0, atol=0.3)
        np.testing.assert_allclose(found.motion.shifts_mm, 0, atol=0.3)

    def test_are_the_same_for_any_number_of_threads(self):
        target = moved_heart()[0]
        alone, two = self.found(target), self.found(target, threads=2)
        np.testing.assert_array_equal(alone.turns_degrees, two.turns_degrees)
        np.testing.assert_array_equal(alone.motion.shifts_mm, two.motion.shifts_mm)

    def test_turning_labels_back_undoes_turning_them(self):
        labels, still = make_toy_heart().labels, np.zeros((8, 2))
        turned = rotate_labels(labels, still, self.TRUTH)
        back = rotate_labels(turned, still, -self.TRUTH)
        differs = (back.array != labels.array)[labels.array > 0].mean()
        moved = (turned.array != labels.array)[labels.array > 0].mean()
        assert 0 < differs < 0.6 * moved

    def test_an_image_turns_with_its_labels(self):
        labels, shifts = make_toy_heart().labels, VOXELS * 2.5
        image = Volume((labels.array == 1).astype(np.float32), labels.voxel_to_world)
        turned = rotate_labels(labels, shifts, self.TRUTH).array == 1
        found = rotate_image(image, slice_axis_mm(labels), shifts, self.TRUTH).array > 0.5
        assert (found != turned).sum() < 0.1 * turned.sum()

    def test_need_shifts(self):
        with pytest.raises(InvalidInputError, match="slice_motion"):
            RefineOptions(slice_turns=True, slice_motion=None)
