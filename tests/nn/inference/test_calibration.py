"""Calibration by temperature and bias, and how its error is counted."""

import numpy as np
import pytest

from cardiacreg.errors import InvalidInputError
from cardiacreg_nn.inference.calibration import calibrated, calibration_error
from cardiacreg_nn.inference.shipped_weights import weight_files
from cardiacreg_nn.inference.weights import read_card


def some_probabilities(seed=0, n=2000):
    logits = np.random.default_rng(seed).normal(size=(5, n, 1, 1)) * 2
    shares = np.exp(logits)
    return (shares / shares.sum(axis=0)).astype(np.float32)


def test_a_card_without_calibration_changes_nothing():
    given = some_probabilities()
    assert calibrated(given, {}) is given


def test_overconfidence_that_is_known_is_undone():
    honest = some_probabilities()
    sharp = honest.astype(np.float64) ** 2
    sharp = (sharp / sharp.sum(axis=0)).astype(np.float32)
    rng = np.random.default_rng(1)
    drawn = (rng.random(honest.shape[1:]) < np.cumsum(honest, axis=0)).argmax(axis=0)
    card = {"calibration": {"temperature": 2.0, "bias": [0.0] * 5}}
    errors = []
    for shares in (sharp, calibrated(sharp, card)):
        errors.append(
            calibration_error(shares.max(axis=0).ravel(), (shares.argmax(axis=0) == drawn).ravel())
        )
    assert errors[1] < 0.05 < errors[0]


def test_a_bias_favours_its_class():
    card = {"calibration": {"temperature": 1.0, "bias": [0.0, 0.0, -1.0, 0.0, 1.0]}}
    before = some_probabilities()
    after = calibrated(before, card)
    np.testing.assert_allclose(after.sum(axis=0), 1, atol=1e-5)
    assert (after[4] >= before[4] - 1e-6).all() and (after[2] <= before[2] + 1e-6).all()


@pytest.mark.parametrize(
    "said", [{}, {"temperature": 0, "bias": [0] * 5}, {"temperature": 1, "bias": [0]}, 3]
)
def test_a_calibration_that_is_none_is_refused(said):
    with pytest.raises(InvalidInputError, match="temperature above 0"):
        calibrated(some_probabilities(), {"calibration": said})


def test_the_network_of_patients_says_on_whom_it_was_calibrated():
    if "unet2d_acdc" not in weight_files():
        pytest.skip("the weights unet2d_acdc are not installed")
    said = read_card(weight_files()["unet2d_acdc"].with_suffix(".json"))["calibration"]
    assert said["patients"] and len(said["bias"]) == 5


def test_the_free_network_knows_no_patients():
    card = read_card(weight_files()["unet2d_synthetic"].with_suffix(".json"))
    assert "calibration" not in card
