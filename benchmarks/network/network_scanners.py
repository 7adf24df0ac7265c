"""What painted scanners are worth: one small network, trained alike with and without them.

The reduced U-Net of `unet2d_synthetic` is trained three times from the same seed, for the same steps, on
the same synthetic hearts in the same positions: with every effect of a scanner that the augmentation
knows; with none of them, but with every tissue painted anew in each step, as in the other; and with
neither, on the images as they were drawn. Nothing else differs. Beside them stands the shipped network,
which was trained for far longer.

They are measured on synthetic hearts that no network saw, drawn by `cardiacreg.phantoms.mr_image` and
seen through a window as large as the network's box: as they are, with each effect alone at the strong
end of its range, and with tissues at either end of what is painted. The same painter drew the training
hearts, so that images as they are suit the network that was trained on them best. Then on patients: the
development patients of ACDC, and AutoFD, both with labels of experts. Where a network finds no heart,
Dice is 0.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import machine, store, tabulate
from benchmarks.harness.cases import (
    CLINICAL,
    Acquisition,
    DataAbsent,
    Heart,
    acdc,
    autofd,
    synthetic_hearts,
)
from benchmarks.harness.measuring import heart_key, is_development, rounded
from benchmarks.harness.scoring import wilcoxon_p
from benchmarks.harness.store import Record, Unit, gather
from benchmarks.network.network import require_torch
from benchmarks.network.network_acdc import network_digest, true_labels
from benchmarks.network.network_labels import wide_stack
from cardiacreg.errors import InvalidInputError
from cardiacreg.geometry import LV_CAVITY, LV_WALL, RV_CAVITY, STRUCTURES, LabelMap, Volume
from cardiacreg.metrics import baselines, overlap
from cardiacreg.phantoms import mr_image

EFFECTS, PAINTED, DRAWN = "painted, with scanner effects", "painted", "as drawn"
PEER = "unet2d_synthetic, shipped"
METHODS = (EFFECTS, PAINTED, DRAWN, PEER)
AS_IS = "as they are"
SCANNER: dict[str, tuple[str, float]] = {
    "brightness and contrast": ("level", 0.1),
    "gamma": ("gamma", 0.25),
    "noise": ("noise", 0.04),
    "blur": ("blur", 0.5),
    "bias field": ("bias", 0.25),
    "slices of unequal brightness": ("slice_gain", 0.05),
    "lost resolution": ("coarse", 0.4),
    "motion ghosts": ("ghosts", 0.3),
    "fold-over": ("fold", 0.2),
    "small field of view": ("crop", 0.15),
}
"""Option of every effect, and its value in training."""
TISSUES: dict[str, dict[str, float]] = {
    "dark fat": {"FAT": 0.25 * mr_image.BLOOD},
    "fat as bright as blood": {"FAT": mr_image.BLOOD},
    "bright muscle": {"MUSCLE": 0.55 * mr_image.BLOOD},
}
"""Levels at the ends of what is painted."""
_STRUCTURES = (LV_CAVITY, LV_WALL, RV_CAVITY)
_NAMES = tuple(STRUCTURES[n] for n in _STRUCTURES)
_WEIGHTS = "unet2d_synthetic"
_FIRST_SEED, _HEARTS = 80_000, 12
_ALMOST_ONE = 0.999
_MADE_WITH = (
    "data/augmentation", "data/batches", "data/contrast_randomisation", "data/scanner_effects",
    "data/tissue_map", "data/training_hearts", "networks/baseline_networks",
    "networks/slice_unet", "networks/sslln",
    "training/configuration", "training/export", "training/losses", "training/samples", "training/train",
)  # fmt: skip


class _Effort(NamedTuple):
    """How much is trained, on which lattice."""

    steps: int
    batch: int
    hearts: int
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    encoder: tuple[int, ...]
    conditions: tuple[str, ...]
    """Under which the synthetic hearts are seen."""


_FULL = _Effort(
    400, 2, 60, (80, 80, 12), (1.9, 1.9, 10.0), (8, 16, 32, 64, 64), (AS_IS, *SCANNER, *TISSUES)
)
_QUICK = _Effort(
    2, 1, 1, (48, 48, 8), (3.0, 3.0, 10.0), (4, 4, 8, 8, 8), (AS_IS, "motion ghosts", "dark fat")
)


def run(quick: bool, cases: int = _HEARTS) -> dict[str, Any]:
    """Train all three, then measure them; a quick run two steps, one heart and a frame of each set."""
    require_torch()
    effort = _QUICK if quick else _FULL
    trainings = gather(
        "network_scanners", [_training_unit(method, effort) for method in METHODS[:3]]
    )
    hearts = synthetic_hearts(1 if quick else cases)
    seen = [replace(heart, degradation=_degradation(effort)) for heart in hearts]
    units = [_heart_unit(heart, method, effort) for heart in seen for method in METHODS]
    units += [
        _frame_unit(frame, where, method, effort)
        for where, frames in _patients().items()
        for frame in frames[: 1 if quick else None]
        for method in METHODS
    ]
    return {
        "seeds": [_FIRST_SEED, *(heart.seed for heart in hearts)],
        "effort": effort._asdict(),
        "training": trainings,
        "records": gather("network_scanners", units),
    }


def _degradation(effort: _Effort) -> Any:
    """That of a clinical stack, whose pixels are as large as the network's."""
    return replace(CLINICAL, in_plane_spacing_mm=effort.spacing_mm[0])


