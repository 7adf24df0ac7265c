"""What is to be done for one patient of a cohort, and what became of it.

Both travel between processes: a task holds paths and options, never voxels.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from cardiacreg.cohort.manifest import Row
from cardiacreg.cohort.patients import PatientFiles, Preset
from cardiacreg.io.landmark_files import json_text
from cardiacreg.refinement.options import RefineOptions

DONE, SKIPPED, FAILED, BUSY, LOST = "done", "skipped", "failed", "busy", "lost"
"""Refined now; complete and unchanged; failed; at work in another run; its process ended."""
TIME_LIMIT, MEMORY_LIMIT, PROCESS_ENDED = "TIME_LIMIT", "MEMORY_LIMIT", "PROCESS_ENDED"
OUTPUT_NOT_WRITABLE = "OUTPUT_NOT_WRITABLE"
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
"""Errors of writing that the next patient would meet too."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What holds for every patient of a cohort.

    Parameters
    ----------
    output : pathlib.Path
        Folder of the cohort.
    base : pathlib.Path
        From which the manifest's paths go.
    preset, view_preset, use_views, atlases, check_spacing, spacing_mm, options, threads
        As for `refine_patient`; atlases are a folder.
    time_limit_seconds, memory_limit_mib : float or None
        For one patient.
    report : bool
        Whether every patient gets a report.
    surfaces : tuple of str
        Formats of surfaces that every patient gets.
    """

    output: Path
    base: Path
    preset: Preset = None
    view_preset: Preset = None
    use_views: bool = True
    atlases: Path | None = None
    check_spacing: bool = True
    spacing_mm: tuple[float, ...] = (1.25, 1.25, 2.0)
    options: RefineOptions = dataclasses.field(default_factory=RefineOptions)
    threads: int | None = 1
    time_limit_seconds: float | None = None
    memory_limit_mib: float | None = None
    report: bool = False
    surfaces: tuple[str, ...] = ()

    def described(self) -> dict[str, Any]:
        """Return all that may change a model, in terms of JSON; not threads, which change no bit."""
        return {
            "preset": as_json(self.preset),
            "view_preset": as_json(self.view_preset),
            "use_views": self.use_views,
            "check_spacing": self.check_spacing,
            "spacing_mm": [float(each) for each in self.spacing_mm],
            "options": json.loads(json_text(dataclasses.asdict(self.options))),
        }


def as_json(preset: Preset) -> Any:
    """Return a preset in terms of JSON, whose names are texts."""
    return {str(k): v for k, v in preset.items()} if isinstance(preset, Mapping) else preset


@dataclass(frozen=True, slots=True)
class Task:
    """One patient.

    Parameters
    ----------
    subject : str
    row : mapping or PatientFiles
        Of the manifest.
    settings : Settings
    alone : bool
        Whether this is the second and last attempt, in a process of its own.
    """

    subject: str
    row: Row | PatientFiles
    settings: Settings
    alone: bool = False

    @property
    def folder(self) -> Path:
        """Where the patient's results belong."""
        return self.settings.output / "patients" / self.subject


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a task.

    Parameters
    ----------
    subject : str
    state : str
        `DONE`, `SKIPPED`, `FAILED`, `BUSY` or `LOST`.
    code, message : str
        Of a failure; of what ended the process of a lost one; why there is no report of one that is done.
    findings : tuple of str
        Codes of the reasons to look at the result.
    stops : bool
        Whether every other patient would fail likewise: the disk is full.
    """

    subject: str
    state: str
    code: str = ""
    message: str = ""
    findings: tuple[str, ...] = ()
    stops: bool = False


def file_sha256(path: Path) -> str | None:
    """Return the SHA-256 of a file; None where it cannot be read."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return None


@lru_cache(maxsize=8)
def atlases_sha256(folder: Path | None) -> str | None:
    """Return what changes with the atlases; read once per process."""
    if folder is None:
        from cardiacreg.atlases.embedded import default_bank_key

        return default_bank_key()
    index = folder / "index.json"
    if index.is_file():
        return file_sha256(index)
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.glob("*/*") if path.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()} {file_sha256(path)}\n".encode())
    return digest.hexdigest()
