"""``convert``: every kind of file into every other that it can become, values and places kept."""

from __future__ import annotations

import csv
import json
from importlib.util import find_spec

import nibabel
import numpy as np
import pytest
from click.testing import CliRunner

from cardiacreg import (
    FFD,
    Affine,
    LabelMap,
    Landmarks,
    convert,
    dense_displacement,
    landmarks_from_labels,
    read_dicom_cine,
    read_displacement_field,
    read_dof,
    read_guide_points,
    read_itk_transform,
    read_labels,
    read_landmarks,
    read_segmentation,
    read_surface,
    surfaces_of,
    write_displacement_field,
    write_dof,
    write_guide_points,
    write_itk_transform,
    write_labels,
    write_landmarks,
    write_surface,
    write_volume,
)
from cardiacreg.cli.app import main
from cardiacreg.doors.segmentation_files import LABEL_FORMATS
from cardiacreg.errors import InputWarning, InvalidInputError
from cardiacreg.phantoms.toy_heart import make_toy_heart
from cardiacreg.surfaces.files import FORMATS
from tests.helpers.cvi42_workspaces import BOX, contour, workspace
from tests.helpers.dicom_studies import write_stack

needs_itk = pytest.mark.skipif(not find_spec("SimpleITK"), reason="SimpleITK is not installed")
needs_pydicom = pytest.mark.skipif(not find_spec("pydicom"), reason="pydicom is not installed")
needs_highdicom = pytest.mark.skipif(
    not find_spec("highdicom"), reason="highdicom is not installed"
)
POINT = np.array([[3.0, -4.0, 5.0]])


@pytest.fixture
def heart():
    return make_toy_heart()


@pytest.fixture
def acdc(heart, tmp_path):
    """The heart with the values of ACDC: 1 RV cavity, 2 LV wall, 3 LV cavity."""
    values = np.array([0, 3, 2, 0, 1], dtype=np.uint8)[heart.labels.array]
    path = tmp_path / "acdc.nii.gz"
    write_labels(path, LabelMap(values, heart.labels.voxel_to_world))
    return path


def spline():
    lattice = np.diag([20.0, 20.0, 20.0, 1.0])
    lattice[:3, 3] = -40.0
    bent = np.zeros((6, 6, 6, 3))
    bent[2:4, 2:4, 2:4] = (3.0, -2.0, 1.0)
    return FFD(Affine(np.diag([1.1, 0.9, 1.0, 1.0])), bent, lattice)


def refused(code, *arguments, **more):
    with pytest.raises(InvalidInputError) as raised:
        convert(*arguments, **more)
    assert raised.value.code == code, raised.value
    return str(raised.value)


