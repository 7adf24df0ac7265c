"""The work on one patient of a cohort: claimed, compared with what is there, refined, written.

Nothing raises to the caller but what ends the process: every problem becomes an `Outcome` and a status on
disk. Only when the disk itself refuses is there no status; then the whole run stops.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from cardiacreg.cohort.claims import claimed
from cardiacreg.cohort.extras import EXTRAS_FAILED, make_extras, still_wanted, write_extras
from cardiacreg.cohort.manifest import patient_of
from cardiacreg.cohort.patients import PatientFiles, Preset
from cardiacreg.cohort.status import (
    EXTRAS,
    STATUS,
    about,
    earlier_outputs,
    fingerprint,
    hashed_outputs,
    is_settled,
    read_status,
    remove_outdated,
    withdraw,
    write_failure,
)
from cardiacreg.cohort.task import (
    BUSY,
    DONE,
    FAILED,
    FULL,
    LOST,
    OUTPUT_NOT_WRITABLE,
    SKIPPED,
    Outcome,
    Task,
)
from cardiacreg.errors import InvalidInputError, RefinementError, kept_warnings
from cardiacreg.io.landmark_files import write_json
from cardiacreg.results.folders import CINE_FOLDER

UNEXPECTED, FILE_ERROR, NO_MEMORY = "UNEXPECTED_ERROR", "FILE_ERROR", "OUT_OF_MEMORY"


class _OutputRefused(Exception):
    """A folder cannot be written; `stops` where that holds for every patient."""

    def __init__(self, message: str, stops: bool) -> None:
        super().__init__(message)
        self.stops = stops

    def outcome(self, task: Task) -> Outcome:
        """What became of the patient; there is no status that could tell it."""
        return Outcome(task.subject, FAILED, OUTPUT_NOT_WRITABLE, str(self), stops=self.stops)


def carry_out(task: Task) -> Outcome:
    """Refine a patient unless that is done, and write everything.

    Parameters
    ----------
    task : Task

    Returns
    -------
    Outcome
    """
    try:
        with _writing(task), claimed(task.folder) as ours:
            return _alone(task) if ours else Outcome(task.subject, BUSY)
    except _OutputRefused as refused:
        return refused.outcome(task)


@contextmanager
def _writing(task: Task) -> Iterator[None]:
    """Tell a disk that takes nothing from what is wrong with one patient."""
    try:
        yield
    except OSError as error:
        message = f"{error.filename or task.folder}: {error.strerror or error}"
        raise _OutputRefused(message, _stops(task, error)) from error
    except InvalidInputError as error:
        if error.code != OUTPUT_NOT_WRITABLE:
            raise
        raise _OutputRefused(str(error), _stops(task, error.__cause__)) from error


def _stops(task: Task, error: BaseException | None) -> bool:
    full = isinstance(error, OSError) and error.errno in FULL
    places = (task.settings.output, task.folder.parent)
    return full or not all(os.access(place, os.W_OK) for place in places)


def _alone(task: Task) -> Outcome:
    before = read_status(task.folder)
    patient, problem = _found(task)
    made_from = fingerprint(task, patient)
    if is_settled(before, made_from, task.folder):
        assert before is not None
        if before["state"] == DONE:
            return _with_extras(task, patient, before)
        return Outcome(task.subject, FAILED, before.get("code") or "", before.get("message") or "")
    if patient is None:
        assert problem is not None
        return _failed(task, made_from, problem.code, str(problem), final=True)
    return _refined(task, patient, made_from)


def _found(task: Task) -> tuple[PatientFiles | None, InvalidInputError | None]:
    try:
        return patient_of(task.row, task.settings.base), None
    except InvalidInputError as problem:
        return None, problem
    except OSError as error:
        return None, InvalidInputError(f"{error.filename}: {error.strerror}", code=FILE_ERROR)


def _refined(task: Task, patient: PatientFiles, made_from: Mapping[str, Any]) -> Outcome:
    from cardiacreg.cohort._refine_patient import judged, refine_patient

    settings, clock = task.settings, (time.perf_counter(), time.process_time())
    preset = _preset(task, patient)
    try:
        with kept_warnings():
            result = refine_patient(
                patient,
                preset=preset,
                view_preset=settings.view_preset, use_views=settings.use_views,
                atlases=settings.atlases, check_spacing=settings.check_spacing,
                spacing_mm=settings.spacing_mm, options=settings.options, threads=settings.threads,
            )  # fmt: skip
            quality = judged(result, preset)
    except (InvalidInputError, RefinementError) as error:
        return _failed(task, made_from, error.code, str(error), final=True)
    except MemoryError as error:
        if not task.alone:
            return Outcome(task.subject, LOST, NO_MEMORY, str(error) or "out of memory")
        return _failed(task, made_from, NO_MEMORY, str(error) or "out of memory", final=False)
    except OSError as error:
        return _failed(task, made_from, FILE_ERROR, str(error), final=False)
    except Exception:  # the others go on; the traceback tells what to mend
        return _failed(task, made_from, UNEXPECTED, traceback.format_exc(limit=-6), final=True)
    outcome = _saved(task, result, quality, made_from, clock)
    if outcome.state != DONE or not (task.settings.report or task.settings.surfaces):
        return outcome
    return replace(_with_extras(task, patient, read_status(task.folder) or {}), state=DONE)


def _with_extras(task: Task, patient: PatientFiles | None, status: Mapping[str, Any]) -> Outcome:
    """Make the report and surfaces that are asked for and are not there, of models that are done."""
    wanted = still_wanted(task.settings, status, task.folder)
    if patient is None or not wanted:
        return Outcome(task.subject, SKIPPED, findings=tuple(status.get("findings") or ()))
    clock = (time.perf_counter(), time.process_time())
    made, failed = make_extras(wanted, task.folder, patient, _preset(task, patient))
    try:
        with _writing(task):
            write_extras(task.folder, made, patient)
    except InvalidInputError as error:
        made, failed = {}, dict.fromkeys(wanted.codes, str(error))
    hashes = {**(status.get(EXTRAS) or {}), **hashed_outputs(task.folder, made)}
    since = {
        name: (status.get(name) or 0.0) + now - before
        for name, now, before in zip(
            ("seconds", "processor_seconds"),
            (time.perf_counter(), time.process_time()),
            clock,
            strict=True,
        )
    }
    more = {EXTRAS: hashes, "process_peak_memory_mib": _peak_memory_mib(), **since}
    return _noted(task, status, more, failed)


def _noted(
    task: Task, status: Mapping[str, Any], more: Mapping[str, Any], failed: Mapping[str, str]
) -> Outcome:
    """Write the status of a patient whose models are done, with what became of the extras."""
    kept = [code for code in status.get("findings") or () if code not in EXTRAS_FAILED]
    findings, message = [*kept, *failed], "; ".join(dict.fromkeys(failed.values()))
    with _writing(task):
        write_json(
            task.folder / STATUS, {**status, **more, "findings": findings, "message": message}
        )
    return Outcome(task.subject, DONE, message=message, findings=tuple(findings))


def _preset(task: Task, patient: PatientFiles) -> Preset:
    """What the labels mean: by the patient's own row, by the settings, or by the names of the files."""
    return patient.preset if _is_said(task) else task.settings.preset or patient.preset


