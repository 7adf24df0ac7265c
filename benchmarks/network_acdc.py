"""Network weights on ACDC patients that they never saw: overlap, distances, volumes, landmarks.

Shipped weights are measured on the patients that their training held out, which are all where they saw
synthetic hearts alone, and so is a refinement of some of what they find. For all five folds, train them
(``python -m cardiacreg_nn.train cardiacreg_nn/configs/lr_acdc.toml --fold 0 --initial
cardiacreg_nn/shipped/synthetic/sslln_lr_synthetic.safetensors --out runs/sslln_lr_acdc_fold0``, and so
on) and name the folder in ``CARDIACREG_FOLDS=runs``: they are then measured too, each on its own
patients, and pooled. ACDC labels no RV wall: the network's counts as background here. True landmarks are
those that the library derives from the true labels.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import tabulate
from benchmarks.cases import Acquisition, DataAbsent, acdc, data_folder
from benchmarks.measuring import refine_quietly, rounded
from benchmarks.network import require_torch
from cardiacreg import metrics
from cardiacreg.errors import InputWarning, InvalidInputError
from cardiacreg.geometry import LANDMARK_NAMES, STRUCTURES, LabelMap, Subject
from cardiacreg.label_presets import canonical_labels
from cardiacreg.landmarks import landmarks_from_labels
from cardiacreg.nifti import read_labels, read_volume
from cardiacreg.refinement import sample_at_slices

FOLDS_VARIABLE = "CARDIACREG_FOLDS"
LABELLED = (1, 2, 4)
NAMES = tuple(STRUCTURES[label] for label in LABELLED)
DISTANCES_MM = (2, 5, 10, 15, 20, 30)
PAPER_TABLE_2 = (("3.67 ± 3.20", "9.16 ± 4.37"), ("8.18 ± 6.91", "17.4 ± 9.27"),
                 ("3.99 ± 3.54", "9.69 ± 5.39"), ("5.77 ± 4.15", "11.7 ± 5.87"),
                 ("3.86 ± 2.74", "5.61 ± 2.62"), ("5.15 ± 2.82", "14.6 ± 5.44"))  # fmt: skip
_REFINED = 4


def run(quick: bool) -> dict[str, Any]:
    """Predict every held-out frame with every set of weights, and refine some of them."""
    require_torch()
    data_folder("acdc")
    records: list[dict[str, Any]] = []
    described = []
    for path, method, held_out in _weights():
        from cardiacreg_nn import load_weights

        model = load_weights(path)
        described.append({k: v for k, v in model.card.items() if k not in ("preset", "network")})
        frames = acdc(tuple(held_out))[: 2 if quick else None]
        refined = set(range(0, len(frames), max(1, len(frames) // (1 if quick else _REFINED))))
        for number, frame in enumerate(frames):
            records.append(_measure(frame, model, refine=number in refined) | {"method": method})
    if not records:
        raise DataAbsent("no network weights are shipped, and CARDIACREG_FOLDS names none")
    return {"seeds": [], "weights": described, "records": rounded(records)}


def _weights() -> Iterable[tuple[Path, str, list[int]]]:
    """Weight files, each with what its rows are called and the patients to measure it on."""
    from cardiacreg_nn.prediction import SHIPPED
    from cardiacreg_nn.sources import acdc_folds
    from cardiacreg_nn.weights import read_card

    folds = acdc_folds(data_folder("acdc"))
    everyone = sorted(patient for fold in folds for patient in fold)
    runs = os.environ.get(FOLDS_VARIABLE)
    pooled = sorted(Path(runs).glob("*_fold[0-9]/weights.safetensors")) if runs else []
    for path in [*sorted(SHIPPED.glob("*/*.safetensors")), *pooled]:
        card = read_card(path.with_suffix(".json"))
        name, fold = str(card["name"]), card["data"]["fold"]
        if path in pooled:
            name = f"{name.rpartition('_fold')[0]}, all folds"
        yield path, name, everyone if fold is None else folds[fold]


def true_labels(frame: Acquisition) -> LabelMap:
    """Return a frame's own labels, canonical."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        return canonical_labels(read_labels(frame.labels), frame.preset)


def without_rv_wall(labels: LabelMap) -> LabelMap:
    """Return labels with the structure that ACDC does not label as background."""
    return LabelMap(np.where(labels.array == 3, 0, labels.array), labels.voxel_to_world)


