"""Step 5: warp an atlas's labels and image through a transform onto a lattice.

One pass over the lattice in slabs of slices: the displacement is evaluated separably, the affine and the
atlas lattice are folded into one matrix, and the atlas is looked up at once; no dense field is kept.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cardiacreg.algebra import invert, multiply
from cardiacreg.arrays import Float
from cardiacreg.compute.jit import kernel
from cardiacreg.compute.threads import check_threads, run_tasks, slab_ranges
from cardiacreg.errors import InvalidInputError, check_argument
from cardiacreg.geometry import Affine, LabelMap, Volume, apply_matrix, voxel_grid
from cardiacreg.transforms.atlas_lookup import build_lookup
from cardiacreg.transforms.ffd import FFD

_SLICES_PER_SLAB = 8
_TILE, _BIN = 8, 4
"""Columns along i and j that are looked at together, and atlas cells along each axis likewise."""


class _Lattice(NamedTuple):
    shape: tuple[int, int, int]
    voxel_to_world: Float


class Lattice(_Lattice):
    """Where to sample (a Volume or LabelMap also serves).

    Parameters
    ----------
    shape : tuple of int
        Voxels along (i, j, k).
    voxel_to_world : ndarray, shape (4, 4)
        Voxel indices to world mm.

    Raises
    ------
    InvalidInputError
        If the shape is not three whole numbers above zero (BAD_SHAPE), or the matrix is of no use.
    """

    __slots__ = ()

    def __new__(cls, shape: tuple[int, int, int], voxel_to_world: Float) -> Lattice:
        """Check shape and matrix."""
        try:
            i, j, k = (operator.index(n) for n in shape)
        except (TypeError, ValueError):
            i = j = k = 0
        if min(i, j, k) < 1:
            raise InvalidInputError(
                f"Lattice: the shape is {shape}; needs three whole numbers above zero (i, j, k).",
                code="BAD_SHAPE",
            )
        Affine(voxel_to_world)
        return super().__new__(cls, (i, j, k), voxel_to_world)


class PointMap(Protocol):
    """Anything that maps points: an `Affine`, an `FFD`, a `DisplacementField`."""

    def apply(self, points_mm: ArrayLike) -> Float:
        """Map points of shape (..., 3) in mm."""


Grid = Lattice | Volume | LabelMap
Mask = NDArray[np.bool_]
GRIDS = (Lattice, Volume, LabelMap)
Transform = FFD | Affine | PointMap


def warp_labels(
    atlas: LabelMap,
    target_to_atlas: Transform,
    grid: Grid,
    *,
    interpolation: str = "linear",
    threads: int | None = None,
) -> LabelMap:
    """Bring an atlas's labels onto a lattice of the target's world.

    Parameters
    ----------
    atlas : LabelMap
    target_to_atlas : FFD, Affine or DisplacementField
        Target world mm to atlas world mm.
    grid : Lattice, Volume or LabelMap
        Where to sample.
    interpolation : {"linear", "nearest"}
        ``"linear"`` gives the label with the largest trilinear weight (ties: lowest label), smoother
        than the nearest voxel's label; never a label that the atlas does not have there.
    threads : int, optional

    Returns
    -------
    LabelMap
        Outside the atlas's lattice: 0.

    Raises
    ------
    InvalidInputError
        If the interpolation is not known (BAD_OPTION).

    Examples
    --------
    >>> import numpy as np
    >>> from cardiacreg import Affine, warp_labels
    >>> from cardiacreg.phantoms.toy_heart import make_toy_heart
    >>> up = Affine(np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 8.0], [0, 0, 0, 1]]))
    >>> heart = make_toy_heart().labels  # slices of 8 mm
    >>> warped = warp_labels(heart, up, heart)
    >>> bool((warped.array[..., 2] == heart.array[..., 3]).all())
    True
    """
    check_argument(atlas, LabelMap, "warp_labels: atlas")
    check_argument(grid, GRIDS, "warp_labels: grid")
    if interpolation not in ("linear", "nearest"):
        raise InvalidInputError(
            f"warp_labels: interpolation {interpolation!r}; needs 'linear' or 'nearest'.",
            code="BAD_OPTION",
        )
    out = np.zeros(grid.shape, dtype=np.uint8)
    linear = interpolation == "linear"

    def write(points: Float, first: int, _: Mask) -> None:
        _labels_kernel(points, atlas.array, linear, out, first)

    _warp(atlas.voxel_to_world, target_to_atlas, grid, write, check_threads(threads))
    return LabelMap(out, grid.voxel_to_world)


def warp_volume(
    atlas: Volume, target_to_atlas: Transform, grid: Grid, *, threads: int | None = None
) -> Volume:
    """Bring an atlas's image onto a lattice of the target's world by trilinear interpolation.

    Parameters
    ----------
    atlas : Volume
    target_to_atlas : FFD, Affine or DisplacementField
        Target world mm to atlas world mm.
    grid : Lattice, Volume or LabelMap
        Where to sample.
    threads : int, optional

    Returns
    -------
    Volume
        Outside the atlas's lattice: the nearest voxel's intensity.

    Examples
    --------
    >>> import numpy as np
    >>> from cardiacreg import Affine, warp_volume
    >>> from cardiacreg.phantoms.toy_heart import make_toy_heart
    >>> heart = make_toy_heart()
    >>> warped = warp_volume(heart.image, Affine(np.eye(4)), heart.labels)
    >>> float(np.abs(warped.array - heart.image.array).max())
    0.0
    """
    check_argument(atlas, Volume, "warp_volume: atlas")
    check_argument(grid, GRIDS, "warp_volume: grid")
    out = np.zeros(grid.shape, dtype=np.float32)

    def write(points: Float, first: int, _: Mask) -> None:
        _volume_kernel(points, atlas.array, out, first)

    _warp(atlas.voxel_to_world, target_to_atlas, grid, write, check_threads(threads))
    return Volume(out, grid.voxel_to_world)


def add_label_votes(
    votes: NDArray[np.float32],
    atlas: LabelMap,
    target_to_atlas: Transform,
    grid: Grid,
    *,
    threads: int = 1,
) -> Float:
    """Add an atlas's trilinear label weights, warped onto a lattice, to `votes` in place.

    Parameters
    ----------
    votes : ndarray of float32, shape (i, j, k, n_labels)
        Labels at or above n_labels are ignored.

    Returns
    -------
    ndarray, shape (k, n_labels)
        What was added to every slice of the lattice.
    """
    ignored = votes.shape[3]
    cells = build_lookup(atlas, np.minimum(np.arange(256), ignored).astype(np.uint8)).codes
    bins = np.zeros([1 + n // _BIN for n in cells.shape[1:]], dtype=np.bool_)
    _bins_kernel(cells[1], bins)
    added = np.zeros(votes.shape[2:])

    def write(points: Float, first: int, reached: Mask) -> None:
        _votes_kernel(points, cells, reached, votes, first, added)

    _warp(atlas.voxel_to_world, target_to_atlas, grid, write, threads, bins)
    return added


def _warp(
    voxel_to_world: Float,
    transform: Transform,
    grid: Grid,
    write: Callable[[Float, int, Mask], None],
    threads: int,
    bins: Mask | None = None,
) -> None:
    """Give `write` the atlas voxel positions of slab after slab.

    Where bins of atlas cells with labels are given, tiles of columns that surely lie in none of them are
    left out: their positions are not computed, and the mask of tiles that `write` gets is False there.
    """
    if not isinstance(transform, FFD | Affine):
        _warp_points(voxel_to_world, transform, grid, write, threads)
        return
    affine = transform.affine if isinstance(transform, FFD) else transform
    to_voxel = multiply(invert(voxel_to_world), affine.matrix)
    onto = multiply(to_voxel, grid.voxel_to_world)

    def run(slab: tuple[int, int]) -> None:
        points = np.empty((*grid.shape[:2], slab[1] - slab[0], 3))
        reached = _all_tiles(grid)
        rows = None
        if isinstance(transform, FFD):
            rows = transform.grid_rows(grid.shape, grid.voxel_to_world, slice(*slab))
        if rows is not None:
            table, sums = rows
            if bins is not None:
                _reach_kernel(onto, to_voxel, table.first, sums, slab[0], bins, reached)
            _points_kernel(onto, to_voxel, *table, sums, slab[0], reached, points)
        else:
            _affine_kernel(onto, slab[0], points)
            if isinstance(transform, FFD):
                u = transform.grid_displacement(grid.shape, grid.voxel_to_world, slice(*slab))
                for c, d in np.ndindex(3, 3):
                    points[..., c] += to_voxel[c, d] * u[..., d]
        write(points, slab[0], reached)

    run_tasks(run, slab_ranges(grid.shape[2], _SLICES_PER_SLAB), threads=threads)


def _all_tiles(grid: Grid) -> Mask:
    return np.ones([-(-n // _TILE) for n in grid.shape[:2]], dtype=np.bool_)


def check_map(transform: object, where: str) -> None:
    """Refuse what maps no points (BAD_TYPE)."""
    if isinstance(transform, type) or not callable(getattr(transform, "apply", None)):
        raise InvalidInputError(
            f"{where}: a {type(transform).__name__} is no transform; needs an Affine, FFD, FFDChain or "
            "another object with a method apply(points_mm).",
            code="BAD_TYPE",
        )


def _warp_points(
    voxel_to_world: Float,
    transform: PointMap,
    grid: Grid,
    write: Callable[[Float, int, Mask], None],
    threads: int,
) -> None:
    """Any map of points: evaluated at the voxel centres of one slab after the other."""
    check_map(transform, "warp")
    to_voxel: Float = invert(voxel_to_world).astype(np.float64)

    def run(slab: tuple[int, int]) -> None:
        start = grid.voxel_to_world.copy()
        start[:3, 3] += slab[0] * start[:3, 2]
        world = voxel_grid((*grid.shape[:2], slab[1] - slab[0]), start)
        points = apply_matrix(to_voxel, transform.apply(world))
        write(np.ascontiguousarray(points), slab[0], _all_tiles(grid))

    run_tasks(run, slab_ranges(grid.shape[2], _SLICES_PER_SLAB), threads=threads)


# ---------------------------------------------------------------------------------------------- kernels


@kernel
def _affine_kernel(onto, first, points):
    """Atlas voxel positions of lattice voxels by an affine."""
    for i in range(points.shape[0]):
        for j in range(points.shape[1]):
            for k in range(points.shape[2]):
                for c in range(3):
                    along_k = onto[c, 3] + (first + k) * onto[c, 2]
                    points[i, j, k, c] = along_k + (i * onto[c, 0] + j * onto[c, 1])


@kernel
def _bins_kernel(cells, bins):
    """Whether any cell of a bin holds a label; the last cells along each axis stand for nothing."""
    ni, nj, nk = cells.shape
    for i in range(ni - 1):
        for j in range(nj - 1):
            for k in range(nk - 1):
                if cells[i, j, k]:
                    bins[i // _BIN, j // _BIN, k // _BIN] = True


@kernel
def _reach_kernel(onto, to_voxel, start, sums, first, bins, reached):
    """Whether points of each tile of columns may lie in bins with labels.

    A spline lies between the least and the largest of the control points that it is summed from.
    """
    low, high, of_tile = np.empty(3), np.empty(3), np.empty((3, 2))
    of_tile[2, 0], of_tile[2, 1] = first, first + sums.shape[2] - 1
    for p in range(reached.shape[0]):
        of_tile[0, 0], of_tile[0, 1] = p * _TILE, min((p + 1) * _TILE, start.size) - 1
        a, b = start[p * _TILE], start[int(of_tile[0, 1])] + 4
        for q in range(reached.shape[1]):
            of_tile[1, 0], of_tile[1, 1] = q * _TILE, min((q + 1) * _TILE, sums.shape[1]) - 1
            _range_of_sums(sums[a:b, int(of_tile[1, 0]) : int(of_tile[1, 1]) + 1], low, high)
            reached[p, q] = _may_hold_labels(onto, to_voxel, of_tile, low, high, bins)


@kernel
def _range_of_sums(sums, low, high):
    """Least and largest displacement along each axis among sums of control points."""
    for c in range(3):
        low[c], high[c] = np.inf, -np.inf
    for a in range(sums.shape[0]):
        for j in range(sums.shape[1]):
            for k in range(sums.shape[2]):
                for c in range(3):
                    low[c] = min(low[c], sums[a, j, k, c])
                    high[c] = max(high[c], sums[a, j, k, c])


@kernel
def _may_hold_labels(onto, to_voxel, of_tile, low, high, bins):
    """Whether a box of lattice voxels that move by some range can meet a bin with labels."""
    first, last = np.zeros(3, np.int64), np.zeros(3, np.int64)
    for c in range(3):
        least, most = onto[c, 3] - 1e-6, onto[c, 3] + 1e-6
        for d in range(3):
            x, y = onto[c, d] * of_tile[d, 0], onto[c, d] * of_tile[d, 1]
            u, v = to_voxel[c, d] * low[d], to_voxel[c, d] * high[d]
            least += min(x, y) + min(u, v)
            most += max(x, y) + max(u, v)
        # Padded cells begin one voxel earlier.
        first[c] = max(int(np.floor(least)) + 1, 0) // _BIN
        last[c] = min((int(np.floor(most)) + 1) // _BIN, bins.shape[c] - 1)
    for a in range(first[0], last[0] + 1):
        for b in range(first[1], last[1] + 1):
            for c in range(first[2], last[2] + 1):
                if bins[a, b, c]:
                    return True
    return False


@kernel
def _points_kernel(onto, to_voxel, start, weights, sums, first, reached, points):
    """The same with a spline, summed along j and k, before the affine."""
    for i in range(points.shape[0]):
        w0, w1, w2, w3 = weights[i, 0], weights[i, 1], weights[i, 2], weights[i, 3]
        s0, s1, s2, s3 = sums[start[i]], sums[start[i] + 1], sums[start[i] + 2], sums[start[i] + 3]
        for j in range(points.shape[1]):
            if not reached[i // _TILE, j // _TILE]:
                continue
            for k in range(points.shape[2]):
                u = w0 * s0[j, k, 0] + w1 * s1[j, k, 0] + w2 * s2[j, k, 0] + w3 * s3[j, k, 0]
                v = w0 * s0[j, k, 1] + w1 * s1[j, k, 1] + w2 * s2[j, k, 1] + w3 * s3[j, k, 1]
                w = w0 * s0[j, k, 2] + w1 * s1[j, k, 2] + w2 * s2[j, k, 2] + w3 * s3[j, k, 2]
                for c in range(3):
                    along_k = onto[c, 3] + (first + k) * onto[c, 2]
                    still = along_k + (i * onto[c, 0] + j * onto[c, 1])
                    moved = still + to_voxel[c, 0] * u
                    moved = moved + to_voxel[c, 1] * v
                    points[i, j, k, c] = moved + to_voxel[c, 2] * w


@kernel
def _alike(atlas, a, b, c):
    """Whether the eight voxels from (a, b, c) on hold one label."""
    label = atlas[a, b, c]
    near = (atlas[a, b, c + 1] == label) & (atlas[a, b + 1, c] == label)
    near &= (atlas[a, b + 1, c + 1] == label) & (atlas[a + 1, b, c] == label)
    far = (atlas[a + 1, b, c + 1] == label) & (atlas[a + 1, b + 1, c] == label)
    return near & far & (atlas[a + 1, b + 1, c + 1] == label)


@kernel
def _corners(atlas, x, y, z, labels, weights):
    """Labels of the eight voxels around a point (0 outside) and, if they differ, their weights.

    Returns whether they differ, which is rare; if not, only the first label is written.
    """
    ni, nj, nk = atlas.shape
    a, b, c = int(np.floor(x)), int(np.floor(y)), int(np.floor(z))
    inside = a >= 0 and b >= 0 and c >= 0 and a < ni - 1 and b < nj - 1 and c < nk - 1
    if inside and _alike(atlas, a, b, c):
        labels[0] = atlas[a, b, c]
        return False
    mixed = False
    for n in range(8):
        i, j, k = a + (n >> 2), b + ((n >> 1) & 1), c + (n & 1)
        labels[n] = 0
        if inside or (0 <= i < ni and 0 <= j < nj and 0 <= k < nk):
            labels[n] = atlas[i, j, k]
        mixed = mixed or labels[n] != labels[0]
    if mixed:
        x, y, z = x - a, y - b, z - c
        for n in range(8):
            p, q, r = n >> 2, (n >> 1) & 1, n & 1
            weights[n] = (x if p else 1 - x) * (y if q else 1 - y) * (z if r else 1 - z)
    return mixed


@kernel
def _labels_kernel(points, atlas, linear, out, first):
    """Label with the largest trilinear weight, or of the nearest voxel, at each point."""
    ni, nj, nk = atlas.shape
    labels, weights, sums = np.empty(8, np.uint8), np.empty(8), np.zeros(256)
    for i in range(points.shape[0]):
        for j in range(points.shape[1]):
            for k in range(points.shape[2]):
                x, y, z = points[i, j, k, 0], points[i, j, k, 1], points[i, j, k, 2]
                if not linear:
                    a, b, c = int(np.floor(x + 0.5)), int(np.floor(y + 0.5)), int(np.floor(z + 0.5))
                    if 0 <= a < ni and 0 <= b < nj and 0 <= c < nk:
                        out[i, j, first + k] = atlas[a, b, c]
                    continue
                if not _corners(atlas, x, y, z, labels, weights):
                    out[i, j, first + k] = labels[0]
                    continue
                for n in range(8):
                    sums[labels[n]] += weights[n]
                best = labels[0]
                for n in range(1, 8):
                    label = labels[n]
                    if sums[label] > sums[best] or (sums[label] == sums[best] and label < best):
                        best = label
                for n in range(8):
                    sums[labels[n]] = 0.0
                out[i, j, first + k] = best


@kernel
def _votes_kernel(points, atlas, reached, votes, first, added):
    """Add the trilinear weight of each label at each point; outside the atlas label 0 gets it."""
    left_out = 0.0
    for i in range(points.shape[0]):
        for j in range(points.shape[1]):
            own = votes[i, j, first:]
            if reached[i // _TILE, j // _TILE]:
                _votes_of_column(points[i, j], atlas, own, added[first:])
                continue
            left_out += 1.0
            for k in range(points.shape[2]):
                own[k, 0] += 1.0
    for k in range(points.shape[2]):
        added[first + k, 0] += left_out


@kernel
def _votes_of_column(points, atlas, votes, added):
    """The same for points along k."""
    _, ni, nj, nk = atlas.shape
    n_labels = votes.shape[1]
    codes, uniform = atlas[0].reshape(ni * nj * nk), atlas[1].reshape(ni * nj * nk)
    for k in range(points.shape[0]):
        x, y, z = points[k, 0], points[k, 1], points[k, 2]
        a, b, c = int(np.floor(x)), int(np.floor(y)), int(np.floor(z))
        # Padded cells begin one voxel earlier; the last one stands for everything outside.
        inside = (a >= -1) & (b >= -1) & (c >= -1)
        inside &= (a < ni - 2) & (b < nj - 2) & (c < nk - 2)
        cell = ((a + 1) * nj + b + 1) * nk + c + 1 if inside else ni * nj * nk - 1
        code = uniform[cell]
        if code < n_labels:
            votes[k, code] += 1.0
            added[k, code] += 1.0
        elif code == 255:
            _add_corners(codes, cell, nk, nj * nk, x - a, y - b, z - c, votes[k], added[k])


@kernel
def _add_corners(codes, cell, step_j, step_i, x, y, z, votes, added):
    """Add the trilinear weights of the eight corners of a cell to the votes of one point."""
    for n in range(8):
        p, q, r = n >> 2, (n >> 1) & 1, n & 1
        code = codes[cell + p * step_i + q * step_j + r]
        if code < votes.size:
            weight = (x if p else 1 - x) * (y if q else 1 - y) * (z if r else 1 - z)
            votes[code] += weight
            added[code] += weight


@kernel
def _volume_kernel(points, atlas, out, first):
    """Trilinear intensity at each point, coordinates clamped to the atlas."""
    ni, nj, nk = atlas.shape
    for i in range(points.shape[0]):
        for j in range(points.shape[1]):
            for k in range(points.shape[2]):
                x = min(max(points[i, j, k, 0], 0.0), ni - 1.0)
                y = min(max(points[i, j, k, 1], 0.0), nj - 1.0)
                z = min(max(points[i, j, k, 2], 0.0), nk - 1.0)
                a, b, c = (
                    min(int(x), max(ni - 2, 0)),
                    min(int(y), max(nj - 2, 0)),
                    min(int(z), max(nk - 2, 0)),
                )
                p, q, r = min(a + 1, ni - 1), min(b + 1, nj - 1), min(c + 1, nk - 1)
                x, y, z = x - a, y - b, z - c
                lower = (1 - y) * ((1 - z) * atlas[a, b, c] + z * atlas[a, b, r]) + y * (
                    (1 - z) * atlas[a, q, c] + z * atlas[a, q, r]
                )
                upper = (1 - y) * ((1 - z) * atlas[p, b, c] + z * atlas[p, b, r]) + y * (
                    (1 - z) * atlas[p, q, c] + z * atlas[p, q, r]
                )
                out[i, j, first + k] = (1 - x) * lower + x * upper
