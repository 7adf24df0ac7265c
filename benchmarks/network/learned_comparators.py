"""The networks of Table V on the one task that all ways here share: degraded labels in, whole heart out.

3D U-Net (Cicek et al. 2016), 3D-Seg and 3D-ACNN (Oktay et al. 2018) and a denoising auto-encoder, 3D-AE
(after Ravishankar et al. 2017), in reduced size; 3D-ACNN is 3D-Seg that goes on with the shape term.
Their authors' weights and image pairs are not public; each is trained here on labels of synthetic hearts
of the evaluated groups and phases (seeds that neither the bank nor the evaluation holds), degraded as the
evaluated ones are. Input is the stack repeated over its thickness, output the labels at their true place;
both lie on a lattice of twice the truth's spacing around the stack's centre, and probabilities are
enlarged before the label is chosen. On a GPU they are trained for long, on stacks that are kept; on one
processor core steps are few, and every stack is new. Weights are kept, and an interrupted training goes
on; those of a GPU are preferred.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.harness import machine
from benchmarks.harness.cases import Case, degrade
from cardiacreg.geometry import N_LABELS, LabelMap
from cardiacreg.metrics import baselines
from cardiacreg.phantoms.hearts import sample_heart
from cardiacreg_nn.networks.baseline_networks import convolutions_3d
from cardiacreg_nn.training.export import has_bfloat16

NAMES = ("3D-Seg", "3D U-Net", "3D-AE", "3D-ACNN")
FOLDER = machine.ROOT / "bench_output" / "learned"
BOX = (128, 112, 72)
"""Voxels of the truth's lattice around the stack's centre; networks see half as many per axis."""
FIRST_SEED = 70_000
_GROUPS, _PHASES = ("healthy", "pulmonary_hypertension"), ("ED", "ES")
_WIDTHS = (12, 24, 48, 64)
_STRIDES = ((2, 2, 2), (2, 2, 2), (2, 2, 1))
_CODE_WIDTHS, _CODE_STRIDE, _CODE = (16, 32, 64), (2, 2, 2), 96
_LEARNING_RATE = 2e-3
_SHAPE_WEIGHT = 0.01
"""Of the squared difference of codes, as in Oktay et al."""
_SHARE_OF_STEPS = {"3D-AE": 2.0, "3D-ACNN": 0.2}
_EVERY_STEPS = 50


class Effort(NamedTuple):
    """How much is trained."""

    hearts: int = 120
    steps: int = 400
    batch: int = 2
    views: int = 0
    """Degradations of each heart that are kept; 0 degrades anew in every step."""

    def steps_of(self, name: str) -> int:
        """Return the steps of one network: twice as many where they cost half, few to go on."""
        return max(1, round(self.steps * _SHARE_OF_STEPS.get(name, 1.0)))


EFFORT, GPU_EFFORT = Effort(), Effort(hearts=240, steps=2000, batch=4, views=8)


def best_effort(folder: Path = FOLDER) -> Effort:
    """Return the larger effort where there is a GPU, or weights that came from one."""
    kept = all(_weights(name, GPU_EFFORT, folder).exists() for name in NAMES)
    return GPU_EFFORT if kept or torch.cuda.is_available() else EFFORT


class Completion(nn.Module):
    """Encoder and decoder over four levels: with skip connections a 3D U-Net, without them 3D-Seg."""

    def __init__(self, *, skips: bool) -> None:
        super().__init__()
        self.skips = skips
        self.first = convolutions_3d(N_LABELS, _WIDTHS[0], (1, 1, 1), 2)
        self.down = nn.ModuleList(
            convolutions_3d(before, after, stride, 2)
            for (before, after), stride in zip(pairwise(_WIDTHS), _STRIDES, strict=True)
        )
        self.up = nn.ModuleList(
            convolutions_3d(deep + shallow * skips, shallow, (1, 1, 1), 2)
            for shallow, deep in reversed(list(pairwise(_WIDTHS)))
        )
        self.head = nn.Conv3d(_WIDTHS[0], N_LABELS, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of the labels, (N, 5, I, J, K), from shares of the input's labels."""
        levels = [self.first(x)]
        for block in self.down:
            levels.append(block(levels[-1]))
        found = levels.pop()
        for block, level in zip(self.up, reversed(levels), strict=True):
            found = _enlarged(found, level.shape[2:])
            found = block(torch.cat([found, level], dim=1) if self.skips else found)
        logits: Tensor = self.head(found)
        return logits


