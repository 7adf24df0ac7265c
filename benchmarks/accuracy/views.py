"""Long-axis views beside the stack: what they add to a model, and to views that were not given.

Short-axis slices alone cannot show where the whole stack lies, nor whether it leans, and hardly where the
ventricles end. Real anatomies and synthetic hearts are cut into a clinical stack and into long-axis views
with planning errors, motion and thickness of their own, and refined with none, one, two and three of the
views. All is scored raw, everywhere. A view that was not given is cut from model and truth and compared.

One patient was contoured in short-axis and long-axis planes at 25 phases: each long-axis view is left out
in turn, and the model of the slices and the other views is cut by its plane.

Shifts are scored raw too. Slices and views move independently here, so that where the heart lies can be
known only up to the mean of all their shifts: the floor of the error is given beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.accuracy import long_axis
from benchmarks.harness import cases, measuring, scoring, tabulate
from benchmarks.harness.cases import ANATOMIES, Case, synthetic_hearts
from benchmarks.harness.measuring import BASELINES, rounded
from benchmarks.harness.store import Record, Unit, gather
from cardiacreg.arrays import Float
from cardiacreg.geometry import STRUCTURES, LabelMap, Subject
from cardiacreg.metrics import baselines
from cardiacreg.metrics.agreement import slice_agreement
from cardiacreg.phantoms.long_axis_views import VIEW_DEGREES, SimulatedView, simulate_views
from cardiacreg.refinement.options import RefineOptions
from cardiacreg.results.result import RefineResult
from cardiacreg.slices import labelled_slices

GIVEN: dict[str, tuple[str, ...]] = {
    "no view": (),
    "four-chamber": ("four_chamber",),
    "four- and two-chamber": ("four_chamber", "two_chamber"),
    "all three views": tuple(VIEW_DEGREES),
}
SHAPE_BASED = "shape-based"
TWO = "four- and two-chamber"
_HEARTS = 20
_PHASES = tuple(range(0, 25, 3))
_LEFT_OUT = (7, 8, 9)
"""The patient's long-axis planes that show the LV."""


def run(quick: bool, cases: int = _HEARTS) -> dict[str, Any]:
    """Measure the anatomies, synthetic hearts and the contoured patient.

    A quick run takes one anatomy, one heart and one phase.
    """
    anatomies = long_axis.present("hr_bank", lambda: anatomy_units(ANATOMIES[: 1 if quick else 99]))
    patient = long_axis.present("bivme", lambda: patient_units(_PHASES[: 1 if quick else 99]))
    records = gather("views", [*anatomies, *heart_units(1 if quick else cases), *patient])
    return {
        "records": [r for r in records if r["case"] != "bivme"],
        "patient": [r for r in records if r["case"] == "bivme"],
    }


def anatomy_units(names: Sequence[str]) -> list[Unit]:
    """Return the units on real anatomies."""
    return [
        _unit({"case": name, "seed": seed, "method": method},
              lambda name=name, seed=seed: cases.anatomy_case(name, seed), method)
        for seed, name in enumerate(names)
        for method in (SHAPE_BASED, *GIVEN)
    ]  # fmt: skip


def heart_units(count: int) -> list[Unit]:
    """Return the units on synthetic hearts."""
    return [
        _unit(measuring.heart_key(heart, method), heart.case, method)
        for heart in synthetic_hearts(count)
        for method in (SHAPE_BASED, *GIVEN)
    ]


def _unit(key: Record, make: Callable[[], Case], method: str) -> Unit:
    options = {} if method == SHAPE_BASED else {"options": repr(RefineOptions())}
    return Unit(key | options, lambda: rounded(_measured(make(), method)))


def _measured(case: Case, method: str) -> Record:
    if method == SHAPE_BASED:
        return measuring.interpolated(case, method, score=scoring.raw_dice)
    views = simulate_views(Subject(case.truth), seed=case.seed)
    given = [view for view in views if view.name in GIVEN[method]]
    result = measuring.refine_quietly(
        case.target.labels, views=[view.subject.labels for view in given], threads=1
    )
    found = baselines.interpolate_nearest(result.labels, case.truth)
    return measuring.scored(
        case, method, found, result.timings_seconds["total"], score=scoring.raw_dice
    ) | {
        "shifts": _shift_figures(result, case, given),
        "left_out": {
            view.name: _left_out_dice(result.labels, view) for view in views if view not in given
        },
    }


def _left_out_dice(model: LabelMap, view: SimulatedView) -> dict[str, float | None]:
    """Dice of a model with a view that it was not given, where the view truly lies."""
    return slice_agreement(view.subject.labels, model, view.shift_mm[None, :2])


def _shift_figures(
    result: RefineResult, case: Case, given: Sequence[SimulatedView]
) -> dict[str, float]:
    """Root mean square errors of the slices' shifts, mm, and the least that can be expected raw."""
    slices = labelled_slices(case.target.labels.array)
    error = result.slice_shifts_mm[slices] - case.slice_shifts_mm[slices]
    planes = len(slices) + len(given)
    sd = cases.CLINICAL.shift_sd_mm
    return {
        "raw_mm": _rms(error),
        "detrended_mm": _rms(_detrended(error, slices)),
        "untouched_mm": _rms(case.slice_shifts_mm[slices]),
        "floor_mm": sd * float(np.sqrt(2 / planes)),
    }


