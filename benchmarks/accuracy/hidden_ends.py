"""Take the outermost slice away: does the model end where the heart ends?

The outermost labelled slice at one end of a patient's stack, and all that lies beyond it, is taken away
as if it had not been acquired: the stack stops there. Methods see the rest. The hidden labels then tell
where each structure ends: between the centre of the last slice that shows it and the centre of the next
one, which does not. The error of an end is 0 within these two centres; else it is the distance to the
nearer one, negative where the model ends too early. The model's end is the outer face of its last slice
with at least 20 mm2 of the structure.

Most stacks were labelled to their last slice, and there only the first of the two centres is known.
So three things are asked of structures that the hidden slice shows: the error where both centres are
known; at all ends by how much the model ends before the hidden slice's centre; and at all ends the
distance to that slice's outer face, where area x slice distance has the end. A structure that ends
before the hidden slice ends where every method can see it; those ends are reported apart.

Dice of the hidden slice is given raw and after the in-plane translation that suits the method best, as
for other hidden slices.

Interpolation repeats the last slice for half a slice distance and never reaches the hidden one. So
there is also a guess that does: the last slice once more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks.accuracy.volumes import LABELS, SHOWN, patient_of
from benchmarks.harness import hidden_slices, measuring, tabulate
from benchmarks.harness.cases import Acquisition, acdc
from benchmarks.harness.measuring import BASELINES, rounded
from benchmarks.harness.store import Record, Unit, gather
from cardiacreg.anatomy.landmarks import base_is_at_last_slice
from cardiacreg.geometry import STRUCTURES, LabelMap
from cardiacreg.refinement.options import RefineOptions
from cardiacreg.slices import labelled_slices

COVERAGES = {f"cardiacreg, {word}": word for word in ("auto", "partial", "whole")}
REPEATED = "last slice once more"
METHODS = (*BASELINES, REPEATED, *COVERAGES)
ENDS = ("apex", "base")
TITLES = {
    "interval_mm": "error of the end where both centres are known",
    "early_mm": "end before the centre of the hidden slice",
    "face_mm": "end past the outer face of the hidden slice",
}
LEAST_MM2 = 20.0
_PATIENTS = 100
_FEWEST_KEPT = 4


class Hidden(NamedTuple):
    """A stack that stops early, and what was taken away."""

    stack: LabelMap
    slice: LabelMap
    towards_last: bool
    """Whether the end lies towards large k."""
    ends_mm: dict[str, tuple[float, float | None]]
    """Centres of the last slice with each structure and of the next slice, mm past the hidden centre."""


def run(quick: bool, cases: int = _PATIENTS) -> dict[str, Any]:
    """Measure both ends of both frames of ACDC patients (every one; 1 frame in a quick run)."""
    count = 1 if quick else min(cases, _PATIENTS)
    frames = acdc(tuple(1 + n * _PATIENTS // count for n in range(count)))
    units = [
        _unit(frame, end, method)
        for frame in (frames[:1] if quick else frames)
        for end in ENDS
        for method in METHODS
    ]
    return {"seeds": [], "records": gather("hidden_ends", units)}


def coverage_options(word: str) -> RefineOptions:
    """Return the default options with a coverage."""
    return RefineOptions(coverage=word)


def _unit(frame: Acquisition, end: str, method: str) -> Unit:
    head = {"case": frame.name, "group": frame.group, "phase": frame.phase, "end": end}
    head |= {"part": patient_of(frame)["part"], "method": method}
    options = repr(coverage_options(COVERAGES[method])) if method in COVERAGES else ""

    def measure() -> Record:
        try:
            hidden = hide(hidden_slices.canonical(frame), end)
        except hidden_slices.TooFewSlices as few:
            return head | {"skipped": str(few)}
        return rounded(head | measure_end(hidden, method))

    return Unit(head | {"options": options}, measure)


def hide(labels: LabelMap, end: str) -> Hidden:
    """Take the outermost labelled slice at an end, and all beyond it, out of a stack.

    Raises
    ------
    TooFewSlices
        If fewer than four labelled slices would be left.
    """
    slices = labelled_slices(labels.array)
    if len(slices) - 1 < _FEWEST_KEPT:
        raise hidden_slices.TooFewSlices(f"{len(slices) - 1} would be left; needs {_FEWEST_KEPT}")
    towards_last = base_is_at_last_slice(labels) == (end == "base")
    k = int(slices[-1] if towards_last else slices[0])
    kept = slice(0, k) if towards_last else slice(k + 1, labels.shape[2])
    return Hidden(
        part_of(labels, kept), part_of(labels, slice(k, k + 1)), towards_last,
        _ends(labels, k, towards_last),
    )  # fmt: skip


def _ends(
    labels: LabelMap, hidden: int, towards_last: bool
) -> dict[str, tuple[float, float | None]]:
    """Between which two slice centres every structure ends; no second one where the stack has none."""
    distance, found = float(labels.spacing_mm[2]), {}
    for label in LABELS:
        held = np.flatnonzero((labels.array == label).any(axis=(0, 1)))
        if not len(held):
            continue
        last = int(held[-1] if towards_last else held[0])
        nearer = -abs(hidden - last) * distance
        at_border = last == (labels.shape[2] - 1 if towards_last else 0)
        found[STRUCTURES[label]] = (nearer, None if at_border else nearer + distance)
    return found


def part_of(labels: LabelMap, chosen: slice) -> LabelMap:
    """Return some slices of a stack, where they lie in the world."""
    matrix = labels.voxel_to_world.copy()
    matrix[:3, 3] += matrix[:3, 2] * chosen.start
    return LabelMap(labels.array[:, :, chosen], matrix)


def measure_end(hidden: Hidden, method: str) -> Record:
    """Make the model without the hidden slice by one method and compare it there."""
    if method in COVERAGES:
        options = coverage_options(COVERAGES[method])
        (result,) = measuring.refine_patient([hidden.stack], options=options)
        model, shifts = result.labels, result.slice_shifts_mm
        filled = hidden_slices.as_acquired(model, hidden.stack, shifts, hidden.slice)
    else:
        stack = repeated(hidden) if method == REPEATED else hidden.stack
        fill = BASELINES["nearest neighbour" if method == REPEATED else method]
        model, filled = fill(stack, measuring.fine_lattice(stack)), fill(stack, hidden.slice)
    return {
        "distance_mm": float(hidden.stack.spacing_mm[2]),
        "scores": hidden_slices.score([filled], [hidden.slice]),
        "ends": {name: _end_error(model, hidden, name) for name in hidden.ends_mm},
    }


def repeated(hidden: Hidden) -> LabelMap:
    """Return the stack with its last slice once more in the place of the hidden one."""
    stack, pad = hidden.stack, (0, 1) if hidden.towards_last else (1, 0)
    matrix = stack.voxel_to_world.copy()
    matrix[:3, 3] -= matrix[:3, 2] * pad[0]
    return LabelMap(np.pad(stack.array, ((0, 0), (0, 0), pad), mode="edge"), matrix)


def _end_error(model: LabelMap, hidden: Hidden, structure: str) -> Record:
    """Errors of the end of one structure in mm, as far as they can be known."""
    end = end_mm(model, hidden, structure)
    nearer, farther = hidden.ends_mm[structure]
    found: Record = {"end_mm": end, "hidden": nearer == 0.0, "missing": end is None}
    if end is None:
        return found
    found |= {"early_mm": min(end - nearer, 0.0)}
    found |= {"face_mm": end - nearer - float(hidden.slice.spacing_mm[2]) / 2}
    if farther is not None:
        found["interval_mm"] = found["early_mm"] + max(end - farther, 0.0)
    return found


def end_mm(model: LabelMap, hidden: Hidden, structure: str) -> float | None:
    """Return how far past the centre of the hidden slice a structure of the model ends, mm.

    None if the model has no slice with enough of it. The model's k axis is that of the stack.
    """
    label = next(label for label, name in STRUCTURES.items() if name == structure)
    areas = (model.array == label).sum(axis=(0, 1)) * float(np.prod(model.spacing_mm[:2]))
    held = np.flatnonzero(areas >= LEAST_MM2)
    if not len(held):
        return None
    to_slice = np.linalg.inv(hidden.slice.voxel_to_world) @ model.voxel_to_world
    step, start = to_slice[2, 2], to_slice[2, 3]
    outward = 1.0 if hidden.towards_last else -1.0
    faces = outward * (start + step * held) + abs(step) / 2
    return float(faces.max() * hidden.slice.spacing_mm[2])


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return errors of ends, Dice of the hidden slices, and how many frames count."""
    good = [record for record in result["records"] if "scores" in record]
    if not good:
        return {}
    return {
        "hidden-ends-interval": _ends_table(good, "interval_mm"),
        "hidden-ends-early": _ends_table(good, "early_mm"),
        "hidden-ends-face": _ends_table(good, "face_mm"),
        "hidden-ends-seen": _ends_table(good, "interval_mm", hidden=False),
        "hidden-ends-dice": _dice_table(good),
        "hidden-ends-worst": _worst_table(good),
        "hidden-ends-frames": _frames_table(result["records"]),
    }


