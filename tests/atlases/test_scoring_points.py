import numpy as np
from hypothesis import given, strategies as st

from cardiacreg import Affine, LabelMap
from cardiacreg.atlases.scoring_points import ScoringPoints
from tests.helpers.strategies import few


def _case(seed):
    """A target, an atlas on a lattice of its own, and an affine that leaves parts of it outside."""
    rng = np.random.default_rng(seed)
    target = LabelMap(rng.integers(0, 5, (13, 11, 9), dtype=np.uint8), np.diag([1.5, 1.5, 8, 1]))
    place = np.diag([1.25, 1.25, 2.0, 1.0])
    place[:3, 3] = rng.normal(scale=5, size=3)
    atlas = LabelMap(rng.integers(0, 5, (15, 14, 30), dtype=np.uint8), place)
    matrix = np.eye(4)
    matrix[:3] += rng.normal(scale=0.1, size=(3, 4)) * [1, 1, 1, 40]
    return target, atlas, Affine(matrix)


def _naive_label(atlas, affine, target, voxel):
    """Label of the nearest atlas voxel of one voxel position of the target, from the definition."""
    world = affine.matrix @ target.voxel_to_world @ [*voxel, 1.0]
    i, j, k = np.floor((np.linalg.inv(atlas.voxel_to_world) @ world)[:3] + 0.5).astype(int)
    inside = all(0 <= n < size for n, size in zip((i, j, k), atlas.shape, strict=True))
    return int(atlas.array[i, j, k]) if inside else 0


@few
@given(st.integers(0, 10_000))
def test_labels_at_points_are_those_of_the_nearest_voxels(seed):
    target, atlas, affine = _case(seed)
    found = ScoringPoints(target, whole=True).read(atlas, affine)
    picked = np.random.default_rng(seed).choice(found.size, 40)
    for flat in picked:
        voxel = np.unravel_index(flat, target.shape)
        assert found[flat] == _naive_label(atlas, affine, target, voxel)


@few
@given(st.integers(0, 10_000), st.booleans())
def test_counts_are_those_of_the_labels_at_the_points(seed, whole):
    target, atlas, affine = _case(seed)
    planes = [] if whole else [-1.0, 9.5]
    points = ScoringPoints(target, whole=whole, empty_planes=planes)
    counts, found = points.counts(atlas, affine), points.read(atlas, affine)
    own = np.zeros(found.size, dtype=np.uint8)  # those of planes come last and are background
    own[: target.array.size] = target.array.ravel()
    for label in range(counts.shape[0]):
        expected = np.bincount(found[own == label], minlength=256)
        np.testing.assert_array_equal(counts[label], expected)


def test_points_of_empty_planes_lie_at_their_positions():
    target, atlas, affine = _case(3)
    held = ScoringPoints(target, whole=False)
    found = ScoringPoints(target, whole=False, empty_planes=[9.5]).read(atlas, affine)
    # The plane reaches 10 mm, 7 pixels, beyond the labels along i and j, but not below pixel 0.
    beyond = found[len(held.read(atlas, affine)) :].reshape(20, 18)
    for i, j in ((0, 0), (6, 5), (12, 10), (19, 17)):
        assert beyond[i, j] == _naive_label(atlas, affine, target, (i, j, 9.5))


def test_a_stride_keeps_every_second_pixel_of_slices_and_planes():
    target, atlas, affine = _case(4)
    fine = ScoringPoints(target, whole=True).read(atlas, affine).reshape(target.shape)
    coarse = ScoringPoints(target, whole=True, stride=2)
    np.testing.assert_array_equal(coarse.read(atlas, affine), fine[::2, ::2].ravel())
    expected = np.bincount(fine[::2, ::2][target.array[::2, ::2] == 3], minlength=256)
    np.testing.assert_array_equal(coarse.counts(atlas, affine)[3], expected)
    planes = ScoringPoints(target, whole=False, empty_planes=[9.5], stride=2)
    assert len(planes.read(atlas, affine)) == 7 * 6 * 9 + 10 * 9
