"""Beyond a ventricle's outermost labelled slice its end is made smooth: no columns, spikes or notches.

There the atlases alone tell the shape, cut off at planes where the ventricle has ended; a few
disagreeing atlases leave single columns of voxels and ragged rims. In that zone the ventricle becomes the
region where its smoothed indicator exceeds one half, and its cavity the part of it where the smoothed
cavity does.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cardiacreg.algebra import invert, multiply
from cardiacreg.arrays import Float
from cardiacreg.geometry import LV_CAVITY, LV_WALL, RV_CAVITY, RV_WALL, LabelMap

Mask = NDArray[np.bool_]
_VENTRICLES = ((RV_CAVITY, RV_WALL), (LV_CAVITY, LV_WALL))
"""Cavity and wall; the LV comes last, so that no RV is left where it is."""
_WIDTH_MM = 1.5
_REACH = 3.0
"""Standard deviations that count."""
_BALL_MM = 2.5


def smooth_ends(labels: LabelMap, target: LabelMap) -> LabelMap:
    """Smooth both ventricles beyond their outermost labelled slices.

    Parameters
    ----------
    labels : LabelMap
        A model on a lattice with axes parallel to the target's.
    target : LabelMap
        The acquired slices.

    Returns
    -------
    LabelMap
        Equal to the model between each ventricle's outermost slices, but for the other one's end.
    """
    array = np.array(labels.array)
    for structures in _VENTRICLES:
        for zone in _end_zones(labels, target, structures):
            _smooth(array, zone, labels.spacing_mm, structures)
    return LabelMap(array, labels.voxel_to_world)


def end_roughness(labels: LabelMap, target: LabelMap) -> float:
    """Return how ragged a model's ends are: 0 is smooth.

    Parameters
    ----------
    labels, target : LabelMap
        As for `smooth_ends`.

    Returns
    -------
    float
        Share of the ventricles' voxels beyond their outermost labelled slices that an opening by a ball
        of 2.5 mm radius removes or a closing adds. Every smooth rim has a little.
    """
    ball = _ball(labels.spacing_mm)
    changed = total = 0
    for structures in _VENTRICLES:
        own = np.pad(np.isin(labels.array, structures), 4)
        different = (own & ~ndimage.binary_opening(own, ball)) | (
            ndimage.binary_closing(own, ball) & ~own
        )
        for zone in _end_zones(labels, target, structures):
            inside = slice(zone.start + 4, zone.stop + 4)
            changed += int(different[:, :, inside].sum())
            total += int(own[:, :, inside].sum())
    return changed / total if total else 0.0


def _ball(spacing_mm: Float) -> Mask:
    reach = np.floor(_BALL_MM / spacing_mm).astype(int)
    grid = np.meshgrid(*(np.arange(-n, n + 1) for n in reach), indexing="ij")
    squares = [(axis * step) ** 2 for axis, step in zip(grid, spacing_mm, strict=True)]
    return np.asarray(np.sum(squares, axis=0) <= _BALL_MM**2)


def _end_zones(labels: LabelMap, target: LabelMap, structures: tuple[int, ...]) -> list[slice]:
    """Ranges of the model's k beyond a ventricle's outermost labelled slices, low end first."""
    held = np.flatnonzero(np.isin(target.array, structures).any(axis=(0, 1)))
    if not len(held):
        return []
    to_voxel = multiply(invert(labels.voxel_to_world), target.voxel_to_world)
    low, high = sorted(to_voxel[2, 2] * held[[0, -1]] + to_voxel[2, 3])
    depth = labels.shape[2]
    return [
        slice(0, int(np.clip(np.ceil(low), 0, depth))),
        slice(int(np.clip(np.floor(high) + 1, 0, depth)), depth),
    ]


def _smooth(
    array: NDArray[np.uint8], zone: slice, spacing_mm: Float, structures: tuple[int, int]
) -> None:
    """Smooth one ventricle in a range of k, in place."""
    sigma = _WIDTH_MM / spacing_mm
    reach = np.ceil(_REACH * sigma).astype(int)
    near = slice(max(0, zone.start - reach[2]), min(array.shape[2], zone.stop + reach[2]))
    box = _held(array[:, :, near], structures, reach)
    if box is None:
        return
    part = array[:, :, near][box]
    inside = slice(zone.start - near.start, zone.stop - near.start)
    whole, cavity = (
        ndimage.gaussian_filter(mask.astype(np.float32), sigma, truncate=_REACH)[:, :, inside]
        for mask in (_either(part, structures), part == structures[0])
    )
    own = part[:, :, inside]
    held = _either(own, structures)
    ours = whole > 0.5
    gained = ours & ((own == 0) | held)
    own[held & ~ours] = 0
    own[gained] = np.where(cavity > 0.5 * whole, structures[0], structures[1])[gained]


def _either(array: NDArray[np.uint8], structures: tuple[int, int]) -> Mask:
    return np.asarray((array == structures[0]) | (array == structures[1]))


def _held(
    array: NDArray[np.uint8], structures: tuple[int, int], reach: NDArray[np.int64]
) -> tuple[slice, slice] | None:
    """Where along i and j a ventricle lies, with room to smooth it; None where there is none."""
    seen: Mask = np.asarray(_either(array, structures).any(axis=2))
    found = [np.flatnonzero(seen.any(axis=other)) for other in (1, 0)]
    if not len(found[0]):
        return None
    i, j = (
        slice(max(0, int(at[0] - room)), int(at[-1] + room) + 1)
        for at, room in zip(found, reach, strict=False)
    )
    return i, j
