import numpy as np
import pytest
from hypothesis import given, strategies as st

from cardiacreg import Affine, InvalidInputError
from cardiacreg.transforms.ffd import (
    FFD,
    bending_matrices,
    contract_axis,
    lattice_over_box,
    spline_table,
    subdivide,
)
from tests.helpers import naive
from tests.helpers.strategies import (
    affines,
    few,
    lattices,
    light,
    oblique_matrix,
    seeds,
    well_conditioned_matrix,
)


def dense_weights(table, n_control):
    """The table as a matrix of positions by control points."""
    dense = np.zeros((len(table.first), n_control))
    for row, first, weights in zip(dense, table.first, table.weights, strict=True):
        row[first : first + 4] = weights
    return dense


def interior_points(rng, coefficients, lattice_to_world, count=12):
    """World points where all 64 control points exist."""
    top = np.array(coefficients.shape[:3]) - 2
    positions = rng.uniform(1, top, size=(count, 3))
    return positions @ lattice_to_world[:3, :3].T + lattice_to_world[:3, 3]


class TestTable:
    @light
    @given(st.lists(st.floats(-4, 12), min_size=1, max_size=5), st.integers(0, 2))
    def test_equals_the_oracle_and_drops_what_lies_outside(self, positions, derivative):
        dense = dense_weights(spline_table(positions, 7, derivative=derivative), 7)
        for row, position in zip(dense, positions, strict=True):
            expected = [naive.cubic_spline(position - n, derivative) for n in range(7)]
            at_a_knot = derivative == 2 and position == round(position)
            np.testing.assert_allclose(row, expected, atol=1e-12 + at_a_knot * 1e-9)

    def test_weights_sum_to_one_where_all_four_points_exist(self):
        table = spline_table(np.linspace(1, 5, 41), 7)
        np.testing.assert_allclose(table.weights.sum(axis=1), 1, rtol=1e-14)

    @pytest.mark.parametrize("derivative", [1, 2])
    def test_derivative_weights_sum_to_zero(self, derivative):
        table = spline_table(np.linspace(1, 5, 41), 7, derivative=derivative)
        np.testing.assert_allclose(table.weights.sum(axis=1), 0, atol=1e-14)

    @pytest.mark.parametrize("derivative", [0, 1])
    def test_next_derivative_is_the_slope(self, derivative):
        positions = np.linspace(1.05, 4.95, 30) + 1e-3
        ahead, behind = (
            dense_weights(spline_table(positions + h, 7, derivative=derivative), 7)
            for h in (1e-6, -1e-6)
        )
        slope = dense_weights(spline_table(positions, 7, derivative=derivative + 1), 7)
        np.testing.assert_allclose((ahead - behind) / 2e-6, slope, atol=1e-8)

    def test_first_index_always_leaves_four_points(self):
        table = spline_table([-100.0, -1.0, 0.0, 3.0, 100.0], 4)
        assert table.first.tolist() == [0, 0, 0, 0, 0]
        assert not table.weights[[0, -1]].any()

    def test_contract_axis_is_adjoint_to_its_transpose(self):
        """<W c, y> = <c, W' y> along every axis."""
        rng = np.random.default_rng(0)
        coefficients = rng.normal(size=(5, 6, 7, 3))
        for axis in range(3):
            size = coefficients.shape[axis]
            table = spline_table(rng.uniform(-1, size, size=9), size)
            values = contract_axis(coefficients, table, axis)
            other = rng.normal(size=values.shape)
            back = np.tensordot(dense_weights(table, size).T, other, axes=(1, axis))
            back = np.moveaxis(back, 0, axis)
            assert (values * other).sum() == pytest.approx((coefficients * back).sum(), rel=1e-12)


