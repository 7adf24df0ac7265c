"""What each step past the paper brings: from the published method to the default, one change at a time.

Label-only on real anatomies with the other real anatomies as the bank, or on synthetic hearts with the
embedded bank where the real ones are absent.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from benchmarks import tabulate
from benchmarks.cases import (
    ANATOMIES,
    Case,
    DataAbsent,
    anatomy_case,
    real_anatomy,
    synthetic_cases,
)
from benchmarks.measuring import refined, rounded
from benchmarks.scoring import dice_only
from cardiacreg.geometry import Subject
from cardiacreg.options import RefineOptions


def variants() -> dict[str, RefineOptions]:
    """Return the options of each step; the last is the default."""
    default, paper = RefineOptions(), RefineOptions.paper()
    on_slices = replace(paper.registration, background_slices=False)
    stiffer = replace(default.registration, class_weights=())
    own_shifts = replace(stiffer, estimate_shifts=True)
    landmarks_only = replace(default, affine_candidates=0)
    return {
        "paper preset": paper,
        "+ objective on the acquired slices": replace(
            paper, upsample_target=False, registration=on_slices
        ),
        "+ stiffer spline": replace(paper, upsample_target=False, registration=stiffer),
        "+ slice shifts, each atlas its own": replace(
            landmarks_only, registration=own_shifts, slice_motion=None
        ),
        "+ slice shifts agreed on a stiff lattice first": replace(
            landmarks_only, registration=stiffer
        ),
        "+ RV wall weighted": landmarks_only,
        "+ affine improved on the labels (default)": default,
    }


def run(quick: bool) -> dict[str, Any]:
    """Measure every variant on the same hearts."""
    records, seeds = [], []
    for case, atlases in _cases(2 if quick else 5):
        seeds.append(case.seed)
        for method, options in variants().items():
            records.append(refined(case, method, options=options, atlases=atlases, score=dice_only))
    return {"seeds": seeds, "records": rounded(records)}


def _cases(count: int) -> Iterator[tuple[Case, Sequence[Subject] | None]]:
    try:
        bank = {name: real_anatomy(name) for name in ANATOMIES}
    except DataAbsent:
        for case in synthetic_cases(count):
            yield case, None
        return
    for seed in range(0, len(ANATOMIES), -(-len(ANATOMIES) // count)):
        name = ANATOMIES[seed]
        yield anatomy_case(name, seed), [a for other, a in bank.items() if other != name]


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return Dice per step, raw and after translation and tilt."""
    records = result["records"]
    return {
        "ablation-dice": tabulate.figure_table(records, "dice"),
        "ablation-dice-tilt": tabulate.figure_table(records, "dice", alignments=("tilt",)),
    }
