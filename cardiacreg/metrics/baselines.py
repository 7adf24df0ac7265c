"""The simple ways to fill the gaps between slices, to compare a refinement with.

Neither knows a heart: they repeat or blend what the slices show, shifts and missing apex included.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cardiacreg.geometry import N_LABELS, STRUCTURES, LabelMap, apply_matrix

_Float = NDArray[np.float64]


def interpolate_nearest(labels: LabelMap, grid: LabelMap) -> LabelMap:
    """Give every voxel of a grid the label of the nearest voxel of a map.

    Parameters
    ----------
    labels : LabelMap
        What to resample.
    grid : LabelMap
        Where to; only its shape and matrix matter.

    Returns
    -------
    LabelMap
        Background outside the map's own voxels.
    """
    found = np.zeros(grid.shape, dtype=np.uint8)
    for k in range(grid.shape[2]):
        found[:, :, k] = _nearest(labels, _voxels(labels, grid, k))
    return LabelMap(found, grid.voxel_to_world)


def _voxels(labels: LabelMap, grid: LabelMap, k: int) -> _Float:
    """Voxel positions in a map of one slice of a grid, shape (i, j, 3)."""
    to_voxel = np.asarray(np.linalg.inv(labels.voxel_to_world) @ grid.voxel_to_world, dtype=float)
    i, j = np.meshgrid(*(np.arange(n, dtype=float) for n in grid.shape[:2]), indexing="ij")
    return apply_matrix(to_voxel, np.stack([i, j, np.full_like(i, k)], axis=-1))


def _nearest(labels: LabelMap, voxels: _Float) -> NDArray[np.uint8]:
    index = np.rint(voxels).astype(np.int64)
    limit = np.array(labels.shape) - 1
    inside = ((index >= 0) & (index <= limit)).all(axis=-1)
    i, j, k = np.moveaxis(np.clip(index, 0, limit), -1, 0)
    return np.where(inside, labels.array[i, j, k], 0).astype(np.uint8)


def interpolate_shape_based(labels: LabelMap, grid: LabelMap) -> LabelMap:
    """Blend the outlines of neighbouring slices by their signed distances (Raya and Udupa 1990).

    Parameters
    ----------
    labels : LabelMap
        Canonical labels, slices along k.
    grid : LabelMap
        Where to; only its shape and matrix matter.

    Returns
    -------
    LabelMap
        The structure that a voxel lies deepest in; towards a slice that does not show a structure,
        the structure closes like a cone.
    """
    best = np.zeros(grid.shape, dtype=np.float32)
    found = np.zeros(grid.shape, dtype=np.uint8)
    for label in STRUCTURES:
        if label < N_LABELS and (labels.array == label).any():
            depth = _sampled_depth(_slice_depths_mm(labels, label), labels, grid)
            found[depth > best] = label
            np.maximum(best, depth, out=best)
    return LabelMap(found, grid.voxel_to_world)


def _slice_depths_mm(labels: LabelMap, label: int) -> NDArray[np.float32]:
    """In-plane distance to a structure's outline, positive inside, with an empty slice at both ends."""
    row, column, thickness = (float(step) for step in labels.spacing_mm)
    mask = np.pad(labels.array == label, ((0, 0), (0, 0), (1, 1)))
    depths = np.full(mask.shape, -thickness, dtype=np.float32)
    for k in np.flatnonzero(mask.any(axis=(0, 1))):
        inside = ndimage.distance_transform_edt(mask[:, :, k], sampling=(row, column))
        outside = ndimage.distance_transform_edt(~mask[:, :, k], sampling=(row, column))
        depths[:, :, k] = inside - outside
    return depths


def _sampled_depth(
    depths: NDArray[np.float32], labels: LabelMap, grid: LabelMap
) -> NDArray[np.float32]:
    sampled = np.empty(grid.shape, dtype=np.float32)
    for k in range(grid.shape[2]):
        voxels = _voxels(labels, grid, k) + (0.0, 0.0, 1.0)
        sampled[:, :, k] = ndimage.map_coordinates(
            depths, np.moveaxis(voxels, -1, 0), order=1, mode="nearest"
        )
    return sampled
