"""Eq. (4): smooth label consistency of a target's acquired slices and an atlas, with exact gradient.

``C = sum_x c(S(x)) w(x) / sum_x c(S(x))`` over the sampled target voxels x, where S(x) is the target's
label, c its class weight and ``w(x) = sum_v t_v [l(v) matches S(x)]`` the trilinear weight, around
T(x + s), of the atlas voxels v whose label l matches. C is in [0, 1], higher is better, and equals
``sum_i P(i, i)`` of the paper when T hits atlas voxels and all classes weigh the same. s is the in-plane
shift of x's slice. Labels are categories: only matches count, through a table.

The transform is evaluated and its gradient collected separably: the control points are contracted along
k to the plane of a slice, along j to the columns of its voxels and along i to a row of voxels, each step
on long rows of numbers. The affine and the atlas lattice are folded into the control points, so that the
spline gives atlas voxel coordinates at once. Where the eight atlas voxels around T(x) agree, one look-up
settles the voxel and the gradient is zero; the other voxels of a slice are listed and treated together.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cardiacreg.algebra import invert, multiply
from cardiacreg.arrays import Float
from cardiacreg.compute.jit import kernel
from cardiacreg.compute.threads import run_tasks, slab_ranges
from cardiacreg.registration.cell_matching import (
    find_cells,
    gather_corners,
    interpolate,
    match_uniform,
    with_mixed_code,
)
from cardiacreg.registration.target_sampling import (
    TargetSamples as TargetSamples,
    sample_target as sample_target,
)
from cardiacreg.slices import labelled_slices as labelled_slices, stack_axes as stack_axes
from cardiacreg.transforms.atlas_lookup import AtlasLookup
from cardiacreg.transforms.bspline import combine_rows, spline_table

_VOXELS_WORTH_THREADS = 100_000
"""Below this a pass takes less than a millisecond, hardly more than starting its threads."""


class Consistency(NamedTuple):
    """Value and gradient of label consistency."""

    value: float
    displacement_gradient: Float
    """Per mm of each control point, along the target's axes, shape (na, nb, nc, 3)."""
    shift_gradient: Float
    """Per mm of in-plane shift of each sampled slice, shape (n_slices, 2)."""