def _is_said(task: Task) -> bool:
    """Whether the patient's own row of the manifest says what its labels mean."""
    return not isinstance(task.row, PatientFiles) and bool(task.row.get("preset"))


def _saved(
    task: Task, result: Any, quality: Any, made_from: Mapping[str, Any], clock: tuple[float, float]
) -> Outcome:
    """Write a result, its status last."""
    from cardiacreg.cohort._refine_patient import PATIENT_FILES, agreements, measured

    folder, old = task.folder, earlier_outputs(task.folder)
    try:
        with _writing(task):
            withdraw(folder)
            result.save(folder, overwrite=True)
            names = [*PATIENT_FILES, *_files_of_frames(folder, result)]
            remove_outdated(folder, old - set(names))
            status = about(task, made_from, DONE) | {
                "final": True,
                "attempts": 2 if task.alone else 1,
                "seconds": time.perf_counter() - clock[0],
                "processor_seconds": time.process_time() - clock[1],
                "process_peak_memory_mib": _peak_memory_mib(),
                "frames": list(result.frames) or [CINE_FOLDER],
                "findings": list(quality.codes),
                "verdict": quality.verdict,
                "quality_score": quality.score,
                "warnings": len(result.warnings),
                "agreement_dice": agreements(result),
                "measures": measured(result),
                "inputs": {role: os.fspath(path) for role, path in result.patient.files().items()},
                "outputs_sha256": hashed_outputs(folder, names),
            }
            write_json(folder / STATUS, status)
    except InvalidInputError as error:
        return _failed(task, made_from, error.code, str(error), final=False)
    return Outcome(task.subject, DONE, findings=quality.codes)


def _peak_memory_mib() -> float | None:
    """Most memory that this process ever had; None where the system does not tell."""
    try:
        import resource
    except ImportError:
        return None
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _files_of_frames(folder: Path, result: Any) -> list[str]:
    from cardiacreg.cine.files import FILE_NAMES as CINE_NAMES
    from cardiacreg.results.files import FILE_NAMES, ON_REQUEST

    names = [f"{frame}/{name}" for frame in result.frames for name in (*FILE_NAMES, *ON_REQUEST)]
    names += [f"{CINE_FOLDER}/{name}" for name in CINE_NAMES if result.cine is not None]
    return [name for name in names if (folder / name).is_file()]


def _failed(
    task: Task, made_from: Mapping[str, Any], code: str, message: str, *, final: bool
) -> Outcome:
    with _writing(task):
        write_failure(
            task, made_from, code=code, message=message, final=final,
            attempts=2 if task.alone else 1,
        )  # fmt: skip
    return Outcome(task.subject, FAILED, code, message)


def record_lost(task: Task, code: str, message: str) -> Outcome:
    """Record that the process of a patient ended again, or passed its limit.

    Where that was while the report or surfaces of models were made that are done, the patient is done.

    Parameters
    ----------
    task : Task
    code : str
        `PROCESS_ENDED`, `TIME_LIMIT` or `MEMORY_LIMIT`.
    message : str

    Returns
    -------
    Outcome
    """
    try:
        with _writing(task), claimed(task.folder) as ours:
            if not ours:
                return Outcome(task.subject, BUSY)
            patient, _ = _found(task)
            made_from, status = fingerprint(task, patient), read_status(task.folder)
            if status is not None and is_settled(status, made_from, task.folder):
                wanted = still_wanted(task.settings, status, task.folder)
                if status["state"] == DONE and wanted:
                    return _noted(task, status, {}, dict.fromkeys(wanted.codes, message))
            return _failed(task, made_from, code, message, final=False)
    except _OutputRefused as refused:
        return refused.outcome(task)


def prepare(atlases: Path | None) -> str:
    """Do once what all processes need, and return the version at work.

    The embedded atlases are opened, so that damage is told once, and kernels are compiled where they
    are not, before many processes do it side by side.
    """
    from cardiacreg import __version__
    from cardiacreg.compute.preparation import compile_kernels, needs_compiling
    from cardiacreg.compute.threads import available_threads

    if needs_compiling():
        compile_kernels(available_threads())
    if atlases is None:
        from cardiacreg.atlases.embedded import default_atlases

        default_atlases()
    return __version__
