"""``cardiacreg cohort status``: what the statuses on disk say together, as tables.

Statuses are read one at a time and rows are written as they come, so that memory does not grow with the
cohort. Folders of several runs, as of shards on computers that share no disk, are merged.
"""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cardiacreg.cohort.manifest import MARKER
from cardiacreg.cohort.status import STATUS, read_status
from cardiacreg.cohort.task import DONE, FAILED
from cardiacreg.errors import InvalidInputError
from cardiacreg.io.landmark_files import write_json
from cardiacreg.io.output_folder import all_or_nothing
from cardiacreg.results.bids import BidsLabels, bids_labels, write_bids

UNFINISHED = "unfinished"
TABLES = ("cohort.csv", "measures.csv", "summary.json")
PARQUET = "cohort.parquet"
MEASURES = (
    "LVEDV (mL)", "LVESV (mL)", "LVSV (mL)", "LVEF (%)", "LVM (g)",
    "RVEDV (mL)", "RVESV (mL)", "RVSV (mL)", "RVEF (%)", "RVM (g)",
)  # fmt: skip
_STRUCTURES = ("LV cavity", "LV wall", "RV wall", "RV cavity")
_TEXTS = (
    "subject", "state", "code", "message", "verdict", "findings", "frames", "folder", "ended", "computer",
    "cardiacreg", "options_sha256",
)  # fmt: skip
QUALITY = "quality score"
_NUMBERS = (
    QUALITY, "attempts", "warnings", "seconds", "processor_seconds", "process_peak_memory_mib",
    *(f"agreement {name}" for name in _STRUCTURES), *MEASURES,
)  # fmt: skip
COLUMNS = (*_TEXTS, *_NUMBERS)
_BATCH = 1000


@dataclass(slots=True)
class CohortStatus:
    """What is done of a cohort.

    Parameters
    ----------
    outputs : tuple of pathlib.Path
        Its folders.
    expected : int
        Patients of the manifest; 0 where that is not known.
    counts : Counter
        Patients by state: done, failed, or unfinished, which have a folder and no status that is whole.
    codes : Counter
        Failed patients by code.
    findings : Counter
        Patients by the reasons to look at their results.
    versions : Counter
        Patients by the version that made their results.
    options : Counter
        Patients by the options, as a hash.
    processor_seconds : float
        Of all that are done.
    failed : list of (str, str, str)
        Subject, code and message of the first that failed.
    tables : tuple of pathlib.Path
        Files that were written.
    """

    outputs: tuple[Path, ...]
    expected: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    findings: Counter[str] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)
    options: Counter[str] = field(default_factory=Counter)
    processor_seconds: float = 0.0
    failed: list[tuple[str, str, str]] = field(default_factory=list)
    tables: tuple[Path, ...] = ()

    @property
    def n_missing(self) -> int:
        """Patients of the manifest that were not begun."""
        return max(0, self.expected - sum(self.counts.values()))

    def described(self) -> dict[str, Any]:
        """Return the counts in terms of JSON."""
        return {
            "outputs": list(self.outputs),
            "expected": self.expected,
            "counts": dict(self.counts) | {"missing": self.n_missing},
            "failed_by_code": dict(self.codes),
            "findings": dict(self.findings),
            "versions": dict(self.versions),
            "options_sha256": dict(self.options),
            "processor_seconds": self.processor_seconds,
            "columns": list(COLUMNS),
        }

    def _add(self, row: dict[str, Any]) -> None:
        self.counts[row["state"]] += 1
        self.processor_seconds += row.get("processor_seconds") or 0.0
        self.findings.update((row.get("findings") or "").split())
        if row["state"] != UNFINISHED:
            self.versions[row["cardiacreg"]] += 1
            self.options[row["options_sha256"]] += 1
        if row["state"] == FAILED:
            self.codes[row["code"]] += 1
            if len(self.failed) < 20:
                self.failed.append((row["subject"], row["code"], row["message"]))


