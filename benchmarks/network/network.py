"""The networks: parameters, time and memory of a prediction, and training throughput.

On a GPU in `network_gpu`. Times are of the processor (CPU) or of the wall after synchronisation (GPU),
medians. The lattices are the paper's (192 x 192 x 80) and the one of the shipped configuration. The share
of the hardware's limit is of the rate of a large matrix product in the same number type, measured in the
same run. A whole prediction reads, turns, centres and labels a stack with the shipped default.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.harness import machine, tabulate
from benchmarks.harness.cases import DataAbsent

LATTICES = {"paper": (192, 192, 80), "thick slices": (96, 96, 16)}
KINDS = ("sslln", "unet2d", "fcn2d", "fcn3d", "unet3d")
TIMED = (("sslln", "paper"), ("sslln", "thick slices"), ("unet2d", "thick slices"))
WIDTHS = {"sslln": (16, 32, 64, 128, 256), "unet2d": (16, 32, 64, 128, 128)}
_BATCH = 8
_PRODUCT = {"cpu": 2048, "cuda": 8192}
"""Size of the matrices by device, large enough to reach its limit."""


def run(quick: bool, device: str = "cpu") -> dict[str, Any]:
    """Measure networks on their lattices and the shipped default; count the parameters of all."""
    torch = require_torch()
    repeats = 1 if quick else 3
    timed = TIMED[2:] if quick else TIMED
    batch = _BATCH if device == "cuda" else (1 if quick else 2)
    records = [_measure(kind, name, device, repeats, batch) for kind, name in timed]
    return {
        "seeds": [],
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if device == "cuda" else "CPU, one thread",
        "parameters": _parameters(),
        "matrix_product_flops": _matrix_product(device, 256 if quick else _PRODUCT[device]),
        "records": records,
        "default": _whole_prediction(repeats, device),
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
    from cardiacreg_nn.networks.baseline_networks import build_network
    from cardiacreg_nn.networks.sslln import NetworkConfig, count_parameters

    found = {}
    for kind in KINDS:
        for name, shape in LATTICES.items():
            network = build_network(kind, NetworkConfig(slices=shape[2]))
            found[f"{kind}, {name}"] = count_parameters(network)
    return found


def _whole_prediction(repeats: int, device: str) -> dict[str, Any]:
    """Seconds and memory of `predict` with the shipped default on a simulated stack."""
    import torch

    from cardiacreg.phantoms.acquisition import simulate_low_resolution
    from cardiacreg.phantoms.hearts import FIRST_EVALUATION_SEED, sample_heart
    from cardiacreg_nn import predict
    from cardiacreg_nn.inference.prediction import load_model

    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    image = simulate_low_resolution(sample_heart(FIRST_EVALUATION_SEED), seed=1).subject.image
    model = load_model(device=device)
    found: dict[str, Any] = {"name": model.name, "shape": list(image.shape)}
    for views in (1, 3):
        seconds = median_seconds(
            lambda views=views: predict(image, weights=model, views=views), device, repeats
        )
        found[f"seconds_{views}"] = seconds
    found["peak_memory_mib"] = _peak_memory(_WHOLE) if device == "cpu" else _gpu_memory()
    return found


def _measure(kind: str, name: str, device: str, repeats: int, batch: int) -> dict[str, Any]:
    import torch

    from cardiacreg_nn.data.augmentation import Target
    from cardiacreg_nn.networks.baseline_networks import build_network
    from cardiacreg_nn.networks.sslln import NetworkConfig
    from cardiacreg_nn.training.export import has_bfloat16
    from cardiacreg_nn.training.losses import LossConfig, objective

    height, width, slices = LATTICES[name]
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    network = build_network(kind, NetworkConfig(slices=slices, encoder=WIDTHS[kind]))
    network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    stack = torch.rand(batch, slices, height, width, device=device)
    target = Target(
        torch.randint(0, 5, stack.shape, device=device),
        torch.full((batch, 6, 3), 3.0, device=device),
        torch.ones(batch, 5, dtype=torch.bool, device=device),
    )
    optimizer = torch.optim.Adam(network.parameters())

    mixed = has_bfloat16(torch.device(device))

    def predict() -> None:
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=mixed):
            network.eval()(stack[:1])

    def step() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=mixed):
            found = network.train()(stack)
        torch.autograd.backward(objective(found, target, network, LossConfig())["total"])
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    flops = multiply_adds(network, slices, height, width)
    prediction, training = (median_seconds(f, device, repeats) for f in (predict, step))
    return {
        "method": f"{kind}, {name}",
        "lattice": [height, width, slices],
        "multiply_adds": flops,
        "prediction_seconds": prediction,
        "training_seconds_per_volume": training / batch,
        "training_flops": 6 * flops * batch / training,
        "peak_memory_mib": _memory_of_a_prediction(kind, name)
        if device == "cpu"
        else _gpu_memory(),
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
        pixels = (given[0] if isinstance(layer, torch.nn.ConvTranspose2d) else found)[:, 0].numel()
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
    """Operations per second of a large matrix product in the number type that training uses."""
    import torch

    from cardiacreg_nn.training.export import has_bfloat16

    kind = torch.bfloat16 if has_bfloat16(torch.device(device)) else torch.float32
    a, b = (torch.rand(size, size, device=device).to(kind) for _ in range(2))
    return 2 * size**3 / median_seconds(lambda: torch.matmul(a, b), device, 5)


def _gpu_memory() -> float:
    import torch

    return torch.cuda.max_memory_allocated() / 2**20


def _memory_of_a_prediction(kind: str, name: str) -> float:
    """Peak memory of a fresh process that makes the network and predicts one volume."""
    height, width, slices = LATTICES[name]
    return _peak_memory(
        "from cardiacreg_nn.networks.baseline_networks import build_network\n"
        "from cardiacreg_nn.networks.sslln import NetworkConfig\n"
        f"config = NetworkConfig({slices}, encoder={WIDTHS[kind]})\n"
        f"network = build_network({kind!r}, config).eval()\n"
        "with torch.inference_mode():\n"
        f"    network(torch.rand(1, {slices}, {height}, {width}))\n"
    )


_WHOLE = (
    "import cardiacreg_nn\n"
    "from cardiacreg.phantoms.acquisition import simulate_low_resolution\n"
    "from cardiacreg.phantoms.hearts import FIRST_EVALUATION_SEED, sample_heart\n"
    "stack = simulate_low_resolution(sample_heart(FIRST_EVALUATION_SEED), seed=1)\n"
    "cardiacreg_nn.predict(stack.subject.image)\n"
)


def _peak_memory(work: str) -> float:
    """Peak memory of a fresh process that does some work with torch on one thread, MiB (Linux).

    The kernel's own high-water mark: the usual ``ru_maxrss`` of a child starts from its parent's.
    """
    program = (
        f"import pathlib, torch\ntorch.set_num_threads(1)\n{work}"
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
    for kind in KINDS:
        counts = [result["parameters"][f"{kind}, {name}"] for name in LATTICES]
        rows.append([f"`{kind}`", *[f"{count:,}" for count in counts]])
    limit = result["matrix_product_flops"]
    timed = [
        [
            f"`{r['method'].replace(', ', '`, ')}, {'x'.join(map(str, r['lattice']))}",
            f"{r['multiply_adds'] / 1e9:.1f}",
            f"{r['prediction_seconds']:.{3 if r['prediction_seconds'] > 0.02 else 4}f}",
            _mebibytes(r["peak_memory_mib"]),
            f"{r['training_seconds_per_volume']:.{3 if r['training_seconds_per_volume'] > 0.02 else 4}f}",
            f"{100 * r['training_flops'] / limit:.0f} %",
        ]
        for r in result["records"]
    ]
    header = [
        f"network on {result['device']}", "10⁹ multiply-adds", "prediction, s", "peak memory, MiB",
        "training, s per volume", "of a matrix product's rate",
    ]  # fmt: skip
    return {
        "network-parameters": tabulate.markdown(["network", *LATTICES], rows),
        "network-speed": tabulate.markdown(header, timed),
        "network-prediction": _prediction_table(result["default"], result["device"]),
    }


def _prediction_table(found: dict[str, Any], device: str) -> str:
    shape = "x".join(map(str, found["shape"]))
    cells = [f"`predict` with {found['name']} on a stack of {shape}"]
    cells += [f"{found[f'seconds_{views}']:.2f}" for views in (1, 3)]
    header = [f"on {device}", "one view, s", "three views, s", "peak memory, MiB"]
    return tabulate.markdown(header, [[*cells, _mebibytes(found["peak_memory_mib"])]])


def _mebibytes(found: float | None) -> str:
    return "–" if found is None else f"{found:.0f}"
