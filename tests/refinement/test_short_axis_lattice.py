"""Slices along any axis, and hearts that lie across a volume, become short-axis slices."""

import itertools
import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from cardiacreg import InputWarning, InvalidInputError, LabelMap, RefineOptions, dice
from cardiacreg.anatomy.landmarks import landmarks_from_labels
from cardiacreg.anatomy.long_axis import bare_direction, long_axis, towards_rv
from cardiacreg.errors import kept_warnings
from cardiacreg.geometry import LV_CAVITY, LV_WALL, apply_matrix
from cardiacreg.io.nifti import read_labels, write_labels
from cardiacreg.phantoms.acquisition import simulate_low_resolution
from cardiacreg.phantoms.hearts import sample_heart
from cardiacreg.refinement._refine import refine
from cardiacreg.refinement.short_axis_lattice import axes_hint, placement
from cardiacreg.refinement.target import gather_frames, gather_target
from tests.helpers.small_hearts import matrix, small_heart
from tests.helpers.tiny_bank import (
    SPACING_MM,
    expect_tiny_findings,
    tiny_atlases,
    tiny_options,
    tiny_target,
)
from tests.helpers.turned_hearts import (
    along_the_body,
    dice_in_world,
    few_atlases,
    fine_heart,
    rotation_matrix,
)

pytestmark = expect_tiny_findings

QUICK = replace(RefineOptions.fast(), n_atlases=3, affine_candidates=3)
ORDERS = list(itertools.permutations(range(3)))


def reordered(grid, order):
    """The same voxels in the same places, stored in another order of axes."""
    return type(grid)(grid.array.transpose(order), grid.voxel_to_world[:, [*order, 3]])


@cache
def healthy_heart(seed, phase="ED"):
    return sample_heart(seed, group="healthy", phase=phase, with_image=False)


@cache
def thick_stack(seed=10_022):
    return simulate_low_resolution(healthy_heart(seed), seed=2).subject.labels


# ---- the long axis


@pytest.mark.parametrize("seed, phase", [(10_022, "ED"), (10_031, "ES")])
@pytest.mark.parametrize("degrees", [(0, 0, 0), (30, 20, 0), (60, 0, 45), (90, 0, 0), (180, 0, 10)])
@pytest.mark.parametrize("thickness_mm", [2.0, 5.0])
def test_the_long_axis_is_found_however_the_heart_lies(seed, phase, degrees, thickness_mm):
    heart = fine_heart(seed, phase)
    labels, truth = along_the_body(heart, degrees, (2.0, 2.0, thickness_mm))
    apex, base = landmarks_from_labels(heart).points_mm[4:6]
    true = rotation_matrix(degrees)[:3, :3] @ (base - apex)
    assert long_axis(labels) @ true / np.linalg.norm(true) > np.cos(np.deg2rad(7))


def test_there_is_no_long_axis_without_an_lv_or_an_open_end():
    heart = small_heart()
    for without in (1, 2):
        array = np.where(heart.array == without, 0, heart.array)
        assert long_axis(LabelMap(array, heart.voxel_to_world)) is None
    closed = heart.array.copy()
    closed[:, :, 1][closed[:, :, 1] == 1] = 2
    closed[:, :, -2][closed[:, :, -2] == 1] = 2
    assert long_axis(LabelMap(closed, heart.voxel_to_world)) is None
    across = towards_rv(
        LabelMap(np.where(heart.array == 4, 0, heart.array), matrix()), np.eye(3)[2]
    )
    assert abs(across[2]) < 1e-9 and np.linalg.norm(across) == pytest.approx(1)


# ---- slices along another axis


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("make", [thick_stack, fine_heart])
def test_the_matrix_says_where_the_slices_lie(order, make):
    labels = make()
    with kept_warnings() as notes:
        placed = placement(reordered(labels, order)).labels(reordered(labels, order))
    assert np.abs(long_axis(placed) @ placed.voxel_to_world[:3, 2]) / placed.spacing_mm[2] > 0.9
    for label in (1, 2, 4):
        centres = [
            apply_matrix(each.voxel_to_world, np.argwhere(each.array == label).mean(axis=0))
            for each in (placed, labels)
        ]
        np.testing.assert_allclose(*centres, atol=1e-9)
    told = [note.message for note in notes]
    assert len(told) == (order[2] != 2)
    if told:
        assert f"slices lie along axis {order.index(2)}" in told[0] and "matrix" in told[0]


def refined_tiny(labels, image):
    return refine(
        labels, image=image, atlases=tiny_atlases(), spacing_mm=SPACING_MM,
        options=tiny_options(), threads=1,
    )  # fmt: skip


@pytest.fixture(scope="module")
def tiny():
    """The tiny target and its model."""
    target = tiny_target()
    return target, refined_tiny(target.labels, target.image)


