"""Network weights on ACDC patients that they never saw: overlap, distances, volumes, landmarks.

Shipped weights are measured on the patients of the first fold, which their training held out, and so is a
refinement of some of what they find; weights that saw no patients are measured on all but those that
their card names as the ones they were chosen on. For all five folds, train them
(``python -m cardiacreg_nn.training.train cardiacreg_nn/configs/unet2d_acdc.toml --fold 0 --out
runs/unet2d_acdc_fold0``, and so on) and name the folder in ``CARDIACREG_FOLDS=runs``: they are then
measured too, each on its own patients, and pooled. ACDC labels no RV wall: the network's counts as
background here. True landmarks are those that the library derives from the true labels.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import machine, tabulate
from benchmarks.harness.cases import Acquisition, DataAbsent, acdc, data_folder, siblings
from benchmarks.harness.measuring import refine_quietly, rounded
from benchmarks.harness.store import Unit, gather
from benchmarks.network.network import require_torch
from benchmarks.network.network_groups import group_tables
from cardiacreg.anatomy.label_presets import canonical_labels
from cardiacreg.anatomy.landmarks import derive_landmarks
from cardiacreg.errors import InputWarning, InvalidInputError, RefinementError
from cardiacreg.geometry import LANDMARK_NAMES, STRUCTURES, LabelMap, Subject
from cardiacreg.io.nifti import read_labels, read_volume
from cardiacreg.metrics import overlap
from cardiacreg.metrics.agreement import sample_at_slices

FOLDS_VARIABLE = "CARDIACREG_FOLDS"
LABELLED = (1, 2, 4)
NAMES = tuple(STRUCTURES[label] for label in LABELLED)
DISTANCES_MM = (2, 5, 10, 15, 20, 30)
PAPER_TABLE_2 = (("3.67 ± 3.20", "9.16 ± 4.37"), ("8.18 ± 6.91", "17.4 ± 9.27"),
                 ("3.99 ± 3.54", "9.69 ± 5.39"), ("5.77 ± 4.15", "11.7 ± 5.87"),
                 ("3.86 ± 2.74", "5.61 ± 2.62"), ("5.15 ± 2.82", "14.6 ± 5.44"))  # fmt: skip
AXES = ("along the long axis", "towards the RV", "towards anterior")
_REFINED = 4
_PREDICTS = (
    "inference/calibration",
    "inference/cine_prediction",
    "inference/landmark_extraction",
    "inference/orientation_search",
    "inference/prediction",
    "inference/preprocessing",
    "networks/baseline_networks",
    "networks/slice_unet",
    "networks/sslln",
)


def run(quick: bool) -> dict[str, Any]:
    """Predict every held-out frame with every set of weights, and refine some of them."""
    require_torch()
    data_folder("acdc")
    units: list[Unit] = []
    described = []
    for path, method, held_out in _weights():
        from cardiacreg_nn import load_weights

        model = load_weights(path)
        described.append({k: v for k, v in model.card.items() if k not in ("box", "network")})
        everyone = acdc(tuple(held_out))
        frames = everyone[: 2 if quick else None]
        refined = set(range(0, len(frames), max(1, len(frames) // (1 if quick else _REFINED))))
        units += [
            _unit(frame, model, method, siblings(frame, everyone) if number in refined else None)
            for number, frame in enumerate(frames)
        ]
    if not units:
        raise DataAbsent("no network weights are shipped, and CARDIACREG_FOLDS names none")
    return {"seeds": [], "weights": described, "records": gather("network_acdc", units)}


def _unit(
    frame: Acquisition, model: Any, method: str, others: Sequence[Acquisition] | None
) -> Unit:
    """Measure one frame; refine it, too, where the patient's other frames are given (or none exist)."""
    key = {
        "case": frame.name, "method": method, "sha256": model.card["sha256"],
        "refine": others is not None, "frames": [each.name for each in others or ()],
        "code": network_digest(),
    }  # fmt: skip
    return Unit(key, lambda: rounded(_measure(frame, model, others) | {"method": method}))


