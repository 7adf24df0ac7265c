"""Patch distances by running sums over one tile of a lattice.

The vectors are whole rows along (j, k). For one atlas and one displacement the patch sums are carried
from row to row (one row of voxels enters, one leaves) and then along the row, so that a patch of any size
costs the same and what is carried stays in the nearest cache. Where every patch is whole, a correlation
needs sums of products only. Distances are whole numbers, so that sums are exact and do not depend on
where a tile begins.
"""

from __future__ import annotations

import numpy as np

from cardiacreg.compute.jit import kernel


@kernel
def sum_buffers(tile):
    """A row of columns' sums, one of patch sums, the squares of a patch's rows and a row of zeros.

    The sums are of five kinds for correlations of cut patches.
    """
    lead, row = (2 * tile.patch_j + 1) * tile.lanes, tile.columns * tile.lanes
    fields = 5 if tile.kind == 2 and tile.totals.shape[1] == 1 else 1
    column = np.empty((fields, lead + row + 2 * tile.patch_j * tile.lanes), np.int32)
    squares = np.zeros((2 * tile.patch_i + 3, column.shape[1]), np.uint16)
    return column, np.zeros((fields, lead + row), np.int32), squares


@kernel
def _full(tile):
    """Voxels of a whole patch."""
    return (2 * tile.patch_i + 1) * (2 * tile.patch_j + 1)


@kernel
def patch_share(tile, count):
    """Part of a whole patch that the sum of a mean distance is over."""
    return np.float64(count) / _full(tile) if tile.kind == 0 else 1.0


@kernel
def distance_unit(tile):
    """Halvings of a weight per unit of a distance in whole numbers, at a whole patch."""
    return tile.halvings / (_full(tile) if tile.kind == 0 else 1 if tile.kind == 1 else 1 << 29)


@kernel
def run_length(tile, shift, y):
    """Columns of a row to treat together: all active ones where every patch is whole, else one."""
    begin, end, full = tile.ends[y, 0], tile.ends[y, 1], _full(tile)
    left, right = count_voxels(tile, shift, y, begin), count_voxels(tile, shift, y, end - 1)
    return end - begin if left == full and right == full else 1


@kernel
def slide_along(lanes, lead, stop, columns, sums):
    """Patch sums of a row of columns: one enters and one leaves, from a start of empty columns.

    The distance between a sum and its successor is a constant, or the compiler would not use vectors.
    """
    size, lead, lanes = np.uint64(lead + stop - lanes), np.uint64(lead), np.uint64(lanes)
    for f in range(np.uint64(columns.shape[0])):
        if lanes == 32:
            for k in range(size):
                sums[f, k + np.uint64(32)] = sums[f, k] + columns[f, k + lead] - columns[f, k]
        elif lanes == 48:
            for k in range(size):
                sums[f, k + np.uint64(48)] = sums[f, k] + columns[f, k + lead] - columns[f, k]
        elif lanes == 64:
            for k in range(size):
                sums[f, k + np.uint64(64)] = sums[f, k] + columns[f, k + lead] - columns[f, k]
        else:
            for k in range(size):
                sums[f, k + lanes] = sums[f, k] + columns[f, k + lead] - columns[f, k]


@kernel
def leaves_lattice(tile, dk):
    """Whether a displacement takes any slice of the box beyond the first or last one."""
    low, high = tile.lattice[4] - dk, tile.lattice[5] - dk
    return low > tile.pad or high < tile.pad + tile.depth


@kernel
def leave_lattice(tile, dk, first, stop, passed):
    """Unmark voxels that a displacement takes beyond the first or last slice."""
    if not leaves_lattice(tile, dk):
        return
    low, high = max(tile.lattice[4] - dk, 0), min(tile.lattice[5] - dk, tile.lanes)
    for x in range(first, stop, tile.lanes):
        passed[x : x + low] = 0
        passed[x + max(high, 0) : x + tile.lanes] = 0


@kernel
def correlate(tile, n_atlas, shift, y, ends, count, sums):
    """1 - r of patches from their sums, in units of 2**-29; 1 where one of them is constant."""
    if tile.kind != 2:
        return
    n, lead = np.float64(count), np.uint64((2 * tile.patch_j + 1) * tile.lanes)
    if sums.shape[0] == 5:
        for k in range(np.uint64(ends[0]) + lead, np.uint64(ends[1]) + lead):
            scale = _scale(n, sums[1, k], sums[2, k]) * _scale(n, sums[3, k], sums[4, k])
            both = n * np.float64(sums[0, k]) - np.float64(sums[1, k]) * np.float64(sums[3, k])
            sums[0, k] = np.int32(max(1.0 - both * scale, 0.0) * 536870912.0 + 0.5)
        return
    totals, scales, m = tile.totals, tile.scales, np.uint64(n_atlas + 1)
    u, v = np.uint64(y + tile.search_i), np.uint64(y + tile.search_i + shift[0])
    a = np.uint64((1 + tile.search_j) * tile.lanes)
    b = np.uint64((1 + tile.search_j + shift[1]) * tile.lanes + shift[2])
    for k in range(np.uint64(ends[0]), np.uint64(ends[1])):
        scale = scales[0, u, a + k] * scales[m, v, b + k]
        both = np.float64(totals[0, u, a + k]) * np.float64(totals[m, v, b + k])
        both = n * np.float64(sums[0, lead + k]) - both
        sums[0, lead + k] = np.int32(max(1.0 - both * scale, 0.0) * 536870912.0 + 0.5)


