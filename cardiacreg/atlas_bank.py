"""The embedded atlas bank: synthetic hearts, built once into the user's cache, opened lazily.

A bank is a folder of two flat uint8 arrays (labels and images of all subjects, one after the other)
and an index; the arrays are memory-mapped, so opening reads only the index. A bank is built in a
temporary folder beside its place and moved there when complete, so that a reader never sees half
of one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
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
from cardiacreg.errors import InvalidInputError
from cardiacreg.geometry import LabelMap, Landmarks, Subject, Volume
from cardiacreg.phantoms import HeartSpecification, sample_heart

CACHE_VARIABLE = "CARDIACREG_CACHE"
_FORMAT = 1
_INDEX, _LABELS, _IMAGES = "index.json", "labels.npy", "images.npy"


class AtlasBank(Sequence[Subject]):
    """A read-only sequence of subjects in a folder, each loaded when it is asked for.

    Parameters
    ----------
    folder : path
        A folder that `build_atlas_bank` wrote.

    Raises
    ------
    InvalidInputError
        If the folder is missing, incomplete or not of this format.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        try:
            index = json.loads((self.folder / _INDEX).read_text(encoding="utf-8"))
            if index["format"] != _FORMAT:
                raise ValueError(f"format {index['format']}, needs {_FORMAT}")
            self._entries: list[dict[str, Any]] = index["subjects"]
            self._labels = _open_array(self.folder / _LABELS, index["voxels"])
            self._images = _open_array(self.folder / _IMAGES, index["voxels"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InvalidInputError(
                f"AtlasBank: {self.folder} is not a complete atlas bank ({error}); "
                "build it again with build_atlas_bank.",
                code="BAD_ATLAS_BANK",
            ) from error

    def __len__(self) -> int:
        return len(self._entries)

    @overload
    def __getitem__(self, index: int) -> Subject: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Subject]: ...

    def __getitem__(self, index: int | slice) -> Subject | Sequence[Subject]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        entry = self._entries[index]
        shape, matrix = tuple(entry["shape"]), entry["voxel_to_world"]
        span = slice(entry["start"], entry["start"] + int(np.prod(shape)))
        image = None
        if entry["has_image"]:
            intensities = self._images[span].reshape(shape).astype(np.float32)
            image = Volume(intensities * np.float32(entry["intensity_step"]), matrix)
        return Subject(
            LabelMap(self._labels[span].reshape(shape), matrix),
            image=image,
            landmarks=_landmarks(entry["landmarks"]),
            name=entry["name"],
            metadata=dict(entry["metadata"]),
        )

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
        parts = _slabs.run_tasks(
            _pack, subjects, threads=_slabs.check_threads(threads), step="building the atlas bank"
        )
        _write(work, parts)
        _move_into_place(work, place)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return AtlasBank(place)


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
    }
    return subject.labels.array.ravel(), image, entry


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


def _write(folder: Path, parts: Sequence[_Packed]) -> None:
    """Write arrays first and the index, which marks the bank as complete, last."""
    entries, start = [], 0
    for labels, _, entry in parts:
        entries.append(entry | {"start": start})
        start += labels.size
    np.save(folder / _LABELS, np.concatenate([labels for labels, _, _ in parts]))
    np.save(folder / _IMAGES, np.concatenate([image for _, image, _ in parts]))
    index = {"format": _FORMAT, "voxels": start, "subjects": entries}
    (folder / _INDEX).write_text(json.dumps(index), encoding="utf-8")


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
