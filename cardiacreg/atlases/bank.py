"""Atlas banks on disk.

A bank is a folder of memory-mapped arrays and an index (`bank_files`), so opening reads the index alone
and any number of processes share one copy.
How a bank is written stands in `bank_building`.
"""

from __future__ import annotations

import hashlib
import json
import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from tokenize import TokenError
from typing import Any, overload

import numpy as np

from cardiacreg.atlases import bank_place
from cardiacreg.errors import InvalidInputError
from cardiacreg.geometry import LabelMap, Landmarks, Subject, Volume

_DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    TypeError,
    IndexError,
    AttributeError,
    TokenError,
)
"""What reading damaged files of a bank raises; the last one by NumPy's headers."""


class AtlasBank(Sequence[Subject]):
    """A read-only sequence of subjects in a folder, each loaded when it is asked for.

    Parameters
    ----------
    folder : path
        A folder that `build_atlas_bank` wrote.
    positions : sequence of int, optional
        Which of its atlases to show, in this order; all when absent.

    Raises
    ------
    InvalidInputError
        If the folder is missing, incomplete or not of this format.
    """

    _ADVICE = "build it again with build_atlas_bank"

    def __init__(
        self, folder: str | os.PathLike[str], positions: Sequence[int] | None = None
    ) -> None:
        self.folder = Path(folder)
        self._place = self.folder.absolute()
        with self._damage_told():
            self._parts = self._open()
            self._firsts = np.cumsum([0, *map(len, self._parts)]).tolist()
            known = range(self._firsts[-1])
            self._positions = known if positions is None else [known[n] for n in positions]

    def _open(self) -> list[Any]:
        """Return the parts, each of which is a `bank_files.Part` or does what one does."""
        return list(bank_place.open_parts(self.folder))

    @contextmanager
    def _damage_told(self) -> Iterator[None]:
        """Raise our own error where files do not hold what a bank does."""
        try:
            yield
        except _DAMAGE as error:
            raise InvalidInputError(
                f"AtlasBank: {self.folder} is not a complete atlas bank ({error}); {self._ADVICE}.",
                code="BAD_ATLAS_BANK",
            ) from error

    def __reduce__(self) -> tuple[Any, ...]:
        """Send another process the place, wherever that one works, not the voxels."""
        return AtlasBank, (self._place, self._chosen)

    @property
    def _chosen(self) -> list[int] | None:
        """Positions, where they are not all."""
        return None if isinstance(self._positions, range) else self._positions

    @property
    def whole_folder(self) -> Path | None:
        """The folder, where this is all that it holds."""
        return self.folder if self._chosen is None else None

    def __len__(self) -> int:
        return len(self._positions)

    @overload
    def __getitem__(self, index: int) -> Subject: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Subject]: ...

    def __getitem__(self, index: int | slice) -> Subject | Sequence[Subject]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        part, entry = self._find(index)
        subject = self._subject(part, entry)
        with self._damage_told():
            if not entry["has_image"]:
                return subject
            image = part.levels_of(entry).astype(np.float32) * np.float32(entry["intensity_step"])
            return replace(subject, image=Volume(image, entry["voxel_to_world"]))

    def without_image(self, index: int) -> Subject:
        """Return a subject without its image; nothing is copied, which makes selection quick."""
        return self._subject(*self._find(index))

    def _find(self, index: int) -> tuple[Any, dict[str, Any]]:
        """Where an atlas is stored, and what is known of it."""
        position = self._positions[index]
        number = bisect_right(self._firsts, position) - 1
        part = self._parts[number]
        with self._damage_told():
            return part, part.entry(position - self._firsts[number])

    def _subject(self, part: Any, entry: dict[str, Any]) -> Subject:
        with self._damage_told():
            return Subject(
                LabelMap(part.labels_of(entry), entry["voxel_to_world"]),
                landmarks=_landmarks(entry["landmarks"]),
                name=entry["name"],
                metadata=dict(entry["metadata"]),
            )

    def __iter__(self) -> Iterator[Subject]:
        return (self[position] for position in range(len(self)))

    def _each(self, key: str) -> Iterator[Any]:
        return (self._find(index)[1].get(key) for index in range(len(self)))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the subjects, without loading them."""
        return tuple(map(str, self._each("name")))

    @property
    def metadata(self) -> tuple[dict[str, Any], ...]:
        """Metadata of the subjects, without loading them."""
        return tuple(self._each("metadata"))

    @cached_property
    def label_hashes(self) -> tuple[str | None, ...]:
        """SHA-256 of every subject's labels (`label_hash`), None where the bank holds none."""
        return tuple(self._each("label_hash"))

    @cached_property
    def image_hashes(self) -> tuple[str | None, ...]:
        """SHA-256 of every subject's stored image levels, None where there is no image or no hash."""
        return tuple(self._each("image_hash"))

    def stored_image_hash(self, index: int) -> str | None:
        """Return the SHA-256 of an image as it is on disk now; None without an image."""
        part, entry = self._find(index)
        with self._damage_told():
            if not entry["has_image"]:
                return None
            levels = np.ascontiguousarray(part.levels_of(entry))
            return hashlib.sha256(levels.data).hexdigest()

    def entry_is_intact(self, index: int) -> bool:
        """Return whether matrix, landmarks and all else that the index says of an atlas is as it was."""
        _, entry = self._find(index)
        return bool(entry.get("entry_hash", entry_hash(entry)) == entry_hash(entry))

    def excluding(self, subjects: Sequence[Subject | LabelMap]) -> AtlasBank:
        """Return the bank without atlases whose labels equal those of given subjects, by hash.

        An evaluation that takes its inputs from the bank leaves them out with this, so that no answer
        is in the question.

        Raises
        ------
        InvalidInputError
            If nothing is left (EMPTY_BANK) or the bank was built before there were hashes
            (BAD_ATLAS_BANK).
        """
        if None in self.label_hashes:
            raise InvalidInputError(
                f"AtlasBank: {self.folder} holds no hashes; build it again.", code="BAD_ATLAS_BANK"
            )
        maps = [each.labels if isinstance(each, Subject) else each for each in subjects]
        out = {label_hash(each) for each in maps}
        kept = [n for n, found in enumerate(self.label_hashes) if found not in out]
        return self.subset(kept)

    def subset(self, positions: Sequence[int]) -> AtlasBank:
        """Return some of the atlases as a bank; see `with_metadata`.

        Raises
        ------
        InvalidInputError
            If there are no positions.
        """
        return AtlasBank(self.folder, self._subset_of(positions))

    def _subset_of(self, positions: Sequence[int]) -> list[int]:
        if len(positions) == 0:
            raise InvalidInputError(
                f"AtlasBank: nothing of {self.folder} is left; choose less narrowly.",
                code="EMPTY_BANK",
            )
        return [self._positions[n] for n in positions]


def label_hash(labels: LabelMap) -> str:
    """Return the SHA-256 of a label map: its shape and its voxels, wherever it lies in the world."""
    digest = hashlib.sha256(repr(labels.shape).encode())
    digest.update(np.ascontiguousarray(labels.array).data)
    return digest.hexdigest()


def entry_hash(entry: dict[str, Any]) -> str:
    """SHA-256 of what an index entry says of a subject, wherever its voxels are stored."""
    said = {key: each for key, each in entry.items() if key not in ("entry_hash", "start")}
    plain = json.loads(json.dumps(said))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _landmarks(entry: dict[str, Any] | None) -> Landmarks | None:
    if entry is None:
        return None
    return Landmarks(entry["points_mm"], tuple(entry["names"]), entry["source"])
