"""What a label map shows, and whether it can be a heart when its values mean certain structures.

The LV wall must enclose the LV cavity and not the RV cavity; the RV cavity lies beside the LV, touches
its wall and never its cavity; a scar is a part of the wall. Every test is a measured share or distance,
which the message tells. The limits come from the 200 maps of ACDC: there the wall covers all of the LV
cavity's mid-slice outline and 18 to 46 % of the RV cavity's, which never touches the LV cavity; the RV
cavity has at least 6 % of the LV's volume, and its far side (90th percentile) lies at least 1.1 LV radii
from the LV's centre, in one map 1.05. Its area is at most 23 squares of its largest inscribed radius;
that of an RV wall is at least 50 in the synthetic hearts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cardiacreg.geometry import LV_CAVITY, LV_WALL, RV_CAVITY, RV_WALL, LabelMap
from cardiacreg.slices import within_slices

Roles = tuple[int, ...]
"""Canonical label of each value present, 0 for what is to be ignored."""

LEAST_LV_ENCLOSED = 0.70
MOST_RV_ENCLOSED = 0.60
MOST_RV_ON_CAVITY = 0.05
LEAST_RV_SHARE = 0.03
LEAST_RV_REACH = 1.02
DOUBTFUL_RV_REACH = 1.1
DOUBTFUL_RV_ENCLOSED = 0.50
DOUBTFUL_RV_SLENDERNESS = 36.0
_SHORTEST_OUTLINE = 12
_LEAST_HOLE = 0.05


@dataclass(frozen=True)
class Sight:
    """What a label map shows, whatever its values mean.

    Parameters
    ----------
    labels : LabelMap
        Numbers as stored, or codes for them.
    numbers : tuple of int
        Those that occur, ascending; roles are given in this order.
    """

    labels: LabelMap
    numbers: tuple[int, ...]

    @classmethod
    def of(cls, labels: LabelMap) -> Sight:
        """Look at the labelled part of a map."""
        labels = within_slices(labels)
        return cls(labels, labels.present())

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """Voxels of each number."""
        found = np.bincount(self.labels.array.ravel(), minlength=256)
        return np.asarray(found[list(self.numbers)], dtype=np.int64)

    @cached_property
    def contacts(self) -> NDArray[np.int64]:
        """In-plane neighbour pairs of different numbers per slice, shape (k, 1 + n, 1 + n).

        Row and column 0 stand for background, n for the n-th number.
        """
        return _slice_contacts(self.labels.array, self.numbers)

    def mask(self, roles: Roles, *wanted: int) -> NDArray[np.bool_]:
        """Return where any of some structures is, under the given roles."""
        table = np.zeros(256, dtype=bool)
        table[[n for n, role in zip(self.numbers, roles, strict=True) if role in wanted]] = True
        return np.asarray(table[self.labels.array])

    def volume(self, roles: Roles, *wanted: int) -> int:
        """Return the voxels of some structures."""
        return int(sum(n for n, role in zip(self.counts, roles, strict=True) if role in wanted))

    def share_of_outline(self, inner: NDArray[np.bool_], outer: NDArray[np.bool_]) -> float | None:
        """Return which share of a structure's mid-slice outline touches another; None when too short.

        Parameters
        ----------
        inner, outer : ndarray of bool, shape (1 + n,)
            Background and the numbers that belong to each.
        """
        outline = self.contacts[:, inner][:, :, ~inner].sum(axis=(1, 2))
        touching = self.contacts[:, inner][:, :, outer].sum(axis=(1, 2))
        slices = _middle(np.flatnonzero(outline))
        length = int(outline[slices].sum())
        return float(touching[slices].sum() / length) if length >= _SHORTEST_OUTLINE else None

    def reach(self, region: NDArray[np.bool_], roles: Roles) -> float | None:
        """Return how far a region reaches from the LV cavity's centre, in radii of the LV wall.

        The 90th percentile over its pixels in the middle slices; None where no slice shows all.
        """
        cavity, wall = self.mask(roles, LV_CAVITY), self.mask(roles, LV_WALL) & ~region
        shown = [mask.any(axis=(0, 1)) for mask in (region, cavity, wall)]
        found = [
            _distances(region[:, :, k], cavity[:, :, k], self.labels.spacing_mm)
            / np.percentile(_distances(wall[:, :, k], cavity[:, :, k], self.labels.spacing_mm), 95)
            for k in _middle(np.flatnonzero(np.logical_and.reduce(shown)))
        ]
        return float(np.percentile(np.concatenate(found), 90)) if found else None

    def slenderness(self, region: NDArray[np.bool_]) -> float:
        """Return how long and thin a region is: area by the square of its largest inscribed radius.

        The median over its middle slices; 3 for a disc, 0 for nothing.
        """
        cell_mm2 = float(np.prod(self.labels.spacing_mm[:2]))
        found = []
        for k in _middle(np.flatnonzero(region.any(axis=(0, 1)))):
            (box,) = ndimage.find_objects(region[:, :, k].astype(np.uint8))
            plane = np.pad(region[:, :, k][box], 1)
            depth = ndimage.distance_transform_edt(plane, sampling=self.labels.spacing_mm[:2])
            found.append(plane.sum() * cell_mm2 / depth.max() ** 2)
        return float(np.median(found)) if found else 0.0


def _middle(slices: NDArray[np.int64]) -> NDArray[np.int64]:
    return slices[len(slices) // 4 : len(slices) - len(slices) // 4]


def _distances(
    region: NDArray[np.bool_], cavity: NDArray[np.bool_], spacing_mm: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return how far a region's pixels lie from a cavity's centre, mm."""
    away = (np.argwhere(region) - np.argwhere(cavity).mean(axis=0)) * spacing_mm[:2]
    return np.asarray(np.maximum(np.hypot(away[:, 0], away[:, 1]), 1e-6), dtype=np.float64)


