"""High-resolution hearts: SSLLN against 2D and 3D networks, lost slices, and the losses.

The paper's Table I (networks), Fig. 8 (5, 13 and 20 of 80 slices of 2 mm zeroed: gaps of 10, 26 and 40
mm) and Section II-B (losses, landmark head), each on networks that are trained here by the same loop on
the same hearts, synthetic ones and ten random shapes of ``hr_bank``, and tested on hearts that none of
them saw: synthetic ones, and the nineteen real anatomies. Shapes and anatomies have no images; theirs are
painted over their labels. The random shapes are drawn from a model of these anatomies. On a GPU every
network takes the same steps, on a CPU the same, small, processor time, so that a step that costs less is
taken more often. Every network is stored as soon as it is measured.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.harness import machine, tabulate
from benchmarks.harness.cases import ANATOMIES, RANDOM_SHAPES
from benchmarks.harness.measuring import rounded
from benchmarks.harness.store import Unit, gather
from benchmarks.network.network import require_torch
from cardiacreg.geometry import STRUCTURES, LabelMap
from cardiacreg.metrics import overlap

GAPS_MM = (0.0, 10.0, 26.0, 40.0)
KINDS = {"2D FCN": "fcn2d", "3D FCN": "fcn3d", "3D U-Net": "unet3d", "SSLLN": "sslln"}
TAUGHT = "SSLLN, taught gaps"
SYNTHETIC, REAL = "synthetic", "real anatomies"
_FIRST_TEST_SEED, _FIRST_SEED = 60_000, 50_000
_TRAINS = (
    "data/augmentation", "data/batches", "data/contrast_randomisation", "data/tissue_map",
    "data/training_hearts", "inference/landmark_extraction", "networks/baseline_networks",
    "networks/slice_unet", "networks/sslln", "training/configuration", "training/losses",
    "training/train",
)  # fmt: skip
_MADE_WITH = (
    "anatomy/landmarks", "metrics/overlap", "phantoms/anatomy", "phantoms/hearts",
    "phantoms/mr_image", "phantoms/population", "phantoms/published_measures", "phantoms/radii",
)  # fmt: skip


class _Effort(NamedTuple):
    """How much is spent on every network, on which lattice."""

    steps: int
    seconds: float
    """Of the processor, after which the steps end; 0 for no end."""
    train: int
    test: int
    batch: int
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    anatomies: int = 0
    """How many random shapes are trained on; without any, no real anatomies are tested on."""


_FULL = _Effort(5000, 80.0, 24, 12, 2, (48, 48, 24), (3.0, 3.0, 5.0), 10)
_QUICK = _Effort(5000, 0.2, 2, 1, 2, (48, 48, 24), (3.0, 3.0, 5.0))
_GPU = _Effort(700, 0.0, 150, 16, 4, (112, 112, 64), (1.75, 1.75, 2.5), 10)


class _Variant(NamedTuple):
    method: str
    kind: str
    loss: Any
    head: str = "voxels"
    gap: float = 0.0


def run(quick: bool) -> dict[str, Any]:
    """Train four networks and six variants of SSLLN, and test them with and without gaps."""
    import torch

    require_torch()
    device = "cuda" if torch.cuda.is_available() and not quick else "cpu"
    effort = _QUICK if quick else _GPU if device == "cuda" else _FULL
    units = [_unit(variant, effort, device) for variant in _variants()]
    found = gather("network_hr", units)
    records = [r for each in found for r in each.get("records", [each])]
    return {
        "seeds": [_FIRST_SEED, _FIRST_TEST_SEED],
        "device": torch.cuda.get_device_name() if device == "cuda" else "CPU, one thread",
        "effort": effort._asdict(),
        "training": {
            each["method"]: {"steps": each["steps"], "seconds": each["seconds"]}
            for each in found
            if "steps" in each
        },
        "records": records,
    }


def _unit(variant: _Variant, effort: _Effort, device: str) -> Unit:
    key = variant._asdict() | {
        "loss": variant.loss.to_dict(), "effort": list(effort), "device": device,
        "anatomies": list(_anatomies(effort)),
    }  # fmt: skip
    return Unit(key, lambda: rounded(_measure(variant, effort, device)), _digest())


@lru_cache
def _digest() -> str:
    """Digest of what these figures depend on: training, synthetic hearts, and this file."""
    files = [machine.ROOT / "cardiacreg_nn" / f"{name}.py" for name in _TRAINS]
    files += [machine.ROOT / "cardiacreg" / f"{name}.py" for name in _MADE_WITH]
    own = Path(__file__).read_bytes()
    text = b"".join(path.read_bytes() for path in files) + own.split(b"\ndef tables(")[0]
    return hashlib.sha256(text).hexdigest()


def _variants() -> list[_Variant]:
    from cardiacreg_nn.training.losses import LossConfig

    own = LossConfig()
    return [
        *[_Variant(name, kind, own) for name, kind in KINDS.items()],
        _Variant(TAUGHT, "sslln", own, gap=0.5),
        _Variant("Dice per sample, eq. (2)", "sslln", dataclasses.replace(own, dice="sample")),
        _Variant("no cross-entropy", "sslln", dataclasses.replace(own, cross_entropy=0.0)),
        _Variant("as printed, beta = .2", "sslln", LossConfig.paper()),
        _Variant("as released", "sslln", LossConfig.released()),
        _Variant("coordinates regressed", "sslln", own, "coordinates"),
    ]


@lru_cache
def _hearts(first_seed: int, count: int) -> list[Any]:
    from cardiacreg_nn.data.batches import cached_synthetic

    folder = machine.ROOT / "bench_output" / "hearts"
    return [cached_synthetic(first_seed + n, folder) for n in range(count)]


def _anatomies(effort: _Effort) -> tuple[str, ...]:
    """Random shapes to train on, then real anatomies to test on; none without the data."""
    from cardiacreg_nn.data.batches import data_folder

    try:
        data_folder("hr_bank")
    except FileNotFoundError:
        return ()
    return (*RANDOM_SHAPES[: effort.anatomies], *ANATOMIES) if effort.anatomies else ()


@lru_cache
def _real_hearts(effort: _Effort) -> list[Any]:
    from cardiacreg_nn.data.batches import data_folder
    from cardiacreg_nn.data.training_hearts import anatomy_sources

    names = _anatomies(effort)
    return anatomy_sources(data_folder("hr_bank"), names) if names else []


def _measure(variant: _Variant, effort: _Effort, device: str) -> dict[str, Any]:
    """Train one network and test it on every heart, without gaps only where losses are compared."""
    from cardiacreg_nn.data.batches import TrainingData

    real, method = _real_hearts(effort), variant.method
    seen = _hearts(_FIRST_SEED, effort.train) + real[: effort.anatomies]
    tests = {
        SYNTHETIC: _hearts(_FIRST_TEST_SEED, effort.test),
        REAL: real[effort.anatomies :],
    }
    data, start = TrainingData([], seen, []), time.perf_counter()
    run_ = _trained(data, variant, effort, device)
    seconds = time.perf_counter() - start
    network = run_.averaged(data)
    records = [
        _test(method, network, run_.config, source, gap) | {"population": population}
        for gap in (GAPS_MM if method in (*KINDS, TAUGHT) else GAPS_MM[:1])
        for population, sources in tests.items()
        for source in sources
    ]
    return {"method": method, "steps": run_.step, "seconds": seconds, "records": records}


def _trained(data: Any, variant: _Variant, effort: _Effort, device: str) -> Any:
    from cardiacreg_nn.training.configuration import Config
    from cardiacreg_nn.training.train import Run

    config = Config.from_dict(
        {
            "network": {"slices": effort.shape[2], "landmark_head": variant.head},
            "box": {"shape": effort.shape, "spacing_mm": effort.spacing_mm},
            "loss": variant.loss.to_dict(),
            "augmentation": {
                "thick_slices": False,
                "drop_slice": 0.0,
                "slice_shift_mm": 0.0,
                "gap": variant.gap,
            },
            "training": {
                "kind": variant.kind,
                "steps": effort.steps,
                "batch": effort.batch,
                "learning_rate": 2e-3,
                "statistics": 8,
            },
        }
    )
    run_, start = Run(config, device), time.process_time()
    while run_.spent < 1 and run_.step < effort.steps:
        run_.advance(data)
        if effort.seconds:
            run_.spent = (time.process_time() - start) / effort.seconds
    return run_


def _test(method: str, network: Any, config: Any, source: Any, gap_mm: float) -> dict[str, Any]:
    """Predict one heart, with slices around its middle zeroed, on the network's lattice."""
    import torch

    from cardiacreg_nn.data.augmentation import AugmentationOptions, augment
    from cardiacreg_nn.data.batches import step_generator
    from cardiacreg_nn.data.training_hearts import collate
    from cardiacreg_nn.training.samples import box_shape, box_spacing

    device = next(network.parameters()).device
    stack, target = augment(
        collate([source], device), box_shape(config), box_spacing(config),
        AugmentationOptions.none(), step_generator(0, 0, 0),
    )  # fmt: skip
    lost = round(gap_mm / config.box.spacing_mm[2])
    first = (stack.shape[1] - lost) // 2
    stack[:, first : first + lost] = 0
    with torch.inference_mode():
        found = network(stack)
    matrix = np.diag([*config.box.spacing_mm, 1.0])
    labels, truth = (
        LabelMap(np.moveaxis(t[0].cpu().numpy().astype(np.uint8), 0, 2), matrix)
        for t in (found.structures.argmax(1), target.structures)
    )
    record: dict[str, Any] = {
        "case": source.name,
        "method": method,
        "gap_mm": gap_mm,
        "scores": {"raw": overlap.compare(labels, truth, structures=STRUCTURES)},
    }
    if found.landmarks is not None:
        truth_points = target.landmarks[0].cpu().numpy()
        record["landmark_error_mm"] = _landmark_errors(found.landmarks.cpu(), truth_points, config)
    return record


