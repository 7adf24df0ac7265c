"""How well two label maps of one heart agree, and how large its structures are.

All distances are in mm on the lattice of the maps. Structures that are empty follow one policy:
empty in both maps, overlap is 1 and distance 0; empty in one, overlap is 0 and distance is the
diagonal of the lattice, a large finite number, so that a missed structure never improves a mean.
"""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Integral, Real
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from cardiacreg.anatomy.topology import TopologyCounts, count_components, topology_counts
from cardiacreg.anatomy.volumes import (
    AgreementLimits,
    limits_of_agreement,
    masses_g,
    structure_masses_g,
    structure_volumes_ml,
    volumes_ml,
)
from cardiacreg.arrays import Float
from cardiacreg.errors import InvalidInputError, check_argument
from cardiacreg.geometry import LV_WALL, RV_WALL, STRUCTURES, LabelMap, same_lattice
from cardiacreg.metrics.surfaces import Mask, border_points_mm, nearest_mm, surface_elements

__all__ = [
    "AgreementLimits",
    "SlicewiseHausdorff",
    "TopologyCounts",
    "average_surface_distance_mm",
    "compare",
    "count_components",
    "dice",
    "hausdorff95_mm",
    "hausdorff_mm",
    "hausdorff_slicewise_mm",
    "limits_of_agreement",
    "masses_g",
    "normalized_surface_dice",
    "topology_counts",
    "volumes_ml",
]


class SlicewiseHausdorff(NamedTuple):
    """Hausdorff distances of outlines, slice by slice.

    Parameters
    ----------
    mean_mm, max_mm : float
        Mean and largest over the slices used.
    n_used : int
        Slices in which both maps show the structure.
    n_skipped : int
        Slices in which only one does; they do not enter the mean.
    """

    mean_mm: float
    max_mm: float
    n_used: int
    n_skipped: int


def dice(first: LabelMap, second: LabelMap, label: int | None = None) -> float:
    """Return the Dice overlap of a structure, 0 to 1.

    Parameters
    ----------
    first, second : LabelMap
        On one lattice.
    label : int, optional
        The structure; all labels together when absent.

    Returns
    -------
    float
        ``2 |A and B| / (|A| + |B|)``; 1 if the structure is in neither map.

    Raises
    ------
    InvalidInputError
        If the lattices differ (LATTICE_MISMATCH).

    Examples
    --------
    >>> import numpy as np
    >>> from cardiacreg import LabelMap
    >>> from cardiacreg.metrics.overlap import dice
    >>> first = LabelMap(np.array([[[1, 1, 0]]]), np.eye(4))
    >>> second = LabelMap(np.array([[[0, 1, 0]]]), np.eye(4))
    >>> round(dice(first, second, 1), 3)
    0.667
    """
    check_argument(first, LabelMap, "dice: first")
    check_argument(second, LabelMap, "dice: second")
    a, b = _masks(first, second, label)
    total = int(np.count_nonzero(a)) + int(np.count_nonzero(b))
    return 2 * int(np.count_nonzero(a & b)) / total if total else 1.0


def hausdorff_mm(first: LabelMap, second: LabelMap, label: int | None = None) -> float:
    """Return the Hausdorff distance between the borders of a structure in mm.

    Parameters
    ----------
    first, second : LabelMap
        On one lattice.
    label : int, optional
        The structure; all labels together when absent.

    Returns
    -------
    float
        The largest distance from a border voxel of either map to the nearest of the other.

    Raises
    ------
    InvalidInputError
        If the lattices differ (LATTICE_MISMATCH).

    Examples
    --------
    >>> from cardiacreg import hausdorff_mm
    >>> from cardiacreg.phantoms.toy_heart import make_toy_heart
    >>> round(hausdorff_mm(make_toy_heart(size=0.9).labels, make_toy_heart().labels, 1), 1)
    5.6
    """
    check_argument(first, LabelMap, "hausdorff_mm: first")
    check_argument(second, LabelMap, "hausdorff_mm: second")
    return _percentile_distance_mm(first, second, label, 100.0)


