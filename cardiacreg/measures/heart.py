"""What clinics and studies ask of a heart: volumes, masses, function and wall thickness."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import NamedTuple

import numpy as np

from cardiacreg.anatomy.landmarks import landmarks_from_labels
from cardiacreg.anatomy.slice_volumes import StructureVolume
from cardiacreg.anatomy.volumes import MUSCLE_DENSITY_G_PER_ML, structure_volumes_ml
from cardiacreg.arrays import Float
from cardiacreg.errors import InvalidInputError, check_argument, warn
from cardiacreg.geometry import LV_CAVITY, LV_WALL, RV_CAVITY, RV_WALL, STRUCTURES
from cardiacreg.measures.intervals import (
    PARTS,
    Interval,
    mass_interval,
    stroke_intervals,
    volume_intervals,
)
from cardiacreg.measures.left_wall import measure_left_wall, right_wall_mm
from cardiacreg.measures.segments import N_SEGMENTS, heart_directions
from cardiacreg.results.saved_model import Model, SavedModel, as_model

_HEIGHTS_CM, _WEIGHTS_KG = (30.0, 250.0), (1.0, 400.0)
_VENTRICLE = tuple(f"{side}{word}" for side in ("LV", "RV") for word in ("EDV", "ESV", "SV", "EF"))
_OF_PARTS = ("LVEDV", "LVESV", "RVEDV", "RVESV", "LV wall ED", "LV wall ES")
_WITH_INTERVAL = (
    *_VENTRICLE,
    *("LVM", "LVM ES", "RVM"),
    *(f"{name}i" for name in (*_VENTRICLE, "LVM", "RVM") if not name.endswith("EF")),
    *(f"{name} {part}" for name in _OF_PARTS for part in PARTS[1:]),
)
"""Rows that have an interval, where anything is known of it."""


class Row(NamedTuple):
    """One measure.

    Parameters
    ----------
    name : str
        As ``LVEDV``; that of ukbb_cardiac where it has one.
    value : float or None
        None where the model or the input does not show it.
    unit : str
        Empty for a ratio.
    """

    name: str
    value: float | None
    unit: str

    @property
    def column(self) -> str:
        """Name and unit as the head of a column: ``LVEDV (mL)``."""
        return f"{self.name} ({self.unit})" if self.unit else self.name


@dataclass(frozen=True, slots=True, eq=False)
class PhaseMeasures:
    """Measures of one phase; None or NaN where there is nothing to measure.

    Parameters
    ----------
    lv_volume_ml, lv_mass_g, rv_volume_ml, rv_mass_g : float or None
        RV mass is None unless the input showed the RV wall.
    parts : dict of str to StructureVolume
        Acquired and extrapolated volumes by structure; empty for labels alone.
    thickness_mm : ndarray, shape (17,)
        Of the LV wall by segment.
    mean_thickness_mm : float
    eccentricity : float
    septal_curvature_per_cm, septal_curvature_ratio : float
        As in `measures.septum`.
    rv_thickness_mm : float
        Mean of the RV's free wall; NaN unless the input showed the RV wall.
    """

    lv_volume_ml: float | None
    lv_mass_g: float | None
    rv_volume_ml: float | None
    rv_mass_g: float | None
    parts: dict[str, StructureVolume]
    thickness_mm: Float
    mean_thickness_mm: float
    eccentricity: float
    septal_curvature_per_cm: float = float("nan")
    septal_curvature_ratio: float = float("nan")
    rv_thickness_mm: float = float("nan")


@dataclass(frozen=True, slots=True, eq=False)
class Measures:
    """Measures of one heart.

    Parameters
    ----------
    ed : PhaseMeasures
        End-diastole, or the only phase.
    es : PhaseMeasures or None
        End-systole.
    body_surface_m2 : float or None
        By Mosteller's formula, from height and weight.
    """

    ed: PhaseMeasures
    es: PhaseMeasures | None = None
    body_surface_m2: float | None = None

    def table(self) -> list[Row]:
        """Return every measure as a row of name, value and unit; always in the same order."""
        rows = [*self._ventricle("LV"), *self._ventricle("RV"), *self._masses()]
        rows += self._indexed(rows)
        rows += [*self._parts(), *self._walls(), *self._shape()]
        return rows + self._bounds(rows)

    def intervals(self) -> dict[str, Interval]:
        """Return the 90 % intervals of volumes, masses and function, by the name of their row.

        Only a result of `refine` has any, and only for structures that its input shows
        (`measures.intervals`).
        """
        found: dict[str, Interval] = {}
        for side, label in (("LV", LV_CAVITY), ("RV", RV_CAVITY), ("LV wall ", LV_WALL)):
            name = STRUCTURES[label]
            volumes = [phase.parts.get(name) if phase else None for phase in (self.ed, self.es)]
            for word, volume in zip(("ED", "ES"), volumes, strict=True):
                row = f"{side}{word}" if label == LV_WALL else f"{side}{word}V"
                found |= _of_parts(row, volume_intervals(volume, name))
            both = stroke_intervals(volumes[0], volumes[1], name)
            if both and label != LV_WALL:
                found |= {f"{side}SV": both[0], f"{side}EF": both[1]}
        for row, phase, label in (
            ("LVM", self.ed, LV_WALL), ("LVM ES", self.es, LV_WALL), ("RVM", self.ed, RV_WALL),
        ):  # fmt: skip
            parts = phase.parts if phase else {}
            if interval := mass_interval(parts.get(STRUCTURES[label]), STRUCTURES[label]):
                found[row] = interval
        if area := self.body_surface_m2:
            indexed = [name for name in found if " " not in name and not name.endswith("EF")]
            found |= {f"{name}i": found[name].scaled(1 / area) for name in indexed}
        return found

    def _bounds(self, rows: list[Row]) -> list[Row]:
        """Ends of the intervals, of every row that may have one."""
        known = self.intervals()
        found = []
        for row in rows:
            if row.name in _WITH_INTERVAL:
                ends = known.get(row.name, (None, None))
                found += [Row(f"{row.name} low", ends[0], row.unit),
                          Row(f"{row.name} high", ends[1], row.unit)]  # fmt: skip
        return found

    def _ventricle(self, side: str) -> list[Row]:
        key = f"{side.lower()}_volume_ml"
        diastole, systole = (getattr(phase, key, None) for phase in (self.ed, self.es))
        stroke = _minus(diastole, systole)
        ejected = 100 * stroke / diastole if stroke is not None and diastole else None
        return [
            Row(f"{side}EDV", diastole, "mL"),
            Row(f"{side}ESV", systole, "mL"),
            Row(f"{side}SV", stroke, "mL"),
            Row(f"{side}EF", ejected, "%"),
        ]

    def _masses(self) -> list[Row]:
        return [
            Row("LVM", self.ed.lv_mass_g, "g"),
            Row("LVM ES", self.es.lv_mass_g if self.es else None, "g"),
            Row("RVM", self.ed.rv_mass_g, "g"),
        ]

    def _indexed(self, rows: list[Row]) -> list[Row]:
        """What is divided by the body's surface: volumes and masses, not fractions."""
        area = self.body_surface_m2
        return [Row("BSA", area, "m2")] + [
            Row(f"{row.name}i", row.value / area if area and row.value is not None else None,
                f"{row.unit}/m2")
            for row in rows
            if row.unit in ("mL", "g") and " " not in row.name
        ]  # fmt: skip

    def _parts(self) -> list[Row]:
        """Volumes by where they lie: inside the structure's labelled slices, or beyond them."""
        rows = []
        for phase, word in ((self.ed, "ED"), (self.es, "ES")):
            for label, name in ((LV_CAVITY, f"LV{word}V"), (RV_CAVITY, f"RV{word}V"),
                                (LV_WALL, f"LV wall {word}")):  # fmt: skip
                part = phase.parts.get(STRUCTURES[label]) if phase else None
                beyond = (part.beyond_apex_ml, part.beyond_base_ml) if part else None
                rows += [
                    Row(f"{name} acquired", part.inside_ml if part else None, "mL"),
                    Row(f"{name} beyond apex", beyond[0] if beyond else None, "mL"),
                    Row(f"{name} beyond base", beyond[1] if beyond else None, "mL"),
                    Row(f"{name} extrapolated", sum(beyond) if beyond else None, "mL"),
                ]
        return rows

    def _walls(self) -> list[Row]:
        rows = []
        for phase, end in ((self.ed, ""), (self.es, " ES")):
            values = phase.thickness_mm if phase else np.full(N_SEGMENTS, np.nan)
            rows += [
                Row(f"WT_AHA_{n + 1}{end}", _known(value), "mm") for n, value in enumerate(values)
            ]
            rows.append(
                Row(f"WT_Global{end}", _known(phase.mean_thickness_mm if phase else None), "mm")
            )
        rows += [
            Row(f"Thickening_AHA_{n + 1}", _known(value), "%")
            for n, value in enumerate(self.thickening_percent())
        ]
        for phase, end in ((self.ed, "ED"), (self.es, "ES")):
            rows.append(
                Row(f"Eccentricity {end}", _known(phase.eccentricity if phase else None), "")
            )
        return rows

    def _shape(self) -> list[Row]:
        rows = []
        for phase, end in ((self.ed, "ED"), (self.es, "ES")):
            own = (
                (phase.septal_curvature_per_cm, phase.septal_curvature_ratio, phase.rv_thickness_mm)
                if phase
                else (None, None, None)
            )
            rows += [
                Row(f"Septal curvature {end}", _known(own[0]), "1/cm"),
                Row(f"Septal curvature ratio {end}", _known(own[1]), ""),
                Row(f"RV_WT_Global {end}", _known(own[2]), "mm"),
            ]
        return [*rows, Row("RV_Thickening_Global", _known(self.rv_thickening_percent()), "%")]

    def thickening_percent(self) -> Float:
        """Return how much thicker each segment is at end-systole, %, shape (17,); NaN if unknown."""
        if self.es is None:
            return np.full(N_SEGMENTS, np.nan)
        return np.asarray(100 * (self.es.thickness_mm / self.ed.thickness_mm - 1))

    def rv_thickening_percent(self) -> float:
        """Return how much thicker the RV's free wall is at end-systole, %; NaN unless both show it."""
        if self.es is None:
            return float("nan")
        return 100 * (self.es.rv_thickness_mm / self.ed.rv_thickness_mm - 1)


