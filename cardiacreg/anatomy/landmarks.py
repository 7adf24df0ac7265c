"""The six landmarks of the paper (Fig. 3), derived from a segmentation by one rule for all hearts.

In order: I anterior RV insertion, II RV lateral-wall turning point, III inferior RV insertion, IV LV
lateral-wall mid-point, V apex, VI mitral valve centre. The paper's network predicts them; when they are
absent this rule stands in. It uses what inter-slice shifts and missing slices disturb least: the LV's
long axis is a straight line fitted to slice centres, the apex is where the epicardial area extrapolates
to zero, and the mid-ventricular points are averages of several slices relative to the LV centre.
Anterior is the side of ``long axis (apex to base) x direction from LV to RV`` in a right-handed world.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cardiacreg.algebra import invert, length, multiply, settled
from cardiacreg.anatomy.label_presets import check_canonical
from cardiacreg.arrays import Float
from cardiacreg.errors import InvalidInputError, check_argument, warn
from cardiacreg.geometry import (
    LANDMARK_NAMES,
    LV_CAVITY,
    LV_WALL,
    RV_CAVITY,
    RV_WALL,
    LabelMap,
    Landmarks,
    apply_matrix,
)
from cardiacreg.slices import lattice_axes

_APEX_FIT_SHARE = 0.8
_FARTHEST_APEX_STEPS = 2.5
_FARTHEST_APEX_MM = 12.0
_CONTACT_MM = 5.0
_MID_RANGE = (0.35, 0.7)


class _Profile(NamedTuple):
    """Per-slice measures along the lattice's axes in mm, slices ordered from apex to base."""

    height_mm: Float
    centre_mm: Float
    area_mm2: Float
    cavity_mm2: Float
    slices: NDArray[np.int64]


def landmarks_from_labels(labels: LabelMap, *, base_at_last_slice: bool | None = None) -> Landmarks:
    """Derive the paper's six landmarks from canonical labels.

    Parameters
    ----------
    labels : LabelMap
        1 LV cavity, 2 LV wall, 3 RV wall (optional), 4 RV cavity; thick or thin slices.
    base_at_last_slice : bool, optional
        Which end of the stack is the base; found from the growth of areas when absent.

    Returns
    -------
    Landmarks
        Six points in world mm, ``source="labels"``.

    Raises
    ------
    InvalidInputError
        If fewer than 3 slices show the LV (TOO_FEW_SLICES), or the labels are not canonical
        (UNEXPECTED_LABEL, WRONG_PRESET).

    Warns
    -----
    InputWarning
        If there is no RV: its direction is then taken as the patient's right-anterior; if the labels
        make no heart under any preset.

    Examples
    --------
    >>> from cardiacreg import landmarks_from_labels
    >>> from cardiacreg.phantoms.toy_heart import make_toy_heart
    >>> landmarks = landmarks_from_labels(make_toy_heart().labels)
    >>> landmarks.names[4], landmarks.points_mm[4].round()
    ('apex', array([ 10.,   0., -29.]))
    """
    check_argument(labels, LabelMap, "landmarks_from_labels: labels")
    check_canonical(labels, "landmarks_from_labels")
    return derive_landmarks(labels, base_at_last_slice=base_at_last_slice)


