"""The view that a short-axis model never saw: long-axis planes of a patient and of whole hearts.

One patient was contoured in short-axis planes and in long-axis planes, at 25 phases. The model is made
from the short-axis contours alone, and the long-axis ones tell where its outlines and its ends should
be. Anatomies that are known as a whole, real and synthetic, are cut into slices, put together again,
and compared with themselves in a four-chamber, a two-chamber and a three-chamber plane.

Where the model ends. From each valve point rays run along the LV's long axis (from the apex point to the
mean of the mitral points), within 3 mm of the point across the axis; the last place on a ray that shows
the structure is the model's end there, and the median over the rays is compared with the point. Positive
means past the point, out of the heart. The base of the LV (cavity and wall) is asked at the mitral
points, the apex at the apex point, which lies on the epicardium, the base of the RV cavity at the
tricuspid points. Long-axis contours do not cover the valves, so that distances of contour points do not
tell a closed lid from an open one; the ends do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accuracy import guidepoints, plane_cuts
from benchmarks.accuracy.guidepoints import Phase, Plane
from benchmarks.harness import measuring, plots, scoring, tabulate
from benchmarks.harness.cases import (
    ANATOMIES,
    DataAbsent,
    anatomy_case,
    data_folder,
    synthetic_hearts,
)
from benchmarks.harness.measuring import BASELINES, rounded
from benchmarks.harness.store import Record, Unit, gather
from cardiacreg.arrays import Float
from cardiacreg.geometry import (
    LV_CAVITY,
    LV_WALL,
    RV_CAVITY,
    STRUCTURES,
    LabelMap,
)
from cardiacreg.metrics.overlap import volumes_ml
from cardiacreg.phantoms.long_axis_views import VIEW_DEGREES, plan_views
from cardiacreg.refinement.options import RefineOptions

OURS = "cardiacreg"
CONTOURS: dict[str, tuple[tuple[str, ...], tuple[int, ...]]] = {
    "LV endocardium": (("LAX_LV_ENDOCARDIAL",), (LV_CAVITY,)),
    "LV epicardium": (("LAX_LV_EPICARDIAL",), (LV_CAVITY, LV_WALL)),
    "RV free wall": (("LAX_RV_FREEWALL",), (RV_CAVITY,)),
    "RV septum": (("LAX_RV_SEPTUM",), (RV_CAVITY,)),
}
ENDS: dict[str, tuple[str, tuple[int, ...], float]] = {
    "base at the mitral points": ("MITRAL_VALVE", (LV_CAVITY, LV_WALL), 1.0),
    "apex at the apex point": ("APEX_POINT", (LV_CAVITY, LV_WALL), -1.0),
    "base at the tricuspid points": ("TRICUSPID_VALVE", (RV_CAVITY,), 1.0),
}

METHODS = (*BASELINES, OURS)
OPEN_ENDS = "cardiacreg, coverage partial"
"""Slices without labels say nothing: the atlases alone tell where the heart ends."""
_OPTIONS = {OURS: RefineOptions(), OPEN_ENDS: RefineOptions(coverage="partial")}
_HEARTS = 20
_QUICK_PHASES = (0, 9)
_LEAST_MM2 = 150.0


def run(quick: bool, cases: int = _HEARTS) -> dict[str, Any]:
    """Measure the contoured patient, every real anatomy and some synthetic hearts.

    A quick run takes two phases of the patient, one anatomy and one heart.
    """
    patient = present(
        "bivme", lambda: patient_units(_QUICK_PHASES if quick else guidepoints.PHASES)
    )
    anatomies = present("hr_bank", lambda: anatomy_units(ANATOMIES[:1] if quick else ANATOMIES))
    records = gather("long_axis", [*patient, *anatomies, *heart_units(1 if quick else cases)])
    ours = [record for record in records if record["case"] == "bivme"]
    return {"seeds": [], "patient": ours, "records": [r for r in records if r["case"] != "bivme"]}


def present(data: str, make: Callable[[], list[Unit]]) -> list[Unit]:
    """Return the units on a data set, none where it is absent."""
    try:
        data_folder(data)
    except DataAbsent:
        return []
    return make()


def patient_units(phases: tuple[int, ...]) -> list[Unit]:
    """Return one unit per method: all phases together, as a method may use them together."""

    def unit(method: str) -> Unit:
        key = {"case": "bivme", "method": method, "phases": list(phases)}
        options = {"options": repr(_OPTIONS[method])} if method in _OPTIONS else {}
        return Unit(
            key | options, lambda: rounded(key | {"found": measure_patient(phases, method)})
        )

    return [unit(method) for method in (*METHODS, OPEN_ENDS)]


def measure_patient(phases: tuple[int, ...], method: str) -> list[Record]:
    """Make the model of every phase and measure it."""
    read, planes = read_patient(phases)
    frames = stacks(read, planes)
    return [
        measure_phase(model, phase, planes) | {"input_ml": volumes_ml(frame)}
        for model, phase, frame in zip(models(frames, method), read, frames, strict=True)
    ]


def anatomy_units(names: tuple[str, ...]) -> list[Unit]:
    """Return the units on real anatomies."""

    def unit(name: str, method: str) -> Unit:
        key = {"case": name, "seed": ANATOMIES.index(name), "method": method}
        options = {"options": repr(RefineOptions())} if method == OURS else {}
        return Unit(key | options, lambda: _measure_anatomy(name, method))

    return [unit(name, method) for name in names for method in METHODS]


def _measure_anatomy(name: str, method: str) -> Record:
    case = anatomy_case(name, ANATOMIES.index(name))
    if method == OURS:
        return rounded(measuring.refined(case, method, score=score_views))
    return rounded(measuring.interpolated(case, method, score=score_views))


def heart_units(count: int) -> list[Unit]:
    """Return the units on synthetic hearts."""
    units = []
    for heart in synthetic_hearts(count):
        units += [measuring.interpolated_unit(heart, name, score=score_views) for name in BASELINES]
        units.append(measuring.refined_unit(heart, OURS, score=score_views))
    return units


def score_views(found: LabelMap, truth: LabelMap) -> dict[str, scoring.Scores]:
    """Return Dice per structure in the long-axis views of a truth, raw and after translation and tilt."""
    grids = views(truth)
    tilted = scoring.align(found, truth, tilt=True).labels
    return {"raw": _view_dice(found, truth, grids), "tilt": _view_dice(tilted, truth, grids)}


def views(labels: LabelMap) -> dict[str, LabelMap]:
    """Return the planes of a whole heart along the LV's axis, see `plan_views`."""
    return {name: plane_cuts.plane_over(labels, *axes) for name, axes in plan_views(labels).items()}


