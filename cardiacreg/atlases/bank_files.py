"""Files of an atlas bank: parts that are memory-mapped, and an index that says which of them are whole.

A part is made each time that atlases are added: the flat uint8 arrays of all labels and of all images,
one atlas after the other, one line of JSON per atlas, and where each line ends. The index is small, names
the parts and is replaced last: opening reads nothing else, however many atlases there are, and a crash
leaves what was there before.
"""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from cardiacreg.io.atomic_write import to_disk, write_bytes_atomically
from cardiacreg.io.regular_file import check_regular_file

FORMAT = 3
INDEX = "index.json"
_FILES = {"labels": ".npy", "images": ".npy", "entries": ".jsonl", "ends": ".npy"}


def part_file(folder: Path, kind: str, part: int) -> Path:
    """Return the file of a part; those of the first have no number."""
    return folder / f"{kind}{f'-{part}' if part else ''}{_FILES[kind]}"


def read_index(folder: Path) -> list[dict[str, int]]:
    """Return ``{"voxels": ..., "atlases": ...}`` of every part.

    Raises
    ------
    OSError, ValueError, KeyError, TypeError
        If there is no index, or none of this format.
    """
    check_regular_file(folder / INDEX)
    index: dict[str, Any] = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    if index["format"] != FORMAT:
        raise ValueError(f"format {index['format']}, needs {FORMAT}")
    return [{name: int(part[name]) for name in ("voxels", "atlases")} for part in index["parts"]]


def write_index(folder: Path, parts: list[dict[str, int]]) -> None:
    """Write the index, which says what is complete, last and at once."""
    text = json.dumps({"format": FORMAT, "parts": parts}, indent=1)
    write_bytes_atomically(folder / INDEX, text.encode())


class Part:
    """One part of a bank, open for reading; nothing is read but what is asked for.

    Parameters
    ----------
    folder : Path
        The bank.
    number : int
    voxels, atlases : int
        As its index says.

    Raises
    ------
    OSError, ValueError
        If a file is missing or of another size.
    """

    def __init__(self, folder: Path, number: int, *, voxels: int, atlases: int) -> None:
        self._labels = _open_array(part_file(folder, "labels", number), np.uint8, voxels)
        self._images = _open_array(part_file(folder, "images", number), np.uint8, voxels)
        self._ends = _open_array(part_file(folder, "ends", number), np.int64, atlases)
        text = part_file(folder, "entries", number)
        check_regular_file(text)
        if atlases == 0 or text.stat().st_size != self._ends[-1]:
            raise ValueError(
                f"{text.name} holds {text.stat().st_size} bytes, needs as many as said"
            )
        self._text = np.memmap(text, dtype=np.uint8, mode="r")

    def __len__(self) -> int:
        return len(self._ends)

    def entry(self, number: int) -> dict[str, Any]:
        """Return what is known of an atlas besides its voxels; ``start`` is where these begin."""
        first = self._ends[number - 1] if number else 0
        found: dict[str, Any] = json.loads(self._text[first : self._ends[number]].tobytes())
        return found

    def labels_of(self, entry: dict[str, Any]) -> NDArray[np.uint8]:
        """Return the labels of an atlas, mapped."""
        return self._voxels(self._labels, entry)

    def levels_of(self, entry: dict[str, Any]) -> NDArray[np.uint8]:
        """Return the image of an atlas in steps of its intensity, mapped."""
        return self._voxels(self._images, entry)

    @staticmethod
    def _voxels(flat: NDArray[np.uint8], entry: dict[str, Any]) -> NDArray[np.uint8]:
        first = entry["start"]
        found = flat[first : first + int(np.prod(entry["shape"]))]
        return found.reshape(entry["shape"])


class PartWriter:
    """A part that is written atlas by atlas, under other names until it is complete.

    Parameters
    ----------
    folder : Path
    number : int
    """

    def __init__(self, folder: Path, number: int) -> None:
        self._folder, self._number = folder, number
        self._voxels, self._ends = 0, [0]

    def __enter__(self) -> PartWriter:
        self._streams = {kind: self._new_file().open("xb") for kind in _FILES}
        self._write_heads()
        return self

    def _new_file(self) -> Path:
        return self._folder / f".{uuid.uuid4().hex}.partial"

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish the files and move them to their names; after a failure there are none."""
        try:
            if kind is None:
                self._write_heads()
                np.save(self._streams["ends"], np.array(self._ends[1:], np.int64))
                self._finish()
        finally:
            for stream in self._streams.values():
                stream.close()
                Path(stream.name).unlink(missing_ok=True)

    def _finish(self) -> None:
        for name, stream in self._streams.items():
            _to_disk(stream)
            stream.close()
            final = part_file(self._folder, name, self._number)
            if final.is_symlink():
                raise OSError(f"{final} is a symbolic link, through which nothing is written")
            Path(stream.name).replace(final)
        to_disk(self._folder)

    def _write_heads(self) -> None:
        header = {"descr": "|u1", "fortran_order": False, "shape": (self._voxels,)}
        for stream in (self._streams["labels"], self._streams["images"]):
            stream.seek(0)
            np.lib.format.write_array_header_1_0(stream, header)

    def add(
        self, labels: NDArray[np.uint8], image: NDArray[np.uint8], entry: dict[str, Any]
    ) -> None:
        """Add an atlas: flat labels, flat grey levels, and what else is known."""
        line = json.dumps(entry | {"start": self._voxels}).encode() + b"\n"
        self._streams["entries"].write(line)
        self._ends.append(self._ends[-1] + len(line))
        self._streams["labels"].write(np.ascontiguousarray(labels).data)
        self._streams["images"].write(np.ascontiguousarray(image).data)
        self._voxels += labels.size

    @property
    def sizes(self) -> dict[str, int]:
        """What the index is to say of this part."""
        return {"voxels": self._voxels, "atlases": len(self._ends) - 1}


def _to_disk(stream: BinaryIO) -> None:
    stream.flush()
    os.fsync(stream.fileno())


def _open_array(path: Path, dtype: Any, size: int) -> NDArray[Any]:
    check_regular_file(path)
    array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.dtype != dtype or array.shape != (size,):
        raise ValueError(
            f"{path.name} holds {array.dtype} {array.shape}, needs {np.dtype(dtype)} ({size},)"
        )
    return np.asarray(array)