class TestLabels:
    @needs_itk
    @pytest.mark.parametrize("ending", LABEL_FORMATS)
    @pytest.mark.parametrize("first", [".nii.gz", ".mha", ".seg.nrrd"])
    def test_meaning_and_place_survive_two_conversions(self, acdc, heart, tmp_path, first, ending):
        convert(acdc, tmp_path / f"one{first}", preset="acdc")
        convert(
            tmp_path / f"one{first}",
            tmp_path / f"two{ending}",
            preset=None if "seg" in first else "sslln",
        )
        found = read_segmentation(tmp_path / f"two{ending}")
        expected = np.where(heart.labels.array == 3, 0, heart.labels.array)
        assert (found.array == expected).all()
        np.testing.assert_allclose(found.voxel_to_world, heart.labels.voxel_to_world, atol=1e-4)

    @needs_itk
    def test_values_stay_without_a_meaning_and_slicer_is_told(self, acdc, tmp_path):
        convert(acdc, tmp_path / "same.mha")
        assert (read_labels(tmp_path / "same.mha").array == read_labels(acdc).array).all()
        with pytest.warns(InputWarning, match="named by their values"):
            convert(acdc, tmp_path / "same.seg.nrrd")

    @needs_itk
    def test_values_above_a_byte_stay(self, heart, tmp_path):
        values = np.array([0, 500, 205, 0, 600], dtype=np.uint16)[heart.labels.array]
        nibabel.save(nibabel.Nifti1Image(values, heart.labels.voxel_to_world), tmp_path / "a.nii")
        convert(tmp_path / "a.nii", tmp_path / "b.nrrd")
        convert(tmp_path / "b.nrrd", tmp_path / "c.nii.gz")
        assert (np.asarray(nibabel.load(tmp_path / "c.nii.gz").dataobj) == values).all()

    def test_a_frame_is_chosen(self, heart, tmp_path):
        frames = np.stack([heart.labels.array, np.roll(heart.labels.array, 1, axis=0)], axis=-1)
        image = nibabel.Nifti1Image(frames, heart.labels.voxel_to_world)
        nibabel.save(image, tmp_path / "cine.nii.gz")
        refused("FRAME_NEEDED", tmp_path / "cine.nii.gz", tmp_path / "one.nii.gz")
        convert(tmp_path / "cine.nii.gz", tmp_path / "one.nii.gz", frame=1)
        assert (read_labels(tmp_path / "one.nii.gz").array == frames[..., 1]).all()

    def test_guide_points_there_and_back(self, acdc, heart, tmp_path):
        convert(acdc, tmp_path / "points", preset="acdc")
        points = tmp_path / "points" / "GPFile_000.txt"
        convert(points, tmp_path / "back.nii.gz")
        convert(points, tmp_path / "views")
        found = read_segmentation(tmp_path / "back.nii.gz")
        assert (found.array == read_guide_points(points).short_axis_labels().array).all()
        assert [file.name for file in (tmp_path / "views").iterdir()] == ["sax.nii.gz"]
        refused("UNKNOWN_PRESET", acdc, tmp_path / "others")

    @needs_itk
    def test_the_folder_of_a_result_is_canonical(self, heart, tmp_path):
        write_labels(tmp_path / "labels.nii.gz", heart.labels)
        (tmp_path / "result.json").write_text("{}")
        convert(tmp_path, tmp_path / "model.seg.nrrd")
        assert read_segmentation(tmp_path / "model.seg.nrrd").present() == (1, 2, 3, 4)

    def test_a_wrong_meaning_and_an_image_are_refused(self, acdc, heart, tmp_path):
        assert "acdc" in refused("WRONG_PRESET", acdc, tmp_path / "a.nii.gz", preset="mms")
        noise = np.random.default_rng(0).integers(0, 200, heart.labels.shape).astype(np.uint8)
        image = nibabel.Nifti1Image(noise, heart.labels.voxel_to_world)
        nibabel.save(image, tmp_path / "image.nii.gz")
        assert "not labels" in refused(
            "UNKNOWN_LABEL", tmp_path / "image.nii.gz", tmp_path / "a.nii.gz"
        )
        assert not (tmp_path / "a.nii.gz").exists()


