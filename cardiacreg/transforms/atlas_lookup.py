"""An atlas prepared for look-up: label codes with a border of background, and its uniform cells."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cardiacreg.arrays import Float
from cardiacreg.compute.jit import kernel
from cardiacreg.geometry import LabelMap


class AtlasLookup(NamedTuple):
    """An atlas ready for look-up: label codes with a border of zeros, and which cells are uniform."""

    codes: NDArray[np.uint8]
    """Shape (2, i + 2, j + 2, k + 2): label codes; code of each uniform cell, or 255."""
    voxel_to_world: Float
    """Padded voxel indices to atlas world mm."""


def build_lookup(atlas: LabelMap, codes: NDArray[np.uint8]) -> AtlasLookup:
    """Prepare an atlas for look-up: pad its label codes with background and mark uniform cells."""
    both = np.empty((2, *(n + 2 for n in atlas.shape)), dtype=np.uint8)
    _code_cells(atlas.array, codes, both)
    matrix = np.array(atlas.voxel_to_world)
    matrix[:3, 3] -= matrix[:3, :3].sum(axis=1)
    return AtlasLookup(both, matrix)


# ---------------------------------------------------------------------------------------------- kernels


@kernel
def nearest_voxels(x, y, z, matrix, extent, indices):
    """Flat index of the voxel nearest to each point; outside, the number of voxels."""
    top_u, top_v, top_w = float(extent[0]), float(extent[1]), float(extent[2])
    outside = top_u * top_v * top_w
    a0, a1, a2, a3 = matrix[0, 0], matrix[0, 1], matrix[0, 2], matrix[0, 3]
    b0, b1, b2, b3 = matrix[1, 0], matrix[1, 1], matrix[1, 2], matrix[1, 3]
    c0, c1, c2, c3 = matrix[2, 0], matrix[2, 1], matrix[2, 2], matrix[2, 3]
    for n in range(x.size):
        u = a0 * x[n] + a1 * y[n] + a2 * z[n] + a3 + 0.5
        v = b0 * x[n] + b1 * y[n] + b2 * z[n] + b3 + 0.5
        w = c0 * x[n] + c1 * y[n] + c2 * z[n] + c3 + 0.5
        inside = (u >= 0.0) & (v >= 0.0) & (w >= 0.0) & (u < top_u) & (v < top_v) & (w < top_w)
        # Whole numbers as float64: several are computed at a time, not so 64-bit integers.
        voxel = (np.floor(u) * top_v + np.floor(v)) * top_w + np.floor(w)
        indices[n] = int(voxel if inside else outside)


@kernel
def _code_cells(labels, codes, atlas):
    """Label codes with a border of background; and each cell's code where its corners agree, else 255."""
    _, ni, nj, nk = atlas.shape
    for i in range(ni):
        for j in range(nj):
            row = atlas[0, i, j]
            inside = 0 < i < ni - 1 and 0 < j < nj - 1
            for k in range(nk):
                row[k] = codes[0]
            if inside:
                given = labels[i - 1, j - 1]
                for k in range(given.size):
                    row[k + 1] = codes[given[k]]
    # 255 where any of the other corners differs from the first, without a branch per corner.
    for i in range(ni - 1):
        for j in range(nj - 1):
            p, q = atlas[0, i, j], atlas[0, i, j + 1]
            r, s = atlas[0, i + 1, j], atlas[0, i + 1, j + 1]
            out = atlas[1, i, j]
            for k in range(nk - 1):
                code = p[k]
                differs = (
                    (p[k + 1] ^ code)
                    | (q[k] ^ code)
                    | (q[k + 1] ^ code)
                    | (r[k] ^ code)
                    | (r[k + 1] ^ code)
                    | (s[k] ^ code)
                    | (s[k + 1] ^ code)
                )
                out[k] = 255 if differs else code
            out[nk - 1] = 255
        atlas[1, i, nj - 1] = 255
    atlas[1, ni - 1] = 255
    # The last cell stands for everything outside.
    atlas[1, ni - 1, nj - 1, nk - 1] = codes[0]
