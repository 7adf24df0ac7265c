"""All frames of a patient together, against each frame by itself.

Synthetic hearts beat: the measures of a person's end-diastole and end-systole are interpolated over a
cycle, and a clinical stack shows all frames with one set of slice shifts. There every frame's truth is
known. Two frames of ACDC patients (development patients alone), and 25 phases of a contoured patient,
have no truth: muscle keeps its volume, curves are smooth, and long-axis contours tell where outlines are.

Roughness of a curve: root mean square of the second differences between neighbouring frames, around the
cycle, in percent of the mean; a beating heart has some of its own. Slice shifts: root mean square error
per axis over the slices that a frame labels, without mean and linear trend, mean over the frames.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

import cardiacreg
from benchmarks.accuracy import long_axis
from benchmarks.harness import hidden_slices, measuring, scoring, tabulate
from benchmarks.harness.cases import CLINICAL, DataAbsent, acdc, padded
from benchmarks.harness.measuring import rounded
from benchmarks.harness.store import Record, Unit, gather
from cardiacreg.atlases.view import AtlasView
from cardiacreg.cine.frames import gather_cine
from cardiacreg.cine.patient import decide
from cardiacreg.cine.views import gather_cine_views
from cardiacreg.errors import InputWarning
from cardiacreg.geometry import STRUCTURES, LabelMap
from cardiacreg.metrics import baselines, overlap
from cardiacreg.phantoms.beating import beating_heart
from cardiacreg.phantoms.hearts import FIRST_EVALUATION_SEED
from cardiacreg.refinement.atlas_choice import select_atlases
from cardiacreg.refinement.canonical_axes import CanonicalAxes
from cardiacreg.refinement.context import Clock
from cardiacreg.refinement.options import RefineOptions
from cardiacreg.refinement.steps import prepare_over_lattice
from cardiacreg.refinement.target import gather_atlases
from cardiacreg.slice_motion.shared_shifts import (
    CONFIDENCE_PAST_ED,
    FrameShifts,
    frame_shifts,
    shared_shifts,
)
from cardiacreg.slices import labelled_slices

CINE, SINGLE = "cine", "frame by frame"
METHODS = (SINGLE, CINE)
GROUPS = ("healthy", "pulmonary_hypertension", "dilated", "hypertrophic")
DEVELOPMENT = tuple(n for n in range(1, 101) if measuring.is_development(n))
SPACING_MM = (1.25, 1.25, 2.0)
_HEARTS, _FRAMES, _QUICK_FRAMES = 6, 10, 3


def run(quick: bool, cases: int = _HEARTS) -> dict[str, Any]:
    """Measure synthetic hearts, and patients where their data are; a quick run takes one of each."""
    frames = _QUICK_FRAMES if quick else _FRAMES
    units = [_heart_unit(n, frames) for n in range(1 if quick else cases)]
    for make in (_acdc_units, _contoured_units):
        try:
            units += make(quick)
        except DataAbsent:
            continue
    return {"seeds": [], "records": gather("cine", units)}


def _heart_unit(number: int, n_frames: int) -> Unit:
    seed, group = FIRST_EVALUATION_SEED + number, GROUPS[number % len(GROUPS)]
    key = {"case": f"{group}_{seed:05d}", "data": "synthetic", "frames": n_frames, "seed": seed}
    options = {"options": repr(RefineOptions()), "degradation": repr(CLINICAL)}
    return Unit(key | options, lambda: rounded(key | measure_heart(seed, group, n_frames)))


def measure_heart(seed: int, group: str, n_frames: int) -> Record:
    """Refine a beating heart both ways, and compare every frame with its truth."""
    hearts = beating_heart(seed, group=group, n_frames=n_frames, spacing_mm=SPACING_MM)
    lows = CLINICAL.of_frames(hearts, seed=seed)
    stacks, true_mm = [low.subject.labels for low in lows], lows[0].slice_shifts_mm
    truths = [padded(heart.labels) for heart in hearts]
    found: dict[str, Any] = {
        "true_ml": [overlap.structure_volumes_ml(each.labels) for each in hearts]
    }
    for method in METHODS:
        models, shifts, more = models_of(stacks, method)
        found[method] = more | {
            "dice": [_dice(m, t) for m, t in zip(models, truths, strict=True)],
            "volumes_ml": [overlap.structure_volumes_ml(each) for each in models],
        }
        if method == SINGLE:
            found["own_shift_error_mm"] = [
                _error(own, true_mm, stack) for own, stack in zip(shifts, stacks, strict=True)
            ]
    told = _estimates(stacks)
    ed, es = told.ed, told.es
    for count, chosen in ((1, [ed]), (2, [ed, es]), (n_frames, range(n_frames))):
        confidence = [1.0 if n == ed else CONFIDENCE_PAST_ED for n in chosen]
        shared = told.shared([told.frames[n] for n in chosen], confidence)
        found[f"shift_error_{count}_mm"] = [_error(shared, true_mm, each) for each in stacks]
    return found


def models_of(
    stacks: Sequence[LabelMap], method: str
) -> tuple[list[LabelMap], list[np.ndarray], Record]:
    """Return the model and the slice shifts of every frame by one method, and what it took."""
    cpu = time.process_time()
    if method == CINE:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InputWarning)
            result = cardiacreg.refine_cine(list(stacks), threads=1)
        models, shifts = [each.labels for each in result.frames], [result.slice_shifts_mm]
        agreement = [each.agreement for each in result.frames]
        jacobian = result.minimum_jacobian
        first = sum(result.timings_seconds[k] for k in ("orient", "select", "slice motion"))
        more = {
            "ed": result.ed,
            "es": result.es,
            "shared_share": first / result.timings_seconds["total"],
        }
        shifts = shifts * len(models)
    else:
        singles = measuring.refine_patient(stacks, oriented_by=[])
        models, shifts = [each.labels for each in singles], [e.slice_shifts_mm for e in singles]
        agreement = [each.agreement for each in singles]
        jacobian, more = min(each.minimum_jacobian for each in singles), {}
    seconds = time.process_time() - cpu
    more |= {"cpu_seconds": seconds, "minimum_jacobian": jacobian, "agreement": agreement}
    return models, shifts, more


def _dice(model: LabelMap, truth: LabelMap) -> dict[str, float]:
    found = baselines.interpolate_nearest(model, truth)
    return {name: overlap.dice(found, truth, label) for label, name in STRUCTURES.items()}


def _error(estimated_mm: np.ndarray, true_mm: np.ndarray, stack: LabelMap) -> float:
    slices = labelled_slices(stack.array)
    return scoring.shift_errors_mm(estimated_mm, true_mm, slices)["trend_removed"]


class _Told(NamedTuple):
    """What every frame by itself tells of the shifts, and which frames are ED and ES."""

    frames: list[FrameShifts | None]
    ed: int
    es: int
    axes: CanonicalAxes
    n_slices: tuple[int, int]
    """Of the axes on which shifts are found, and of the stacks as stored."""

    def shared(
        self, chosen: Sequence[FrameShifts | None], confidence: Sequence[float]
    ) -> np.ndarray:
        """Return the shifts that frames tell together, along the axes of the stacks as stored."""
        found = shared_shifts(chosen, self.n_slices[0], confidence)
        return self.axes.shifts_back(found, self.n_slices[1])


def _estimates(stacks: Sequence[LabelMap]) -> _Told:
    """Return what every frame by itself tells of the shifts."""
    options, clock = RefineOptions(), Clock()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        gathered = gather_cine(list(stacks), "all")
        bank: AtlasView = gather_atlases(None, gathered.subject(gathered.ed), options.n_atlases)
        seen = gather_cine_views((), gathered, None)
        patient = decide(gathered, bank, SPACING_MM, options, 1, None, clock, seen)
    stage, found = options.slice_motion, []
    assert stage is not None
    for context in patient.contexts.values():
        aligned = [each.aligned for each in select_atlases(context, bank)]
        prepared = prepare_over_lattice(context, context.target.labels, stage, patient.lattice)
        few = aligned[: options.n_motion_atlases]
        found.append(frame_shifts(prepared, few, stage, statistics=aligned[:96]))
    counts = (patient.context.target.labels.shape[2], stacks[0].shape[2])
    return _Told(found, gathered.ed, gathered.es, patient.axes, counts)


def _acdc_units(quick: bool) -> list[Unit]:
    """Both labelled frames of the development patients: the others stay unseen."""

    def unit(number: int) -> Unit:
        frames = acdc((number,))
        key = {"case": f"patient{number:03d}", "data": "ACDC", "group": frames[0].group}
        return Unit(
            key | {"options": repr(RefineOptions())},
            lambda: rounded(key | _measure_stacks([hidden_slices.canonical(f) for f in frames])),
        )

    return [unit(number) for number in (DEVELOPMENT[:1] if quick else DEVELOPMENT)]


def _measure_stacks(stacks: Sequence[LabelMap]) -> Record:
    found: dict[str, Any] = {"input_ml": [overlap.structure_volumes_ml(each) for each in stacks]}
    for method in METHODS:
        models, shifts, more = models_of(stacks, method)
        found[method] = more | {
            "volumes_ml": [overlap.structure_volumes_ml(each) for each in models],
            "shifts_mm": [each.tolist() for each in shifts[: 1 if method == CINE else None]],
        }
    return found


def _contoured_units(quick: bool) -> list[Unit]:
    phases = (0, 9) if quick else long_axis.guidepoints.PHASES
    read, planes = long_axis.read_patient(phases)
    key = {"case": "bivme", "data": "bivme", "frames": len(phases)}

    def measure() -> Record:
        stacks = long_axis.stacks(read, planes)
        found: dict[str, Any] = {
            "input_ml": [overlap.structure_volumes_ml(each) for each in stacks]
        }
        for method in METHODS:
            models, _, more = models_of(stacks, method)
            found[method] = more | {
                "volumes_ml": [overlap.structure_volumes_ml(each) for each in models],
                "contours_mm": [
                    long_axis.measure_phase(model, phase, planes)["contours_mm"]
                    for model, phase in zip(models, read, strict=True)
                ],
            }
        return rounded(key | found)

    return [Unit(key | {"options": repr(RefineOptions())}, measure)]


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return Dice, shifts, curves and cost of synthetic hearts, and walls of patients."""
    good = [record for record in result["records"] if "error" not in record]
    hearts = [record for record in good if record["data"] == "synthetic"]
    patients = [record for record in good if record["data"] == "ACDC"]
    contoured = [record for record in good if record["data"] == "bivme"]
    found = {}
    if hearts:
        found |= {
            "cine-dice": _dice_table(hearts),
            "cine-shifts": _shift_table(hearts),
        }
    if good:
        found["cine-curves"] = _curve_table(hearts, contoured)
        found["cine-cost"] = _cost_table(hearts + contoured)
    if patients:
        found["cine-walls"] = _wall_table(patients)
    if contoured:
        found["cine-contours"] = _contour_table(contoured[0])
    return found


