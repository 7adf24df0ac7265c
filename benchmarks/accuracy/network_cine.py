"""A whole cine by the network: every frame by itself, and all frames together.

The contoured patient of `benchmarks.accuracy.long_axis`: 25 phases, six short-axis planes 17.7 mm apart.
Labels are scored on the acquired slices with contours (a network's, checked by people), and their volume
curves (area x slice distance) by the mean size of their second difference, which noise from frame to
frame raises. Nothing was chosen on this patient. Seconds are those of one run beside others: processor
seconds say more than wall-clock ones.
"""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy as np

from benchmarks.accuracy import guidepoints
from benchmarks.accuracy.long_axis import read_patient, stacks
from benchmarks.harness import tabulate
from benchmarks.harness.cases import data_folder
from benchmarks.harness.measuring import rounded
from benchmarks.harness.store import Record, Unit, gather
from benchmarks.network.network import require_torch
from benchmarks.network.network_acdc import network_digest
from cardiacreg.errors import InputWarning
from cardiacreg.geometry import (
    LV_CAVITY,
    LV_WALL,
    RV_CAVITY,
    STRUCTURES,
    LabelMap,
    apply_matrix,
    nearest_labels,
)

WAYS = ("each frame by itself", "all frames together")
_LABELLED = (LV_CAVITY, LV_WALL, RV_CAVITY)
_WEIGHTS = "unet2d_acdc"
_QUICK_PHASES = (0, 9, 18)


def run(quick: bool) -> dict[str, Any]:
    """Segment the cine both ways; a quick run takes three frames."""
    require_torch()
    data_folder("bivme")
    phases = _QUICK_PHASES if quick else guidepoints.PHASES
    units = [_unit(way, phases) for way in WAYS]
    return {"seeds": [], "records": gather("network_cine", units)}


def _unit(way: str, phases: tuple[int, ...]) -> Unit:
    from cardiacreg_nn.inference.shipped_weights import weight_path
    from cardiacreg_nn.inference.weights import read_card

    card = read_card(weight_path(_WEIGHTS).with_suffix(".json"))
    key = {
        "case": "bivme", "method": way, "phases": list(phases), "sha256": card["sha256"],
        "calibration": card.get("calibration"), "code": network_digest(),
    }  # fmt: skip
    return Unit(key, lambda: rounded(_measure(way, phases)))


def _measure(way: str, phases: tuple[int, ...]) -> Record:
    from cardiacreg.doors.dicom_cine import read_dicom_cine
    from cardiacreg_nn import load_model, predict, predict_cine

    cine = next(s for s in read_dicom_cine(data_folder("bivme") / "dicom") if s.is_stack)
    array, matrix = cine.array[..., list(phases)], cine.voxel_to_world
    model = load_model(_WEIGHTS, "cpu")
    start, cpu = time.perf_counter(), time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        if way == WAYS[0]:
            found = [predict((array[..., n], matrix), weights=model) for n in range(len(phases))]
        else:
            found = list(predict_cine((array, matrix), weights=model))
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    read, planes = read_patient(phases)
    labels = [each.labels for each in found]
    scores = [_dice(own, true) for own, true in zip(labels, stacks(read, planes), strict=True)]
    return {
        "case": "bivme", "method": way, "frames": len(phases), "seconds": seconds,
        "cpu_seconds": cpu, "dice": scores, "volumes_ml": [_volumes(each) for each in labels],
    }  # fmt: skip


def _dice(found: LabelMap, truth: LabelMap) -> dict[str, float]:
    """Dice at the pixels of the contoured slices."""
    held = np.flatnonzero((truth.array > 0).any(axis=(0, 1)))
    grid = np.stack(np.meshgrid(*map(np.arange, (*truth.shape[:2],)), held, indexing="ij"), axis=-1)
    to_found = np.linalg.inv(found.voxel_to_world) @ truth.voxel_to_world
    own = nearest_labels(found, apply_matrix(to_found, grid.astype(np.float64)))
    true = truth.array[:, :, held]
    return {
        STRUCTURES[n]: float(
            2 * ((own == n) & (true == n)).sum() / ((own == n).sum() + (true == n).sum())
        )
        for n in _LABELLED
    }


def _volumes(labels: LabelMap) -> dict[str, float]:
    voxel_ml = float(np.prod(labels.spacing_mm)) / 1000
    return {STRUCTURES[n]: float((labels.array == n).sum()) * voxel_ml for n in _LABELLED}


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return Dice, roughness of the volume curves and time of both ways."""
    rows = []
    for record in result["records"]:
        if "error" in record:
            continue
        names = [STRUCTURES[n] for n in _LABELLED]
        cells = [tabulate.mean_sd([each[name] for each in record["dice"]]) for name in names]
        rough = [_roughness([each[name] for each in record["volumes_ml"]]) for name in names]
        rows.append([
            record["method"], str(record["frames"]), *cells, " / ".join(f"{r:.1f}" for r in rough),
            f"{record['cpu_seconds']:.0f}",
        ])  # fmt: skip
    header = [
        "one patient", "frames", *(STRUCTURES[n] for n in _LABELLED),
        "second difference of volumes, ml", "processor seconds",
    ]  # fmt: skip
    return {"network-cine": tabulate.markdown(header, rows)}


def _roughness(volumes: list[float]) -> float:
    closed = np.array([volumes[-1], *volumes, volumes[0]])
    return float(np.abs(np.diff(closed, 2)).mean())
