"""Images onto the lattice of their labels: accepted, resampled or refused.

Image and labels of one scan often come on different lattices (cropped, padded, flipped), which
their matrices make good, and sometimes on lattices that contradict each other, which nothing does.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cardiacreg.errors import InvalidInputError, warn
from cardiacreg.geometry import LabelMap, Volume, apply_matrix, corner_distance_mm
from cardiacreg.slices import labelled_box

_SAME_LATTICE_MM = 1e-3
_LARGEST_SHIFT_VOXELS = 0.5
_LARGEST_SKEW = 1e-3


def check_image(image: Volume, labels: LabelMap) -> Volume | None:
    """Return the image on the lattice of the labels, or None if it shows nothing.

    Parameters
    ----------
    image : Volume
        The image of the target.
    labels : LabelMap
        The target's labels.

    Returns
    -------
    Volume or None
        The image itself where the lattices agree; resampled linearly where they are parallel and
        overlap; None where the intensities around the labels are constant.

    Raises
    ------
    InvalidInputError
        If the shapes agree and the matrices differ by more than half a voxel, or the lattices are
        not parallel or do not overlap (LATTICE_MISMATCH); if there are no labels (EMPTY_LABELS).

    Warns
    -----
    InputWarning
        If the matrices differ by up to half a voxel, the image covers only a part of the labels, or
        is constant.
    """
    placed = _place_or_refuse(image, labels)
    around = placed.array[labelled_box(labels)]
    if around.min() == around.max():
        warn(
            f"image: the intensities around the labels are constant ({around.min():g}); the image "
            "is left aside and the labels alone are used."
        )
        return None
    return placed


def _place_or_refuse(image: Volume, labels: LabelMap) -> Volume:
    if image.shape != labels.shape or _same_box(image, labels):
        return place_image(image, labels)
    distance = corner_distance_mm(labels.shape, image.voxel_to_world, labels.voxel_to_world)
    if distance <= _SAME_LATTICE_MM:
        return image
    shift = _corner_shift_voxels(image, labels)
    if shift <= _LARGEST_SHIFT_VOXELS:
        warn(
            f"image: its matrix differs from that of the labels by up to {distance:.3g} mm "
            f"({shift:.2f} voxels); that of the labels is used for both."
        )
        return Volume(image.array, labels.voxel_to_world)
    raise InvalidInputError(
        f"image: same shape as the labels {labels.shape}, but placed up to {distance:.3g} mm "
        f"({shift:.1f} voxels) away; needs matrices that agree within half a voxel: repair the "
        "header that is wrong.",
        code="LATTICE_MISMATCH",
    )


def _same_box(image: Volume, labels: LabelMap) -> bool:
    """Return whether the image is the labels' lattice with axes flipped or exchanged."""
    to_labels = np.linalg.inv(labels.voxel_to_world) @ image.voxel_to_world
    if np.abs(to_labels[:3, :3] - np.eye(3)).max() < 0.5 or _signed_permutation(to_labels) is None:
        return False
    corners = apply_matrix(to_labels, _corners(image.shape))
    ends = np.array([np.zeros(3), np.array(labels.shape) - 1.0])
    found = np.array([corners.min(axis=0), corners.max(axis=0)])
    return bool(np.abs(found - ends).max() <= _LARGEST_SHIFT_VOXELS)


def _corners(shape: tuple[int, int, int]) -> NDArray[np.float64]:
    last = np.array(shape, dtype=np.float64) - 1
    return np.array(np.meshgrid(*zip(np.zeros(3), last, strict=True))).reshape(3, -1).T


def _corner_shift_voxels(image: Volume, labels: LabelMap) -> float:
    to_labels = np.linalg.inv(labels.voxel_to_world) @ image.voxel_to_world
    corners = _corners(labels.shape)
    return float(np.abs(apply_matrix(to_labels, corners) - corners).max())


def _signed_permutation(matrix: NDArray[np.float64]) -> NDArray[np.int64] | None:
    """Return which axis each axis of a parallel lattice follows, or None if it is not parallel."""
    directions = matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0)
    axes = np.abs(directions).argmax(axis=0)
    skew = np.abs(np.abs(directions) - np.eye(3)[:, axes]).max()
    return axes if skew <= _LARGEST_SKEW and len(set(axes.tolist())) == 3 else None


def place_image(image: Volume, labels: LabelMap) -> Volume:
    """Resample an image linearly onto the lattice of the labels; 0 outside the image.

    Parameters
    ----------
    image : Volume
        Any lattice whose axes are parallel to those of the labels, in any order and direction.
    labels : LabelMap
        Gives the lattice.

    Returns
    -------
    Volume
        Shape and matrix of the labels; exactly the image's values where voxel centres coincide.

    Raises
    ------
    InvalidInputError
        If the axes are not parallel or no labelled voxel lies in the image (LATTICE_MISMATCH).

    Warns
    -----
    InputWarning
        If a part of the labelled voxels lies outside the image.
    """
    # Directions are compared in world mm: in voxels, anisotropy would distort the angle.
    turned = np.linalg.inv(_directions(labels)) @ _directions(image)
    if _signed_permutation(turned) is None:
        raise InvalidInputError(
            f"image: its axes (shape {image.shape}) are not parallel to those of the labels (shape "
            f"{labels.shape}); needs the short-axis stack that was segmented.",
            code="LATTICE_MISMATCH",
        )
    to_image = np.linalg.inv(image.voxel_to_world) @ labels.voxel_to_world
    snapped = np.rint(to_image)
    to_image = np.where(np.abs(to_image - snapped) < 1e-4, snapped, to_image)
    _check_overlap(labels, to_image, image.shape)
    array = ndimage.affine_transform(
        image.array,
        to_image[:3, :3],
        to_image[:3, 3],
        output_shape=labels.shape,
        output=np.float32,
        order=1,
        mode="grid-constant",
    )
    return Volume(array, labels.voxel_to_world)


def _directions(grid: Volume | LabelMap) -> NDArray[np.float64]:
    directions = np.eye(4)
    directions[:3, :3] = grid.voxel_to_world[:3, :3] / grid.spacing_mm
    return directions


def _check_overlap(
    labels: LabelMap, to_image: NDArray[np.float64], shape: tuple[int, int, int]
) -> None:
    voxels = apply_matrix(to_image, np.argwhere(labels.array).astype(np.float64))
    limit = np.array(shape) - 0.5
    inside = float(((voxels >= -0.5) & (voxels <= limit)).all(axis=1).mean())
    if inside == 0:
        raise InvalidInputError(
            "image: none of the labelled voxels lies inside the image; needs the image that was "
            "segmented, so check both headers.",
            code="LATTICE_MISMATCH",
        )
    if inside < 1:
        warn(f"image: only {inside:.1%} of the labelled voxels lie inside it; 0 is used outside.")
