"""From one file or folder to another: labels, transforms, landmarks, surfaces, contours and DICOM.

What a source is, is told by its name, and by its content where a name says too little. What is wanted is
told by the name of the destination.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np

from cardiacreg.anatomy.preset_tables import Preset
from cardiacreg.doors.cvi42 import labels_from_cvi42, read_cvi42
from cardiacreg.doors.dicom_cine import CineStack, read_dicom_cine
from cardiacreg.doors.dicom_seg import write_dicom_seg
from cardiacreg.doors.guide_point_files import write_guide_points
from cardiacreg.doors.guide_points import read_guide_points
from cardiacreg.doors.label_sources import LabelSource, label_source
from cardiacreg.doors.segmentation_files import (
    LABEL_FORMATS,
    NIFTI,
    label_format,
    write_values,
)
from cardiacreg.doors.source_kinds import Kind, points_file_in, source_kind
from cardiacreg.doors.study_files import (
    labels_of_frames,
    labels_of_guide_points,
    write_cine_stacks,
    write_label_folder,
)
from cardiacreg.errors import InvalidInputError, check_argument, warn
from cardiacreg.geometry import STRUCTURE_COLOURS, Affine, LabelMap, corner_distance_mm
from cardiacreg.io.kept_inputs import check_inputs_are_kept
from cardiacreg.io.label_values import Frame
from cardiacreg.io.landmark_files import read_landmarks, write_landmarks
from cardiacreg.io.nifti import read_volume
from cardiacreg.io.output_folder import check_free
from cardiacreg.surfaces.files import FORMATS as MESHES, read_surface, write_surface
from cardiacreg.transforms.displacement_field import (
    DisplacementField,
    dense_displacement,
    read_displacement_field,
    write_displacement_field,
)
from cardiacreg.transforms.ffd import FFD
from cardiacreg.transforms.ffd_chain import FFDChain
from cardiacreg.transforms.files_itk import read_itk_transform, write_itk_transform
from cardiacreg.transforms.files_mirtk import read_dof, write_dof
from cardiacreg.transforms.resampling import Lattice, PointMap

_DOF = (".dof", ".dof.gz")
_ITK = (".tfm", ".txt", ".mat", ".h5", ".hdf5")
_POINTS = (".json", ".fcsv")
_NEAR_MM = 1.0


class Wanted(NamedTuple):
    """What was asked for beside source and destination."""

    space_from: str | None
    space_to: str | None
    preset: Preset
    frame: Frame
    like: str | os.PathLike[str] | None
    study: str | os.PathLike[str] | None
    overwrite: bool


class Conversion(NamedTuple):
    """What a conversion did.

    Parameters
    ----------
    kind : str
        What the source is, in words.
    files : tuple of pathlib.Path
        What was written.
    words : tuple of str
        What there is to say about it, one line each.
    """

    kind: str
    files: tuple[Path, ...]
    words: tuple[str, ...] = ()


_Way: TypeAlias = Callable[[Path, Path, Wanted], Conversion]


def convert(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    *,
    space_from: str | None = None,
    space_to: str | None = None,
    preset: Preset = None,
    frame: Frame = None,
    like: str | os.PathLike[str] | None = None,
    study: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
) -> Conversion:
    """Convert a file or folder into another format.

    Parameters
    ----------
    source : path-like
        Labels (NIfTI, NRRD, MetaImage, ``.seg.nrrd``, MGH, DICOM-SEG, the folder of a result), a
        transform (``.dof``, ITK, elastix, dense field), landmarks, a surface, biv-me's guide points (a
        file, or a folder with one), contours of cvi42, or a folder of DICOM images.
    destination : path-like
        Its ending says the format; a folder for what becomes several files.
    space_from : {"RAS", "LPS"}, optional
        Of the coordinates in `source`, where the file does not say.
    space_to : {"RAS", "LPS"}, optional
        Of the coordinates in `destination`, where the format has a choice: surfaces, landmarks (RAS when
        absent) and dense fields (LPS when absent).
    preset : str, mapping or None
        What label values mean; they become canonical and segments get names. When absent, names of
        segments say it, and other values stay as they are.
    frame : int, "ED" or "ES", optional
        Which frame of 4-D labels; which phase of a folder of guide points; which frame of `study` a
        DICOM segmentation is of.
    like : path-like, optional
        Image whose lattice a dense field gets.
    study : path-like, optional
        Folder of the DICOM images that contours of cvi42, or a DICOM segmentation, belong to.
    overwrite : bool
        Replace files that exist.

    Returns
    -------
    Conversion

    Raises
    ------
    InvalidInputError
        UNKNOWN_CONVERSION if the formats do not go together, STATED_SPACE for a space that the format
        has itself, MISSING_LATTICE, MISSING_STUDY, OUTPUT_EXISTS, OUTPUT_IS_INPUT, and what the readers
        and writers raise.

    Examples
    --------
    >>> from cardiacreg import convert, landmarks_from_labels, write_landmarks
    >>> from cardiacreg.phantoms.toy_heart import make_toy_heart
    >>> write_landmarks("points.json", landmarks_from_labels(make_toy_heart().labels))
    >>> convert("points.json", "points.mrk.json", space_to="LPS").kind
    'landmarks'
    """
    given, wanted = points_file_in(Path(source)), Path(destination)
    kind = source_kind(given, wanted)
    asked = Wanted(space_from, space_to, preset, frame, like, study, overwrite)
    _check_spaces(kind, asked)
    files = [given, *(Path(each) for each in (like, study) if each is not None)]
    check_inputs_are_kept([wanted], files)
    return _WAYS[kind](given, wanted, asked)


def _check_spaces(kind: Kind, asked: Wanted) -> None:
    """Refuse a space where the formats state theirs: it would be passed over."""
    chosen = {Kind.SURFACE, Kind.LANDMARKS, Kind.FIELD, Kind.TRANSFORM}
    for space in (asked.space_from, asked.space_to):
        check_argument(space, (str, type(None)), "convert: space_from and space_to")
    named = [each for each in (asked.space_from, asked.space_to) if each is not None]
    if any(each not in ("RAS", "LPS") for each in named):
        raise InvalidInputError(f"the space is {named}; needs RAS or LPS.", code="UNKNOWN_SPACE")
    if named and kind not in chosen:
        raise InvalidInputError(
            f"{kind.value} lie in the space that their format states, so that {named[0]} cannot be "
            "chosen; leave it out.",
            code="STATED_SPACE",
        )


def _one_file(destination: Path, asked: Wanted, source: Path) -> None:
    check_free(destination.parent, [destination.name], overwrite=asked.overwrite, inputs=[source])


def _unknown(kind: Kind, destination: Path, possible: str) -> InvalidInputError:
    return InvalidInputError(
        f"{destination}: {kind.value} cannot become this; needs {possible}.",
        code="UNKNOWN_CONVERSION",
    )


# ---- labels


def _labels(source: Path, destination: Path, asked: Wanted) -> Conversion:
    found = label_source(
        source, preset=asked.preset, frame=asked.frame, seg_frame=asked.study is not None
    )
    if destination.name.lower().endswith(".dcm"):
        return _to_dicom_seg(found, source, destination, asked)
    if label_format(destination) is not None:
        _one_file(destination, asked, source)
        write_values(
            destination, found.array, found.voxel_to_world, found.names,
            STRUCTURE_COLOURS if found.canonical else {},
        )  # fmt: skip
        _tell_unnamed(destination, found)
        return Conversion("labels", (destination,), (found.words,))
    if not destination.suffix or destination.is_dir():
        write_guide_points(destination, _canonical(found), overwrite=asked.overwrite)
        return Conversion(
            "labels", (destination,), (found.words, "written as guide points of biv-me")
        )
    raise _unknown(
        Kind.LABELS, destination,
        f"a name that ends with {', '.join(LABEL_FORMATS)} or .dcm, or a folder for guide points",
    )  # fmt: skip


def _tell_unnamed(destination: Path, found: LabelSource) -> None:
    values = [int(value) for value in np.unique(found.array) if value]
    if label_format(destination) == ".seg.nrrd" and not set(values) <= set(found.names):
        warn(
            f"{destination}: segments are named by their values, as nothing says what these mean; name "
            "the preset of the labels (preset= or --preset) for names and colours."
        )


def _canonical(found: LabelSource) -> LabelMap:
    if not found.canonical:
        raise InvalidInputError(
            "what the label values mean is not known; name the preset of the labels (preset= or "
            "--preset).",
            code="UNKNOWN_PRESET",
        )
    return LabelMap(found.array, found.voxel_to_world)


def _to_dicom_seg(found: LabelSource, source: Path, destination: Path, asked: Wanted) -> Conversion:
    _one_file(destination, asked, source)
    labels = LabelMap(found.array, found.voxel_to_world)
    stacks = _study(asked, "a DICOM segmentation refers to the images that it was made from")
    stack = next((each for each in stacks if _same_slices(each, labels)), stacks[0])
    frame = asked.frame if isinstance(asked.frame, int) else 0
    write_dicom_seg(destination, labels, stack, frame=frame, names=found.names)
    told = f"refers to frame {frame} of {stack.name}"
    return Conversion("labels", (destination,), (found.words, told))


def _same_slices(stack: CineStack, labels: LabelMap) -> bool:
    """Whether labels are on the lattice of a stack."""
    return stack.array.shape[:3] == labels.shape and (
        corner_distance_mm(labels.shape, stack.voxel_to_world, labels.voxel_to_world) <= _NEAR_MM
    )


def _study(asked: Wanted, why: str) -> list[CineStack]:
    if asked.study is None:
        raise InvalidInputError(
            f"{why}; name the folder of the DICOM study (study= or --study).", code="MISSING_STUDY"
        )
    return read_dicom_cine(asked.study, still_images=True)


# ---- contours and DICOM


def _guide_points(source: Path, destination: Path, asked: Wanted) -> Conversion:
    points = read_guide_points(source, frame=asked.frame if isinstance(asked.frame, int) else None)
    if label_format(destination) in NIFTI:
        _one_file(destination, asked, source)
        labels = points.short_axis_labels()
        write_values(destination, labels.array, labels.voxel_to_world, {}, {})
        return Conversion("guide points", (destination,), ("the short-axis stack",))
    if destination.suffix and not destination.is_dir():
        raise _unknown(
            Kind.GUIDE_POINTS, destination, ".nii.gz for the short axis, or a folder for all views"
        )
    names = write_label_folder(
        destination, labels_of_guide_points(points), overwrite=asked.overwrite, inputs=[source]
    )
    return Conversion("guide points", tuple(destination / name for name in names))


def _cvi42(source: Path, destination: Path, asked: Wanted) -> Conversion:
    contours = read_cvi42(source)
    stacks = _study(asked, "contours of cvi42 are placed by the images that they were drawn in")
    stack = max(stacks, key=lambda each: len(contours.keys() & each.uids))
    if destination.suffix and not destination.is_dir():
        raise _unknown(Kind.CVI42, destination, "a folder, for one label map for each frame")
    labels = labels_of_frames(labels_from_cvi42(contours, stack))
    names = write_label_folder(destination, labels, overwrite=asked.overwrite, inputs=[source])
    return Conversion("contours of cvi42", tuple(destination / name for name in names))


def _dicom(source: Path, destination: Path, asked: Wanted) -> Conversion:
    if destination.suffix and not destination.is_dir():
        raise _unknown(
            Kind.DICOM, destination, "a folder, for one image for each stack, and a table"
        )
    stacks = read_dicom_cine(source, still_images=True)
    files = [image.file for stack in stacks for own in stack.images for image in own]
    names = write_cine_stacks(destination, stacks, overwrite=asked.overwrite, inputs=files)
    words = [
        f"{stack.name}: {stack.array.shape[2]} slices, {stack.n_frames} frames"
        + "".join(f"; {note}" for note in stack.notes)
        for stack in stacks
    ]
    return Conversion("DICOM images", tuple(destination / name for name in names), tuple(words))


# ---- transforms, landmarks, surfaces


def _transform(source: Path, destination: Path, asked: Wanted) -> Conversion:
    if asked.space_from is not None:
        raise InvalidInputError(
            "transform files state their space, so that it cannot be chosen; leave it out.",
            code="STATED_SPACE",
        )
    name = source.name.lower()
    transform = read_dof(source) if name.endswith(_DOF) else read_itk_transform(source)
    return _written_transform(transform, Kind.TRANSFORM, source, destination, asked)


def _field(source: Path, destination: Path, asked: Wanted) -> Conversion:
    field = read_displacement_field(source, space=asked.space_from)
    return _written_transform(field, Kind.FIELD, source, destination, asked)


def _written_transform(
    transform: PointMap, kind: Kind, source: Path, destination: Path, asked: Wanted
) -> Conversion:
    name = destination.name.lower()
    _one_file(destination, asked, source)
    if name.endswith(NIFTI):
        write_displacement_field(
            destination, _dense(transform, asked), space=asked.space_to or "LPS"
        )
        return Conversion(kind.value, (destination,), (f"components in {asked.space_to or 'LPS'}",))
    if asked.space_to is not None:
        raise InvalidInputError(
            f"{destination}: the format has a space of its own; leave it out.", code="STATED_SPACE"
        )
    if name.endswith(_DOF) and isinstance(transform, Affine | FFD):
        write_dof(destination, transform)
    elif name.endswith(_ITK) and isinstance(transform, Affine | FFD | FFDChain):
        write_itk_transform(destination, transform)
    else:
        raise _unknown(
            kind, destination,
            f"a name that ends with .nii.gz (dense, any transform), {', '.join(_ITK)} (affines and "
            "cubic splines with one affine) or .dof",
        )  # fmt: skip
    return Conversion(kind.value, (destination,))


def _dense(transform: PointMap, asked: Wanted) -> DisplacementField:
    if asked.like is not None:
        return dense_displacement(transform, _lattice(asked.like))
    if isinstance(transform, DisplacementField):
        return transform
    raise InvalidInputError(
        "a dense field needs a lattice; name an image that has it (like= or --like).",
        code="MISSING_LATTICE",
    )


def _lattice(image: str | os.PathLike[str]) -> Lattice:
    """Return the lattice of an image, whatever its values are."""
    found = read_volume(image, frame=0, nan_policy="zero")
    return Lattice(found.shape, found.voxel_to_world)


def _landmarks(source: Path, destination: Path, asked: Wanted) -> Conversion:
    if not destination.name.lower().endswith(_POINTS):
        raise _unknown(
            Kind.LANDMARKS, destination, "a name that ends with .json, .mrk.json or .fcsv"
        )
    landmarks = read_landmarks(source, space=asked.space_from)
    _one_file(destination, asked, source)
    space = asked.space_to or "RAS"
    write_landmarks(destination, landmarks, space=space)
    return Conversion("landmarks", (destination,), (f"{len(landmarks.names)} points in {space}",))


def _surface(source: Path, destination: Path, asked: Wanted) -> Conversion:
    if destination.suffix.lower().removeprefix(".") not in MESHES:
        raise _unknown(
            Kind.SURFACE, destination, f"a name that ends with {', '.join('.' + m for m in MESHES)}"
        )
    surface = read_surface(source, space=asked.space_from)
    _one_file(destination, asked, source)
    space = asked.space_to or "RAS"
    write_surface(destination, surface, space=space)
    return Conversion(
        "a surface", (destination,), (f"{len(surface.triangles)} triangles in {space}",)
    )


_WAYS: Mapping[Kind, _Way] = {
    Kind.LABELS: _labels,
    Kind.GUIDE_POINTS: _guide_points,
    Kind.CVI42: _cvi42,
    Kind.DICOM: _dicom,
    Kind.TRANSFORM: _transform,
    Kind.FIELD: _field,
    Kind.LANDMARKS: _landmarks,
    Kind.SURFACE: _surface,
}
