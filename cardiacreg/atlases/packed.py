"""A bank of synthetic hearts in one small file: labels are packed, images are made when asked for.

The file is a zip archive: ``entries.jsonl`` with a line for each heart, as in other banks, and
``NAME.npy`` with its labels. Each is unpacked once in a process and then kept. An image follows from
the seed, so that none is stored; what was made is kept in the 255 steps in which other banks hold it.

``python -m cardiacreg.atlases.packed FILE`` writes the bank that the package brings along.
"""

from __future__ import annotations

import hashlib
import json
import sys
import zipfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cardiacreg.atlases.bank import AtlasBank, entry_hash
from cardiacreg.atlases.bank_building import pack_subject
from cardiacreg.compute.threads import check_threads, run_tasks
from cardiacreg.phantoms.hearts import HeartSpecification

SHIPPED = Path(__file__).with_name("default_bank.zip")
ENTRIES = "entries.jsonl"
_SAME_DATE = (1980, 1, 1, 0, 0, 0)


class PackedBank(AtlasBank):
    """A packed bank; like any other for those who read it.

    Parameters
    ----------
    file : Path, optional
        That of the package when absent.
    positions : sequence of int, optional
        Which of its atlases to show, in this order; all when absent.

    Raises
    ------
    InvalidInputError
        If the file is missing or damaged (BAD_ATLAS_BANK).
    """

    _ADVICE = "install the package again"

    def __init__(self, file: Path | None = None, positions: Sequence[int] | None = None) -> None:
        self._shipped = file is None
        super().__init__(SHIPPED if file is None else file, positions)

    def _open(self) -> list[Any]:
        state = self._place.stat()
        return [_opened(self._place, state.st_mtime_ns, state.st_size)]

    def __reduce__(self) -> tuple[Any, ...]:
        """Send another process the file; of the package's bank not even that, but that it is it."""
        return PackedBank, (None if self._shipped else self._place, self._chosen)

    @property
    def whole_folder(self) -> Path | None:
        """Nothing: it has no folder."""
        return None

    @property
    def is_default(self) -> bool:
        """Whether this is what is used where no atlases are given."""
        return self._shipped and self._chosen is None

    def stored_image_hash(self, index: int) -> str | None:
        """Return None: no image is stored."""
        self._find(index)
        return None

    def subset(self, positions: Sequence[int]) -> AtlasBank:
        """Return some of the atlases as a bank."""
        return PackedBank(None if self._shipped else self._place, self._subset_of(positions))


class PackedPart:
    """The content of a packed bank, as `bank_files.Part` gives that of another.

    Parameters
    ----------
    file : Path

    Raises
    ------
    OSError, ValueError, KeyError
        If the file is missing, no archive, or not a whole one.
    """

    def __init__(self, file: Path) -> None:
        try:
            self._archive = zipfile.ZipFile(file)
        except zipfile.BadZipFile as error:
            raise ValueError(str(error)) from error
        lines = self._read(ENTRIES).splitlines()
        held = set(self._archive.namelist())
        self._lines = [line for line in lines if f"{json.loads(line)['name']}.npy" in held]
        if not lines or len(self._lines) < len(lines):
            raise ValueError(f"{len(self._lines)} of {len(lines)} hearts are there")
        self._labels: dict[str, NDArray[np.uint8]] = {}
        self._levels: dict[str, NDArray[np.uint8]] = {}

    def __len__(self) -> int:
        return len(self._lines)

    def entry(self, number: int) -> dict[str, Any]:
        """Return what is known of an atlas besides its voxels."""
        found: dict[str, Any] = json.loads(self._lines[number])
        return found

    def labels_of(self, entry: dict[str, Any]) -> NDArray[np.uint8]:
        """Return the labels of an atlas, which cannot be written."""
        name = entry["name"]
        if name not in self._labels:
            packed = self._read(f"{name}.npy")
            flat = np.frombuffer(packed, dtype=np.uint8, offset=_head_of(packed))
            self._labels[name] = flat.reshape(entry["shape"])
        return self._labels[name]

    def levels_of(self, entry: dict[str, Any]) -> NDArray[np.uint8]:
        """Return the image of an atlas in steps of its intensity; made the first time."""
        name, known = entry["name"], entry["metadata"]
        if name not in self._levels:
            heart = HeartSpecification(known["seed"], known["group"], known["phase"])
            self._levels[name] = pack_subject(heart)[1].reshape(entry["shape"])
        return self._levels[name]

    def _read(self, member: str) -> bytes:
        try:
            return self._archive.read(member)
        except Exception as error:  # zlib, lzma and zipfile have errors of their own
            raise ValueError(f"{member}: {error}") from error


@lru_cache(maxsize=4)
def _opened(file: Path, modified: int, size: int) -> PackedPart:
    """Open a file once, so that its labels are unpacked once; anew where it has changed."""
    return PackedPart(file)


def _head_of(packed: bytes) -> int:
    """Length of the header of an array in NumPy's format 1.0."""
    if packed[:8] != b"\x93NUMPY\x01\x00":
        raise ValueError("is no array")
    return 10 + int.from_bytes(packed[8:10], "little")


def write_packed_bank(
    file: Path, specifications: Sequence[HeartSpecification], *, threads: int | None = None
) -> str:
    """Make hearts, write them as a packed bank, and return the digest of its content.

    Parameters
    ----------
    file : Path
        Replaced if it is there.
    specifications : sequence of HeartSpecification
    threads : int, optional
        Every CPU when absent.

    Returns
    -------
    str
        See `content_sha256`.
    """
    made = run_tasks(pack_subject, list(specifications), threads=check_threads(threads))
    lines = []
    with zipfile.ZipFile(file, "w", zipfile.ZIP_LZMA) as archive:
        for flat, _, entry in made:
            entry |= {"image_hash": None}  # another processor may round otherwise
            entry |= {"entry_hash": entry_hash(entry)}
            lines.append(json.dumps(entry))
            with archive.open(_member(f"{entry['name']}.npy"), "w") as stream:
                np.lib.format.write_array(stream, flat.reshape(entry["shape"]), version=(1, 0))
        with archive.open(_member(ENTRIES), "w") as stream:
            stream.write("\n".join(lines).encode())
    return content_sha256(file)


def _member(name: str) -> zipfile.ZipInfo:
    found = zipfile.ZipInfo(name, _SAME_DATE)
    found.compress_type = zipfile.ZIP_LZMA
    return found


def content_sha256(file: Path | None = None) -> str:
    """Return the SHA-256 of what a packed bank says of its hearts, hashes of their labels included.

    Parameters
    ----------
    file : Path, optional
        That of the package when absent.
    """
    with zipfile.ZipFile(SHIPPED if file is None else file) as archive:
        return hashlib.sha256(archive.read(ENTRIES)).hexdigest()


if __name__ == "__main__":
    from cardiacreg.atlases.embedded import default_specifications

    sys.stdout.write(write_packed_bank(Path(sys.argv[1]), default_specifications()) + "\n")
