"""Label consistency of a whole target: the slices of its stack and the views beside it.

Slices and views are one sum, divided by what it would be if everything matched. Shifts and their
gradients have one row per sampled slice and then one per view (`PreparedTarget.shift_index`).

The points of views lie on no lattice of the target's. The spline is evaluated point by point from the 64
control points around it; its slopes only where the atlas's labels around a point differ.
"""

from __future__ import annotations

import numpy as np

from cardiacreg.algebra import invert, multiply
from cardiacreg.arrays import Float
from cardiacreg.compute.jit import kernel
from cardiacreg.registration.cell_matching import (
    find_cells,
    gather_corners,
    interpolate,
    match_uniform,
    with_mixed_code,
)
from cardiacreg.registration.label_consistency import (
    Consistency,
    ConsistencyObjective,
    place_control_points,
    total_weight,
)
from cardiacreg.registration.prepared_target import PreparedTarget
from cardiacreg.registration.view_samples import ViewSamples
from cardiacreg.transforms.atlas_lookup import AtlasLookup


class TargetObjective:
    """Label consistency of slices and views as a function of control points and shifts.

    Parameters
    ----------
    prepared : PreparedTarget
    atlas : AtlasLookup
    axes_to_atlas : ndarray, shape (4, 4)
        Mm along the target's axes to atlas world mm.
    stride : int
        In-plane sampling stride.
    threads : int
    shift_gradient : bool
        Whether the gradient per shift is wanted.
    """

    def __init__(
        self,
        prepared: PreparedTarget,
        atlas: AtlasLookup,
        axes_to_atlas: Float,
        stride: int,
        threads: int = 1,
        *,
        shift_gradient: bool = True,
    ) -> None:
        samples, score = prepared.samples.every(stride), prepared.codes.score
        views = None if prepared.views is None else prepared.views.every(stride)
        total = total_weight(samples, score) + (0.0 if views is None else views.total_weight)
        self._slices = ConsistencyObjective(
            samples, atlas, axes_to_atlas, score, threads,
            shift_gradient=shift_gradient, total=total,
        )  # fmt: skip
        self._count = len(samples.labels)
        self._views = None
        if views is not None:
            self._views = ViewObjective(views, atlas, axes_to_atlas, total)

    def __call__(
        self, displacements_mm: Float, origin_mm: Float, spacing_mm: Float, shifts_mm: Float
    ) -> Consistency:
        """Return value and gradient, see `ConsistencyObjective`."""
        lattice = (displacements_mm, origin_mm, spacing_mm)
        if self._views is None:
            return self._slices(*lattice, shifts_mm)
        first = self._slices(*lattice, shifts_mm[: self._count])
        second = self._views(*lattice, shifts_mm[self._count :])
        return Consistency(
            first.value + second.value,
            first.displacement_gradient + second.displacement_gradient,
            np.concatenate([first.shift_gradient, second.shift_gradient]),
        )


class ViewObjective:
    """Summed score of views as a function of control-point displacements and shifts.

    Parameters
    ----------
    samples : ViewSamples
    atlas : AtlasLookup
    axes_to_atlas : ndarray, shape (4, 4)
        Mm along the target's axes to atlas world mm.
    total_weight : float
        What the score is divided by.
    """

    def __init__(
        self, samples: ViewSamples, atlas: AtlasLookup, axes_to_atlas: Float, total_weight: float
    ) -> None:
        self._samples, self._atlas = samples, atlas
        self._to_voxel = multiply(invert(atlas.voxel_to_world), axes_to_atlas)
        self._score = with_mixed_code(samples.score / total_weight)

    def __call__(
        self, displacements_mm: Float, origin_mm: Float, spacing_mm: Float, shifts_mm: Float
    ) -> Consistency:
        """Return value and gradient; shifts have shape (n_views, 2), along each view's axes."""
        samples = self._samples
        na, nb, nc = displacements_mm.shape[:3]
        coefficients = np.empty((nc, na, 3 * nb))
        place_control_points(displacements_mm, self._to_voxel, origin_mm, spacing_mm, coefficients)
        gradient = np.zeros_like(coefficients)
        moved = np.einsum("va,vad->vd", shifts_mm, samples.axes)
        sums = np.zeros((len(samples.axes), 4))
        _view_kernel(
            samples.points_mm, samples.starts, samples.rows, moved, origin_mm, spacing_mm,
            coefficients, self._atlas.codes, self._score, gradient, sums,
        )  # fmt: skip
        by_control = multiply(
            gradient.reshape(nc, na, 3, nb).transpose(1, 3, 0, 2), self._to_voxel[:3, :3]
        )
        slopes = np.einsum("vd,vad->va", sums[:, 1:], samples.axes)
        return Consistency(float(sums[:, 0].sum()), np.ascontiguousarray(by_control), slopes)


# ---------------------------------------------------------------------------------------------- kernels


