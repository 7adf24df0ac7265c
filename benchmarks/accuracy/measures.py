"""Measures of hearts against known ones: shells of known thickness, and synthetic hearts.

Shells are drawn as labels on the lattice of a refined model. The truth of a synthetic heart is the same
heart drawn on voxels of 0.8 mm. It is compared with the heart drawn on the model's lattice, which shows
what voxels cost, and with models of its thick, shifted slices, which show what slices cost.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.harness import tabulate
from benchmarks.harness.cases import Heart
from benchmarks.harness.measuring import BASELINES, refine_quietly, rounded
from benchmarks.harness.store import Record, Unit, gather
from cardiacreg.arrays import Float
from cardiacreg.errors import InputWarning
from cardiacreg.geometry import LANDMARK_NAMES, LV_CAVITY, LV_WALL, LabelMap, Landmarks
from cardiacreg.measures.heart import PhaseMeasures, measure
from cardiacreg.measures.left_wall import measure_left_wall
from cardiacreg.measures.segments import heart_directions
from cardiacreg.phantoms.hearts import FIRST_EVALUATION_SEED, GROUPS, PHASES, sample_heart
from cardiacreg.refinement.options import RefineOptions

OURS, DRAWN = "cardiacreg", "drawn on the model's lattice"
METHODS = (DRAWN, *BASELINES, OURS)
_TRUE_MM = (0.8, 0.8, 0.8)
_MODEL_MM = np.array([1.25, 1.25, 2.0])
_HEARTS = 10
SHELLS = {
    "hollow half sphere": ((25.0, 25.0, 25.0), (4.0, 6.0, 10.0, 15.0)),
    "half ellipsoid": ((22.0, 22.0, 45.0), (4.0, 6.0, 10.0, 15.0)),
    "half ellipsoid, three axes": ((20.0, 26.0, 42.0), (4.0, 6.0, 10.0, 15.0)),
}
"""Inner radii in mm, and thicknesses everywhere along the normals."""


def run(quick: bool, cases: int = _HEARTS) -> dict[str, Any]:
    """Measure shells and 10 hearts in two phases (1 in a quick run)."""
    count = 1 if quick else cases
    units = [
        _shell_unit(name, radii, thickness)
        for name, (radii, many) in SHELLS.items()
        for thickness in many[: 1 if quick else None]
    ]
    groups = tuple(GROUPS)
    units += [
        _heart_unit(FIRST_EVALUATION_SEED + 100 + n, groups[n % len(groups)]) for n in range(count)
    ]
    return {"seeds": [], "records": gather("measures", units)}


def _shell_unit(name: str, radii: tuple[float, ...], thickness: float) -> Unit:
    head = {"shell": name, "true_mm": thickness}

    def make() -> Record:
        labels, landmarks = _shell(np.array(radii), thickness)
        found = measure_left_wall(labels, heart_directions(landmarks))
        assert found is not None
        errors = found.thickness_mm - thickness
        return rounded(
            head
            | {
                "mean_error_mm": found.mean_thickness_mm - thickness,
                "worst_segment_mm": float(np.abs(errors).max()),
                "eccentricity_error": found.eccentricity - radii[1] / radii[0],
            }
        )

    return Unit(head | {"radii": radii}, make)


def _shell(radii: Float, thickness: float) -> tuple[LabelMap, Landmarks]:
    """An ellipsoid's lower half, all points closer to it than a thickness, and landmarks."""
    from scipy.spatial import cKDTree

    polar, around = np.meshgrid(np.linspace(0, np.pi, 500), np.linspace(0, 2 * np.pi, 700))
    dense = np.stack(
        [np.sin(polar) * np.cos(around), np.sin(polar) * np.sin(around), np.cos(polar)], axis=-1
    ).reshape(-1, 3)
    half = np.ceil((radii + thickness + 6) / _MODEL_MM).astype(int)
    axes = [np.arange(-n, n + 1) * step for n, step in zip(half, _MODEL_MM, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    level = np.linalg.norm(points / radii, axis=-1)
    near = np.linalg.norm(points / (radii + thickness + 1), axis=-1) < 1
    array = np.zeros(level.shape, dtype=np.uint8)
    array[near] = np.where(cKDTree(dense * radii).query(points[near])[0] < thickness, LV_WALL, 0)
    array[level < 1] = LV_CAVITY
    array[points[..., 2] > 0.1] = 0
    matrix = np.diag([*_MODEL_MM, 1.0])
    matrix[:3, 3] = -half * _MODEL_MM
    outer = radii[0] + thickness
    places = [
        [-outer / 2, -outer, -10], [-2 * outer, 0, -10], [-outer / 2, outer, -10], [outer, 0, -10],
        [0, 0, -radii[2] - thickness], [0, 0, 1],
    ]  # fmt: skip
    return LabelMap(array, matrix), Landmarks(places, LANDMARK_NAMES)


def _heart_unit(seed: int, group: str) -> Unit:
    head = {"case": f"{group}_{seed}", "seed": seed, "group": group}

    def make() -> Record:
        return rounded(head | {"phases": {phase: _phase(seed, group, phase) for phase in PHASES}})

    return Unit(head | {"options": repr(RefineOptions())}, make)


def _phase(seed: int, group: str, phase: str) -> dict[str, dict[str, Any]]:
    """Measures of one phase by every method, and the true ones."""
    case = Heart(seed, group, phase).case()
    made: dict[str, Callable[[], Any]] = {
        "true": lambda: (
            sample_heart(
                seed, group=group, phase=phase, spacing_mm=_TRUE_MM, with_image=False
            ).labels
        ),
        DRAWN: lambda: sample_heart(seed, group=group, phase=phase, with_image=False).labels,
        OURS: lambda: refine_quietly(case.target.labels, threads=1),
    }
    for name, interpolate in BASELINES.items():
        made[name] = lambda interpolate=interpolate: interpolate(case.target.labels, case.truth)
    return {name: _figures(make()) for name, make in made.items()}


def _figures(model: Any) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        found: PhaseMeasures = measure(model).ed
    return {
        "thickness_mm": [None if np.isnan(v) else float(v) for v in found.thickness_mm],
        "mean_thickness_mm": found.mean_thickness_mm,
        "eccentricity": None if np.isnan(found.eccentricity) else found.eccentricity,
        "lv_ml": found.lv_volume_ml,
        "rv_ml": found.rv_volume_ml,
        "lv_g": found.lv_mass_g,
        "rv_mm": None if np.isnan(found.rv_thickness_mm) else found.rv_thickness_mm,
    }


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return errors of shells, of segments and of whole hearts."""
    records = [r for r in result["records"] if "error" not in r]
    shells, hearts = ([r for r in records if key in r] for key in ("shell", "case"))
    found = {}
    if shells:
        found["measures-shells"] = _shell_table(shells)
    if hearts:
        found["measures-thickness"] = _thickness_table(hearts)
        found["measures-hearts"] = _heart_table(hearts)
    return found


def _shell_table(shells: Sequence[Record]) -> str:
    rows = [
        [f"{r['shell']}, {r['true_mm']:.0f} mm", f"{r['mean_error_mm']:+.3f}",
         f"{r['worst_segment_mm']:.3f}", f"{r['eccentricity_error']:+.3f}"]
        for r in shells
    ]  # fmt: skip
    header = ["thickness of shells", "mean error, mm", "worst of 17 segments, mm"]
    return tabulate.markdown([*header, "eccentricity, error"], rows)


def _thickness_table(hearts: Sequence[Record]) -> str:
    rows = []
    for phase in (*PHASES, "thickening"):
        for method in METHODS:
            pairs = [_segment_errors(r, phase, method) for r in hearts]
            errors = np.concatenate(pairs)
            unknown = int(np.isnan(errors).sum())
            errors = errors[~np.isnan(errors)]
            unit = "%" if phase == "thickening" else "mm"
            rows.append([
                f"{phase}, {unit}: {method}", str(len(errors)), str(unknown),
                f"{errors.mean():+.2f} ± {errors.std(ddof=1):.2f}",
                f"{np.abs(errors).mean():.2f}", f"{np.quantile(np.abs(errors), 0.95):.2f}",
            ])  # fmt: skip
    header = ["wall thickness by segment minus truth", "segments", "without a value"]
    return tabulate.markdown([*header, "mean ± SD", "mean absolute", "95 % below"], rows)


def _segment_errors(record: Record, phase: str, method: str) -> Float:
    def values(name: str, of: str) -> Float:
        return np.array(record["phases"][of][name]["thickness_mm"], dtype=np.float64)

    if phase != "thickening":
        return values(method, phase) - values("true", phase)
    diastole, systole = PHASES
    found, true = (
        100 * (values(name, systole) / values(name, diastole) - 1) for name in (method, "true")
    )
    return np.asarray(found - true)


_HEART_FIGURES: dict[str, Callable[[dict[str, Any], str], float]] = {
    "LVEDV, %": lambda p, m: 100 * (p["ED"][m]["lv_ml"] / p["ED"]["true"]["lv_ml"] - 1),
    "RVEDV, %": lambda p, m: 100 * (p["ED"][m]["rv_ml"] / p["ED"]["true"]["rv_ml"] - 1),
    "LVM, %": lambda p, m: 100 * (p["ED"][m]["lv_g"] / p["ED"]["true"]["lv_g"] - 1),
    "LVEF, points": lambda p, m: _ejection(p, m, "lv_ml") - _ejection(p, "true", "lv_ml"),
    "RVEF, points": lambda p, m: _ejection(p, m, "rv_ml") - _ejection(p, "true", "rv_ml"),
    "eccentricity, ED": lambda p, m: (
        (p["ED"][m]["eccentricity"] or np.nan) - p["ED"]["true"]["eccentricity"]
    ),
    "RV wall, ED, mm": lambda p, m: _right_mm(p["ED"][m]) - _right_mm(p["ED"]["true"]),
    "RV thickening, points": lambda p, m: _right_thickening(p, m) - _right_thickening(p, "true"),
}


def _right_mm(figures: dict[str, Any]) -> float:
    found = figures.get("rv_mm")
    return float("nan") if found is None else float(found)


def _right_thickening(phases: dict[str, Any], method: str) -> float:
    return 100 * (_right_mm(phases["ES"][method]) / _right_mm(phases["ED"][method]) - 1)


def _ejection(phases: dict[str, Any], method: str, key: str) -> float:
    return 100 * float(1 - phases["ES"][method][key] / phases["ED"][method][key])


def _heart_table(hearts: Sequence[Record]) -> str:
    rows = []
    for method in METHODS:
        cells = []
        for name, figure in _HEART_FIGURES.items():
            errors = np.array([figure(r["phases"], method) for r in hearts])
            errors = errors[~np.isnan(errors)]
            digits = 3 if name.startswith("ecc") else 2 if name.endswith("mm") else 1
            if not len(errors):
                cells.append("–")
                continue
            spread = errors.std(ddof=1) if len(errors) > 1 else 0.0
            cells.append(f"{errors.mean():+.{digits}f} ± {spread:.{digits}f}")
        rows.append([method, *cells])
    return tabulate.markdown(["minus truth, mean ± SD", *_HEART_FIGURES], rows)
