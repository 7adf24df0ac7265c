"""The two-dimensional images in a folder of DICOM files: where and when each was taken."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cardiacreg.doors.image_planes import ImagePlane
from cardiacreg.errors import InvalidInputError
from cardiacreg.io.regular_file import is_folder
from cardiacreg.io.source_name import named_source

_NO_PLACE = "without a place in space (reports, screenshots)"
_COLOUR = "in colour"
_LEAST_TAGS = ("Rows", "Columns", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")


class DicomImage(NamedTuple):
    """One image: its file, where and when it was taken, and to what it belongs."""

    file: Path
    frame: int | None
    """Which of the images of a multi-frame file."""
    plane: ImagePlane
    shape: tuple[int, int]
    """Columns and rows."""
    thickness_mm: float | None
    time_ms: float | None
    """After the R wave."""
    cycle_ms: float | None
    """The nominal interval between R waves."""
    instance: int
    uid: str
    series: str
    series_number: int
    description: str
    kind: str
    """M for magnitude, P for phase, ...; empty where the file does not say."""
    space: str
    """Identifies the patient's position in the scanner: images of one can be compared."""
    patient: str


def pydicom() -> Any:
    """Return the package pydicom, or say how to get it.

    Raises
    ------
    InvalidInputError
        NO_PYDICOM.
    """
    try:
        return import_module("pydicom")
    except ImportError as error:
        raise InvalidInputError(
            "DICOM files are read by pydicom, which is not installed; install it with: pip install "
            "'cardiacreg[dicom]', or convert the series to NIfTI, for instance by dcm2niix.",
            code="NO_PYDICOM",
        ) from error


def read_images(folder: str | os.PathLike[str]) -> tuple[list[DicomImage], dict[str, int]]:
    """Read the headers of all images in a folder and the folders in it.

    Parameters
    ----------
    folder : path-like

    Returns
    -------
    images : list of DicomImage
    left_out : dict
        Why files were left out, and how many.

    Raises
    ------
    InvalidInputError
        NO_PYDICOM; FILE_NOT_FOUND if the folder does not exist, NO_DICOM if no image is in it,
        UNREADABLE_FILE if the header of one is damaged.
    """
    dicom = pydicom()
    place = Path(folder)
    if not is_folder(place):
        raise InvalidInputError(
            f"{folder}: is no folder; needs one with DICOM files.", code="FILE_NOT_FOUND"
        )
    found: list[DicomImage] = []
    left_out: Counter[str] = Counter()
    for file in sorted(path for path in place.rglob("*") if path.is_file()):
        header = _header(dicom, file)
        if header is None:
            left_out["not DICOM"] += 1
            continue
        with named_source(str(file)), _damage_told():
            why = _unfit(header)
            found.extend(() if why else _images(file, header))
        if why:
            left_out[why] += 1
    if not found:
        told = ", ".join(f"{count} {why}" for why, count in left_out.items()) or "no files"
        raise InvalidInputError(
            f"{folder}: holds no DICOM image ({told}); needs a folder of a patient's images.",
            code="NO_DICOM",
        )
    return found, dict(left_out)


def pixels(image: DicomImage) -> NDArray[np.float32]:
    """Return the intensities of an image, shape (columns, rows), rescaled as its file says.

    Parameters
    ----------
    image : DicomImage

    Raises
    ------
    InvalidInputError
        UNREADABLE_FILE, for instance where a compressed image needs a decoder that is not installed.
    """
    with named_source(str(image.file)):
        try:
            dataset = pydicom().dcmread(image.file)
            array = np.asarray(dataset.pixel_array, dtype=np.float32)
        except Exception as error:
            raise InvalidInputError(
                f"the image cannot be decoded ({' '.join(str(error).split())[:200]}); compressed images "
                "need pylibjpeg or python-gdcm beside pydicom.",
                code="UNREADABLE_FILE",
            ) from error
    if image.frame is not None and array.ndim == 3:
        array = array[image.frame]
    with named_source(str(image.file)), _damage_told():
        slope, intercept = _rescaling(dataset, image.frame)
    return np.ascontiguousarray(array.T * np.float32(slope) + np.float32(intercept))