def _unit(vector: Float) -> Float:
    return np.asarray(vector / np.linalg.norm(vector))


def _view_dice(found: LabelMap, truth: LabelMap, grids: dict[str, LabelMap]) -> scoring.Scores:
    """Dice of the structures in each view, and pooled over the pixels of all views as ``dice``.

    A view that only grazes a structure has no Dice of its own for it.
    """
    scores: scoring.Scores = {}
    pairs = {
        name: [plane_cuts.cut(m, grid) for m in (found, truth)] for name, grid in grids.items()
    }
    for label, structure in STRUCTURES.items():
        masks = {name: [each.array == label for each in pair] for name, pair in pairs.items()}
        counts = {name: (2 * (a & b).sum(), a.sum() + b.sum()) for name, (a, b) in masks.items()}
        shared, total = np.sum([*counts.values()], axis=0)
        if not any(true.any() for _, true in masks.values()):
            continue
        scores[structure] = {"dice": float(shared / total)} | {
            f"dice_{name}": float(own[0] / own[1])
            for name, own in counts.items()
            if masks[name][1].sum() * plane_cuts.COARSE_PIXEL_MM**2 >= _LEAST_MM2
        }
    return scores


def read_patient(phases: tuple[int, ...]) -> tuple[list[Phase], dict[int, Plane]]:
    """Read the planes and the given phases of the contoured patient."""
    folder: Path = data_folder("bivme") / "guidepoints"
    planes = guidepoints.read_planes(folder)
    return [guidepoints.read_phase(folder, number, planes) for number in phases], planes


def stacks(phases: list[Phase], planes: dict[int, Plane]) -> list[LabelMap]:
    """Return the short-axis label map of every phase."""
    return [guidepoints.short_axis_labels(phase, planes) for phase in phases]


