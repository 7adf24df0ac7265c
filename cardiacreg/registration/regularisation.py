"""Regularisation of a deformation: the bending energy, its exact gradient and an inverse of it.

Bending energy (the paper's [29]) is the mean over the lattice's complete part of the squared second
derivatives of u, mixed ones twice, with u and x in mm; exact, from the splines' Gram matrices. The
penalty on folding is in `jacobian`.

The energy also says which displacements are cheap. `WhitenedDisplacements` are coordinates in which the
energy plus a uniform stiffness has nearly the unit matrix as its Hessian: per axis, the splines are
replaced by the generalised eigenvectors of their second-derivative and mass Gram matrices. In these
coordinates a quasi-Newton method needs about half the iterations (`docs/performance.md`).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from cardiacreg.algebra import invert, multiply
from cardiacreg.arrays import Float
from cardiacreg.compute.decompositions import cholesky_factor, eigenvectors
from cardiacreg.compute.jit import kernel
from cardiacreg.transforms.bspline import bending_matrices
from cardiacreg.transforms.jacobian import FoldingPenalty as FoldingPenalty


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
        self._stretch_weight = float(stretch_weight)
        i, j, k = (_bands(shape[a], float(spacing_mm[a])) for a in range(3))
        self._bands = (i, j, np.repeat(k, 3, axis=2))
        self._volume = float(np.prod((np.array(shape[:3]) - 3) * spacing_mm))

    def __call__(self, displacements_mm: Float) -> tuple[float, Float]:
        """Return the energy and its gradient per mm of each control point."""
        total = np.empty(displacements_mm.shape)
        _bending_kernel(displacements_mm, *self._bands, self._stretch_weight, self._volume, total)
        energy = float(np.einsum("abcd,abcd->", total, displacements_mm))
        total *= 2
        return energy, total


@lru_cache(maxsize=256)
def _bands(n_control: int, spacing_mm: float) -> Float:
    """The Gram matrices of an axis by diagonals: (order, offset + 3, row), zero outside."""
    grams = bending_matrices(n_control, spacing_mm)
    bands = np.zeros((3, 7, n_control))
    for offset in range(-3, 4):
        rows = np.arange(max(0, -offset), min(n_control, n_control - offset))
        bands[:, offset + 3, rows] = grams[:, rows, rows + offset]
    bands.setflags(write=False)
    return bands


class WhitenedDisplacements:
    """Coordinates z in which bending energy plus a uniform stiffness is nearly ``|z|^2 / 2``.

    Parameters
    ----------
    shape : tuple of int
        Shape (na, nb, nc, 3) of the control-point displacements.
    spacing_mm : ndarray, shape (3,)
    bending_weight, stretch_weight : float
        Weight of the bending energy, and of the squared first derivative relative to it.
    stiffness : float
        Weight of the mean squared displacement, mm^-2: about the curvature of the data term.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        spacing_mm: Float,
        bending_weight: float,
        stretch_weight: float,
        stiffness: float,
    ) -> None:
        axes = [_eigenbasis(shape[a], float(spacing_mm[a])) for a in range(3)]
        (mi, li), (mj, lj), (mk, lk) = ((a[1], a[2]) for a in axes)
        mi, li = mi[:, None, None], li[:, None, None]
        mj, lj = mj[:, None], lj[:, None]
        energy = mi + mj + mk + 2 * (li * lj + li * lk + lj * lk)
        energy = energy + stretch_weight * (li + lj + lk)
        volume = float(np.prod((np.array(shape[:3]) - 3) * spacing_mm))
        self._scale = np.sqrt(volume / (2 * (bending_weight * energy + stiffness)))
        self._bases = [a[0] for a in axes]
        self._transposed = [np.ascontiguousarray(a[0].T) for a in axes]
        self._shape = shape

    def displacements(self, whitened: Float) -> Float:
        """Return the displacements, shape (na, nb, nc, 3), of coordinates of the same shape."""
        scaled = np.asarray(whitened.reshape(self._shape) * self._scale[..., None])
        return _multiplied(scaled, self._bases)

    def gradient(self, displacement_gradient: Float) -> Float:
        """Return the gradient in the coordinates from that in the displacements (the adjoint)."""
        moved = _multiplied(displacement_gradient, self._transposed)
        moved *= self._scale[..., None]
        return moved


@lru_cache(maxsize=256)
def _eigenbasis(n_control: int, spacing_mm: float) -> tuple[Float, Float, Float]:
    """Vectors V with V' G0 V = 1 and V' G2 V diagonal; that diagonal, and that of V' G1 V."""
    mass, first, second = bending_matrices(n_control, spacing_mm)
    inverse_root = invert(cholesky_factor(mass))
    values, vectors = eigenvectors(multiply(inverse_root, second, inverse_root.T))
    basis = np.ascontiguousarray(multiply(inverse_root.T, vectors))
    slopes = np.einsum("ia,ij,ja->a", basis, first, basis)
    return basis, np.maximum(values, 0.0), np.maximum(slopes, 0.0)


def _multiplied(values: Float, matrices: list[Float]) -> Float:
    """Multiply a lattice by a matrix along each axis; BLAS-free, for the same bits everywhere."""
    na, nb, nc, _ = values.shape
    out, half = np.empty(values.shape), np.empty(values.shape)
    _multiply_leading(matrices[0], values.reshape(1, na, -1), half.reshape(1, na, -1))
    _multiply_leading(matrices[1], half.reshape(na, nb, -1), out.reshape(na, nb, -1))
    _multiply_last(np.ascontiguousarray(matrices[2].T), out, half)
    return half


# ---------------------------------------------------------------------------------------------- kernels


@kernel
def _multiply_leading(matrix, values, out):
    """Multiply a matrix with the middle axis of a 3-D array; four rows at a time, summed in order."""
    n = matrix.shape[1]
    fours = n - n % 4
    for p in range(values.shape[0]):
        for a in range(matrix.shape[0]):
            row = out[p, a]
            for q in range(row.size):
                row[q] = 0.0
            for b in range(0, fours, 4):
                w0, w1, w2, w3 = matrix[a, b], matrix[a, b + 1], matrix[a, b + 2], matrix[a, b + 3]
                v0, v1 = values[p, b], values[p, b + 1]
                v2, v3 = values[p, b + 2], values[p, b + 3]
                for q in range(row.size):
                    row[q] = (((row[q] + w0 * v0[q]) + w1 * v1[q]) + w2 * v2[q]) + w3 * v3[q]
            for b in range(fours, n):
                _add_scaled(row, matrix[a, b], values[p, b])


@kernel
def _multiply_last(transposed, values, out):
    """Multiply a matrix, given transposed, with the third axis of a 4-D array of triples."""
    na, nb, nc, _ = values.shape
    sums = np.empty((3, nc))
    for a in range(na):
        for b in range(nb):
            sums[:] = 0.0
            for c in range(nc):
                column = transposed[c]
                for d in range(3):
                    weight, row = values[a, b, c, d], sums[d]
                    for e in range(row.size):
                        row[e] += weight * column[e]
            for c in range(nc):
                for d in range(3):
                    out[a, b, c, d] = sums[d, c]


@kernel
def _banded_row(bands, padded, out):
    """Multiply a row of triples, three of them zero at each end, by a matrix given by its diagonals."""
    for n in range(out.size):
        total = bands[0, n] * padded[n] + bands[1, n] * padded[n + 3] + bands[2, n] * padded[n + 6]
        total = total + bands[3, n] * padded[n + 9] + bands[4, n] * padded[n + 12]
        out[n] = total + bands[5, n] * padded[n + 15] + bands[6, n] * padded[n + 18]


@kernel
def _add_scaled(out, weight, values):
    """Add a multiple of a row of numbers to another."""
    for n in range(out.size):
        out[n] += weight * values[n]


@kernel
def _add_orders(first, second, third, k0, k1, k2, g0, g1, g2, stretch):
    """Add one row along j, weighted by its Gram matrices, to what each order along i is applied to."""
    whole, mixed, twice = g2 + stretch * g1, 2 * g1 + stretch * g0, 2 * g0
    for n in range(first.size):
        first[n] = ((first[n] + whole * k0[n]) + mixed * k1[n]) + g0 * k2[n]
        second[n] = (second[n] + mixed * k0[n]) + twice * k1[n]
        third[n] += g0 * k0[n]


@kernel
def _add_three(out, w0, w1, w2, v0, v1, v2):
    """Add multiples of three rows of numbers to another, in order."""
    for n in range(out.size):
        out[n] = ((out[n] + w0 * v0[n]) + w1 * v1[n]) + w2 * v2[n]


@kernel
def _bending_kernel(displacements, bands_i, bands_j, bands_k, stretch, volume, total):
    """Half the energy's gradient: the sum of Kronecker products of Gram matrices, applied."""
    na, nb, nc, _ = displacements.shape
    n = 3 * nc
    # For each plane i: what the orders 0, 1 and 2 along i are to be applied to.
    parts = np.zeros((3, na, nb, n))
    along_k, padded = np.empty((3, nb, n)), np.zeros(n + 18)
    for a in range(na):
        for b in range(nb):
            given = displacements[a, b].reshape(n)
            for m in range(n):  # an assignment of arrays would compile text for its error: a second
                padded[9 + m] = given[m]
            for order in range(3):
                _banded_row(bands_k[order], padded, along_k[order, b])
        for b in range(nb):
            for t in range(max(0, 3 - b), min(7, nb + 3 - b)):
                m = b + t - 3
                _add_orders(
                    parts[0, a, b], parts[1, a, b], parts[2, a, b],
                    along_k[0, m], along_k[1, m], along_k[2, m],
                    bands_j[0, t, b], bands_j[1, t, b], bands_j[2, t, b], stretch,
                )  # fmt: skip
    for a in range(na):
        row = total[a].reshape(nb * n)
        for m in range(row.size):
            row[m] = 0.0
        for t in range(max(0, 3 - a), min(7, na + 3 - a)):
            m, w = a + t - 3, bands_i[:, t, a]
            v0, v1 = parts[0, m].reshape(nb * n), parts[1, m].reshape(nb * n)
            v2 = parts[2, m].reshape(nb * n)
            _add_three(row, w[0] / volume, w[1] / volume, w[2] / volume, v0, v1, v2)
