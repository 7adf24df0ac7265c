"""The user's cache: where it is, and which files in it are ours.

It holds what can be made again: atlas banks and compiled kernels. A kernel's file begins with the digest
of its content, so that a damaged one is known and made again. Numba is not needed here.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import platformdirs

from cardiacreg.io.atomic_write import write_bytes_atomically

CACHE_VARIABLE = "CARDIACREG_CACHE"
NUMBA_VARIABLE = "NUMBA_CACHE_DIR"
_DIGEST_BYTES = hashlib.sha256().digest_size
_KERNEL = re.compile(r"[\w.]+-[0-9a-f]{32}\.kernel")
_KERNEL_LEFT = re.compile(r"\.[0-9a-f]{32}\.partial")
_BANK = re.compile(r"atlas_bank_[0-9a-f]{16}")
_BANK_LEFT = re.compile(r"\.atlas_bank_[0-9a-f]{16}-([0-9a-f]{32}|old-\w+)")
_BANK_FILE = re.compile(
    r"index\.json|append\.lock|(labels|images|ends|entries)(-\d+)?\.(npy|jsonl)|\.[0-9a-f]{32}\.partial"
)
_LEFT_AFTER_SECONDS = 3600.0  # nothing takes so long to be written


def cache_folder() -> Path:
    """Return the folder in which banks and kernels are kept; it need not exist."""
    given = os.environ.get(CACHE_VARIABLE)
    if given:
        return Path(given)
    with suppress(RuntimeError):  # a user without a home: an error, or "~" stays as it is
        found = Path(platformdirs.user_cache_dir("cardiacreg"))
        if found.is_absolute():
            return found
    return Path(os.devnull) / "cardiacreg"


def kernel_folder() -> Path:
    """Return the folder of compiled kernels: in ``NUMBA_CACHE_DIR`` if set, else in the cache."""
    given = os.environ.get(NUMBA_VARIABLE)
    return (Path(given) if given else cache_folder()) / "kernels"


def why_not_writable(folder: Path) -> str | None:
    """Return why no file can be made in a folder, or in the nearest parent that exists; else None."""
    try:
        place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        tempfile.TemporaryFile(dir=place).close()
    except OSError as error:
        return error.strerror or str(error)
    return None


def write_kernel(path: Path, content: bytes) -> None:
    """Write a kernel's file with its digest, at once; the folder is made when missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes_atomically(path, hashlib.sha256(content).digest() + content)


def read_kernel(path: Path) -> bytes | None:
    """Return what `write_kernel` was given; None if it is missing, unreadable or damaged."""
    try:
        held = path.read_bytes()
    except OSError:
        return None
    digest, content = held[:_DIGEST_BYTES], held[_DIGEST_BYTES:]
    return content if hashlib.sha256(content).digest() == digest else None


def kernel_files() -> list[Path]:
    """Return the files of compiled kernels, of any version of this package."""
    return [path for path in _named(kernel_folder(), _KERNEL) if path.is_file()]


def bank_folders() -> list[Path]:
    """Return the embedded banks in the cache, of any version of this package."""
    return [path for path in _named(cache_folder(), _BANK) if path.is_dir()]


def kernel_leftovers() -> list[Path]:
    """Return half-written kernels of processes that were killed."""
    return [path for path in _named(kernel_folder(), _KERNEL_LEFT) if _is_old([path])]


def bank_leftovers() -> list[Path]:
    """Return half-built banks of processes that were killed."""
    found = [path for path in _named(cache_folder(), _BANK_LEFT) if path.is_dir()]
    return [path for path in found if _is_old([path, *files_in(path)])]


def files_in(folder: Path) -> list[Path]:
    """Return the files in a folder and in its folders; links are not followed."""
    return [path for path in folder.rglob("*") if path.is_symlink() or path.is_file()]


def size_of(paths: Iterable[Path]) -> int:
    """Return the bytes of files, and of the files in folders."""
    files = [file for path in paths for file in (files_in(path) if path.is_dir() else [path])]
    return sum(file.lstat().st_size for file in files)


def remove_bank(folder: Path) -> bool:
    """Remove the files of a bank, the index first, and its folder; return whether all is gone.

    Files that are not of a bank stay, and then so does the folder.
    """
    held = [path for path in files_in(folder) if path.parent in (folder, folder / "bank")]
    for path in sorted(held, key=lambda path: path.name != "index.json"):
        if _BANK_FILE.fullmatch(path.name):
            path.unlink(missing_ok=True)
    if files_in(folder):
        return False
    for path in sorted((folder, *folder.rglob("*")), reverse=True):
        path.rmdir()
    return True


def _named(folder: Path, pattern: re.Pattern[str]) -> Iterator[Path]:
    """Entries of a folder with such names, sorted; links are not ours."""
    try:
        found = sorted(folder.iterdir())
    except OSError:
        return
    yield from (p for p in found if pattern.fullmatch(p.name) and not p.is_symlink())


def _is_old(paths: Iterable[Path]) -> bool:
    newest = max(path.lstat().st_mtime for path in paths)
    return time.time() - newest > _LEFT_AFTER_SECONDS
