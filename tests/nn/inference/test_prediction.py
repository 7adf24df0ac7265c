"""From an image to a subject, with a network that knows the answer; and every bad input."""

import dataclasses
import warnings

import nibabel
import numpy as np
import pytest
import torch

from cardiacreg import InputWarning, InvalidInputError, RefinementError, Volume, dice
from cardiacreg.anatomy.landmarks import landmarks_from_labels
from cardiacreg_nn import predict
from cardiacreg_nn.inference.orientation_search import View
from cardiacreg_nn.inference.prediction import checked_volume
from cardiacreg_nn.inference.weights import Model
from cardiacreg_nn.networks.sslln import Prediction
from tests.nn.tiny_training import BOX, Oracle, coded_heart, oracle_model, other_classes

TURNS = ["as it is", "turned over", "mirrored", "quarter turn"]


def stored(how):
    """The coded heart stored another way: the same world positions."""
    image, labels = coded_heart()
    array, matrix = image.array.copy(), image.voxel_to_world.copy()
    flips = {"turned over": (1, 2), "mirrored": (2,)}.get(how, ())
    for axis in flips:
        array = np.flip(array, axis)
        matrix[:3, 3] += matrix[:3, axis] * (array.shape[axis] - 1)
        matrix[:3, axis] *= -1
    if how == "quarter turn":
        array = np.flip(array.swapaxes(0, 1), 0)
        matrix[:3, [0, 1]] = matrix[:3, [1, 0]]
        matrix[:3, 3] += matrix[:3, 0] * (array.shape[0] - 1)
        matrix[:3, 0] *= -1
    return Volume(array, matrix), labels


@pytest.mark.parametrize("how", TURNS)
def test_labels_and_landmarks_are_found_however_the_stack_is_stored(how):
    image, labels = stored(how)
    found = predict(
        image, weights=oracle_model(), turn="any" if how == "quarter turn" else "over", views=1
    )
    assert found.labels.shape == image.shape
    for label in range(1, 5):
        assert (found.labels.array == label).sum() == (labels.array == label).sum()
        assert ((found.labels.array == label) == (image.array == label)).all()
    truth = landmarks_from_labels(labels).points_mm
    assert np.linalg.norm(found.landmarks.points_mm - truth, axis=1).max() < 5.5
    assert found.landmarks.source == "network"
    assert found.metadata["network"]["licence"] == "Apache-2.0"
    assert all(each["presence"] > 0.9 for each in found.metadata["landmarks"])


def test_a_heart_off_the_centre_is_found():
    image, labels = coded_heart()
    array = np.zeros((90, 60, 8), dtype=np.float32)
    array[50:90, 20:60] = image.array
    found = predict(
        Volume(array, image.voxel_to_world), weights=oracle_model(), turn="none", views=1
    )
    assert (found.labels.array == array).all()


def test_a_heart_beyond_the_first_box_is_found():
    """The box at the image's middle, 120 mm wide, shows a corner of it at most."""
    image, labels = coded_heart()
    step = image.spacing_mm[0]
    far = int(110 / step)
    shape = (image.shape[0] + 2 * far, image.shape[1] + 2 * far, image.shape[2])
    array = np.zeros(shape, dtype=np.float32)
    array[-image.shape[0] :, : image.shape[1]] = image.array
    found = predict(
        Volume(array, image.voxel_to_world), weights=oracle_model(), turn="none", views=1
    )
    assert (found.labels.array == array).all()


@pytest.mark.parametrize("views", [2, 3])
def test_turned_views_agree(views):
    """Labels coded as intensities blur at borders when the box is turned; the hearts stay the same."""
    image, labels = coded_heart()
    found = predict(image, weights=oracle_model(), views=views)
    assert all(dice(found.labels, labels, label) > 0.8 for label in (1, 2, 4))
    truth = landmarks_from_labels(labels).points_mm
    assert np.linalg.norm(found.landmarks.points_mm - truth, axis=1).max() < 8
    with pytest.raises(InvalidInputError, match="views is 0"):
        predict(image, weights=oracle_model(), views=0)


def finer(volume, factor):
    """Every slice in so many thinner ones, which differ at their edges."""
    array = np.repeat(volume.array, factor, axis=2)
    for k in range(array.shape[2]):
        array[:, :, k] = np.roll(array[:, :, k], k % factor, axis=1)
    matrix = volume.voxel_to_world.copy()
    matrix[:3, 2] /= factor
    return Volume(array, matrix)


