"""The slices of a stack: which are labelled, how they lie in the world, where structures end."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cardiacreg.algebra import multiply, settled
from cardiacreg.arrays import Float
from cardiacreg.errors import InvalidInputError
from cardiacreg.geometry import LabelMap

DOUBT_LEVELS = 16
"""So many weights of voxels are told apart: certain ones count 1, the most doubtful ones 1/16."""


class EmptyPlane(NamedTuple):
    """A plane across the stack where structures have ended.

    Parameters
    ----------
    position : float
        Along the slice axis, in slices from the target's first one.
    slice_before : int
        The outermost slice that shows the structures.
    structures : tuple of int
        Labels of what has ended; anything else may be there.
    weight : float
        Of its voxels in the consistency, 1 for those of a slice's background.
    """

    position: float
    slice_before: int
    structures: tuple[int, ...]
    weight: float = 1.0


class SharedPlane(NamedTuple):
    """A plane between two neighbouring slices, where structures are that both of them show.

    Parameters
    ----------
    position : float
        Along the slice axis, in slices from the target's first one.
    outer, inner : int
        The two slices. The plane moves with the outer one.
    structures : tuple of int
        Labels that count where both slices show the same one; elsewhere the plane says nothing.
    """

    position: float
    outer: int
    inner: int
    structures: tuple[int, ...]


def lattice_axes(voxel_to_world: Float) -> Float:
    """Return the map from mm along a lattice's axes (origin at voxel 0) to world mm, sheared or not."""
    axes = np.array(voxel_to_world)
    axes[:3, :3] /= np.linalg.norm(axes[:3, :3], axis=0)
    return axes


def stack_axes(voxel_to_world: Float, where: str) -> Float:
    """Return the axes of a lattice, as `lattice_axes`, where they are orthogonal.

    Raises
    ------
    InvalidInputError
        If the lattice's axes are not orthogonal.
    """
    axes = lattice_axes(voxel_to_world)
    if np.abs(multiply(axes[:3, :3].T, axes[:3, :3]) - np.eye(3)).max() > 2e-3:
        raise InvalidInputError(
            f"{where}: the target's axes are not orthogonal (a sheared header); resample it onto "
            "an orthogonal lattice first.",
            code="SHEARED_TARGET",
        )
    return axes


def labelled_slices(array: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the slices (k) that hold any label."""
    return np.flatnonzero((array != 0).any(axis=(0, 1)))


def labelled_box(labels: LabelMap) -> tuple[slice, slice, slice]:
    """Return the smallest box that holds every label above 0.

    Parameters
    ----------
    labels : LabelMap
        Any label map.

    Raises
    ------
    InvalidInputError
        If there is none (EMPTY_LABELS).
    """
    boxes = ndimage.find_objects((labels.array > 0).astype(np.uint8))
    if not boxes:
        raise InvalidInputError(
            f"labels: all {labels.array.size} voxels are background; needs a segmented heart, so "
            "check the file and the frame.",
            code="EMPTY_LABELS",
        )
    i, j, k = boxes[0]
    return i, j, k


def within_slices(labels: LabelMap) -> LabelMap:
    """Return the part of a map that holds its labels, with a border of a pixel, and all of its slices.

    Parameters
    ----------
    labels : LabelMap
        Any label map; one without labels is returned as it is.
    """
    plane = (labels.array != 0).any(axis=2)
    if not plane.any():
        return labels
    held = [np.flatnonzero(plane.any(axis=1 - axis)) for axis in range(2)]
    i, j = (slice(max(0, int(at[0]) - 1), int(at[-1]) + 2) for at in held)
    matrix = labels.voxel_to_world.copy()
    matrix[:3, 3] += multiply(matrix[:3, :2], np.array([i.start, j.start], dtype=np.float64))
    return LabelMap(labels.array[i, j], matrix)


def slice_axis_mm(target: LabelMap) -> Float:
    """Return where the axis of the turns crosses the slices: the mean in-plane position of all labels.

    Parameters
    ----------
    target : LabelMap
        With labels.

    Returns
    -------
    ndarray, shape (2,)
        mm along the target's i and j axes from its first voxel.
    """
    rows, columns, _ = np.nonzero(target.array)
    return np.array([rows.mean(), columns.mean()]) * target.spacing_mm[:2]


def rotation(degrees: float) -> Float:
    """Return the in-plane rotation from axis i towards axis j, shape (2, 2)."""
    angle = np.deg2rad(degrees)
    cosine, sine = settled(np.array([np.cos(angle), np.sin(angle)]), 2.0**-40)
    return np.array([[cosine, -sine], [sine, cosine]])
