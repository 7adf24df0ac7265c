"""Table V: the same unseen hearts by every other way, with and without atlases and images.

Interpolations see the slices' labels, and so do the networks, which are trained here on the labels of
other hearts (`benchmarks.network.learned_comparators`). "On our registrations" differs from ours in the
fusion alone. The multi-atlas methods (MAM) register the selected atlases by intensities. All fusions end
with our cleaning step. Images of target and atlases come from one renderer, which favours what compares
intensities.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.harness import comparators, paper, plots, store, tabulate
from benchmarks.harness.cases import Heart, synthetic_hearts
from benchmarks.harness.measuring import (
    BASELINES,
    heart_key,
    interpolated_unit,
    refined_unit,
    rounded,
    scored,
)
from benchmarks.harness.propagation import Propagated, by_intensity, by_labels
from benchmarks.harness.store import Record, Unit, gather
from cardiacreg.anatomy.topology import clean_topology
from cardiacreg.metrics import baselines
from cardiacreg.refinement.options import RefineOptions

DEFAULT, PAPER = "cardiacreg", "paper method, with image"
_Fuse = Callable[[Propagated], comparators.Fused]
_FUSIONS: dict[str, tuple[Callable[[Heart], Propagated], _Fuse, str]] = {
    "STAPLE on our registrations": (by_labels, comparators.staple, "SimpleITK"),
    "joint label fusion on our registrations": (by_labels, comparators.joint_label_fusion, "ants"),
    "MAM: intensities, patch fusion": (by_intensity, comparators.patch_fusion, "SimpleITK"),
    "MAM: intensities, joint label fusion": (by_intensity, comparators.joint_label_fusion, "ants"),
}
_SLOWEST = "MAM: intensities, joint label fusion"
SHARED = " on our registrations"
_SHORT = {
    "STAPLE on our registrations": "STAPLE, our reg.",
    "joint label fusion on our registrations": "JLF, our reg.",
    "MAM: intensities, patch fusion": "MAM, patches",
    "MAM: intensities, joint label fusion": "MAM, JLF",
    "Gaussian label smoothing": "Gaussian",
    PAPER: "paper method",
}
_LEARNED = ("3D-Seg", "3D U-Net", "3D-AE", "3D-ACNN")
_AIMS = {
    "3D-Seg": "3D U-Net, Dice of the LV wall",
    "3D-AE": "3D-Seg, Dice of the LV wall",
    "3D-ACNN": "3D-Seg, Dice of the LV wall",
}


def run(quick: bool, cases: int = 8) -> dict[str, Any]:
    """Measure every method that can run; a quick run leaves out the slow ones."""
    units = []
    for heart in synthetic_hearts(1 if quick else cases):
        units += [interpolated_unit(heart, method) for method in BASELINES]
        units.append(_gaussian(heart))
        if importlib.util.find_spec("torch"):
            units += [_learned(heart, name, quick) for name in _LEARNED[2 if quick else 0 :]]
        units += [
            _fused(heart, name)
            for name, (*_, package) in _FUSIONS.items()
            if comparators.available(package) and not (quick and package == "ants")
            and not (quick and name.startswith("MAM"))
        ]  # fmt: skip
        if not quick:
            options = RefineOptions.paper()
            units.append(refined_unit(heart, PAPER, options=options, with_image=True))
        units.append(refined_unit(heart, DEFAULT))
    slowest_last = sorted(units, key=lambda unit: unit.key["method"] == _SLOWEST)
    records = gather("comparison", slowest_last)
    return {
        "seeds": sorted({r["seed"] for r in records}),
        "records": records,
        "absent": comparators.absent(),
    }


def _learned(heart: Heart, name: str, quick: bool) -> Unit:
    """One network on one heart; it is trained when the first heart is measured."""
    from benchmarks.network import learned_comparators as learned

    folder = store.FOLDER.parent / "learned"
    effort = learned.Effort(1, 1, 1) if quick else learned.best_effort(folder)

    def measure() -> Record:
        model = learned.trained(name, effort, folder)
        case, start, cpu = heart.case(), time.perf_counter(), time.process_time()
        found = learned.complete(case, model.network)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        record = scored(case, name, found, seconds)
        return rounded(record | {"cpu_seconds": cpu, "training": model.about})

    return Unit(heart_key(heart, name) | {"weights": learned.code_digest(effort)}, measure)


def _gaussian(heart: Heart) -> Unit:
    def measure() -> Record:
        case, start, cpu = heart.case(), time.perf_counter(), time.process_time()
        found = comparators.gaussian_smoothing(case.target.labels, case.truth)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        record = scored(case, "Gaussian label smoothing", found, seconds)
        return rounded(record | {"cpu_seconds": cpu})

    return Unit(heart_key(heart, "Gaussian label smoothing"), measure)


def _fused(heart: Heart, name: str) -> Unit:
    propagate, fuse, _ = _FUSIONS[name]

    def measure() -> Record:
        case, start = heart.case(), time.perf_counter()
        atlases = propagate(heart)
        fused, cpu = fuse(atlases)
        started = time.process_time()
        cleaned = clean_topology(fused)
        cpu += atlases.seconds + time.process_time() - started
        seconds = time.perf_counter() - start
        found = baselines.interpolate_nearest(cleaned, case.truth)
        return rounded(scored(case, name, found, seconds) | {"cpu_seconds": cpu})

    return Unit(heart_key(heart, name), measure)


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return Dice and distances, gains, robustness, time, and what is absent."""
    records = result["records"]
    others = [method for method in tabulate.methods(records) if method != DEFAULT]
    figure_table = tabulate.figure_table
    quoted = [
        tabulate.quoted_row(f"quoted: paper, Table V, {name}, 20 other hearts", dice, ORDER, 3)
        for name, (dice, _) in paper.LEARNED.items()
    ]
    seconds = {
        "processor seconds": lambda own: tabulate.mean_sd([r["cpu_seconds"] for r in own], 1)
    }
    return {
        "comparison-dice": "\n".join(
            [figure_table(records, "dice"), *["| " + " | ".join(row) + " |" for row in quoted]]
        ),
        "comparison-dice-tilt": figure_table(records, "dice", alignments=("tilt",)),
        "comparison-hausdorff-slicewise": figure_table(records, "hausdorff_slicewise_mm", digits=2),
        "comparison-surface": figure_table(records, "average_surface_distance_mm", digits=2),
        "comparison-staircase": tabulate.staircase_table(records),
        "comparison-significance": tabulate.comparison_table(records, DEFAULT, others),
        "comparison-robustness": tabulate.robustness_table(records),
        "comparison-seconds": tabulate.summary_table(
            [r for r in records if "cpu_seconds" in r], seconds
        ),
        "comparison-means": tabulate.means_table(records),
        "comparison-best": _best_table(records, others),
        "comparison-learned": _learned_table(records, result["absent"]),
    }