def _phases(record: Record) -> dict[str, list[int]]:
    """Positions of end-diastole, end-systole and of all frames of a heart."""
    sizes = [each["LV cavity"] for each in record["true_ml"]]
    every = list(range(len(sizes)))
    return {"ED": [int(np.argmax(sizes))], "ES": [int(np.argmin(sizes))], "all frames": every}


def _dice_table(hearts: Sequence[Record]) -> str:
    rows = []
    for words in ("ED", "ES", "all frames"):
        for method in METHODS:
            cells = []
            for name in tabulate.ORDER:
                own = [
                    np.mean([r[method]["dice"][n][name] for n in _phases(r)[words]]) for r in hearts
                ]
                cells.append(tabulate.mean_sd(own))
            rows.append([f"{method}, {words}", *cells])
    return tabulate.markdown(["raw Dice", *tabulate.ORDER], rows)


def _shift_table(hearts: Sequence[Record]) -> str:
    counts = sorted(int(k.split("_")[2]) for k in hearts[0] if k.startswith("shift_error_"))
    rows = [
        ["each frame its own", tabulate.mean_sd([np.mean(r["own_shift_error_mm"]) for r in hearts])]
    ]
    names = {1: "one for all, from ED", 2: "one for all, from ED and ES"}
    for count in counts:
        own = [float(np.mean(r[f"shift_error_{count}_mm"])) for r in hearts]
        name = names.get(count, f"one for all, from {count} frames")
        rows.append([name, tabulate.mean_sd(own)])
    return tabulate.markdown(["slice shifts", "error, mm"], rows)


