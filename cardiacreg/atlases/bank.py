"""Atlas banks on disk, and the embedded one: synthetic hearts, built once into the user's cache.

A bank is a folder of memory-mapped arrays and an index (`bank_files`), so opening reads the index alone
and any number of processes share one copy. A bank is built in a folder beside its place, one atlas at a
time, and swapped in when complete (`bank_place`). Appended atlases are further arrays; the index that
names them is replaced last. So a reader never sees half of a bank, and neither does one who comes after
a crash.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import shutil
import tempfile
import warnings
from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from cardiacreg.anatomy import landmarks
from cardiacreg.atlases import bank_files, bank_place
from cardiacreg.atlases.atlas_anatomy import check_atlas_anatomy
from cardiacreg.atlases.checks import check_label_set
from cardiacreg.compute.cache_files import CACHE_VARIABLE, cache_folder
from cardiacreg.compute.threads import check_threads, run_tasks
from cardiacreg.errors import CacheWarning, InvalidInputError
from cardiacreg.geometry import LabelMap, Landmarks, Subject, Volume
from cardiacreg.phantoms import anatomy, hearts, mr_image, population, published_measures, radii
from cardiacreg.phantoms.hearts import HeartSpecification, sample_heart

_BATCH = 32
_temporary_banks: dict[Path, AtlasBank] = {}


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
            self._parts = bank_place.open_parts(self.folder)
            self._firsts = np.cumsum([0, *map(len, self._parts)]).tolist()
            known = range(self._firsts[-1])
            self._positions = known if positions is None else [known[n] for n in positions]
        except (OSError, EOFError, ValueError, KeyError, TypeError, IndexError) as error:
            raise InvalidInputError(
                f"AtlasBank: {self.folder} is not a complete atlas bank ({error}); "
                "build it again with build_atlas_bank.",
                code="BAD_ATLAS_BANK",
            ) from error

    def __reduce__(self) -> tuple[Any, ...]:
        """Send another process the place, not the voxels."""
        whole = isinstance(self._positions, range)
        return AtlasBank, (self.folder, None if whole else self._positions)

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
        if not entry["has_image"]:
            return subject
        intensities = part.images[self._span(entry)].reshape(subject.labels.shape)
        image = intensities.astype(np.float32) * np.float32(entry["intensity_step"])
        return replace(subject, image=Volume(image, entry["voxel_to_world"]))

    def without_image(self, index: int) -> Subject:
        """Return a subject without its image; nothing is copied, which makes selection quick."""
        return self._subject(*self._find(index))

    def _find(self, index: int) -> tuple[bank_files.Part, dict[str, Any]]:
        """Where an atlas is stored, and what is known of it."""
        position = self._positions[index]
        number = bisect_right(self._firsts, position) - 1
        part = self._parts[number]
        return part, part.entry(position - self._firsts[number])

    def _subject(self, part: bank_files.Part, entry: dict[str, Any]) -> Subject:
        labels = part.labels[self._span(entry)].reshape(entry["shape"])
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
        if not entry["has_image"]:
            return None
        return hashlib.sha256(np.ascontiguousarray(part.images[self._span(entry)]).data).hexdigest()

    def entry_is_intact(self, index: int) -> bool:
        """Return whether matrix, landmarks and all else that the index says of an atlas is as it was."""
        _, entry = self._find(index)
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
        for phase in population.PHASES
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
        the population model gives a new one, and a damaged one is built again.

    Raises
    ------
    InvalidInputError
        If there is no bank, and neither the cache nor a temporary folder can be written
        (CACHE_NOT_WRITABLE).

    Warns
    -----
    CacheWarning
        If the cache cannot be written and the bank is built for this process only.
    """
    folder = default_bank_folder()
    try:
        return open_default_bank(folder)
    except InvalidInputError:
        pass  # there is none yet, or it is damaged
    if folder in _temporary_banks:
        return _temporary_banks[folder]
    try:
        return build_atlas_bank(folder, default_specifications(), threads=threads)
    except OSError as error:
        return _temporary_bank(folder, error, threads)


def default_bank_folder() -> Path:
    """Return where the embedded bank of this version is, or will be."""
    return cache_folder() / f"atlas_bank_{_model_key()}"


def open_default_bank(folder: Path) -> AtlasBank:
    """Open the embedded bank, and look at all of it but voxels, which takes a hundredth of a second.

    Raises
    ------
    InvalidInputError
        If it is missing or damaged (BAD_ATLAS_BANK).
    """
    bank, needed = AtlasBank(folder), len(default_specifications())
    try:
        whole = sum(bank.entry_is_intact(number) for number in range(len(bank)))
    except (ValueError, KeyError, TypeError, AttributeError):
        whole = 0
    if whole < max(needed, len(bank)):
        raise InvalidInputError(
            f"{folder}: holds {whole} whole atlases, needs {max(needed, len(bank))}; remove it with "
            "cardiacreg cache clear --banks.",
            code="BAD_ATLAS_BANK",
        )
    return bank