def _slice_contacts(array: NDArray[np.uint8], numbers: tuple[int, ...]) -> NDArray[np.int64]:
    n = len(numbers) + 1
    index = np.zeros(256, dtype=np.int64)
    index[list(numbers)] = np.arange(1, n)
    counts = np.zeros((array.shape[2], n, n), dtype=np.int64)
    for k in np.flatnonzero(array.any(axis=(0, 1))):
        plane = index[array[:, :, k]]
        for first, second in ((plane[1:], plane[:-1]), (plane[:, 1:], plane[:, :-1])):
            differ = first != second
            pairs = np.bincount(first[differ] * n + second[differ], minlength=n * n)
            counts[k] += pairs.reshape(n, n) + pairs.reshape(n, n).T
    return counts


def can_check(roles: Roles) -> bool:
    """Whether there is an LV wall and a cavity, so that something can be checked."""
    return LV_WALL in roles and (LV_CAVITY in roles or RV_CAVITY in roles)


def _is(roles: Roles, *wanted: int) -> NDArray[np.bool_]:
    return np.isin((0, *roles), wanted)


def contradiction(sight: Sight, roles: Roles) -> str | None:
    """Say what is impossible when the n-th number present means the canonical label ``roles[n]``.

    Parameters
    ----------
    sight : Sight
    roles : tuple of int

    Returns
    -------
    str or None
        What was measured, and what is needed; None where nothing speaks against the roles.
    """
    if RV_WALL in roles and RV_CAVITY not in roles:
        return "there is an RV wall but no RV cavity"
    if LV_WALL not in roles:
        return None
    enclosed = sight.share_of_outline(_is(roles, LV_CAVITY), _is(roles, LV_WALL))
    if enclosed is not None and enclosed < LEAST_LV_ENCLOSED:
        return (
            f"only {enclosed:.0%} of the LV cavity's outline touches the LV wall (needs "
            f"{LEAST_LV_ENCLOSED:.0%})"
        )
    return _rv_problem(sight, roles) or _scar_problem(sight, roles)


def _rv_problem(sight: Sight, roles: Roles) -> str | None:
    """Say why the RV cavity cannot be one: enclosed by or inside the LV, or far too small."""
    rv = _is(roles, RV_CAVITY)
    walled = sight.share_of_outline(rv, _is(roles, LV_WALL)) or 0.0
    if walled >= MOST_RV_ENCLOSED:
        return f"the LV wall encloses the RV cavity ({walled:.0%} of its outline)"
    on_cavity = sight.share_of_outline(rv, _is(roles, LV_CAVITY)) or 0.0
    if on_cavity >= MOST_RV_ON_CAVITY:
        return (
            f"the RV cavity touches the LV cavity ({on_cavity:.0%} of its outline), as a scar in the LV "
            "wall does"
        )
    share = _rv_share(sight, roles)
    if share is not None and share < LEAST_RV_SHARE:
        return (
            f"the RV cavity is far too small ({share:.1%} of the LV with its wall, needs "
            f"{LEAST_RV_SHARE:.0%}), as a scar or noise is"
        )
    reach = _rv_reach(sight, roles)
    if reach is not None and reach < LEAST_RV_REACH:
        return (
            f"the RV cavity lies within the outline of the LV (it reaches {reach:.2f} LV radii from the "
            "LV's centre), as a scar in the LV wall does"
        )
    return None


def _rv_share(sight: Sight, roles: Roles) -> float | None:
    """Return the RV cavity's volume as a share of the LV's with its wall; None without a whole LV."""
    if not {LV_CAVITY, LV_WALL, RV_CAVITY} <= set(roles):
        return None
    lv = sight.volume(roles, LV_CAVITY, LV_WALL)
    return sight.volume(roles, RV_CAVITY) / lv


