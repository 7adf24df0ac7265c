"""The options of a registration by label consistency, checked when made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cardiacreg.errors import InvalidInputError, check_option_kinds
from cardiacreg.geometry import RV_WALL

_LARGEST_SPACING_MM = 1e4
_MOST_COMPOSITIONS = 16


class Sampling(NamedTuple):
    """What of a target counts in a registration, and how much; see `RegistrationOptions`."""

    class_weights: tuple[tuple[int, float], ...]
    margin_mm: float
    background_slices: bool


@dataclass(frozen=True, slots=True)
class RegistrationOptions:
    """How `register_labels` works.

    Parameters
    ----------
    spacings_mm : tuple of float
        Control-point spacing of each level, each half the one before.
    strides : tuple of int
        In-plane sampling stride of each level.
    iterations : tuple of int
        Most line searches of each level.
    bending_weight : float
        Weight of the mean squared second derivative, mm^2.
    stretch_weight : float
        Weight of the mean squared first derivative relative to the bending energy, mm^-2.
    estimate_shifts : bool
        Estimate one in-plane shift per acquired slice together with the deformation.
    shift_weight : float
        Weight of the sum of squared shifts, per mm^2.
    class_weights : tuple of (int, float)
        Weight of target labels in the consistency; 1 where not named.
    margin_mm : float
        In-plane reach of background around the labels that counts.
    background_slices : bool
        Treat slices without labels as background instead of unknown.
    tolerance : float
        A level ends when three iterations together gain less than this.
    folding_weight : float
        Weight of the penalty on strong local shrinking.
    folding_threshold : float
        Determinant of I + du/dx below which that penalty acts.
    minimum_jacobian : float
        Smallest determinant of I + du/dx that a level may leave behind.
    compositions : int
        Most further deformations to compose where the guard against folding holds one back: the map is
        frozen and registration goes on from rest on top of it.
    """

    spacings_mm: tuple[float, ...] = (64.0, 32.0, 16.0)
    strides: tuple[int, ...] = (2, 2, 1)
    iterations: tuple[int, ...] = (10, 10, 20)
    bending_weight: float = 3.0
    stretch_weight: float = 0.03
    estimate_shifts: bool = False
    shift_weight: float = 5e-5
    class_weights: tuple[tuple[int, float], ...] = ((RV_WALL, 2.0),)
    margin_mm: float = 12.0
    background_slices: bool = False
    tolerance: float = 1e-5
    folding_weight: float = 10.0
    folding_threshold: float = 0.3
    minimum_jacobian: float = 0.05
    compositions: int = 0

    def __post_init__(self) -> None:
        check_option_kinds(self)
        if not len(self.spacings_mm) == len(self.strides) == len(self.iterations) > 0:
            raise InvalidInputError(
                f"RegistrationOptions: {len(self.spacings_mm)} spacings, {len(self.strides)} strides, "
                f"{len(self.iterations)} iteration limits; needs one of each per level.",
                code="BAD_OPTION",
            )
        _check_numbers(self)
        spacings = np.array(self.spacings_mm)
        halved = np.allclose(spacings[:-1], 2 * spacings[1:])
        if not halved or min(self.spacings_mm) <= 0 or min(self.strides) < 1:
            raise InvalidInputError(
                f"RegistrationOptions: spacings {self.spacings_mm} mm, strides {self.strides}; each "
                "spacing must be half the one before and each stride at least 1.",
                code="BAD_OPTION",
            )

    @property
    def sampling(self) -> Sampling:
        """The options that say what of the target counts; a target is sampled by these alone."""
        return Sampling(self.class_weights, self.margin_mm, self.background_slices)

    @classmethod
    def dense(cls, finest_mm: float = 4.0) -> RegistrationOptions:
        """Return options for two dense label maps, where empty slices are background.

        The finer the last lattice, the closer the overlap and the longer it takes; the page
        ``docs/performance.md`` has both. A last level of 8 mm or less looks at every voxel; where it
        looked at every second one along each axis, it was farther away for nearly the same time.

        Parameters
        ----------
        finest_mm : float
            Control-point spacing of the last level; the first is the first doubling of it above 30 mm.
        """
        spacings = [float(finest_mm)]
        while spacings[0] <= 30.0 and len(spacings) < 16:
            spacings.insert(0, 2 * spacings[0])
        levels = len(spacings)
        return cls(
            spacings_mm=tuple(spacings),
            strides=(*(_stride(s, 5.0) for s in spacings[:-1]), _stride(spacings[-1], 8.0)),
            iterations=(10,) * (levels - 1) + (20,),
            bending_weight=0.003 * (finest_mm / 4) ** 4,
            class_weights=(),
            margin_mm=20.0,
            background_slices=True,
        )


def _stride(spacing_mm: float, whole_mm: float) -> int:
    """Voxels along each axis from one sample to the next: all of them up to a control-point spacing."""
    return 4 if spacing_mm > 15 else 2 if spacing_mm > whole_mm else 1


def _check_numbers(options: RegistrationOptions) -> None:
    names = (
        "bending_weight", "stretch_weight", "shift_weight", "folding_weight", "margin_mm", "tolerance",
    )  # fmt: skip
    bad = {n: getattr(options, n) for n in names if not 0 <= getattr(options, n) < float("inf")}
    if min(options.iterations) < 0:
        bad["iterations"] = options.iterations
    if not 0 <= options.minimum_jacobian < 1:
        bad["minimum_jacobian"] = options.minimum_jacobian
    weights = [weight for _, weight in options.class_weights]
    if not all(0 < weight < float("inf") for weight in weights):
        bad["class_weights"] = options.class_weights
    if not all(0 < spacing < _LARGEST_SPACING_MM for spacing in options.spacings_mm):
        bad["spacings_mm"] = options.spacings_mm
    if not 0 <= options.compositions <= _MOST_COMPOSITIONS:
        bad["compositions"] = options.compositions
    if bad:
        raise InvalidInputError(
            f"RegistrationOptions: {bad}; weights, margin, tolerance and iterations must not be "
            "negative, class weights and spacings positive and finite and "
            "minimum_jacobian in [0, 1).",
            code="BAD_OPTION",
        )
