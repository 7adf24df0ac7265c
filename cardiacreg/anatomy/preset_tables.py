"""What the label conventions of public data sets, and names of segments, say that values mean.

Public short-axis segmentations number the same structures differently (1 is the RV cavity in ACDC
and the LV cavity in M&Ms). A preset maps a convention to the canonical labels of
`cardiacreg.geometry`. A scar, and oedema or no-reflow, is a part of the LV wall.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import numpy as np

from cardiacreg.errors import InvalidInputError
from cardiacreg.geometry import LV_CAVITY, LV_WALL, N_LABELS, RV_CAVITY, RV_WALL, STRUCTURES

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
    # Left and right atrium, aorta and pulmonary artery become background; 421 is a slip in the set.
    "mmwhs": {
        205: LV_WALL, 500: LV_CAVITY, 600: RV_CAVITY,
        **dict.fromkeys((420, 421, 550, 820, 850), 0),
    },
    "myops": {200: LV_WALL, 500: LV_CAVITY, 600: RV_CAVITY, 1220: LV_WALL, 2221: LV_WALL},
    "emidec": {1: LV_CAVITY, 2: LV_WALL, 3: LV_WALL, 4: LV_WALL},
    "mms_scar": {1: LV_CAVITY, 2: LV_WALL, 3: RV_CAVITY, 4: LV_WALL, 5: LV_WALL},
    "acdc_scar": {1: RV_CAVITY, 2: LV_WALL, 3: LV_CAVITY, 4: LV_WALL, 5: LV_WALL},
}  # fmt: skip
DESCRIPTIONS: dict[str, str] = {
    "sslln": "canonical; 4Dsegment and its training data, RV wall optional",
    "digital_heart": "Digital Heart Project, high-resolution maps without RV wall",
    "acdc": "ACDC challenge",
    "mms": "M&Ms, M&Ms-2, ukbb_cardiac, the MONAI bundle",
    "totalsegmentator": "TotalSegmentator heartchambers_highres (axial volumes)",
    "totalsegmentator_v1": "TotalSegmentator, older combined map (axial volumes)",
    "mmwhs": "MM-WHS, whole hearts of CT and MR (axial volumes)",
    "myops": "MyoPS and MSCMRseg; oedema and scar belong to the wall",
    "emidec": "EMIDEC; infarct and no-reflow belong to the wall, no RV",
    "mms_scar": "as mms, with scar 4 and no-reflow or oedema 5 in the wall",
    "acdc_scar": "as acdc, with scar 4 and no-reflow or oedema 5 in the wall",
}
ALIASES: dict[str, str] = {
    "canonical": "sslln",
    "4dsegment": "sslln",
    "phsegment": "sslln",
    "mms2": "mms",
    "ukbb": "mms",
    "ukbb_cardiac": "mms",
    "heartchambers_highres": "totalsegmentator",
    "mm_whs": "mmwhs",
    "mscmr": "myops",
    "mscmrseg": "myops",
}

Preset = str | Mapping[int, int] | None

_LARGEST_VALUE = 2**31 - 1
_SEGMENT_WORDS = {
    LV_CAVITY: (
        "lv", "lv cavity", "lvc", "lv blood pool", "lv bp", "lvbp", "lv endo", "lv lumen", "lv chamber",
        "left ventricle", "left ventricle cavity", "left ventricle blood pool", "left ventricular cavity",
        "left ventricular blood pool", "heart ventricle left", "left ventricle of heart",
    ),
    LV_WALL: (
        "myo", "myocardium", "lv wall", "lvw", "lv myo", "lv myocardium", "lvm", "lvmyo",
        "heart myocardium",
        "left ventricle myocardium", "left ventricular myocardium", "myocardium of left ventricle",
        "scar", "infarct", "infarction", "edema", "oedema", "no reflow", "mvo", "lge",
    ),
    RV_CAVITY: (
        "rv", "rv cavity", "rvc", "rv blood pool", "rv bp", "rvbp", "rv endo", "rv lumen", "rv chamber",
        "right ventricle", "right ventricle cavity", "right ventricle blood pool",
        "right ventricular cavity", "right ventricular blood pool", "heart ventricle right",
        "right ventricle of heart",
    ),
    RV_WALL: (
        "rv wall", "rvw", "rv myo", "rv myocardium", "right ventricle myocardium",
        "right ventricular myocardium",
    ),
    0: (
        "la", "ra", "left atrium", "right atrium", "heart atrium left", "heart atrium right", "aorta",
        "pulmonary artery", "background",
    ),
}  # fmt: skip
"""What segments are called, in lower case and with spaces; 0 is to be ignored."""


def preset_mapping(preset: Preset) -> dict[int, int]:
    """Return the {their label: canonical label} mapping of a preset; 0 means background.

    Parameters
    ----------
    preset : str, mapping or None
        A name of `PRESETS` or `ALIASES` (any case), a mapping of its own, or None for ``"sslln"``.

    Raises
    ------
    InvalidInputError
        If the name is unknown (UNKNOWN_PRESET), or the mapping holds anything but whole numbers
        mapped to canonical labels from 0 to 4 (BAD_PRESET).
    """
    if preset is None:
        return dict(PRESETS["sslln"])
    if isinstance(preset, str):
        name = preset.lower().replace("-", "_")
        name = ALIASES.get(name, name)
        if name not in PRESETS:
            known = sorted([*PRESETS, *ALIASES])
            near = difflib.get_close_matches(name, known, n=1)
            raise InvalidInputError(
                f"preset: {preset!r} is not known{f'; did you mean {near[0]}?' if near else '.'} Needs "
                f"a mapping {{their label: canonical label}} or one of {', '.join(known)}.",
                code="UNKNOWN_PRESET",
            )
        return dict(PRESETS[name])
    return _checked_mapping(preset)


def _checked_mapping(mapping: Mapping[int, int]) -> dict[int, int]:
    if not isinstance(mapping, Mapping):
        raise InvalidInputError(
            f"preset: got a {type(mapping).__name__}; needs the name of a preset, or a mapping {{their "
            "label: canonical label}.",
            code="BAD_PRESET",
        )
    checked: dict[int, int] = {}
    for theirs, ours in mapping.items():
        good = _is_value(theirs) and isinstance(ours, int | np.integer) and 0 <= ours < N_LABELS
        if not good or (theirs == 0 != ours):
            names = ", ".join(f"{label} {name}" for label, name in STRUCTURES.items())
            raise InvalidInputError(
                f"preset: the entry {theirs!r}: {ours!r} is not valid; needs whole numbers mapped "
                f"to 0 background, {names}, and 0 as background.",
                code="BAD_PRESET",
            )
        checked[int(theirs)] = int(ours)
    return checked


def _is_value(theirs: Any) -> bool:
    whole = isinstance(theirs, int | np.integer) or (
        isinstance(theirs, float) and theirs.is_integer()
    )
    return whole and abs(theirs) <= _LARGEST_VALUE


def segment_mapping(names: Mapping[int, str]) -> dict[int, int]:
    """Return what the names of segments say that values mean: {value: canonical label}.

    Parameters
    ----------
    names : mapping
        Value to the name that a file gives it, such as "LV cavity" or "Right ventricle".

    Raises
    ------
    InvalidInputError
        If a name is not known (UNKNOWN_SEGMENTS).
    """
    words = {word: role for role, known in _SEGMENT_WORDS.items() for word in known}
    found = {value: words.get(_plain(name)) for value, name in names.items()}
    if unknown := [names[value] for value, role in found.items() if role is None]:
        shown = ", ".join(f"{value} {name!r}" for value, name in names.items())
        raise InvalidInputError(
            f"labels: the segments are {shown}; the names {unknown} are not known. Rename them, for "
            "instance to 'LV cavity', 'LV wall', 'RV cavity' and 'RV wall', or say what their values "
            "mean with a mapping {their label: canonical label}.",
            code="UNKNOWN_SEGMENTS",
        )
    return {value: role for value, role in found.items() if role is not None}


def _plain(name: str) -> str:
    spaced = "".join(letter if letter.isalnum() else " " for letter in name.lower())
    return " ".join(spaced.split())


def mapping_words(mapping: Mapping[int, int]) -> str:
    """Return a mapping in words, as ``"1 RV cavity, 2 LV wall, 3 LV cavity"``."""
    return ", ".join(f"{theirs} {STRUCTURES[ours]}" for theirs, ours in mapping.items() if ours)
