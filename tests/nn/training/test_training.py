"""The training loop: it learns, resumes exactly, runs in two processes, and refuses what cannot be."""

import csv
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cardiacreg_nn import load_weights
from cardiacreg_nn.data.batches import TrainingData, choose, step_generator
from cardiacreg_nn.training import train
from cardiacreg_nn.training.configuration import Config, read_config
from cardiacreg_nn.training.export import has_bfloat16, validate
from cardiacreg_nn.training.train import Run, learning_rate, main, run_training
from tests.nn.tiny_training import Oracle, tiny_config, tiny_data

ROOT = Path(__file__).parents[3]
TOML = """
[network]
slices = 8
encoder = [4, 4, 4, 4, 4]
side = 4
fused = 4
[box]
shape = [48, 48, 8]
spacing_mm = [4.0, 4.0, 16.0]
[data]
synthetic = 1
held_out = 1
[training]
steps = 2
batch = 1
log_every = 1
checkpoint_every = 1
"""


@pytest.fixture(scope="module")
def data():
    return tiny_data()


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("hearts")


def weights_of(run):
    return {n: t.clone() for n, t in run.network.state_dict().items()}


def test_a_tiny_network_learns_two_hearts(data):
    run = Run(tiny_config(steps=25, batch=2, learning_rate=1e-2, mixed=False))
    losses = [run.advance(data)["dice"] for _ in range(25)]
    assert sum(losses[-5:]) < 0.93 * sum(losses[:5])


@pytest.mark.parametrize("kind", ["sslln", "unet2d", "fcn2d", "fcn3d", "unet3d"])
def test_every_network_takes_a_step(data, kind):
    run = Run(tiny_config(kind=kind))
    before = weights_of(run)
    terms = run.advance(data)
    assert all(torch.isfinite(torch.tensor(v)) for v in terms.values())
    assert any(not torch.equal(before[n], t) for n, t in weights_of(run).items())


def test_a_resumed_run_ends_with_the_same_bits(data, tmp_path):
    config = tiny_config(steps=4)
    whole = run_training(config, tmp_path / "whole", data=data, quiet=True)
    run_training(config, tmp_path / "parts", data=data, quiet=True, stop_after=2)
    parts = run_training(config, tmp_path / "parts", data=data, quiet=True)
    assert whole.step == parts.step == 4
    for name, tensor in weights_of(whole).items():
        assert torch.equal(tensor, weights_of(parts)[name]), name
    for name, tensor in whole.average.items():
        assert torch.equal(tensor, parts.average[name]), name


def test_a_time_budget_ends_the_run_with_the_rate_where_steps_would_leave_it(data, tmp_path):
    config = tiny_config(steps=10_000, learning_rate=1.0).training
    assert learning_rate(config, 100, 0.5) == pytest.approx(learning_rate(config, 5000))
    assert learning_rate(config, 9000, 0.5) == pytest.approx(learning_rate(config, 9000))
    run = run_training(
        tiny_config(steps=10_000), tmp_path, data=data, quiet=True, budget_minutes=0.01
    )
    assert 0 < run.step < 10_000 and run.spent >= 1
    again = run_training(
        tiny_config(steps=10_000), tmp_path, data=data, quiet=True, budget_minutes=0.01
    )
    assert again.step == run.step


