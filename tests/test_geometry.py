import copy
import dataclasses
import pickle

import numpy as np
import pytest
from hypothesis import given

from cardiacreg import Affine, InvalidInputError, LabelMap, Landmarks, Subject, Volume
from cardiacreg.geometry import (
    LANDMARK_NAMES,
    STRUCTURES,
    apply_matrix,
    corner_distance_mm,
    same_lattice,
    voxel_grid,
)
from tests.helpers.naive import move
from tests.helpers.strategies import affines, label_maps, light, oblique_matrix, random_labels


def refused(code, make, *arguments, **keywords):
    """The message of the InvalidInputError with this code that a call must raise."""
    with pytest.raises(InvalidInputError) as caught:
        make(*arguments, **keywords)
    assert caught.value.code == code
    return str(caught.value)


class TestGrids:
    def test_volume_is_float32_and_labels_are_uint8(self):
        assert Volume(np.ones((2, 3, 4)), np.eye(4)).array.dtype == np.float32
        assert LabelMap(np.ones((2, 3, 4), dtype=np.int64), np.eye(4)).array.dtype == np.uint8

    def test_geometry_is_float64(self):
        assert (
            Volume(np.ones((2, 3, 4)), np.eye(4, dtype=np.float32)).voxel_to_world.dtype
            == np.float64
        )

    @pytest.mark.parametrize("kind", [Volume, LabelMap])
    def test_arrays_are_read_only_copies_in_c_order(self, kind):
        given_array = np.zeros((2, 3, 4), order="F")
        grid = kind(given_array, np.eye(4))
        given_array[:] = 1
        assert not grid.array.any()
        assert grid.array.flags.c_contiguous
        with pytest.raises(ValueError, match="read-only"):
            grid.array[0, 0, 0] = 1
        with pytest.raises(ValueError, match="read-only"):
            grid.voxel_to_world[0, 0] = 2

    @pytest.mark.parametrize(("kind", "dtype"), [(Volume, np.float32), (LabelMap, np.uint8)])
    def test_a_view_is_read_only_and_its_base_can_still_change(self, kind, dtype):
        base = np.zeros((2, 3, 4), dtype)
        for view in (base.view(), base[:], np.frombuffer(base.data, dtype).reshape(2, 3, 4)):
            view.setflags(write=False)
            grid = kind(view, np.eye(4))
            base[:] = 1
            assert not grid.array.any()
            base[:] = 0

    @pytest.mark.parametrize(("kind", "dtype"), [(Volume, np.float32), (LabelMap, np.uint8)])
    def test_what_nobody_can_change_is_not_copied(self, kind, dtype, tmp_path):
        fixed = np.frombuffer(bytes(24 * np.dtype(dtype).itemsize), dtype).reshape(2, 3, 4)
        assert np.shares_memory(kind(fixed, np.eye(4)).array, fixed)
        np.save(tmp_path / "a.npy", fixed)
        mapped = np.asarray(np.load(tmp_path / "a.npy", mmap_mode="r"))
        assert np.shares_memory(kind(mapped, np.eye(4)).array, mapped)
        first = kind(fixed.copy(), np.eye(4))
        assert kind(first.array, np.eye(4)).array is first.array

    @pytest.mark.parametrize("kind", [Volume, LabelMap])
    @pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int64])
    def test_a_mask_is_not_dropped(self, kind, dtype):
        array = np.ma.masked_equal(np.arange(24, dtype=dtype).reshape(2, 3, 4), 5)
        assert "filled(0)" in refused("MASKED_ARRAY", kind, array, np.eye(4))
        whole = np.ma.masked_array(np.ones((2, 3, 4), dtype))
        assert kind(whole, np.eye(4)).array.sum() == 24

    @pytest.mark.parametrize("kind", [Volume, LabelMap])
    def test_objects_are_frozen_and_compared_by_identity(self, kind):
        first, second = (kind(np.zeros((1, 1, 1)), np.eye(4)) for _ in range(2))
        assert first != second
        with pytest.raises(dataclasses.FrozenInstanceError):
            first.array = second.array

    def test_shape_and_spacing_follow_the_stored_axes(self):
        matrix = oblique_matrix(np.random.default_rng(0), (1.25, 2.5, 8.0), left_handed=True)
        grid = Volume(np.zeros((2, 3, 5)), matrix)
        assert grid.shape == (2, 3, 5)
        np.testing.assert_allclose(grid.spacing_mm, (1.25, 2.5, 8.0), rtol=1e-12)

    @pytest.mark.parametrize("kind", [Volume, LabelMap])
    @pytest.mark.parametrize("shape", [(3,), (2, 2), (2, 2, 2, 2), (2, 0, 2)])
    def test_other_shapes_are_refused(self, kind, shape):
        assert str(shape) in refused("BAD_SHAPE", kind, np.zeros(shape), np.eye(4))

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_volume_refuses_values_that_are_not_finite(self, value):
        refused("NOT_FINITE", Volume, np.full((2, 2, 2), value), np.eye(4))

    @pytest.mark.parametrize("kind", [Volume, LabelMap, lambda a, m: Affine(m)])
    def test_bad_matrices_are_refused(self, kind):
        array = np.zeros((2, 2, 2))
        refused("BAD_MATRIX", kind, array, np.eye(3))
        refused("BAD_MATRIX", kind, array, np.full((4, 4), np.nan))
        refused("BAD_MATRIX", kind, array, np.ones((4, 4)))
        refused("SINGULAR_MATRIX", kind, array, np.diag([1.0, 0.0, 1.0, 1.0]))

    def test_small_but_regular_spacing_is_accepted(self):
        assert Affine(np.diag([1e-3, 1e-3, 1e-3, 1.0])).matrix[0, 0] == 1e-3


