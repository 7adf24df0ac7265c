"""Handles and tunnels of a set of lattice nodes, cut or filled where the least has to change.

Where a wall is thinner than a voxel, labels have tunnels, and bridges join what lies near. A surface like
a sphere bounds a set in one piece, without cavities, whose Euler number is 1; every handle lowers it by
one. A set without handles is grown again from its deepest part, the deepest neighbour first, and no node
is taken that would close a handle: bridges stay open where they are thinnest. Growing what lies outside
in the same way fills tunnels where they are thinnest. The one that changes fewer nodes is taken.
"""

from __future__ import annotations

from functools import lru_cache
from heapq import heapify, heappop, heappush

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cardiacreg.arrays import Float

Mask = NDArray[np.bool_]

_MOST_NODES = 60
"""Per handle; what would take more may be anatomy, and stays."""
_DEPTH_STEP = 0.25
_EVERYWHERE = np.ones((3, 3, 3), dtype=bool)
_WITHOUT_CORNERS = ndimage.generate_binary_structure(3, 2)
_FACES = (
    np.array([0, 2, 1, 1, 1, 1]), np.array([1, 1, 0, 2, 1, 1]), np.array([1, 1, 1, 1, 0, 2])
)  # fmt: skip


def handle_count(inside: Mask) -> int:
    """Return the handles of a set in one piece without cavities, of which no node is at the border.

    Parameters
    ----------
    inside : ndarray of bool
        Marching cubes may join nodes across a corner or not: the larger number of both readings.
    """
    from skimage.measure import euler_number

    return 1 - min(int(euler_number(inside, connectivity=n)) for n in (1, 3))


def without_handles(inside: Mask, depth: Float, may_go: Mask, may_come: Mask) -> Mask:
    """Return the set without handles, where that takes few changes, still in one piece without cavities.

    Parameters
    ----------
    inside : ndarray of bool
        In one piece, without cavities; no node is at the border of the lattice.
    depth : ndarray
        How far each node lies from the border of the set, on either side, in nodes.
    may_go, may_come : ndarray of bool
        Nodes that may be taken away and added.

    Returns
    -------
    ndarray of bool
        The same array where there is no handle, or removing it would take too much. Otherwise a set that
        has none whether or not nodes across a corner are joined.
    """
    count = handle_count(inside)
    if count <= 0:
        return inside
    found, most = inside, _MOST_NODES * count
    for outside, allowed in ((False, may_go), (True, may_come)):
        grown = _grown(~inside, depth, outside) if outside else _grown(inside, depth, outside)
        grown = ~grown if outside else grown
        changed = grown ^ inside
        size = int(changed.sum())
        if size <= most and allowed[changed].all() and handle_count(grown) <= 0:
            found, most = grown, size - 1
    return found


def _grown(mask: Mask, depth: Float, outside: bool) -> Mask:
    """Grow a set within a mask from its deepest part that has no handle.

    Every node waits by its depth. One that cannot be taken is tried again when a neighbour was.
    """
    found = _deep_part(mask, depth, outside)
    waiting = [(-float(depth[node]), node) for node in map(tuple, np.argwhere(mask & ~found))]
    heapify(waiting)
    refused: set[tuple[int, ...]] = set()
    while waiting:
        _, node = heappop(waiting)
        if found[node]:
            continue
        around = tuple(slice(max(n - 1, 0), n + 2) for n in node)
        if not _keeps_topology(found[around], outside):
            refused.add(node)
            continue
        found[node] = True
        refused.discard(node)
        for offset in map(tuple, np.argwhere(mask[around] & ~found[around])):
            near = tuple(n + step - 1 for n, step in zip(node, offset, strict=True))
            if near in refused:
                refused.discard(near)
                heappush(waiting, (-float(depth[near]), near))
    return found


def _deep_part(mask: Mask, depth: Float, outside: bool) -> Mask:
    """Return the largest piece beyond the least depth at which it has neither handle nor cavity."""
    for least in np.arange(_DEPTH_STEP, float(depth[mask].max()), _DEPTH_STEP):
        pieces, count = ndimage.label(mask & (depth > least))
        if not count:
            break
        found: Mask = pieces == 1 + int(np.argmax(np.bincount(pieces.ravel())[1:]))
        inside = ~found if outside else found
        if _is_whole(inside) and handle_count(inside) <= 0:
            return found
    deepest = np.zeros_like(mask)
    deepest[np.unravel_index(np.argmax(np.where(mask, depth, -1)), mask.shape)] = True
    return deepest


def _is_whole(inside: Mask) -> bool:
    """Whether a set is in one piece and has no cavity, nodes across a corner counting as apart."""
    return bool(ndimage.label(inside)[1] == 1 and ndimage.label(~inside)[1] == 1)


def _keeps_topology(around: Mask, outside: bool) -> bool:
    """Whether the middle of 3 x 3 x 3 nodes of a set, or of its outside, can join it as if nothing were.

    It must touch one piece of each side, whether or not nodes across a corner belong together.
    """
    if around.shape != (3, 3, 3):
        return outside
    return _pattern_keeps_topology(around.tobytes())


@lru_cache(maxsize=1 << 16)
def _pattern_keeps_topology(pattern: bytes) -> bool:
    around = np.frombuffer(pattern, dtype=bool).reshape(3, 3, 3)
    without_middle = _EVERYWHERE.copy()
    without_middle[1, 1, 1] = False
    return all(_touches_one_piece(side & without_middle) for side in (around, ~around))


def _touches_one_piece(side: Mask) -> bool:
    by_faces = ndimage.label(side & _WITHOUT_CORNERS)[0]
    touched = {int(n) for n in by_faces[_FACES] if n}
    return len(touched) == 1 and ndimage.label(side, _EVERYWHERE)[1] == 1
