"""Non-local votes (eq. 5) in one tile of a lattice, weighed by patch distances (`patch_sums`).

A weight ``exp(-d / h)`` is kept as ``2**-n * 2**-f`` (n a whole number, 0 <= f < 1): rescaling a voxel's
votes is exact, and the weight of a best match never vanishes. Weights so small that all of them together
cannot matter are left out; the others are listed and vote.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cardiacreg.compute.jit import kernel
from cardiacreg.fusion.patch_sums import (
    correlate,
    count_voxels,
    distance_unit,
    leave_lattice,
    leaves_lattice,
    patch_share,
    run_length,
    slide_along,
    slide_rows,
    sum_buffers,
)
from cardiacreg.fusion.patch_tiles import Box, Scene, Tile, cut_tile

_NEVER = 1 << 30


def nonlocal_votes(scene: Scene, box: Box) -> NDArray[np.float32]:
    """Return eq. (5)'s votes in a box, up to a factor per voxel.

    Returns
    -------
    ndarray of float32, shape (i, j, k, n_labels)
        Right at active voxels.
    """
    tile = cut_tile(scene, box)
    _, votes = _lows_and_votes(tile, scene.n_labels)
    return _inside(tile, box, votes)[..., : scene.n_labels]


def _lows_and_votes(tile: Tile, n_labels: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    shape = (tile.rows, tile.columns, tile.lanes, n_labels + 1)
    votes = np.zeros(shape, dtype=np.float32)
    lows = np.full(shape[:3], _NEVER, dtype=np.int32)
    limits = np.where(tile.active, np.int32(2**31 - 1), np.int32(-1))
    _nonlocal_kernel(tile, n_labels + 1, lows.ravel(), limits.ravel(), votes.ravel())
    return lows, votes


def _inside(tile: Tile, box: Box, array: NDArray[Any]) -> NDArray[Any]:
    return array[..., tile.pad : tile.pad + box.k1 - box.k0, :]


# ---------------------------------------------------------------------------------------------- kernels


@kernel
def _nonlocal_kernel(tile, n_labels, lows, limits, votes):
    """Votes of every displacement and atlas in one tile (see the module's description)."""
    row, lead = tile.columns * tile.lanes, (2 * tile.patch_j + 1) * tile.lanes
    column, sums, squares = sum_buffers(tile)
    passed, found = np.empty(row, np.uint8), np.empty(row + 1, np.uint32)
    wholes, weights = np.empty(row, np.int32), np.empty(row, np.float32)
    unit, codes = distance_unit(tile), tile.codes.ravel()
    (height, width), worst, correlated = tile.target.shape, _worst(tile), tile.kind == 2
    shifts, n_atlases, ends = tile.shifts, len(tile.atlases), tile.ends
    for turn in range(len(shifts) * n_atlases):
        n, shift = turn % n_atlases, shifts[turn // n_atlases]
        column[:], leaving = 0, leaves_lattice(tile, shift[2])
        for y in range(-2 * tile.patch_i, tile.rows):
            slide_rows(tile, n, shift, y, column, squares)
            if y < 0 or ends[y, 1] == 0:
                continue
            begin, end, at = ends[y, 0], ends[y, 1], y * row
            code = (n * height + y + tile.first_i + shift[0]) * width
            code += (tile.first_j + shift[1]) * tile.lanes + shift[2]
            slide_along(tile.lanes, lead, end * tile.lanes, column, sums)
            step = run_length(tile, shift, y)
            for x in range(begin, end, step):
                count, first = count_voxels(tile, shift, y, x), x * tile.lanes
                if count == 0:
                    continue
                stop, share = first + step * tile.lanes, patch_share(tile, count)
                if correlated:
                    correlate(tile, n, shift, y, (first, stop), count, sums)
                _mark(first, stop, share, lead, sums, limits, at, passed)
                if leaving:
                    leave_lattice(tile, shift[2], first, stop, passed)
                size = _list(first, stop, passed, found)
                _weigh(size, unit / share, sums[0, lead:], found, wholes, weights)
                units, starts = (unit, worst), (code, at)
                _vote_found(
                    size, units, found, wholes, weights, codes, starts, lows, limits, votes, n_labels
                )  # fmt: skip


@kernel
def _worst(tile):
    """Halvings beyond the best match from which on all matches together weigh less than 2**-17 of it."""
    return 18.0 + math.log2(len(tile.shifts) * len(tile.atlases))


@kernel
def _mark(first, stop, share, lead, sums, limits, at, passed):
    """Mark the voxels whose distance is small enough for a weight that counts."""
    lead, at = np.uint64(lead), np.uint64(at)
    if share == 1.0:
        for k in range(np.uint64(first), np.uint64(stop)):
            passed[k] = sums[0, lead + k] <= limits[at + k]
    else:
        for k in range(np.uint64(first), np.uint64(stop)):
            passed[k] = np.float64(sums[0, lead + k]) <= np.float64(limits[at + k]) * share


@kernel
def _list(first, stop, passed, found):
    """List the marked voxels and count them."""
    size, words = np.uint64(0), passed.view(np.uint64)
    for word in range(first // 8, stop // 8):
        if words[word] != 0:
            for k in range(np.uint64(8 * word), np.uint64(8 * word + 8)):
                found[size] = k
                size += np.uint64(passed[k])
    return size


@kernel
def _power_of_two(z):
    """2**z for -1 < z <= 0, to about a float32's precision."""
    power = np.float32(0.0012747483) + z * np.float32(0.000109023232)
    power = np.float32(0.00957917967) + z * power
    power = np.float32(0.0554907571) + z * power
    power = np.float32(0.240224368) + z * power
    power = np.float32(0.693147064) + z * power
    return np.float32(1.0) + z * power


@kernel
def _weigh(size, factor, sums, found, wholes, weights):
    """Turn the distances of the listed voxels into whole halvings and a rest of weight."""
    for m in range(np.uint64(size)):
        distance = np.float64(sums[np.uint64(found[m])]) * factor
        whole = np.int32(distance)
        z = np.float32(np.float64(whole) - distance)
        wholes[m], weights[m] = whole, _power_of_two(z)


@kernel
def _vote_found(size, units, found, wholes, weights, codes, at, lows, limits, votes, n_labels):
    """Let the listed voxels vote; where a match is the best so far, bring earlier votes to its scale."""
    (unit, worst), n_labels = units, np.uint64(n_labels)
    code, begin = np.uint64(at[0]), np.uint64(at[1])
    for m in range(np.uint64(size)):
        k = np.uint64(found[m])
        v, low = begin + k, lows[begin + k]
        if wholes[m] < low:
            scale = np.int32((127 - min(low - wholes[m], 100)) << 23).view(np.float32)
            for label in range(n_labels):
                votes[v * n_labels + label] *= scale
            low = wholes[m]
            lows[v] = low
            limits[v] = np.int32(min((low + worst) / unit, 2147483647.0))
        scale = np.int32((127 - min(wholes[m] - low, 100)) << 23).view(np.float32)
        votes[v * n_labels + np.uint64(codes[code + k])] += weights[m] * scale