@lru_cache
def network_digest() -> str:
    """Digest of what makes a prediction, which the store of measurements does not look at."""
    package = machine.ROOT / "cardiacreg_nn"
    text = b"".join((package / f"{name}.py").read_bytes() for name in _PREDICTS)
    return hashlib.sha256(text).hexdigest()


def _weights() -> Iterable[tuple[Path, str, list[int]]]:
    """Weight files, each with what its rows are called and the patients to measure it on."""
    from cardiacreg_nn.data.training_hearts import acdc_folds
    from cardiacreg_nn.inference.shipped_weights import weight_files
    from cardiacreg_nn.inference.weights import read_card

    folds = acdc_folds(data_folder("acdc"))
    runs = os.environ.get(FOLDS_VARIABLE)
    pooled = sorted(Path(runs).glob("*_fold[0-9]/weights.safetensors")) if runs else []
    for path in [*weight_files().values(), *pooled]:
        card = read_card(path.with_suffix(".json"))
        if card["network"]["slices"] == 1:  # of long-axis views
            continue
        name, fold = str(card["name"]), card["data"]["fold"]
        if path in pooled:
            name = f"{name.rpartition('_fold')[0]}, folds pooled"
        chosen_on = set(card["data"].get("chosen_on", ()))
        everyone = sorted(patient for own in folds for patient in own)
        unseen = [patient for patient in everyone if patient not in chosen_on]
        yield path, name, unseen if chosen_on else folds[fold or 0]


def true_labels(frame: Acquisition) -> LabelMap:
    """Return a frame's own labels, canonical."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        return canonical_labels(read_labels(frame.labels), frame.preset)


def without_rv_wall(labels: LabelMap) -> LabelMap:
    """Return labels with the structure that ACDC does not label as background."""
    return LabelMap(np.where(labels.array == 3, 0, labels.array), labels.voxel_to_world)


def predicted(frame: Acquisition, model: Any) -> Subject:
    """Labels and landmarks that a network finds in a frame, without warnings."""
    from cardiacreg_nn import predict

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        array = read_volume(frame.image).array
        subject: Subject = predict((array, true_labels(frame).voxel_to_world), weights=model)
    return subject


def _measure(
    frame: Acquisition, model: Any, others: Sequence[Acquisition] | None
) -> dict[str, Any]:
    truth = true_labels(frame)
    record = {
        "case": frame.name,
        "group": frame.group,
        "phase": frame.phase,
    }
    try:
        subject = predicted(frame, model)
    except InvalidInputError as error:
        return record | {"error": str(error)}
    found = without_rv_wall(subject.labels)
    record["scores"] = overlap.compare(found, truth, structures=LABELLED)
    points = derive_landmarks(truth).points_mm
    if subject.landmarks is not None:
        own = subject.landmarks
        if own.source == "labels":  # by the rule on the same structures as the true ones
            own = derive_landmarks(found)
        record["landmarks_mm"] = {
            "true": in_heart_axes(points, points).tolist(),
            "found": in_heart_axes(own.points_mm, points).tolist(),
        }
        record["completed"] = sum(e["origin"] == "labels" for e in subject.metadata["landmarks"])
    if others is not None:
        try:
            record["refined"] = _refined(subject, truth, model, others)
        except (InvalidInputError, RefinementError) as error:
            record["refused"] = str(error)
    return record


def in_heart_axes(points_mm: Any, true_mm: Any) -> Any:
    """Return points from the middle of the true landmarks, along the heart's own directions (`AXES`).

    The long axis runs from the apex to the mitral valve; the second direction, square to it, from the
    LV's lateral wall to the RV's; the third towards the anterior side.
    """
    up = true_mm[5] - true_mm[4]
    up = up / np.linalg.norm(up)
    across = true_mm[1] - true_mm[3]
    across = across - (across @ up) * up
    across = across / np.linalg.norm(across)
    anterior = np.cross(up, across)
    anterior = anterior * np.sign((true_mm[0] - true_mm[2]) @ anterior)
    return (points_mm - true_mm.mean(axis=0)) @ np.column_stack([up, across, anterior])


def _refined(
    subject: Subject, truth: LabelMap, model: Any, others: Sequence[Acquisition]
) -> dict[str, Any]:
    """Dice with the true labels at the acquired slices: network; refined; refined from the truth.

    Labels of the patient's other frames, the network's or the true ones, tell the orientation.
    """
    frames = [predicted(other, model).labels for other in others]
    network = LabelMap(subject.labels.array, subject.labels.voxel_to_world)
    found = {
        "network": without_rv_wall(network),
        "network, refined": _at_slices(network, truth, frames, subject.landmarks),
        "true labels, refined": _of_truth(truth, [true_labels(other) for other in others]),
    }
    return {
        name: {STRUCTURES[n]: overlap.dice(labels, truth, n) for n in LABELLED}
        for name, labels in found.items()
    }


def _at_slices(
    labels: LabelMap, truth: LabelMap, frames: Sequence[LabelMap], landmarks: Any = None
) -> LabelMap:
    """Refined labels at every acquired slice, where the network's own are scored too."""
    result = refine_quietly(labels, frames=frames, landmarks=landmarks, threads=1)
    array = sample_at_slices(truth, result.labels, result.slice_shifts_mm)
    return without_rv_wall(LabelMap(array, truth.voxel_to_world))