@pytest.mark.parametrize("factor", [2, 3])
def test_every_slice_of_a_fine_stack_is_looked_at(factor):
    image = finer(coded_heart()[0], factor)
    found = predict(image, weights=oracle_model(), views=1)
    np.testing.assert_array_equal(found.labels.array, image.array)
    truth = landmarks_from_labels(found.labels).points_mm
    assert np.linalg.norm(found.landmarks.points_mm - truth, axis=1).max() < 8


def test_every_slice_of_a_stack_longer_than_the_box_is_looked_at():
    """Thirteen slices at the network's own distance; its box holds eight."""
    image, _ = coded_heart()
    held = image.array.any(axis=(0, 1))
    rows = np.repeat(np.flatnonzero(held), 3)[:13]
    long = Volume(image.array[:, :, rows], image.voxel_to_world)
    found = predict(long, weights=slice_oracle(), turn="none", views=1)
    np.testing.assert_array_equal(found.labels.array, long.array)


class _Always(Oracle):
    """Knows the labels of any slices, in whichever way they lie."""

    def forward(self, stack):
        labels = (stack * 4).round().long().clamp(0, 4)
        logits = 12.0 * torch.nn.functional.one_hot(labels, 5).movedim(-1, 1).float()
        return Prediction(logits, None)


def slice_oracle():
    model = oracle_model()
    return dataclasses.replace(
        model, network=_Always().eval(), card={**model.card, "kind": "unet2d"}
    )


def test_missing_landmarks_are_completed_from_the_labels():
    image, labels = coded_heart()
    with pytest.warns(InputWarning, match="did not find RV lateral-wall turning point, apex"):
        found = predict(image, weights=oracle_model(missing=(1, 4)), views=1)
    truth = landmarks_from_labels(labels).points_mm
    assert np.allclose(found.landmarks.points_mm[[1, 4]], truth[[1, 4]])
    origins = [each["origin"] for each in found.metadata["landmarks"]]
    assert origins == ["network", "labels", "network", "network", "labels", "network"]


def test_landmarks_of_a_network_of_single_slices_are_derived_from_its_labels():
    image, labels = coded_heart()
    model = oracle_model()
    model = dataclasses.replace(model, card={**model.card, "kind": "fcn2d"})
    found = predict(image, weights=model)
    assert np.allclose(found.landmarks.points_mm, landmarks_from_labels(found.labels).points_mm)
    assert {each["origin"] for each in found.metadata["landmarks"]} == {"labels"}
    assert found.landmarks.source == "labels"


def test_a_look_whose_ventricles_shrink_towards_its_base_is_believed_half():
    upright = np.zeros((5, 6, 16, 16), dtype=np.float32)
    for k in range(6):
        upright[1, k, : 4 + 2 * k, 4:12] = 0.9
    upright[0] = 1 - upright[1]
    looks = [View(None, each, []) for each in (upright, upright[:, ::-1])]
    assert looks[0].confidence == pytest.approx(2 * looks[1].confidence) and looks[1].confidence > 0


def test_a_look_that_leaves_out_part_of_the_heart_is_believed_less():
    """Seen the wrong way round, a network can be as sure of the little that it finds."""
    whole = np.zeros((5, 6, 16, 16), dtype=np.float32)
    for k in range(6):
        whole[1, k, : 4 + 2 * k, 4:12] = 0.9
    part = whole.copy()
    part[1, :, :, 10:] = 0
    part *= 0.92 / 0.9
    for each in (whole, part):
        each[0] = 1 - each[1]
    assert View(None, whole, []).confidence > View(None, part, []).confidence


class HandedOracle(Oracle):
    """Sure of itself only where the RV lies on the LV's side of low j."""

    def forward(self, stack):
        found = super().forward(stack)
        for n, own in enumerate((stack * 4).round()):
            right, left = (torch.isin(own, torch.tensor(v)).nonzero() for v in ([4.0], [1.0, 2.0]))
            if not len(right) or right[:, 2].float().mean() > left[:, 2].float().mean():
                found.structures[n] *= 0.05
        return Prediction(found.structures, None)


