"""The contents of a patient's report: rows of its tables, and its pictures, before they become a page."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from cardiacreg.cine.curves_figure import draw_curves
from cardiacreg.cine.result import CineResult
from cardiacreg.cine.saved import SavedCine
from cardiacreg.errors import kept_warnings
from cardiacreg.geometry import STRUCTURES, Subject
from cardiacreg.io.input_records import IN_MEMORY, PATH
from cardiacreg.io.landmark_files import json_text
from cardiacreg.measures.bullseye import draw_bullseye
from cardiacreg.measures.cycle import measure_cine
from cardiacreg.measures.heart import Measures, measure
from cardiacreg.reports.before_after import draw_cuts, draw_slices
from cardiacreg.reports.case import Case, Phase, Refined
from cardiacreg.reports.directions import directions_of
from cardiacreg.reports.page import Picture, as_png, as_svg
from cardiacreg.reports.reference_ranges import RANGES, Range
from cardiacreg.reports.shifts_figure import draw_shifts
from cardiacreg.reports.views_figure import draw_views
from cardiacreg.results.corrected import corrected_stack
from cardiacreg.results.qc_figure import COLOURS
from cardiacreg.results.qc_views import HeartAxes, heart_axes
from cardiacreg.results.saved_model import model_of_frame
from cardiacreg.results.surface_figure import LOOKS, draw_looks, make_scene
from cardiacreg.results.view_planes import has_planes

CITATIONS = (
    "Duan J, Bello G, Schlemper J, et al. Automatic 3D Bi-Ventricular Segmentation of Cardiac Images "
    "by a Shape-Refined Multi-Task Deep Learning Approach. IEEE Transactions on Medical Imaging "
    "38(9):2151-2164, 2019. doi:10.1109/TMI.2019.2894322",
    "The cardiacreg developers. cardiacreg {version}: smooth, complete, high-resolution bi-ventricular "
    "models from thick-slice cardiac MR segmentations.",
)
_MODEL = "model"
_INPUTS = {
    "segmentation": "segmentation",
    "image": "image",
    "landmarks": "landmarks",
    "probabilities": "probabilities",
    "preset": "preset",
    "frame": "frame",
    "frames": "other frames",
    "views": "views",
    "atlases": "atlases",
}
"""What provenance calls the inputs, and what a page does."""
_MADE_OF = {
    "bank_size": "atlases to choose from",
    "labels_sha256": "SHA-256 of the labels",
    "image_sha256": "SHA-256 of the image",
}
_SHOWN = (
    "LVEDV", "LVESV", "LVSV", "LVEF", "RVEDV", "RVESV", "RVSV", "RVEF", "LVM", "RVM", "BSA",
    *(name for name in RANGES if name.endswith("i")), "WT_Global", "WT_Global ES",
    "Eccentricity ED", "Eccentricity ES",
)  # fmt: skip
_SIZES = {
    "EDV": "end-diastolic volume",
    "ESV": "end-systolic volume",
    "SV": "stroke volume",
    "EF": "ejection fraction",
    "M": "wall mass",
}
_WHOLE_WORDS = {
    "BSA": "body surface area",
    "WT_Global": "mean thickness of the LV wall",
    "Eccentricity": "eccentricity of the LV cavity",
}


class VolumeRow(NamedTuple):
    """Volumes of one structure in ml, mass in g, change in % and agreement as Dice; None if unknown."""

    name: str
    colour: str
    input_ml: float | None
    inside_ml: float | None
    beyond_apex_ml: float | None
    beyond_base_ml: float | None
    total_ml: float | None
    change_percent: float | None
    mass_g: float | None
    agreement: float | None


class MeasureRow(NamedTuple):
    """A measure, what its name means, its 90 % interval, its published range and where it lies in it."""

    name: str
    words: str
    value: float
    unit: str
    interval: tuple[float, float] | None
    normal: Range | None
    place: str


class PhasePictures(NamedTuple):
    """What is drawn of one phase; `note` says why something is left out."""

    title: str
    slices: Picture | None
    cuts: Picture | None
    surfaces: tuple[Picture, ...]
    shifts: Picture | None
    directions: str


def volume_rows(phase: Phase) -> list[VolumeRow]:
    """Return a row for every structure."""
    rows = []
    for label, name in STRUCTURES.items():
        volume = phase.volumes.get(name)
        total = None if volume is None else volume.total_ml
        given = None if volume is None else volume.input_ml
        rows.append(
            VolumeRow(
                name=name,
                colour=COLOURS[label],
                input_ml=given,
                inside_ml=None if volume is None else volume.inside_ml,
                beyond_apex_ml=None if volume is None else volume.beyond_apex_ml,
                beyond_base_ml=None if volume is None else volume.beyond_base_ml,
                total_ml=total,
                change_percent=100 * (total / given - 1) if given and total is not None else None,
                mass_g=phase.masses_g.get(name),
                agreement=phase.agreement.get(name),
            )
        )
    return rows


def measure_case(
    case: Case, *, height_cm: float | None = None, weight_kg: float | None = None
) -> tuple[Measures, list[str]]:
    """Measure the heart, and return what was told meanwhile."""
    body: Any = {"height_cm": height_cm, "weight_kg": weight_kg}
    with kept_warnings() as notes:
        if case.cine is None:
            found = measure(*case.measured, **body)
        else:
            found = measure_phases(case.cine, **body)
    return found, [note.message for note in notes]


def measure_phases(
    cine: CineResult | SavedCine,
    *,
    height_cm: float | None = None,
    weight_kg: float | None = None,
) -> Measures:
    """Measure a cine; one that was saved without its transforms is measured at its two phases alone.

    Landmarks of end-systole then are those of its labels, in place of those of end-diastole moved.
    """
    body: Any = {"height_cm": height_cm, "weight_kg": weight_kg}
    diastole, systole = (cine.frames[position] for position in (cine.ed, cine.es))
    if diastole.transforms and systole.transforms:
        return measure_cine(cine, **body)
    return measure(model_of_frame(diastole, cine.landmarks), model_of_frame(systole), **body)


def measure_rows(measures: Measures) -> list[MeasureRow]:
    """Return the measures that a reader looks for first, with their published ranges."""
    rows = {row.name: row for row in measures.table()}
    intervals = measures.intervals()
    found = []
    for name in _SHOWN:
        row = rows.get(name)
        if row is None or row.value is None:
            continue
        normal = RANGES.get(name)
        place = "" if normal is None else normal.place(row.value)
        ends = intervals.get(name)
        interval = None if ends is None else (ends.low, ends.high)
        unit = row.unit.replace("m2", "m²")
        found.append(
            MeasureRow(name, measure_words(name), row.value, unit, interval, normal, place)
        )
    return found


def measure_words(name: str) -> str:
    """Say what a measure's name stands for.

    Examples
    --------
    >>> from cardiacreg.reports.contents import measure_words
    >>> measure_words("LVEDVi"), measure_words("WT_Global ES")
    ('LV end-diastolic volume, by body surface', 'mean thickness of the LV wall, end-systole')
    """
    key, _, phase = name.partition(" ")
    ends = {"ED": ", end-diastole", "ES": ", end-systole"}
    if key in _WHOLE_WORDS:
        return _WHOLE_WORDS[key] + ends.get(phase, "")
    side, size = key[:2], key[2:].removesuffix("i")
    indexed = ", by body surface" if key.endswith("i") else ""
    return f"{side} {_SIZES[size]}{indexed}"


N_PICTURES = 4
"""Steps that `phase_pictures` tells of."""


def phase_pictures(
    case: Case, phase: Phase, tell: Callable[[str], None] = lambda what: None
) -> PhasePictures:
    """Draw one phase before and after; `tell` is told what comes next."""
    refined = phase.refined
    if refined is None:
        return PhasePictures(phase.title, None, None, (), None, "")
    tell("drawing slices")
    scene = make_scene(refined, {"input": refined.target.labels, _MODEL: refined.labels})
    axes = scene.axes
    directions = directions_of(refined, axes, case.orientation)
    slices = as_png(
        draw_slices(refined, scene, directions),
        "Short-axis slices from apex to base, seen from the apex. Above as they were acquired, with "
        "the input's outlines. Below at their place after the estimated shift, with the model's "
        "outlines; the input's show in magenta where they differ.",
    )
    tell("drawing cuts")
    source = "atlases and the given views" if phase.views else "atlases alone"
    cuts = as_png(
        draw_cuts(refined, scene, directions, _cut_columns(refined)),
        "Two cuts along the long axis of the left ventricle, apex down. Hatched parts lie beyond the "
        f"slices that show the structure: they come from the {source}.",
    )
    tell("drawing surfaces")
    looks = tuple(
        as_png(draw_looks(scene, [name]), f"Input and model, {look.words}.")
        for name, look in LOOKS.items()
    )
    tell("drawing shifts")
    shifts = as_svg(
        draw_shifts(refined, axes, directions),
        "The stack from two sides, apex down: every slice as stored, and moved by its estimated "
        "in-plane shift, in mm on the right of each panel.",
    )
    words = _words_of(directions.believed, directions.reason)
    return PhasePictures(phase.title, slices, cuts, looks, shifts, words)


def _cut_columns(refined: Refined) -> dict[str, Any]:
    moved = corrected_stack(refined.target, refined.slice_shifts_mm).labels
    return {"input, as stored": refined.target.labels, "slices, shifted": moved, "model": _MODEL}


def _words_of(believed: bool, reason: str) -> str:
    if believed:
        return (
            "Letters are the patient's directions by the file's matrix: R right, L left, A anterior, "
            "P posterior, S superior, I inferior."
        )
    return (
        "Letters of the patient's directions (R, L, A, P, S, I) are left out, because "
        f"{reason}. Anterior, inferior, apex, base and the side of the RV are those of the heart itself."
    )


def axes_of(case: Case) -> HeartAxes:
    """How the heart lies: by its stack, or by the model's own lattice where that is not known."""
    phase = case.phases[0]
    if phase.refined is not None:
        return heart_axes(phase.refined)
    still = np.zeros((phase.labels.shape[2], 2))
    return heart_axes(Refined(phase.labels, Subject(phase.labels), phase.landmarks, still))


