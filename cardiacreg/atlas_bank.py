"""Atlas banks on disk, and the embedded one: synthetic hearts, built once into the user's cache.

A bank is a folder of two flat uint8 arrays (labels and images of all subjects, one after the other)
and an index; the arrays are memory-mapped, so opening reads only the index and any number of processes
share one copy. A bank is built in a temporary folder beside its place, one atlas at a time, and moved
there when complete. Appended atlases are further arrays; the index that names them is replaced last. So
a reader never sees half of a bank, and neither does one who comes after a crash.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, overload

import numpy as np
import platformdirs
from numpy.typing import NDArray

from cardiacreg import (
    _slabs,
    landmarks,
    phantom_anatomy,
    phantom_image,
    phantom_measures,
    phantom_population,
    phantom_radii,
    phantoms,
)
from cardiacreg._atomic_write import write_bytes_atomically
from cardiacreg.errors import InvalidInputError
from cardiacreg.geometry import LabelMap, Landmarks, Subject, Volume
from cardiacreg.phantoms import HeartSpecification, sample_heart

CACHE_VARIABLE = "CARDIACREG_CACHE"
_FORMAT, _FORMAT_WITH_PARTS = 1, 2
_INDEX, _LABELS, _IMAGES = "index.json", "labels.npy", "images.npy"
_LOCK = "append.lock"
_BATCH = 32


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

    def __init__(
        self, folder: str | os.PathLike[str], positions: Sequence[int] | None = None
    ) -> None:
        self.folder = Path(folder)
        try:
            index = _read_index(self.folder)
            entries: list[dict[str, Any]] = index["subjects"]
            self._positions = tuple(range(len(entries)) if positions is None else positions)
            self._entries = [entries[n] for n in self._positions]
            sizes = _part_sizes(index)
            self._labels = [
                _open_array(self.folder / _part(_LABELS, n), size) for n, size in enumerate(sizes)
            ]
            self._images = [
                _open_array(self.folder / _part(_IMAGES, n), size) for n, size in enumerate(sizes)
            ]
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise InvalidInputError(
                f"AtlasBank: {self.folder} is not a complete atlas bank ({error}); "
                "build it again with build_atlas_bank.",
                code="BAD_ATLAS_BANK",
            ) from error

    def __reduce__(self) -> tuple[Any, ...]:
        """Send another process the place, not the voxels."""
        return AtlasBank, (self.folder, self._positions)

    def __len__(self) -> int:
        return len(self._entries)

    @overload
    def __getitem__(self, index: int) -> Subject: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Subject]: ...

    def __getitem__(self, index: int | slice) -> Subject | Sequence[Subject]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        subject, entry = self.without_image(index), self._entries[index]
        if not entry["has_image"]:
            return subject
        stored = self._images[entry.get("part", 0)]
        intensities = stored[self._span(entry)].reshape(subject.labels.shape)
        image = intensities.astype(np.float32) * np.float32(entry["intensity_step"])
        return replace(subject, image=Volume(image, entry["voxel_to_world"]))

    def without_image(self, index: int) -> Subject:
        """Return a subject without its image; nothing is copied, which makes selection quick."""
        entry = self._entries[index]
        stored = self._labels[entry.get("part", 0)]
        labels = stored[self._span(entry)].reshape(entry["shape"])
        return Subject(
            LabelMap(labels, entry["voxel_to_world"]),
            landmarks=_landmarks(entry["landmarks"]),
            name=entry["name"],
            metadata=dict(entry["metadata"]),
        )

    @staticmethod
    def _span(entry: dict[str, Any]) -> slice:
        return slice(entry["start"], entry["start"] + int(np.prod(entry["shape"])))

    def __iter__(self) -> Iterator[Subject]:
        return (self[position] for position in range(len(self)))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the subjects, without loading them."""
        return tuple(str(entry["name"]) for entry in self._entries)

    @property
    def metadata(self) -> tuple[dict[str, Any], ...]:
        """Metadata of the subjects, without loading them."""
        return tuple(dict(entry["metadata"]) for entry in self._entries)

    @property
    def label_hashes(self) -> tuple[str | None, ...]:
        """SHA-256 of every subject's labels (`label_hash`), None in banks built before there were any."""
        return tuple(entry.get("label_hash") for entry in self._entries)

    @property
    def image_hashes(self) -> tuple[str | None, ...]:
        """SHA-256 of every subject's stored image levels, None where there is no image or no hash."""
        return tuple(entry.get("image_hash") for entry in self._entries)

    def stored_image_hash(self, index: int) -> str | None:
        """Return the SHA-256 of an image as it is on disk now; None without an image."""
        entry = self._entries[index]
        if not entry["has_image"]:
            return None
        stored = self._images[entry.get("part", 0)][self._span(entry)]
        return hashlib.sha256(np.ascontiguousarray(stored).data).hexdigest()

    def entry_is_intact(self, index: int) -> bool:
        """Return whether matrix, landmarks and all else that the index says of an atlas is as it was."""
        entry = self._entries[index]
        return bool(entry.get("entry_hash", _entry_hash(entry)) == _entry_hash(entry))

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
        """Return some of the atlases as a bank; see `atlas_selection.with_metadata`.

        Raises
        ------
        InvalidInputError
            If there are no positions.
        """
        if len(positions) == 0:
            raise InvalidInputError(
                f"AtlasBank: nothing of {self.folder} is left; choose less narrowly.",
                code="EMPTY_BANK",
            )
        return AtlasBank(self.folder, [self._positions[n] for n in positions])