def models(frames: list[LabelMap], method: str) -> list[LabelMap]:
    """Return the model of every phase by one method."""
    if method in _OPTIONS:
        results = measuring.refine_patient(
            frames, oriented_by=extreme_frames(frames), options=_OPTIONS[method]
        )
        return [each.labels for each in results]
    return [BASELINES[method](frame, measuring.fine_lattice(frame)) for frame in frames]


def extreme_frames(frames: list[LabelMap]) -> list[LabelMap]:
    """Return the frames with the largest and the smallest LV cavity, area x slice distance.

    A patient has one orientation. These two tell it to all phases; every phase told of every other
    would cost the square of their number.
    """
    sizes = [volumes_ml(frame)[STRUCTURES[LV_CAVITY]] or 0.0 for frame in frames]
    chosen = dict.fromkeys((int(np.argmax(sizes)), end_systole(frames)))
    return [frames[n] for n in chosen]


def end_systole(frames: list[LabelMap]) -> int:
    """Return the position of the frame with the smallest LV cavity, area x slice distance."""
    sizes = [volumes_ml(frame)[STRUCTURES[LV_CAVITY]] or np.inf for frame in frames]
    return int(np.argmin(sizes))


def measure_phase(model: LabelMap, phase: Phase, planes: dict[int, Plane]) -> dict[str, Any]:
    """Measure one model against the long-axis contours and valve points of its phase."""
    axis = long_axis(phase)
    ends = {
        name: plane_cuts.ends_beyond_mm(model, labels, phase.everywhere(kind), sign * axis)
        for name, (kind, labels, sign) in ENDS.items()
    }
    return {
        "phase": phase.number,
        "volumes_ml": volumes_ml(model),
        "ends_mm": ends,
        "contours_mm": {name: _contour(model, phase, planes, name) for name in CONTOURS},
    }


def long_axis(phase: Phase) -> Float:
    """Return the unit vector from the apex point to the mean of the mitral points."""
    apex, base = phase.everywhere("APEX_POINT"), phase.everywhere("MITRAL_VALVE")
    return _unit(base.mean(axis=0) - apex.mean(axis=0))


def _contour(model: LabelMap, phase: Phase, planes: dict[int, Plane], name: str) -> dict[str, Any]:
    """Pool the signed distances of a contour's points over the long-axis planes."""
    kinds, labels = CONTOURS[name]
    pooled: list[float] = []
    by_plane = {}
    for number in guidepoints.LONG_AXIS:
        points = phase.of(number, *kinds)
        section = plane_cuts.cut(model, long_axis_grid(planes[number]))
        found = plane_cuts.beyond_points_mm(section, labels, points)
        if found is None:
            continue
        edge = found - planes[number].pixel_mm / 2
        by_plane[str(number)] = {"mean": float(edge.mean()), "absolute": float(abs(edge).mean())}
        pooled += edge.tolist()
    return {"points": len(pooled), "planes": by_plane} | (
        {"mean": float(np.mean(pooled)), "absolute": float(np.mean(np.abs(pooled)))}
        if pooled
        else {}
    )


def long_axis_grid(plane: Plane) -> LabelMap:
    """Return a fine lattice over an acquired plane."""
    first, second = plane.steps_mm / plane.pixel_mm
    size = plane.pixel_mm * max(guidepoints.PIXELS)
    return plane_cuts.plane(plane.origin_mm, first, second, (size, size), plane_cuts.PIXEL_MM)


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return ends and contours of the patient, and Dice in the views of whole hearts."""
    found: dict[str, str] = {}
    patient = [record for record in result["patient"] if "found" in record]
    if patient:
        found["long-axis-ends"] = _patient_table(
            patient, "end of the model, mm past the points", ENDS
        )
        found["long-axis-contours"] = _patient_table(
            patient, "model beyond the contour, mm; absolute", CONTOURS
        )
        found["long-axis-volumes"] = _volumes_table(patient)
    for name, own in sets(result["records"]).items():
        found[f"long-axis-{name}"] = tabulate.figure_table(own, "dice", alignments=("raw", "tilt"))
        found[f"long-axis-{name}-views"] = _views_table(own)
        found[f"long-axis-{name}-gain"] = tabulate.comparison_table(own, OURS, [*BASELINES])
    return found


def plots_of(result: dict[str, Any]) -> dict[str, Any]:
    """Return where the patient's model ends over the phases."""
    patient = [record for record in result["patient"] if "found" in record]
    if not patient:
        return {}
    drawn, axes = plots.panels(1, len(ENDS), width=3.0)
    for panel, name in zip(axes[0], ENDS, strict=True):
        for record, colour in zip(patient, plots.METHOD_COLOURS, strict=False):
            phases = [each["phase"] for each in record["found"]]
            ends = [np.nan if (e := _end(each, name)) is None else e for each in record["found"]]
            panel.plot(
                phases, ends, color=colour, marker="o", markersize=2.5, label=record["method"]
            )
        panel.axhline(0, color="0.3", linewidth=0.9)
        panel.set_title(name)
        panel.set_xlabel("phase")
    axes[0, 0].set_ylabel("end of the model, mm past")
    handles, names = axes[0, 0].get_legend_handles_labels()
    drawn.legend(handles, names, loc="outside lower center", ncols=len(names))
    return {"long-axis-ends": drawn}