def bullseye_picture(measures: Measures) -> Picture:
    """Draw wall thickness by segment."""
    values = measures.ed.thickness_mm
    words = ", ".join(
        f"segment {n + 1} {value:.1f} mm" for n, value in enumerate(values) if value == value
    )
    return as_svg(
        draw_bullseye(measures),
        "Thickness of the wall of the left ventricle in the 17 segments of the American Heart "
        "Association, apex in the middle.",
        f"Bull's eye of wall thickness: {words}.",
    )


def view_pictures(case: Case) -> list[Picture]:
    """Draw the given views with the model cut by them, phase by phase, where their planes are kept."""
    found = []
    for phase in case.phases:
        if not has_planes(phase.views):
            continue
        believed = False  # without the stack nothing tells whether the matrices can be believed
        if phase.refined is not None:
            axes = heart_axes(phase.refined)
            believed = directions_of(phase.refined, axes, case.orientation).believed
        start = f"{phase.title}: views" if phase.title else "Views"
        found.append(
            as_png(
                draw_views(phase.views, phase.labels, phase.landmarks, believed=believed),
                f"{start} that were given, apex down. Above as they were given; below with the outlines "
                "of the model cut where each view lies after its own shift, over the view's own "
                "outlines in magenta.",
            )
        )
    return found


