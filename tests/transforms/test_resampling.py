import pickle
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy.spatial.transform import Rotation

from cardiacreg import Affine, InvalidInputError, LabelMap, Volume
from cardiacreg.transforms import resampling
from cardiacreg.transforms.ffd import FFD
from cardiacreg.transforms.resampling import Lattice, add_label_votes, warp_labels, warp_volume
from tests.helpers import naive
from tests.helpers.strategies import (
    blobs,
    few,
    oblique_matrix,
    random_labels,
    rotation,
    seeds,
    well_conditioned_matrix,
)

SHAPE = (6, 5, 9)


def random_case(seed, *, deformed=True):
    """Atlas labels and image, a transform, the same as a function, and a lattice to sample on."""
    rng = np.random.default_rng(seed)
    labels = LabelMap(
        blobs(rng, (8, 9, 7)), oblique_matrix(rng, (3.0, 2.5, 4.0), centre_of=(8, 9, 7))
    )
    image = Volume(rng.normal(size=labels.shape), labels.voxel_to_world)
    grid = Lattice(SHAPE, oblique_matrix(rng, (4.1, 3.9, 3.0), centre_of=SHAPE))
    affine = well_conditioned_matrix(rng)
    if not deformed:
        return labels, image, Affine(affine), lambda point: naive.move(affine, point), grid
    axes = grid.voxel_to_world[:3, :3] / np.linalg.norm(grid.voxel_to_world[:3, :3], axis=0)
    matrix = np.eye(4)
    matrix[:3, :3] = 15.0 * (axes if rng.integers(2) else rotation(rng))
    matrix[:3, 3] = -matrix[:3, :3] @ [2.0, 2.2, 1.9]
    moves = 2 * rng.normal(size=(5, 5, 5, 3))
    transform = naive.deformation(affine, moves, matrix)
    return labels, image, FFD(Affine(affine), moves, matrix), transform, grid


class TestOracles:
    @few
    @given(seeds, st.booleans())
    def test_nearest_labels(self, seed, deformed):
        labels, _, transform, function, grid = random_case(seed, deformed=deformed)
        found = warp_labels(labels, transform, grid, interpolation="nearest")
        expected = naive.warp_nearest(
            labels.array, labels.voxel_to_world, function, grid.shape, grid.voxel_to_world
        )
        np.testing.assert_array_equal(found.array, expected)
        np.testing.assert_array_equal(found.voxel_to_world, grid.voxel_to_world)

    @few
    @given(seeds, st.booleans())
    def test_votes(self, seed, deformed):
        labels, _, transform, function, grid = random_case(seed, deformed=deformed)
        votes = np.ones((*grid.shape, 4), dtype=np.float32)
        add_label_votes(votes, labels, transform, grid)
        expected = naive.warped_votes(
            labels.array, labels.voxel_to_world, function, grid.shape, grid.voxel_to_world, 4
        )
        np.testing.assert_allclose(votes - 1, expected, atol=1e-6)

    @few
    @given(seeds, st.booleans())
    def test_linear_labels_have_the_largest_weight(self, seed, deformed):
        labels, _, transform, function, grid = random_case(seed, deformed=deformed)
        found = warp_labels(labels, transform, grid).array
        votes = naive.warped_votes(
            labels.array, labels.voxel_to_world, function, grid.shape, grid.voxel_to_world, 5
        )
        won = np.take_along_axis(votes, found[..., None].astype(int), axis=-1)[..., 0]
        np.testing.assert_allclose(won, votes.max(axis=-1), atol=1e-12)

    @few
    @given(seeds, st.booleans())
    def test_intensities(self, seed, deformed):
        _, image, transform, function, grid = random_case(seed, deformed=deformed)
        found = warp_volume(image, transform, grid)
        expected = naive.warp_intensity(
            image.array, image.voxel_to_world, function, grid.shape, grid.voxel_to_world
        )
        np.testing.assert_allclose(found.array, expected, atol=1e-5)


class TestVotesFarFromLabels:
    """Tiles of columns that lie far from every label are left out, and nothing shows of it."""

    @few
    @given(seeds)
    def test_votes_are_those_of_the_definition(self, seed):
        labels, transform, function, grid, left_out = self.wide_case(seed)
        votes = np.zeros((*grid.shape, 4), dtype=np.float32)
        with left_out as counts:
            added = add_label_votes(votes, labels, transform, grid)
        expected = naive.warped_votes(
            labels.array, labels.voxel_to_world, function, grid.shape, grid.voxel_to_world, 4
        )
        np.testing.assert_allclose(votes, expected, atol=1e-6)
        np.testing.assert_allclose(added, votes.sum(axis=(0, 1), dtype=np.float64), rtol=1e-6)
        assert 0 < sum(counts) and (votes[..., 1:] > 0).any()

    @staticmethod
    def wide_case(seed):
        """A few labels in a wide lattice, deformed along its axes, and a count of tiles left out."""
        rng = np.random.default_rng(seed)
        array = np.zeros((24, 22, 10), dtype=np.uint8)
        array[6:11, 9:14, 3:7] = random_labels(rng, (5, 5, 4))
        labels = LabelMap(array, np.diag([1.5, 1.4, 3.0, 1.0]))
        grid = Lattice((30, 27, 9), np.diag([1.3, 1.3, 3.2, 1.0]))
        matrix = np.diag([14.0, 14.0, 14.0, 1.0])
        matrix[:3, 3] = -14.0
        moves, affine = 3 * rng.normal(size=(7, 7, 6, 3)), np.eye(4)
        affine[:3, :3] = Rotation.from_rotvec(rng.uniform(-0.2, 0.2, 3)).as_matrix()
        transform = FFD(Affine(affine), moves, matrix)
        return labels, transform, naive.deformation(affine, moves, matrix), grid, tiles_left_out()


