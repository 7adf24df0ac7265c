"""The networks: parameters, time and memory of a prediction, and training throughput.

On a GPU when there is one. Times are of the processor (CPU) or of the wall after synchronisation (GPU),
medians. The lattices are the paper's (192 x 192 x 80) and the one of the shipped configuration. The share
of the hardware's limit is of the rate of a large matrix product in the same number type, measured in the
same run.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks import machine, tabulate
from benchmarks.cases import DataAbsent

LATTICES = {"paper": (192, 192, 80), "thick slices": (96, 96, 16)}
_BATCH = 8


def run(quick: bool) -> dict[str, Any]:
    """Measure SSLLN on both lattices and count the parameters of every network."""
    torch = require_torch()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    repeats = 1 if quick else 3
    names = ["thick slices"] if quick else list(LATTICES)
    batch = _BATCH if device == "cuda" else (1 if quick else 2)
    records = [_measure(name, device, repeats, batch) for name in names]
    return {
        "seeds": [],
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if device == "cuda" else "CPU, one thread",
        "parameters": _parameters(),
        "matrix_product_flops": _matrix_product(device, 256 if quick else 2048),
        "records": records,
    }


def require_torch() -> Any:
    """Return torch, or skip the benchmark."""
    try:
        import torch
    except ImportError as error:
        raise DataAbsent("torch is not installed") from error
    torch.set_num_threads(1)
    return torch


def _parameters() -> dict[str, int]:
    from cardiacreg_nn.comparators import build_network
    from cardiacreg_nn.network import NetworkConfig, count_parameters

    found = {}
    for kind in ("sslln", "fcn2d", "fcn3d", "unet3d"):
        for name, shape in LATTICES.items():
            network = build_network(kind, NetworkConfig(slices=shape[2]))
            found[f"{kind}, {name}"] = count_parameters(network)
    return found


def _measure(name: str, device: str, repeats: int, batch: int) -> dict[str, Any]:
    import torch

    from cardiacreg_nn.losses import LossConfig, Target, objective
    from cardiacreg_nn.network import SSLLN, NetworkConfig

    height, width, slices = LATTICES[name]
    network = SSLLN(NetworkConfig(slices=slices)).to(device, memory_format=torch.channels_last)
    stack = torch.rand(batch, slices, height, width, device=device)
    target = Target(
        torch.randint(0, 5, stack.shape, device=device),
        torch.full((batch, 6, 3), 3.0, device=device),
        torch.ones(batch, 5, dtype=torch.bool, device=device),
    )
    optimizer = torch.optim.Adam(network.parameters())

    def predict() -> None:
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16):
            network.eval()(stack[:1])

    def step() -> None:
        with torch.autocast(device, torch.bfloat16):
            found = network.train()(stack)
        torch.autograd.backward(objective(found, target, network, LossConfig())["total"])
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    flops = multiply_adds(network, slices, height, width)
    prediction, training = (median_seconds(f, device, repeats) for f in (predict, step))
    return {
        "method": name,
        "multiply_adds": flops,
        "prediction_seconds": prediction,
        "training_seconds_per_volume": training / batch,
        "training_flops": 6 * flops * batch / training,
        "peak_memory_mib": _memory_of_a_prediction(name) if device == "cpu" else _gpu_memory(),
    }


def median_seconds(work: Callable[[], None], device: str, repeats: int) -> float:
    """Return the median time of some work after one unmeasured run."""
    import torch

    work()
    found = []
    for _ in range(repeats):
        if device == "cuda":
            torch.cuda.synchronize()
            start = time.perf_counter()
            work()
            torch.cuda.synchronize()
            found.append(time.perf_counter() - start)
        else:
            start = time.process_time()
            work()
            found.append(time.process_time() - start)
    return statistics.median(found)


def multiply_adds(network: Any, slices: int, height: int, width: int) -> int:
    """Return the multiply-adds of the convolutions for one volume."""
    import torch

    total, hooks = 0, []

    def count(layer: Any, given: Any, found: Any) -> None:
        nonlocal total
        pixels = (given[0] if isinstance(layer, torch.nn.ConvTranspose2d) else found)[0, 0].numel()
        total += pixels * layer.weight.numel()

    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            hooks.append(layer.register_forward_hook(count))
    device = next(network.parameters()).device
    with torch.inference_mode():
        network.eval()(torch.zeros(1, slices, height, width, device=device))
    for hook in hooks:
        hook.remove()
    return total


def _matrix_product(device: str, size: int) -> float:
    """Operations per second of a large bfloat16 matrix product."""
    import torch

    a, b = (torch.rand(size, size, device=device).bfloat16() for _ in range(2))
    return 2 * size**3 / median_seconds(lambda: torch.matmul(a, b), device, 3)


def _gpu_memory() -> float:
    import torch

    return torch.cuda.max_memory_allocated() / 2**20


def _memory_of_a_prediction(name: str) -> float:
    """Peak memory of a fresh process that loads the network and predicts one volume (Linux).

    The kernel's own high-water mark: the usual ``ru_maxrss`` of a child starts from its parent's.
    """
    height, width, slices = LATTICES[name]
    program = (
        "import pathlib, torch\n"
        "from cardiacreg_nn.network import SSLLN, NetworkConfig\n"
        "torch.set_num_threads(1)\n"
        f"network = SSLLN(NetworkConfig({slices})).eval()\n"
        "with torch.inference_mode():\n"
        f"    network(torch.rand(1, {slices}, {height}, {width}))\n"
        "status = pathlib.Path('/proc/self/status').read_text()\n"
        "print(next(int(x.split()[1]) / 1024 for x in status.splitlines() if 'VmHWM' in x))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=machine.ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return parameters, and times."""
    rows = []
    for kind in ("sslln", "fcn2d", "fcn3d", "unet3d"):
        counts = [result["parameters"][f"{kind}, {name}"] for name in LATTICES]
        rows.append([f"`{kind}`", *[f"{count:,}" for count in counts]])
    limit = result["matrix_product_flops"]
    timed = [
        [
            f"{r['method']}, {'x'.join(map(str, LATTICES[r['method']]))}",
            f"{r['multiply_adds'] / 1e9:.1f}",
            f"{r['prediction_seconds']:.3f}",
            f"{r['peak_memory_mib']:.0f}",
            f"{r['training_seconds_per_volume']:.3f}",
            f"{100 * r['training_flops'] / limit:.0f} %",
        ]
        for r in result["records"]
    ]
    header = [
        f"SSLLN on {result['device']}", "10⁹ multiply-adds", "prediction, s", "peak memory, MiB",
        "training, s per volume", "of a matrix product's rate",
    ]  # fmt: skip
    return {
        "network-parameters": tabulate.markdown(["network", *LATTICES], rows),
        "network-speed": tabulate.markdown(header, timed),
    }