def _sets(records: Sequence[Record]) -> dict[tuple[str, str], list[Record]]:
    """Records by set of patients and end, and by method."""
    found: dict[tuple[str, str], list[Record]] = {}
    for end in ENDS:
        for part in sorted({record["part"] for record in records}):
            for method in METHODS:
                own = [
                    r for r in records if (r["end"], r["part"], r["method"]) == (end, part, method)
                ]
                if own:
                    found[f"{part}, {end}", method] = own
    return found


def _ends_table(records: Sequence[Record], figure: str, *, hidden: bool = True) -> str:
    """Mean ± SD of an error and its mean absolute value, per end, method and structure."""
    rows = []
    for (words, method), own in _sets(records).items():
        cells = []
        for name in SHOWN:
            ends = [r["ends"][name] for r in own if name in r["ends"]]
            errors = [e[figure] for e in ends if figure in e and e["hidden"] == hidden]
            size = f"; {np.mean(np.abs(errors)):.1f} ({len(errors)})" if errors else ""
            cells.append(tabulate.mean_sd(errors, 1) + size)
        rows.append([f"{words}: {method}", *cells])
    title = TITLES[figure] if hidden else "error of an end that the kept slices show"
    return tabulate.markdown([f"{title}, mm: mean ± SD; mean size (ends)", *SHOWN], rows)


