"""DICOM segmentations (SEG) in and out, by highdicom: one binary segment per structure.

A segmentation that is written refers to every image of the frame it was made from, lies in their frame
of reference, and has the lattice of the labels, which may be finer than the images.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from cardiacreg import __version__
from cardiacreg.anatomy.label_presets import canonical_labels
from cardiacreg.anatomy.preset_tables import Preset, segment_mapping
from cardiacreg.arrays import Float
from cardiacreg.doors.dicom_cine import CineStack
from cardiacreg.doors.dicom_images import pydicom
from cardiacreg.doors.image_planes import LPS_TO_RAS
from cardiacreg.errors import InvalidInputError
from cardiacreg.geometry import STRUCTURES, LabelMap, corner_distance_mm
from cardiacreg.io.atomic_write import write_bytes_atomically
from cardiacreg.io.label_values import StoredLabels, coded
from cardiacreg.io.regular_file import check_regular_file
from cardiacreg.io.source_name import named_source
from cardiacreg.slices import stack_axes

_CODES = {
    1: ("87878005", "Left ventricle"),
    2: ("49848007", "Left Ventricle Myocardium"),
    3: ("74281007", "Myocardium"),
    4: ("53085002", "Right ventricle"),
}
_CATEGORY = ("91723000", "Anatomical Structure")
_OTHER = ("80891009", "Heart")
_FARTHEST_MM = 500.0


def write_dicom_seg(
    path: str | os.PathLike[str],
    labels: LabelMap,
    source: CineStack,
    *,
    frame: int = 0,
    names: Mapping[int, str] | None = None,
) -> None:
    """Write labels as a DICOM segmentation that refers to its source images, complete or not at all.

    Parameters
    ----------
    path : path-like
        Ends with ``.dcm``; an existing file is replaced in one step.
    labels : LabelMap
        On any lattice with orthogonal axes.
    source : CineStack
        The images that were segmented, as `read_dicom_cine` returns them.
    frame : int
        Which of its frames.
    names : mapping of int to str, optional
        Of the segments; those of the structures when absent.

    Raises
    ------
    InvalidInputError
        BAD_FILE_NAME, EMPTY_LABELS, NO_SUCH_FRAME, SHEARED_TARGET, NO_FOLDER; ELSEWHERE if labels and
        images lie apart; MULTI_FRAME where images are frames of one file; BAD_STUDY; NO_HIGHDICOM.

    Notes
    -----
    Needs the extra ``dicom-seg``. Segments are coded by SNOMED CT; the category is "Anatomical
    Structure" and the algorithm "semiautomatic".

    Examples
    --------
    >>> from cardiacreg import read_dicom_cine, read_dicom_seg, write_dicom_cine, write_dicom_seg
    >>> from cardiacreg.phantoms.toy_heart import make_toy_heart
    >>> heart = make_toy_heart()
    >>> write_dicom_cine("images", [heart.image, heart.image])
    >>> (stack,) = read_dicom_cine("images")
    >>> write_dicom_seg("written.dcm", heart.labels, stack, frame=1)
    >>> read_dicom_seg("written.dcm").present()
    (1, 2, 3, 4)
    """
    if not Path(path).name.lower().endswith(".dcm"):
        raise InvalidInputError(f"{path}: needs a name that ends with .dcm.", code="BAD_FILE_NAME")
    highdicom = _highdicom()
    stack_axes(labels.voxel_to_world, str(path))
    present = labels.present()
    if not present:
        raise InvalidInputError(
            f"{path}: the labels are all background; needs a segmented heart.", code="EMPTY_LABELS"
        )
    _check_near(labels, source, str(path))
    chosen = dict(STRUCTURES if names is None else names)
    segments = [
        _description(highdicom, n, value, chosen.get(value, f"label {value}"))
        for n, value in enumerate(present, start=1)
    ]
    numbers = np.zeros(256, dtype=np.uint8)
    numbers[list(present)] = np.arange(1, len(present) + 1)
    write_bytes_atomically(
        path, _content(highdicom, labels, numbers, segments, _datasets(source, frame))
    )


def _content(
    highdicom: Any, labels: LabelMap, numbers: Any, segments: list[Any], datasets: list[Any]
) -> bytes:
    """Return the file; highdicom takes images of one series as the source, and the others beside it."""
    first = datasets[len(datasets) // 2].SeriesInstanceUID
    patient = datasets[0].PatientName
    for dataset in datasets:
        dataset.PatientName = (
            ""  # highdicom warns of names in one part, which are not ours to change
        )
    try:
        written = highdicom.seg.Segmentation(
            source_images=[d for d in datasets if first == d.SeriesInstanceUID],
            further_source_images=[d for d in datasets if first != d.SeriesInstanceUID] or None,
            pixel_array=numbers[labels.array].transpose(2, 1, 0),
            segmentation_type="BINARY",
            segment_descriptions=segments,
            series_instance_uid=highdicom.UID(),
            series_number=1000,
            sop_instance_uid=highdicom.UID(),
            instance_number=1,
            manufacturer="cardiacreg",
            manufacturer_model_name="cardiacreg",
            software_versions=__version__,
            device_serial_number="0",
            content_label="VENTRICLES",
            omit_empty_frames=False,  # an empty slice shows that the heart has ended
            series_description="cardiacreg segmentation",
            **_geometry(highdicom, labels),
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise InvalidInputError(
            f"the images of the study cannot be referred to ({_short(error)}); export the study again.",
            code="BAD_STUDY",
        ) from error
    written.PatientName = patient
    stream = BytesIO()
    written.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def read_dicom_seg(path: str | os.PathLike[str], *, preset: Preset = None) -> LabelMap:
    """Read a DICOM segmentation as canonical labels.

    Parameters
    ----------
    path : path-like
    preset : str, mapping or None
        What the numbers of the segments mean; what their names say when absent.

    Returns
    -------
    LabelMap
        Canonical labels, in world RAS+ mm; slices without a segment between others are empty.

    Raises
    ------
    InvalidInputError
        FILE_NOT_FOUND, NOT_DICOM_SEG, OVERLAPPING_SEGMENTS, UNKNOWN_SEGMENTS, NO_HIGHDICOM, and what
        presets raise.

    Notes
    -----
    Needs the extra ``dicom-seg``.

    Examples
    --------
    >>> from cardiacreg import read_dicom_cine, read_dicom_seg, write_dicom_cine, write_dicom_seg
    >>> from cardiacreg.phantoms.toy_heart import make_toy_heart
    >>> heart = make_toy_heart()
    >>> write_dicom_cine("images", [heart.image, heart.image])
    >>> (stack,) = read_dicom_cine("images")
    >>> write_dicom_seg("read.dcm", heart.labels, stack, frame=1)
    >>> read_dicom_seg("read.dcm").present()
    (1, 2, 3, 4)
    """
    stored = stored_dicom_seg(path)
    with named_source(os.fspath(path)):
        meaning = segment_mapping(stored.names) if preset is None else preset
        return canonical_labels(stored.codes, meaning, values=stored.values)


def stored_dicom_seg(path: str | os.PathLike[str]) -> StoredLabels:
    """Read the numbers of the segments and their names; as `read_dicom_seg`."""
    highdicom = _highdicom()
    with named_source(os.fspath(path)):
        check_regular_file(path)
        try:
            found = highdicom.seg.segread(path)
        except Exception as error:
            raise InvalidInputError(
                f"the file is no DICOM segmentation ({_short(error)}); needs a SEG object.",
                code="NOT_DICOM_SEG",
            ) from error
        try:
            volume = found.get_volume(combine_segments=True, rescale_fractional=False)
        except Exception as error:
            code = "OVERLAPPING_SEGMENTS" if "overlap" in str(error).lower() else "NOT_DICOM_SEG"
            raise InvalidInputError(
                f"the segments cannot be put on one lattice ({_short(error)}); needs binary segments "
                "that do not overlap, on parallel and evenly spaced slices.",
                code=code,
            ) from error
        array, matrix = _by_columns_and_rows(volume)
        codes, values = coded(array, 0.0)
        names = {
            int(number): str(found.get_segment_description(number).segment_label)
            for number in found.segment_numbers
        }
        kept = {value: names[value] for value in values.values() if value in names}
        return StoredLabels(LabelMap(codes, matrix), values, None, kept)


def _by_columns_and_rows(volume: Any) -> tuple[Any, Float]:
    """Return an array (i, j, k) and its matrix to RAS, with slices in order along i x j."""
    array = volume.array.transpose(2, 1, 0)
    matrix = np.asarray(volume.affine, dtype=np.float64)[:, [2, 1, 0, 3]]
    matrix[:3] *= LPS_TO_RAS[:, None]
    if np.linalg.det(matrix[:3, :3]) < 0:
        array = array[:, :, ::-1]
        matrix[:3, 3] += (array.shape[2] - 1) * matrix[:3, 2]
        matrix[:3, 2] *= -1
    return np.ascontiguousarray(array), matrix


def is_dicom_seg(path: Path) -> bool:
    """Whether a file is a DICOM segmentation, by its header."""
    try:
        header = pydicom().dcmread(path, stop_before_pixels=True, specific_tags=["Modality"])
    except InvalidInputError:
        raise
    except Exception:
        return False
    return str(header.get("Modality")) == "SEG"


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _highdicom() -> Any:
    try:
        return import_module("highdicom")
    except ImportError as error:
        raise InvalidInputError(
            "DICOM segmentations are read and written by highdicom, which is not installed; install it "
            "with: pip install 'cardiacreg[dicom-seg]', or use .seg.nrrd or NIfTI.",
            code="NO_HIGHDICOM",
        ) from error


def _check_near(labels: LabelMap, source: CineStack, where: str) -> None:
    """Refuse labels whose first voxel lies far from every image: they are of another space."""
    shape = (1, 1, 1)
    if corner_distance_mm(shape, labels.voxel_to_world, source.voxel_to_world) > _FARTHEST_MM:
        raise InvalidInputError(
            f"{where}: the labels lie more than {_FARTHEST_MM:.0f} mm from the images; needs the study "
            "that they were made from.",
            code="ELSEWHERE",
        )


def _datasets(source: CineStack, frame: int) -> list[Any]:
    source.frame(frame)
    images = [own[frame] for own in source.images if own]
    if any(image.frame is not None for image in images):
        raise InvalidInputError(
            f"{source.name}: the images are frames of one file (enhanced MR); a segmentation can refer "
            "to single-frame images only. Export the series as single-frame MR.",
            code="MULTI_FRAME",
        )
    return [pydicom().dcmread(image.file) for image in images]


def _description(highdicom: Any, number: int, value: int, name: str) -> Any:
    coded_concept = highdicom.sr.CodedConcept
    code, meaning = _CODES.get(value, _OTHER)
    return highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=coded_concept(_CATEGORY[0], "SCT", _CATEGORY[1]),
        segmented_property_type=coded_concept(code, "SCT", meaning),
        algorithm_type="SEMIAUTOMATIC",
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name="cardiacreg",
            family=coded_concept("123111", "DCM", "Deformable Models"),
            version=__version__,
        ),
    )


def _geometry(highdicom: Any, labels: LabelMap) -> dict[str, Any]:
    matrix, spacing = labels.voxel_to_world, labels.spacing_mm
    along = (matrix[:3, :2] / spacing[:2]).T * LPS_TO_RAS
    places = [(matrix[:3, 3] + k * matrix[:3, 2]) * LPS_TO_RAS for k in range(labels.shape[2])]
    return {
        "pixel_measures": highdicom.PixelMeasuresSequence(
            pixel_spacing=[float(spacing[1]), float(spacing[0])],
            slice_thickness=float(spacing[2]),
            spacing_between_slices=float(spacing[2]),
        ),
        "plane_orientation": highdicom.PlaneOrientationSequence(
            coordinate_system="PATIENT", image_orientation=[float(n) for n in along.ravel()]
        ),
        "plane_positions": [
            highdicom.PlanePositionSequence(
                coordinate_system="PATIENT", image_position=[float(n) for n in place]
            )
            for place in places
        ],
    }