def _rv_reach(sight: Sight, roles: Roles) -> float | None:
    if not {LV_CAVITY, LV_WALL, RV_CAVITY} <= set(roles):
        return None
    return sight.reach(sight.mask(roles, RV_CAVITY), roles)


def _scar_problem(sight: Sight, roles: Roles) -> str | None:
    """Say which of several parts of the LV wall lies beside it, as an RV does."""
    parts = [n for n, role in enumerate(roles) if role == LV_WALL]
    if len(parts) < 2 or LV_CAVITY not in roles:
        return None
    main = max(parts, key=lambda n: int(sight.contacts[:, n + 1, _is(roles, LV_CAVITY)].sum()))
    for part in parts:
        if part != main and (found := _beside(sight, roles, part)) is not None:
            return found
    return None


def _beside(sight: Sight, roles: Roles, part: int) -> str | None:
    itself = np.arange(len(roles) + 1) == part + 1
    inside = sight.share_of_outline(itself, _is(roles, LV_WALL, LV_CAVITY) & ~itself)
    if inside is None or inside > DOUBTFUL_RV_ENCLOSED:
        return None
    on_cavity = sight.share_of_outline(itself, _is(roles, LV_CAVITY)) or 0.0
    reach = sight.reach(sight.labels.array == sight.numbers[part], roles)
    if on_cavity >= MOST_RV_ON_CAVITY or reach is None or reach < LEAST_RV_REACH:
        return None
    return (
        f"what is taken as a scar lies beside the LV, as an RV does: {inside:.0%} of its outline touch "
        f"the LV, and it reaches {reach:.2f} LV radii from the LV's centre"
    )


def doubt(sight: Sight, roles: Roles) -> str | None:
    """Say why the RV cavity, though possible, might be a scar or the RV wall; None where it is clear.

    Parameters
    ----------
    sight : Sight
    roles : tuple of int
    """
    if not {LV_CAVITY, LV_WALL, RV_CAVITY} <= set(roles):
        return None
    slenderness = sight.slenderness(sight.mask(roles, RV_CAVITY))
    if slenderness >= DOUBTFUL_RV_SLENDERNESS:
        return f"the RV cavity is a thin shell, as an RV wall is (slenderness {slenderness:.0f})"
    walled = sight.share_of_outline(_is(roles, RV_CAVITY), _is(roles, LV_WALL)) or 0.0
    reach = _rv_reach(sight, roles)
    if walled < DOUBTFUL_RV_ENCLOSED and (reach is None or reach >= DOUBTFUL_RV_REACH):
        return None
    shown = "" if reach is None else f" and it reaches {reach:.2f} LV radii from the LV's centre"
    return f"the RV cavity is thin and close: {walled:.0%} of its outline touch the LV wall{shown}"


def is_certain(sight: Sight, roles: Roles) -> bool:
    """Whether roles are possible and nothing about them is doubtful, so that they can be advised."""
    if not {LV_CAVITY, LV_WALL} <= set(roles):
        return False
    return contradiction(sight, roles) is None and doubt(sight, roles) is None


def holes_per_slice(mask: NDArray[np.bool_]) -> float:
    """Return how many large holes a structure has in its middle slices, on average.

    Parameters
    ----------
    mask : ndarray of bool, shape (i, j, k)
        A hole counts from 5 % of the structure's area in the slice.
    """
    found = []
    for k in _middle(np.flatnonzero(mask.any(axis=(0, 1)))):
        plane = mask[:, :, k]
        holes, n = ndimage.label(ndimage.binary_fill_holes(plane) & ~plane)
        sizes = np.bincount(holes.ravel(), minlength=n + 1)[1:]
        found.append(int((sizes >= _LEAST_HOLE * plane.sum()).sum()))
    return float(np.mean(found)) if found else 0.0


def seen(sight: Sight, roles: Roles) -> dict[str, float | None]:
    """Return what the tests measure, for showing: shares of outlines and volumes, and a reach.

    Parameters
    ----------
    sight : Sight
    roles : tuple of int
    """
    return {
        "LV cavity's outline on the LV wall": sight.share_of_outline(
            _is(roles, LV_CAVITY), _is(roles, LV_WALL)
        ),
        "RV cavity's outline on the LV wall": sight.share_of_outline(
            _is(roles, RV_CAVITY), _is(roles, LV_WALL)
        ),
        "RV cavity's outline on the LV cavity": sight.share_of_outline(
            _is(roles, RV_CAVITY), _is(roles, LV_CAVITY)
        ),
        "RV cavity's volume of the LV's": _rv_share(sight, roles),
        "RV cavity's reach in LV radii": _rv_reach(sight, roles),
    }
