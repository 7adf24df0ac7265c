"""Locks on folders, which end with the process that holds them however it ends.

Where a system or a file system has no such locks (Windows, some network disks), nothing is held, and what
relies on it is not done: nobody tidies up after others there.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

try:
    fcntl: Any = import_module("fcntl")
except ImportError:
    fcntl = None

ABANDONED_SECONDS = 24 * 3600.0
"""Age from which what nobody holds counts as left behind; locks of other computers may be unseen."""


@contextmanager
def locked_folder(folder: Path) -> Iterator[bool]:
    """Wait until no other process is in such a block for the folder.

    Parameters
    ----------
    folder : pathlib.Path

    Yields
    ------
    bool
        Whether it is sure that we are alone.
    """
    descriptor = _opened(folder)
    try:
        yield descriptor is not None and _lock(descriptor, wait=True)
    finally:
        if descriptor is not None:
            os.close(descriptor)


@contextmanager
def held_folder(folder: Path) -> Iterator[Path]:
    """Make a folder for the time of the block, and remove it with all that is in it.

    Parameters
    ----------
    folder : pathlib.Path
        Its name must say that it is ours.

    Yields
    ------
    pathlib.Path
        The folder.
    """
    folder.mkdir(parents=True)
    descriptor = _opened(folder)
    try:
        if descriptor is not None:
            _lock(descriptor, wait=False)
        yield folder
    finally:
        if descriptor is not None:
            os.close(descriptor)
        shutil.rmtree(folder, ignore_errors=True)


def remove_abandoned(folders: Iterator[Path]) -> None:
    """Remove those of some folders, made by `held_folder`, whose process has ended a day ago or more."""
    for folder in folders:
        if folder.is_symlink() or not folder.is_dir() or not is_old(folder):
            continue
        descriptor = _opened(folder)
        if descriptor is None:
            continue
        try:
            if _lock(descriptor, wait=False):
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(descriptor)


def is_old(path: Path) -> bool:
    """Whether nothing was changed in a folder, or in a file, for `ABANDONED_SECONDS`."""
    try:
        return time.time() - path.stat().st_mtime > ABANDONED_SECONDS
    except OSError:
        return False


def lock_file(descriptor: int) -> bool | None:
    """Lock an open file at once; False where another holds it, None where there are no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _opened(folder: Path) -> int | None:
    if fcntl is None:
        return None
    with suppress(OSError):
        return os.open(folder, os.O_RDONLY)
    return None


def _lock(descriptor: int, *, wait: bool) -> bool:
    if not wait:
        return lock_file(descriptor) is True
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return True
    return False
