"""Contours of cvi42: read from the XML that it exports, and placed by the DICOM study."""

from __future__ import annotations

import numpy as np
import pytest

from cardiacreg import labels_from_cvi42, read_cvi42, read_dicom_cine
from cardiacreg.errors import InputWarning, InvalidInputError
from cardiacreg.geometry import LV_CAVITY, LV_WALL, RV_CAVITY
from tests.helpers.cvi42_workspaces import BOX, contour, workspace
from tests.helpers.dicom_studies import write_stack

pytest.importorskip("pydicom")


@pytest.fixture
def stack(tmp_path):
    write_stack(tmp_path / "study", (0.0, 8.0, 16.0), (0.0, 40.0))
    (found,) = read_dicom_cine(tmp_path / "study")
    return found


def refused(code, function, *arguments):
    with pytest.raises(InvalidInputError) as raised:
        function(*arguments)
    assert raised.value.code == code
    return str(raised.value)


def test_contours_become_labels_of_the_image_that_they_name(stack, tmp_path):
    uid = stack.images[1][1].uid
    own = [
        contour("saendocardialContour", BOX * 0.5 + 2.25, 8),
        contour("saepicardialContour", BOX),
        contour("sarvendocardialContour", BOX * (0.2, 0.8) + (7.6, 0.4)),
        contour("laxLvExtentPoints", BOX[:2]),
    ]
    found = read_cvi42(workspace(tmp_path / "a.cvi42wsx", {uid: own}))
    np.testing.assert_allclose(found[uid]["saepicardialContour"], BOX)
    assert "laxLvExtentPoints" not in found[uid]
    ((frame, labels),) = labels_from_cvi42(found, stack)
    assert frame == 1 and labels.voxel_to_world is not None
    assert (labels.array > 0).sum(axis=(0, 1)).tolist() == [0, 46, 0]
    array = labels.array[:, :, 1]
    assert (array[4:6, 4:6] == LV_CAVITY).all() and (array == LV_CAVITY).sum() == 4
    assert (array[2:8, 2:8] > 0).all() and (array[2][2:8] == LV_WALL).all()
    assert (array[8:10, 2:7] == RV_CAVITY).all()
    np.testing.assert_allclose(labels.voxel_to_world, stack.voxel_to_world)


def test_frames_come_in_order_and_others_images_are_told(stack, tmp_path):
    images = {
        own[t].uid: [contour("saepicardialContour", BOX)] for own in stack.images for t in (1, 0)
    }
    images["9.9.9"] = [contour("saepicardialContour", BOX)]
    found = read_cvi42(workspace(tmp_path / "a.xml", images))
    with pytest.warns(InputWarning, match="1 images with short-axis contours"):
        frames = labels_from_cvi42(found, stack)
    assert [each.frame for each in frames] == [0, 1]
    assert all(each.labels.array.any(axis=(0, 1)).all() for each in frames)


def test_what_is_no_workspace_or_of_another_study_is_refused(stack, tmp_path):
    path = tmp_path / "a.cvi42wsx"
    refused("FILE_NOT_FOUND", read_cvi42, path)
    for content in (b"\x00\x01binary", b"<a><b/></a>", b'<!DOCTYPE a [<!ENTITY b "c">]><a/>'):
        path.write_bytes(content)
        refused("BAD_CONTOUR_FILE", read_cvi42, path)
    bad = contour("saepicardialContour", BOX).replace("<Point:x>8<", "<Point:x>wide<")
    refused("BAD_CONTOUR_FILE", read_cvi42, workspace(path, {"1": [bad]}))
    found = read_cvi42(workspace(path, {"1": [contour("saepicardialContour", BOX)]}))
    assert "study that was contoured" in refused("OTHER_STUDY", labels_from_cvi42, found, stack)
