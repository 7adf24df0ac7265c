"""Do the labels of a stack show that it lost its base? Patients on whom no limit was set.

Labels alone: nothing is refined. Both frames of each patient are taken as they are, which should raise no
alarm, and without their last one, two or three slices at the base (`anatomy.cut_base`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.harness import plots, tabulate
from benchmarks.harness.cases import Acquisition, acdc
from benchmarks.harness.measuring import is_development
from benchmarks.harness.store import Record, Unit, gather
from cardiacreg.anatomy.cut_base import LARGEST_WIDENING, widening_at_base
from cardiacreg.anatomy.segmentation import read_segmentation
from cardiacreg.anatomy.slice_order import left_ventricle_along
from cardiacreg.errors import kept_warnings
from cardiacreg.geometry import LabelMap
from cardiacreg.results.guards import find_problems
from cardiacreg.slices import labelled_slices

LOST = (0, 1, 2, 3)
PHASES = ("ED", "ES")


def run(quick: bool, cases: int = 100) -> dict[str, Any]:
    """Look at the labels of every frame; `cases` counts patients from the first."""
    count = 4 if quick else cases
    patients = tuple(n for n in range(1, count + 1) if not is_development(n))
    return {"records": gather("missing_base", [_unit(frame) for frame in acdc(patients)])}


def _unit(frame: Acquisition) -> Unit:
    key = {"case": frame.name, "phase": frame.phase}

    def measure() -> Record:
        with kept_warnings():
            labels = read_segmentation(frame.labels, preset=frame.preset)
        stacks = [_without(labels, lost) for lost in LOST]
        widening = [widening_at_base(each, base_at_last_slice=True) for each in stacks]
        return key | {
            "group": frame.group,
            "widening": [None if each is None else round(each, 4) for each in widening],
            "few_slices": [_is_short(each) for each in stacks],
        }

    return Unit(key, measure)


def _is_short(stack: LabelMap) -> bool:
    """Whether so few slices show the LV that this alone is told."""
    distance_mm = float(stack.spacing_mm[2])
    return bool(find_problems({}, {}, slice_distance_mm=distance_mm, **left_ventricle_along(stack)))


def _without(labels: LabelMap, lost: int) -> LabelMap:
    """A stack, base last, that lost slices there."""
    array = labels.array
    slices = labelled_slices(array)
    areas = (array > 0).sum(axis=(0, 1))[slices]
    if np.mean(areas[-3:]) < np.mean(areas[:3]):
        array, slices = array[:, :, ::-1], array.shape[2] - 1 - slices[::-1]
    if lost:
        array = array[:, :, : int(slices[-lost])]
    return LabelMap(np.ascontiguousarray(array), labels.voxel_to_world)


def alarms(records: list[Record], lost: int, limit: float = LARGEST_WIDENING) -> list[bool]:
    """Return of every frame whether it raises an alarm, by its base or by having few slices."""
    number, good = LOST.index(lost), [record for record in records if "widening" in record]
    return [
        record["few_slices"][number]
        or (record["widening"][number] is not None and record["widening"][number] > limit)
        for record in good
    ]


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return how often frames raise an alarm, by the slices that they lost."""
    rows = []
    for lost in LOST:
        cells = []
        for phase in (*PHASES, None):
            own = [r for r in result["records"] if phase in (None, r.get("phase"))]
            found = alarms(own, lost)
            cells.append(f"{sum(found)} of {len(found)} ({100 * np.mean(found):.0f} %)")
        words = (
            f"{lost} slice{'s' if lost > 1 else ''} less at the base" if lost else "none, as drawn"
        )
        rows.append([words, *cells])
    header = ["lost", "end-diastole", "end-systole", "both"]
    return {"missing-base": tabulate.markdown(header, rows)}


def plots_of(result: dict[str, Any]) -> dict[str, Any]:
    """Return the share of stacks that are found, over the share of whole ones that raise an alarm."""
    figure, axes = plots.panels(1, 1, width=4.2, height=3.4)
    panel, records = axes[0, 0], result["records"]
    limits = np.linspace(-2.5, 0.5, 301)
    false = [100 * np.mean(alarms(records, 0, limit)) for limit in limits]
    for lost, colour in zip(LOST[1:], plots.METHOD_COLOURS, strict=False):
        caught = [100 * np.mean(alarms(records, lost, limit)) for limit in limits]
        words = f"{lost} slice{'s' if lost > 1 else ''} lost"
        panel.plot(false, caught, color=colour, label=words)
        chosen = np.mean(alarms(records, 0)), np.mean(alarms(records, lost))
        panel.plot(100 * chosen[0], 100 * chosen[1], "o", color=colour, ms=5)
    panel.axvline(5, color="0.6", lw=0.8, ls="--")
    panel.set_xlim(0, 40)
    panel.set_ylim(0, 100)
    panel.set_xlabel("false alarms, % of whole stacks")
    panel.set_ylabel("found, % of cut stacks")
    panel.legend(loc="lower right")
    return {"missing-base": figure}
