"""Decompositions of small symmetric matrices in a fixed order of sums; see `cardiacreg.algebra`."""

from __future__ import annotations

import numpy as np

from cardiacreg.arrays import Float
from cardiacreg.compute.jit import kernel

_MOST_SWEEPS = 30


def cholesky_factor(matrix: Float) -> Float:
    """Return the lower triangular L with ``L L' = matrix``; NaN where the matrix is not positive."""
    factor = np.array(matrix, dtype=np.float64)
    _factorise(factor)
    return factor


def solve_lower(factor: Float, right: Float) -> Float:
    """Return x with ``factor x = right``, for a lower triangular factor and a vector or columns."""
    found = np.array(right, dtype=np.float64)
    _substitute(factor, found.reshape(len(found), -1))
    return found


def eigenvectors(matrix: Float) -> tuple[Float, Float]:
    """Return the eigenvalues of a symmetric matrix, rising, and its eigenvectors as columns.

    By Jacobi's rotations, until what is off the diagonal is nothing beside it.
    """
    rest, vectors = np.array(matrix, dtype=np.float64), np.eye(len(matrix))
    _rotate(rest, vectors, _MOST_SWEEPS)
    order = np.argsort(np.diag(rest), kind="stable")
    return np.diag(rest)[order], np.ascontiguousarray(vectors[order].T)


# ---------------------------------------------------------------------------------------------- kernels


@kernel
def _factorise(matrix):
    """Replace a symmetric matrix by its lower Cholesky factor, a column after the other."""
    size = len(matrix)
    for n in range(size):
        root = np.sqrt(matrix[n, n])
        for a in range(n, size):
            matrix[a, n] /= root
        for a in range(n + 1, size):
            weight = matrix[a, n]
            matrix[n, a] = weight
            row, column = matrix[a], matrix[n]
            for b in range(n + 1, a + 1):
                row[b] -= weight * column[b]
    for a in range(size):
        for b in range(a + 1, size):
            matrix[a, b] = 0.0


@kernel
def _substitute(factor, values):
    """Solve lower triangular systems in place, one per column of `values`."""
    for a in range(len(values)):
        row = values[a]
        for b in range(a):
            weight, known = factor[a, b], values[b]
            for n in range(row.size):
                row[n] -= weight * known[n]
        for n in range(row.size):
            row[n] /= factor[a, a]


@kernel
def _rotate(matrix, vectors, most_sweeps):
    """Make a symmetric matrix diagonal by rotations; rows of `vectors` become its eigenvectors."""
    size = len(matrix)
    largest = 0.0
    for p in range(size):
        largest = max(largest, abs(matrix[p, p]))
    for _ in range(most_sweeps):
        changed = False
        for p in range(size - 1):
            for q in range(p + 1, size):
                off = matrix[p, q]
                if abs(off) <= 1e-17 * largest:
                    continue
                changed = True
                ratio = (matrix[q, q] - matrix[p, p]) / (2 * off)
                tangent = 1 / (abs(ratio) + np.sqrt(1 + ratio * ratio))
                tangent = -tangent if ratio < 0 else tangent
                cosine = 1 / np.sqrt(1 + tangent * tangent)
                _mix_rows(matrix, p, q, cosine, tangent * cosine)
                _mix_columns(matrix, p, q, cosine, tangent * cosine)
                _mix_rows(vectors, p, q, cosine, tangent * cosine)
                matrix[p, q] = matrix[q, p] = 0.0
        if not changed:
            break


@kernel
def _mix_rows(matrix, p, q, cosine, sine):
    """Rotate two rows of a matrix into each other."""
    for n in range(matrix.shape[1]):
        a, b = matrix[p, n], matrix[q, n]
        matrix[p, n] = cosine * a - sine * b
        matrix[q, n] = sine * a + cosine * b


@kernel
def _mix_columns(matrix, p, q, cosine, sine):
    """Rotate two columns of a matrix into each other."""
    for n in range(matrix.shape[0]):
        a, b = matrix[n, p], matrix[n, q]
        matrix[n, p] = cosine * a - sine * b
        matrix[n, q] = sine * a + cosine * b
