"""What each step past the paper brings, and how the result bends: curves over one condition at a time.

Steps: from the published method to the default, one change at a time; label-only on real anatomies with
the other real anatomies as the bank, or on synthetic hearts with the embedded bank where the real ones
are absent. Curves: synthetic hearts with the embedded bank; everything but one condition is the default.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from scipy import ndimage

from benchmarks.harness import plots, tabulate
from benchmarks.harness.cases import (
    ANATOMIES,
    Case,
    DataAbsent,
    Heart,
    anatomy_case,
    data_folder,
    real_anatomy,
    synthetic_hearts,
)
from benchmarks.harness.measuring import refined, refined_unit, rounded, scored
from benchmarks.harness.scoring import dice_only
from benchmarks.harness.store import Record, Unit, gather
from cardiacreg.anatomy.landmarks import landmarks_from_labels
from cardiacreg.atlases.embedded import default_atlases
from cardiacreg.fusion.label_fusion import FusionOptions
from cardiacreg.geometry import LabelMap, Landmarks, Subject
from cardiacreg.metrics import baselines
from cardiacreg.phantoms.acquisition import Degradation
from cardiacreg.refinement.options import RefineOptions

OURS, SIMPLE, TURNS = "cardiacreg", "shape-based", "slice turn, degrees"
_NOISE_MM = 10.0


def variants() -> dict[str, RefineOptions]:
    """Return the options of each step; the last is the default."""
    default, paper = RefineOptions(), RefineOptions.paper()
    on_slices = replace(paper.registration, background_slices=False)
    stiffer = replace(default.registration, class_weights=())
    own_shifts = replace(stiffer, estimate_shifts=True)
    alone = replace(default, n_statistics_atlases=0)
    landmarks_only = replace(alone, affine_candidates=0)
    return {
        "paper method": paper,
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
        "+ affine improved on the labels": alone,
        "+ shifts expected from statistics of 24 atlases or more (default)": default,
    }


@dataclass(frozen=True)
class Point:
    """One condition of one curve: where on the axis, what is compared there, and how it is made."""

    curve: str
    x: float | str
    method: str = OURS
    degradation: Degradation = Degradation()
    options: RefineOptions | None = None
    prepare: Callable[[Case], dict[str, Any]] | None = None
    bank: Callable[[], Sequence[Subject]] | None = None
    with_image: bool = False


def points() -> list[Point]:
    """Return every condition of every curve."""
    default = RefineOptions()
    found = [
        Point("atlases (L)", n, options=replace(default, n_atlases=n)) for n in (1, 3, 5, 10, 15)
    ]
    by_landmarks = replace(default, affine_candidates=0)
    found += [
        Point("choice of atlases", "improved affine, then NMI"),
        Point("choice of atlases", "landmarks, then NMI", options=by_landmarks),
        Point("choice of atlases", "no choice: five at random", bank=five_at_random),
    ]
    found += [Point("fusion", "label weights")] + [
        Point("fusion", name, options=replace(default, fusion=fusion), with_image=True)
        for name, fusion in _fusions().items()
    ]
    for noise in (0.0, 2.5, 5.0, 10.0):
        moved = landmarks_moved(noise)
        found.append(Point("landmark noise, mm", noise, prepare=moved))
        alone = Point(
            "landmark noise, mm", noise, "landmarks alone", options=by_landmarks, prepare=moved
        )
        found.append(alone)
    for sd in (0.0, Degradation().shift_sd_mm, 2.5, 5.0, 7.5):
        how = Degradation(shift_sd_mm=sd)
        found += _with_simple("slice shift, mm", sd, how)
        still = replace(default, slice_motion=None)
        found.append(Point("slice shift, mm", sd, "without slice motion", how, still))
        alone = replace(default, n_statistics_atlases=0)
        found.append(Point("slice shift, mm", sd, "without statistics of the bank", how, alone))
    for sd in (0.0, Degradation().tilt_sd_degrees, 10.0, 15.0):
        found += _with_simple("stack tilt, degrees", sd, Degradation(tilt_sd_degrees=sd))
    turning = replace(default, slice_turns=True)
    for sd in (0.0, 5.0, 10.0):
        how = Degradation(turn_sd_degrees=sd)
        found += _with_simple(TURNS, sd, how)
        found.append(Point(TURNS, sd, "turns estimated too", how, turning))
    for thickness in (4.0, 6.0, 8.0, 10.0, 12.0):
        how = Degradation(slice_thickness_mm=thickness)
        found += _with_simple("slice thickness, mm", thickness, how)
    for lost in (0, 1, 2, 3):
        found += _with_simple("apical slices lost", lost, Degradation(lost_apical_slices=lost))
    for noise in (0.0, 1.0, 2.0, 3.0):
        found += _with_simple("label noise, mm", noise, Degradation(), outlines_moved(noise))
    return found  # fmt: skip


def _fusions() -> dict[str, FusionOptions]:
    return {
        "majority": FusionOptions(mode="majority"),
        "eq. (5), as published": FusionOptions(),
        "eq. (5), narrow": FusionOptions(search=(3, 3, 1), bandwidth=1600.0),
    }


def _with_simple(
    curve: str,
    x: float,
    how: Degradation,
    prepare: Callable[[Case], dict[str, Any]] | None = None,
) -> list[Point]:
    return [Point(curve, x, method, how, prepare=prepare) for method in (OURS, SIMPLE)]


@lru_cache(maxsize=1)
def five_at_random() -> Sequence[Subject]:
    """Return five atlases drawn without looking at any target."""
    bank = default_atlases()
    return [bank[int(n)] for n in np.random.default_rng(5).choice(len(bank), 5, replace=False)]


def landmarks_moved(noise_mm: float) -> Callable[[Case], dict[str, Any]]:
    """Give the target's own landmarks, each moved by a random vector of that length per axis."""

    def landmarks(case: Case) -> dict[str, Any]:
        rng = np.random.default_rng([case.seed, 31])
        own = landmarks_from_labels(case.target.labels).points_mm
        return {"landmarks": Landmarks(own + rng.normal(0.0, noise_mm, own.shape))}

    return landmarks


