"""Cine studies in DICOM: grouped by plane and time, in their place, with gaps and duplicates told."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import pytest

from cardiacreg import Volume, read_dicom_cine, read_guide_points, write_dicom_cine
from cardiacreg.doors import dicom_images
from cardiacreg.errors import InputWarning, InvalidInputError
from cardiacreg.geometry import LV_CAVITY, LV_WALL, apply_matrix, nearest_labels, voxel_grid
from tests.helpers.dicom_studies import (
    COLUMNS,
    OBLIQUE,
    ROWS,
    SPACING,
    normal,
    position,
    write_image,
    write_stack,
)

pytest.importorskip("pydicom")

TIMES = (0.0, 40.0, 80.0, 120.0)
LPS = np.array([-1.0, -1.0, 1.0])


def refused(code, folder, **more):
    with pytest.raises(InvalidInputError) as raised:
        read_dicom_cine(folder, **more)
    assert raised.value.code == code
    return str(raised.value)


class TestStacks:
    def test_slices_are_ordered_by_place_and_frames_by_time(self, tmp_path):
        write_stack(tmp_path, (0.0, 8.0, 16.0), TIMES)
        (stack,) = read_dicom_cine(tmp_path)
        assert stack.name == "sax" and stack.is_stack and stack.n_frames == 4
        assert stack.array.shape == (COLUMNS, ROWS, 3, 4) and stack.notes == ()
        i, j, k, t = np.meshgrid(*(np.arange(n) for n in stack.array.shape), indexing="ij")
        assert (stack.array == 100 * i + j + 5000 + 1000 * k + 20 * t).all()
        np.testing.assert_allclose(stack.times_ms, TIMES)

    def test_every_voxel_lies_where_dicom_says(self, tmp_path):
        """By the equation of the standard (C.7.6.2.1.1), in LPS."""
        write_stack(tmp_path, (0.0, 8.0, 16.0), TIMES)
        (stack,) = read_dicom_cine(tmp_path)
        for column, row, k in ((0, 0, 0), (7, 3, 1), (COLUMNS - 1, ROWS - 1, 2)):
            expected = (
                position(8.0 * k)
                + np.array(OBLIQUE[:3]) * SPACING[1] * column
                + np.array(OBLIQUE[3:]) * SPACING[0] * row
            )
            found = apply_matrix(stack.voxel_to_world, np.array([[column, row, k]], dtype=float))
            np.testing.assert_allclose(found[0] * LPS, expected, atol=1e-4)
        np.testing.assert_allclose(stack.spacing_mm, (SPACING[1], SPACING[0], 8.0), atol=1e-5)
        assert stack.frame(2).array.max() == stack.array[..., 2].max()

    def test_simpleitk_finds_the_same_order_and_places(self, tmp_path):
        simpleitk = pytest.importorskip("SimpleITK")
        write_stack(tmp_path, (16.0, 0.0, 24.0, 8.0), (0.0,))
        names = simpleitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path))
        theirs = simpleitk.ReadImage(names)
        (ours,) = read_dicom_cine(tmp_path, still_images=True)
        assert (simpleitk.GetArrayFromImage(theirs).T == ours.array[..., 0]).all()
        for voxel in ((0, 0, 0), (5, 2, 3)):
            place = theirs.TransformIndexToPhysicalPoint(voxel)
            found = apply_matrix(ours.voxel_to_world, np.array([voxel], dtype=float))
            np.testing.assert_allclose(found[0] * LPS, place, atol=1e-4)

    def test_slices_of_other_heart_rates_are_matched_by_their_number(self, tmp_path):
        write_stack(tmp_path, (0.0, 8.0), TIMES, prefix="a")
        slow = [1.5 * t for t in TIMES]
        write_stack(tmp_path, (16.0,), slow, series="2", number=2, prefix="b")
        (stack,) = read_dicom_cine(tmp_path)
        assert stack.array.shape[2:] == (3, 4)
        np.testing.assert_allclose(stack.slice_times_ms[[0, 2]], [TIMES, slow])
        np.testing.assert_allclose(stack.times_ms, np.array(TIMES) * 3.5 / 3)

    def test_long_axis_planes_are_apart_and_named_by_their_description(self, tmp_path):
        write_stack(tmp_path, (0.0, 8.0, 16.0), TIMES, prefix="a")
        across = (*normal(), *OBLIQUE[:3])
        for t, time in enumerate(TIMES):
            write_image(tmp_path / f"b{t}", time=time, place=(0, 0, 0), along=across, series="2",
                        number=2, instance=t, SeriesDescription="Cine 4CH")  # fmt: skip
        stacks = read_dicom_cine(tmp_path)
        assert [each.name for each in stacks] == ["sax", "cine_4ch"]
        assert not stacks[1].is_stack and stacks[1].spacing_mm[2] == pytest.approx(8)

    def test_phase_images_do_not_mix_with_magnitudes(self, tmp_path):
        write_stack(tmp_path, (0.0, 8.0, 16.0), TIMES, prefix="a")
        kind = ["ORIGINAL", "PRIMARY", "P"]
        write_stack(tmp_path, (0.0, 8.0, 16.0), TIMES, prefix="b", ImageType=kind)
        assert [each.name for each in read_dicom_cine(tmp_path)] == ["sax", "sax_p"]

    def test_intensities_are_rescaled(self, tmp_path):
        write_stack(tmp_path, (0.0, 8.0), TIMES, RescaleSlope="0.5", RescaleIntercept="-10")
        (stack,) = read_dicom_cine(tmp_path)
        assert stack.array[2, 3, 0, 0] == (203 + 5000) * 0.5 - 10


class TestWhatIsTold:
    def test_a_missing_slice_is_black_and_told(self, tmp_path):
        write_stack(tmp_path, (0.0, 8.0, 24.0, 32.0), TIMES)
        (stack,) = read_dicom_cine(tmp_path)
        assert stack.missing_slices == (2,) and stack.array.shape[2] == 5
        assert not stack.array[:, :, 2].any() and stack.array[:, :, 3].all()
        assert "a slice is missing between slices 2 and 3 (16.0 mm, else 8.0 mm)" in stack.notes[0]
        assert np.isnan(stack.slice_times_ms[2]).all() and not np.isnan(stack.times_ms).any()
        np.testing.assert_allclose(stack.spacing_mm[2], 8, atol=1e-5)

    def test_a_repeated_slice_is_taken_from_the_later_series(self, tmp_path):
        write_stack(tmp_path, (0.0, 8.0, 16.0), TIMES, prefix="a")
        write_stack(
            tmp_path, (8.0,), TIMES, series="9", number=9, prefix="b", SeriesDescription="again"
        )
        (stack,) = read_dicom_cine(tmp_path)
        assert stack.array.shape[2] == 3 and stack.array[0, 0, 1, 0] == 5000
        assert "series 1 (cine) shows the same place as series 9 (again)" in stack.notes[0]

    def test_a_slice_that_was_taken_again_a_little_off_is_no_other_slice(self, tmp_path):
        write_stack(tmp_path, (0.0, 8.0, 16.0), TIMES, prefix="a")
        write_stack(tmp_path, (8.15,), TIMES, series="9", number=9, prefix="b")
        (stack,) = read_dicom_cine(tmp_path)
        assert stack.array.shape[2] == 3 and stack.array[0, 0, 1, 0] == 5000
        assert "same place" in " ".join(stack.notes)

    def test_noise_of_positions_does_not_part_the_frames_of_a_slice(self, tmp_path):
        for k in range(3):
            for t, time in enumerate(TIMES):
                place = position(8.0 * k) + 0.004 * (-1) ** t
                write_image(tmp_path / f"{k}{t}", time=time, place=place, instance=10 * k + t)
        (stack,) = read_dicom_cine(tmp_path)
        assert stack.array.shape[2:] == (3, 4)

    def test_images_of_one_place_and_time_are_told(self, tmp_path):
        write_stack(tmp_path, (0.0, 8.0, 16.0), TIMES, prefix="a")
        write_image(tmp_path / "copy", time=40.0, place=position(8.0), instance=99, level=9000)
        (stack,) = read_dicom_cine(tmp_path)
        assert stack.n_frames == 4 and stack.array[0, 0, 1, 1] == 9000
        assert "1 images are there twice" in stack.notes[0]

    def test_mixed_spacing_parts_the_stack(self, tmp_path):
        write_stack(tmp_path, (0.0, 8.0, 16.0, 28.5, 36.5), TIMES)
        stacks = read_dicom_cine(tmp_path)
        assert [each.array.shape[2] for each in stacks] == [3, 2]
        assert (
            "12.5 mm between slices 3 and 4, else 8.0 mm; the stack is parted" in stacks[0].notes[0]
        )

    def test_two_spacings_make_two_stacks(self, tmp_path):
        write_stack(tmp_path, (0.0, 8.0, 16.0, 24.0, 34.0, 44.0, 54.0), TIMES)
        stacks = read_dicom_cine(tmp_path)
        assert [each.array.shape[2] for each in stacks] == [4, 3]
        np.testing.assert_allclose([each.spacing_mm[2] for each in stacks], (8, 10), atol=1e-5)

    def test_another_number_of_frames_is_matched_in_the_cycle_and_told(self, tmp_path):
        write_stack(tmp_path, (0.0, 8.0), TIMES, prefix="a")
        write_stack(tmp_path, (16.0,), (0.0, 80.0), series="2", number=2, prefix="b")
        (stack,) = read_dicom_cine(tmp_path)
        assert "series 2 (cine): has 2 frames where others have 4" in stack.notes[0]
        assert (stack.array[0, 0, 2] == (5000, 5000, 5020, 5020)).all()

    def test_without_trigger_times_the_order_is_that_of_the_numbers(self, tmp_path):
        write_stack(tmp_path, (0.0, 8.0, 16.0), TIMES, TriggerTime=None, NominalInterval=None)
        (stack,) = read_dicom_cine(tmp_path)
        assert stack.times_ms is None and "no trigger times" in stack.notes[0]
        assert (np.diff(stack.array[0, 0, 0]) == 20).all()

    def test_the_heart_rate_tells_times_where_triggers_are_missing(self, tmp_path):
        write_stack(tmp_path, (0.0, 8.0, 16.0), TIMES, TriggerTime=None)
        np.testing.assert_allclose(read_dicom_cine(tmp_path)[0].times_ms, (0, 250, 500, 750))

    def test_a_slice_sideways_of_the_stack_is_a_stack_of_its_own(self, tmp_path):
        write_stack(tmp_path, (0.0, 8.0, 16.0), TIMES, prefix="a")
        aside = position(24.0) + 5 * np.array(OBLIQUE[:3])
        for t, time in enumerate(TIMES):
            write_image(
                tmp_path / f"b{t}", time=time, place=aside, series="2", number=2, instance=t
            )
        assert [each.array.shape[2] for each in read_dicom_cine(tmp_path)] == [3, 1]

    def test_other_files_and_still_images_are_left_out_with_a_word(self, tmp_path):
        write_stack(tmp_path / "cine", (0.0, 8.0, 16.0), TIMES)
        write_image(tmp_path / "localiser", time=0, place=(0, 0, 0), series="3", number=3)
        write_image(
            tmp_path / "report", time=0, place=(0, 0, 0), series="4", ImagePositionPatient=None
        )
        write_image(tmp_path / "colour", time=0, place=(0, 0, 0), series="5", SamplesPerPixel=3)
        (tmp_path / "notes.txt").write_text("nothing")
        with pytest.warns(
            InputWarning, match="1 in colour; 1 without a place in space .*; 1 of series"
        ):
            assert len(read_dicom_cine(tmp_path)) == 1
        with pytest.warns(InputWarning):
            stacks = read_dicom_cine(tmp_path, still_images=True)
        assert [each.n_frames for each in stacks] == [4, 1]


class TestRefusals:
    def test_what_is_no_study(self, tmp_path):
        refused("FILE_NOT_FOUND", tmp_path / "none")
        assert "no files" in refused("NO_DICOM", tmp_path)
        (tmp_path / "a.txt").write_text("text")
        assert "1 not DICOM" in refused("NO_DICOM", tmp_path)
        write_image(tmp_path / "still", time=0, place=(0, 0, 0))
        assert "localisers" in refused("NO_DICOM", tmp_path)

    def test_two_patients(self, tmp_path):
        write_stack(tmp_path, (0.0, 8.0), TIMES, prefix="a")
        write_stack(tmp_path, (0.0, 8.0), TIMES, prefix="b", PatientID="2", PatientName="Other")
        words = refused("SEVERAL_PATIENTS", tmp_path)
        assert "2 patients" in words and "Other" not in words

    def test_pixels_that_cannot_be_decoded_name_their_file(self, tmp_path):
        write_stack(tmp_path, (0.0, 8.0), TIMES[:2])
        write_image(tmp_path / "a0001.dcm", time=0, place=position(0.0), PixelData=b"\0" * 10)
        assert "a0001.dcm: the image cannot be decoded" in refused("UNREADABLE_FILE", tmp_path)

    def test_without_pydicom_the_extra_is_named(self, tmp_path, monkeypatch):
        def missing(name):
            raise ImportError(name)

        monkeypatch.setattr(dicom_images, "import_module", missing)
        assert "cardiacreg[dicom]" in refused("NO_PYDICOM", tmp_path)


def test_frames_of_one_file_are_read_where_their_groups_say(tmp_path):
    """Enhanced MR: place and time of every frame in functional groups, what is shared in one."""
    from pydicom import dcmread
    from pydicom.dataset import Dataset

    def group(name, **values):
        item, holder = Dataset(), Dataset()
        for key, value in values.items():
            setattr(item, key, value)
        setattr(holder, name, [item])
        return holder

    def joined(*parts):
        found = Dataset()
        for part in parts:
            found.update(part)
        return found

    path = tmp_path / "enhanced"
    write_image(path, time=0, place=(0, 0, 0))
    dataset = dcmread(path)
    planes = [(k, t) for t in range(3) for k in range(3)]
    frame = dataset.pixel_array
    dataset.PixelData = b"".join(
        (frame + 1000 * k + 20 * t).astype(np.uint16).tobytes() for k, t in planes
    )
    dataset.NumberOfFrames = len(planes)
    dataset.PerFrameFunctionalGroupsSequence = [
        joined(
            group(
                "PlanePositionSequence", ImagePositionPatient=[float(x) for x in position(8.0 * k)]
            ),
            group("CardiacSynchronizationSequence", NominalCardiacTriggerDelayTime=40.0 * t),
        )
        for k, t in planes
    ]
    dataset.SharedFunctionalGroupsSequence = [
        joined(
            group("PlaneOrientationSequence", ImageOrientationPatient=list(OBLIQUE)),
            group("PixelMeasuresSequence", PixelSpacing=list(SPACING), SliceThickness=8),
        )
    ]
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "TriggerTime"):
        delattr(dataset, name)
    dataset.save_as(path)
    (stack,) = read_dicom_cine(tmp_path)
    assert stack.array.shape == (COLUMNS, ROWS, 3, 3)
    assert (stack.array[0, 0] == [[1000 * k + 20 * t for t in range(3)] for k in range(3)]).all()
    np.testing.assert_allclose(stack.times_ms, (0, 40, 80))


def bivme():
    folder = Path(os.environ.get("CARDIACREG_DATA", "")) / "bivme"
    if not folder.is_dir():
        pytest.skip("needs the data set bivme, in the folder named by CARDIACREG_DATA")
    return folder


def test_a_patient_is_read_whole_and_lies_under_the_contours():
    folder = bivme()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stacks = read_dicom_cine(folder / "dicom")
    assert [each.array.shape[2:] for each in stacks] == [(6, 25)] + 5 * [(1, 25)]
    assert all(each.notes == () for each in stacks)
    assert sum(np.isfinite(each.slice_times_ms).all(axis=1).sum() for each in stacks) == 11
    np.testing.assert_allclose(stacks[0].spacing_mm, (1.40625, 1.40625, 17.7), atol=1e-3)
    for number in (0, 9):
        labels = read_guide_points(
            folder / "guidepoints" / f"GPFile_{number:03d}.txt"
        ).short_axis_labels()
        image = stacks[0].frame(number)
        to_labels = np.linalg.inv(labels.voxel_to_world)
        found = nearest_labels(
            labels, apply_matrix(to_labels, voxel_grid(image.shape, image.voxel_to_world))
        )
        blood, wall = (np.median(image.array[found == label]) for label in (LV_CAVITY, LV_WALL))
        assert blood > 1.8 * wall


class TestWriting:
    def test_a_stack_comes_back_in_its_place(self, tmp_path):
        rotation, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
        matrix = np.eye(4)
        matrix[:3, :3] = rotation * np.linalg.det(rotation) * (1.5, 1.25, 9.0)
        matrix[:3, 3] = (10, -20, 30)
        frames = [Volume(np.random.default_rng(n).normal(size=(9, 8, 5)), matrix) for n in range(3)]
        write_dicom_cine(tmp_path / "study", frames, times_ms=(0, 30.5, 70))
        (stack,) = read_dicom_cine(tmp_path / "study")
        np.testing.assert_allclose(stack.times_ms, (0, 30.5, 70))
        np.testing.assert_allclose(stack.voxel_to_world, matrix, atol=1e-6)
        for n, frame in enumerate(frames):
            np.testing.assert_allclose(stack.frame(n).array, frame.array, atol=2e-3)

    def test_what_cannot_be_written_is_refused(self, tmp_path):
        one, other = (Volume(np.zeros((4, 4, n)), np.eye(4)) for n in (3, 4))
        sheared = np.eye(4)
        sheared[0, 1] = 0.5
        for frames, more, code in (
            ([], {}, "BAD_SHAPE"),
            ([one, other], {}, "BAD_SHAPE"),
            ([one], {"times_ms": (0, 40)}, "BAD_SHAPE"),
            ([Volume(one.array, sheared)], {}, "SHEARED_TARGET"),
        ):
            with pytest.raises(InvalidInputError) as raised:
                write_dicom_cine(tmp_path / "a", frames, **more)
            assert raised.value.code == code
        write_dicom_cine(tmp_path / "a", [one])
        with pytest.raises(InvalidInputError, match="holds"):
            write_dicom_cine(tmp_path / "a", [one])
