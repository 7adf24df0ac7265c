"""What a network's doubt is worth: calibration, and refining its labels with and without probabilities.

ACDC patients that a network did not learn from and on whom nothing was chosen (no development patient).
Everything is scored on the same acquired slices with the expert's labels: the network's own labels, the
model refined from them, and the model refined from them and their probabilities. A structure is extra in
a slice where the expert drew none, and lost where only the expert drew it. The expected calibration error
of the most probable label counts the voxels within 10 mm of the heart, found or true, in the slices that
show either. ACDC labels no RV wall: it counts as background.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.harness import tabulate
from benchmarks.harness.cases import Acquisition, DataAbsent, acdc, data_folder, siblings
from benchmarks.harness.measuring import is_development, refine_quietly, rounded
from benchmarks.harness.store import Record, Unit, gather
from benchmarks.network.network import require_torch
from benchmarks.network.network_acdc import (
    LABELLED,
    NAMES,
    network_digest,
    predicted,
    true_labels,
    without_rv_wall,
)
from cardiacreg.geometry import STRUCTURES, LabelMap, Subject
from cardiacreg.metrics import overlap
from cardiacreg.metrics.agreement import sample_at_slices

WEIGHTS = ("unet2d_acdc", "unet2d_synthetic")
NETWORK, PLAIN, DOUBT = "network", "refined", "refined with probabilities"
_NEAR_MM, _BINS = 10.0, 15
_MOST_PATIENTS = 16


def run(quick: bool) -> dict[str, Any]:
    """Predict unseen patients, refine what was found both ways, and count how sure and right it was."""
    require_torch()
    data_folder("acdc")
    frames = {name: _unseen(name)[: 2 if quick else None] for name in WEIGHTS}
    units = [
        _unit(name, frame, way, siblings(frame, own))
        for name, own in frames.items()
        for way in (DOUBT, PLAIN)
        for frame in own
    ]
    if not units:
        raise DataAbsent("none of the networks is installed")
    return {"seeds": [], "records": gather("network_doubt", units)}


def _unseen(name: str) -> list[Acquisition]:
    """Frames of patients that a network did not learn from, and on whom nothing was chosen."""
    from cardiacreg_nn.data.training_hearts import acdc_folds
    from cardiacreg_nn.inference.shipped_weights import weight_files
    from cardiacreg_nn.inference.weights import read_card

    if name not in (files := weight_files()):
        return []
    card = read_card(files[name].with_suffix(".json"))["data"]
    folds = acdc_folds(data_folder("acdc"))
    held_out = folds[card["fold"] or 0]  # of a network without a fold these are as good as others
    chosen_on = set(card.get("chosen_on", ()))
    patients = [n for n in held_out if n not in chosen_on and not is_development(n)]
    return list(acdc(tuple(patients[:_MOST_PATIENTS])))


def _unit(name: str, frame: Acquisition, way: str, others: Sequence[Acquisition]) -> Unit:
    from cardiacreg_nn.inference.shipped_weights import weight_files
    from cardiacreg_nn.inference.weights import read_card

    card = read_card(weight_files()[name].with_suffix(".json"))
    key = {
        "case": frame.name, "method": name, "way": way, "sha256": card["sha256"],
        "calibration": card.get("calibration"), "code": network_digest(),
    }  # fmt: skip
    return Unit(key, lambda: rounded(_measure(name, frame, way, others)))


def _measure(
    name: str, frame: Acquisition, way: str, others: Sequence[Acquisition]
) -> dict[str, Any]:
    truth = true_labels(frame)
    found = _predicted(name, frame)
    record: Record = {
        "case": frame.name,
        "group": frame.group,
        "phase": frame.phase,
        "method": name,
    }
    record["way"] = way
    known = found.metadata["probabilities"]
    labels = LabelMap(found.labels.array, found.labels.voxel_to_world)
    result = refine_quietly(
        labels,
        frames=[_predicted(name, other).labels for other in others],
        probabilities=known if way == DOUBT else None,
        threads=1,
    )
    array = sample_at_slices(truth, result.labels, result.slice_shifts_mm)
    model_labels = without_rv_wall(LabelMap(array, truth.voxel_to_world))
    record["scores"] = _scores(model_labels, truth)
    record["findings"] = [finding.code for finding in result.findings]
    if way == DOUBT:
        record[NETWORK] = _scores(without_rv_wall(found.labels), truth)
        record["calibration"] = _counts(found, truth)
    return record


@lru_cache(maxsize=4)
def _predicted(name: str, frame: Acquisition) -> Subject:
    from cardiacreg_nn import load_model

    return predicted(frame, load_model(name, "cpu"))


def _scores(found: LabelMap, truth: LabelMap) -> dict[str, dict[str, float | None]]:
    scores = {}
    for label in LABELLED:
        own, true = ((each.array == label).any(axis=(0, 1)) for each in (found, truth))
        scores[STRUCTURES[label]] = {
            "dice": overlap.dice(found, truth, label),
            "extra": int((own & ~true).sum()),
            "lost": int((true & ~own).sum()),
            "slices": int((own | true).sum()),
        }
    return scores


def _counts(found: Subject, truth: LabelMap) -> dict[str, list[float]]:
    """Voxels near the heart by how probable their label is: how many, sum, and how many are right."""
    shares = found.metadata["probabilities"]
    merged = np.stack([shares[0] + shares[3], *(shares[n] for n in LABELLED)])
    true = np.searchsorted((0, *LABELLED), truth.array)
    near = _near(found.labels, truth)
    said, right = merged.max(axis=0)[near], (merged.argmax(axis=0) == true)[near]
    place = np.minimum((said * _BINS).astype(np.int64), _BINS - 1)
    counts: dict[str, NDArray[Any]] = {
        "voxels": np.bincount(place, minlength=_BINS),
        "said": np.bincount(place, said, minlength=_BINS),
        "right": np.bincount(place, right, minlength=_BINS),
    }
    return {name: each.tolist() for name, each in counts.items()}


def _near(found: LabelMap, truth: LabelMap) -> NDArray[np.bool_]:
    heart = (found.array > 0) | (truth.array > 0)
    near = np.zeros_like(heart)
    for k in np.flatnonzero(heart.any(axis=(0, 1))):
        away = ndimage.distance_transform_edt(~heart[:, :, k], sampling=truth.spacing_mm[:2])
        near[:, :, k] = away <= _NEAR_MM
    return near


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return Dice, slices with and without structures, and calibration."""
    good = [record for record in result["records"] if "error" not in record]
    return {
        "network-doubt-dice": _dice_table(good),
        "network-doubt-slices": _slices_table(good),
        "network-doubt-calibration": _calibration_table(good),
    }


