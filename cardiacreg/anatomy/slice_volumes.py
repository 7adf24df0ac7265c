"""Volumes of a model beside those of its stack: inside the labelled slices, and beyond each end.

What lies between the outer faces of a structure's first and last labelled slice was acquired; what lies
beyond comes from the atlases alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cardiacreg.algebra import invert, multiply
from cardiacreg.anatomy.volumes import structure_volumes_ml, voxel_ml
from cardiacreg.arrays import Float
from cardiacreg.geometry import STRUCTURES, LabelMap
from cardiacreg.slices import labelled_box

_Atlases = tuple[tuple[float, ...], tuple[float, ...]]
_ROUNDING = 1e-6
"""In slices: a voxel whose centre lies on a face is inside, whatever the last bits say."""


@dataclass(frozen=True, slots=True)
class StructureVolume:
    """Volume of one structure, by where it lies along the stack.

    Parameters
    ----------
    input_ml : float or None
        Labelled area times slice distance; None for a structure that the input does not show.
    inside_ml : float
        Of the model, between the outer faces of the outermost slices that show the structure (of
        all labelled slices, where the input does not show it).
    beyond_apex_ml, beyond_base_ml : float
        Of the model, past the outer face at either end.
    total_ml : float
        Of the model: the sum of the three.
    beyond_apex_mm, beyond_base_mm : float
        How far the outer face of the model's farthest voxel lies past that of the outermost slice,
        along the stack; 0 where it does not.
    outermost_ml : tuple of float
        Labelled area times slice distance of the structure's outermost slices, apex and base: what lies
        between one of them and the next slice is a part of so much. Empty where it was not kept.
    atlases_inside_ml, atlases_beyond_ml : tuple of float
        Of each deformed atlas, inside the slices and beyond them, before areas are matched and ends
        smoothed; empty where they were not kept.

    Examples
    --------
    >>> volume = StructureVolume(118.2, 115.9, 1.4, 4.1, 121.4, 3.0, 5.0)
    >>> volume.beyond_base_ml
    4.1
    """

    input_ml: float | None
    inside_ml: float
    beyond_apex_ml: float
    beyond_base_ml: float
    total_ml: float
    beyond_apex_mm: float
    beyond_base_mm: float
    outermost_ml: tuple[float, ...] = ()
    atlases_inside_ml: tuple[float, ...] = ()
    atlases_beyond_ml: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name in ("outermost_ml", "atlases_inside_ml", "atlases_beyond_ml"):
            object.__setattr__(self, name, tuple(map(float, getattr(self, name))))


class _Extent(NamedTuple):
    """Where a structure's voxels lie along the stack: heights in slices, how many at each."""

    heights: Float
    counts: NDArray[np.int64]


def stack_volumes(
    target: LabelMap,
    refined: LabelMap,
    *,
    base_at_last_slice: bool,
    atlas_voxels: NDArray[np.float32] | None = None,
) -> dict[str, StructureVolume]:
    """Return the volume of every structure in the input, and in the model by where it lies.

    Parameters
    ----------
    target : LabelMap
        Canonical labels of the acquired slices, k = slice, of any orientation.
    refined : LabelMap
        Canonical labels of the model, on any lattice in the same world. A voxel belongs to where its
        centre lies along the target's k axis; a centre on a face is inside.
    base_at_last_slice : bool
        Whether the base lies towards large k of the target.
    atlas_voxels : ndarray, shape (n_atlases, k, n_labels), optional
        How many voxels of every label each deformed atlas has in every slice of the model's
        lattice, whose slices are parallel to the target's.

    Returns
    -------
    dict
        Structure name to `StructureVolume`.

    Raises
    ------
    InvalidInputError
        If the target holds no labels (EMPTY_LABELS).

    Examples
    --------
    >>> import numpy as np
    >>> from cardiacreg import LabelMap, stack_volumes
    >>> stack = LabelMap(np.ones((10, 10, 3)), np.diag([1.0, 1.0, 10.0, 1.0]))
    >>> model = LabelMap(np.ones((10, 10, 20)), np.diag([1.0, 1.0, 2.0, 1.0]))
    >>> found = stack_volumes(stack, model, base_at_last_slice=True)["LV cavity"]
    >>> f"{found.input_ml:.1f} ml, {found.inside_ml:.1f} ml inside, {found.beyond_base_ml:.1f} ml beyond"
    '3.0 ml, 2.6 ml inside, 1.4 ml beyond'
    """
    to_slices = multiply(invert(target.voxel_to_world), refined.voxel_to_world)[2]
    half = float(np.abs(to_slices[:3]).sum()) / 2
    extents, faces = _extents(refined.array, to_slices), _outer_faces(target)
    step_mm, of_one = float(target.spacing_mm[2]), voxel_ml(refined)
    entered = structure_volumes_ml(target)
    found = {
        name: _divided(
            extents[label], faces[label], half, step_mm, of_one, entered[name], base_at_last_slice
        )
        for label, name in STRUCTURES.items()
    }
    slices_ml = _slices_ml(target, base_at_last_slice)
    parts: dict[int, _Atlases] = {label: ((), ()) for label in STRUCTURES}
    if atlas_voxels is not None:
        heights = to_slices[2] * np.arange(refined.shape[2]) + to_slices[3]
        parts = _atlases_ml(np.asarray(atlas_voxels, np.float64) * of_one, heights, faces)
    return {
        name: replace(
            found[name],
            outermost_ml=slices_ml[label],
            atlases_inside_ml=parts[label][0],
            atlases_beyond_ml=parts[label][1],
        )
        for label, name in STRUCTURES.items()
    }


