"""Thick, shifted, incomplete slices made from a high-resolution heart, with the true shifts.

Imitates a clinical short-axis stack as in Duan et al. 2019, Section III-F: slices averaged over
their thickness, each moved in its plane by breathing, the apical ones lost.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import affine_transform

from cardiacreg.errors import InvalidInputError
from cardiacreg.geometry import LV_CAVITY, LV_WALL, LabelMap, Subject, Volume
from cardiacreg.landmarks import base_is_at_last_slice, landmarks_from_labels
from cardiacreg.slice_turns import rotation, slice_axis_mm

_FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class LowResolution:
    """A simulated thick-slice stack and the truth it was made from.

    Parameters
    ----------
    subject : Subject
        The stack: labels, image if there was one, no landmarks.
    slice_shifts_mm : ndarray, shape (n_slices, 2), float64
        The correction of each slice along the stack's i and j axes, in mm: **true position = stored
        position + slice_shifts_mm**.
    reference : LabelMap
        The high-resolution labels at their true place, cut at the base as the stack is.
    slice_turns_degrees : ndarray, shape (n_slices,), float64
        The turn of each slice after its shift, from axis i towards axis j, about the mean in-plane
        position of the labels.
    """

    subject: Subject
    slice_shifts_mm: _FloatArray
    reference: LabelMap
    slice_turns_degrees: _FloatArray


def simulate_low_resolution(
    subject: Subject,
    *,
    seed: int,
    slice_thickness_mm: float = 10.0,
    in_plane_spacing_mm: float | None = None,
    shift_sd_mm: float = 2.5,
    turn_sd_degrees: float = 0.0,
    lost_apical_slices: int = 1,
    drop_lost_slices: bool = True,
    cut_base_mm: float = 0.0,
) -> LowResolution:
    """Degrade a high-resolution heart into a thick-slice stack.

    Parameters
    ----------
    subject : Subject
        Labels and, optionally, an image on the same grid.
    seed : int
        Seed of the shifts and of where the first slice starts.
    slice_thickness_mm : float
        Slice thickness and distance; at least the input's.
    in_plane_spacing_mm : float, optional
        Pixel size; the input's by default.
    shift_sd_mm : float
        Standard deviation of a slice's shift along each in-plane axis; 2.5 gives a mean length of
        about 3.1 mm.
    turn_sd_degrees : float
        Standard deviation of a slice's turn in its plane.
    lost_apical_slices : int
        Number of apical slices with labels to lose.
    drop_lost_slices : bool
        Whether lost slices, and all beyond them, leave the stack; otherwise they lose their labels.
    cut_base_mm : float
        Where above 0, labels higher than this far below the mitral valve centre are removed first.

    Returns
    -------
    LowResolution
        Labels by majority over the shifted slice, image by its mean; the true shifts.

    Raises
    ------
    InvalidInputError
        If image and labels have different grids, the thickness is below the input's, or the loss
        leaves no labelled slice.
    """
    _check(subject, slice_thickness_mm, lost_apical_slices)
    labels = subject.labels
    if cut_base_mm > 0:
        landmarks = subject.landmarks or landmarks_from_labels(labels)
        labels = cut_base(labels, landmarks.points_mm[5], below_mm=cut_base_mm)
    rng = np.random.default_rng([seed, 7])
    spacing = labels.spacing_mm
    weights, first_mm = _slice_weights(labels.shape[2], spacing[2], slice_thickness_mm, rng)
    shifts_mm = rng.normal(0.0, shift_sd_mm, size=(len(weights), 2))
    turns = rng.normal(0.0, turn_sd_degrees, size=len(weights))
    placed = _Placement(weights, shifts_mm, turns, slice_axis_mm(labels))
    pixel = spacing[:2] if in_plane_spacing_mm is None else np.full(2, float(in_plane_spacing_mm))
    matrix = _stack_matrix(labels, pixel, slice_thickness_mm, first_mm)
    stack = _label_stack(labels, placed, pixel)
    image = None
    if subject.image is not None:
        image = _moved_slices(subject.image.array, placed, spacing, pixel)
    kept = _lose_apex(stack, lost_apical_slices, drop_lost_slices)
    matrix[:3, 3] += matrix[:3, 2] * kept.start
    degraded = replace(
        subject,
        labels=LabelMap(stack[:, :, kept], matrix),
        image=None if image is None else Volume(image[:, :, kept], matrix),
        landmarks=None,
    )
    return LowResolution(degraded, shifts_mm[kept], labels, turns[kept])


def cut_base(labels: LabelMap, point_mm: ArrayLike, *, below_mm: float = 0.0) -> LabelMap:
    """Remove the labels on the basal side of a plane across the slice axis.

    Parameters
    ----------
    labels : LabelMap
        Canonical labels.
    point_mm : array_like, shape (3,)
        A world point in mm in the basal half of the LV, for instance the mitral valve centre; it tells
        which end is the base.
    below_mm : float
        How far towards the apex from the point the plane lies.

    Returns
    -------
    LabelMap
        On the same grid.
    """
    point = np.append(np.asarray(point_mm, dtype=np.float64), 1.0)
    level = float((np.linalg.inv(labels.voxel_to_world) @ point)[2])
    held = np.flatnonzero(np.isin(labels.array, (LV_CAVITY, LV_WALL)).any(axis=(0, 1)))
    if len(held) == 0:
        raise InvalidInputError(
            "cut_base: no slice shows the LV; needs a heart.", code="TOO_FEW_SLICES"
        )
    towards_base = 1.0 if level >= held.mean() else -1.0
    level -= towards_base * below_mm / labels.spacing_mm[2]
    array = labels.array.copy()
    array[:, :, (np.arange(array.shape[2]) - level) * towards_base > 0] = 0
    return LabelMap(array, labels.voxel_to_world)


def _check(subject: Subject, slice_thickness_mm: float, lost_apical_slices: int) -> None:
    labels, image = subject.labels, subject.image
    if image is not None and (
        image.shape != labels.shape or not np.allclose(image.voxel_to_world, labels.voxel_to_world)
    ):
        raise InvalidInputError(
            f"simulate_low_resolution: image {image.shape} and labels {labels.shape} are on "
            "different grids; resample the image onto the labels first.",
            code="GRID_MISMATCH",
        )
    if slice_thickness_mm < labels.spacing_mm[2] - 1e-6:
        raise InvalidInputError(
            f"simulate_low_resolution: slice_thickness_mm is {slice_thickness_mm}; needs at least "
            f"the input's {labels.spacing_mm[2]:.2f} mm.",
            code="BAD_THICKNESS",
        )
    if lost_apical_slices < 0:
        raise InvalidInputError(
            f"simulate_low_resolution: lost_apical_slices is {lost_apical_slices}; needs >= 0.",
            code="BAD_LOST_SLICES",
        )


def _apex_is_first(array: NDArray[np.uint8]) -> bool:
    """Whether the ventricles taper towards low k."""
    area = np.isin(array, (LV_CAVITY, LV_WALL)).sum(axis=(0, 1))
    held = area[area > 0]
    if len(held) < 2:
        raise InvalidInputError(
            "degradation: the LV is labelled in fewer than 2 slices; needs a heart.",
            code="TOO_FEW_SLICES",
        )
    return base_is_at_last_slice(LabelMap(array, np.eye(4)))


def _slice_weights(
    depth: int, spacing_mm: float, thickness_mm: float, rng: np.random.Generator
) -> tuple[_FloatArray, float]:
    """Shares of the input's slices in each thick slice, (n, depth), and the first one's centre."""
    start = -0.5 * spacing_mm - rng.uniform(0.0, thickness_mm)
    count = int(np.ceil((depth * spacing_mm - 0.5 * spacing_mm - start) / thickness_mm))
    edges = start + thickness_mm * np.arange(count + 1)
    low = (np.arange(depth) - 0.5) * spacing_mm
    overlap = np.minimum(edges[1:, None], low + spacing_mm) - np.maximum(edges[:-1, None], low)
    return np.maximum(overlap, 0.0) / thickness_mm, start + 0.5 * thickness_mm


def _stack_matrix(
    labels: LabelMap, pixel_mm: _FloatArray, thickness_mm: float, first_mm: float
) -> _FloatArray:
    directions = labels.voxel_to_world[:3, :3] / labels.spacing_mm
    matrix = np.eye(4)
    matrix[:3, :3] = directions * np.array([*pixel_mm, thickness_mm])
    matrix[:3, 3] = labels.voxel_to_world[:3, 3] + directions[:, 2] * first_mm
    return matrix


class _Placement(NamedTuple):
    """Which input slices make each thick slice, and where it truly lies."""

    weights: _FloatArray
    shifts_mm: _FloatArray
    turns_degrees: _FloatArray
    axis_mm: _FloatArray


def _moved_slices(
    array: NDArray[np.float32],
    placed: _Placement,
    spacing_mm: _FloatArray,
    pixel_mm: _FloatArray,
) -> NDArray[np.float32]:
    """Average over each slice and sample every pixel where it truly lies."""
    counts = np.ceil(np.array(array.shape[:2]) * spacing_mm[:2] / pixel_mm - 1e-6).astype(int)
    stack = np.empty((int(counts[0]), int(counts[1]), len(placed.weights)), dtype=np.float32)
    axis = placed.axis_mm
    motion = zip(placed.weights, placed.shifts_mm, placed.turns_degrees, strict=True)
    for number, (share, shift, turn) in enumerate(motion):
        used = np.flatnonzero(share)
        plane = array[:, :, used] @ share[used].astype(np.float32)
        turned = rotation(turn)
        matrix = turned * pixel_mm / spacing_mm[:2, None]
        offset = axis + turned @ (shift - axis) if turn else shift
        with warnings.catch_warnings():  # older SciPy tells what a diagonal meant before 0.18
            warnings.simplefilter("ignore", UserWarning)
            stack[:, :, number] = affine_transform(
                plane,
                matrix if turn else np.diag(matrix),
                offset=offset / spacing_mm[:2],
                output_shape=tuple(counts),
                order=1,
                mode="nearest",
            )
    return stack


def _label_stack(labels: LabelMap, placed: _Placement, pixel_mm: _FloatArray) -> NDArray[np.uint8]:
    """Return the label with the largest mean share per pixel, after the sub-voxel shift of the shares."""
    values = np.array([0, *labels.present()], dtype=np.uint8)
    best: NDArray[np.float32] | None = None
    stack = np.zeros(0, dtype=np.uint8)
    outside = 1.0 - placed.weights.sum(axis=1)
    for value in values:
        indicator = (labels.array == value).astype(np.float32)
        share = _moved_slices(indicator, placed, labels.spacing_mm, pixel_mm)
        if best is None:
            best, stack = share + outside.astype(np.float32), np.zeros(share.shape, dtype=np.uint8)
            continue
        higher = share > best
        stack[higher] = value
        best = np.where(higher, share, best)
    return stack


def _lose_apex(stack: NDArray[np.uint8], lost: int, drop: bool) -> slice:
    """Remove the apical labelled slices, in place or by the returned range of slices to keep."""
    labelled = np.flatnonzero((stack > 0).any(axis=(0, 1)))
    if len(labelled) <= lost:
        raise InvalidInputError(
            f"simulate_low_resolution: {len(labelled)} slices have labels and {lost} are to be "
            "lost; lower lost_apical_slices or slice_thickness_mm.",
            code="TOO_FEW_SLICES",
        )
    if lost == 0:
        return slice(0, stack.shape[2])
    first = _apex_is_first(stack)
    gone = labelled[:lost] if first else labelled[-lost:]
    stack[:, :, gone] = 0
    if not drop:
        return slice(0, stack.shape[2])
    return slice(int(gone[-1]) + 1, stack.shape[2]) if first else slice(0, int(gone[0]))
