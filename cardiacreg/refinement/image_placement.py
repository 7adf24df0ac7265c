"""Images onto the lattice of their labels: accepted, resampled or refused.

Image and labels of one scan often come on different lattices (cropped, padded, flipped), which
their matrices make good, and sometimes on lattices that contradict each other, which nothing does.
An image of another patient is known by three signs: there the LV cavity is no brighter or darker than
its wall, or more so beside the labels, or the outlines of both cavities do not follow edges. Right images
of ACDC have a contrast of at least 0.79 at end-diastole and 0.38 at end-systole, and edges that agree by
0.67 and more, in one of 200 by 0.39. Limits were set on 17 patients. On the 83 others one sign or more is
seen in 156 of 166 images of the next patient, laid middle on middle (141 without the edges), and in none
of the 166 right ones (``python -m benchmarks other_image``). One right image, of a cavity that is almost
closed, set two things afterwards: the limit of the edges, first 0.4, and that edges must agree better
elsewhere as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cardiacreg.algebra import invert, multiply
from cardiacreg.errors import InvalidInputError, warn
from cardiacreg.geometry import (
    LV_CAVITY,
    LV_WALL,
    RV_CAVITY,
    LabelMap,
    Volume,
    apply_matrix,
    corner_distance_mm,
)
from cardiacreg.slices import labelled_box

_SAME_LATTICE_MM = 1e-3
_LARGEST_SHIFT_VOXELS = 0.5
_LARGEST_SKEW = 1e-3
_LEAST_CONTRAST = 0.3
_LEAST_EDGES = 0.33
_EDGE_SMOOTHING_MM = 1.5
_LARGEST_GAIN = 0.12
_STEP_MM, _STEPS = 6.0, 4
_FEWEST_PIXELS = 8
_MOST_LABELS = 20
_LABEL_SETS = (
    set(range(9)),
    {0, 205, 420, 421, 500, 550, 600, 820, 850},
    {0, 200, 500, 600, 1220, 2221},
)
_NOT_LABELS = ("UNKNOWN_LABEL", "FRACTIONAL_LABELS", "UNEXPECTED_LABEL")


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
        overlap; None where the intensities around the labels are constant, or are labels.

    Raises
    ------
    InvalidInputError
        If the shapes agree and the matrices differ by more than half a voxel, or the lattices are
        not parallel or do not overlap (LATTICE_MISMATCH); if there are no labels (EMPTY_LABELS).

    Warns
    -----
    InputWarning
        If the matrices differ by up to half a voxel, the image covers only a part of the labels, or
        is constant or a label map.
    """
    placed = _place_or_refuse(image, labels)
    values = np.unique(image.array[image.array != image.array.flat[0]])[: _MOST_LABELS + 1]
    held = {float(image.array.flat[0]), *values.tolist()}
    if 1 < len(held) and any(held <= each for each in _LABEL_SETS):
        warn(
            f"image: it holds the values {sorted(held)} only, as a label map does; it is left aside. "
            "Give the intensities that were segmented."
        )
        return None
    around = placed.array[labelled_box(labels)]
    if around.min() == around.max():
        warn(
            f"image: the intensities around the labels are constant ({around.min():g}); the image "
            "is left aside and the labels alone are used."
        )
        return None
    return placed


def check_contrast(image: Volume, labels: LabelMap) -> None:
    """Say where an image does not show this heart at this place.

    Parameters
    ----------
    image : Volume
        On the lattice of the labels.
    labels : LabelMap
        Canonical labels.

    Warns
    -----
    InputWarning
        If LV cavity and LV wall hardly differ in the image; if they differ clearly more where the labels
        would lie after a shift of 6 mm or more, and outlines follow its edges better there; or if the
        outlines of the cavities hardly follow its edges.
    """
    here = _contrast(image, labels, (0, 0))
    if here is None:
        return
    advice = "is it the image of this patient and frame, with the right header?"
    if abs(here) < _LEAST_CONTRAST:
        warn(
            f"image: LV cavity and LV wall hardly differ in it (contrast {abs(here):.2f} of 1; 0.4 and "
            f"more are usual); {advice}"
        )
        return
    edges = edge_agreement(image, labels)
    best, shift = _best_contrast(image, labels, abs(here))
    if best - abs(here) > _LARGEST_GAIN and _follow_edges_better(image, labels, shift, edges):
        distance = float(np.hypot(*(np.array(shift) * labels.spacing_mm[:2])))
        warn(
            f"image: the labels would fit it better {distance:.0f} mm away (contrast of LV cavity and "
            f"wall {best:.2f} there, {abs(here):.2f} here); {advice}"
        )
    elif edges is not None and abs(edges) < _LEAST_EDGES:
        warn(
            f"image: the outlines of the cavities hardly follow its edges (agreement {abs(edges):.2f} of "
            f"1; 0.6 and more are usual); {advice}"
        )


def _best_contrast(image: Volume, labels: LabelMap, here: float) -> tuple[float, tuple[int, int]]:
    """Return the largest contrast at shifts of up to 24 mm, and its shift in pixels."""
    step = np.maximum(np.rint(_STEP_MM / labels.spacing_mm[:2]), 1).astype(int)
    best, shift = here, (0, 0)
    for moved in product(range(-_STEPS, _STEPS + 1), repeat=2):
        pixels = (int(moved[0] * step[0]), int(moved[1] * step[1]))
        there = _contrast(image, labels, pixels)
        if there is not None and abs(there) > best:
            best, shift = abs(there), pixels
    return best, shift


