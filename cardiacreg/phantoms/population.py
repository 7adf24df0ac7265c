"""The synthetic population: groups, sampling of a heart's measures and calibration to volumes.

The targets of the ``healthy`` and ``pulmonary_hypertension`` groups are the manual measurements of
Duan et al. 2019, Table IV and Table VI; those of ``dilated`` and ``hypertrophic`` widen the
population towards large and towards thick-walled ventricles and follow no table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from numbers import Integral

import numpy as np

from cardiacreg.arrays import Float
from cardiacreg.errors import InvalidInputError
from cardiacreg.phantoms import published_measures as measures
from cardiacreg.phantoms.anatomy import HeartShape, heart_fields, structure_fractions
from cardiacreg.phantoms.radii import radius_table, random_deviation

MUSCLE_DENSITY_G_PER_ML = 1.05
PHASES = ("ED", "ES")
_COARSE_MM, _SOFTNESS_MM = 4.0, 1.0
# Share of the thin RV wall that survives in a label map, where each voxel has one structure.
_RV_WALL_KEPT = 0.95
# Correlation of LV volume, LV mass, RV volume and RV mass between people of different size.
_CORRELATION = np.array(
    [[1.0, 0.7, 0.85, 0.7], [0.7, 1.0, 0.65, 0.7], [0.85, 0.65, 1.0, 0.75], [0.7, 0.7, 0.75, 1.0]]
)


@dataclass(frozen=True, slots=True)
class Group:
    """Targets of one group: mean and standard deviation of each measure.

    Parameters
    ----------
    lv_volume_ml, lv_mass_g, rv_volume_ml, rv_mass_g : tuple of float
        End-diastolic mean and standard deviation.
    lv_ejection, rv_ejection : tuple of float
        Ejection fractions, 0 to 1.
    elongation, septal_flattening_mm : tuple of float
        Long-axis factor and depth of the septal flattening.
    shortening : tuple of float
        Long-axis shortening from end-diastole to end-systole, 0 to 1.
    """

    lv_volume_ml: tuple[float, float]
    lv_mass_g: tuple[float, float]
    rv_volume_ml: tuple[float, float]
    rv_mass_g: tuple[float, float]
    lv_ejection: tuple[float, float]
    rv_ejection: tuple[float, float]
    elongation: tuple[float, float] = (1.0, 0.04)
    septal_flattening_mm: tuple[float, float] = (0.0, 0.8)
    shortening: tuple[float, float] = (0.14, 0.02)


GROUPS: dict[str, Group] = {
    "healthy": Group(
        (148, 35), (119, 26), (172, 39), (34, 7), lv_ejection=(0.60, 0.05), rv_ejection=(0.55, 0.05)
    ),
    "pulmonary_hypertension": Group(
        (115, 25), (124, 25), (204, 59), (50, 14), lv_ejection=(0.58, 0.07),
        rv_ejection=(0.36, 0.08), septal_flattening_mm=(5.0, 2.0), shortening=(0.11, 0.02),
    ),
    "dilated": Group(
        (235, 50), (165, 35), (170, 45), (42, 8), lv_ejection=(0.28, 0.08),
        rv_ejection=(0.40, 0.08), elongation=(0.90, 0.04), shortening=(0.06, 0.02),
    ),
    "hypertrophic": Group(
        (126, 26), (146, 33), (158, 35), (56, 7), lv_ejection=(0.64, 0.06),
        rv_ejection=(0.57, 0.06), shortening=(0.13, 0.02),
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class HeartVolumes:
    """Volumes of the four structures in ml and their usual derived masses."""

    lv_cavity_ml: float
    lv_wall_ml: float
    rv_wall_ml: float
    rv_cavity_ml: float

    @property
    def lv_mass_g(self) -> float:
        """Mass of the LV wall in grams."""
        return self.lv_wall_ml * MUSCLE_DENSITY_G_PER_ML

    @property
    def rv_mass_g(self) -> float:
        """Mass of the RV wall in grams."""
        return self.rv_wall_ml * MUSCLE_DENSITY_G_PER_ML


def sample_shape(seed: int, *, phase: str = "ED", group: str = "healthy") -> HeartShape:
    """Draw the measures of one heart.

    Parameters
    ----------
    seed : int
        Non-negative; the same seed and group give the same person in both phases.
    phase : {"ED", "ES"}
        End-diastole or end-systole.
    group : str
        One of `GROUPS`.

    Returns
    -------
    HeartShape
        Calibrated to volumes and masses drawn from the group's targets.

    Raises
    ------
    InvalidInputError
        If the seed is negative or the phase or group is unknown.
    """
    _check(seed, phase, group)
    rng = np.random.default_rng([seed, sorted(GROUPS).index(group)])
    targets = _draw_targets(rng, GROUPS[group])
    shape = _calibrate(_draw_shape(rng, GROUPS[group]), targets)
    return shape if phase == "ED" else _contract(shape, targets, rng, GROUPS[group])


def shape_volumes(shape: HeartShape) -> HeartVolumes:
    """Measure a heart on a coarse grid to about 1 % (RV wall: 5 %)."""
    axes = coarse_axes(shape)
    fractions = structure_fractions(heart_fields(shape, axes), shape.rv_wall_mm, _SOFTNESS_MM)
    voxel_ml = float(np.prod([axis[1] - axis[0] for axis in axes])) / 1000.0
    return HeartVolumes(
        **{
            f"{name}_ml": float(share.sum(dtype=np.float64)) * voxel_ml
            for name, share in fractions.items()
        }
    )


def coarse_axes(shape: HeartShape) -> tuple[Float, Float, Float]:
    """Return axes in mm, 4 mm apart, of a grid that holds the whole heart."""
    limits = ((-105.0, 50.0), (-75.0, 70.0), (-105.0, 25.0))
    stretch = (shape.scale, shape.scale, shape.scale * max(shape.elongation, 0.9))
    x, y, z = (
        np.arange(low * factor, high * factor, _COARSE_MM)
        for (low, high), factor in zip(limits, stretch, strict=True)
    )
    return x, y, z


def check_seed(seed: object, where: str) -> None:
    """Refuse what seeds no generator (BAD_SEED)."""
    if isinstance(seed, bool) or not isinstance(seed, Integral) or seed < 0:
        raise InvalidInputError(
            f"{where}: seed is {seed!r}; needs a non-negative integer.", code="BAD_SEED"
        )


def _check(seed: int, phase: str, group: str) -> None:
    check_seed(seed, "sample_heart")
    if not isinstance(phase, str) or phase not in PHASES:
        raise InvalidInputError(
            f"sample_heart: phase is {phase!r}; needs one of {PHASES}.", code="BAD_PHASE"
        )
    if not isinstance(group, str) or group not in GROUPS:
        raise InvalidInputError(
            f"sample_heart: group is {group!r}; needs one of {tuple(GROUPS)}.", code="BAD_GROUP"
        )


def _normal(rng: np.random.Generator, moments: tuple[float, float]) -> float:
    """One normal draw, cut at two standard deviations."""
    return moments[0] + moments[1] * float(np.clip(rng.standard_normal(), -2.0, 2.0))


def _draw_targets(rng: np.random.Generator, group: Group) -> HeartVolumes:
    """Correlated log-normal volumes with the group's means and standard deviations."""
    moments = np.array(
        [group.lv_volume_ml, group.lv_mass_g, group.rv_volume_ml, group.rv_mass_g], dtype=np.float64
    )
    spread = np.sqrt(np.log1p((moments[:, 1] / moments[:, 0]) ** 2))
    draws = np.linalg.cholesky(_CORRELATION) @ np.clip(rng.standard_normal(4), -2.2, 2.2)
    lv, mass, rv, rv_mass = moments[:, 0] * np.exp(spread * draws - spread**2 / 2.0)
    return HeartVolumes(lv, mass / MUSCLE_DENSITY_G_PER_ML, rv_mass / MUSCLE_DENSITY_G_PER_ML, rv)


