"""Surfaces whose vertices correspond: one surface of an atlas, carried to many hearts or frames.

Transforms go from target to atlas, so that vertices are carried by their inverse. All surfaces that come
of one atlas have the same triangles, and vertex n is the same place of the heart in each. A carried
surface has that atlas's anatomy; with a model to lie on, its vertices move along the gradient of the
field whose zero level is the model's surface, first together with their neighbours, then each alone.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage, sparse

from cardiacreg.arrays import Float
from cardiacreg.errors import InvalidInputError, check_argument, warn
from cardiacreg.geometry import Affine, LabelMap
from cardiacreg.surfaces.level_fields import (
    STRUCTURES_INSIDE,
    Field,
    LevelField,
    fine_fields,
    leveled,
)
from cardiacreg.surfaces.triangles import Surface
from cardiacreg.transforms.ffd import FFD
from cardiacreg.transforms.ffd_chain import FFDChain
from cardiacreg.transforms.inverse import invert_points

_LATTICE_MM = 1.5
_STEPS_TOGETHER, _STEPS_ALONE = 20, 20
_LONGEST_STEP_MM = 1.0
_NEAR_MM = 0.25
_TOLD_SHARE = 0.01
_FAR_SHARE = 0.9
"""Of a field's largest value, beyond which it no longer tells distances."""


def carried_surface(
    surface: Surface, target_to_atlas: Affine | FFD | FFDChain, *, onto: LabelMap | None = None
) -> Surface:
    """Return an atlas's surface in the world of a target, vertex by vertex.

    Parameters
    ----------
    surface : Surface
        Of the atlas, in its world mm; as `surfaces_of` returns it for the atlas's labels.
    target_to_atlas : Affine, FFD or FFDChain
        Of a registration with that atlas, or of a frame: `Registration.target_to_atlas`,
        `CineFrame.transforms`.
    onto : LabelMap, optional
        The target's model, canonical labels on thin slices. The vertices then lie on its surface of the
        name that `surface` has.

    Returns
    -------
    Surface
        With as many vertices, in the same order, and the same triangles; these are turned around where
        the transform mirrors, so that they look outwards.

    Raises
    ------
    InvalidInputError
        If vertices have no inverse, as where a transform folds (NO_INVERSE), or `onto` has no structure
        of the surface's name (UNKNOWN_STRUCTURE, EMPTY_LABELS).

    Warns
    -----
    InputWarning
        If more than 1 % of the vertices do not reach the model's surface.

    Examples
    --------
    >>> import numpy as np
    >>> from cardiacreg import Affine, carried_surface, surfaces_of
    >>> from cardiacreg.phantoms.toy_heart import make_toy_heart
    >>> atlas = surfaces_of(make_toy_heart().labels, triangles=1000, structures=["LV_ENDO"])["LV_ENDO"]
    >>> twice = carried_surface(atlas, Affine(np.diag([0.5, 0.5, 0.5, 1.0])))
    >>> round(twice.volume_ml() / atlas.volume_ml(), 6)
    8.0
    """
    check_argument(surface, Surface, "carried_surface: surface")
    check_argument(target_to_atlas, (Affine, FFD, FFDChain), "carried_surface: target_to_atlas")
    check_argument(onto, (LabelMap, type(None)), "carried_surface: onto")
    found = invert_points(target_to_atlas, surface.vertices_mm)
    lost = int((~found.converged).sum())
    if lost:
        raise InvalidInputError(
            f"carried_surface: {lost} of {len(found.converged)} vertices have no place in the target; "
            "the transform folds there, or is of another atlas.",
            code="NO_INVERSE",
        )
    affine = target_to_atlas if isinstance(target_to_atlas, Affine) else target_to_atlas.affine
    mirrors = np.linalg.det(affine.matrix[:3, :3]) < 0
    triangles = surface.triangles[:, ::-1] if mirrors else surface.triangles
    vertices = found.points_mm
    if onto is not None:
        vertices = _moved_onto(vertices, surface, onto)
    return Surface(vertices, triangles, surface.name)


