"""How a target is stored does not change its model."""

from dataclasses import replace

import numpy as np
import pytest

from cardiacreg import LabelMap, Landmarks, RefineOptions, Subject, Volume
from cardiacreg.anatomy.landmarks import landmarks_from_labels
from cardiacreg.errors import kept_warnings
from cardiacreg.geometry import apply_matrix
from cardiacreg.metrics.agreement import slice_agreement
from cardiacreg.phantoms.acquisition import simulate_low_resolution
from cardiacreg.phantoms.hearts import sample_heart
from cardiacreg.refinement._refine import refine
from cardiacreg.refinement.canonical_frame import canonical_frame
from tests.helpers.tiny_bank import (
    SPACING_MM,
    expect_tiny_findings,
    tiny_atlases,
    tiny_options,
    tiny_target,
)
from tests.helpers.turned_hearts import dice_in_world, few_atlases, rotation_matrix

pytestmark = expect_tiny_findings

QUICK = replace(RefineOptions.fast(), n_atlases=3, affine_candidates=4)


def mirrored(grid, axis):
    matrix = np.array(grid.voxel_to_world)
    matrix[:3, 3] += matrix[:3, axis] * (grid.shape[axis] - 1)
    matrix[:3, axis] *= -1
    return type(grid)(np.flip(grid.array, axis), matrix)


def exchanged(grid, order):
    return type(grid)(grid.array.transpose(order), grid.voxel_to_world[:, [*order, 3]])


def padded(grid, count):
    matrix = np.array(grid.voxel_to_world)
    matrix[:3, 3] -= matrix[:3, :3] @ np.full(3, float(count))
    return type(grid)(np.pad(grid.array, count), matrix)


def cropped(grid):
    box = [np.flatnonzero(grid.array.any(axis=tuple({0, 1, 2} - {axis}))) for axis in (0, 1)]
    i, j = (slice(max(each[0] - 1, 0), each[-1] + 2) for each in box)
    matrix = np.array(grid.voxel_to_world)
    matrix[:3, 3] += matrix[:3, :3] @ [i.start, j.start, 0]
    return type(grid)(grid.array[i, j], matrix)


def moved(grid, matrix):
    return type(grid)(grid.array, matrix @ grid.voxel_to_world)


def translation():
    matrix = np.eye(4)
    matrix[:3, 3] = (131.0, -77.25, 1021.5)
    return matrix


EXACT = {
    "translated": lambda labels: moved(labels, translation()),
    "padded": lambda labels: padded(labels, 7),
    "cropped": cropped,
    "mirrored i": lambda labels: mirrored(labels, 0),
    "mirrored j": lambda labels: mirrored(labels, 1),
    "mirrored k": lambda labels: mirrored(labels, 2),
    "exchanged i, j": lambda labels: exchanged(labels, (1, 0, 2)),
    "slices first": lambda labels: exchanged(labels, (2, 0, 1)),
    "slices second": lambda labels: exchanged(mirrored(labels, 1), (0, 2, 1)),
}


def with_empty_slices(labels):
    """One empty slice at each end: a stack without them says less about where the heart ends."""
    held = np.flatnonzero(labels.array.any(axis=(0, 1)))
    matrix = np.array(labels.voxel_to_world)
    matrix[:3, 3] += matrix[:3, 2] * (held[0] - 1)
    array = np.pad(labels.array[:, :, held[0] : held[-1] + 1], ((0, 0), (0, 0), (1, 1)))
    return LabelMap(array, matrix)


@pytest.fixture(scope="module", params=[(10_021, "ED"), (10_031, "ES"), (10_025, "ED")])
def heart(request):
    seed, phase = request.param
    scan = simulate_low_resolution(sample_heart(seed, group="healthy", phase=phase), seed=seed)
    labels = with_empty_slices(scan.subject.labels)
    return labels, refined(labels)


def refined(labels):
    with kept_warnings():
        return refine(labels, atlases=few_atlases(), options=QUICK, spacing_mm=(2, 2, 2), threads=2)


def canonical_bits(result):
    """The model's voxels in an order that its axes in the world decide, and numbers that are the same."""
    subject = Subject(result.labels)
    frame = canonical_frame(subject, all_slices=True)
    return frame.subject(subject).labels.array