def measure(
    ed_result: Model,
    es_result: Model | None = None,
    *,
    height_cm: float | None = None,
    weight_kg: float | None = None,
) -> Measures:
    """Measure a model, or two phases of one heart.

    Volumes and masses are those of the model's labels, muscle at 1.05 g/ml. The LV wall is measured along
    the field lines of Laplace's equation, in the 17 segments of the American Heart Association, which are
    placed by the landmarks.

    Parameters
    ----------
    ed_result : RefineResult, LabelMap or path-like
        End-diastole, or the only phase: a result, the folder it was saved to, canonical labels on thin
        slices, or their file.
    es_result : RefineResult, LabelMap or path-like, optional
        End-systole.
    height_cm, weight_kg : float, optional
        Of the body, both or none; its surface is sqrt(height x weight / 3600) m2 (Mosteller 1987).

    Returns
    -------
    Measures

    Raises
    ------
    InvalidInputError
        If height or weight is missing or not that of a body (BAD_BODY), the landmarks are unusable
        (BAD_LANDMARKS), or the model cannot be read.

    Warns
    -----
    InputWarning
        If the LV cavity is larger at end-systole than at end-diastole.

    Examples
    --------
    >>> from cardiacreg import measure
    >>> from cardiacreg.phantoms.toy_heart import make_toy_heart
    >>> found = measure(make_toy_heart().labels, make_toy_heart(size=0.9).labels)
    >>> {row.column: round(row.value) for row in found.table()[:4]}
    {'LVEDV (mL)': 32, 'LVESV (mL)': 23, 'LVSV (mL)': 9, 'LVEF (%)': 27}
    """
    surface = body_surface_m2(height_cm, weight_kg)
    models = as_model(ed_result), None if es_result is None else as_model(es_result)
    ed, es = _measured(models[0]), None if models[1] is None else _measured(models[1])
    if es is not None and (es.lv_volume_ml or 0) > (ed.lv_volume_ml or np.inf):
        warn(
            "measure: the LV is larger at end-systole than at end-diastole; are the phases swapped?"
        )
    return Measures(ed, es, surface)


