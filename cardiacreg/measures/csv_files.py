"""Measures of many hearts as a table, with a file that says what each column is."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from cardiacreg.errors import InvalidInputError, check_argument
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
    "Septal curvature ED": "one over the radius of the septal endocardium at mid-height, end-diastole; "
    "negative where it bows into the LV, Roeleveld et al. 2005",
    "Septal curvature ES": "as Septal curvature ED, at end-systole",
    "Septal curvature ratio ED": "septal curvature over that of the free wall, end-diastole, "
    "Dellegrottaglie et al. 2007",
    "Septal curvature ratio ES": "as Septal curvature ratio ED, at end-systole",
    "RV_WT_Global ED": "mean thickness of the RV's free wall at end-diastole, where the input shows it",
    "RV_WT_Global ES": "as RV_WT_Global ED, at end-systole",
    "RV_Thickening_Global": "RV_WT_Global at end-systole over that at end-diastole, minus 1",
}
_CYCLE = {
    "peak ejection rate": "steepest fall between end-diastole and end-systole",
    "peak filling rate": "steepest rise between end-systole and end-diastole",
    "time to peak ejection": "from end-diastole to the peak ejection rate",
    "time to peak filling": "from end-systole to the peak filling rate",
}
_PLACES = {
    "acquired": "inside its labelled slices",
    "beyond apex": "beyond apex, extrapolated",
    "beyond base": "beyond base, extrapolated",
    "extrapolated": "beyond apex and base together, extrapolated",
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
    _check_name(path, ".csv")
    _check_measures(measures)
    place = Path(path)
    units = (json_text(units_of(measures)) + "\n").encode()
    write_bytes_atomically(place.with_name(f"{place.stem}_units.json"), units)
    write_bytes_atomically(place, csv_bytes(measures))


def _check_measures(measures: Mapping[str, Measures]) -> None:
    check_argument(measures, Mapping, "write_measures: measures")
    for name, each in measures.items():
        check_argument(name, str, "write_measures: the name of a heart")
        check_argument(each, Measures, "write_measures: measures of a heart")


def write_measures_parquet(path: str | os.PathLike[str], measures: Mapping[str, Measures]) -> None:
    """Write a row per heart as Parquet, for many hearts; needs pyarrow (the extra ``parquet``).

    Parameters
    ----------
    path : path-like
        Ends with ``.parquet``; an existing file is replaced.
    measures : mapping of str to Measures
        As for `write_measures_csv`. Numbers are doubles, missing ones null; every column carries its unit
        and meaning as metadata.

    Raises
    ------
    InvalidInputError
        If pyarrow is not installed (NO_PYARROW), the name ends otherwise (BAD_FILE_NAME), or the folder
        does not exist (NO_FOLDER).

    Examples
    --------
    >>> from cardiacreg import measure, write_measures_parquet
    >>> from cardiacreg.phantoms.toy_heart import make_toy_heart
    >>> found = {"toy": measure(make_toy_heart().labels)}
    >>> write_measures_parquet("hearts.parquet", found)  # doctest: +SKIP
    """
    _check_name(path, ".parquet")
    _check_measures(measures)
    if find_spec("pyarrow") is None:
        raise InvalidInputError(
            f"{path}: Parquet needs pyarrow; install it (pip install pyarrow) or write CSV.",
            code="NO_PYARROW",
        )
    import pyarrow
    import pyarrow.parquet

    units = units_of(measures)
    rows = [[row.value for row in found.table()] for found in measures.values()]
    values = list(zip(*rows, strict=True)) or [()] * len(units)
    columns = [pyarrow.array(list(measures), pyarrow.string())]
    columns += [pyarrow.array(each, pyarrow.float64()) for each in values]
    fields = [pyarrow.field(INDEX, pyarrow.string())]
    fields += [pyarrow.field(n, pyarrow.float64(), metadata=words) for n, words in units.items()]
    table = pyarrow.table(columns, schema=pyarrow.schema(fields))
    stream = io.BytesIO()
    pyarrow.parquet.write_table(table, stream)
    write_bytes_atomically(Path(path), stream.getvalue())


def _check_name(path: str | os.PathLike[str], ending: str) -> None:
    if Path(path).suffix.lower() != ending:
        raise InvalidInputError(
            f"{path}: needs a name that ends with {ending}.", code="BAD_FILE_NAME"
        )


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
    if found := re.fullmatch(r"(.*) (low|high)", name):
        end = "lower" if found[2] == "low" else "upper"
        return f"{end} end of the 90 % interval of {found[1]}"
    if found := re.fullmatch(r"(WT|Thickening)_AHA_(\d+)( ES)?", name):
        segment = f"segment {found[2]}, {SEGMENT_NAMES[int(found[2]) - 1]}"
        if found[1] == "Thickening":
            return f"{segment}: thickness at end-systole over that at end-diastole, minus 1"
        return f"{segment}: thickness at end-{'systole' if found[3] else 'diastole'}, {_METHOD}"
    if found := re.fullmatch(r"(.*) (acquired|beyond apex|beyond base|extrapolated)", name):
        return f"part of {found[1]} {_PLACES[found[2]]}"
    side, rest = name[:2], name[2:]
    if rest.strip() in _CYCLE:
        return f"{side} cavity: {_CYCLE[rest.strip()]}, Fourier series of the volume"
    if rest.endswith("i"):
        return f"{side} {_WORDS[rest[:-1]]}, per body surface area"
    return f"{side} {_WORDS[rest]}"
