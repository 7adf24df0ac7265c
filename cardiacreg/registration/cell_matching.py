"""What points are worth in an atlas: cells whose labels agree by one look-up, the others trilinear.

Points are given in voxels of the padded atlas (`atlas_lookup`), their x, then y, then z. Where the eight
voxels around a point agree, one look-up settles it; the other points are listed and treated together.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cardiacreg.arrays import Float
from cardiacreg.compute.jit import kernel
from cardiacreg.transforms.atlas_lookup import AtlasLookup


def points_score(
    voxels: Float, labels: NDArray[np.uint8], cells: AtlasLookup, score: Float
) -> float:
    """Return the summed score of listed points in an atlas.

    Parameters
    ----------
    voxels : ndarray, shape (n, 3)
        Positions in voxels of the padded atlas.
    labels : ndarray of uint8, shape (n,)
        Label codes.
    cells : AtlasLookup
    score : ndarray, shape (codes, codes)
        What each target code is worth in each atlas code.
    """
    sums, points = np.zeros(1), np.ascontiguousarray(voxels.T).ravel()
    _points_kernel(points, labels, cells.codes, with_mixed_code(score), sums)
    return float(sums[0])


def with_mixed_code(score: Float) -> Float:
    """Add columns up to code 255, which stands for a mixed cell and is worth nothing by itself."""
    return np.pad(score, ((0, 0), (0, 256 - score.shape[1])))


# ---------------------------------------------------------------------------------------------- kernels


@kernel
def _points_kernel(points, labels, atlas, score, sums):
    """Consistency of listed points: their x, then y, then z in voxels of the padded atlas."""
    count = labels.size
    extent = np.array([atlas.shape[1], atlas.shape[2], atlas.shape[3]])
    cells, codes = atlas[1].reshape(atlas[1].size), atlas[0].reshape(atlas[0].size)
    indices, mixed = np.empty(count, np.int64), np.empty(count + 1, np.int64)
    corners = np.empty((12, count))
    find_cells(points, 0, count, extent, indices)
    value, end = match_uniform(indices, labels, cells, score, 0, count, mixed, 0)
    gather_corners(points, indices, labels, codes, extent, score, mixed, 0, end, corners)
    sums[0] = value + interpolate(corners, end)


@kernel
def find_cells(points, lo, hi, extent, indices):
    """Flat index of the atlas cell around each point of a row; outside, the last one. No branches."""
    nj = indices.size
    ni, mj, mk = extent[0], extent[1], extent[2]
    x, y, z = points[lo:hi], points[nj + lo : nj + hi], points[2 * nj + lo : 2 * nj + hi]
    top_x, top_y, top_z = float(ni - 1), float(mj - 1), float(mk - 1)
    step_j, step_k, outside = float(mj), float(mk), float(ni * mj * mk - 1)
    out = indices[lo:hi]
    for n in range(out.size):
        inside = (
            (x[n] >= 0.0)
            & (x[n] < top_x)
            & (y[n] >= 0.0)
            & (y[n] < top_y)
            & (z[n] >= 0.0)
            & (z[n] < top_z)
        )
        # Whole numbers as float64: several are computed at a time, not so 64-bit integers.
        cell = (np.floor(x[n]) * step_j + np.floor(y[n])) * step_k + np.floor(z[n])
        out[n] = int(cell if inside else outside)


@kernel
def match_uniform(indices, labels, cells, score, lo, hi, mixed, begin):
    """Consistency of the voxels of a row in uniform cells; lists the others. Returns the list's end."""
    even, odd, n = 0.0, 0.0, begin
    for j in range(lo, hi):
        code = cells[indices[j]]
        even, odd = odd, even + score[labels[j], code]
        mixed[n] = j
        n += code == 255
    return even + odd, n


@kernel
def gather_corners(points, indices, labels, codes, extent, score, mixed, begin, end, corners):
    """What the eight corners of each listed cell are worth, and the coordinates of each point."""
    nj = indices.size
    step_j, step_i = extent[2], extent[1] * extent[2]
    for n in range(begin, end):
        j = mixed[n]
        weight, cell = score[labels[j]], indices[j]
        corners[0, n], corners[1, n] = weight[codes[cell]], weight[codes[cell + 1]]
        cell += step_j
        corners[2, n], corners[3, n] = weight[codes[cell]], weight[codes[cell + 1]]
        cell += step_i
        corners[6, n], corners[7, n] = weight[codes[cell]], weight[codes[cell + 1]]
        cell -= step_j
        corners[4, n], corners[5, n] = weight[codes[cell]], weight[codes[cell + 1]]
        corners[8, n], corners[9, n], corners[10, n] = points[j], points[nj + j], points[2 * nj + j]


@kernel
def interpolate(corners, count):
    """Sum of the trilinear weights of the matching corners; gradients replace the coordinates."""
    c0, c1, c2, c3 = corners[0, :count], corners[1, :count], corners[2, :count], corners[3, :count]
    c4, c5, c6, c7 = corners[4, :count], corners[5, :count], corners[6, :count], corners[7, :count]
    x, y, z = corners[8, :count], corners[9, :count], corners[10, :count]
    value = corners[11, :count]
    for n in range(value.size):
        p, q, r = x[n] - np.floor(x[n]), y[n] - np.floor(y[n]), z[n] - np.floor(z[n])
        d00, d01, d10, d11 = c1[n] - c0[n], c3[n] - c2[n], c5[n] - c4[n], c7[n] - c6[n]
        m00, m01, m10, m11 = c0[n] + r * d00, c2[n] + r * d01, c4[n] + r * d10, c6[n] + r * d11
        e0, e1 = m01 - m00, m11 - m10
        m0, m1 = m00 + q * e0, m10 + q * e1
        value[n] = m0 + p * (m1 - m0)
        lower, upper = d00 + q * (d01 - d00), d10 + q * (d11 - d10)
        x[n], y[n], z[n] = m1 - m0, e0 + p * (e1 - e0), lower + p * (upper - lower)
    total = 0.0
    for n in range(value.size):
        total += value[n]
    return total
