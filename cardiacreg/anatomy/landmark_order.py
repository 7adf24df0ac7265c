"""Whether landmarks are in the right order, of the right hand and in the right space, told by the labels.

The six points derived from the labels are a witness: given points in their right order lie nearest to
them as numbered. Another order that fits much better, or the same points turned from LPS, is told.
"""

from __future__ import annotations

from itertools import permutations

import numpy as np

from cardiacreg.anatomy.landmarks import base_is_uncertain, derive_landmarks
from cardiacreg.arrays import Float
from cardiacreg.errors import InvalidInputError, warn
from cardiacreg.geometry import (
    LANDMARK_NAMES,
    LV_CAVITY,
    RV_CAVITY,
    LabelMap,
    Landmarks,
    apply_matrix,
)

_ORDERS = np.array(list(permutations(range(6))))
_MIRRORED, _TURNED = (2, 1, 0, 3, 4, 5), (2, 1, 0, 3, 5, 4)
"""Which of the derived points each given one is, where the hand or the end of the base is the other."""
_CLEARLY_NEARER = 0.5
_FAR_MM = 12.0
_FAR_IN_SPACE_MM = 25.0
_OBLIQUE = np.cos(np.deg2rad(15.0))


def check_landmark_order(landmarks: Landmarks, labels: LabelMap) -> None:
    """Compare six landmarks with those that the labels show, as far as these show them.

    Parameters
    ----------
    landmarks : Landmarks
        World RAS+ mm. Other numbers of points than six, and points of ``source="labels"``, pass.
    labels : LabelMap
        Canonical labels of the same subject; without an RV, or with fewer than three slices of the LV,
        they tell nothing.

    Raises
    ------
    InvalidInputError
        If the points fit much better in another order (BAD_LANDMARKS) or space (LANDMARK_SPACE).

    Warns
    -----
    InputWarning
        If anterior and inferior are exchanged under a matrix that may mirror the heart, or apex and
        base where the labels leave that open; and instead of the error where nobody gave the points,
        as those of a network.
    """
    if len(landmarks.points_mm) != len(LANDMARK_NAMES) or landmarks.source == "labels":
        return
    witness = _witness(labels)
    if witness is None:
        return
    if landmarks.source == "given":
        _check_space(landmarks.points_mm, witness, labels)
    order = _better_order(landmarks.points_mm, witness)
    if order is None:
        return
    if order == _MIRRORED and not _is_oblique(labels):
        warn(
            "landmarks: anterior and inferior RV insertion are exchanged against what the labels' matrix "
            "says; right if that matrix mirrors the heart, as those of public data sets often do."
        )
        return
    if order == _TURNED and base_is_uncertain(labels):
        warn(
            "landmarks: apex and mitral valve centre lie at the other ends of the stack than the labels "
            "suggest; check them."
        )
        return
    text = (
        f"landmarks: in the order {'; '.join(LANDMARK_NAMES)} they do not fit the labels; the points "
        f"given seem to be, in their order, {'; '.join(LANDMARK_NAMES[n] for n in order)}. Put them into "
        "the first order, or leave them out to have them derived."
    )
    if landmarks.source == "given":
        raise InvalidInputError(text, code="BAD_LANDMARKS")
    warn(text)


def _witness(labels: LabelMap) -> Float | None:
    """The landmarks that the labels show, or None where they show too little."""
    slices = (labels.array == LV_CAVITY).any(axis=(0, 1)).sum()
    if slices < 3 or not (labels.array == RV_CAVITY).any():
        return None
    try:
        return derive_landmarks(labels).points_mm
    except InvalidInputError:
        return None


def _better_order(points: Float, witness: Float) -> tuple[int, ...] | None:
    """Return which derived point each given one is, if that fits much better than their order does."""
    apart = points[:, None] - points.mean(axis=0) - (witness - witness.mean(axis=0))
    squared = (apart**2).sum(axis=2)
    costs = squared[np.arange(6), _ORDERS].mean(axis=1)
    best = int(costs.argmin())
    given = float(np.sqrt(costs[0]))
    if given < _FAR_MM or np.sqrt(costs[best]) > _CLEARLY_NEARER * given:
        return None
    return tuple(int(n) for n in _ORDERS[best])


def _check_space(points: Float, witness: Float, labels: LabelMap) -> None:
    given = _distance(points, witness)
    spaces = {
        "With x and y negated they fit: they seem to be LPS, and RAS is needed.": points
        * np.array([-1.0, -1.0, 1.0]),
        "As voxel indices they fit: use Landmarks.from_voxels.": apply_matrix(
            labels.voxel_to_world, points
        ),
    }
    for hint, moved in spaces.items():
        if given > _FAR_IN_SPACE_MM and _distance(moved, witness) < _CLEARLY_NEARER * given:
            raise InvalidInputError(
                f"landmarks: they are {given:.0f} mm away, on average, from where the labels show "
                f"them. {hint}",
                code="LANDMARK_SPACE",
            )


def _distance(points: Float, witness: Float) -> float:
    return float(np.linalg.norm(points - witness, axis=1).mean())


def _is_oblique(labels: LabelMap) -> bool:
    """Whether the slices lie as a scanner's do, so that their matrix is one of the patient."""
    normal = labels.voxel_to_world[:3, 2] / labels.spacing_mm[2]
    return bool(np.abs(normal).max() < _OBLIQUE)
