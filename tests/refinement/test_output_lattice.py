import numpy as np
import pytest

from cardiacreg import Affine, InvalidInputError, LabelMap, Volume
from cardiacreg.refinement.output_lattice import (
    lattice_box_mm,
    lattice_over_heart,
    place_target_image,
    upsample_labels,
)
from cardiacreg.transforms.resampling import Lattice
from tests.helpers import naive
from tests.helpers.strategies import oblique_matrix, well_conditioned_matrix

TARGET_SPACING_MM = (1.5, 2.0, 8.0)
SPACING_MM = np.array([1.25, 1.25, 2.0])


def target(seed=0, *, left_handed=True):
    array = np.zeros((20, 18, 7), dtype=np.uint8)
    array[6:14, 5:12, 2:6] = 1
    rng = np.random.default_rng(seed)
    return LabelMap(array, oblique_matrix(rng, TARGET_SPACING_MM, left_handed=left_handed))


def label_corners(labels):
    """World corners of the box around the labelled voxels, voxel edges included."""
    where = np.argwhere(labels.array)
    low, high = where.min(axis=0) - 0.5, where.max(axis=0) + 0.5
    corners = [[(low, high)[n >> a & 1][a] for a in range(3)] for n in range(8)]
    return np.array([naive.move(labels.voxel_to_world, corner) for corner in corners])


def voxels(lattice, points):
    inverse = np.linalg.inv(lattice.voxel_to_world)
    return np.array([naive.move(inverse, point) for point in points])


class TestLatticeOverHeart:
    def test_axes_and_handedness_are_those_of_the_target_and_spacing_is_what_was_asked(self):
        labels = target()
        lattice = lattice_over_heart(labels, [], SPACING_MM, 6.0)
        own = labels.voxel_to_world[:3, :3] / TARGET_SPACING_MM
        np.testing.assert_allclose(lattice.voxel_to_world[:3, :3], own * SPACING_MM, atol=1e-12)

    def test_covers_the_target_and_a_margin_and_no_more(self):
        labels = target()
        lattice = lattice_over_heart(labels, [], SPACING_MM, 6.0)
        found = voxels(lattice, label_corners(labels)) * SPACING_MM
        low, high = (
            found.min(axis=0),
            (np.array(lattice.shape) - 1) * SPACING_MM - found.max(axis=0),
        )
        for gap in (low, high):
            assert ((gap >= 6 - 1e-9) & (gap < 6 + SPACING_MM + 1e-9)).all()

    def test_voxels_lie_on_whole_steps_from_the_targets_first_voxel(self):
        labels = target()
        lattice = lattice_over_heart(labels, [], SPACING_MM, 6.0)
        first = voxels(lattice, [labels.voxel_to_world[:3, 3]])
        np.testing.assert_allclose(first, np.rint(first), atol=1e-9)

    def test_grows_to_the_median_atlas_but_not_to_a_stray_one(self):
        labels, rng = target(), np.random.default_rng(1)
        tall = LabelMap(
            np.pad(labels.array, ((0, 0), (0, 0), (0, 9)), mode="edge"), labels.voxel_to_world
        )
        tall_array = np.array(tall.array)
        tall_array[8, 8, 6:12] = 1
        tall = LabelMap(tall_array, labels.voxel_to_world)
        affine = Affine(well_conditioned_matrix(rng))
        placed = (LabelMap(tall.array, affine.matrix @ tall.voxel_to_world), affine)
        far = np.eye(4)
        far[0, 3] = 500.0
        without = lattice_over_heart(labels, [], SPACING_MM, 6.0)
        grown = lattice_over_heart(labels, [placed] * 3, SPACING_MM, 6.0)
        stray = lattice_over_heart(labels, [placed] * 3 + [(tall, Affine(far))], SPACING_MM, 6.0)
        inside = voxels(grown, label_corners(tall))
        assert (inside >= 0).all() and (inside <= np.array(grown.shape) - 1).all()
        assert grown.shape[2] > without.shape[2]
        assert stray.shape == grown.shape

    @pytest.mark.parametrize("spacing", [(1.0, 1.0), (1.0, 1.0, 0.0), (1.0, np.nan, 1.0), 2.0])
    def test_impossible_spacings_are_refused(self, spacing):
        with pytest.raises(InvalidInputError) as caught:
            lattice_over_heart(target(), [], spacing, 6.0)
        assert caught.value.code == "BAD_SPACING"


