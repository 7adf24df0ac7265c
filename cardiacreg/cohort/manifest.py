"""Which patients there are: rows of a CSV or Parquet table, or the folders of a folder.

A manifest is read twice and never held: once to check every row and once to hand rows out, so that memory
does not grow with the cohort. What its files hold is for the patient's own task to find out.
"""

from __future__ import annotations

import csv
import hashlib
import re
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cardiacreg.cohort.conventions import patients_in
from cardiacreg.cohort.patients import (
    ONLY_FRAME,
    FrameFiles,
    PatientFiles,
    Preset,
    check_frames,
    check_subject,
    find_patient,
    shortened,
)
from cardiacreg.errors import InvalidInputError
from cardiacreg.io.source_name import named_source

COLUMNS = ("subject", "labels", "image", "frames", "views", "landmarks", "preset")
MARKER = "cohort.json"
"""Stands in a folder of results, which is no folder of patients."""
_PAIR = re.compile(r"\s*([A-Za-z0-9][\w.-]*)\s*=\s*(.+)", re.S)
_MEANING = re.compile(r"\d+=\d+(,\s*\d+=\d+)*")
_SERIES = re.compile(r"all|ED,\s*ES|\d+(,\s*\d+)*", re.I)
Row = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Shard:
    """Part of a cohort: the patients whose names fall to it, wherever and in what order they stand.

    Parameters
    ----------
    number, count : int
        From 1 to `count`.
    """

    number: int = 1
    count: int = 1

    def holds(self, subject: str) -> bool:
        """Whether a patient falls to this part."""
        return _hash(subject) % self.count == self.number - 1

    @property
    def suffix(self) -> str:
        """For names of files; empty for the whole."""
        return "" if self.count == 1 else f"-{self.number}-of-{self.count}"


@dataclass(frozen=True, slots=True)
class Manifest:
    """The patients of a cohort.

    Parameters
    ----------
    place : pathlib.Path
        A table, or a folder of patients.
    total, count : int
        Patients of the cohort, and of the shard.
    shard : Shard
    """

    place: Path
    total: int
    count: int
    shard: Shard

    def rows(self) -> Iterator[tuple[str, Row | PatientFiles]]:
        """Name of every patient of the shard, and what is known of its files."""
        for row in _rows(self.place):
            subject = row.subject if isinstance(row, PatientFiles) else row["subject"]
            if self.shard.holds(subject):
                yield subject, row


def open_manifest(place: Path, shard: Shard | None = None) -> Manifest:
    """Check that a manifest names its patients, each once.

    Parameters
    ----------
    place : pathlib.Path
        CSV or Parquet with the columns `COLUMNS`, of which subject and labels are needed; or a folder of
        patients' folders, or one with files of many patients.
    shard : Shard, optional

    Raises
    ------
    InvalidInputError
        BAD_MANIFEST, BAD_SUBJECT, DUPLICATE_SUBJECT, NO_PATIENT, FILE_NOT_FOUND, NO_PYARROW.
    """
    part = shard or Shard()
    hashes, held = array("Q"), 0
    with named_source(str(place)):
        for number, row in enumerate(_rows(place), 1):
            subject = row.subject if isinstance(row, PatientFiles) else row["subject"]
            with named_source(f"row {number}"):
                check_subject(subject)
            hashes.append(_hash(subject.lower()))
            held += part.holds(subject)
        values, counts = np.unique(np.frombuffer(hashes, np.uint64), return_counts=True)
        if len(values) < len(hashes):
            _tell_duplicates(place, {int(value) for value in values[counts > 1][:3]})
        if not hashes:
            raise InvalidInputError("it names no patient; add rows.", code="NO_PATIENT")
    return Manifest(place, len(hashes), held, part)