@contextmanager
def _damage_told() -> Iterator[None]:
    """Raise our own error where an element of a header, which is looked at now, is damaged."""
    try:
        yield
    except InvalidInputError:
        raise
    except Exception as error:  # pydicom documents none
        raise InvalidInputError(
            f"the header is damaged ({' '.join(str(error).split())[:200]}); export the series again.",
            code="UNREADABLE_FILE",
        ) from error


def _header(dicom: Any, file: Path) -> Any:
    if file.name.upper() == "DICOMDIR":
        return None
    try:
        return dicom.dcmread(file, stop_before_pixels=True)
    except Exception:
        return None


def _unfit(header: Any) -> str:
    """Return why a file is not an image that can be placed, or nothing."""
    if int(header.get("SamplesPerPixel") or 1) != 1:
        return _COLOUR
    if "PerFrameFunctionalGroupsSequence" in header and "Rows" in header:
        return ""
    return "" if all(header.get(tag) is not None for tag in _LEAST_TAGS) else _NO_PLACE


def _images(file: Path, header: Any) -> Iterator[DicomImage]:
    frames = header.get("PerFrameFunctionalGroupsSequence")
    if not frames:
        yield _image(file, None, header, [header])
        return
    shared = header.get("SharedFunctionalGroupsSequence") or [None]
    for number, own in enumerate(frames):
        groups = [item for part in (own, shared[0]) if part is not None for item in _items(part)]
        yield _image(file, number, header, [*groups, header])


def _items(part: Any) -> Iterator[Any]:
    """The first item of every functional group."""
    for element in part:
        if element.VR == "SQ" and element.value:
            yield element.value[0]


def _first(places: list[Any], *names: str) -> Any:
    """Return the first value under any of some names."""
    for name in names:
        for place in places:
            if place.get(name) not in (None, ""):
                return place.get(name)
    return None


def _image(file: Path, frame: int | None, header: Any, places: list[Any]) -> DicomImage:
    position, along, size = (
        _first(places, name)
        for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
    )
    if position is None or along is None or size is None:
        raise InvalidInputError(
            f"image {frame} has no place in space; export the series again.", code="BAD_PLANE"
        )
    kinds = [str(each).upper() for each in header.get("ImageType") or ()]
    return DicomImage(
        file=file,
        frame=frame,
        plane=ImagePlane.from_dicom(_numbers(position), _numbers(along), _numbers(size)),
        shape=(int(header.Columns), int(header.Rows)),
        thickness_mm=_number(_first(places, "SliceThickness")),
        time_ms=_number(_first(places, "NominalCardiacTriggerDelayTime", "TriggerTime")),
        cycle_ms=_number(_first(places, "RRIntervalTimeNominal", "NominalInterval")),
        instance=frame if frame is not None else int(header.get("InstanceNumber") or 0),
        uid=str(header.get("SOPInstanceUID") or ""),
        series=str(header.get("SeriesInstanceUID") or ""),
        series_number=int(header.get("SeriesNumber") or 0),
        description=str(
            header.get("SeriesDescription") or header.get("ProtocolName") or ""
        ).strip(),
        kind=kinds[2] if len(kinds) > 2 else "",
        space=f"{header.get('StudyInstanceUID')} {header.get('FrameOfReferenceUID')}",
        patient=f"{header.get('PatientID') or ''} {header.get('PatientName') or ''}".strip(),
    )


def _rescaling(dataset: Any, frame: int | None) -> tuple[float, float]:
    places = [dataset]
    if frame is not None and "PerFrameFunctionalGroupsSequence" in dataset:
        places = [*_items(dataset.PerFrameFunctionalGroupsSequence[frame]), dataset]
    slope, intercept = (_first(places, name) for name in ("RescaleSlope", "RescaleIntercept"))
    return (1.0 if slope is None else float(slope)), (
        0.0 if intercept is None else float(intercept)
    )


def _numbers(values: Any) -> list[float]:
    return [float(each) for each in values]


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
