"""The place of a bank on disk: what may be replaced there, and how, without a moment that has no bank.

A finished bank is swapped in by two renames: the old one aside, under a name that tells whose it is, then
the new one in. A process that is killed between the two leaves none at the place, and the complete old
one aside; whoever opens or builds there next puts it back. Only files that a bank is made of are removed.
"""

from __future__ import annotations

import json
import os
import re
import stat
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from cardiacreg.atlases.bank_files import INDEX, Part, read_index
from cardiacreg.atlases.bank_lock import LOCK, locked_bank
from cardiacreg.errors import InvalidInputError
from cardiacreg.io.atomic_write import to_disk
from cardiacreg.io.folder_locks import held_folder, locked_folder, remove_abandoned
from cardiacreg.io.regular_file import check_regular_file, is_folder, kind_of, real_path

_OURS = re.compile(
    rf"(labels|images|ends)(-\d+)?\.npy|entries(-\d+)?\.jsonl|{re.escape(INDEX)}|{re.escape(LOCK)}"
    r"|\.[0-9a-f]{32}\.partial"
)
_MOST_BYTES = 1_000_000
_TRIALS = 5


def check_replaceable(folder: Path, where: str) -> None:
    """Refuse to replace anything but a bank, whole or damaged, in which nothing else is.

    Parameters
    ----------
    folder : pathlib.Path
        May be missing or empty.
    where : str
        What the message begins with.

    Raises
    ------
    InvalidInputError
        If it is no folder or no bank (BAD_ATLAS_BANK), or holds what no bank is made of (FOREIGN_FILES).
    """
    if not folder.exists() and not folder.is_symlink():
        return
    if not folder.is_dir():
        raise InvalidInputError(
            f"{where}: {folder} is {kind_of(folder.stat())}, not an atlas bank, and is left alone; "
            "choose another place.",
            code="BAD_ATLAS_BANK",
        )
    if not any(folder.iterdir()):
        return
    if not _is_bank(folder):
        raise InvalidInputError(
            f"{where}: {folder} is not an atlas bank ({_some(_names(folder))} in it), and nothing but a "
            "bank is replaced; choose another place, or remove it yourself.",
            code="BAD_ATLAS_BANK",
        )
    if foreign := [name for name in _names(folder) if not _is_ours(folder / name)]:
        raise InvalidInputError(
            f"{where}: {folder} holds {_some(foreign)}, which is no part of an atlas bank and would be "
            "lost; move it out of there, or choose another place.",
            code="FOREIGN_FILES",
        )


def check_writable_inside(folder: Path, where: str) -> None:
    """Refuse to write into a bank whose files lead elsewhere.

    Parameters
    ----------
    folder : pathlib.Path
        A bank.
    where : str
        What the message begins with.

    Raises
    ------
    InvalidInputError
        If a file of the bank is a symbolic link or no file at all (LINK_IN_BANK).
    """
    for name in _names(folder):
        status = (folder / name).lstat()
        if _OURS.fullmatch(name) and not stat.S_ISREG(status.st_mode):
            raise InvalidInputError(
                f"{where}: {folder / name} is {kind_of(status)}, and what it leads to would be "
                "changed; put a copy of the file in its place, or build the bank anew elsewhere.",
                code="LINK_IN_BANK",
            )


@contextmanager
def open_for_writing(folder: Path, where: str) -> Iterator[None]:
    """Let one process at a time write into a bank, without what a killed one left unfinished.

    Parameters
    ----------
    folder : pathlib.Path
        A bank.
    where : str
        What messages begin with.

    Raises
    ------
    InvalidInputError
        LINK_IN_BANK or BANK_IS_LOCKED.
    """
    check_writable_inside(folder, where)
    with locked_bank(folder, where):
        for path in folder.glob(".*.partial"):
            if _is_ours(path):
                path.unlink()
        yield


