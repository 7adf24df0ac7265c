"""Uniform cubic B-splines along the axes of a control lattice: weights, subdivision, Gram matrices.

All interpolation weights are built here and shared with the other steps as data: per axis, the index of
the first of four control points and their four weights (`SplineTable`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cardiacreg.arrays import Float
from cardiacreg.compute.jit import kernel


class SplineTable(NamedTuple):
    """Cubic B-spline weights of n positions along one axis of a lattice."""

    first: NDArray[np.int64]
    """Index of the first of the four control points, shape (n,)."""
    weights: Float
    """Weights of the four control points, shape (n, 4)."""


def spline_table(positions: ArrayLike, n_control: int, *, derivative: int = 0) -> SplineTable:
    """Return the four cubic B-spline weights of each position along one axis.

    Parameters
    ----------
    positions : array_like, shape (n,)
        Positions in control-point indices (0 is the first control point).
    n_control : int
        Control points along the axis, at least 4.
    derivative : {0, 1, 2}
        Order of the derivative with respect to the position, per control-point spacing.

    Returns
    -------
    SplineTable
        Control points beyond either end weigh zero.
    """
    position = np.ascontiguousarray(positions, dtype=np.float64)
    table = SplineTable(np.empty(position.shape, np.int64), np.empty((*position.shape, 4)))
    _fill_table(position, n_control, derivative, table.first, table.weights)
    return table


def contract_axis(coefficients: Float, table: SplineTable, axis: int) -> Float:
    """Replace a lattice axis by positions: the four-term weighted sum of control points along it."""
    before, after = coefficients.shape[:axis], coefficients.shape[axis + 1 :]
    rows = (int(np.prod(before)), coefficients.shape[axis], int(np.prod(after)))
    out = np.empty((rows[0], len(table.first), rows[2]))
    given = np.ascontiguousarray(coefficients, dtype=np.float64).reshape(rows)
    given.setflags(write=False)  # this view alone: the kernel is compiled for one kind of array
    _contract_middle(given, table.first, table.weights, out)
    return out.reshape(*before, len(table.first), *after)


def lattice_over_box(
    lower_mm: ArrayLike, upper_mm: ArrayLike, spacing_mm: ArrayLike
) -> tuple[Float, tuple[int, int, int]]:
    """Return the origin (mm) and shape of a control lattice whose splines are complete on a box.

    Parameters
    ----------
    lower_mm, upper_mm : array_like, shape (3,)
        Corners of the box, along the lattice's axes.
    spacing_mm : array_like, shape (3,) or scalar
        Distance between control points.
    """
    lower = np.asarray(lower_mm, dtype=np.float64)
    spacing = np.broadcast_to(np.asarray(spacing_mm, dtype=np.float64), 3)
    cells = np.maximum(1, np.ceil((np.asarray(upper_mm) - lower) / spacing - 1e-9)).astype(int)
    slack = (cells * spacing - (np.asarray(upper_mm) - lower)) / 2
    return lower - slack - spacing, (int(cells[0]) + 3, int(cells[1]) + 3, int(cells[2]) + 3)


def subdivide(coefficients: Float) -> Float:
    """Return the coefficients of the same spline on a lattice of half the spacing, same first point.

    Exact wherever all four control points of the coarse lattice exist (Lane and Riesenfeld 1980):
    ``(c[n-1] + 6 c[n] + c[n+1]) / 8`` on old points, ``(c[n] + c[n+1]) / 2`` between them.

    Parameters
    ----------
    coefficients : ndarray, shape (na, nb, nc, m)

    Returns
    -------
    ndarray, shape (2 na - 1, 2 nb - 1, 2 nc - 1, m)
    """
    fine = coefficients
    for axis in range(3):
        coarse = np.moveaxis(fine, axis, 0)
        padded = np.concatenate([0 * coarse[:1], coarse, 0 * coarse[:1]])
        doubled = np.empty((2 * len(coarse) - 1, *coarse.shape[1:]))
        doubled[::2] = (padded[:-2] + 6 * padded[1:-1] + padded[2:]) / 8
        doubled[1::2] = (coarse[:-1] + coarse[1:]) / 2
        fine = np.moveaxis(doubled, 0, axis)
    return np.ascontiguousarray(fine)


def _four_nodes() -> tuple[Float, Float]:
    """Nodes and weights of four-point Gauss quadrature on (-1, 1)."""
    inner, outer = (np.sqrt(3 / 7 + sign * 2 / 7 * np.sqrt(6 / 5)) for sign in (-1, 1))
    near, far = ((18 + sign * np.sqrt(30)) / 36 for sign in (1, -1))
    return np.array([-outer, -inner, inner, outer]), np.array([far, near, near, far])


def bending_matrices(n_control: int, spacing_mm: float) -> Float:
    """Return the Gram matrices of a spline axis: integrals of products of equal derivatives.

    ``G_d[a, b]`` is the integral over the lattice's complete part of the d-th derivatives of basis
    functions a and b, in mm, for d = 0, 1, 2; exact by four-point Gauss quadrature per cell. The bending
    energy of the paper's [29] is a sum of Kronecker products of these.

    Returns
    -------
    ndarray, shape (3, n_control, n_control)
    """
    nodes, node_weights = _four_nodes()
    cells = np.arange(1, n_control - 2, dtype=np.float64)
    positions = (cells[:, None] + (nodes + 1) / 2).ravel()
    weights = np.tile(node_weights / 2, len(cells)) * spacing_mm
    grams = np.zeros((3, n_control, n_control))
    for order in range(3):
        table = spline_table(positions, n_control, derivative=order)
        basis = np.zeros((len(positions), n_control))
        np.put_along_axis(basis, table.first[:, None] + np.arange(4), table.weights, axis=1)
        basis /= spacing_mm**order
        grams[order] = np.einsum("na,n,nb->ab", basis, weights, basis)
    return grams


def spline_at_points(positions: Float, coefficients: Float) -> tuple[Float, Float]:
    """Return a cubic B-spline of vectors, and its slopes, at scattered positions.

    Parameters
    ----------
    positions : ndarray, shape (n, 3)
        In control-point indices.
    coefficients : ndarray, shape (na, nb, nc, 3)
        Control points beyond the lattice count as zero.

    Returns
    -------
    values : ndarray, shape (n, 3)
    slopes : ndarray, shape (n, 3, 3)
        Component by axis, per control point.
    """
    values, slopes = np.zeros((len(positions), 3)), np.zeros((len(positions), 3, 3))
    _spline_at_points(
        np.ascontiguousarray(positions, dtype=np.float64),
        np.array(coefficients, dtype=np.float64, order="C"),
        values,
        slopes,
    )
    return values, slopes


# ---------------------------------------------------------------------------------------------- kernels


@kernel
def cubic_weights(t, derivative):
    """The four weights, or their derivatives, at the share t of a cell."""
    if derivative == 0:
        square, cube = t * t, t * t * t
        second = (3 * cube - 6 * square + 4) / 6
        third = (-3 * cube + 3 * square + 3 * t + 1) / 6
        return (1 - t) * (1 - t) * (1 - t) / 6, second, third, cube / 6
    if derivative == 1:
        square, left = t * t, 1 - t
        return (
            -left * left / 2,
            (3 * square - 4 * t) / 2,
            (-3 * square + 2 * t + 1) / 2,
            square / 2,
        )
    return 1 - t, 3 * t - 2, 1 - 3 * t, t


@kernel
def _fill_table(positions, n_control, derivative, first, weights):
    """First control point and weights of each position; those beyond the ends weigh nothing."""
    for n in range(positions.size):
        base = np.floor(positions[n])
        wanted = int(base) - 1
        first[n] = min(max(wanted, 0), n_control - 4)
        four = cubic_weights(positions[n] - base, derivative)
        for tap in range(4):
            source = tap + first[n] - wanted
            weights[n, tap] = four[source] if 0 <= source < 4 else 0.0


@kernel
def _spline_at_points(positions, coefficients, values, slopes):
    """Spline and its slopes per control point at scattered positions in control-point indices."""
    weight, slope = np.empty((3, 4)), np.empty((3, 4))
    first = np.empty(3, np.int64)
    for n in range(positions.shape[0]):
        near = True
        for axis in range(3):
            p = positions[n, axis]
            near = near and -2.0 < p < coefficients.shape[axis] + 1.0
            if near:
                lower = np.floor(p)
                first[axis] = int(lower) - 1
                shares, steps = cubic_weights(p - lower, 0), cubic_weights(p - lower, 1)
                for tap in range(4):
                    weight[axis, tap], slope[axis, tap] = shares[tap], steps[tap]
        if near:
            _add_taps(coefficients, first, weight, slope, values[n], slopes[n])


@kernel
def _add_taps(coefficients, first, weight, slope, value, gradient):
    """The up to 64 control points around one position; those outside the lattice count as zero."""
    na, nb, nc = coefficients.shape[:3]
    for a in range(max(0, -first[0]), min(4, na - first[0])):
        for b in range(max(0, -first[1]), min(4, nb - first[1])):
            both, da = weight[0, a] * weight[1, b], slope[0, a] * weight[1, b]
            db = weight[0, a] * slope[1, b]
            for c in range(max(0, -first[2]), min(4, nc - first[2])):
                point = coefficients[first[0] + a, first[1] + b, first[2] + c]
                for d in range(3):
                    value[d] += both * weight[2, c] * point[d]
                    gradient[d, 0] += da * weight[2, c] * point[d]
                    gradient[d, 1] += db * weight[2, c] * point[d]
                    gradient[d, 2] += both * slope[2, c] * point[d]


@kernel
def _contract_middle(values, first, weights, out):
    """Weighted sums of four neighbours along the middle axis of a 3-D array."""
    for p in range(out.shape[0]):
        for m in range(out.shape[1]):
            f = first[m]
            combine_rows(
                values[p, f], values[p, f + 1], values[p, f + 2], values[p, f + 3],
                weights[m, 0], weights[m, 1], weights[m, 2], weights[m, 3], out[p, m],
            )  # fmt: skip


@kernel
def combine_rows(first, second, third, fourth, w0, w1, w2, w3, out):
    """Weighted sum of four rows of numbers."""
    for n in range(out.size):
        out[n] = w0 * first[n] + w1 * second[n] + w2 * third[n] + w3 * fourth[n]
