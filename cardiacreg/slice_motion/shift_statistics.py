"""How far each slice is probably shifted, from statistics of the atlases alone, before any deformation.

In every acquired slice a structure has a centre and a size. Over affinely aligned atlases, sampled at
the target's slices, these numbers have a mean and a covariance: how a heart's centre line bends, and
what that has to do with sizes and with where its two ventricles lie in other slices. Where along an
atlas a slice lies is not known exactly: each is also measured a quarter of a slice below and above. The
target's own numbers y differ from the mean by its shape, which varies like that, and by minus the shift
of the slice, which moves all centres in it alike and changes no size:

    y = -M s + e,   s ~ N(0, t^2 I),   e ~ N(0, C),   C = q * covariance of the atlases + noise.

The size t of the shifts and how much more than the atlases the target's population varies, q, are those
under which y is most likely (no motion is t = 0), and the shifts are their mean given y:
``s = -t^2 M' (t^2 M M' + C)^-1 y``. A number that the others contradict (a structure
that only grazes a slice) loses weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cardiacreg.algebra import invert, multiply, solve
from cardiacreg.arrays import Float
from cardiacreg.compute.decompositions import cholesky_factor, eigenvectors, solve_lower
from cardiacreg.compute.jit import kernel
from cardiacreg.compute.threads import run_tasks
from cardiacreg.geometry import (
    LV_CAVITY,
    LV_WALL,
    N_LABELS,
    RV_CAVITY,
    RV_WALL,
    LabelMap,
)
from cardiacreg.registration.aligned_atlas import AlignedAtlas
from cardiacreg.registration.prepared_target import PreparedTarget
from cardiacreg.slices import labelled_slices
from cardiacreg.transforms.atlas_lookup import nearest_voxels

FEWEST_ATLASES = 24
"""Below this a covariance says too little."""
_REGIONS = ((LV_CAVITY,), (LV_CAVITY, LV_WALL), (LV_WALL,), (RV_CAVITY, RV_WALL))
_SIZES_MM = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.0)
_STRANGENESSES = (1.0, 1.5, 2.0, 3.0, 5.0, 8.0)
_SMALLEST_AREA_MM2 = 20.0
_SHARE_OF_ATLASES = 0.5
_NOISE_MM, _OWN_VARIANCE = 0.05, 0.005
_HEIGHTS = (-0.25, 0.0, 0.25)
"""Where atlases are measured, in slices from where the affine puts them."""
_SURPRISING = 6.0
"""Squared standardised residual beyond which a number loses weight."""
_ROUNDS = 2
_REACH_MM = 20.0


class ExpectedShifts(NamedTuple):
    """What the statistics say about the slices' motion."""

    shifts_mm: Float
    """Shape (n_slices, 2): mm along the target's i and j axes, true = stored position + shift."""
    size_mm: float
    """Standard deviation of the shifts per axis, t; 0 where nothing tells of motion."""
    variance_ratio: float
    """Variance of the target's population over that of the atlases, q."""
    precision: Float
    """Inverse covariance of the shifts given y, mm^-2: of the slices with labels, along i, then along j;
    0 without motion."""


def expected_shifts(
    prepared: PreparedTarget, atlases: Sequence[AlignedAtlas], *, threads: int = 1
) -> ExpectedShifts | None:
    """Return the shifts that the atlases' statistics make most likely.

    Parameters
    ----------
    prepared : PreparedTarget
    atlases : sequence of AlignedAtlas
        Labels of each atlas and its affine, target world mm to atlas world mm.
    threads : int

    Returns
    -------
    ExpectedShifts or None
        None where atlases or slices are too few for statistics. Shifts have mean zero over the slices
        with labels and are zero in others.
    """
    slices = labelled_slices(prepared.labels.array)
    if len(atlases) < FEWEST_ATLASES or len(slices) < 3:
        return None
    regions = _regions(prepared)
    target = prepared.labels
    near = _near_labels(target)
    own = _measure(target, target, np.eye(4), regions, slices, near)

    def measure(pair: AlignedAtlas) -> Float:
        atlas, affine = pair
        to_voxel = multiply(invert(atlas.voxel_to_world), affine.matrix, target.voxel_to_world)
        moved = [multiply(to_voxel, _raised(height)) for height in _HEIGHTS]
        return np.stack([_measure(target, atlas, each, regions, slices, near) for each in moved])

    model = _model(own, np.concatenate(run_tasks(measure, atlases, threads=threads)))
    if len(model.difference) == 0:
        return None
    found = most_likely_shifts(model)
    shifts = np.zeros((target.shape[2], 2))
    shifts[slices] = found.shifts_mm - found.shifts_mm.mean(axis=0)
    return found._replace(shifts_mm=shifts)