def _landmark_errors(found: Any, truth: Any, config: Any) -> list[float | None]:
    """Distance of each landmark from its true place, None where it is missing."""
    from cardiacreg_nn.inference.landmark_extraction import extract_landmarks, regressed_landmarks
    from cardiacreg_nn.training.samples import box_shape, box_spacing

    spacing = np.array(box_spacing(config))
    if found.ndim == 3:
        points = regressed_landmarks(found[0].numpy(), box_shape(config))
    else:
        points = extract_landmarks(found[0].softmax(0).numpy(), spacing)
    gap = np.array([p.position for p in points]) - truth
    return [None if np.isnan(e) else float(e) for e in np.linalg.norm(gap * spacing, axis=1)]


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return Table I and Fig. 8 for both populations, and the losses."""
    good = [r for r in result["records"] if "error" not in r]
    gapped_methods = (*KINDS, TAUGHT)
    others = [name for name in KINDS if name != "SSLLN"]
    found: dict[str, str] = {}
    for population, word in ((SYNTHETIC, "hr"), (REAL, "anatomy")):
        own = [r for r in good if r["population"] == population]
        networks = [r for r in own if r["gap_mm"] == 0 and r["method"] in KINDS]
        gapped = [
            r | {"method": f"{r['method']}, gap of {r['gap_mm']:.0f} mm"}
            for r in own
            if r["method"] in gapped_methods
        ]
        found |= {
            f"nn-{word}-dice": tabulate.figure_table(networks, "dice"),
            f"nn-{word}-hausdorff": tabulate.figure_table(networks, "hausdorff_mm", digits=1),
            f"nn-{word}-significance": tabulate.comparison_table(networks, "SSLLN", others),
            f"nn-{word}-gaps": tabulate.figure_table(gapped, "dice"),
        }
    losses = [
        r
        for r in good
        if r["gap_mm"] == 0
        and r["population"] == SYNTHETIC
        and r["method"] not in (*others, TAUGHT)
    ]
    return found | {
        "nn-hr-losses": tabulate.figure_table(losses, "dice"),
        "nn-hr-landmarks": _landmarks(losses),
        "nn-hr-steps": _training(result),
    }


def _training(result: dict[str, Any]) -> str:
    batch = result["effort"]["batch"]
    rows = [
        [name, str(each["steps"]), f"{each['seconds']:.0f}"]
        for name, each in result["training"].items()
    ]
    return tabulate.markdown(
        [f"network on {result['device']}", f"steps of {batch} volumes", "seconds"], rows
    )


def plots_of(result: dict[str, Any]) -> dict[str, Any]:
    """Return box plots of the networks (Fig. 7) and their Dice by gap (Fig. 8)."""
    from benchmarks.harness import plots

    drawn = {}
    for population, word in ((SYNTHETIC, "hr"), (REAL, "anatomy")):
        own = [
            r
            for r in result["records"]
            if "error" not in r
            and r["method"] in (*KINDS, TAUGHT)
            and r["population"] == population
        ]
        whole = [r for r in own if r["gap_mm"] == 0 and r["method"] in KINDS]
        if own:
            drawn[f"network-{word}-dice"] = plots.boxes(whole, "dice", "Dice")
            drawn[f"network-{word}-gaps"] = _gaps(own)
    return drawn


def _gaps(records: list[dict[str, Any]]) -> Any:
    """Draw one panel per structure: mean Dice over the gap's size, a line per network."""
    from benchmarks.harness import plots

    drawn, axes = plots.panels(1, len(tabulate.ORDER))
    methods = (*KINDS, TAUGHT)
    for panel, structure in zip(axes[0], tabulate.ORDER, strict=True):
        for method, colour in zip(methods, plots.METHOD_COLOURS, strict=False):
            found = [
                tabulate.values(
                    [r for r in records if r["gap_mm"] == gap], method, structure, "dice", "raw"
                )
                for gap in GAPS_MM
            ]
            plots.curve(panel, GAPS_MM, found, color=colour, label=method)
        panel.set(title=structure, xlabel="gap, mm")
    axes[0, 0].set_ylabel("Dice")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside lower center", ncols=len(methods))
    return drawn


def _landmarks(records: list[dict[str, Any]]) -> str:
    def mean(own: Any) -> str:
        found = [e for r in own for e in r.get("landmark_error_mm", []) if e is not None]
        return tabulate.mean_sd(found, 1)

    def missing(own: Any) -> str:
        found = [e for r in own for e in r.get("landmark_error_mm", [])]
        return f"{sum(e is None for e in found)} of {len(found)}"

    return tabulate.summary_table(records, {"landmark error, mm": mean, "missing": missing})