def _ways(records: list[Record]) -> list[tuple[str, str, list[Record]]]:
    """Network, way and their frames; the plain way only where all frames were refined so."""
    found = []
    for name in dict.fromkeys(record["method"] for record in records):
        own = [record for record in records if record["method"] == name]
        doubted = [record for record in own if record["way"] == DOUBT]
        plain = [record for record in own if record["way"] == PLAIN]
        found.append((name, NETWORK, [r | {"scores": r[NETWORK]} for r in doubted]))
        if len(plain) == len(doubted):
            found.append((name, PLAIN, plain))
        found.append((name, DOUBT, doubted))
    return found


def _dice_table(records: list[Record]) -> str:
    rows = []
    for name, way, own in _ways(records):
        for phase in ("ED", "ES"):
            some = [r["scores"] for r in own if r["phase"] == phase]
            cells = [
                tabulate.mean_sd([s[n]["dice"] for s in some if s[n]["dice"] is not None])
                for n in NAMES
            ]
            every = [s[n]["dice"] for s in some for n in NAMES if s[n]["dice"] is not None]
            mean = float(np.mean(every)) if every else np.nan
            rows.append([f"{name}, {phase}: {way}", str(len(some)), *cells, f"{mean:.3f}"])
    return tabulate.markdown(["Dice with the expert, same slices", "frames", *NAMES, "mean"], rows)


def _slices_table(records: list[Record]) -> str:
    rows = []
    for name, way, own in _ways(records):
        cells = []
        for structure in NAMES:
            scores = [r["scores"][structure] for r in own]
            total = sum(s["slices"] for s in scores)
            shares = [
                100 * sum(s[kind] for s in scores) / max(total, 1) for kind in ("extra", "lost")
            ]
            cells.append(f"{shares[0]:.1f} % / {shares[1]:.1f} %")
        rows.append([f"{name}: {way}", *cells])
    return tabulate.markdown(["slices with a structure: extra / lost", *NAMES], rows)


def _calibration_table(records: list[Record]) -> str:
    rows = []
    for name in dict.fromkeys(record["method"] for record in records):
        held = [r["calibration"] for r in records if r["method"] == name and "calibration" in r]
        voxels, said, right = (
            np.sum([each[kind] for each in held], axis=0) for kind in ("voxels", "said", "right")
        )
        error = float(np.abs(said - right).sum() / voxels.sum())
        rows.append([
            name, str(len(held)), f"{error:.4f}", f"{said.sum() / voxels.sum():.3f}",
            f"{right.sum() / voxels.sum():.3f}",
        ])  # fmt: skip
    header = ["network", "frames", "expected calibration error", "mean probability", "share right"]
    return tabulate.markdown(header, rows)
