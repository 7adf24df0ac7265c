import numpy as np
import pytest

from cardiacreg import InputWarning, InvalidInputError, LabelMap
from cardiacreg.anatomy.landmarks import landmarks_from_labels
from cardiacreg.geometry import LANDMARK_NAMES
from tests.helpers.small_hearts import relabelled
from tests.helpers.strategies import oblique_matrix

SPACING_MM = (1.5, 1.5, 4.0)
LENGTH_MM = 88.0


def conical_heart(*, rv=True, first_slice=1):
    """An LV like a paraboloid of length 88 mm with its tip at z = 0, an RV on the side of -x.

    Voxel (0, 0, 0) is at (-60, -60, -8) mm; x and y are centred on the LV, base at large k.
    """
    shape = (80, 80, 26)
    x, y, z = (
        np.arange(n).reshape([-1 if a == axis else 1 for a in range(3)]) * SPACING_MM[axis] + start
        for axis, (n, start) in enumerate(zip(shape, (-60, -60, -8), strict=True))
    )
    z = np.broadcast_to(z, shape)
    array = np.zeros(shape, dtype=np.uint8)
    if rv:
        array[((x + 22) ** 2 + y**2 < 26**2 * z / LENGTH_MM) & (z > 8)] = 4
    left = x**2 + y**2
    array[left < 30**2 * z / LENGTH_MM] = 2
    array[left < 20**2 * (z - 8) / LENGTH_MM] = 1
    array[z > LENGTH_MM] = 0
    array[:, :, : 2 + first_slice] = 0
    matrix = np.diag([*SPACING_MM, 1.0])
    matrix[:3, 3] = (-60, -60, -8)
    return LabelMap(array, matrix)


def test_six_points_by_the_rule():
    found = landmarks_from_labels(conical_heart())
    assert found.source == "labels"
    assert found.names == LANDMARK_NAMES
    anterior, turning, inferior, lateral, apex, mitral = found.points_mm
    np.testing.assert_allclose(apex, (0, 0, 0), atol=4)
    np.testing.assert_allclose(mitral, (0, 0, LENGTH_MM), atol=4)
    np.testing.assert_allclose(found.points_mm[:4, 2], LENGTH_MM / 2, atol=4)
    assert turning[0] < anterior[0] < 0 < lateral[0]
    assert anterior[1] == pytest.approx(-inferior[1], abs=2)
    assert lateral[1] == pytest.approx(0, abs=1)


def test_anterior_is_the_long_axis_crossed_with_the_direction_to_the_rv():
    anterior, _, inferior, *_, apex, mitral = landmarks_from_labels(conical_heart()).points_mm
    towards_rv = np.array([-1.0, 0.0, 0.0])
    assert (anterior - inferior) @ np.cross(mitral - apex, towards_rv) > 0


@pytest.mark.parametrize("lost", [2, 4])
def test_lost_apical_slices_hardly_move_the_apex(lost):
    apex = landmarks_from_labels(conical_heart(first_slice=lost)).points_mm[4]
    np.testing.assert_allclose(apex, (0, 0, 0), atol=6)


@pytest.mark.parametrize("flips", [(0,), (1,), (2,), (0, 1), (0, 1, 2)])
def test_storage_order_does_not_matter(flips):
    """The same heart stored from the other end of an axis has the same landmarks in the world."""
    heart = conical_heart()
    matrix = np.array(heart.voxel_to_world)
    for axis in flips:
        matrix[:3, 3] += matrix[:3, axis] * (heart.shape[axis] - 1)
        matrix[:3, axis] *= -1
    flipped = LabelMap(np.flip(heart.array, flips), matrix)
    expected = landmarks_from_labels(heart).points_mm
    np.testing.assert_allclose(landmarks_from_labels(flipped).points_mm, expected, atol=0.2)


def test_landmarks_turn_with_the_heart():
    heart = conical_heart()
    turned = oblique_matrix(np.random.default_rng(0), SPACING_MM)
    to_new = turned @ np.linalg.inv(heart.voxel_to_world)
    expected = landmarks_from_labels(heart).points_mm @ to_new[:3, :3].T + to_new[:3, 3]
    found = landmarks_from_labels(LabelMap(heart.array, turned))
    np.testing.assert_allclose(found.points_mm, expected, atol=0.2)


def test_shifted_slices_hardly_move_the_long_axis():
    heart = conical_heart()
    rng = np.random.default_rng(1)
    array = np.array(heart.array)
    for k in range(array.shape[2]):
        array[:, :, k] = np.roll(array[:, :, k], rng.integers(-2, 3, size=2), axis=(0, 1))
    moved = landmarks_from_labels(LabelMap(array, heart.voxel_to_world)).points_mm
    np.testing.assert_allclose(moved, landmarks_from_labels(heart).points_mm, atol=4)


def test_a_heart_without_rv_warns():
    with pytest.warns(InputWarning, match="no RV"):
        found = landmarks_from_labels(conical_heart(rv=False))
    assert found.points_mm.shape == (6, 3)


def test_too_few_slices_are_refused():
    heart = conical_heart()
    array = np.array(heart.array)
    array[:, :, 12:] = 0
    array[:, :, :10] = 0
    with pytest.raises(InvalidInputError) as caught:
        landmarks_from_labels(LabelMap(array, heart.voxel_to_world))
    assert caught.value.code == "TOO_FEW_SLICES"


def test_labels_of_another_convention_are_refused():
    theirs = relabelled(conical_heart(), {1: 3, 4: 1})
    with pytest.raises(InvalidInputError, match="landmarks_from_labels.*preset='acdc'") as error:
        landmarks_from_labels(theirs)
    assert error.value.code == "WRONG_PRESET"