class ConsistencyObjective:
    """Label consistency as a function of control-point displacements and slice shifts.

    Parameters
    ----------
    samples : TargetSamples
    atlas : AtlasLookup
    axes_to_atlas : ndarray, shape (4, 4)
        Mm along the target's axes to atlas world mm: the affine A after the axes' own placement.
    score : ndarray, shape (n_codes, n_codes)
        Class weight where the target code (row) matches the atlas code (column), else 0.
    threads : int
    shift_gradient : bool
        Whether the gradient per shift is wanted; without it a pass costs a third less.
    total : float, optional
        What the sum is divided by; that of all samples when absent.
    """

    def __init__(
        self,
        samples: TargetSamples,
        atlas: AtlasLookup,
        axes_to_atlas: Float,
        score: Float,
        threads: int = 1,
        *,
        shift_gradient: bool = True,
        total: float | None = None,
    ) -> None:
        self._samples = samples
        self._atlas = atlas
        self._to_voxel = multiply(invert(atlas.voxel_to_world), axes_to_atlas)
        # One column per code a cell may have; 255, for mixed cells, is worth nothing.
        self._score = with_mixed_code(score / (total or total_weight(samples, score)))
        self._threads = threads if len(samples.counted()) >= _VOXELS_WORTH_THREADS else 1
        self._orders = (0, 1) if shift_gradient else (0,)
        self._known_tables: tuple[object, ...] = ()

    def __call__(
        self, displacements_mm: Float, origin_mm: Float, spacing_mm: Float, shifts_mm: Float
    ) -> Consistency:
        """Return value and gradient.

        Parameters
        ----------
        displacements_mm : ndarray, shape (na, nb, nc, 3)
            Control-point displacements along the target's axes.
        origin_mm, spacing_mm : ndarray, shape (3,)
            First control point and control-point spacing along the target's axes.
        shifts_mm : ndarray, shape (n_slices, 2)
            In-plane shift of each sampled slice.
        """
        na, nb, nc = displacements_mm.shape[:3]
        tables = self._tables((na, nb, nc), origin_mm, spacing_mm, shifts_mm)
        coefficients = np.empty((nc, na, 3 * nb))
        place_control_points(displacements_mm, self._to_voxel, origin_mm, spacing_mm, coefficients)
        n_slices = len(self._samples.labels)
        planes = np.zeros((n_slices, na, 3 * nb))
        sums = np.zeros((n_slices, 3))

        def run(slab: tuple[int, int]) -> None:
            _consistency_kernel(
                slab[0], slab[1], coefficients, *tables, self._samples.labels,
                self._samples.spans, self._atlas.codes, self._score, planes, sums,
            )  # fmt: skip

        size = n_slices if self._threads == 1 else -(-n_slices // (2 * self._threads))
        run_tasks(run, slab_ranges(n_slices, size), threads=self._threads)
        gradient = np.empty(displacements_mm.shape)
        _collect_gradient(planes, tables[2], self._to_voxel, gradient)
        return Consistency(float(sums[:, 0].sum()), gradient, sums[:, 1:])

    def _tables(
        self, lattice: tuple[int, int, int], origin_mm: Float, spacing_mm: Float, shifts_mm: Float
    ) -> tuple[Float, Float, Float]:
        """Spline weights of all samples; kept while neither lattice nor shifts change."""
        key = (lattice, origin_mm.tobytes(), spacing_mm.tobytes(), shifts_mm.tobytes())
        if not self._known_tables or self._known_tables[0] != key:
            self._known_tables = (key, self._make_tables(lattice, origin_mm, spacing_mm, shifts_mm))
        return self._known_tables[1]  # type: ignore[return-value]

    def _make_tables(
        self, lattice: tuple[int, int, int], origin_mm: Float, spacing_mm: Float, shifts_mm: Float
    ) -> tuple[Float, Float, Float]:
        """Index of the first control point, weights and slopes: per row, per column, per slice.

        Slices that are shifted alike share tables; the last column of the slices' tells which is theirs.
        """
        different, which = _distinct_rows(shifts_mm)
        in_plane = []
        for axis in range(2):
            positions = self._samples.position_mm[axis][None] + different[:, axis, None]
            scaled = (positions - origin_mm[axis]) / spacing_mm[axis]
            packed = self._packed(scaled.ravel(), lattice[axis], float(spacing_mm[axis]))
            in_plane.append(packed.reshape(*scaled.shape, -1))
        depth = (self._samples.position_mm[2] - origin_mm[2]) / spacing_mm[2]
        table = spline_table(depth, lattice[2])
        along_k = np.column_stack([table.first, table.weights, which])
        return in_plane[0], np.ascontiguousarray(in_plane[1].transpose(0, 2, 1)), along_k

    def _packed(self, positions: Float, n_control: int, spacing_mm: float) -> Float:
        packed = np.empty((len(positions), 1 + 4 * len(self._orders)))
        for n, order in enumerate(self._orders):
            table = spline_table(positions, n_control, derivative=order)
            packed[:, 0] = table.first
            packed[:, 1 + 4 * n : 5 + 4 * n] = table.weights / spacing_mm**order
        return packed


def _distinct_rows(shifts_mm: Float) -> tuple[Float, NDArray[np.int64]]:
    """The different rows and which of them each row is."""
    if (shifts_mm == shifts_mm[0]).all():
        return shifts_mm[:1], np.zeros(len(shifts_mm), dtype=np.int64)
    return shifts_mm, np.arange(len(shifts_mm))


def total_weight(samples: TargetSamples, score: Float) -> float:
    """Return the score of all samples if all match."""
    class_weight = score.max(axis=1)
    return float(class_weight[samples.counted()].sum())


# ---------------------------------------------------------------------------------------------- kernels


@kernel
def place_control_points(displacements, matrix, origin, spacing, out):
    """Atlas voxel coordinates of the moved control points, shape (nc, na, 3 nb)."""
    na, nb, nc, _ = displacements.shape
    for c in range(nc):
        z0 = origin[2] + spacing[2] * c
        for a in range(na):
            x0 = origin[0] + spacing[0] * a
            for b in range(nb):
                x = x0 + displacements[a, b, c, 0]
                y = origin[1] + spacing[1] * b + displacements[a, b, c, 1]
                z = z0 + displacements[a, b, c, 2]
                for d in range(3):
                    out[c, a, d * nb + b] = (
                        matrix[d, 3] + matrix[d, 0] * x + matrix[d, 1] * y + matrix[d, 2] * z
                    )


@kernel
def _collect_gradient(planes, table_k, matrix, gradient):
    """Adjoint of the contraction along k and of `place_control_points`."""
    na, nb, nc, _ = gradient.shape
    sums = np.zeros((nc, na, 3 * nb))
    for s in range(planes.shape[0]):
        first = int(table_k[s, 0])
        for t in range(4):
            weight = table_k[s, 1 + t]
            for a in range(na):
                given, out = planes[s, a], sums[first + t, a]
                for n in range(out.size):
                    out[n] += weight * given[n]
    for a in range(na):
        for b in range(nb):
            for c in range(nc):
                x, y, z = sums[c, a, b], sums[c, a, nb + b], sums[c, a, 2 * nb + b]
                for d in range(3):
                    gradient[a, b, c, d] = matrix[0, d] * x + matrix[1, d] * y + matrix[2, d] * z


@kernel
def _consistency_kernel(
    start, stop, coefficients, table_i, table_j, table_k, labels, spans, atlas, score, planes, sums
):
    """Value, gradient per plane of control points and gradient per shift of slices start..stop."""
    na, nb = coefficients.shape[1], coefficients.shape[2] // 3
    ni, nj = labels.shape[1], labels.shape[2]
    plane = np.empty((na, 3 * nb))
    columns, column_gradient = np.zeros((na, 3 * nj)), np.zeros((na, 3 * nj))
    points, indices = np.empty(3 * nj), np.empty(nj, np.int64)
    cells, codes = atlas[1].reshape(atlas[1].size), atlas[0].reshape(atlas[0].size)
    extent = np.array([atlas.shape[1], atlas.shape[2], atlas.shape[3]])
    # Voxels of a slice in mixed cells: column, and where each row's begin; corners and coordinates.
    mixed, begins = np.empty(ni * nj + 1, np.int64), np.zeros(ni + 1, np.int64)
    corners = np.empty((12, ni * nj))
    used = np.empty(4, np.int64)
    for s in range(start, stop):
        which = int(table_k[s, 5])
        rows, slice_labels, slice_spans = table_i[which], labels[s], spans[s]
        _find_used(slice_spans, rows, nj, used)
        _contract_slice(coefficients, table_k[s], plane)
        _contract_columns(plane, table_j[which], used, columns)
        for i in range(ni):
            lo, hi, begin = slice_spans[i, 0], slice_spans[i, 1], begins[i]
            begins[i + 1] = begin
            if lo < hi:
                _contract_spans(columns, rows[i], lo, hi, points)
                find_cells(points, lo, hi, extent, indices)
                value, end = match_uniform(
                    indices, slice_labels[i], cells, score, lo, hi, mixed, begin
                )
                sums[s, 0] += value
                begins[i + 1] = end
                gather_corners(
                    points, indices, slice_labels[i], codes, extent, score, mixed, begin, end,
                    corners,
                )  # fmt: skip
        sums[s, 0] += interpolate(corners, begins[ni])
        column_gradient[used[2] : used[3]] = 0.0
        for i in range(ni):
            if begins[i] < begins[i + 1]:
                sums[s, 1] += _spread_row(
                    corners, mixed, begins[i], begins[i + 1], rows[i], columns, column_gradient
                )
        if table_j.shape[1] > 5:
            sums[s, 2] += _slope_along_j(plane, table_j[which], used, column_gradient)
        _spread_columns(column_gradient, table_j[which], used, planes[s])


@kernel
def _find_used(spans, table_i, nj, used):
    """First and last-plus-one column that any row of a slice counts, and likewise planes of controls."""
    used[0], used[1], used[2], used[3] = nj, 0, 0, 0
    for i in range(spans.shape[0]):
        if spans[i, 0] < spans[i, 1]:
            used[0], used[1] = min(used[0], spans[i, 0]), max(used[1], spans[i, 1])
            if used[3] == 0:
                used[2] = int(table_i[i, 0])
            used[3] = int(table_i[i, 0]) + 4


@kernel
def _contract_slice(coefficients, table, plane):
    """Spline along k: the control-point planes around a slice, weighted into one plane."""
    f = int(table[0])
    w0, w1, w2, w3 = table[1], table[2], table[3], table[4]
    for a in range(plane.shape[0]):
        combine_rows(
            coefficients[f, a], coefficients[f + 1, a], coefficients[f + 2, a],
            coefficients[f + 3, a], w0, w1, w2, w3, plane[a],
        )  # fmt: skip


@kernel
def _contract_columns(plane, table, used, columns):
    """Spline along j: control points of a slice's plane to the columns of its voxels that count."""
    nj = table.shape[1]
    nb = plane.shape[1] // 3
    first = table[0]
    w0, w1, w2, w3 = table[1], table[2], table[3], table[4]
    for a in range(used[2], used[3]):
        for d in range(3):
            given, out = plane[a, d * nb : (d + 1) * nb], columns[a, d * nj : (d + 1) * nj]
            for j in range(used[0], used[1]):
                f = int(first[j])
                out[j] = (
                    w0[j] * given[f]
                    + w1[j] * given[f + 1]
                    + w2[j] * given[f + 2]
                    + w3[j] * given[f + 3]
                )


@kernel
def _contract_spans(columns, table, lo, hi, points):
    """Spline along i: atlas voxel coordinates of a row of voxels, x then y then z.

    What lies between the spans of two coordinates is summed along: one long row is quicker than three.
    """
    nj = points.size // 3
    f, b = int(table[0]), 2 * nj + hi
    combine_rows(
        columns[f, lo:b], columns[f + 1, lo:b], columns[f + 2, lo:b], columns[f + 3, lo:b],
        table[1], table[2], table[3], table[4], points[lo:b],
    )  # fmt: skip


@kernel
def _spread_row(corners, mixed, begin, end, table, columns, column_gradient):
    """Adjoint of `_contract_spans` for the listed voxels of a row; returns their gradient along i."""
    nj = columns.shape[1] // 3
    f = int(table[0])
    w0, w1, w2, w3 = table[1], table[2], table[3], table[4]
    out0, out1 = column_gradient[f], column_gradient[f + 1]
    out2, out3 = column_gradient[f + 2], column_gradient[f + 3]
    for n in range(begin, end):
        j = mixed[n]
        for d in range(3):
            slope = corners[8 + d, n]
            out0[j] += w0 * slope
            out1[j] += w1 * slope
            out2[j] += w2 * slope
            out3[j] += w3 * slope
            j += nj
    along = 0.0
    if table.size > 5:
        for t in range(4):
            row, slope = columns[f + t], table[5 + t]
            for n in range(begin, end):
                j = mixed[n]
                along += slope * (
                    corners[8, n] * row[j]
                    + corners[9, n] * row[nj + j]
                    + corners[10, n] * row[2 * nj + j]
                )
    return along


@kernel
def _spread_columns(column_gradient, table, used, plane):
    """Adjoint of `_contract_columns`."""
    nj = table.shape[1]
    nb = plane.shape[1] // 3
    for a in range(used[2], used[3]):
        for d in range(3):
            given, out = column_gradient[a, d * nj : (d + 1) * nj], plane[a, d * nb : (d + 1) * nb]
            for j in range(used[0], used[1]):
                if given[j] != 0.0:
                    f = int(table[0, j])
                    for t in range(4):
                        out[f + t] += table[1 + t, j] * given[j]


@kernel
def _slope_along_j(plane, table, used, column_gradient):
    """Gradient per mm along j of a slice: slopes along j, times the gradient of the columns."""
    nj = table.shape[1]
    nb = plane.shape[1] // 3
    total = 0.0
    for a in range(used[2], used[3]):
        for d in range(3):
            for j in range(used[0], used[1]):
                given = column_gradient[a, d * nj + j]
                if given != 0.0:
                    f = d * nb + int(table[0, j])
                    slope = 0.0
                    for t in range(4):
                        slope += table[5 + t, j] * plane[a, f + t]
                    total += slope * given
    return total