_refined_truths: dict[bytes, LabelMap] = {}


def _of_truth(truth: LabelMap, frames: Sequence[LabelMap]) -> LabelMap:
    """Refine true labels once for all networks that are measured on them."""
    key = hashlib.sha256(truth.array.tobytes() + truth.voxel_to_world.tobytes()).digest()
    if key not in _refined_truths:
        _refined_truths[key] = _at_slices(truth, truth, frames)
    return _refined_truths[key]


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
        "nn-acdc-components": _components(good),
        "nn-acdc-cumulative": _cumulative(good),
        "nn-acdc-refined": _refined_table(good),
        **group_tables(good),
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
            own = np.linalg.norm(_offsets(records, method)[:, number], axis=1)
            cells.append(f"{tabulate.mean_sd(own, 1)} (median {np.median(own):.1f})")
        rows.append([name, *cells, *PAPER_TABLE_2[number]])
    header = ["landmark error, mm", *methods, "paper, network", "paper, second person"]
    return tabulate.markdown(header, rows)


def _offsets(records: list[dict[str, Any]], method: str) -> Any:
    """Found minus true landmarks of a method, shape (frames, 6, 3), along `AXES`."""
    own = [r["landmarks_mm"] for r in records if r["method"] == method and "landmarks_mm" in r]
    return np.array([np.subtract(each["found"], each["true"]) for each in own]).reshape(-1, 6, 3)


def _components(records: list[dict[str, Any]]) -> str:
    rows = []
    for method in tabulate.methods(records):
        sizes = np.abs(_offsets(records, method)).mean(axis=0)
        for name, own in zip(LANDMARK_NAMES, sizes, strict=True):
            rows.append([f"{method}: {name}", *[f"{size:.1f}" for size in own]])
    return tabulate.markdown(["mean size of the error, mm", *AXES], rows)


def _cumulative(records: list[dict[str, Any]]) -> str:
    rows = []
    for method in tabulate.methods(records):
        own = np.linalg.norm(_offsets(records, method), axis=2)
        for number, name in enumerate(LANDMARK_NAMES):
            shares = [f"{100 * (own[:, number] <= mm).mean():.0f} %" for mm in DISTANCES_MM]
            rows.append([f"{method}: {name}", *shares])
    return tabulate.markdown(["share of frames within", *[f"{mm} mm" for mm in DISTANCES_MM]], rows)