def _moved_onto(vertices: Float, surface: Surface, onto: LabelMap) -> Float:
    """Move vertices to the zero level of a model's field."""
    field = _signed_distances(_level_field(onto, surface.name))
    to_nodes = np.asarray(np.linalg.inv(field.voxel_to_world), dtype=np.float64)
    gradients = np.stack([*np.gradient(field.field, _LATTICE_MM)], axis=-1)
    turn = field.voxel_to_world[:3, :3] / _LATTICE_MM
    neighbours = _neighbours(surface)
    for step in range(_STEPS_TOGETHER + _STEPS_ALONE):
        nodes = (vertices @ to_nodes[:3, :3].T + to_nodes[:3, 3]).T
        distances = ndimage.map_coordinates(field.field, nodes, order=1, mode="nearest")
        slopes = np.stack(
            [
                ndimage.map_coordinates(gradients[..., axis], nodes, order=1, mode="nearest")
                for axis in range(3)
            ],
            axis=-1,
        )
        lengths = np.maximum((slopes**2).sum(axis=1), 0.1)
        moves = -(distances / lengths)[:, None] * slopes @ turn.T
        sizes = np.linalg.norm(moves, axis=1)
        moves *= np.minimum(1.0, _LONGEST_STEP_MM / np.maximum(sizes, 1e-9))[:, None]
        vertices = vertices + (neighbours @ moves if step < _STEPS_TOGETHER else moves)
    _tell_far(np.abs(distances), surface.name)
    return vertices


def _level_field(labels: LabelMap, name: str) -> LevelField:
    fields = leveled(fine_fields(labels), _LATTICE_MM) if name in STRUCTURES_INSIDE else {}
    if name not in fields:
        raise InvalidInputError(
            f"carried_surface: the surface is called {name!r}, and the labels show "
            f"{', '.join(fields) or 'no structure of this name'}; needs one of "
            f"{', '.join(STRUCTURES_INSIDE)} that is labelled.",
            code="UNKNOWN_STRUCTURE",
        )
    return fields[name]


def _signed_distances(level: LevelField) -> LevelField:
    """Return a field that also tells distances far from its zero level, where it is flat."""
    field = level.field
    width = 4 * int(np.ceil(_LONGEST_STEP_MM)) + 8
    wide: Field = np.pad(field, width, mode="edge")
    matrix = level.voxel_to_world.copy()
    matrix[:3, 3] -= matrix[:3, :3] @ np.full(3, float(width))
    inside = wide > 0
    far = ndimage.distance_transform_edt(inside) - ndimage.distance_transform_edt(~inside)
    flat = np.abs(wide) > _FAR_SHARE * float(np.abs(field).max())
    return LevelField(np.where(flat, far * _LATTICE_MM, wide).astype(np.float32), matrix)


def _neighbours(surface: Surface) -> sparse.csr_matrix:
    """Mean over a vertex and those it shares an edge with, as a matrix."""
    count = len(surface.vertices_mm)
    first, second = surface.triangles[:, [0, 1, 2]].ravel(), surface.triangles[:, [1, 2, 0]].ravel()
    rows = np.concatenate([first, second, np.arange(count)])
    columns = np.concatenate([second, first, np.arange(count)])
    joined = sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(count, count))
    joined.data[:] = 1.0
    return sparse.csr_matrix(sparse.diags(1 / np.asarray(joined.sum(axis=1)).ravel()) @ joined)


def _tell_far(distances: Float, name: str) -> None:
    share = float((distances > _NEAR_MM).mean())
    if share > _TOLD_SHARE:
        warn(
            f"carried_surface: {100 * share:.0f} % of the vertices of {name} do not reach the model's "
            f"surface, and lie up to {distances.max():.1f} mm from it; is the transform of this heart?"
        )