@pytest.mark.parametrize("order", [(2, 0, 1), (0, 2, 1), (1, 0, 2)])
def test_another_order_of_axes_gives_the_same_model(tiny, order):
    target, expected = tiny
    labels, image = reordered(target.labels, order), reordered(target.image, order)
    if order[2] == 2:
        found = refined_tiny(labels, image)
    else:
        with pytest.warns(InputWarning, match="slices lie along axis"):
            found = refined_tiny((labels.array, labels.voxel_to_world), image)
    assert dice_in_world(found.labels, expected.labels, 1) > 0.995
    np.testing.assert_allclose(found.landmarks.points_mm, expected.landmarks.points_mm, atol=0.5)


def test_a_file_with_its_slices_first_is_read_by_both_doors(tmp_path):
    labels = reordered(tiny_target().labels, (2, 0, 1))
    write_labels(tmp_path / "seg.nii.gz", labels)
    with pytest.raises(InvalidInputError):
        read_labels(tmp_path / "seg.nii.gz")
    with kept_warnings():
        target = gather_target(tmp_path / "seg.nii.gz", None, None, None, None)
    np.testing.assert_array_equal(target.labels.array, tiny_target().labels.array)


@pytest.mark.parametrize("spacing", [(0.05, 1, 1), (30, 1, 1), (8, 8, 1)])
def test_a_spacing_that_is_wrong_in_any_order_is_refused(spacing):
    source = (np.moveaxis(small_heart().array, 2, 0), matrix(spacing))
    with pytest.raises(InvalidInputError) as error:
        gather_target(source, None, None, None, None)
    assert error.value.code == "IMPLAUSIBLE_SPACING"


def test_an_array_whose_axes_are_not_those_of_its_matrix_is_explained():
    labels = thick_stack()
    array = np.ascontiguousarray(labels.array.T)
    with pytest.raises(InvalidInputError, match="GetArrayFromImage") as error, kept_warnings():
        gather_target((array, labels.voxel_to_world), None, None, None, None)
    assert "transpose(2, 1, 0)" in str(error.value)


def test_labels_that_are_no_heart_in_any_order_say_nothing_about_the_axes():
    array = np.zeros((14, 14, 7), np.uint8)
    array[3:9, 4:10, 1:6], array[9:11, 4:10, 1:6] = LV_CAVITY, LV_WALL
    labels = LabelMap(array, np.diag([1.5, 1.5, 10.0, 1.0]))
    assert int(np.abs(bare_direction(labels)).argmax()) == 0, "the bare side looks like slices"
    assert axes_hint(labels) == ""


# ---- volumes along the body


@pytest.mark.parametrize("degrees", [(30, 0, 0), (60, 0, 45), (90, 0, 0), (45, 45, 0)])
def test_a_heart_across_a_volume_is_refined_in_short_axis_slices(degrees):
    labels, truth = along_the_body(fine_heart(), degrees)
    expected = apply_matrix(rotation_matrix(degrees), landmarks_from_labels(fine_heart()).points_mm)
    with kept_warnings() as notes:
        result = refine(
            labels, atlases=few_atlases(4), options=QUICK, spacing_mm=(2, 2, 2), threads=1
        )
    assert [note for note in notes if "turned onto a short-axis lattice" in note.message or
            "slices lie along axis" in note.message]  # fmt: skip
    assert dice_in_world(result.labels, truth) >= 0.95
    assert dice_in_world(result.labels, truth, 4) >= 0.93
    distance = np.linalg.norm(result.landmarks.points_mm - expected, axis=1)
    assert distance.max() <= 10


def test_a_turned_heart_takes_its_image_along():
    labels, _, image = along_the_body(fine_heart(), (60, 0, 45), image=True)
    with pytest.warns(InputWarning, match="57 degrees off"):
        target = gather_target(labels, image, None, None, None)
    placed = target.labels
    assert target.metadata and target.image.shape == placed.shape
    assert target.image.array[placed.array == 1].mean() == pytest.approx(200, abs=5)
    assert np.linalg.det(placed.voxel_to_world[:3, :3]) > 0
    np.testing.assert_allclose(placed.spacing_mm, 2.0)


@pytest.fixture(scope="module")
def across():
    """A heart across a volume, its truth on the same lattice, and its model."""
    heart, degrees = fine_heart(), (60, 0, 45)
    labels, _ = along_the_body(heart, degrees)
    return labels, turned_model(labels)


def turned_model(labels):
    with kept_warnings():
        return refine(
            labels, atlases=few_atlases()[:3], options=replace(QUICK, n_atlases=2),
            spacing_mm=(2, 2, 2), threads=1,
        )  # fmt: skip


