"""Label conventions of public data sets, and the anatomical check that tells them apart.

Public short-axis segmentations number the same structures differently (1 is the RV cavity in ACDC
and the LV cavity in M&Ms), so a wrong convention gives a plausible file and a wrong heart. A preset
maps a convention to the canonical labels of `cardiacreg.geometry`; `check_anatomy` then asks the
map itself: the LV wall must enclose the LV cavity, and must not enclose the RV cavity. On the 200
ACDC maps the wall covers all of the LV cavity's mid-slice outline and 18 to 46 % of the RV
cavity's, so 70 % leaves a wide margin on both sides, at end systole and in hypertrophy too.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from cardiacreg.errors import InvalidInputError, warn
from cardiacreg.geometry import (
    LV_CAVITY,
    LV_WALL,
    N_LABELS,
    RV_CAVITY,
    RV_WALL,
    STRUCTURES,
    LabelMap,
)

PRESETS: dict[str, dict[int, int]] = {
    "sslln": {1: LV_CAVITY, 2: LV_WALL, 3: RV_WALL, 4: RV_CAVITY},
    "digital_heart": {1: LV_CAVITY, 2: LV_WALL, 4: RV_CAVITY},
    "acdc": {1: RV_CAVITY, 2: LV_WALL, 3: LV_CAVITY},
    "mms": {1: LV_CAVITY, 2: LV_WALL, 3: RV_CAVITY},
    # TotalSegmentator labels more than ventricles; everything else becomes background.
    "totalsegmentator": {1: LV_WALL, 2: 0, 3: LV_CAVITY, 4: 0, 5: RV_CAVITY, 6: 0, 7: 0},
    "totalsegmentator_v1": {
        **dict.fromkeys(range(1, 105), 0),
        44: LV_WALL,
        46: LV_CAVITY,
        48: RV_CAVITY,
    },
}
ALIASES: dict[str, str] = {
    "canonical": "sslln",
    "4dsegment": "sslln",
    "phsegment": "sslln",
    "mms2": "mms",
    "ukbb": "mms",
    "ukbb_cardiac": "mms",
    "heartchambers_highres": "totalsegmentator",
}

Preset = str | Mapping[int, int] | None

_LEAST_ENCLOSED = 0.70
_SHORTEST_OUTLINE = 12


def preset_mapping(preset: Preset) -> dict[int, int]:
    """Return the {their label: canonical label} mapping of a preset; 0 means background.

    Parameters
    ----------
    preset : str, mapping or None
        A name of `PRESETS` or `ALIASES` (any case), a mapping of its own, or None for ``"sslln"``.

    Raises
    ------
    InvalidInputError
        If the name is unknown (UNKNOWN_PRESET), or the mapping holds anything but labels from
        0 to 255 mapped to canonical labels from 0 to 4 (BAD_PRESET).
    """
    if preset is None:
        return dict(PRESETS["sslln"])
    if isinstance(preset, str):
        name = preset.lower().replace("-", "_")
        name = ALIASES.get(name, name)
        if name not in PRESETS:
            known = ", ".join(sorted([*PRESETS, *ALIASES]))
            raise InvalidInputError(
                f"preset: {preset!r} is not known; needs one of {known}, "
                "or a mapping {their label: canonical label}.",
                code="UNKNOWN_PRESET",
            )
        return dict(PRESETS[name])
    return _checked_mapping(preset)


def _checked_mapping(mapping: Mapping[int, int]) -> dict[int, int]:
    checked: dict[int, int] = {}
    for theirs, ours in mapping.items():
        if theirs not in range(256) or ours not in range(N_LABELS) or (theirs == 0 != ours):
            names = ", ".join(f"{label} {name}" for label, name in STRUCTURES.items())
            raise InvalidInputError(
                f"preset: the entry {theirs!r}: {ours!r} is not valid; needs labels from 0 to 255 "
                f"mapped to 0 background, {names}.",
                code="BAD_PRESET",
            )
        checked[int(theirs)] = int(ours)
    return checked


def canonical_labels(labels: LabelMap, preset: Preset = None) -> LabelMap:
    """Translate labels to canonical ones (1 LV cavity, 2 LV wall, 3 RV wall, 4 RV cavity).

    Parameters
    ----------
    labels : LabelMap
        Labels as stored in the file.
    preset : str, mapping or None
        The convention of `labels`: a name of `PRESETS` or `ALIASES`, a mapping
        {their label: canonical label}, or None for canonical labels with the RV wall optional.

    Returns
    -------
    LabelMap
        Canonical labels on the same lattice; the same object where nothing changes.

    Raises
    ------
    InvalidInputError
        If a value occurs that the preset does not define (UNEXPECTED_LABEL), or the preset itself
        is not valid (UNKNOWN_PRESET, BAD_PRESET).

    Examples
    --------
    >>> import numpy as np
    >>> from cardiacreg import LabelMap
    >>> from cardiacreg.anatomy.label_presets import canonical_labels
    >>> theirs = LabelMap(np.array([[[0, 1, 2, 3]]]), np.eye(4))
    >>> canonical_labels(theirs, "acdc").array.tolist()
    [[[0, 4, 2, 1]]]
    """
    mapping = _defining_mapping(labels, preset)
    if all(theirs == ours for theirs, ours in mapping.items()):
        return labels
    return LabelMap(_lookup(mapping)[labels.array], labels.voxel_to_world)


def _defining_mapping(labels: LabelMap, preset: Preset) -> dict[int, int]:
    mapping = preset_mapping(preset)
    unexpected = [label for label in labels.present() if label not in mapping]
    if unexpected:
        raise _unexpected(labels, preset, unexpected)
    return mapping


def _wrong_preset(preset: Preset, problem: str, fitting: tuple[str, ...]) -> InvalidInputError:
    names = " or ".join(map(repr, fitting))
    advice = f"try preset={names}" if fitting else "check the segmentation"
    return InvalidInputError(
        f"labels: read with {_spoken(preset)}, {problem}; {advice}.", code="WRONG_PRESET"
    )


def _lookup(mapping: Mapping[int, int]) -> NDArray[np.uint8]:
    table = np.zeros(256, dtype=np.uint8)
    for theirs, ours in mapping.items():
        table[theirs] = ours
    return table


def _unexpected(labels: LabelMap, preset: Preset, unexpected: list[int]) -> InvalidInputError:
    fitting = fitting_presets(labels)
    advice = (
        f"with these values and this anatomy fits preset={fitting[0]!r}"
        + (f" (also {', '.join(map(repr, fitting[1:]))})" if len(fitting) > 1 else "")
        if fitting
        else "no preset fits these values; pass a mapping {their label: canonical label}, "
        "with 0 for labels to ignore"
    )
    return InvalidInputError(
        f"labels: values {unexpected} are not part of {_spoken(preset)}, which defines "
        f"{sorted(preset_mapping(preset))}; the map holds {list(labels.present())}; {advice}.",
        code="UNEXPECTED_LABEL",
    )


def _spoken(preset: Preset) -> str:
    if preset is None:
        return "the canonical labels (preset=None)"
    return f"preset {preset!r}" if isinstance(preset, str) else "the given mapping"


def fitting_presets(labels: LabelMap) -> tuple[str, ...]:
    """Return the names of the presets under which a map, as stored, makes anatomical sense.

    Parameters
    ----------
    labels : LabelMap
        Labels as stored in the file.

    Returns
    -------
    tuple of str
        Names of `PRESETS` that define every value present, find both the LV wall and a cavity, and
        pass the test of `check_anatomy`.
    """
    values = labels.present()
    return _fitting_names(_slice_contacts(labels.array, values), values)


def check_anatomy(labels: LabelMap, preset: Preset = None) -> None:
    """Check that the LV wall encloses the LV cavity but not the RV cavity, to find a wrong preset.

    Only the middle half of each cavity's slices counts: over these, at least 70 % of the outline of
    the LV cavity, and less than 70 % of that of the RV cavity, must touch the LV wall.

    Parameters
    ----------
    labels : LabelMap
        Labels as stored in the file.
    preset : str, mapping or None
        The convention they are taken to follow, as for `canonical_labels`.

    Raises
    ------
    InvalidInputError
        If the anatomy contradicts the preset, or a named preset would ignore labels of a map that
        makes no sense without them and sense under another preset (WRONG_PRESET); and what
        `canonical_labels` raises.

    Warns
    -----
    InputWarning
        If there is no LV wall or no cavity, so that nothing can be checked.
    """
    values = labels.present()
    mapping = _defining_mapping(labels, preset)
    roles = tuple(mapping[value] for value in values)
    contacts = _slice_contacts(labels.array, values)
    problem = _contradiction(contacts, roles)
    fitting = _fitting_names(contacts, values)
    if problem is None and _can_check(roles):
        return
    if problem is None and fitting and isinstance(preset, str) and 0 in roles:
        problem = "the LV wall or both cavities are missing"
    if problem is not None:
        raise _wrong_preset(preset, problem, fitting)
    found = ", ".join(STRUCTURES[role] for role in roles if role) or "no label"
    warn(
        f"labels: the map holds {found}; without both the LV wall and a cavity the preset cannot "
        "be checked against the anatomy, so make sure that it is the right one."
    )


def _fitting_names(contacts: NDArray[np.int64], values: tuple[int, ...]) -> tuple[str, ...]:
    names = []
    for name, mapping in PRESETS.items():
        if not set(values) <= set(mapping):
            continue
        roles = tuple(mapping[value] for value in values)
        if _can_check(roles) and _contradiction(contacts, roles) is None:
            names.append(name)
    return tuple(names)


def _can_check(roles: tuple[int, ...]) -> bool:
    return LV_WALL in roles and (LV_CAVITY in roles or RV_CAVITY in roles)


def _contradiction(contacts: NDArray[np.int64], roles: tuple[int, ...]) -> str | None:
    """Say what is impossible when the n-th value present means the canonical label ``roles[n]``."""
    if RV_WALL in roles and RV_CAVITY not in roles:
        return "there is an RV wall but no RV cavity"
    if LV_WALL not in roles:
        return None
    lv_enclosed = _enclosed_fraction(contacts, roles, LV_CAVITY)
    if lv_enclosed is not None and lv_enclosed < _LEAST_ENCLOSED:
        return f"only {lv_enclosed:.0%} of the LV cavity's outline touches the LV wall"
    rv_enclosed = _enclosed_fraction(contacts, roles, RV_CAVITY)
    if rv_enclosed is not None and rv_enclosed >= _LEAST_ENCLOSED:
        return f"the LV wall encloses the RV cavity ({rv_enclosed:.0%} of its outline)"
    return None


def _enclosed_fraction(
    contacts: NDArray[np.int64], roles: tuple[int, ...], cavity: int
) -> float | None:
    """Return the share of a cavity's mid-slice outline touching the wall; None when too short."""
    role = np.array((0, *roles))
    outline = contacts[:, role == cavity][:, :, role != cavity].sum(axis=(1, 2))
    touching = contacts[:, role == cavity][:, :, role == LV_WALL].sum(axis=(1, 2))
    slices = np.flatnonzero(outline)
    middle = slices[len(slices) // 4 : len(slices) - len(slices) // 4]
    length = int(outline[middle].sum())
    return float(touching[middle].sum() / length) if length >= _SHORTEST_OUTLINE else None


def _slice_contacts(array: NDArray[np.uint8], values: tuple[int, ...]) -> NDArray[np.int64]:
    """Count the in-plane neighbour pairs of different labels per slice, shape (k, 1 + n, 1 + n).

    Row and column 0 stand for background, n for the n-th of `values`.
    """
    n = len(values) + 1
    index = np.zeros(256, dtype=np.int64)
    index[list(values)] = np.arange(1, n)
    counts = np.zeros((array.shape[2], n, n), dtype=np.int64)
    for k in np.flatnonzero(array.any(axis=(0, 1))):
        plane = index[array[:, :, k]]
        for first, second in ((plane[1:], plane[:-1]), (plane[:, 1:], plane[:, :-1])):
            differ = first != second
            pairs = np.bincount(first[differ] * n + second[differ], minlength=n * n)
            counts[k] += pairs.reshape(n, n) + pairs.reshape(n, n).T
    return counts
