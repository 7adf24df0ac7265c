"""High-resolution synthetic hearts: SSLLN against 2D and 3D networks, lost slices, and the losses.

The paper's Table I (networks), Fig. 8 (5, 13 and 20 of 80 slices of 2 mm zeroed: gaps of 10, 26 and 40
mm) and Section II-B (losses, landmark head), each on networks that are trained here, by the same loop,
on the same synthetic hearts for the same processor time, and tested on hearts that none of them saw. A
step of SSLLN costs a small part of the others', so it takes more of them. A run on a CPU is a comparison
at equal, small effort, not of what the networks reach. Every network is stored as soon as it is measured.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from benchmarks import machine, tabulate
from benchmarks.measuring import rounded
from benchmarks.network import require_torch
from benchmarks.store import Unit, gather
from cardiacreg import metrics
from cardiacreg.geometry import STRUCTURES, LabelMap

GAPS_MM = (0.0, 10.0, 26.0, 40.0)
KINDS = {"2D FCN": "fcn2d", "3D FCN": "fcn3d", "3D U-Net": "unet3d", "SSLLN": "sslln"}
_FIRST_TEST_SEED, _FIRST_SEED = 60_000, 50_000
_SHAPE, _SPACING_MM = (48, 48, 24), (3.0, 3.0, 5.0)
_MOST_STEPS = 5000
_TRAINS = (
    "augmentation", "comparators", "configuration", "landmark_extraction", "losses", "network",
    "painting", "slice_unet", "sources", "tissues", "train", "training_data",
)  # fmt: skip


class _Effort(NamedTuple):
    """How much is spent on every network."""

    seconds: float
    """Of the processor."""
    train: int
    test: int


_FULL, _QUICK = _Effort(80.0, 24, 12), _Effort(0.2, 2, 1)


def run(quick: bool) -> dict[str, Any]:
    """Train four networks and five variants of SSLLN, and test them with and without gaps."""
    require_torch()
    effort = _QUICK if quick else _FULL
    units = [_unit(variant, effort) for variant in _variants()]
    found = gather("network_hr", units)
    records = [r for each in found for r in each.get("records", [each])]
    return {
        "seeds": [_FIRST_SEED, _FIRST_TEST_SEED],
        "effort": effort._asdict(),
        "steps": {each["method"]: each["steps"] for each in found if "steps" in each},
        "records": records,
    }


def _unit(variant: tuple[str, str, Any, str], effort: _Effort) -> Unit:
    method, kind, loss, head = variant
    key = {
        "method": method, "kind": kind, "loss": loss.to_dict(), "head": head,
        "effort": list(effort),
    }  # fmt: skip
    return Unit(key, lambda: rounded(_measure(variant, effort)), _digest())


@lru_cache
def _digest() -> str:
    """Digest of what these figures depend on: training, synthetic hearts, and this file."""
    files = [machine.ROOT / "cardiacreg_nn" / f"{name}.py" for name in _TRAINS]
    for pattern in ("phantom*.py", "landmarks.py", "metrics.py"):
        files += sorted((machine.ROOT / "cardiacreg").glob(pattern))
    own = (machine.ROOT / "benchmarks" / "network_hr.py").read_bytes()
    text = b"".join(path.read_bytes() for path in files) + own.split(b"\ndef tables(")[0]
    return hashlib.sha256(text).hexdigest()


@lru_cache
def _hearts(first_seed: int, count: int) -> list[Any]:
    from cardiacreg_nn.sources import synthetic_source

    return [synthetic_source(first_seed + n) for n in range(count)]


def _variants() -> list[tuple[str, str, Any, str]]:
    from cardiacreg_nn.losses import LossConfig

    own = LossConfig()
    return [
        *[(name, kind, own, "voxels") for name, kind in KINDS.items()],
        ("Dice per sample, eq. (2)", "sslln", dataclasses.replace(own, dice="sample"), "voxels"),
        ("no cross-entropy", "sslln", dataclasses.replace(own, cross_entropy=0.0), "voxels"),
        ("as printed, beta = .2", "sslln", LossConfig.paper(), "voxels"),
        ("as released", "sslln", LossConfig.released(), "voxels"),
        ("coordinates regressed", "sslln", own, "coordinates"),
    ]


def _measure(variant: tuple[str, str, Any, str], effort: _Effort) -> dict[str, Any]:
    """Train one network and test it on every heart, SSLLN's variants without gaps only."""
    from cardiacreg_nn.train import averaged_network
    from cardiacreg_nn.training_data import TrainingData

    method, *settings = variant
    data = TrainingData([], _hearts(_FIRST_SEED, effort.train), [])
    run_ = _trained(data, *settings, effort.seconds)
    network = averaged_network(run_, data)
    records = [
        _test(method, network, run_.config, source, gap)
        for gap in (GAPS_MM if method in KINDS else GAPS_MM[:1])
        for source in _hearts(_FIRST_TEST_SEED, effort.test)
    ]
    return {"method": method, "steps": run_.step, "records": records}