def _follow_edges_better(
    image: Volume, labels: LabelMap, shift: tuple[int, int], here: float | None
) -> bool:
    moved = np.zeros_like(labels.array)
    found = np.argwhere(labels.array) + (*shift, 0)
    inside = ((found >= 0) & (found < labels.shape)).all(axis=1)
    moved[tuple(found[inside].T)] = labels.array[labels.array > 0][inside]
    there = edge_agreement(image, LabelMap(moved, labels.voxel_to_world))
    return there is not None and here is not None and abs(there) > abs(here)


def edge_agreement(image: Volume, labels: LabelMap) -> float | None:
    """Return how well the outlines of both cavities lie along edges of an image.

    The mean cosine between the gradients of image and cavity, both smoothed by 1.5 mm, on the outlines
    in the middle half of the slices that show the LV.

    Parameters
    ----------
    image : Volume
        On the lattice of the labels.
    labels : LabelMap
        Canonical labels.

    Returns
    -------
    float or None
        1 where blood is brighter than all around it, -1 where it is darker, about 0 where outlines and
        edges have nothing to do with each other; None without outlines.
    """
    spacing = labels.spacing_mm[:2]
    cosines = []
    for k in _middle_slices(labels):
        edges = _smooth_gradient(image.array[:, :, k], spacing)
        for cavity in (LV_CAVITY, RV_CAVITY):
            mask = labels.array[:, :, k] == cavity
            if np.count_nonzero(mask) < _FEWEST_PIXELS:
                continue
            outline = mask & ~ndimage.binary_erosion(mask)
            inwards = _smooth_gradient(mask, spacing)[:, outline]
            across = edges[:, outline]
            lengths = np.hypot(*inwards) * np.hypot(*across)
            cosines.append((inwards * across).sum(axis=0) / np.maximum(lengths, 1e-12))
    return float(np.mean(np.concatenate(cosines))) if cosines else None


def _smooth_gradient(plane: NDArray[Any], spacing_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    smooth = ndimage.gaussian_filter(plane.astype(np.float64), _EDGE_SMOOTHING_MM / spacing_mm)
    return np.stack(np.gradient(smooth, *spacing_mm))


def _middle_slices(labels: LabelMap) -> NDArray[np.int64]:
    """Return the middle half of the slices that show LV cavity and wall."""
    shown = [(labels.array == label).any(axis=(0, 1)) for label in (LV_CAVITY, LV_WALL)]
    slices = np.flatnonzero(np.logical_and(*shown))
    return slices[len(slices) // 4 : len(slices) - len(slices) // 4]


def _contrast(image: Volume, labels: LabelMap, shift: tuple[int, int]) -> float | None:
    """Return how surely a cavity pixel is brighter than a wall pixel, -1 to 1; None if there are none.

    Over the middle half of the slices that show both; `shift` moves the labels, pixels.
    """
    cavity, wall = labels.array == LV_CAVITY, labels.array == LV_WALL
    found = []
    for k in _middle_slices(labels):
        inside, around = (_under(image.array[:, :, k], m[:, :, k], shift) for m in (cavity, wall))
        n, m = len(inside), len(around)
        if min(n, m) >= _FEWEST_PIXELS:
            around.sort()
            below, up_to = (np.searchsorted(around, inside, side) for side in ("left", "right"))
            found.append((below + up_to).sum() / (n * m) - 1)
    return float(np.mean(found)) if found else None


def _under(
    plane: NDArray[np.float32], mask: NDArray[np.bool_], shift: tuple[int, int]
) -> NDArray[np.float32]:
    pixels = np.argwhere(mask) + shift
    i, j = pixels[((pixels >= 0) & (pixels < plane.shape)).all(axis=1)].T
    return np.asarray(plane[i, j], dtype=np.float32)


@contextmanager
def swapped_inputs_told(segmentation: Any, image: Any) -> Iterator[None]:
    """Add to an error about the values of a segmentation that it and the image seem to be swapped.

    Parameters
    ----------
    segmentation, image : as for `cardiacreg.refine`

    Raises
    ------
    InvalidInputError
        What was raised inside, with that advice where the image holds labels.
    """
    try:
        yield
    except InvalidInputError as error:
        if error.code not in _NOT_LABELS or image is None or not _holds_labels(image):
            raise
        raise InvalidInputError(
            f"{error} The image, for its part, holds a few whole numbers only, as a segmentation does: "
            "did you swap them?",
            code=error.code,
        ) from error


def _holds_labels(image: Any) -> bool:
    from cardiacreg.io.nifti import read_stored_labels

    for frame in (None, 0):
        try:
            found = read_stored_labels(image, frame=frame, check_spacing=False)
        except InvalidInputError:
            continue
        return 0 < len(found.values) <= _MOST_LABELS
    return False


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
    to_labels = multiply(invert(labels.voxel_to_world), image.voxel_to_world)
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
    to_labels = multiply(invert(labels.voxel_to_world), image.voxel_to_world)
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
    turned = multiply(invert(_directions(labels)), _directions(image))
    if _signed_permutation(turned) is None:
        raise InvalidInputError(
            f"image: its axes (shape {image.shape}) are not parallel to those of the labels (shape "
            f"{labels.shape}); needs the short-axis stack that was segmented.",
            code="LATTICE_MISMATCH",
        )
    to_image = multiply(invert(image.voxel_to_world), labels.voxel_to_world)
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