class AutoEncoder(nn.Module):
    """Label maps through a code of 96 numbers and back."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        widths = (N_LABELS, *_CODE_WIDTHS)
        self.shapes = [shape]
        for _ in _CODE_WIDTHS:
            self.shapes.append(tuple((n + 1) // 2 for n in self.shapes[-1]))
        self.down = nn.Sequential(
            *(convolutions_3d(before, after, _CODE_STRIDE, 1) for before, after in pairwise(widths))
        )
        inner = widths[-1] * int(np.prod(self.shapes[-1]))
        self.encode, self.decode = nn.Linear(inner, _CODE), nn.Linear(_CODE, inner)
        self.up = nn.ModuleList(
            convolutions_3d(deep, max(shallow, 12), (1, 1, 1), 1)
            for deep, shallow in ((64, 32), (32, 16), (16, 12))
        )
        self.head = nn.Conv3d(12, N_LABELS, 1)

    def code(self, x: Tensor) -> Tensor:
        """Return the code of label shares, (N, 96)."""
        found: Tensor = self.encode(self.down(x).flatten(1))
        return found

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of the labels."""
        found = self.decode(self.code(x)).unflatten(1, (_CODE_WIDTHS[-1], *self.shapes[-1]))
        for block, shape in zip(self.up, reversed(self.shapes[:-1]), strict=True):
            found = block(_enlarged(found, shape))
        logits: Tensor = self.head(found)
        return logits


def _enlarged(field: Tensor, shape: Any) -> Tensor:
    return functional.interpolate(field, size=tuple(shape), mode="trilinear", align_corners=False)


class Trained(NamedTuple):
    """A trained network and what its training was."""

    network: nn.Module
    about: dict[str, Any]


@lru_cache(maxsize=4)
def trained(name: str, effort: Effort = EFFORT, folder: Path = FOLDER) -> Trained:
    """Return a network, trained here unless its weights are kept; goes on where it was stopped."""
    torch.set_num_threads(1)
    device = torch.device("cuda" if effort.views and torch.cuda.is_available() else "cpu")
    prior = trained("3D-AE", effort, folder).network if name == "3D-ACNN" else None
    torch.manual_seed(NAMES.index("3D-Seg" if name == "3D-ACNN" else name))
    network, prior = _built(name).to(device), prior and prior.to(device)
    if name == "3D-ACNN":
        network.load_state_dict(trained("3D-Seg", effort, folder).network.state_dict())
    optimiser = torch.optim.Adam(network.parameters(), lr=_LEARNING_RATE)
    place, steps = _weights(name, effort, folder), effort.steps_of(name)
    state: dict[str, Any] = {"step": 0, "losses": [], "cpu_seconds": 0.0}
    if place.exists():
        state = torch.load(place, weights_only=True, map_location=device)
        network.load_state_dict(state["network"])
    if 0 < state["step"] < steps:
        optimiser.load_state_dict(state["optimiser"])
    loss = partial(_loss, name, network, prior)
    for step in range(state["step"], steps):
        start = time.process_time()
        rate = float(_LEARNING_RATE * 0.5 * (1 + np.cos(np.pi * step / steps)))
        optimiser.param_groups[0]["lr"] = rate
        with torch.autocast(device.type, torch.bfloat16, enabled=has_bfloat16(device)):
            value = loss(*_batch(step, effort, device))
        optimiser.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        state["losses"].append(float(value.detach()))
        state["cpu_seconds"] += time.process_time() - start
        if step + 1 == steps:
            _save(place, state | {"step": steps, "network": network.state_dict()})
        elif (step + 1) % _EVERY_STEPS == 0:
            state |= {"step": step + 1, "network": network.state_dict()}
            _save(place, state | {"optimiser": optimiser.state_dict()})
    if prior is not None:
        prior.cpu()
    return Trained(network.cpu().eval().requires_grad_(False), _about(network, effort, state))


def _weights(name: str, effort: Effort, folder: Path) -> Path:
    return folder / f"{name.replace(' ', '_')}-{code_digest(effort)}.pt"


