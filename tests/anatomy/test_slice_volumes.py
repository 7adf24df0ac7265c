"""A model's volume is divided where the labelled slices end, however stack and model are stored."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from cardiacreg import InvalidInputError, LabelMap
from cardiacreg.anatomy.slice_volumes import stack_volumes
from cardiacreg.anatomy.volumes import structure_volumes_ml
from cardiacreg.geometry import STRUCTURES
from tests.helpers.strategies import light, oblique_matrix, random_labels, rotation, seeds

PIXEL_ML = 4.0 * 10.0 / 1000  # 2 x 2 x 10 mm
FINE_ML = 4.0 * 2.0 / 1000  # 2 x 2 x 2 mm


def stack():
    """Twelve slices 10 mm apart, from z = -5 mm; LV cavity in 3..6, LV wall in 2..6 and RV in 4..8."""
    array = np.zeros((10, 10, 12), dtype=np.uint8)
    array[:5, :2, 3:7] = 1
    array[5:, :2, 2:7] = 2
    array[:, 5:7, 4:9] = 4
    return LabelMap(array, np.diag([2.0, 2.0, 10.0, 1.0]))


def model():
    """The same columns on voxels of 2 mm: voxel n lies from 2 n - 5 mm to 2 n - 3 mm."""
    array = np.zeros((10, 10, 60), dtype=np.uint8)
    array[:5, :2, 13:37] = 1  # 21 mm to 69 mm: 4 mm beyond at the start, 4 mm at the end
    array[5:, :2, 10:35] = 2  # 15 mm to 65 mm: exactly the labelled slices
    array[:, 5:7, 25:51] = 4  # 45 mm to 97 mm: starts inside, 12 mm beyond at the end
    array[0, 9, 9:12] = 3  # 13 mm to 19 mm: not in the input; one voxel before all labelled slices
    matrix = np.diag([2.0, 2.0, 2.0, 1.0])
    matrix[2, 3] = -4.0
    return LabelMap(array, matrix)


EXPECTED = {  # input, inside, before, after, total (ml), before, after (mm)
    "LV cavity": (40 * PIXEL_ML, 200 * FINE_ML, 20 * FINE_ML, 20 * FINE_ML, 240 * FINE_ML, 4, 4),
    "LV wall": (50 * PIXEL_ML, 250 * FINE_ML, 0, 0, 250 * FINE_ML, 0, 0),
    "RV wall": (None, 2 * FINE_ML, 1 * FINE_ML, 0, 3 * FINE_ML, 2, 0),
    "RV cavity": (100 * PIXEL_ML, 400 * FINE_ML, 0, 120 * FINE_ML, 520 * FINE_ML, 0, 12),
}


def numbers(volume, *, base_at_last_slice=True):
    """In the order of EXPECTED: before and after in place of apex and base."""
    pairs = [
        (volume.beyond_apex_ml, volume.beyond_base_ml),
        (volume.beyond_apex_mm, volume.beyond_base_mm),
    ]
    (before, after), (before_mm, after_mm) = (
        pairs if base_at_last_slice else [p[::-1] for p in pairs]
    )
    entered = -1.0 if volume.input_ml is None else volume.input_ml
    return [entered, volume.inside_ml, before, after, volume.total_ml, before_mm, after_mm]


def assert_as_expected(found, **keywords):
    assert list(found) == list(STRUCTURES.values())
    for name, (entered, *others) in EXPECTED.items():
        expected = [-1.0 if entered is None else entered, *others]
        np.testing.assert_allclose(numbers(found[name], **keywords), expected, atol=1e-9)
        assert (found[name].input_ml is None) == (entered is None)


def along_k_reversed(labels):
    matrix = np.array(labels.voxel_to_world)
    matrix[:3, 3] += matrix[:3, 2] * (labels.shape[2] - 1)
    matrix[:3, 2] *= -1
    return LabelMap(labels.array[:, :, ::-1], matrix)


def permuted(labels, order):
    """The same map stored with other axes."""
    matrix = np.array(labels.voxel_to_world)
    matrix[:3, :3] = matrix[:3, list(order)]
    return LabelMap(labels.array.transpose(order), matrix)


@pytest.mark.parametrize("base_at_last_slice", [True, False])
def test_columns_are_divided_at_the_outer_faces(base_at_last_slice):
    found = stack_volumes(stack(), model(), base_at_last_slice=base_at_last_slice)
    assert_as_expected(found, base_at_last_slice=base_at_last_slice)


def test_a_stack_stored_from_the_other_end_gives_the_same():
    found = stack_volumes(along_k_reversed(stack()), model(), base_at_last_slice=False)
    assert_as_expected(found)
    found = stack_volumes(stack(), along_k_reversed(model()), base_at_last_slice=True)
    assert_as_expected(found)


@pytest.mark.parametrize("seed", range(3))
def test_a_turned_world_gives_the_same(seed):
    turn = np.eye(4)
    turn[:3, :3] = rotation(np.random.default_rng(seed)) @ np.diag([-1.0, 1.0, 1.0])
    turn[:3, 3] = (30.0, -200.0, 11.0)
    maps = [LabelMap(m.array, turn @ m.voxel_to_world) for m in (stack(), model())]
    assert_as_expected(stack_volumes(*maps, base_at_last_slice=True))


def test_a_model_with_its_slices_along_another_axis_gives_the_same():
    found = stack_volumes(stack(), permuted(model(), (2, 0, 1)), base_at_last_slice=True)
    assert_as_expected(found)


@pytest.mark.parametrize("step_mm", [0.6, 7.3, 9.999])
def test_a_voxel_on_a_face_is_inside_and_reaches_half_its_height_beyond(step_mm):
    slices, array = np.zeros((1, 1, 5)), np.zeros((1, 1, 9))
    slices[0, 0, 1:4], array[0, 0, 1:8] = 1, 1
    thick = LabelMap(slices, np.diag([1.0, 1.0, step_mm, 1.0]))
    fine = LabelMap(array, np.diag([1.0, 1.0, step_mm / 2, 1.0]))
    found = stack_volumes(thick, fine, base_at_last_slice=True)["LV cavity"]
    assert found.inside_ml == found.total_ml
    assert found.beyond_apex_mm == pytest.approx(step_mm / 4) == found.beyond_base_mm


def lifted(slices):
    matrix = np.eye(4)
    matrix[2, 3] = slices
    return matrix


def test_a_structure_that_the_model_lacks_has_no_volume_there():
    bare = LabelMap(np.where(model().array == 4, 0, model().array), model().voxel_to_world)
    found = stack_volumes(stack(), bare, base_at_last_slice=True)["RV cavity"]
    assert found.input_ml == pytest.approx(100 * PIXEL_ML)
    assert numbers(found)[1:] == [0.0] * 6


def test_an_empty_target_is_refused():
    empty = LabelMap(np.zeros((2, 2, 2)), np.eye(4))
    with pytest.raises(InvalidInputError) as caught:
        stack_volumes(empty, model(), base_at_last_slice=True)
    assert caught.value.code == "EMPTY_LABELS"


@light
@given(seeds, st.booleans(), st.booleans())
def test_the_parts_make_up_the_whole(seed, parallel, left_handed):
    """Also: by voxel, each part is what a loop over voxels counts."""
    rng = np.random.default_rng(seed)
    target = LabelMap(
        random_labels(rng, (5, 4, 4)),
        oblique_matrix(rng, left_handed=left_handed, centre_of=(5, 4, 4)),
    )
    matrix = oblique_matrix(rng, (1.0, 1.5, 2.0), centre_of=(7, 6, 9))
    if parallel:
        matrix = target.voxel_to_world @ np.diag([0.7, 0.6, 0.4, 1.0]) @ lifted(-1.3)
    refined = LabelMap(random_labels(rng, (7, 6, 9), (0, 1, 2, 3, 4)), matrix)
    found = stack_volumes(target, refined, base_at_last_slice=True)
    whole = structure_volumes_ml(refined)
    for label, name in STRUCTURES.items():
        volume = found[name]
        parts = (volume.inside_ml, volume.beyond_apex_ml, volume.beyond_base_ml)
        assert min(parts) >= 0
        assert sum(parts) == pytest.approx(volume.total_ml) == pytest.approx(whole[name])
        heights, faces = heights_and_faces(target, refined, label)
        voxel_ml = volume.total_ml / len(heights)
        assert volume.beyond_apex_ml == pytest.approx(voxel_ml * sum(heights < faces[0]))
        assert volume.beyond_base_ml == pytest.approx(voxel_ml * sum(heights > faces[1]))


def heights_and_faces(target, refined, label):
    """Of every voxel of a structure, how high it lies in slices; and where the labelled slices end."""
    world = [refined.voxel_to_world @ [*where, 1] for where in np.argwhere(refined.array == label)]
    heights = np.array([np.linalg.solve(target.voxel_to_world, point)[2] for point in world])
    shown = np.argwhere(target.array == label)
    slices = shown[:, 2] if len(shown) else np.argwhere(target.array)[:, 2]
    return heights, (slices.min() - 0.5, slices.max() + 0.5)


# --- what the intervals of measures need


@pytest.mark.parametrize("base_at_last_slice", [True, False])
def test_outermost_slices(base_at_last_slice):
    found = stack_volumes(stack(), model(), base_at_last_slice=base_at_last_slice)
    cut = np.array(stack().array)
    cut[2:, :2, 3] = 0  # one of five rows is left of the LV cavity's first slice
    less = stack_volumes(LabelMap(cut, stack().voxel_to_world), model(), base_at_last_slice=True)
    assert found["LV cavity"].outermost_ml == pytest.approx((10 * PIXEL_ML, 10 * PIXEL_ML))
    assert less["LV cavity"].outermost_ml == pytest.approx((4 * PIXEL_ML, 10 * PIXEL_ML))
    assert found["RV wall"].outermost_ml == () == found["LV wall"].atlases_inside_ml


def test_atlases_are_divided_as_the_model_is():
    """An atlas that is the model itself, and one of half its voxels."""
    counts = np.stack([(model().array == label).sum(axis=(0, 1)) for label in range(5)], axis=1)
    voxels = np.stack([counts, counts / 2]).astype(np.float32)
    flipped = along_k_reversed(stack())
    for target, at_last in ((stack(), True), (flipped, False)):
        found = stack_volumes(target, model(), base_at_last_slice=at_last, atlas_voxels=voxels)
        for volume in found.values():
            beyond = volume.beyond_apex_ml + volume.beyond_base_ml
            whole, half = volume.atlases_inside_ml
            assert (whole, half) == pytest.approx((volume.inside_ml, volume.inside_ml / 2))
            assert volume.atlases_beyond_ml == pytest.approx((beyond, beyond / 2))
