"""The report of a cohort: one table to sort, with verdicts, outliers, pictures and links to patients."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cardiacreg.arrays import Float
from cardiacreg.errors import InvalidInputError, check_arguments
from cardiacreg.io.output_folder import all_or_nothing
from cardiacreg.io.regular_file import check_regular_file
from cardiacreg.reports.page import Picture, as_svg, render
from cardiacreg.reports.verdict import ACCEPT, LOOK, MEANINGS, REJECT, WORDS
from cardiacreg.results.files import REPORT
from cardiacreg.results.guards import FAILED_AGREEMENT

SUBJECT, FOLDER, STATE, FINDINGS, VERDICT = "subject", "folder", "state", "findings", "verdict"
QUALITY = "quality score"
"""From 0 to 1, the best (`signs.quality_score`); only low ones are outliers."""
FAILED = "failed"
THUMBNAILS = ("qc.png", "curves.png")
FEWEST_FOR_OUTLIERS = 8
MOST_DEVIATIONS = 3.5
"""Robust deviations from the median beyond which a value is an outlier (Iglewicz and Hoaglin 1993)."""
_PER_DEVIATION = 1.4826
_LEFT_OUT = ("attempts", "processor_seconds", "process_peak_memory_mib")
_RUN = ("warnings", "seconds")
"""Columns about the run and not the heart: after the measures, and without a distribution."""
_MOST_HISTOGRAMS = 12
_LARGEST_TABLE_BYTES = 500_000_000


class Cell(NamedTuple):
    """A measure of one patient."""

    value: float | None
    outlier: bool


class Patient(NamedTuple):
    """One row of the table; `link` and `thumbnail` lead from the page to files, where there are any."""

    subject: str
    verdict: str
    findings: str
    message: str
    link: str
    thumbnail: str
    cells: tuple[Cell, ...]

    @property
    def is_outlier(self) -> bool:
        """Whether any measure is far from those of the others."""
        return any(cell.outlier for cell in self.cells)


def write_cohort_report(
    table: str | os.PathLike[str] | Iterable[Mapping[str, Any]],
    path: str | os.PathLike[str],
    *,
    title: str = "Cohort",
    overwrite: bool = False,
) -> Path:
    """Write a page about many patients: a table to sort by any column, outliers, distributions.

    Parameters
    ----------
    table : path-like or iterable of mapping
        A CSV file or a JSON list with a row per patient, or such rows. ``subject`` is needed; ``folder``
        (of the result, from the table's own folder), ``verdict``, ``findings`` (codes), ``state`` and
        ``message`` are used where they are there; every other column of numbers is a measure.
    path : path-like
        Ends with ``.html``.
    title : str
    overwrite : bool
        Replace an existing file.

    Returns
    -------
    pathlib.Path
        Of the file. Pictures and reports of patients are linked, not copied.

    Raises
    ------
    InvalidInputError
        If the table cannot be read or has no rows or subjects (BAD_TABLE), the name of the page ends
        otherwise (BAD_FILE_NAME), or it exists and `overwrite` is not set (OUTPUT_EXISTS).

    Examples
    --------
    >>> from cardiacreg import write_cohort_report
    >>> rows = [{"subject": "A", "LVEF (%)": 61}, {"subject": "B", "state": "failed"}]
    >>> str(write_cohort_report(rows, "cohort.html"))
    'cohort.html'
    """
    place = Path(path)
    if place.suffix.lower() not in (".html", ".htm"):
        raise InvalidInputError(
            f"{place}: a report is a page; needs a name that ends with .html.", code="BAD_FILE_NAME"
        )
    rows, root = _rows(table)
    page = _page(rows, root, place.parent.absolute(), title)
    inputs = [Path(table)] if isinstance(table, str | os.PathLike) else []
    with all_or_nothing(place.parent, (place.name,), overwrite=overwrite, inputs=inputs) as stage:
        (stage / place.name).write_text(page, encoding="utf-8")
    return place


def verdict_of_row(row: Mapping[str, Any]) -> str:
    """Return the verdict that a row gives, or that its state and findings amount to.

    Examples
    --------
    >>> from cardiacreg.reports.cohort import verdict_of_row
    >>> verdict_of_row({"findings": "VOLUME_DIFFERS"}), verdict_of_row({"state": "failed"})
    ('look', 'reject')
    """
    given = str(row.get(VERDICT) or "").strip().lower()
    if given in WORDS:
        return given
    codes = str(row.get(FINDINGS) or "").replace(",", " ").split()
    if row.get(STATE) == FAILED or FAILED_AGREEMENT in codes:
        return REJECT
    unfinished = row.get(STATE) not in (None, "", "done")
    return LOOK if codes or unfinished else ACCEPT


def outliers(values: Float) -> np.ndarray:
    """Return which values lie more than `MOST_DEVIATIONS` robust deviations from the median.

    Parameters
    ----------
    values : ndarray
        NaN where there is none; fewer than eight known values have no outliers.

    Examples
    --------
    >>> import numpy as np
    >>> from cardiacreg.reports.cohort import outliers
    >>> outliers(np.array([50.0, 52, 51, 53, 49, 50, 51, 90])).nonzero()[0].tolist()
    [7]
    """
    known = values[np.isfinite(values)]
    if len(known) < FEWEST_FOR_OUTLIERS:
        return np.zeros(values.shape, dtype=bool)
    middle = np.median(known)
    deviation = _PER_DEVIATION * np.median(np.abs(known - middle))
    far = np.abs(np.nan_to_num(values, nan=middle) - middle)
    return np.asarray(
        far > MOST_DEVIATIONS * max(float(deviation), 1e-9 * abs(float(middle)), 1e-12)
    )


def _rows(
    table: str | os.PathLike[str] | Iterable[Mapping[str, Any]],
) -> tuple[list[dict[str, Any]], Path]:
    """Return all rows, and the folder that their paths start from."""
    if isinstance(table, str | os.PathLike):
        place = Path(table)
        rows, root = _read(place), place.absolute().parent
    else:
        given = list(table)
        check_arguments(given, Mapping, "write_cohort_report: rows of the table")
        rows, root = [dict(row) for row in given], Path.cwd()
    if not rows or not all(str(row.get(SUBJECT) or "").strip() for row in rows):
        raise InvalidInputError(
            f"cohort report: {len(rows)} rows, and not all of them name a subject; needs a table with a "
            "column subject.",
            code="BAD_TABLE",
        )
    return rows, root


def _read(place: Path) -> list[dict[str, Any]]:
    if check_regular_file(place).st_size > _LARGEST_TABLE_BYTES:
        raise InvalidInputError(f"{place}: is too large for a page.", code="BAD_TABLE")
    try:
        text = place.read_text(encoding="utf-8-sig")
        if place.suffix.lower() == ".json":
            found = json.loads(text)
            rows = found.get("patients", []) if isinstance(found, dict) else found
            return [dict(row) for row in rows]
        return list(csv.DictReader(text.splitlines()))
    except (UnicodeDecodeError, ValueError, TypeError, csv.Error) as error:
        raise InvalidInputError(
            f"{place}: not a CSV table or a JSON list of rows ({error}).", code="BAD_TABLE"
        ) from error


def _page(rows: Sequence[Mapping[str, Any]], root: Path, here: Path, title: str) -> str:
    from cardiacreg import __version__

    columns = _measures(rows)
    values = {name: np.array([_number(row.get(name)) for row in rows]) for name in columns}
    far = {name: outliers(column) for name, column in values.items()}
    if QUALITY in far:
        far[QUALITY] &= values[QUALITY] < np.nanmedian(values[QUALITY])
    patients = [
        _patient(row, root, here, tuple(
            Cell(None if np.isnan(values[name][n]) else float(values[name][n]), bool(far[name][n]))
            for name in columns
        ))
        for n, row in enumerate(rows)
    ]  # fmt: skip
    counts = Counter(patient.verdict for patient in patients)
    return render(
        "cohort.html.jinja",
        title=title,
        patients=sorted(patients, key=lambda each: -WORDS.index(each.verdict)),
        columns=columns,
        lead=columns[:1].count(QUALITY),
        digits=[_digits(values[name]) for name in columns],
        counts={word: counts[word] for word in reversed(WORDS)},
        meanings=MEANINGS,
        n_outliers=sum(patient.is_outlier for patient in patients),
        histograms=_histograms(values),
        most_deviations=MOST_DEVIATIONS,
        version=__version__,
    )


def _measures(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the columns that hold numbers and nothing else, at least one; the score comes first."""
    names = dict.fromkeys(name for row in rows for name in row)
    known = (SUBJECT, FOLDER, STATE, FINDINGS, VERDICT, "message", "code", *_LEFT_OUT)
    found = []
    for name in names:
        cells = [row.get(name) for row in rows if row.get(name) not in (None, "")]
        if name not in known and cells and not any(np.isnan(_number(cell)) for cell in cells):
            found.append(str(name))
    return sorted(found, key=lambda name: (name != QUALITY, _is_about_the_run(name)))


def _is_about_the_run(name: str) -> bool:
    return name in _RUN or name.startswith("agreement ")


def _digits(values: Float) -> int:
    """Decimals that a whole column is shown with."""
    known = values[np.isfinite(values)]
    if (known == np.round(known)).all():
        return 0
    return 3 if np.abs(known).max() < 2 else 1


def _number(cell: Any) -> float:
    """Read a cell; NaN where it is none."""
    try:
        value = float(cell)
    except (TypeError, ValueError):
        return float("nan")
    return value if np.isfinite(value) else float("nan")


def _patient(row: Mapping[str, Any], root: Path, here: Path, cells: tuple[Cell, ...]) -> Patient:
    folder = None if not row.get(FOLDER) else root / str(row[FOLDER])
    link = "" if folder is None else _first(folder, (REPORT, f"../{REPORT}", *THUMBNAILS), here)
    thumbnail = "" if folder is None else _first(folder, THUMBNAILS, here)
    codes = " ".join(str(row.get(name) or "") for name in (FINDINGS, "code")).replace(",", " ")
    return Patient(
        str(row[SUBJECT]), verdict_of_row(row), " ".join(dict.fromkeys(codes.split())),
        str(row.get("message") or ""), link, thumbnail, cells,
    )  # fmt: skip


def _first(folder: Path, names: Sequence[str], here: Path) -> str:
    """The way from the page to the first of some files that is there."""
    for name in names:
        if (folder / name).is_file():
            return Path(os.path.relpath(folder / name, here)).as_posix()
    return ""


def _histograms(values: Mapping[str, Float]) -> Picture | None:
    """Draw how each measure is distributed."""
    shown = {
        name: column[np.isfinite(column)]
        for name, column in values.items()
        if np.isfinite(column).sum() > 1 and name not in _RUN
    }
    names = list(shown)[:_MOST_HISTOGRAMS]
    if not names:
        return None
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(3.0 * columns, 1.9 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for panel, name in zip(
        np.ravel(figure.subplots(rows, columns, squeeze=False)), names, strict=False
    ):
        _histogram(panel, name, shown[name])
        panel.set_title(name, fontsize=9, parse_math=False)
        panel.tick_params(labelsize=7)
        panel.xaxis.set_major_locator(MaxNLocator(5))
        panel.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    for panel in figure.axes[len(names) :]:
        panel.axis("off")
    words = "; ".join(
        f"{name}: median {np.median(shown[name]):.4g}, {shown[name].min():.4g} to {shown[name].max():.4g}"
        for name in names
    )
    return as_svg(
        figure, "How the measures are distributed over the patients.", f"Histograms. {words}."
    )


def _histogram(panel: Any, name: str, values: Float) -> None:
    """Draw one distribution; that of scores over their whole range, with what asks for a look."""
    if name != QUALITY:
        panel.hist(values, bins="auto", color="#0a5fa8")
        return
    panel.hist(values, bins=np.linspace(0.0, 1.0, 21), color="#0a5fa8")
    panel.axvline(0.5, color="#a33a00", linestyle="--", linewidth=1)
    panel.set_xlabel("0.5 and less: look", fontsize=7)
