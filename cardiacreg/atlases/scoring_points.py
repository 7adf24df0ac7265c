"""The target voxels that selection looks at, and what an atlas shows at each of them.

They are listed once for a whole bank; an affine then takes them to the nearest voxels of an atlas, block
by block, without a warped copy.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cardiacreg.algebra import invert, multiply
from cardiacreg.arrays import Float
from cardiacreg.compute.jit import kernel
from cardiacreg.geometry import Affine, LabelMap
from cardiacreg.transforms.atlas_lookup import nearest_voxels

Counts = NDArray[np.int64]
_BLOCK = 1024
"""Points that are looked up together: their voxels' indices stay in the nearest cache."""


class ScoringPoints:
    """The listed voxels of a target, or of its box alone, and those of empty planes beside them."""

    def __init__(
        self,
        target: LabelMap,
        *,
        whole: bool,
        empty_planes: Sequence[float] = (),
        stride: int = 1,
    ) -> None:
        array = target.array
        if whole or not array.any():
            box = [slice(0, n) for n in array.shape]
        else:
            margin = np.array([*np.ceil(10.0 / target.spacing_mm[:2] - 1e-6).astype(int), 0])
            where = np.nonzero(array)
            box = [
                slice(max(0, int(w.min()) - m), int(w.max()) + m + 1)
                for w, m in zip(where, margin, strict=True)
            ]
        labels = array[tuple(box)]
        grid = np.indices(labels.shape, dtype=np.float32).reshape(3, -1).T
        grid += np.array([b.start for b in box], dtype=np.float32)
        keep = np.ones(labels.shape, dtype=bool)
        if not whole:
            keep &= (labels != 0).any(axis=(0, 1))
        coarse = np.zeros_like(keep)
        coarse[::stride, ::stride] = True
        keep &= coarse
        planes = [] if whole else [_plane(box, position, stride) for position in empty_planes]
        outside = np.zeros(sum(len(plane) for plane in planes), dtype=np.uint8)
        self._labels = np.concatenate([labels[keep], outside])
        points = np.concatenate([grid[keep.ravel()], *planes])
        self._points = np.ascontiguousarray(points.T)
        self._voxel_to_world = target.voxel_to_world

    def read(self, atlas: LabelMap, affine: Affine) -> NDArray[np.uint8]:
        """Label of the nearest atlas voxel at every point; 0 outside."""
        found = np.empty(len(self._labels), dtype=np.uint8)
        _read_labels(self._points, atlas.array, self._rows(atlas, affine), found)
        return found

    def counts(self, atlas: LabelMap, affine: Affine) -> Counts:
        """Joint label histogram: target labels in rows, atlas labels in columns."""
        counts = np.zeros((2, int(self._labels.max(initial=0)) + 1, 256), dtype=np.int64)
        rows = self._rows(atlas, affine)
        _count_pairs(self._labels, self._points, atlas.array, rows, counts)
        return np.asarray(counts.sum(axis=0))

    def _rows(self, atlas: LabelMap, affine: Affine) -> Float:
        """Target voxels to atlas voxels, shape (3, 4)."""
        matrix = multiply(invert(atlas.voxel_to_world), affine.matrix, self._voxel_to_world)
        return np.ascontiguousarray(matrix[:3])


def _plane(box: Sequence[slice], position: float, stride: int) -> NDArray[np.float32]:
    """Voxel positions of every so many of a box's pixels, at a position along the slice axis."""
    rows, columns = (np.arange(side.start, side.stop, stride) for side in box[:2])
    i, j = np.meshgrid(rows, columns, indexing="ij")
    return np.stack([i, j, np.full(i.shape, position)], axis=-1).reshape(-1, 3).astype(np.float32)


# ---------------------------------------------------------------------------------------------- kernels


@kernel
def _read_labels(points, atlas, matrix, found):
    """Label of the atlas voxel nearest to each point; 0 outside."""
    labels = atlas.reshape(atlas.size)
    extent = np.array([atlas.shape[0], atlas.shape[1], atlas.shape[2]])
    x, y, z = points[0], points[1], points[2]
    indices = np.empty(min(_BLOCK, found.size), np.int64)
    for first in range(0, found.size, _BLOCK):
        out = found[first : first + _BLOCK]
        at = indices[: out.size]
        last = first + out.size
        nearest_voxels(x[first:last], y[first:last], z[first:last], matrix, extent, at)
        for n in range(out.size):
            out[n] = labels[at[n]] if at[n] < labels.size else 0


@kernel
def _count_pairs(own, points, atlas, matrix, counts):
    """Count pairs of labels, in two tables in turn: equal neighbours would wait for each other."""
    labels = atlas.reshape(atlas.size)
    extent = np.array([atlas.shape[0], atlas.shape[1], atlas.shape[2]])
    x, y, z = points[0], points[1], points[2]
    indices = np.empty(min(_BLOCK, own.size), np.int64)
    for first in range(0, own.size, _BLOCK):
        rows = own[first : first + _BLOCK]
        at = indices[: rows.size]
        last = first + rows.size
        nearest_voxels(x[first:last], y[first:last], z[first:last], matrix, extent, at)
        for n in range(rows.size):
            label = labels[at[n]] if at[n] < labels.size else 0
            counts[n & 1, rows[n], label] += 1
