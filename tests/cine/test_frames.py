"""Frames of a patient: read from one file or many, checked, and named by volume."""

import nibabel
import numpy as np
import pytest

from cardiacreg.cine.frames import gather_cine, phases_by_volume
from cardiacreg.errors import InputWarning, InvalidInputError
from cardiacreg.geometry import LabelMap, Volume
from cardiacreg.phantoms.toy_heart import make_toy_heart

SIZES = (0.95, 1.0, 0.9, 0.85, 0.88)


def toys(sizes=SIZES):
    return [make_toy_heart(size=size).labels for size in sizes]


def empty(like):
    return LabelMap(np.zeros(like.shape, np.uint8), like.voxel_to_world)


@pytest.fixture
def series(tmp_path):
    frames = toys()
    array = np.stack([each.array for each in frames], axis=-1)
    path = tmp_path / "cine.nii.gz"
    nibabel.save(nibabel.Nifti1Image(array, frames[0].voxel_to_world), path)
    return path


def test_a_series_is_the_same_from_a_file_and_from_a_sequence(series):
    one, other = gather_cine(series, "all"), gather_cine(toys(), "all")
    assert one.numbers == other.numbers == (0, 1, 2, 3, 4)
    assert (one.ed, one.es) == (other.ed, other.es) == (1, 3)
    for ours, theirs in zip(one.labels, other.labels, strict=True):
        np.testing.assert_array_equal(ours.array, theirs.array)
    assert one.name == "cine.nii.gz"


def test_an_array_with_its_matrix_is_one_series():
    frames = toys()
    array = np.stack([each.array for each in frames], axis=-1)
    assert gather_cine((array, frames[0].voxel_to_world), "all").n_series == 5
    assert gather_cine((frames[0], frames[3]), "all").n_series == 2


@pytest.mark.parametrize(
    ("frames", "numbers"),
    [
        ("ED,ES", (1, 3)),
        ("ed, es", (1, 3)),
        ("0,2", (0, 2)),
        ((4, 0, 4), (0, 4)),
        ("all", (0, 1, 2, 3, 4)),
    ],
)
def test_frames_are_chosen(frames, numbers):
    assert gather_cine(toys(), frames).numbers == numbers


@pytest.mark.parametrize("frames", ["some", "0,x", (0, 5), (-1, 2), "0,9"])
def test_frames_that_are_not_there_are_refused(frames):
    with pytest.raises(InvalidInputError) as caught:
        gather_cine(toys(), frames)
    assert caught.value.code == "BAD_FRAME"


def test_given_phases_are_taken():
    found = gather_cine(toys(), "all", ed=0, es=2)
    assert (found.ed, found.es) == (0, 2)
    pair = gather_cine(toys(), "ED,ES", ed=0)
    assert pair.numbers == (0, 3) and (pair.ed, pair.es) == (0, 1)
    with pytest.raises(InvalidInputError) as caught:
        gather_cine(toys(), (0, 1), es=3)
    assert caught.value.code == "BAD_FRAME"


def test_frames_without_labels_are_no_phase_and_are_told():
    frames = toys()
    frames[3] = empty(frames[3])
    few = np.zeros(frames[0].shape, np.uint8)
    few[:, :, 4] = frames[2].array[:, :, 4]
    frames[2] = LabelMap(few, frames[0].voxel_to_world)
    with pytest.warns(InputWarning, match=r"frames \[2, 3\] have labels in fewer than 3"):
        found = gather_cine(frames, "all")
    assert found.labelled == (0, 1, 4) and (found.ed, found.es) == (1, 4)


def test_phases_without_an_lv_cavity_are_the_first_and_the_middle_frame():
    frames = [
        LabelMap(np.where(each.array == 1, 0, each.array), each.voxel_to_world) for each in toys()
    ]
    assert phases_by_volume(frames) == (0, 2)


def test_a_single_labelled_frame_is_refused():
    frames = toys((1.0, 0.9))
    with pytest.raises(InvalidInputError) as caught:
        gather_cine([frames[0], empty(frames[1])], "all")
    assert caught.value.code == "TOO_FEW_FRAMES"


def test_frames_on_different_lattices_are_refused():
    frames = toys((1.0, 0.9))
    moved = frames[1].voxel_to_world.copy()
    moved[0, 3] += 5
    for other in (LabelMap(frames[1].array, moved), LabelMap(frames[1].array[:-1], moved)):
        with pytest.raises(InvalidInputError) as caught:
            gather_cine([frames[0], other], "all")
        assert caught.value.code == "FRAMES_DIFFER"


def test_an_error_names_its_frame():
    frames = toys((1.0, 0.9))
    strange = np.array(frames[1].array)
    strange[0, 0, 0] = 9
    with pytest.raises(InvalidInputError, match="frame 1: "):
        gather_cine([frames[0], LabelMap(strange, frames[1].voxel_to_world)], "all")


def test_the_image_at_end_diastole_is_taken():
    frames, heart = toys(), make_toy_heart()
    images = [Volume(heart.image.array + n, heart.image.voxel_to_world) for n in range(5)]
    many = gather_cine(frames, "all", image=images).image
    np.testing.assert_array_equal(many.array, images[1].array)
    stack = np.stack([each.array for each in images], axis=-1)
    file_like = gather_cine(frames, "all", image=(stack, images[0].voxel_to_world)).image
    np.testing.assert_array_equal(file_like.array, images[1].array)
    one = gather_cine(frames, "all", image=images[2]).image
    np.testing.assert_array_equal(one.array, images[2].array)
    with pytest.raises(InvalidInputError) as caught:
        gather_cine(frames, "all", image=images[:3])
    assert caught.value.code == "FRAMES_DIFFER"


@pytest.mark.parametrize("preset", ["mmwhs", {500: 1, 205: 2, 600: 4}])
def test_values_above_a_byte_mean_what_the_preset_says(preset):
    frames = toys((1.0, 0.9))
    table = np.array([0, 500, 205, 0, 600], dtype=np.int16)
    stack = np.stack([table[each.array] for each in frames], axis=-1)
    found = gather_cine((stack, frames[0].voxel_to_world), "all", preset=preset)
    for ours, frame in zip(found.labels, frames, strict=True):
        np.testing.assert_array_equal(ours.array, np.where(frame.array == 3, 0, frame.array))


def test_values_above_a_byte_are_not_taken_for_canonical_ones():
    frames = toys((1.0, 0.9))
    stack = np.stack([each.array.astype(np.int16) * 100 for each in frames], axis=-1)
    with pytest.raises(InvalidInputError, match="100, 200, 300, 400") as caught:
        gather_cine((stack, frames[0].voxel_to_world), "all")
    assert caught.value.code == "UNEXPECTED_LABEL"


def test_frames_with_slices_along_another_axis_are_refused():
    frames = [
        LabelMap(each.array.transpose(2, 0, 1), each.voxel_to_world[:, [2, 0, 1, 3]])
        for each in toys((1.0, 0.9))
    ]
    with pytest.raises(InvalidInputError, match="frame 0: .*one frame at a time") as caught:
        gather_cine(frames, "all")
    assert caught.value.code == "NOT_SHORT_AXIS"
