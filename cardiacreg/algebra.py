"""Linear algebra whose bits depend on no library and no processor.

BLAS and LAPACK sum in another order on another processor, and some with another number of threads. The
last bits of a matrix decide nothing by themselves, but registrations end by limits of iterations, and
carry them on to volumes. What decides a model is computed here instead: products rounded one by one and
added in order, as IEEE arithmetic says, by NumPy's elementwise operations.
"""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cardiacreg.arrays import Float

_STEP = 2.0**-20
_LOG_2_HIGH, _LOG_2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
"""Their sum is ln 2; small multiples of the first are exact."""
_TERMS = 14
_FEW, _MANY = 4, 1000
"""Columns and numbers from which on a product is faster by columns."""


def multiply(*factors: ArrayLike) -> Float:
    """Return the product of matrices, stacks of them and vectors, as ``a @ b @ ...`` defines it.

    Sums run in the order of the inner index; those of two vectors as `numpy.sum` runs.
    """
    return np.asarray(reduce(_product, [np.asarray(each) for each in factors]))


def _product(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> Float:
    if first.ndim == second.ndim == 1:
        return np.asarray((first * second).sum())
    columns = second if second.ndim > 1 else second[:, None]
    rows = first if first.ndim > 1 else first[None]
    if rows.shape[-1] != columns.shape[-2]:
        raise ValueError(f"multiply: shapes {first.shape} and {second.shape} do not fit")
    total = _summed(rows, columns)
    total = total if second.ndim > 1 else total[..., 0]
    return np.asarray(total if first.ndim > 1 else total[..., 0, :])


def _summed(rows: np.ndarray[Any, Any], columns: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if rows.shape[-1] == 0:
        return np.asarray(rows @ columns)  # nothing is summed
    if columns.ndim == 2 and columns.shape[1] <= _FEW and rows.size > _MANY:
        parts = [_summed_column(rows, column) for column in columns.T]
        return np.stack(parts, axis=-1)
    total = np.asarray(rows[..., :, 0, None] * columns[..., None, 0, :])
    for n in range(1, rows.shape[-1]):
        total += rows[..., :, n, None] * columns[..., None, n, :]
    return total


def _summed_column(
    rows: np.ndarray[Any, Any], column: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    total = np.asarray(rows[..., 0] * column[0])
    for n in range(1, rows.shape[-1]):
        total += rows[..., n] * column[n]
    return total


def solve(matrix: ArrayLike, right: ArrayLike) -> Float:
    """Return x with ``matrix x = right``, by elimination with the largest pivots.

    Parameters
    ----------
    matrix : array_like, shape (n, n)
    right : array_like, shape (n,) or (n, m)

    Raises
    ------
    numpy.linalg.LinAlgError
        If the matrix is singular.
    """
    right = np.asarray(right, dtype=np.float64)
    size = len(right)
    rows = np.column_stack([np.asarray(matrix, dtype=np.float64), right])
    for n in range(size):
        pivot = n + int(np.argmax(np.abs(rows[n:, n])))
        if not np.abs(rows[pivot, n]) > 0:
            raise np.linalg.LinAlgError("Singular matrix")
        rows[[n, pivot]] = rows[[pivot, n]]
        rows[n] /= rows[n, n]
        others = rows[:, n].copy()
        others[n] = 0.0
        rows -= others[:, None] * rows[n]
    return np.asarray(rows[:, size] if right.ndim == 1 else rows[:, size:])


def invert(matrix: ArrayLike) -> Float:
    """Return the inverse of a matrix; see `solve`."""
    given = np.asarray(matrix, dtype=np.float64)
    if len(given) == 4 and given[3].tolist() == [0.0, 0.0, 0.0, 1.0]:
        return _inverse_of_affine(given)
    return solve(given, np.eye(len(given)))


def _inverse_of_affine(matrix: Float) -> Float:
    """By cofactors, in Python's floating-point numbers: quicker for so few."""
    (a, b, c, x), (d, e, f, y), (g, h, i, z), _ = matrix.tolist()
    whole = a * (e * i - f * h) + b * (f * g - d * i) + c * (d * h - e * g)
    if not abs(whole) > 0:
        raise np.linalg.LinAlgError("Singular matrix")
    rows = [
        [(e * i - f * h) / whole, (c * h - b * i) / whole, (b * f - c * e) / whole],
        [(f * g - d * i) / whole, (a * i - c * g) / whole, (c * d - a * f) / whole],
        [(d * h - e * g) / whole, (b * g - a * h) / whole, (a * e - b * d) / whole],
    ]
    moved = [[p, q, r, -(p * x + q * y + r * z)] for p, q, r in rows]
    return np.array([*moved, [0.0, 0.0, 0.0, 1.0]])


def determinants(matrices: ArrayLike) -> Float:
    """Return the determinants of 3x3 matrices, shape (..., 3, 3)."""
    m = np.moveaxis(np.asarray(matrices, dtype=np.float64), (-2, -1), (0, 1))
    minors = [m[1, a] * m[2, b] - m[1, b] * m[2, a] for a, b in ((1, 2), (2, 0), (0, 1))]
    return np.asarray(m[0, 0] * minors[0] + m[0, 1] * minors[1] + m[0, 2] * minors[2])


def length(vector: ArrayLike) -> float:
    """Return the Euclidean length of a vector."""
    return float(np.sqrt(np.square(np.asarray(vector, dtype=np.float64)).sum()))


def exponential(values: ArrayLike) -> Float:
    """Return e to the power of numbers between -700 and 700; smaller ones count as -700."""
    x = np.maximum(np.asarray(values, dtype=np.float64), -700.0)
    whole = np.rint(x / (_LOG_2_HIGH + _LOG_2_LOW))
    rest = (x - whole * _LOG_2_HIGH) - whole * _LOG_2_LOW
    total = np.ones_like(rest)
    for n in range(_TERMS, 0, -1):
        total = 1.0 + rest / n * total
    return np.asarray(np.ldexp(total, whole.astype(np.int64)))


def settled(values: ArrayLike, step: float = _STEP) -> Float:
    """Round to multiples of a step, a power of two: what a library's rounding decided is gone.

    For a few numbers that a library computes, where the step is far above rounding and far below what
    matters: 2^-20 mm is a millionth of a millimetre.
    """
    return np.asarray(np.rint(np.asarray(values, dtype=np.float64) / step) * step)