@pytest.mark.parametrize("handedness", [1.0, -1.0])
def test_a_network_without_landmarks_also_sees_the_stack_mirrored(handedness):
    image, labels = coded_heart()
    array = image.array.copy()
    array[:, array.shape[1] // 2 :][array[:, array.shape[1] // 2 :] == 4] = 0
    card = {"name": "handed", "licence": "Apache-2.0", "sha256": "0" * 64, "kind": "unet2d"}
    model = Model(HandedOracle().eval(), BOX, card)
    matrix = image.voxel_to_world @ np.diag([1.0, 1.0, handedness, 1.0])
    found = predict(Volume(array, matrix), weights=model, views=1)
    assert (found.labels.array == array).all()


def test_every_kind_of_source_gives_the_same(tmp_path):
    image, _ = coded_heart()
    path = tmp_path / "sax.nii.gz"
    picture = nibabel.Nifti1Image(image.array, image.voxel_to_world)
    nibabel.save(picture, path)
    series = np.stack([np.zeros_like(image.array), image.array], axis=-1)
    results = [
        predict(source, weights=oracle_model(), **more).labels.array
        for source, more in (
            (image, {}),
            (path, {}),
            (str(path), {}),
            (picture, {}),
            ((image.array, image.voxel_to_world), {}),
            ((series, image.voxel_to_world), {"frame": 1}),
        )
    ]
    assert all((each == results[0]).all() for each in results)


def test_the_subject_goes_into_refine():
    from cardiacreg import refine
    from cardiacreg.phantoms.toy_heart import make_toy_heart

    image, labels = coded_heart()
    found = predict(image, weights=oracle_model())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        result = refine(
            found.labels, image=found.image, landmarks=found.landmarks,
            atlases=[make_toy_heart(size=0.95)], spacing_mm=(2.5, 2.5, 4.0), threads=1,
        )  # fmt: skip
    assert result.agreement["LV cavity"] > 0.85
    assert dice(found.labels, labels) > 0.9


BAD = {
    "constant": (np.full((40, 40, 8), 3.0), "CONSTANT_IMAGE"),
    "NaN": (np.full((40, 40, 8), np.nan), "NOT_FINITE"),
    "two slices": (np.random.default_rng(0).random((40, 40, 2)), "TOO_FEW_SLICES"),
    "4-D": (np.random.default_rng(0).random((40, 40, 8, 3)), "FRAME_NEEDED"),
    "2-D": (np.random.default_rng(0).random((40, 40)), "BAD_SHAPE"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_image_is_refused_before_work_starts(what):
    array, code = BAD[what]
    with pytest.raises(InvalidInputError) as caught:
        predict((array, np.diag([2.5, 2.5, 8.0, 1.0])), weights=oracle_model())
    assert caught.value.code == code


def test_the_wrong_axis_order_is_named():
    image, _ = coded_heart()
    array = np.moveaxis(image.array, 2, 0)
    with pytest.raises(InvalidInputError, match="axis 0; move that axis to the end"):
        predict((array, np.diag([8.0, 2.5, 2.5, 1.0])), weights=oracle_model())


def test_no_heart_is_said():
    model = oracle_model()
    model.network.forward = lambda stack: type(model.network).forward(model.network, 0 * stack)
    with pytest.raises(InvalidInputError, match="finds 0.0 ml of heart") as caught:
        predict(coded_heart()[0], weights=model)
    assert caught.value.code == "NO_HEART"


def test_other_classes_are_refused():
    with pytest.raises(InvalidInputError, match="predict 4 structures") as caught:
        predict(coded_heart()[0], weights=other_classes())
    assert caught.value.code == "WEIGHTS_MISMATCH"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("no"),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("not enough memory"),
    ],
)
def test_running_out_of_memory_is_said(error):
    def fail(stack):
        raise error

    model = oracle_model()
    model.network.forward = fail
    with pytest.raises(RefinementError, match="memory does not suffice") as caught:
        predict(coded_heart()[0], weights=model)
    assert caught.value.code == "OUT_OF_MEMORY"


def test_other_errors_of_the_network_are_not_disguised():
    def fail(stack):
        raise RuntimeError("a mistake")

    model = oracle_model()
    model.network.forward = fail
    with pytest.raises(RuntimeError, match="a mistake"):
        predict(coded_heart()[0], weights=model)


def test_unknown_options_are_refused():
    with pytest.raises(InvalidInputError, match="turn"):
        predict(coded_heart()[0], weights=oracle_model(), turn="sideways")
    assert checked_volume(coded_heart()[0]).shape == (40, 40, 8)
