"""Which fusion is best: label votes, majority, eq. (5) with several windows and h, or its relatives.

On synthetic hearts with images (Dice with the truth) and on real frames, where every second slice is
hidden and filled from the others (see `benchmarks.harness.hidden_slices`); there the atlases' images are
synthetic and the target's are not. A case is refined once, and its registered atlases are fused in every
mode.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from benchmarks.harness import hidden_slices, tabulate
from benchmarks.harness.cases import Acquisition, DataAbsent, Heart, acdc, synthetic_hearts
from benchmarks.harness.measuring import heart_key, rounded
from benchmarks.harness.scoring import dice_only
from benchmarks.harness.store import Record, Unit, gather
from cardiacreg.anatomy.topology import clean_topology
from cardiacreg.errors import InputWarning
from cardiacreg.fusion.label_fusion import FusionOptions
from cardiacreg.geometry import LabelMap, Volume
from cardiacreg.io.nifti import read_volume
from cardiacreg.metrics import baselines
from cardiacreg.refinement import steps
from cardiacreg.refinement._refine import make_context, oriented_context
from cardiacreg.refinement.context import Clock
from cardiacreg.refinement.options import RefineOptions
from cardiacreg.refinement.target import gather_atlases, gather_target
from cardiacreg.registration.ffd_registration import StopReason
from cardiacreg.transforms.resampling import Lattice

LABEL_VOTES = "label votes (no image)"
SPACING_MM = (1.25, 1.25, 2.0)
PATIENTS = (1, 21, 41, 61, 81, 100)
SHOWN = ("LV cavity", "LV wall", "RV cavity")
ALIGNMENTS = ("raw", "translation")


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
    }


class Fused(NamedTuple):
    """One fusion of the registered atlases of a case."""

    method: str
    labels: LabelMap
    seconds: float


def run(quick: bool, cases: int = 6) -> dict[str, Any]:
    """Measure every fusion on synthetic hearts and on real frames."""
    compared = {k: v for k, v in variants().items() if not (quick and "7x7x3" in k)}
    units = list(_synthetic(1 if quick else cases, compared))
    try:
        units += list(_real(1 if quick else min(cases, len(PATIENTS)), compared))
    except DataAbsent as absent:
        print(f"fusion_modes: without real frames, {absent}")
    found = gather("fusion_modes", units)
    records = [
        {k: v for k, v in record.items() if k != "methods"} | each
        for record in found
        for each in record.get("methods", [{}])
    ]
    return {
        "seeds": sorted({record["seed"] for record in records if "seed" in record}),
        "records": records,
    }


def fuse_every_way(
    labels: LabelMap, image: Volume, compared: dict[str, FusionOptions | None]
) -> tuple[list[Fused], steps.Outcome]:
    """Refine once with label votes, then fuse the same registered atlases in every way."""
    target = gather_target(labels, image, None, None, None)
    options, clock = RefineOptions(), Clock()
    bank = gather_atlases(None, target, options.n_atlases)
    shared = make_context(target, SPACING_MM, options, 1, None, clock)
    shared, _, ranking = oriented_context(shared, (), bank)
    outcome = steps.run_steps(shared, bank, ranking)
    lattice = Lattice(outcome.fusion.labels.shape, outcome.fusion.labels.voxel_to_world)
    # Labels alone vote in a refinement by default, so that it leaves the atlases' images out.
    used = [
        (bank[atlas.ranked.index], registration)
        for atlas, registration in zip(outcome.selected, outcome.registrations, strict=True)
        if registration.stop_reason is not StopReason.NO_OVERLAP
    ]
    found = []
    for method, fusion in compared.items():
        own = shared._replace(options=replace(options, fusion=fusion))
        start = time.process_time()
        fused = steps._fuse(
            own, lattice, used, outcome.slice_shifts_mm, outcome.slice_turns_degrees, outcome.turned
        )
        cleaned = clean_topology(fused.labels)
        found.append(Fused(method, cleaned, time.process_time() - start))
    return found, outcome


def _measure(
    labels: LabelMap,
    image: Volume,
    compared: dict[str, FusionOptions | None],
    score: Callable[[LabelMap, steps.Outcome], dict[str, Any]],
) -> Record:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        found, outcome = fuse_every_way(labels, image, compared)
    methods = [
        {"method": each.method, "fuse_seconds": each.seconds, "scores": score(each.labels, outcome)}
        for each in found
    ]
    return rounded({"methods": methods})


def _synthetic(count: int, compared: dict[str, FusionOptions | None]) -> Iterator[Unit]:
    for heart in synthetic_hearts(count):
        key = heart_key(heart, "every fusion") | {"data": "synthetic", "options": repr(compared)}
        yield Unit(key, partial(_measure_synthetic, heart, compared))


def _measure_synthetic(heart: Heart, compared: dict[str, FusionOptions | None]) -> Record:
    case = heart.case()
    assert case.target.image is not None

    def score(model: LabelMap, _: steps.Outcome) -> dict[str, Any]:
        return dice_only(baselines.interpolate_nearest(model, case.truth), case.truth)

    head = {"case": case.name, "seed": case.seed, "data": "synthetic"}
    return head | _measure(case.target.labels, case.target.image, compared, score)


def _real(count: int, compared: dict[str, FusionOptions | None]) -> Iterator[Unit]:
    frames = acdc(PATIENTS[:count])
    for each in (frames[2 * n + n % 2] for n in range(count)):
        key = {"case": each.name, "data": "ACDC", "options": repr(compared)}
        yield Unit(key, partial(_measure_real, each, compared))


def _measure_real(each: Acquisition, compared: dict[str, FusionOptions | None]) -> Record:
    """Fill the hidden slices of a frame by the models that the others give."""
    stack, hidden = hidden_slices.every_second(hidden_slices.canonical(each))

    def score(model: LabelMap, outcome: steps.Outcome) -> dict[str, Any]:
        return hidden_slices.score_model(model, stack, outcome.slice_shifts_mm, hidden)

    head = {"case": each.name, "data": "ACDC", "slices": len(hidden)}
    return head | _measure(stack, of_stack(read_volume(each.image), stack), compared, score)


def of_stack(image: Volume, stack: LabelMap) -> Volume:
    """Return the slices of an image that a stack keeps, so that no hidden one is seen."""
    heights = np.linalg.inv(image.voxel_to_world) @ stack.voxel_to_world
    slices = np.rint(heights[2, 3] + heights[2, 2] * np.arange(stack.shape[2])).astype(int)
    return Volume(image.array[:, :, slices], stack.voxel_to_world)


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return Dice on synthetic hearts and on hidden slices of real ones, and the time of the fusion."""
    good = [r for r in result["records"] if "error" not in r]
    synthetic = [r for r in good if r["data"] == "synthetic"]
    real = [r for r in good if r["data"] == "ACDC"]
    return {
        "fusion-synthetic": tabulate.figure_table(synthetic, "dice"),
        "fusion-real": _real_table(real) if real else "Not measured.",
        "fusion-gain": _gains(synthetic, [r for r in real if "scores" in r]),
    }


