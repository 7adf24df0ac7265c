"""What keeps a deformation plausible: bending energy and a penalty on folding, with exact gradients.

Bending energy (the paper's [29]) is the mean over the lattice's complete part of the squared second
derivatives of u, mixed ones twice, with u and x in mm; exact, from the splines' Gram matrices. The
folding penalty is the mean of ``max(0, t - det(I + du/dx))^2`` over points twice as dense as the control
points; it is zero wherever volume shrinks to no less than the share t.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cardiacreg._jit import kernel
from cardiacreg.ffd import bending_matrices, spline_table

Float = NDArray[np.float64]


class BendingEnergy:
    """Mean squared second derivative of a displacement, per mm^2, and its gradient.

    Parameters
    ----------
    shape : tuple of int
        Shape (na, nb, nc, 3) of the control-point displacements.
    spacing_mm : ndarray, shape (3,)
    stretch_weight : float
        Weight, in mm^-2, of the mean squared first derivative that is added: it makes the deformation
        beyond the acquired slices level off instead of going on in a straight line.
    """

    def __init__(
        self, shape: tuple[int, ...], spacing_mm: Float, stretch_weight: float = 0.0
    ) -> None:
        self._stretch_weight = stretch_weight
        self._grams = [bending_matrices(shape[a], float(spacing_mm[a])) for a in range(3)]
        self._volume = float(np.prod((np.array(shape[:3]) - 3) * spacing_mm))

    def __call__(self, displacements_mm: Float) -> tuple[float, Float]:
        """Return the energy and its gradient per mm of each control point."""
        k0, k1, k2 = (self._along(displacements_mm, 2, order) for order in range(3))
        second = self._along(k0, 1, 2)
        second += 2 * self._along(k1, 1, 1)
        second += self._along(k2, 1, 0)
        mixed = self._along(k0, 1, 1)
        mixed += self._along(k1, 1, 0)
        k00 = self._along(k0, 1, 0)
        if self._stretch_weight:
            second += self._stretch_weight * (self._along(k0, 1, 1) + self._along(k1, 1, 0))
        total = self._along(second, 0, 0)
        total += 2 * self._along(mixed, 0, 1)
        total += self._along(k00, 0, 2)
        if self._stretch_weight:
            total += self._stretch_weight * self._along(k00, 0, 1)
        total /= self._volume
        return float(np.einsum("abcd,abcd->", total, displacements_mm)), 2 * total

    def _along(self, values: Float, axis: int, order: int) -> Float:
        """Multiply by a Gram matrix along an axis; BLAS-free, for the same bits everywhere."""
        shape = values.shape
        before = int(np.prod(shape[:axis]))
        out = np.empty(shape)
        _multiply_banded(
            self._grams[axis][order],
            values.reshape(before, shape[axis], -1),
            out.reshape(before, shape[axis], -1),
        )
        return out


class FoldingPenalty:
    """Mean squared shortfall of the Jacobian determinant below a threshold, and its gradient.

    Parameters
    ----------
    shape : tuple of int
        Shape (na, nb, nc, 3) of the control-point displacements.
    spacing_mm : ndarray, shape (3,)
    threshold : float
        Determinant of I + du/dx below which a point counts.
    """

    def __init__(self, shape: tuple[int, ...], spacing_mm: Float, threshold: float) -> None:
        tables = []
        for axis in range(3):
            positions = 1 + np.arange(2 * (shape[axis] - 3) + 1) / 2
            value = spline_table(positions, shape[axis])
            slope = spline_table(positions, shape[axis], derivative=1)
            packed = [value.weights, slope.weights / spacing_mm[axis], value.first]
            tables.append(np.column_stack(packed))
        self._tables = tables
        self._spacing_mm = spacing_mm
        self._threshold = threshold

    def __call__(self, displacements_mm: Float) -> tuple[float, Float]:
        """Return the penalty and its gradient per mm of each control point."""
        gradient = np.zeros_like(displacements_mm)
        if self._is_gentle(displacements_mm):
            return 0.0, gradient
        total = np.zeros(1)
        i, j, k = self._tables
        _folding_kernel(displacements_mm, i, j, k, self._threshold, gradient, total)
        n_points = np.prod([len(table) for table in self._tables])
        return float(total[0] / n_points), gradient / n_points

    def _is_gentle(self, displacements_mm: Float) -> bool:
        """Whether all |du/dx| entries are so small that no determinant can fall below 0.3."""
        slopes = (np.abs(np.diff(displacements_mm, axis=a)).max() for a in range(3))
        steepest = max(s / h for s, h in zip(slopes, self._spacing_mm, strict=True))
        return bool(steepest < 0.2 and self._threshold <= 0.3)


# ---------------------------------------------------------------------------------------------- kernels


@kernel
def _multiply_banded(gram, values, out):
    """Multiply a matrix of half-bandwidth 3 with the middle axis of a 3-D array."""
    n = gram.shape[0]
    for p in range(values.shape[0]):
        for a in range(n):
            for q in range(values.shape[2]):
                out[p, a, q] = 0.0
            for b in range(max(0, a - 3), min(n, a + 4)):
                weight = gram[a, b]
                for q in range(values.shape[2]):
                    out[p, a, q] += weight * values[p, b, q]


@kernel
def _contract_two(values, table, first, second):
    """Spline (first) and its slope (second) along the leading axis at one position."""
    f = int(table[8])
    for b in range(values.shape[1]):
        for c in range(values.shape[2]):
            v0, v1 = values[f, b, c], values[f + 1, b, c]
            v2, v3 = values[f + 2, b, c], values[f + 3, b, c]
            first[b, c] = table[0] * v0 + table[1] * v1 + table[2] * v2 + table[3] * v3
            second[b, c] = table[4] * v0 + table[5] * v1 + table[6] * v2 + table[7] * v3


@kernel
def _folding_kernel(displacements, table_i, table_j, table_k, threshold, gradient, total):
    """Sum of squared shortfalls and its gradient over the product of three lists of positions."""
    na, nb, nc = displacements.shape[:3]
    flat = displacements.reshape(na, nb, nc * 3)
    plane, plane_slope = np.empty((nb, nc * 3)), np.empty((nb, nc * 3))
    row, row_i = np.empty((nc, 3)), np.empty((nc, 3))
    row_j, unused = np.empty((nc, 3)), np.empty((nc, 3))
    jacobian, cofactor = np.empty((3, 3)), np.empty((3, 3))
    for i in range(table_i.shape[0]):
        _contract_two(flat, table_i[i], plane, plane_slope)
        for j in range(table_j.shape[0]):
            _contract_two(plane.reshape(nb, nc, 3), table_j[j], row, row_j)
            _contract_two(plane_slope.reshape(nb, nc, 3), table_j[j], row_i, unused)
            for k in range(table_k.shape[0]):
                determinant = _point_jacobian(row_i, row_j, row, table_k[k], jacobian)
                if determinant < threshold:
                    shortfall = threshold - determinant
                    total[0] += shortfall * shortfall
                    _cofactors(jacobian, cofactor)
                    _spread_point(
                        -2 * shortfall, cofactor, table_i[i], table_j[j], table_k[k], gradient
                    )


@kernel
def _point_jacobian(row_i, row_j, row, table, jacobian):
    """I + du/dx at one point from rows along k; its determinant."""
    f = int(table[8])
    w0, w1, w2, w3 = table[0], table[1], table[2], table[3]
    d0, d1, d2, d3 = table[4], table[5], table[6], table[7]
    for c in range(3):
        jacobian[c, 0] = (
            w0 * row_i[f, c] + w1 * row_i[f + 1, c] + w2 * row_i[f + 2, c] + w3 * row_i[f + 3, c]
        )
        jacobian[c, 1] = (
            w0 * row_j[f, c] + w1 * row_j[f + 1, c] + w2 * row_j[f + 2, c] + w3 * row_j[f + 3, c]
        )
        jacobian[c, 2] = (
            d0 * row[f, c] + d1 * row[f + 1, c] + d2 * row[f + 2, c] + d3 * row[f + 3, c]
        )
        jacobian[c, c] += 1.0
    return (
        jacobian[0, 0] * (jacobian[1, 1] * jacobian[2, 2] - jacobian[1, 2] * jacobian[2, 1])
        - jacobian[0, 1] * (jacobian[1, 0] * jacobian[2, 2] - jacobian[1, 2] * jacobian[2, 0])
        + jacobian[0, 2] * (jacobian[1, 0] * jacobian[2, 1] - jacobian[1, 1] * jacobian[2, 0])
    )


@kernel
def _cofactors(jacobian, cofactor):
    """Derivative of the determinant with respect to each entry of a 3x3 matrix."""
    for c in range(3):
        for d in range(3):
            p, q, r, s = (c + 1) % 3, (c + 2) % 3, (d + 1) % 3, (d + 2) % 3
            cofactor[c, d] = jacobian[p, r] * jacobian[q, s] - jacobian[p, s] * jacobian[q, r]


@kernel
def _spread_point(scale, cofactor, table_i, table_j, table_k, gradient):
    """Add scale times the determinant's gradient of one point to its 64 control points."""
    fi, fj, fk = int(table_i[8]), int(table_j[8]), int(table_k[8])
    for a in range(4):
        for b in range(4):
            for c in range(4):
                along_i = table_i[4 + a] * table_j[b] * table_k[c]
                along_j = table_i[a] * table_j[4 + b] * table_k[c]
                along_k = table_i[a] * table_j[b] * table_k[4 + c]
                for d in range(3):
                    gradient[fi + a, fj + b, fk + c, d] += scale * (
                        along_i * cofactor[d, 0]
                        + along_j * cofactor[d, 1]
                        + along_k * cofactor[d, 2]
                    )
