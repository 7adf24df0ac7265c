"""How a cine is stored does not change a bit of its models."""

import numpy as np
import pytest
from hypothesis import Phase, given, settings

import cardiacreg
from cardiacreg.errors import kept_warnings
from cardiacreg.geometry import LabelMap, Volume, apply_matrix
from cardiacreg.phantoms.toy_heart import make_toy_heart
from cardiacreg.refinement.options import RefineOptions
from tests.helpers.equivalent_inputs import (
    exchanged,
    mirrored,
    moved,
    padded,
    rotated_worlds,
    translation,
)
from tests.helpers.tiny_bank import expect_tiny_findings, with_image

pytestmark = expect_tiny_findings

SIZES = (0.98, 0.9, 0.84)
OPTIONS = RefineOptions(n_atlases=2, orientation="as-stored", affine_candidates=2)
ATLASES = [make_toy_heart(size=size) for size in (0.8, 0.9, 1.02)]


def refined(frames, image):
    with kept_warnings():
        return cardiacreg.refine_cine(
            frames, image=image, atlases=ATLASES, spacing_mm=(2.5, 2.5, 2.5), options=OPTIONS,
            threads=1,
        )  # fmt: skip


def empty_ends(labels):
    """Empty slices at either end: a stack without them says less of where the heart ends."""
    matrix = np.array(labels.voxel_to_world)
    matrix[:3, 3] -= matrix[:3, 2]
    return LabelMap(np.pad(labels.array, ((0, 0), (0, 0), (1, 1))), matrix)


@pytest.fixture(scope="module")
def cine():
    """Frames, the image at end-diastole, and their models without and with it."""
    frames = [empty_ends(make_toy_heart(size=size).labels) for size in SIZES]
    frames[1] = LabelMap(np.zeros(frames[1].shape, np.uint8), frames[1].voxel_to_world)
    image = with_image(frames[0]).image
    return frames, image, refined(frames, None), refined(frames, image)


def same(found, expected, way=lambda grid: grid, atol=1e-9):
    """Whether models are equal bit by bit once the expected ones are stored in the same way."""
    for ours, theirs in zip(found.frames, expected.frames, strict=True):
        for mine, wanted in ((ours.labels, theirs.labels), (ours.confidence, theirs.confidence)):
            wanted = way(wanted)
            np.testing.assert_array_equal(mine.array, wanted.array)
            np.testing.assert_allclose(mine.voxel_to_world, wanted.voxel_to_world, atol=atol)
        assert (ours.agreement, ours.volumes) == (theirs.agreement, theirs.volumes)
        assert ours.minimum_jacobian == theirs.minimum_jacobian
    assert found.atlases == expected.atlases


STORED = {
    "mirrored i": lambda grid: mirrored(grid, 0),
    "mirrored k": lambda grid: mirrored(grid, 2),
    "exchanged i, j": lambda grid: exchanged(mirrored(grid, 1), (1, 0, 2)),
    "translated": lambda grid: moved(grid, translation()),
}


@pytest.mark.parametrize("way", STORED)
def test_equal_bits_however_a_cine_is_stored(cine, way):
    frames, image, _, expected = cine
    stored = STORED[way]
    found = refined([stored(each) for each in frames], stored(image))
    same(found, expected, stored)
    points = apply_matrix(expected.frames[0].labels.voxel_to_world, np.array([[20.0, 20.0, 15.0]]))
    home = expected.follow(points, 2)
    move = translation() if way == "translated" else np.eye(4)
    there = found.follow(apply_matrix(move, points), 2)
    np.testing.assert_allclose(there, apply_matrix(move, home), atol=1e-6)
    np.testing.assert_allclose(
        found.landmarks.points_mm, apply_matrix(move, expected.landmarks.points_mm), atol=1e-6
    )


def test_padding_changes_nothing_but_how_many_slices_are_empty(cine):
    frames, _, expected, _ = cine
    found = refined([padded(each, 3) for each in frames], None)
    same(found, expected)
    np.testing.assert_array_equal(found.slice_shifts_mm[3:-3], expected.slice_shifts_mm)
    assert [end.reason for end in found.ends] == ["5 slices without labels beyond them"] * 2
    assert [end.reason for end in expected.ends] == ["2 slices without labels beyond them"] * 2


@settings(max_examples=4, deadline=None, database=None, phases=[Phase.generate])
@given(rotated_worlds())
def test_any_rotation_gives_equal_bits(cine, given_world):
    frames, image, _, expected = cine
    world, precision = given_world
    matrix = (world @ frames[0].voxel_to_world).astype(precision)
    found = refined([LabelMap(each.array, matrix) for each in frames], Volume(image.array, matrix))
    same(
        found, expected, lambda grid: moved(grid, world), 1e-8 if precision is np.float64 else 1e-2
    )
    np.testing.assert_array_equal(found.slice_shifts_mm, expected.slice_shifts_mm)