class TestTransforms:
    @pytest.mark.parametrize("first", [".dof", ".dof.gz", ".tfm", ".txt", ".h5"])
    @pytest.mark.parametrize("second", [".dof", ".tfm", ".h5"])
    def test_splines_move_points_alike_in_every_format(self, tmp_path, first, second):
        if ".h5" in (first, second):
            pytest.importorskip("h5py")
        start, end = tmp_path / f"a{first}", tmp_path / f"b{second}"
        (write_dof if "dof" in first else write_itk_transform)(start, spline())
        convert(start, end)
        found = (read_dof if "dof" in second else read_itk_transform)(end)
        np.testing.assert_allclose(found.apply(POINT), spline().apply(POINT), atol=1e-6)

    def test_parameters_of_elastix_become_an_itk_transform(self, tmp_path):
        (tmp_path / "TransformParameters.0.txt").write_text(
            '(Transform "TranslationTransform")\n(NumberOfParameters 3)\n'
            "(TransformParameters 1.0 2.0 3.0)\n"
            '(InitialTransformParametersFileName "NoInitialTransform")\n'
            '(HowToCombineTransforms "Compose")\n'
            "(FixedImageDimension 3)\n(MovingImageDimension 3)\n"
        )
        convert(tmp_path / "TransformParameters.0.txt", tmp_path / "a.tfm")
        found = read_itk_transform(tmp_path / "a.tfm")
        np.testing.assert_allclose(found.apply(POINT), POINT + (-1, -2, 3), atol=1e-9)

    def test_affines_become_ants_matrices(self, tmp_path):
        affine = Affine(spline().affine.matrix)
        write_dof(tmp_path / "a.dof", affine)
        convert(tmp_path / "a.dof", tmp_path / "b.mat")
        found = read_itk_transform(tmp_path / "b.mat")
        np.testing.assert_allclose(found.apply(POINT), affine.apply(POINT), atol=1e-6)

    @pytest.mark.parametrize("space", ["RAS", "LPS"])
    def test_a_dense_field_has_the_lattice_of_an_image(self, heart, tmp_path, space):
        write_volume(tmp_path / "image.nii.gz", heart.image)
        write_dof(tmp_path / "a.dof", spline())
        like = tmp_path / "image.nii.gz"
        convert(tmp_path / "a.dof", tmp_path / "b.nii.gz", like=like, space_to=space)
        found = read_displacement_field(tmp_path / "b.nii.gz")
        expected = dense_displacement(spline(), heart.image)
        np.testing.assert_allclose(found.displacements_mm, expected.displacements_mm, atol=1e-4)
        other = {"RAS": "LPS", "LPS": "RAS"}[space]
        convert(tmp_path / "b.nii.gz", tmp_path / "c.nii.gz", space_to=other)
        again = read_displacement_field(tmp_path / "c.nii.gz")
        np.testing.assert_allclose(again.displacements_mm, found.displacements_mm, atol=1e-5)
        signs = np.asarray(nibabel.load(tmp_path / "b.nii.gz").dataobj)[:, :, :, 0] / np.where(
            found.displacements_mm == 0, 1, found.displacements_mm
        )
        assert np.sign(signs[..., 0]).min() == (0 if space == "RAS" else -1)

    def test_what_cannot_become_another_is_refused(self, tmp_path):
        write_dof(tmp_path / "a.dof", spline())
        refused("MISSING_LATTICE", tmp_path / "a.dof", tmp_path / "b.nii.gz")
        refused("UNKNOWN_CONVERSION", tmp_path / "a.dof", tmp_path / "b.stl")
        refused("STATED_SPACE", tmp_path / "a.dof", tmp_path / "b.tfm", space_from="LPS")
        refused("STATED_SPACE", tmp_path / "a.dof", tmp_path / "b.tfm", space_to="LPS")
        field = dense_displacement(spline(), make_toy_heart().image)
        write_displacement_field(tmp_path / "f.nii.gz", field)
        assert "dense" in refused("UNKNOWN_CONVERSION", tmp_path / "f.nii.gz", tmp_path / "b.tfm")


