"""Train a network: ``python -m cardiacreg_nn.training.train CONFIG.toml --out FOLDER``.

One plain loop. Every step draws its random numbers from (seed, step, process), so that a resumed run
continues exactly as if it had not stopped. Several processes: ``torchrun --nproc-per-node 2 -m
cardiacreg_nn.training.train CONFIG.toml --out FOLDER``.
"""

from __future__ import annotations

import argparse
import csv
import io
import math
import os
import time
from pathlib import Path

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from cardiacreg_nn.data.batches import TrainingData, choose, gather, step_generator
from cardiacreg_nn.data.training_hearts import Source
from cardiacreg_nn.inference.weights import Model, load_weights, write_atomically
from cardiacreg_nn.networks.baseline_networks import build_network
from cardiacreg_nn.training.configuration import Config, TrainingConfig, read_config
from cardiacreg_nn.training.export import (
    autocast,
    averaged_network,
    export_weights,
    validate,
)
from cardiacreg_nn.training.losses import objective
from cardiacreg_nn.training.samples import sample

CHECKPOINT, LOG = "checkpoint.pt", "log.csv"
COLUMNS = ("step", "seconds", "learning_rate", "total", "dice", "cross_entropy", "landmarks")


class Run:
    """The state of a training run: network, optimiser, running mean of weights, step.

    Parameters
    ----------
    config : Config
    device : device or str
    """

    def __init__(self, config: Config, device: torch.device | str = "cpu") -> None:
        torch.manual_seed(config.training.seed)
        self.config, self.device, self.step = config, torch.device(device), 0
        self.spent = 0.0  # share of a time budget
        self.held: dict[tuple[Source, str], Tensor] = {}  # hearts on the device
        self.network = build_network(config.training.kind, config.network).to(self.device)
        if config.training.kind in ("sslln", "unet2d", "fcn2d"):
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        elif self.device.type == "cuda":
            self.network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.optimizer = torch.optim.Adam(
            self.network.parameters(), lr=config.training.learning_rate
        )
        self.average = {n: t.detach().clone() for n, t in self.network.state_dict().items()}
        self.parallel: nn.Module = self.network
        if distributed.is_initialized():
            ids = None if self.device.index is None else [self.device.index]
            self.parallel = DistributedDataParallel(self.network, device_ids=ids)

    def advance(self, data: TrainingData, rank: int = 0) -> dict[str, float]:
        """Take one step on a fresh batch and return the terms of the objective."""
        config = self.config
        rng = step_generator(config.training.seed, self.step, rank)
        chosen = choose(data, config.training.batch, config.data.real_share, rng)
        stack, target = sample(chosen, config, rng, self.device, self.held)
        rate = learning_rate(config.training, self.step, self.spent)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.parallel.train()
        with autocast(self.device, config):
            prediction = self.parallel(stack)
        terms = objective(prediction, target, self.network, config.loss)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(terms["total"])
        self.optimizer.step()
        self._update_average()
        self.step += 1
        return {"learning_rate": rate} | {name: float(t.detach()) for name, t in terms.items()}

    @torch.no_grad()
    def _update_average(self) -> None:
        keep = min(self.config.training.average, self.step / (self.step + 10))
        for name, tensor in self.network.state_dict().items():
            if tensor.is_floating_point():
                self.average[name].lerp_(tensor, 1 - keep)
            else:
                self.average[name].copy_(tensor)

    def averaged(self, data: TrainingData | None = None) -> nn.Module:
        """Return a network with the running mean of the weights; see `averaged_network`."""
        return averaged_network(self.config, self.average, self.device, data)

    def save(self, path: Path) -> None:
        """Write a checkpoint under another name, then rename it."""
        buffer = io.BytesIO()
        state = {
            "config": self.config.to_dict(),
            "step": self.step,
            "spent": self.spent,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
        }
        torch.save(state, buffer)
        write_atomically(path, buffer.getvalue())

    def start_from(self, model: Model) -> None:
        """Begin with the weights of a network of the same kind and sizes."""
        if (model.card["kind"], model.network.config) != (
            self.config.training.kind,
            self.network.config,
        ):
            raise ValueError(
                f"run_training: the initial weights {model.name} are of {model.card['kind']} "
                f"{model.network.config}; the configuration asks for {self.config.training.kind} "
                f"{self.network.config}."
            )
        self.network.load_state_dict(model.network.state_dict())
        self.average = {n: t.detach().clone() for n, t in self.network.state_dict().items()}

    def load(self, path: Path) -> None:
        """Continue from a checkpoint of the same configuration."""
        try:
            held = torch.load(path, map_location=self.device, weights_only=True)
            self.network.load_state_dict(held["network"])
            self.optimizer.load_state_dict(held["optimizer"])
        except Exception as error:
            raise ValueError(
                f"{path}: cannot be resumed ({type(error).__name__}: {error}); it is damaged or of "
                "another configuration: remove it to start anew."
            ) from error
        self.average, self.step = held["average"], int(held["step"])
        self.spent = float(held.get("spent", 0.0))


