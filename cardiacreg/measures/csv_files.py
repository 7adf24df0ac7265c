"""Measures of many hearts as a table, with a file that says what each column is."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Mapping
from pathlib import Path

from cardiacreg.errors import InvalidInputError
from cardiacreg.io.atomic_write import write_bytes_atomically
from cardiacreg.io.landmark_files import json_text
from cardiacreg.measures.heart import Measures, Row
from cardiacreg.measures.segments import SEGMENT_NAMES

INDEX = "subject"
_WORDS = {
    "EDV": "cavity volume at end-diastole",
    "ESV": "cavity volume at end-systole",
    "SV": "stroke volume, EDV - ESV",
    "EF": "ejection fraction, SV / EDV",
    "M": "mass of the wall at end-diastole, 1.05 g/ml",
    "M ES": "mass of the wall at end-systole, 1.05 g/ml",
}
_OTHERS = {
    "BSA": "body surface area, sqrt(height_cm x weight_kg / 3600), Mosteller 1987",
    "WT_Global": "mean thickness of the LV wall at end-diastole",
    "WT_Global ES": "mean thickness of the LV wall at end-systole",
    "Eccentricity ED": "LV cavity at mid-height, end-diastole: diameter along the septum over that "
    "across it, Ryan et al. 1985",
    "Eccentricity ES": "as Eccentricity ED, at end-systole",
}
_METHOD = "along field lines of Laplace's equation, mean over the endocardium"


def write_measures_csv(path: str | os.PathLike[str], measures: Mapping[str, Measures]) -> None:
    """Write a row per heart, and beside it ``<name>_units.json``, which explains every column.

    Parameters
    ----------
    path : path-like
        Ends with ``.csv``; existing files are replaced.
    measures : mapping of str to Measures
        Name of a heart to its measures. Columns are named as by ukbb_cardiac where it has them, as
        ``LVEDV (mL)``, ``LVM (g)`` and ``WT_AHA_1 (mm)``; a cell is empty where nothing was measured.

    Raises
    ------
    InvalidInputError
        If the name ends otherwise (BAD_FILE_NAME) or the folder does not exist (NO_FOLDER).

    Examples
    --------
    >>> from pathlib import Path
    >>> from cardiacreg import measure, write_measures_csv
    >>> from cardiacreg.phantoms.toy_heart import make_toy_heart
    >>> write_measures_csv("hearts.csv", {"toy": measure(make_toy_heart().labels)})
    >>> Path("hearts.csv").read_text().splitlines()[0][:30]
    'subject,LVEDV (mL),LVESV (mL),'
    """
    place = Path(path)
    if place.suffix.lower() != ".csv":
        raise InvalidInputError(f"{path}: needs a name that ends with .csv.", code="BAD_FILE_NAME")
    units = (json_text(units_of(measures)) + "\n").encode()
    write_bytes_atomically(place.with_name(f"{place.stem}_units.json"), units)
    write_bytes_atomically(place, csv_bytes(measures))


def csv_bytes(measures: Mapping[str, Measures]) -> bytes:
    """Return the table as CSV: UTF-8, a head, numbers of six digits."""
    tables = {name: found.table() for name, found in measures.items()}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([INDEX, *(row.column for row in next(iter(tables.values()), []))])
    for name, rows in tables.items():
        writer.writerow([name, *("" if row.value is None else f"{row.value:.6g}" for row in rows)])
    return text.getvalue().encode("utf-8", "backslashreplace")


def units_of(measures: Mapping[str, Measures]) -> dict[str, dict[str, str]]:
    """Return unit and meaning of every column."""
    rows = next(iter(measures.values())).table() if measures else []
    return {row.column: {"unit": row.unit, "meaning": meaning(row)} for row in rows}


def meaning(row: Row) -> str:
    """Return in words what a measure is."""
    name = row.name
    if name in _OTHERS:
        return _OTHERS[name]
    if found := re.fullmatch(r"(WT|Thickening)_AHA_(\d+)( ES)?", name):
        segment = f"segment {found[2]}, {SEGMENT_NAMES[int(found[2]) - 1]}"
        if found[1] == "Thickening":
            return f"{segment}: thickness at end-systole over that at end-diastole, minus 1"
        return f"{segment}: thickness at end-{'systole' if found[3] else 'diastole'}, {_METHOD}"
    if found := re.fullmatch(r"(.*) (acquired|beyond apex|beyond base)", name):
        where = (
            "inside its labelled slices" if found[2] == "acquired" else f"{found[2]}, extrapolated"
        )
        return f"part of {found[1]} {where}"
    side, rest = name[:2], name[2:]
    if rest.endswith("i"):
        return f"{side} {_WORDS[rest[:-1]]}, per body surface area"
    return f"{side} {_WORDS[rest]}"