class TestPointsAndSurfaces:
    @pytest.mark.parametrize("space", ["RAS", "LPS"])
    @pytest.mark.parametrize("ending", [".json", ".mrk.json", ".fcsv"])
    def test_landmarks_keep_their_places_and_names(self, heart, tmp_path, ending, space):
        landmarks = landmarks_from_labels(heart.labels)
        write_landmarks(tmp_path / "a.json", landmarks)
        convert(tmp_path / "a.json", tmp_path / f"b{ending}", space_to=space)
        found = read_landmarks(tmp_path / f"b{ending}")
        np.testing.assert_allclose(found.points_mm, landmarks.points_mm, atol=1e-9)
        assert found.names == landmarks.names
        text = (tmp_path / f"b{ending}").read_text()
        first = f"{landmarks.points_mm[0, 0] * (1 if space == 'RAS' else -1):.4f}"
        assert first.rstrip("0") in text

    def test_points_of_vtk_need_their_space(self, tmp_path):
        (tmp_path / "a.vtk").write_text(
            "# vtk DataFile Version 3.0\npoints\nASCII\nDATASET POLYDATA\nPOINTS 2 double\n1 2 3 4 5 6\n"
        )
        refused("UNKNOWN_SPACE", tmp_path / "a.vtk", tmp_path / "b.json")
        convert(tmp_path / "a.vtk", tmp_path / "b.json", space_from="LPS")
        np.testing.assert_allclose(
            read_landmarks(tmp_path / "b.json").points_mm, [[-1, -2, 3], [-4, -5, 6]]
        )

    @pytest.mark.parametrize("second", FORMATS)
    @pytest.mark.parametrize("first", FORMATS)
    def test_surfaces_keep_their_place_and_volume(self, heart, tmp_path, first, second):
        surface = surfaces_of(heart.labels, triangles=800)["LV_ENDO"]
        write_surface(tmp_path / f"a.{first}", surface)
        convert(tmp_path / f"a.{first}", tmp_path / f"b.{second}", space_to="LPS")
        found = read_surface(tmp_path / f"b.{second}")
        assert found.volume_ml() == pytest.approx(surface.volume_ml(), rel=1e-4)
        np.testing.assert_allclose(
            found.vertices_mm.mean(axis=0), surface.vertices_mm.mean(axis=0), atol=1e-3
        )


class TestStudies:
    @needs_pydicom
    def test_a_study_becomes_images_and_a_table(self, tmp_path):
        write_stack(tmp_path / "study", (0.0, 8.0, 24.0, 32.0), (0.0, 40.0, 90.0))
        found = convert(tmp_path / "study", tmp_path / "out")
        assert [file.name for file in found.files] == ["sax.nii.gz", "series.csv", "series.json"]
        image = nibabel.load(tmp_path / "out" / "sax.nii.gz")
        assert image.shape == (12, 10, 5, 3) and image.header.get_xyzt_units() == ("mm", "msec")
        assert image.header["pixdim"][4] == 45
        with (tmp_path / "out" / "series.csv").open() as file:
            (row,) = csv.DictReader(file)
        assert (row["slices"], row["frames"], row["missing_slices"]) == ("5", "3", "2")
        assert "a slice is missing" in row["notes"]
        told = json.loads((tmp_path / "out" / "series.json").read_text())["sax"]
        assert told["slice_times_ms"][1] == [0, 40, 90] and told["slice_times_ms"][2][0] is None
        refused("OUTPUT_EXISTS", tmp_path / "study", tmp_path / "out")
        refused("UNKNOWN_CONVERSION", tmp_path / "study", tmp_path / "sax.nii.gz")

    @needs_highdicom
    def test_labels_become_a_dicom_segmentation_and_labels_again(self, tmp_path):
        write_stack(tmp_path / "study", (0.0, 8.0, 16.0), (0.0, 40.0))
        convert(tmp_path / "study", tmp_path / "out")
        image = nibabel.load(tmp_path / "out" / "sax.nii.gz")
        array = np.zeros((12, 10, 3), dtype=np.uint8)
        array[2:9, 2:8], array[4:6, 4:6] = 2, 1
        write_labels(tmp_path / "a.nii.gz", LabelMap(array, image.affine))
        refused("MISSING_STUDY", tmp_path / "a.nii.gz", tmp_path / "a.dcm")
        study = tmp_path / "study"
        convert(tmp_path / "a.nii.gz", tmp_path / "a.dcm", study=study, frame=1, preset="sslln")
        convert(tmp_path / "a.dcm", tmp_path / "b.nii.gz")
        found = read_labels(tmp_path / "b.nii.gz")
        assert (found.array == array).all()
        np.testing.assert_allclose(found.voxel_to_world, image.affine, atol=1e-3)

    @needs_pydicom
    def test_contours_of_cvi42_become_label_maps_of_their_frames(self, tmp_path):
        write_stack(tmp_path / "study", (0.0, 8.0, 16.0), (0.0, 40.0))
        (stack,) = read_dicom_cine(tmp_path / "study")
        box = [contour("saepicardialContour", BOX)]
        images = {own[1].uid: box for own in stack.images}
        drawn = workspace(tmp_path / "drawn.cvi42wsx", images)
        refused("MISSING_STUDY", drawn, tmp_path / "out")
        refused("UNKNOWN_CONVERSION", drawn, tmp_path / "a.nii", study=tmp_path / "study")
        found = convert(drawn, tmp_path / "out", study=tmp_path / "study")
        assert [file.name for file in found.files] == ["sax_frame_001.nii.gz"]
        labels = read_labels(found.files[0])
        assert labels.array.any(axis=(0, 1)).all() and labels.present() == (2,)


