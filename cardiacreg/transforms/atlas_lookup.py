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