def hausdorff95_mm(first: LabelMap, second: LabelMap, label: int | None = None) -> float:
    """Return the 95 % Hausdorff distance of a structure in mm, as MONAI with spacing.

    Parameters
    ----------
    first, second : LabelMap
        On one lattice.
    label : int, optional
        The structure; all labels together when absent.

    Returns
    -------
    float
        The larger of the two directed 95th percentiles over border voxels (not the percentile of
        both pooled, as medpy).

    Raises
    ------
    InvalidInputError
        If the lattices differ (LATTICE_MISMATCH).

    Examples
    --------
    >>> from cardiacreg import hausdorff95_mm
    >>> from cardiacreg.phantoms.toy_heart import make_toy_heart
    >>> round(hausdorff95_mm(make_toy_heart(size=0.9).labels, make_toy_heart().labels, 1), 1)
    3.5
    """
    check_argument(first, LabelMap, "hausdorff95_mm: first")
    check_argument(second, LabelMap, "hausdorff95_mm: second")
    return _percentile_distance_mm(first, second, label, 95.0)


def average_surface_distance_mm(
    first: LabelMap, second: LabelMap, label: int | None = None
) -> float:
    """Return the average symmetric surface distance of a structure in mm.

    Parameters
    ----------
    first, second : LabelMap
        On one lattice.
    label : int, optional
        The structure; all labels together when absent.

    Returns
    -------
    float
        Mean over the border voxels of both maps of the distance to the nearest of the other.

    Raises
    ------
    InvalidInputError
        If the lattices differ (LATTICE_MISMATCH).

    Examples
    --------
    >>> from cardiacreg import average_surface_distance_mm
    >>> from cardiacreg.phantoms.toy_heart import make_toy_heart
    >>> round(average_surface_distance_mm(make_toy_heart(size=0.9).labels, make_toy_heart().labels, 1), 1)
    1.2
    """
    check_argument(first, LabelMap, "average_surface_distance_mm: first")
    check_argument(second, LabelMap, "average_surface_distance_mm: second")
    a, b = _masks(first, second, label)
    return _pooled_mean(_directed_distances(a, b, first.spacing_mm))


def normalized_surface_dice(
    first: LabelMap, second: LabelMap, label: int | None = None, *, tolerance_mm: float = 2.0
) -> float:
    """Return the share of the surface of a structure within a tolerance of the other, 0 to 1.

    Parameters
    ----------
    first, second : LabelMap
        On one lattice.
    label : int, optional
        The structure; all labels together when absent.
    tolerance_mm : float
        Distance that counts as agreement.

    Returns
    -------
    float
        Area within the tolerance over all area, both surfaces together; surface elements as in
        DeepMind's surface-distance. 1 if the structure is in neither map.

    Raises
    ------
    InvalidInputError
        If the lattices differ (LATTICE_MISMATCH) or the tolerance is negative (BAD_OPTION).

    Examples
    --------
    >>> from cardiacreg import normalized_surface_dice
    >>> from cardiacreg.phantoms.toy_heart import make_toy_heart
    >>> first, second = make_toy_heart(size=0.9).labels, make_toy_heart().labels
    >>> round(normalized_surface_dice(first, second, 1, tolerance_mm=3.0), 2)
    0.97
    """
    check_argument(first, LabelMap, "normalized_surface_dice: first")
    check_argument(second, LabelMap, "normalized_surface_dice: second")
    check_argument(tolerance_mm, Real, "normalized_surface_dice: tolerance_mm")
    if not tolerance_mm >= 0:
        raise InvalidInputError(
            f"normalized_surface_dice: tolerance_mm {tolerance_mm}; needs 0 or more.",
            code="BAD_OPTION",
        )
    a, b = _masks(first, second, label)
    one, two = surface_elements(a, first.spacing_mm), surface_elements(b, first.spacing_mm)
    if not len(one.points_mm) or not len(two.points_mm):
        return float(len(one.points_mm) == len(two.points_mm))
    near_two = nearest_mm(one.points_mm, two.points_mm) <= tolerance_mm
    near_one = nearest_mm(two.points_mm, one.points_mm) <= tolerance_mm
    within = one.areas_mm2[near_two].sum() + two.areas_mm2[near_one].sum()
    return float(within / (one.areas_mm2.sum() + two.areas_mm2.sum()))