class TestDeformation:
    @light
    @given(lattices(), affines(), seeds)
    def test_apply_equals_the_64_term_sum(self, lattice, affine, seed):
        coefficients, matrix = lattice
        rng = np.random.default_rng(seed)
        positions = rng.uniform(-2, 9, size=(4, 3))
        points = positions @ matrix[:3, :3].T + matrix[:3, 3]
        transform = naive.deformation(affine.matrix, coefficients, matrix)
        found = FFD(affine, coefficients, matrix).apply(points)
        np.testing.assert_allclose(found, [transform(p) for p in points], atol=1e-9)

    @light
    @given(lattices(), seeds)
    def test_linear_fields_are_reproduced(self, lattice, seed):
        coefficients, matrix = lattice
        rng = np.random.default_rng(seed)
        slope, offset = rng.normal(size=(3, 3)), rng.normal(size=3)
        grid = np.stack(np.meshgrid(*map(np.arange, coefficients.shape[:3]), indexing="ij"), -1)
        world = grid @ matrix[:3, :3].T + matrix[:3, 3]
        ffd = FFD(Affine.identity(), world @ slope.T + offset, matrix)
        points = interior_points(rng, coefficients, matrix)
        np.testing.assert_allclose(ffd.displacement(points), points @ slope.T + offset, atol=1e-9)

    def test_displacement_keeps_leading_axes(self):
        ffd = FFD(Affine.identity(), np.ones((4, 4, 4, 3)), np.eye(4))
        assert ffd.displacement(np.full((2, 5, 3), 1.5)).shape == (2, 5, 3)

    def test_far_outside_only_the_affine_is_left(self):
        affine = Affine(well_conditioned_matrix(np.random.default_rng(1)))
        ffd = FFD(affine, np.ones((4, 4, 4, 3)), np.eye(4))
        point = np.array([100.0, -50.0, 7.0])
        np.testing.assert_array_equal(ffd.apply(point), affine.apply(point))

    def test_spacing_follows_the_matrix(self):
        matrix = oblique_matrix(np.random.default_rng(2), (16.0, 8.0, 4.0))
        np.testing.assert_allclose(
            FFD(Affine.identity(), np.zeros((4, 4, 4, 3)), matrix).spacing_mm, (16, 8, 4)
        )


class TestGrids:
    @staticmethod
    def aligned(matrix, flip=False):
        """A finer lattice along the axes of the control lattice, perhaps reversed along j."""
        local = np.diag([0.31, -0.4 if flip else 0.4, 0.7, 1.0])
        local[:3, 3] = (-0.5, 5.0 if flip else 0.2, 0.9)
        return matrix @ local

    @few
    @given(lattices(), st.booleans())
    def test_aligned_lattice_equals_point_by_point(self, lattice, flip):
        coefficients, matrix = lattice
        ffd, grid = FFD(Affine.identity(), coefficients, matrix), self.aligned(matrix, flip)
        field = ffd.grid_displacement((5, 4, 3), grid)
        for index in np.ndindex(5, 4, 3):
            expected = naive.displacement(coefficients, matrix, naive.move(grid, index))
            np.testing.assert_allclose(field[index], expected, atol=1e-9)

    @few
    @given(lattices(), seeds)
    def test_turned_lattice_equals_point_by_point(self, lattice, seed):
        coefficients, matrix = lattice
        grid = matrix @ oblique_matrix(np.random.default_rng(seed), (0.3, 0.4, 0.7))
        grid[:3, 3] = matrix[:3, 3] + matrix[:3, :3] @ [1.5, 1.0, 1.2]
        ffd = FFD(Affine.identity(), coefficients, matrix)
        field = ffd.grid_displacement((3, 4, 5), grid)
        for index in np.ndindex(3, 4, 5):
            expected = naive.displacement(coefficients, matrix, naive.move(grid, index))
            np.testing.assert_allclose(field[index], expected, atol=1e-9)

    @few
    @given(lattices(), st.booleans())
    def test_slices_are_cut_from_the_whole(self, lattice, turned):
        coefficients, matrix = lattice
        ffd, grid = FFD(Affine.identity(), coefficients, matrix), self.aligned(matrix)
        if turned:
            grid = grid @ oblique_matrix(np.random.default_rng(3), (1, 1, 1))
        whole = ffd.grid_displacement((4, 3, 7), grid)
        part = ffd.grid_displacement((4, 3, 7), grid, slice(2, 5))
        np.testing.assert_array_equal(part, whole[:, :, 2:5])


class TestJacobian:
    @few
    @given(lattices(), st.booleans())
    def test_equals_central_differences(self, lattice, flip):
        coefficients, matrix = lattice
        ffd, grid = FFD(Affine.identity(), coefficients, matrix), TestGrids.aligned(matrix, flip)
        found = ffd.jacobian_determinant((4, 3, 3), grid)
        transform = naive.deformation(np.eye(4), coefficients, matrix)
        for index in np.ndindex(4, 3, 3):
            expected = naive.jacobian_determinant(transform, naive.move(grid, index))
            assert found[index] == pytest.approx(expected, abs=1e-6)

    def test_affine_is_left_out(self):
        ffd = FFD(Affine(np.diag([2.0, 3.0, 4.0, 1.0])), np.zeros((4, 4, 4, 3)), np.eye(4))
        np.testing.assert_array_equal(ffd.jacobian_determinant((2, 2, 2), np.eye(4)), 1)

    def test_minimum_finds_a_fold(self):
        coefficients = np.zeros((7, 7, 7, 3))
        coefficients[3, 3, 3, 0] = 60.0
        ffd = FFD(Affine.identity(), coefficients, np.diag([8.0, 8.0, 8.0, 1.0]))
        shape, grid = (49, 7, 7), np.diag([1.0, 8.0, 8.0, 1.0])
        assert ffd.minimum_jacobian(shape, grid) == ffd.jacobian_determinant(shape, grid).min()
        assert ffd.minimum_jacobian(shape, grid) < 0

    def test_turned_lattice_checks_the_control_lattice_instead(self):
        rng = np.random.default_rng(4)
        coefficients, matrix = rng.normal(size=(4, 5, 4, 3)), np.diag([9.0, 9.0, 9.0, 1.0])
        ffd = FFD(Affine.identity(), coefficients, matrix)
        found = ffd.jacobian_determinant((3, 3, 3), oblique_matrix(rng))
        assert found.shape == (13, 17, 13)
        expected = ffd.jacobian_determinant((13, 17, 13), np.diag([2.25, 2.25, 2.25, 1.0]))
        np.testing.assert_allclose(found, expected, atol=1e-12)


