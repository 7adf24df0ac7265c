"""How sure a volume is: intervals that hold the truth nine times out of ten.

The error of a model's volume, truth minus model, has two parts that are treated apart. *Acquired*,
between the outer faces of the slices that show a structure: a share of the volume, by which outlines
between slices are wrong, and a multiple of the standard deviation of the deformed atlases' own volumes
there. *Extrapolated*, past those faces: the structure ends somewhere before the next slice, so that the
error grows with what the outermost slices hold, and again with the atlases' disagreement,

    sd_acquired^2 = (a V)^2 + (b SD_atlases)^2,    sd_extrapolated^2 = (c E)^2 + (d SD_atlases)^2,

with V the acquired volume and E the volume of the two outermost slices. Both have a mean as well, a
share of V and of the basal slice's volume: where labels stop short of the base, truth lies beyond them
more often than not. An interval is the volume, plus the mean error, plus low and high quantiles of the
standardised error times its standard deviation. It is not centred on the volume, therefore, and need
not even hold it.

Every constant was fitted by `benchmarks.accuracy.intervals.calibrate` to simulated stacks of hearts
that are neither atlases nor evaluated: synthetic hearts of seeds from 20,000 and random shapes of the
real anatomies (docs/studies/measures.md). They belong to `RefineOptions()` and labels drawn as experts
do.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cardiacreg.anatomy.slice_volumes import StructureVolume
from cardiacreg.anatomy.volumes import MUSCLE_DENSITY_G_PER_ML

LEVEL = 0.9
"""Share of the truth that intervals are made to hold."""
PARTS = ("whole", "acquired", "extrapolated")
_SMALLEST_SD = 0.05
"""In ml: no volume is known better than voxels show it."""


class Interval(NamedTuple):
    """What holds the true value with a probability of `LEVEL`.

    Parameters
    ----------
    low, high : float
        In the unit of the measure.
    """

    low: float
    high: float

    def scaled(self, factor: float) -> Interval:
        """Return the interval of a measure that is so many times larger."""
        return Interval(self.low * factor, self.high * factor)


class ErrorModel(NamedTuple):
    """What is known of the error of one structure's volume, truth minus model.

    Parameters
    ----------
    acquired_mean : float
        Mean error inside the slices, as a share of the volume there.
    acquired_sd : tuple of float
        Its standard deviation, as a share of the volume there, and per standard deviation of the atlases.
    extrapolated_mean : float
        Mean error beyond the slices, as a share of the basal slice's volume.
    extrapolated_sd : tuple of float
        Its standard deviation, as a share of the volume of both outermost slices, and per standard
        deviation of the atlases.
    quantiles : tuple of (float, float)
        Of the standardised error, low and high, for each of `PARTS`.
    phases : float
        Correlation of the standardised errors at end-diastole and end-systole.
    stroke_quantiles, ejection_quantiles : tuple of float
        Of the standardised error of the stroke volume and of the ejection fraction.
    """

    acquired_mean: float
    acquired_sd: tuple[float, float]
    extrapolated_mean: float
    extrapolated_sd: tuple[float, float]
    quantiles: tuple[tuple[float, float], ...]
    phases: float
    stroke_quantiles: tuple[float, float]
    ejection_quantiles: tuple[float, float]


class Expected(NamedTuple):
    """A volume, corrected by its mean error, and the standard deviation of what is left, ml."""

    ml: float
    sd_ml: float


ERRORS = {
    "LV cavity": ErrorModel(
        acquired_mean=0.0027,
        acquired_sd=(0.0105, 0.0963),
        extrapolated_mean=0.148,
        extrapolated_sd=(0.1318, 0.0),
        quantiles=((-1.635, 1.953), (-1.651, 1.467), (-1.086, 1.946)),
        phases=-0.062,
        stroke_quantiles=(-1.732, 1.949),
        ejection_quantiles=(-1.899, 2.036),
    ),
    "LV wall": ErrorModel(
        acquired_mean=0.0116,
        acquired_sd=(0.0099, 0.0),
        extrapolated_mean=0.1791,
        extrapolated_sd=(0.0957, 0.0),
        quantiles=((-1.694, 1.827), (-1.476, 1.71), (-1.363, 1.862)),
        phases=0.208,
        stroke_quantiles=(-1.635, 1.743),
        ejection_quantiles=(-1.649, 1.706),
    ),
    "RV wall": ErrorModel(
        acquired_mean=0.0397,
        acquired_sd=(0.0345, 0.8907),
        extrapolated_mean=0.1134,
        extrapolated_sd=(0.1058, 1.1194),
        quantiles=((-1.177, 2.132), (-1.304, 1.988), (-1.408, 1.805)),
        phases=0.446,
        stroke_quantiles=(-1.548, 1.516),
        ejection_quantiles=(-1.764, 1.338),
    ),
    "RV cavity": ErrorModel(
        acquired_mean=-0.0074,
        acquired_sd=(0.0163, 0.5199),
        extrapolated_mean=0.0287,
        extrapolated_sd=(0.0258, 1.0342),
        quantiles=((-1.814, 1.718), (-1.8, 1.68), (-0.935, 2.352)),
        phases=0.169,
        stroke_quantiles=(-1.31, 1.941),
        ejection_quantiles=(-2.065, 1.958),
    ),
}
"""By structure; as `calibrate` prints them."""


def expected_ml(volume: StructureVolume, model: ErrorModel) -> dict[str, Expected] | None:
    """Return what the true volume is expected to be, for each of `PARTS`.

    Parameters
    ----------
    volume : StructureVolume
        Of a refinement that kept the volumes of its atlases.
    model : ErrorModel
        Of the structure.

    Returns
    -------
    dict or None
        None where the input does not show the structure or the atlases' volumes were not kept.
    """
    if (
        volume.input_ml is None
        or len(volume.outermost_ml) != 2
        or len(volume.atlases_inside_ml) < 2
    ):
        return None
    inside = volume.inside_ml
    beyond = volume.beyond_apex_ml + volume.beyond_base_ml
    apex, base = volume.outermost_ml
    spread = [
        float(np.std(ml, ddof=1)) for ml in (volume.atlases_inside_ml, volume.atlases_beyond_ml)
    ]
    acquired = Expected(
        inside * (1 + model.acquired_mean),
        _sd(model.acquired_sd, (inside, spread[0])),
    )
    extrapolated = Expected(
        beyond + model.extrapolated_mean * base,
        _sd(model.extrapolated_sd, (apex + base, spread[1])),
    )
    whole = Expected(
        acquired.ml + extrapolated.ml, float(np.hypot(acquired.sd_ml, extrapolated.sd_ml))
    )
    return {"whole": whole, "acquired": acquired, "extrapolated": extrapolated}


def _sd(shares: tuple[float, float], sizes_ml: tuple[float, float]) -> float:
    return max(_SMALLEST_SD, float(np.hypot(shares[0] * sizes_ml[0], shares[1] * sizes_ml[1])))


def expected_stroke(
    diastole: Expected, systole: Expected, phases: float
) -> tuple[Expected, Expected]:
    """Return what the true stroke volume, ml, and the true ejection fraction, %, are expected to be.

    Parameters
    ----------
    diastole, systole : Expected
        Of the cavity.
    phases : float
        Correlation of their errors.
    """
    both = phases * diastole.sd_ml * systole.sd_ml
    stroke = Expected(
        diastole.ml - systole.ml,
        float(np.sqrt(diastole.sd_ml**2 + systole.sd_ml**2 - 2 * both)),
    )
    left = systole.ml / diastole.ml
    variance = systole.sd_ml**2 + (left * diastole.sd_ml) ** 2 - 2 * left * both
    return stroke, Expected(100 * (1 - left), float(100 * np.sqrt(variance) / diastole.ml))


def volume_intervals(volume: StructureVolume | None, structure: str) -> dict[str, Interval]:
    """Return the intervals of a structure's volume in ml, whole and in parts.

    Parameters
    ----------
    volume : StructureVolume or None
    structure : str
        As ``"LV cavity"``.

    Returns
    -------
    dict
        One of `PARTS` to its `Interval`; empty where nothing is known: labels alone, a structure that the
        input does not show, a result of an earlier version.

    Examples
    --------
    >>> from cardiacreg.anatomy.slice_volumes import StructureVolume
    >>> from cardiacreg.measures.intervals import volume_intervals
    >>> atlases = (114.0, 116.5, 116.0), (5.0, 5.5, 6.5)
    >>> volume = StructureVolume(118.2, 115.9, 1.4, 4.1, 121.4, 3.0, 5.0, (3.0, 14.0), *atlases)
    >>> low, high = volume_intervals(volume, "LV cavity")["whole"]
    >>> low < 125 < high
    True
    """
    model = ERRORS.get(structure)
    found = None if volume is None or model is None else expected_ml(volume, model)
    if found is None or model is None:
        return {}
    return {
        part: _interval(found[part], quantiles, 0.0)
        for part, quantiles in zip(PARTS, model.quantiles, strict=True)
    }


def stroke_intervals(
    diastole: StructureVolume | None, systole: StructureVolume | None, structure: str
) -> tuple[Interval, Interval] | None:
    """Return the intervals of the stroke volume, ml, and the ejection fraction, %.

    Parameters
    ----------
    diastole, systole : StructureVolume or None
        Of one cavity.
    structure : str
        As ``"LV cavity"``.

    Returns
    -------
    tuple of Interval, or None
        None where nothing is known of either.
    """
    model = ERRORS.get(structure)
    if model is None or diastole is None or systole is None:
        return None
    phases = [expected_ml(each, model) for each in (diastole, systole)]
    if phases[0] is None or phases[1] is None or phases[0]["whole"].ml <= 0:
        return None
    stroke, ejection = expected_stroke(phases[0]["whole"], phases[1]["whole"], model.phases)
    return (
        _interval(stroke, model.stroke_quantiles, -np.inf),
        _interval(ejection, model.ejection_quantiles, -np.inf),
    )


def mass_interval(volume: StructureVolume | None, structure: str) -> Interval | None:
    """Return the interval of the mass of a wall in g, at 1.05 g/ml; None where nothing is known."""
    found = volume_intervals(volume, structure)
    return found["whole"].scaled(MUSCLE_DENSITY_G_PER_ML) if found else None


def _interval(expected: Expected, quantiles: tuple[float, float], least: float) -> Interval:
    low, high = (expected.ml + quantile * expected.sd_ml for quantile in quantiles)
    return Interval(max(low, least), max(high, least))