@contextmanager
def tiles_left_out():
    """Count the tiles of every slab whose positions are not computed."""
    counts, kernel = [], resampling._points_kernel

    def counted(*arguments):
        counts.append(int((~arguments[-2]).sum()))
        kernel(*arguments)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(resampling, "_points_kernel", counted)
        yield counts


class TestIdentity:
    """Sampling a map on its own lattice gives it back, up to its last voxels along every axis."""

    @pytest.mark.parametrize("shape", [(4, 3, 5), (1, 4, 3), (4, 1, 3), (4, 3, 1)])
    @pytest.mark.parametrize("interpolation", ["linear", "nearest"])
    def test_labels(self, shape, interpolation):
        labels = LabelMap(random_labels(np.random.default_rng(0), shape), np.eye(4))
        found = warp_labels(labels, Affine.identity(), labels, interpolation=interpolation)
        np.testing.assert_array_equal(found.array, labels.array)

    @pytest.mark.parametrize("shape", [(4, 3, 5), (1, 4, 3), (4, 1, 3), (4, 3, 1)])
    def test_votes(self, shape):
        labels = LabelMap(random_labels(np.random.default_rng(1), shape), np.eye(4))
        votes = np.zeros((*shape, 5), dtype=np.float32)
        add_label_votes(votes, labels, Affine.identity(), labels)
        np.testing.assert_array_equal(votes, np.eye(5)[labels.array])

    @pytest.mark.parametrize("shape", [(4, 3, 5), (1, 4, 3), (4, 1, 3), (4, 3, 1)])
    def test_intensities(self, shape):
        image = Volume(np.random.default_rng(2).normal(size=shape), np.eye(4))
        np.testing.assert_array_equal(
            warp_volume(image, Affine.identity(), image).array, image.array
        )


def test_ties_go_to_the_lowest_label():
    labels = LabelMap(np.array([4, 2, 2, 4]).reshape(4, 1, 1).repeat(2, 1).repeat(2, 2), np.eye(4))
    half = np.eye(4)
    half[0, 3] = 0.5
    found = warp_labels(labels, Affine(half), Lattice((3, 1, 1), np.eye(4)))
    assert found.array.ravel().tolist() == [2, 2, 2]


def test_outside_the_atlas_labels_are_background_and_intensities_are_repeated():
    grid = Lattice((1, 1, 3), np.diag([1.0, 1.0, 50.0, 1.0]))
    ones = np.full((2, 2, 2), 3)
    assert warp_labels(
        LabelMap(ones, np.eye(4)), Affine.identity(), grid
    ).array.ravel().tolist() == [3, 0, 0]
    volume = warp_volume(Volume(ones, np.eye(4)), Affine.identity(), grid)
    assert volume.array.ravel().tolist() == [3, 3, 3]


def test_labels_of_the_result_are_labels_of_the_atlas():
    labels, _, transform, _, grid = random_case(7)
    other = LabelMap(np.where(labels.array == 3, 200, labels.array), labels.voxel_to_world)
    found = set(warp_labels(other, transform, grid).present())
    assert found and found <= set(other.present())


def test_votes_of_labels_beyond_the_array_are_dropped():
    labels = LabelMap(np.full((3, 3, 3), 9), np.eye(4))
    votes = np.zeros((3, 3, 3, 5), dtype=np.float32)
    add_label_votes(votes, labels, Affine.identity(), labels)
    assert not votes.any()


def test_any_part_of_a_lattice_equals_that_part_of_the_whole():
    """Slabs of slices do not show: every slice alone gives the same bits as all together."""
    labels, image, transform, _, grid = random_case(8)
    whole_labels, whole = warp_labels(labels, transform, grid), warp_volume(image, transform, grid)
    for k in range(SHAPE[2]):
        moved = np.array(grid.voxel_to_world)
        moved[:3, 3] += k * moved[:3, 2]
        part = Lattice((*SHAPE[:2], 1), moved)
        found = warp_volume(image, transform, part).array[:, :, 0]
        np.testing.assert_allclose(found, whole.array[:, :, k], atol=1e-5)
        same = warp_labels(labels, transform, part).array[:, :, 0] == whole_labels.array[:, :, k]
        assert same.all()


def test_a_volume_or_label_map_serves_as_lattice():
    labels, image, transform, _, grid = random_case(9)
    expected = warp_labels(labels, transform, grid)
    for own in (Volume(np.zeros(SHAPE), grid.voxel_to_world), expected):
        np.testing.assert_array_equal(warp_labels(labels, transform, own).array, expected.array)


def test_an_unknown_interpolation_is_refused():
    labels, _, transform, _, grid = random_case(10)
    with pytest.raises(InvalidInputError) as caught:
        warp_labels(labels, transform, grid, interpolation="cubic")
    assert caught.value.code == "BAD_OPTION"


@pytest.mark.parametrize(
    "shape", [(4.9, 4, 4), (4, 4, 4.0), (4, 4), (4, 4, 4, 1), (0, 4, 4), (-4, 4, 4), 4, "444"]
)
def test_a_lattice_has_whole_numbers_of_voxels(shape):
    with pytest.raises(InvalidInputError, match="whole numbers") as error:
        Lattice(shape, np.eye(4))
    assert error.value.code == "BAD_SHAPE"


def test_a_lattice_takes_the_integers_of_numpy_and_comes_apart_as_before():
    shape, matrix = Lattice(tuple(np.array([4, 5, 6])), np.eye(4))
    assert shape == (4, 5, 6) and all(type(n) is int for n in shape)
    np.testing.assert_array_equal(matrix, np.eye(4))
    assert pickle.loads(pickle.dumps(Lattice((4, 5, 6), np.eye(4)))).shape == (4, 5, 6)
