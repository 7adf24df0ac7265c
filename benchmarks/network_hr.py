"""High-resolution synthetic hearts: SSLLN against 2D and 3D networks, lost slices, and the losses.

The paper's Table I (networks), Fig. 8 (5, 13 and 20 of 80 slices of 2 mm zeroed: gaps of 10, 26 and 40
mm) and Section II-B (losses, landmark head), each on networks that are trained here, by the same loop,
on the same synthetic hearts for the same number of steps, and tested on hearts that none of them saw. A
run on a CPU is a comparison at equal, small effort, not of what the networks reach.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from benchmarks import tabulate
from benchmarks.measuring import rounded
from benchmarks.network import require_torch
from cardiacreg import metrics
from cardiacreg.geometry import STRUCTURES, LabelMap

GAPS_MM = (0.0, 10.0, 26.0, 40.0)
KINDS = {"2D FCN": "fcn2d", "3D FCN": "fcn3d", "3D U-Net": "unet3d", "SSLLN": "sslln"}
_FIRST_TEST_SEED, _FIRST_SEED = 60_000, 50_000
_SPACING_MM = (2.5, 2.5, 5.0)


def run(quick: bool) -> dict[str, Any]:
    """Train four networks and four losses, and test them with and without gaps."""
    require_torch()
    from cardiacreg_nn.sources import synthetic_source
    from cardiacreg_nn.train import averaged_network
    from cardiacreg_nn.training_data import TrainingData

    counts = (2, 1, 2) if quick else (24, 6, 60)
    train, test = (
        [synthetic_source(first + n) for n in range(count)]
        for first, count in ((_FIRST_SEED, counts[0]), (_FIRST_TEST_SEED, counts[1]))
    )
    data = TrainingData([], train, test)
    records = []
    for method, training, loss, head in _variants():
        run_ = _trained(data, training, loss, head, counts[2], quick)
        network = averaged_network(run_, data)
        gaps = GAPS_MM if method in KINDS else GAPS_MM[:1]
        records += [
            _test(method, network, run_.config, source, gap) for gap in gaps for source in test
        ]
    return {"seeds": [_FIRST_SEED, _FIRST_TEST_SEED], "steps": counts[2], "train": counts[0],
            "records": rounded(records)}  # fmt: skip


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


def _trained(data: Any, kind: str, loss: Any, head: str, steps: int, quick: bool) -> Any:
    from cardiacreg_nn.configuration import Config
    from cardiacreg_nn.train import Run

    shape = (32, 32, 8) if quick else (64, 64, 24)
    config = Config.from_dict(
        {
            "network": {"slices": shape[2], "landmark_head": head},
            "preset": {"shape": shape, "spacing_mm": _SPACING_MM},
            "loss": loss.to_dict(),
            "augmentation": {"thick_slices": False, "drop_slice": 0.0, "slice_shift_mm": 0.0},
            "training": {"kind": kind, "steps": steps, "batch": 4},
        }
    )
    run_ = Run(config)
    for _ in range(steps):
        run_.advance(data)
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
    whole = [r for r in result["records"] if r["gap_mm"] == 0]
    networks = [r for r in whole if r["method"] in KINDS]
    losses = [r for r in whole if r["method"] not in KINDS or r["method"] == "SSLLN"]
    gapped = [
        r | {"method": f"{r['method']}, gap of {r['gap_mm']:.0f} mm"}
        for r in result["records"]
        if r["method"] in ("SSLLN", "2D FCN", "3D FCN", "3D U-Net")
    ]
    return {
        "nn-hr-dice": tabulate.figure_table(networks, "dice"),
        "nn-hr-hausdorff": tabulate.figure_table(networks, "hausdorff_mm", digits=1),
        "nn-hr-gaps": tabulate.figure_table(gapped, "dice"),
        "nn-hr-losses": tabulate.figure_table(losses, "dice"),
        "nn-hr-landmarks": _landmarks(losses),
    }


def _landmarks(records: list[dict[str, Any]]) -> str:
    def mean(own: Any) -> str:
        found = [e for r in own for e in r.get("landmark_error_mm", []) if e is not None]
        return tabulate.mean_sd(found, 1)

    def missing(own: Any) -> str:
        found = [e for r in own for e in r.get("landmark_error_mm", [])]
        return f"{sum(e is None for e in found)} of {len(found)}"

    return tabulate.summary_table(records, {"landmark error, mm": mean, "missing": missing})
