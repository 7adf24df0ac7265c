"""Real anatomies refined with the embedded bank and with the other real anatomies as the bank.

What the embedded, synthetic bank is worth on anatomies: it must beat both interpolations on every
structure and come near a bank of real anatomies (leave-one-out). Atlases of the real bank are cut at the
base in the same way as the targets, and figures count below the cut only. Neither bank is fully
independent of the targets: the synthetic population takes means and standard deviations from the same
cohort, and the real anatomies are fits of a template built from all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks import store, tabulate
from benchmarks.cases import ANATOMIES, Case, anatomy_case, real_anatomy
from benchmarks.measuring import BASELINES, interpolated, refined, rounded

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
    records = store.gather("anatomy_transfer", units)
    return {"seeds": list(range(len(names))), "records": records}


def _unit(
    name: str, seed: int, method: str, measure: Callable[[Case], dict[str, Any]]
) -> store.Unit:
    key = {"case": name, "seed": seed, "method": method}
    return store.Unit(key, lambda: rounded(measure(anatomy_case(name, seed))))


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return Dice, distances, shifts and whether the claims hold."""
    records = result["records"]
    return {
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