def _dice_table(records: Sequence[Record]) -> str:
    """Dice of the hidden slice, raw and translated."""
    rows = []
    for alignment, text in (("raw", "raw"), ("translation", "slice translated")):
        for (words, method), own in _sets(records).items():
            cells = [
                tabulate.mean_sd(tabulate.values(own, method, name, "dice", alignment))
                for name in SHOWN
            ]
            rows.append([f"{words}: {method}, {text}", *cells])
    return tabulate.markdown(["Dice of the hidden slice", *SHOWN], rows)


def _worst_table(records: Sequence[Record]) -> str:
    """The hidden ends farthest off and hidden structures that are missing, per end and method of ours."""
    rows = []
    for (words, method), own in _sets(records).items():
        if method not in COVERAGES:
            continue
        found = [
            (each["face_mm"], f"{name}, {record['case']}")
            for record in own
            for name, each in record["ends"].items()
            if each["hidden"] and "face_mm" in each
        ]
        cells = ["{:+.1f} ({})".format(*pick(found)) for pick in (min, max)] if found else ["–"] * 2
        missing = sum(e["missing"] and e["hidden"] for r in own for e in r["ends"].values())
        rows.append([f"{words}: {method}", *cells, str(missing)])
    header = ["end past the outer face of the hidden slice, mm", "lowest", "highest"]
    return tabulate.markdown([*header, "hidden structures not in the model"], rows)


def _held(record: Record, structure: str) -> list[Record]:
    return [record["ends"][structure]] if structure in record["ends"] else []


def _frames_table(records: Sequence[Record]) -> str:
    """How many frames count, and how many ends are known."""
    rows = []
    for end in ENDS:
        own = [r for r in records if r["method"] == METHODS[0] and r.get("end") == end]
        good = [r for r in own if "scores" in r]
        known = [
            str(sum("interval_mm" in end and end["hidden"] for r in good for end in _held(r, name)))
            for name in SHOWN
        ]
        skipped = sum("skipped" in r for r in own)
        failed = sum("error" in r for r in records if r.get("end") == end)
        rows.append([end, str(len(good)), *known, str(skipped), str(failed)])
    header = ["hidden end", "frames", *(f"both centres known, {name}" for name in SHOWN)]
    return tabulate.markdown([*header, "too few slices", "runs failed"], rows)
