"""What patch-based fusion looks at, and small parts of it copied so that a kernel can run along rows.

A tile holds a box of a scene with everything that the patches around its voxels can touch. Columns follow
each other along j without a gap, each padded along k to whole vectors, so that a row of a tile is one run
of memory whatever the shape of the lattice.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cardiacreg._jit import kernel

DISTANCES = ("mean", "sum", "correlation")
_FEWEST_LANES = 16


class Scene(NamedTuple):
    """What all tiles share.

    Parameters
    ----------
    target : ndarray of uint8, shape (i, j, k)
        Grey levels.
    atlases : ndarray of uint8, shape (n, i, j, k)
        Grey levels of the warped atlases.
    codes : ndarray of uint8, shape (n, i, j, k)
        Their labels, as positions in the list of labels (at most 255).
    active : ndarray of bool, shape (i, j, k)
        Voxels that are voted on.
    search, patch : tuple of int
        Reach of the search window along (i, j, k) and of the patch along (i, j), in voxels.
    distance : str
        One of `DISTANCES`.
    bandwidth : float
        h in units of the distance.
    n_labels : int
    """

    target: NDArray[np.uint8]
    atlases: NDArray[np.uint8]
    codes: NDArray[np.uint8]
    active: NDArray[np.bool_]
    search: tuple[int, int, int]
    patch: tuple[int, int]
    distance: str
    bandwidth: float
    n_labels: int


class Box(NamedTuple):
    """Voxels [i0, i1) x [j0, j1) x [k0, k1) of a scene."""

    i0: int
    i1: int
    j0: int
    j1: int
    k0: int
    k1: int


class Matches(NamedTuple):
    """The best match of every voxel of a box in every atlas.

    Parameters
    ----------
    ranks : ndarray of int32, shape (n, i, j, k)
        Which displacement, as a row of `displacements`.
    halvings : ndarray of float64, shape (n, i, j, k)
        Its distance times ``log2(e) / h``.
    """

    ranks: NDArray[np.int32]
    halvings: NDArray[np.float64]


class Tile(NamedTuple):
    """A box with all that its patches can touch, copied together; rows along (j, k) are contiguous.

    Local coordinates: row, column and lane 0 are the first copied ones. The box begins at
    (`first_i`, `first_j`, `pad`), the lattice spans [low_i, high_i) x [low_j, high_j).
    """

    target: NDArray[np.uint8]
    atlases: NDArray[np.uint8]
    codes: NDArray[np.uint8]
    ends: NDArray[np.int64]
    active: NDArray[np.bool_]
    lattice: NDArray[np.int64]
    first_i: int
    first_j: int
    rows: int
    columns: int
    lanes: int
    pad: int
    search_i: int
    search_j: int
    search_k: int
    patch_i: int
    patch_j: int
    kind: int
    halvings: float


def displacements(search: tuple[int, int, int]) -> NDArray[np.int64]:
    """Return all displacements of a search window, the shortest first, equal ones in (i, j, k) order."""
    axes = [np.arange(-reach, reach + 1) for reach in search]
    every = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    return every[np.argsort((every**2).sum(axis=1), kind="stable")]


def cut_tile(scene: Scene, box: Box) -> Tile:
    """Copy what a box needs out of a scene."""
    (si, sj, sk), (pi, pj) = scene.search, scene.patch
    rows, columns = box.i1 - box.i0, box.j1 - box.j0
    lanes = max(_FEWEST_LANES, 1 << (box.k1 - box.k0 + 2 * sk - 1).bit_length())
    shape = (rows + 2 * (si + pi), (columns + 2 * (sj + pj)) * lanes)
    n = len(scene.atlases)
    target = np.zeros(shape, np.uint8)
    atlases, codes = np.zeros((n, *shape), np.uint8), np.full((n, *shape), scene.n_labels, np.uint8)
    corner = np.array([box.i0 - si - pi, box.j0 - sj - pj, box.k0 - sk])
    _copy_kernel(scene.target[None], corner, lanes, target[None])
    _copy_kernel(scene.atlases, corner, lanes, atlases)
    _copy_kernel(scene.codes, corner, lanes, codes)
    active = np.zeros((rows, columns, lanes), bool)
    own = scene.active[box.i0 : box.i1, box.j0 : box.j1, box.k0 : box.k1]
    active[..., sk : sk + own.shape[2]] = own
    size = np.array(scene.target.shape)
    lattice = np.stack([-corner, size - corner], -1).ravel()
    return Tile(
        target, atlases, codes, _ends(active), active, lattice, si + pi, sj + pj, rows, columns,
        lanes, sk, si, sj, sk, pi, pj, DISTANCES.index(scene.distance),
        float(np.log2(np.e)) / scene.bandwidth,
    )  # fmt: skip


def _ends(active: NDArray[np.bool_]) -> NDArray[np.int64]:
    """First and last active column (exclusive) of every row; (0, 0): none."""
    columns: NDArray[np.bool_] = np.asarray(active.any(axis=2))
    stops = columns.shape[1] - columns[:, ::-1].argmax(axis=1)
    return np.stack([columns.argmax(axis=1), np.where(columns.any(axis=1), stops, 0)], -1)


# ---------------------------------------------------------------------------------------------- kernels


@kernel
def _copy_kernel(source, corner, lanes, out):
    """Copy a part of volumes (n, i, j, k) into rows of `lanes` per column; beyond the lattice, as is."""
    ni, nj, nk = source.shape[1:]
    depth = min(lanes, nk - corner[2])
    for n in range(source.shape[0]):
        for y in range(max(0, -corner[0]), min(out.shape[1], ni - corner[0])):
            for x in range(max(0, -corner[1]), min(out.shape[2] // lanes, nj - corner[1])):
                for k in range(max(0, -corner[2]), depth):
                    out[n, y, x * lanes + k] = source[
                        n, y + corner[0], x + corner[1], k + corner[2]
                    ]