class TestLabels:
    def test_floats_that_hold_integers_are_accepted(self):
        assert LabelMap(np.full((1, 1, 2), 3.0), np.eye(4)).array.tolist() == [[[3, 3]]]

    def test_booleans_are_accepted(self):
        assert LabelMap(np.ones((1, 1, 1), dtype=bool), np.eye(4)).array[0, 0, 0] == 1

    def test_fractions_are_refused(self):
        refused("FRACTIONAL_LABELS", LabelMap, np.full((2, 2, 2), 0.5), np.eye(4))

    @pytest.mark.parametrize("value", [-1, 256, 1000])
    def test_values_beyond_uint8_are_refused_not_wrapped(self, value):
        refused("UNKNOWN_LABEL", LabelMap, np.full((2, 2, 2), value), np.eye(4))

    def test_text_is_refused(self):
        refused("BAD_DTYPE", LabelMap, np.full((2, 2, 2), "a"), np.eye(4))

    def test_present_lists_labels_above_zero_in_order(self):
        array = random_labels(np.random.default_rng(1), labels=(0, 9, 3))
        assert LabelMap(array, np.eye(4)).present() == (3, 9)


class TestLandmarks:
    def test_six_points_carry_the_names_of_the_paper(self):
        assert Landmarks(np.zeros((6, 3))).names == LANDMARK_NAMES

    def test_other_counts_are_numbered(self):
        assert Landmarks(np.zeros((2, 3))).names == ("point 0", "point 1")

    def test_from_voxels_equals_moving_each_point(self):
        rng = np.random.default_rng(2)
        matrix, points = oblique_matrix(rng), rng.uniform(0, 9, size=(6, 3))
        expected = [move(matrix, point) for point in points]
        np.testing.assert_allclose(Landmarks.from_voxels(points, matrix).points_mm, expected)

    @pytest.mark.parametrize("points", [np.zeros((6, 2)), np.zeros(3), np.zeros((0, 3))])
    def test_other_shapes_are_refused(self, points):
        refused("BAD_LANDMARKS", Landmarks, points)

    def test_a_bad_point_is_named(self):
        points = np.zeros((6, 3))
        points[4, 1] = np.nan
        assert "[4]" in refused("BAD_LANDMARKS", Landmarks, points)

    def test_a_masked_point_is_refused(self):
        refused("MASKED_ARRAY", Landmarks, np.ma.masked_less(np.arange(18.0).reshape(6, 3), 2))

    def test_names_must_match(self):
        refused("BAD_LANDMARKS", Landmarks, np.zeros((6, 3)), ("apex",))


class TestSubject:
    def test_types_are_checked(self):
        array = np.zeros((1, 1, 1))
        labels = LabelMap(array, np.eye(4))
        refused("BAD_TYPE", Subject, array)
        refused("BAD_TYPE", Subject, labels, image=labels)

    def test_metadata_is_not_shared(self):
        labels = LabelMap(np.zeros((1, 1, 1)), np.eye(4))
        assert Subject(labels).metadata is not Subject(labels).metadata


class TestAffine:
    @light
    @given(affines())
    def test_apply_equals_the_oracle(self, affine):
        point = np.array([3.0, -40.0, 12.5])
        np.testing.assert_allclose(affine.apply(point), move(affine.matrix, point), atol=1e-10)

    @light
    @given(affines())
    def test_inverse_undoes(self, affine):
        points = np.random.default_rng(3).normal(size=(4, 5, 3)) * 50
        np.testing.assert_allclose(affine.inverse().apply(affine.apply(points)), points, atol=1e-8)

    @light
    @given(affines(), affines())
    def test_compose_applies_its_argument_first(self, second, first):
        point = np.array([1.0, 2.0, 3.0])
        expected = move(second.matrix, move(first.matrix, point))
        np.testing.assert_allclose(second.compose(first).apply(point), expected, atol=1e-9)

    def test_identity(self):
        assert np.array_equal(Affine.identity().apply([1, 2, 3]), [1, 2, 3])


