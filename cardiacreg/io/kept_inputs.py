"""No output replaces an input: files are compared by what they are, whatever they are called."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from cardiacreg.errors import InvalidInputError


def files_of(*sources: Any) -> tuple[Path, ...]:
    """Return the files and folders behind what a user gave.

    Parameters
    ----------
    *sources
        Paths, images with a file behind them, banks, folders of atlases; anything else has no file.

    Returns
    -------
    tuple of pathlib.Path
        Absolute, as the working folder may change.
    """
    return tuple(Path(path).absolute() for source in sources for path in _paths(source))


def _paths(source: Any) -> Iterator[str | os.PathLike[str]]:
    if isinstance(source, str | os.PathLike):
        yield source
        return
    yield from getattr(source, "input_files", ())
    if isinstance(folder := getattr(source, "folder", None), Path):
        yield folder
    get_filename = getattr(source, "get_filename", None)
    if callable(get_filename) and (name := get_filename()):
        yield name


def check_inputs_are_kept(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Refuse outputs that are inputs at the same time, through links and under any spelling.

    Parameters
    ----------
    outputs : iterable of pathlib.Path
        Files to be written.
    inputs : iterable of pathlib.Path
        Files, or folders with files and with folders of files, as those of atlases.

    Raises
    ------
    InvalidInputError
        OUTPUT_IS_INPUT.
    """
    there = {key: path for path in outputs if (key := _identity(path)) is not None}
    if not there:
        return
    for given in inputs:
        for path in (given, *_inside(given)):
            output = there.get(_identity(path) or (-1, -1))
            if output is not None:
                raise InvalidInputError(
                    f"{output}: is the input {path} itself, which would be lost; choose another "
                    "folder for the output.",
                    code="OUTPUT_IS_INPUT",
                )


def _identity(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """Device and number of a file, by which `os.path.samefile` compares."""
    try:
        status = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _inside(path: Path) -> Iterator[Path]:
    """Files of a folder and of the folders in it."""
    if not path.is_dir():
        return
    for pattern in ("*", "*/*"):
        yield from path.glob(pattern)
