"""One refinement or interpolation of one case, measured: the records that the benchmarks store."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import cardiacreg
from benchmarks.harness import scoring
from benchmarks.harness.cases import Case, Heart
from benchmarks.harness.store import Record, Unit
from cardiacreg.errors import InputWarning
from cardiacreg.geometry import STRUCTURES, LabelMap, Landmarks, Subject
from cardiacreg.metrics import baselines, overlap
from cardiacreg.refinement.options import RefineOptions
from cardiacreg.results.result import RefineResult
from cardiacreg.slices import labelled_slices

THIN_MM = 2.0
Score = Callable[[LabelMap, LabelMap], dict[str, scoring.Scores]]
BASELINES: dict[str, Callable[[LabelMap, LabelMap], LabelMap]] = {
    "nearest neighbour": baselines.interpolate_nearest,
    "shape-based": baselines.interpolate_shape_based,
}


def refine_quietly(segmentation: Any, **arguments: Any) -> RefineResult:
    """Refine without showing input warnings; they are kept in the result."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        return cardiacreg.refine(segmentation, **arguments)


def refine_patient(
    frames: Sequence[LabelMap],
    *,
    oriented_by: Sequence[LabelMap] | None = None,
    options: RefineOptions | None = None,
    threads: int = 1,
) -> list[RefineResult]:
    """Refine all frames of one patient, canonical labels of one stack at several times.

    Every frame is told of all others, so that they are oriented alike; of many frames a few tell it.

    Parameters
    ----------
    frames : sequence of LabelMap
    oriented_by : sequence of LabelMap, optional
        The frames that every other one is told of; all when absent.
    options : RefineOptions, optional
    threads : int
    """
    known = frames if oriented_by is None else oriented_by
    return [
        refine_quietly(
            frame,
            frames=[each for each in known if each is not frame],
            options=options,
            threads=threads,
        )
        for frame in frames
    ]


def fine_lattice(stack: LabelMap, *, beyond_slices: int = 2) -> LabelMap:
    """Return an empty lattice for an interpolation: thin slices over a stack and some way past its ends.

    Pixels are the stack's own. Each slice distance is parted into whole steps of at most 2 mm, so that a
    repeated slice keeps its volume exactly.
    """
    steps = int(np.ceil(stack.spacing_mm[2] / THIN_MM))
    matrix = stack.voxel_to_world.copy()
    matrix[:3, 3] += matrix[:3, 2] * (0.5 / steps - 0.5 - beyond_slices)
    matrix[:3, 2] /= steps
    n_slices = steps * (stack.shape[2] + 2 * beyond_slices)
    return LabelMap(np.zeros((*stack.shape[:2], n_slices), dtype=np.uint8), matrix)


def is_development(patient: int) -> bool:
    """Whether an ACDC patient is one of those that settings were chosen on: 1, 7, 13, ... 97."""
    return patient % 6 == 1


def refined(
    case: Case,
    method: str,
    *,
    options: RefineOptions | None = None,
    atlases: Sequence[Subject] | None = None,
    with_image: bool = False,
    labels: LabelMap | None = None,
    landmarks: Landmarks | None = None,
    threads: int = 1,
    score: Score = scoring.score,
) -> Record:
    """Refine one case and score it on the lattice of its truth; `labels` stand in for its own."""
    start, cpu = time.perf_counter(), time.process_time()
    result = refine_quietly(
        case.target.labels if labels is None else labels,
        image=case.target.image if with_image else None,
        landmarks=landmarks,
        atlases=atlases,
        options=options,
        threads=threads,
    )
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    found = baselines.interpolate_nearest(result.labels, case.truth)
    slices = labelled_slices(case.target.labels.array)
    return _record(case, method, seconds) | {
        "cpu_seconds": cpu,
        "scores": _own_topology(score(found, case.truth), result.labels),
        "shift_error_mm": scoring.shift_errors_mm(
            result.slice_shifts_mm, case.slice_shifts_mm, slices
        ),
        "input_shift_error_mm": scoring.shift_errors_mm(
            0 * case.slice_shifts_mm, case.slice_shifts_mm, slices
        ),
        "minimum_jacobian": result.minimum_jacobian,
        "timings_seconds": {k: round(v, 3) for k, v in result.timings_seconds.items()},
        "atlases": [report.name for report in result.atlases],
    }


