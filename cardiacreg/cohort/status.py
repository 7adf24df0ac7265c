"""``status.json`` of a patient: what was made, from what, and how; written last.

It is the only truth about what is complete. A result counts as such where its inputs, options and version
are those of now and its files are as they were written; everything else is done again.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from cardiacreg import __version__
from cardiacreg.cine.files import FILE_NAMES as CINE_NAMES
from cardiacreg.cohort.patients import PatientFiles
from cardiacreg.cohort.task import (
    DONE,
    FAILED,
    Settings,
    Task,
    as_json,
    atlases_sha256,
    file_sha256,
)
from cardiacreg.io.atomic_write import to_disk
from cardiacreg.io.landmark_files import json_text, write_json
from cardiacreg.results.files import FILE_NAMES, ON_REQUEST

STATUS = "status.json"
EXTRAS = "extras_sha256"
"""Of a status: what was made of the models on request, which is not what makes them complete."""
SCHEMA_VERSION = 1
_LARGEST = 10_000_000
_LARGEST_NUMBER = 1e300
_NO_TEXT = re.compile("[\0\ud800-\udfff]")
_RESULT_FILES = {*FILE_NAMES, *ON_REQUEST, *CINE_NAMES}
_LIBRARIES = ("numpy", "scipy", "numba", "nibabel", "scikit-image")


def read_status(folder: Path) -> dict[str, Any] | None:
    """Return the status of a patient; None where there is none, or it is not a whole one.

    Parameters
    ----------
    folder : pathlib.Path
        Of the patient.
    """
    place = folder / STATUS
    try:
        if place.stat().st_size > _LARGEST:
            return None
        found = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if _is_whole(found) else None


def _is_whole(found: Any) -> bool:
    """Whether this is a status as we write them: everything that is there is of its kind."""
    return (
        isinstance(found, dict)
        and found.get("schema_version") == SCHEMA_VERSION
        and found.get("state") in (DONE, FAILED)
        and (
            found["state"] == DONE
            or all(found.get(name) is not None for name in ("code", "message"))
        )
        and all(
            is_kind(found[name]) for name, is_kind in _KINDS.items() if found.get(name) is not None
        )
    )


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and not _NO_TEXT.search(value)


def _is_number(value: Any) -> bool:
    """Whether this is a number that a table can hold; NaN is none."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and abs(value) <= _LARGEST_NUMBER


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _are_named_numbers(value: Any) -> bool:
    return isinstance(value, dict) and all(
        _is_text(name) and (number is None or _is_number(number)) for name, number in value.items()
    )


def _are_hashes(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_text, (*value, *value.values())))


def _is_origin(value: Any) -> bool:
    names = ("cardiacreg", "options_sha256")
    return isinstance(value, dict) and all(
        value.get(name) is None or _is_text(value[name]) for name in names
    )


_KINDS: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("subject", "code", "message", "computer", "ended", "verdict"), _is_text),
    **dict.fromkeys(
        (
            "attempts",
            "warnings",
            "seconds",
            "processor_seconds",
            "process_peak_memory_mib",
            "quality_score",
        ),
        _is_number,
    ),
    **dict.fromkeys(("frames", "findings", "outdated"), _are_texts),
    **dict.fromkeys(("agreement_dice", "measures"), _are_named_numbers),
    **dict.fromkeys(("outputs_sha256", EXTRAS), _are_hashes),
    "made_from": _is_origin,
}
"""What each field of a status is, where it is there; whatever reads a status relies on it."""


def fingerprint(task: Task, patient: PatientFiles | None) -> dict[str, Any]:
    """Return hashes of all that a result comes from: inputs, options, atlases and the version.

    Parameters
    ----------
    task : Task
    patient : PatientFiles or None
        None where its files could not be found; then the row of the manifest counts.
    """
    settings = task.settings
    if patient is None:
        inputs = {"row": json.loads(json_text(dict(_row(task))))}
        facts: dict[str, Any] = {}
    else:
        inputs = {role: file_sha256(path) for role, path in patient.files().items()}
        facts = _facts(patient)
    options = settings.described()
    return {
        "inputs_sha256": inputs,
        "facts": facts,
        "options": options,
        "options_sha256": hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest(),
        "atlases": atlases_sha256(settings.atlases),
        "cardiacreg": __version__,
    }