def outlines_moved(noise_mm: float) -> Callable[[Case], dict[str, Any]]:
    """Give labels whose outlines are drawn wrong: each slice bent by a smooth random field."""

    def labels(case: Case) -> dict[str, Any]:
        given = case.target.labels
        rng = np.random.default_rng([case.seed, 37])
        pixel = given.spacing_mm[:2]
        array = np.empty_like(given.array)
        grid = np.stack(np.meshgrid(*(np.arange(n) for n in given.shape[:2]), indexing="ij"))
        for k in range(given.shape[2]):
            field = np.stack(
                [
                    ndimage.gaussian_filter(rng.normal(size=given.shape[:2]), _NOISE_MM / pixel)
                    for _ in range(2)
                ]
            )
            field *= noise_mm / np.maximum(field.std(axis=(1, 2)), 1e-9)[:, None, None]
            at = np.rint(grid + field / pixel[:, None, None]).astype(int)
            i, j = (np.clip(at[n], 0, given.shape[n] - 1) for n in range(2))
            array[:, :, k] = given.array[i, j, k]
        return {"labels": LabelMap(array, given.voxel_to_world)}

    return labels


def run(quick: bool, cases: int = 6) -> dict[str, Any]:
    """Measure every step and every point of every curve on the same hearts."""
    steps = _steps(1 if quick else cases)
    hearts = synthetic_hearts(1 if quick else cases)
    chosen = points()[:: 6 if quick else 1]
    curves = [_curve_unit(heart, point) for heart in hearts for point in chosen]
    records = gather("ablation", [*steps, *curves])
    kept = records[: len(steps)]
    return {
        "seeds": sorted({r["seed"] for r in kept}),
        "records": kept,
        "curves": [
            record | {"curve": unit.key["curve"], "x": unit.key["x"], "line": unit.key["line"]}
            for unit, record in zip(curves, records[len(steps) :], strict=True)
        ],
    }