def _profile(
    rng: np.random.Generator, mean: tuple[float, ...], deviation: tuple[tuple[float, ...], ...]
) -> Float:
    """Draw a radius table about a mean profile."""
    return radius_table(np.array(mean)) + random_deviation(rng, deviation)


def _around(
    rng: np.random.Generator, mean: tuple[float, ...], deviation: tuple[float, ...]
) -> Float:
    draws: Float = np.clip(rng.standard_normal(len(mean)), -2.0, 2.0)
    return np.asarray(np.array(mean) + np.array(deviation) * draws)


def _draw_base(rng: np.random.Generator) -> tuple[Float, Float]:
    """Draw tricuspid, pulmonary and aortic centre (3, 3) and the RV roof (9, 5), which vary together."""
    modes = np.array(measures.RV_BASE_MODES_MM)
    draws = np.clip(rng.standard_normal(len(modes)), -2.0, 2.0)
    values = np.array(measures.RV_BASE_MM) + draws @ modes
    return values[:9].reshape(3, 3), values[9:].reshape(9, 5)


def _draw_shape(rng: np.random.Generator, group: Group) -> HeartShape:
    """Draw the shape before calibration; what depends on volume is still 1."""
    epicardium = _profile(rng, measures.LV_EPICARDIUM_MM, measures.LV_EPICARDIUM_SD_MM)
    wall = np.maximum(_profile(rng, measures.LV_WALL_MM, measures.LV_WALL_SD_MM), 1.5)
    flattening = max(_normal(rng, group.septal_flattening_mm), 0.0)
    offset = np.array(measures.RV_CENTRE_MM) * 0.0
    centre = _around(rng, measures.RV_CENTRE_MM, measures.RV_CENTRE_SD_MM)
    offset[2] = centre[2] - measures.RV_CENTRE_MM[2]
    base, roof = _draw_base(rng)
    return HeartShape(
        scale=1.0,
        elongation=_normal(rng, group.elongation),
        endocardium_factor=1.0,
        wall_factor=1.0,
        rv_factor=1.0,
        rv_wall_mm=3.0,
        septal_flattening_mm=flattening,
        endocardium_mm=epicardium - wall,
        wall_mm=wall,
        rv_body_mm=_profile(rng, measures.RV_BODY_MM, measures.RV_BODY_SD_MM),
        rv_centre_mm=centre,
        tricuspid_mm=base[0] + 0.5 * offset,
        pulmonary_mm=base[1] + 0.5 * offset,
        aortic_mm=base[2],
        roof_mm=roof,
        mitral_slope=_around(rng, (-0.05, -0.04), (0.05, 0.05)),
    )


