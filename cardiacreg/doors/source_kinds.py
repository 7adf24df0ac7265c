"""What a file or folder holds, by its name, and by its content where a name says too little."""

from __future__ import annotations

from enum import Enum
from pathlib import Path

from cardiacreg.doors.dicom_seg import is_dicom_seg
from cardiacreg.errors import InvalidInputError
from cardiacreg.io.nifti import read_vectors
from cardiacreg.io.regular_file import check_regular_file, is_folder
from cardiacreg.io.source_name import named_source

_LARGEST_BYTES = 2**32
_ENDINGS = {
    "TRANSFORM": (".dof", ".dof.gz", ".tfm", ".mat", ".h5", ".hdf5"),
    "LANDMARKS": (".json", ".fcsv", ".vtk"),
    "SURFACE": (".vtp", ".stl", ".ply", ".obj"),
    "CVI42": (".cvi42wsx", ".xml"),
    "LABELS": (
        ".nrrd",
        ".nhdr",
        ".mha",
        ".mhd",
        ".mgz",
        ".mgh",
        ".hdr",
        ".img",
        ".hdr.gz",
        ".img.gz",
    ),
}
_POINTS = (".json", ".fcsv")
_VECTORS = 3


class Kind(Enum):
    """What can be converted, in words."""

    LABELS = "labels"
    GUIDE_POINTS = "guide points"
    CVI42 = "contours of cvi42"
    DICOM = "DICOM images"
    TRANSFORM = "a transform"
    FIELD = "a displacement field"
    LANDMARKS = "landmarks"
    SURFACE = "a surface"


def source_kind(source: Path, destination: Path) -> Kind:
    """Return what a source is.

    Parameters
    ----------
    source : pathlib.Path
    destination : pathlib.Path
        Tells the points of a ``.vtp`` file from its surface.

    Returns
    -------
    Kind

    Raises
    ------
    InvalidInputError
        FILE_NOT_FOUND, UNREADABLE_FILE, SEVERAL_SOURCES for a folder that holds more than one thing to
        convert, or UNKNOWN_CONVERSION where nothing says what it is.
    """
    if is_folder(source):
        return _folder_kind(source)
    with named_source(str(source)):
        check_regular_file(source)
    name = source.name.lower()
    if name.endswith(".vtp") and destination.name.lower().endswith(_POINTS):
        return Kind.LANDMARKS
    for kind, endings in _ENDINGS.items():
        if name.endswith(endings):
            return Kind[kind]
    if name.endswith(".txt"):
        return Kind.GUIDE_POINTS if _says_contours(source) else Kind.TRANSFORM
    if name.endswith((".nii", ".nii.gz")):
        return Kind.FIELD if _holds_vectors(source) else Kind.LABELS
    if is_dicom_seg(source):
        return Kind.LABELS
    known = ", ".join(end for endings in _ENDINGS.values() for end in endings)
    raise InvalidInputError(
        f"{source}: cannot tell what this is; needs a folder of DICOM images, the folder of a result, a "
        f"DICOM segmentation, or a name that ends with .nii, .nii.gz, .txt, {known}.",
        code="UNKNOWN_CONVERSION",
    )


def _folder_kind(folder: Path) -> Kind:
    """Tell a result from DICOM images; models or guide points of several frames are given one by one."""
    if (folder / "result.json").is_file():
        return Kind.LABELS
    models = sorted(each.parent.name for each in folder.glob("*/result.json"))
    points = sorted(each.name for each in folder.glob("*.txt") if _says_contours(each))
    if (folder / "cine.json").is_file():
        held = "the model of every frame; give labels.nii.gz in it and a frame (frame= or --frame)"
    elif models:
        held = f"results of several frames; give one of its folders: {', '.join(models)}"
    elif points:
        held = f"guide points of {len(points)} phases; give one of its files, as {points[0]}"
    else:
        return Kind.DICOM
    raise InvalidInputError(f"{folder}: holds {held}.", code="SEVERAL_SOURCES")


def points_file_in(source: Path) -> Path:
    """Return the only guide points in a folder, as `write_guide_points` wrote; else the source itself."""
    found = sorted(source.glob("GPFile*.txt")) if is_folder(source) else []
    return found[0] if len(found) == 1 else source


def _says_contours(source: Path) -> bool:
    with source.open("rb") as stream:
        return b"contour type" in stream.readline(1000)


def _holds_vectors(source: Path) -> bool:
    with named_source(str(source)):
        shape = read_vectors(source, max_bytes=_LARGEST_BYTES)[0].shape
    return len(shape) == 5 and shape[4] == _VECTORS
