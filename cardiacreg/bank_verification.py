"""Whether a bank on disk is what was put into it: hashes, geometry, labels, landmarks."""

from __future__ import annotations

import os
from collections import Counter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cardiacreg.atlas_bank import AtlasBank, label_hash
from cardiacreg.geometry import N_LABELS, Subject, apply_matrix

_REACH_MM = 40.0
_LEAST_APART_MM = 1.0
_SPACING_MM = (0.1, 20.0)


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
        Empty where all is well. Checked are: hashes of labels and images; voxel sizes; labels 0 to 4
        with an LV cavity and wall among them; landmarks near the heart and apart from each other;
        copies of one atlas.

    Raises
    ------
    InvalidInputError
        If the folder does not open as a bank.
    """
    bank = AtlasBank(folder)
    problems = []
    for number in range(len(bank)):
        subject = bank.without_image(number)
        name = subject.name or str(number)
        found = [*_hash_problems(bank, number, subject), *_grid_problems(subject)]
        found += [*_label_problems(subject), *_landmark_problems(subject)]
        problems += [Problem(name, what) for what in found]
    counts = Counter(bank.label_hashes)
    for name, digest in zip(bank.names, bank.label_hashes, strict=True):
        if digest is not None and counts[digest] > 1:
            problems.append(Problem(name, "its labels occur more than once"))
    return tuple(problems)


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
    spacing = subject.labels.spacing_mm
    if spacing.min() < _SPACING_MM[0] or spacing.max() > _SPACING_MM[1]:
        return [f"its voxels are {spacing.round(3).tolist()} mm wide"]
    return []


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
    return found