def _own_topology(scores: dict[str, scoring.Scores], model: LabelMap) -> dict[str, scoring.Scores]:
    """Count pieces and holes on the model's own lattice: the truth's tilted one tears thin walls."""
    for label, name in STRUCTURES.items():
        figures = scores["raw"].get(name, {})
        if "n_components" in figures:
            counts = overlap.topology_counts(model, label)
            figures["n_components"], figures["n_holes"] = counts
    for alignment in ("translation", "tilt"):
        for figures in scores.get(alignment, {}).values():
            figures.pop("n_components", None)
            figures.pop("n_holes", None)
    return scores


def interpolated(case: Case, method: str, *, score: Score = scoring.score) -> Record:
    """Interpolate one case by a baseline and score it."""
    start, cpu = time.perf_counter(), time.process_time()
    found = BASELINES[method](case.target.labels, case.truth)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return scored(case, method, found, seconds, score=score) | {"cpu_seconds": cpu}


def scored(
    case: Case, method: str, found: LabelMap, seconds: float, *, score: Score = scoring.score
) -> Record:
    """Score a label map on the lattice of the truth."""
    return _record(case, method, seconds) | {"scores": score(found, case.truth)}


def refined_unit(
    heart: Heart,
    method: str,
    *,
    bank: Callable[[], Sequence[Subject]] | None = None,
    prepare: Callable[[Case], dict[str, Any]] | None = None,
    options: RefineOptions | None = None,
    score: Score = scoring.score,
    **arguments: Any,
) -> Unit:
    """One refinement of one synthetic heart, to be measured where it is not stored.

    Parameters
    ----------
    bank : callable, optional
        Opens the atlases; its name identifies them.
    prepare : callable, optional
        Makes further arguments of `refined` from the case; its name and the method identify them.
    options, score, **arguments
        As for `refined`.
    """
    settings = options or RefineOptions()
    names = {
        name: getattr(f, "__name__", None) for name, f in (("bank", bank), ("prepare", prepare))
    }
    given = {"options": repr(settings), "score": score.__name__, **names, **arguments}

    def measure() -> Record:
        case = heart.case()
        more = arguments | ({} if prepare is None else prepare(case))
        opened = None if bank is None else bank()
        return rounded(refined(case, method, options=settings, atlases=opened, score=score, **more))

    return Unit(heart_key(heart, method) | {"options": given}, measure)


def interpolated_unit(heart: Heart, method: str, *, score: Score = scoring.score) -> Unit:
    """One interpolation of one synthetic heart, to be measured where it is not stored."""
    return Unit(
        heart_key(heart, method) | {"options": score.__name__},
        lambda: rounded(interpolated(heart.case(), method, score=score)),
    )


def heart_key(heart: Heart, method: str) -> dict[str, Any]:
    """Return the key of a measurement by one method on one synthetic heart."""
    return {
        "case": heart.name,
        "method": method,
        "degradation": repr(heart.degradation),
        "seed": heart.seed,
        "group": heart.group,
        "phase": heart.phase,
    }


def _record(case: Case, method: str, seconds: float) -> Record:
    return {
        "case": case.name,
        "seed": case.seed,
        "group": case.group,
        "phase": case.phase,
        "method": method,
        "seconds": round(seconds, 3),
    }


def rounded(value: Any, digits: int = 5) -> Any:
    """Round every float of nested lists and dictionaries, so that stored results stay readable."""
    if isinstance(value, float):
        return round(value, digits)
    if isinstance(value, dict):
        return {key: rounded(each, digits) for key, each in value.items()}
    if isinstance(value, list):
        return [rounded(each, digits) for each in value]
    return value