def patient_of(row: Row | PatientFiles, base: Path) -> PatientFiles:
    """Return the files of a row of a manifest.

    Parameters
    ----------
    row : mapping or PatientFiles
    base : pathlib.Path
        Folder from which the paths of a table go.

    Raises
    ------
    InvalidInputError
        BAD_MANIFEST, and as `find_patient` where labels is a folder.
    """
    if isinstance(row, PatientFiles):
        check_frames(row)
        return row
    subject, place = row["subject"], base / row["labels"]
    preset = preset_of(row.get("preset") or "")
    if place.is_dir():
        patient = find_patient(place, subject=subject)
        return patient if preset is None else replace(patient, preset=preset)
    labels = _files(row["labels"], base)
    more = {name: _files(row.get(name) or "", base) for name in ("image", "landmarks")}
    for column, files in more.items():
        if unknown := set(files) - set(labels):
            raise InvalidInputError(
                f"{subject}: {column} of {', '.join(sorted(unknown))}, which labels does not name; needs "
                f"the same names of frames, as ED=FILE;ES=FILE.",
                code="BAD_MANIFEST",
            )
    views = _views(row.get("views") or "", base, labels)
    frames = tuple(
        FrameFiles(name, path, more["image"].get(name), more["landmarks"].get(name),
                   views.get(name, {}))
        for name, path in labels.items()
    )  # fmt: skip
    patient = PatientFiles(subject, frames, preset=preset, series=_series(subject, row))
    check_frames(patient)
    return patient


def preset_of(text: str) -> Preset:
    """Return the preset of a cell, a name or ``500=1,205=2``; None where it is empty."""
    word = text.strip()
    if _MEANING.fullmatch(word):
        pairs = (pair.split("=") for pair in word.split(","))
        return {int(theirs): int(ours) for theirs, ours in pairs}
    return word or None


def _rows(place: Path) -> Iterator[Row | PatientFiles]:
    if place.is_dir():
        return _folders(place)
    if place.suffix.lower() in (".parquet", ".pq"):
        return map(_checked_row, _parquet(place))
    return map(_checked_row, _csv(place))


def _csv(place: Path) -> Iterator[Mapping[str, Any]]:
    from cardiacreg.io.regular_file import check_regular_file, unreadable

    check_regular_file(place)
    try:
        with place.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            _check_columns(reader.fieldnames or ())
            yield from reader
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidInputError(
            f"not a CSV file in UTF-8 ({error}); save it as one.", code="BAD_MANIFEST"
        ) from error
    except OSError as error:
        raise unreadable(error.strerror or str(error)) from error


def _parquet(place: Path) -> Iterator[Mapping[str, Any]]:
    from cardiacreg.io.regular_file import check_regular_file

    check_regular_file(place)
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise InvalidInputError(
            'Parquet needs pyarrow; install it with: pip install "cardiacreg[cohort]", or use CSV.',
            code="NO_PYARROW",
        ) from error
    try:
        with ParquetFile(place) as file:
            _check_columns(file.schema_arrow.names)
            wanted = [name for name in file.schema_arrow.names if name in COLUMNS]
            for batch in file.iter_batches(batch_size=1000, columns=wanted):
                yield from batch.to_pylist()
    except (ArrowException, OSError) as error:
        raise InvalidInputError(f"not a Parquet file ({error}).", code="BAD_MANIFEST") from error


def _check_columns(names: Any) -> None:
    missing = [name for name in COLUMNS[:2] if name not in names]
    if missing or len(set(names)) < len(names):
        raise InvalidInputError(
            f"its columns are {', '.join(map(str, names)) or 'none'}; needs {' and '.join(COLUMNS[:2])}, "
            f"and of {', '.join(COLUMNS[2:])} those that there are, each once.",
            code="BAD_MANIFEST",
        )


def _checked_row(row: Mapping[Any, Any]) -> Row:
    found = {name: str(row[name]).strip() for name in COLUMNS if row.get(name) is not None}
    absent = [name for name in COLUMNS[:2] if not found.get(name)]
    if absent or None in row:
        raise InvalidInputError(
            f"a row without {' and '.join(absent)}: {dict(row)}."
            if absent
            else f"a row with more cells than there are columns: {dict(row)}; quote cells with commas.",
            code="BAD_MANIFEST",
        )
    return found


