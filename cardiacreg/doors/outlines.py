"""Closed outlines in pixels: points put in order, and the pixels inside.

Outlines that come from masks are centres of outermost pixels, often every second one and in no order.
The edge of the structure then runs half a pixel outside them, which `filled` is told by `edge`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cardiacreg.arrays import Float

_MARGIN_PIXELS = 2
_ROUNDING = 1e-6
_NO_GAIN = 1e-9


def as_tour(points: Float, *, openings: tuple[tuple[int, int], ...] = ()) -> Float:
    """Order the points of an outline along a short closed tour.

    From point to nearest point, and then any stretch is reversed that makes the tour shorter: what
    remains does not cross itself. A right ventricle, or a left wall that the valve plane cuts, is a
    crescent, which angles around a centre would not order.

    Parameters
    ----------
    points : ndarray, shape (n, 2)
    openings : tuple of pairs of int
        Rows of points between which the outline is open, as the two points of a valve: the tour goes
        straight from one to the other.

    Returns
    -------
    ndarray, shape (n, 2)
    """
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1)
    for one, other in openings:
        distances[one, other] = distances[other, one] = -float(distances.sum(axis=0).max())
    return points[_uncrossed(_nearest_tour(distances), distances)]


def _nearest_tour(distances: Float) -> NDArray[np.int64]:
    order, left = [0], set(range(1, len(distances)))
    while left:
        order.append(min(left, key=lambda n: (distances[order[-1], n], n)))
        left.remove(order[-1])
    return np.array(order)


def _uncrossed(order: NDArray[np.int64], distances: Float) -> NDArray[np.int64]:
    """Reverse stretches of a closed tour while that makes it shorter (2-opt)."""
    improved = True
    while improved:
        improved = False
        for a in range(len(order) - 1):
            following = np.roll(order, -1)
            now = distances[order[a], following[a]] + distances[order, following]
            gain = now - distances[order[a], order] - distances[following[a], following]
            gain[: a + 2] = 0
            b = int(np.argmax(gain))
            if gain[b] > _NO_GAIN:
                order[a + 1 : b + 1] = order[a + 1 : b + 1][::-1].copy()
                improved = True
    return order


def filled(outline: Float, shape: tuple[int, int], edge: float = 0.5) -> NDArray[np.bool_]:
    """Return the pixels whose centres lie inside a closed outline, or within `edge` pixels of it.

    Parameters
    ----------
    outline : ndarray, shape (n, 2)
        Pixel coordinates (i, j) in order; the last point is joined with the first.
    shape : tuple of int
    edge : float
        In pixels; 0 for an outline that runs along the structure's edge.

    Returns
    -------
    ndarray of bool
    """
    from skimage.measure import grid_points_in_poly

    found = np.zeros(shape, dtype=bool)
    low = np.maximum(np.floor(outline.min(axis=0)).astype(int) - _MARGIN_PIXELS, 0)
    high = np.minimum(np.ceil(outline.max(axis=0)).astype(int) + _MARGIN_PIXELS + 1, shape)
    if (high <= low).any():
        return found
    held = np.array(grid_points_in_poly(tuple(high - low), outline - low))
    near = np.argwhere(~held)
    close = _edge_distances(outline, near[:, None] + low) <= edge + _ROUNDING
    held[tuple(near[close].T)] = True
    found[low[0] : high[0], low[1] : high[1]] = held
    return found


def _edge_distances(outline: Float, pixels: NDArray[np.int64]) -> Float:
    """Distance of each pixel, shape (n, 1, 2), to the nearest edge of the outline, in pixels."""
    along = np.roll(outline, -1, axis=0) - outline
    lengths = np.maximum((along**2).sum(axis=1), 1e-12)
    found = np.empty(len(pixels))
    for first in range(0, len(pixels), 1000):
        part = pixels[first : first + 1000]
        share = np.clip(((part - outline) * along).sum(axis=-1) / lengths, 0, 1)
        nearest = outline + share[..., None] * along
        found[first : first + 1000] = np.linalg.norm(part - nearest, axis=-1).min(axis=1)
    return found
