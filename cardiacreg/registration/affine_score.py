"""Label consistency of listed points under an affine, with its gradient.

The sum is that of `label_consistency`, but an affine needs no splines: the target's sampled voxels are a
list of points, the same for every atlas, and the twelve numbers of a correction enter linearly.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cardiacreg.arrays import Float
from cardiacreg.compute.jit import kernel
from cardiacreg.registration.cell_matching import (
    find_cells,
    gather_corners,
    interpolate,
    match_uniform,
    with_mixed_code,
)
from cardiacreg.registration.label_consistency import total_weight
from cardiacreg.registration.prepared_target import PreparedTarget
from cardiacreg.registration.target_sampling import TargetSamples
from cardiacreg.registration.view_samples import ViewSamples

_BLOCK = 1024
"""Points that are treated together: their coordinates stay in the nearest cache."""


class PointList(NamedTuple):
    """Points that count, and what each is worth in every code of an atlas."""

    positions: Float
    """Shape (3, n)."""
    rows: NDArray[np.uint8]
    """Row of each point in `score`."""
    score: Float


def sampled_points(
    prepared: PreparedTarget, stride: int, shifts_mm: Float
) -> tuple[PointList, PointList]:
    """List a target's sampled voxels and the points of its views, mm along its axes.

    Parameters
    ----------
    prepared : PreparedTarget
    stride : int
        In-plane sampling stride.
    shifts_mm : ndarray, shape (n_sampled_slices + n_views, 2)
        By which each slice and view is moved in its plane.

    Returns
    -------
    pair of PointList
        Scores are shares of what both together are worth if everything matches.
    """
    samples, score = prepared.samples.every(stride), prepared.codes.score
    views = None if prepared.views is None else prepared.views.every(stride)
    total = total_weight(samples, score) + (0.0 if views is None else views.total_weight)
    count = len(samples.labels)
    of_slices = _slice_points(samples, shifts_mm[:count], score / total)
    if views is None:
        return of_slices, PointList(np.empty((3, 0)), np.empty(0, np.uint8), of_slices.score)
    return of_slices, _view_points(views, shifts_mm[count:], views.score / total)


def _slice_points(samples: TargetSamples, shifts_mm: Float, score: Float) -> PointList:
    columns = np.arange(samples.labels.shape[2])
    inside = (columns >= samples.spans[..., :1]) & (columns < samples.spans[..., 1:])
    s, i, j = np.nonzero(inside)
    x, y, z = samples.position_mm
    positions = np.stack([x[i] + shifts_mm[s, 0], y[j] + shifts_mm[s, 1], z[s]])
    return PointList(positions, samples.labels[inside], with_mixed_code(score))


def _view_points(views: ViewSamples, shifts_mm: Float, score: Float) -> PointList:
    moved = np.einsum("va,vad->vd", shifts_mm, views.axes)
    positions = views.points_mm + np.repeat(moved, np.diff(views.starts), axis=0)
    return PointList(np.ascontiguousarray(positions.T), views.rows, with_mixed_code(score))


# ---------------------------------------------------------------------------------------------- kernels


@kernel
def score_affine(
    points, rows, score, view_points, view_rows, view_score, atlas, base, linear, anchor, x, found
):
    """Objective of an affine correction, shape (4, 3) in a row, and its gradient, into `found`.

    The objective, the last entry, is 1 - the points' score + ``y' anchor y``, y being the correction and
    a 1 behind it. `base` takes points to atlas voxels, shape (3, 4); the correction changes it by
    `linear` times its transpose.
    """
    placed, by_entry = _placed(base, linear, x), np.zeros((3, 4))
    value = 1.0 + anchor[12, 12]
    value -= _score_points(points, rows, atlas, score, placed, by_entry)
    if view_rows.size:
        value -= _score_points(view_points, view_rows, atlas, view_score, placed, by_entry)
    for n in range(12):
        along = anchor[n, 12]
        for m in range(12):
            along += anchor[n, m] * x[m]
        value += (along + anchor[n, 12]) * x[n]
        found[n] = 2.0 * along
        for d in range(3):
            found[n] -= linear[d, n % 3] * by_entry[d, n // 3]
    found[12] = value


@kernel
def _placed(base, linear, x):
    """The corrected matrix from points to atlas voxels."""
    placed = base.copy()
    for d in range(3):
        for n in range(4):
            for e in range(3):
                placed[d, n] += linear[d, e] * x[3 * n + e]
    return placed


@kernel
def _score_points(points, rows, atlas, score, matrix, by_entry):
    """Score of listed points under a matrix to atlas voxels; adds its derivative by every entry."""
    extent = np.array([atlas.shape[1], atlas.shape[2], atlas.shape[3]])
    cells, codes = atlas[1].reshape(atlas[1].size), atlas[0].reshape(atlas[0].size)
    size = min(_BLOCK, rows.size)
    moved, corners = np.empty(3 * size), np.empty((12, size))
    indices, mixed = np.empty(size, np.int64), np.empty(size + 1, np.int64)
    total = 0.0
    for first in range(0, rows.size, _BLOCK):
        last = min(first + _BLOCK, rows.size)
        labels = rows[first:last]
        x, y, z = points[0][first:last], points[1][first:last], points[2][first:last]
        _move(x, y, z, matrix, moved, size)
        find_cells(moved, 0, labels.size, extent, indices)
        value, end = match_uniform(indices, labels, cells, score, 0, labels.size, mixed, 0)
        gather_corners(moved, indices, labels, codes, extent, score, mixed, 0, end, corners)
        total += value + interpolate(corners, end)
        _add_derivatives(x, y, z, mixed, end, corners, by_entry)
    return total


@kernel
def _move(x, y, z, matrix, moved, size):
    """Atlas voxel coordinates of a block of points, x then y then z."""
    for d in range(3):
        a, b, c, t = matrix[d, 0], matrix[d, 1], matrix[d, 2], matrix[d, 3]
        out = moved[d * size : d * size + x.size]
        for n in range(x.size):
            out[n] = a * x[n] + b * y[n] + c * z[n] + t


@kernel
def _add_derivatives(x, y, z, mixed, end, corners, by_entry):
    """Add the slopes of the listed points, times their positions, to the derivative by every entry."""
    for d in range(3):
        slopes = corners[8 + d]
        a, b, c, t = 0.0, 0.0, 0.0, 0.0
        for n in range(end):
            m = mixed[n]
            a += slopes[n] * x[m]
            b += slopes[n] * y[m]
            c += slopes[n] * z[m]
            t += slopes[n]
        by_entry[d, 0] += a
        by_entry[d, 1] += b
        by_entry[d, 2] += c
        by_entry[d, 3] += t
