"""Simulated thick slices: majority labels, mean images, the sign of the shifts, lost ends."""

import numpy as np
import pytest

from cardiacreg import InvalidInputError, LabelMap, Subject, Volume
from cardiacreg.degradation import cut_base, simulate_low_resolution
from cardiacreg.phantoms import FIRST_EVALUATION_SEED, sample_heart
from cardiacreg.slice_turns import rotation, slice_axis_mm


@pytest.fixture(scope="module")
def heart():
    return sample_heart(FIRST_EVALUATION_SEED)


def centre_mm(labels, k, value=1):
    inside = np.argwhere(labels.array[:, :, k] == value)
    return inside.mean(axis=0) * labels.spacing_mm[:2] + labels.voxel_to_world[:2, 3]


def test_a_seed_gives_the_same_stack(heart):
    first, again = (simulate_low_resolution(heart, seed=3) for _ in range(2))
    assert np.array_equal(first.subject.labels.array, again.subject.labels.array)
    assert np.array_equal(first.subject.image.array, again.subject.image.array)
    assert np.array_equal(first.slice_shifts_mm, again.slice_shifts_mm)


def test_true_position_is_stored_position_plus_shift(heart):
    options = {"seed": 1, "lost_apical_slices": 0}
    still = simulate_low_resolution(heart, shift_sd_mm=0.0, **options)
    moved = simulate_low_resolution(heart, shift_sd_mm=3.0, **options)
    assert np.array_equal(still.slice_shifts_mm, np.zeros_like(moved.slice_shifts_mm))
    big = np.flatnonzero((still.subject.labels.array == 1).sum(axis=(0, 1)) > 200)
    assert len(big) > 3
    for k in big:
        stored, true = (centre_mm(x.subject.labels, k) for x in (moved, still))
        assert stored + moved.slice_shifts_mm[k] == pytest.approx(true, abs=0.5)


def test_without_shift_labels_are_the_majority_and_the_image_the_mean():
    rng = np.random.default_rng(0)
    array = np.zeros((12, 12, 12), dtype=np.uint8)
    array[3:9, 3:9, 2:11] = 2
    array[4:8, 4:8, 5:11] = 1
    labels = LabelMap(array, np.diag([1.0, 1.0, 2.0, 1.0]))
    image = Volume(rng.uniform(0, 9, array.shape), labels.voxel_to_world)
    stack = simulate_low_resolution(
        Subject(labels, image), seed=0, slice_thickness_mm=2.0, shift_sd_mm=0, lost_apical_slices=0
    ).subject
    offset = stack.labels.voxel_to_world[2, 3] / 2.0
    low = int(np.floor(offset + 1))
    weight = offset + 1 - low
    for k in range(1, stack.labels.shape[2] - 1):
        i = low - 1 + k
        expected = (1 - weight) * image.array[:, :, i] + weight * image.array[:, :, i + 1]
        assert stack.image.array[:, :, k] == pytest.approx(expected, abs=1e-4)
        nearer = array[:, :, i] if weight < 0.5 else array[:, :, i + 1]
        assert np.array_equal(stack.labels.array[:, :, k], nearer)
        if k + low >= 10:
            break


def test_the_stack_covers_the_heart_in_thick_slices(heart):
    stack = simulate_low_resolution(heart, seed=2, slice_thickness_mm=8.0, in_plane_spacing_mm=1.5)
    assert stack.subject.labels.spacing_mm == pytest.approx([1.5, 1.5, 8.0])
    assert stack.subject.image.shape == stack.subject.labels.shape
    assert len(stack.slice_shifts_mm) == stack.subject.labels.shape[2]
    assert stack.subject.landmarks is None
    assert stack.subject.labels.present() == (1, 2, 3, 4)


def test_lost_apical_slices_are_dropped_or_unlabelled(heart):
    whole, dropped, blank = (
        simulate_low_resolution(heart, seed=4, lost_apical_slices=n, drop_lost_slices=drop)
        for n, drop in [(0, True), (2, True), (2, False)]
    )
    labelled = [x.subject.labels.array.any(axis=(0, 1)).sum() for x in (whole, dropped, blank)]
    assert labelled == [labelled[0], labelled[0] - 2, labelled[0] - 2]
    assert blank.subject.labels.shape == whole.subject.labels.shape
    assert np.array_equal(
        dropped.slice_shifts_mm, whole.slice_shifts_mm[-len(dropped.slice_shifts_mm) :]
    )
    assert dropped.subject.labels.voxel_to_world[2, 3] > whole.subject.labels.voxel_to_world[2, 3]


@pytest.mark.parametrize("reverse", [False, True])
def test_the_base_is_cut_whichever_way_the_slices_run(heart, reverse):
    labels = heart.labels
    if reverse:
        matrix = np.array(labels.voxel_to_world)
        matrix[:3, 3] += matrix[:3, 2] * (labels.shape[2] - 1)
        matrix[:3, 2] *= -1
        labels = LabelMap(labels.array[:, :, ::-1], matrix)
    cut = cut_base(labels, heart.landmarks.points_mm[5], below_mm=6.0)
    heights = labels.voxel_to_world[2, 3] + labels.voxel_to_world[2, 2] * np.arange(labels.shape[2])
    kept = heights <= heart.landmarks.points_mm[5][2] - 6.0
    assert np.array_equal(cut.array[:, :, kept], labels.array[:, :, kept])
    assert not cut.array[:, :, ~kept].any()


def test_a_cut_stack_comes_with_its_cut_truth(heart):
    stack = simulate_low_resolution(heart, seed=5, cut_base_mm=6.0)
    heights = np.flatnonzero(stack.reference.array.any(axis=(0, 1)))
    top = stack.reference.voxel_to_world[2, 3] + 2.0 * heights[-1]
    assert top <= heart.landmarks.points_mm[5][2] - 6.0


@pytest.mark.parametrize(
    "wrong",
    [{"slice_thickness_mm": 1.0}, {"lost_apical_slices": -1}, {"lost_apical_slices": 99}],
)
def test_wrong_requests_are_refused(heart, wrong):
    with pytest.raises(InvalidInputError):
        simulate_low_resolution(heart, seed=0, **wrong)


def test_an_image_on_another_grid_is_refused(heart):
    image = Volume(np.zeros((4, 4, 4)), np.eye(4))
    with pytest.raises(InvalidInputError):
        simulate_low_resolution(Subject(heart.labels, image), seed=0)


def test_true_position_is_the_turned_stored_position(heart):
    """c + R (x + s - c), c the mean in-plane position of the labels; centroids obey it too."""
    options = {"seed": 1, "lost_apical_slices": 0}
    still = simulate_low_resolution(heart, shift_sd_mm=0.0, **options)
    moved = simulate_low_resolution(heart, shift_sd_mm=2.0, turn_sd_degrees=8.0, **options)
    assert np.abs(moved.slice_turns_degrees).max() > 5
    axis = slice_axis_mm(heart.labels) + heart.labels.voxel_to_world[:2, 3]
    for k in np.flatnonzero((still.subject.labels.array == 4).sum(axis=(0, 1)) > 1000):
        for value in (1, 4):
            stored, true = (centre_mm(x.subject.labels, k, value) for x in (moved, still))
            turn = rotation(moved.slice_turns_degrees[k])
            placed = axis + turn @ (stored + moved.slice_shifts_mm[k] - axis)
            assert placed == pytest.approx(true, abs=0.5)