def _slices_ml(target: LabelMap, base_at_last_slice: bool) -> dict[int, tuple[float, ...]]:
    """Return what the outermost slices that show each structure hold, apex and base."""
    found: dict[int, tuple[float, ...]] = {}
    of_one = voxel_ml(target)
    for label in STRUCTURES:
        counts = np.count_nonzero(target.array == label, axis=(0, 1))
        held = counts[counts > 0]
        ends = held[[0, -1] if base_at_last_slice else [-1, 0]] if len(held) else ()
        found[label] = tuple(float(n) * of_one for n in ends)
    return found


def _atlases_ml(
    slices_ml: Float, heights: Float, faces: dict[int, tuple[float, float]]
) -> dict[int, _Atlases]:
    """Divide every atlas at the outer faces: inside and beyond, by structure."""
    found: dict[int, _Atlases] = {}
    for label, (first, last) in faces.items():
        inside = (heights >= first - _ROUNDING) & (heights <= last + _ROUNDING)
        own = slices_ml[:, :, label]
        found[label] = (tuple(own[:, inside].sum(axis=1)), tuple(own[:, ~inside].sum(axis=1)))
    return found


def _outer_faces(target: LabelMap) -> dict[int, tuple[float, float]]:
    """Return the outer faces, in slices, of the slices that show each structure, else any of them."""
    every = labelled_box(target)[2]
    faces = {}
    for label in STRUCTURES:
        slices = np.flatnonzero((target.array == label).any(axis=(0, 1)))
        first, last = (slices[0], slices[-1]) if len(slices) else (every.start, every.stop - 1)
        faces[label] = (float(first) - 0.5, float(last) + 0.5)
    return faces


def _extents(array: NDArray[np.uint8], to_slices: Float) -> dict[int, _Extent]:
    """Return where every structure lies; slice by slice where the model's slices are parallel."""
    drift = float(multiply(np.abs(to_slices[:2]), np.array(array.shape[:2])))
    if drift < _ROUNDING:
        heights = to_slices[2] * np.arange(array.shape[2]) + to_slices[3]
        return {label: _by_slice(array == label, heights) for label in STRUCTURES}
    return {label: _by_voxel(array == label, to_slices) for label in STRUCTURES}


def _by_slice(mask: NDArray[np.bool_], heights: Float) -> _Extent:
    counts = mask.sum(axis=(0, 1), dtype=np.int64)
    return _Extent(heights[counts > 0], counts[counts > 0])


def _by_voxel(mask: NDArray[np.bool_], to_slices: Float) -> _Extent:
    heights = multiply(np.argwhere(mask), to_slices[:3]) + to_slices[3]
    return _Extent(heights, np.ones(len(heights), dtype=np.int64))


def _divided(
    extent: _Extent,
    faces: tuple[float, float],
    half: float,
    step_mm: float,
    of_one_ml: float,
    input_ml: float | None,
    base_at_last_slice: bool,
) -> StructureVolume:
    """Divide a structure at both outer faces; `half` is half the height of a voxel, in slices."""
    heights, counts = extent
    past = np.array([faces[0] - heights, heights - faces[1]])
    beyond_ml = multiply(past > _ROUNDING, counts) * of_one_ml
    reach_mm = np.maximum(past.max(axis=1, initial=-np.inf) + half, 0.0) * step_mm
    reach_mm[reach_mm < _ROUNDING * step_mm] = 0.0
    apex, base = (0, 1) if base_at_last_slice else (1, 0)
    return StructureVolume(
        input_ml=input_ml,
        inside_ml=float(counts[(past <= _ROUNDING).all(axis=0)].sum() * of_one_ml),
        beyond_apex_ml=float(beyond_ml[apex]),
        beyond_base_ml=float(beyond_ml[base]),
        total_ml=float(counts.sum() * of_one_ml),
        beyond_apex_mm=float(reach_mm[apex]),
        beyond_base_mm=float(reach_mm[base]),
    )
