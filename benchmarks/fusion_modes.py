"""Which fusion is best: label votes, majority, eq. (5) with several windows and h, or its relatives.

On synthetic hearts with images (Dice with the truth) and on real frames (agreement with the acquired
slices; there the atlases' images are synthetic and the target's are not). Only the fusion differs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from benchmarks import baselines, tabulate
from benchmarks.cases import Acquisition, DataAbsent, Heart, acdc, synthetic_hearts
from benchmarks.measuring import heart_key, refine_quietly, rounded
from benchmarks.scoring import dice_only
from benchmarks.store import Record, Unit, gather
from cardiacreg.label_fusion import FusionOptions
from cardiacreg.options import RefineOptions
from cardiacreg.result import RefineResult

LABEL_VOTES = "label votes (no image)"
PATIENTS = (1, 21, 41, 61, 81, 100)


def variants() -> dict[str, FusionOptions | None]:
    """Return the fusions compared; None: no image is given."""
    wide, narrow, single = (7, 7, 3), (3, 3, 1), (1, 1, 1)
    return {
        LABEL_VOTES: None,
        "majority": FusionOptions(mode="majority"),
        "eq. (5), search 7x7x3, h 10": FusionOptions(mode="nonlocal", search=wide, bandwidth=10),
        "eq. (5), search 7x7x3, h 400": FusionOptions(mode="nonlocal", search=wide, bandwidth=400),
        "eq. (5), search 7x7x3, h 6400": FusionOptions(
            mode="nonlocal", search=wide, bandwidth=6400
        ),
        "eq. (5), search 3x3x1, h 400": FusionOptions(
            mode="nonlocal", search=narrow, bandwidth=400
        ),
        "eq. (5), search 3x3x1, h 1600": FusionOptions(
            mode="nonlocal", search=narrow, bandwidth=1600
        ),
        "eq. (5), search 1x1x1, h 1600": FusionOptions(
            mode="nonlocal", search=single, bandwidth=1600
        ),
        "eq. (5), correlation, search 3x3x1, h 0.1": FusionOptions(
            search=narrow, distance="correlation", bandwidth=0.1
        ),
        "best patch, search 3x3x1, h 400": FusionOptions(
            mode="best_patch", search=narrow, bandwidth=400
        ),
        "multi-point, search 3x3x1, h 400": FusionOptions(
            mode="multi_point", search=narrow, bandwidth=400
        ),
        "multi-point, correlation, search 3x3x1, h 0.1": FusionOptions(
            mode="multi_point", search=narrow, distance="correlation", bandwidth=0.1
        ),
        "joint, search 3x3x1": FusionOptions(mode="joint", search=narrow),
        "joint, search 7x7x3": FusionOptions(mode="joint", search=wide),
    }


def run(quick: bool, cases: int = 2) -> dict[str, Any]:
    """Measure every fusion on synthetic hearts and on real frames."""
    units = list(_synthetic(1 if quick else cases))
    try:
        units += list(_real(1 if quick else min(cases, len(PATIENTS))))
    except DataAbsent as absent:
        print(f"fusion_modes: without real frames, {absent}")
    if quick:
        units = [unit for unit in units if "7x7x3" not in unit.key["method"]]
    records = gather("fusion_modes", units)
    return {
        "seeds": sorted({record["seed"] for record in records if "seed" in record}),
        "records": records,
    }


def _refined(
    labels: Any, image: Any, fusion: FusionOptions | None, **arguments: Any
) -> tuple[RefineResult, float]:
    options = RefineOptions() if fusion is None else replace(RefineOptions(), fusion=fusion)
    given = None if fusion is None else image
    start = time.perf_counter()
    result = refine_quietly(labels, image=given, options=options, threads=1, **arguments)
    return result, time.perf_counter() - start


def _synthetic(count: int) -> Iterator[Unit]:
    for heart in synthetic_hearts(count):
        for method, fusion in variants().items():
            key = heart_key(heart, method) | {"data": "synthetic", "options": repr(fusion)}
            yield Unit(key, partial(_measure_synthetic, heart, method, fusion))


def _measure_synthetic(heart: Heart, method: str, fusion: FusionOptions | None) -> Record:
    case = heart.case()
    result, seconds = _refined(case.target.labels, case.target.image, fusion)
    found = baselines.nearest_neighbour(result.labels, case.truth)
    return rounded(
        {
            "case": case.name,
            "seed": case.seed,
            "data": "synthetic",
            "method": method,
            "seconds": seconds,
            "fuse_seconds": result.timings_seconds["fuse"],
            "scores": dice_only(found, case.truth),
        }
    )


def _real(count: int) -> Iterator[Unit]:
    frames = acdc(PATIENTS[:count])
    for each in (frames[2 * n + n % 2] for n in range(count)):
        for method, fusion in variants().items():
            key = {"case": each.name, "data": "ACDC", "method": method, "options": repr(fusion)}
            yield Unit(key, partial(_measure_real, each, method, fusion))


def _measure_real(each: Acquisition, method: str, fusion: FusionOptions | None) -> Record:
    result, seconds = _refined(each.labels, each.image, fusion, preset=each.preset)
    return rounded(
        {
            "case": each.name,
            "data": "ACDC",
            "method": method,
            "seconds": seconds,
            "fuse_seconds": result.timings_seconds["fuse"],
            "agreement": result.agreement,
        }
    )


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return Dice on synthetic hearts, agreement on real ones, and the time of the fusion."""
    good = [r for r in result["records"] if "error" not in r]
    synthetic = [r for r in good if r["data"] == "synthetic"]
    real = [r for r in good if r["data"] == "ACDC"]

    def agreement(name: str) -> Any:
        return lambda own: tabulate.mean_sd([r["agreement"][name] for r in own])

    columns = {name: agreement(name) for name in ("LV cavity", "LV wall", "RV cavity")}
    seconds = {
        "fusion, s": lambda own: tabulate.mean_sd([r["fuse_seconds"] for r in own], 2),
    }
    return {
        "fusion-synthetic": tabulate.figure_table(synthetic, "dice"),
        "fusion-real": tabulate.summary_table(real, columns | seconds) if real else "Not measured.",
    }
