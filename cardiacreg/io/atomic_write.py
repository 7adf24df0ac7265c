"""Files that are either complete or absent: written under another name, then renamed."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from cardiacreg.errors import InvalidInputError


def write_bytes_atomically(path: str | os.PathLike[str], payload: bytes) -> None:
    """Write a file so that no reader, and no crash, ever sees a part of it.

    Parameters
    ----------
    path : path-like
        The file; replaced if it exists. A symbolic link is followed.
    payload : bytes
        The whole content.

    Raises
    ------
    InvalidInputError
        If the folder does not exist (NO_FOLDER).
    OSError
        If the disk is full or the folder not writable; the old file, if any, is untouched.
    """
    final = Path(os.path.realpath(path))
    if not final.parent.is_dir():
        raise InvalidInputError(
            f"{path}: the folder {final.parent} does not exist; create it first.", code="NO_FOLDER"
        )
    partial = final.with_name(f".{uuid.uuid4().hex}.partial")
    try:
        with partial.open("wb") as stream:
            stream.write(payload)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(final)
    finally:
        partial.unlink(missing_ok=True)
