"""Ends of ventricles: smooth beyond the outermost slices, untouched between them."""

import numpy as np
import pytest

from cardiacreg.anatomy.end_shapes import end_roughness, smooth_ends
from cardiacreg.geometry import LV_CAVITY, LV_WALL, RV_CAVITY, RV_WALL, LabelMap

MODEL = np.diag([1.25, 1.25, 2.0, 1.0])
STACK = np.diag([1.25, 1.25, 10.0, 1.0])


def heart():
    """Two ventricles as cylinders of 60 mm along k, from 10 mm on."""
    x, y = np.meshgrid(np.arange(64) * 1.25, np.arange(64) * 1.25, indexing="ij")
    left, right = np.hypot(x - 50, y - 40), np.hypot(x - 18, y - 40)
    plane = np.zeros((64, 64), dtype=np.uint8)
    plane[right < 16] = RV_WALL
    plane[right < 13] = RV_CAVITY
    plane[left < 20] = LV_WALL
    plane[left < 13] = LV_CAVITY
    array = np.zeros((64, 64, 40), dtype=np.uint8)
    array[:, :, 5:35] = plane[:, :, None]
    return array


def stack(array):
    """Thick slices of it: those at 20, 30, 40 and 50 mm carry labels."""
    slices = np.zeros((64, 64, 8), dtype=np.uint8)
    slices[:, :, 2:6] = array[:, :, 10:30:5]
    return LabelMap(slices, STACK)


def with_columns(array):
    """Columns that stand on the top, and a hole in the roof."""
    ragged = array.copy()
    ragged[40, 32, 35:38] = LV_CAVITY
    ragged[14, 30, 35:38] = RV_CAVITY
    ragged[36, 36, 33:35] = 0
    return ragged


def test_columns_and_holes_at_an_end_go():
    array = heart()
    found = smooth_ends(LabelMap(with_columns(array), MODEL), stack(array)).array
    assert not found[:, :, 36:].any()
    assert found[36, 36, 33] == LV_CAVITY
    clean = smooth_ends(LabelMap(array, MODEL), stack(array)).array
    assert (found != clean).mean() < 1e-4


def test_what_lies_between_the_outermost_slices_stays():
    array = with_columns(heart())
    array[40, 32, 20] = 0
    found = smooth_ends(LabelMap(array, MODEL), stack(heart())).array
    np.testing.assert_array_equal(found[:, :, 10:26], array[:, :, 10:26])


def test_each_ventricle_ends_by_itself():
    array = with_columns(heart())
    target = stack(heart())
    slices = np.array(target.array)
    slices[:, :, 4:][np.isin(slices[:, :, 4:], (RV_CAVITY, RV_WALL))] = 0
    array[18, 32, 20:24] = 0
    found = smooth_ends(LabelMap(array, MODEL), LabelMap(slices, STACK)).array
    assert found[18, 32, 22] == RV_CAVITY


def test_walls_keep_their_thickness_and_volumes_hardly_change():
    array = heart()
    found = smooth_ends(LabelMap(array, MODEL), stack(array)).array
    for label, most in ((LV_CAVITY, 0.01), (LV_WALL, 0.03), (RV_CAVITY, 0.01), (RV_WALL, 0.08)):
        before, after = (array == label).sum(), (found == label).sum()
        assert after == pytest.approx(before, rel=most), label


def test_flipped_lattices_give_the_same():
    array = with_columns(heart())
    straight = smooth_ends(LabelMap(array, MODEL), stack(heart())).array
    matrix = MODEL @ np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, 39], [0, 0, 0, 1]])
    flipped = smooth_ends(LabelMap(array[:, :, ::-1], matrix), stack(heart())).array
    np.testing.assert_array_equal(flipped[:, :, ::-1], straight)


def test_a_stack_without_one_ventricle_leaves_it_alone():
    array = with_columns(heart())
    slices = np.array(stack(heart()).array)
    slices[np.isin(slices, (RV_CAVITY, RV_WALL))] = 0
    found = smooth_ends(LabelMap(array, MODEL), LabelMap(slices, STACK)).array
    assert found[14, 30, 36] == RV_CAVITY


def test_roughness_tells_ragged_ends_from_smooth_ones():
    array, target = heart(), stack(heart())
    rng = np.random.default_rng(3)
    ragged = array.copy()
    columns = rng.random(array.shape[:2]) < 0.4
    ragged[:, :, 35:37] = np.where(columns[..., None], array[:, :, 34:35], 0)
    smooth, rough = (end_roughness(LabelMap(a, MODEL), target) for a in (array, ragged))
    mended = end_roughness(smooth_ends(LabelMap(ragged, MODEL), target), target)
    assert smooth < 0.02 < 0.08 < rough
    assert mended < 0.5 * rough


def test_roughness_of_nothing_is_zero():
    empty = LabelMap(np.zeros((8, 8, 8), dtype=np.uint8), MODEL)
    assert end_roughness(empty, empty) == 0.0
