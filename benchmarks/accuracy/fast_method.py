"""What the fast method costs in accuracy and saves in time, beside the default, case by case in one run.

Synthetic hearts and real anatomies, degraded as everywhere, are scored against the truth; of patients
every second slice is hidden and filled from the others (`benchmarks.harness.hidden_slices`). The method
was chosen on other synthetic hearts and on random shapes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import numpy as np

from benchmarks.harness import hidden_slices, tabulate
from benchmarks.harness.cases import (
    ANATOMIES,
    Acquisition,
    Case,
    DataAbsent,
    acdc,
    anatomy_case,
    data_folder,
    synthetic_hearts,
)
from benchmarks.harness.measuring import heart_key, refine_quietly, rounded
from benchmarks.harness.scoring import dice_only, wilcoxon_p
from benchmarks.harness.store import Record, Unit, gather
from cardiacreg.geometry import LabelMap
from cardiacreg.metrics import baselines
from cardiacreg.phantoms.toy_heart import make_toy_heart
from cardiacreg.refinement.options import RefineOptions
from cardiacreg.results.result import RefineResult

DEFAULT, FAST = "default", "fast method"
OPTIONS = {DEFAULT: RefineOptions(), FAST: RefineOptions.fast()}
SYNTHETIC, REAL, PATIENTS = "synthetic hearts", "real anatomies", "ACDC, hidden slices"
ALIGNMENTS = {SYNTHETIC: ("raw", "tilt"), REAL: ("raw", "tilt"), PATIENTS: ("raw", "translation")}
Score = Callable[[RefineResult], dict[str, Any]]


def run(quick: bool, cases: int = 20) -> dict[str, Any]:
    """Refine synthetic hearts, real anatomies and patients with hidden slices by both methods."""
    count = 1 if quick else cases
    units = [
        Unit(heart_key(heart, "both methods"), partial(_against_truth, heart.case, SYNTHETIC))
        for heart in synthetic_hearts(count)
    ]
    for more in (_anatomies, _patients):
        try:
            units += more(count)
        except DataAbsent as absent:
            print(f"fast_method: {absent}")
    records = [
        {k: v for k, v in record.items() if k != "methods"} | each
        for record in gather("fast_method", units)
        for each in record.get("methods", [{}])
    ]
    return {"seeds": sorted({r["seed"] for r in records if "seed" in r}), "records": records}


def _anatomies(count: int) -> Iterator[Unit]:
    data_folder("hr_bank")
    for seed, name in enumerate(ANATOMIES[:count]):
        make = partial(anatomy_case, name, seed)
        yield Unit({"case": name, "data": REAL}, partial(_against_truth, make, REAL))


def _patients(count: int) -> Iterator[Unit]:
    chosen = tuple(1 + n * 100 // count for n in range(count))
    frames = acdc(chosen)
    for n in range(len(frames) // 2):  # end-diastole and end-systole in turn
        each = frames[2 * n + n % 2]
        yield Unit({"case": each.name, "data": PATIENTS}, partial(_against_hidden, each))


def _against_truth(make: Callable[[], Case], population: str) -> Record:
    case = make()

    def score(result: RefineResult) -> dict[str, Any]:
        return dice_only(baselines.interpolate_nearest(result.labels, case.truth), case.truth)

    head = {"case": case.name, "seed": case.seed, "population": population}
    return head | _measure(case.target.labels, score)


def _against_hidden(each: Acquisition) -> Record:
    head = {"case": each.name, "population": PATIENTS}
    try:
        stack, hidden = hidden_slices.every_second(hidden_slices.canonical(each))
    except hidden_slices.TooFewSlices as few:
        return head | {"skipped": str(few)}

    def score(result: RefineResult) -> dict[str, Any]:
        return hidden_slices.score_model(result.labels, stack, result.slice_shifts_mm, hidden)

    return head | _measure(stack, score)


def _measure(labels: LabelMap, score: Score) -> Record:
    _compile()
    methods = []
    for method, options in OPTIONS.items():
        start = time.process_time()
        result = refine_quietly(labels, options=options, threads=1)
        seconds = time.process_time() - start
        methods.append(
            {
                "method": method,
                "cpu_seconds": seconds,
                "agreement": result.agreement,
                "minimum_jacobian": result.minimum_jacobian,
                "scores": score(result),
            }
        )
    return rounded({"methods": methods})


@cache
def _compile() -> None:
    """Compile or load every kernel, so that no case is charged with it."""
    refine_quietly(make_toy_heart().labels, threads=1)


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return Dice per population, the differences, agreement with the input, and processor seconds."""
    records = [r for r in result["records"] if "scores" in r]
    populations = list(dict.fromkeys(r["population"] for r in records))
    rows, differences, agreement, seconds = [], [], [], []
    for population in populations:
        own = [r for r in records if r["population"] == population]
        rows += _dice_rows(population, own)
        differences += _difference_rows(population, own)
        agreement += _agreement_rows(population, own)
        seconds.append(_seconds_row(population, own))
    times = ["processor seconds, median", *OPTIONS, "fast over default", "cases"]
    return {
        "fast_method-dice": tabulate.markdown(["Dice", *tabulate.ORDER], rows),
        "fast_method-differences": tabulate.markdown(
            ["Dice, fast method minus default", *tabulate.ORDER], differences
        ),
        "fast_method-agreement": tabulate.markdown(
            ["Dice with its own input slices", *tabulate.ORDER], agreement
        ),
        "fast_method-seconds": tabulate.markdown(times, seconds),
    }


def _dice_rows(population: str, own: list[Record]) -> list[list[str]]:
    return [
        [f"{population}: {method}, {tabulate.ALIGNMENTS[alignment]}"]
        + [
            tabulate.mean_sd(tabulate.values(own, method, structure, "dice", alignment))
            for structure in tabulate.ORDER
        ]
        for alignment in ALIGNMENTS[population]
        for method in OPTIONS
    ]


def _difference_rows(population: str, own: list[Record]) -> list[list[str]]:
    return [
        [f"{population}, {tabulate.ALIGNMENTS[alignment]}"]
        + [_difference(own, structure, alignment) for structure in tabulate.ORDER]
        for alignment in ALIGNMENTS[population]
    ]


def _difference(own: list[Record], structure: str, alignment: str) -> str:
    fast, default = tabulate.paired(own, (FAST, DEFAULT), structure, "dice", alignment)
    if not fast:
        return "–"
    gain = float(np.mean(fast) - np.mean(default))
    return f"{gain:+.3f} ({tabulate.p_text(wilcoxon_p(fast, default))})"


def _agreement_rows(population: str, own: list[Record]) -> list[list[str]]:
    rows = []
    for method in OPTIONS:
        found = [r["agreement"] for r in own if r["method"] == method]
        cells = [
            tabulate.mean_sd([each[name] for each in found if each.get(name) is not None])
            for name in tabulate.ORDER
        ]
        rows.append([f"{population}: {method}", *cells])
    return rows


def _seconds_row(population: str, own: list[Record]) -> list[str]:
    spent = {
        method: np.array([r["cpu_seconds"] for r in own if r["method"] == method])
        for method in OPTIONS
    }
    ratio = float(np.median(spent[FAST] / spent[DEFAULT]))
    medians = [f"{np.median(each):.2f}" for each in spent.values()]
    return [population, *medians, f"{ratio:.2f}", str(len(spent[DEFAULT]))]
