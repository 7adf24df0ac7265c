"""Do the intervals of volumes, masses and ejection fractions hold the truth as often as they should?

Evaluated on synthetic hearts and real anatomies that were neither atlases nor used to fit the intervals'
constants. `calibrate` fits these constants, on other hearts:

    python -c "from benchmarks.accuracy import intervals; intervals.calibrate()"

Both phases of a synthetic heart are stacks of one acquisition: the same planes, tilt and shifts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.harness import tabulate
from benchmarks.harness.cases import (
    ANATOMIES,
    RANDOM_SHAPES,
    Case,
    DataAbsent,
    Heart,
    anatomy_case,
    data_folder,
)
from benchmarks.harness.measuring import refine_quietly, rounded
from benchmarks.harness.store import Record, Unit, gather
from cardiacreg.anatomy.landmarks import base_is_at_last_slice
from cardiacreg.anatomy.slice_volumes import StructureVolume, stack_volumes
from cardiacreg.arrays import Float
from cardiacreg.geometry import STRUCTURES
from cardiacreg.measures import intervals
from cardiacreg.measures.intervals import PARTS, ErrorModel, Expected
from cardiacreg.phantoms.hearts import FIRST_EVALUATION_SEED, GROUPS, PHASES
from cardiacreg.refinement.options import RefineOptions

_HEARTS = 48
_FIRST_SEED = FIRST_EVALUATION_SEED + 200
_DEVELOPMENT_SEED, _DEVELOPMENT_HEARTS = 20_000, 72
_CHOSEN_ON = 10
"""The first random shapes are for calibration, the others and the subjects for evaluation."""
_DEVELOPMENT_STACKS = 18
"""Of these shapes; every degradation is another one."""
CAVITIES = ("LV cavity", "RV cavity")
Volumes = dict[str, dict[str, Any]]
"""Structure to what the model says and what is true."""
Phases = dict[str, Volumes]
Keep = Callable[[Phases], Record]


def run(quick: bool, cases: int = _HEARTS) -> dict[str, Any]:
    """Measure 48 synthetic hearts in two phases and every other anatomy (1 heart in a quick run)."""
    count = 1 if quick else cases
    units = _heart_units(_FIRST_SEED, count, _measured)
    if not quick:
        names = (*RANDOM_SHAPES[_CHOSEN_ON:], *ANATOMIES)
        units += _anatomy_units([(name, 100 + n) for n, name in enumerate(names)], _measured)
    return {"seeds": [], "records": gather("intervals", units)}


def development_records() -> list[Record]:
    """Return the records of the hearts that constants are fitted to."""
    names = [
        (RANDOM_SHAPES[n % _CHOSEN_ON], _DEVELOPMENT_SEED + n) for n in range(_DEVELOPMENT_STACKS)
    ]
    hearts = _heart_units(_DEVELOPMENT_SEED, _DEVELOPMENT_HEARTS, _as_they_are)
    return gather("intervals", hearts + _anatomy_units(names, _as_they_are))


def _heart_units(first_seed: int, count: int, keep: Keep) -> list[Unit]:
    groups = tuple(GROUPS)
    return [_unit_of_heart(first_seed + n, groups[n % len(groups)], keep) for n in range(count)]


def _unit_of_heart(seed: int, group: str, keep: Keep) -> Unit:
    head = {"case": f"{group}_{seed}", "data": "synthetic"}

    def make() -> Record:
        found = {phase: _volumes(Heart(seed, group, phase).case()) for phase in PHASES}
        return rounded(head | keep(found))

    return Unit(head | {"kept": keep.__name__, "options": repr(RefineOptions())}, make)


def _anatomy_units(named: Sequence[tuple[str, int]], keep: Keep) -> list[Unit]:
    try:
        data_folder("hr_bank")
    except DataAbsent:
        return []
    return [_unit_of_anatomy(name, seed, keep) for name, seed in named]


def _unit_of_anatomy(name: str, seed: int, keep: Keep) -> Unit:
    head = {"case": f"{name}_{seed}", "data": "anatomies"}

    def make() -> Record:
        return rounded(head | keep({"ED": _volumes(anatomy_case(name, seed))}))

    return Unit(head | {"kept": keep.__name__, "options": repr(RefineOptions())}, make)


def _as_they_are(phases: Phases) -> Record:
    return {"phases": phases}


def _volumes(case: Case) -> Volumes:
    """Volumes of the model and of the truth, by structure."""
    model = refine_quietly(case.target.labels, threads=1)
    at_last = base_is_at_last_slice(case.target.labels)
    true = stack_volumes(case.target.labels, case.truth, base_at_last_slice=at_last)
    return {
        name: {"model": _plain(model.volumes[name]), "true": true_parts_ml(true[name])}
        for name in STRUCTURES.values()
        if name not in model.structures_from_atlases
    }


def _plain(volume: StructureVolume) -> dict[str, Any]:
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in dataclasses.asdict(volume).items()
    }


def true_parts_ml(true: StructureVolume) -> dict[str, float]:
    """Return the true volume, whole and in parts."""
    beyond = true.beyond_apex_ml + true.beyond_base_ml
    return {"whole": true.total_ml, "acquired": true.inside_ml, "extrapolated": beyond}


def calibrate() -> dict[str, ErrorModel]:
    """Fit the constants of `cardiacreg.measures.intervals`, and print them."""
    found = fitted(development_records())
    for name, model in found.items():
        print(f"{name!r}: {model}")
    return found


def fitted(records: Sequence[Record]) -> dict[str, ErrorModel]:
    """Return the error model of every structure, fitted to records of development hearts."""
    return {name: _fitted(name, records) for name in STRUCTURES.values()}


def _fitted(name: str, records: Sequence[Record]) -> ErrorModel:
    pairs = [
        (StructureVolume(**phase[name]["model"]), phase[name]["true"])
        for record in records
        for phase in record["phases"].values()
        if name in phase
    ]
    volumes = [volume for volume, _ in pairs]
    beyond = np.array([v.beyond_apex_ml + v.beyond_base_ml for v in volumes])
    inside = np.array([v.inside_ml for v in volumes])
    apex, base = np.array([v.outermost_ml for v in volumes]).T
    spreads = [
        np.array([np.std(ml, ddof=1) for ml in many])
        for many in ([v.atlases_inside_ml for v in volumes], [v.atlases_beyond_ml for v in volumes])
    ]
    errors = [
        np.array([true[part] for _, true in pairs]) - model
        for part, model in (("acquired", inside), ("extrapolated", beyond))
    ]
    acquired = _likeliest(errors[0], inside, (inside, spreads[0]))
    extrapolated = _likeliest(errors[1], base, (apex + base, spreads[1]))
    draft = ErrorModel(*acquired, *extrapolated, ((0.0, 0.0),) * 3, 0.0, (0.0, 0.0), (0.0, 0.0))
    return _with_quantiles(name, draft, records)


def _likeliest(
    errors: Float, size: Float, scales: tuple[Float, Float]
) -> tuple[float, tuple[float, float]]:
    """Fit errors of mean m size and variance (a scale_1)^2 + (b scale_2)^2; return m, (a, b)."""
    from scipy.optimize import minimize

    squares = np.stack(scales, axis=1) ** 2

    def cost(values: Float) -> float:
        variance = squares @ np.exp(2 * values[1:]) + 1e-3
        return float(np.mean(np.log(variance) + (errors - values[0] * size) ** 2 / variance))

    start = [float(errors @ size / (size @ size)), -3.0, -1.0]
    options = {"maxiter": 5000, "xatol": 1e-5, "fatol": 1e-8}
    mean, *logs = minimize(cost, start, method="Nelder-Mead", options=options).x
    first, second = (round(float(np.exp(each)), 4) for each in logs)
    return round(float(mean), 4), (first, second)


def _with_quantiles(name: str, draft: ErrorModel, records: Sequence[Record]) -> ErrorModel:
    """Add the quantiles of what remains after dividing every error by its standard deviation."""
    left: dict[str, list[float]] = {part: [] for part in PARTS}
    both, stroke, ejection = [], [], []
    for record in records:
        own = []
        for phase in record["phases"].values():
            if name not in phase:
                continue
            found = intervals.expected_ml(StructureVolume(**phase[name]["model"]), draft)
            assert found is not None
            true = phase[name]["true"]
            for part in PARTS:
                left[part].append(_standardised(true[part], found[part]))
            own.append((found["whole"], true["whole"]))
        if len(own) == 2:
            both.append(own)
    pairs = np.array([[_standardised(true, e) for e, true in own] for own in both])
    phases = round(float(np.corrcoef(pairs.T)[0, 1]), 3) if len(pairs) > 2 else 0.0
    for (diastole, true_ed), (systole, true_es) in both:
        sv, ef = intervals.expected_stroke(diastole, systole, phases)
        stroke.append(_standardised(true_ed - true_es, sv))
        ejection.append(_standardised(100 * (1 - true_es / true_ed), ef))
    return draft._replace(
        quantiles=tuple(_quantiles(left[part]) for part in PARTS),
        phases=phases,
        stroke_quantiles=_quantiles(stroke),
        ejection_quantiles=_quantiles(ejection),
    )


def _standardised(true: float, expected: Expected) -> float:
    return (true - expected.ml) / expected.sd_ml


def _quantiles(values: Sequence[float]) -> tuple[float, float]:
    """Return the two quantiles with 5 % of later values outside either, as of n values (conformal)."""
    n, beyond = len(values), (1 - intervals.LEVEL) / 2
    ordered = np.sort(values)
    places = (beyond * (n + 1) - 1, (1 - beyond) * (n + 1) - 1)
    low, high = np.interp(places, np.arange(n), ordered)
    return round(float(low), 3), round(float(high), 3)


def _measured(phases: Phases) -> Record:
    """Model, truth and interval of every measure of a heart, by its name."""
    found: dict[str, list[float | None]] = {}
    for phase, structures in phases.items():
        for structure, each in structures.items():
            own = intervals.volume_intervals(StructureVolume(**each["model"]), structure)
            for part in PARTS:
                name = f"{structure}, {phase}" + (f", {part}" if part != "whole" else "")
                values = true_parts_ml(StructureVolume(**each["model"]))[part], each["true"][part]
                found[name] = [*values, *own.get(part, (None, None))]
    for cavity in CAVITIES if len(phases) == 2 else ():
        ed, es = (phases[phase][cavity] for phase in PHASES)
        both = intervals.stroke_intervals(
            *(StructureVolume(**each["model"]) for each in (ed, es)), cavity
        )
        values = [
            [e["model"]["total_ml"] for e in (ed, es)],
            [e["true"]["whole"] for e in (ed, es)],
        ]
        for number, word in enumerate(("stroke volume", "ejection fraction")):
            pair = [100 * (1 - b / a) if number else a - b for a, b in values]
            found[f"{cavity}, {word}"] = [*pair, *(both[number] if both else (None, None))]
    return {"measures": found}


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return how often intervals hold the truth, and how wide they are."""
    records = [r for r in result["records"] if "error" not in r]
    found = {}
    for table, of_parts in (("intervals-coverage", False), ("intervals-parts", True)):
        names = [n for n in _names(records) if n.endswith(PARTS[1:]) == of_parts]
        found[table] = _coverage_table(records, names)
    return found