def roughness(curve: Sequence[float]) -> float:
    """Return the root mean square second difference around the cycle, % of the mean."""
    values = np.asarray(curve, dtype=np.float64)
    second = np.roll(values, 1) - 2 * values + np.roll(values, -1)
    return float(100 * np.sqrt((second**2).mean()) / values.mean())


def _spread(curve: Sequence[float]) -> float:
    """Largest minus smallest, % of the mean."""
    return float(100 * np.ptp(curve) / np.mean(curve))


def _curve_table(hearts: Sequence[Record], contoured: Sequence[Record]) -> str:
    rows = []
    for title, records, truth in (
        ("synthetic", hearts, "true_ml"), ("contoured patient", contoured, "input_ml")
    ):  # fmt: skip
        for method in (truth, *METHODS) if records else ():
            curves = [r[truth] if method == truth else r[method]["volumes_ml"] for r in records]
            cells = []
            for measure, name in (
                (roughness, "LV cavity"), (roughness, "LV wall"), (roughness, "RV cavity"),
                (_spread, "LV wall"),
            ):  # fmt: skip
                own = [measure([frame[name] for frame in curve]) for curve in curves]
                cells.append(tabulate.mean_sd(own, 2) if len(own) > 1 else f"{own[0]:.2f}")
            word = {"true_ml": "truth", "input_ml": "area x slice distance"}.get(method, method)
            rows.append([f"{title}, {word}", *cells])
    header = [f"roughness of {n}, %" for n in ("LV cavity", "LV wall", "RV cavity")]
    return tabulate.markdown(["curves", *header, "LV wall, largest - smallest, %"], rows)


