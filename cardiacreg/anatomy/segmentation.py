"""One door for segmentations: read, checked against the anatomy and translated to canonical labels."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple

from cardiacreg.anatomy.label_presets import canonical_labels, check_anatomy, fitting_presets
from cardiacreg.anatomy.preset_tables import Preset, mapping_words, preset_mapping, segment_mapping
from cardiacreg.errors import InvalidInputError
from cardiacreg.geometry import LabelMap
from cardiacreg.io.label_values import Frame, StoredLabels, looks_like_an_image
from cardiacreg.io.nifti import MAX_BYTES, read_stored_labels
from cardiacreg.io.regular_file import is_folder
from cardiacreg.io.source_name import named_source

Arrange = Callable[[LabelMap, LabelMap], LabelMap]
"""From codes as stored and canonical labels to codes as short-axis slices."""


class Segmentation(NamedTuple):
    """Canonical labels, and how they were come by.

    Parameters
    ----------
    labels : LabelMap
    frame : int or None
        Which frame of several it is.
    assumed : str
        What the values were taken to mean, in words.
    """

    labels: LabelMap
    frame: int | None
    assumed: str


def read_segmentation(
    source: Any,
    *,
    preset: Preset = None,
    frame: Frame = None,
    max_bytes: int = MAX_BYTES,
    check_spacing: bool = True,
) -> LabelMap:
    """Read a segmentation as canonical labels (1 LV cavity, 2 LV wall, 3 RV wall, 4 RV cavity).

    Parameters
    ----------
    source : path-like, nibabel image, SimpleITK image, LabelMap or (array, voxel_to_world)
        As for `read_labels`; values of any size.
    preset : str, mapping or None
        What the values mean: a name of a preset, a mapping {their label: canonical label}, or None for
        canonical labels, or for what the segments of a ``.seg.nrrd`` file are called.
    frame : int, "ED" or "ES", optional
        Which frame of a 4-D source.
    max_bytes, check_spacing
        As for `read_labels`.

    Returns
    -------
    LabelMap
        Canonical labels.

    Raises
    ------
    InvalidInputError
        What `read_labels` raises; UNEXPECTED_LABEL, UNKNOWN_PRESET, BAD_PRESET, UNKNOWN_SEGMENTS;
        WRONG_PRESET or ONE_STRUCTURE if the map cannot be a heart under the preset.

    Warns
    -----
    InputWarning
        As `read_labels`, and if the anatomy cannot be checked or is doubtful.

    Examples
    --------
    >>> import numpy as np
    >>> from cardiacreg import LabelMap, read_segmentation, write_labels
    >>> from cardiacreg.phantoms.toy_heart import make_toy_heart
    >>> heart = make_toy_heart().labels
    >>> in_acdc = np.array([0, 3, 2, 0, 1], dtype=np.uint8)[heart.array]
    >>> write_labels("acdc_gt.nii.gz", LabelMap(in_acdc, heart.voxel_to_world))
    >>> read_segmentation("acdc_gt.nii.gz", preset="acdc").present()
    (1, 2, 4)
    """
    return gather_segmentation(
        source, preset=preset, frame=frame, max_bytes=max_bytes, check_spacing=check_spacing
    ).labels


def gather_segmentation(
    source: Any,
    *,
    preset: Preset = None,
    frame: Frame = None,
    max_bytes: int = MAX_BYTES,
    check_spacing: bool = True,
    arrange: Arrange | None = None,
) -> Segmentation:
    """Read as `read_segmentation`, and tell which frame it is and what its values were taken to mean.

    Parameters
    ----------
    source, preset, frame, max_bytes, check_spacing
        As for `read_segmentation`.
    arrange : callable, optional
        Receives the codes as stored and the canonical labels, and returns the codes as short-axis slices,
        whose anatomy is checked and whose labels are returned.

    Returns
    -------
    Segmentation

    Raises
    ------
    InvalidInputError
        As `read_segmentation`.
    """
    if _is_path(source) and is_folder(source):
        raise InvalidInputError(
            f"{os.fspath(source)}: is a folder; needs a file of labels. The folder of a patient is what "
            "refine_patient takes, or cardiacreg refine FOLDER without -i.",
            code="UNREADABLE_FILE",
        )
    stored = read_stored_labels(
        source, frame=frame, max_bytes=max_bytes, check_spacing=check_spacing
    )
    with named_source(os.fspath(source)) if _is_path(source) else nullcontext():
        _check_values(stored)
        meaning = _meaning(stored, preset)
        labels = _canonical(stored, meaning, arrange)
    return Segmentation(labels, stored.frame, _in_words(stored, preset, meaning))


def canonical_frame_labels(
    stored: StoredLabels, preset: Preset = None, *, arrange: Arrange | None = None
) -> LabelMap:
    """Check one stored frame of a series as `read_segmentation` does, and translate it.

    Parameters
    ----------
    stored : StoredLabels
    preset : str, mapping or None
    arrange : callable, optional
        As for `gather_segmentation`.

    Returns
    -------
    LabelMap
        Canonical labels; a frame without labels stays as it is.

    Raises
    ------
    InvalidInputError
        As `read_segmentation`.
    """
    if not stored.codes.array.any():
        return stored.codes
    _check_values(stored)
    return _canonical(stored, _meaning(stored, preset), arrange)


def _canonical(stored: StoredLabels, meaning: Preset, arrange: Arrange | None) -> LabelMap:
    """Translate stored codes whose anatomy is checked, arranged first where that is asked for."""
    codes = stored.codes
    if arrange is not None:
        labels = canonical_labels(codes, meaning, values=stored.values)
        codes = _arranged(arrange, stored, labels, meaning)
    check_anatomy(codes, meaning, values=stored.values)
    return canonical_labels(codes, meaning, values=stored.values)


def _arranged(
    arrange: Arrange,
    stored: StoredLabels,
    labels: LabelMap,
    meaning: Preset,
) -> LabelMap:
    """Codes as short-axis slices; where that fails a wrong preset is told first."""
    try:
        return arrange(stored.codes, labels)
    except InvalidInputError:
        if fitting_presets(stored.codes, values=stored.values):
            check_anatomy(stored.codes, meaning, values=stored.values)
        raise


def _is_path(source: Any) -> bool:
    return isinstance(source, str | os.PathLike)


def _check_values(stored: StoredLabels) -> None:
    if looks_like_an_image(stored):
        values = list(stored.values.values())
        raise InvalidInputError(
            f"labels: hold {len(values)} different values from {min(values)} to {max(values)}: an image, "
            "not a segmentation? Check that segmentation and image were not swapped.",
            code="UNKNOWN_LABEL",
        )


def _meaning(stored: StoredLabels, preset: Preset) -> Preset:
    """Return the preset that was given, or what the segments' names say where none was."""
    if preset is not None or not stored.names:
        return preset
    if nameless := sorted(set(stored.values.values()) - set(stored.names)):
        shown = ", ".join(f"{value} {name!r}" for value, name in stored.names.items())
        raise InvalidInputError(
            f"labels: the segments are {shown}; the values {nameless} occur and belong to none of them. "
            "Make segments of them, or say what all values mean with a mapping {their label: canonical "
            "label}.",
            code="UNKNOWN_SEGMENTS",
        )
    return segment_mapping(stored.names)


def _in_words(stored: StoredLabels, preset: Preset, meaning: Preset) -> str:
    present = {0, *stored.values.values()}
    mapping = {n: role for n, role in preset_mapping(meaning).items() if n in present}
    how = (
        "names of its segments"
        if meaning is not preset
        else "canonical labels"
        if preset is None
        else f"preset {preset}"
        if isinstance(preset, str)
        else "given mapping"
    )
    return f"{how}: {mapping_words(mapping)}"
