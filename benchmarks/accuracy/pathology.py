"""Table VI: are diseased hearts refined into healthy ones? The bank with, without and with only disease.

Unseen hearts with pulmonary hypertension at end-diastole, refined with the whole embedded bank, without
its hypertensive hearts, and with its healthy hearts alone; and unseen healthy hearts with a bank of
hypertensive ones. What tells the disease: RV volume and mass, their ratio to the LV's, and how the septum
is pushed into the LV (eccentricity: the LV's width along the septum over that across it, 1 when round).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from benchmarks.harness import paper, plots, scoring, tabulate
from benchmarks.harness.cases import Heart, synthetic_hearts
from benchmarks.harness.measuring import BASELINES, interpolated_unit, refined_unit
from benchmarks.harness.store import Record, gather
from cardiacreg.atlases.embedded import default_atlases
from cardiacreg.geometry import LV_CAVITY, RV_CAVITY, LabelMap, Subject

ILL, WELL = "pulmonary_hypertension", "healthy"
_BANDS = (0.35, 0.65)


def run(quick: bool, cases: int = 8) -> dict[str, Any]:
    """Refine ill hearts with four banks and healthy ones with three."""
    count = 1 if quick else cases
    banks: dict[str, list[Callable[[], Sequence[Subject]]]] = {
        ILL: [whole_bank, bank_without_disease, healthy_bank],
        WELL: [whole_bank, bank_without_healthy, diseased_bank],
    }
    units = [
        refined_unit(heart, bank.__name__.replace("_", " "), bank=bank, score=score)
        for group, chosen in banks.items()
        for heart in _hearts(group, count)
        for bank in chosen
    ]
    units += [
        interpolated_unit(heart, method, score=score)
        for group in banks
        for heart in _hearts(group, count)
        for method in BASELINES
    ]
    records = gather("pathology", units)
    return {"seeds": sorted({r["seed"] for r in records}), "records": records}


def _hearts(group: str, count: int) -> list[Heart]:
    return synthetic_hearts(count, groups=(group,), phases=("ED",))


@lru_cache(maxsize=1)
def whole_bank() -> Sequence[Subject]:
    """Return the embedded bank."""
    return default_atlases()


@lru_cache(maxsize=1)
def bank_without_disease() -> Sequence[Subject]:
    """Return the embedded bank without its hypertensive hearts."""
    return _chosen(lambda group: group != ILL)


@lru_cache(maxsize=1)
def healthy_bank() -> Sequence[Subject]:
    """Return the healthy hearts of the embedded bank."""
    return _chosen(lambda group: group == WELL)


@lru_cache(maxsize=1)
def bank_without_healthy() -> Sequence[Subject]:
    """Return the embedded bank without its healthy hearts."""
    return _chosen(lambda group: group != WELL)


@lru_cache(maxsize=1)
def diseased_bank() -> Sequence[Subject]:
    """Return the hypertensive hearts of the embedded bank."""
    return _chosen(lambda group: group == ILL)


def _chosen(wanted: Callable[[str], bool]) -> Sequence[Subject]:
    bank = default_atlases()
    return [bank[n] for n, about in enumerate(bank.metadata) if wanted(str(about["group"]))]


def score(result: LabelMap, truth: LabelMap) -> dict[str, Any]:
    """Return Dice and sizes, and the eccentricity of both maps."""
    found = scoring.sizes_and_dice(result, truth)
    shape = {"found": eccentricity(result), "true": eccentricity(truth)}
    return found | {"eccentricity": shape}


def eccentricity(labels: LabelMap) -> float:
    """Return the LV cavity's width along the septum over its width across it, middle of the LV.

    Across is the direction from the LV's to the RV's centre of area; a width is four times the standard
    deviation of the cavity's pixels, which is the diameter for an ellipse.
    """
    held = np.flatnonzero((labels.array == LV_CAVITY).any(axis=(0, 1)))
    low, high = (held[0] + share * (held[-1] - held[0]) for share in _BANDS)
    ratios = []
    for k in held[(held >= low) & (held <= high)]:
        lv = np.argwhere(labels.array[:, :, k] == LV_CAVITY) * labels.spacing_mm[:2]
        rv = np.argwhere(labels.array[:, :, k] == RV_CAVITY) * labels.spacing_mm[:2]
        if len(lv) < 5 or len(rv) < 5:
            continue
        across = rv.mean(axis=0) - lv.mean(axis=0)
        across /= np.linalg.norm(across)
        along = np.array([-across[1], across[0]])
        centred = lv - lv.mean(axis=0)
        ratios.append(float((centred @ along).std() / (centred @ across).std()))
    return float(np.mean(ratios)) if ratios else float("nan")


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return sizes, their bias, shape, and Dice per bank."""
    records = [_named(r) for r in result["records"] if "scores" in r]
    ill = [r for r in records if r["group"] == ILL]
    errors = {
        "LV cavity": ("volume_error_ml", "ml"),
        "RV cavity": ("volume_error_ml", "ml"),
        "LV wall": ("mass_error_g", "g"),
        "RV wall": ("mass_error_g", "g"),
    }
    columns = {
        "eccentricity, found": lambda own: _mean_of(own, lambda r: _shape(r)["found"], 3),
        "true": lambda own: _mean_of(own, lambda r: _shape(r)["true"], 3),
        "RV over LV volume, found": lambda own: _mean_of(own, lambda r: _ratio(r, "found"), 3),
        "true ": lambda own: _mean_of(own, lambda r: _ratio(r, "true"), 3),
    }
    return {
        "pathology-shape": tabulate.summary_table(records, columns),
        "pathology-dice": tabulate.figure_table(records, "dice", alignments=("raw", "tilt")),
        "pathology-robustness": tabulate.robustness_table([_named(r) for r in result["records"]]),
        "pathology-significance": _against_whole_bank(records),
        "pathology-agreement": tabulate.agreement_table(records, errors),
        "pathology-volumes": tabulate.figure_table(
            ill, "volume_error_ml", structures=("LV cavity", "RV cavity"), digits=1, absolute=True,
            quoted=(paper.HYPERTENSION_NAME, paper.HYPERTENSION_VOLUMES_ML),
        ),
        "pathology-masses": tabulate.figure_table(
            ill, "mass_error_g", structures=("LV wall", "RV wall"), digits=1, absolute=True,
            quoted=(paper.HYPERTENSION_NAME, paper.HYPERTENSION_MASSES_G),
        ),
    }  # fmt: skip


