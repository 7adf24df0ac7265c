"""A heart of simple shapes on few voxels, to compile kernels and check an installation in seconds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cardiacreg.geometry import LV_CAVITY, LV_WALL, RV_CAVITY, RV_WALL, LabelMap, Subject, Volume

_SHAPE = (40, 40, 8)
_SPACING_MM = (2.5, 2.5, 8.0)
_LV_CENTRE_MM = (60.0, 50.0)
_RV_CENTRE_MM = (38.0, 50.0)
_BASE_MM = 52.0
_INTENSITIES = np.array([40.0, 200.0, 80.0, 80.0, 190.0])


def make_toy_heart(*, size: float = 1.0) -> Subject:
    """Draw a small heart from half ellipsoids.

    Parameters
    ----------
    size : float
        0.8 to 1.05, relative; hearts of different size are atlases for each other.

    Returns
    -------
    Subject
        Canonical labels and an image of shape (40, 40, 8) at 2.5 x 2.5 x 8 mm, without landmarks;
        the apex, of LV wall alone, is at low k, the RV crescent at low i, and the outermost slices
        are empty.
    """
    array = np.zeros(_SHAPE, dtype=np.uint8)
    array[_bowl(_RV_CENTRE_MM, 29.0 * size, 44.0 * size)] = RV_WALL
    array[_bowl(_RV_CENTRE_MM, 25.0 * size, 38.0 * size)] = RV_CAVITY
    array[_bowl(_LV_CENTRE_MM, 29.0 * size, 52.0 * size)] = LV_WALL
    array[_bowl(_LV_CENTRE_MM, 19.0 * size, 42.0 * size)] = LV_CAVITY
    voxel_to_world = np.diag([*_SPACING_MM, 1.0])
    voxel_to_world[:3, 3] = (-50.0, -50.0, -28.0)
    return Subject(
        LabelMap(array, voxel_to_world),
        Volume(_INTENSITIES[array], voxel_to_world),
        name=f"tiny heart {size:g}",
    )


def _bowl(centre_mm: tuple[float, float], radius_mm: float, depth_mm: float) -> NDArray[np.bool_]:
    """Voxels inside a half ellipsoid that is open at the base and reaches down to the apex."""
    i, j, k = np.meshgrid(
        *(np.arange(n) * step for n, step in zip(_SHAPE, _SPACING_MM, strict=True)), indexing="ij"
    )
    below_base = (_BASE_MM - k) / depth_mm
    across = ((i - centre_mm[0]) ** 2 + (j - centre_mm[1]) ** 2) / radius_mm**2
    inside: NDArray[np.bool_] = (below_base >= 0) & (across + below_base**2 < 1)
    return inside