class TestLattices:
    @light
    @given(label_maps())
    def test_voxel_grid_equals_the_oracle(self, labels):
        grid = voxel_grid(labels.shape, labels.voxel_to_world)
        for index in np.ndindex(labels.shape):
            np.testing.assert_allclose(grid[index], move(labels.voxel_to_world, index), atol=1e-10)

    def test_axis_order_is_frozen(self):
        """i moves along column 0, j along 1, k along 2, on an asymmetric oblique grid."""
        matrix = np.array(
            [[0.0, 0.0, -8.0, 5.0], [1.2, -1.6, 0.0, -7.0], [-1.6, -1.2, 0.0, 3.0], [0, 0, 0, 1]]
        )
        grid = voxel_grid((2, 3, 4), matrix)
        assert grid.shape == (2, 3, 4, 3)
        np.testing.assert_allclose(grid[0, 0, 0], (5.0, -7.0, 3.0))
        np.testing.assert_allclose(grid[1, 0, 0] - grid[0, 0, 0], (0.0, 1.2, -1.6))
        np.testing.assert_allclose(grid[0, 1, 0] - grid[0, 0, 0], (0.0, -1.6, -1.2))
        np.testing.assert_allclose(grid[0, 0, 3], (5.0 - 24.0, -7.0, 3.0))

    def test_same_lattice_tolerates_only_what_it_says(self):
        array, moved = np.zeros((5, 4, 3)), np.eye(4)
        moved[0, 3] = 5e-4
        first, second = Volume(array, np.eye(4)), LabelMap(array, moved)
        assert same_lattice(first, second)
        assert not same_lattice(first, second, tolerance_mm=1e-4)
        assert not same_lattice(first, Volume(np.zeros((5, 4, 4)), np.eye(4)))

    def test_corner_distance_finds_the_farthest_corner(self):
        assert corner_distance_mm((11, 2, 2), np.eye(4), np.diag([1.5, 1.0, 1.0, 1.0])) == 5.0

    def test_apply_matrix_keeps_leading_axes(self):
        assert apply_matrix(np.eye(4), np.zeros((2, 5, 3))).shape == (2, 5, 3)


def test_the_four_structures_are_the_labels_of_the_design():
    assert STRUCTURES == {1: "LV cavity", 2: "LV wall", 3: "RV wall", 4: "RV cavity"}


def held():
    """One of every object that holds arrays, with the names of these."""
    from cardiacreg import FFD, BSplineMap, DisplacementField, Surface

    corners = np.array([[0.0, 0, 0], [10, 0, 0], [0, 10, 0], [0, 0, 10]])
    faces = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
    moves = np.zeros((5, 5, 5, 3))
    return [
        (LabelMap(np.ones((2, 3, 4)), np.eye(4)), ("array", "voxel_to_world")),
        (Volume(np.ones((2, 3, 4)), np.eye(4)), ("array", "voxel_to_world")),
        (Landmarks(corners, ("a", "b", "c", "d"), source="network"), ("points_mm",)),
        (Affine(np.eye(4)), ("matrix",)),
        (FFD(Affine(np.eye(4)), moves, np.eye(4)), ("displacements_mm", "lattice_to_world")),
        (BSplineMap(moves, np.eye(4), 2), ("displacements_mm",)),
        (DisplacementField(moves, np.eye(4)), ("displacements_mm",)),
        (Surface(corners, faces, "one"), ("vertices_mm", "triangles")),
    ]


@pytest.mark.parametrize(("made", "names"), held(), ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("copied", ["pickle", "deepcopy", "copy"])
def test_copies_are_as_read_only_as_what_they_are_of(made, names, copied):
    ways = {
        "pickle": lambda value: pickle.loads(pickle.dumps(value)),
        "deepcopy": copy.deepcopy,
        "copy": copy.copy,
    }
    found = ways[copied](made)
    assert type(found) is type(made)
    for each in dataclasses.fields(made):
        mine, theirs = getattr(found, each.name), getattr(made, each.name)
        if isinstance(theirs, np.ndarray):
            np.testing.assert_array_equal(mine, theirs)
        elif not dataclasses.is_dataclass(theirs):
            assert mine == theirs
    for name in names:
        assert not getattr(found, name).flags.writeable
        with pytest.raises(ValueError):
            getattr(found, name).flat[0] = 1