class TestFiles:
    def test_nothing_is_replaced_unless_asked_and_never_the_source(self, acdc, tmp_path):
        out = tmp_path / "b.nii.gz"
        convert(acdc, out)
        refused("OUTPUT_EXISTS", acdc, out)
        convert(acdc, out, overwrite=True)
        refused("OUTPUT_IS_INPUT", acdc, acdc, overwrite=True)
        (tmp_path / "link.nii.gz").symlink_to(acdc)
        refused("OUTPUT_IS_INPUT", acdc, tmp_path / "link.nii.gz", overwrite=True)

    def test_what_cannot_be_told_is_refused(self, acdc, tmp_path):
        (tmp_path / "a.docx").write_bytes(b"text")
        refused("FILE_NOT_FOUND", tmp_path / "none.nii", tmp_path / "b.nii")
        refused("UNKNOWN_CONVERSION", tmp_path / "a.docx", tmp_path / "b.nii")
        refused("UNKNOWN_CONVERSION", acdc, tmp_path / "b.stl")
        assert "RAS cannot" in refused("STATED_SPACE", acdc, tmp_path / "b.nii", space_to="RAS")
        refused("UNKNOWN_SPACE", acdc, tmp_path / "b.nii", space_to="MNI")
        write_landmarks(tmp_path / "a.json", Landmarks(POINT))
        refused("UNKNOWN_CONVERSION", tmp_path / "a.json", tmp_path / "b.nii")

    def test_the_command_says_what_it_did_in_its_own_words(self, acdc, tmp_path):
        def run(*words):
            return CliRunner().invoke(main, ["convert", *map(str, words)])

        done = run(acdc, tmp_path / "b.nii.gz", "--map", "1=4,2=2,3=1", "--json")
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout)["kind"] == "labels"
        again = run(acdc, tmp_path / "b.nii.gz")
        assert again.exit_code == 1 and "--overwrite" in again.stderr
        points = run(acdc, tmp_path / "points")
        assert points.exit_code == 1 and "(--preset)" in points.stderr
        write_dof(tmp_path / "a.dof", spline())
        dense = run(tmp_path / "a.dof", tmp_path / "d.nii.gz")
        assert dense.exit_code == 1 and "(--like)" in dense.stderr and "like=" not in dense.stderr
        assert run(acdc, tmp_path / "c.nii.gz").stdout.endswith("c.nii.gz\n")


def test_guide_points_of_one_heart_convert_as_the_library_reads_them(heart, tmp_path):
    write_guide_points(tmp_path / "p", heart.labels)
    found = convert(tmp_path / "p" / "GPFile_000.txt", tmp_path / "a.nii")
    assert found.kind == "guide points" and read_labels(tmp_path / "a.nii").present() == (1, 2, 4)
    convert(tmp_path / "p", tmp_path / "b.nii")  # the folder, as it was written
    assert (read_labels(tmp_path / "b.nii").array == read_labels(tmp_path / "a.nii").array).all()
    (tmp_path / "p" / "GPFile_001.txt").write_bytes(
        (tmp_path / "p" / "GPFile_000.txt").read_bytes()
    )
    with pytest.raises(InvalidInputError, match="guide points of 2 phases; give one"):
        convert(tmp_path / "p", tmp_path / "c.nii")
