"""The lattice of the result: aligned with the target's axes and large enough for the whole heart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from cardiacreg.algebra import invert, multiply
from cardiacreg.arrays import Float
from cardiacreg.errors import InvalidInputError
from cardiacreg.geometry import LabelMap, Volume, apply_matrix
from cardiacreg.registration.aligned_atlas import AlignedAtlas
from cardiacreg.slices import labelled_slices, stack_axes
from cardiacreg.transforms.resampling import Lattice

_LARGEST_EXTENT_MM = 400.0
_SPACING_MM = (0.2, 10.0)
_MOST_VOXELS = 2.5e8


def lattice_over_heart(
    target: LabelMap,
    atlases: Sequence[AlignedAtlas],
    spacing_mm: ArrayLike,
    margin_mm: float,
) -> Lattice:
    """Return the lattice that covers the target's labels and the aligned atlases' labels.

    Parameters
    ----------
    target : LabelMap
        Its axes give the lattice's axes, its voxel 0 the lattice's anchor.
    atlases : sequence of AlignedAtlas
        Atlases and their target-to-atlas affines.
    spacing_mm : array_like, shape (3,)
    margin_mm : float

    Returns
    -------
    Lattice
    """
    spacing = checked_spacing(spacing_mm)
    axes = stack_axes(target.voxel_to_world, "refine")
    boxes = [_label_box(target) * target.spacing_mm]
    for labels, affine in atlases:
        box = _aligned_box(labels, invert(multiply(affine.matrix, axes)))
        if (box[0] < boxes[0][1]).all() and (box[1] > boxes[0][0]).all():
            boxes.append(box)
    lower = _robust(min, [box[0] for box in boxes], boxes[0][0]) - margin_mm
    upper = _robust(max, [box[1] for box in boxes], boxes[0][1]) + margin_mm
    first = np.floor(lower / spacing)
    shape = (np.ceil(upper / spacing) - first).astype(int) + 1
    if shape.prod(dtype=np.float64) > _MOST_VOXELS:
        raise InvalidInputError(
            f"refine: at {spacing.tolist()} mm the model has {' x '.join(map(str, shape))} voxels, more "
            f"than {_MOST_VOXELS / 1e6:.0f} million; needs a larger spacing_mm (--spacing).",
            code="BAD_SPACING",
        )
    local = np.diag([*spacing, 1.0])
    local[:3, 3] = first * spacing
    return Lattice((int(shape[0]), int(shape[1]), int(shape[2])), multiply(axes, local))


def checked_spacing(spacing_mm: ArrayLike) -> Float:
    """Return the spacing of a model, three numbers from 0.2 to 10 mm.

    Raises
    ------
    InvalidInputError
        BAD_SPACING.
    """
    try:
        spacing = np.asarray(spacing_mm, dtype=np.float64)
    except (TypeError, ValueError):
        spacing = np.array(np.nan)
    least, most = _SPACING_MM
    if spacing.shape != (3,) or not ((spacing >= least) & (spacing <= most)).all():
        raise InvalidInputError(
            f"refine: spacing_mm (--spacing) is {spacing_mm!r}; needs three numbers from {least:g} to "
            f"{most:g} mm, as 1.25 1.25 2.",
            code="BAD_SPACING",
        )
    return spacing


def _aligned_box(labels: LabelMap, atlas_to_axes: NDArray[np.floating]) -> Float:
    """Lower and upper corner, along the target's axes, of an atlas's labels after its affine."""
    corners = np.array(np.meshgrid(*_label_box(labels).T)).reshape(3, -1).T
    mapped = apply_matrix(multiply(atlas_to_axes, labels.voxel_to_world), corners)
    box = np.stack([mapped.min(axis=0), mapped.max(axis=0)])
    if (box[1] - box[0]).max() > _LARGEST_EXTENT_MM:
        raise InvalidInputError(
            f"refine: an aligned atlas spans {np.round(box[1] - box[0])} mm, which no heart does; the "
            "landmarks do not fit the labels. Check their order and space (RAS+ mm), or leave them out.",
            code="BAD_LANDMARKS",
        )
    return box


def _robust(pick: object, corners: list[Float], own: Float) -> Float:
    """Outermost of the target's corner and the atlases' median corner: one stray atlas does not count."""
    candidates = [own] + ([np.median(corners[1:], axis=0)] if len(corners) > 1 else [])
    stacked = np.stack(candidates)
    return np.asarray(stacked.min(axis=0) if pick is min else stacked.max(axis=0))


def _label_box(labels: LabelMap) -> Float:
    """First and last labelled voxel edge along each axis, shape (2, 3), voxels."""
    box = ndimage.find_objects((labels.array != 0).astype(np.uint8))[0]
    return np.array([[s.start - 0.5 for s in box], [s.stop - 0.5 for s in box]])


def lattice_box_mm(lattice: Lattice, axes: Float) -> tuple[Float, Float]:
    """Return the lattice's lower and upper corner along the target's axes, mm."""
    to_axes = multiply(invert(axes), lattice.voxel_to_world)
    first = to_axes[:3, 3]
    last = apply_matrix(to_axes, np.array(lattice.shape, dtype=np.float64) - 1)
    return np.minimum(first, last), np.maximum(first, last)


def place_target_image(image: Volume, slice_shifts_mm: Float, lattice: Lattice) -> Volume:
    """Bring the target's image onto the output lattice with every slice moved to its true position.

    Linear within and between slices; beyond the outermost slices the nearest slice is repeated.

    Parameters
    ----------
    image : Volume
        On the target's own lattice.
    slice_shifts_mm : ndarray, shape (n_slices, 2)
        True position = stored position + shift, along the image's i and j axes.
    lattice : Lattice
        Axes parallel to the image's.

    Returns
    -------
    Volume
    """
    to_voxel = multiply(invert(image.voxel_to_world), lattice.voxel_to_world)
    axes = [to_voxel[a, a] * np.arange(lattice.shape[a]) + to_voxel[a, 3] for a in range(3)]
    shifts = slice_shifts_mm / image.spacing_mm[:2]
    moved = [
        _sample_slice(image.array[:, :, k], axes[0] - shifts[k, 0], axes[1] - shifts[k, 1])
        for k in range(image.shape[2])
    ]
    depth = np.clip(axes[2], 0, image.shape[2] - 1)
    lower = np.minimum(depth.astype(int), max(image.shape[2] - 2, 0))
    upper = np.minimum(lower + 1, image.shape[2] - 1)
    t = (depth - lower).astype(np.float32)
    stack = np.stack(moved, axis=-1)
    return Volume((1 - t) * stack[..., lower] + t * stack[..., upper], lattice.voxel_to_world)


def _sample_slice(plane: NDArray[np.float32], i: Float, j: Float) -> NDArray[np.float32]:
    (i0, v0), (i1, v1) = _linear_weights(i, plane.shape[0])
    (j0, w0), (j1, w1) = _linear_weights(j, plane.shape[1])
    rows = v0[:, None] * plane[i0] + v1[:, None] * plane[i1]
    return np.asarray(w0 * rows[:, j0] + w1 * rows[:, j1], dtype=np.float32)


def _linear_weights(
    position: Float, size: int
) -> tuple[tuple[NDArray[np.int64], NDArray[np.float32]], ...]:
    clipped = np.clip(position, 0, size - 1)
    lower = np.minimum(clipped.astype(np.int64), max(size - 2, 0))
    t = (clipped - lower).astype(np.float32)
    return (lower, 1 - t), (np.minimum(lower + 1, size - 1), t)


def upsample_labels(target: LabelMap, spacing_mm: ArrayLike) -> LabelMap:
    """Return the target resampled by nearest neighbour to a spacing over its own extent (paper).

    Only the slab of slices that carry labels, and the gaps between them, is kept.
    """
    spacing = np.asarray(spacing_mm, dtype=np.float64)
    extent = np.array(target.shape) * target.spacing_mm
    shape = np.maximum(1, np.round(extent / spacing)).astype(int)
    position = [
        np.clip(((np.arange(n) + 0.5) * s / own - 0.5).round().astype(int), 0, size - 1)
        for n, s, own, size in zip(shape, spacing, target.spacing_mm, target.shape, strict=True)
    ]
    local = np.diag([*(spacing / target.spacing_mm), 1.0])
    local[:3, 3] = (spacing / target.spacing_mm - 1) / 2
    first, last = labelled_slices(target.array)[[0, -1]]
    keep = (position[2] >= first) & (position[2] <= last)
    local[2, 3] += local[2, 2] * int(np.flatnonzero(keep)[0])
    array = target.array[np.ix_(position[0], position[1], position[2][keep])]
    return LabelMap(array, multiply(target.voxel_to_world, local))