class ShiftModel(NamedTuple):
    """Numbers of a target's slices less the atlases' mean, and how atlases vary."""

    difference: Float
    """y, shape (m,), mm."""
    covariance: Float
    """Of the atlases, shape (m, m), mm^2."""
    variance: Float
    """Of the noise, shape (m,), mm^2."""
    design_matrix: Float
    """M, shape (m, 2 n): 1 where a shift (first all along i, then all along j) moves a number."""


def most_likely_shifts(model: ShiftModel, rounds: int = _ROUNDS) -> ExpectedShifts:
    """Return the mean of the shifts given y, shape (n, 2), under the most likely t and q.

    In each further round numbers that the others contradict lose weight.
    """
    variance, pairs = model.variance, list(product(_SIZES_MM, _STRANGENESSES))
    for left in range(rounds, -1, -1):
        shapes = [ratio * model.covariance + np.diag(variance) for ratio in _STRANGENESSES]
        likely = np.stack([_log_likelihoods(model, shape) for shape in shapes], axis=1)
        best = int(np.argmax(likely))
        inverse = invert(_covariance(model, variance, *pairs[best]))
        explained = multiply(inverse, model.difference)
        if left:
            expected = 1 / np.diag(inverse)
            surprise = explained**2 * expected
            variance = variance + expected * np.maximum(surprise / _SURPRISING - 1, 0)
    size_mm, variance_ratio = pairs[best]
    found = -(size_mm**2) * multiply(model.design_matrix.T, explained)
    precision = np.zeros((len(found), len(found)))
    if size_mm:
        shape = _covariance(model, variance, 0.0, variance_ratio)
        precision = multiply(model.design_matrix.T, solve(shape, model.design_matrix))
        precision += np.eye(len(found)) / size_mm**2
    return ExpectedShifts(found.reshape(2, -1).T, size_mm, variance_ratio, precision)


def _covariance(model: ShiftModel, variance: Float, size_mm: float, variance_ratio: float) -> Float:
    """Covariance of y: of the shifts, the shape and the noise."""
    moved = size_mm**2 * multiply(model.design_matrix, model.design_matrix.T)
    return moved + variance_ratio * model.covariance + np.diag(variance)


def _log_likelihoods(model: ShiftModel, shape: Float) -> Float:
    """Of y under every size of the shifts, up to a constant, given the covariance of shape and noise.

    With ``L L'`` that covariance, ``A = L^-1 M`` and ``A'A = U diag(g) U'`` the covariance of y is
    ``L (1 + t^2 A A') L'``: its determinant is that of ``L L'`` times the product of ``1 + t^2 g``, and
    the square ``t^2 (U'A'L^-1 y)^2 / (1 + t^2 g)`` of every column of U is explained by the shifts.
    """
    factor = cholesky_factor(shape)
    scaled, moved = solve_lower(factor, model.difference), solve_lower(factor, model.design_matrix)
    values, vectors = eigenvectors(multiply(moved.T, moved))
    along = multiply(vectors.T, multiply(moved.T, scaled))
    squares = np.square(_SIZES_MM)[:, None]
    growth = 1 + squares * np.maximum(values, 0.0)
    explained = (squares * along**2 / growth).sum(axis=1)
    whole = multiply(scaled, scaled) - explained + np.log(growth).sum(axis=1)
    return np.asarray(-0.5 * whole - np.log(np.diag(factor)).sum())


def _raised(height: float) -> Float:
    """Return the matrix that moves voxels by so many slices."""
    matrix = np.eye(4)
    matrix[2, 3] = height
    return matrix