@kernel
def _view_kernel(
    positions, starts, rows, moved, origin, spacing, coefficients, atlas, score, gradient, sums
):
    """Score, gradient per control point and gradient per mm of every view's points."""
    nc, na, nb = coefficients.shape[0], coefficients.shape[1], coefficients.shape[2] // 3
    extent = np.array([atlas.shape[1], atlas.shape[2], atlas.shape[3]])
    cells, codes = atlas[1].reshape(atlas[1].size), atlas[0].reshape(atlas[0].size)
    limit, weights = np.array([na, nb, nc]), np.empty((6, 4))
    for v in range(sums.shape[0]):
        begin = starts[v]
        count = starts[v + 1] - begin
        points, at = np.empty(3 * count), np.empty((count, 3))
        indices, mixed = np.empty(count, np.int64), np.empty(count + 1, np.int64)
        corners = np.empty((12, count))
        labels = rows[begin : begin + count]
        for n in range(count):
            for d in range(3):
                scaled = (positions[begin + n, d] + moved[v, d] - origin[d]) / spacing[d]
                at[n, d] = min(max(scaled, 1.0), limit[d] - 2.0)
            _spline_point(at[n], coefficients, points, n, weights)
        find_cells(points, 0, count, extent, indices)
        value, end = match_uniform(indices, labels, cells, score, 0, count, mixed, 0)
        gather_corners(points, indices, labels, codes, extent, score, mixed, 0, end, corners)
        sums[v, 0] = value + interpolate(corners, end)
        for n in range(end):
            _spread_point(
                at[mixed[n]], corners[8:11, n], coefficients, spacing, gradient, sums[v], weights
            )


@kernel
def _cubic(t, weights, slopes):
    """Cubic B-spline weights of four control points, and their slopes per control-point spacing."""
    s = 1.0 - t
    weights[0] = s * s * s / 6.0
    weights[1] = (3.0 * t * t * t - 6.0 * t * t + 4.0) / 6.0
    weights[2] = (3.0 * s * s * s - 6.0 * s * s + 4.0) / 6.0
    weights[3] = t * t * t / 6.0
    slopes[0] = -0.5 * s * s
    slopes[1] = 1.5 * t * t - 2.0 * t
    slopes[2] = -1.5 * s * s + 2.0 * s
    slopes[3] = 0.5 * t * t


@kernel
def _cell(at, limit):
    """First of the four control points around a position."""
    return min(int(at), limit - 3) - 1


@kernel
def _spline_point(at, coefficients, points, n, weights):
    """Atlas voxel coordinates of one position, written to x, y and z of point n."""
    nc, na, nb = coefficients.shape[0], coefficients.shape[1], coefficients.shape[2] // 3
    count = points.size // 3
    a, b, c = _cell(at[0], na), _cell(at[1], nb), _cell(at[2], nc)
    wa, wb, wc = weights[0], weights[1], weights[2]
    _cubic(at[0] - a - 1, wa, weights[3])
    _cubic(at[1] - b - 1, wb, weights[4])
    _cubic(at[2] - c - 1, wc, weights[5])
    x, y, z = 0.0, 0.0, 0.0
    for r in range(4):
        for p in range(4):
            weight, row = wc[r] * wa[p], coefficients[c + r, a + p]
            for q in range(4):
                w = weight * wb[q]
                x += w * row[b + q]
                y += w * row[nb + b + q]
                z += w * row[2 * nb + b + q]
    points[n], points[count + n], points[2 * count + n] = x, y, z


@kernel
def _spread_point(at, slope, coefficients, spacing, gradient, sums, weights):
    """Adjoint of `_spline_point` for a gradient per voxel; adds the gradient per mm of the position."""
    nc, na, nb = coefficients.shape[0], coefficients.shape[1], coefficients.shape[2] // 3
    a, b, c = _cell(at[0], na), _cell(at[1], nb), _cell(at[2], nc)
    wa, wb, wc = weights[0], weights[1], weights[2]
    da, db, dc = weights[3], weights[4], weights[5]
    _cubic(at[0] - a - 1, wa, da)
    _cubic(at[1] - b - 1, wb, db)
    _cubic(at[2] - c - 1, wc, dc)
    along_a, along_b, along_c = 0.0, 0.0, 0.0
    for r in range(4):
        for p in range(4):
            row, out = coefficients[c + r, a + p], gradient[c + r, a + p]
            for q in range(4):
                told = (
                    slope[0] * row[b + q]
                    + slope[1] * row[nb + b + q]
                    + slope[2] * row[2 * nb + b + q]
                )
                along_a += da[p] * wb[q] * wc[r] * told
                along_b += wa[p] * db[q] * wc[r] * told
                along_c += wa[p] * wb[q] * dc[r] * told
                weight = wa[p] * wb[q] * wc[r]
                out[b + q] += weight * slope[0]
                out[nb + b + q] += weight * slope[1]
                out[2 * nb + b + q] += weight * slope[2]
    sums[1] += along_a / spacing[0]
    sums[2] += along_b / spacing[1]
    sums[3] += along_c / spacing[2]
