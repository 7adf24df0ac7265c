"""Volumes of patients: the model against area x slice distance of its own input.

Experts outlined the slices, and area x slice distance of their outlines is what clinics report. It is no
truth: it takes a slice for half a slice distance on either side, and a structure ends between two
slices. But a model of these very slices has no reason to be much larger or smaller. So each structure is
given as a whole, inside its own labelled slices (to the outer faces of the first and the last), where
model and input must agree, and beyond them, where the model adds what no slice shows: at the apex and
at the base.

Two checks need no truth. The ejection fraction of the model must be that of the input. The mass of the
left wall is the same at end-diastole and end-systole, so that the spread of the difference is error.

The baselines are taken on slices of at most 2 mm that reach two slice distances past the stack, in the
stack's own pixels: repeated slices have the input's volume exactly. Patients on whom
settings were chosen are reported apart from the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import hidden_slices, measuring, plots, tabulate
from benchmarks.harness.cases import Acquisition, DataAbsent, acdc, autofd
from benchmarks.harness.measuring import BASELINES, rounded
from benchmarks.harness.store import Record, Unit, gather
from cardiacreg.anatomy.landmarks import base_is_at_last_slice
from cardiacreg.anatomy.volumes import MUSCLE_DENSITY_G_PER_ML
from cardiacreg.geometry import LV_CAVITY, LV_WALL, RV_CAVITY, STRUCTURES, LabelMap
from cardiacreg.metrics.overlap import limits_of_agreement
from cardiacreg.refinement.options import RefineOptions

OURS, INPUT = "cardiacreg", "area x slice distance"
METHODS = (*BASELINES, OURS)
LABELS = (LV_CAVITY, LV_WALL, RV_CAVITY)
SHOWN = tuple(STRUCTURES[label] for label in LABELS)
PARTS = ("whole", "inside", "apex", "base")
_PATIENTS = 100
_WORST = 10


def run(quick: bool, cases: int = _PATIENTS) -> dict[str, Any]:
    """Measure ACDC (every patient, or as many as asked for; 1 in a quick run) and AutoFD (1)."""
    count = 1 if quick else min(cases, _PATIENTS)
    patients = tuple(1 + n * _PATIENTS // count for n in range(count))
    found: list[list[Acquisition]] = []
    for load in (lambda: [acdc((each,)) for each in patients], lambda: [[f] for f in autofd()]):
        try:
            found += load()[: 1 if quick else None]
        except DataAbsent:
            continue
    if not found:
        raise DataAbsent("neither acdc nor autofd is there")
    records = gather("volumes", [_unit(frames) for frames in found])
    return {"seeds": [], "records": records}


def _unit(frames: list[Acquisition]) -> Unit:
    """All frames of one patient, as a method may use them together."""
    head = patient_of(frames[0]) | {"group": frames[0].group}
    key = head | {"frames": [each.name for each in frames], "options": repr(RefineOptions())}
    return Unit(key, lambda: rounded(head | {"frames": measure_patient(frames)}))


def patient_of(frame: Acquisition) -> dict[str, Any]:
    """Return the patient of a frame, its data set, and the part of the data set it belongs to."""
    if not frame.name.startswith("patient"):
        return {"case": frame.name, "data": "AutoFD", "part": "AutoFD"}
    case = frame.name.split("_")[0]
    chosen = measuring.is_development(int(case.removeprefix("patient")))
    part = "ACDC, development" if chosen else "ACDC, other"
    return {"case": case, "data": "ACDC", "part": part}


def measure_patient(frames: list[Acquisition]) -> list[Record]:
    """Measure the volumes of every frame of one patient by every method."""
    stacks = [hidden_slices.canonical(frame) for frame in frames]
    models = measuring.refine_patient(stacks)
    return [
        {"name": frame.name, "phase": frame.phase, "volumes_ml": _volumes(stack, model.labels)}
        for frame, stack, model in zip(frames, stacks, models, strict=True)
    ]


def _volumes(stack: LabelMap, model: LabelMap) -> dict[str, dict[str, dict[str, float]]]:
    """Volumes in parts by method and structure; of the input, all lies inside."""
    lattice = measuring.fine_lattice(stack)
    maps = {name: make(stack, lattice) for name, make in BASELINES.items()}
    return {INPUT: parts_ml(stack, stack)} | {
        name: parts_ml(labels, stack) for name, labels in (maps | {OURS: model}).items()
    }


def parts_ml(model: LabelMap, stack: LabelMap) -> dict[str, dict[str, float]]:
    """Return every structure's volume: whole, inside its labelled slices, and beyond either end.

    Parameters
    ----------
    model : LabelMap
        Its k axis is parallel to that of the stack.
    stack : LabelMap
        Its slices say what is inside: between the outer faces of the first and the last slice that
        shows the structure. A structure that the stack lacks is left out.
    """
    voxel_ml = abs(float(np.linalg.det(model.voxel_to_world[:3, :3]))) / 1000
    upwards = base_is_at_last_slice(stack)
    found = {}
    for label in LABELS:
        held = np.flatnonzero((stack.array == label).any(axis=(0, 1)))
        if not len(held):
            continue
        counts = (model.array == label).sum(axis=(0, 1)) * voxel_ml
        below, inside = _shares(model, stack, (held[0] - 0.5, held[-1] + 0.5))
        ends = float(counts @ below), float(counts @ (1 - below - inside))
        apex, base = ends if upwards else ends[::-1]
        whole = {"whole": float(counts.sum()), "inside": float(counts @ inside)}
        found[STRUCTURES[label]] = whole | {"apex": apex, "base": base}
    return found


def _shares(
    model: LabelMap, stack: LabelMap, faces: tuple[float, float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Share of each model slice below the lower of two faces of the stack, and between both."""
    to_stack = np.linalg.inv(stack.voxel_to_world) @ model.voxel_to_world
    centres = to_stack[2, 3] + to_stack[2, 2] * np.arange(model.shape[2])
    below, up_to = (np.clip((face - centres) / abs(to_stack[2, 2]) + 0.5, 0, 1) for face in faces)
    return below, up_to - below


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return bias and limits of volumes, ejection fractions, masses, parts, and the worst frames."""
    records = [record for record in result["records"] if "frames" in record]
    if not records:
        return {}
    rows = _rows(records)
    acdc_rows = [row for row in rows if row["data"] == "ACDC"]
    found = {
        "volumes-agreement": _agreement_table(rows, "ml"),
        "volumes-agreement-percent": _agreement_table(rows, "percent"),
        "volumes-groups": _agreement_table(acdc_rows, "percent", _group_of, (OURS,)),
        "volumes-parts": _parts_table(rows),
        "volumes-worst": _worst_table(rows),
        "volumes-failed": _failed_table(result["records"]),
    }
    pairs = [record for record in records if len(record["frames"]) == 2]
    if pairs:
        found["volumes-ejection"] = _pairs_table(pairs, "ejection", ("LV cavity", "RV cavity"))
        found["volumes-mass"] = _mass_table(pairs)
    return found


def plots_of(result: dict[str, Any]) -> dict[str, Any]:
    """Return the Bland-Altman plot of the volumes of all frames."""
    rows = _rows([record for record in result["records"] if "frames" in record])
    drawn = [
        {
            "method": method,
            "case": row["name"],
            "scores": {
                "raw": {
                    name: {"size": row["volumes"][INPUT][name]["whole"], "error": error}
                    for name in SHOWN
                    if (error := _error(row, method, name, "ml")) is not None
                }
            },
        }
        for row in rows
        for method in METHODS
    ]
    quantities = {name: ("size", "error", "ml") for name in SHOWN}
    return {"volumes-agreement": plots.bland_altman(drawn, quantities, METHODS)} if drawn else {}


def _rows(records: Sequence[Record]) -> list[Record]:
    """One record per frame."""
    return [
        {key: record[key] for key in ("case", "data", "part", "group")}
        | {"name": frame["name"], "phase": frame["phase"], "volumes": frame["volumes_ml"]}
        for record in records
        for frame in record["frames"]
    ]


def _error(
    row: Record, method: str, structure: str, unit: str, part: str = "whole"
) -> float | None:
    """Model minus input of one frame in ml or % of the input, None where the input lacks it."""
    if structure not in row["volumes"][INPUT]:
        return None
    size = row["volumes"][INPUT][structure]["whole"]
    given = row["volumes"][INPUT][structure][part]
    error = float(row["volumes"][method][structure][part] - given)
    return error if unit == "ml" else 100 * error / size


def _part_of(row: Record) -> str:
    return f"{row['part']}, {row['phase']}"


def _group_of(row: Record) -> str:
    return f"{row['group']}, {row['phase']}"


def _agreement_table(
    rows: Sequence[Record],
    unit: str,
    set_of: Callable[[Record], str] = _part_of,
    methods: Sequence[str] = METHODS,
) -> str:
    """Bias ± SD and limits of agreement per set of frames and method."""
    lines = []
    for name in sorted({set_of(row) for row in rows}):
        own = [row for row in rows if set_of(row) == name]
        for method in methods:
            cells = [_limits([_error(row, method, each, unit) for row in own]) for each in SHOWN]
            lines.append([f"{name}: {method}", str(len(own)), *cells])
    title = f"model minus area x slice distance, {'%' if unit == 'percent' else unit}"
    return tabulate.markdown([title, "frames", *SHOWN], lines)


def _limits(errors: Sequence[float | None], digits: int = 1) -> str:
    known = [error for error in errors if error is not None]
    if len(known) < 2:
        return f"{known[0]:+.{digits}f}" if known else "–"
    limits = limits_of_agreement(known, np.zeros(len(known)))
    spread, ends = np.std(known, ddof=1), f"{limits.lower:+.{digits}f}, {limits.upper:+.{digits}f}"
    return f"{limits.bias:+.{digits}f} ± {spread:.{digits}f} [{ends}]"


def _parts_table(rows: Sequence[Record]) -> str:
    """What the methods have inside the labelled slices and beyond, in % of the input."""
    words = {"inside": "inside its slices", "apex": "beyond, apex", "base": "beyond, base"}
    lines = []
    for name in sorted({_part_of(row) for row in rows}):
        own = [row for row in rows if _part_of(row) == name]
        for method in METHODS:
            for part, text in words.items():
                errors = {
                    each: [_error(row, method, each, "percent", part) for row in own]
                    for each in SHOWN
                }
                cells = [
                    tabulate.mean_sd([e for e in found if e is not None], 1)
                    for found in errors.values()
                ]
                lines.append([f"{name}: {method}, {text}", *cells])
    return tabulate.markdown(["model minus input, % of the input's volume", *SHOWN], lines)


def _worst_table(rows: Sequence[Record]) -> str:
    """The frames whose model differs most from the input, in % of the input."""
    found = [
        (abs(error), error, row, name)
        for row in rows
        for name in SHOWN
        if (error := _error(row, OURS, name, "percent")) is not None
    ]
    found.sort(key=lambda each: -each[0])
    lines = []
    for _, error, row, name in found[:_WORST]:
        cells = [f"{_error(row, OURS, name, 'percent', part):+.1f}" for part in PARTS[1:]]
        size = f"{row['volumes'][INPUT][name]['whole']:.1f}"
        heart = f"{row['name']}, {row['group']}, {row['phase']}"
        lines.append([f"{heart}: {name}", size, f"{error:+.1f}", *cells])
    header = [f"{_WORST} largest errors of any structure", "input, ml", "error, %"]
    return tabulate.markdown([*header, "inside, %", "apex, %", "base, %"], lines)


def _failed_table(records: Sequence[Record]) -> str:
    lines = []
    for data in dict.fromkeys(record["data"] for record in records):
        own = [record for record in records if record["data"] == data]
        failed = [record["case"] for record in own if "error" in record]
        lines.append([data, str(len(own)), f"{len(failed)} {' '.join(failed)}".strip()])
    return tabulate.markdown(["data", "patients", "failed"], lines)


def _change(record: Record, method: str, structure: str, kind: str) -> float | None:
    """Ejection fraction in %, or volume at ED minus at ES in ml, of one patient."""
    frames = {frame["phase"]: frame["volumes_ml"][method] for frame in record["frames"]}
    if not all(structure in frames.get(phase, {}) for phase in ("ED", "ES")):
        return None
    diastole, systole = (float(frames[phase][structure]["whole"]) for phase in ("ED", "ES"))
    if kind == "ejection":
        return 100 * (diastole - systole) / diastole
    return diastole - systole


def _pairs_table(pairs: Sequence[Record], kind: str, structures: Sequence[str]) -> str:
    """Bias, SD and limits of each method's ejection fraction against the input's, in points."""
    lines = []
    for name in _parts_of(pairs):
        own = [record for record in pairs if name in ("ACDC, all", record["part"])]
        for method in METHODS:
            cells = []
            for structure in structures:
                both = [
                    [_change(record, each, structure, kind) for each in (method, INPUT)]
                    for record in own
                ]
                errors = [None if a is None or b is None else a - b for a, b in both]
                cells.append(_limits(errors))
            lines.append([f"{name}: {method}", str(len(own)), *cells])
    header = ["ejection fraction, model minus input, points", "patients"]
    return tabulate.markdown([*header, *structures], lines)


def _mass_table(pairs: Sequence[Record]) -> str:
    """Mass of the left wall at ED minus at ES, of the input and every method."""
    lines = []
    for name in _parts_of(pairs):
        own = [record for record in pairs if name in ("ACDC, all", record["part"])]
        for method in (INPUT, *METHODS):
            found = [
                MUSCLE_DENSITY_G_PER_ML * change
                for record in own
                if (change := _change(record, method, "LV wall", "mass")) is not None
            ]
            largest = f"{max(found, key=abs):+.1f}" if found else "–"
            lines.append([f"{name}: {method}", str(len(own)), _limits(found), largest])
    header = ["LV wall mass at ED minus at ES, g", "patients", "mean ± SD [limits]", "largest"]
    return tabulate.markdown(header, lines)


def _parts_of(records: Sequence[Record]) -> list[str]:
    return [*sorted({record["part"] for record in records}), "ACDC, all"]
