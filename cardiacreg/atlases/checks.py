"""Which atlases of a bank may vote on a target: canonical hearts, each once, never the target itself.

A bank in another label convention, or with landmarks of a mirrored heart, gives wrong models without a
word. So an atlas is checked when a bank is built, verified and used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cardiacreg.algebra import determinants, length, multiply
from cardiacreg.anatomy.label_presets import fitting_presets
from cardiacreg.anatomy.landmark_order import check_landmark_order
from cardiacreg.anatomy.plausibility import Sight, contradiction
from cardiacreg.errors import InvalidInputError, kept_warnings, warn
from cardiacreg.geometry import (
    N_LABELS,
    RV_WALL,
    STRUCTURES,
    LabelMap,
    Landmarks,
    Subject,
    apply_matrix,
)

_REACH_MM = 40.0
_LEAST_APART_MM = 1.0
_LONG_AXIS_MM = (30.0, 200.0)
_INSERTIONS_APART_MM = 10.0
_MIRRORED = "the landmarks are mirrored (anterior and inferior, or apex and base, swapped)"
_OTHER_SIDE = "the landmarks have the right ventricle on the other side than the labels"


@dataclass(frozen=True, slots=True)
class CheckedAtlases:
    """Which atlases of a bank may be used for a target.

    Parameters
    ----------
    indices : tuple of int
        Positions in the bank, ascending.
    n_atlases : int
        How many to select: what was asked for, or all where there are fewer.
    """

    indices: tuple[int, ...]
    n_atlases: int


def check_atlases(
    atlases: Sequence[Subject],
    target: LabelMap | None,
    n_atlases: int,
    *,
    positions: Sequence[int] | None = None,
) -> CheckedAtlases:
    """Find the atlases that may be used for a target; reads each atlas once, one at a time.

    Parameters
    ----------
    atlases : sequence of Subject
        The bank, in memory or lazy.
    target : LabelMap or None
        The target's canonical labels; an atlas that equals it is left out. None leaves none out.
    n_atlases : int
        How many are to be selected (L in the paper).
    positions : sequence of int, optional
        The only ones to look at, ascending; all when absent.

    Returns
    -------
    CheckedAtlases
        Positions of the atlases to choose from, and how many to choose.

    Raises
    ------
    InvalidInputError
        If there is no atlas or none but the target itself (EMPTY_BANK), or one is not a Subject
        (BAD_TYPE), is empty (EMPTY_LABELS), holds other labels than 0 to 4 (UNEXPECTED_LABEL), or is
        no heart as it stands (WRONG_PRESET, MIRRORED_ATLAS).

    Warns
    -----
    InputWarning
        If atlases occur twice or equal the target, only some have an RV wall, or there are fewer
        than asked for.
    """
    keys, walls = {}, {}
    for position in range(len(atlases)) if positions is None else positions:
        atlas = atlases[position]
        check_atlas(atlas, position)
        keys[position] = label_key(atlas.labels)
        walls[position] = RV_WALL in atlas.labels.present()
    indices = _first_of_each(keys)
    if target is not None:
        indices = _without(indices, keys, label_key(target))
    if not indices:
        raise InvalidInputError(
            f"atlases: none of {len(keys)} can be used; needs at least one atlas other than the "
            "target itself.",
            code="EMPTY_BANK",
        )
    without_wall = [position for position in indices if not walls[position]]
    if 0 < len(without_wall) < len(indices):
        warn(f"atlases: {_listed(without_wall)} have no RV wall while others do; it votes thinner.")
    if n_atlases > len(indices):
        warn(f"atlases: {n_atlases} asked for, {len(indices)} there; all of them are used.")
    return CheckedAtlases(tuple(indices), min(n_atlases, len(indices)))


def check_atlas(atlas: Any, position: int) -> None:
    """Check one atlas; `position` is its place in the bank, for the message.

    Parameters
    ----------
    atlas : Subject
        With canonical labels.
    position : int
        Its place in the bank.

    Raises
    ------
    InvalidInputError
        If it is not a Subject (BAD_TYPE), is empty (EMPTY_LABELS), holds other labels than 0 to 4
        (UNEXPECTED_LABEL), or is no heart under these (WRONG_PRESET) or with its landmarks
        (MIRRORED_ATLAS, BAD_LANDMARKS, LANDMARK_SPACE).
    """
    if not isinstance(atlas, Subject):
        raise InvalidInputError(
            f"atlas {position}: is a {type(atlas).__name__}; needs a Subject.", code="BAD_TYPE"
        )
    where = f"atlas {position}" + (f" ({atlas.name})" if atlas.name else "")
    if not atlas.labels.array.any():
        raise InvalidInputError(
            f"{where}: all voxels are background; remove it from the bank.", code="EMPTY_LABELS"
        )
    check_label_set(atlas.labels, where)
    check_atlas_anatomy(atlas, where)


def check_label_set(labels: LabelMap, where: str) -> None:
    """Check that a map holds canonical labels only; `where` opens the message.

    Parameters
    ----------
    labels : LabelMap
        Labels to check.
    where : str
        What they are, for the message.

    Raises
    ------
    InvalidInputError
        If a label above 4 occurs (UNEXPECTED_LABEL).
    """
    unexpected = [label for label in labels.present() if label >= N_LABELS]
    if unexpected:
        names = ", ".join(f"{label} {name}" for label, name in STRUCTURES.items())
        raise InvalidInputError(
            f"{where}: holds the values {unexpected}; needs canonical labels ({names}): translate "
            "them with canonical_labels and the preset of the data.",
            code="UNEXPECTED_LABEL",
        )


def label_key(labels: LabelMap) -> str:
    """Return a digest of labels and spacing, equal for the same heart with another margin or place.

    Parameters
    ----------
    labels : LabelMap
        Any label map; position in the world and empty margins do not matter.
    """
    boxes = ndimage.find_objects((labels.array > 0).astype(np.uint8))
    cropped = labels.array[boxes[0]] if boxes else labels.array[:0, :0, :0]
    head = f"{cropped.shape} {np.rint(labels.spacing_mm * 1000).astype(int).tolist()}"
    return hashlib.sha256(head.encode() + cropped.tobytes()).hexdigest()


def _first_of_each(keys: Mapping[int, str]) -> list[int]:
    first: dict[str, int] = {}
    for position, key in keys.items():
        first.setdefault(key, position)
    kept = sorted(first.values())
    repeated = sorted(set(keys) - set(kept))
    if repeated:
        warn(f"atlases: {_listed(repeated)} repeat the labels of others; each is used once.")
    return kept


def _without(indices: list[int], keys: Mapping[int, str], target_key: str) -> list[int]:
    same = [position for position in indices if keys[position] == target_key]
    if same:
        warn(f"atlases: {_listed(same)} is the target itself and is left out.")
    return [position for position in indices if position not in same]


def _listed(positions: Sequence[int]) -> str:
    shown = ", ".join(str(position) for position in positions[:10])
    more = f" and {len(positions) - 10} more" if len(positions) > 10 else ""
    return f"number {shown}{more}"


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
        WRONG_PRESET if the anatomy fits a preset and not canonical labels; MIRRORED_ATLAS, or
        BAD_LANDMARKS or LANDMARK_SPACE where landmarks fit the labels in another order or space.
    """
    if (problem := anatomy_problem(subject)) is not None and "preset=" in problem:
        raise InvalidInputError(f"{where}: {problem}.", code="WRONG_PRESET")
    mistaken = _order_error(subject)
    if mistaken is not None:
        raise InvalidInputError(f"{where}: {mistaken}", code=mistaken.code)
    wrong = [each for each in landmark_problems(subject) if each in (_MIRRORED, _OTHER_SIDE)]
    if wrong:
        raise InvalidInputError(
            f"{where}: {wrong[0]}; correct the landmarks, or leave them away to have them derived from "
            "the labels.",
            code="MIRRORED_ATLAS",
        )


