"""The last step of label fusion: every acquired slice shows each structure as large as it was drawn.

Averaging deformed atlases shrinks what is convex and thickens thin walls, although the slices say how
large both are. For every acquired slice one offset per structure is added to its votes, the one under
which the structure wins as many pixels of the slice as its outline holds. Between slices offsets are
interpolated, beyond the outermost ones they fade over one slice distance, unless they make a structure
smaller: it would swell again before it ends. Only areas are matched, so that the slice's own outline,
shifted or noisy, leaves no trace. The RV wall, which most inputs lack and thick slices show too thin,
keeps its own area.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from cardiacreg.algebra import invert, multiply
from cardiacreg.arrays import Float
from cardiacreg.geometry import LV_CAVITY, LV_WALL, RV_CAVITY, RV_WALL, LabelMap
from cardiacreg.slices import labelled_slices
from cardiacreg.transforms.resampling import Lattice

_MATCHED = (RV_CAVITY, LV_CAVITY, LV_WALL)
_LARGEST_OFFSET = 0.35
"""In shares of all votes; about a voxel."""
_ROUNDS = 5
_SURE = 0.5
_MARGIN_MM = 8.0


def match_areas(
    votes: NDArray[np.float32],
    lattice: Lattice,
    target: LabelMap,
    slice_shifts_mm: Float,
    certainty: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Change votes so that the acquired slices show structures as large as they were drawn.

    Parameters
    ----------
    votes : ndarray of float32, shape (i, j, k, N_LABELS)
        Votes per label on the lattice, with the same sum everywhere; changed in place.
    lattice : Lattice
        With axes parallel to the target's.
    target : LabelMap
        The acquired slices.
    slice_shifts_mm : ndarray, shape (n_slices, 2)
        True position = stored position + shift.
    certainty : ndarray, shape (i, j, k), optional
        How sure each voxel's label is, from 0 to 1. A structure that is drawn less than half sure in a
        slice is matched in part only.

    Returns
    -------
    ndarray of float32, shape (i, j, k, N_LABELS)
        The same array; its sums differ now.
    """
    slices = labelled_slices(target.array)
    to_voxel = multiply(invert(lattice.voxel_to_world), target.voxel_to_world)
    scene = _Scene(votes, target, to_voxel)
    drawn = tuple(label for label in _MATCHED if (target.array == label).any())
    offsets = np.zeros((len(slices), votes.shape[3]))
    for row, k in enumerate(slices):
        shares, own = scene.read(int(k), slice_shifts_mm[k])
        offsets[row] = slice_offsets(shares, own, drawn)
        if certainty is not None:
            offsets[row] *= _parts(target.array[..., k], certainty[..., k], drawn, votes.shape[3])
    _keep_small_beyond_ends(offsets, target.array[:, :, slices], drawn)
    heights = to_voxel[2, 2] * slices + to_voxel[2, 3]
    field = _between_slices(offsets, heights, abs(to_voxel[2, 2]), votes.shape[2])
    votes += (scene.total * field).astype(np.float32)
    return votes


class _Scene:
    """Votes seen at the pixels of a target's slices, near its labels."""

    def __init__(self, votes: NDArray[np.float32], target: LabelMap, to_voxel: Float) -> None:
        self._votes, self._target, self._to_voxel = votes, target, to_voxel
        self.total = float(votes[0, 0, 0].sum())
        held = np.argwhere((target.array != 0).any(axis=2))
        reach = np.ceil(_MARGIN_MM / target.spacing_mm[:2]).astype(int)
        self._lower = np.maximum(held.min(axis=0) - reach, 0)
        self._upper = np.minimum(held.max(axis=0) + reach + 1, target.shape[:2])

    def read(self, k: int, shift_mm: Float) -> tuple[Float, NDArray[np.uint8]]:
        """Shares of the votes, shape (n, N_LABELS), and labels, shape (n,), of one slice's pixels."""
        moved = shift_mm / self._target.spacing_mm[:2]
        axes = [np.arange(self._lower[a], self._upper[a]) + moved[a] for a in range(2)]
        i, j = (self._to_voxel[a, a] * axes[a] + self._to_voxel[a, 3] for a in range(2))
        grid = np.meshgrid(i, j, indexing="ij")
        plane = self._plane(float(self._to_voxel[2, 2] * k + self._to_voxel[2, 3]))
        shares = [map_coordinates(p, grid, order=1, mode="nearest") for p in plane]
        own = self._target.array[
            self._lower[0] : self._upper[0], self._lower[1] : self._upper[1], k
        ]
        return np.stack(shares, axis=-1).reshape(-1, len(plane)), own.ravel()

    def _plane(self, height: float) -> Float:
        """Shares of the votes at a height, shape (N_LABELS, i, j)."""
        last = self._votes.shape[2] - 1
        inside = float(np.clip(height, 0, last))
        lower = min(int(inside), max(last - 1, 0))
        part = inside - lower
        between = (1 - part) * self._votes[:, :, lower] + part * self._votes[
            :, :, min(lower + 1, last)
        ]
        return np.asarray(np.moveaxis(between, -1, 0) / self.total)


