"""Which atlases of a bank may vote on a target: canonical, each once, never the target itself."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from cardiacreg.atlases.atlas_anatomy import check_atlas_anatomy
from cardiacreg.errors import InvalidInputError, warn
from cardiacreg.geometry import N_LABELS, RV_WALL, STRUCTURES, LabelMap, Subject


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
        (MIRRORED_ATLAS).
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