def _trained(data: Any, kind: str, loss: Any, head: str, seconds: float) -> Any:
    from cardiacreg_nn.configuration import Config
    from cardiacreg_nn.train import Run

    config = Config.from_dict(
        {
            "network": {"slices": _SHAPE[2], "landmark_head": head},
            "preset": {"shape": _SHAPE, "spacing_mm": _SPACING_MM},
            "loss": loss.to_dict(),
            "augmentation": {"thick_slices": False, "drop_slice": 0.0, "slice_shift_mm": 0.0},
            "training": {
                "kind": kind,
                "steps": _MOST_STEPS,
                "batch": 2,
                "learning_rate": 2e-3,
                "statistics": 8,
            },
        }
    )
    run_, start = Run(config), time.process_time()
    while run_.spent < 1 and run_.step < _MOST_STEPS:
        run_.advance(data)
        run_.spent = (time.process_time() - start) / seconds
    return run_


def _test(method: str, network: Any, config: Any, source: Any, gap_mm: float) -> dict[str, Any]:
    """Predict one heart, with slices around its middle zeroed, on the network's lattice."""
    import torch

    from cardiacreg_nn.augmentation import AugmentationOptions, augment
    from cardiacreg_nn.landmark_extraction import extract_landmarks, regressed_landmarks
    from cardiacreg_nn.sources import collate
    from cardiacreg_nn.train import box_shape, box_spacing
    from cardiacreg_nn.training_data import step_generator

    stack, target = augment(
        collate([source]), box_shape(config), box_spacing(config), AugmentationOptions.none(),
        step_generator(0, 0, 0),
    )  # fmt: skip
    lost = round(gap_mm / _SPACING_MM[2])
    first = (stack.shape[1] - lost) // 2
    stack[:, first : first + lost] = 0
    with torch.inference_mode():
        found = network(stack)
    matrix = np.diag([*_SPACING_MM, 1.0])
    labels, truth = (
        LabelMap(np.moveaxis(t[0].numpy().astype(np.uint8), 0, 2), matrix)
        for t in (found.structures.argmax(1), target.structures)
    )
    record: dict[str, Any] = {
        "case": source.name,
        "method": method,
        "gap_mm": gap_mm,
        "scores": {"raw": metrics.compare(labels, truth, structures=STRUCTURES)},
    }
    if found.landmarks is not None:
        spacing = np.array(box_spacing(config))
        if found.landmarks.ndim == 3:
            points = regressed_landmarks(found.landmarks[0].numpy(), box_shape(config))
        else:
            points = extract_landmarks(found.landmarks[0].softmax(0).numpy(), spacing)
        gap = np.array([p.position for p in points]) - target.landmarks[0].numpy()
        error = np.linalg.norm(gap * spacing, axis=1)
        record["landmark_error_mm"] = [None if np.isnan(e) else float(e) for e in error]
    return record


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return Table I, Fig. 8 and the losses."""
    good = [r for r in result["records"] if "error" not in r]
    whole = [r for r in good if r["gap_mm"] == 0]
    networks = [r for r in whole if r["method"] in KINDS]
    losses = [r for r in whole if r["method"] not in KINDS or r["method"] == "SSLLN"]
    gapped = [
        r | {"method": f"{r['method']}, gap of {r['gap_mm']:.0f} mm"}
        for r in good
        if r["method"] in ("SSLLN", "2D FCN", "3D FCN", "3D U-Net")
    ]
    steps = [[name, str(count)] for name, count in result["steps"].items()]
    others = [name for name in KINDS if name != "SSLLN"]
    return {
        "nn-hr-dice": tabulate.figure_table(networks, "dice"),
        "nn-hr-hausdorff": tabulate.figure_table(networks, "hausdorff_mm", digits=1),
        "nn-hr-significance": tabulate.comparison_table(networks, "SSLLN", others),
        "nn-hr-gaps": tabulate.figure_table(gapped, "dice"),
        "nn-hr-losses": tabulate.figure_table(losses, "dice"),
        "nn-hr-landmarks": _landmarks(losses),
        "nn-hr-steps": tabulate.markdown(["network", "steps of two volumes"], steps),
    }


def plots_of(result: dict[str, Any]) -> dict[str, Any]:
    """Return box plots of the networks (Fig. 7) and their Dice by gap (Fig. 8)."""
    from benchmarks import plots

    own = [r for r in result["records"] if "error" not in r and r["method"] in KINDS]
    whole = [r for r in own if r["gap_mm"] == 0]
    return {"network-hr-dice": plots.boxes(whole, "dice", "Dice"), "network-hr-gaps": _gaps(own)}


def _gaps(records: list[dict[str, Any]]) -> Any:
    """Draw one panel per structure: mean Dice over the gap's size, a line per network."""
    from benchmarks import plots

    drawn, axes = plots.panels(1, len(tabulate.ORDER))
    for panel, structure in zip(axes[0], tabulate.ORDER, strict=True):
        for method, colour in zip(KINDS, plots.METHOD_COLOURS, strict=False):
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
    drawn.legend(handles, labels, loc="outside lower center", ncols=len(KINDS))
    return drawn


def _landmarks(records: list[dict[str, Any]]) -> str:
    def mean(own: Any) -> str:
        found = [e for r in own for e in r.get("landmark_error_mm", []) if e is not None]
        return tabulate.mean_sd(found, 1)

    def missing(own: Any) -> str:
        found = [e for r in own for e in r.get("landmark_error_mm", [])]
        return f"{sum(e is None for e in found)} of {len(found)}"

    return tabulate.summary_table(records, {"landmark error, mm": mean, "missing": missing})
