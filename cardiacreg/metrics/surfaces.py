"""Surfaces of binary masks as points in mm, and the distances between them.

Two surfaces are in use, because the published measures use two: border voxels (Hausdorff
distances, as MONAI and MetricsReloaded) and surface elements, the pieces of area that cross a 2x2x2
cell (surface Dice, as DeepMind's surface-distance, where every element counts with its area).
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from cardiacreg.arrays import Float

Mask = NDArray[np.bool_]


class SurfaceElements(NamedTuple):
    """Pieces of a surface: where each is, shape (n, 3) mm, and its area, shape (n,) mm^2."""

    points_mm: Float
    areas_mm2: Float


def border_points_mm(mask: Mask, spacing_mm: Float) -> Float:
    """Return the voxels that touch the outside with a face (or an edge in 2-D), shape (n, d) mm.

    Parameters
    ----------
    mask : numpy.ndarray of bool, shape (i, j, k) or (i, j)
        What lies outside the array is background.
    spacing_mm : numpy.ndarray, shape (3,) or (2,)
        Spacing of the array.
    """
    box = _box(mask)
    if box is None:
        return np.zeros((0, mask.ndim))
    cropped = mask[box]
    border = cropped & ~ndimage.binary_erosion(cropped)
    start = np.array([side.start for side in box])
    return np.asarray((np.argwhere(border) + start) * spacing_mm, dtype=np.float64)


def nearest_mm(points_mm: Float, others_mm: Float) -> Float:
    """Return the distance of each point to the nearest of the others, shape (n,) mm."""
    distances, _ = cKDTree(others_mm).query(points_mm)
    return np.asarray(distances, dtype=np.float64)


def surface_elements(mask: Mask, spacing_mm: Float) -> SurfaceElements:
    """Return the surface of a 3-D mask as elements, one for each 2x2x2 cell that it crosses.

    Parameters
    ----------
    mask : numpy.ndarray of bool, shape (i, j, k)
        What lies outside the array is background.
    spacing_mm : numpy.ndarray, shape (3,)
        Spacing of the array.
    """
    box = _box(mask)
    if box is None:
        return SurfaceElements(np.zeros((0, 3)), np.zeros(0))
    padded = np.pad(mask[box], 1)
    ni, nj, nk = (n - 1 for n in padded.shape)
    codes = np.zeros((ni, nj, nk), dtype=np.uint8)
    for bit, (i, j, k) in enumerate(np.ndindex(2, 2, 2)):
        codes |= padded[i : i + ni, j : j + nj, k : k + nk].astype(np.uint8) << bit
    cells = np.argwhere((codes != 0) & (codes != 255))
    start = np.array([side.start for side in box]) - 0.5
    areas = cell_areas_mm2(tuple(float(x) for x in spacing_mm))[codes[tuple(cells.T)]]
    return SurfaceElements((cells + start) * spacing_mm, areas)


@lru_cache(maxsize=32)
def cell_areas_mm2(spacing_mm: tuple[float, ...]) -> Float:
    """Return the area of the surface inside a cell for each of the 256 fillings of its corners."""
    areas = np.zeros(256)
    for code, triangles in enumerate(_cell_triangles()):
        edges = triangles * np.array(spacing_mm)
        normals = np.cross(edges[:, 1] - edges[:, 0], edges[:, 2] - edges[:, 0])
        areas[code] = np.linalg.norm(normals, axis=-1).sum() / 2
    return areas


@lru_cache(maxsize=1)
def _cell_triangles() -> tuple[Float, ...]:
    """Triangles, shape (n, 3 corners, 3), through a unit cell for each filling of its corners.

    Ambiguous faces separate the corners of the minority, so that a filling and its complement have
    the same surface, as in the reference implementation.
    """
    from skimage.measure import marching_cubes

    found = [np.zeros((0, 3, 3))]
    for code in range(1, 255):
        filled = code if code.bit_count() <= 4 else 255 - code
        corners = np.array([filled >> bit & 1 for bit in range(8)], dtype=np.float32)
        vertices, faces, *_ = marching_cubes(corners.reshape(2, 2, 2), level=0.5, method="lorensen")
        found.append(np.asarray(vertices[faces], dtype=np.float64))
    return (*found, np.zeros((0, 3, 3)))


def _box(mask: Mask) -> tuple[slice, ...] | None:
    boxes = ndimage.find_objects(mask.astype(np.uint8))
    return tuple(boxes[0]) if boxes else None
