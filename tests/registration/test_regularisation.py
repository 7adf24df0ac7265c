import numpy as np
import pytest
from hypothesis import given

from cardiacreg.registration.regularisation import (
    BendingEnergy,
    FoldingPenalty,
    WhitenedDisplacements,
)
from cardiacreg.transforms import jacobian
from cardiacreg.transforms.bspline import bending_matrices
from cardiacreg.transforms.jacobian import (
    DenseDeterminants,
    jacobian_determinants,
    minimum_jacobian,
)
from tests.helpers import naive
from tests.helpers.strategies import few, seeds

SHAPE, SPACING_MM = (4, 4, 5, 3), np.array([16.0, 12.0, 20.0])


class TestBendingEnergy:
    def test_equals_fine_quadrature(self):
        moves = np.random.default_rng(1).normal(size=SHAPE)
        value, _ = BendingEnergy(SHAPE, SPACING_MM)(moves)
        expected = naive.bending_energy(moves, SPACING_MM, parts=4)
        assert value == pytest.approx(expected, rel=5e-3)

    @few
    @given(seeds)
    def test_gradient_belongs_to_the_value(self, seed):
        """The energy is quadratic: a central difference of any step is exact."""
        rng = np.random.default_rng(seed)
        bending = BendingEnergy(SHAPE, SPACING_MM)
        moves, direction = rng.normal(size=SHAPE), rng.normal(size=SHAPE)
        value, gradient = bending(moves)
        slope = (bending(moves + direction)[0] - bending(moves - direction)[0]) / 2
        assert slope == pytest.approx((gradient * direction).sum(), rel=1e-9, abs=1e-12)
        assert (gradient * moves).sum() == pytest.approx(2 * value, rel=1e-9)

    @few
    @given(seeds)
    def test_affine_displacements_do_not_bend(self, seed):
        rng = np.random.default_rng(seed)
        grid = np.stack(np.meshgrid(*map(np.arange, SHAPE[:3]), indexing="ij"), -1)
        moves = grid @ rng.normal(size=(3, 3)) + rng.normal(size=3)
        value, gradient = BendingEnergy(SHAPE, SPACING_MM)(moves)
        assert value == pytest.approx(0, abs=1e-15)
        np.testing.assert_allclose(gradient, 0, atol=1e-15)

    def test_energy_is_in_mm(self):
        """The same displacements on a lattice twice as wide bend sixteen times less."""
        moves = np.random.default_rng(2).normal(size=SHAPE)
        narrow = BendingEnergy(SHAPE, SPACING_MM)(moves)[0]
        assert BendingEnergy(SHAPE, 2 * SPACING_MM)(moves)[0] == pytest.approx(narrow / 16)


class TestFoldingPenalty:
    def folded(self, seed):
        return 14 * np.random.default_rng(seed).normal(size=SHAPE)

    def oracle(self, moves, threshold):
        """Mean squared shortfall over points twice as dense as the complete part's control points."""
        matrix = np.diag([*SPACING_MM, 1.0])
        transform = naive.deformation(np.eye(4), moves, matrix)
        shortfalls = []
        for index in np.ndindex(*(2 * (n - 3) + 1 for n in SHAPE[:3])):
            point = (1 + np.array(index) / 2) * SPACING_MM
            determinant = naive.jacobian_determinant(transform, point)
            shortfalls.append(max(0.0, threshold - determinant) ** 2)
        return np.mean(shortfalls)

    @pytest.mark.parametrize("threshold", [0.3, 0.7])
    def test_equals_the_oracle(self, threshold):
        moves = self.folded(3)
        value, _ = FoldingPenalty(SHAPE, SPACING_MM, threshold)(moves)
        assert value > 0
        assert value == pytest.approx(self.oracle(moves, threshold), rel=1e-5)

    @few
    @given(seeds)
    def test_gradient_equals_central_differences(self, seed):
        penalty, moves = FoldingPenalty(SHAPE, SPACING_MM, 0.5), self.folded(seed)
        direction = np.random.default_rng(seed + 1).normal(size=SHAPE)
        _, gradient = penalty(moves)
        step = 1e-5
        slope = (penalty(moves + step * direction)[0] - penalty(moves - step * direction)[0]) / (
            2 * step
        )
        assert slope == pytest.approx((gradient * direction).sum(), rel=1e-5, abs=1e-8)

    @pytest.mark.parametrize("size_mm", [0.0, 0.5, 3.0])
    def test_is_exactly_zero_where_nothing_shrinks_below_the_threshold(self, size_mm):
        moves = size_mm * np.random.default_rng(4).uniform(-0.5, 0.5, size=SHAPE)
        value, gradient = FoldingPenalty(SHAPE, SPACING_MM, 0.3)(moves)
        assert value == 0
        assert not gradient.any()

    @few
    @given(seeds)
    def test_columns_that_are_left_out_hold_no_low_determinant(self, seed):
        """Steps of every size, from gentle to folded; the bound is of determinants anywhere in a cell."""
        rng, shape = np.random.default_rng(seed), (7, 6, 5, 3)
        moves = rng.uniform(0.5, 6) * rng.normal(size=shape) * rng.uniform(0, 1, size=(7, 6, 5, 1))
        positions = [np.linspace(1, n - 2, 4 * n) for n in shape[:3]]
        lowest = jacobian_determinants(moves, SPACING_MM, positions).min(axis=2)
        steepest = jacobian._steepest(moves, SPACING_MM)
        i, j = (np.minimum(np.floor(each).astype(int) - 1, n - 4) for each, n in zip(
            positions[:2], shape, strict=False))  # fmt: skip
        for limit in (0.1, 0.3, 0.6, 0.9):
            kept = [[jacobian._may_fall_below(steepest, a, b, limit) for b in j] for a in i]
            assert lowest[~np.array(kept)].min(initial=np.inf) >= limit

    def test_most_columns_of_a_gentle_deformation_are_left_out(self):
        moves = np.zeros((12, 12, 5, 3))
        moves[2, 2, 2] = -12.0
        steepest = jacobian._steepest(moves, SPACING_MM)
        kept = [jacobian._may_fall_below(steepest, a, b, 0.3) for a in range(9) for b in range(9)]
        assert 0 < sum(kept) <= 9