def _order_error(subject: Subject) -> InvalidInputError | None:
    """Return what the labels say against the order or space of the landmarks."""
    if subject.landmarks is None:
        return None
    try:
        with kept_warnings():
            check_landmark_order(subject.landmarks, subject.labels)
    except InvalidInputError as error:
        return error
    return None


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
    if not found and (mistaken := _order_error(subject)) is not None:
        found.append(str(mistaken))
    return found


def _order_problems(landmarks: Landmarks) -> list[str]:
    """What is unlike a heart in the places of the paper's six landmarks."""
    anterior, turning, inferior, lateral, apex, mitral = landmarks.points_mm
    axis, across, side = mitral - apex, anterior - inferior, turning - lateral
    tall, width = length(axis), length(across)
    found = []
    if not _LONG_AXIS_MM[0] <= tall <= _LONG_AXIS_MM[1]:
        found.append(f"apex and mitral centre are {tall:.0f} mm apart")
    if width < _INSERTIONS_APART_MM:
        found.append(f"the RV insertions are {width:.0f} mm apart")
    heights = multiply(landmarks.points_mm[:4] - apex, axis) / max(tall**2, 1e-9)
    if heights.min() < 0 or heights.max() > 1:
        found.append("a landmark of the walls is not between apex and mitral centre")
    if determinants([across, side, axis]) >= 0:
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
    if multiply(across, points[1] - points[3]) <= 0:
        return [_OTHER_SIDE]
    return []
