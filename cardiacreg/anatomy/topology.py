"""Clean topology: one component per structure, no holes, no cavity that touches the other ventricle.

The last step of a refinement. Small pieces that voting leaves behind are given to what surrounds them;
closed pockets of background inside the heart are filled with the nearest label; a cavity voxel of the LV
that touches the RV cavity or RV wall face to face becomes LV wall, so that the septum is closed. Where
the LV cavity touches the background anywhere but towards the base, one voxel of wall is laid around it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cardiacreg.errors import check_argument
from cardiacreg.geometry import LV_CAVITY, LV_WALL, RV_CAVITY, RV_WALL, LabelMap

Mask = NDArray[np.bool_]
Box = tuple[slice, ...]
_FACES = ndimage.generate_binary_structure(3, 1)
_CORNERS = ndimage.generate_binary_structure(3, 3)
_MOST_ROUNDS = 10
_STRUCTURES = (LV_CAVITY, LV_WALL, RV_WALL, RV_CAVITY)
_BITS = np.array([n in _STRUCTURES and 1 << n for n in range(256)], dtype=np.uint8)


def clean_topology(labels: LabelMap) -> LabelMap:
    """Return the label map with one face-connected component per structure and no holes.

    Parameters
    ----------
    labels : LabelMap
        Canonical labels on any lattice.

    Returns
    -------
    LabelMap
        Same lattice and no label that the input lacks, except LV wall where a septum or apex is closed.

    Examples
    --------
    >>> from cardiacreg import LabelMap, clean_topology
    >>> from cardiacreg.phantoms.toy_heart import make_toy_heart
    >>> heart = make_toy_heart().labels
    >>> torn = heart.array.copy()
    >>> torn[0, 0, 0] = 1  # a voxel far from the heart
    >>> int(clean_topology(LabelMap(torn, heart.voxel_to_world)).array[0, 0, 0])
    0
    """
    check_argument(labels, LabelMap, "clean_topology: labels")
    box = _bounding_box(labels.array != 0, 2)
    if box is None:
        return labels
    array = np.array(labels.array[box])
    idle = 0
    for clean in _MOST_ROUNDS * _STEPS:
        idle = 0 if clean(array) else idle + 1
        if idle == len(_STEPS):
            break
    out = np.array(labels.array)
    out[box] = array
    return LabelMap(out, labels.voxel_to_world)


def largest_piece(mask: Mask, *, corners: bool = False) -> Mask:
    """Return the largest connected piece of a mask.

    Parameters
    ----------
    mask : ndarray of bool, shape (i, j, k)
    corners : bool
        Whether voxels that share an edge or a corner are connected, as those that share a face are.

    Returns
    -------
    ndarray of bool, shape (i, j, k)
    """
    pieces, count = ndimage.label(mask, _CORNERS if corners else _FACES)
    return np.asarray(pieces == _largest(pieces)) if count else np.zeros_like(mask)


def _largest(pieces: NDArray[np.int32]) -> int:
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return int(sizes.argmax())


def _bounding_box(mask: Mask, margin: int) -> Box | None:
    """Return the box around what a mask holds, wider by a margin within the array; None if empty."""
    return _box(_projected(mask), margin)


def _box(held: Iterable[NDArray[Any]], margin: int) -> Box | None:
    """Return the same from which positions along each axis are held."""
    found = [np.flatnonzero(along) for along in held]
    if not len(found[0]):
        return None
    return tuple(slice(max(0, int(at[0]) - margin), int(at[-1]) + margin + 1) for at in found)


def _projected(bits: NDArray[Any]) -> list[NDArray[Any]]:
    """Which bits there are at each position along i, j and k."""
    deep, plane = (np.bitwise_or.reduce(bits, axis=axis) for axis in (2, 0))
    return [np.bitwise_or.reduce(*each) for each in ((deep, 1), (plane, 1), (plane, 0))]


def _close_septum(array: NDArray[np.uint8]) -> bool:
    box = _boxes(array).get(LV_CAVITY)
    if box is None:
        return False
    part = array[_with_shell(box)]
    right = (part == RV_CAVITY) | (part == RV_WALL)
    if not right.any():
        return False
    closed = (part == LV_CAVITY) & _beside(right)
    part[closed] = LV_WALL
    return bool(closed.any())


def _close_apex(array: NDArray[np.uint8]) -> bool:
    """Put LV wall outside the LV cavity where it is bare away from the base, its largest opening."""
    box = _boxes(array).get(LV_CAVITY)
    if box is None:
        return False
    part = array[_with_shell(box)]
    cavity = part == LV_CAVITY
    bare = np.argwhere(cavity & _beside(part == 0))
    if not len(bare):
        return False
    centre = _centre(cavity)
    opened = bare[(bare - centre) @ (bare.mean(axis=0) - centre) < 0]
    if not len(opened):
        return False
    near = np.zeros_like(cavity)
    near[tuple(opened.T)] = True
    closed = (part == 0) & ndimage.binary_dilation(near, _CORNERS)
    part[closed] = LV_WALL
    return bool(closed.any())


def _centre(mask: Mask) -> NDArray[np.float64]:
    """Mean position of a mask's voxels, from their numbers along each axis."""
    plane = mask.sum(axis=2)
    along = (plane.sum(axis=1), plane.sum(axis=0), mask.sum(axis=(0, 1)))
    return np.array([np.average(np.arange(len(count)), weights=count) for count in along])