def cohort_status(
    *outputs: str | os.PathLike[str],
    tables: str | os.PathLike[str] | None = None,
    bids: str | os.PathLike[str] | None = None,
) -> CohortStatus:
    """Say what is done of a cohort, and write it as tables.

    Parameters
    ----------
    *outputs : path-like
        Folders that `refine_cohort` wrote; shards on computers that share no disk have one each. A
        patient in several of them counts once, as done where one of them says so.
    tables : path-like, optional
        Folder for ``cohort.csv`` (a row per patient: state, code and message of a failure, findings,
        agreement with the input, times, volumes), ``measures.csv`` (all measures), ``summary.json`` and,
        where pyarrow is installed, ``cohort.parquet``; nothing is written when absent.
    bids : path-like, optional
        Folder of BIDS derivatives (`write_bids`) to which every patient that is done is added; files of
        an earlier call are replaced. Letters and digits of a name become the label.

    Returns
    -------
    CohortStatus

    Raises
    ------
    InvalidInputError
        If a folder is not that of a cohort (NO_COHORT), two patients have one BIDS label (BAD_SUBJECT),
        or the tables cannot be written.

    Examples
    --------
    >>> import cardiacreg
    >>> status = cardiacreg.cohort_status("out", tables="out")  # doctest: +SKIP
    >>> status.counts  # doctest: +SKIP
    Counter({'done': 98, 'failed': 2})
    """
    places = tuple(Path(output).absolute() for output in outputs)
    status = CohortStatus(places, max((_expected(place) for place in places), default=0))
    if not places:
        raise InvalidInputError("cohort_status: needs a folder of a cohort.", code="NO_COHORT")
    if bids is not None:
        _add_to_bids(places, Path(bids))
    if tables is None:
        for row, _ in _rows(places):
            status._add(row)
        return status
    folder = Path(tables)
    names = [*TABLES[:2], *((PARQUET,) if _has_pyarrow() else ()), TABLES[2]]
    with all_or_nothing(folder, names, overwrite=True, outdated=(PARQUET,)) as stage:
        _write_tables(stage, _rows(places), status)
        write_json(stage / TABLES[2], status.described())
    status.tables = tuple(folder / name for name in names)
    return status


def _add_to_bids(places: Sequence[Path], root: Path) -> None:
    """Add every patient that is done to a folder of BIDS derivatives."""
    done: dict[BidsLabels, tuple[str, Path]] = {}
    for subject, folders in _patients(places):
        for folder in folders:
            if (read_status(folder) or {}).get("state") == DONE:
                known, _ = done.setdefault(bids_labels(subject), (subject, folder))
                if known != subject:
                    raise InvalidInputError(
                        f"cohort_status: {known} and {subject} have one BIDS label, "
                        f"{bids_labels(subject).stem}; needs names that differ in letters or digits.",
                        code="BAD_SUBJECT",
                    )
    for labels, (_, folder) in done.items():
        write_bids(folder, root, subject=labels.stem, overwrite=True)


