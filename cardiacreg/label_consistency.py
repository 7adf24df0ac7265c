"""Eq. (4): smooth label consistency of a target's acquired slices and an atlas, with exact gradient.

``C = sum_x c(S(x)) w(x) / sum_x c(S(x))`` over the sampled target voxels x, where S(x) is the target's
label, c its class weight and ``w(x) = sum_v t_v [l(v) matches S(x)]`` the trilinear weight, around
T(x + s), of the atlas voxels v whose label l matches. C is in [0, 1], higher is better, and equals
``sum_i P(i, i)`` of the paper when T hits atlas voxels and all classes weigh the same. s is the in-plane
shift of x's slice. Labels are categories: only matches count, through a table.

The transform is evaluated and its gradient collected separably (slices, then rows, then voxels). The
affine and the atlas lattice are folded into the control points, so the spline gives atlas voxel
coordinates at once. Where the eight atlas voxels around T(x) agree, one look-up settles the voxel and
the gradient is zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cardiacreg._jit import kernel
from cardiacreg._slabs import run_tasks, slab_ranges
from cardiacreg.errors import InvalidInputError
from cardiacreg.ffd import SplineTable, spline_table
from cardiacreg.geometry import LabelMap

Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class TargetSamples:
    """The target voxels that count, in the target's own axis-aligned frame (mm, origin at voxel 0).

    Parameters
    ----------
    labels : ndarray of uint8, shape (n_slices, ni, nj)
        Label codes at the sampled in-plane positions.
    spans : ndarray of int64, shape (n_slices, ni, 2)
        First and last-plus-one j that count, per slice and row.
    position_mm : tuple of ndarray
        In-plane positions along i and j, and the position of each slice along k.
    slice_index : ndarray of int64, shape (n_slices,)
        Target slice that each sampled slice belongs to (several when thickness is modelled).
    frame_to_world : ndarray, shape (4, 4)
        The frame's mm to world mm; its axes are orthonormal.
    """

    labels: NDArray[np.uint8]
    spans: NDArray[np.int64]
    position_mm: tuple[Float, Float, Float]
    slice_index: NDArray[np.int64]
    frame_to_world: Float

    def every(self, stride: int) -> TargetSamples:
        """Return the samples at every `stride`-th in-plane position."""
        if stride == 1:
            return self
        offset = stride // 2
        rows, columns = slice(offset, None, stride), slice(offset, None, stride)
        spans = (self.spans[:, rows] - offset + stride - 1) // stride
        positions = (self.position_mm[0][rows], self.position_mm[1][columns], self.position_mm[2])
        labels = np.ascontiguousarray(self.labels[:, rows, columns])
        spans = np.ascontiguousarray(np.clip(spans, 0, labels.shape[2]))
        return TargetSamples(labels, spans, positions, self.slice_index, self.frame_to_world)


class AtlasCells(NamedTuple):
    """An atlas ready for look-up: label codes with a border of zeros, and which cells are uniform."""

    codes: NDArray[np.uint8]
    """Shape (2, i + 2, j + 2, k + 2): label codes; code of each uniform cell, or 255."""
    voxel_to_world: Float
    """Padded voxel indices to atlas world mm."""


class Consistency(NamedTuple):
    """Value and gradient of label consistency."""

    value: float
    displacement_gradient: Float
    """Per mm of each control point, in the target frame's axes, shape (na, nb, nc, 3)."""
    shift_gradient: Float
    """Per mm of in-plane shift of each sampled slice, shape (n_slices, 2)."""


def target_frame(voxel_to_world: Float, where: str) -> Float:
    """Return the map from a lattice's axis-aligned mm frame to world mm.

    Raises
    ------
    InvalidInputError
        If the lattice's axes are not orthogonal.
    """
    frame = np.array(voxel_to_world)
    frame[:3, :3] /= np.linalg.norm(frame[:3, :3], axis=0)
    if np.abs(frame[:3, :3].T @ frame[:3, :3] - np.eye(3)).max() > 2e-3:
        raise InvalidInputError(
            f"{where}: the target's axes are not orthogonal (a sheared header); resample it onto "
            "an orthogonal lattice first.",
            code="SHEARED_TARGET",
        )
    return frame