def _against_whole_bank(records: Sequence[Record]) -> str:
    """Gain in raw Dice of the whole bank over every other way, for ill and for healthy hearts."""
    parts = []
    for who in ("ill hearts", "healthy hearts"):
        own = [m for m in tabulate.methods(records) if m.startswith(who)]
        whole = f"{who}, whole bank"
        rest = [m for m in own if m != whole]
        lines = tabulate.comparison_table(records, whole, rest).splitlines()
        parts += lines if not parts else lines[2:]
    return "\n".join(parts)


def _named(record: Record) -> Record:
    who = "ill hearts" if record["group"] == ILL else "healthy hearts"
    return record | {"method": f"{who}, {record['method']}"}


def _shape(record: Record) -> dict[str, float]:
    shape: dict[str, float] = record["scores"]["eccentricity"]
    return shape


def _ratio(record: Record, which: str) -> float:
    figures = record["scores"]["raw"]
    sizes = [figures[name]["true_volume_ml"] for name in ("RV cavity", "LV cavity")]
    if which == "found":
        sizes = [
            size + figures[name]["volume_error_ml"]
            for size, name in zip(sizes, ("RV cavity", "LV cavity"), strict=True)
        ]
    return float(sizes[0] / sizes[1])


def _mean_of(own: Sequence[Record], value: Callable[[Record], float], digits: int) -> str:
    return tabulate.mean_sd([value(record) for record in own], digits)


def plots_of(result: dict[str, Any]) -> dict[str, Any]:
    """Return found against true shape, one panel per bank, ill hearts and healthy ones."""
    records = [r for r in result["records"] if "scores" in r and r["method"] != "nearest neighbour"]
    banks = tabulate.methods(records)
    measures: dict[str, Callable[[Record], tuple[float, float]]] = {
        "eccentricity of the LV": lambda r: (_shape(r)["true"], _shape(r)["found"]),
        "RV over LV volume": lambda r: (_ratio(r, "true"), _ratio(r, "found")),
    }
    figure, axes = plots.panels(len(measures), len(banks), width=2.1, height=2.3)
    for row, (label, pair) in zip(axes, measures.items(), strict=True):
        every = np.array([pair(r) for r in records])
        limits = [every.min() - 0.03, every.max() + 0.03]
        for panel, bank in zip(row, banks, strict=True):
            for group, colour in ((ILL, "#d55e00"), (WELL, "#0a5fa8")):
                own = [pair(r) for r in records if (r["method"], r["group"]) == (bank, group)]
                if own:
                    panel.scatter(*np.array(own).T, s=14, color=colour, linewidths=0, alpha=0.85)
            panel.plot(limits, limits, color="0.6", linewidth=0.9, zorder=0)
            panel.set(xlim=limits, ylim=limits, aspect="equal")
            panel.set_xlabel("true", fontsize=8)
        row[0].set_ylabel(f"{label}\nfound")
    for panel, bank in zip(axes[0], banks, strict=True):
        panel.set_title(bank)
    handles = [
        axes[0, 0].scatter([], [], s=14, color=colour, label=name)
        for name, colour in (("ill", "#d55e00"), ("healthy", "#0a5fa8"))
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return {"pathology-shape": figure}