class TestLattice:
    @light
    @given(
        st.tuples(*[st.floats(-50, 50)] * 3),
        st.tuples(*[st.floats(1, 150)] * 3),
        st.tuples(*[st.floats(3, 64)] * 3),
    )
    def test_splines_are_complete_on_the_box_and_no_point_is_wasted(self, lower, size, spacing):
        lower, upper = np.array(lower), np.array(lower) + size
        origin, shape = lattice_over_box(lower, upper, spacing)
        first = (lower - origin) / spacing
        last = (upper - origin) / spacing
        assert (first >= 1 - 1e-6).all()
        assert (last <= np.array(shape) - 2 + 1e-6).all()
        cells = np.array(shape) - 3
        assert ((cells == 1) | ((cells - 1) * spacing < upper - lower + 1e-6)).all()
        np.testing.assert_allclose(first - 1, np.array(shape) - 2 - last, atol=1e-6)

    def test_one_spacing_serves_all_axes(self):
        assert lattice_over_box((0, 0, 0), (30, 20, 10), 10)[1] == (6, 5, 4)

    @few
    @given(lattices(), seeds)
    def test_subdivision_is_exact_where_all_coarse_points_exist(self, lattice, seed):
        coefficients, matrix = lattice
        fine = subdivide(coefficients)
        assert fine.shape[:3] == tuple(2 * n - 1 for n in coefficients.shape[:3])
        half = matrix @ np.diag([0.5, 0.5, 0.5, 1.0])
        for point in interior_points(np.random.default_rng(seed), coefficients, matrix, 6):
            coarse_value = naive.displacement(coefficients, matrix, point)
            np.testing.assert_allclose(
                naive.displacement(fine, half, point), coarse_value, atol=1e-9
            )

    @pytest.mark.parametrize("shape", [(3, 4, 4, 3), (4, 4, 4, 2), (4, 4, 4)])
    def test_too_small_lattices_are_refused(self, shape):
        with pytest.raises(InvalidInputError) as caught:
            FFD(Affine.identity(), np.zeros(shape), np.eye(4))
        assert caught.value.code == "BAD_LATTICE"

    def test_values_that_are_not_finite_are_refused(self):
        with pytest.raises(InvalidInputError) as caught:
            FFD(Affine.identity(), np.full((4, 4, 4, 3), np.inf), np.eye(4))
        assert caught.value.code == "BAD_LATTICE"

    def test_displacements_are_read_only_copies(self):
        values = np.zeros((4, 4, 4, 3))
        ffd = FFD(Affine.identity(), values, np.eye(4))
        values[:] = 1
        assert not ffd.displacements_mm.any()
        assert not ffd.displacements_mm.flags.writeable


class TestBendingMatrices:
    @pytest.mark.parametrize("order", [0, 1, 2])
    def test_equal_fine_quadrature(self, order):
        """Simpson's rule over the complete part, written with the oracle's basis functions."""
        size, spacing, parts = 6, 2.5, 64
        n = parts * (size - 3)
        nodes = 1 + np.arange(n + 1) / parts
        weights = np.where(np.arange(n + 1) % 2, 4.0, 2.0) / (3 * parts)
        weights[[0, -1]] /= 2
        basis = np.array([[naive.cubic_spline(x - a, order) for a in range(size)] for x in nodes])
        expected = spacing ** (1 - 2 * order) * (basis.T * weights) @ basis
        np.testing.assert_allclose(
            bending_matrices(size, spacing)[order], expected, rtol=1e-4, atol=1e-9
        )

    def test_are_symmetric_and_positive(self):
        for gram in bending_matrices(7, 16.0):
            np.testing.assert_allclose(gram, gram.T, atol=1e-15)
            assert np.linalg.eigvalsh(gram).min() > -1e-12

    def test_linear_coefficients_do_not_bend(self):
        gram = bending_matrices(7, 16.0)[2]
        line = np.arange(7.0)
        np.testing.assert_allclose(gram @ line, 0, atol=1e-15)
