"""The door of `refine`: what a target, its image, its landmarks and its atlases must fulfil.

Every check is a pure function: it returns what was found or placed, warns with `InputWarning` where
it goes on with a reservation, and raises `InvalidInputError` where it cannot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cardiacreg.algebra import invert
from cardiacreg.anatomy.landmark_order import check_landmark_order
from cardiacreg.atlases.checks import CheckedAtlases, check_atlases, check_label_set
from cardiacreg.errors import InvalidInputError, warn
from cardiacreg.geometry import (
    LV_CAVITY,
    LV_WALL,
    N_LABELS,
    RV_CAVITY,
    STRUCTURES,
    LabelMap,
    Landmarks,
    Volume,
    apply_matrix,
)
from cardiacreg.refinement.image_placement import check_image, place_image
from cardiacreg.slices import labelled_box

__all__ = [
    "CheckedAtlases",
    "TargetFindings",
    "check_atlases",
    "check_image",
    "check_labels",
    "check_landmarks",
    "check_target",
    "place_image",
]

_FEWEST_SLICES = 3
_FEWEST_VOXELS = 10
_FARTHEST_LANDMARK_MM = 60.0
_HEART_MM = (20.0, 150.0)
"""Diameter of a ball as large as the LV's wall and cavity: 50 to 100 mm over 200 frames of ACDC."""
_HEART_LENGTH_MM = (12.0, 250.0)


@dataclass(frozen=True, slots=True)
class TargetFindings:
    """What `check_labels` and `check_target` found out about a target.

    Parameters
    ----------
    missing : tuple of int
        Canonical labels of LV cavity, LV wall and RV cavity that do not occur; RV wall is optional.
    gap_slices : tuple of int
        Slices without labels between labelled ones.
    image : Volume or None
        The image on the lattice of the labels; None when there is none that is of use.
    """

    missing: tuple[int, ...]
    gap_slices: tuple[int, ...]
    image: Volume | None = None


def check_target(labels: LabelMap, image: Volume | None) -> TargetFindings:
    """Check a target's canonical labels and put its image onto their lattice.

    Parameters
    ----------
    labels : LabelMap
        Canonical labels, slices along k.
    image : Volume or None
        The short-axis image, on the lattice of the labels or another one with parallel axes.

    Returns
    -------
    TargetFindings
        What is missing, and the image placed.

    Raises
    ------
    InvalidInputError
        As `check_labels` and `check_image`.
    """
    found = check_labels(labels)
    placed = None if image is None else check_image(image, labels)
    return TargetFindings(found.missing, found.gap_slices, placed)


def check_labels(labels: LabelMap) -> TargetFindings:
    """Check that a target shows enough of a heart to be refined.

    Parameters
    ----------
    labels : LabelMap
        Canonical labels, slices along k.

    Returns
    -------
    TargetFindings
        Structures that are missing and slices left out, without an image.

    Raises
    ------
    InvalidInputError
        If there are no labels (EMPTY_LABELS), others than 0 to 4 (UNEXPECTED_LABEL), labels in fewer
        than 3 slices (TOO_FEW_SLICES), or of a size that no heart has (IMPLAUSIBLE_SIZE).

    Warns
    -----
    InputWarning
        If a structure is missing or tiny, or slices between labelled ones are empty.
    """
    labelled_box(labels)
    check_label_set(labels, "labels")
    counts = np.bincount(labels.array.ravel(), minlength=N_LABELS)
    slices = np.flatnonzero(labels.array.any(axis=(0, 1)))
    if len(slices) < _FEWEST_SLICES:
        raise InvalidInputError(
            f"labels: {len(slices)} of {labels.shape[2]} slices along the last axis hold labels; "
            f"needs at least {_FEWEST_SLICES}, or the long axis is undetermined. If the slices lie "
            "along another axis, move it to the end.",
            code="TOO_FEW_SLICES",
        )
    _check_size(labels, len(slices))
    missing = tuple(label for label in (LV_CAVITY, LV_WALL, RV_CAVITY) if not counts[label])
    gaps = tuple(int(k) for k in np.setdiff1d(np.arange(slices[0], slices[-1]), slices))
    _warn_about_labels(counts, missing, gaps)
    return TargetFindings(missing, gaps)