@kernel
def _scale(n, total, squares):
    """One over n standard deviations; 0 where a patch is constant."""
    spread = n * np.float64(squares) - np.float64(total) * np.float64(total)
    return 1.0 / np.sqrt(spread) if spread > 0.5 else 0.0


@kernel
def slide_rows(tile, n, shift, y, column, squares):
    """Let the patch sums of one displacement move on to row y: one row enters, another leaves.

    Squares that enter are kept until they leave.
    """
    di, dj, dk, lanes = shift[0], shift[1], shift[2], tile.lanes
    low, high = tile.lattice[0], tile.lattice[1]
    new, old = y + tile.first_i + tile.patch_i, y + tile.first_i - tile.patch_i - 1
    has_new = min(new, new + di) >= low and max(new, new + di) < high
    first, stop = tile.search_j, tile.search_j + tile.columns + 2 * tile.patch_j
    begin = max(first, tile.lattice[2], tile.lattice[2] - dj)
    size = (min(stop, tile.lattice[3], tile.lattice[3] - dj) - begin) * lanes - abs(dk)
    if size <= 0:
        return
    t = begin * lanes + max(0, -dk)
    a, c = t + dj * lanes + dk, t - first * lanes + (2 * tile.patch_j + 1) * lanes
    if column.shape[0] == 5:
        has_old = min(old, old + di) >= low and max(old, old + di) < high and y > 0
        rows = (new * has_new, old * has_old, (new + di) * has_new, (old + di) * has_old)
        masks = (np.int32(-1 * has_new), np.int32(-1 * has_old))
        _swap_powers(tile.target, tile.atlases[n], rows, masks, (t, a, c), size, column)
        return
    turns = len(squares) - 1
    entering = squares[(y + 2 * tile.patch_i) % turns]
    leaving = squares[(y + 2 * tile.patch_i + 1) % turns if y > 0 else turns]
    if has_new:
        _pair(tile.target[new], tile.atlases[n, new + di], (t, a, c), size, tile.kind, entering)
    else:
        entering[:] = 0
    _swap(c, size, entering, leaving, column[0])


@kernel
def _pair(target, atlas, places, size, kind, squares):
    """Squared differences of a row, or products for a correlation; one fits 16 bits."""
    t, a, c = np.uint64(places[0]), np.uint64(places[1]), np.uint64(places[2])
    if kind == 2:
        for k in range(np.uint64(size)):
            squares[c + k] = np.uint16(np.uint16(target[t + k]) * np.uint16(atlas[a + k]))
    else:
        for k in range(np.uint64(size)):
            apart = np.int16(target[t + k]) - np.int16(atlas[a + k])
            squares[c + k] = np.uint16(apart * apart)


@kernel
def _swap(first, size, entering, leaving, column):
    """Add a row to columns' sums and take another away.

    It is apart from what makes the rows, so that the compiler fills vectors with 16 bits there.
    """
    for k in range(np.uint64(first), np.uint64(first + size)):
        column[k] += np.int32(entering[k]) - np.int32(leaving[k])


@kernel
def _swap_powers(target, atlas, rows, masks, places, size, fields):
    """Add a row to the sums of products, of values and of squares, and take another away."""
    t, a, c = np.uint64(places[0]), np.uint64(places[1]), np.uint64(places[2])
    for m in range(2):
        u, y = np.uint64(rows[m]), np.uint64(rows[m + 2])
        sign = masks[m] * np.int32(2 * m - 1)
        for k in range(np.uint64(size)):
            own, other = np.int32(target[u, t + k]), np.int32(atlas[y, a + k])
            fields[0, c + k] += sign * own * other
            fields[1, c + k] += sign * own
            fields[2, c + k] += sign * own * own
            fields[3, c + k] += sign * other
            fields[4, c + k] += sign * other * other


@kernel
def count_voxels(tile, shift, y, x):
    """Voxels of a patch that lie inside target and atlas; 0 where the displacement leaves the lattice."""
    di, dj = shift[0], shift[1]
    low = min(y, y + di) + tile.first_i - tile.lattice[0]
    high = tile.lattice[1] - 1 - tile.first_i - max(y, y + di)
    left = min(x, x + dj) + tile.first_j - tile.lattice[2]
    right = tile.lattice[3] - 1 - tile.first_j - max(x, x + dj)
    if min(min(low, high), min(left, right)) < 0:
        return 0
    rows = min(low, tile.patch_i) + min(high, tile.patch_i) + 1
    return rows * (min(left, tile.patch_j) + min(right, tile.patch_j) + 1)
