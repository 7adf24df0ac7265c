"""Whether atlases chosen by their images make better models than atlases chosen by their labels.

Only the choice differs: by labels (the default), by the NMI of images (``selection="image"``), and by
images among the twelve best by labels. Synthetic hearts with images, where one renderer made target and
atlases, are scored against the truth; of real frames every second slice is hidden and filled from the
others (`benchmarks.harness.hidden_slices`), and there only the target's image is a scanner's.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from benchmarks.fusion.fusion_modes import ALIGNMENTS, PATIENTS, SPACING_MM, of_stack
from benchmarks.harness import hidden_slices, tabulate
from benchmarks.harness.cases import Acquisition, DataAbsent, Heart, acdc, synthetic_hearts
from benchmarks.harness.measuring import heart_key, refine_quietly, rounded
from benchmarks.harness.scoring import dice_only
from benchmarks.harness.store import Record, Unit, gather
from cardiacreg.atlases.embedded import default_atlases
from cardiacreg.errors import InputWarning
from cardiacreg.geometry import LabelMap, Subject, Volume
from cardiacreg.io.nifti import read_volume
from cardiacreg.metrics import baselines
from cardiacreg.refinement._refine import make_context, oriented_context
from cardiacreg.refinement.atlas_choice import select_atlases
from cardiacreg.refinement.context import Clock
from cardiacreg.refinement.options import RefineOptions
from cardiacreg.refinement.target import gather_atlases, gather_target
from cardiacreg.results.result import RefineResult

BY_LABELS, BY_IMAGE, BY_BOTH = "by labels", "by image", "by image, of the 12 best by labels"
AMONG = 12
Score = Callable[[RefineResult], dict[str, Any]]


def run(quick: bool, cases: int = 8) -> dict[str, Any]:
    """Refine synthetic hearts and real frames with atlases chosen in every way."""
    units = list(_synthetic(1 if quick else cases))
    try:
        units += list(_real(1 if quick else min(cases, len(PATIENTS))))
    except DataAbsent as absent:
        print(f"selection_by_image: without real frames, {absent}")
    found = gather("selection_by_image", units)
    records = [
        {k: v for k, v in record.items() if k != "methods"} | each
        for record in found
        for each in record.get("methods", [{}])
    ]
    return {"seeds": sorted({r["seed"] for r in records if "seed" in r}), "records": records}


def best_by_labels(labels: LabelMap, image: Volume, count: int) -> list[Subject]:
    """Return the embedded atlases that a refinement ranks first by labels, with their images."""
    options = RefineOptions(n_atlases=count)
    target = gather_target(labels, image, None, None, None)
    bank = gather_atlases(default_atlases(), target, count)
    context = make_context(target, SPACING_MM, options, 1, None, Clock())
    context, _, ranking = oriented_context(context, (), bank)
    chosen = select_atlases(context, bank, ranking)[:count]
    return [bank[each.ranked.index] for each in chosen]


def _measure(labels: LabelMap, image: Volume, score: Score) -> Record:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        among = best_by_labels(labels, image, AMONG)
    by_image = RefineOptions(selection="image")
    methods: list[dict[str, Any]] = []
    for method, atlases, options in (
        (BY_LABELS, None, RefineOptions()),
        (BY_IMAGE, None, by_image),
        (BY_BOTH, among, by_image),
    ):
        result = refine_quietly(labels, image=image, atlases=atlases, options=options, threads=1)
        chosen = [report.name for report in result.atlases]
        methods.append({"method": method, "atlases": chosen, "scores": score(result)})
    return rounded({"methods": methods})


def _synthetic(count: int) -> Iterator[Unit]:
    for heart in synthetic_hearts(count):
        yield Unit(heart_key(heart, "every choice"), partial(_measure_synthetic, heart))


def _measure_synthetic(heart: Heart) -> Record:
    case = heart.case()
    assert case.target.image is not None

    def score(result: RefineResult) -> dict[str, Any]:
        return dice_only(baselines.interpolate_nearest(result.labels, case.truth), case.truth)

    head = {"case": case.name, "seed": case.seed, "data": "synthetic"}
    return head | _measure(case.target.labels, case.target.image, score)


def _real(count: int) -> Iterator[Unit]:
    frames = acdc(PATIENTS[:count])
    for each in (frames[2 * n + n % 2] for n in range(count)):
        yield Unit({"case": each.name, "data": "ACDC"}, partial(_measure_real, each))


def _measure_real(each: Acquisition) -> Record:
    stack, hidden = hidden_slices.every_second(hidden_slices.canonical(each))

    def score(result: RefineResult) -> dict[str, Any]:
        return hidden_slices.score_model(result.labels, stack, result.slice_shifts_mm, hidden)

    head = {"case": each.name, "data": "ACDC"}
    return head | _measure(stack, of_stack(read_volume(each.image), stack), score)


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return Dice of every choice, and how often it is better than the choice by labels."""
    good = [r for r in result["records"] if "error" not in r]
    rows = []
    for data, words in (("synthetic", "synthetic"), ("ACDC", "hidden slices")):
        own = [r for r in good if r["data"] == data]
        for alignment in ALIGNMENTS:
            rows += [
                _row(own, method, alignment, words) for method in (BY_LABELS, BY_IMAGE, BY_BOTH)
            ]
    header = ["atlases chosen", *tabulate.ORDER, "mean, minus by labels", "of five as by labels"]
    return {"selection-by-image": tabulate.markdown(header, [row for row in rows if row])}


def _row(records: list[Record], method: str, alignment: str, words: str) -> list[str]:
    """One row; empty where nothing was measured."""
    own = [r for r in records if r["method"] == method]
    if not own:
        return []
    cells = []
    for structure in tabulate.ORDER:
        values = tabulate.values(own, method, structure, "dice", alignment)
        cells.append(tabulate.mean_sd(values) if values else "–")
    base = {r["case"]: r for r in records if r["method"] == BY_LABELS}
    gains = [_mean(r, alignment) - _mean(base[r["case"]], alignment) for r in own]
    shared = [len({*r["atlases"]} & {*base[r["case"]]["atlases"]}) for r in own]
    gain = f"{np.mean(gains):+.3f} (better in {sum(g > 0 for g in gains)} of {len(gains)})"
    if method == BY_LABELS:
        gain = "–"
    return [f"{words}, {method}, {alignment}", *cells, gain, f"{np.mean(shared):.1f}"]


def _mean(record: Record, alignment: str) -> float:
    return float(np.mean([each["dice"] for each in record["scores"][alignment].values()]))