class TestWhitenedDisplacements:
    SHAPE, SPACING = (9, 8, 7, 3), np.array([16.0, 12.0, 20.0])

    def coordinates(self):
        return WhitenedDisplacements(self.SHAPE, self.SPACING, 3.0, 0.03, 0.003)

    def test_gradient_is_the_adjoint(self):
        rng = np.random.default_rng(1)
        given, moved = rng.normal(size=(2, *self.SHAPE))
        whitened = self.coordinates()
        first = (whitened.displacements(given) * moved).sum()
        assert first == pytest.approx((given * whitened.gradient(moved)).sum(), rel=1e-10)

    def test_energy_and_stiffness_are_nearly_half_the_square(self):
        """The stiffness of a displacement is its mean square, from the mass matrices alone."""
        rng = np.random.default_rng(2)
        whitened, bending = self.coordinates(), BendingEnergy(self.SHAPE, self.SPACING, 0.03)
        masses = [bending_matrices(self.SHAPE[a], self.SPACING[a])[0] for a in range(3)]
        volume = np.prod((np.array(self.SHAPE[:3]) - 3) * self.SPACING)
        for _ in range(10):
            given = rng.normal(size=self.SHAPE)
            moved = whitened.displacements(given)
            square = np.einsum("abcn,ai,bj,ck,ijkn->", moved, *masses, moved) / volume
            value = 3.0 * bending(moved)[0] + 0.003 * square
            assert value == pytest.approx((given**2).sum() / 2, rel=0.1)


class TestControlPointsBelow:
    def test_are_those_that_act_where_the_oracle_is_low(self):
        shape = (7, 5, 8, 3)
        moves = 0.4 * np.random.default_rng(3).normal(size=shape)
        moves[2, 2, 3] = (45.0, -30.0, 0.0)
        found = DenseDeterminants(moves, SPACING_MM).control_points_below(0.2)
        transform = naive.deformation(np.eye(4), moves, np.diag([*SPACING_MM, 1.0]))
        expected = np.zeros(shape[:3], dtype=bool)
        for index in np.ndindex(*(4 * (n - 3) + 1 for n in shape[:3])):
            place = 1 + np.array(index) / 4
            if naive.jacobian_determinant(transform, place * SPACING_MM) < 0.2:
                a, b, c = np.minimum(place.astype(int) - 1, np.array(shape[:3]) - 4)
                expected[a : a + 4, b : b + 4, c : c + 4] = True
        assert expected.any() and not expected.all()
        np.testing.assert_array_equal(found, expected)

    def test_are_none_exactly_where_the_minimum_reaches_the_limit(self):
        moves = 3 * np.random.default_rng(4).normal(size=(6, 6, 6, 3))
        lowest = minimum_jacobian(moves, SPACING_MM)
        determinants = DenseDeterminants(moves, SPACING_MM)
        assert not determinants.control_points_below(lowest).any()
        assert determinants.control_points_below(lowest + 1e-9).any()

    @few
    @given(seeds)
    def test_after_a_move_are_those_of_the_moved_displacements(self, seed):
        rng = np.random.default_rng(seed)
        moves = 6 * rng.normal(size=(9, 8, 10, 3))
        determinants = DenseDeterminants(moves, SPACING_MM)
        for _ in range(2):
            moved = rng.random(moves.shape[:3]) < 0.01
            moved[tuple(rng.integers(0, moved.shape))] = True
            moves = np.where(moved[..., None], 6 * rng.normal(size=moves.shape), moves)
            determinants.move(moves, moved)
        anew = DenseDeterminants(moves, SPACING_MM)
        for limit in (0.0, 0.5, 1.0):
            np.testing.assert_array_equal(
                determinants.control_points_below(limit), anew.control_points_below(limit)
            )
