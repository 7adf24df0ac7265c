import numpy as np
import pytest

from cardiacreg import FFD, Affine, InvalidInputError, invert_points
from tests.helpers.strategies import oblique_matrix, well_conditioned_matrix


def deformation(seed, size_mm):
    rng = np.random.default_rng(seed)
    matrix = oblique_matrix(rng, (12.0, 15.0, 18.0))
    affine = Affine(well_conditioned_matrix(rng))
    return FFD(affine, size_mm * rng.normal(size=(7, 6, 5, 3)), matrix)


def points_inside(ffd, count=50):
    rng = np.random.default_rng(1)
    upper = np.array(ffd.displacements_mm.shape[:3]) - 1.0
    return Affine(ffd.lattice_to_world).apply(rng.uniform(0, upper, size=(count, 3)))


@pytest.mark.parametrize("seed", range(4))
def test_finds_where_points_came_from(seed):
    ffd = deformation(seed, 2.0)
    points = points_inside(ffd)
    found = invert_points(ffd, ffd.apply(points))
    assert found.converged.all()
    assert found.residual_mm.max() <= 1e-3
    np.testing.assert_allclose(found.points_mm, points, atol=0.01)
    np.testing.assert_allclose(ffd.apply(found.points_mm), ffd.apply(points), atol=0.01)


def test_strong_deformations_that_do_not_fold_are_inverted_too():
    matrix = np.diag([10.0, 10.0, 10.0, 1.0])
    moves = np.zeros((12, 6, 6, 3))
    moves[..., 0] = (7.0 * np.sin(np.arange(12) * 0.8))[:, None, None]
    ffd = FFD(Affine.identity(), moves, matrix)
    assert ffd.minimum_jacobian((40, 10, 10), np.diag([2.0, 4.0, 4.0, 1.0])) > 0.1
    points = points_inside(ffd)
    found = invert_points(ffd, ffd.apply(points), tolerance_mm=1e-4)
    assert found.converged.all()
    np.testing.assert_allclose(found.points_mm, points, atol=1e-2)


def test_points_that_cannot_be_found_are_reported():
    """Nothing maps to a point that a fold jumps over; the search ends and says so."""
    ffd = deformation(0, 40.0)
    found = invert_points(ffd, ffd.apply(points_inside(ffd)), iterations=3)
    assert not found.converged.all()
    assert found.iterations <= 3
    assert (found.residual_mm[~found.converged] > 1e-3).all()
    assert np.isfinite(found.points_mm).all()


def test_an_affine_is_inverted_at_once_and_shapes_are_kept():
    affine = Affine(well_conditioned_matrix(np.random.default_rng(3)))
    points = np.random.default_rng(4).normal(size=(2, 3, 3))
    found = invert_points(affine, affine.apply(points))
    np.testing.assert_allclose(found.points_mm, points, atol=1e-9)
    assert found.converged.shape == (2, 3) and found.converged.all() and found.iterations == 0


def test_a_point_alone_keeps_its_shape():
    ffd = deformation(0, 1.0)
    found = invert_points(ffd, [1.0, 2.0, 3.0])
    assert found.points_mm.shape == (3,)
    assert found.converged.shape == ()


@pytest.mark.parametrize("points", [[1.0, 2.0], [[np.nan, 0.0, 0.0]]])
def test_what_are_no_points_is_refused(points):
    with pytest.raises(InvalidInputError):
        invert_points(deformation(0, 1.0), points)


def test_gradient_is_the_slope_of_the_displacement():
    ffd = deformation(5, 2.0)
    points = points_inside(ffd, 10)
    gradient, step = ffd.displacement_gradient(points), 1e-5
    for axis in range(3):
        move = step * np.eye(3)[axis]
        slope = (ffd.displacement(points + move) - ffd.displacement(points - move)) / (2 * step)
        np.testing.assert_allclose(gradient[..., axis], slope, atol=1e-6)
