"""Files that are either complete or absent: written under another name, then renamed.

A path that somebody named is followed where it is a symbolic link, as every editor does: the link stays
and the file it leads to is replaced. Where we choose the names, in folders of ours, no link is ever
followed: `_output_folder` replaces the link itself, and banks refuse to be written through one.
"""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from pathlib import Path

from cardiacreg.errors import InvalidInputError
from cardiacreg.io.regular_file import check_replaceable_file, real_path


def write_bytes_atomically(path: str | os.PathLike[str], payload: bytes) -> None:
    """Write a file so that no reader, and no crash, ever sees a part of it.

    Parameters
    ----------
    path : path-like
        The file; replaced if it exists. A symbolic link is followed, and stays.
    payload : bytes
        The whole content.

    Raises
    ------
    InvalidInputError
        If the folder does not exist (NO_FOLDER), or the path is a folder, a named pipe or anything
        else that is no regular file (OUTPUT_NOT_WRITABLE).
    OSError
        If the disk is full or the folder not writable; the old file, if any, is untouched.
    """
    final = real_path(path)
    if not final.parent.is_dir():
        raise InvalidInputError(
            f"{path}: the folder {final.parent} does not exist; create it first.", code="NO_FOLDER"
        )
    check_replaceable_file(final)
    partial = final.with_name(f".{uuid.uuid4().hex}.partial")
    try:
        with partial.open("wb") as stream:
            stream.write(payload)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(final)
        to_disk(final.parent)
    finally:
        partial.unlink(missing_ok=True)


def to_disk(folder: Path) -> None:
    """Make the names in a folder last through a power cut, where the system can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