def hausdorff_slicewise_mm(
    first: LabelMap, second: LabelMap, label: int | None = None
) -> SlicewiseHausdorff:
    """Return the Hausdorff distance of a structure's outer outlines per slice, as Bai et al. 2018.

    Holes are filled, so the LV wall is measured by its epicardial outline; nothing across slices is
    seen. This is the definition that the numbers of Duan et al. 2019 fit.

    Parameters
    ----------
    first, second : LabelMap
        On one lattice, slices along k.
    label : int, optional
        The structure; all labels together when absent.

    Returns
    -------
    SlicewiseHausdorff
        Mean and largest over slices, in mm, and how many slices were used and skipped.

    Raises
    ------
    InvalidInputError
        If the lattices differ (LATTICE_MISMATCH).

    Examples
    --------
    >>> from cardiacreg import hausdorff_slicewise_mm
    >>> from cardiacreg.phantoms.toy_heart import make_toy_heart
    >>> found = hausdorff_slicewise_mm(make_toy_heart(size=0.9).labels, make_toy_heart().labels, 1)
    >>> round(found.mean_mm, 1), found.n_used
    (3.3, 5)
    """
    check_argument(first, LabelMap, "hausdorff_slicewise_mm: first")
    check_argument(second, LabelMap, "hausdorff_slicewise_mm: second")
    a, b = _masks(first, second, label)
    in_a, in_b = a.any(axis=(0, 1)), b.any(axis=(0, 1))
    spacing = first.spacing_mm[:2]
    distances = [
        _outline_distance_mm(a[:, :, k], b[:, :, k], spacing) for k in np.flatnonzero(in_a & in_b)
    ]
    n_skipped = int((in_a ^ in_b).sum())
    if not distances:
        empty = 0.0 if n_skipped == 0 else _diagonal_mm(first.shape, first.spacing_mm)
        return SlicewiseHausdorff(empty, empty, 0, n_skipped)
    return SlicewiseHausdorff(float(np.mean(distances)), max(distances), len(distances), n_skipped)


def compare(
    labels: LabelMap,
    truth: LabelMap,
    *,
    structures: Iterable[int] | None = None,
    tolerance_mm: float = 2.0,
) -> dict[str, dict[str, float | int | bool | None]]:
    """Compare a label map with the truth, structure by structure.

    Parameters
    ----------
    labels, truth : LabelMap
        Canonical labels on one lattice, slices along k.
    structures : iterable of int, optional
        Canonical labels to compare; all that occur in either map when absent.
    tolerance_mm : float
        Tolerance of the normalized surface Dice.

    Returns
    -------
    dict
        Structure name to its figures: ``dice``, ``hausdorff_mm``, ``hausdorff95_mm``,
        ``average_surface_distance_mm``, ``normalized_surface_dice``, ``hausdorff_slicewise_mm`` and
        ``hausdorff_slicewise_max_mm`` with ``n_slices_used`` and ``n_slices_skipped``,
        ``volume_ml``, ``true_volume_ml`` and ``volume_error_ml`` (None where a map lacks it),
        for walls also ``mass_g``, ``true_mass_g`` and ``mass_error_g``, ``n_components``,
        ``n_holes``, and ``missed``: whether it is in one map only.

    Raises
    ------
    InvalidInputError
        If the lattices differ (LATTICE_MISMATCH) or a structure is not canonical (BAD_OPTION).

    Examples
    --------
    >>> from cardiacreg import compare
    >>> from cardiacreg.phantoms.toy_heart import make_toy_heart
    >>> figures = compare(make_toy_heart(size=0.9).labels, make_toy_heart().labels)
    >>> round(figures["LV wall"]["dice"], 2), round(figures["LV wall"]["mass_error_g"], 1)
    (0.69, -15.5)
    """
    check_argument(labels, LabelMap, "compare: labels")
    check_argument(truth, LabelMap, "compare: truth")
    _masks(labels, truth, None)
    occurring = set(labels.present()) | set(truth.present())
    wanted = sorted(occurring & set(STRUCTURES)) if structures is None else list(structures)
    unknown = [label for label in wanted if label not in STRUCTURES]
    if unknown:
        raise InvalidInputError(
            f"compare: structures {unknown}; needs canonical labels {list(STRUCTURES)}.",
            code="BAD_OPTION",
        )
    return {STRUCTURES[label]: _figures(labels, truth, label, tolerance_mm) for label in wanted}