def label_hash(labels: LabelMap) -> str:
    """Return the SHA-256 of a label map: its shape and its voxels, wherever it lies in the world."""
    digest = hashlib.sha256(repr(labels.shape).encode())
    digest.update(np.ascontiguousarray(labels.array).data)
    return digest.hexdigest()


def default_specifications() -> tuple[HeartSpecification, ...]:
    """Return what the default bank holds: 46 people, each at end-diastole and end-systole."""
    sizes = {"healthy": 10, "pulmonary_hypertension": 8, "hypertrophic": 24, "dilated": 4}
    return tuple(
        HeartSpecification(seed, group, phase)
        for group, count in sizes.items()
        for seed in range(count)
        for phase in phantom_population.PHASES
    )


def default_atlases(*, threads: int | None = None) -> AtlasBank:
    """Open the embedded bank, building it on first use.

    Parameters
    ----------
    threads : int, optional
        Threads for the build; every CPU by default. The result does not depend on it.

    Returns
    -------
    AtlasBank
        At least 64 synthetic hearts with image, labels and landmarks. It lives in the user's cache
        folder, or in the folder named by the environment variable ``CARDIACREG_CACHE``; a change of
        the population model gives a new one.
    """
    folder = cache_folder() / f"atlas_bank_{_model_key()}"
    try:
        return AtlasBank(folder)
    except InvalidInputError:
        return build_atlas_bank(folder, default_specifications(), threads=threads)


def cache_folder() -> Path:
    """Return the folder in which built banks are kept."""
    given = os.environ.get(CACHE_VARIABLE)
    return Path(given) if given else Path(platformdirs.user_cache_dir("cardiacreg"))


def build_atlas_bank(
    folder: str | os.PathLike[str],
    subjects: Sequence[Subject | HeartSpecification],
    *,
    threads: int | None = None,
) -> AtlasBank:
    """Write subjects as an atlas bank and open it.

    Parameters
    ----------
    folder : path
        Where the bank is to be; replaced if it exists.
    subjects : sequence of Subject or HeartSpecification
        Atlases with landmarks; a specification is generated here. Image and labels of a subject
        have one grid; a missing image is allowed.
    threads : int, optional
        Threads for generating; every CPU by default.

    Returns
    -------
    AtlasBank
        The bank; labels are kept exactly, images in 255 steps.

    Raises
    ------
    InvalidInputError
        If there are no subjects, or one has an image on another grid than its labels.
    """
    if not subjects:
        raise InvalidInputError(
            "build_atlas_bank: there are no subjects; needs at least one.", code="EMPTY_BANK"
        )
    place = Path(folder)
    place.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
    try:
        entries, size = _write_part(work, 0, subjects, _slabs.check_threads(threads))
        _write_index(work, {"format": _FORMAT, "voxels": size, "subjects": entries})
        _move_into_place(work, place)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return AtlasBank(place)