def _cost_table(records: Sequence[Record]) -> str:
    rows = []
    for record in records:
        count = len(record[CINE]["volumes_ml"])
        single = record[SINGLE]["cpu_seconds"] / count
        whole = record[CINE]["cpu_seconds"]
        shared = record[CINE]["shared_share"] * whole
        rows.append(
            [
                record["case"],
                str(count),
                f"{single:.2f}",
                f"{whole:.1f}",
                f"{(whole - shared) / count:.2f}",
                f"{min(record[m]['minimum_jacobian'] for m in METHODS):.3f}",
            ]
        )
    header = [
        "case",
        "frames",
        "frame by frame, s per frame",
        "cine, s",
        "cine, s per further frame",
    ]
    return tabulate.markdown([*header, "smallest Jacobian"], rows)


def _wall_table(patients: Sequence[Record]) -> str:
    """LV wall at ED less that at ES, % of their mean; agreement with the slices."""
    rows = []
    for method in ("input_ml", *METHODS):
        pairs = [
            [v["LV wall"] for v in (r[method] if method == "input_ml" else r[method]["volumes_ml"])]
            for r in patients
        ]
        change = [100 * (ed - es) / (0.5 * (ed + es)) for ed, es in pairs]
        own = [
            np.mean([each["LV wall"] for each in r[method]["agreement"]])
            for r in (patients if method in METHODS else ())
        ]
        rows.append(
            [
                {"input_ml": "area x slice distance"}.get(method, method),
                tabulate.mean_sd(change, 1),
                f"{np.sqrt(np.mean(np.square(change))):.1f}",
                tabulate.mean_sd(own) if own else "–",
            ]
        )
    header = ["LV wall, ED - ES, %", "root mean square, %", "agreement of LV wall"]
    return tabulate.markdown([f"{len(patients)} ACDC patients", *header], rows)


def _contour_table(record: Record) -> str:
    rows = []
    for method in METHODS:
        cells = []
        for name in long_axis.CONTOURS:
            own = [e[name]["absolute"] for e in record[method]["contours_mm"] if e[name]["points"]]
            cells.append(tabulate.mean_sd(own, 2))
        rows.append([method, *cells])
    return tabulate.markdown(["distance to long-axis contours, mm", *long_axis.CONTOURS], rows)