def learning_rate(config: TrainingConfig, step: int, spent: float = 0.0) -> float:
    """Return the learning rate of a step, when a share of the time budget is spent."""
    rise = min(1.0, (step + 1) / max(1, config.warmup))
    share = min(1.0, max(spent, step / config.steps))
    fall = 0.5 * (1 + math.cos(math.pi * share)) if config.cosine else 1.0
    return config.learning_rate * rise * max(fall, 0.01)


def run_training(
    config: Config,
    out: Path,
    *,
    data: TrainingData | None = None,
    cache: Path | None = None,
    device: str | None = None,
    stop_after: int | None = None,
    minutes: float | None = None,
    budget_minutes: float | None = None,
    tensorboard: bool = False,
    quiet: bool = False,
    command: str = "",
    initial: Path | None = None,
) -> Run:
    """Train, resuming from ``out/checkpoint.pt`` where there is one.

    Parameters
    ----------
    config : Config
    out : Path
        Receives ``checkpoint.pt``, ``log.csv``, and at the end ``weights.safetensors`` with its card.
    data : TrainingData, optional
        Gathered from the configuration when absent.
    cache : Path, optional
        Where synthetic hearts are kept between runs.
    device : str, optional
        A GPU when there is one.
    stop_after : int, optional
        Stop cleanly, with a checkpoint, after so many steps in all.
    minutes : float, optional
        Stop cleanly after so long.
    budget_minutes : float, optional
        End the training after so long, a resumed one in all: the learning rate falls with the time
        spent where that is ahead of the steps. The result then depends on the machine's speed.
    tensorboard : bool
        Also log for TensorBoard, into ``out/tensorboard``.
    quiet : bool
        No progress bar.
    command : str
        Written on the card.
    initial : Path, optional
        Weights to begin with, of the same network, instead of random ones; the card names them, and
        their licence where it is the stricter one.

    Returns
    -------
    Run

    Raises
    ------
    ValueError, FileNotFoundError
        If the configuration, the data or the checkpoint cannot be used.
    """
    rank, device = _start_processes(device)
    if (minutes or budget_minutes) and distributed.is_initialized():
        raise ValueError(
            "run_training: minutes cannot stop several processes at one step; give steps."
        )
    chosen = data or gather(config.data, config.box, cache)
    if not chosen.real and not chosen.fine:
        raise ValueError(
            "run_training: no hearts to train on; set [data] synthetic, acdc or anatomies."
        )
    out.mkdir(parents=True, exist_ok=True)
    run = Run(config, device)
    model = load_weights(initial, device=device) if initial else None
    if model is not None:
        run.start_from(model)
    if (out / CHECKPOINT).is_file():
        run.load(out / CHECKPOINT)
    last = min(config.training.steps, stop_after or config.training.steps)
    start, log = time.perf_counter(), _Log(out, tensorboard) if rank == 0 else None
    bar = tqdm(total=last, initial=run.step, disable=quiet or rank != 0, unit="step")
    before = run.spent
    while run.step < last and not (minutes and time.perf_counter() - start > 60 * minutes):
        if budget_minutes:
            run.spent = before + (time.perf_counter() - start) / (60 * budget_minutes)
            if run.spent >= 1:
                break
        terms = run.advance(chosen, rank)
        bar.update()
        bar.set_postfix(loss=f"{terms['total']:.3f}")
        if log is not None and run.step % config.training.log_every == 0:
            log.write(run.step, terms | {"seconds": time.perf_counter() - start})
        if log is not None and run.step % config.training.checkpoint_every == 0:
            _checkpoint(run, chosen, out, log, start)
    bar.close()
    if rank == 0:
        run.save(out / CHECKPOINT)
        export_weights(
            out, config, run.averaged(chosen), chosen,
            steps=run.step, command=command, initial=model,
        )  # fmt: skip
    return run


