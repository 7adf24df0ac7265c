"""What patch-based fusion looks at, and small parts of it copied so that a kernel can run along rows.

A tile holds a box of a scene with everything that the patches around its voxels can touch. Columns follow
each other along j without a gap, each padded along k to whole vectors, so that a row of a tile is one run
of memory whatever the shape of the lattice.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cardiacreg.compute.jit import kernel

DISTANCES = ("mean", "sum", "correlation")
_LANES = 16


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


class Tile(NamedTuple):
    """A box with all that its patches can touch, copied together; rows along (j, k) are contiguous.

    Local coordinates: row, column and lane 0 are the first copied ones. The box begins at
    (`first_i`, `first_j`, `pad`) and has `depth` slices; the lattice spans [low_i, high_i) x
    [low_j, high_j). Of a correlation whose patches are all whole, `totals` are the sums of the patches of
    the target and of each atlas, `scales` one over their spread, a column of zeros on either side.
    """

    target: NDArray[np.uint8]
    atlases: NDArray[np.uint8]
    codes: NDArray[np.uint8]
    ends: NDArray[np.int64]
    active: NDArray[np.bool_]
    lattice: NDArray[np.int64]
    shifts: NDArray[np.int64]
    totals: NDArray[np.int32]
    scales: NDArray[np.float64]
    first_i: int
    first_j: int
    rows: int
    columns: int
    lanes: int
    pad: int
    depth: int
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
    lanes = -(-(box.k1 - box.k0 + 2 * sk) // _LANES) * _LANES
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
    shifts, kind = displacements(scene.search), DISTANCES.index(scene.distance)
    whole = lattice[:4:2].max() <= 0 and (lattice[1:4:2] >= (shape[0], shape[1] // lanes)).all()
    totals, scales = np.zeros((n + 1, 1, 1), np.int32), np.zeros((n + 1, 1, 1))
    if kind == 2 and whole:
        reach = (n + 1, rows + 2 * si, (columns + 2 * sj + 2) * lanes)
        totals, scales = np.zeros(reach, np.int32), np.zeros(reach)
        for number, image in enumerate((target, *atlases)):
            _spread_kernel(image, lanes, pi, pj, totals[number], scales[number])
    return Tile(
        target, atlases, codes, _ends(active), active, lattice, shifts, totals, scales, si + pi,
        sj + pj, rows, columns, lanes, sk, box.k1 - box.k0, si, sj, sk, pi, pj, kind,
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
    low, high = max(0, -corner[2]), min(lanes, nk - corner[2])
    size = np.uint64(max(high - low, 0))
    for n in range(source.shape[0]):
        for y in range(max(0, -corner[0]), min(out.shape[1], ni - corner[0])):
            for x in range(max(0, -corner[1]), min(out.shape[2] // lanes, nj - corner[1])):
                to, start = np.uint64(x * lanes + low), np.uint64(low + corner[2])
                i, j, u, v = (
                    np.uint64(y + corner[0]),
                    np.uint64(x + corner[1]),
                    np.uint64(n),
                    np.uint64(y),
                )
                for k in range(size):
                    out[u, v, to + k] = source[u, i, j, start + k]


@kernel
def _spread_kernel(image, lanes, patch_i, patch_j, totals, scales):
    """Sums of whole patches and one over their spread, 0 where a patch is constant."""
    width, n = image.shape[1], np.float64((2 * patch_i + 1) * (2 * patch_j + 1))
    first, second = np.zeros(width, np.int32), np.zeros(width, np.int32)
    total, square = np.empty(lanes, np.int32), np.empty(lanes, np.int32)
    for y in range(image.shape[0]):
        _add_powers(1, image[y], first, second)
        out = y - 2 * patch_i
        if out < 0:
            continue
        total[:], square[:] = 0, 0
        for x in range(width // lanes):
            old, place = max(x - 2 * patch_j - 1, 0) * lanes, (x + 1 - 2 * patch_j) * lanes
            sign = np.int32(x > 2 * patch_j)
            for k in range(lanes):
                total[k] += first[x * lanes + k] - sign * first[old + k]
                square[k] += second[x * lanes + k] - sign * second[old + k]
                if x >= 2 * patch_j:
                    sums, squares = np.float64(total[k]), np.float64(square[k])
                    spread = n * squares - sums * sums
                    totals[out, place + k] = total[k]
                    scales[out, place + k] = 1.0 / np.sqrt(spread) if spread > 0.5 else 0.0
        _add_powers(-1, image[out], first, second)


@kernel
def _add_powers(sign, values, first, second):
    """Add a row to sums of values and of squares, or take it away."""
    sign = np.int32(sign)
    for k in range(np.uint64(len(values))):
        value = np.int32(values[k])
        first[k] += sign * value
        second[k] += sign * value * value
