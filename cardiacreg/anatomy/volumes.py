"""Volumes and masses of structures, and how measured ones agree with true ones.

A structure that is not there has no volume (None), not volume 0: it may lie outside the scan.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from cardiacreg.algebra import determinants
from cardiacreg.anatomy.label_presets import check_canonical
from cardiacreg.errors import InvalidInputError
from cardiacreg.geometry import LV_WALL, RV_WALL, STRUCTURES, LabelMap

MUSCLE_DENSITY_G_PER_ML = 1.05


class AgreementLimits(NamedTuple):
    """Bland-Altman agreement of paired measurements.

    Parameters
    ----------
    bias : float
        Mean of measured minus true.
    lower, upper : float
        Bias -/+ 1.96 standard deviations of the differences.
    """

    bias: float
    lower: float
    upper: float


def volumes_ml(labels: LabelMap) -> dict[str, float | None]:
    """Return the volume of every structure in ml, None for those that are not there.

    Parameters
    ----------
    labels : LabelMap
        Canonical labels; translate others first, with `read_segmentation` or `canonical_labels`.

    Returns
    -------
    dict
        Structure name to ml.

    Raises
    ------
    InvalidInputError
        If labels are not canonical by their values (UNEXPECTED_LABEL), or their anatomy contradicts
        that and fits a preset (WRONG_PRESET).

    Warns
    -----
    InputWarning
        If the anatomy contradicts canonical labels and fits no preset.

    Examples
    --------
    >>> from cardiacreg import volumes_ml
    >>> from cardiacreg.phantoms.toy_heart import make_toy_heart
    >>> round(volumes_ml(make_toy_heart().labels)["LV wall"])
    59
    """
    check_canonical(labels, "volumes_ml")
    return structure_volumes_ml(labels)


def structure_volumes_ml(labels: LabelMap) -> dict[str, float | None]:
    """Return volumes as `volumes_ml`, of labels that are known to be canonical.

    Parameters
    ----------
    labels : LabelMap

    Returns
    -------
    dict
        Structure name to ml.

    Examples
    --------
    >>> from cardiacreg import volumes_ml
    >>> from cardiacreg.phantoms.toy_heart import make_toy_heart
    >>> round(volumes_ml(make_toy_heart().labels)["LV cavity"], 1)
    31.8
    """
    counts = np.bincount(labels.array.ravel(), minlength=max(STRUCTURES) + 1)
    of_one = voxel_ml(labels)
    return {
        name: int(counts[label]) * of_one if counts[label] else None
        for label, name in STRUCTURES.items()
    }


def voxel_ml(labels: LabelMap) -> float:
    """Return the volume of one voxel in ml."""
    return abs(float(determinants(labels.voxel_to_world[:3, :3]))) / 1000


def masses_g(labels: LabelMap) -> dict[str, float | None]:
    """Return the mass of the two walls in g (1.05 g/ml), None for a wall that is not there.

    Parameters
    ----------
    labels : LabelMap
        Canonical labels.

    Returns
    -------
    dict
        Structure name to g, for LV wall and RV wall.

    Raises
    ------
    InvalidInputError
        As `volumes_ml`.

    Warns
    -----
    InputWarning
        As `volumes_ml`.

    Examples
    --------
    >>> from cardiacreg import masses_g
    >>> from cardiacreg.phantoms.toy_heart import make_toy_heart
    >>> {name: round(mass) for name, mass in masses_g(make_toy_heart().labels).items()}
    {'LV wall': 62, 'RV wall': 18}
    """
    check_canonical(labels, "masses_g")
    return structure_masses_g(labels)


def structure_masses_g(labels: LabelMap) -> dict[str, float | None]:
    """Return masses as `masses_g`, of labels that are known to be canonical.

    Parameters
    ----------
    labels : LabelMap

    Returns
    -------
    dict
        Structure name to g, for LV wall and RV wall.
    """
    volumes = structure_volumes_ml(labels)
    masses: dict[str, float | None] = {}
    for label in (LV_WALL, RV_WALL):
        volume = volumes[STRUCTURES[label]]
        masses[STRUCTURES[label]] = None if volume is None else MUSCLE_DENSITY_G_PER_ML * volume
    return masses


def limits_of_agreement(measured: ArrayLike, true: ArrayLike) -> AgreementLimits:
    """Return bias and 95 % limits of agreement (Bland and Altman) of paired measurements.

    Parameters
    ----------
    measured, true : array_like, shape (n,)
        Pairs in one unit, n at least 2; pairs with NaN are an error, not left out.

    Returns
    -------
    AgreementLimits
        In the unit of the measurements.

    Raises
    ------
    InvalidInputError
        If the shapes differ, fewer than 2 pairs are given, or a value is not finite (BAD_PAIRS).
    """
    a, b = np.asarray(measured, dtype=np.float64), np.asarray(true, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1 or len(a) < 2 or not np.isfinite([a, b]).all():
        raise InvalidInputError(
            f"limits_of_agreement: got shapes {a.shape} and {b.shape}; needs at least 2 pairs of "
            "finite numbers. Decide what a missing measurement means before comparing.",
            code="BAD_PAIRS",
        )
    difference = a - b
    bias, spread = float(difference.mean()), 1.96 * float(difference.std(ddof=1))
    return AgreementLimits(bias, bias - spread, bias + spread)
