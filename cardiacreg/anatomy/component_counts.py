"""Pieces and pockets: the topology of a structure as two numbers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from cardiacreg.geometry import LabelMap

_FACES = ndimage.generate_binary_structure(3, 1)
_CORNERS = ndimage.generate_binary_structure(3, 3)


class TopologyCounts(NamedTuple):
    """Components and closed pockets of a structure.

    Parameters
    ----------
    components : int
        Pieces connected by faces.
    holes : int
        Pockets inside it that no path through faces, edges or corners joins to the outside.
    """

    components: int
    holes: int


def topology_counts(labels: LabelMap, label: int) -> TopologyCounts:
    """Count the pieces of a structure and the closed pockets inside it.

    Parameters
    ----------
    labels : LabelMap
        Any label map.
    label : int
        The structure.

    Returns
    -------
    TopologyCounts
        (1, 0) for a structure in one piece without pockets; (0, 0) if it is not there.
    """
    boxes = ndimage.find_objects((labels.array == label).astype(np.uint8))
    if not boxes:
        return TopologyCounts(0, 0)
    mask = np.pad(labels.array[boxes[0]] == label, 1)
    _, components = ndimage.label(mask, _FACES)
    _, outsides = ndimage.label(~mask, _CORNERS)
    return TopologyCounts(int(components), int(outsides) - 1)


def count_components(labels: LabelMap, label: int) -> int:
    """Count the face-connected pieces of a structure.

    Parameters
    ----------
    labels : LabelMap
        Any label map.
    label : int
        The structure.
    """
    return topology_counts(labels, label).components
