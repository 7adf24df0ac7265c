"""Handles and tunnels of a set of lattice nodes, cut or filled where the least has to change.

Where a wall is thinner than a voxel, labels have tunnels, and bridges join what lies near. A surface like
a sphere bounds a set in one piece, without cavities, whose Euler number is 1; every handle lowers it by
one. A bridge is in what an opening takes away, and a tunnel in what a closing adds. Each connected part
of these is tried alone, the smallest first, and changed where a handle less is left.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cardiacreg.arrays import Float

Mask = NDArray[np.bool_]

_LARGEST_RADIUS = 3
"""In nodes; a thicker handle is taken for anatomy."""
_DEPTHS = (0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0, 1.5, float("inf"))
"""In nodes: how deep within a part the first cut goes."""
_MOST_NODES = 120
"""Of one change; what would take more is left as it is."""
_EVERYWHERE = np.ones((3, 3, 3), dtype=bool)


class _Change(NamedTuple):
    """Nodes that could be taken away or added."""

    box: tuple[slice, ...]
    nodes: Mask
    """Within the box."""


def handle_count(inside: Mask) -> int:
    """Return the handles of a set in one piece without cavities, of which no node is at the border.

    Parameters
    ----------
    inside : ndarray of bool
        Nodes that belong together along axes; what lies outside does so across corners too.
    """
    from skimage.measure import euler_number

    return 1 - int(euler_number(inside, connectivity=1))


def without_handles(inside: Mask, depth: Float, may_go: Mask, may_come: Mask) -> Mask:
    """Return the set with as few handles as small changes allow, still in one piece without cavities.

    Parameters
    ----------
    inside : ndarray of bool
        In one piece, without cavities.
    depth : ndarray
        How far each node lies from the border of the set, in nodes, on either side.
    may_go, may_come : ndarray of bool
        Nodes that may be taken away and added.

    Returns
    -------
    ndarray of bool
        The same array where nothing changes.
    """
    left = handle_count(inside)
    found = inside
    for radius in range(1, _LARGEST_RADIUS + 1):
        if left <= 0:
            break
        for change in _changes(found, depth, radius, may_go, may_come):
            gained = _gain(found, change)
            if gained <= 0:
                continue
            changed = found.copy()
            changed[change.box] ^= change.nodes
            if _is_simple(changed):
                found, left = changed, left - gained
            if left <= 0:
                break
    return found


def _changes(
    inside: Mask, depth: Float, radius: int, may_go: Mask, may_come: Mask
) -> list[_Change]:
    """Return connected parts of what an opening takes and a closing adds, the smallest first.

    Nodes near the border are tried before the whole of a part, so that a bridge that is thin somewhere
    is cut there.
    """
    ball = ndimage.iterate_structure(ndimage.generate_binary_structure(3, 1), radius)
    gone = inside & ~ndimage.binary_opening(inside, ball) & may_go
    come = ~inside & ndimage.binary_closing(inside, ball) & may_come
    found = []
    for deepest in _DEPTHS:
        for each in (gone, come):
            parts, _ = ndimage.label(each & (depth <= deepest), _EVERYWHERE)
            for number, box in enumerate(ndimage.find_objects(parts), start=1):
                found.append(_Change(box, parts[box] == number))
    found = [change for change in found if change.nodes.sum() <= _MOST_NODES]
    return sorted(found, key=lambda change: int(change.nodes.sum()))


def _gain(inside: Mask, change: _Change) -> int:
    """Return by how many handles fewer a change leaves; the Euler number changes around it alone."""
    wide = tuple(
        slice(max(side.start - 1, 0), min(side.stop + 1, n))
        for side, n in zip(change.box, inside.shape, strict=True)
    )
    before = inside[wide]
    after = before.copy()
    within = tuple(
        slice(side.start - outer.start, side.stop - outer.start)
        for side, outer in zip(change.box, wide, strict=True)
    )
    after[within] ^= change.nodes
    return handle_count(before) - handle_count(after)


def _is_simple(inside: Mask) -> bool:
    """Whether a set is in one piece and has no cavity."""
    return bool(ndimage.label(inside)[1] == 1 and ndimage.label(~inside, _EVERYWHERE)[1] == 1)
