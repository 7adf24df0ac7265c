"""Files that can be opened without surprise: a named pipe blocks its reader for ever.

What a path leads to is looked at before it is opened.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cardiacreg.errors import InvalidInputError

_LONGEST_NAME = 255
"""Bytes of the name of a file or folder, on every usual file system."""
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFLNK: "a symbolic link",
}


def kind_of(status: os.stat_result) -> str:
    """Return what an entry of a folder is, in words."""
    return _KINDS.get(stat.S_IFMT(status.st_mode), "a regular file")


def real_path(path: str | os.PathLike[str]) -> Path:
    """Return what a path is without links; a name that no system takes is refused (BAD_FILE_NAME)."""
    check_name(path)
    return Path(os.path.realpath(path))


def check_name(path: str | os.PathLike[str]) -> None:
    """Refuse a name that no system takes (BAD_FILE_NAME)."""
    name = os.fsdecode(path)
    longest = max((len(os.fsencode(part)) for part in Path(name).parts), default=0)
    if "\0" in name or longest > _LONGEST_NAME:
        raise InvalidInputError(
            f"{name!r}: nothing can have this name; needs at most {_LONGEST_NAME} bytes, none zero.",
            code="BAD_FILE_NAME",
        )


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Return whether a path leads to a folder; a name that no system takes leads nowhere."""
    try:
        return Path(path).is_dir()
    except OSError:
        return False


def is_file(path: str | os.PathLike[str]) -> bool:
    """Return whether a path leads to a regular file; a name that no system takes leads nowhere."""
    try:
        return Path(path).is_file()
    except OSError:
        return False


def check_regular_file(path: str | os.PathLike[str]) -> os.stat_result:
    """Refuse what is not a regular file, or a link to one, without opening it.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    os.stat_result
        Of the file.

    Raises
    ------
    InvalidInputError
        FILE_NOT_FOUND, or UNREADABLE_FILE for a folder, a named pipe, a socket or a device.
    """
    try:
        found = Path(path).stat()
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise InvalidInputError(
            "the file does not exist; check the path.", code="FILE_NOT_FOUND"
        ) from error
    except OSError as error:
        raise unreadable(error.strerror or str(error)) from error
    if not stat.S_ISREG(found.st_mode):
        raise unreadable(f"it is {kind_of(found)}")
    return found


def unreadable(why: str) -> InvalidInputError:
    """Make the error for a file that cannot be read."""
    return InvalidInputError(
        f"the file cannot be read ({why}); needs a readable regular file.", code="UNREADABLE_FILE"
    )


def check_replaceable_file(path: Path) -> None:
    """Refuse to write where there is something else than a regular file.

    Parameters
    ----------
    path : pathlib.Path
        Where a file is to be; a symbolic link counts as what it leads to.

    Raises
    ------
    InvalidInputError
        OUTPUT_NOT_WRITABLE.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise InvalidInputError(
            f"{path}: cannot be written ({error.strerror or error}); choose another name.",
            code="OUTPUT_NOT_WRITABLE",
        ) from error
    if not stat.S_ISREG(found.st_mode):
        raise InvalidInputError(
            f"{path}: is {kind_of(found)}, which a file cannot replace; choose another name, or "
            "move it away.",
            code="OUTPUT_NOT_WRITABLE",
        )
