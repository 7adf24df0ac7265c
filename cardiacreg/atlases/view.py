"""Some atlases of a bank, read when asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, overload

from cardiacreg.geometry import Subject

_KEPT_ATLASES = 256


class Bank(Protocol):
    """What serves as a bank: any sequence of subjects.

    One with a method ``without_image(index)`` is spared the reading of its images where labels and
    landmarks are enough.
    """

    def __len__(self) -> int: ...

    @overload
    def __getitem__(self, index: int, /) -> Subject: ...

    @overload
    def __getitem__(self, index: slice, /) -> Sequence[Subject]: ...


class AtlasView(Sequence[Subject]):
    """The atlases of a bank that may be used, in an order of its own.

    Parameters
    ----------
    bank : Bank
        Any sequence of subjects, another view included.
    positions : sequence of int, optional
        Positions in the bank; all when absent.
    images : bool
        Whether atlases come with their images. Without, those read last are kept, since selection reads
        a bank twice.
    """

    def __init__(
        self, bank: Bank, positions: Sequence[int] | None = None, *, images: bool = True
    ) -> None:
        self._bank = bank
        self._images = images
        self._kept: dict[int, Subject] = {}
        self._labels_only: AtlasView | None = None
        self.positions = tuple(range(len(bank)) if positions is None else positions)

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return AtlasView(self._bank, self.positions[index], images=self._images)
        position = self.positions[index]
        return self._bank[position] if self._images else self._keep(position)

    def labels_only(self) -> AtlasView:
        """Return the same atlases without images; always the same view, which keeps what it read."""
        if self._labels_only is None:
            self._labels_only = AtlasView(self._bank, self.positions, images=False)
        return self._labels_only

    def without_image(self, index: int) -> Subject:
        """Return an atlas's labels and landmarks, without its image where the bank can spare it."""
        return self._read(self.positions[index])

    def _keep(self, position: int) -> Subject:
        if position not in self._kept:
            if len(self._kept) >= _KEPT_ATLASES:
                self._kept.clear()
            self._kept[position] = self._read(position)
        return self._kept[position]

    def _read(self, position: int) -> Subject:
        read = getattr(self._bank, "without_image", self._bank.__getitem__)
        subject: Subject = read(position)
        return subject