def _steps(count: int) -> list[Unit]:
    try:
        data_folder("hr_bank")
    except DataAbsent:
        return [
            refined_unit(heart, method, options=options, score=dice_only)
            for heart in synthetic_hearts(count)
            for method, options in variants().items()
        ]
    every = range(0, len(ANATOMIES), -(-len(ANATOMIES) // count))
    return [
        _anatomy_unit(seed, method, options)
        for seed in every
        for method, options in variants().items()
    ]


def _anatomy_unit(seed: int, method: str, options: RefineOptions) -> Unit:
    name = ANATOMIES[seed]

    def measure() -> Record:
        others = [atlas for other, atlas in _anatomies().items() if other != name]
        case = anatomy_case(name, seed)
        return rounded(refined(case, method, options=options, atlases=others, score=dice_only))

    key = {"case": name, "method": method, "seed": seed, "options": repr(options)}
    return Unit(key, measure)


@lru_cache(maxsize=1)
def _anatomies() -> dict[str, Subject]:
    return {name: real_anatomy(name) for name in ANATOMIES}


def _curve_unit(heart: Heart, point: Point) -> Unit:
    heart = replace(heart, degradation=point.degradation)
    name = f"{point.curve} {point.x}, {point.method}"
    unit = refined_unit(
        heart, name, options=point.options, score=dice_only, prepare=point.prepare, bank=point.bank,
        with_image=point.with_image,
    )  # fmt: skip

    def simple() -> Record:
        case = heart.case()
        given = {} if point.prepare is None else point.prepare(case)
        labels = given.get("labels", case.target.labels)
        found = baselines.interpolate_shape_based(labels, case.truth)
        return rounded(scored(case, name, found, 0.0, score=dice_only))

    key = unit.key | {"curve": point.curve, "x": point.x, "line": point.method}
    return Unit(key, simple if point.method == SIMPLE else unit.measure)


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return Dice per step, raw and after translation and tilt, and per point of the curves."""
    records, curves = result["records"], result.get("curves", [])
    return {
        "ablation-dice": tabulate.figure_table(records, "dice"),
        "ablation-significance": _steps_table(records),
        "ablation-robustness": tabulate.robustness_table(records),
        "ablation-dice-tilt": tabulate.figure_table(records, "dice", alignments=("tilt",)),
        "ablation-curves": tabulate.figure_table(curves, "dice", alignments=("tilt",))
        if curves
        else "Not measured yet.",
        "ablation-turn-seconds": _turn_seconds(curves),
        "ablation-curves-raw": tabulate.figure_table(curves, "dice")
        if curves
        else "Not measured yet.",
    }


def _turn_seconds(curves: Sequence[Record]) -> str:
    """Processor time of a refinement that looks for turns of the slices, beside the default's."""
    found: dict[str, list[float]] = {}
    for record in curves:
        if record["curve"] == TURNS and "cpu_seconds" in record and record["line"] != SIMPLE:
            found.setdefault(record["line"], []).append(record["cpu_seconds"])
    rows = [[line, f"{np.median(own):.1f}"] for line, own in found.items()]
    return tabulate.markdown(["slice turns", "processor seconds, median"], rows)


def _steps_table(records: Sequence[Record]) -> str:
    """The gain of each step over the one before it, after translation and tilt, and of all together."""
    names = tabulate.methods(records)
    lines: list[str] = []
    for before, after in [*pairwise(names), (names[0], names[-1])]:
        table = tabulate.comparison_table(records, after, [before], "tilt").splitlines()
        lines += table if not lines else table[2:]
    return "\n".join(lines)


def plots_of(result: dict[str, Any]) -> dict[str, Any]:
    """Return one panel per curve: mean Dice of the structures after translation and tilt."""
    curves = [r for r in result.get("curves", []) if "scores" in r]
    if not curves:
        return {}
    names = list(dict.fromkeys(r["curve"] for r in curves))
    n_columns = 3
    figure, axes = plots.panels(-(-len(names) // n_columns), n_columns, width=3.2)
    for panel, name in zip(axes.ravel(), names, strict=False):
        _panel(panel, [r for r in curves if r["curve"] == name])
        panel.set_title(name)
    for panel in axes.ravel()[len(names) :]:
        panel.set_axis_off()
    for row in axes:
        row[0].set_ylabel("Dice, mean of structures")
    return {"ablation-curves": figure}


def _panel(panel: Any, records: list[Record]) -> None:
    lines = list(dict.fromkeys(r["line"] for r in records))
    xs = list(dict.fromkeys(r["x"] for r in records))
    if all(isinstance(x, str) for x in xs):
        found = [[_mean(r) for r in records if r["x"] == x] for x in xs]
        plots.bars(panel, xs, found, plots.METHOD_COLOURS[0])
        every = [value for values in found for value in values]
        panel.set_xlim(min(every) - 0.03, max(every) + 0.01)
        return
    for line, colour in zip(lines, plots.METHOD_COLOURS, strict=False):
        at = [x for x in xs if any((r["line"], r["x"]) == (line, x) for r in records)]
        values = [[_mean(r) for r in records if (r["line"], r["x"]) == (line, x)] for x in at]
        plots.curve(panel, at, values, color=colour, label=line)
    if len(lines) > 1:
        panel.legend()


def _mean(record: Record) -> float:
    return float(np.mean([each["dice"] for each in record["scores"]["tilt"].values()]))