def slice_offsets(shares: Float, own: NDArray[np.uint8], drawn: tuple[int, ...]) -> Float:
    """Return the offset of each label under which it wins as many pixels as were drawn.

    Parameters
    ----------
    shares : ndarray, shape (n, n_labels)
        Shares of the votes of one slice's pixels.
    own : ndarray of uint8, shape (n,)
        Their drawn labels.
    drawn : tuple of int
        The labels to match; where the RV cavity is one, the RV wall keeps what it wins without offsets.

    Returns
    -------
    ndarray, shape (n_labels,)
        At most `_LARGEST_OFFSET` either way.
    """
    wanted = {label: int((own == label).sum()) for label in drawn}
    if RV_CAVITY in drawn:
        wanted[RV_WALL] = int((shares.argmax(axis=1) == RV_WALL).sum())
    offsets = np.zeros(shares.shape[1])
    columns = np.ascontiguousarray(shares.T)
    for _ in range(_ROUNDS):
        for label, count in wanted.items():
            others = columns + offsets[:, None]
            others[label] = -np.inf
            needed = others.max(axis=0) - columns[label]
            offsets[label] = np.clip(_between(needed, count), -_LARGEST_OFFSET, _LARGEST_OFFSET)
    return offsets


def _keep_small_beyond_ends(
    offsets: Float, drawn_in: NDArray[np.uint8], drawn: tuple[int, ...]
) -> None:
    """Let a structure that was made smaller in its outermost slice not swell between it and the next.

    Where a structure is not drawn it takes over a negative offset of the nearest slice that shows it.
    """
    rows = np.arange(len(offsets))
    for label in drawn:
        held = np.flatnonzero((drawn_in == label).any(axis=(0, 1)))
        nearest = held[np.abs(rows[:, None] - held).argmin(axis=1)]
        absent = ~np.isin(rows, held)
        kept = np.minimum(offsets[nearest, label], 0.0)
        offsets[absent, label] = np.minimum(offsets[absent, label], kept[absent])


def _parts(
    own: NDArray[np.uint8], certainty: NDArray[np.float32], drawn: tuple[int, ...], n_labels: int
) -> Float:
    """How much of its offset each label keeps in a slice; all of it where it is half sure or more."""
    kept = np.ones(n_labels)
    for label in drawn:
        held = own == label
        if held.any():
            kept[label] = min(1.0, float(certainty[held].mean()) / _SURE)
    return kept


def _between(values: Float, count: int) -> float:
    """Return a number above the `count` least of some values and below the rest.

    A label that is drawn nowhere and wins nothing stays as it is: it would be lifted between slices.
    """
    if count == 0:
        return min(float(values.min()) - 1e-3, 0.0)
    if count == len(values):
        return float(values.max()) + 1e-3
    ordered = np.partition(values, (count - 1, count))
    return float(ordered[count - 1] + ordered[count]) / 2


def _between_slices(offsets: Float, heights: Float, step: float, depth: int) -> Float:
    """Interpolate offsets from slice heights to all voxel heights, shape (depth, n_labels).

    Beyond the outermost slices positive ones fade and negative ones stay.
    """
    order = np.argsort(heights)
    at = heights[order]
    known = np.concatenate([[at[0] - step], at, [at[-1] + step]])
    ends = np.minimum(offsets[order][[0, -1]], 0.0)
    padded = np.concatenate([ends[:1], offsets[order], ends[1:]])
    voxels = np.arange(depth)
    return np.stack([np.interp(voxels, known, column) for column in padded.T], axis=-1)
