"""What a refinement has to beat: two interpolations between slices that know nothing about hearts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cardiacreg.geometry import LabelMap, apply_matrix


def nearest_neighbour(labels: LabelMap, grid: LabelMap) -> LabelMap:
    """Return the label of the nearest voxel at every voxel of a grid; background outside the map."""
    positions = np.rint(voxel_positions(labels, grid)).astype(np.int64)
    limit = np.array(labels.shape)[:, None] - 1
    held = ((positions >= 0) & (positions <= limit)).all(axis=0)
    i, j, k = np.clip(positions, 0, limit)
    found = np.where(held, labels.array[i, j, k], 0).astype(np.uint8)
    return LabelMap(found.reshape(grid.shape), grid.voxel_to_world)


def shape_based(labels: LabelMap, grid: LabelMap) -> LabelMap:
    """Interpolate signed distances to each label's outline between slices (Raya and Udupa 1990).

    Background is a label like the others, so that no gap opens between structures; the label with the
    largest interpolated distance wins. A slice that does not show a label counts as one slice distance
    outside it. Half a slice beyond the outermost slices these are repeated; further out is background.
    """
    positions = voxel_positions(labels, grid)
    best = np.full(positions.shape[1], -np.inf, dtype=np.float32)
    found = np.zeros(positions.shape[1], dtype=np.uint8)
    for value in (0, *labels.present()):
        depths = _slice_depths_mm(labels.array == value, labels.spacing_mm)
        depth = ndimage.map_coordinates(depths, positions, order=1, mode="nearest")
        found[depth > best] = value
        np.maximum(best, depth, out=best)
    found[~inside(labels, positions)] = 0
    return LabelMap(found.reshape(grid.shape), grid.voxel_to_world)


def inside(labels: LabelMap, positions: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether voxel positions, shape (3, n), lie in a voxel of the map."""
    limit = np.array(labels.shape)[:, None] - 0.5
    return np.asarray(((positions >= -0.5) & (positions <= limit)).all(axis=0))


def voxel_positions(labels: LabelMap, grid: LabelMap) -> NDArray[np.float64]:
    """Voxel positions in a map of every voxel of a grid, shape (3, n)."""
    to_voxel = np.linalg.inv(labels.voxel_to_world) @ grid.voxel_to_world
    axes = np.meshgrid(*(np.arange(n, dtype=float) for n in grid.shape), indexing="ij")
    return apply_matrix(to_voxel, np.stack([axis.ravel() for axis in axes], axis=-1)).T


def _slice_depths_mm(
    mask: NDArray[np.bool_], spacing_mm: NDArray[np.float64]
) -> NDArray[np.float32]:
    """In-plane distance to the outline, slice by slice, in mm, positive inside."""
    pixel, thickness = spacing_mm[:2], float(spacing_mm[2])
    depths = np.full(mask.shape, -thickness, dtype=np.float32)
    for k in np.flatnonzero(mask.any(axis=(0, 1))):
        if mask[:, :, k].all():
            depths[:, :, k] = thickness
            continue
        within = ndimage.distance_transform_edt(mask[:, :, k], sampling=pixel)
        outside = ndimage.distance_transform_edt(~mask[:, :, k], sampling=pixel)
        half_pixel = np.where(mask[:, :, k], -0.5, 0.5) * float(pixel.mean())
        depths[:, :, k] = within - outside + half_pixel
    return depths
