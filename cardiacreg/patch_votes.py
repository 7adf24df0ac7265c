"""Patch distances by running sums over one tile of a lattice, and the votes that they weigh (eq. 5).

The vectors are rows along (j, k). For one atlas and one displacement along i, the patch sums of all
displacements along j and k are carried from row to row (one row of voxels enters, one leaves) and then
from column to column, so that a patch of any size costs the same. Grey levels are whole numbers, so that
these sums are exact and do not depend on where a tile begins. A weight ``exp(-d / h)`` is kept as
``2**-n * 2**-f`` (n a whole number, 0 <= f < 1): only n differs between a voxel's votes and their common
scale, rescaling is exact, and the weight of a best match never vanishes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cardiacreg._jit import kernel
from cardiacreg.patch_scene import Box, Matches, Scene, Tile, cut_tile, displacements

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


def multi_point_votes(scene: Scene, box: Box, centres: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the votes of whole label patches: every voxel hears all patches that it lies in.

    The labels around each match, weighed as in eq. (5) and normalised at the patch's centre, are the
    centre's estimate of its whole patch; a voxel's vote is the sum of the estimates over all centres.

    Parameters
    ----------
    scene : Scene
    box : Box
    centres : ndarray of bool, shape (i, j, k)
        Voxels whose patch holds an active voxel.

    Returns
    -------
    ndarray of float32, shape (i, j, k, n_labels)
    """
    size, (pi, pj) = scene.target.shape, scene.patch
    around = Box(
        max(0, box.i0 - pi), min(size[0], box.i1 + pi), max(0, box.j0 - pj),
        min(size[1], box.j1 + pj), box.k0, box.k1,
    )  # fmt: skip
    tile = cut_tile(scene._replace(active=centres), around)
    lows, totals = _lows_and_votes(tile._replace(codes=np.zeros_like(tile.codes)), 1)
    shape = (box.i1 - box.i0, box.j1 - box.j0, tile.lanes, scene.n_labels + 1)
    votes = np.zeros(shape, dtype=np.float32)
    inner = np.array([box.i0 - around.i0, box.j0 - around.j0, *shape[:2], shape[3]])
    unit = float(1 << (30 - int((2 * pi + 1) * (2 * pj + 1)).bit_length()))
    shares = unit / np.maximum(totals[..., 0], np.float32(1e-30))
    _multi_point_kernel(tile, inner, lows.ravel(), shares.ravel(), votes.ravel())
    return _inside(tile, box, votes)[..., : scene.n_labels]


def best_matches(scene: Scene, box: Box) -> Matches:
    """Find the displacement of least distance in every atlas; ties go to the shortest, then the first."""
    tile = cut_tile(scene, box)
    shape = (len(scene.atlases), tile.rows, tile.columns, tile.lanes)
    ranks, distances = np.zeros(shape, np.int32), np.full(shape, np.inf)
    table = np.empty([2 * reach + 1 for reach in scene.search], np.int64)
    for rank, (di, dj, dk) in enumerate(displacements(scene.search)):
        table[di + scene.search[0], dj + scene.search[1], dk + scene.search[2]] = rank
    _search_kernel(tile, table.reshape(len(table), -1), ranks, distances)
    distances[np.isinf(distances)] = 0.0
    return Matches(*(_inside(tile, box, a[..., None])[..., 0] for a in (ranks, distances)))