def _patients() -> dict[str, list[Acquisition]]:
    """Frames by set, of the sets that are there."""
    found: dict[str, list[Acquisition]] = {}
    try:
        for frame in acdc(tuple(n for n in range(1, 101) if is_development(n))):
            found.setdefault(f"ACDC, {frame.phase}", []).append(frame)
        found = dict(sorted(found.items()))
    except DataAbsent:
        pass
    try:
        found["AutoFD, ED"] = autofd()
    except DataAbsent:
        pass
    return found


# ------------------------------------------------------------------------------------------- training


def config_of(method: str, effort: _Effort) -> Any:
    """Return the configuration of one training; all but the augmentation of images is that of all.

    Parameters
    ----------
    method : str
        One of the first three of `METHODS`.
    effort : _Effort
    """
    from cardiacreg_nn.training.configuration import Config

    strengths = {name: value * (method == EFFECTS) for name, value in SCANNER.values()}
    return Config.from_dict({
        "network": {"slices": effort.shape[2], "encoder": list(effort.encoder)},
        "box": {
            "shape": list(effort.shape), "spacing_mm": list(effort.spacing_mm), "native_slices": True,
        },
        "loss": {"alpha": 0.0},
        "augmentation": {
            "rotation_deg": 22.0, "any_axis": False, "tilt_deg": 3.0, "scale": 0.13, "shift_mm": 6.0,
            "mirror": 0.5, "recolour": 0.0, "repaint": 0.0 if method == DRAWN else 1.0, **strengths,
        },
        "data": {
            "synthetic": effort.hearts, "held_out": 0, "first_seed": _FIRST_SEED, "whole_slices": True,
            "real_share": 0.0,
        },
        "training": {
            "kind": "unet2d", "steps": effort.steps, "batch": effort.batch, "learning_rate": 2e-3,
            "average": 0.99, "warmup": 50, "mixed": False, "statistics": min(24, effort.steps),
            "log_every": 10, "checkpoint_every": 100,
        },
    })  # fmt: skip


def _training_unit(method: str, effort: _Effort) -> Unit:
    key = {"method": method, "training": config_of(method, effort).to_dict()}
    return Unit(key, lambda: rounded(_train(method, effort)), _training_digest())


