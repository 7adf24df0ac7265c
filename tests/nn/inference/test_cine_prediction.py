"""All frames of a stack: one orientation, neighbours in time, frames without a heart."""

import numpy as np
import pytest

from cardiacreg.errors import InputWarning, InvalidInputError
from cardiacreg.io.nifti import write_volume_frames
from cardiacreg_nn import predict, predict_cine
from cardiacreg_nn.inference import cine_prediction
from tests.nn.tiny_training import coded_heart, oracle_model


def cine(n_frames=5):
    """Frames of one heart as codes, on a shading that no frame shares with another."""
    image, labels = coded_heart()
    array = np.repeat(image.array[..., None], n_frames, axis=3)
    return array, image.voxel_to_world, labels


def test_every_frame_is_segmented_like_one_by_itself():
    array, matrix, labels = cine()
    found = predict_cine((array, matrix), weights=oracle_model())
    alone = predict((array[..., 0], matrix), weights=oracle_model())
    assert [each.metadata["frame"] for each in found] == [0, 1, 2, 3, 4]
    for each in found:
        assert (each.labels.array == labels.array).mean() > 0.95
        assert each.landmarks is not None
        shares = each.metadata["probabilities"]
        assert shares.shape == (5, *labels.shape)
        np.testing.assert_allclose(shares.astype(np.float32).sum(axis=0), 1, atol=5e-3)
    away = np.abs(found[2].landmarks.points_mm - alone.landmarks.points_mm).max()
    assert away < 6.0


def test_a_file_says_the_same_as_an_array(tmp_path):
    array, matrix, _ = cine(3)
    write_volume_frames(tmp_path / "cine.nii.gz", array, matrix)
    first = predict_cine((array, matrix), weights=oracle_model())
    second = predict_cine(tmp_path / "cine.nii.gz", weights=oracle_model())
    for one, two in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.labels.array, two.labels.array)
        assert two.name == "cine.nii.gz"


@pytest.mark.filterwarnings("ignore::cardiacreg.errors.InputWarning")
def test_frames_without_a_heart_are_told_and_stay_empty():
    array, matrix, labels = cine(9)
    array[..., 6:9] = 0
    with pytest.warns(InputWarning, match=r"no heart was found in frame 7 of 9"):
        found = predict_cine((array, matrix), weights=oracle_model())
    assert not found[7].labels.array.any() and found[7].landmarks is None
    assert (found[2].labels.array == labels.array).mean() > 0.95


@pytest.mark.filterwarnings("ignore::cardiacreg.errors.InputWarning")
def test_one_frame_that_is_seen_badly_is_helped_by_its_neighbours(monkeypatch):
    array, matrix, labels = cine(6)
    broken = array.copy()
    k = int(np.flatnonzero((labels.array > 0).any(axis=(0, 1)))[-1])
    broken[:, :, k, 4] = 0
    assert not (broken[:, :, k, 4] > 0).any()
    found = predict_cine((broken, matrix), weights=oracle_model())
    shares = found[4].metadata["probabilities"][1:, :, :, k].sum(axis=0)
    assert shares.max() > 0.4  # half of what is said of a frame comes from its neighbours
    monkeypatch.setattr(cine_prediction, "NEIGHBOURS", (0.0, 1.0, 0.0))
    alone = predict_cine((broken, matrix), weights=oracle_model())
    assert alone[4].metadata["probabilities"][1:, :, :, k].sum(axis=0).max() < 0.1


@pytest.mark.filterwarnings("ignore::cardiacreg.errors.InputWarning")
def test_the_orientation_is_that_of_most_deciding_frames():
    array, matrix, labels = cine(6)
    upside_down = array[:, ::-1, ::-1]
    mixed = array.copy()
    mixed[..., 0] = upside_down[..., 0]  # one of three that decide
    found = predict_cine((mixed, matrix), weights=oracle_model())
    assert (found[3].labels.array == labels.array).mean() > 0.95


def test_an_image_of_one_frame_is_sent_to_predict():
    array, matrix, _ = cine(2)
    with pytest.raises(InvalidInputError, match="itself is for predict") as told:
        predict_cine((array[..., 0], matrix), weights=oracle_model())
    assert told.value.code == "NOT_4D"


def test_a_cine_without_a_heart_is_refused():
    array, matrix, _ = cine(3)
    with pytest.raises(InvalidInputError) as told:
        predict_cine((0 * array, matrix), weights=oracle_model())
    assert told.value.code == "NO_HEART"
