"""Several files that appear together or not at all.

They are written into a hidden folder inside the destination; only when all are complete are they moved
to their names (`_replaced_files`). The last of the names marks the set as complete: an old one goes
before all others, a new one comes after all others. Everything is looked at before the first file is
touched. A symbolic link of such a name is replaced like a file; what it leads to stays as it is.
"""

from __future__ import annotations

import os
import re
import stat
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np

from cardiacreg.errors import InvalidInputError, check_argument
from cardiacreg.io.folder_locks import held_folder, locked_folder, remove_abandoned
from cardiacreg.io.kept_inputs import check_inputs_are_kept
from cardiacreg.io.regular_file import check_name, kind_of
from cardiacreg.io.replaced_files import put_back_interrupted, replace_files

_STAGE = re.compile(r"\.[0-9a-f]{32}\.partial")


@contextmanager
def all_or_nothing(
    folder: Path,
    names: Sequence[str],
    *,
    overwrite: bool,
    outdated: Sequence[str] = (),
    inputs: Sequence[Path] = (),
) -> Iterator[Path]:
    """Give a place to write files to, and move them into a folder at the end.

    Parameters
    ----------
    folder : pathlib.Path
        Made when missing, and removed again if nothing comes of it.
    names : sequence of str
        What the block writes; the last marks the set as complete.
    overwrite : bool
        Whether files of these names may be replaced.
    outdated : sequence of str
        Further names of ours that an earlier set may have left and that would contradict this one; they
        count as those of `names`, and are removed.
    inputs : sequence of pathlib.Path
        Files and folders that the content came from and that must not be replaced.

    Yields
    ------
    pathlib.Path
        An empty folder for the files.

    Raises
    ------
    InvalidInputError
        If files of these names exist and `overwrite` is not set (OUTPUT_EXISTS), a name belongs to a
        folder or the like, or the folder cannot be made or written (OUTPUT_NOT_WRITABLE), or a file of
        these names is an input (OUTPUT_IS_INPUT).
    """
    every = (*names, *outdated)
    with _staging(folder, every, overwrite, inputs) as stage:
        yield stage
        for name in names:
            _to_disk(stage / name)
        with locked_folder(folder) as alone:
            if alone:
                put_back_interrupted(folder)
            check_free(folder, every, overwrite=overwrite, inputs=inputs)
            replace_files(stage, folder, names, [name for name in outdated if name not in names])


def check_output(
    folder: Path, names: Sequence[str], *, overwrite: bool, inputs: Sequence[Path] = ()
) -> None:
    """Check before long work that its files can be written, leaving nothing behind.

    Parameters
    ----------
    folder : pathlib.Path
    names : sequence of str
        Of all files, outdated ones too.
    overwrite : bool
    inputs : sequence of pathlib.Path

    Raises
    ------
    InvalidInputError
        As `all_or_nothing`.
    """
    with _staging(folder, names, overwrite, inputs) as stage:
        (stage / "probe").write_bytes(b"")


def check_free(
    folder: Path, names: Sequence[str], *, overwrite: bool, inputs: Sequence[Path] = ()
) -> None:
    """Refuse to replace files, unless that is allowed, and ever to replace inputs and what is no file."""
    check_argument(overwrite, (bool, np.bool_), "overwrite")
    for name in names:
        check_name(folder / name)
    check_inputs_are_kept([folder / name for name in names], inputs)
    found = {name: status for name in names if (status := _status(folder / name)) is not None}
    for name, status in found.items():
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)):
            raise InvalidInputError(
                f"{folder}: {name} is {kind_of(status)}, which a file cannot replace; choose another "
                f"folder, or move {name} away.",
                code="OUTPUT_NOT_WRITABLE",
            )
    if found and not overwrite:
        raise InvalidInputError(
            f"{folder}: holds {', '.join(found)} already; choose another folder, or allow "
            "overwriting (--overwrite, overwrite=True).",
            code="OUTPUT_EXISTS",
        )


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None


@contextmanager
def _staging(
    folder: Path, names: Sequence[str], overwrite: bool, inputs: Sequence[Path]
) -> Iterator[Path]:
    """Make a hidden folder inside the destination; afterwards leave no empty folder of ours."""
    _tidy(folder)
    check_free(folder, names, overwrite=overwrite, inputs=inputs)
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        with _stage(folder) as stage:
            yield stage
    finally:
        for path in made:
            with suppress(OSError):
                path.rmdir()


@contextmanager
def _stage(folder: Path) -> Iterator[Path]:
    held = held_folder(folder / f".{uuid.uuid4().hex}.partial")
    with ExitStack() as stack:
        try:
            stage = stack.enter_context(held)
        except OSError as error:
            raise InvalidInputError(
                f"{folder}: cannot be written ({error.strerror or error}); choose another folder or "
                "change its permissions.",
                code="OUTPUT_NOT_WRITABLE",
            ) from error
        yield stage


def _tidy(folder: Path) -> None:
    """Bring in order what killed processes left in a folder."""
    check_name(folder)
    if not folder.is_dir():
        return
    if any(folder.glob(".*.replaced")):
        with locked_folder(folder) as alone:
            if alone:
                put_back_interrupted(folder)
    remove_abandoned(path for path in folder.glob(".*.partial") if _STAGE.fullmatch(path.name))


def _to_disk(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
