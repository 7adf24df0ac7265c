"""DICOM segmentations: written with a reference to their images, read back by us and by others."""

from __future__ import annotations

import numpy as np
import pytest

from cardiacreg import LabelMap, read_dicom_cine, read_dicom_seg, write_dicom_seg
from cardiacreg.doors import dicom_seg
from cardiacreg.errors import InvalidInputError
from cardiacreg.geometry import corner_distance_mm
from tests.helpers.dicom_studies import COLUMNS, ROWS, write_stack

pytest.importorskip("pydicom")
highdicom = pytest.importorskip("highdicom")

TIMES = (0.0, 40.0, 80.0)


def refused(code, function, *arguments, **more):
    with pytest.raises(InvalidInputError) as raised:
        function(*arguments, **more)
    assert raised.value.code == code
    return str(raised.value)


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    write_stack(folder, (0.0, 8.0, 16.0), TIMES)
    write_stack(folder, (24.0,), TIMES, series="2", number=2, prefix="b")
    (found,) = read_dicom_cine(folder)
    return found


@pytest.fixture(scope="module")
def labels(stack):
    """Nested boxes in the middle slices, all four structures."""
    array = np.zeros((COLUMNS, ROWS, 4), dtype=np.uint8)
    array[1:8, 1:8, 1:3] = 2
    array[3:6, 3:6, 1:3] = 1
    array[8:11, 2:6, 1] = 4
    array[11, 2:6, 1] = 3
    return LabelMap(array, stack.voxel_to_world)


def test_labels_come_back_in_their_place_with_their_names(stack, labels, tmp_path):
    path = tmp_path / "model.dcm"
    write_dicom_seg(path, labels, stack, frame=1)
    found = read_dicom_seg(path)
    assert found.present() == (1, 2, 3, 4)
    shared = [int((found.array == n).sum()) for n in range(1, 5)]
    assert shared == [int((labels.array == n).sum()) for n in range(1, 5)]
    assert (found.array == labels.array).all()  # empty slices too
    assert corner_distance_mm(found.shape, found.voxel_to_world, labels.voxel_to_world) < 1e-3


def test_the_segmentation_refers_to_the_images_of_its_frame(stack, labels, tmp_path):
    path = tmp_path / "model.dcm"
    write_dicom_seg(path, labels, stack, frame=1)
    written = highdicom.seg.segread(path)
    series = {each.SeriesInstanceUID for each in written.ReferencedSeriesSequence}
    assert series == {own[0].series for own in stack.images} and len(series) == 2
    referred = {
        item.ReferencedSOPInstanceUID
        for each in written.ReferencedSeriesSequence
        for item in each.ReferencedInstanceSequence
    }
    assert referred == {own[1].uid for own in stack.images}
    assert written.FrameOfReferenceUID == "1.2.3.5" and written.PatientID == "1"
    names = [d.segment_label for d in written.SegmentSequence]
    assert names == ["LV cavity", "LV wall", "RV wall", "RV cavity"]


def test_a_finer_lattice_than_the_images_is_kept(stack, tmp_path):
    fine = stack.voxel_to_world @ np.diag([0.5, 0.5, 0.25, 1.0])
    array = np.zeros((20, 18, 12), dtype=np.uint8)
    array[4:12, 3:15, 2:9] = 2
    array[6:10, 6:12, 3:8] = 1
    write_dicom_seg(tmp_path / "fine.dcm", LabelMap(array, fine), stack)
    found = read_dicom_seg(tmp_path / "fine.dcm")
    np.testing.assert_allclose(found.spacing_mm, np.linalg.norm(fine[:3, :3], axis=0), atol=1e-4)
    assert (found.array == 1).sum() == (array == 1).sum()


def test_what_cannot_be_written_is_refused(stack, labels, tmp_path):
    path = tmp_path / "model.dcm"
    refused("BAD_FILE_NAME", write_dicom_seg, tmp_path / "model.seg", labels, stack)
    refused("NO_SUCH_FRAME", write_dicom_seg, path, labels, stack, frame=3)
    empty = LabelMap(np.zeros(labels.shape), labels.voxel_to_world)
    refused("EMPTY_LABELS", write_dicom_seg, path, empty, stack)
    away = labels.voxel_to_world.copy()
    away[:3, 3] += 2000
    refused("ELSEWHERE", write_dicom_seg, path, LabelMap(labels.array, away), stack)
    refused("NO_FOLDER", write_dicom_seg, tmp_path / "none" / "a.dcm", labels, stack)
    assert not list(tmp_path.iterdir())


def test_what_is_no_segmentation_is_refused(stack, tmp_path, monkeypatch):
    refused("FILE_NOT_FOUND", read_dicom_seg, tmp_path / "none.dcm")
    assert "SEG object" in refused("NOT_DICOM_SEG", read_dicom_seg, stack.images[0][0].file)

    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(dicom_seg, "import_module", missing)
    assert "cardiacreg[dicom-seg]" in refused("NO_HIGHDICOM", read_dicom_seg, tmp_path / "a.dcm")
