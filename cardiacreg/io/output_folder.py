"""Several files that appear together or not at all.

They are written into a hidden folder inside the destination; only when all are complete are they moved
to their names. The last of the names marks the set as complete: it is removed first and moved last.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from cardiacreg.errors import InvalidInputError


@contextmanager
def all_or_nothing(folder: Path, names: Sequence[str], *, overwrite: bool) -> Iterator[Path]:
    """Give a place to write files to, and move them into a folder at the end.

    Parameters
    ----------
    folder : pathlib.Path
        Made when missing, and removed again if nothing comes of it.
    names : sequence of str
        What the block writes; the last marks the set as complete.
    overwrite : bool
        Whether files of these names may be replaced.

    Yields
    ------
    pathlib.Path
        An empty folder for the files.

    Raises
    ------
    InvalidInputError
        If files of these names exist and `overwrite` is not set (OUTPUT_EXISTS), or the folder cannot
        be made or written (OUTPUT_NOT_WRITABLE).
    """
    check_free(folder, names, overwrite=overwrite)
    with _staging(folder) as stage:
        yield stage
        with _locked(folder):
            check_free(folder, names, overwrite=overwrite)
            _move(stage, folder, names)


def check_output(folder: Path, names: Sequence[str], *, overwrite: bool) -> None:
    """Check before long work that its files can be written, leaving nothing behind.

    Raises
    ------
    InvalidInputError
        As `all_or_nothing`.
    """
    check_free(folder, names, overwrite=overwrite)
    with _staging(folder) as stage:
        (stage / "probe").write_bytes(b"")


def check_free(folder: Path, names: Sequence[str], *, overwrite: bool) -> None:
    """Refuse to replace files, unless that is allowed."""
    found = [name for name in names if (folder / name).exists()]
    if found and not overwrite:
        raise InvalidInputError(
            f"{folder}: holds {', '.join(found)} already; choose another folder, or allow "
            "overwriting (--overwrite, overwrite=True).",
            code="OUTPUT_EXISTS",
        )


@contextmanager
def _staging(folder: Path) -> Iterator[Path]:
    """Make a hidden folder inside the destination; afterwards leave no empty folder of ours."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    stage = folder / f".{uuid.uuid4().hex}.partial"
    try:
        _make(stage, folder)
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        for path in made:
            with suppress(OSError):
                path.rmdir()


def _make(stage: Path, folder: Path) -> None:
    try:
        stage.mkdir(parents=True)
    except OSError as error:
        raise InvalidInputError(
            f"{folder}: cannot be written ({error.strerror or error}); choose another folder or "
            "change its permissions.",
            code="OUTPUT_NOT_WRITABLE",
        ) from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one process at a time move its files in, where the system has locks."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _move(stage: Path, folder: Path, names: Sequence[str]) -> None:
    (folder / names[-1]).unlink(missing_ok=True)
    for name in names:
        (stage / name).replace(folder / name)
