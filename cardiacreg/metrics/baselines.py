"""Baselines for a refinement: two interpolations between slices.

Neither knows a heart: they repeat or blend what the slices show, shifts and missing apex included.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cardiacreg.geometry import LabelMap, apply_matrix, nearest_labels

_TIE = 1e-6
"""How near to the middle between two slices, in slice distances, counts as halfway."""


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
    found = nearest_labels(labels, voxel_positions(labels, grid).T)
    return LabelMap(found.reshape(grid.shape), grid.voxel_to_world)


def interpolate_shape_based(labels: LabelMap, grid: LabelMap) -> LabelMap:
    """Interpolate signed distances to each label's outline between slices (Raya and Udupa 1990).

    Background is a label like the others, so that no gap opens between structures; the label with the
    largest interpolated distance wins. A structure that only one of two neighbouring slices shows keeps
    its outline and ends halfway, whether the other slice is empty, shows other structures or is absent;
    halfway itself belongs to the slice that shows it. Beyond the outermost slices' halves is background.

    Parameters
    ----------
    labels : LabelMap
        Slices along k.
    grid : LabelMap
        Where to; only its shape and matrix matter.

    Returns
    -------
    LabelMap
    """
    positions = voxel_positions(labels, grid)
    found = np.zeros(positions.shape[1], dtype=np.uint8)
    array = np.pad(labels.array, ((0, 0), (0, 0), (1, 1)))
    heights = positions[2] + 1.0
    gaps = np.floor(heights).astype(np.int64)
    parts = heights - gaps
    within = inside(labels, positions)
    for gap in np.unique(gaps[within]):
        here = np.flatnonzero(within & (gaps == gap))
        ends = array[:, :, gap], array[:, :, gap + 1]
        lower = here[parts[here] <= 0.5 + _TIE]
        upper = here[parts[here] >= 0.5 - _TIE]
        for chosen, near, far, part in (
            (upper, ends[1], ends[0], 1.0 - parts[upper]),
            (lower, ends[0], ends[1], parts[lower]),
        ):
            blended = _blended(near, far, (*positions[:2, chosen], part), labels.spacing_mm)
            found[chosen] = np.where(blended > 0, blended, found[chosen])
    return LabelMap(found.reshape(grid.shape), grid.voxel_to_world)


def _blended(
    near: NDArray[np.uint8],
    far: NDArray[np.uint8],
    positions: tuple[NDArray[np.float64], ...],
    spacing_mm: NDArray[np.float64],
) -> NDArray[np.uint8]:
    """Labels between two slices, in the near one's half: the far one shows what the near one shows."""
    of_near_alone = ~np.isin(near, far) & (near > 0)
    of_far_alone = ~np.isin(far, near) & (far > 0)
    far = np.where(of_near_alone | of_far_alone, near, far)
    best = np.full(len(positions[0]), -np.inf, dtype=np.float32)
    found = np.zeros(len(positions[0]), dtype=np.uint8)
    for value in np.unique(near):
        masks = np.stack([near == value, far == value], axis=-1)
        depth = ndimage.map_coordinates(
            _slice_depths_mm(masks, spacing_mm), positions, order=1, mode="nearest"
        )
        found[depth > best] = value
        np.maximum(best, depth, out=best)
    return found


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