def _measure(frame: Acquisition, model: Any, *, refine: bool) -> dict[str, Any]:
    from cardiacreg_nn import predict

    truth = true_labels(frame)
    record = {
        "case": frame.name,
        "group": frame.group,
        "phase": frame.phase,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        image = read_volume(frame.image)
        try:
            subject = predict((image.array, truth.voxel_to_world), weights=model)
        except InvalidInputError as error:
            return record | {"error": str(error)}
    found = without_rv_wall(subject.labels)
    record["scores"] = metrics.compare(found, truth, structures=LABELLED)
    points = landmarks_from_labels(truth).points_mm
    if subject.landmarks is not None:
        gap = np.linalg.norm(subject.landmarks.points_mm - points, axis=1)
        record["landmark_error_mm"] = [float(value) for value in gap]
        record["completed"] = sum(e["origin"] == "labels" for e in subject.metadata["landmarks"])
    if refine:
        record["refined"] = _refined(subject, truth)
    return record


def _refined(subject: Subject, truth: LabelMap) -> dict[str, Any]:
    """Dice with the true labels at the acquired slices: network; refined; refined from the truth."""
    found = {"network": without_rv_wall(subject.labels)}
    network = LabelMap(subject.labels.array, subject.labels.voxel_to_world)
    for name, labels, landmarks in (
        ("network, refined", network, subject.landmarks),
        ("true labels, refined", truth, None),
    ):
        result = refine_quietly(labels, landmarks=landmarks, threads=1)
        array = sample_at_slices(truth, result.labels, result.slice_shifts_mm)
        shown = truth.array.any(axis=(0, 1)) & labels.array.any(axis=(0, 1))
        found[name] = without_rv_wall(LabelMap(array * shown, truth.voxel_to_world))
    return {
        name: {STRUCTURES[n]: metrics.dice(labels, truth, n) for n in LABELLED}
        for name, labels in found.items()
    }


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return overlap, distances, volumes, landmarks and what refining changes."""
    good = [r for r in result["records"] if "error" not in r]
    phased = [r | {"method": f"{r['method']}, {r['phase']}"} for r in good]
    failed = len(result["records"]) - len(good)
    return {
        "nn-acdc-dice": _figure(phased, "dice", 3, failed),
        "nn-acdc-hausdorff": _figure(phased, "hausdorff_mm", 1, failed),
        "nn-acdc-volumes": _volumes(good),
        "nn-acdc-landmarks": _landmarks(good),
        "nn-acdc-cumulative": _cumulative(good),
        "nn-acdc-refined": _refined_table(good),
    }


def _figure(records: list[dict[str, Any]], figure: str, digits: int, failed: int) -> str:
    def column(name: str) -> Any:
        return lambda own: tabulate.mean_sd(
            [r["scores"][name][figure] for r in own if r["scores"][name][figure] is not None],
            digits,
        )

    def mean(own: Any) -> str:
        return tabulate.mean_sd(
            [
                np.mean(
                    [r["scores"][n][figure] for n in NAMES if r["scores"][n][figure] is not None]
                )
                for r in own
            ],
            digits,
        )

    columns = {
        "frames": lambda own: str(len(own)),
        **{name: column(name) for name in NAMES},
        f"mean ({failed} frames failed)": mean,
    }
    return tabulate.summary_table(sorted(records, key=lambda r: r["method"]), columns)


def _volumes(records: list[dict[str, Any]]) -> str:
    def error(name: str) -> Any:
        return lambda own: tabulate.mean_sd(
            [r["scores"][name]["volume_error_ml"] for r in own
             if r["scores"][name]["volume_error_ml"] is not None], 1
        )  # fmt: skip

    columns = {
        **{f"{name}, ml": error(name) for name in NAMES},
        "LV ejection fraction, points": lambda own: _ejection(own, "LV cavity"),
        "RV ejection fraction, points": lambda own: _ejection(own, "RV cavity"),
    }
    return tabulate.summary_table(records, columns)


def _ejection(records: list[dict[str, Any]], name: str) -> str:
    """Error of the ejection fraction over patients with both frames."""
    patients: dict[str, dict[str, Any]] = {}
    for record in records:
        patients.setdefault(record["case"][:10], {})[record["phase"]] = record["scores"][name]
    errors = []
    for phases in patients.values():
        if len(phases) == 2:
            full, left = phases["ED"], phases["ES"]
            values = [
                full["volume_ml"],
                left["volume_ml"],
                full["true_volume_ml"],
                left["true_volume_ml"],
            ]
            if all(values[n] is not None for n in range(4)) and values[0] and values[2]:
                errors.append(100 * (values[3] / values[2] - values[1] / values[0]))
    return tabulate.mean_sd(errors, 1)


def _landmarks(records: list[dict[str, Any]]) -> str:
    methods = tabulate.methods(records)
    rows = []
    for number, name in enumerate(LANDMARK_NAMES):
        cells = []
        for method in methods:
            own = [r["landmark_error_mm"][number] for r in records
                   if r["method"] == method and "landmark_error_mm" in r]  # fmt: skip
            cells.append(f"{tabulate.mean_sd(own, 1)} (median {np.median(own):.1f})")
        rows.append([name, *cells, *PAPER_TABLE_2[number]])
    header = ["landmark error, mm", *methods, "paper, network", "paper, second person"]
    return tabulate.markdown(header, rows)


def _cumulative(records: list[dict[str, Any]]) -> str:
    rows = []
    for method in tabulate.methods(records):
        own = np.array([r["landmark_error_mm"] for r in records
                        if r["method"] == method and "landmark_error_mm" in r])  # fmt: skip
        for number, name in enumerate(LANDMARK_NAMES):
            shares = [f"{100 * (own[:, number] <= mm).mean():.0f} %" for mm in DISTANCES_MM]
            rows.append([f"{method}: {name}", *shares])
    return tabulate.markdown(["share of frames within", *[f"{mm} mm" for mm in DISTANCES_MM]], rows)


def _refined_table(records: list[dict[str, Any]]) -> str:
    rows = []
    for method in tabulate.methods(records):
        own = [r["refined"] for r in records if r["method"] == method and "refined" in r]
        for name in own[0] if own else ():
            cells = [tabulate.mean_sd([each[name][s] for each in own]) for s in NAMES]
            rows.append([f"{method}: {name}", str(len(own)), *cells])
    return tabulate.markdown(
        ["Dice with the true labels at the acquired slices", "frames", *NAMES], rows
    )
