"""The target voxels that count in a registration, with their label codes and positions.

They are the voxels of the acquired slices within an in-plane margin of any label, in the target's own
axes (mm, origin at voxel 0), taken at every voxel or at a stride.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cardiacreg.arrays import Float
from cardiacreg.geometry import LabelMap
from cardiacreg.slices import (
    DOUBT_LEVELS,
    EmptyPlane,
    SharedPlane,
    labelled_slices,
    stack_axes,
)


class Doubt(NamedTuple):
    """How doubtful the voxels of a target are, and the label codes that say so.

    Parameters
    ----------
    levels : ndarray of uint8, shape (i, j, k)
        From 0, certain, to ``DOUBT_LEVELS - 1``; a voxel counts ``1 - level / DOUBT_LEVELS``.
    first_code : int
        Of the doubtful voxels of label code 0 at level 1; levels follow each other, then label codes.
    """

    levels: NDArray[np.uint8]
    first_code: int

    def rows(self, codes: NDArray[np.uint8], levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the label codes of voxels that are as doubtful as their levels say."""
        doubtful = self.first_code + codes.astype(np.int64) * (DOUBT_LEVELS - 1) + levels - 1
        return np.ascontiguousarray(np.where(levels == 0, codes, doubtful).astype(np.uint8))


class Shared(NamedTuple):
    """Planes between two slices, and the label codes of what both show.

    Parameters
    ----------
    planes : tuple of SharedPlane
    first_code : int
        Of what is label code 0 in a slice; the others follow.
    nothing : int
        The code of voxels that say nothing.
    """

    planes: tuple[SharedPlane, ...]
    first_code: int
    nothing: int


@dataclass(frozen=True, slots=True, eq=False)
class TargetSamples:
    """The target voxels that count, along the target's own axes (mm, origin at voxel 0).

    Parameters
    ----------
    labels : ndarray of uint8, shape (n_slices, ni, nj)
        Label codes at the sampled in-plane positions; planes that are no slices come last.
    spans : ndarray of int64, shape (n_slices, ni, 2)
        First and last-plus-one j that count, per slice and row.
    position_mm : tuple of ndarray
        In-plane positions along i and j, and the position of each slice along k.
    slice_index : ndarray of int64, shape (n_slices,)
        Target slice that each sampled slice is; for a plane that is none the outermost labelled one
        beside it, with which it moves.
    axes_to_world : ndarray, shape (4, 4)
        Mm along these axes to world mm; they are orthonormal.
    """

    labels: NDArray[np.uint8]
    spans: NDArray[np.int64]
    position_mm: tuple[Float, Float, Float]
    slice_index: NDArray[np.int64]
    axes_to_world: Float

    def every(self, stride: int) -> TargetSamples:
        """Return the samples at every `stride`-th in-plane position."""
        if stride == 1:
            return self
        offset = stride // 2
        rows, columns = slice(offset, None, stride), slice(offset, None, stride)
        spans = (self.spans[:, rows] - offset + stride - 1) // stride
        positions = (self.position_mm[0][rows], self.position_mm[1][columns], self.position_mm[2])
        labels = np.ascontiguousarray(self.labels[:, rows, columns])
        spans = np.ascontiguousarray(np.clip(spans, 0, labels.shape[2]))
        return TargetSamples(labels, spans, positions, self.slice_index, self.axes_to_world)

    def counted(self) -> NDArray[np.uint8]:
        """Return the label codes of all samples that count, in order."""
        columns = np.arange(self.labels.shape[2])
        inside = (columns >= self.spans[..., :1]) & (columns < self.spans[..., 1:])
        return np.asarray(self.labels[inside])


def sample_target(
    target: LabelMap,
    codes: NDArray[np.uint8],
    *,
    margin_mm: float,
    all_slices: bool = False,
    beyond: Sequence[tuple[EmptyPlane, int]] = (),
    shared: Shared | None = None,
    doubt: Doubt | None = None,
) -> TargetSamples:
    """Collect the target voxels within `margin_mm` in-plane of any label, and planes beyond the ends.

    Parameters
    ----------
    target : LabelMap
        Native lattice, any orthogonal orientation.
    codes : ndarray of uint8, shape (256,)
        Label to label code.
    margin_mm : float
        In-plane distance around the labels of each slice's neighbourhood that counts as background.
    all_slices : bool
        Treat slices without labels as background instead of unknown.
    beyond : sequence of (EmptyPlane, int)
        Planes where structures have ended, and the label code of their voxels. They reach around the
        structures' outline in the slice that they lie beyond.
    shared : Shared, optional
        Planes between two slices, where structures are that both show.
    doubt : Doubt, optional
        How doubtful each voxel is; all are certain when absent.
    """
    slices = np.arange(target.shape[2]) if all_slices else labelled_slices(target.array)
    spacing = target.spacing_mm
    reach = np.ceil(margin_mm / spacing[:2] - 1e-6).astype(int)
    box = _in_plane_box(target.array, reach)
    labels = codes[target.array[box[0] : box[1], box[2] : box[3]][:, :, slices]]
    labels = np.ascontiguousarray(labels.transpose(2, 0, 1))
    spans = _row_spans(labels, reach)
    if doubt is not None:
        levels = doubt.levels[box[0] : box[1], box[2] : box[3]][:, :, slices].transpose(2, 0, 1)
        labels = doubt.rows(labels, levels)
    positions = (
        np.arange(box[0], box[1]) * spacing[0],
        np.arange(box[2], box[3]) * spacing[1],
        slices * spacing[2],
    )
    samples = TargetSamples(
        labels,
        spans,
        positions,
        slices,
        stack_axes(target.voxel_to_world, "sample_target"),
    )
    near = target.array[box[0] : box[1], box[2] : box[3]]
    if beyond:
        samples = _with_planes_beyond(samples, near, target.spacing_mm[2], reach, beyond)
    return samples if shared is None else _with_shared_planes(samples, near, target, codes, shared)


