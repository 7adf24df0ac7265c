"""The points of further planes that count in a registration: long-axis views at any orientation.

A view is one plane of labels. Its points lie anywhere along the target's axes, each with a row of the
score table of its own view: what a view does not draw (most leave out the RV wall) matches its
background. A view moves in its plane as a slice does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cardiacreg.algebra import invert, multiply
from cardiacreg.arrays import Float
from cardiacreg.geometry import N_LABELS, STRUCTURES, LabelMap, Volume, apply_matrix

MOST_VIEWS = 256 // N_LABELS
"""So many views have rows of their own in one table of scores."""


class ViewPlane(NamedTuple):
    """One plane of labels beside the stack.

    Parameters
    ----------
    labels : LabelMap
        One slice, shape (i, j, 1).
    not_drawn : tuple of int
        Structures that the view does not draw although it may cut them.
    image : Volume, optional
        On the same lattice.
    """

    labels: LabelMap
    not_drawn: tuple[int, ...] = ()
    image: Volume | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ViewSamples:
    """The points of all views that count, along the target's axes.

    Parameters
    ----------
    points_mm : ndarray, shape (n, 3)
        View after view.
    rows : ndarray of uint8, shape (n,)
        Row of each point in `score`.
    pixels : ndarray of int64, shape (n, 2)
        The pixel of its view that each point is.
    starts : ndarray of int64, shape (n_views + 1,)
        Where the points of each view begin.
    axes : ndarray, shape (n_views, 2, 3)
        In-plane unit vectors of each view.
    score : ndarray, shape (n_rows, n_codes)
        What each row is worth in each code of the atlas, weighed by the area of a point.
    """

    points_mm: Float
    rows: NDArray[np.uint8]
    pixels: NDArray[np.int64]
    starts: NDArray[np.int64]
    axes: Float
    score: Float

    @property
    def total_weight(self) -> float:
        """The score of all points if all match."""
        return float(self.score.max(axis=1)[self.rows].sum())

    def every(self, stride: int) -> ViewSamples:
        """Return the points at every `stride`-th pixel of each view's axes."""
        if stride == 1:
            return self
        kept = (self.pixels % stride == stride // 2).all(axis=1)
        before = np.concatenate([[0], np.cumsum(kept)])
        return ViewSamples(
            self.points_mm[kept], self.rows[kept], self.pixels[kept], before[self.starts],
            self.axes, self.score,
        )  # fmt: skip


def sample_views(
    views: Sequence[ViewPlane],
    axes_to_world: Float,
    codes: NDArray[np.uint8],
    score: Float,
    *,
    class_weights: dict[int, float],
    pixel_area_mm2: float,
    margin_mm: float,
) -> ViewSamples:
    """Collect the points of views within a margin of their labels.

    Parameters
    ----------
    views : sequence of ViewPlane
    axes_to_world : ndarray, shape (4, 4)
        Mm along the target's axes to world mm.
    codes : ndarray of uint8, shape (256,)
        Label to label code.
    score : ndarray, shape (n_codes, n_codes)
        Of the target's slices; the columns are the atlas's codes.
    class_weights : dict of int to float
        Weight of labels, 1 where not named.
    pixel_area_mm2 : float
        Of the stack: a point of a view weighs as much as the area of the stack that it covers.
    margin_mm : float
    """
    to_axes = invert(axes_to_world)
    points, rows, pixels, axes, tables = [], [], [], [], []
    for number, view in enumerate(views):
        labels = view.labels
        ij = np.argwhere(_near(labels, margin_mm)).astype(np.int64)
        local: Float = np.column_stack([ij.astype(np.float64), np.zeros(len(ij))])
        points.append(apply_matrix(multiply(to_axes, labels.voxel_to_world), local))
        rows.append(labels.array[ij[:, 0], ij[:, 1], 0] + N_LABELS * number)
        pixels.append(ij)
        steps = multiply(to_axes[:3, :3], labels.voxel_to_world[:3, :2])
        axes.append((steps / np.linalg.norm(steps, axis=0)).T)
        area = float(labels.spacing_mm[:2].prod()) / pixel_area_mm2
        tables.append(area * _score(view, codes, score, class_weights))
    counts = [len(each) for each in points]
    return ViewSamples(
        np.concatenate(points),
        np.concatenate(rows).astype(np.uint8),
        np.concatenate(pixels),
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        np.stack(axes),
        np.concatenate(tables),
    )


def _near(labels: LabelMap, margin_mm: float) -> NDArray[np.bool_]:
    """The pixels of a plane within a margin of any label; none of one without labels."""
    empty = labels.array[:, :, 0] == 0
    if empty.all():
        return np.zeros(empty.shape, dtype=bool)
    distance = ndimage.distance_transform_edt(empty, sampling=labels.spacing_mm[:2])
    return np.asarray(distance <= margin_mm)


def _score(
    view: ViewPlane, codes: NDArray[np.uint8], score: Float, class_weights: dict[int, float]
) -> Float:
    """What each label of a view is worth in each code of the atlas."""
    table = np.zeros((N_LABELS, score.shape[1]))
    table[0, codes[0]] = class_weights.get(0, 1.0)
    for label in STRUCTURES:
        if label in view.not_drawn:
            table[0, codes[label]] = table[0, codes[0]]
        else:
            table[label, codes[label]] = class_weights.get(label, 1.0)
    return table