def derive_landmarks(labels: LabelMap, *, base_at_last_slice: bool | None = None) -> Landmarks:
    """Derive landmarks as `landmarks_from_labels` does, from labels that were checked before.

    Parameters
    ----------
    labels, base_at_last_slice : as for `landmarks_from_labels`

    Returns
    -------
    Landmarks

    Raises
    ------
    InvalidInputError
        If fewer than 3 slices show the LV (TOO_FEW_SLICES).

    Warns
    -----
    InputWarning
        If there is no RV.
    """
    present = np.isin(labels.array, (LV_CAVITY, LV_WALL))
    if int(present.any(axis=(0, 1)).sum()) < 3:
        raise InvalidInputError(
            f"landmarks_from_labels: the LV is labelled in {int(present.any(axis=(0, 1)).sum())} "
            "slices; needs at least 3. Check the preset, or give landmarks.",
            code="TOO_FEW_SLICES",
        )
    if base_at_last_slice is None:
        base_at_last_slice = _area_growth(labels, present) >= 0
    sign = 1.0 if base_at_last_slice else -1.0
    profile = _measure(labels, present, sign)
    axes = lattice_axes(labels.voxel_to_world)
    axis_point, axis_slope = _long_axis(profile)
    apex_height = _apex_height(profile)
    base_height = _base_height(profile, labels.spacing_mm[2])
    rv_direction = _rv_direction(labels, profile, axes)
    middle = _middle_points(labels, profile, rv_direction, axes, (apex_height, base_height))
    points = np.empty((6, 3))
    for row, height in ((4, apex_height), (5, base_height)):
        points[row] = [*(axis_point + axis_slope * height), height]
    mid_height = apex_height + 0.5 * (base_height - apex_height)
    mid_centre = np.array([*(axis_point + axis_slope * mid_height), mid_height])
    points[:4] = mid_centre + np.column_stack([middle, np.zeros(4)])
    points[:, 2] *= sign
    return Landmarks(settled(apply_matrix(axes, points)), source="labels")


def base_is_at_last_slice(labels: LabelMap) -> bool:
    """Return whether the base lies towards large k, by the growth of the ventricles' areas."""
    return _area_growth(labels, np.isin(labels.array, (LV_CAVITY, LV_WALL))) >= 0


def base_by_landmarks(labels: LabelMap, landmarks: Landmarks) -> bool:
    """Return whether the base lies towards large k: from apex to mitral valve, by areas without these.

    Parameters
    ----------
    labels : LabelMap
    landmarks : Landmarks
        In any number; those of the paper are told by their names.
    """
    ends = LANDMARK_NAMES[4:6]
    if not set(ends) <= set(landmarks.names):
        return base_is_at_last_slice(labels)
    apex, mitral = (landmarks.points_mm[landmarks.names.index(name)] for name in ends)
    rise = multiply(invert(labels.voxel_to_world)[2, :3], mitral - apex)
    return bool(rise > 0)