def _expected(place: Path) -> int:
    try:
        found = json.loads((place / MARKER).read_text(encoding="utf-8"))["patients"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInputError(
            f"{place}: not the folder of a cohort ({MARKER} is missing or not whole); give what was the "
            "output of cardiacreg cohort.",
            code="NO_COHORT",
        ) from error
    return found if isinstance(found, int) else 0


def _rows(places: Sequence[Path]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Every patient once, in order of names: its row, and its measures."""
    for subject, folders in _patients(places):
        found = [(folder, read_status(folder)) for folder in folders]
        folder, status = min(found, key=lambda each: _rank(each[1]))
        yield _row(subject, folder, status), dict((status or {}).get("measures") or {})


def _patients(places: Sequence[Path]) -> Iterator[tuple[str, list[Path]]]:
    if len(places) == 1:
        for entry in _sorted_folders(places[0] / "patients"):
            yield entry, [places[0] / "patients" / entry]
        return
    where: dict[str, list[Path]] = {}
    for place in places:
        for entry in _sorted_folders(place / "patients"):
            where.setdefault(entry, []).append(place / "patients" / entry)
    yield from sorted(where.items())


def _sorted_folders(place: Path) -> list[str]:
    try:
        with os.scandir(place) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir())
    except FileNotFoundError:
        return []


def _rank(status: dict[str, Any] | None) -> int:
    """Of several statuses of a patient the one that says most comes first."""
    return 2 if status is None else (DONE, FAILED).index(status["state"])


def _row(subject: str, folder: Path, status: dict[str, Any] | None) -> dict[str, Any]:
    row: dict[str, Any] = {"subject": subject, "state": UNFINISHED, "folder": os.fspath(folder)}
    if status is None:
        damaged = (folder / STATUS).exists()
        return row | ({"message": f"{STATUS} is damaged; run the cohort again"} if damaged else {})
    made_from = status.get("made_from") or {}
    frames = status.get("frames") or ()
    shown = folder / str(next(iter(frames), ""))
    row |= {name: status.get(name) for name in COLUMNS if name in status}
    row |= {
        "subject": subject,
        "findings": " ".join(status.get("findings") or ()),
        "frames": " ".join(frames),
        "folder": os.fspath(shown if shown.is_dir() else folder),
        QUALITY: status.get("quality_score"),
        "cardiacreg": made_from.get("cardiacreg"),
        "options_sha256": made_from.get("options_sha256"),
    }
    agreement, measures = status.get("agreement_dice") or {}, status.get("measures") or {}
    row |= {f"agreement {name}": agreement.get(name) for name in _STRUCTURES}
    return row | {name: measures.get(name) for name in MEASURES}


def _write_tables(
    stage: Path, rows: Iterable[tuple[dict[str, Any], dict[str, Any]]], status: CohortStatus
) -> None:
    with ExitStack() as stack:
        files = [
            stack.enter_context((stage / name).open("w", encoding="utf-8", newline=""))
            for name in TABLES[:2]
        ]
        table, measures = (csv.writer(file, lineterminator="\n") for file in files)
        parquet = stack.enter_context(_Parquet(stage / PARQUET)) if _has_pyarrow() else None
        table.writerow(COLUMNS)
        columns: list[str] = []
        for row, measured in rows:
            status._add(row)
            table.writerow([_cell(row.get(name)) for name in COLUMNS])
            if parquet is not None:
                parquet.add(row)
            if measured and not columns:
                columns = list(measured)
                measures.writerow(["subject", *columns])
            if measured:
                measures.writerow([row["subject"], *(_cell(measured.get(n)) for n in columns)])


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else " ".join(_text(value).split())


def _text(value: Any) -> str:
    """Return a value as text; bytes of names that are no UTF-8 are escaped, as in our other files."""
    return str(value).encode("utf-8", "backslashreplace").decode("utf-8")


def _has_pyarrow() -> bool:
    from importlib.util import find_spec

    return find_spec("pyarrow") is not None


class _Parquet:
    """Writes rows in batches."""

    def __init__(self, place: Path) -> None:
        import pyarrow
        from pyarrow.parquet import ParquetWriter

        self._file = place.open("wb")  # pyarrow opens no names that are not UTF-8
        fields = [(name, pyarrow.string()) for name in _TEXTS]
        fields += [(name, pyarrow.float64()) for name in _NUMBERS]
        self._schema = pyarrow.schema(fields)
        self._writer = ParquetWriter(self._file, self._schema)
        self._rows: list[dict[str, Any]] = []

    def __enter__(self) -> _Parquet:
        return self

    def __exit__(self, *error: object) -> None:
        self._flush()
        self._writer.close()
        self._file.close()

    def add(self, row: dict[str, Any]) -> None:
        """Take a row."""
        texts = {n: None if row.get(n) is None else _text(row[n]) for n in _TEXTS}
        numbers = {n: None if row.get(n) is None else float(row[n]) for n in _NUMBERS}
        self._rows.append(texts | numbers)
        if len(self._rows) >= _BATCH:
            self._flush()

    def _flush(self) -> None:
        import pyarrow

        if self._rows:
            self._writer.write_table(pyarrow.Table.from_pylist(self._rows, schema=self._schema))
        self._rows = []