@contextmanager
def work_folder(place: Path) -> Iterator[Path]:
    """Give an empty folder beside a bank's place, to build in; what is left of it is removed.

    Parameters
    ----------
    place : pathlib.Path

    Yields
    ------
    pathlib.Path
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    left = re.compile(rf"\.{re.escape(place.name)}\.[0-9a-f]{{32}}\.building")
    remove_abandoned(path for path in place.parent.iterdir() if left.fullmatch(path.name))
    with held_folder(place.parent / f".{place.name}.{uuid.uuid4().hex}.building") as work:
        yield work


def move_into_place(work: Path, place: Path, where: str) -> None:
    """Swap a finished bank in.

    Parameters
    ----------
    work : pathlib.Path
        The finished bank, beside the place.
    place : pathlib.Path
    where : str
        What messages begin with.

    Raises
    ------
    InvalidInputError
        As `check_replaceable`; or if atlases are being appended there (BANK_IS_LOCKED).
    """
    to_disk(work)
    aside = _aside(place)
    with locked_folder(place.parent), ExitStack() as stack:
        put_back(place)
        check_replaceable(place, where)
        try:
            if not _is_vacant(place):
                stack.enter_context(locked_bank(place, where))
                _remove_bank(aside)
                place.replace(aside)
            elif place.is_dir():
                place.rmdir()
            work.replace(place)
        except BaseException:
            put_back(place)
            raise
        to_disk(place.parent)
    _remove_bank(aside)


def heal(place: Path) -> None:
    """Put the old bank back where a swap was interrupted; costs a look where all is well.

    Parameters
    ----------
    place : pathlib.Path

    Raises
    ------
    InvalidInputError
        If nothing can have its name (BAD_FILE_NAME).
    OSError
        If the folder that holds both cannot be written.
    """
    place = real_path(place)
    if not is_folder(_aside(place)) or not _is_vacant(place):
        return
    with locked_folder(place.parent):
        put_back(place)


def put_back(place: Path) -> None:
    """As `heal`, for whom the lock of the folder around is."""
    aside = _aside(place)
    if _is_vacant(place) and is_folder(aside) and _is_bank(aside):
        aside.replace(place)
        to_disk(place.parent)


def open_parts(folder: Path) -> list[Part]:
    """Open all parts of a bank, of one and the same bank if it is replaced meanwhile.

    Parameters
    ----------
    folder : pathlib.Path

    Returns
    -------
    list of Part

    Raises
    ------
    OSError, ValueError, KeyError, TypeError
        If it is not a complete bank of this format.
    """
    place = Path(os.path.realpath(folder))
    for trial in range(_TRIALS):
        heal(place)
        before = None
        try:
            before = place.stat()
            parts = [Part(place, n, **size) for n, size in enumerate(read_index(place))]
        except (OSError, ValueError):
            if trial == _TRIALS - 1 or _is_still(place, before):
                raise
            continue
        if _is_still(place, before):
            return parts
    raise OSError("it is replaced again and again")


def _is_still(place: Path, before: os.stat_result | None) -> bool:
    try:
        return before is not None and os.path.samestat(place.stat(), before)
    except OSError:
        return False


def _is_vacant(place: Path) -> bool:
    """Whether there is nothing, or an empty folder."""
    if place.is_dir():
        return not any(place.iterdir())
    return not place.exists()


def _aside(place: Path) -> Path:
    return place.parent / f".{place.name}.replaced"


def _remove_bank(folder: Path) -> None:
    """Remove a bank that was replaced: its own files, and the folder if nothing else is in it."""
    if folder.is_symlink() or not folder.is_dir():
        return
    with suppress(OSError):
        for name in sorted(_names(folder), key=lambda each: each != INDEX):
            if _is_ours(folder / name):
                (folder / name).unlink()
        folder.rmdir()


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _is_ours(path: Path) -> bool:
    return bool(_OURS.fullmatch(path.name)) and stat.S_ISREG(path.lstat().st_mode)


def _is_bank(folder: Path) -> bool:
    """Whether a folder is a bank, perhaps a damaged one: by its index, else by its first entry."""
    index = _parsed(folder / INDEX)
    if isinstance(index.get("format"), int) and isinstance(index.get("parts"), list):
        return True
    return {"voxel_to_world", "has_image", "landmarks"} <= set(_parsed(folder / "entries.jsonl"))


def _parsed(path: Path) -> dict[str, Any]:
    """The object of JSON that a file holds, or in its first line; empty where there is none."""
    try:
        check_regular_file(path)
        with path.open("rb") as stream:
            text = stream.read(_MOST_BYTES)
        found = json.loads(text if path.suffix == ".json" else text.partition(b"\n")[0])
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown
