"""The networks on a GPU: parameters, time and memory of a prediction, training throughput.

The measurements of `benchmarks.network.network` on the first CUDA device, and one more: whole steps of
training SSLLN as in the paper (192 x 192 x 80, batches of 8), augmentation and update included, as
``cardiacreg_nn.training.train`` takes them. From these the time of the paper's training (50 epochs of
1,000 volumes; 20 hours there) follows.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

from benchmarks.harness import machine, tabulate
from benchmarks.harness.cases import DataAbsent
from benchmarks.network import network

VOLUMES = 50 * 1000
PAPER_HOURS = 20.0
_FIRST_SEED, _HEARTS, _STEPS, _UNMEASURED = 50_000, 8, 30, 5


def run(quick: bool) -> dict[str, Any]:
    """Measure everything on the GPU, or skip without one."""
    torch = network.require_torch()
    if not torch.cuda.is_available():
        raise DataAbsent("torch sees no CUDA device")
    return network.run(quick, "cuda") | {"training": _training(quick)}


def _training(quick: bool) -> dict[str, Any]:
    """Median seconds of a whole training step on the paper's lattice, and the peak memory."""
    import torch

    from cardiacreg_nn.data.batches import TrainingData, cached_synthetic
    from cardiacreg_nn.training.configuration import read_config
    from cardiacreg_nn.training.train import Run

    config = read_config(machine.ROOT / "cardiacreg_nn" / "configs" / "hr_synthetic.toml")
    folder = machine.ROOT / "bench_output" / "hearts"
    hearts = [cached_synthetic(_FIRST_SEED + n, folder) for n in range(1 if quick else _HEARTS)]
    data, run_, found = TrainingData([], hearts, []), Run(config, "cuda"), []
    torch.cuda.reset_peak_memory_stats()
    for _ in range(_UNMEASURED + (1 if quick else _STEPS)):
        torch.cuda.synchronize()
        start = time.perf_counter()
        run_.advance(data)
        torch.cuda.synchronize()
        found.append(time.perf_counter() - start)
    return {
        "lattice": list(config.box.shape),
        "batch": config.training.batch,
        "step_seconds": statistics.median(found[_UNMEASURED:]),
        "peak_memory_mib": torch.cuda.max_memory_allocated() / 2**20,
    }


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return times of predictions and of training."""
    found = network.tables(result)
    return {
        "network-gpu-speed": found["network-speed"],
        "network-gpu-prediction": found["network-prediction"],
        "network-gpu-training": _training_table(result["training"]),
    }


def _training_table(found: dict[str, Any]) -> str:
    step, batch = found["step_seconds"], found["batch"]
    minutes = step / batch * VOLUMES / 60
    row = [
        f"SSLLN, {'x'.join(map(str, found['lattice']))}, batch {batch}",
        f"{1000 * step:.0f}",
        f"{batch / step:.0f}",
        f"{minutes:.1f}",
        f"{60 * PAPER_HOURS / minutes:.0f}",
        f"{found['peak_memory_mib'] / 1024:.1f}",
    ]
    header = [
        "whole training steps", "ms per step", "volumes per second", "50 epochs of 1,000, minutes",
        "times faster than the paper's 20 h", "peak memory, GiB",
    ]  # fmt: skip
    return tabulate.markdown(header, [row])
