"""Which structures of a thick slice are labelled, as experts draw them, and which slices are lost.

The mitral valve's plane is tilted against the slices, so that the most basal ones show a part of the
left ventricle. Experts leave such a slice out where less than half of the wall's circumference is seen
(Schulz-Menger et al., Journal of Cardiovascular Magnetic Resonance 15:35, 2013).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cardiacreg.anatomy.landmarks import base_is_at_last_slice
from cardiacreg.errors import InvalidInputError
from cardiacreg.geometry import LV_CAVITY, LV_WALL, RV_CAVITY, RV_WALL, LabelMap

LabelRule = Literal["any", "clinical"]
_LEAST_SHARE = 0.5
_WHOLE_CAVITY = 0.75
_SMALLEST_RV_MM2 = 50.0
_RV_SLICES_BEYOND = 1
_RAYS, _RAY_STEP = 72, 0.5
_LEFT, _RIGHT = (LV_CAVITY, LV_WALL), (RV_WALL, RV_CAVITY)


def base_is_last(labels: LabelMap) -> bool:
    """Return whether the base of a whole heart lies towards large k.

    Parameters
    ----------
    labels : LabelMap
        Canonical labels of a heart whose outflow tracts may be part of the cavities.

    Returns
    -------
    bool
        By the growth of areas over the slices that show both ventricles: an outflow tract, which
        narrows away from the base, reaches beyond them.

    Raises
    ------
    InvalidInputError
        If fewer than 2 slices show the LV.
    """
    if _shows(labels.array, _LEFT).sum() < 2:
        raise InvalidInputError(
            "degradation: the LV is labelled in fewer than 2 slices; needs a heart.",
            code="TOO_FEW_SLICES",
        )
    return base_is_at_last_slice(labels)


def draw_as_experts(
    stack: NDArray[np.uint8], pixel_mm: NDArray[np.float64], *, base_last: bool
) -> None:
    """Remove what experts do not label from thick slices, in place.

    Parameters
    ----------
    stack : ndarray, shape (i, j, n_slices), uint8
        Canonical labels.
    pixel_mm : ndarray, shape (2,)
        In-plane voxel size.
    base_last : bool
        Whether the last slice is the most basal.

    Notes
    -----
    From the middle of the LV towards the base, the first slice loses its LV in which the wall is met in
    fewer than half of the directions from the centre of the cavity, and with it all slices beyond. What
    the valve's plane leaves of a cavity lies beside the LV's centre: a cavity below three quarters of the
    largest area is judged from the centre of the last one that is not. The RV goes at most one slice
    beyond the LV, and is not labelled where its cavity is below 50 mm2.
    """
    order = stack if base_last else stack[:, :, ::-1]
    held = np.flatnonzero(_shows(order, _LEFT))
    if len(held) == 0:
        return
    end = _first_left_out(order, held, pixel_mm)
    _erase(order, np.arange(end, order.shape[2]), _LEFT)
    area_mm2 = (order == RV_CAVITY).sum(axis=(0, 1)) * float(np.prod(pixel_mm))
    beyond = np.arange(order.shape[2]) >= end + _RV_SLICES_BEYOND
    _erase(order, np.flatnonzero(beyond | (area_mm2 < _SMALLEST_RV_MM2)), _RIGHT)


def _first_left_out(
    order: NDArray[np.uint8], held: NDArray[np.int64], pixel_mm: NDArray[np.float64]
) -> int:
    """The first slice, from the apex, that loses its LV; one beyond the last if none does."""
    areas = (order == LV_CAVITY).sum(axis=(0, 1))
    centre: NDArray[np.float64] | None = None
    for k in held[len(held) // 2 :]:
        if areas[k] == 0:
            return int(k)
        if centre is None or areas[k] >= _WHOLE_CAVITY * areas.max():
            centre = np.argwhere(order[:, :, k] == LV_CAVITY).mean(axis=0)
        if wall_share(order[:, :, k], centre, pixel_mm) < _LEAST_SHARE:
            return int(k)
    return int(held[-1]) + 1


def wall_share(
    plane: NDArray[np.uint8], centre: NDArray[np.float64], pixel_mm: NDArray[np.float64]
) -> float:
    """Return the share of directions from a point in which the LV wall is met.

    Parameters
    ----------
    plane : ndarray, shape (i, j), uint8
        Canonical labels of one slice.
    centre : ndarray, shape (2,)
        The point, in pixels.
    pixel_mm : ndarray, shape (2,)
        Size of a pixel.

    Returns
    -------
    float
        From 0 to 1.
    """
    angles = np.arange(_RAYS) * (2 * np.pi / _RAYS)
    reach = float(np.hypot(*(plane.shape * pixel_mm)))
    radii = np.arange(0.0, reach, _RAY_STEP * pixel_mm.min())
    rays = radii[:, None, None] * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    i, j = np.moveaxis(np.rint(centre + rays / pixel_mm).astype(int), -1, 0)
    inside = (i >= 0) & (j >= 0) & (i < plane.shape[0]) & (j < plane.shape[1])
    met = inside & (plane[np.where(inside, i, 0), np.where(inside, j, 0)] == LV_WALL)
    return float(met.any(axis=0).mean())


def lose_apex(stack: NDArray[np.uint8], lost: int, *, base_last: bool) -> NDArray[np.int64]:
    """Remove the labels of the most apical labelled slices, in place, and return which they were."""
    labelled = np.flatnonzero((stack > 0).any(axis=(0, 1)))
    if len(labelled) <= lost:
        raise InvalidInputError(
            f"simulate_low_resolution: {len(labelled)} slices have labels and {lost} are to be "
            "lost; lower lost_apical_slices or slice_thickness_mm.",
            code="TOO_FEW_SLICES",
        )
    gone = labelled[:lost] if base_last else labelled[len(labelled) - lost :]
    stack[:, :, gone] = 0
    return gone


def _shows(array: NDArray[np.uint8], structures: tuple[int, ...]) -> NDArray[np.bool_]:
    return np.asarray(np.isin(array, structures).any(axis=(0, 1)))


def _erase(
    array: NDArray[np.uint8], slices: NDArray[np.int64], structures: tuple[int, ...]
) -> None:
    for k in slices:
        plane = array[:, :, k]
        plane[np.isin(plane, structures)] = 0