def _check_size(labels: LabelMap, n_slices: int) -> None:
    """Raise where the LV, or whatever is labelled without one, is far from the size of a heart."""
    left = np.isin(labels.array, (LV_CAVITY, LV_WALL))
    what, shown = ("LV's wall and cavity", left) if left.any() else ("labels", labels.array > 0)
    spacing = labels.spacing_mm
    ml = np.count_nonzero(shown) * float(spacing.prod()) / 1000
    ball_mm, length_mm = (6000 * ml / np.pi) ** (1 / 3), n_slices * float(spacing[2])
    (least, most), (shortest, longest) = _HEART_MM, _HEART_LENGTH_MM
    if least <= ball_mm <= most and shortest <= length_mm <= longest:
        return
    hint = next(
        (
            f" In {unit} it would be a heart: multiply the matrix by {factor:g}."
            for unit, factor in (("metres", 1000.0), ("centimetres", 10.0), ("micrometres", 0.001))
            if least <= ball_mm * factor <= most and shortest <= length_mm * factor <= longest
        ),
        "",
    )
    raise InvalidInputError(
        f"labels: the {what} fill {ml:.3g} ml over {n_slices} slices that are {length_mm:.3g} mm long, "
        f"at a spacing of {' x '.join(f'{each:.3g}' for each in spacing)} mm; needs the size of a heart, "
        f"a ball of {least:g} to {most:g} mm and {shortest:g} to {longest:g} mm along the slices. Check "
        f"the unit and the spacing of the matrix, and the preset.{hint}",
        code="IMPLAUSIBLE_SIZE",
    )


def _warn_about_labels(
    counts: NDArray[np.int64], missing: tuple[int, ...], gaps: tuple[int, ...]
) -> None:
    if missing:
        warn(
            f"labels: {_named(missing)} missing; the rest is refined, and what is missing comes "
            "from the atlases alone."
        )
    tiny = tuple(label for label in STRUCTURES if 0 < counts[label] < _FEWEST_VOXELS)
    if tiny:
        warn(f"labels: {_named(tiny)} of fewer than {_FEWEST_VOXELS} voxels; is it noise?")
    if gaps:
        warn(
            f"labels: slices {list(gaps)} are empty between labelled slices; they are filled from "
            "the atlases."
        )


def _named(labels: Sequence[int]) -> str:
    return " and ".join(STRUCTURES[label] for label in labels)


def check_landmarks(landmarks: Landmarks, labels: LabelMap) -> None:
    """Check that landmarks lie at the heart, and guess the reason where they do not.

    Parameters
    ----------
    landmarks : Landmarks
        World RAS+ mm.
    labels : LabelMap
        The labels of the same subject.

    Raises
    ------
    InvalidInputError
        If a point is more than 60 mm outside the bounding box of the labels (LANDMARKS_OUTSIDE), or
        the six points fit in another order (BAD_LANDMARKS) or space (LANDMARK_SPACE).
    """
    points = landmarks.points_mm
    distance = _distance_to_box_mm(points, labels)
    if distance.max() <= _FARTHEST_LANDMARK_MM:
        check_landmark_order(landmarks, labels)
        return
    worst = int(distance.argmax())
    if _distance_to_box_mm(points * (-1, -1, 1), labels).max() <= _FARTHEST_LANDMARK_MM:
        hint = "With x and y negated they fit: they seem to be LPS, and RAS is needed."
    elif _look_like_voxels(points, labels):
        hint = "As voxel indices they fit: use Landmarks.from_voxels."
    else:
        hint = "Are they of this subject, in RAS (not LPS), and in mm (not voxels)?"
    raise InvalidInputError(
        f"landmarks: {landmarks.names[worst]!r} at {points[worst].round(1).tolist()} is "
        f"{distance[worst]:.0f} mm outside the labels; needs points within "
        f"{_FARTHEST_LANDMARK_MM:.0f} mm. {hint}",
        code="LANDMARKS_OUTSIDE",
    )


def _look_like_voxels(points: NDArray[np.float64], labels: LabelMap) -> bool:
    moved = apply_matrix(labels.voxel_to_world, points)
    return bool(_distance_to_box_mm(moved, labels).max() <= _FARTHEST_LANDMARK_MM)


def _distance_to_box_mm(points_mm: NDArray[np.float64], labels: LabelMap) -> NDArray[np.float64]:
    """Return the distance of each point to the labels' bounding box along the lattice's axes."""
    box = labelled_box(labels)
    first = np.array([side.start for side in box], dtype=np.float64)
    last = np.array([side.stop for side in box], dtype=np.float64) - 1
    voxels = apply_matrix(np.asarray(invert(labels.voxel_to_world), np.float64), points_mm)
    beyond = np.maximum(first - voxels, 0) + np.maximum(voxels - last, 0)
    return np.asarray(np.linalg.norm(beyond * labels.spacing_mm, axis=-1))
