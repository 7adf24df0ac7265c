"""Old files make way for new ones, and come back where that was interrupted.

The old ones are first moved into a hidden folder beside them, the last of the names, which marks a set as
complete, before all others; then the new ones are moved in, the marker after all others; then the old
ones are removed. So at every moment the folder holds the old set complete, the new set complete, or no
marker and both sets beside each other. What a killed process left in between, the next one that writes
there puts back: a note in the hidden folder says which files were new.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from cardiacreg.io.atomic_write import to_disk, write_bytes_atomically

_HIDDEN = re.compile(r"\.[0-9a-f]{32}\.replaced")
_NOTE = "replaced.json"


def replace_files(stage: Path, folder: Path, names: Sequence[str], outdated: Sequence[str]) -> None:
    """Move new files to their names, and the old ones of these names out of the way.

    Parameters
    ----------
    stage : pathlib.Path
        Holds the new files, on the same disk.
    folder : pathlib.Path
    names : sequence of str
        The new files; the last marks the set as complete.
    outdated : sequence of str
        Further files of an earlier set, which are removed.
    """
    aside = folder / f".{uuid.uuid4().hex}.replaced"
    aside.mkdir()
    note = {"marker": names[-1], "new": {name: _mark(stage / name) for name in names}}
    write_bytes_atomically(aside / _NOTE, json.dumps(note).encode())
    try:
        for name in (names[-1], *outdated, *reversed(names[:-1])):
            _move(folder / name, aside / name)
        for name in names:
            (stage / name).replace(folder / name)
        to_disk(folder)
    except BaseException:
        _put_back(folder, aside)
        raise
    _remove(aside)


def put_back_interrupted(folder: Path) -> None:
    """Undo what a process left that was killed while it replaced files; nobody else may be at it."""
    for aside in sorted(folder.glob(".*.replaced")):
        if _HIDDEN.fullmatch(aside.name) and aside.is_dir() and not aside.is_symlink():
            _put_back(folder, aside)


def _put_back(folder: Path, aside: Path) -> None:
    note = _note(aside)
    if note is None:
        _remove_unused(aside)
        return
    marker, new = note["marker"], note["new"]
    if not (folder / marker).exists() and not _restored(folder, aside, marker, new):
        return
    _remove(aside)


def _remove_unused(aside: Path) -> None:
    """Remove a hidden folder whose note was never finished: nothing was moved into it yet."""
    for path in aside.glob(".*.partial"):
        path.unlink(missing_ok=True)
    with suppress(OSError):
        aside.rmdir()


def _note(aside: Path) -> dict[str, Any] | None:
    try:
        note = json.loads((aside / _NOTE).read_bytes())
    except (OSError, ValueError):
        return None
    return note if isinstance(note, dict) else None


def _restored(folder: Path, aside: Path, marker: str, new: dict[str, list[int]]) -> bool:
    """Put the old files back in place of the new ones; not where somebody else's are there meanwhile."""
    old = [path.name for path in aside.iterdir() if path.name != _NOTE]
    if any(_mark(folder / name) not in (None, new.get(name)) for name in old):
        return False
    for name, mark in new.items():
        if name not in old and _mark(folder / name) == mark:
            (folder / name).unlink()
    for name in sorted(old, key=lambda each: each == marker):
        (aside / name).replace(folder / name)
    to_disk(folder)
    return True


def _mark(path: Path) -> list[int] | None:
    """What tells a file from others that have its name before and after; a move changes none of it."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    return [found.st_ino, found.st_mtime_ns, found.st_size]


def _move(path: Path, place: Path) -> None:
    with suppress(FileNotFoundError):
        path.replace(place)


def _remove(aside: Path) -> None:
    """Remove replaced files; the note last, without which nothing would be put back."""
    with suppress(OSError):
        for path in sorted(aside.iterdir(), key=lambda each: each.name == _NOTE):
            path.unlink()
        aside.rmdir()
