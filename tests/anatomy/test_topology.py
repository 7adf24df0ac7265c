import numpy as np
import pytest
from hypothesis import given
from scipy import ndimage

from cardiacreg import LabelMap
from cardiacreg.anatomy.topology import clean_topology
from cardiacreg.geometry import LV_CAVITY, LV_WALL, RV_CAVITY, RV_WALL, STRUCTURES
from cardiacreg.phantoms.toy_heart import make_toy_heart
from tests.helpers.strategies import blobs, few, light, oblique_matrix, random_labels, seeds

FACES = ndimage.generate_binary_structure(3, 1)


def components(array, label):
    return ndimage.label(array == label, FACES)[1]


def closed_background(array):
    pieces, count = ndimage.label(np.pad(array, 1) == 0, FACES)
    return count - 1


def touches(array, label, others):
    return bool((ndimage.binary_dilation(array == label, FACES) & np.isin(array, others)).any())


def cleaned(array):
    return np.array(clean_topology(LabelMap(array, np.eye(4))).array)


def assert_whole(array):
    assert all(components(array, label) <= 1 for label in STRUCTURES)
    assert closed_background(array) == 0


def assert_clean(array):
    assert_whole(array)
    assert not touches(array, LV_CAVITY, (RV_CAVITY, RV_WALL))


def heart():
    return np.array(make_toy_heart().labels.array)


def test_a_clean_heart_is_unchanged():
    np.testing.assert_array_equal(cleaned(cleaned(heart())), cleaned(heart()))
    assert_clean(cleaned(heart()))


def test_an_island_is_removed_in_background_and_absorbed_inside_the_heart():
    expected, array = cleaned(heart()), cleaned(heart())
    middle = tuple(int(n) for n in np.argwhere(array == LV_CAVITY).mean(axis=0).round())
    array[middle] = RV_WALL
    array[1, 1, 1] = LV_WALL
    np.testing.assert_array_equal(cleaned(array), expected)


def test_a_pocket_of_background_is_filled():
    array = cleaned(heart())
    middle = tuple(int(n) for n in np.argwhere(array == LV_CAVITY).mean(axis=0).round())
    array[middle] = 0
    assert cleaned(array)[middle] == LV_CAVITY


@pytest.mark.parametrize("right", [RV_CAVITY, RV_WALL])
def test_the_septum_is_closed_with_wall(right):
    array = np.zeros((9, 5, 5), dtype=np.uint8)
    array[1:4, 1:4, 1:4] = right
    array[4:8, 1:4, 1:4] = LV_CAVITY
    found = cleaned(array)
    assert (found[4, 1:4, 1:4] == LV_WALL).all()
    assert (found[5:8, 1:4, 1:4] == LV_CAVITY).all()
    assert (found[1:4, 1:4, 1:4] == right).all()


def test_an_open_apex_is_closed_from_outside_and_the_base_stays_open():
    """The wall is laid around the cavity, in one piece with the rest; the cavity keeps its voxels."""
    array = cleaned(heart())
    cavity = array == LV_CAVITY
    low = np.flatnonzero(cavity.any(axis=(0, 1)))[0]
    opened = np.array(array)
    opened[:, :, :low][opened[:, :, :low] == LV_WALL] = 0
    assert touches(opened[:, :, : low + 1], LV_CAVITY, (0,))
    found = cleaned(opened)
    np.testing.assert_array_equal(found == LV_CAVITY, cavity)
    assert not touches(found[:, :, : low + 2], LV_CAVITY, (0,))
    np.testing.assert_array_equal(found[:, :, low + 1 :], array[:, :, low + 1 :])
    assert touches(found, LV_CAVITY, (0,))
    assert components(found, LV_WALL) == 1


def test_the_largest_component_stays():
    array = np.zeros((12, 3, 3), dtype=np.uint8)
    array[:7], array[9:] = LV_WALL, LV_WALL
    found = cleaned(array)
    assert (found[:7] == LV_WALL).all()
    assert not found[7:].any()


def noisy_blobs(seed):
    rng = np.random.default_rng(seed)
    shape = (12, 11, 8)
    return np.where(rng.random(shape) < 0.1, random_labels(rng, shape), blobs(rng, shape))


@light
@given(seeds)
def test_any_map_comes_out_whole(seed):
    assert_whole(cleaned(noisy_blobs(seed)))


@few
@given(seeds)
def test_a_ragged_heart_comes_out_clean(seed):
    """Voxels replaced at random, most of them where structures meet."""
    rng = np.random.default_rng(seed)
    array = heart()
    limit = np.array(array.shape).reshape(3, 1, 1, 1) - 1
    source = np.indices(array.shape) + rng.integers(-1, 2, size=(3, *array.shape))
    source = np.clip(source, 0, limit)
    array = np.where(rng.random(array.shape) < 0.2, array[tuple(source)], array)
    assert_clean(cleaned(array))


@light
@given(seeds)
def test_no_new_labels_but_septal_wall(seed):
    rng = np.random.default_rng(seed)
    array = np.where(rng.random((12, 11, 8)) < 0.1, 0, blobs(rng, labels=(1, 4)))
    assert set(np.unique(cleaned(array))) <= {0, LV_CAVITY, RV_CAVITY, LV_WALL}


@light
@given(seeds)
def test_cleaning_twice_changes_nothing(seed):
    once = cleaned(noisy_blobs(seed))
    np.testing.assert_array_equal(cleaned(once), once)


def test_lattice_is_kept_and_an_empty_map_is_returned():
    matrix = oblique_matrix(np.random.default_rng(0))
    empty = LabelMap(np.zeros((3, 3, 3)), matrix)
    assert clean_topology(empty) is empty
    kept = clean_topology(LabelMap(heart(), matrix))
    np.testing.assert_array_equal(kept.voxel_to_world, matrix)
