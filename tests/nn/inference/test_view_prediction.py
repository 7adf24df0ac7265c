"""Long-axis views by the shipped weights: synthetic views, however they are stored, and bad input."""

import functools
import warnings

import nibabel
import numpy as np
import pytest
import torch

from cardiacreg import InputWarning, InvalidInputError, LabelMap, View, Volume
from cardiacreg.geometry import LV_CAVITY, LV_WALL, RV_WALL, apply_matrix, nearest_labels
from cardiacreg.metrics.overlap import dice
from cardiacreg_nn import (
    agreement_with_stack,
    as_view,
    predict,
    predict_view,
    predict_view_cine,
)
from cardiacreg_nn.data.augmentation import AugmentationOptions
from cardiacreg_nn.data.view_hearts import view_heart
from cardiacreg_nn.data.view_planes import ViewOptions, cut_views
from cardiacreg_nn.inference.view_prediction import _keep_heart
from tests.helpers.small_hearts import data_folder, small_heart
from tests.nn.tiny_training import oracle_model

MATRIX = np.diag([1.6, 1.6, 8.0, 1.0])


@functools.cache
def drawn(side=150, seed=0):
    """A view of a heart that no network saw, three times as planned, and its labels."""
    generator = torch.Generator().manual_seed(seed)
    image, target = cut_views(
        [view_heart(42_000)], (1, side, side), (8.0, 1.6, 1.6), ViewOptions.none(),
        AugmentationOptions.none(), generator,
    )  # fmt: skip
    return image[0, 0].numpy()[..., None], target.structures[0, 0].numpy()[..., None].astype(
        np.uint8
    )


@functools.cache
def found():
    return predict_view((drawn()[0], MATRIX))


def scores(labels, truth):
    return [
        dice(LabelMap(labels, MATRIX), LabelMap(truth, MATRIX), n) for n in (LV_CAVITY, LV_WALL)
    ]


def stored(array, matrix, how):
    """The same picture in the same world, stored another way."""
    array, matrix = array.copy(), matrix.copy()
    for axis in {"mirrored": (1,), "turned over": (0, 1)}.get(how, ()):
        array = np.flip(array, axis)
        matrix[:3, 3] += matrix[:3, axis] * (array.shape[axis] - 1)
        matrix[:3, axis] *= -1
    if how == "quarter turn":
        array = np.flip(array.swapaxes(0, 1), 0)
        matrix[:3, [0, 1]] = matrix[:3, [1, 0]]
        matrix[:3, 3] += matrix[:3, 0] * (array.shape[0] - 1)
        matrix[:3, 0] *= -1
    return np.ascontiguousarray(array), matrix


class TestOneView:
    def test_agrees_with_the_truth(self):
        cavity, wall = scores(found().labels.array, drawn()[1])
        assert cavity > 0.85 and wall > 0.65

    def test_is_a_subject_of_one_plane_that_names_its_weights(self):
        shares = found().metadata["probabilities"]
        assert found().labels.shape == (150, 150, 1) and shares.shape == (5, 150, 150, 1)
        assert RV_WALL not in found().labels.present() and not shares[RV_WALL].any()
        np.testing.assert_allclose(shares.sum(axis=0), 1, atol=1e-5)
        assert found().metadata["network"]["licence"] == "Apache-2.0"
        assert found().landmarks is None
        assert View(found().labels, image=found().image).name == ""

    def test_is_the_same_again_bit_by_bit(self):
        again = predict_view((drawn()[0], MATRIX))
        assert np.array_equal(again.metadata["probabilities"], found().metadata["probabilities"])

    @pytest.mark.parametrize("how", ["mirrored", "turned over", "quarter turn"])
    def test_is_the_same_however_it_is_stored(self, how):
        own = predict_view(stored(drawn()[0], MATRIX, how)).labels.array
        expected, _ = stored(found().labels.array, MATRIX, how)
        assert (own == expected).mean() > 0.995

    def test_is_found_far_from_the_middle_of_a_large_image(self):
        image, truth = (np.pad(each, ((100, 0), (0, 60), (0, 0))) for each in drawn())
        assert scores(predict_view((image, MATRIX)).labels.array, truth)[0] > 0.85

    def test_takes_any_pixel(self):
        fine = np.repeat(np.repeat(drawn()[0], 2, axis=0), 2, axis=1)
        matrix = np.diag([0.8, 0.8, 6.0, 1.0])
        matrix[:2, 3] = -0.4
        own = predict_view((fine, matrix)).labels.array[::2, ::2]
        assert scores(own, found().labels.array)[0] > 0.95

    def test_reads_files_and_one_frame_of_several(self, tmp_path):
        path = tmp_path / "4ch.nii.gz"
        frames = np.stack([0 * drawn()[0], drawn()[0]], axis=-1)
        nibabel.save(nibabel.Nifti1Image(frames, MATRIX), path)
        own = predict_view(path, frame=1)
        assert own.name == "4ch.nii.gz" and np.array_equal(own.labels.array, found().labels.array)