def test_lattice_box_is_given_in_the_targets_frame():
    labels = target()
    lattice = lattice_over_heart(labels, [], SPACING_MM, 6.0)
    frame = np.array(labels.voxel_to_world)
    frame[:3, :3] /= TARGET_SPACING_MM
    lower, upper = lattice_box_mm(lattice, frame)
    np.testing.assert_allclose(upper - lower, (np.array(lattice.shape) - 1) * SPACING_MM)
    np.testing.assert_allclose(naive.move(frame, lower), lattice.voxel_to_world[:3, 3], atol=1e-9)


class TestPlaceTargetImage:
    def case(self, seed=2, shape=(9, 8, 5)):
        rng = np.random.default_rng(seed)
        image = Volume(rng.normal(size=shape), oblique_matrix(rng, TARGET_SPACING_MM))
        local = np.diag([0.7, 0.6, 0.3, 1.0])
        local[:3, 3] = (0.3, -1.2, -0.4)
        shifts = rng.uniform(-3, 3, size=(shape[2], 2))
        return image, shifts, Lattice((11, 13, 19), image.voxel_to_world @ local)

    def test_equals_the_oracle(self):
        image, shifts, lattice = self.case()
        found = place_target_image(image, shifts, lattice)
        positions = np.linalg.inv(image.voxel_to_world) @ lattice.voxel_to_world
        for index in np.ndindex(*lattice.shape):
            i, j, k = naive.move(positions, index)
            depth = min(max(k, 0.0), image.shape[2] - 1.0)
            expected = 0.0
            for slice_index in range(image.shape[2]):
                near = max(0.0, 1 - abs(depth - slice_index))
                moved = (i - shifts[slice_index, 0] / 1.5, j - shifts[slice_index, 1] / 2.0)
                moved = [
                    min(max(m, 0.0), n - 1.0) for m, n in zip(moved, image.shape, strict=False)
                ]
                for corner, weight in naive.corner_weights((*moved, slice_index)):
                    if near * weight > 0:
                        expected += near * weight * image.array[corner]
            assert found.array[index] == pytest.approx(expected, abs=1e-5)

    def test_a_slice_ends_up_where_its_shift_says(self):
        array = np.zeros((12, 12, 3))
        array[4, 5, 1] = 1
        image = Volume(array, np.diag([1.5, 2.0, 8.0, 1.0]))
        shifts = np.array([[0, 0], [3.0, -4.0], [0, 0]])
        found = place_target_image(image, shifts, Lattice(image.shape, image.voxel_to_world))
        assert np.argwhere(found.array == 1).tolist() == [[6, 3, 1]]

    def test_a_single_slice_is_repeated(self):
        image, _, lattice = self.case(shape=(9, 8, 1))
        found = place_target_image(image, np.zeros((1, 2)), lattice).array
        np.testing.assert_array_equal(found, np.repeat(found[:, :, :1], lattice.shape[2], axis=2))


class TestUpsampleLabels:
    def test_every_voxel_holds_the_label_of_the_slice_voxel_it_lies_in(self):
        rng = np.random.default_rng(3)
        array = rng.integers(0, 4, size=(6, 5, 4))
        array[0, 0] = 1
        labels = LabelMap(array, oblique_matrix(rng, TARGET_SPACING_MM))
        fine = upsample_labels(labels, (0.5, 1.0, 2.0))
        assert fine.shape == (18, 10, 16)
        to_voxel = np.linalg.inv(labels.voxel_to_world) @ fine.voxel_to_world
        for index in np.ndindex(*fine.shape):
            assert fine.array[index] == naive.nearest_label(array, naive.move(to_voxel, index))

    def test_only_the_slab_of_labelled_slices_is_kept(self):
        fine = upsample_labels(target(), (1.5, 2.0, 2.0))
        assert fine.shape == (20, 18, 16)
        assert fine.array.any(axis=(0, 1)).all()

    def test_edges_of_the_slices_stay_in_place(self):
        labels = target()
        fine = upsample_labels(labels, (0.75, 1.0, 2.0))
        np.testing.assert_allclose(label_corners(fine), label_corners(labels), atol=1e-9)