@lru_cache
def _training_digest() -> str:
    """Digest of the code that trains, which the store of measurements does not look at."""
    package = machine.ROOT / "cardiacreg_nn"
    text = b"".join((package / f"{name}.py").read_bytes() for name in _MADE_WITH)
    return hashlib.sha256(text).hexdigest()


def _folder(method: str, effort: _Effort) -> Path:
    """Where the checkpoint and the weights of a training are kept."""
    text = json.dumps([config_of(method, effort).to_dict(), _training_digest()], sort_keys=True)
    name = hashlib.sha256(text.encode()).hexdigest()[:24]
    return store.FOLDER / "network_scanners" / f"training-{name}"


def _train(method: str, effort: _Effort) -> Record:
    """Train one network, or go on where it was stopped; what it took and came to."""
    from cardiacreg_nn.networks.sslln import count_parameters
    from cardiacreg_nn.training.train import LOG, run_training

    folder, start = _folder(method, effort), time.process_time()
    anew = not folder.exists()
    cache = store.FOLDER.parent / "hearts"
    trained = run_training(
        config_of(method, effort), folder, cache=cache, device="cpu", quiet=True,
        command="python -m benchmarks network_scanners",
    )  # fmt: skip
    rows = (
        (folder / LOG).read_text(encoding="utf-8").splitlines() if (folder / LOG).exists() else []
    )
    losses = [float(row.split(",")[3]) for row in rows[1:]][-10:]
    return {
        "method": method,
        "steps": trained.step,
        "parameters": count_parameters(trained.network),
        "cpu_seconds": time.process_time() - start if anew else None,
        "last_loss": float(np.mean(losses)) if losses else None,
    }


@lru_cache(maxsize=len(METHODS))
def _model(method: str, effort: _Effort) -> Any:
    """Return a network ready to predict, trained where it is not kept."""
    from cardiacreg_nn import load_model

    if method == PEER:
        return load_model(_WEIGHTS, "cpu")
    file = _folder(method, effort) / "weights.safetensors"
    if not file.exists():
        _train(method, effort)
    return load_model(file, "cpu")


# ------------------------------------------------------------------------------------ synthetic hearts


def _heart_unit(heart: Heart, method: str, effort: _Effort) -> Unit:
    key = heart_key(heart, method) | _made_by(method, effort) | {"seen": list(effort.conditions)}

    def measure() -> Record:
        found = {
            name: _scored(*_seen(heart, name, effort.shape[0]), method, effort)
            for name in effort.conditions
        }
        return {"case": heart.name, "method": method, "dice": found}

    return Unit(key, lambda: rounded(measure()))


def _made_by(method: str, effort: _Effort) -> Record:
    """What a measurement of a network depends on."""
    if method == PEER:
        return {"sha256": _model(PEER, effort).card["sha256"], "code": network_digest()}
    code = [_training_digest(), network_digest()]
    return {"training": config_of(method, effort).to_dict(), "code": code}


@lru_cache(maxsize=2 * (1 + len(SCANNER) + len(TISSUES)))
def _seen(heart: Heart, condition: str, size: int) -> tuple[Volume, LabelMap]:
    """Return the stack of a heart under one condition, with its true labels."""
    if condition in SCANNER:
        image, truth = _seen(heart, AS_IS, size)
        signs = heart.seed + 1000 * list(SCANNER).index(condition)
        array = with_effect(image.array, truth.array, *SCANNER[condition], signs)
        return Volume(array, image.voxel_to_world), truth
    with ExitStack() as changed:
        for tissue, level in TISSUES.get(condition, {}).items():
            changed.enter_context(patch.object(mr_image, tissue, level))
        return _window(wide_stack(heart), size)


def _window(stack: Any, size: int) -> tuple[Volume, LabelMap]:
    """Cut a stack to so many pixels about its heart."""
    middle = np.argwhere(stack.labels.array)[:, :2].mean(axis=0)
    first = np.maximum(np.rint(middle - size / 2).astype(int), 0)
    part = tuple(slice(start, start + size) for start in first)
    matrix = stack.labels.voxel_to_world.copy()
    matrix[:3, 3] += matrix[:3, :2] @ first
    return Volume(stack.image.array[part], matrix), LabelMap(stack.labels.array[part], matrix)


