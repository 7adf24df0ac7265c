"""A cohort: every patient of a manifest in a window of tasks, and the lost ones once more, alone."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from numbers import Integral
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from cardiacreg import __version__
from cardiacreg.cohort.claims import remove_old_parts
from cardiacreg.cohort.engines import Engine, dask_engine, serial_engine, windowed
from cardiacreg.cohort.extras import checked_formats
from cardiacreg.cohort.manifest import MARKER, Manifest, Shard, open_manifest
from cardiacreg.cohort.patients import Preset
from cardiacreg.cohort.status import SCHEMA_VERSION, settings_record, versions
from cardiacreg.cohort.task import (
    BUSY,
    FAILED,
    LOST,
    TIME_LIMIT,
    Outcome,
    Settings,
    Task,
)
from cardiacreg.cohort.work import record_lost
from cardiacreg.errors import InvalidInputError, check_arguments
from cardiacreg.io.landmark_files import write_json
from cardiacreg.refinement.options import RefineOptions
from cardiacreg.refinement.output_lattice import checked_spacing

_NAMED = 20
_NOTE_SECONDS = 30.0


@dataclass(slots=True)
class CohortRun:
    """What became of a run so far.

    Parameters
    ----------
    output : pathlib.Path
        Folder of the cohort.
    total : int
        Patients of this run.
    counts : Counter
        Patients by state: done, skipped (complete since an earlier run), failed, busy (in work in
        another run).
    codes : Counter
        Failed patients by code.
    findings : Counter
        Patients by the reasons to look at their results.
    failed : list of Outcome
        The first of the failed.
    seconds : float
    """

    output: Path
    total: int
    counts: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    findings: Counter[str] = field(default_factory=Counter)
    failed: list[Outcome] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def n_settled(self) -> int:
        """Patients that this run needs not come back to."""
        return sum(self.counts.values())

    def add(self, outcome: Outcome) -> None:
        """Count a patient."""
        self.counts[outcome.state] += 1
        self.findings.update(outcome.findings)
        if outcome.state == FAILED:
            self.codes[outcome.code] += 1
            if len(self.failed) < _NAMED:
                self.failed.append(outcome)

    def described(self) -> dict[str, Any]:
        """Return the counts in terms of JSON."""
        return {
            "output": self.output,
            "total": self.total,
            "counts": dict(self.counts),
            "failed_by_code": dict(self.codes),
            "findings": dict(self.findings),
            "seconds": self.seconds,
        }


def refine_cohort(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    preset: Preset = None,
    view_preset: Preset = None,
    use_views: bool = True,
    atlases: str | os.PathLike[str] | None = None,
    check_spacing: bool = True,
    spacing_mm: ArrayLike = (1.25, 1.25, 2.0),
    options: RefineOptions | None = None,
    threads: int | None = 1,
    workers: int | None = None,
    scheduler: str | None = None,
    shard: tuple[int, int] | None = None,
    time_limit_seconds: float | None = None,
    memory_limit_mib: float | None = None,
    report: bool = False,
    surfaces: Sequence[str] = (),
    progress: Callable[[CohortRun, Outcome], None] | None = None,
) -> CohortRun:
    """Refine every patient of a cohort; run again, it goes on where it stopped.

    A patient whose result is complete, and whose inputs, options and version are those of now, is
    skipped. One that fails disturbs no other.

    Parameters
    ----------
    source : path-like
        A manifest, CSV or Parquet, with the columns ``subject`` and ``labels`` and, where there are any,
        ``image``, ``frames``, ``views``, ``landmarks`` and ``preset``; paths go from its folder. Or a
        folder with a folder per patient, as for `find_patient`.
    output : path-like
        Folder for the results: ``patients/SUBJECT`` with what `PatientResult.save` writes and
        ``status.json``. Any number of runs may share it.
    preset, view_preset, use_views, atlases, check_spacing, spacing_mm, options
        As for `refine_patient`; atlases are a folder.
    threads : int, optional
        For one patient.
    workers : int, optional
        Processes on this computer, by dask.distributed.
    scheduler : str, optional
        Address of a dask scheduler whose workers see the same files.
    shard : (int, int), optional
        (i, n): without a scheduler, one after the other, the i-th of n parts of the cohort, from 1.
    time_limit_seconds, memory_limit_mib : float, optional
        For one patient; beyond, its process is ended and the patient recorded as failed, or as done and
        without a report where that was all that was left.
    report : bool
        Also write ``report.html`` of every patient (`write_report`), of those that are complete since an
        earlier run, too; one that cannot be made loses no model and is a finding, ``REPORT_FAILED``.
    surfaces : sequence of str
        Formats ("vtp", "stl", "ply", "obj") in which every frame gets its closed surfaces, of a cine
        those of end-diastole and end-systole, in folders of these names; likewise ``SURFACES_FAILED``.
    progress : callable, optional
        Receives the counts and the last outcome after every patient; raising inside it cancels.

    Returns
    -------
    CohortRun

    Raises
    ------
    InvalidInputError
        If the manifest or an option is of no use, the output cannot be written, or dask is missing; also
        where the disk of the output is full (OUTPUT_NOT_WRITABLE) or the scheduler ends (NO_SCHEDULER):
        what is done is kept.

    Examples
    --------
    >>> import cardiacreg
    >>> run = cardiacreg.refine_cohort("cohort.csv", "out", preset="ukbb", workers=2)  # doctest: +SKIP
    >>> run.counts  # doctest: +SKIP
    Counter({'done': 98, 'failed': 2})
    """
    place = Path(source).absolute()
    manifest = open_manifest(place, None if shard is None else Shard(*_checked_shard(shard)))
    settings = Settings(
        Path(output).absolute(), place.parent, preset, view_preset, use_views,
        None if atlases is None else Path(atlases).absolute(), check_spacing,
        tuple(float(each) for each in checked_spacing(spacing_mm)), options or RefineOptions(),
        threads, time_limit_seconds, memory_limit_mib, bool(report), checked_formats(surfaces),
    )  # fmt: skip
    _check(settings, place)
    with _engine(workers, scheduler, shard) as engine:
        _write_marker(settings, manifest)
        _prepare(engine, settings)
        return _run(engine, manifest, settings, progress)


def _engine(
    workers: int | None, scheduler: str | None, shard: tuple[int, int] | None
) -> AbstractContextManager[Engine]:
    given = [each for each in (workers, scheduler, shard) if each is not None]
    if len(given) != 1 or (workers is not None and workers < 1):
        raise InvalidInputError(
            "refine_cohort: needs workers (1 or more, --workers), the address of a scheduler "
            "(--scheduler), or a shard (--shard), and one of them only.",
            code="BAD_OPTION",
        )
    return serial_engine() if shard is not None else dask_engine(workers, scheduler)


def _checked_shard(shard: Sequence[int]) -> tuple[int, int]:
    check_arguments(shard, Integral, "refine_cohort: shard")
    if len(shard) != 2 or not 1 <= shard[0] <= shard[1]:
        raise InvalidInputError(
            f"shard {shard}; needs i of n with 1 <= i <= n, as 1/10.", code="BAD_OPTION"
        )
    return int(shard[0]), int(shard[1])


def _check(settings: Settings, source: Path) -> None:
    output, atlases = settings.output, settings.atlases
    if output == source:
        raise InvalidInputError(
            f"{output}: is the folder of the patients itself; choose another folder for the results.",
            code="OUTPUT_IS_INPUT",
        )
    if atlases is not None and not atlases.is_dir():
        raise InvalidInputError(f"{atlases}: no folder of atlases.", code="NO_FOLDER")
    try:
        (output / "patients").mkdir(parents=True, exist_ok=True)
        remove_old_parts(output)
    except OSError as error:
        raise InvalidInputError(
            f"{output}: cannot be written ({error.strerror or error}); choose another folder or change "
            "its permissions.",
            code="OUTPUT_NOT_WRITABLE",
        ) from error


def _write_marker(settings: Settings, manifest: Manifest) -> None:
    """Write what the whole cohort has in common; runs that share a folder write the same."""
    try:
        write_json(
            settings.output / MARKER,
            {
                "schema_version": SCHEMA_VERSION,
                "manifest": manifest.place,
                "patients": manifest.total,
                "settings": settings_record(settings),
                "versions": versions(),
            },
        )
    except OSError as error:
        raise InvalidInputError(
            f"{settings.output}: cannot be written ({error.strerror or error}); choose another folder, "
            "make room, or change its permissions.",
            code="OUTPUT_NOT_WRITABLE",
        ) from error


def _prepare(engine: Engine, settings: Settings) -> None:
    found = engine.prepare(settings.atlases)
    if isinstance(found, tuple):
        raise InvalidInputError(
            f"the first process of the cohort failed: {found[1]}.", code=found[0]
        )
    if found["cardiacreg"] != __version__:
        raise InvalidInputError(
            f"the workers have cardiacreg {found['cardiacreg']}, this process {__version__}; install the "
            "same version.",
            code="WORKERS_DIFFER",
        )


def _run(
    engine: Engine,
    manifest: Manifest,
    settings: Settings,
    progress: Callable[[CohortRun, Outcome], None] | None,
) -> CohortRun:
    run, started = CohortRun(settings.output, manifest.count), time.perf_counter()
    lost: list[tuple[Task, Outcome]] = []
    busy: list[Task] = []
    note = _Note(run, settings.output / f"progress{manifest.shard.suffix}.json")

    def settle(outcome: Outcome) -> None:
        run.add(outcome)
        run.seconds = time.perf_counter() - started
        note.write()
        if progress is not None:
            progress(run, outcome)
        _check_disk(outcome, run)

    tasks = (Task(subject, row, settings) for subject, row in manifest.rows())
    try:
        for task, outcome in windowed(tasks, engine):
            if outcome.state == LOST and outcome.code != TIME_LIMIT:
                lost.append((task, outcome))
            elif outcome.state == LOST:
                settle(record_lost(task, outcome.code, outcome.message))
            elif outcome.state == BUSY:
                busy.append(task)
            else:
                settle(outcome)
        for outcome in _once_more(engine, lost):
            settle(outcome)
        for _, outcome in windowed(iter(busy), engine):
            settle(outcome if outcome.state != LOST else replace(outcome, state=BUSY))
    finally:
        note.write(now=True)
    return run


def _once_more(engine: Engine, lost: list[tuple[Task, Outcome]]) -> Iterator[Outcome]:
    """Try lost patients again, each alone in a process of its own: this names those that are at fault."""
    for task, _ in lost:
        engine.submit(replace(task, alone=True))
        _, outcome = engine.next()
        if outcome.state == LOST:
            message = f"{outcome.message}; tried twice, the second time alone"
            outcome = record_lost(replace(task, alone=True), outcome.code, message)
        yield outcome


def _check_disk(outcome: Outcome, run: CohortRun) -> None:
    if outcome.stops:
        raise InvalidInputError(
            f"{outcome.message}: {run.output} takes no more files, so that the run was stopped at "
            f"{outcome.subject}; what is done is kept. Make room and run the same command again.",
            code="OUTPUT_NOT_WRITABLE",
        )


class _Note:
    """Writes how far a run is, now and then."""

    def __init__(self, run: CohortRun, place: Path) -> None:
        self._run, self._place, self._last = run, place, 0.0

    def write(self, *, now: bool = False) -> None:
        run, moment = self._run, time.monotonic()
        if not now and moment - self._last < _NOTE_SECONDS:
            return
        self._last = moment
        left = run.total - run.n_settled
        worked = run.n_settled - run.counts["skipped"]
        pace = run.seconds / worked if worked else None
        with suppress(OSError, InvalidInputError):
            write_json(
                self._place,
                run.described() | {"left": left, "seconds_left": pace and pace * left},
            )
