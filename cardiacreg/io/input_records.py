"""What a result keeps of its inputs: where they were and what they held, so that it can be made again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from numbers import Integral
from pathlib import Path
from typing import Any

from cardiacreg.geometry import Landmarks

PATH, DIGEST, IN_MEMORY, POINTS = "path", "sha256", "in_memory", "points_mm"
_CHUNK_BYTES = 1 << 20


def recorded(source: Any) -> Any:
    """Return how a source can be found again, in terms that JSON knows.

    Parameters
    ----------
    source
        As for `cardiacreg.refine`: a path, a bank, landmarks, a number, or anything in memory.

    Returns
    -------
    dict, int, str or None
        ``path`` and ``sha256`` of a file or folder, ``points_mm`` of landmarks, ``in_memory`` with the
        type of what is there no more; numbers, words and None as they are.

    Examples
    --------
    >>> from cardiacreg.io.input_records import recorded
    >>> recorded(3), recorded(object())
    (3, {'in_memory': 'object'})
    """
    if source is None or getattr(source, "is_default", False):
        return None
    if isinstance(source, Integral):
        return int(source)
    if isinstance(source, Landmarks):
        points = source.points_mm.tolist()
        return {POINTS: points, "names": list(source.names), "source": source.source}
    bank = source.whole_folder if hasattr(source, "whole_folder") else None
    if bank is None and not isinstance(source, str | os.PathLike):
        return {IN_MEMORY: type(source).__name__}
    path = Path(os.fspath(source if bank is None else bank)).absolute()
    return {PATH: str(path), DIGEST: digest_of(path)}


def digest_of(path: Path) -> str | None:
    """Return a SHA-256 of what a file or folder holds; None where it cannot be read.

    Of a bank its index and its entries count, which hold the hashes of all voxels; of another folder
    names and sizes of its files.

    Parameters
    ----------
    path : pathlib.Path
    """
    digest = hashlib.sha256()
    try:
        for part in _parts(path):
            digest.update(part)
    except OSError:
        return None
    return digest.hexdigest()


def _parts(path: Path) -> Iterator[bytes]:
    if not path.is_dir():
        yield from _content(path)
    elif (path / "index.json").is_file():
        for file in (path / "index.json", *sorted(path.glob("entries*.jsonl"))):
            yield from _content(file)
    else:
        for file in sorted(path.rglob("*")):
            if file.is_file():
                name = os.fsencode(file.relative_to(path))
                yield name + b"\0" + str(file.stat().st_size).encode() + b"\0"


def _content(file: Path) -> Iterator[bytes]:
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            yield chunk


def recorded_mapping(preset: str | Mapping[int, int] | None) -> Any:
    """Return a preset as JSON can hold it: a name, pairs, or None.

    Parameters
    ----------
    preset : str, mapping or None
    """
    if preset is None or isinstance(preset, str):
        return preset
    return [[int(theirs), int(ours)] for theirs, ours in preset.items()]
