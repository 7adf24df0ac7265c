"""Labels wherever they come from, with the names of their values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cardiacreg.anatomy.label_presets import canonical_labels, check_anatomy
from cardiacreg.anatomy.preset_tables import Preset, segment_mapping
from cardiacreg.arrays import Float
from cardiacreg.doors.dicom_seg import is_dicom_seg, stored_dicom_seg
from cardiacreg.errors import InvalidInputError
from cardiacreg.geometry import STRUCTURES
from cardiacreg.io.foreign_images import is_foreign
from cardiacreg.io.label_values import Frame, StoredLabels, looks_like_an_image
from cardiacreg.io.nifti import read_stored_labels
from cardiacreg.io.source_name import named_source

_BYTE = 255


class LabelSource(NamedTuple):
    """Values as they were found, or canonical ones."""

    array: NDArray[Any]
    voxel_to_world: Float
    names: Mapping[int, str]
    canonical: bool
    words: str
    """What was done with the values."""


def label_source(
    source: Path, *, preset: Preset = None, frame: Frame = None, seg_frame: bool = False
) -> LabelSource:
    """Read labels from a file or from the folder of a result.

    Parameters
    ----------
    source : pathlib.Path
    preset : str, mapping or None
        Translate the values. Otherwise those of a result are canonical, names of segments translate
        theirs, and others stay.
    frame : int, "ED" or "ES", optional
        Which frame of 4-D labels.
    seg_frame : bool
        Whether `frame` is meant for the study, so that labels of one frame may go with it.

    Raises
    ------
    InvalidInputError
        As `read_segmentation`; UNKNOWN_LABEL for an image, or values above 65535.
    """
    if source.is_dir():
        stored = read_stored_labels(source / "labels.nii.gz")
        return _canonical(stored, None, "the labels of a result")
    if (
        not is_foreign(source)
        and source.suffix.lower() not in (".nii", ".gz")
        and is_dicom_seg(source)
    ):
        stored = stored_dicom_seg(source)
    else:
        stored = _stored(source, frame, seg_frame)
    with named_source(str(source)):
        if looks_like_an_image(stored):
            raise InvalidInputError(
                f"holds {len(stored.values)} different values: an image, not labels; needs a label map.",
                code="UNKNOWN_LABEL",
            )
        if preset is not None:
            check_anatomy(stored.codes, preset, values=stored.values)
            return _canonical(stored, preset, f"values translated by {_told(preset)}")
        return _by_names(stored) or _as_found(stored)


def _stored(source: Path, frame: Frame, seg_frame: bool) -> StoredLabels:
    if not seg_frame or frame is None:
        return read_stored_labels(source, frame=frame)
    try:
        return read_stored_labels(source)
    except InvalidInputError:
        return read_stored_labels(source, frame=frame)


def _canonical(stored: StoredLabels, preset: Preset, words: str) -> LabelSource:
    labels = canonical_labels(stored.codes, preset, values=stored.values)
    return LabelSource(labels.array, labels.voxel_to_world, STRUCTURES, True, words)


def _by_names(stored: StoredLabels) -> LabelSource | None:
    """Return canonical labels where names of segments say what all values mean."""
    if not stored.names:
        return None
    try:
        meaning = segment_mapping(stored.names)
    except InvalidInputError:
        return None
    if not set(stored.values.values()) <= set(meaning):
        return None
    return _canonical(stored, meaning, "values translated by the names of the segments")


def _as_found(stored: StoredLabels) -> LabelSource:
    most = max(stored.values.values(), default=0)
    if most > np.iinfo(np.uint16).max:
        raise InvalidInputError(
            f"the largest value is {most}; needs values up to 65535, or a preset or mapping that says "
            "what they mean.",
            code="UNKNOWN_LABEL",
        )
    table = np.zeros(256, dtype=np.uint8 if most <= _BYTE else np.uint16)
    for code, value in stored.values.items():
        table[code] = value
    array = table[stored.codes.array]
    return LabelSource(
        array, stored.codes.voxel_to_world, dict(stored.names), False, "values as they were"
    )


def _told(preset: Preset) -> str:
    return f"preset {preset}" if isinstance(preset, str) else "the mapping"