def _names(records: Sequence[Record]) -> list[str]:
    """Names of measures, structure by structure."""
    names = dict.fromkeys(name for record in records for name in record["measures"])
    return sorted(names, key=lambda name: name.partition(",")[0])


def _coverage_table(records: Sequence[Record], names: Sequence[str]) -> str:
    rows = [[name, *_coverage(records, [name])] for name in names]
    if len(names) > 1:
        rows.append(["all of them", *_coverage(records, names)[:-1], "–"])
    header = ["90 % intervals", "synthetic, %", "anatomies, %", "all, %", "truth below, above, %"]
    return tabulate.markdown([*header, "half width"], rows)


def _coverage(records: Sequence[Record], names: Sequence[str]) -> list[str]:
    """Share of the truth inside, by data and in all, what lies on either side, and the half width."""
    found = {
        data: np.array(
            [
                record["measures"][name]
                for record in records
                for name in names
                if record["data"] == data and record["measures"].get(name, [None])[-1] is not None
            ]
        ).reshape(-1, 4)
        for data in ("synthetic", "anatomies")
    }
    every = np.concatenate(list(found.values()))
    if not len(every):
        return ["–"] * 5
    _, true, low, high = every.T
    sides = f"{100 * (true < low).mean():.0f}, {100 * (true > high).mean():.0f}"
    half = (high - low) / 2
    unit = "points" if names[0].endswith("fraction") else "ml"
    width = f"{half.mean():.1f} {unit}"
    if unit == "ml" and not any(name.endswith("extrapolated") for name in names):
        width += f", {100 * (half / true).mean():.0f} %"
    return [*map(_share, (*found.values(), every)), sides, width]


def _share(values: Float) -> str:
    if not len(values):
        return "–"
    _, true, low, high = values.T
    return f"{100 * ((low <= true) & (true <= high)).mean():.0f} of {len(values)}"