def append_to_atlas_bank(
    folder: str | os.PathLike[str],
    subjects: Sequence[Subject | HeartSpecification],
    *,
    threads: int | None = None,
) -> AtlasBank:
    """Add subjects to a bank on disk; readers that have it open keep what they see.

    Parameters
    ----------
    folder : path
        A bank.
    subjects : sequence of Subject or HeartSpecification
        Atlases; those whose labels are in the bank already are left out.
    threads : int, optional

    Returns
    -------
    AtlasBank
        The whole bank.

    Raises
    ------
    InvalidInputError
        If the folder is no bank (BAD_ATLAS_BANK) or another process is appending (BANK_IS_LOCKED).
    """
    place = Path(folder)
    AtlasBank(place)
    lock = place / _LOCK
    try:
        lock.touch(exist_ok=False)
    except FileExistsError as error:
        raise InvalidInputError(
            f"append_to_atlas_bank: {lock} exists; another process is appending, or one was "
            "interrupted: then remove this file.",
            code="BANK_IS_LOCKED",
        ) from error
    try:
        index = _read_index(place)
        sizes = _part_sizes(index)
        known = {entry.get("label_hash") for entry in index["subjects"]}
        entries, size = _write_part(
            place, len(sizes), subjects, _slabs.check_threads(threads), known
        )
        if entries:
            parts = {"format": _FORMAT_WITH_PARTS, "parts": [*sizes, size]}
            _write_index(place, parts | {"subjects": index["subjects"] + entries})
    finally:
        lock.unlink(missing_ok=True)
    return AtlasBank(place)


def _read_index(folder: Path) -> dict[str, Any]:
    index: dict[str, Any] = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
    if index["format"] not in (_FORMAT, _FORMAT_WITH_PARTS):
        raise ValueError(f"format {index['format']}, needs {_FORMAT} or {_FORMAT_WITH_PARTS}")
    return index


def _part_sizes(index: dict[str, Any]) -> list[int]:
    return list(index["parts"]) if "parts" in index else [index["voxels"]]


def _part(name: str, number: int) -> str:
    """File name of the arrays of one part; the first has none of its own."""
    return name if number == 0 else name.replace(".npy", f"-{number}.npy")


_Packed = tuple[NDArray[np.uint8], NDArray[np.uint8], dict[str, Any]]


def _pack(item: Subject | HeartSpecification) -> _Packed:
    """Flatten one subject: labels, quantised image and index entry."""
    subject = item
    if isinstance(item, HeartSpecification):
        subject = sample_heart(item.seed, phase=item.phase, group=item.group)
    assert isinstance(subject, Subject)
    image, step = _quantise(subject)
    entry = {
        "name": subject.name,
        "shape": list(subject.labels.shape),
        "voxel_to_world": subject.labels.voxel_to_world.tolist(),
        "has_image": subject.image is not None,
        "intensity_step": step,
        "landmarks": _landmark_entry(subject.landmarks),
        "metadata": subject.metadata,
        "label_hash": label_hash(subject.labels),
        "image_hash": hashlib.sha256(image.data).hexdigest() if subject.image is not None else None,
    }
    return subject.labels.array.ravel(), image, entry | {"entry_hash": _entry_hash(entry)}


def _entry_hash(entry: dict[str, Any]) -> str:
    """SHA-256 of what an index entry says of a subject, wherever its voxels are stored."""
    said = {key: each for key, each in entry.items() if key not in ("entry_hash", "start", "part")}
    plain = json.loads(json.dumps(said))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _landmark_entry(points: Landmarks | None) -> dict[str, Any] | None:
    if points is None:
        return None
    return {
        "points_mm": points.points_mm.tolist(),
        "names": list(points.names),
        "source": points.source,
    }


def _landmarks(entry: dict[str, Any] | None) -> Landmarks | None:
    if entry is None:
        return None
    return Landmarks(entry["points_mm"], tuple(entry["names"]), entry["source"])