def _beside(mask: Mask) -> Mask:
    """Voxels that share a face with one of a mask, or are in it."""
    near = mask.copy()
    for axis in range(mask.ndim):
        low, high = (slice(None),) * axis + (slice(1, None),), (slice(None),) * axis + (slice(-1),)
        near[low] |= mask[high]
        near[high] |= mask[low]
    return near


def _drop_small_components(array: NDArray[np.uint8]) -> bool:
    """Give every component but the largest of each structure to the nearest other label."""
    stray = np.zeros(array.shape, dtype=bool)
    for label, box in _boxes(array).items():
        components, count = ndimage.label(array[box] == label, _FACES)
        if count > 1:
            stray[box] |= (components > 0) & (components != _largest(components))
    return _assign_nearest(array, stray)


def _fill_holes(array: NDArray[np.uint8]) -> bool:
    """Fill closed pockets of background, and pockets of other labels inside a cavity."""
    filled = _assign_nearest(array, _pockets(array == 0))
    boxes = _boxes(array)
    for label in (LV_CAVITY, RV_CAVITY):
        if label in boxes:
            part = array[boxes[label]]
            holes = _pockets(part != label)
            part[holes] = label
            filled |= bool(holes.any())
    return filled


_STEPS = (_close_septum, _close_apex, _drop_small_components, _fill_holes)


def _pockets(mask: Mask) -> Mask:
    """Return the face-connected pieces of a mask that nowhere reach its border."""
    pieces, count = ndimage.label(mask, _FACES)
    closed = np.ones(count + 1, dtype=bool)
    closed[0] = False
    for axis in range(3):
        for end in (0, -1):
            closed[pieces.take(end, axis=axis)] = False
    return np.asarray(closed[pieces]) if closed.any() else np.zeros_like(mask)


def _boxes(array: NDArray[np.uint8]) -> dict[int, Box]:
    """Return the bounding box of each structure that there is, by its label."""
    along = _projected(_BITS[array])  # one bit per label, so that all are projected at once
    boxes = {label: _box((each & _BITS[label] for each in along), 0) for label in _STRUCTURES}
    return {label: box for label, box in boxes.items() if box is not None}


def _with_shell(box: Box) -> Box:
    return tuple(slice(max(0, part.start - 1), part.stop + 1) for part in box)


def _assign_nearest(array: NDArray[np.uint8], where: Mask) -> bool:
    """Give voxels the label of the nearest other one; it lies in their box, or in the shell around it.

    Returns whether there were any.
    """
    box = _bounding_box(where, 1)
    if box is None:
        return False
    part, own = array[box], where[box]
    nearest = ndimage.distance_transform_edt(own, return_distances=False, return_indices=True)
    part[own] = part[tuple(nearest)][own]
    return True


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
