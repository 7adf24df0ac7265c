"""Patch distances by running sums over one tile of a lattice, and the votes that they weigh (eq. 5).

The vectors are whole rows along (j, k). For one atlas and one displacement along i, the patch sums of all
displacements along j and k are carried from row to row (one row of voxels enters, one leaves) and then
along the row, so that a patch of any size costs the same. Distances are whole numbers, so that sums are
exact and do not depend on where a tile begins. A weight ``exp(-d / h)`` is kept as ``2**-n * 2**-f`` (n a
whole number, 0 <= f < 1): rescaling a voxel's votes is exact, and the weight of a best match never
vanishes. Weights below 2**-32 of the best one so far are left out; the others are listed and vote.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cardiacreg._jit import kernel
from cardiacreg.patch_scene import Box, Matches, Scene, Tile, cut_tile, displacements

_NEVER = 1 << 30
_NEGLIGIBLE = 33


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
    lows[~tile.active] = 0
    shares = np.where(tile.active, unit / np.maximum(totals[..., 0], np.float32(1e-30)), 0.0)
    shares = shares.astype(np.float32)
    _multi_point_kernel(tile, inner, lows.ravel(), shares.ravel(), votes.ravel())
    return _inside(tile, box, votes)[..., : scene.n_labels]


def best_matches(scene: Scene, box: Box) -> Matches:
    """Find the displacement of least distance in every atlas; ties go to the shortest, then the first."""
    tile = cut_tile(scene, box)
    rows = (len(scene.atlases), tile.rows, tile.columns * tile.lanes)
    ranks, distances = np.zeros(rows, np.int32), np.full(rows, np.inf)
    table = np.empty([2 * reach + 1 for reach in scene.search], np.int64)
    for rank, (di, dj, dk) in enumerate(displacements(scene.search)):
        table[di + scene.search[0], dj + scene.search[1], dk + scene.search[2]] = rank
    _search_kernel(tile, table.reshape(len(table), -1), ranks, distances)
    distances[np.isinf(distances)] = 0.0
    shape = (len(scene.atlases), tile.rows, tile.columns, tile.lanes, 1)
    return Matches(*(_inside(tile, box, a.reshape(shape))[..., 0] for a in (ranks, distances)))


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
    """Votes of every atlas and displacement in one tile, row by row (see the module's description)."""
    lanes, lead, full = tile.lanes, (2 * tile.patch_j + 1) * tile.lanes, _full(tile)
    row, fields = tile.columns * lanes, 5 if tile.kind == 2 else 1
    groups = (2 * tile.search_j + 1) * (2 * tile.search_k + 1)
    columns = np.empty((groups, fields, lead + row + 2 * tile.patch_j * lanes), np.int32)
    sums = np.zeros((fields, lead + row), np.int32)
    passed, found = np.empty(row, np.uint8), np.empty(row + 1, np.uint32)
    picked, wholes = np.empty(row + 1, np.int32), np.empty(row, np.int32)
    weights, unit, codes = np.empty(row, np.float32), _unit(tile), tile.codes.ravel()
    for n in range(tile.atlases.shape[0]):
        for turn in range(2 * tile.search_i + 1):
            di = _outwards(turn)
            columns[:] = 0
            for y in range(-2 * tile.patch_i, tile.rows):
                _slide_rows(tile, n, di, y, columns)
                if y < 0 or tile.ends[y, 1] == 0:
                    continue
                begin, end, at = tile.ends[y, 0], tile.ends[y, 1], y * row
                code = (n * tile.codes.shape[1] + y + tile.first_i + di) * tile.codes.shape[2]
                for each in range(groups):
                    g = groups // 2 + _outwards(each)
                    dj, dk = _displacement(tile, g)
                    _slide_along(lanes, lead, end * lanes, columns[g], sums)
                    step, base = _run(tile, di, dj, y), code + (tile.first_j + dj) * lanes + dk
                    for x in range(begin, end, step):
                        count, stop = _count(tile, di, dj, y, x), (x + step) * lanes
                        if count == 0:
                            continue
                        _correlate_row(tile, x * lanes + lead, stop + lead, count, sums)
                        share = _share(tile, count, full)
                        _mark(x * lanes, stop, share, lead, sums[0], limits[at:], passed)
                        _leave_lattice(tile, dk, x * lanes, stop, passed)
                        size = _list(x * lanes, stop, lead, sums[0], passed, found, picked)
                        _weigh(size, unit / share, picked, wholes, weights)
                        _vote_found(
                            size, unit, found, wholes, weights, codes, base, lows[at:],
                            limits[at:], votes[at * n_labels :], n_labels,
                        )  # fmt: skip


@kernel
def _outwards(turn):
    """0, -1, 1, -2, 2, ...: near displacements come first, since a good match early saves work later."""
    return (turn + 1) // 2 * (1 - 2 * (turn % 2))


@kernel
def _displacement(tile, g):
    """Displacement along j and k of a group."""
    wide_k = 2 * tile.search_k + 1
    return g // wide_k - tile.search_j, g % wide_k - tile.search_k


@kernel
def _full(tile):
    """Voxels of a whole patch."""
    return (2 * tile.patch_i + 1) * (2 * tile.patch_j + 1)


@kernel
def _share(tile, count, full):
    """Part of a whole patch that the sum of a mean distance is over."""
    return np.float64(count) / full if tile.kind == 0 else 1.0


@kernel
def _unit(tile):
    """Halvings of a weight per unit of a distance in whole numbers, at a whole patch."""
    if tile.kind == 0:
        return tile.halvings / _full(tile)
    return tile.halvings if tile.kind == 1 else tile.halvings / (1 << 29)


@kernel
def _run(tile, di, dj, y):
    """Columns of a row to treat together: all active ones where every patch is whole, else one."""
    begin, end, full = tile.ends[y, 0], tile.ends[y, 1], _full(tile)
    left, right = _count(tile, di, dj, y, begin), _count(tile, di, dj, y, end - 1)
    return end - begin if left == full and right == full else 1


@kernel
def _slide_along(lanes, lead, stop, columns, sums):
    """Patch sums of a row of columns: one enters and one leaves, from a start of empty columns.

    The distance between a sum and its successor is a constant, or the compiler would not use vectors.
    """
    size, lead, lanes = np.uint64(lead + stop - lanes), np.uint64(lead), np.uint64(lanes)
    for f in range(np.uint64(columns.shape[0])):
        if lanes == 16:
            for k in range(size):
                sums[f, k + np.uint64(16)] = sums[f, k] + columns[f, k + lead] - columns[f, k]
        elif lanes == 32:
            for k in range(size):
                sums[f, k + np.uint64(32)] = sums[f, k] + columns[f, k + lead] - columns[f, k]
        elif lanes == 64:
            for k in range(size):
                sums[f, k + np.uint64(64)] = sums[f, k] + columns[f, k + lead] - columns[f, k]
        else:
            for k in range(size):
                sums[f, k + lanes] = sums[f, k] + columns[f, k + lead] - columns[f, k]


@kernel
def _mark(first, stop, share, lead, sums, limits, passed):
    """Mark the voxels whose distance is small enough for a weight that counts."""
    lead = np.uint64(lead)
    if share == 1.0:
        for k in range(np.uint64(first), np.uint64(stop)):
            passed[k] = sums[lead + k] <= limits[k]
    else:
        for k in range(np.uint64(first), np.uint64(stop)):
            passed[k] = np.float64(sums[lead + k]) <= np.float64(limits[k]) * share


@kernel
def _leave_lattice(tile, dk, first, stop, passed):
    """Unmark voxels that a displacement takes beyond the first or last slice."""
    low, high = max(tile.lattice[4] - dk, 0), min(tile.lattice[5] - dk, tile.lanes)
    if low <= tile.pad and high >= tile.lanes - tile.search_k:
        return
    for x in range(first, stop, tile.lanes):
        passed[x : x + low] = 0
        passed[x + max(high, 0) : x + tile.lanes] = 0


@kernel
def _list(first, stop, lead, sums, passed, found, picked):
    """List the marked voxels and their distances, and count them."""
    size, lead, words = np.uint64(0), np.uint64(lead), passed.view(np.uint64)
    for word in range(first // 8, stop // 8):
        if words[word] != 0:
            for k in range(np.uint64(8 * word), np.uint64(8 * word + 8)):
                found[size], picked[size] = k, sums[lead + k]
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
def _weigh(size, factor, distances, wholes, weights):
    """Turn the distances of the listed voxels into whole halvings and a rest of weight."""
    for m in range(np.uint64(size)):
        distance = np.float64(distances[m]) * factor
        whole = np.int32(distance)
        z = np.float32(np.float64(whole) - distance)
        wholes[m], weights[m] = whole, _power_of_two(z)


@kernel
def _vote_found(
    size, unit, found, wholes, weights, codes, code, lows, limits, votes, n_labels
):  # fmt: skip
    """Let the listed voxels vote; where a match is the best so far, bring earlier votes to its scale."""
    n_labels, code = np.uint64(n_labels), np.uint64(code)
    for m in range(np.uint64(size)):
        k, low = np.uint64(found[m]), lows[np.uint64(found[m])]
        if wholes[m] < low:
            scale = np.int32((127 - min(low - wholes[m], 100)) << 23).view(np.float32)
            for label in range(n_labels):
                votes[k * n_labels + label] *= scale
            low = wholes[m]
            lows[k] = low
            limits[k] = np.int32(min((low + _NEGLIGIBLE) / unit, 2147483647.0))
        scale = np.int32((127 - min(wholes[m] - low, 100)) << 23).view(np.float32)
        votes[k * n_labels + np.uint64(codes[code + k])] += weights[m] * scale


@kernel
def _correlate_row(tile, first, stop, count, sums):
    """1 - r of patches from their sums, in units of 2**-29; 1 where one of them is constant."""
    if tile.kind != 2:
        return
    n = np.float64(count)
    for k in range(np.uint64(first), np.uint64(stop)):
        own, other = np.float64(sums[1, k]), np.float64(sums[3, k])
        both = n * np.float64(sums[0, k]) - own * other
        spread = n * np.float64(sums[2, k]) - own * own
        spread *= n * np.float64(sums[4, k]) - other * other
        distance = 1.0 - both / np.sqrt(spread) if spread > 0.5 else 1.0
        sums[0, k] = np.int32(max(distance, 0.0) * 536870912.0 + 0.5)


@kernel
def _multi_point_kernel(tile, inner, lows, shares, votes):
    """Votes of whole label patches: weights in whole numbers, box-filtered like distances."""
    lanes, wide_i = tile.lanes, 2 * tile.patch_i + 1
    groups = (2 * tile.search_j + 1) * (2 * tile.search_k + 1)
    fields, width = 5 if tile.kind == 2 else 1, tile.columns * lanes
    columns = np.empty((groups, fields, width + (4 * tile.patch_j + 1) * lanes), np.int32)
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
                    _estimate(tile, di, y, lows, shares, columns, entering)
                for g in range(groups):
                    for k in range(width):
                        sums[g, k] += entering[g, k]
                out = y - tile.patch_i - inner[0]
                if 0 <= out < inner[2]:
                    _vote_patches(tile, n, di, out, inner, sums, votes)


@kernel
def _estimate(tile, di, y, lows, shares, columns, entering):
    """Normalised weights of one row of patch centres, in whole numbers."""
    lanes, lead, full = tile.lanes, (2 * tile.patch_j + 1) * tile.lanes, _full(tile)
    row, begin, end = tile.columns * lanes, tile.ends[y, 0], tile.ends[y, 1]
    sums, passed = np.zeros((columns.shape[1], lead + row), np.int32), np.empty(row, np.uint8)
    for g in range(columns.shape[0]):
        dj, dk = _displacement(tile, g)
        _slide_along(lanes, lead, end * lanes, columns[g], sums)
        step = _run(tile, di, dj, y)
        for x in range(begin, end, step):
            count, stop = _count(tile, di, dj, y, x), (x + step) * lanes
            if count > 0:
                _correlate_row(tile, x * lanes + lead, stop + lead, count, sums)
                passed[x * lanes : stop] = 1
                _leave_lattice(tile, dk, x * lanes, stop, passed)
                factor = _unit(tile) / _share(tile, count, full)
                _round_shares(
                    x * lanes, stop, lead, factor, sums[0], passed, lows[y * row :],
                    shares[y * row :], entering[g],
                )  # fmt: skip


@kernel
def _round_shares(first, stop, lead, factor, sums, passed, lows, shares, entering):
    """Write normalised weights as whole numbers."""
    lead = np.uint64(lead)
    for k in range(np.uint64(first), np.uint64(stop)):
        distance = np.float64(sums[lead + k]) * factor
        whole = np.int32(distance)
        z = np.float32(np.float64(whole) - distance)
        above = min(np.int32(whole - lows[k]), np.int32(100))
        weight = _power_of_two(z) * np.int32((127 - above) << 23).view(np.float32)
        entering[k] = np.int32(weight * shares[k] + np.float32(0.5)) * passed[k]


@kernel
def _vote_patches(tile, n, di, out, inner, sums, votes):
    """Add to one row's votes the weights of all patches over each voxel."""
    lanes, n_labels = tile.lanes, np.uint64(inner[4])
    codes = tile.codes[n, out + inner[0] + tile.first_i + di]
    total = np.empty(lanes, np.int32)
    for g in range(sums.shape[0]):
        dj, dk = _displacement(tile, g)
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
            code = np.uint64((x + inner[1] + tile.first_j + dj) * lanes + dk)
            vote = np.uint64((out * inner[3] + x) * lanes)
            for k in range(np.uint64(max(0, -dk)), np.uint64(lanes - max(0, dk))):
                label = np.uint64(codes[code + k])
                votes[(vote + k) * n_labels + label] += np.float32(total[k])


@kernel
def _search_kernel(tile, table, ranks, best):
    """The best displacement of every voxel in every atlas."""
    lanes, lead, full = tile.lanes, (2 * tile.patch_j + 1) * tile.lanes, _full(tile)
    row, fields = tile.columns * lanes, 5 if tile.kind == 2 else 1
    groups = (2 * tile.search_j + 1) * (2 * tile.search_k + 1)
    columns = np.empty((groups, fields, lead + row + 2 * tile.patch_j * lanes), np.int32)
    sums, passed = np.zeros((fields, lead + row), np.int32), np.empty(row, np.uint8)
    for n in range(tile.atlases.shape[0]):
        for di in range(-tile.search_i, tile.search_i + 1):
            columns[:] = 0
            for y in range(-2 * tile.patch_i, tile.rows):
                _slide_rows(tile, n, di, y, columns)
                if y < 0 or tile.ends[y, 1] == 0:
                    continue
                begin, end = tile.ends[y, 0], tile.ends[y, 1]
                for g in range(groups):
                    dj, dk = _displacement(tile, g)
                    _slide_along(lanes, lead, end * lanes, columns[g], sums)
                    step = _run(tile, di, dj, y)
                    for x in range(begin, end, step):
                        count, stop = _count(tile, di, dj, y, x), (x + step) * lanes
                        if count == 0:
                            continue
                        _correlate_row(tile, x * lanes + lead, stop + lead, count, sums)
                        passed[x * lanes : stop] = 1
                        _leave_lattice(tile, dk, x * lanes, stop, passed)
                        _keep_best(
                            x * lanes, stop, lead, _unit(tile) / _share(tile, count, full),
                            table[di + tile.search_i, g], sums[0], passed, ranks[n, y], best[n, y],
                        )  # fmt: skip


@kernel
def _keep_best(first, stop, lead, factor, rank, sums, passed, ranks, best):
    """Keep the smaller distance, or at equal ones the smaller rank."""
    lead, rank = np.uint64(lead), np.int32(rank)
    for k in range(np.uint64(first), np.uint64(stop)):
        distance = np.float64(sums[lead + k]) * factor
        better = (distance < best[k]) | ((distance == best[k]) & (rank < ranks[k]))
        better &= passed[k] != 0
        ranks[k] = rank if better else ranks[k]
        best[k] = distance if better else best[k]


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
    lead = (2 * tile.patch_j + 1) * tile.lanes
    first, stop = tile.search_j, tile.search_j + tile.columns + 2 * tile.patch_j
    for g in range(columns.shape[0]):
        dj, dk = _displacement(tile, g)
        begin = max(first, tile.lattice[2], tile.lattice[2] - dj)
        end = min(stop, tile.lattice[3], tile.lattice[3] - dj)
        size = (end - begin) * tile.lanes - abs(dk)
        if size <= 0:
            continue
        t = begin * tile.lanes + max(0, -dk)
        a, c = t + dj * tile.lanes + dk, t - first * tile.lanes + lead
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