def with_effect(
    image: NDArray[Any], labels: NDArray[Any], option: str, value: float, seed: int
) -> NDArray[np.float32]:
    """Return a stack under one effect at the strong end of its range.

    Parameters
    ----------
    image, labels : ndarray, shape (i, j, k)
    option : str
        Of `AugmentationOptions`.
    value : float
        In training: two such standard deviations are reached. Of what has a probability, the range
        is that of the effect itself.
    seed : int
        Of signs and axes.

    Returns
    -------
    ndarray of float32, shape (i, j, k)
        From 0 to 1.
    """
    import torch

    from cardiacreg_nn.data.augmentation import AugmentationOptions, change_intensities
    from cardiacreg_nn.data.scanner_effects import ScannerEffects, with_effects

    low, high = np.percentile(image, (1, 99))
    scaled = np.clip((image - low) / (high - low), 0, 1).astype(np.float32)
    order = (
        (2, 0, 1) if seed % 2 else (2, 1, 0)
    )  # effects along one axis: of every second heart another
    stack, held = (torch.from_numpy(np.transpose(a, order).copy())[None] for a in (scaled, labels))
    draw = _strongest(seed)
    if option in ScannerEffects._fields:
        found = with_effects(stack, held, ScannerEffects(**{option: 1.0}), draw.uniform)
    else:
        options = AugmentationOptions(**asdict(AugmentationOptions.none()) | {option: value})
        found = change_intensities(stack, options, draw)
    return np.ascontiguousarray(np.transpose(found[0].numpy(), np.argsort(order)), dtype=np.float32)


def _strongest(seed: int) -> Any:
    """Numbers at the ends of ranges: normal ones two deviations from 0, uniform ones the highest."""
    import torch

    from cardiacreg_nn.data.augmentation import Draw

    class Strongest(Draw):
        def normal(self, *shape: int, sd: float = 1.0) -> Any:
            signs = torch.randint(2, (self.n, *shape), generator=self.generator) * 2 - 1
            return 2.0 * sd * signs

        def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Any:
            return torch.full((self.n, *shape), low + _ALMOST_ONE * (high - low))

    return Strongest(torch.Generator().manual_seed(seed), torch.device("cpu"), 1)


def _scored(image: Volume, truth: LabelMap, method: str, effort: _Effort) -> list[float] | None:
    """Dice of the three structures; none where no heart is found."""
    from cardiacreg_nn import predict

    try:
        found = predict(image, weights=_model(method, effort), views=1).labels
    except InvalidInputError as error:
        if error.code != "NO_HEART":
            raise
        return None
    return [overlap.dice(found, truth, label) for label in _STRUCTURES]


# ------------------------------------------------------------------------------------------- patients


def _frame_unit(frame: Acquisition, where: str, method: str, effort: _Effort) -> Unit:
    key = {"case": frame.name, "set": where, "method": method, **_made_by(method, effort)}

    def measure() -> Record:
        return {
            "case": frame.name, "method": method, "dice": {where: _scored(*_read(frame), method, effort)},
        }  # fmt: skip

    return Unit(key, lambda: rounded(measure()))