class TestCine:
    def test_gives_every_frame_and_tells_those_without_a_heart(self):
        frames = np.stack([drawn()[0]] * 3 + [0 * drawn()[0]] * 2, axis=-1)
        with pytest.warns(InputWarning, match=r"no left ventricle was found in frame"):
            own = predict_view_cine((frames, MATRIX))
        assert [each.metadata["frame"] for each in own] == [0, 1, 2, 3, 4]
        assert scores(own[1].labels.array, found().labels.array)[0] > 0.99
        assert [bool(each.labels.array.any()) for each in own][3:] == [False, False]

    def test_has_several_frames_with_a_heart(self):
        with pytest.raises(InvalidInputError, match="predict_view_cine") as told:
            predict_view_cine((drawn()[0], MATRIX))
        assert told.value.code == "NOT_4D"
        with pytest.raises(InvalidInputError, match="in any of 2 frames") as told:
            predict_view_cine((np.zeros((60, 60, 1, 2), np.float32), MATRIX))
        assert told.value.code == "NO_HEART"


BAD = {
    "several planes": (np.zeros((60, 60, 3), np.float32), "SEVERAL_PLANES"),
    "constant": (np.ones((60, 60, 1), np.float32), "CONSTANT_IMAGE"),
    "noise": (np.random.default_rng(0).random((120, 120, 1), dtype=np.float32), "NO_HEART"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_images_are_told(name):
    image, code = BAD[name]
    with pytest.raises(InvalidInputError) as told:
        predict_view((image, MATRIX))
    assert told.value.code == code


def test_weights_of_stacks_and_of_views_are_not_exchanged():
    stack = Volume(np.random.default_rng(0).random((60, 60, 8), dtype=np.float32), MATRIX)
    with pytest.raises(InvalidInputError, match="predict_view") as told:
        predict(stack, weights="unet2d_views")
    assert told.value.code == "WEIGHTS_MISMATCH"
    with pytest.raises(InvalidInputError, match="single long-axis views") as told:
        predict_view((drawn()[0], MATRIX), weights=oracle_model())
    assert told.value.code == "WEIGHTS_MISMATCH"


class TestAgreement:
    def test_is_that_of_the_left_ventricle_where_both_lie(self):
        stack = small_heart()
        assert agreement_with_stack(stack, stack) == 1.0
        aside = stack.voxel_to_world.copy()
        aside[0, 3] += 40.0
        assert agreement_with_stack(LabelMap(stack.array, aside), stack) < 0.3

    def test_is_unknown_where_they_do_not_meet(self):
        stack = small_heart()
        away = stack.voxel_to_world.copy()
        away[2, 3] += 1000.0
        assert agreement_with_stack(LabelMap(stack.array, away), stack) is None
        empty = LabelMap(np.zeros_like(stack.array), stack.voxel_to_world)
        assert agreement_with_stack(stack, empty) is None


def test_finds_the_ventricle_of_a_patient():
    """The four-chamber view of the contoured patient, two phases."""
    folder = data_folder("bivme")
    pytest.importorskip("pydicom")
    from cardiacreg.doors import read_dicom_cine, read_guide_points

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        cines = {each.name: each for each in read_dicom_cine(folder / "dicom")}
    cine = cines["cine_trufi_retro_4ch"]
    for phase in (0, 9):
        truth = read_guide_points(folder / "guidepoints" / f"GPFile_{phase:03d}.txt")
        drawn_by_people = truth.long_axis_labels(thickness_mm=6.0)[7]
        own = predict_view((cine.array[..., phase], cine.voxel_to_world)).labels
        back = np.linalg.inv(drawn_by_people.voxel_to_world) @ own.voxel_to_world
        axes = np.meshgrid(*(np.arange(n, dtype=float) for n in own.shape), indexing="ij")
        at = apply_matrix(back, np.stack(axes, axis=-1))
        at[..., 2] = 0.0
        true = nearest_labels(drawn_by_people, at)
        assert dice(own, LabelMap(true, own.voxel_to_world), LV_CAVITY) > 0.85


def test_a_wall_that_the_apex_parts_is_kept_and_what_lies_apart_is_not():
    array = np.zeros((40, 40, 1), np.uint8)
    array[10:16, 8:30], array[16:24, 8:30], array[24:30, 8:20] = LV_WALL, LV_CAVITY, LV_WALL
    array[14:20, 33:36], array[2:4, 2:4] = LV_WALL, LV_CAVITY
    kept = array.copy()
    _keep_heart(kept)
    expected = array.copy()
    expected[14:20, 33:36] = expected[2:4, 2:4] = 0
    assert np.array_equal(kept, expected)


@pytest.mark.parametrize(
    ("seen", "code"), [([], "EMPTY_VIEW"), (5, "BAD_TYPE"), (["x"], "BAD_TYPE")]
)
def test_what_is_no_segmented_view_is_refused(seen, code):
    with pytest.raises(InvalidInputError, match="as_view: seen") as told:
        as_view(seen)
    assert told.value.code == code
