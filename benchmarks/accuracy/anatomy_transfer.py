"""Real anatomies refined with the embedded bank and with the other real anatomies as the bank.

What the embedded, synthetic bank is worth on anatomies: it must beat both interpolations on every
structure and come near a bank of real anatomies (leave-one-out). Targets and atlases are whole, outflow
tracts included, which rise above the slices that experts label; all is scored. Neither bank is fully
independent of the targets: the synthetic population takes means and standard deviations from the same
cohort, and the real anatomies are fits of a template built from all of them. Fifteen random shapes
of the statistical model of these anatomies are a population of their own, refined with the embedded bank.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks.accuracy import simulated
from benchmarks.harness import plots, store, tabulate
from benchmarks.harness.cases import ANATOMIES, RANDOM_SHAPES, Case, anatomy_case, real_anatomy
from benchmarks.harness.measuring import BASELINES, interpolated, refined, rounded

EMBEDDED, REAL = "embedded bank", "bank of the other real anatomies"
NEARNESS = 0.02


def run(quick: bool) -> dict[str, Any]:
    """Measure both banks and both interpolations on every real anatomy."""
    names = ANATOMIES[:2] if quick else ANATOMIES
    bank = {name: real_anatomy(name) for name in (ANATOMIES[:8] if quick else ANATOMIES)}
    units = []
    for seed, name in enumerate(names):
        others = [atlas for other, atlas in bank.items() if other != name]
        units += [
            _unit(name, seed, method, partial(interpolated, method=method)) for method in BASELINES
        ]
        units.append(_unit(name, seed, EMBEDDED, partial(refined, method=EMBEDDED)))
        units.append(_unit(name, seed, REAL, partial(refined, method=REAL, atlases=others)))
    drawn = RANDOM_SHAPES[:1] if quick else RANDOM_SHAPES
    shapes = [
        _unit(name, seed, method, measure)
        for seed, name in enumerate(drawn, len(ANATOMIES))
        for method, measure in (
            *((method, partial(interpolated, method=method)) for method in BASELINES),
            (EMBEDDED, partial(refined, method=EMBEDDED)),
        )
    ]
    records = store.gather("anatomy_transfer", [*units, *shapes])
    return {
        "seeds": list(range(len(names))),
        "records": [r for r in records if r["case"] not in RANDOM_SHAPES],
        "random": [r for r in records if r["case"] in RANDOM_SHAPES],
    }


def _unit(
    name: str, seed: int, method: str, measure: Callable[[Case], dict[str, Any]]
) -> store.Unit:
    key = {"case": name, "seed": seed, "method": method}
    return store.Unit(key, lambda: rounded(measure(anatomy_case(name, seed))))


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return Dice, distances, shifts and whether the claims hold."""
    records, drawn = result["records"], result.get("random", [])
    sizes = simulated.VOLUMES | simulated.MASSES
    return {
        "transfer-means": tabulate.means_table(records),
        "transfer-surface": tabulate.figure_table(records, "average_surface_distance_mm", digits=2),
        "transfer-hausdorff95": tabulate.figure_table(records, "hausdorff95_mm", digits=2),
        "transfer-staircase": tabulate.staircase_table(records),
        "transfer-agreement": tabulate.agreement_table(records, sizes),
        "transfer-robustness": tabulate.robustness_table(records),
        "transfer-random-dice": tabulate.figure_table(drawn, "dice", alignments=("raw", "tilt"))
        if drawn
        else "Not measured yet.",
        "transfer-random-significance": tabulate.comparison_table(drawn, EMBEDDED, [*BASELINES])
        if drawn
        else "Not measured yet.",
        "transfer-dice": tabulate.figure_table(
            records, "dice", alignments=("raw", "translation", "tilt")
        ),
        "transfer-hausdorff-slicewise": tabulate.figure_table(
            records, "hausdorff_slicewise_mm", alignments=("raw", "tilt"), digits=2
        ),
        "transfer-hausdorff": tabulate.figure_table(records, "hausdorff_mm", digits=2),
        "transfer-shifts": tabulate.shift_table(records),
        "transfer-significance": tabulate.comparison_table(records, EMBEDDED, [*BASELINES, REAL]),
        "transfer-claims": _claims(records),
    }


def plots_of(result: dict[str, Any]) -> dict[str, Any]:
    """Return box plots of the Dice and the Bland-Altman plot."""
    records = result["records"]
    names = {REAL: "real bank"}
    return {
        "transfer-dice": plots.boxes(
            records, "dice", "Dice after translation and tilt", alignment="tilt", names=names
        ),
        "transfer-agreement": plots.bland_altman(
            records, simulated.QUANTITIES, tabulate.methods(records)
        ),
    }


def _claims(records: list[dict[str, Any]]) -> str:
    rows = []
    for alignment, words in tabulate.ALIGNMENTS.items():
        ours = _means(records, EMBEDDED, alignment)
        simple = np.maximum(*[_means(records, method, alignment) for method in BASELINES])
        real = _means(records, REAL, alignment)
        rows.append([f"beats both interpolations, {words}", *_verdicts(ours > simple)])
        near = ours >= real - NEARNESS
        rows.append([f"within {NEARNESS} of the real bank, {words}", *_verdicts(near)])
    return tabulate.markdown(["claim about the embedded bank (mean Dice)", *tabulate.ORDER], rows)


def _means(records: list[dict[str, Any]], method: str, alignment: str) -> np.ndarray:
    return np.array(
        [
            np.mean(tabulate.values(records, method, structure, "dice", alignment))
            for structure in tabulate.ORDER
        ]
    )


def _verdicts(held: np.ndarray) -> list[str]:
    return ["yes" if each else "no" for each in held]