def test_a_run_leaves_weights_a_card_and_a_log(data, tmp_path):
    run_training(tiny_config(steps=3), tmp_path, data=data, quiet=True, command="the command")
    model = load_weights(tmp_path / "weights.safetensors")
    assert model.card["command"] == "the command" and model.card["licence"] == "Apache-2.0"
    assert 0 <= model.card["metrics"]["dice_real_1"] <= 1
    with (tmp_path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [1, 2, 3]
    assert (tmp_path / "validation.csv").is_file()
    assert load_weights(tmp_path / "checkpoint.pt").network.config == model.network.config


def test_a_run_begins_with_given_weights_and_names_them(data, tmp_path):
    first = tiny_config(steps=2)
    run_training(first, tmp_path / "first", data=data, quiet=True)
    path = tmp_path / "first" / "weights.safetensors"
    path.with_suffix(".json").write_text(
        path.with_suffix(".json").read_text().replace('"Apache-2.0"', '"CC BY-NC-SA 4.0"')
    )
    initial = load_weights(path)
    run = Run(first)
    run.start_from(initial)
    for name, tensor in initial.network.state_dict().items():
        assert torch.equal(run.network.state_dict()[name], tensor), name
        assert torch.equal(run.average[name], tensor), name
    run_training(first, tmp_path / "second", data=data, quiet=True, initial=path)
    card = load_weights(tmp_path / "second" / "weights.safetensors").card
    assert card["initial"]["sha256"] == initial.card["sha256"]
    assert card["licence"] == "CC BY-NC-SA 4.0"


def test_initial_weights_of_another_network_are_refused(data, tmp_path):
    run_training(tiny_config(steps=1), tmp_path, data=data, quiet=True)
    other = tiny_config(steps=1)
    other = replace(other, network=replace(other.network, fused=other.network.fused + 1))
    with pytest.raises(ValueError, match="initial weights"):
        run_training(
            other, tmp_path / "x", data=data, quiet=True, initial=tmp_path / "weights.safetensors"
        )


def test_a_damaged_checkpoint_is_refused_and_kept(data, tmp_path):
    run_training(tiny_config(steps=2), tmp_path, data=data, quiet=True)
    checkpoint = tmp_path / "checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(ValueError, match="cannot be resumed"):
        run_training(tiny_config(steps=4), tmp_path, data=data, quiet=True)
    assert checkpoint.stat().st_size == 1000


def test_an_interrupted_checkpoint_never_replaces_a_good_one(data, tmp_path, monkeypatch):
    run = Run(tiny_config())
    run.save(tmp_path / "checkpoint.pt")
    good = (tmp_path / "checkpoint.pt").read_bytes()
    run.advance(data)
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        run.save(tmp_path / "checkpoint.pt")
    assert (tmp_path / "checkpoint.pt").read_bytes() == good
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_validation_is_perfect_for_perfect_logits(data):
    class Perfect(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, stack):
            return Oracle()(stack)

    coded = replace(data.held_out[0], image=data.held_out[0].labels * 63)
    figures = validate(Perfect(), [coded], tiny_config())
    assert set(figures) == {f"dice_real_{n}" for n in range(1, 5)}
    assert min(figures.values()) > 0.99


@pytest.mark.parametrize(
    ("known", "expected"), [({}, False), ({"avx2": True}, False), ({"avx512_bf16": True}, True)]
)
def test_bfloat16_is_left_to_devices_that_compute_in_it(monkeypatch, known, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known, raising=False)
    assert has_bfloat16(torch.device("cpu")) is expected and has_bfloat16(torch.device("cuda"))
    seen, run = [], Run(tiny_config(mixed=True))
    run.network.register_forward_hook(lambda *_: seen.append(torch.is_autocast_enabled("cpu")))
    run.advance(tiny_data())
    assert seen == [expected]


def test_statistics_of_the_exported_network_are_those_of_training_batches(data):
    """After a hundred-fold change of scale, running means lag; measured anew they fit."""
    config = tiny_config(steps=3, mixed=False)
    run = Run(config)
    run.advance(data)
    first = next(n for n in run.average if n.endswith("0.weight"))
    run.average[first] *= 100
    network = run.averaged(data)
    norm = network.blocks[0][1]
    assert norm.num_batches_tracked == config.training.statistics and norm.momentum == 0.01
    seen = []
    network.blocks[0][0].register_forward_hook(lambda *given: seen.append(given[2]))
    validate(network, data.held_out, config)
    own = seen[0].var(dim=(0, 2, 3))
    assert ((norm.running_var / own) > 0.3).all() and ((norm.running_var / own) < 3).all()


def test_the_learning_rate_rises_then_falls():
    config = tiny_config(steps=100, warmup=10, learning_rate=1.0).training
    rates = [learning_rate(config, step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and max(rates) > 0.9 and rates[-1] < 0.02
    constant = tiny_config(steps=100, warmup=1, cosine=False, learning_rate=1.0).training
    assert {learning_rate(constant, step) for step in (0, 50, 99)} == {1.0}


def test_batches_hold_the_asked_share_of_acquired_stacks(data):
    both = TrainingData(["real"], ["fine"], [])
    drawn = [choose(both, 8, 0.75, step_generator(0, step, 0)) for step in range(40)]
    share = sum(batch.count("real") for batch in drawn) / 320
    assert 0.68 < share < 0.82
    assert drawn[3] == choose(both, 8, 0.75, step_generator(0, 3, 0))


class TestConfiguration:
    @pytest.mark.parametrize("path", sorted((ROOT / "cardiacreg_nn/configs").glob("*.toml")))
    def test_shipped_ones_can_be_read(self, path):
        config = read_config(path)
        assert Config.from_dict(config.to_dict()) == config

    @pytest.mark.parametrize(
        "text, match",
        [
            ("[network]\nslice = 3\n", "slice"),
            ("[networks]\n", "networks"),
            ("[network]\nslices = 8\n", "number of slices"),
            ("[training]\nkind = 'vgg'\n", "kind"),
            ("[training]\nsteps = 0\n", "need >= 1"),
            ("[loss]\ndice = 'x'\n", "dice"),
            ("[box\n", "x.toml"),
        ],
    )
    def test_mistakes_are_named(self, text, match, tmp_path):
        (tmp_path / "x.toml").write_text(text)
        with pytest.raises(ValueError, match=match):
            read_config(tmp_path / "x.toml")


class TestCommand:
    def run(self, tmp_path, cache, *more):
        (tmp_path / "c.toml").write_text(TOML)
        arguments = [
            str(tmp_path / "c.toml"),
            "--out",
            str(tmp_path / "out"),
            "--cache",
            str(cache),
        ]
        return main([*arguments, "-q", *more])

    def test_trains_from_a_file(self, tmp_path, cache):
        assert self.run(tmp_path, cache) == 0
        card = load_weights(tmp_path / "out/weights.safetensors").card
        assert card["steps"] == 2 and "dice_synthetic_1" in card["metrics"]

    def test_says_what_data_are_missing(self, tmp_path, cache, monkeypatch, capsys):
        monkeypatch.delenv("CARDIACREG_DATA", raising=False)
        text = TOML.replace("[training]", "acdc = true\n[training]")
        (tmp_path / "d.toml").write_text(text)
        with pytest.raises(SystemExit) as ended:
            main(
                [
                    str(tmp_path / "d.toml"),
                    "--out",
                    str(tmp_path / "o"),
                    "--cache",
                    str(cache),
                    "-q",
                ]
            )
        assert ended.value.code == 1
        assert "CARDIACREG_DATA" in capsys.readouterr().err

    def test_says_when_memory_ends(self, tmp_path, cache, monkeypatch, capsys):
        def fail(*_):
            raise MemoryError("no room")

        monkeypatch.setattr(train.Run, "advance", fail)
        with pytest.raises(SystemExit) as ended:
            self.run(tmp_path, cache)
        assert ended.value.code == 1 and "lower [training] batch" in capsys.readouterr().err

    @pytest.mark.slow
    def test_two_processes_train_together(self, tmp_path, cache):
        """Both see different batches; the exported weights are those of the averaged gradients."""
        (tmp_path / "c.toml").write_text(TOML)
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        arguments = [
            "-m",
            "cardiacreg_nn.training.train",
            str(tmp_path / "c.toml"),
            "-q",
            "--device",
            "cpu",
        ]
        arguments += ["--cache", str(cache), "--out", str(tmp_path / "two")]
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node", "2", *arguments]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        self.run(tmp_path, cache, "--device", "cpu")
        two = load_weights(tmp_path / "two/weights.safetensors").network
        one = load_weights(tmp_path / "out/weights.safetensors").network
        assert any(
            not torch.equal(a, b) for a, b in zip(two.parameters(), one.parameters(), strict=True)
        )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_gpu_trains(data, tmp_path):
    run_training(tiny_config(), tmp_path, data=data, quiet=True, device="cuda")
    assert load_weights(tmp_path / "weights.safetensors", device="cuda")