def _real_table(real: list[Record]) -> str:
    """Dice of hidden slices; of an earlier stored run, agreement with the acquired ones."""
    if all("scores" in r for r in real):
        return _hidden_table(real)

    def agreement(name: str) -> Any:
        return lambda own: tabulate.mean_sd([r["agreement"][name] for r in own])

    seconds = {
        "fusion, s": lambda own: tabulate.mean_sd([r["fuse_seconds"] for r in own], 2),
    }
    return tabulate.summary_table(real, {name: agreement(name) for name in SHOWN} | seconds)


def _hidden_table(real: list[Record]) -> str:
    def dice(name: str, alignment: str) -> Any:
        return lambda own: tabulate.mean_sd(
            tabulate.values(own, own[0]["method"], name, "dice", alignment)
        )

    columns = {
        f"{name}, {words}": dice(name, alignment)
        for alignment, words in (("raw", "raw"), ("translation", "translated"))
        for name in SHOWN
    }
    seconds = {
        "fusion, CPU s": lambda own: tabulate.mean_sd([r["fuse_seconds"] for r in own], 2),
    }
    return tabulate.summary_table(real, columns | seconds)


def _gains(synthetic: list[Record], real: list[Record]) -> str:
    """Gain of every mode over label votes: mean over structures, in how many cases it is a gain."""
    rows = []
    for method in tabulate.methods([*synthetic, *real]):
        if method == LABEL_VOTES:
            continue
        cells = [_gain(synthetic, method, "raw"), *[_gain(real, method, a) for a in ALIGNMENTS]]
        rows.append([method, *cells])
    header = ["minus label votes, mean Dice", "synthetic", "hidden slices, raw", "translated"]
    return tabulate.markdown(header, rows)


def _gain(records: list[Record], method: str, alignment: str) -> str:
    means = {
        name: {r["case"]: _mean_dice(r, alignment) for r in records if r["method"] == name}
        for name in (method, LABEL_VOTES)
    }
    gains = [value - means[LABEL_VOTES][case] for case, value in means[method].items()]
    if not gains:
        return "–"
    return f"{np.mean(gains):+.3f} (better in {sum(g > 0 for g in gains)} of {len(gains)})"


def _mean_dice(record: Record, alignment: str) -> float:
    return float(np.mean([each["dice"] for each in record["scores"][alignment].values()]))