def body_surface_m2(height_cm: float | None, weight_kg: float | None) -> float | None:
    """Return the body's surface by Mosteller's formula, None without height and weight."""
    if height_cm is None and weight_kg is None:
        return None
    for each in (height_cm, weight_kg):
        check_argument(each, (Real, type(None)), "measure: height_cm and weight_kg")
    given = ((height_cm, _HEIGHTS_CM), (weight_kg, _WEIGHTS_KG))
    if any(value is None or not low <= value <= high for value, (low, high) in given):
        raise InvalidInputError(
            f"measure: height {height_cm} cm and weight {weight_kg} kg; needs both, a height from 30 to "
            "250 cm (height_cm= or --height-cm) and a weight from 1 to 400 kg (weight_kg= or "
            "--weight-kg).",
            code="BAD_BODY",
        )
    assert height_cm is not None and weight_kg is not None
    return float(np.sqrt(height_cm * weight_kg / 3600))


def _measured(model: SavedModel) -> PhaseMeasures:
    volumes = structure_volumes_ml(model.labels)
    shown = {
        name: volume
        for name, volume in volumes.items()
        if name not in model.structures_from_atlases
    }
    lv_wall = volumes[STRUCTURES[LV_WALL]]
    landmarks = model.landmarks or landmarks_from_labels(model.labels)
    directions = heart_directions(landmarks)
    shape = measure_left_wall(model.labels, directions)
    rv_wall = shown.get(STRUCTURES[RV_WALL])
    return PhaseMeasures(
        lv_volume_ml=volumes[STRUCTURES[LV_CAVITY]],
        lv_mass_g=_mass(lv_wall),
        rv_volume_ml=volumes[STRUCTURES[RV_CAVITY]],
        rv_mass_g=_mass(rv_wall),
        parts=model.volumes,
        thickness_mm=shape.thickness_mm if shape else np.full(N_SEGMENTS, np.nan),
        mean_thickness_mm=shape.mean_thickness_mm if shape else float("nan"),
        eccentricity=shape.eccentricity if shape else float("nan"),
        septal_curvature_per_cm=shape.septum.curvature_per_cm if shape else float("nan"),
        septal_curvature_ratio=shape.septum.curvature_ratio if shape else float("nan"),
        rv_thickness_mm=float("nan")
        if rv_wall is None
        else right_wall_mm(model.labels, directions),
    )


def _of_parts(name: str, parts: dict[str, Interval]) -> dict[str, Interval]:
    found = {name if part == PARTS[0] else f"{name} {part}": each for part, each in parts.items()}
    return {row: each for row, each in found.items() if row in _WITH_INTERVAL}


def _mass(volume_ml: float | None) -> float | None:
    return None if volume_ml is None else MUSCLE_DENSITY_G_PER_ML * volume_ml


def _minus(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first - second


def _known(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else float(value)