def _lows_and_votes(tile: Tile, n_labels: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    shape = (tile.rows, tile.columns, tile.lanes, n_labels + 1)
    votes = np.zeros(shape, dtype=np.float32)
    lows = np.full(shape[:3], _NEVER, dtype=np.int32)
    _nonlocal_kernel(tile, n_labels + 1, lows.ravel(), votes.ravel())
    return lows, votes


def _inside(tile: Tile, box: Box, array: NDArray[Any]) -> NDArray[Any]:
    return array[..., tile.pad : tile.pad + box.k1 - box.k0, :]


# ---------------------------------------------------------------------------------------------- kernels


@kernel
def _nonlocal_kernel(tile, n_labels, lows, votes):
    """Votes of every atlas and displacement in one tile (see the module's description)."""
    wide_k, lanes = 2 * tile.search_k + 1, tile.lanes
    groups = (2 * tile.search_j + 1) * wide_k
    fields, width = 5 if tile.kind == 2 else 1, (tile.columns + 2 * tile.patch_j) * lanes
    columns = np.empty((groups, fields, width), np.int32)
    patches = np.empty((groups, fields, lanes), np.int32)
    distances, wholes = np.empty((groups, lanes), np.float64), np.empty((groups, lanes), np.int32)
    weights, low = np.empty((groups, lanes), np.float32), np.empty(lanes, np.int32)
    codes, spans = tile.codes.ravel(), tile.spans
    for n in range(tile.atlases.shape[0]):
        for di in range(-tile.search_i, tile.search_i + 1):
            columns[:] = 0
            for y in range(-2 * tile.patch_i, tile.rows):
                _slide_rows(tile, n, di, y, columns)
                if y < 0:
                    continue
                patches[:] = 0
                row = (n * tile.codes.shape[1] + y + tile.first_i + di) * tile.codes.shape[2]
                for x in range(-2 * tile.patch_j, tile.columns):
                    _slide_columns(tile, x, columns, patches)
                    if x < 0 or spans[y, x, 1] == 0:
                        continue
                    first, stop = spans[y, x, 0], spans[y, x, 1]
                    vote = (y * tile.columns + x) * lanes
                    _measure(tile, di, y, x, patches, distances)
                    for k in range(first, stop):
                        low[k] = lows[vote + k]
                    _weigh(first, stop, distances, low, wholes, weights)
                    _rescale(first, stop, vote * n_labels, low, lows[vote:], votes, n_labels)
                    for k in range(first, stop):
                        lows[vote + k] = low[k]
                    for g in range(groups):
                        dj, dk = g // wide_k - tile.search_j, g % wide_k - tile.search_k
                        code = row + (x + tile.first_j + dj) * lanes + dk
                        at, begin, end = vote * n_labels, max(first, -dk), min(stop, lanes - dk)
                        _vote(np.uint64(g), begin, end, codes, code, weights, votes, at, n_labels)


@kernel
def _multi_point_kernel(tile, inner, lows, shares, votes):
    """Votes of whole label patches: weights in whole numbers, box-filtered like distances."""
    wide_k, lanes = 2 * tile.search_k + 1, tile.lanes
    groups, wide_i = (2 * tile.search_j + 1) * wide_k, 2 * tile.patch_i + 1
    fields, width = 5 if tile.kind == 2 else 1, tile.columns * lanes
    columns = np.empty((groups, fields, width + 2 * tile.patch_j * lanes), np.int32)
    patches = np.empty((groups, fields, lanes), np.int32)
    ring, sums = np.empty((wide_i, groups, width), np.int32), np.empty((groups, width), np.int32)
    for n in range(tile.atlases.shape[0]):
        for di in range(-tile.search_i, tile.search_i + 1):
            columns[:], ring[:], sums[:] = 0, 0, 0
            for y in range(-2 * tile.patch_i, tile.rows + tile.patch_i):
                if y < tile.rows:
                    _slide_rows(tile, n, di, y, columns)
                if y < 0:
                    continue
                entering = ring[y % wide_i]
                for g in range(groups):
                    for k in range(width):
                        sums[g, k] -= entering[g, k]
                        entering[g, k] = 0
                if y < tile.rows:
                    _estimate(tile, di, y, lows, shares, columns, patches, entering)
                for g in range(groups):
                    for k in range(width):
                        sums[g, k] += entering[g, k]
                out = y - tile.patch_i - inner[0]
                if 0 <= out < inner[2]:
                    _vote_patches(tile, n, di, out, inner, sums, votes)


@kernel
def _estimate(tile, di, y, lows, shares, columns, patches, entering):
    """Normalised weights of one row of patch centres, in whole numbers."""
    lanes, groups = tile.lanes, columns.shape[0]
    distances, wholes = np.empty((groups, lanes), np.float64), np.empty((groups, lanes), np.int32)
    weights, low = np.empty((groups, lanes), np.float32), np.empty(lanes, np.int32)
    patches[:] = 0
    for x in range(-2 * tile.patch_j, tile.columns):
        _slide_columns(tile, x, columns, patches)
        if x < 0 or tile.spans[y, x, 1] == 0:
            continue
        first, stop = tile.spans[y, x, 0], tile.spans[y, x, 1]
        centre = (y * tile.columns + x) * lanes
        _measure(tile, di, y, x, patches, distances)
        for k in range(first, stop):
            low[k] = lows[centre + k]
        _weigh(first, stop, distances, low, wholes, weights)
        _round_shares(first, stop, weights, shares, centre, entering, x * lanes)


@kernel
def _round_shares(first, stop, weights, shares, centre, entering, column):
    """Write normalised weights as whole numbers."""
    centre, column = np.uint64(centre), np.uint64(column)
    for g in range(np.uint64(weights.shape[0])):
        for k in range(np.uint64(first), np.uint64(stop)):
            share = weights[g, k] * shares[centre + k]
            entering[g, column + k] = np.int32(share + np.float32(0.5))


@kernel
def _vote_patches(tile, n, di, out, inner, sums, votes):
    """Add to one row's votes the weights of all patches over each voxel."""
    wide_k, lanes, n_labels = 2 * tile.search_k + 1, tile.lanes, inner[4]
    codes = tile.codes[n, out + inner[0] + tile.first_i + di]
    total, weights = np.empty(lanes, np.int32), np.empty((1, lanes), np.float32)
    for g in range(sums.shape[0]):
        dj, dk = g // wide_k - tile.search_j, g % wide_k - tile.search_k
        total[:] = 0
        for x in range(-2 * tile.patch_j, inner[3]):
            new, old = x + inner[1] + tile.patch_j, x + inner[1] - tile.patch_j - 1
            a, b, u = np.uint64(max(new, 0) * lanes), np.uint64(max(old, 0) * lanes), np.uint64(g)
            if 0 <= new < tile.columns:
                for k in range(np.uint64(lanes)):
                    total[k] += sums[u, a + k]
            if 0 <= old < tile.columns and x > 0:
                for k in range(np.uint64(lanes)):
                    total[k] -= sums[u, b + k]
            if x < 0:
                continue
            first, stop = max(0, -dk), lanes - max(0, dk)
            for k in range(np.uint64(first), np.uint64(stop)):
                weights[np.uint64(0), k] = np.float32(total[k])
            code = (x + inner[1] + tile.first_j + dj) * lanes + dk
            vote = (out * inner[3] + x) * lanes * n_labels
            _vote(np.uint64(0), first, stop, codes, code, weights, votes, vote, n_labels)


@kernel
def _search_kernel(tile, table, ranks, best):
    """The best displacement of every voxel in every atlas."""
    groups = (2 * tile.search_j + 1) * (2 * tile.search_k + 1)
    fields, width = 5 if tile.kind == 2 else 1, (tile.columns + 2 * tile.patch_j) * tile.lanes
    columns = np.empty((groups, fields, width), np.int32)
    patches = np.empty((groups, fields, tile.lanes), np.int32)
    distances = np.empty((groups, tile.lanes), np.float64)
    for n in range(tile.atlases.shape[0]):
        for di in range(-tile.search_i, tile.search_i + 1):
            columns[:] = 0
            for y in range(-2 * tile.patch_i, tile.rows):
                _slide_rows(tile, n, di, y, columns)
                if y < 0:
                    continue
                patches[:] = 0
                for x in range(-2 * tile.patch_j, tile.columns):
                    _slide_columns(tile, x, columns, patches)
                    if x < 0 or tile.spans[y, x, 1] == 0:
                        continue
                    _measure(tile, di, y, x, patches, distances)
                    first, stop = tile.spans[y, x, 0], tile.spans[y, x, 1]
                    _keep_best(
                        first, stop, table[di + tile.search_i], distances, ranks[n, y, x],
                        best[n, y, x],
                    )  # fmt: skip


@kernel
def _keep_best(first, stop, table, distances, ranks, best):
    """Keep the smaller distance, or at equal ones the smaller rank."""
    for g in range(np.uint64(distances.shape[0])):
        rank = np.int32(table[g])
        for k in range(np.uint64(first), np.uint64(stop)):
            distance = distances[g, k]
            same = (distance == best[k]) & (rank < ranks[k])
            better = (distance < best[k]) | same
            ranks[k] = rank if better else ranks[k]
            best[k] = min(distance, best[k])


@kernel
def _slide_rows(tile, n, di, y, columns):
    """Let the patch sums of all displacements along j and k move on to row y of the tile.

    One row of squared differences enters and another leaves (of products and powers for a correlation).
    """
    low, high = tile.lattice[0], tile.lattice[1]
    new, old = y + tile.first_i + tile.patch_i, y + tile.first_i - tile.patch_i - 1
    has_new = min(new, new + di) >= low and max(new, new + di) < high
    has_old = min(old, old + di) >= low and max(old, old + di) < high and y > -tile.patch_i
    has_old = has_old and old >= tile.search_i
    wide_k = 2 * tile.search_k + 1
    first, stop = tile.search_j, tile.search_j + tile.columns + 2 * tile.patch_j
    for g in range(columns.shape[0]):
        dj, dk = g // wide_k - tile.search_j, g % wide_k - tile.search_k
        begin, end = (
            max(first, tile.lattice[2], tile.lattice[2] - dj),
            min(stop, tile.lattice[3], tile.lattice[3] - dj),
        )
        size = (end - begin) * tile.lanes - abs(dk)
        if size <= 0:
            continue
        t = begin * tile.lanes + max(0, -dk)
        a, c = t + dj * tile.lanes + dk, t - first * tile.lanes
        if columns.shape[1] == 5:
            if has_new:
                _add_products(
                    1, tile.target[new], tile.atlases[n, new + di], t, a, c, size, columns[g]
                )
            if has_old:
                _add_products(
                    -1, tile.target[old], tile.atlases[n, old + di], t, a, c, size, columns[g]
                )
        elif has_new and has_old:
            _swap_squares(
                tile.target[new], tile.atlases[n, new + di], tile.target[old],
                tile.atlases[n, old + di], t, a, c, size, columns[g, 0],
            )  # fmt: skip
        elif has_new:
            _add_squares(
                1, tile.target[new], tile.atlases[n, new + di], t, a, c, size, columns[g, 0]
            )
        elif has_old:
            _add_squares(
                -1, tile.target[old], tile.atlases[n, old + di], t, a, c, size, columns[g, 0]
            )


@kernel
def _swap_squares(target, atlas, old_target, old_atlas, t, a, c, size, column):
    """Add a row of squared differences and take another away."""
    t, a, c = np.uint64(t), np.uint64(a), np.uint64(c)
    for k in range(np.uint64(size)):
        new = np.int32(target[t + k]) - np.int32(atlas[a + k])
        old = np.int32(old_target[t + k]) - np.int32(old_atlas[a + k])
        column[c + k] += new * new - old * old


@kernel
def _add_squares(sign, target, atlas, t, a, c, size, column):
    """Add a row of squared differences, or take it away."""
    t, a, c, sign = np.uint64(t), np.uint64(a), np.uint64(c), np.int32(sign)
    for k in range(np.uint64(size)):
        difference = np.int32(target[t + k]) - np.int32(atlas[a + k])
        column[c + k] += sign * difference * difference


@kernel
def _add_products(sign, target, atlas, t, a, c, size, fields):
    """Add a row to the sums of products, of values and of squares, or take it away."""
    t, a, c, sign = np.uint64(t), np.uint64(a), np.uint64(c), np.int32(sign)
    for k in range(np.uint64(size)):
        own, other = np.int32(target[t + k]), np.int32(atlas[a + k])
        fields[0, c + k] += sign * own * other
        fields[1, c + k] += sign * own
        fields[2, c + k] += sign * own * own
        fields[3, c + k] += sign * other
        fields[4, c + k] += sign * other * other


@kernel
def _slide_columns(tile, x, columns, patches):
    """Let the patch sums of a row move on to column x: one column enters, another leaves."""
    width = tile.columns + 2 * tile.patch_j
    new, old = x + 2 * tile.patch_j, x - 1
    lanes = np.uint64(tile.lanes)
    a, b = np.uint64(max(new, 0) * tile.lanes), np.uint64(max(old, 0) * tile.lanes)
    for g in range(np.uint64(columns.shape[0])):
        for f in range(np.uint64(columns.shape[1])):
            if new < width and old >= 0:
                for k in range(lanes):
                    patches[g, f, k] += columns[g, f, a + k] - columns[g, f, b + k]
            elif new < width:
                for k in range(lanes):
                    patches[g, f, k] += columns[g, f, a + k]


@kernel
def _count(tile, di, dj, y, x):
    """Voxels of a patch that lie inside target and atlas; 0 where the displacement leaves the lattice."""
    low = min(y, y + di) + tile.first_i - tile.lattice[0]
    high = tile.lattice[1] - 1 - tile.first_i - max(y, y + di)
    left = min(x, x + dj) + tile.first_j - tile.lattice[2]
    right = tile.lattice[3] - 1 - tile.first_j - max(x, x + dj)
    if min(min(low, high), min(left, right)) < 0:
        return 0
    rows = min(low, tile.patch_i) + min(high, tile.patch_i) + 1
    return rows * (min(left, tile.patch_j) + min(right, tile.patch_j) + 1)


@kernel
def _measure(tile, di, y, x, patches, distances):
    """Distances at (y, x) of all displacements along j and k, in halvings of the weight."""
    first, stop, bottom, top = (
        tile.spans[y, x, 0],
        tile.spans[y, x, 1],
        tile.lattice[4],
        tile.lattice[5],
    )
    kind, halvings, wide_k, count = tile.kind, tile.halvings, 2 * tile.search_k + 1, 0
    for g in range(patches.shape[0]):
        dj, dk = g // wide_k - tile.search_j, g % wide_k - tile.search_k
        if dk == -tile.search_k:
            count = _count(tile, di, dj, y, x)
        if count == 0:
            distances[g] = 1e9
            continue
        if kind == 2:
            _correlate(np.uint64(g), first, stop, count, halvings, patches, distances)
        else:
            factor = halvings / count if kind == 0 else halvings
            _scale(np.uint64(g), first, stop, factor, patches, distances)
        for k in range(first, min(stop, bottom - dk)):
            distances[g, k] = 1e9
        for k in range(max(first, top - dk), stop):
            distances[g, k] = 1e9


@kernel
def _scale(g, first, stop, factor, patches, distances):
    for k in range(np.uint64(first), np.uint64(stop)):
        distances[g, k] = np.float64(patches[g, np.uint64(0), k]) * factor


@kernel
def _correlate(g, first, stop, count, halvings, patches, distances):
    """1 - r of two patches from their sums; 1 where one of them is constant."""
    n = np.float64(count)
    for k in range(np.uint64(first), np.uint64(stop)):
        own, other = np.float64(patches[g, 1, k]), np.float64(patches[g, 3, k])
        both = n * np.float64(patches[g, 0, k]) - own * other
        spread = n * np.float64(patches[g, 2, k]) - own * own
        spread *= n * np.float64(patches[g, 4, k]) - other * other
        distance = 1.0 - both / np.sqrt(spread) if spread > 0.5 else 1.0
        distances[g, k] = max(distance, 0.0) * halvings


@kernel
def _weigh(first, stop, distances, low, wholes, weights):
    """Turn distances into weights 2**(low - distance), where `low` becomes the best match so far."""
    first, stop, groups = np.uint64(first), np.uint64(stop), np.uint64(distances.shape[0])
    for g in range(groups):
        for k in range(first, stop):
            distance = distances[g, k]
            whole = np.int32(distance)
            z = np.float32(np.float64(whole) - distance)
            power = np.float32(0.0012747483) + z * np.float32(0.000109023232)
            power = np.float32(0.00957917967) + z * power
            power = np.float32(0.0554907571) + z * power
            power = np.float32(0.240224368) + z * power
            power = np.float32(0.693147064) + z * power
            wholes[g, k], weights[g, k] = whole, np.float32(1.0) + z * power
    for g in range(groups):
        for k in range(first, stop):
            low[k] = min(low[k], wholes[g, k])
    for g in range(groups):
        for k in range(first, stop):
            above = min(np.int32(wholes[g, k] - low[k]), np.int32(100))
            weights[g, k] *= np.int32((127 - above) << 23).view(np.float32)


@kernel
def _rescale(first, stop, base, low, before, votes, n_labels):
    """Bring earlier votes to the scale of the best match so far."""
    for k in range(first, stop):
        fall = before[k] - low[k]
        if fall > 0:
            scale = np.int32((127 - min(fall, 100)) << 23).view(np.float32)
            for label in range(n_labels):
                votes[base + k * n_labels + label] *= scale


@kernel
def _vote(g, first, stop, codes, code, weights, votes, vote, n_labels):
    """Add one displacement's weights to the labels they are for."""
    code, vote, n_labels = np.uint64(code), np.uint64(vote), np.uint64(n_labels)
    for k in range(np.uint64(first), np.uint64(stop)):
        label = np.uint64(codes[code + k])
        votes[vote + k * n_labels + label] += weights[g, k]
