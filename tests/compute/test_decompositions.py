"""Decompositions of symmetric matrices, beside LAPACK's."""

import numpy as np
import pytest

from cardiacreg.compute.decompositions import cholesky_factor, eigenvectors, solve_lower
from cardiacreg.transforms.bspline import bending_matrices


def positive(size):
    parts = np.random.default_rng(size).normal(size=(size, size + 3))
    return parts @ parts.T


@pytest.mark.parametrize("size", [1, 2, 5, 60])
def test_a_cholesky_factor_and_what_it_solves(size):
    matrix = positive(size)
    factor = cholesky_factor(matrix)
    np.testing.assert_allclose(factor, np.linalg.cholesky(matrix), rtol=1e-9, atol=1e-9)
    assert not np.triu(factor, 1).any()
    right = np.arange(size, dtype=np.float64)
    np.testing.assert_allclose(factor @ solve_lower(factor, right), right, atol=1e-9)
    many = np.stack([right, right + 1, -right], axis=1)
    np.testing.assert_allclose(factor @ solve_lower(factor, many), many, atol=1e-9)


@pytest.mark.parametrize("size", [1, 2, 5, 60])
def test_eigenvectors_of_any_matrix(size):
    matrix = positive(size) - 3 * np.eye(size)
    values, vectors = eigenvectors(matrix)
    np.testing.assert_allclose(values, np.linalg.eigvalsh(matrix), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(size), atol=1e-12)
    np.testing.assert_allclose(matrix @ vectors, vectors * values, atol=1e-9 * np.abs(matrix).max())


def test_eigenvectors_where_two_eigenvalues_are_zero():
    second = bending_matrices(30, 4.0)[2]
    values, vectors = eigenvectors(second)
    assert np.abs(values[:2]).max() < 1e-15 * values[-1] * len(second)
    assert values[2] > 1e-9 * values[-1]
    np.testing.assert_allclose(second @ vectors, vectors * values, atol=1e-14 * values[-1] * 30)