def _start_processes(device: str | None) -> tuple[int, str]:
    """Join the group that torchrun started, if any; return this process' rank and device."""
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if device is None:
        device = f"cuda:{local}" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda:"):
        torch.cuda.set_device(device)
    if "RANK" not in os.environ:
        return 0, device
    if not distributed.is_initialized():
        distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    return distributed.get_rank(), device


class _Log:
    """Rows of ``log.csv``, and TensorBoard where asked for."""

    def __init__(self, out: Path, tensorboard: bool) -> None:
        self.path, self.writer = out / LOG, None
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise ValueError(f"--tensorboard needs a package: {error}") from error

            self.writer = SummaryWriter(str(out / "tensorboard"))

    def write(self, step: int, values: dict[str, float]) -> None:
        """Append one row; figures that are not columns go to ``validation.csv``."""
        is_training = "total" in values
        path = self.path if is_training else self.path.with_name("validation.csv")
        row = {"step": step} | {k: f"{v:.6g}" for k, v in values.items()}
        columns = COLUMNS if is_training else tuple(row)
        fresh = not path.is_file()
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, extrasaction="ignore")
            if fresh:
                writer.writeheader()
            writer.writerow(row)
        if self.writer is not None:
            for name, value in values.items():
                self.writer.add_scalar(name, value, step)


def _checkpoint(run: Run, data: TrainingData, out: Path, log: _Log, start: float) -> None:
    run.save(out / CHECKPOINT)
    if data.held_out:
        figures = validate(run.averaged(data), data.held_out, run.config)
        log.write(run.step, figures | {"seconds": time.perf_counter() - start})


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m cardiacreg_nn.training.train", description=__doc__
    )
    parser.add_argument("config", type=Path, help="TOML file; cardiacreg_nn/configs holds ours")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder; a checkpoint there is resumed"
    )
    parser.add_argument(
        "--cache", type=Path, help="folder that keeps synthetic hearts between runs"
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ...")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--fold", type=int, help="replaces [data] fold")
    parser.add_argument("--initial", type=Path, help="weights to begin with")
    parser.add_argument("--stop-after", type=int, help="stop cleanly after so many steps")
    parser.add_argument("--minutes", type=float, help="stop cleanly after so long")
    parser.add_argument(
        "--budget-minutes", type=float, help="end the training, schedule and all, after so long"
    )
    parser.add_argument("--tensorboard", action="store_true")
    parser.add_argument("-q", "--quiet", action="store_true")
    chosen = parser.parse_args(arguments)
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    try:
        config = read_config(chosen.config)
        if chosen.fold is not None:
            values = config.to_dict()
            values["data"]["fold"] = chosen.fold
            config = Config.from_dict(values)
        command = f"python -m cardiacreg_nn.training.train {chosen.config.name}"
        command += f" --fold {chosen.fold}" if chosen.fold is not None else ""
        if chosen.budget_minutes:
            command += f" --budget-minutes {chosen.budget_minutes:g}"
        command += f" --initial {chosen.initial.name}" if chosen.initial else ""
        run_training(
            config, chosen.out, cache=chosen.cache, device=chosen.device,
            stop_after=chosen.stop_after, minutes=chosen.minutes,
            budget_minutes=chosen.budget_minutes, tensorboard=chosen.tensorboard,
            quiet=chosen.quiet, command=command, initial=chosen.initial,
        )  # fmt: skip
    except (ValueError, FileNotFoundError) as error:
        parser.exit(1, f"error: {error}\n")
    except (MemoryError, torch.OutOfMemoryError) as error:
        parser.exit(1, f"error: out of memory ({error}); lower [training] batch. The last checkpoint "
                       f"in {chosen.out} is whole.\n")  # fmt: skip
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