def _regions(prepared: PreparedTarget) -> list[tuple[int, ...]]:
    """Return the parts of the heart that are measured, of labels that the target shows."""
    score, codes = prepared.codes.score, prepared.codes.codes
    shown = {n for n in prepared.labels.present() if n}
    drawn = [tuple(n for n in region if n in shown) for region in _REGIONS]
    known = {n for region in _REGIONS for n in region} - shown
    unknown = {n for n in known if codes[n] < prepared.codes.n_labels and score[0, codes[n]] > 0}
    whole = [
        region
        for region, wanted in zip(drawn, _REGIONS, strict=True)
        if region and set(wanted) - set(region) <= unknown
    ]
    return list(dict.fromkeys(whole))


def _near_labels(target: LabelMap) -> NDArray[np.int64]:
    """First and last-plus-one pixel (i, j) within reach of any label, shape (2, 2)."""
    reach = np.ceil(_REACH_MM / target.spacing_mm[:2]).astype(np.int64)
    held = np.argwhere((target.array != 0).any(axis=2))
    lower = np.maximum(held.min(axis=0) - reach, 0)
    return np.stack([lower, np.minimum(held.max(axis=0) + reach + 1, target.shape[:2])])


def _measure(
    target: LabelMap,
    shown: LabelMap,
    to_voxel: Float,
    regions: list[tuple[int, ...]],
    slices: NDArray[np.int64],
    near: NDArray[np.int64],
) -> Float:
    """Centre (i, j) and square root of the area of every region, mm; shape (slices, regions, 3).

    NaN centres where nothing of a region shows.
    """
    spacing = target.spacing_mm
    by_label = np.zeros((len(slices), N_LABELS, 3))
    _sum_labels(shown.array, to_voxel, near[0], near[1], slices, by_label)
    sums = np.stack([by_label[:, list(region)].sum(axis=1) for region in regions], axis=1)
    count = sums[..., 2]
    with np.errstate(invalid="ignore", divide="ignore"):
        centres = sums[..., :2] / count[..., None] * spacing[:2]
    return np.concatenate([centres, np.sqrt(count * spacing[0] * spacing[1])[..., None]], axis=-1)


def _model(own: Float, atlases: Float) -> ShiftModel:
    """Gather the numbers that target and most atlases show; shapes (K, R, 3) and (n, K, R, 3)."""
    smallest = np.sqrt(_SMALLEST_AREA_MM2)
    shows = atlases[..., 2] >= smallest
    used = (own[..., 2] >= smallest) & (shows.mean(axis=0) >= _SHARE_OF_ATLASES)
    slices, regions = np.nonzero(used)
    values = atlases[:, slices, regions]  # n, used, 3
    present = shows[:, slices, regions, None]
    count = present.sum(axis=0)
    mean = np.where(present, values, 0).sum(axis=0) / count
    spread = np.where(present, values - mean, 0).reshape(len(atlases), -1)
    covariance = multiply(spread.T, spread) / (len(atlases) - 1)
    design_matrix = np.zeros((len(slices), 3, 2, len(own)))
    for axis in range(2):
        design_matrix[np.arange(len(slices)), axis, axis, slices] = 1.0
    return ShiftModel(
        (own[slices, regions] - mean).ravel(),
        covariance,
        _NOISE_MM**2 + _OWN_VARIANCE * np.diag(covariance),
        design_matrix.reshape(len(covariance), 2 * len(own)),
    )


# ---------------------------------------------------------------------------------------------- kernels


@kernel
def _sum_labels(labels, to_voxel, lower, upper, slices, sums):
    """Per slice and label: sums of i and j, and the number, of the pixels whose nearest label it is.

    `to_voxel` maps pixels (i, j, k) of the slices to voxels of `labels`; background is left out.
    """
    first, last = lower[1], upper[1]
    codes, size = labels.reshape(labels.size), last - first
    row, at = np.empty((3, size)), np.empty(size, np.int64)
    extent = np.array([labels.shape[0], labels.shape[1], labels.shape[2]])
    for j in range(size):
        row[1, j] = first + j
    for s in range(len(slices)):
        row[2] = slices[s]
        for i in range(lower[0], upper[0]):
            row[0] = i
            nearest_voxels(row[0], row[1], row[2], to_voxel, extent, at)
            for j in range(size):
                label = codes[at[j]] if at[j] < codes.size else 0
                if label:
                    sums[s, label, 0] += i
                    sums[s, label, 1] += first + j
                    sums[s, label, 2] += 1
