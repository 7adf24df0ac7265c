"""What a training run gives: averaged network, figures on held-out hearts, weights with a card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cardiacreg_nn.data.batches import TrainingData, choose, step_generator
from cardiacreg_nn.data.training_hearts import Source
from cardiacreg_nn.inference.weights import Model, save_weights
from cardiacreg_nn.networks.baseline_networks import build_network
from cardiacreg_nn.networks.sslln import MOMENTUM
from cardiacreg_nn.training.configuration import Config
from cardiacreg_nn.training.losses import known_log_probabilities
from cardiacreg_nn.training.samples import sample

WEIGHTS = "weights.safetensors"
_VIEWS_PER_HEART = 12
ACDC_LICENCE = "CC BY-NC-SA 4.0"
ACDC_CITATION = (
    "O. Bernard, A. Lalande, C. Zotti, F. Cervenansky et al., IEEE Transactions on Medical Imaging "
    "37(11):2514-2525, 2018, doi:10.1109/TMI.2018.2837502"
)


def has_bfloat16(device: torch.device) -> bool:
    """Return whether a device computes in bfloat16; processors without it are several times slower."""
    if device.type != "cpu":
        return True
    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(known.get(name) for name in ("avx512_bf16", "amx_bf16", "arm_bf16"))


def autocast(device: torch.device, config: Config) -> torch.autocast:
    """Return the context in which a network runs: bfloat16 where asked for and computed in."""
    mixed = config.training.mixed and has_bfloat16(device)
    return torch.autocast(device.type, torch.bfloat16, enabled=mixed)


@torch.no_grad()
def validate(network: nn.Module, sources: list[Source], config: Config) -> dict[str, float]:
    """Return the mean Dice per structure of held-out hearts on the network's lattice.

    Acquired stacks and synthetic hearts (seen through thick slices, with a fixed seed) are kept apart;
    long-axis views are drawn as in training, several of each heart.
    """
    network.eval()
    device = next(network.parameters()).device
    found: dict[str, list[float]] = {}
    rounds = _VIEWS_PER_HEART if config.data.long_axis else 1
    for number, source in enumerate(sources * rounds):
        stack, target = sample([source], config, step_generator(1, number, 0), device, plain=True)
        with autocast(device, config):
            logits = network(stack).structures
        best = known_log_probabilities(logits.float(), target.known).argmax(1)
        for label in (n for n in range(1, logits.shape[1]) if source.known[n]):
            ours, truth = best == label, target.structures == label
            size = int(ours.sum() + truth.sum())
            if size:
                kind = "synthetic" if source.fine else "real"
                value = 2 * int((ours & truth).sum()) / size
                found.setdefault(f"dice_{kind}_{label}", []).append(value)
    return {name: sum(values) / len(values) for name, values in sorted(found.items())}


def averaged_network(
    config: Config,
    average: dict[str, Tensor],
    device: torch.device,
    data: TrainingData | None = None,
) -> nn.Module:
    """Return a network with the running mean of a run's weights.

    Its batch normalisation, whose own running means lag behind, is measured anew on training batches
    where data are given.
    """
    network = build_network(config.training.kind, config.network).to(device)
    network.load_state_dict(average)
    if data is not None:
        measure_statistics(network, data, config)
    return network.eval()


@torch.no_grad()
def measure_statistics(network: nn.Module, data: TrainingData, config: Config) -> None:
    """Set the statistics of batch normalisation to their mean over fresh training batches, in place."""
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d | nn.BatchNorm3d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over what follows
    device = next(network.parameters()).device
    network.train()
    for number in range(config.training.statistics):
        rng = step_generator(config.training.seed, -1 - number, 0)
        chosen = choose(data, config.training.batch, config.data.real_share, rng)
        stack, _ = sample(chosen, config, rng, device)
        with autocast(device, config):
            network(stack)
    for norm in norms:
        norm.momentum = MOMENTUM


def export_weights(
    out: Path,
    config: Config,
    network: nn.Module,
    data: TrainingData,
    *,
    steps: int,
    command: str,
    initial: Model | None = None,
) -> None:
    """Write ``weights.safetensors`` into a folder, on its card what they were trained with and reach."""
    start = initial.card if initial else {}
    device = next(network.parameters()).device
    figures = validate(network, data.held_out, config) if data.held_out else {}
    about: dict[str, Any] = {
        "name": out.name,
        "data": {
            "synthetic": config.data.synthetic,
            "acdc": len(data.real),
            "anatomies": list(config.data.anatomies),
            "fold": config.data.fold if config.data.acdc else None,
        },
        "licence": ACDC_LICENCE if config.data.acdc else start.get("licence", "Apache-2.0"),
        "command": command,
        "device": (torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"),
        "steps": steps,
        "batch": config.training.batch,
        "metrics": {name: round(value, 4) for name, value in figures.items()},
    }
    if config.data.acdc or "citation" in start:
        about["citation"] = ACDC_CITATION if config.data.acdc else start["citation"]
    if initial:
        about["initial"] = {
            key: start[key] for key in ("name", "sha256", "command") if key in start
        }
    state: dict[str, Tensor] = network.state_dict()
    save_weights(
        out / WEIGHTS, state, kind=config.training.kind, network=config.network,
        box=config.box, about=about,
    )  # fmt: skip
