"""The report of a heart whose truth is known: that of a patient, and how far each method is from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from cardiacreg.anatomy.preset_tables import PRESETS
from cardiacreg.arrays import Float
from cardiacreg.geometry import LV_CAVITY, LV_WALL, RV_CAVITY, RV_WALL, STRUCTURES, LabelMap
from cardiacreg.reports.before_after import draw_cuts, draw_slices
from cardiacreg.reports.case import open_case
from cardiacreg.reports.directions import directions_of
from cardiacreg.reports.inputs import Inputs
from cardiacreg.reports.page import Picture, as_png, number
from cardiacreg.reports.report import patient_page
from cardiacreg.results.result import RefineResult
from cardiacreg.results.surface_figure import draw_looks, make_scene

Figures = Mapping[str, Mapping[str, Mapping[str, Any]]]

_TRUTH = "truth"
METHODS = {
    "nearest_neighbour": "nearest neighbour",
    "shape_based": "shape-based interpolation",
    "as_published": "as published (2019)",
    "refined": "cardiacreg",
}
_MEASURES = (
    ("dice", "Overlap (Dice)", 3, "1 is perfect."),
    ("average_surface_distance_mm", "Mean surface distance, mm", 2, "0 is perfect."),
    ("hausdorff95_mm", "95 % Hausdorff distance, mm", 2, "5 % of the surface is farther off."),
    ("hausdorff_mm", "Hausdorff distance, mm", 2, "The farthest point of the surface."),
    ("hausdorff_slicewise_mm", "Hausdorff distance in slices, mm", 2,
     "The farthest point of the outline, mean over thin slices, as in the paper."),
    ("volume_error_ml", "Volume error, ml", 1, "Model minus truth."),
)  # fmt: skip
_OF_PRESETS = {
    "sslln": "this software's own labels",
    "digital_heart": "Digital Heart, no RV wall",
    "acdc": "ACDC challenge",
    "mms": "M&Ms, M&Ms-2, UK Biobank",
    "totalsegmentator": "TotalSegmentator, current",
    "totalsegmentator_v1": "TotalSegmentator, version 1",
    "mmwhs": "MM-WHS challenge",
    "myops": "MyoPS, MS-CMRSeg",
    "emidec": "EMIDEC, no RV",
    "mms_scar": "M&Ms values and scar",
    "acdc_scar": "ACDC values and scar",
}
_PRESET_ORDER = (LV_CAVITY, LV_WALL, RV_WALL, RV_CAVITY)


class Known(NamedTuple):
    """A refined heart with its truth.

    Parameters
    ----------
    result : RefineResult
    truth, shape_based : LabelMap
    figures : mapping
        What `metrics.compare` says of each of `METHODS`.
    true_shifts_mm : ndarray, shape (n_slices, 2)
    preparation_seconds : float
        What is done once and then kept took so long.
    """

    result: RefineResult
    truth: LabelMap
    shape_based: LabelMap
    figures: Figures
    true_shifts_mm: Float
    preparation_seconds: float


class Table(NamedTuple):
    """One measure of every method; `rows` holds cells and whether each is the best of its column."""

    key: str
    title: str
    note: str
    structures: list[str]
    rows: list[tuple[str, str, list[tuple[str, bool]]]]


def known_page(known: Known) -> str:
    """Return the report of a heart whose truth is known.

    Parameters
    ----------
    known : Known

    Returns
    -------
    str
        A page as `report.write_report` writes it, and in it the comparison with the truth.
    """
    return patient_page(
        open_case(known.result, Inputs()),
        template="known.html.jinja",
        stack=known.result.target.labels,
        dice={
            name: row["dice"]
            for name, row in known.figures["refined"].items()
            if row["dice"] is not None
        },
        pictures=_pictures(known),
        tables=[_table(known.figures, *measure) for measure in _MEASURES],
        shift_errors_mm=shift_errors_mm(known.result, known.true_shifts_mm),
        seconds=known.result.timings_seconds["total"],
        preparation_seconds=known.preparation_seconds,
        threads=known.result.provenance["threads"],
        preset_structures=[STRUCTURES[label] for label in _PRESET_ORDER],
        presets=[(name, _OF_PRESETS.get(name, ""), _preset_cells(name)) for name in PRESETS],
    )


def _pictures(known: Known) -> list[Picture]:
    result = known.result
    columns = {
        "input": result.target.labels, "shape-based": known.shape_based, "cardiacreg": result.labels,
        _TRUTH: known.truth,
    }  # fmt: skip
    scene = make_scene(result, columns)
    directions = directions_of(result, scene.axes, result.orientation)
    cuts = {"input": result.target.labels} | {name: name for name in list(columns)[1:]}
    return [
        as_png(
            draw_looks(scene, ["front"]),
            "From the front: the slices make steps, interpolation rounds them and keeps the shifts, "
            "and the model is smooth and complete like the truth.",
        ),
        as_png(
            draw_looks(scene, ["right"]),
            "From the right: where dark blue shows, the thin RV wall (light blue) has a hole, as "
            "interpolation leaves it.",
        ),
        as_png(
            draw_looks(scene, ["opened"]),
            "Opened along the LV's long axis: cut walls, and behind them the linings of both cavities.",
        ),
        as_png(
            draw_cuts(result, scene, directions, cuts, truth=_TRUTH),
            "Two cuts along the LV's long axis: the closer the colours come to the black outline of "
            "the truth, the better.",
        ),
        as_png(
            draw_slices(result, scene, directions, truth=_TRUTH, most=6),
            "Slices from apex to base: above as given, with the input's outlines; below at their "
            "corrected place, with the outlines of the model and of the truth.",
        ),
    ]


def _table(figures: Figures, key: str, title: str, digits: int, note: str) -> Table:
    structures = list(dict.fromkeys(name for rows in figures.values() for name in rows))
    best = {name: best_cells(figures, name, key, digits) for name in structures}
    rows = []
    for method, words in METHODS.items():
        cells = [number(figures[method].get(name, {}).get(key), digits) for name in structures]
        marked = [(cell, cell in best[name]) for name, cell in zip(structures, cells, strict=True)]
        rows.append((method, words, marked))
    return Table(key, title, note, structures, rows)


def best_cells(figures: Figures, name: str, key: str, digits: int) -> set[str]:
    """Return the cells of the best methods: those that look the same are equally good.

    Parameters
    ----------
    figures : mapping
        Method to structure to measure.
    name : str
        Of the structure.
    key : str
        Of the measure: of an overlap the largest is best, else what is nearest to 0.
    digits : int
        That are shown.
    """
    found = [rows.get(name, {}).get(key) for rows in figures.values()]
    values = [round(value, digits) for value in found if value is not None]
    if not values:
        return set()
    wanted = max(values) if key == "dice" else min(map(abs, values))
    return {number(value, digits) for value in values if wanted in (value, abs(value))}


def shift_errors_mm(result: RefineResult, true_shifts_mm: Float) -> tuple[float, float]:
    """Return mean errors of the slices' places before and after correction.

    A shift that all slices share moves the whole heart and cannot be seen; it does not count.
    """
    shown = (result.target.labels.array > 0).any(axis=(0, 1))
    true, found = true_shifts_mm[shown], result.slice_shifts_mm[shown]
    before, after = (
        float(np.linalg.norm(each - np.median(each, axis=0), axis=1).mean())
        for each in (true, true - found)
    )
    return before, after


def _preset_cells(name: str) -> list[str]:
    """Which value each structure has in a preset."""
    return [
        ", ".join(str(value) for value, role in PRESETS[name].items() if role == label) or "–"
        for label in _PRESET_ORDER
    ]
