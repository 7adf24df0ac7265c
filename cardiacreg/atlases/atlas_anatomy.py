"""Whether an atlas is a heart: what its labels mean, and whether its landmarks lie as theirs do.

A bank in another label convention, or with landmarks of a mirrored heart, gives wrong models without a
word. So an atlas is checked when a bank is built, verified and used.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cardiacreg.anatomy.label_presets import fitting_presets
from cardiacreg.anatomy.plausibility import Sight, contradiction
from cardiacreg.errors import InvalidInputError
from cardiacreg.geometry import Landmarks, Subject, apply_matrix

_REACH_MM = 40.0
_LEAST_APART_MM = 1.0
_LONG_AXIS_MM = (30.0, 200.0)
_INSERTIONS_APART_MM = 10.0
_MIRRORED = "the landmarks are mirrored (anterior and inferior, or apex and base, swapped)"
_OTHER_SIDE = "the landmarks have the right ventricle on the other side than the labels"


def check_atlas_anatomy(subject: Subject, where: str) -> None:
    """Refuse an atlas that follows another label convention, or whose landmarks are of a mirrored heart.

    Parameters
    ----------
    subject : Subject
        Said to have canonical labels.
    where : str
        What the message begins with.

    Raises
    ------
    InvalidInputError
        WRONG_PRESET if the anatomy fits a preset and not canonical labels, or MIRRORED_ATLAS.
    """
    if (problem := anatomy_problem(subject)) is not None and "preset=" in problem:
        raise InvalidInputError(f"{where}: {problem}.", code="WRONG_PRESET")
    wrong = [each for each in landmark_problems(subject) if each in (_MIRRORED, _OTHER_SIDE)]
    if wrong:
        raise InvalidInputError(
            f"{where}: {wrong[0]}; correct the landmarks, or leave them away to have them derived from "
            "the labels.",
            code="MIRRORED_ATLAS",
        )


def anatomy_problem(subject: Subject) -> str | None:
    """Return what contradicts that an atlas has canonical labels, and which preset fits; None if nothing.

    Parameters
    ----------
    subject : Subject
    """
    sight = Sight.of(subject.labels)
    problem = contradiction(sight, sight.numbers)
    if problem is None:
        return None
    fitting = fitting_presets(subject.labels)
    advice = (
        "translate its labels, in Python open_atlas_folder(), or cardiacreg atlas build with "
        f"preset={' or '.join(map(repr, fitting))}"
        if fitting
        else "check its labels, or leave it away"
    )
    return f"it needs canonical labels, but {problem}; {advice}"


def landmark_problems(subject: Subject) -> list[str]:
    """Return what is unlike a heart in an atlas's landmarks, one line each.

    Parameters
    ----------
    subject : Subject
    """
    if subject.landmarks is None or not subject.labels.array.any():
        return []
    points = subject.landmarks.points_mm
    where = np.argwhere(subject.labels.array).astype(np.float64)
    heart: NDArray[np.float64] = apply_matrix(subject.labels.voxel_to_world, where)
    low, high = heart.min(axis=0) - _REACH_MM, heart.max(axis=0) + _REACH_MM
    found = []
    if ((points < low) | (points > high)).any():
        found.append(f"a landmark lies more than {_REACH_MM:.0f} mm beyond its heart")
    apart = np.linalg.norm(points[:, None] - points[None], axis=-1)
    if (apart[~np.eye(len(points), dtype=bool)] < _LEAST_APART_MM).any():
        found.append("two landmarks lie on each other")
    if len(points) == 6:
        found += _order_problems(subject.landmarks)
        found += _side_problems(subject.labels.array[tuple(where.astype(int).T)], heart, points)
    return found


def _order_problems(landmarks: Landmarks) -> list[str]:
    """What is unlike a heart in the places of the paper's six landmarks."""
    anterior, turning, inferior, lateral, apex, mitral = landmarks.points_mm
    axis, across, side = mitral - apex, anterior - inferior, turning - lateral
    length, width = float(np.linalg.norm(axis)), float(np.linalg.norm(across))
    found = []
    if not _LONG_AXIS_MM[0] <= length <= _LONG_AXIS_MM[1]:
        found.append(f"apex and mitral centre are {length:.0f} mm apart")
    if width < _INSERTIONS_APART_MM:
        found.append(f"the RV insertions are {width:.0f} mm apart")
    heights = (landmarks.points_mm[:4] - apex) @ axis / max(length**2, 1e-9)
    if heights.min() < 0 or heights.max() > 1:
        found.append("a landmark of the walls is not between apex and mitral centre")
    if np.linalg.det([across, side, axis]) >= 0:
        found.append(_MIRRORED)
    return found


def _side_problems(
    labels: NDArray[np.uint8], heart: NDArray[np.float64], points: NDArray[np.float64]
) -> list[str]:
    """Whether the labels' right ventricle is where the landmarks have it."""
    left, right = np.isin(labels, (1, 2)), np.isin(labels, (3, 4))
    if not left.any() or not right.any():
        return []
    across = heart[right].mean(axis=0) - heart[left].mean(axis=0)
    if across @ (points[1] - points[3]) <= 0:
        return [_OTHER_SIDE]
    return []