def sets(records: Sequence[Record]) -> dict[str, list[Record]]:
    """The records of real anatomies and of synthetic hearts."""
    anatomies = [r for r in records if r["case"] in ANATOMIES]
    hearts = [r for r in records if r["case"] not in ANATOMIES]
    return {k: own for k, own in (("anatomies", anatomies), ("hearts", hearts)) if own}


def _end(found: Record, name: str) -> float | None:
    """Mean over the points of one end in one phase."""
    known = [value for value in found["ends_mm"][name] if value is not None]
    return float(np.mean(known)) if known else None


def _phases(found: Sequence[Record]) -> dict[str, list[Record]]:
    """End-diastole, end-systole and all phases of one method's records."""
    smallest = min(found, key=lambda each: each["input_ml"]["LV cavity"])
    return {"ED": [found[0]], "ES": [smallest], f"all {len(found)} phases": list(found)}


def _patient_table(patient: Sequence[Record], title: str, columns: dict[str, Any]) -> str:
    """One row per method and choice of phases; ends as the mean over points."""
    rows = []
    for record in patient:
        for words, chosen in _phases(record["found"]).items():
            cells = [_cell(chosen, name) for name in columns]
            rows.append([f"{record['method']}, {words}", *cells])
    return tabulate.markdown([title, *columns], rows)


def _cell(chosen: Sequence[Record], name: str) -> str:
    if name in ENDS:
        known = [end for each in chosen if (end := _end(each, name)) is not None]
        if len(known) < 2:
            return f"{known[0]:+.1f}" if known else "–"
        spread = f"{np.std(known, ddof=1):.1f} [{min(known):+.1f}, {max(known):+.1f}]"
        return f"{np.mean(known):+.1f} ± {spread}"
    held = [each["contours_mm"][name] for each in chosen if each["contours_mm"][name]["points"]]
    if not held:
        return "–"
    means = [np.mean([each[kind] for each in held]) for kind in ("mean", "absolute")]
    return f"{means[0]:+.1f}; {means[1]:.1f}"


def _volumes_table(patient: Sequence[Record]) -> str:
    """Volumes at ED and ES: the input's area x slice distance, and every method's."""
    names = ("LV cavity", "LV wall", "RV cavity")
    rows = []
    for phase in ("ED", "ES"):
        (first,) = _phases(patient[0]["found"])[phase]
        rows.append(
            [f"area x slice distance, {phase}", *[_ml(first["input_ml"][n]) for n in names]]
        )
        for record in patient:
            (own,) = _phases(record["found"])[phase]
            cells = [_ml(own["volumes_ml"][name]) for name in names]
            rows.append([f"{record['method']}, {phase}", *cells])
    return tabulate.markdown(["volume, ml", *names], rows)


def _ml(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _views_table(records: Sequence[Record]) -> str:
    """Raw Dice in every view."""
    rows = []
    for view in VIEW_DEGREES:
        for method in tabulate.methods(records):
            cells = [
                tabulate.mean_sd(tabulate.values(records, method, name, f"dice_{view}"))
                for name in tabulate.ORDER
            ]
            rows.append([f"{method}, {view.replace('_', '-')}", *cells])
    return tabulate.markdown(["Dice in the view, raw", *tabulate.ORDER], rows)