def labelled_slices(array: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the slices (k) that hold any label."""
    return np.flatnonzero((array != 0).any(axis=(0, 1)))


def sample_target(
    target: LabelMap,
    codes: NDArray[np.uint8],
    *,
    margin_mm: float,
    slice_offsets_mm: tuple[float, ...] = (0.0,),
    all_slices: bool = False,
) -> TargetSamples:
    """Collect the target voxels within `margin_mm` in-plane of any label.

    Parameters
    ----------
    target : LabelMap
        Native lattice, any orthogonal orientation.
    codes : ndarray of uint8, shape (256,)
        Label to label code.
    margin_mm : float
        In-plane distance around the labels of each slice's neighbourhood that counts as background.
    slice_offsets_mm : tuple of float
        Offsets through the slice at which it is sampled; several model its thickness.
    all_slices : bool
        Treat slices without labels as background instead of unknown.
    """
    slices = np.arange(target.shape[2]) if all_slices else labelled_slices(target.array)
    spacing = target.spacing_mm
    reach = np.ceil(margin_mm / spacing[:2] - 1e-6).astype(int)
    box = _in_plane_box(target.array, reach)
    labels = codes[target.array[box[0] : box[1], box[2] : box[3]][:, :, slices]]
    labels = np.ascontiguousarray(labels.transpose(2, 0, 1))
    spans = _row_spans(labels, reach)
    n_offsets = len(slice_offsets_mm)
    depth = slices[:, None] * spacing[2] + np.asarray(slice_offsets_mm)[None]
    positions = (
        np.arange(box[0], box[1]) * spacing[0],
        np.arange(box[2], box[3]) * spacing[1],
        depth.ravel(),
    )
    return TargetSamples(
        np.repeat(labels, n_offsets, axis=0),
        np.repeat(spans, n_offsets, axis=0),
        positions,
        np.repeat(slices, n_offsets),
        target_frame(target.voxel_to_world, "sample_target"),
    )


def _in_plane_box(array: NDArray[np.uint8], reach: NDArray[np.int64]) -> tuple[int, int, int, int]:
    present = (array != 0).any(axis=2)
    rows, columns = np.flatnonzero(present.any(axis=1)), np.flatnonzero(present.any(axis=0))
    return (
        max(0, int(rows[0] - reach[0])),
        min(array.shape[0], int(rows[-1] + reach[0]) + 1),
        max(0, int(columns[0] - reach[1])),
        min(array.shape[1], int(columns[-1] + reach[1]) + 1),
    )


def _row_spans(labels: NDArray[np.uint8], reach: NDArray[np.int64]) -> NDArray[np.int64]:
    """Span of j per row that lies within reach (a box) of the labels of the same slice."""
    n_slices, ni, nj = labels.shape
    reach_i, reach_j = int(reach[0]), int(reach[1])
    present = labels != 0
    first = np.where(present.any(axis=2), present.argmax(axis=2), nj + reach_j)
    last = np.where(present.any(axis=2), nj - present[:, :, ::-1].argmax(axis=2), -reach_j)
    spans = np.zeros((n_slices, ni, 2), dtype=np.int64)
    empty = ~present.any(axis=(1, 2))
    for row in range(ni):
        rows = slice(max(0, row - reach_i), row + reach_i + 1)
        spans[:, row, 0] = np.maximum(0, first[:, rows].min(axis=1) - reach_j)
        spans[:, row, 1] = np.minimum(nj, last[:, rows].max(axis=1) + reach_j)
    spans[empty] = (0, nj)
    spans[..., 1] = np.maximum(spans[..., 0], spans[..., 1])
    return spans


def atlas_cells(atlas: LabelMap, codes: NDArray[np.uint8]) -> AtlasCells:
    """Prepare an atlas for look-up: pad its label codes with background and mark uniform cells."""
    shape = tuple(n + 2 for n in atlas.shape)
    both = np.zeros((2, *shape), dtype=np.uint8)
    both[0] = codes[0]
    both[0, 1:-1, 1:-1, 1:-1] = codes[atlas.array]
    _mark_uniform_cells(both)
    matrix = np.array(atlas.voxel_to_world)
    matrix[:3, 3] -= matrix[:3, :3].sum(axis=1)
    return AtlasCells(both, matrix)


class ConsistencyObjective:
    """Label consistency as a function of control-point displacements and slice shifts.

    Parameters
    ----------
    samples : TargetSamples
    atlas : AtlasCells
    frame_to_atlas : ndarray, shape (4, 4)
        Target frame mm to atlas world mm: the affine A after the frame's own placement.
    score : ndarray, shape (n_codes, n_codes)
        Class weight where the target code (row) matches the atlas code (column), else 0.
    threads : int
    """

    def __init__(
        self,
        samples: TargetSamples,
        atlas: AtlasCells,
        frame_to_atlas: Float,
        score: Float,
        threads: int = 1,
    ) -> None:
        self._samples = samples
        self._atlas = atlas
        self._to_voxel = np.linalg.inv(atlas.voxel_to_world) @ frame_to_atlas
        self._score = score / _total_weight(samples, score)
        self._threads = threads
        self._known_tables: tuple[object, ...] = ()

    def __call__(
        self, displacements_mm: Float, origin_mm: Float, spacing_mm: Float, shifts_mm: Float
    ) -> Consistency:
        """Return value and gradient.

        Parameters
        ----------
        displacements_mm : ndarray, shape (na, nb, nc, 3)
            Control-point displacements along the target frame's axes.
        origin_mm, spacing_mm : ndarray, shape (3,)
            First control point and control-point spacing in the target frame.
        shifts_mm : ndarray, shape (n_slices, 2)
            In-plane shift of each sampled slice.
        """
        lattice = displacements_mm.shape[:3]
        tables = self._tables(lattice, origin_mm, spacing_mm, shifts_mm)
        coefficients = self._atlas_coefficients(displacements_mm, origin_mm, spacing_mm)
        n_slices = len(self._samples.labels)
        planes = np.zeros((n_slices, lattice[0], lattice[1], 3))
        sums = np.zeros((n_slices, 3))

        def run(slab: tuple[int, int]) -> None:
            _consistency_kernel(
                slab[0], slab[1], coefficients, *tables, self._samples.labels,
                self._samples.spans, self._atlas.codes, self._score, planes, sums,
            )  # fmt: skip

        size = n_slices if self._threads == 1 else -(-n_slices // (2 * self._threads))
        run_tasks(run, slab_ranges(n_slices, size), threads=self._threads)
        gradient = np.zeros(displacements_mm.shape)
        _spread_slices(planes, tables[2], gradient)
        gradient = gradient @ self._to_voxel[:3, :3]
        return Consistency(float(sums[:, 0].sum()), gradient, sums[:, 1:])

    def _atlas_coefficients(
        self, displacements_mm: Float, origin_mm: Float, spacing_mm: Float
    ) -> Float:
        axes = [
            origin_mm[a] + spacing_mm[a] * np.arange(displacements_mm.shape[a]) for a in range(3)
        ]
        position = displacements_mm.copy()
        position[..., 0] += axes[0][:, None, None]
        position[..., 1] += axes[1][None, :, None]
        position[..., 2] += axes[2]
        matrix = self._to_voxel
        moved = np.empty_like(position)
        for c in range(3):
            moved[..., c] = matrix[c, 3]
            for d in range(3):
                moved[..., c] += matrix[c, d] * position[..., d]
        return moved

    def _tables(
        self, lattice: tuple[int, ...], origin_mm: Float, spacing_mm: Float, shifts_mm: Float
    ) -> tuple[Float, Float, Float]:
        """Spline weights of all samples; kept while neither lattice nor shifts change."""
        key = (lattice, origin_mm.tobytes(), spacing_mm.tobytes(), shifts_mm.tobytes())
        if not self._known_tables or self._known_tables[0] != key:
            self._known_tables = (key, self._make_tables(lattice, origin_mm, spacing_mm, shifts_mm))
        return self._known_tables[1]  # type: ignore[return-value]

    def _make_tables(
        self, lattice: tuple[int, ...], origin_mm: Float, spacing_mm: Float, shifts_mm: Float
    ) -> tuple[Float, Float, Float]:
        in_plane = []
        for axis in range(2):
            positions = self._samples.position_mm[axis][None] + shifts_mm[:, axis, None]
            scaled = (positions - origin_mm[axis]) / spacing_mm[axis]
            value = spline_table(scaled.ravel(), lattice[axis])
            slope = spline_table(scaled.ravel(), lattice[axis], derivative=1)
            packed = np.column_stack([value.weights, slope.weights / spacing_mm[axis], value.first])
            in_plane.append(packed.reshape(*scaled.shape, 9))
        depth = (self._samples.position_mm[2] - origin_mm[2]) / spacing_mm[2]
        return in_plane[0], in_plane[1], _packed(spline_table(depth, lattice[2]))


def _packed(table: SplineTable) -> Float:
    return np.column_stack([table.weights, table.first])


def _total_weight(samples: TargetSamples, score: Float) -> float:
    class_weight = score.max(axis=1)
    columns = np.arange(samples.labels.shape[2])
    inside = (columns >= samples.spans[..., :1]) & (columns < samples.spans[..., 1:])
    return float(class_weight[samples.labels[inside]].sum())


# ---------------------------------------------------------------------------------------------- kernels


@kernel
def _consistency_kernel(
    start, stop, coefficients, table_i, table_j, table_k, labels, spans, atlas, score, planes, sums
):
    """Value, gradient per plane of control points and gradient per shift of slices start..stop."""
    na, nb = coefficients.shape[0], coefficients.shape[1]
    plane = np.empty((na, nb, 3))
    row, row_slope, row_gradient = np.empty((nb, 3)), np.empty((nb, 3)), np.empty((nb, 3))
    for s in range(start, stop):
        _contract_slice(coefficients, table_k[s], plane)
        for i in range(labels.shape[1]):
            if spans[s, i, 0] >= spans[s, i, 1]:
                continue
            _contract_row(plane, table_i[s, i], row, row_slope)
            row_gradient[:] = 0.0
            active = _row_consistency(
                spans[s, i], labels[s, i], atlas, score, table_j[s], row, row_slope, row_gradient,
                sums[s],
            )  # fmt: skip
            if active:
                _spread_row(row_gradient, table_i[s, i], planes[s])


@kernel
def _contract_slice(coefficients, table, plane):
    """Spline along k: the control-point planes around a slice, weighted into one plane."""
    f = int(table[4])
    for a in range(plane.shape[0]):
        for b in range(plane.shape[1]):
            for c in range(3):
                plane[a, b, c] = (
                    table[0] * coefficients[a, b, f, c]
                    + table[1] * coefficients[a, b, f + 1, c]
                    + table[2] * coefficients[a, b, f + 2, c]
                    + table[3] * coefficients[a, b, f + 3, c]
                )


@kernel
def _contract_row(plane, table, row, row_slope):
    """Spline along i and its slope: one row of control points for a row of voxels."""
    f = int(table[8])
    for b in range(row.shape[0]):
        for c in range(3):
            p0, p1 = plane[f, b, c], plane[f + 1, b, c]
            p2, p3 = plane[f + 2, b, c], plane[f + 3, b, c]
            row[b, c] = table[0] * p0 + table[1] * p1 + table[2] * p2 + table[3] * p3
            row_slope[b, c] = table[4] * p0 + table[5] * p1 + table[6] * p2 + table[7] * p3


@kernel
def _spread_row(row_gradient, table, plane):
    """Adjoint of `_contract_row`: add a row's gradient to its four control-point rows."""
    f = int(table[8])
    for a in range(4):
        for b in range(row_gradient.shape[0]):
            for c in range(3):
                plane[f + a, b, c] += table[a] * row_gradient[b, c]


@kernel
def _row_consistency(span, labels, atlas, score, table, row, row_slope, row_gradient, sums):
    """Consistency of one row of voxels; adds to row_gradient and sums, tells if any voxel is mixed."""
    mi, mj, mk = atlas.shape[1] - 1, atlas.shape[2] - 1, atlas.shape[3] - 1
    value, shift_i, shift_j, active = 0.0, 0.0, 0.0, False
    for j in range(span[0], span[1]):
        f = int(table[j, 8])
        v0, v1, v2, v3 = table[j, 0], table[j, 1], table[j, 2], table[j, 3]
        x = v0 * row[f, 0] + v1 * row[f + 1, 0] + v2 * row[f + 2, 0] + v3 * row[f + 3, 0]
        y = v0 * row[f, 1] + v1 * row[f + 1, 1] + v2 * row[f + 2, 1] + v3 * row[f + 3, 1]
        z = v0 * row[f, 2] + v1 * row[f + 1, 2] + v2 * row[f + 2, 2] + v3 * row[f + 3, 2]
        weight = score[labels[j]]
        if not (x >= 0.0 and y >= 0.0 and z >= 0.0 and x < mi and y < mj and z < mk):
            value += weight[0]
            continue
        code = atlas[1, int(x), int(y), int(z)]
        if code != 255:
            value += weight[code]
            continue
        matched, gx, gy, gz = _trilinear_match(atlas, weight, x, y, z)
        value += matched
        if gx == 0.0 and gy == 0.0 and gz == 0.0:
            continue
        active = True
        for t in range(4):
            v, d = table[j, t], table[j, 4 + t]
            row_gradient[f + t, 0] += v * gx
            row_gradient[f + t, 1] += v * gy
            row_gradient[f + t, 2] += v * gz
            along = gx * row_slope[f + t, 0] + gy * row_slope[f + t, 1] + gz * row_slope[f + t, 2]
            shift_i += v * along
            shift_j += d * (gx * row[f + t, 0] + gy * row[f + t, 1] + gz * row[f + t, 2])
    sums[0] += value
    sums[1] += shift_i
    sums[2] += shift_j
    return active


@kernel
def _trilinear_match(atlas, weight, x, y, z):
    """Trilinear weight of the matching labels around a point, and its gradient."""
    i, j, k = int(x), int(y), int(z)
    x, y, z = x - i, y - j, z - k
    m000, m001 = weight[atlas[0, i, j, k]], weight[atlas[0, i, j, k + 1]]
    m010, m011 = weight[atlas[0, i, j + 1, k]], weight[atlas[0, i, j + 1, k + 1]]
    m100, m101 = weight[atlas[0, i + 1, j, k]], weight[atlas[0, i + 1, j, k + 1]]
    m110, m111 = weight[atlas[0, i + 1, j + 1, k]], weight[atlas[0, i + 1, j + 1, k + 1]]
    m00, m01 = m000 + z * (m001 - m000), m010 + z * (m011 - m010)
    m10, m11 = m100 + z * (m101 - m100), m110 + z * (m111 - m110)
    m0, m1 = m00 + y * (m01 - m00), m10 + y * (m11 - m10)
    gy = (1 - x) * (m01 - m00) + x * (m11 - m10)
    gz = (1 - x) * ((1 - y) * (m001 - m000) + y * (m011 - m010)) + x * (
        (1 - y) * (m101 - m100) + y * (m111 - m110)
    )
    return m0 + x * (m1 - m0), m1 - m0, gy, gz


@kernel
def _mark_uniform_cells(atlas):
    """Second array: the code shared by a cell's eight corners, else 255."""
    _, ni, nj, nk = atlas.shape
    for i in range(ni - 1):
        for j in range(nj - 1):
            for k in range(nk - 1):
                code = atlas[0, i, j, k]
                same = (
                    atlas[0, i, j, k + 1] == code
                    and atlas[0, i, j + 1, k] == code
                    and atlas[0, i, j + 1, k + 1] == code
                    and atlas[0, i + 1, j, k] == code
                    and atlas[0, i + 1, j, k + 1] == code
                    and atlas[0, i + 1, j + 1, k] == code
                    and atlas[0, i + 1, j + 1, k + 1] == code
                )
                atlas[1, i, j, k] = code if same else 255


@kernel
def _spread_slices(planes, table_k, gradient):
    """Adjoint of the contraction along k: add each slice's plane to its four lattice planes."""
    for a in range(gradient.shape[0]):
        for b in range(gradient.shape[1]):
            for s in range(planes.shape[0]):
                f = int(table_k[s, 4])
                for t in range(4):
                    for c in range(3):
                        gradient[a, b, f + t, c] += table_k[s, t] * planes[s, a, b, c]