def _figures(
    labels: LabelMap, truth: LabelMap, label: int, tolerance_mm: float
) -> dict[str, float | int | bool | None]:
    ours, true = _masks(labels, truth, label)
    distances = _directed_distances(ours, true, labels.spacing_mm)
    slicewise = hausdorff_slicewise_mm(labels, truth, label)
    topology = topology_counts(labels, label)
    return {
        "dice": dice(labels, truth, label),
        "hausdorff_mm": _larger_percentile(distances, 100.0),
        "hausdorff95_mm": _larger_percentile(distances, 95.0),
        "average_surface_distance_mm": _pooled_mean(distances),
        "normalized_surface_dice": normalized_surface_dice(
            labels, truth, label, tolerance_mm=tolerance_mm
        ),
        "hausdorff_slicewise_mm": slicewise.mean_mm,
        "hausdorff_slicewise_max_mm": slicewise.max_mm,
        "n_slices_used": slicewise.n_used,
        "n_slices_skipped": slicewise.n_skipped,
        **_sizes(labels, truth, label),
        "n_components": topology.components,
        "n_holes": topology.holes,
        "missed": bool(ours.any() != true.any()),
    }


def _sizes(labels: LabelMap, truth: LabelMap, label: int) -> dict[str, float | None]:
    name = STRUCTURES[label]
    ours, true = (structure_volumes_ml(each)[name] for each in (labels, truth))
    sizes = _with_error("volume", "ml", ours, true)
    if label in (LV_WALL, RV_WALL):
        ours, true = (structure_masses_g(each)[name] for each in (labels, truth))
        sizes |= _with_error("mass", "g", ours, true)
    return sizes


def _with_error(
    what: str, unit: str, ours: float | None, true: float | None
) -> dict[str, float | None]:
    error = None if ours is None or true is None else ours - true
    return {f"{what}_{unit}": ours, f"true_{what}_{unit}": true, f"{what}_error_{unit}": error}


def _outline_distance_mm(first: Mask, second: Mask, spacing_mm: Float) -> float:
    a = border_points_mm(ndimage.binary_fill_holes(first), spacing_mm)
    b = border_points_mm(ndimage.binary_fill_holes(second), spacing_mm)
    return float(max(nearest_mm(a, b).max(), nearest_mm(b, a).max()))


def _masks(first: LabelMap, second: LabelMap, label: int | None) -> tuple[Mask, Mask]:
    check_argument(label, (Integral, type(None)), "metrics: label")
    if not same_lattice(first, second):
        raise InvalidInputError(
            f"metrics: the lattices of the maps differ (shapes {first.shape} and {second.shape}, "
            f"spacing {first.spacing_mm.round(3)} and {second.spacing_mm.round(3)} mm); resample "
            "one onto the other with nearest neighbour first.",
            code="LATTICE_MISMATCH",
        )
    return _mask(first, label), _mask(second, label)


def _mask(labels: LabelMap, label: int | None) -> Mask:
    return np.asarray(labels.array > 0 if label is None else labels.array == label)


class _Distances(NamedTuple):
    """Distances of each border voxel of one map to the other, both ways."""

    to_second_mm: Float
    to_first_mm: Float


def _directed_distances(first: Mask, second: Mask, spacing_mm: Float) -> _Distances:
    a, b = border_points_mm(first, spacing_mm), border_points_mm(second, spacing_mm)
    if len(a) and len(b):
        return _Distances(nearest_mm(a, b), nearest_mm(b, a))
    distance = 0.0 if len(a) == len(b) else _diagonal_mm(first.shape, spacing_mm)
    return _Distances(np.array([distance]), np.array([distance]))


def _diagonal_mm(shape: tuple[int, ...], spacing_mm: Float) -> float:
    return float(np.linalg.norm(np.array(shape) * spacing_mm))


def _percentile_distance_mm(
    first: LabelMap, second: LabelMap, label: int | None, percentile: float
) -> float:
    a, b = _masks(first, second, label)
    return _larger_percentile(_directed_distances(a, b, first.spacing_mm), percentile)


def _larger_percentile(distances: _Distances, percentile: float) -> float:
    return max(float(np.percentile(directed, percentile)) for directed in distances)


def _pooled_mean(distances: _Distances) -> float:
    return float(np.concatenate(distances).mean())