def _rms(errors: Float) -> float:
    return float(np.sqrt((errors**2).sum(axis=1).mean()))


def _detrended(errors: Float, slices: Float) -> Float:
    basis = np.column_stack([np.ones(len(slices)), slices])
    return np.asarray(errors - basis @ np.linalg.lstsq(basis, errors, rcond=None)[0])


def patient_units(phases: tuple[int, ...]) -> list[Unit]:
    """Return one unit per view that is left out, and those without any view."""

    def unit(left_out: int, method: str) -> Unit:
        key = {
            "case": "bivme", "method": method, "left_out": left_out, "phases": list(phases),
            "options": repr(RefineOptions()),
        }  # fmt: skip
        return Unit(key, lambda: rounded(key | {"found": _patient(phases, left_out, method)}))

    methods = (SHAPE_BASED, "no view", "the other views")
    return [unit(number, method) for number in _LEFT_OUT for method in methods]


def _patient(phases: tuple[int, ...], left_out: int, method: str) -> list[Record]:
    read, planes = long_axis.read_patient(phases)
    frames = long_axis.stacks(read, planes)
    extremes = long_axis.extreme_frames(frames)
    found = []
    for phase, frame in zip(read, frames, strict=True):
        drawn = phase.long_axis_labels()
        views = {number: drawn[number] for number in _LEFT_OUT}
        if method == SHAPE_BASED:
            model = BASELINES[method](frame, measuring.fine_lattice(frame))
        else:
            others = [view for n, view in views.items() if n != left_out]
            model = measuring.refine_quietly(
                frame,
                views=others if method != "no view" else (),
                frames=[each for each in extremes if each is not frame],
                threads=1,
            ).labels
        hidden = views[left_out]
        found.append(
            {"phase": phase.number, "dice": slice_agreement(hidden, model, np.zeros((1, 2)))}
            | {"ends_mm": long_axis.measure_phase(model, phase, planes)["ends_mm"]}
        )
    return found


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return Dice, shift errors and left-out views, of anatomies, hearts and the patient."""
    found: dict[str, str] = {}
    for name, own in long_axis.sets(result["records"]).items():
        found[f"views-{name}"] = tabulate.figure_table(own, "dice")
        found[f"views-{name}-gain"] = tabulate.comparison_table(
            own, TWO, ["no view", SHAPE_BASED], alignment="raw"
        )
        found[f"views-{name}-shifts"] = _shift_table(own)
        found[f"views-{name}-left-out"] = _left_out_table(own)
    if result["patient"]:
        found["views-patient"] = _patient_table(result["patient"])
    return found


def _shift_table(records: list[Record]) -> str:
    names = {
        "raw_mm": "raw, mm", "floor_mm": "least that can be expected raw, mm",
        "detrended_mm": "mean and trend removed, mm", "untouched_mm": "left as they are, mm",
    }  # fmt: skip
    rows = []
    for method in GIVEN:
        own = [r["shifts"] for r in records if r["method"] == method]
        rows.append([method, *(f"{np.mean([s[key] for s in own]):.2f}" for key in names)])
    return tabulate.markdown(["views given", *names.values()], rows)


def _left_out_table(records: list[Record]) -> str:
    structures = [name for name in tabulate.ORDER if name != STRUCTURES[3]]
    rows = []
    for method in GIVEN:
        for view in VIEW_DEGREES:
            dice = [
                r["left_out"][view]
                for r in records
                if r["method"] == method and view in r["left_out"]
            ]
            if dice:
                rows.append([method, view.replace("_", "-"), *_means(dice, structures)])
    return tabulate.markdown(["views given", "scored in", *structures], rows)


def _means(dice: Sequence[dict[str, float | None]], structures: Sequence[str]) -> list[str]:
    known = [[d[name] for d in dice if d[name] is not None] for name in structures]
    return [f"{np.mean(values):.3f}" if values else "–" for values in known]


def _patient_table(records: list[Record]) -> str:
    structures = [name for name in tabulate.ORDER if name != STRUCTURES[3]]
    rows = []
    for record in records:
        read, planes = record["found"], {7: "four-chamber", 8: "three-chamber", 9: "two-chamber"}
        ends = [
            np.mean([e for f in read for e in f["ends_mm"][name] if e is not None])
            for name in plane_cuts_ends()
        ]
        rows.append(
            [
                planes[record["left_out"]],
                record["method"],
                *_means([f["dice"] for f in read], structures),
                *(f"{end:+.1f}" for end in ends),
            ]
        )
    heads = ["view left out", "model from", *structures, *(f"{n}, mm" for n in plane_cuts_ends())]
    return tabulate.markdown(heads, rows)


def plane_cuts_ends() -> tuple[str, ...]:
    """Return the ends that `long_axis` measures."""
    return tuple(long_axis.ENDS)
