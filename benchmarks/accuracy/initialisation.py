"""Fig. 12: the affine before the deformation from six landmarks, from the labels, or from both.

One atlas per registration, so that no vote hides a failure. From the labels alone, as the paper's
comparison: matched centroids, then twelve numbers by label consistency. From both: as the default, where
the landmarks go on holding the affine, and freely, where they are only the start. Each heart lies like
the atlases, and turned by 30, 60 and 90 degrees about a random axis. The landmarks are derived from the
target's own labels; the slices are not shifted, since motion is another question.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.harness import paper, plots, tabulate
from benchmarks.harness.cases import Case, Heart, synthetic_hearts
from benchmarks.harness.measuring import heart_key, rounded
from benchmarks.harness.scoring import raw_dice, wilcoxon_p
from benchmarks.harness.store import Record, Unit, gather
from benchmarks.harness.turned import turned
from cardiacreg.anatomy.landmarks import landmarks_from_labels
from cardiacreg.atlases.embedded import default_atlases
from cardiacreg.geometry import Affine, LabelMap, Landmarks, Subject
from cardiacreg.phantoms.acquisition import Degradation
from cardiacreg.registration.ffd_registration import (
    PreparedTarget,
    RegistrationOptions,
    prepare_target,
    register_prepared,
)
from cardiacreg.registration.label_affine import improve_affine
from cardiacreg.registration.landmark_affine import fit_landmark_affine
from cardiacreg.transforms.resampling import warp_labels

DEGREES = (0.0, 30.0, 60.0, 90.0)
FREELY = "landmarks, then labels alone"
WAYS = ("centroids", "labels", "landmarks", "landmarks, then labels", FREELY)
REFERENCE = "landmarks"
FAILED_BELOW = 0.7
ATLASES_PER_HEART = 3


def run(quick: bool, cases: int = 12) -> dict[str, Any]:
    """Measure every way on every pose, heart and atlas."""
    hearts = [
        replace(heart, degradation=Degradation(shift_sd_mm=0.0))
        for heart in synthetic_hearts(1 if quick else cases)
    ]
    degrees = DEGREES[::3] if quick else DEGREES
    units = [
        _unit(heart, angle, number)
        for heart in hearts
        for angle in degrees
        for number in range(1 if quick else ATLASES_PER_HEART)
    ]
    found = gather("initialisation", units)
    return {
        "seeds": sorted({heart.seed for heart in hearts}),
        "records": [each for record in found for each in _flat(record)],
        "failed": [record for record in found if "error" in record],
    }


def _unit(heart: Heart, degrees: float, number: int) -> Unit:
    key = heart_key(heart, f"turned by {degrees:.0f} degrees, atlas {number}")

    def measure() -> Record:
        bank = default_atlases()
        atlas = bank[(7 * (heart.seed + number)) % len(bank)]
        found = _measure(turned(heart.case(), degrees), atlas)
        return rounded({"case": heart.name, "degrees": degrees, "atlas": atlas.name, "ways": found})

    return Unit(key, measure)


def _flat(record: Record) -> list[Record]:
    head = {key: value for key, value in record.items() if key != "ways"}
    return [head | {"method": way} | found for way, found in record.get("ways", {}).items()]


def _measure(case: Case, atlas: Subject) -> dict[str, Record]:
    labels = case.target.labels
    options = RegistrationOptions()
    prepared = prepare_target(labels, options)
    assert atlas.landmarks is not None
    points = (landmarks_from_labels(labels), landmarks_from_labels(atlas.labels))
    found = {}
    for way in WAYS:
        affine, seconds = _affine(way, prepared, atlas.labels, points)
        start = time.process_time()
        registration = register_prepared(prepared, atlas.labels, affine, options)
        before = warp_labels(atlas.labels, affine, case.truth, threads=1)
        after = warp_labels(atlas.labels, registration.target_to_atlas, case.truth, threads=1)
        found[way] = {
            "affine_seconds": seconds,
            "deformation_seconds": time.process_time() - start,
            "affine_scores": raw_dice(before, case.truth),
            "scores": raw_dice(after, case.truth),
        }
    return found


def _affine(
    way: str, prepared: PreparedTarget, atlas: LabelMap, points: tuple[Landmarks, Landmarks]
) -> tuple[Affine, float]:
    """Return the affine of one way and the processor time it took, landmarks given."""
    start = time.process_time()
    if way in ("centroids", "labels"):
        matrix = np.eye(4)
        matrix[:3, 3] = _centroid_mm(atlas) - _centroid_mm(prepared.labels)
        affine = Affine(matrix)
    else:
        affine = fit_landmark_affine(*points).target_to_atlas
    if way in ("labels", FREELY):
        affine = improve_affine(prepared, atlas, affine)
    elif way == "landmarks, then labels":
        affine = improve_affine(prepared, atlas, affine, landmarks=points)
    return affine, time.process_time() - start


def _centroid_mm(labels: LabelMap) -> np.ndarray:
    voxels = np.argwhere(labels.array > 0).mean(axis=0)
    return np.asarray(labels.voxel_to_world[:3, :3] @ voxels + labels.voxel_to_world[:3, 3])


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return time and Dice of every way, per pose."""
    records = result["records"]
    columns = {
        "affine, ms": lambda own: f"{1000 * np.median([r['affine_seconds'] for r in own]):.1f}",
        "Dice of the affine": lambda own: tabulate.mean_sd([_mean(r, "affine_scores") for r in own]),
        "Dice after the deformation": lambda own: tabulate.mean_sd([_mean(r) for r in own]),
        "deformation, s": lambda own: f"{np.median([r['deformation_seconds'] for r in own]):.2f}",
        "LV cavity below 0.7": lambda own: f"{sum(_lost(r) for r in own)} of {len(own)}",
    }  # fmt: skip
    named = [r | {"method": f"{r['method']}, turned {r['degrees']:.0f}°"} for r in records]
    ordered = sorted(
        named, key=lambda r: (r["degrees"], WAYS.index(r["method"].rsplit(", ", 1)[0]))
    )
    quoted = [
        "*quoted: paper, IRTK, landmarks*", f"*{1000 * paper.LANDMARK_SECONDS:.0f}*", *["–"] * 4,
    ], [
        "*quoted: paper, IRTK, labels*", f"*{1000 * paper.LABEL_AFFINE_SECONDS:.0f}*", *["–"] * 4,
    ]  # fmt: skip
    lines = ["| " + " | ".join(row) + " |" for row in quoted]
    table = tabulate.summary_table(ordered, columns).replace("| method |", "| affine from |", 1)
    return {
        "initialisation": "\n".join([table, *lines]),
        "initialisation-significance": _against_landmarks(records),
        "initialisation-robustness": _robustness(records, len(result["failed"])),
    }