def _read(frame: Acquisition) -> tuple[Volume, LabelMap]:
    """Image and true labels of a frame on one lattice; those of AutoFD have more slices."""
    from cardiacreg.io.nifti import read_volume

    image, truth = read_volume(frame.image), true_labels(frame)
    if image.shape == truth.shape:
        return Volume(image.array, truth.voxel_to_world), truth
    empty = LabelMap(np.zeros(image.shape, dtype=np.uint8), image.voxel_to_world)
    return image, baselines.interpolate_nearest(truth, empty)


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return what was trained, Dice by set and by effect, and what effects and painting gain."""
    found = {"network-scanners-training": _training_table(result["training"])}
    records = [r for r in result["records"] if "dice" in r]
    sets = list(dict.fromkeys(name for r in records for name in r["dice"]))
    drawn = [name for name in sets if name in (AS_IS, *SCANNER, *TISSUES)]
    patients = [name for name in sets if name not in drawn]
    if patients:
        found["network-scanners-patients"] = _dice_table(records, patients)
        found["network-scanners-patients-gain"] = _gain_table(
            records, patients, ((EFFECTS, PAINTED), (PAINTED, DRAWN), (EFFECTS, PEER))
        )
    found["network-scanners-hearts"] = _mean_table(records, drawn)
    found["network-scanners-hearts-effects"] = _gain_table(records, drawn, ((EFFECTS, PAINTED),))
    if any(r["method"] == DRAWN for r in records):
        found["network-scanners-hearts-painting"] = _gain_table(records, drawn, ((PAINTED, DRAWN),))
    return found


def _training_table(trainings: Sequence[Record]) -> str:
    rows = [
        [
            each["method"], str(each["steps"]), f"{each['parameters']:,}",
            "–" if each["cpu_seconds"] is None else f"{each['cpu_seconds'] / 60:.1f}",
            "–" if each["last_loss"] is None else f"{each['last_loss']:.3f}",
        ]
        for each in trainings
        if "error" not in each
    ]  # fmt: skip
    header = ["training", "steps", "weights", "minutes of one processor core", "loss at the end"]
    return tabulate.markdown(header, rows)


def _dice(records: Sequence[Record], name: str, method: str) -> dict[str, list[float]]:
    """Dice of the structures by case; 0 where no heart was found."""
    own = [r for r in records if r["method"] == method and name in r["dice"]]
    return {r["case"]: r["dice"][name] or [0.0] * len(_NAMES) for r in own}


def _measured(records: Sequence[Record]) -> list[str]:
    """Return the networks that were measured, in their order."""
    known = tabulate.methods(records)
    return [method for method in METHODS if method in known]


def _dice_table(records: Sequence[Record], sets: Sequence[str]) -> str:
    rows = []
    for name in sets:
        for method in _measured(records):
            own = list(_dice(records, name, method).values())
            columns = np.array(own).reshape(-1, len(_NAMES)).T
            lost = sum(not any(each) for each in own)
            cells = [tabulate.mean_sd(column.tolist()) for column in columns]
            rows.append([name, method, str(len(own)), *cells, str(lost)])
    return tabulate.markdown(["Dice", "network", "frames", *_NAMES, "no heart found"], rows)


def _mean_table(records: Sequence[Record], sets: Sequence[str]) -> str:
    """Mean Dice over the three structures, one column per network."""
    methods, rows = _measured(records), []
    for name in sets:
        means = [[float(np.mean(d)) for d in _dice(records, name, m).values()] for m in methods]
        rows.append([name, *[tabulate.mean_sd(own) for own in means]])
    return tabulate.markdown(["mean Dice of three structures", *methods], rows)


def _gain_table(
    records: Sequence[Record], sets: Sequence[str], pairs: Sequence[tuple[str, str]]
) -> str:
    """Mean paired difference of every structure, with its Wilcoxon p-value."""
    rows = []
    for name in sets:
        for first, second in pairs:
            ours, theirs = (_dice(records, name, method) for method in (first, second))
            both = [case for case in ours if case in theirs]
            if not both:
                continue
            pair = [np.array([own[case] for case in both]) for own in (ours, theirs)]
            cells = [
                f"{np.mean(a - b):+.3f} ({tabulate.p_text(wilcoxon_p(a, b))})"
                for a, b in zip(*(each.T for each in pair), strict=True)
            ]
            rows.append([name, f"{first} minus {second}", str(len(both)), *cells])
    return tabulate.markdown(["difference of Dice", "networks", "pairs", *_NAMES], rows)
