"""The weights that come with the package: whole, small, with their licence, and of use."""

import json
import warnings

import numpy as np
import pytest

from cardiacreg.errors import InputWarning
from cardiacreg.metrics import overlap
from cardiacreg.phantoms.acquisition import simulate_low_resolution
from cardiacreg.phantoms.hearts import sample_heart
from cardiacreg_nn import load_weights, predict
from cardiacreg_nn.inference.prediction import SHIPPED, default_weights
from cardiacreg_nn.inference.weights import read_card

FILES = sorted(SHIPPED.glob("*/*.safetensors"))
MOST_BYTES = 16_000_000


def test_there_are_weights_of_synthetic_hearts_alone_under_the_projects_licence():
    cards = [read_card(path.with_suffix(".json")) for path in FILES]
    assert any(c["data"]["acdc"] == 0 and c["licence"] == "Apache-2.0" for c in cards)


def test_one_file_is_the_default():
    marked = [p for p in FILES if read_card(p.with_suffix(".json")).get("default")]
    assert marked == [default_weights()]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
class TestEveryFile:
    def test_is_whole_small_and_described(self, path):
        card = load_weights(path).card
        assert path.stat().st_size <= MOST_BYTES
        assert card["command"].startswith("python -m cardiacreg_nn.training.train")
        assert card["name"] == path.stem and card["metrics"] and card["steps"] > 0

    def test_says_what_its_data_ask_for(self, path):
        card = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        if card["data"]["acdc"]:
            assert card["licence"] == "CC BY-NC-SA 4.0" and "2018.2837502" in card["citation"]
            assert "NonCommercial" in (path.parent / "LICENSE").read_text(encoding="utf-8")
        else:
            assert card["licence"] == "Apache-2.0" and "citation" not in card

    def test_finds_a_synthetic_heart_that_it_never_saw(self, path):
        scan = simulate_low_resolution(sample_heart(10_001, group="healthy"), seed=1).subject
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InputWarning)
            subject = predict(scan.image, weights=path)
        assert subject.metadata["network"]["licence"] == load_weights(path).card["licence"]
        assert overlap.dice(subject.labels, scan.labels, 1) > 0.75
        assert overlap.dice(subject.labels, scan.labels, 4) > 0.6
        assert np.isfinite(subject.landmarks.points_mm).all()