def _calibrate(shape: HeartShape, targets: HeartVolumes) -> HeartShape:
    """Scale a fresh shape to the end-diastolic targets, one measure after the other."""
    volume = shape_volumes(shape).lv_cavity_ml
    shape = replace(shape, scale=float((targets.lv_cavity_ml / volume) ** (1.0 / 3.0)))
    return _fit_walls_and_rv(shape, targets)


def _fit_walls_and_rv(shape: HeartShape, targets: HeartVolumes) -> HeartShape:
    before = shape.septal_radius_mm()
    shape = _solve(
        shape,
        "wall_factor",
        lambda volumes: volumes.lv_wall_ml,
        targets.lv_wall_ml,
        (0.5, 3.5),
    )
    shift = np.array([before - shape.septal_radius_mm(), 0.0, 0.0])
    shape = replace(
        shape,
        rv_centre_mm=shape.rv_centre_mm + shift,
        tricuspid_mm=shape.tricuspid_mm + 0.5 * shift,
        pulmonary_mm=shape.pulmonary_mm + 0.5 * shift,
    )
    shape = _solve(
        shape, "rv_factor", lambda volumes: volumes.rv_cavity_ml, targets.rv_cavity_ml, (0.55, 1.6)
    )
    return _solve(
        shape,
        "rv_wall_mm",
        lambda volumes: _RV_WALL_KEPT * volumes.rv_wall_ml,
        targets.rv_wall_ml,
        (2.0, 5.0),
    )


def _solve(
    shape: HeartShape,
    name: str,
    measure: Callable[[HeartVolumes], float],
    target: float,
    bounds: tuple[float, float],
) -> HeartShape:
    """Set one factor so that a measure meets its target within .3 %, by secant steps in bounds."""
    value = float(getattr(shape, name))
    found = measure(shape_volumes(shape))
    slope = found / value
    for _ in range(8):
        if abs(found - target) <= 0.003 * target:
            break
        step = float(np.clip(value + (target - found) / slope, *bounds))
        if abs(step - value) < 1e-4:
            break
        shape = replace(shape, **{name: step})  # type: ignore[arg-type]
        measured = measure(shape_volumes(shape))
        slope = max((measured - found) / (step - value), 0.2 * measured / step)
        value, found = step, measured
    return shape


def _contract(
    shape: HeartShape, targets: HeartVolumes, rng: np.random.Generator, group: Group
) -> HeartShape:
    """Turn an end-diastolic heart into its end-systolic state; muscle keeps its volume."""
    lv_ejection = float(np.clip(_normal(rng, group.lv_ejection), 0.08, 0.8))
    rv_ejection = float(np.clip(_normal(rng, group.rv_ejection), 0.08, 0.75))
    shortening = max(_normal(rng, group.shortening), 0.02)
    before = shape.septal_radius_mm()
    drop = np.array([0.0, 0.0, -0.05 * measures.REFERENCE_LENGTH_MM * shortening / 0.14])
    contracted = replace(
        shape,
        elongation=shape.elongation * (1.0 - shortening),
        septal_flattening_mm=1.3 * shape.septal_flattening_mm,
        endocardium_factor=(1.0 - lv_ejection) ** 0.4,
        wall_factor=shape.wall_factor * (1.0 + 0.6 * lv_ejection),
        tricuspid_mm=shape.tricuspid_mm + drop,
        pulmonary_mm=shape.pulmonary_mm + 0.5 * drop,
        rv_factor=shape.rv_factor * (1.0 - rv_ejection) ** 0.4,
        rv_wall_mm=shape.rv_wall_mm * (1.0 + 0.5 * rv_ejection),
    )
    goal = HeartVolumes(
        targets.lv_cavity_ml * (1.0 - lv_ejection),
        targets.lv_wall_ml,
        targets.rv_wall_ml,
        targets.rv_cavity_ml * (1.0 - rv_ejection),
    )
    contracted = _solve(
        contracted,
        "endocardium_factor",
        lambda volumes: volumes.lv_cavity_ml,
        goal.lv_cavity_ml,
        (0.3, 1.1),
    )
    shift = np.array([before - contracted.septal_radius_mm(), 0.0, 0.0])
    contracted = replace(contracted, rv_centre_mm=contracted.rv_centre_mm + shift)
    return _fit_walls_and_rv(contracted, goal)
