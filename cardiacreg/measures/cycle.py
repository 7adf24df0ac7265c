"""Measures of a whole cardiac cycle: how fast the ventricles empty and fill, and how the wall thickens.

A curve of volumes over one cycle is described by a Fourier series fitted by least squares, of a third
as many harmonics as there are frames and at most six: enough for the two waves of filling, too few to
follow the noise of single frames. Its slope gives the rates (as in radionuclide ventriculography:
Bacharach et al., J Nucl Med 20:189, 1979). The peak ejection rate is the steepest fall between
end-diastole and end-systole, the peak filling rate the steepest rise between end-systole and the next
end-diastole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike

from cardiacreg.anatomy.slice_volumes import StructureVolume
from cardiacreg.arrays import Float
from cardiacreg.errors import InvalidInputError, check_argument
from cardiacreg.geometry import LabelMap, Landmarks
from cardiacreg.measures.heart import Measures, Row, measure
from cardiacreg.results.saved_model import SavedModel

_FEWEST_FRAMES = 8
_FRAMES_PER_HARMONIC, _MOST_HARMONICS = 3, 6
_FINE_STEPS = 2000
_SIDES = {"LV": "LV cavity", "RV": "RV cavity"}


class Frame(Protocol):
    """What is needed of one frame of a cine."""

    @property
    def labels(self) -> LabelMap:
        """Canonical labels of the model."""

    @property
    def volumes(self) -> dict[str, StructureVolume]:
        """Acquired and extrapolated parts; empty where the frame had no labels."""

    @property
    def time_ms(self) -> float | None:
        """After the first frame."""


class Cine(Protocol):
    """What is needed of a cine: a `CineResult`."""

    @property
    def frames(self) -> Sequence[Frame]:
        """In the order of the series."""

    @property
    def ed(self) -> int:
        """Position of end-diastole among the frames."""

    @property
    def es(self) -> int:
        """Position of end-systole."""

    @property
    def landmarks(self) -> Landmarks:
        """At end-diastole."""

    @property
    def volumes_ml(self) -> Mapping[str, Float]:
        """Volume of every structure in every frame."""

    def follow(self, points_mm: Float, frame: int) -> Float:
        """Return where points at end-diastole are in another frame."""


class Rates(NamedTuple):
    """How fast a ventricle empties and fills.

    Parameters
    ----------
    ejection_ml_per_s, filling_ml_per_s : float
        Peak rates, both positive.
    ejection_ms, filling_ms : float
        When they are reached: after end-diastole, and after end-systole.
    """

    ejection_ml_per_s: float
    filling_ml_per_s: float
    ejection_ms: float
    filling_ms: float


@dataclass(frozen=True, slots=True, eq=False)
class CineMeasures(Measures):
    """Measures of one heart at end-diastole and end-systole, and of its cycle.

    Parameters
    ----------
    ed, es, body_surface_m2
        As of `Measures`.
    rates : dict of str to Rates
        By ventricle, ``"LV"`` and ``"RV"``; without those that are not known.
    curves_ml : dict of str to ndarray
        Volume of every structure in every frame.
    times_ms : ndarray or None
        Of the frames.
    """

    rates: dict[str, Rates] = field(default_factory=dict)
    curves_ml: dict[str, Float] = field(default_factory=dict)
    times_ms: Float | None = None

    def table(self) -> list[Row]:
        """Return every measure as a row, those of the cycle last."""
        rows = Measures.table(self)
        for side in _SIDES:
            own = self.rates.get(side, (None,) * 4)
            rows += [
                Row(f"{side} peak ejection rate", own[0], "mL/s"),
                Row(f"{side} peak filling rate", own[1], "mL/s"),
                Row(f"{side} time to peak ejection", own[2], "ms"),
                Row(f"{side} time to peak filling", own[3], "ms"),
            ]
        return rows


def measure_cine(
    cine: Cine,
    *,
    cycle_ms: float | None = None,
    height_cm: float | None = None,
    weight_kg: float | None = None,
) -> CineMeasures:
    """Measure all frames of a patient together.

    Parameters
    ----------
    cine : CineResult
        What `refine_cine` returned. The 17 segments of end-systole are placed by the landmarks of
        end-diastole, moved with the heart.
    cycle_ms : float, optional
        Length of the cycle; the time from the first frame to one step past the last when absent.
    height_cm, weight_kg : float, optional
        As for `measure`.

    Returns
    -------
    CineMeasures
        A `Measures`: `write_measures_csv` and `draw_bullseye` take it as well. Rates are missing where
        the frames have no times, are fewer than 8, or lack the ventricle.

    Raises
    ------
    InvalidInputError
        As `measure`; or if times do not grow from frame to frame or reach past the cycle (BAD_TIMES).

    Examples
    --------
    >>> import cardiacreg
    >>> found = cardiacreg.measure_cine(cardiacreg.refine_cine("cine.nii.gz"))  # doctest: +SKIP
    >>> found.rates["LV"].filling_ml_per_s, found.thickening_percent()  # doctest: +SKIP
    """
    if not hasattr(cine, "frames"):
        raise InvalidInputError(
            f"measure_cine: cine is a {type(cine).__name__}; needs what refine_cine or load_cine gives.",
            code="BAD_TYPE",
        )
    check_argument(cycle_ms, (Real, type(None)), "measure_cine: cycle_ms")
    diastole, systole = cine.frames[cine.ed], cine.frames[cine.es]
    moved = Landmarks(cine.follow(cine.landmarks.points_mm, cine.es), cine.landmarks.names)
    found = measure(
        _model(diastole, cine.landmarks),
        _model(systole, moved),
        height_cm=height_cm,
        weight_kg=weight_kg,
    )
    curves = {name: np.asarray(curve) for name, curve in cine.volumes_ml.items()}
    known = [frame.time_ms for frame in cine.frames if frame.time_ms is not None]
    times = np.array(known) if len(known) == len(cine.frames) else None
    rates = {}
    if times is not None and len(times) >= _FEWEST_FRAMES:
        rates = {
            side: peak_rates(times, curves[name], ed=cine.ed, es=cine.es, cycle_ms=cycle_ms)
            for side, name in _SIDES.items()
            if np.isfinite(curves[name]).all()
        }
    return CineMeasures(found.ed, found.es, found.body_surface_m2, rates, curves, times)


def _model(frame: Frame, landmarks: Landmarks) -> SavedModel:
    unseen = tuple(name for name, volume in frame.volumes.items() if volume.input_ml is None)
    return SavedModel(frame.labels, landmarks, frame.volumes, unseen)


def peak_rates(
    times_ms: ArrayLike, volumes_ml: ArrayLike, *, ed: int, es: int, cycle_ms: float | None = None
) -> Rates:
    """Return the peak ejection and filling rates of a curve of volumes over one cycle.

    Parameters
    ----------
    times_ms, volumes_ml : array_like, shape (n,)
        At least 8, in the order of time.
    ed, es : int
        Positions of end-diastole and end-systole among them.
    cycle_ms : float, optional
        Length of the cycle; the time from the first to one mean step past the last when absent.

    Returns
    -------
    Rates

    Raises
    ------
    InvalidInputError
        If there are fewer than 8 finite values, times do not grow or reach past the cycle, or
        end-diastole and end-systole are the same (BAD_TIMES).

    Examples
    --------
    >>> import numpy as np
    >>> from cardiacreg.measures.cycle import peak_rates
    >>> times = np.arange(20) * 40.0
    >>> volumes = 100 + 40 * np.cos(2 * np.pi * times / 800)
    >>> round(peak_rates(times, volumes, ed=0, es=10).filling_ml_per_s)  # 40 x 2 pi / 0.8 s
    314
    """
    times, volumes = (np.asarray(each, dtype=np.float64) for each in (times_ms, volumes_ml))
    cycle = _checked_cycle_ms(times, volumes, cycle_ms, ed != es)
    count = min(_MOST_HARMONICS, len(times) // _FRAMES_PER_HARMONIC)
    orders = 2 * np.pi * np.arange(1, count + 1) / cycle
    angles = np.outer(times - times[0], orders)
    waves = np.concatenate([np.ones((len(times), 1)), np.cos(angles), np.sin(angles)], axis=1)
    weights = np.linalg.lstsq(waves, volumes, rcond=None)[0]
    even, odd = weights[1 : count + 1] * orders, weights[count + 1 :] * orders

    def steepest(first: int, last: int, sign: float) -> tuple[float, float]:
        start = times[first] - times[0]
        length = (times[last] - times[first]) % cycle
        after = np.linspace(0, length, _FINE_STEPS)
        turned = np.outer(start + after, orders)
        slopes = sign * (np.cos(turned) @ odd - np.sin(turned) @ even)
        best = int(np.argmax(slopes))
        return 1000 * float(slopes[best]), float(after[best])

    ejection, filling = steepest(ed, es, -1.0), steepest(es, ed, 1.0)
    return Rates(ejection[0], filling[0], ejection[1], filling[1])


def _checked_cycle_ms(
    times: Float, volumes: Float, cycle_ms: float | None, two_phases: bool
) -> float:
    """Return the length of the cycle; refuse a curve that rates cannot be taken of."""
    usable = times.shape == volumes.shape and times.ndim == 1 and len(times) >= _FEWEST_FRAMES
    usable = usable and bool(np.isfinite([times, volumes]).all() and (np.diff(times) > 0).all())
    if not usable or not two_phases:
        raise InvalidInputError(
            f"peak rates: times of shape {times.shape} and volumes of shape {volumes.shape}; needs at "
            f"least {_FEWEST_FRAMES} finite volumes at times that grow from frame to frame, and two "
            "frames for end-diastole and end-systole.",
            code="BAD_TIMES",
        )
    lasting = float(times[-1] - times[0])
    cycle = lasting * len(times) / (len(times) - 1) if cycle_ms is None else float(cycle_ms)
    if not cycle > lasting:
        raise InvalidInputError(
            f"peak rates: the frames last {lasting:g} ms, longer than the cycle of {cycle:g} ms; needs "
            "frames of one cycle, in milliseconds.",
            code="BAD_TIMES",
        )
    return cycle
