"""One process at a time changes a bank: a lock file that says who holds it, and that outlives nobody.

The file is locked by the system as long as its process lives. Where one is found that nobody holds, its
process was killed, and the lock is taken over with a warning. Locks of other computers may be unseen on a
shared disk, and older versions did not say who they are: such a file counts only when it is young.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cardiacreg.errors import InvalidInputError, warn
from cardiacreg.io.folder_locks import is_old, lock_file

LOCK = "append.lock"
_TRIALS = 20


@contextmanager
def locked_bank(folder: Path, where: str) -> Iterator[None]:
    """Hold the lock of a bank.

    Parameters
    ----------
    folder : pathlib.Path
        A bank.
    where : str
        What messages begin with.

    Raises
    ------
    InvalidInputError
        If another process holds it (BANK_IS_LOCKED).

    Warns
    -----
    InputWarning
        If the process that held it has ended without removing it.
    """
    path = folder / LOCK
    descriptor = _taken(path, where)
    try:
        yield
    finally:
        _leave(descriptor, path)


def _taken(path: Path, where: str) -> int:
    for _ in range(_TRIALS):
        descriptor, found = _opened(path)
        if descriptor is None:
            continue
        try:
            _check_free(descriptor, path, where, found=found)
            if _is_file_of(descriptor, path):
                _sign(descriptor)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
    raise _locked(path, where, "other processes take turns at it")


def _opened(path: Path) -> tuple[int | None, bool]:
    """The lock file, and whether it was there; no file where it went away in between."""
    flags = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0)
    try:
        signed = _signed_file(path)
        if signed is not None:
            return signed, False
        return os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666), False
    except FileExistsError:
        with suppress(FileNotFoundError):
            return os.open(path, flags), True
    return None, True


def _signed_file(path: Path) -> int | None:
    """A new lock file that is signed and locked before it has a name: a kill leaves no unsigned one.

    None where the system cannot make one. Raises FileExistsError where the name is taken.
    """
    nameless = getattr(os, "O_TMPFILE", None)
    if nameless is None:
        return None
    descriptor = None
    try:
        descriptor = os.open(path.parent, nameless | os.O_RDWR, 0o666)
        _sign(descriptor)
        lock_file(descriptor)
        # The folder's number does not count for an absolute path, but links are followed with one alone.
        source = f"/proc/self/fd/{descriptor}"
        os.link(source, path, src_dir_fd=descriptor, follow_symlinks=True)
    except OSError as error:
        if descriptor is not None:
            os.close(descriptor)
        if isinstance(error, FileExistsError):
            raise
        return None
    return descriptor


def _leave(descriptor: int, path: Path) -> None:
    """Remove the lock file while it is locked, where the system lets open files be removed."""
    ours = _is_file_of(descriptor, path)
    if ours:
        with suppress(OSError):
            path.unlink()
    os.close(descriptor)
    if ours and os.name == "nt":
        path.unlink(missing_ok=True)


def _check_free(descriptor: int, path: Path, where: str, *, found: bool) -> None:
    """Raise if another process is at work; warn if one that was has ended."""
    held = lock_file(descriptor)
    owner = _owner(descriptor)
    who = f"process {owner.get('process')} on {owner.get('computer')}" if owner else "a process"
    if held is False:
        raise _locked(path, where, f"{who} is at work there")
    if not found:
        return
    here = held is True and owner.get("computer") == socket.gethostname()
    if not here and not is_old(path):
        raise _locked(path, where, f"{who} is at work there, or was interrupted")
    warn(f"{where}: {path} was left by {who}, which has ended; it is taken over.")


def _locked(path: Path, where: str, why: str) -> InvalidInputError:
    return InvalidInputError(
        f"{where}: {path} exists; {why}. Wait for it; if you know that it has ended, remove this file.",
        code="BANK_IS_LOCKED",
    )


def _owner(descriptor: int) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        os.lseek(descriptor, 0, os.SEEK_SET)
        found = json.loads(os.read(descriptor, 1000))
        if isinstance(found, dict):
            return found
    return {}


def _sign(descriptor: int) -> None:
    said = {"process": os.getpid(), "computer": socket.gethostname(), "since": time.time()}
    os.ftruncate(descriptor, 0)
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, json.dumps(said).encode())


def _is_file_of(descriptor: int, path: Path) -> bool:
    """Whether a name still leads to an open file; another process may have removed or moved it."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except OSError:
        return False