def _temporary_bank(folder: Path, reason: OSError, threads: int | None) -> AtlasBank:
    """Build the embedded bank for this process, because it cannot be where it should be."""
    why = reason.strerror or str(reason)
    try:
        place = Path(tempfile.mkdtemp(prefix="cardiacreg-bank-"))
        atexit.register(_remove, place, os.getpid())
        bank = build_atlas_bank(place / folder.name, default_specifications(), threads=threads)
    except OSError as error:
        raise InvalidInputError(
            f"default_atlases: {folder} cannot be written ({why}), and no temporary folder either "
            f"({error.strerror or error}); set {CACHE_VARIABLE} to a folder with room for 150 MB.",
            code="CACHE_NOT_WRITABLE",
        ) from error
    warnings.warn(
        f"default_atlases: {folder} cannot be written ({why}); the atlases were built for this process "
        f"only, as every process will, which takes about a minute. Set {CACHE_VARIABLE} to a folder "
        "that can be written.",
        CacheWarning,
        stacklevel=3,
    )
    _temporary_banks[folder] = bank
    return bank


def _remove(folder: Path, owner: int) -> None:
    """Remove a folder at the end of the process that made it, not of one forked from it."""
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)


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
        Where the bank is to be. A bank that is there, whole or damaged, is replaced at once when the
        new one is complete; anything else is left alone.
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
        If there are no subjects, one has an image on another grid than its labels or is no heart as it
        stands (UNEXPECTED_LABEL, WRONG_PRESET, MIRRORED_ATLAS), the folder is no
        bank (BAD_ATLAS_BANK) or holds files that are no part of one (FOREIGN_FILES), or another process
        is appending there (BANK_IS_LOCKED).
    """
    if not subjects:
        raise InvalidInputError(
            "build_atlas_bank: there are no subjects; needs at least one.", code="EMPTY_BANK"
        )
    place = Path(os.path.realpath(folder))
    bank_place.heal(place)
    bank_place.check_replaceable(place, "build_atlas_bank")
    with bank_place.work_folder(place) as work:
        sizes = _write_part(work, 0, subjects, check_threads(threads))
        bank_files.write_index(work, [sizes])
        bank_place.move_into_place(work, place, "build_atlas_bank")
    return AtlasBank(folder)


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
        If the folder is no bank (BAD_ATLAS_BANK), one of its files is a symbolic link (LINK_IN_BANK),
        or another process is appending (BANK_IS_LOCKED).

    Warns
    -----
    InputWarning
        If an earlier process was killed while it appended; what it left is removed.
    """
    place = Path(folder)
    AtlasBank(place)
    with bank_place.open_for_writing(place, "append_to_atlas_bank"):
        parts, known = bank_files.read_index(place), set(AtlasBank(place).label_hashes)
        sizes = _write_part(place, len(parts), subjects, check_threads(threads), known)
        if sizes["atlases"]:
            bank_files.write_index(place, [*parts, sizes])
    return AtlasBank(place)


_Packed = tuple[NDArray[np.uint8], NDArray[np.uint8], dict[str, Any]]


def _pack(item: Subject | HeartSpecification) -> _Packed:
    """Flatten one subject: labels, quantised image and index entry."""
    subject = item
    if isinstance(item, HeartSpecification):
        subject = sample_heart(item.seed, phase=item.phase, group=item.group)
    assert isinstance(subject, Subject)
    if subject is item:
        check_label_set(subject.labels, f"atlas {subject.name}")
        check_atlas_anatomy(subject, f"atlas {subject.name}")
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
    said = {key: each for key, each in entry.items() if key not in ("entry_hash", "start")}
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
    known: Collection[str | None] = (),
) -> dict[str, int]:
    """Write a part, a few subjects at a time, without those whose labels are known; return its sizes."""
    with bank_files.PartWriter(folder, part) as writer:
        for first in range(0, len(subjects), _BATCH):
            batch = [subjects[n] for n in range(first, min(first + _BATCH, len(subjects)))]
            packed = run_tasks(_pack, batch, threads=threads, step="building the atlas bank")
            for flat, image, entry in packed:
                if entry["label_hash"] not in known:
                    writer.add(flat, image, entry)
    return writer.sizes


@lru_cache(maxsize=1)
def _model_key() -> str:
    """Digest of what determines the default bank: format, contents and the model's source text."""
    digest = hashlib.sha256(f"{bank_files.FORMAT} {default_specifications()}".encode())
    modules = (
        published_measures,
        radii,
        anatomy,
        population,
        mr_image,
        hearts,
        landmarks,
    )
    for module in modules:
        source = Path(str(module.__file__))
        if source.suffix == ".py" and source.exists():
            digest.update(source.read_bytes())
    return digest.hexdigest()[:16]
