"""How the hearts of patients lie in their files, decided from their labels alone and with their image.

ACDC stores every stack base first under a right-handed matrix, so that every heart is mirrored against
its matrix. Both frames of a patient are given together; the image is that of the frame in question.
Settings were chosen on the development patients, 1, 7, ... 97.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.harness import tabulate
from benchmarks.harness.cases import Acquisition, acdc, siblings
from benchmarks.harness.measuring import is_development, rounded
from benchmarks.harness.store import Record, Unit, gather
from cardiacreg.errors import InputWarning
from cardiacreg.refinement._refine import make_context, oriented_context
from cardiacreg.refinement.context import Clock, RefinementContext
from cardiacreg.refinement.options import RefineOptions
from cardiacreg.refinement.target import gather_atlases, gather_target
from cardiacreg.results.guards import LEAST_ORIENTATION_PROBABILITY

_PATIENTS = 100
_SPACING_MM = (1.25, 1.25, 2.0)
TRUE_NAME = "mirrored"
MODES = {"labels": "labels alone", "image": "labels and image"}


def run(quick: bool, cases: int = _PATIENTS) -> dict[str, Any]:
    """Orient both frames of ACDC patients (every one, or as many as asked for; 2 in a quick run)."""
    count = 2 if quick else min(cases, _PATIENTS)
    frames = acdc(tuple(1 + n * _PATIENTS // count for n in range(count)))
    units = [_unit(frame, siblings(frame, frames)) for frame in frames]
    return {"seeds": [], "records": gather("orientation", units)}


def _unit(frame: Acquisition, others: Sequence[Acquisition]) -> Unit:
    patient = int(frame.name.split("_")[0].removeprefix("patient"))
    head = {"case": frame.name, "group": frame.group, "phase": frame.phase}
    head["part"] = "development" if is_development(patient) else "other"
    told = {"frames": [each.name for each in others], "options": repr(RefineOptions())}

    def measure() -> Record:
        own = {mode: _oriented(frame, others, with_image=mode == "image") for mode in MODES}
        return rounded(head | own)

    return Unit(head | told, measure)


def _oriented(
    frame: Acquisition, others: Sequence[Acquisition], *, with_image: bool
) -> dict[str, Any]:
    """Orientation of a frame, its probability, and what speaks for it."""
    run = _run(frame, with_image=with_image)
    bank = gather_atlases(None, run.target, run.options.n_atlases)
    found = oriented_context(run, [_run(each) for each in others], bank).orientation
    return {"name": found.name, "probability": found.probability, "evidence": found.evidence}


def _run(frame: Acquisition, *, with_image: bool = False) -> RefinementContext:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        image = frame.image if with_image else None
        target = gather_target(frame.labels, image, None, frame.preset, None)
        return make_context(target, _SPACING_MM, RefineOptions(), 1, None, Clock())


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return how many frames are oriented rightly, and how many are in doubt."""
    records = [r for r in result["records"] if "error" not in r]
    rows = []
    for part in ("development", "other", "all"):
        own = [r for r in records if part in (r["part"], "all")]
        for mode, words in MODES.items():
            if own:
                rows.append([f"{part} patients, {words}", *_cells(own, mode)])
    header = ["frames", "right", "right and sure", "wrong and in doubt", "wrong and sure"]
    header += ["patients whose frames differ", "lowest probability of a right one"]
    header += ["image speaks against the truth"]
    return {"orientation": tabulate.markdown(["how the heart lies", *header], rows)}


def _cells(own: Sequence[Record], mode: str) -> list[str]:
    def count(holds: Callable[[bool, bool], bool]) -> str:
        return str(sum(holds(_is_right(r, mode), _is_sure(r, mode)) for r in own))

    names: dict[str, set[str]] = {}
    for record in own:
        names.setdefault(record["case"].split("_")[0], set()).add(record[mode]["name"])
    right = [r[mode]["probability"] for r in own if _is_right(r, mode)]
    return [
        str(len(own)),
        count(lambda right, _: right),
        count(lambda right, sure: right and sure),
        count(lambda right, sure: not right and not sure),
        count(lambda right, sure: not right and sure),
        str(sum(len(each) > 1 for each in names.values())),
        f"{min(right):.2f}" if right else "–",
        str(sum(_image_is_wrong(r, mode) for r in own)) if mode == "image" else "–",
    ]


def _image_is_wrong(record: Record, mode: str) -> bool:
    """Whether the image speaks against the truth, or for what was chosen in its stead."""
    preference: float = record[mode]["evidence"]["image"]
    return preference < 0 if _is_right(record, mode) else preference > 0


def _is_right(record: Record, mode: str) -> bool:
    return bool(record[mode]["name"] == TRUE_NAME)


def _is_sure(record: Record, mode: str) -> bool:
    return bool(record[mode]["probability"] >= LEAST_ORIENTATION_PROBABILITY)
