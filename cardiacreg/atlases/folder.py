"""A folder of atlases as a lazy sequence of subjects: each is read when it is asked for."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, overload

from cardiacreg.anatomy.segmentation import read_segmentation
from cardiacreg.errors import InvalidInputError
from cardiacreg.geometry import LabelMap, Subject
from cardiacreg.io.landmark_files import read_landmarks, without_repeated_keys
from cardiacreg.io.nifti import read_labels, read_volume
from cardiacreg.io.regular_file import check_regular_file, is_folder
from cardiacreg.io.source_name import named_source

_GRID_SUFFIXES = (".nii.gz", ".nii")
_LARGEST_METADATA_BYTES = 1_000_000


def open_atlas_folder(
    folder: str | os.PathLike[str],
    *,
    translate: Callable[[LabelMap], LabelMap] | None = None,
    preset: str | Mapping[int, int] | None = None,
    check_spacing: bool = True,
) -> Sequence[Subject]:
    """Open a folder of atlases without reading their voxels.

    Parameters
    ----------
    folder : path-like
        Holds one folder per atlas with ``labels.nii.gz`` (or ``.nii``) and, where there are any,
        ``image.nii.gz`` (or ``.nii``), ``landmarks.json`` and ``metadata.json`` (an object, such as
        ``{"phase": "ED", "age": 60}``); case of the names does not matter.
    translate : callable, optional
        Applied to every label map as stored, in place of a preset; gives canonical labels.
    preset : str, mapping or None
        What the labels mean, as for `read_segmentation`; checked against the anatomy of every atlas.
    check_spacing : bool
        As for `read_labels`.

    Returns
    -------
    sequence of Subject
        Ordered and named by folder name. Every access reads the files anew, so that one atlas is in
        memory at a time; a slice is a smaller lazy sequence.

    Raises
    ------
    InvalidInputError
        If the folder does not exist (FILE_NOT_FOUND), holds no atlas (EMPTY_BANK), or holds an
        image or landmarks without labels or the same file twice (BAD_BANK). Reading an atlas raises
        what `read_labels`, `read_volume` and `read_landmarks` raise, and BAD_METADATA_FILE.

    Examples
    --------
    >>> from pathlib import Path
    >>> from cardiacreg import open_atlas_folder, write_labels
    >>> from cardiacreg.phantoms.toy_heart import make_toy_heart
    >>> Path("hearts/anna").mkdir(parents=True)
    >>> write_labels("hearts/anna/labels.nii.gz", make_toy_heart().labels)
    >>> [atlas.name for atlas in open_atlas_folder("hearts")]
    ['anna']
    """
    root = Path(folder)
    if not is_folder(root):
        raise InvalidInputError(
            f"{folder}: the atlas folder does not exist; check the path.", code="FILE_NOT_FOUND"
        )
    entries = sorted(entry for entry in root.iterdir() if entry.is_dir())
    atlases = tuple(files for entry in entries if (files := _atlas_files(entry)))
    if not atlases:
        raise InvalidInputError(
            f"{folder}: no atlas found; needs at least one folder with labels.nii.gz, and possibly "
            "image.nii.gz and landmarks.json, inside.",
            code="EMPTY_BANK",
        )
    return _AtlasFolder(atlases, _Reading(translate, preset, check_spacing))


class _Reading(NamedTuple):
    """How the files of an atlas are read."""

    translate: Callable[[LabelMap], LabelMap] | None
    preset: str | Mapping[int, int] | None
    check_spacing: bool

    def labels(self, path: Path) -> LabelMap:
        """Return canonical labels."""
        if self.translate is None:
            return read_segmentation(path, preset=self.preset, check_spacing=self.check_spacing)
        return self.translate(read_labels(path, check_spacing=self.check_spacing))


class _AtlasFolder(Sequence[Subject]):
    """Subjects read on access; holds paths only, so it can be sent to other processes."""

    def __init__(
        self,
        atlases: tuple[dict[str, Path], ...],
        reading: _Reading,
    ) -> None:
        self._atlases = atlases
        self._reading = reading

    def __len__(self) -> int:
        return len(self._atlases)

    @overload
    def __getitem__(self, index: int) -> Subject: ...
    @overload
    def __getitem__(self, index: slice) -> _AtlasFolder: ...
    def __getitem__(self, index: int | slice) -> Subject | _AtlasFolder:
        if isinstance(index, slice):
            return _AtlasFolder(self._atlases[index], self._reading)
        subject, files = self.without_image(index), self._atlases[index]
        if "image" not in files:
            return subject
        with named_source(f"atlas {subject.name!r}"):
            image = read_volume(files["image"], check_spacing=self._reading.check_spacing)
            return replace(subject, image=image)

    def without_image(self, index: int) -> Subject:
        """Read a subject's labels and landmarks only."""
        files = self._atlases[index]
        name = files["labels"].parent.name
        with named_source(f"atlas {name!r}"):
            return Subject(
                self._reading.labels(files["labels"]),
                landmarks=read_landmarks(files["landmarks"]) if "landmarks" in files else None,
                name=name,
                metadata=_metadata(files),
            )

    @property
    def input_files(self) -> tuple[Path, ...]:
        """Every file of every atlas."""
        return tuple(path for files in self._atlases for path in files.values())

    @property
    def metadata(self) -> tuple[dict[str, Any], ...]:
        """Metadata of the subjects, without reading their voxels."""
        return tuple(_metadata(files) for files in self._atlases)


def _metadata(files: dict[str, Path]) -> dict[str, Any]:
    if "metadata" not in files:
        return {}
    file = files["metadata"]
    try:
        check_regular_file(file)
        with file.open("rb") as stream:
            text = stream.read(_LARGEST_METADATA_BYTES).decode("utf-8-sig")
        content = json.loads(text, object_pairs_hook=without_repeated_keys)
    except (OSError, ValueError, RecursionError) as error:
        raise _bad_metadata(file, f"cannot be read as JSON ({error})") from error
    if not isinstance(content, dict):
        raise _bad_metadata(file, f"holds a {type(content).__name__}")
    return content


def _bad_metadata(file: Path, what: str) -> InvalidInputError:
    return InvalidInputError(
        f"{file}: {what}; needs an object of at most {_LARGEST_METADATA_BYTES} bytes, such as "
        '{"phase": "ED", "age": 60}.',
        code="BAD_METADATA_FILE",
    )


def _atlas_files(folder: Path) -> dict[str, Path]:
    """Find an atlas's files by role; empty where the folder is not an atlas."""
    wanted = {f"{role}{suffix}": role for role in ("labels", "image") for suffix in _GRID_SUFFIXES}
    wanted |= {f"{role}.json": role for role in ("landmarks", "metadata")}
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        role = wanted.get(path.name.lower())
        if role is None:
            continue
        if role in files:
            raise InvalidInputError(
                f"{folder}: both {files[role].name} and {path.name} are there; keep one.",
                code="BAD_BANK",
            )
        files[role] = path
    if files and "labels" not in files:
        raise InvalidInputError(
            f"{folder}: holds {', '.join(path.name for path in files.values())} but no "
            "labels.nii.gz; add the labels or remove the folder.",
            code="BAD_BANK",
        )
    return files
