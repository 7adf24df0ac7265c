"""Synthetic cine studies written as DICOM: every image says where and when it is by its intensities."""

from __future__ import annotations

from pathlib import Path

import numpy as np

COLUMNS, ROWS = 12, 10
SPACING = (1.5, 1.25)
"""Between rows, between columns."""
OBLIQUE = (0.8, 0.0, 0.6, 0.36, 0.8, -0.48)


def normal(along=OBLIQUE):
    return np.cross(along[:3], along[3:])


def position(height, along=OBLIQUE, origin=(-100.0, -80.0, 40.0)):
    return np.array(origin) + height * normal(along)


def write_image(path, *, time, place, along=OBLIQUE, series="1", number=1, instance=1, **more):
    """Write an image whose pixel (column, row) holds 100 x column + row, plus `level`."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

    level = more.pop("level", 0)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = MRImageStorage
    uid = generate_uid(entropy_srcs=[str(path)])
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = uid
    dataset.PatientName, dataset.PatientID = "Nobody^Synthetic", "1"
    dataset.PatientBirthDate, dataset.PatientSex = "", "O"
    dataset.StudyInstanceUID, dataset.StudyID = "1.2.3.4", "1"
    dataset.StudyDate, dataset.StudyTime, dataset.AccessionNumber = "20260101", "120000", ""
    dataset.ReferringPhysicianName = ""
    dataset.SeriesInstanceUID = f"1.2.3.4.{series}"
    dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator = "1.2.3.5", ""
    dataset.Modality, dataset.ImageType = "MR", ["ORIGINAL", "PRIMARY", "M"]
    dataset.SeriesNumber, dataset.InstanceNumber = number, instance
    dataset.SeriesDescription = "cine"
    dataset.ImagePositionPatient = [round(float(x), 5) for x in place]
    dataset.ImageOrientationPatient, dataset.PixelSpacing = list(along), list(SPACING)
    dataset.SliceThickness, dataset.TriggerTime, dataset.NominalInterval = 8, time, 1000
    column, row = np.meshgrid(np.arange(COLUMNS), np.arange(ROWS))
    dataset.Rows, dataset.Columns = ROWS, COLUMNS
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelRepresentation = 0
    dataset.PixelData = (100 * column + row + level).astype(np.uint16).tobytes()
    for name, value in more.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


def write_stack(folder, heights, times, *, series="1", number=1, prefix="a", **more):
    """Write images at some heights and times, in a shuffled order of file names."""
    pairs = [(k, t) for k in range(len(heights)) for t in range(len(times))]
    order = np.random.default_rng(0).permutation(len(pairs))
    for file, n in enumerate(order):
        k, t = pairs[n]
        write_image(
            Path(folder) / f"{prefix}{file:04d}.dcm", time=times[t], place=position(heights[k]),
            series=series, number=number, instance=1 + n, level=5000 + 1000 * k + 20 * t, **more,
        )  # fmt: skip