def _row(task: Task) -> Mapping[str, Any]:
    return {} if isinstance(task.row, PatientFiles) else task.row


def _facts(patient: PatientFiles) -> dict[str, Any]:
    """What was said of a patient beside its files."""
    return {
        "preset": as_json(patient.preset),
        "view_preset": as_json(patient.view_preset),
        "frames": [frame.name for frame in patient.frames],
        "series": patient.series,
        "height_cm": patient.height_cm,
        "weight_kg": patient.weight_kg,
    }


def is_settled(found: dict[str, Any] | None, now: Mapping[str, Any], folder: Path) -> bool:
    """Whether a patient needs no work: complete and unchanged, or failed for good and unchanged.

    Parameters
    ----------
    found : dict or None
        Its status.
    now : mapping
        `fingerprint` of now.
    folder : pathlib.Path
        Its files must be there as they were written.
    """
    if found is None or found.get("made_from") != now:
        return False
    if found["state"] == FAILED:
        return bool(found.get("final"))
    outputs = found.get("outputs_sha256") or {}
    return bool(outputs) and all(
        file_sha256(folder / name) == digest for name, digest in outputs.items()
    )


def write_failure(
    task: Task, made_from: Mapping[str, Any], *, code: str, message: str, final: bool, attempts: int
) -> None:
    """Record that a patient failed; files of an earlier result stay, and are named as outdated.

    Parameters
    ----------
    task : Task
    made_from : mapping
        Its `fingerprint`.
    code, message : str
    final : bool
        Whether the same inputs would fail again.
    attempts : int
    """
    status = about(task, made_from, FAILED) | {
        "code": code,
        "message": message,
        "final": final,
        "attempts": attempts,
        "outputs_sha256": {},
        EXTRAS: {},
        "outdated": sorted(earlier_outputs(task.folder)),
    }
    task.folder.mkdir(parents=True, exist_ok=True)
    write_json(task.folder / STATUS, status)


def about(task: Task, made_from: Mapping[str, Any], state: str) -> dict[str, Any]:
    """Return the beginning of a status."""
    return {
        "schema_version": SCHEMA_VERSION,
        "subject": task.subject,
        "state": state,
        "code": "",
        "message": "",
        "made_from": made_from,
        "versions": versions(),
        "computer": platform.node(),
        "ended": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def versions() -> dict[str, str]:
    """Return versions of what computes."""
    found = {"cardiacreg": __version__, "python": platform.python_version()}
    for name in _LIBRARIES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def earlier_outputs(folder: Path) -> set[str]:
    """Return the files of ours, from the patient's folder, that an earlier status names."""
    found = read_status(folder) or {}
    listed = (found.get(name) or () for name in ("outputs_sha256", EXTRAS, "outdated"))
    names = {name for each in listed for name in each}
    return {name for name in names if _is_ours(name) and (folder / name).is_file()}


def _is_ours(name: str) -> bool:
    """Whether this is a file of a result in a frame's folder, whatever a status may claim."""
    parts = Path(name).parts
    return len(parts) == 2 and parts[0] not in ("..", "/") and parts[1] in _RESULT_FILES


def withdraw(folder: Path) -> None:
    """Remove the status: from now on the patient counts as not done."""
    (folder / STATUS).unlink(missing_ok=True)
    to_disk(folder)


def hashed_outputs(folder: Path, names: Iterable[str]) -> dict[str, str | None]:
    """Return the SHA-256 of files by their path from the patient's folder."""
    return {name: file_sha256(folder / name) for name in sorted(names)}


def remove_outdated(folder: Path, names: Iterable[str]) -> None:
    """Remove files of an earlier result that the new one does not have, and folders that become empty."""
    for name in names:
        place = folder / name
        with suppress(OSError):
            place.unlink()
            if place.parent != folder:
                place.parent.rmdir()


def settings_record(settings: Settings) -> dict[str, Any]:
    """Return what holds for the cohort, for its own file."""
    return settings.described() | {
        "atlases": None if settings.atlases is None else os.fspath(settings.atlases),
        "threads": settings.threads,
        "time_limit_seconds": settings.time_limit_seconds,
        "memory_limit_mib": settings.memory_limit_mib,
        "report": settings.report,
        "surfaces": list(settings.surfaces),
    }
