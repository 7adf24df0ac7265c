"""The Jacobian determinant of a spline displacement, and a penalty on folding with its exact gradient.

The determinant is that of ``I + du/dx`` with u and x in mm along the control lattice's axes: 1 means no
local change of volume, values at or below zero mean folding. The penalty is the mean of
``max(0, t - det(I + du/dx))^2`` over points twice as dense as the control points; it is zero wherever
volume shrinks to no less than the share t. Points are the product of three lists of positions; the
spline is contracted along k, then i, then j, each time for a whole row of numbers at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from cardiacreg.arrays import Float
from cardiacreg.compute.jit import kernel
from cardiacreg.transforms.bspline import combine_rows, spline_table

_PER_SPACING = 4
_LOW, _MOST_LOW = 0.3, 200
_AROUND = 5
"""Points along each axis of the little cubes around the lowest ones."""


def jacobian_determinants(
    displacements_mm: Float, spacing_mm: Float, positions: Sequence[Float]
) -> Float:
    """Return det(I + du/dx) on the product of three lists of positions.

    Parameters
    ----------
    displacements_mm : ndarray, shape (na, nb, nc, 3)
        Control-point displacements along the lattice's own axes.
    spacing_mm : ndarray, shape (3,)
    positions : sequence of three ndarray
        Positions along each axis in control-point indices.

    Returns
    -------
    ndarray, shape (len(i), len(j), len(k))
    """
    i, j, k = _tables(displacements_mm.shape, spacing_mm, positions)
    out = np.empty([len(along) for along in positions])
    _determinant_kernel(np.ascontiguousarray(displacements_mm), i, j, k, out)
    return out


def minimum_jacobian(
    displacements_mm: Float, spacing_mm: Float, *, enough: float = -np.inf
) -> float:
    """Return the smallest det(I + du/dx) where the spline is complete.

    Points are four times as dense as the control points, and where they lie below 0.3 sixteen times:
    between points of strong deformation the determinant dips far lower than at them. Below `enough`
    nobody looks closer.
    """
    return DenseDeterminants(displacements_mm, spacing_mm).minimum(enough=enough)


class DenseDeterminants:
    """Determinants at the points of `minimum_jacobian`, kept while control points are moved.

    Parameters
    ----------
    displacements_mm : ndarray, shape (na, nb, nc, 3)
    spacing_mm : ndarray, shape (3,)
    """

    def __init__(self, displacements_mm: Float, spacing_mm: Float) -> None:
        self.displacements_mm, self._spacing_mm = displacements_mm, spacing_mm
        self._positions = dense_positions(displacements_mm.shape)
        self._values = self._low_ones(self._positions)
        self._known_closer: tuple[Float, Float] | None = None

    def _low_ones(self, positions: Sequence[Float]) -> Float:
        """Determinants below 0.3 at the product of three lists of positions; others may be infinite."""
        moved = np.ascontiguousarray(self.displacements_mm)
        i, j, k = _tables(moved.shape, self._spacing_mm, positions)
        steepest = _steepest(moved, self._spacing_mm)
        out = np.full([len(along) for along in positions], np.inf)
        _low_determinant_kernel(moved, i, j, k, steepest, _LOW, out)
        return out

    def move(self, displacements_mm: Float, moved: NDArray[np.bool_]) -> None:
        """Take over displacements that differ where `moved`, shape (na, nb, nc), says."""
        self.displacements_mm, self._known_closer = displacements_mm, None
        near = []
        for axis, along in enumerate(self._positions):
            changed = np.flatnonzero(moved.any(axis=tuple({0, 1, 2} - {axis})))
            first = np.searchsorted(along, changed[0] - 2)
            near.append(slice(first, np.searchsorted(along, changed[-1] + 2, side="right")))
        positions = [along[part] for along, part in zip(self._positions, near, strict=True)]
        self._values[tuple(near)] = self._low_ones(positions)

    def minimum(self, *, enough: float = -np.inf) -> float:
        """Return the smallest determinant; below `enough` nobody looks between the points."""
        lowest = float(self._values.min())
        if lowest >= _LOW:
            return float(self._all_of_them().min())
        if lowest < enough:
            return lowest
        return min(lowest, float(self._closer()[1].min(initial=np.inf)))

    def _all_of_them(self) -> Float:
        """Determinants at all points, also where none is low."""
        return jacobian_determinants(self.displacements_mm, self._spacing_mm, self._positions)

    def control_points_below(self, limit: float) -> NDArray[np.bool_]:
        """Return which control points act where the determinant is below a limit, shape (na, nb, nc).

        Where the minimum is at least the limit, no control point is.
        """
        shape = self.displacements_mm.shape[:3]
        found = np.zeros(shape, dtype=np.bool_)
        i, j, k = (_first_taps(*each) for each in zip(self._positions, shape, strict=True))
        _mark_low(self._values if limit <= _LOW else self._all_of_them(), limit, i, j, k, found)
        if found.any():
            return found
        closer, determinants = self._closer()
        points = closer[determinants < limit]
        first = np.stack(
            [_first_taps(*each) for each in zip(points.T, shape, strict=True)], axis=-1
        )
        for tap in np.ndindex(4, 4, 4):
            found[tuple((first + tap).T)] = True
        return found

    def _closer(self) -> tuple[Float, Float]:
        """Points around the lowest, shape (n, 3), and their determinants; none where none is low."""
        if self._known_closer is None:
            along = _positions_around_lowest(self._values, self._positions)
            i, j, k = _tables(
                self.displacements_mm.shape, self._spacing_mm, [each.ravel() for each in along]
            )
            found = np.empty((len(along[0]), _AROUND, _AROUND, _AROUND))
            _cubes_of_determinants(np.ascontiguousarray(self.displacements_mm), i, j, k, found)
            self._known_closer = _product(along), found.ravel()
        return self._known_closer


def _first_taps(positions: Float, n_control: int) -> NDArray[np.int64]:
    """Index of the first of the four control points that act at each position along an axis."""
    return np.minimum(np.floor(positions).astype(np.int64) - 1, n_control - 4)


def dense_positions(shape: tuple[int, ...]) -> list[Float]:
    """Return positions four times as dense as the control points, where all 64 of them exist."""
    return [1 + np.arange(_PER_SPACING * (n - 3) + 1) / _PER_SPACING for n in shape[:3]]


def refined_minimum(
    values: Float, positions: Sequence[Float], determinants: Callable[[Float], Float]
) -> float:
    """Return the least of determinants on a lattice and four times as dense around its lowest points.

    Parameters
    ----------
    values : ndarray, shape (len(i), len(j), len(k))
        At the product of `positions` (see `dense_positions`).
    positions : sequence of three ndarray
    determinants : callable
        Determinants at positions of shape (n, 3), in control-point indices.
    """
    points = _points_around_lowest(values, positions)
    lowest = float(values.min())
    return min(lowest, float(determinants(points).min())) if len(points) else lowest


def _points_around_lowest(values: Float, positions: Sequence[Float]) -> Float:
    """Points four times as dense around those with the lowest determinants below 0.3, shape (n, 3)."""
    return _product(_positions_around_lowest(values, positions))


def _positions_around_lowest(values: Float, positions: Sequence[Float]) -> list[Float]:
    """The same along each axis, shape (n, _AROUND): a little cube of points is their product."""
    low = np.flatnonzero(values < _LOW)
    low = low[np.argsort(values.ravel()[low], kind="stable")[:_MOST_LOW]]
    steps = (np.arange(_AROUND) - _AROUND // 2) / (4 * _PER_SPACING)
    where = np.unravel_index(low, values.shape)
    return [
        np.clip(along[n][:, None] + steps, along[0], along[-1])
        for along, n in zip(positions, where, strict=True)
    ]


def _product(along: Sequence[Float]) -> Float:
    """The points of little cubes, shape (n, 3), from their positions along each axis."""
    i, j, k = along
    cubes = np.broadcast_arrays(i[:, :, None, None], j[:, None, :, None], k[:, None, None, :])
    return np.stack(cubes, axis=-1).reshape(-1, 3)


def _tables(shape: tuple[int, ...], spacing_mm: Float, positions: Sequence[Float]) -> list[Float]:
    """Weights of value and slope (per mm) along each axis, shape (n, 9): the last is the index."""
    tables = []
    for axis, along in enumerate(positions):
        value = spline_table(along, shape[axis])
        slope = spline_table(along, shape[axis], derivative=1)
        packed = [value.weights, slope.weights / spacing_mm[axis], value.first]
        tables.append(np.column_stack(packed))
    return tables


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
        positions = [1 + np.arange(2 * (shape[axis] - 3) + 1) / 2 for axis in range(3)]
        self._tables = _tables(shape, spacing_mm, positions)
        self._n_points = int(np.prod([len(along) for along in positions]))
        self._spacing_mm = spacing_mm
        self._threshold = threshold

    def __call__(self, displacements_mm: Float) -> tuple[float, Float]:
        """Return the penalty and its gradient per mm of each control point."""
        gradient = np.zeros_like(displacements_mm)
        steepest = _steepest(displacements_mm, self._spacing_mm)
        # While all |du/dx| entries are below 0.2 no determinant can fall below 0.3.
        if self._threshold <= 0.3 and steepest.max() < 0.2:
            return 0.0, gradient
        total = np.zeros(1)
        i, j, k = self._tables
        _folding_kernel(displacements_mm, i, j, k, steepest, self._threshold, gradient, total)
        if total[0]:
            gradient /= self._n_points
        return float(total[0] / self._n_points), gradient


def steepest_slope(displacements_mm: Float, spacing_mm: Float) -> float:
    """Return a bound of all entries of |du/dx|: the largest step between neighbouring control points."""
    return float(_steepest(displacements_mm, spacing_mm).max())


def _steepest(displacements_mm: Float, spacing_mm: Float) -> Float:
    """Largest step per mm along each axis from the control points of every column, shape (3, na, nb)."""
    steepest = np.zeros((3, *displacements_mm.shape[:2]))
    _steepest_columns(displacements_mm, spacing_mm, steepest)
    return steepest


# ---------------------------------------------------------------------------------------------- kernels


@kernel
def _contract(rows, table, weights, out):
    """Spline or its slope of rows of numbers at one position, by its four weights."""
    f = int(table[8])
    w0, w1, w2, w3 = weights[0], weights[1], weights[2], weights[3]
    combine_rows(rows[f], rows[f + 1], rows[f + 2], rows[f + 3], w0, w1, w2, w3, out)


@kernel
def _contract_k(displacements, table_k, value, slope):
    """Spline and slope along k at all positions, shape (na, nb, 3 nk): one component after another."""
    na, nb = displacements.shape[:2]
    nk = table_k.shape[0]
    for a in range(na):
        for b in range(nb):
            for k in range(nk):
                f = int(table_k[k, 8])
                for c in range(3):
                    v, d = 0.0, 0.0
                    for t in range(4):
                        v += table_k[k, t] * displacements[a, b, f + t, c]
                        d += table_k[k, 4 + t] * displacements[a, b, f + t, c]
                    value[a, b, c * nk + k] = v
                    slope[a, b, c * nk + k] = d


@kernel
def _row_of_determinants(jacobian, out):
    """Determinant of I + du/dx for a row of points from its nine entries, shape (3, 3 nk)."""
    nk = out.size
    xi, yi, zi = jacobian[0, :nk], jacobian[0, nk : 2 * nk], jacobian[0, 2 * nk :]
    xj, yj, zj = jacobian[1, :nk], jacobian[1, nk : 2 * nk], jacobian[1, 2 * nk :]
    xk, yk, zk = jacobian[2, :nk], jacobian[2, nk : 2 * nk], jacobian[2, 2 * nk :]
    for k in range(nk):
        p, q, r = 1.0 + xi[k], 1.0 + yj[k], 1.0 + zk[k]
        out[k] = (
            p * (q * r - yk[k] * zj[k])
            - xj[k] * (yi[k] * r - yk[k] * zi[k])
            + xk[k] * (yi[k] * zj[k] - q * zi[k])
        )


@kernel
def _determinant_kernel(displacements, table_i, table_j, table_k, out):
    """Determinant of I + du/dx on the product of three lists of positions."""
    na, nb = displacements.shape[:2]
    nk = table_k.shape[0]
    value, slope = np.empty((na, nb, 3 * nk)), np.empty((na, nb, 3 * nk))
    _contract_k(displacements, table_k, value, slope)
    planes, jacobian = np.empty((3, nb, 3 * nk)), np.empty((3, 3 * nk))
    for i in range(table_i.shape[0]):
        _planes_at(value, slope, table_i[i], planes)
        for j in range(table_j.shape[0]):
            _jacobian_row(planes, table_j[j], jacobian)
            _row_of_determinants(jacobian, out[i, j])


@kernel
def _low_determinant_kernel(displacements, table_i, table_j, table_k, steepest, limit, out):
    """The same only in columns where it may fall below a limit."""
    na, nb = displacements.shape[:2]
    nk = table_k.shape[0]
    value, slope = np.empty((na, nb, 3 * nk)), np.empty((na, nb, 3 * nk))
    _contract_k(displacements, table_k, value, slope)
    planes, jacobian = np.empty((3, nb, 3 * nk)), np.empty((3, 3 * nk))
    for i in range(table_i.shape[0]):
        ready = False
        for j in range(table_j.shape[0]):
            if not _may_fall_below(steepest, int(table_i[i, 8]), int(table_j[j, 8]), limit):
                continue
            if not ready:
                _planes_at(value, slope, table_i[i], planes)
                ready = True
            _jacobian_row(planes, table_j[j], jacobian)
            _row_of_determinants(jacobian, out[i, j])


@kernel
def _mark_low(values, limit, first_i, first_j, first_k, found):
    """Mark the control points that act where values lie below a limit."""
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            for k in range(values.shape[2]):
                if values[i, j, k] < limit:
                    a, b, c = first_i[i], first_j[j], first_k[k]
                    found[a : a + 4, b : b + 4, c : c + 4] = True


@kernel
def _cubes_of_determinants(displacements, table_i, table_j, table_k, out):
    """Determinants in little cubes, each from the few control points around it."""
    n_cubes, size = out.shape[:2]
    i, j = np.empty((size, 9)), np.empty((size, 9))
    for n in range(n_cubes):
        first, last = n * size, (n + 1) * size - 1
        a, b = int(table_i[first, 8]), int(table_j[first, 8])
        last_a, last_b = int(table_i[last, 8]) + 4, int(table_j[last, 8]) + 4
        for m in range(size):
            for t in range(8):
                i[m, t], j[m, t] = table_i[first + m, t], table_j[first + m, t]
            i[m, 8], j[m, 8] = table_i[first + m, 8] - a, table_j[first + m, 8] - b
        near = np.empty((last_a - a, last_b - b, displacements.shape[2], 3))
        for p in range(near.shape[0]):
            for q in range(near.shape[1]):
                for r in range(near.shape[2]):
                    for d in range(3):
                        near[p, q, r, d] = displacements[a + p, b + q, r, d]
        _determinant_kernel(near, i, j, table_k[n * size : (n + 1) * size], out[n])


@kernel
def _planes_at(value, slope, table, planes):
    """Planes of control points at one i: slope along i, value, slope along k."""
    na, nb, n = value.shape
    flat_value, flat_slope = value.reshape(na, nb * n), slope.reshape(na, nb * n)
    _contract(flat_value, table, table[4:8], planes[0].reshape(nb * n))
    _contract(flat_value, table, table[0:4], planes[1].reshape(nb * n))
    _contract(flat_slope, table, table[0:4], planes[2].reshape(nb * n))


@kernel
def _jacobian_row(planes, table, jacobian):
    """The nine entries of du/dx for a row of points at one (i, j)."""
    _contract(planes[0], table, table[0:4], jacobian[0])
    _contract(planes[1], table, table[4:8], jacobian[1])
    _contract(planes[2], table, table[0:4], jacobian[2])


@kernel
def _steepest_columns(displacements, spacing, steepest):
    """Largest step per mm along each axis from the control points of every column, shape (3, na, nb)."""
    na, nb, nc = displacements.shape[:3]
    for axis in range(3):
        di, dj, dk = int(axis == 0), int(axis == 1), int(axis == 2)
        for a in range(na - di):
            for b in range(nb - dj):
                largest = 0.0
                for c in range(nc - dk):
                    for d in range(3):
                        step = displacements[a + di, b + dj, c + dk, d] - displacements[a, b, c, d]
                        largest = max(largest, abs(step))
                steepest[axis, a, b] = largest / spacing[axis]


@kernel
def _may_fall_below(steepest, a, b, limit):
    """Whether a determinant among 4 x 4 columns of control points may be below a limit.

    Entries of du/dx are means of steps, so that those along an axis are at most p, q and r in size. While
    any two of these sum to less than 1, the determinant is at least
    (1 - p)(1 - q)(1 - r) - (1 - p) q r - (1 - q) p r - (1 - r) p q - 2 p q r.
    """
    p, q, r = 0.0, 0.0, 0.0
    for m in range(a, a + 4):
        for n in range(b, b + 4):
            if m < a + 3:
                p = max(p, steepest[0, m, n])
            if n < b + 3:
                q = max(q, steepest[1, m, n])
            r = max(r, steepest[2, m, n])
    if p + q >= 1.0 or p + r >= 1.0 or q + r >= 1.0:
        return True
    least = (1 - p) * (1 - q) * (1 - r) - (1 - p) * q * r - (1 - q) * p * r - (1 - r) * p * q
    return least - 2 * p * q * r < limit + 1e-9


@kernel
def _folding_kernel(displacements, table_i, table_j, table_k, steepest, threshold, gradient, total):
    """Sum of squared shortfalls and its gradient over the product of three lists of positions."""
    na, nb = displacements.shape[:2]
    nk = table_k.shape[0]
    value, slope = np.empty((na, nb, 3 * nk)), np.empty((na, nb, 3 * nk))
    _contract_k(displacements, table_k, value, slope)
    planes, jacobian = np.empty((3, nb, 3 * nk)), np.empty((3, 3 * nk))
    determinants, cofactor = np.empty(nk), np.empty((3, 3))
    for i in range(table_i.shape[0]):
        ready = False
        for j in range(table_j.shape[0]):
            if not _may_fall_below(steepest, int(table_i[i, 8]), int(table_j[j, 8]), threshold):
                continue
            if not ready:
                _planes_at(value, slope, table_i[i], planes)
                ready = True
            _jacobian_row(planes, table_j[j], jacobian)
            _row_of_determinants(jacobian, determinants)
            for k in range(nk):
                if determinants[k] < threshold:
                    shortfall = threshold - determinants[k]
                    total[0] += shortfall * shortfall
                    _cofactors(jacobian, k, cofactor)
                    _spread_point(
                        -2 * shortfall, cofactor, table_i[i], table_j[j], table_k[k], gradient
                    )


@kernel
def _cofactors(jacobian, k, cofactor):
    """Derivative of point k's determinant with respect to each entry (component, axis)."""
    nk = jacobian.shape[1] // 3
    for c in range(3):
        for d in range(3):
            p, q, r, s = (c + 1) % 3, (c + 2) % 3, (d + 1) % 3, (d + 2) % 3
            pr = jacobian[r, p * nk + k] + (1.0 if p == r else 0.0)
            qs = jacobian[s, q * nk + k] + (1.0 if q == s else 0.0)
            ps = jacobian[s, p * nk + k] + (1.0 if p == s else 0.0)
            qr = jacobian[r, q * nk + k] + (1.0 if q == r else 0.0)
            cofactor[c, d] = pr * qs - ps * qr


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
