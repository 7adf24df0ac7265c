"""Whether a bank on disk is what was put into it: hashes, geometry, labels, landmarks."""

from __future__ import annotations

import os
from collections import Counter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cardiacreg.atlases.bank import AtlasBank, label_hash
from cardiacreg.errors import InvalidInputError
from cardiacreg.geometry import N_LABELS, Landmarks, Subject, apply_matrix

_REACH_MM = 40.0
_LEAST_APART_MM = 1.0
_SPACING_MM = (0.1, 20.0)
_MOST_COSINE = 0.05
_LONG_AXIS_MM = (30.0, 200.0)
_INSERTIONS_APART_MM = 10.0


class Problem(NamedTuple):
    """What is wrong with which atlas."""

    atlas: str
    what: str


def verify_atlas_bank(folder: str | os.PathLike[str]) -> tuple[Problem, ...]:
    """Check every atlas of a bank.

    Parameters
    ----------
    folder : path
        A bank.

    Returns
    -------
    tuple of Problem
        Empty where all is well. Checked are: hashes of labels, images and index entries; matrices
        that can be inverted, with axes at right angles and voxels of a likely size; labels 0 to 4
        with an LV cavity and wall among them; landmarks near the heart and apart from each other,
        and where there are six, that apex, mitral centre, insertions and side walls lie as in a
        heart that is not mirrored, on the side where the labels are; copies of one atlas.

    Raises
    ------
    InvalidInputError
        If the folder does not open as a bank.

    Examples
    --------
    >>> from cardiacreg import build_atlas_bank, verify_atlas_bank
    >>> from cardiacreg.phantoms.toy_heart import make_toy_heart
    >>> bank = build_atlas_bank("checked_bank", [make_toy_heart()])
    >>> verify_atlas_bank("checked_bank")
    ()
    """
    bank = AtlasBank(folder)
    problems = []
    for number in range(len(bank)):
        name = bank.names[number] or str(number)
        problems += [Problem(name, what) for what in _problems(bank, number)]
    counts = Counter(bank.label_hashes)
    for name, digest in zip(bank.names, bank.label_hashes, strict=True):
        if digest is not None and counts[digest] > 1:
            problems.append(Problem(name, "its labels occur more than once"))
    return tuple(problems)


def _problems(bank: AtlasBank, number: int) -> list[str]:
    found = [] if bank.entry_is_intact(number) else ["its entry in the index was changed"]
    try:
        subject = bank.without_image(number)
    except (InvalidInputError, ValueError) as error:
        return [*found, f"it cannot be read ({error})"]
    found += [*_hash_problems(bank, number, subject), *_grid_problems(subject)]
    return [*found, *_label_problems(subject), *_landmark_problems(subject)]


def _hash_problems(bank: AtlasBank, number: int, subject: Subject) -> list[str]:
    kept = bank.label_hashes[number]
    if kept is None:
        return ["no hash was stored; build the bank again"]
    found = []
    if label_hash(subject.labels) != kept:
        found.append("its labels are not those that were stored")
    if bank.stored_image_hash(number) != bank.image_hashes[number]:
        found.append("its image is not the one that was stored")
    return found


def _grid_problems(subject: Subject) -> list[str]:
    spacing, found = subject.labels.spacing_mm, []
    if spacing.min() < _SPACING_MM[0] or spacing.max() > _SPACING_MM[1]:
        found.append(f"its voxels are {spacing.round(3).tolist()} mm wide")
    axes = subject.labels.voxel_to_world[:3, :3] / spacing
    cosine = float(np.abs(axes.T @ axes - np.eye(3)).max())
    if cosine > _MOST_COSINE:
        found.append(f"its axes are not at right angles (cosine {cosine:.2f})")
    return found


def _label_problems(subject: Subject) -> list[str]:
    present = subject.labels.present()
    found = []
    if any(label >= N_LABELS for label in present):
        found.append(f"it holds labels {list(present)}, needs 0 to {N_LABELS - 1}")
    if not {1, 2} <= set(present):
        found.append("it has no left ventricle (labels 1 and 2)")
    return found


def _landmark_problems(subject: Subject) -> list[str]:
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
        found.append(
            "the landmarks are mirrored (anterior and inferior, or apex and base, swapped)"
        )
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
        return ["the landmarks have the right ventricle on the other side than the labels"]
    return []