@pytest.mark.parametrize("way", EXACT)
def test_equal_bits_however_a_heart_is_stored(heart, way):
    labels, expected = heart
    stored = EXACT[way](labels)
    found = refined(stored)
    np.testing.assert_array_equal(canonical_bits(found), canonical_bits(expected))
    assert found.agreement == expected.agreement and found.volumes == expected.volumes
    assert found.orientation == expected.orientation
    assert sorted(np.abs(found.slice_shifts_mm).ravel())[-8:] == sorted(
        np.abs(expected.slice_shifts_mm).ravel()
    )[-8:]  # fmt: skip
    back = translation() if way == "translated" else np.eye(4)
    np.testing.assert_allclose(
        found.landmarks.points_mm,
        apply_matrix(back, expected.landmarks.points_mm),
        atol=1e-6,
    )
    assert dice_in_world(moved(found.labels, np.linalg.inv(back)), expected.labels) == 1


def test_a_rotated_world_changes_little(heart):
    labels, expected = heart
    turn = rotation_matrix((10, 20, -30))
    found = refined(moved(labels, turn))
    truth = moved(expected.labels, turn)
    assert min(dice_in_world(found.labels, truth, label) for label in (1, 2, 4)) >= 0.97


@pytest.mark.parametrize("way", ["mirrored i", "mirrored j", "mirrored k", "exchanged i, j"])
def test_what_comes_back_belongs_to_the_stored_slices(way):
    """Agreement computed anew on the stored stack, by the shifts that came back, is the result's own."""
    target = tiny_target()
    labels, image = (EXACT[way](each) for each in (target.labels, target.image))
    result = refine(
        labels, image=image, atlases=tiny_atlases(), spacing_mm=SPACING_MM, options=tiny_options(),
        threads=1,
    )  # fmt: skip
    assert result.target.labels is labels
    assert result.slice_shifts_mm.shape == (labels.shape[2], 2)
    again = slice_agreement(labels, result.labels, result.slice_shifts_mm)
    for name, dice in result.agreement.items():
        assert again[name] == pytest.approx(dice, abs=0.01), name
    linear = result.labels.voxel_to_world[:3, :3] / result.labels.spacing_mm
    np.testing.assert_allclose(linear, labels.voxel_to_world[:3, :3] / labels.spacing_mm, atol=1e-9)
    np.testing.assert_allclose(
        result.labels.spacing_mm, SPACING_MM, atol=1e-9
    )  # along the stored axes


@pytest.mark.parametrize("way", ["padded", "mirrored k"])
def test_empty_slices_are_counted_as_stored(way):
    labels = EXACT[way](with_empty_slices(tiny_target().labels))
    result = refine(
        labels, atlases=tiny_atlases(), spacing_mm=SPACING_MM, options=tiny_options(), threads=1
    )
    slices = "8 slices" if way == "padded" else "1 slice"
    assert [end.reason for end in result.ends] == [f"{slices} without labels beyond them"] * 2


def test_the_frame_keeps_the_world():
    target = tiny_target()
    points = landmarks_from_labels(target.labels)
    stored = Subject(
        mirrored(exchanged(target.labels, (1, 0, 2)), 2),
        mirrored(exchanged(target.image, (1, 0, 2)), 2),
        Landmarks(points.points_mm),
    )
    frame = canonical_frame(stored)
    local = frame.subject(stored)
    for label in (1, 4):
        at_home, away = (
            apply_matrix(each.voxel_to_world, np.argwhere(each.array == label).mean(axis=0))
            for each in (local.labels, stored.labels)
        )
        np.testing.assert_allclose(at_home + frame.origin_mm, away, atol=1e-9)
    np.testing.assert_allclose(local.landmarks.points_mm + frame.origin_mm, points.points_mm)
    assert isinstance(local.image, Volume) and local.image.shape == local.labels.shape
    np.testing.assert_array_equal(local.labels.voxel_to_world[:3, 3], 0)
    assert np.linalg.det(local.labels.voxel_to_world[:3, :3]) > 0
    np.testing.assert_array_equal(frame.spacing((1, 2, 3)), np.array([1, 2, 3])[list(frame.axes)])