def _quantise(subject: Subject) -> tuple[NDArray[np.uint8], float]:
    """Return the image in 255 steps up to its 99.9th percentile, and the size of a step."""
    if subject.image is None:
        return np.zeros(subject.labels.array.size, dtype=np.uint8), 1.0
    if subject.image.shape != subject.labels.shape:
        raise InvalidInputError(
            f"build_atlas_bank: image {subject.image.shape} and labels {subject.labels.shape} of "
            f"{subject.name} differ; needs both on one grid.",
            code="GRID_MISMATCH",
        )
    step = max(float(np.percentile(subject.image.array[::2, ::2, ::2], 99.9)) / 255.0, 1e-6)
    levels = np.clip(np.rint(subject.image.array / np.float32(step)), 0, 255)
    return levels.astype(np.uint8).ravel(), step


def _write_part(
    folder: Path,
    part: int,
    subjects: Sequence[Subject | HeartSpecification],
    threads: int,
    known: set[str | None] | None = None,
) -> tuple[list[dict[str, Any]], int]:
    """Write the arrays of a part, a few subjects at a time; return its entries and its size."""
    entries: list[dict[str, Any]] = []
    start = 0
    known = known or set()
    with (
        _GrowingArray(folder / _part(_LABELS, part)) as labels,
        _GrowingArray(folder / _part(_IMAGES, part)) as images,
    ):
        for first in range(0, len(subjects), _BATCH):
            batch = [subjects[n] for n in range(first, min(first + _BATCH, len(subjects)))]
            packed = _slabs.run_tasks(_pack, batch, threads=threads, step="building the atlas bank")
            for flat, image, entry in packed:
                if entry["label_hash"] in known:
                    continue
                entries.append(entry | {"start": start} | ({"part": part} if part else {}))
                start += flat.size
                labels.extend(flat)
                images.extend(image)
    return entries, start


class _GrowingArray:
    """A flat uint8 ``.npy`` file written piece by piece; the header gets its length at the end."""

    def __init__(self, path: Path) -> None:
        self._path, self._size = path, 0

    def __enter__(self) -> _GrowingArray:
        self._stream = self._path.open("wb")
        self._head()
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.seek(0)
        self._head()
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()

    def _head(self) -> None:
        header = {"descr": "|u1", "fortran_order": False, "shape": (self._size,)}
        np.lib.format.write_array_header_1_0(self._stream, header)

    def extend(self, values: NDArray[np.uint8]) -> None:
        """Add values at the end."""
        self._stream.write(np.ascontiguousarray(values).data)
        self._size += values.size


def _write_index(folder: Path, index: dict[str, Any]) -> None:
    """Write the index, which says what is complete, last and at once."""
    write_bytes_atomically(folder / _INDEX, json.dumps(index).encode())


def _move_into_place(work: Path, place: Path) -> None:
    """Move a finished bank to its place; a complete one that came first from elsewhere wins."""
    if place.exists():
        aside = Path(tempfile.mkdtemp(prefix=f".{place.name}-old-", dir=place.parent))
        place.replace(aside / "bank")
        shutil.rmtree(aside, ignore_errors=True)
    try:
        work.replace(place)
    except OSError:
        AtlasBank(place)


def _open_array(path: Path, size: int) -> NDArray[np.uint8]:
    array: NDArray[np.uint8] = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.dtype != np.uint8 or array.shape != (size,):
        raise ValueError(f"{path.name} holds {array.dtype} {array.shape}, needs uint8 ({size},)")
    return np.asarray(array)


@lru_cache(maxsize=1)
def _model_key() -> str:
    """Digest of what determines the default bank: format, contents and the model's source text."""
    digest = hashlib.sha256(f"{_FORMAT} {default_specifications()}".encode())
    modules = (
        phantom_measures,
        phantom_radii,
        phantom_anatomy,
        phantom_population,
        phantom_image,
        phantoms,
        landmarks,
    )
    for module in modules:
        source = Path(str(module.__file__))
        if source.suffix == ".py" and source.exists():
            digest.update(source.read_bytes())
    return digest.hexdigest()[:16]
