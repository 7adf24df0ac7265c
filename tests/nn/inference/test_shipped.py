"""The weights that come with the package: whole, small, with their licence, and of use."""

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest

from cardiacreg.errors import InputWarning, InvalidInputError
from cardiacreg.metrics import overlap
from cardiacreg.phantoms.acquisition import simulate_low_resolution
from cardiacreg.phantoms.hearts import sample_heart
from cardiacreg_nn import load_weights, predict
from cardiacreg_nn.inference import shipped_weights
from cardiacreg_nn.inference.shipped_weights import (
    DEFAULTS,
    PINNED,
    VIEW_DEFAULT,
    default_weights,
    pinned_sha256,
    weight_files,
    weight_folders,
    weight_path,
)
from cardiacreg_nn.inference.weights import read_card

FILES = list(weight_files().values())
OF_STACKS = [path for path in FILES if path.stem != VIEW_DEFAULT]
MOST_BYTES = 16_000_000


def test_there_are_weights_of_synthetic_hearts_alone_under_the_projects_licence():
    cards = [read_card(path.with_suffix(".json")) for path in FILES]
    assert any(c["data"]["acdc"] == 0 and c["licence"] == "Apache-2.0" for c in cards)


def only(*sets):
    """Of the weights that are there, some sets."""
    return lambda: {name: folder for name, folder in FOLDERS.items() if name in sets}


FOLDERS = weight_folders()


class TestDefault:
    def test_is_the_best_one_that_is_there(self):
        if "acdc" not in FOLDERS:
            pytest.skip("the weights of ACDC are not installed")
        assert default_weights().stem == DEFAULTS[0]

    def test_is_a_free_one_where_the_others_are_not_installed(self, monkeypatch):
        monkeypatch.setattr(shipped_weights, "weight_folders", only("synthetic"))
        with pytest.warns(InputWarning, match="pip install cardiacreg-weights-acdc"):
            path = default_weights()
        assert path.stem == "unet2d_synthetic"
        assert read_card(path.with_suffix(".json"))["licence"] == "Apache-2.0"

    def test_is_told_where_there_is_none(self, monkeypatch):
        monkeypatch.setattr(shipped_weights, "weight_folders", only())
        with pytest.raises(InvalidInputError, match="pip install cardiacreg-weights-acdc") as told:
            default_weights()
        assert told.value.code == "NO_WEIGHTS"


class TestNames:
    def test_are_those_of_files(self, tmp_path):
        for name, path in weight_files().items():
            assert weight_path(name) == path and weight_path(path) == path
        assert weight_path("other") == Path("other")
        assert weight_path(tmp_path / "unet2d_acdc") == tmp_path / "unet2d_acdc"

    def test_of_weights_that_are_not_installed_name_a_command(self, monkeypatch):
        monkeypatch.setattr(shipped_weights, "weight_folders", only())
        for name, command in (("fcn2d_acdc", "weights-acdc"), (DEFAULTS[1], r"cardiacreg\[nn\]")):
            with pytest.raises(InvalidInputError, match=command):
                weight_path(name)


class TestPins:
    def test_are_those_of_every_file_that_is_there(self):
        for name, folder in FOLDERS.items():
            if name in PINNED:
                cards = {path.stem: read_card(path)["sha256"] for path in folder.glob("*.json")}
                assert cards == PINNED[name]
        assert set(FOLDERS) >= {"synthetic"}

    def test_hold_where_the_card_agrees_with_another_file(self, tmp_path, monkeypatch):
        """Weights that were exchanged together with their card are refused."""
        source = weight_files()["unet2d_synthetic"]
        path = shutil.copy(source, tmp_path / "sslln_lr_synthetic.safetensors")
        shutil.copy(source.with_suffix(".json"), path.with_suffix(".json"))
        assert load_weights(path).name == "unet2d_synthetic"
        monkeypatch.setattr(shipped_weights, "weight_folders", lambda: {"synthetic": tmp_path})
        with pytest.raises(InvalidInputError, match="of its own release") as told:
            load_weights(path)
        assert told.value.code == "UNKNOWN_WEIGHTS"

    def test_do_not_concern_files_of_others(self, tmp_path):
        assert pinned_sha256(tmp_path / "unet2d_acdc.safetensors") is None


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
class TestEveryFile:
    def test_is_whole_small_and_described(self, path):
        card = load_weights(path).card
        assert path.stat().st_size <= MOST_BYTES
        assert card["command"].startswith("python -m cardiacreg_nn.")
        assert card["name"] == path.stem and card["metrics"] and card["steps"] > 0

    def test_says_what_its_data_ask_for(self, path):
        card = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        if card["data"]["acdc"]:
            assert card["licence"] == "CC BY-NC-SA 4.0" and "2018.2837502" in card["citation"]
            assert "NonCommercial" in (path.parent / "LICENSE").read_text(encoding="utf-8")
        else:
            assert card["licence"] == "Apache-2.0" and "citation" not in card


@pytest.mark.parametrize("path", OF_STACKS, ids=lambda path: path.stem)
class TestEveryFileOfStacks:
    def test_finds_a_synthetic_heart_that_it_never_saw(self, path):
        scan = simulate_low_resolution(sample_heart(10_001, group="healthy"), seed=1).subject
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InputWarning)
            subject = predict(scan.image, weights=path)
        assert subject.metadata["network"]["licence"] == load_weights(path).card["licence"]
        assert overlap.dice(subject.labels, scan.labels, 1) > 0.75
        assert overlap.dice(subject.labels, scan.labels, 4) > 0.6
        assert np.isfinite(subject.landmarks.points_mm).all()