def _built(name: str) -> nn.Module:
    if name == "3D-AE":
        network: nn.Module = AutoEncoder(tuple(n // 2 for n in BOX))
    else:
        network = Completion(skips=name == "3D U-Net")
    return network.to(memory_format=torch.channels_last_3d).train()  # type: ignore[call-overload]


def _save(place: Path, state: dict[str, Any]) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    half = place.with_suffix(f".{os.getpid()}")
    torch.save(state, half)
    half.replace(place)


def _about(network: nn.Module, effort: Effort, state: dict[str, Any]) -> dict[str, Any]:
    fifths = np.array_split(np.array(state["losses"]), 5)
    return {
        "parameters": sum(p.numel() for p in network.parameters()),
        "steps": len(state["losses"]),
        "batch": effort.batch,
        "hearts": effort.hearts,
        "cpu_seconds": state["cpu_seconds"],
        "losses": [float(part.mean()) for part in fifths if len(part)],
    }


@lru_cache
def code_digest(effort: Effort = EFFORT) -> str:
    """Digest of this file without its opening and of how much is trained: it names the weights."""
    text = Path(__file__).read_text(encoding="utf-8").partition("\nimport")[2] + repr(effort)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _loss(name: str, network: nn.Module, prior: nn.Module | None, x: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy and soft Dice; for 3D-AE on clean maps too; for 3D-ACNN with codes compared."""
    if name == "3D-AE":
        x, y = torch.cat([x, y[:1]]), torch.cat([y, y[:1]])
    logits = network(x)
    share = logits.softmax(1)
    cross = -(y * logits.log_softmax(1)).sum(1).mean()
    both, sizes = (share * y).sum((0, 2, 3, 4)), (share + y).sum((0, 2, 3, 4))
    value = cross + 1 - (2 * both[1:] / sizes[1:].clamp_min(1)).mean()
    if isinstance(prior, AutoEncoder):
        value = value + _SHAPE_WEIGHT * functional.mse_loss(prior.code(share), prior.code(y))
    loss: Tensor = value
    return loss


# -------------------------------------------------------------------------------------------------- data


def _batch(step: int, effort: Effort, device: torch.device) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng([FIRST_SEED, step])
    pairs = []
    for _ in range(effort.batch):
        number = int(rng.integers(effort.hearts))
        if effort.views:
            pairs.append(_kept_pairs(effort)[number][int(rng.integers(effort.views))])
        else:
            pairs.append(_boxes(_heart(number), int(rng.integers(2**31))))
    x, y = (torch.from_numpy(np.stack(part)).to(device) for part in zip(*pairs, strict=True))
    return _shares(x), _shares(y)


@lru_cache(maxsize=1)
def _kept_pairs(effort: Effort) -> list[list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]]:
    """Make the stacks of all hearts, on half of the processors."""
    workers = max(1, (os.cpu_count() or 1) // 2)
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, fresh, numba.set_num_threads, (1,)) as pool:
        return list(pool.map(partial(_views, effort.views), range(effort.hearts), chunksize=4))


def _views(count: int, number: int) -> list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    heart = _heart(number)
    return [_boxes(heart, 1000 * number + view) for view in range(count)]


@lru_cache(maxsize=200)
def _heart(number: int) -> Any:
    group = _GROUPS[number % len(_GROUPS)]
    phase = _PHASES[number // len(_GROUPS) % len(_PHASES)]
    return sample_heart(FIRST_SEED + number, group=group, phase=phase, with_image=False)


def _boxes(heart: Any, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the boxes of one degraded heart and its truth."""
    low = degrade(heart, seed)
    stack = baselines.interpolate_nearest(low.subject.labels, low.reference).array
    first = corner(stack)
    return _cropped(stack, first), _cropped(low.reference.array, first)


def corner(array: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the first voxel of the box centred on what is labelled."""
    held = np.argwhere(array)
    middle = (held.min(axis=0) + held.max(axis=0) + 1) // 2
    return np.asarray(middle - np.array(BOX) // 2)


def _cropped(array: NDArray[np.uint8], first: NDArray[np.int64]) -> NDArray[np.uint8]:
    box = np.zeros(BOX, dtype=np.uint8)
    into, source = _overlap(array.shape, first)
    box[into] = array[source]
    return box


def _overlap(shape: tuple[int, ...], first: NDArray[np.int64]) -> tuple[Any, Any]:
    """Return the slices of the box and of the array that are the same voxels."""
    low = np.maximum(first, 0)
    high = np.minimum(first + np.array(BOX), shape)
    into = tuple(slice(int(a - f), int(b - f)) for a, b, f in zip(low, high, first, strict=True))
    return into, tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))


def _shares(boxes: Tensor) -> Tensor:
    """Return each label's share in blocks of 2 x 2 x 2 voxels: (N, 5, I, J, K) of (N, 2I, 2J, 2K)."""
    indicators = [(boxes == label).float() for label in range(N_LABELS)]
    return functional.avg_pool3d(torch.stack(indicators, dim=1), 2)


def complete(case: Case, network: nn.Module) -> LabelMap:
    """Return the heart that a network makes of a case's stack, on the lattice of the truth."""
    stack = baselines.interpolate_nearest(case.target.labels, case.truth)
    first = corner(stack.array)
    with torch.inference_mode():
        box = torch.from_numpy(_cropped(stack.array, first)[None])
        share = network(_shares(box)).softmax(1)
        found_box = _enlarged(share, BOX).argmax(1)[0].numpy().astype(np.uint8)
    found = np.zeros(case.truth.shape, dtype=np.uint8)
    into, source = _overlap(found.shape, first)
    found[source] = found_box[into]
    return LabelMap(found, case.truth.voxel_to_world)
