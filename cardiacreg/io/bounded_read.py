"""Whole files, plain or gzip, read to their last byte and never beyond a budget.

A reader that stops at the last voxel never meets the checksum behind it and returns flipped bits
as anatomy, and one that trusts a header allocates what a few corrupt bytes ask for. Here the
checksum is always reached, and what a header asks for is compared with what the file can hold
before any allocation.
"""

from __future__ import annotations

import os
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from cardiacreg.errors import InvalidInputError
from cardiacreg.io.regular_file import check_regular_file, unreadable
from cardiacreg.io.source_name import warn_about_source

HEAD_BYTES = 544
_GZIP_MAGIC = b"\x1f\x8b"
_CHUNK_BYTES = 1 << 14
_SMALLEST_MEMBER_BYTES = 18
# The deflate format cannot shrink data by more than this.
_LARGEST_DEFLATE_RATIO = 1032

DAMAGED_NPZ = (
    zipfile.BadZipFile, zlib.error, tokenize.TokenError, EOFError, RuntimeError, SyntaxError,
    MemoryError, OSError, ValueError, KeyError, TypeError, OverflowError,
)  # fmt: skip
"""What damaged bytes make zipfile and NumPy raise."""


def read_whole_file(
    path: str | os.PathLike[str], needed_bytes: Callable[[bytes], int], *, max_bytes: int
) -> bytearray:
    """Read what a file's own head says it holds, and check the rest of the file on the way.

    Parameters
    ----------
    path : path-like
        A plain or gzip-compressed file; told apart by content, not by name.
    needed_bytes : callable
        Receives the first `HEAD_BYTES` bytes (fewer in a shorter file) after decompression, and
        returns how many bytes from the start are wanted; may raise.
    max_bytes : int
        Most bytes to hold after decompression.

    Returns
    -------
    bytearray
        Exactly the bytes wanted.

    Raises
    ------
    InvalidInputError
        FILE_NOT_FOUND, UNREADABLE_FILE, TRUNCATED_FILE, CORRUPT_FILE (checksum) or TOO_LARGE.

    Warns
    -----
    InputWarning
        If the name and the content disagree about compression, or data follow the end.
    """
    file = Path(path)
    size = check_regular_file(file).st_size
    try:
        with file.open("rb") as stream:
            is_gzip = stream.read(2) == _GZIP_MAGIC
            stream.seek(0)
            _check_name(file.name, is_gzip)
            chunks = _gzip_chunks(stream) if is_gzip else _plain_chunks(stream)
            limit = size * _LARGEST_DEFLATE_RATIO if is_gzip else size
            return _collect(chunks, needed_bytes, limit, max_bytes)
    except OSError as error:
        raise unreadable(error.strerror or str(error)) from error


def read_everything(path: str | os.PathLike[str], *, max_bytes: int) -> bytes:
    """Read a file, plain or gzip-compressed, whose length nothing tells beforehand.

    Parameters
    ----------
    path : path-like
    max_bytes : int
        Most bytes to hold, after decompression.

    Returns
    -------
    bytes
        The decompressed content.

    Raises
    ------
    InvalidInputError
        As `read_whole_file`.
    """
    check_regular_file(path)
    content = bytearray()
    try:
        with Path(path).open("rb") as stream:
            is_gzip = stream.read(2) == _GZIP_MAGIC
            stream.seek(0)
            for chunk in _gzip_chunks(stream) if is_gzip else _plain_chunks(stream):
                content += chunk
                if len(content) > max_bytes:
                    raise _too_large(len(content), max_bytes)
    except OSError as error:
        raise unreadable(error.strerror or str(error)) from error
    return bytes(content)


def _check_name(name: str, is_gzip: bool) -> None:
    if name.lower().endswith(".gz") != is_gzip:
        kind = "gzip-compressed" if is_gzip else "not gzip-compressed"
        warn_about_source(
            f"{name}: the content is {kind}, unlike the name; it is read as what it is."
        )


def _collect(
    chunks: Iterator[bytes], needed_bytes: Callable[[bytes], int], limit: int, max_bytes: int
) -> bytearray:
    """Gather the wanted bytes and run through the rest; `limit` is the most the file can hold."""
    content = bytearray()
    wanted = None
    surplus = 0
    for chunk in chunks:
        content += chunk
        if wanted is None and len(content) >= HEAD_BYTES:
            wanted = _check_wanted(needed_bytes(bytes(content[:HEAD_BYTES])), limit, max_bytes)
        if wanted is not None and len(content) > wanted:
            surplus += len(content) - wanted
            del content[wanted:]
        if surplus > max_bytes:
            raise _too_large(len(content) + surplus, max_bytes)
    if wanted is None:
        wanted = _check_wanted(needed_bytes(bytes(content)), limit, max_bytes)
        surplus += max(len(content) - wanted, 0)
        del content[wanted:]
    if len(content) < wanted:
        raise _truncated(f"holds {len(content)} of the {wanted} bytes its header promises")
    if surplus:
        warn_about_source(f"{surplus} bytes follow the end of the image; they are ignored.")
    return content


def _check_wanted(wanted: int, limit: int, max_bytes: int) -> int:
    if wanted > limit:
        raise _truncated(f"can hold at most {limit} of the {wanted} bytes its header promises")
    if wanted > max_bytes:
        raise _too_large(wanted, max_bytes)
    return wanted


def _plain_chunks(stream: BinaryIO) -> Iterator[bytes]:
    while chunk := stream.read(1 << 20):
        yield chunk


def _gzip_chunks(stream: BinaryIO) -> Iterator[bytes]:
    """Yield the decompressed content; zlib checks every member's length and CRC at its end."""
    inflater = zlib.decompressobj(wbits=31)
    while compressed := stream.read(_CHUNK_BYTES):
        while compressed:
            try:
                chunk = inflater.decompress(compressed)
            except zlib.error as error:
                raise InvalidInputError(
                    f"the compressed data are damaged ({error}); copy or export the file again.",
                    code="CORRUPT_FILE",
                ) from error
            if chunk:
                yield chunk
            if not inflater.eof:
                break
            compressed = inflater.unused_data
            if len(compressed) < _SMALLEST_MEMBER_BYTES:
                compressed += stream.read(_CHUNK_BYTES)
            if not compressed:
                return
            if not compressed.startswith(_GZIP_MAGIC):
                warn_about_source(
                    "data that are not gzip follow the compressed image; they are ignored."
                )
                return
            inflater = zlib.decompressobj(wbits=31)
    raise _truncated("ends in the middle of the compressed data")


def _truncated(what: str) -> InvalidInputError:
    return InvalidInputError(
        f"the file {what}; it is truncated or its header is damaged: copy or export it again.",
        code="TRUNCATED_FILE",
    )


def _too_large(wanted: int, max_bytes: int) -> InvalidInputError:
    return InvalidInputError(
        f"the file holds {wanted} bytes or more, over the budget of {max_bytes}; "
        "raise max_bytes if this is right.",
        code="TOO_LARGE",
    )