ORDER = tabulate.ORDER


def _best_table(records: list[Record], others: list[str]) -> str:
    """The best other way for each structure, by mean Dice, and how far ours is ahead of it.

    Other votes on our registrations stand apart: they share nearly everything with ours.
    """
    groups = {
        "another method": [m for m in others if not m.endswith(SHARED)],
        "another vote on our registrations": [m for m in others if m.endswith(SHARED)],
    }
    rows = []
    for group, methods in groups.items():
        for alignment, words in (("raw", "raw"), ("tilt", "after translation and tilt")):
            cells = []
            for structure in ORDER:
                means = {
                    method: float(np.mean(found))
                    for method in [DEFAULT, *methods]
                    if (found := tabulate.values(records, method, structure, "dice", alignment))
                }
                ours = means.pop(DEFAULT)
                best = max(means, key=lambda method: means[method])
                name = best.removesuffix(SHARED)
                cells.append(f"{name} {means[best]:.3f}; ours {ours - means[best]:+.3f}")
            rows.append([f"{group}, {words}", *cells])
    return tabulate.markdown(["Dice of the best other way; ours minus it", *ORDER], rows)


def _learned_table(records: list[Record], absent: dict[str, str]) -> str:
    """How each network was trained, and whether it reaches what its paper and Table V say."""
    rows = []
    for name in _LEARNED:
        about = next(
            (r["training"] for r in records if r["method"] == name and "training" in r), None
        )
        if about is None:
            continue
        before, last = (about["losses"] or [0.0])[-2:][0], about["losses"][-1]
        rows.append(
            [
                name,
                f"{about['parameters'] / 1e6:.1f}",
                f"{about['steps']} x {about['batch']}",
                f"{about['cpu_seconds'] / 60:.1f}",
                f"{before:.3f}, {last:.3f}",
                _reached(records, name),
                _aim(records, name),
            ]
        )
    rows += [[name, *["–"] * 4, f"not run: {why}", "–"] for name, why in absent.items()]
    header = ["network", "parameters, millions", "steps x hearts", "processor minutes"]
    header += ["loss, last two fifths", "Table V's Dice reached (LV cavity, LV wall), aligned"]
    return tabulate.markdown([*header, "better than, as published"], rows)


def _reached(records: list[Record], name: str) -> str:
    """Whether the Dice after translation and tilt is that which Table V gives for other hearts."""
    published, words = paper.LEARNED[name][0], []
    for structure, (wanted, _) in published.items():
        found = float(np.mean(tabulate.values(records, name, structure, "dice", "tilt")))
        words.append(f"{'yes' if found >= wanted else 'no'} ({found:.3f}; {wanted:.3f})")
    return ", ".join(words)


def _aim(records: list[Record], name: str) -> str:
    """Whether a network is better than the one that its authors, or Table V, put it above."""
    if name not in _AIMS:
        return "–"
    other = _AIMS[name].split(",")[0]
    ours, theirs = tabulate.paired(records, (name, other), "LV wall", "dice")
    if not ours:
        return "–"
    gain = float(np.mean(ours) - np.mean(theirs))
    return f"{_AIMS[name]}: {'yes' if gain > 0 else 'no'} ({gain:+.3f})"


def plots_of(result: dict[str, Any]) -> dict[str, Any]:
    """Return one box plot of raw Dice."""
    figure = plots.boxes(result["records"], "dice", "Dice, raw", names=_SHORT)
    return {"comparison-dice": figure}