def curves_picture(case: Case) -> Picture | None:
    """Draw volumes over the frames of a cine."""
    if case.cine is None:
        return None
    return as_svg(
        draw_curves(case.cine),  # type: ignore[arg-type]
        "Volume of every structure over the frames; hollow marks are frames that were filled in.",
    )


def provenance_rows(
    provenance: Mapping[str, Any], seconds: Mapping[str, float]
) -> list[tuple[str, str]]:
    """Return what a result came of, in words: its inputs first, then versions and times.

    Examples
    --------
    >>> from cardiacreg.reports.contents import provenance_rows
    >>> provenance_rows({"stack": {"segmentation": "seg.nii.gz", "preset": None}}, {"read": 0.52})
    [('segmentation', 'seg.nii.gz'), ('time, read', '0.5 s')]
    """
    rows: dict[str, Any] = {}
    noted, recorded = (provenance.get(key) or {} for key in ("stack", "inputs"))
    for name, words in _INPUTS.items():
        values = [each for each in (recorded.get(name), noted.get(name)) if each not in (None, [])]
        if values:  # what was in memory has a file beside it where the command line read it
            value = min(values, key=lambda each: isinstance(each, Mapping) and IN_MEMORY in each)
            rows[words] = _in_words(value)
    for name, value in provenance.items():
        if name not in ("stack", "inputs"):
            rows[_MADE_OF.get(name, name)] = value
    rows |= {f"time, {name}": f"{value:.1f} s" for name, value in seconds.items()}
    return [(name, str(value)) for name, value in rows.items()]


def _in_words(value: Any) -> str:
    """Say what a recorded input was: files by their path."""
    if isinstance(value, list | tuple):
        return ", ".join(map(_in_words, value))
    if not isinstance(value, Mapping):
        return str(value)
    if IN_MEMORY in value:
        return f"in memory, {value[IN_MEMORY]}"
    files = [value[key] for key in (PATH, "segmentation", "image") if value.get(key)]
    return _in_words(files[0]) if files else "given"


def options_text(options: Any) -> str:
    """Return the options of a run as JSON."""
    plain = options if isinstance(options, Mapping) else dataclasses.asdict(options)
    return json_text(dict(plain))
