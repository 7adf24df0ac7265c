"""Displacement fields of other tools: known by their marks, read right or refused with help."""

import nibabel
import numpy as np
import pytest

from cardiacreg import InvalidInputError, read_displacement_field
from tests.helpers.strategies import oblique_matrix

SHAPE = (12, 10, 8)
MATRIX = oblique_matrix(np.random.default_rng(0), (3.0, 3.5, 4.0))
LPS = np.array([-1.0, -1.0, 1.0])
INDICES = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), -1)
POSITIONS = INDICES @ MATRIX[:3, :3].T + MATRIX[:3, 3]
MOVES = np.random.default_rng(1).normal(0, 2, (*SHAPE, 3)) + [5.0, -3.0, 2.0]


def write(path, values, intent=1007, name="", p1=0.0, description="", nifti=nibabel.Nifti1Image):
    image = nifti(values[:, :, :, None].astype(np.float32), MATRIX)
    header = image.header
    header["intent_code"], header["intent_name"], header["intent_p1"] = intent, name.encode(), p1
    header["descrip"] = description.encode()
    image.to_filename(path)
    return path


def refused(path, **keywords):
    with pytest.raises(InvalidInputError) as caught:
        read_displacement_field(path, **keywords)
    return caught.value.code, str(caught.value)


def check(found):
    np.testing.assert_allclose(found.displacements_mm, MOVES, atol=1e-4)


@pytest.mark.parametrize("nifti", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("file", ["f.nii", "f.nii.gz"])
@pytest.mark.parametrize(
    ("values", "marks"),
    [
        (MOVES * LPS, {}),
        (MOVES, {"intent": 1006}),
        (MOVES, {"name": "NREG_TRANS", "p1": 1}),
        (POSITIONS + MOVES, {"name": "NREG_TRANS", "p1": 0}),
        (POSITIONS + MOVES, {"name": "Mapping", "description": "Deformation field"}),
        (POSITIONS + MOVES, {"intent": 0, "description": "Deformation"}),
        (POSITIONS + MOVES, {"description": "Inverse Deformation"}),
    ],
)
def test_marked_fields_are_read_as_what_they_are(tmp_path, values, marks, file, nifti):
    check(read_displacement_field(write(tmp_path / file, values, nifti=nifti, **marks)))


def test_big_endian_headers_have_marks_too(tmp_path):
    path = write(tmp_path / "f.nii", MOVES, name="NREG_TRANS", p1=1)
    image = nibabel.load(path)
    header = image.header.as_byteswapped(">")
    nibabel.Nifti1Image(np.asarray(image.dataobj), None, header).to_filename(tmp_path / "g.nii")
    check(read_displacement_field(tmp_path / "g.nii"))


@pytest.mark.parametrize(
    ("marks", "words"),
    [
        ({"name": "NREG_TRANS", "p1": 2}, "reg_transform"),
        ({"name": "NREG_TRANS", "p1": 5}, "velocities"),
        ({"name": "NREG_VEL_STEP"}, "reg_transform"),
        ({"description": "Flow Field"}, "SPM"),
    ],
)
def test_control_points_and_velocities_are_no_fields(tmp_path, marks, words):
    code, text = refused(write(tmp_path / "f.nii", MOVES, **marks))
    assert code == "BAD_FIELD"
    assert words in text


@pytest.mark.parametrize(
    ("marks", "words"),
    [
        ({"intent": 2006}, "wb_command"),
        ({"intent": 0}, "kind="),
        ({"name": "Displacement"}, "'Displacement'"),
    ],
)
def test_unknown_marks_need_space_and_kind(tmp_path, marks, words):
    path = write(tmp_path / "f.nii", MOVES, **marks)
    code, text = refused(path)
    assert code == "UNKNOWN_SPACE"
    assert words in text
    check(read_displacement_field(path, space="RAS", kind="displacements"))
    if marks.get("intent") != 0:
        assert refused(path, space="RAS")[0] == "UNKNOWN_KIND"


@pytest.mark.parametrize(("space", "signs"), [("RAS", 1.0), ("LPS", LPS)])
@pytest.mark.parametrize("marks", [{}, {"intent": 1006}])
def test_values_that_follow_the_positions_are_not_taken_for_displacements(
    tmp_path, space, signs, marks
):
    path = write(tmp_path / "f.nii", (POSITIONS + MOVES) * signs, **marks)
    code, text = refused(path)
    assert code == "UNKNOWN_KIND"
    assert f"space='{space}'" in text
    check(read_displacement_field(path, space=space, kind="positions"))
    read_displacement_field(path, space=space, kind="displacements")


def test_a_stretch_of_half_is_a_displacement(tmp_path):
    stretch = 0.5 * (POSITIONS - POSITIONS.mean(axis=(0, 1, 2)))
    found = read_displacement_field(write(tmp_path / "f.nii", stretch, intent=1006))
    np.testing.assert_allclose(found.displacements_mm, stretch, atol=1e-4)


def test_positions_that_are_unknown_are_told(tmp_path):
    values = POSITIONS + MOVES
    values[3, 4, 5] = np.nan
    path = write(tmp_path / "f.nii", values, name="Mapping")
    code, text = refused(path)
    assert code == "NOT_FINITE"
    assert "1 voxels" in text


def test_options_are_checked(tmp_path):
    path = write(tmp_path / "f.nii", MOVES)
    assert refused(path, space="SAR")[0] == "UNKNOWN_SPACE"
    assert refused(path, kind="velocities")[0] == "UNKNOWN_KIND"
    assert refused(3)[0] == "BAD_TYPE"


class TestSimpleItk:
    @pytest.fixture(autouse=True)
    def sitk(self):
        self.sitk = pytest.importorskip("SimpleITK")

    @pytest.mark.parametrize("suffix", ["nrrd", "mha", "nii.gz"])
    def test_images_are_displacements_in_lps(self, tmp_path, suffix):
        path = write(tmp_path / "f.nii", MOVES * LPS)
        image = self.sitk.ReadImage(str(path), self.sitk.sitkVectorFloat64)
        self.sitk.WriteImage(image, str(tmp_path / f"g.{suffix}"))
        again = self.sitk.ReadImage(str(tmp_path / f"g.{suffix}"), self.sitk.sitkVectorFloat64)
        found = read_displacement_field(again)
        check(found)
        np.testing.assert_allclose(found.voxel_to_world, MATRIX, atol=1e-4)
        if suffix != "nii.gz":
            assert "SimpleITK" in refused(tmp_path / f"g.{suffix}")[1]

    def test_images_of_positions_or_single_numbers_are_refused(self, tmp_path):
        path = write(tmp_path / "f.nii", (POSITIONS + MOVES) * LPS)
        image = self.sitk.ReadImage(str(path), self.sitk.sitkVectorFloat64)
        assert refused(image)[0] == "UNKNOWN_KIND"
        check(read_displacement_field(image, kind="positions"))
        assert refused(self.sitk.Image([3, 3, 3], self.sitk.sitkFloat32))[0] == "BAD_SHAPE"
