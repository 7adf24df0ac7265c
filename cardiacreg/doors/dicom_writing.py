"""Images written as single-frame DICOM MR: synthetic studies, and processed images for other tools."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cardiacreg.arrays import Float
from cardiacreg.doors.dicom_images import pydicom
from cardiacreg.doors.image_planes import LPS_TO_RAS
from cardiacreg.errors import InvalidInputError, check_argument, check_arguments
from cardiacreg.geometry import Volume, as_numbers
from cardiacreg.io.output_folder import all_or_nothing
from cardiacreg.slices import stack_axes

_LEVELS = 4095
_CYCLE_MS = 1000.0


def write_dicom_cine(
    folder: str | os.PathLike[str],
    frames: Sequence[Volume],
    *,
    times_ms: Sequence[float] | None = None,
    patient: str = "synthetic",
    description: str = "cardiacreg",
    overwrite: bool = False,
) -> None:
    """Write the frames of a stack as DICOM MR images, one file for each slice and frame.

    Parameters
    ----------
    folder : path-like
        Made when missing.
    frames : sequence of Volume
        On one lattice with orthogonal axes.
    times_ms : sequence of float, optional
        After the R wave; evenly through one second when absent.
    patient : str
        Identifier and name of the patient; nobody's when absent.
    description : str
        Of the series, which is marked as derived.
    overwrite : bool
        Whether files of these names may be replaced.

    Raises
    ------
    InvalidInputError
        If the frames differ in shape or their number is not that of the times (BAD_SHAPE), the lattice is
        sheared (SHEARED_TARGET), or files exist (OUTPUT_EXISTS) or cannot be written; NO_PYDICOM.

    Notes
    -----
    Needs the extra ``dicom``. Intensities are stored in 12 bits, with the slope that undoes it. Files of
    this kind are for research; they are no images of a scanner, and say so.

    Examples
    --------
    >>> from cardiacreg import read_dicom_cine, write_dicom_cine
    >>> from cardiacreg.phantoms.toy_heart import make_toy_heart
    >>> write_dicom_cine("study", [make_toy_heart(size=s).image for s in (1.0, 0.9)])
    >>> (stack,) = read_dicom_cine("study")
    >>> stack.name, stack.array.shape, stack.times_ms.tolist()
    ('sax', (40, 40, 8, 2), [0.0, 500.0])
    """
    dicom = pydicom()
    check_arguments(frames, Volume, "write_dicom_cine: frames")
    for each in (patient, description):
        check_argument(each, str, "write_dicom_cine: patient and description")
    even = [_CYCLE_MS * t / len(frames) for t in range(len(frames))]
    times = even if times_ms is None else as_numbers(times_ms, "write_dicom_cine: times_ms").ravel()
    if not frames or len(times) != len(frames) or len({each.shape for each in frames}) > 1:
        raise InvalidInputError(
            f"{folder}: {len(frames)} frames of shapes {[each.shape for each in frames]} and "
            f"{len(times)} times; needs frames of one shape, and a time for each.",
            code="BAD_SHAPE",
        )
    stack_axes(frames[0].voxel_to_world, str(folder))
    study = _Study(dicom, frames, patient, description)
    places = [(k, t) for k in range(frames[0].shape[2]) for t in range(len(frames))]
    names = [f"slice_{k:03d}_frame_{t:03d}.dcm" for k, t in places]
    with all_or_nothing(Path(folder), names, overwrite=overwrite) as stage:
        for number, (name, (k, t)) in enumerate(zip(names, places, strict=True), start=1):
            dataset = study.image(k, t, float(times[t]), number)
            dataset.save_as(stage / name, enforce_file_format=True)


class _Study:
    """What all images of a study share."""

    def __init__(
        self, dicom: Any, frames: Sequence[Volume], patient: str, description: str
    ) -> None:
        self._dicom, self._frames = dicom, frames
        self._patient, self._description = patient, description
        self._uids = [dicom.uid.generate_uid() for _ in range(3)]
        low = min(float(each.array.min()) for each in frames)
        high = max(float(each.array.max()) for each in frames)
        self._intercept, self._slope = low, (high - low) / _LEVELS or 1.0

    def image(self, k: int, t: int, time_ms: float, number: int) -> Any:
        """Return one image."""
        dataset = self._empty()
        matrix = self._frames[t].voxel_to_world
        spacing = self._frames[t].spacing_mm
        along: Float = (matrix[:3, :2] / spacing[:2]).T * LPS_TO_RAS
        dataset.ImagePositionPatient = _told((matrix[:3, 3] + k * matrix[:3, 2]) * LPS_TO_RAS)
        dataset.ImageOrientationPatient = _told(along.ravel())
        dataset.PixelSpacing = _told(spacing[[1, 0]])
        dataset.SliceThickness = dataset.SpacingBetweenSlices = _told(spacing[2:])[0]
        dataset.TriggerTime, dataset.InstanceNumber = _told([time_ms])[0], number
        dataset.NominalInterval = int(_CYCLE_MS)
        array = (self._frames[t].array[:, :, k].T - self._intercept) / self._slope
        dataset.Rows, dataset.Columns = array.shape
        dataset.RescaleSlope, dataset.RescaleIntercept = _told([self._slope, self._intercept])
        dataset.PixelData = np.rint(array).astype("<u2").tobytes()
        return dataset

    def _empty(self) -> Any:
        uid = self._dicom.uid
        dataset = self._dicom.Dataset()
        dataset.file_meta = self._dicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = uid.MRImageStorage
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid.generate_uid()
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = (
            self._uids
        )
        dataset.PatientID, dataset.PatientName = self._patient, f"{self._patient}^"
        dataset.PatientBirthDate = dataset.PatientSex = dataset.AccessionNumber = ""
        dataset.StudyDate = dataset.StudyTime = dataset.StudyID = ""
        dataset.ReferringPhysicianName = dataset.PositionReferenceIndicator = ""
        dataset.Modality, dataset.ImageType = "MR", ["DERIVED", "SECONDARY", "M"]
        dataset.SeriesNumber, dataset.SeriesDescription = 1, self._description
        dataset.Manufacturer = "cardiacreg"
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
        dataset.PixelRepresentation = 0
        return dataset


def _told(numbers: Any) -> list[str]:
    """Numbers as DICOM's decimal strings, of at most 16 characters."""
    return [f"{float(number):.9g}"[:16] for number in numbers]
