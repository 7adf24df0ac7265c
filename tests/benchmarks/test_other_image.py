"""The benchmark of other patients' images: lattices, signs and counts."""

import numpy as np
import pytest

from benchmarks.accuracy.other_image import OTHER, OWN, on_lattice, signs, tables
from benchmarks.harness.cases import Acquisition
from cardiacreg import LabelMap, Volume
from cardiacreg.io.nifti import write_volume
from tests.helpers.small_hearts import small_heart

GREY = np.array([60.0, 200.0, 90.0, 100.0, 190.0])


def test_an_image_is_cut_and_padded_about_its_middle():
    image = Volume(np.arange(24, dtype=np.float32).reshape(2, 4, 3), np.eye(4))
    labels = LabelMap(np.zeros((4, 2, 3), dtype=np.uint8), np.diag([2.0, 2.0, 8.0, 1.0]))
    found = on_lattice(image, labels)
    np.testing.assert_array_equal(found.array[1:3], image.array[:, 1:3])
    assert not found.array[[0, 3]].any()
    np.testing.assert_array_equal(found.voxel_to_world, labels.voxel_to_world)


@pytest.mark.parametrize(("grey", "expected"), [(GREY, []), (np.full(5, 100.0), ["no contrast"])])
def test_signs_are_those_that_refining_tells(tmp_path, grey, expected):
    heart = small_heart()
    noise = np.random.default_rng(0).normal(0, 15, heart.shape)
    write_volume(tmp_path / "image.nii.gz", Volume(grey[heart.array] + noise, heart.voxel_to_world))
    frame = Acquisition("x", tmp_path, tmp_path / "image.nii.gz", "acdc", "NOR", "ED")
    assert signs(frame, heart) == expected


def test_counts_and_names_what_is_told_wrongly():
    def record(case, own, other, development=False):
        return {"case": case, "development": development, "signs": {OWN: own, OTHER: other}}

    found = tables(
        {
            "records": [
                record("a", [], ["no edges"]),
                record("b", ["no contrast"], ["no edges"]),
                record("c", [], [], development=True),
                {"case": "d", "error": "none"},
            ]
        }
    )
    assert "| other patients, their own image | 1 | 0 | 0 | 1 of 2 (50 %) |" in found["other-image"]
    assert (
        "| development, the next patient's image | 0 | 0 | 0 | 0 of 1 (0 %) |"
        in found["other-image"]
    )
    assert "| b | no contrast | no edges |" in found["other-image-wrong"]
    assert (
        "| c | – | – |" in found["other-image-wrong"] and "| a |" not in found["other-image-wrong"]
    )