def _refined_table(records: list[dict[str, Any]]) -> str:
    rows = []
    for method in tabulate.methods(records):
        asked = [r for r in records if r["method"] == method and ("refined" in r or "refused" in r)]
        own = [r["refined"] for r in asked if "refined" in r]
        for name in own[0] if own else ():
            cells = [tabulate.mean_sd([each[name][s] for each in own]) for s in NAMES]
            rows.append([f"{method}: {name}", str(len(own)), str(len(asked) - len(own)), *cells])
    return tabulate.markdown(
        ["Dice with the true labels at the acquired slices", "frames", "refused by refine", *NAMES],
        rows,
    )


def plots_of(result: dict[str, Any]) -> dict[str, Any]:
    """Return cumulative curves of landmark errors, and landmarks in three dimensions."""
    records = [r for r in result["records"] if "landmarks_mm" in r]
    from cardiacreg_nn.inference.shipped_weights import DEFAULTS

    shown, *_ = DEFAULTS
    return {
        "network-landmark-curves": _curves(records, tabulate.methods(records)),
        "network-landmarks-3d": _scatter([r for r in records if r["method"] == shown]),
    }


def _curves(records: list[dict[str, Any]], methods: list[str]) -> Any:
    from benchmarks.harness import plots

    drawn, axes = plots.panels(1, len(methods), width=2.6, height=3.0)
    for panel, method in zip(axes[0], methods, strict=True):
        errors = np.linalg.norm(_offsets(records, method), axis=2)
        share = np.arange(1, len(errors) + 1) / len(errors)
        for number, name in enumerate(LANDMARK_NAMES):
            panel.step(
                np.concatenate([[0], np.sort(errors[:, number])]), np.concatenate([[0], share]),
                where="post", color=plots.METHOD_COLOURS[number], label=name, linewidth=1.3,
            )  # fmt: skip
        panel.set(xlim=(0, 30), ylim=(0, 1.01), xlabel="distance, mm")
        panel.axvline(5, color="0.3", linestyle=":", linewidth=1)
        panel.set_title(f"{method}\n{len(errors)} frames", fontsize=8)
    axes[0, 0].set_ylabel("share of frames")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside lower center", ncols=3)
    return drawn


def _scatter(records: list[dict[str, Any]]) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from benchmarks.harness import plots

    drawn = Figure(figsize=(10.5, 4.2), layout="constrained")
    FigureCanvasAgg(drawn)
    own = [r["landmarks_mm"] for r in records]
    sets = {name: np.array([each[name] for each in own]) for name in ("true", "found")}
    titles = {"from true labels": ("true",), "found": ("found",), "both": ("true", "found")}
    for number, (title, names) in enumerate(titles.items(), 1):
        panel: Any = drawn.add_subplot(1, 3, number, projection="3d")
        for name in names:
            for landmark, colour in zip(range(6), plots.METHOD_COLOURS, strict=False):
                up, across, anterior = sets[name][:, landmark].T
                panel.scatter(
                    across, anterior, up, s=9, color=colour, linewidths=0.6, alpha=0.8,
                    marker="o" if name == "true" else "x",
                    label=LANDMARK_NAMES[landmark] if number == 1 else None,
                )  # fmt: skip
        panel.set_title(title)
        panel.set_xlabel("towards the RV, mm", fontsize=7, labelpad=-2)
        panel.set_ylabel("anterior, mm", fontsize=7, labelpad=-2)
        panel.set_zlabel("long axis, mm", fontsize=7, labelpad=-2)
        panel.tick_params(labelsize=6, pad=-1)
        panel.set(xlim=(-70, 70), ylim=(-70, 70), zlim=(-70, 70))
        for axis in (panel.xaxis, panel.yaxis, panel.zaxis):
            axis.set_ticks([-60, -30, 0, 30, 60])
        panel.set_box_aspect((1, 1, 1), zoom=0.95)
        panel.view_init(elev=18, azim=-62)
    drawn.legend(loc="outside lower center", ncols=3)
    return drawn
