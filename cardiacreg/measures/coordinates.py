"""Where a voxel of the LV wall lies: from apex to base, through the wall, and around the axis.

*Apex to base*: a potential is 0 at the apex, 1 where the wall ends at the base, harmonic between them,
and crosses neither endo- nor epicardium. It rises steeply near the apex; it is rescaled so that it
rises by equal steps over equal mean distances along the wall, 0 to 1 (the idea of Bayer et al., Med
Image Anal 45:83, 2018).

*Through the wall*: the distance to the endocardium along the field lines of Laplace's equation
(`measures.laplace`), over the length of the whole line: 0 to 1, one half in the middle of the wall
(Yezzi and Prince 2003; Schuler et al., Med Image Anal 74:102247, 2021).

*Around*: the angle about the long axis from the middle of the septum, anterior first, as the 17
segments are counted.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cardiacreg.anatomy.landmarks import landmarks_from_labels
from cardiacreg.arrays import Float
from cardiacreg.errors import InvalidInputError
from cardiacreg.geometry import LV_WALL, apply_matrix
from cardiacreg.measures.laplace import Mask, Wall, lines_between, potential_between
from cardiacreg.measures.left_wall import lv_wall
from cardiacreg.measures.segments import HeartDirections, heart_directions
from cardiacreg.results.saved_model import Model, as_model

_APEX_MM = 3.0
"""Radius of the apex about the long axis; where the wall is thinner than a voxel there, it is widened."""
_WIDEST_APEX_MM = 15.0
_BINS = 60


class WallCoordinates(NamedTuple):
    """Coordinates of the LV wall on the model's lattice; NaN outside the wall.

    Parameters
    ----------
    apex_base : ndarray of float32, shape (i, j, k)
        0 at the apex, 1 at the base.
    transmural : ndarray of float32, shape (i, j, k)
        0 at the endocardium, 1 at the epicardium.
    around_degrees : ndarray of float32, shape (i, j, k)
        0 in the middle of the septum, 90 anterior, 180 lateral, 270 inferior.
    voxel_to_world : ndarray, shape (4, 4)
        Of the model.
    """

    apex_base: NDArray[np.float32]
    transmural: NDArray[np.float32]
    around_degrees: NDArray[np.float32]
    voxel_to_world: Float


def wall_coordinates(model: Model) -> WallCoordinates:
    """Return three coordinates for every voxel of the LV wall.

    Parameters
    ----------
    model : RefineResult, LabelMap or path-like
        As for `measure`: a result, the folder it was saved to, canonical labels on thin slices, or their
        file.

    Returns
    -------
    WallCoordinates

    Raises
    ------
    InvalidInputError
        If there is no LV cavity or no LV wall around it (NO_LV_WALL), the landmarks are unusable
        (BAD_LANDMARKS), or the model cannot be read.

    Examples
    --------
    >>> import numpy as np
    >>> from cardiacreg import wall_coordinates
    >>> from cardiacreg.phantoms.toy_heart import make_toy_heart
    >>> heart = make_toy_heart().labels
    >>> found = wall_coordinates(heart)
    >>> wall = heart.array == 2
    >>> bool(np.isfinite(found.transmural[wall]).all()), bool(np.isnan(found.apex_base[~wall]).all())
    (True, True)
    """
    known = as_model(model)
    directions = heart_directions(known.landmarks or landmarks_from_labels(known.labels))
    lattice = lv_wall(known.labels, directions)
    voxels = np.argwhere(known.labels.array == LV_WALL)
    if lattice is None or not lattice.wall.inside.any() or not len(voxels):
        raise InvalidInputError(
            "wall_coordinates: the model has no LV wall around an LV cavity; needs both.",
            code="NO_LV_WALL",
        )
    wall = lattice.wall
    points = apply_matrix(known.labels.voxel_to_world, voxels.astype(np.float64))
    nodes = apply_matrix(
        np.asarray(np.linalg.inv(lattice.voxel_to_world), dtype=np.float64), points
    )
    places = apply_matrix(lattice.voxel_to_world, np.argwhere(wall.inside).astype(np.float64))
    fields = (
        _apex_base(wall, _from_axis(places, directions), directions.heights_mm(places)),
        _depth(wall),
    )
    offsets = points - directions.apex_mm
    angles = (
        np.degrees(np.arctan2(offsets @ directions.anterior, offsets @ directions.septal)) % 360
    )
    values = (*(np.clip(_at(wall.inside, field, nodes), 0, 1) for field in fields), angles)
    filled = []
    for each in values:
        array = np.full(known.labels.shape, np.nan, dtype=np.float32)
        array[tuple(voxels.T)] = each
        filled.append(array)
    return WallCoordinates(filled[0], filled[1], filled[2], known.labels.voxel_to_world)


def _from_axis(points_mm: Float, directions: HeartDirections) -> Float:
    offsets = points_mm - directions.apex_mm
    return np.asarray(np.hypot(offsets @ directions.septal, offsets @ directions.anterior))


def _apex_base(wall: Wall, from_axis_mm: Float, heights_mm: Float) -> Float:
    """Coordinate of every node of the wall, from apex to base."""
    low = heights_mm < (heights_mm.min() + heights_mm.max()) / 2
    radius = max(_APEX_MM, float(from_axis_mm[low].min(initial=0.0)) + wall.step_mm)
    apex = low & (from_axis_mm < min(radius, _WIDEST_APEX_MM))
    at_apex = np.zeros(wall.inside.shape, dtype=np.bool_)
    at_apex[wall.inside] = apex
    found = potential_between(wall, at_apex)
    rest = ~apex
    distances = _rescaled_mm(found.potential, found.slope / wall.step_mm)
    along = np.empty(len(from_axis_mm))
    along[apex] = from_axis_mm[apex]
    along[rest] = radius + distances
    return along / max(radius + float(distances.max(initial=0.0)), 1e-6)


def _rescaled_mm(potential: Float, slope_per_mm: Float) -> Float:
    """Return the distance at which a potential is reached, by the mean slope where it has that value."""
    if not len(potential):
        return potential
    edges = np.quantile(potential, np.linspace(0, 1, _BINS + 1))
    edges[0], edges[-1] = 0.0, 1.0
    edges = np.unique(edges)
    rows = np.clip(np.searchsorted(edges, potential, side="right") - 1, 0, len(edges) - 2)
    counts = np.bincount(rows, minlength=len(edges) - 1)
    means = np.bincount(rows, slope_per_mm, minlength=len(edges) - 1) / np.maximum(counts, 1)
    steps = np.diff(edges) / np.maximum(means, 1e-6)
    steps[counts == 0] = 0.0
    return np.asarray(np.interp(potential, edges, np.concatenate([[0.0], np.cumsum(steps)])))


def _depth(wall: Wall) -> Float:
    """Share of its line at which every node of the wall lies, from endo- to epicardium."""
    starts = np.argwhere(wall.inside).astype(np.float64)
    inward, outward = (lines.lengths_mm for lines in lines_between(wall, starts))
    return np.asarray(inward / np.maximum(inward + outward, 1e-9))


def _at(inside: Mask, values: Float, nodes: Float) -> Float:
    """Interpolate values of the wall's nodes to points, which may lie a little outside."""
    field = np.full(inside.shape, np.nan)
    field[inside] = values
    known = np.isfinite(field)
    nearest = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
    filled = field[tuple(nearest)]
    return np.asarray(ndimage.map_coordinates(filled, nodes.T, order=1, mode="nearest"))
