"""One process at a time works on a patient, however many runs there are.

A file in the patient's folder is locked by the system as long as its process lives, so that nothing has
to be tidied up after a killed one. Where a disk has no locks, two runs may refine a patient twice; as
files are complete or absent, they end with the same files.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cardiacreg.io.folder_locks import is_old, lock_file

LOCK = ".lock"
_TRIALS = 20
_STAGE = re.compile(r"\.[0-9a-f]{32}\.partial")


@contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """Try to be alone at work on a patient.

    Parameters
    ----------
    folder : pathlib.Path
        Of the patient; made when missing, and removed again if it stays empty.

    Yields
    ------
    bool
        Whether nobody else is at work there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    descriptor, held = _locked(path)
    try:
        if held:
            _tidy(folder)
        yield held is not False
    finally:
        if held is not False:
            with suppress(OSError):
                path.unlink()
        os.close(descriptor)
        with suppress(OSError):
            folder.rmdir()


def _locked(path: Path) -> tuple[int, bool | None]:
    """The open lock file, and whether it is ours; None where there are no locks."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    for _ in range(_TRIALS):
        descriptor = os.open(path, flags, 0o666)
        held = lock_file(descriptor)
        if held is not True or _is_file_of(descriptor, path):
            return descriptor, held
        os.close(descriptor)  # another process finished in between and removed the file
    return os.open(path, flags, 0o666), False


def _is_file_of(descriptor: int, path: Path) -> bool:
    """Whether the name still leads to the open file: another process may have finished and removed it."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except OSError:
        return False


def _tidy(folder: Path) -> None:
    """Remove what killed processes had begun to write."""
    for place in (folder, *(path for path in folder.iterdir() if path.is_dir())):
        for path in place.glob(".*.partial"):
            if _STAGE.fullmatch(path.name):
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()


def remove_old_parts(folder: Path) -> None:
    """Remove files that killed runs had begun to write into the folder of a cohort, a day later."""
    for path in folder.glob(".*.partial"):
        if _STAGE.fullmatch(path.name) and path.is_file() and is_old(path):
            path.unlink(missing_ok=True)
