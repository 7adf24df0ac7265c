"""Cut label maps by planes, and ask how far outlines and ends are from given points.

A plane is a label map of one slice: its first two axes span it. `cut` gives the labels there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cardiacreg.arrays import Float
from cardiacreg.geometry import LabelMap, apply_matrix
from cardiacreg.metrics import baselines

PIXEL_MM, COARSE_PIXEL_MM = 0.5, 1.0
RADIUS_MM = 3.0
_RAY_MM, _STEP_MM = 80.0, 0.25
_RINGS = ((0.0, 1), (0.5, 6), (1.0, 12))


def plane(
    corner_mm: Float, first: Float, second: Float, size_mm: tuple[float, float], pixel_mm: float
) -> LabelMap:
    """Return an empty plane from a corner along two perpendicular unit vectors."""
    matrix = np.eye(4)
    matrix[:3, 0], matrix[:3, 1] = first * pixel_mm, second * pixel_mm
    matrix[:3, 2], matrix[:3, 3] = np.cross(first, second), corner_mm
    shape = [int(np.ceil(size / pixel_mm)) + 1 for size in size_mm]
    return LabelMap(np.zeros((*shape, 1), dtype=np.uint8), matrix)


def plane_over(labels: LabelMap, through_mm: Float, first: Float, second: Float) -> LabelMap:
    """Return a plane through a point that is large enough for a whole map."""
    reach = float(np.linalg.norm(np.multiply(labels.shape, labels.spacing_mm)))
    corner = through_mm - reach * (first + second)
    return plane(corner, first, second, (2 * reach, 2 * reach), COARSE_PIXEL_MM)


def cut(labels: LabelMap, grid: LabelMap) -> LabelMap:
    """Return the labels in a plane; background outside the map."""
    return baselines.interpolate_nearest(labels, grid)


def beyond_points_mm(
    section: LabelMap, structures: Sequence[int], points_mm: Float
) -> Float | None:
    """Return how far a section's structures reach beyond each point in the plane, mm.

    The in-plane distance from the point to the outline of the structures together: positive where the
    point lies inside them, negative where they end short of it. None if the section shows none.
    """
    mask = np.isin(section.array[:, :, 0], structures)
    if not mask.any() or len(points_mm) == 0:
        return None
    pixel = section.spacing_mm[:2]
    inside = ndimage.distance_transform_edt(np.pad(mask, 1), sampling=pixel)[1:-1, 1:-1]
    outside = ndimage.distance_transform_edt(~mask, sampling=pixel)
    depth = inside - outside + np.where(mask, -0.5, 0.5) * float(pixel.mean())
    voxels = apply_matrix(np.linalg.inv(section.voxel_to_world), points_mm)
    return np.asarray(ndimage.map_coordinates(depth, voxels[:, :2].T, order=1, mode="nearest"))


def ends_beyond_mm(
    labels: LabelMap,
    structures: Sequence[int],
    points_mm: Float,
    direction: Float,
    radius_mm: float = RADIUS_MM,
) -> list[float | None]:
    """Return how far structures go past each point along a direction, mm.

    Rays run along the direction through a disc around the point. On each ray the last place with one
    of the structures is sought, up to 80 mm before and after the point; the median over the rays that
    meet any is returned, None if no ray does. Positive: past the point. A tilted flat end through the
    point gives 0.
    """
    unit = direction / np.linalg.norm(direction)
    steps = np.arange(-_RAY_MM, _RAY_MM + _STEP_MM / 2, _STEP_MM)
    offsets = _disc(unit, radius_mm)
    held = np.isin(labels.array, structures)
    found: list[float | None] = []
    for point in points_mm:
        rays = point + offsets[:, None] + steps[:, None] * unit
        ends = _ray_ends(held, labels.voxel_to_world, rays, steps)
        found.append(float(np.median(ends)) if len(ends) else None)
    return found


def _ray_ends(held: NDArray[np.bool_], voxel_to_world: Float, rays: Float, steps: Float) -> Float:
    """Where each ray, shape (rays, steps, 3), leaves the mask last; rays that miss it are left out."""
    voxels = np.rint(apply_matrix(np.linalg.inv(voxel_to_world), rays.reshape(-1, 3))).astype(int)
    limit = np.array(held.shape) - 1
    there = ((voxels >= 0) & (voxels <= limit)).all(axis=1)
    there &= held[tuple(np.clip(voxels, 0, limit).T)]
    on_ray = there.reshape(rays.shape[:2])
    last = steps.size - 1 - on_ray[:, ::-1].argmax(axis=1)
    return np.asarray(steps[last[on_ray.any(axis=1)]] + _STEP_MM / 2)


def _disc(unit: Float, radius_mm: float) -> Float:
    """Points of a disc across a direction, shape (n, 3)."""
    first, second = across(unit)
    angles = [(ring, 2 * np.pi * n / count) for ring, count in _RINGS for n in range(count)]
    return np.array(
        [radius_mm * ring * (np.cos(a) * first + np.sin(a) * second) for ring, a in angles]
    )


def across(unit: Float) -> tuple[Float, Float]:
    """Return two unit vectors perpendicular to one and to each other."""
    helper = np.eye(3)[int(np.argmin(np.abs(unit)))]
    first = np.cross(unit, helper)
    first /= np.linalg.norm(first)
    return first, np.cross(unit, first)
