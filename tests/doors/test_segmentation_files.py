"""Label maps written for other tools: read back by SimpleITK and by ourselves, in the same place."""

from __future__ import annotations

import numpy as np
import pytest

from cardiacreg import LabelMap, read_labels, read_segmentation, write_segmentation
from cardiacreg.doors import segmentation_files
from cardiacreg.doors.segmentation_files import LABEL_FORMATS, SLICER
from cardiacreg.errors import InvalidInputError
from cardiacreg.geometry import STRUCTURE_COLOURS, STRUCTURES, corner_distance_mm
from cardiacreg.phantoms.toy_heart import make_toy_heart

sitk = pytest.importorskip("SimpleITK")


@pytest.fixture(scope="module")
def labels():
    """Turned, moved and mirrored."""
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    world = np.eye(4)
    world[:3, :3], world[:3, 3] = turn, (20, -30, 45)
    heart = make_toy_heart().labels
    return LabelMap(heart.array, world @ heart.voxel_to_world)


@pytest.mark.parametrize("ending", LABEL_FORMATS)
def test_simpleitk_sees_the_same_values_at_the_same_points(labels, tmp_path, ending):
    path = tmp_path / f"labels{ending}"
    write_segmentation(path, labels)
    image = sitk.ReadImage(str(path))
    assert (sitk.GetArrayFromImage(image).T == labels.array).all()
    for voxel in ((0, 0, 0), (5, 9, 3), tuple(n - 1 for n in labels.shape)):
        place = np.array(image.TransformIndexToPhysicalPoint(voxel)) * (-1, -1, 1)
        expected = labels.voxel_to_world @ (*voxel, 1.0)
        np.testing.assert_allclose(place, expected[:3], atol=1e-3)


@pytest.mark.parametrize("ending", LABEL_FORMATS)
def test_what_is_written_is_read(labels, tmp_path, ending):
    path = tmp_path / f"labels{ending}"
    write_segmentation(path, labels)
    found = read_segmentation(path) if ending == SLICER else read_labels(path)
    assert (found.array == labels.array).all()
    assert corner_distance_mm(labels.shape, found.voxel_to_world, labels.voxel_to_world) < 1e-3


def test_segments_have_names_and_colours(labels, tmp_path):
    path = tmp_path / "model.seg.nrrd"
    write_segmentation(path, labels)
    image = sitk.ReadImage(str(path))
    for number, value in enumerate(sorted(STRUCTURES)):
        key = f"Segment{number}_"
        assert image.GetMetaData(key + "Name") == STRUCTURES[value]
        assert int(image.GetMetaData(key + "LabelValue")) == value
        colour = [float(part) for part in image.GetMetaData(key + "Color").split()]
        np.testing.assert_allclose(colour, np.array(STRUCTURE_COLOURS[value]) / 255, atol=1e-5)


def test_other_names_and_values_without_one(tmp_path):
    array = np.zeros((4, 4, 4), dtype=np.uint8)
    array[0], array[1] = 7, 9
    path = tmp_path / "other.seg.nrrd"
    write_segmentation(path, LabelMap(array, np.eye(4)), names={7: "scar"})
    image = sitk.ReadImage(str(path))
    names = [image.GetMetaData(f"Segment{n}_Name") for n in (0, 1)]
    assert names == ["scar", "label 9"]
    assert image.GetMetaData("Segment0_Color") != image.GetMetaData("Segment1_Color")


def test_what_cannot_be_written_is_refused_and_leaves_nothing(labels, tmp_path, monkeypatch):
    sheared = np.eye(4)
    sheared[0, 1] = 0.5
    for path, given, code in (
        (tmp_path / "a.png", labels, "BAD_FILE_NAME"),
        (tmp_path / "none" / "a.mha", labels, "NO_FOLDER"),
        (tmp_path / "a.nrrd", LabelMap(labels.array, sheared), "SHEARED_TARGET"),
    ):
        with pytest.raises(InvalidInputError) as raised:
            write_segmentation(path, given)
        assert raised.value.code == code

    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(segmentation_files, "import_module", missing)
    with pytest.raises(InvalidInputError, match=r"cardiacreg\[itk\]"):
        write_segmentation(tmp_path / "a.mha", labels)
    assert not list(tmp_path.iterdir())