def _folders(place: Path) -> Iterator[Row | PatientFiles]:
    """Every folder in a folder, as a patient; or those whose files lie in the folder itself."""
    if any(path.is_file() for path in place.iterdir()) or (place / "labelsTr").is_dir():
        try:
            yield from patients_in(place)
            return
        except InvalidInputError as problem:
            if problem.code != "NO_PATIENT":
                raise
    inside = sorted(path for path in place.iterdir() if path.is_dir())
    for path in inside:
        if not path.name.startswith(".") and not (path / MARKER).exists():
            yield {"subject": path.name, "labels": str(path.absolute())}


def _files(cell: str, base: Path) -> dict[str, Path]:
    """Files of frames: one, or ``ED=FILE;ES=FILE``."""
    if not cell:
        return {}
    if (base / cell).exists():
        return {ONLY_FRAME: base / cell}
    parts = [part for part in cell.split(";") if part.strip()]
    pairs = [_PAIR.fullmatch(part) for part in parts]
    if len(parts) == 1 and pairs[0] is None:
        return {ONLY_FRAME: base / cell}
    names = [pair[1] for pair in pairs if pair]
    if None in pairs or len(set(names)) < len(parts):
        raise InvalidInputError(
            f"{cell!r}; needs one file, or a name and a file for every frame, as ED=FILE;ES=FILE.",
            code="BAD_MANIFEST",
        )
    return {pair[1]: base / pair[2].strip() for pair in pairs if pair}


def _views(cell: str, base: Path, labels: Mapping[str, Path]) -> dict[str, dict[str, Path]]:
    """Files of views: ``4ch=FILE;2ch=FILE`` for a single frame, else ``ED.4ch=FILE;ES.4ch=FILE``."""
    found: dict[str, dict[str, Path]] = {}
    for number, part in enumerate(part for part in cell.split(";") if part.strip()):
        pair = _PAIR.fullmatch(part)
        name, path = (pair[1], pair[2].strip()) if pair else (f"view{number + 1}", part.strip())
        frame, dot, view = name.rpartition(".")
        if not dot and len(labels) > 1:
            frame = next(iter(labels))
        frame = frame or next(iter(labels))
        if frame not in labels or view in found.get(frame, {}):
            raise InvalidInputError(
                f"views {cell!r}: {name} is no view of one of the frames {', '.join(labels)}, or stands "
                "twice; needs FRAME.VIEW=FILE, as ED.4ch=FILE;ED.2ch=FILE.",
                code="BAD_MANIFEST",
            )
        found.setdefault(frame, {})[view] = base / path
    return found


def _series(subject: str, row: Row) -> str | None:
    word = (row.get("frames") or "").strip()
    if word and not _SERIES.fullmatch(word):
        raise InvalidInputError(
            f"{subject}: frames {word!r}; needs all, ED,ES or numbers as 0,5,9 of a 4-D file. Files of "
            "frames stand in labels, as ED=FILE;ES=FILE.",
            code="BAD_MANIFEST",
        )
    return word.replace(" ", "") or None


def _tell_duplicates(place: Path, hashes: set[int]) -> None:
    rows = (
        row.subject if isinstance(row, PatientFiles) else row["subject"] for row in _rows(place)
    )
    names = sorted({name.lower() for name in rows if _hash(name.lower()) in hashes})
    raise InvalidInputError(
        f"{shortened(names)} stand{'s' if len(names) == 1 else ''} more than once (capitals aside); "
        "needs every subject once. Several frames of a patient stand in one row, as ED=FILE;ES=FILE.",
        code="DUPLICATE_SUBJECT",
    )


def _hash(subject: str) -> int:
    return int.from_bytes(hashlib.sha256(subject.encode()).digest()[:8], "big")