def test_a_turned_model_comes_back_on_the_input_lattice(across, tmp_path):
    labels, result = across
    assert result.was_turned
    back = result.labels_on_input()
    np.testing.assert_array_equal(back.voxel_to_world, labels.voxel_to_world)
    assert back.shape == labels.shape
    assert dice(back, labels, 1) > 0.93 and dice(back, labels, 2) > 0.8
    folder = result.save(tmp_path / "out")
    saved = read_labels(folder / "labels_input_lattice.nii.gz")
    np.testing.assert_array_equal(saved.array, back.array)
    said = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    assert "labels_input_lattice.nii.gz" in said["files_sha256"]
    turned = replace(result.target, metadata={})
    replace(result, target=turned).save(folder, overwrite=True)
    assert not (folder / "labels_input_lattice.nii.gz").exists()


def test_a_turned_model_is_the_same_in_a_rotated_world(across):
    labels, expected = across
    turn = rotation_matrix((-50, 130, 20))
    turn[:3, 3] = (310.0, -20.5, 77.7)
    found = turned_model(LabelMap(labels.array, turn @ labels.voxel_to_world))
    np.testing.assert_array_equal(found.target.labels.array, expected.target.labels.array)
    np.testing.assert_array_equal(found.labels.array, expected.labels.array)
    np.testing.assert_allclose(
        found.labels.voxel_to_world, turn @ expected.labels.voxel_to_world, atol=1e-9
    )
    padded = np.pad(labels.array, ((4, 0), (0, 9), (5, 2)))
    matrix_before = np.array(labels.voxel_to_world)
    matrix_before[:3, 3] -= matrix_before[:3, :3] @ [4, 0, 5]
    found = turned_model(LabelMap(padded, matrix_before))
    np.testing.assert_array_equal(found.labels.array, expected.labels.array)


def test_a_heart_stored_left_handed_is_turned_as_well():
    labels, _ = along_the_body(fine_heart(), (60, 0, 45))
    matrix_there = np.array(labels.voxel_to_world)
    matrix_there[:3, 3] += matrix_there[:3, 0] * (labels.shape[0] - 1)
    matrix_there[:3, 0] *= -1
    other = LabelMap(labels.array[::-1], matrix_there)
    with kept_warnings():
        first, second = (placement(each).labels(each) for each in (labels, other))
    assert np.linalg.det(second.voxel_to_world[:3, :3]) > 0
    np.testing.assert_allclose(
        second.voxel_to_world[:3, :3], first.voxel_to_world[:3, :3], atol=1e-9
    )
    for label in (1, 2, 4):
        centres = [
            apply_matrix(each.voxel_to_world, np.argwhere(each.array == label).mean(axis=0))
            for each in (first, second)
        ]
        np.testing.assert_allclose(*centres, atol=0.1)


def test_slices_along_another_axis_come_back_along_it():
    labels = reordered(tiny_target().labels, (2, 0, 1))
    with kept_warnings():
        result = refine(
            (labels.array, labels.voxel_to_world), atlases=tiny_atlases(), spacing_mm=SPACING_MM,
            options=tiny_options(), threads=1,
        )  # fmt: skip
    back = result.labels_on_input()
    assert not result.was_turned and back.shape == labels.shape
    np.testing.assert_array_equal(back.voxel_to_world, labels.voxel_to_world)
    assert dice(back, labels, 1) > 0.8


def test_other_frames_are_turned_alike():
    labels, _ = along_the_body(fine_heart(), (60, 0, 45))
    other, _ = along_the_body(fine_heart(10_022, "ES"), (60, 0, 45))
    with kept_warnings():
        target = gather_target(labels, None, None, None, None)
        (frame,) = gather_frames(labels, [other], None, target)
    np.testing.assert_allclose(
        frame.labels.voxel_to_world[:3, :3], target.labels.voxel_to_world[:3, :3]
    )


@pytest.mark.parametrize("degrees", [(60, 0, 45), (90, 0, 0), (70, 30, 0)])
def test_thick_slices_across_the_heart_are_refused(degrees):
    labels, _ = along_the_body(fine_heart(), degrees, (2.0, 2.0, 10.0))
    with pytest.raises(InvalidInputError, match="off the LV's long axis") as error:
        placement(labels)
    assert error.value.code == "NOT_SHORT_AXIS"


@pytest.mark.parametrize("seed", [10_021, 10_024, 10_028])
@pytest.mark.parametrize("phase", ["ED", "ES"])
@pytest.mark.parametrize("thickness_mm", [5.0, 10.0])
def test_short_axis_stacks_are_left_as_they_are(seed, phase, thickness_mm):
    scan = simulate_low_resolution(
        healthy_heart(seed, phase), seed=seed, slice_thickness_mm=thickness_mm
    )
    with kept_warnings() as notes:
        found = placement(scan.subject.labels)
    assert not notes and found.labels(scan.subject.labels) is scan.subject.labels


def test_an_empty_map_is_left_to_the_checks():
    empty = LabelMap(np.zeros((9, 9, 9)), matrix())
    assert placement(empty).labels(empty) is empty
