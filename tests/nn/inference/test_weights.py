"""Weight files: what is saved is what is loaded, and nothing else ever is."""

import json
import pickle

import pytest
import torch

from cardiacreg import InvalidInputError
from cardiacreg_nn.inference import weights as module
from cardiacreg_nn.inference.weights import load_weights, save_weights
from cardiacreg_nn.networks.sslln import SSLLN
from tests.nn.tiny_training import BOX, tiny_config

CONFIG = tiny_config().network


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    network = SSLLN(CONFIG).eval()
    path = save_weights(
        tmp_path / "tiny.safetensors", network.state_dict(), kind="sslln", network=CONFIG,
        box=BOX, half=False, about={"name": "tiny", "licence": "Apache-2.0"},
    )  # fmt: skip
    return network, path


def error_code(path):
    with pytest.raises(InvalidInputError) as caught:
        load_weights(path)
    assert str(path.parent) in str(caught.value) or path.suffix == ".pt"
    return caught.value.code


def test_loaded_weights_predict_what_saved_ones_did(saved):
    network, path = saved
    stack = torch.rand(1, 8, 48, 48)
    model = load_weights(path)
    with torch.no_grad():
        first, second = network(stack).structures, model.network(stack).structures
    assert torch.allclose(first, second, atol=1e-5)
    assert model.box == BOX and model.name == "tiny" and not model.network.training


def test_half_precision_halves_the_file(saved, tmp_path):
    network, path = saved
    half = save_weights(
        tmp_path / "half.safetensors",
        network.state_dict(),
        kind="sslln",
        network=CONFIG,
        box=BOX,
    )
    assert half.stat().st_size < 0.75 * path.stat().st_size
    own, other = load_weights(path).network, load_weights(half).network
    for a, b in zip(own.parameters(), other.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-6) and b.dtype == torch.float32


@pytest.mark.parametrize("length", [0, 100, -1])
def test_a_truncated_file_is_refused(saved, length):
    path = saved[1]
    path.write_bytes(path.read_bytes()[:length])
    assert error_code(path) == "DAMAGED_WEIGHTS"


def test_a_changed_byte_is_noticed(saved):
    path = saved[1]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert error_code(path) == "DAMAGED_WEIGHTS"


@pytest.mark.parametrize("change", [{"structures": 4}, {"slices": 9}, {"landmarks": 5}])
def test_weights_of_other_classes_or_slices_are_refused(saved, change):
    path = saved[1]
    card = json.loads(path.with_suffix(".json").read_text())
    card["network"] |= change
    if "slices" in change:
        card["box"]["shape"][2] = 9
    path.with_suffix(".json").write_text(json.dumps(card))
    assert error_code(path) == "WEIGHTS_MISMATCH"


def test_cards_are_checked(saved):
    path, card = saved[1], saved[1].with_suffix(".json")
    for text in ("{", "[]", '{"format": 99}', '{"format": 1}'):
        card.write_text(text)
        assert error_code(path) in ("BAD_CARD", "DAMAGED_WEIGHTS")
    card.unlink()
    assert error_code(path) == "BAD_CARD"


def test_a_missing_file_is_named(tmp_path):
    assert error_code(tmp_path / "none.safetensors") == "NO_FILE"


def test_a_pickle_that_runs_code_is_refused(tmp_path):
    ran = tmp_path / "ran"

    class Bad:
        def __reduce__(self):
            return (open, (str(ran), "w"))

    path = tmp_path / "bad.pt"
    path.write_bytes(pickle.dumps(Bad()))
    assert error_code(path) == "DAMAGED_WEIGHTS"
    torch.save({"average": Bad()}, path)
    assert error_code(path) == "DAMAGED_WEIGHTS"
    assert not ran.exists()


def test_an_interrupted_write_leaves_the_old_file(saved, monkeypatch):
    network, path = saved
    before = path.read_bytes()

    def half_written(self, payload):
        with self.open("wb") as file:
            file.write(payload[: len(payload) // 2])
        raise OSError("disk full")

    monkeypatch.setattr(module.Path, "write_bytes", half_written)
    with pytest.raises(OSError, match="disk full"):
        save_weights(path, network.state_dict(), kind="sslln", network=CONFIG, box=BOX)
    monkeypatch.undo()
    assert path.read_bytes() == before and len(list(path.parent.iterdir())) == 2


def test_other_names_are_refused(tmp_path):
    with pytest.raises(InvalidInputError, match="safetensors"):
        save_weights(tmp_path / "x.pt", {}, kind="sslln", network=CONFIG, box=BOX)