def _with_planes_beyond(
    samples: TargetSamples,
    near: NDArray[np.uint8],
    distance_mm: float,
    reach: NDArray[np.int64],
    beyond: Sequence[tuple[EmptyPlane, int]],
) -> TargetSamples:
    """Add planes where structures have ended, each around their outline in the slice before it."""
    shown = [np.isin(near[:, :, plane.slice_before], plane.structures) for plane, _ in beyond]
    codes = np.array([code for _, code in beyond], dtype=np.uint8)
    return _with_planes(
        samples,
        np.broadcast_to(codes[:, None, None], (len(codes), *samples.labels.shape[1:])),
        _row_spans(np.array(shown, dtype=np.uint8), reach),
        np.array([plane.position for plane, _ in beyond]) * distance_mm,
        np.array([plane.slice_before for plane, _ in beyond], dtype=np.int64),
    )


def _with_shared_planes(
    samples: TargetSamples,
    near: NDArray[np.uint8],
    target: LabelMap,
    codes: NDArray[np.uint8],
    shared: Shared,
) -> TargetSamples:
    """Add planes between two slices, with the codes of what both show."""
    held = []
    for plane in shared.planes:
        outer, inner = near[:, :, plane.outer], near[:, :, plane.inner]
        held.append((outer == inner) & np.isin(outer, plane.structures))
    kept = [n for n, both in enumerate(held) if both.any()]
    if not kept:
        return samples
    planes, both = [shared.planes[n] for n in kept], np.array([held[n] for n in kept])
    outer = np.moveaxis(near[:, :, [plane.outer for plane in planes]], 2, 0)
    labels = np.where(both, shared.first_code + codes[outer], shared.nothing).astype(np.uint8)
    return _with_planes(
        samples,
        labels,
        _row_spans(both.astype(np.uint8), np.zeros(2, dtype=np.int64)),
        np.array([plane.position for plane in planes]) * target.spacing_mm[2],
        np.array([plane.outer for plane in planes], dtype=np.int64),
    )


def _with_planes(
    samples: TargetSamples,
    labels: NDArray[np.uint8],
    spans: NDArray[np.int64],
    depth_mm: Float,
    slice_index: NDArray[np.int64],
) -> TargetSamples:
    """Add planes behind the slices: their codes, spans, positions and the slices they move with."""
    x, y, z = samples.position_mm
    return TargetSamples(
        np.concatenate([samples.labels, labels]),
        np.concatenate([samples.spans, spans]),
        (x, y, np.concatenate([z, depth_mm])),
        np.concatenate([samples.slice_index, slice_index]),
        samples.axes_to_world,
    )


def _in_plane_box(array: NDArray[np.uint8], reach: NDArray[np.int64]) -> tuple[int, int, int, int]:
    present = (array != 0).any(axis=2)
    rows, columns = np.flatnonzero(present.any(axis=1)), np.flatnonzero(present.any(axis=0))
    return (
        max(0, int(rows[0] - reach[0])),
        min(array.shape[0], int(rows[-1] + reach[0]) + 1),
        max(0, int(columns[0] - reach[1])),
        min(array.shape[1], int(columns[-1] + reach[1]) + 1),
    )


def _row_spans(labels: NDArray[np.uint8], reach: NDArray[np.int64]) -> NDArray[np.int64]:
    """Span of j per row that lies within reach (a box) of the labels of the same slice."""
    n_slices, ni, nj = labels.shape
    reach_i, reach_j = int(reach[0]), int(reach[1])
    present = labels != 0
    first = np.where(present.any(axis=2), present.argmax(axis=2), nj + reach_j)
    last = np.where(present.any(axis=2), nj - present[:, :, ::-1].argmax(axis=2), -reach_j)
    spans = np.zeros((n_slices, ni, 2), dtype=np.int64)
    empty = ~present.any(axis=(1, 2))
    for row in range(ni):
        rows = slice(max(0, row - reach_i), row + reach_i + 1)
        spans[:, row, 0] = np.maximum(0, first[:, rows].min(axis=1) - reach_j)
        spans[:, row, 1] = np.minimum(nj, last[:, rows].max(axis=1) + reach_j)
    spans[empty] = (0, nj)
    spans[..., 1] = np.maximum(spans[..., 0], spans[..., 1])
    return spans
