"""Slices that are there twice, in another order or of two hearts are noticed."""

import numpy as np
import pytest

from cardiacreg import InputWarning, InvalidInputError, LabelMap, Volume
from cardiacreg.anatomy.slice_order import (
    image_in_order,
    left_ventricle_along,
    repeats,
    slice_order,
)
from cardiacreg.errors import kept_warnings
from cardiacreg.phantoms.acquisition import simulate_low_resolution
from cardiacreg.phantoms.hearts import sample_heart
from cardiacreg.refinement.target import gather_target
from tests.helpers.small_hearts import small_heart


@pytest.fixture(scope="module", params=[(10_021, "ED"), (10_022, "ED"), (10_025, "ES")])
def scan(request):
    seed, phase = request.param
    heart = sample_heart(seed, group="healthy", phase=phase)
    return simulate_low_resolution(heart, seed=seed).subject


@pytest.fixture(scope="module")
def stack(scan):
    return scan.labels


def restacked(labels, array, thinner=1):
    matrix = np.array(labels.voxel_to_world)
    matrix[:, 2] /= thinner
    return LabelMap(array, matrix)


def refused(labels):
    with pytest.raises(InvalidInputError) as error, kept_warnings():
        slice_order(labels)
    return error.value


def test_a_stack_in_order_passes_without_a_word(stack):
    assert slice_order(stack) is None
    assert slice_order(restacked(stack, stack.array[:, :, ::-1])) is None
    assert (repeats(stack) == 1).all()


@pytest.mark.parametrize("times", [2, 3])
def test_slices_that_are_there_several_times_are_refused(stack, times):
    error = refused(restacked(stack, np.repeat(stack.array, times, axis=2)))
    assert error.code == "REPEATED_SLICES" and f"{times} times" in str(error)


def test_a_stack_resampled_by_nearest_neighbour_is_told(stack):
    with pytest.warns(InputWarning, match="resampling by nearest neighbour"):
        assert slice_order(restacked(stack, np.repeat(stack.array, 5, axis=2), 5)) is None
    with pytest.warns(InputWarning, match="resampling by nearest neighbour"):
        uneven = stack.array[:, :, (np.arange(0, stack.shape[2], 0.4)).astype(int)]
        slice_order(restacked(stack, uneven, 2.5))


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("trimmed", [False, True])
def test_a_whole_stack_that_is_there_twice_is_refused(stack, backwards, trimmed):
    array = stack.array
    if trimmed:
        array = array[:, :, np.flatnonzero(array.any(axis=(0, 1)))]
    second = array[:, :, ::-1] if backwards else array
    error = refused(restacked(stack, np.concatenate([array, second], axis=2)))
    assert error.code == "REPEATED_SLICES"


def test_two_frames_after_each_other_or_slice_by_slice_are_refused():
    stacks = [
        simulate_low_resolution(sample_heart(10_022, group="healthy", phase=phase), seed=2)
        for phase in ("ED", "ES")
    ]
    first, second = (each.subject.labels for each in stacks)
    i, j, n = np.minimum(first.shape, second.shape)
    arrays = [each.array[:i, :j, :n] for each in (first, second)]
    assert refused(restacked(first, np.concatenate(arrays, axis=2))).code == "REPEATED_SLICES"
    mixed = np.stack(arrays, axis=3).reshape(i, j, 2 * n)
    with kept_warnings() as notes:
        try:
            slice_order(restacked(first, mixed))
        except InvalidInputError:
            return
    assert notes


@pytest.mark.parametrize("first", [0, 1])
def test_an_interleaved_order_is_put_right_with_a_warning(stack, first):
    n = stack.shape[2]
    stored = np.concatenate([np.arange(first, n, 2), np.arange(1 - first, n, 2)])
    mixed = restacked(stack, stack.array[:, :, stored])
    with pytest.warns(InputWarning, match="interleaved"):
        order = slice_order(mixed)
    np.testing.assert_array_equal(mixed.array[:, :, list(order)], stack.array)


@pytest.mark.parametrize("image_is_mixed", [False, True])
def test_both_are_put_in_order_unless_the_image_is(scan, image_is_mixed):
    labels = scan.labels
    n = labels.shape[2]
    image = 100.0 * np.isin(labels.array, (1, 4)) + 30 * (labels.array == 2)
    stored = np.concatenate([np.arange(0, n, 2), np.arange(1, n, 2)])
    mixed = restacked(labels, labels.array[:, :, stored])
    picture = Volume(image[:, :, stored] if image_is_mixed else image, labels.voxel_to_world)
    with pytest.warns(InputWarning, match="interleaved"):
        target = gather_target(mixed, picture, None, None, None)
    np.testing.assert_array_equal(target.labels.array, labels.array)
    np.testing.assert_array_equal(target.image.array, image.astype(np.float32))
    ordered = Volume(image, labels.voxel_to_world)
    assert image_in_order(ordered, tuple(range(0, n, 2)) + tuple(range(1, n, 2))) is ordered


def test_one_copied_slice_is_told(stack):
    array = stack.array.copy()
    middle = int(np.flatnonzero(array.any(axis=(0, 1))).mean())
    array[:, :, middle + 1] = array[:, :, middle]
    with pytest.warns(InputWarning, match=rf"slices \[{middle}\] are followed by exact copies"):
        assert slice_order(restacked(stack, array)) is None


def test_a_bad_slice_is_told(stack):
    array = stack.array.copy()
    held = np.flatnonzero((array == 1).any(axis=(0, 1)))
    for k in held[[2, -3]]:
        array[:, :, k][np.random.default_rng(0).random(array.shape[:2]) < 0.9] = 0
    with pytest.warns(InputWarning, match="rise and fall once"):
        assert slice_order(restacked(stack, array)) is None


def test_gaps_and_stacks_of_few_slices_are_left_alone(stack):
    array = stack.array.copy()
    middle = int(np.flatnonzero(array.any(axis=(0, 1))).mean())
    array[:, :, middle] = 0
    assert slice_order(restacked(stack, array)) is None
    assert slice_order(small_heart(shape=(40, 40, 5))) is None
    assert slice_order(small_heart()) is None


def test_a_wrong_distance_between_slices_is_noticed(stack):
    matrix = np.array(stack.voxel_to_world)
    matrix[:, 2] *= 2.2
    assert "times as long as wide" in str(refused(LabelMap(stack.array, matrix)))


def test_how_much_of_the_lv_a_stack_shows(stack):
    found = left_ventricle_along(stack)
    assert found["lv_slices"] >= 6 and 0.8 < found["lv_length_over_width"] < 1.6
    nothing = LabelMap(np.where(stack.array == 4, 4, 0), stack.voxel_to_world)
    assert left_ventricle_along(nothing) == {}
