"""Clean topology: one component per structure, no holes, no cavity that touches the other ventricle.

The last step of a refinement. Small pieces that voting leaves behind are given to what surrounds them;
closed pockets of background inside the heart are filled with the nearest label; a cavity voxel of the LV
that touches the RV cavity or RV wall face to face becomes LV wall, so that the septum is closed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cardiacreg.geometry import LV_CAVITY, LV_WALL, RV_CAVITY, RV_WALL, LabelMap

Mask = NDArray[np.bool_]
Box = tuple[slice, ...]
_FACES = ndimage.generate_binary_structure(3, 1)
_MOST_ROUNDS = 10


def clean_topology(labels: LabelMap) -> LabelMap:
    """Return the label map with one face-connected component per structure and no holes.

    Parameters
    ----------
    labels : LabelMap
        Canonical labels on any lattice.

    Returns
    -------
    LabelMap
        Same lattice and no label that the input lacks, except LV wall where a septum is closed.

    Examples
    --------
    >>> from cardiacreg import LabelMap, clean_topology
    >>> from cardiacreg.phantoms.toy_heart import tiny_heart
    >>> heart = tiny_heart().labels
    >>> torn = heart.array.copy()
    >>> torn[0, 0, 0] = 1  # a voxel far from the heart
    >>> int(clean_topology(LabelMap(torn, heart.voxel_to_world)).array[0, 0, 0])
    0
    """
    box = _bounding_box(labels.array)
    if box is None:
        return labels
    array = np.array(labels.array[box])
    for _ in range(_MOST_ROUNDS):
        before = array.copy()
        _close_septum(array)
        _drop_small_components(array)
        _fill_holes(array)
        if np.array_equal(before, array):
            break
    out = np.array(labels.array)
    out[box] = array
    return LabelMap(out, labels.voxel_to_world)


def _bounding_box(array: NDArray[np.uint8]) -> Box | None:
    found = ndimage.find_objects((array != 0).astype(np.uint8))
    if not found:
        return None
    return tuple(slice(max(0, s.start - 2), s.stop + 2) for s in found[0])


def _close_septum(array: NDArray[np.uint8]) -> None:
    right = np.isin(array, (RV_CAVITY, RV_WALL))
    array[(array == LV_CAVITY) & ndimage.binary_dilation(right, _FACES)] = LV_WALL


def _drop_small_components(array: NDArray[np.uint8]) -> None:
    """Give every component but the largest of each structure to the nearest other label."""
    stray = np.zeros(array.shape, dtype=bool)
    for label, box in _boxes(array).items():
        components, count = ndimage.label(array[box] == label, _FACES)
        if count > 1:
            sizes = np.bincount(components.ravel())
            sizes[0] = 0
            stray[box] |= (components > 0) & (components != sizes.argmax())
    if stray.any():
        _assign_nearest(array, stray)


def _fill_holes(array: NDArray[np.uint8]) -> None:
    """Fill closed pockets of background, and pockets of other labels inside a cavity."""
    holes = ndimage.binary_fill_holes(array != 0, _FACES) & (array == 0)
    if holes.any():
        _assign_nearest(array, holes)
    boxes = _boxes(array)
    for label in (LV_CAVITY, RV_CAVITY):
        if label in boxes:
            part = array[boxes[label]]
            part[ndimage.binary_fill_holes(part == label, _FACES)] = label


def _boxes(array: NDArray[np.uint8]) -> dict[int, Box]:
    """Return the bounding box of each structure that there is, by its label."""
    found = enumerate(ndimage.find_objects(array, max_label=RV_CAVITY), start=1)
    return {label: box for label, box in found if box is not None}


def _assign_nearest(array: NDArray[np.uint8], where: Mask) -> None:
    """Give voxels the label of the nearest other one; it lies in their box, or in the shell around it."""
    (box,) = ndimage.find_objects(where.astype(np.uint8))
    box = tuple(slice(max(0, part.start - 1), part.stop + 1) for part in box)
    part, own = array[box], where[box]
    nearest = ndimage.distance_transform_edt(own, return_distances=False, return_indices=True)
    part[own] = part[tuple(nearest)][own]
