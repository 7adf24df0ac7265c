"""A model to measure or to draw: a result, its folder, its labels as BIDS derivative, or labels alone."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np

from cardiacreg.anatomy.label_presets import canonical_labels
from cardiacreg.anatomy.slice_volumes import StructureVolume
from cardiacreg.errors import InvalidInputError
from cardiacreg.geometry import LabelMap, Landmarks, apply_matrix
from cardiacreg.io.label_values import Frame
from cardiacreg.io.landmark_files import read_landmarks
from cardiacreg.io.nifti import read_labels
from cardiacreg.io.regular_file import check_regular_file, is_file, is_folder, unreadable
from cardiacreg.io.source_name import named_source
from cardiacreg.results.folders import CINE_SUMMARY, RESULT_SUMMARY, no_result
from cardiacreg.results.result import RefineResult

_LABELS, _BIDS_SUFFIX = "labels.nii.gz", "_dseg"
_LARGEST_SUMMARY_BYTES = 50_000_000


@dataclass(frozen=True, slots=True, eq=False)
class SavedModel:
    """What measures and surfaces need of a model.

    Parameters
    ----------
    labels : LabelMap
        Canonical labels.
    landmarks : Landmarks or None
        None where there are labels alone.
    volumes : dict of str to StructureVolume
        Acquired and extrapolated parts; empty where there are labels alone.
    structures_from_atlases : tuple of str
        Structures that the input did not show.
    files : tuple of pathlib.Path
        What was read.
    """

    labels: LabelMap
    landmarks: Landmarks | None = None
    volumes: dict[str, StructureVolume] = field(default_factory=dict)
    structures_from_atlases: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()


Model: TypeAlias = RefineResult | SavedModel | LabelMap | str | os.PathLike[str]
"""A result, a folder that one was saved to, canonical labels, or their file.

Beside the labels of a result, or a file that `write_bids` wrote, lies what else is known of it."""


def as_model(source: Model, *, preset: str | None = None, frame: Frame = None) -> SavedModel:
    """Return what is to be known of a model.

    Parameters
    ----------
    source : Model
    preset : str, optional
        Meaning of the labels of a file; canonical when absent.
    frame : int, "ED" or "ES", optional
        Of a 4-D file, or of the folder of a cine.

    Raises
    ------
    InvalidInputError
        If a file is missing or not readable, or a folder holds no result (NO_RESULT, BAD_RESULT).
    """
    if isinstance(source, SavedModel):
        return source
    if isinstance(source, LabelMap):
        return SavedModel(source)
    if isinstance(source, RefineResult):
        return SavedModel(
            source.labels, source.landmarks, source.volumes, source.structures_from_atlases
        )
    place = Path(source)
    if is_folder(place) and frame is not None and is_file(place / CINE_SUMMARY):
        place, preset = place / _LABELS, None
    if is_folder(place):
        return _from_folder(place)
    if (
        place.name == _LABELS
        and preset is None
        and frame is None
        and is_file(place.with_name(RESULT_SUMMARY))
    ):
        return _from_folder(place.parent)
    labels = canonical_labels(read_labels(place, frame=frame), preset)
    beside = place.with_name(place.name.split(".")[0] + ".json")
    if place.name.split(".")[0].endswith(_BIDS_SUFFIX) and beside.is_file():
        return _from_sidecar(place, beside, labels)
    return SavedModel(labels, files=(place,))


class OneFrame(Protocol):
    """What a model is made of in a frame of a cine."""

    @property
    def labels(self) -> LabelMap:
        """The model."""

    @property
    def volumes(self) -> dict[str, StructureVolume]:
        """By structure."""


def model_of_frame(frame: OneFrame, landmarks: Landmarks | None = None) -> SavedModel:
    """Return the model of one frame of a cine, which knows what the frame's labels did not show.

    Parameters
    ----------
    frame : CineFrame or SavedFrame
    landmarks : Landmarks, optional
        Of this frame; derived from the labels when absent.
    """
    unseen = tuple(name for name, volume in frame.volumes.items() if volume.input_ml is None)
    return SavedModel(frame.labels, landmarks, frame.volumes, unseen)


def _from_sidecar(place: Path, beside: Path, labels: LabelMap) -> SavedModel:
    """Read what `write_bids` says beside labels; another pipeline's sidecar says nothing of it."""
    with named_source(os.fspath(beside)):
        found = _summary(beside)
    own, points = found.get("cardiacreg"), found.get("AnatomicalLandmarkCoordinates")
    if not isinstance(own, dict) or not isinstance(points, dict):
        return SavedModel(labels, files=(place,))
    with named_source(os.fspath(beside)):
        parts, absent = _parts(own)
        landmarks = Landmarks(
            apply_matrix(labels.voxel_to_world, np.asarray(list(points.values()), np.float64)),
            tuple(points),
        )
    return SavedModel(labels, landmarks, parts, absent, (place, beside))


def _from_folder(folder: Path) -> SavedModel:
    files = tuple(folder / name for name in (_LABELS, "landmarks.json", RESULT_SUMMARY))
    if not is_file(files[2]):
        raise no_result(folder)
    with named_source(os.fspath(files[2])):
        parts, absent = _parts(_summary(files[2]))
    return SavedModel(read_labels(files[0]), read_landmarks(files[1]), parts, absent, files)


def _parts(found: dict[str, Any]) -> tuple[dict[str, StructureVolume], tuple[str, ...]]:
    """Acquired and extrapolated parts, and the structures that the input did not show."""
    volumes = found.get("volumes", {})
    try:
        parts = {name: StructureVolume(**volume) for name, volume in volumes.items()}
        return parts, tuple(map(str, found["structures_from_atlases"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise _no_result("it holds other entries") from error


def _summary(file: Path) -> dict[str, Any]:
    if check_regular_file(file).st_size > _LARGEST_SUMMARY_BYTES:
        raise _no_result("it is too large")
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise unreadable(error.strerror or str(error)) from error
    except (ValueError, RecursionError) as error:
        raise _no_result("it is no JSON") from error
    if not isinstance(found, dict):
        raise _no_result("it is no JSON object")
    return found


def _no_result(why: str) -> InvalidInputError:
    return InvalidInputError(
        f"not the summary of a saved result ({why}); give a folder that cardiacreg refine wrote, or a "
        "file of labels.",
        code="BAD_RESULT",
    )
