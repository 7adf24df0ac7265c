"""Whether a bank on disk is what was put into it: hashes, geometry, labels, landmarks."""

from __future__ import annotations

import os
from collections import Counter
from typing import NamedTuple

import numpy as np

from cardiacreg.algebra import multiply
from cardiacreg.atlases.bank import AtlasBank, label_hash
from cardiacreg.atlases.checks import anatomy_problem, landmark_problems
from cardiacreg.errors import InvalidInputError
from cardiacreg.geometry import N_LABELS, Subject

_SPACING_MM = (0.1, 20.0)
_MOST_COSINE = 0.05


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
        with an LV cavity and wall among them that lie as in a heart; landmarks near
        the heart and apart from each other, and where there are
        six, that apex, mitral centre, insertions and side walls lie as in a
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
    return problems_of(AtlasBank(folder))


def problems_of(bank: AtlasBank) -> tuple[Problem, ...]:
    """Return what `verify_atlas_bank` finds, of a bank that is open."""
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
    return [*found, *_label_problems(subject), *landmark_problems(subject)]


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
    cosine = float(np.abs(multiply(axes.T, axes) - np.eye(3)).max())
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
    if not found and (problem := anatomy_problem(subject)) is not None:
        found.append(problem)
    return found