def base_is_uncertain(labels: LabelMap) -> bool:
    """Return whether a stack's areas and its share of wall disagree about which end is the base.

    Areas grow towards the base; the apex is mostly wall. In short stacks whose basal slice the tilted
    valve plane cuts, the areas alone can mislead.
    """
    present = np.isin(labels.array, (LV_CAVITY, LV_WALL))
    left = present.sum(axis=(0, 1)).astype(np.float64)
    wall = left - (labels.array == LV_CAVITY).sum(axis=(0, 1))
    slices = np.flatnonzero(left)
    end = max(1, len(slices) // 4)
    first, last = (wall[part].sum() / left[part].sum() for part in (slices[:end], slices[-end:]))
    return bool((first - last) * _area_growth(labels, present) <= 0)


def _area_growth(labels: LabelMap, present: NDArray[np.bool_]) -> float:
    """Above 0 if the areas of LV, LV cavity and RV grow towards large k.

    Only slices that show both ventricles count: an outflow tract narrows away from the base.
    """
    k = np.arange(labels.shape[2], dtype=np.float64)
    left = present.sum(axis=(0, 1)).astype(np.float64)
    inside = left > 0
    both = inside & _rv(labels).any(axis=(0, 1))
    inside = both if both.sum() > 1 else inside
    growth = 0.0
    for area in (left, (labels.array == LV_CAVITY).sum(axis=(0, 1)), _rv(labels).sum(axis=(0, 1))):
        area = area[inside].astype(np.float64)
        if area.sum() > 0:
            growth += float(np.average(k[inside], weights=area) - k[inside].mean())
    return growth


def _rv(labels: LabelMap) -> NDArray[np.bool_]:
    return np.isin(labels.array, (RV_CAVITY, RV_WALL))


def _measure(labels: LabelMap, present: NDArray[np.bool_], sign: float) -> _Profile:
    spacing = labels.spacing_mm
    index = np.flatnonzero(present.any(axis=(0, 1)))
    index = index if sign > 0 else index[::-1]
    centres, areas, cavities = [], [], []
    for k in index:
        left = present[:, :, k]
        where = np.argwhere(left)
        areas.append(len(where) * spacing[0] * spacing[1])
        centres.append(where.mean(axis=0) * spacing[:2])
        cavities.append((labels.array[:, :, k] == LV_CAVITY).sum() * spacing[0] * spacing[1])
    return _Profile(
        sign * index * spacing[2], np.array(centres), np.array(areas), np.array(cavities), index
    )


def _long_axis(profile: _Profile) -> tuple[Float, Float]:
    """Fit centre = point + slope * height, slices weighted by area (small ones are uncertain)."""
    weight = np.sqrt(profile.area_mm2 / profile.area_mm2.max())
    design = np.column_stack([np.ones_like(profile.height_mm), profile.height_mm])
    fit, *_ = np.linalg.lstsq(
        design * weight[:, None], profile.centre_mm * weight[:, None], rcond=None
    )
    return settled(fit[0]), settled(fit[1])


def _apex_height(profile: _Profile) -> float:
    """Height at which the LV's outer area reaches zero.

    The area of an ellipsoid's slices is a parabola in height: it is fitted to the apical part of the
    LV and extrapolated below the lowest slice, which makes up for a lost apical slice.
    """
    height, area = profile.height_mm - profile.height_mm[0], profile.area_mm2
    step = float(np.abs(np.diff(height)).min())
    near = height <= _APEX_FIT_SHARE * height[-1]
    near[:4] = True
    root = _lower_root(
        np.polynomial.Polynomial.fit(height[near], area[near], 2 if near.sum() > 3 else 1)
    )
    root = float(settled(root))
    lowest = -max(_FARTHEST_APEX_STEPS * step, _FARTHEST_APEX_MM)
    return float(profile.height_mm[0] + np.clip(root, lowest, -min(step, 1.0) / 2))


def _lower_root(area: np.polynomial.Polynomial) -> float:
    """Where a rising area was last zero below its first slice; the tangent's root if it never was."""
    roots = area.roots()
    real = roots[np.isreal(roots)].real
    below = real[real < 5.0]
    if area.deriv(2)(0.0) < 0 and len(below):
        return float(below.max())
    slope = float(area.deriv()(0.0))
    return -float(area(0.0)) / slope if slope > 0 else 0.0


def _base_height(profile: _Profile, thickness_mm: float) -> float:
    """Height up to which the LV cavity reaches; a slice cut by the tilted valve plane counts in part.

    Slices above mid-height count with their cavity's share of the usual area there, so that a basal
    slice with few cavity pixels does not lift the base by its whole thickness.
    """
    area, height = profile.cavity_mm2, profile.height_mm
    if not area.any():
        return float(height[-1] + thickness_mm / 2)
    middle = int(np.argmax(area))
    upper = area[middle:]
    usual = 0.85 * float(np.median(upper[upper > 0.3 * upper[0]]))
    share = np.minimum(1.0, upper[1:] / usual)
    return float(height[middle] + thickness_mm * (0.5 + share.sum()))


def _rv_direction(labels: LabelMap, profile: _Profile, axes: Float) -> Float:
    """Unit in-plane vector from the LV centre to the RV, averaged over profile."""
    right = _rv(labels)
    total = np.zeros(2)
    for k, centre in zip(profile.slices, profile.centre_mm, strict=True):
        where = np.argwhere(right[:, :, k])
        if len(where):
            offset = where.mean(axis=0) * labels.spacing_mm[:2] - centre
            total += len(where) * offset / max(length(offset), 1e-9)
    if not total.any():
        warn(
            "landmarks_from_labels: no RV is labelled; its side is assumed to be the patient's "
            "right-anterior. Give landmarks if the heart is turned.",
            stacklevel=3,
        )
        total = multiply(axes[:3, :3].T, np.array([-1.0, 1.0, 0.0]))[:2]
        total = total if length(total) > 1e-6 else np.array([-1.0, 0.0])
    return np.asarray(total / length(total))


def _middle_points(
    labels: LabelMap,
    profile: _Profile,
    rv_direction: Float,
    axes: Float,
    ends_mm: tuple[float, float],
) -> Float:
    """Landmarks I to IV relative to the LV centre in-plane, averaged over mid-ventricular profile."""
    relative = (profile.height_mm - ends_mm[0]) / (ends_mm[1] - ends_mm[0])
    chosen = (relative >= _MID_RANGE[0]) & (relative <= _MID_RANGE[1])
    if not chosen.any():
        chosen[np.argmin(np.abs(relative - 0.5))] = True
    anterior = _anterior_direction(labels, profile, rv_direction, axes)
    axes = np.array([rv_direction, anterior])
    found = [
        points
        for n in np.flatnonzero(chosen)
        if (points := _slice_points(labels, int(profile.slices[n]), profile.centre_mm[n], axes))
        is not None
    ]
    if not found:
        radius = float(np.sqrt(np.median(profile.area_mm2) / np.pi))
        found = [radius * np.array([[0.5, 0.85], [1.6, 0.0], [0.5, -0.85], [-1.0, 0.0]])]
    return np.asarray(multiply(np.mean(found, axis=0), axes))


def _anterior_direction(
    labels: LabelMap, profile: _Profile, rv_direction: Float, axes: Float
) -> Float:
    """In-plane unit vector, perpendicular to the RV direction, on the anterior side."""
    side = np.array([-rv_direction[1], rv_direction[0], 0.0])
    up = axes[:3, 2] * np.sign(profile.slices[-1] - profile.slices[0])
    anterior = np.cross(up, multiply(axes[:3, :3], np.array([*rv_direction, 0.0])))
    return np.asarray(side[:2] * np.sign(multiply(axes[:3, :3], side, anterior)))


def _polar(points: Float) -> tuple[Float, Float]:
    """Angles and radii of points of the plane."""
    return settled(np.arctan2(points[:, 1], points[:, 0])), np.sqrt((points**2).sum(axis=1))


def _slice_points(labels: LabelMap, k: int, centre: Float, axes: Float) -> Float | None:
    """Landmarks I to IV of one slice along (RV direction, anterior), relative to the LV centre."""
    spacing = labels.spacing_mm[:2]
    plane = labels.array[:, :, k]
    right = multiply(np.argwhere(np.isin(plane, (RV_CAVITY, RV_WALL))) * spacing - centre, axes.T)
    left = multiply(np.argwhere(np.isin(plane, (LV_CAVITY, LV_WALL))) * spacing - centre, axes.T)
    if len(right) < 20 or len(left) < 20:
        return None
    angle, radius = _polar(left)
    bins = np.linspace(-np.pi, np.pi, 73)
    edge = np.zeros(72)
    np.maximum.at(edge, np.clip(np.digitize(angle, bins) - 1, 0, 71), radius)
    right_angle, right_radius = _polar(right)
    right_edge = edge[np.clip(np.digitize(right_angle, bins) - 1, 0, 71)]
    contact = right_angle[right_radius <= right_edge + _CONTACT_MM]
    if len(contact) < 3:
        return None
    ends = (np.quantile(contact, 0.98), np.quantile(contact, 0.02))
    mean_radius = float(edge[edge > 0].mean())
    insertions = [mean_radius * np.array([np.cos(a), np.sin(a)]) for a in ends]
    turning = right[right[:, 0] >= np.quantile(right[:, 0], 0.98)].mean(axis=0)
    lateral = np.array([-float(np.quantile(-left[:, 0], 0.99)), 0.0])
    return np.array([insertions[0], turning, insertions[1], lateral])