def _against_landmarks(records: list[Record]) -> str:
    """Every other way minus landmarks, after the deformation; a heart's atlases are averaged first."""
    others = [way for way in tabulate.methods(records) if way != REFERENCE]
    angles = sorted({r["degrees"] for r in records})
    rows = []
    for way in others:
        pairs = [(_by_heart(records, way, a), _by_heart(records, REFERENCE, a)) for a in angles]
        cells = [
            f"{np.mean(ours) - np.mean(theirs):+.3f} ({tabulate.p_text(wilcoxon_p(ours, theirs))})"
            for ours, theirs in pairs
        ]
        rows.append([f"{way} minus {REFERENCE}", *cells])
    header = "Dice after the deformation, mean of structures"
    return tabulate.markdown([header, *(f"turned {a:.0f}°" for a in angles)], rows)


def _by_heart(records: list[Record], way: str, degrees: float) -> list[float]:
    found: dict[str, list[float]] = {}
    for record in records:
        if (record["method"], record["degrees"]) == (way, degrees):
            found.setdefault(record["case"], []).append(_mean(record))
    return [float(np.mean(found[case])) for case in sorted(found)]


def _robustness(records: list[Record], n_failed: int) -> str:
    """Lowest Dice of any structure per way, and where; failures are of a heart with all ways."""
    rows = []
    for way in tabulate.methods(records):
        own = [r for r in records if r["method"] == way]
        value, structure, record = min(
            ((each["dice"], name, r) for r in own for name, each in r["scores"]["raw"].items()),
            key=lambda found: found[0],
        )
        where = f"{structure}, {record['case']} turned {record['degrees']:.0f}°"
        rows.append([way, str(len(own)), str(n_failed), f"{value:.3f} ({where})"])
    header = ["affine from", "registrations", "failed", "lowest Dice after the deformation"]
    return tabulate.markdown(header, rows)


def _mean(record: Record, scores: str = "scores") -> float:
    """Mean raw Dice over structures."""
    return float(np.mean([each["dice"] for each in record[scores]["raw"].values()]))


def _lost(record: Record) -> bool:
    return bool(record["scores"]["raw"]["LV cavity"]["dice"] < FAILED_BELOW)


def plots_of(result: dict[str, Any]) -> dict[str, Any]:
    """Return Dice against the angle, and the time of each way."""
    records = result["records"]
    degrees = sorted({r["degrees"] for r in records})
    ways = tabulate.methods(records)
    figure, axes = plots.panels(1, 3, width=3.0)
    titles = (("affine_scores", "after the affine"), ("scores", "after the deformation"))
    for panel, (scores, title) in zip(axes[0], titles, strict=False):
        for way, colour in zip(ways, plots.METHOD_COLOURS, strict=False):
            own = [
                [_mean(r, scores) for r in records if (r["method"], r["degrees"]) == (way, angle)]
                for angle in degrees
            ]
            plots.curve(panel, degrees, own, color=colour, label=way)
        panel.set_title(title)
        panel.set_xlabel("heart turned by, degrees")
    axes[0, 0].set_ylabel("Dice, mean of structures")
    seconds = [[r["affine_seconds"] for r in records if r["method"] == way] for way in ways]
    plots.bars(axes[0, 2], ways, seconds, "0.5")
    axes[0, 2].set_xscale("log")
    axes[0, 2].set_title("affine, processor seconds")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(ways))
    return {"initialisation": figure}
