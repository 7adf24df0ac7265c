"""A mesh of tetrahedra that fills the walls of a model, ready for simulations."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real

import numpy as np
from numpy.typing import NDArray

from cardiacreg.anatomy.landmarks import landmarks_from_labels
from cardiacreg.anatomy.volumes import structure_volumes_ml
from cardiacreg.arrays import Float, MadeAnew
from cardiacreg.compute.progress import Parts, Stage
from cardiacreg.compute.threads import ProgressCallable
from cardiacreg.errors import InvalidInputError, check_argument, warn
from cardiacreg.geometry import LV_WALL, RV_WALL, LabelMap, apply_matrix
from cardiacreg.measures.segments import heart_directions
from cardiacreg.meshes.boundary import SURFACES, boundary_of, surface_numbers, without_pinches
from cardiacreg.meshes.fibres import FibreAngles, rule_based_fibres
from cardiacreg.meshes.quality import scaled_jacobians, signed_volumes
from cardiacreg.meshes.smoothing import improved
from cardiacreg.meshes.stuffing import stuffed
from cardiacreg.meshes.wall_field import STEP_MM, WallFields, value_at, wall_fields
from cardiacreg.results.saved_model import Model, as_model
from cardiacreg.surfaces.level_fields import LV_ENDO, RV_ENDO

DEFAULT_EDGE_MM = 1.5
_THINNEST = 1.5
"""Least thickness of a wall in edges: a thinner one would have holes."""
_SHORTEST_MM, _LONGEST_MM = 0.75, 5.0
_MOST_EXCESS = 0.1
_STAGES = {
    "walls": Stage("smoothing the walls", 2.0),
    "fill": Stage("filling the walls with tetrahedra", 2.5),
    "improve": Stage("moving nodes for better tetrahedra", 4.0),
    "boundary": Stage("naming the surfaces", 2.0),
    "fibres": Stage("laying fibres", 16.0),
}
"""In order, weighted by the seconds that they take."""


@dataclass(frozen=True, slots=True, eq=False)
class VolumeMesh(MadeAnew):
    """Tetrahedra of the walls, what bounds them, and the directions of their fibres.

    Parameters
    ----------
    nodes_mm : ndarray, shape (n, 3)
        World RAS+ mm.
    tetrahedra : ndarray of int32, shape (m, 4)
        Rows of `nodes_mm`; of positive volume.
    regions : ndarray of int32, shape (m,)
        Canonical label: 2 in the LV wall, the septum among it, 3 in the RV wall.
    triangles : ndarray of int32, shape (k, 3)
        The boundary, counter-clockwise as seen from outside.
    surfaces : ndarray of int32, shape (k,)
        1 ``LV_ENDO``, 2 ``RV_ENDO``, 3 ``EPI``, 4 ``BASE``, the rims of the valves.
    fibres, sheets : ndarray, shape (m, 3)
        Unit directions in the world, at right angles: of the fibres, and across them within their sheet,
        which points outwards where the sheet angle is 0.
    """

    nodes_mm: Float
    tetrahedra: NDArray[np.int32]
    regions: NDArray[np.int32]
    triangles: NDArray[np.int32]
    surfaces: NDArray[np.int32]
    fibres: Float
    sheets: Float

    def scaled_jacobians(self) -> Float:
        """Return the quality of every tetrahedron, 1 for a regular and 0 for a flat one, shape (m,)."""
        return scaled_jacobians(self.nodes_mm, self.tetrahedra.astype(np.int64))

    def volumes_ml(self) -> dict[str, float]:
        """Return the volume of each region in ml."""
        each = signed_volumes(self.nodes_mm, self.tetrahedra.astype(np.int64)) / 1000
        names = {"LV wall": LV_WALL, "RV wall": RV_WALL}
        return {name: float(each[self.regions == label].sum()) for name, label in names.items()}

    def nodes_of(self, surface: str) -> NDArray[np.int64]:
        """Return the numbers of the nodes on a surface.

        Parameters
        ----------
        surface : str
            ``LV_ENDO``, ``RV_ENDO``, ``EPI`` or ``BASE``.

        Raises
        ------
        InvalidInputError
            If the name is another (UNKNOWN_STRUCTURE).
        """
        if surface not in SURFACES:
            raise InvalidInputError(
                f"nodes_of: got the surface {surface!r}; needs one of {', '.join(SURFACES)}.",
                code="UNKNOWN_STRUCTURE",
            )
        return np.unique(self.triangles[self.surfaces == SURFACES[surface]]).astype(np.int64)


def volume_mesh(
    model: Model,
    *,
    edge_mm: float = DEFAULT_EDGE_MM,
    angles: FibreAngles | None = None,
    progress: ProgressCallable | None = None,
) -> VolumeMesh:
    """Fill the walls of a model with tetrahedra.

    The muscle is the inside of a level set between the surfaces of `surfaces_of`, open at the valves. It
    is filled by isosurface stuffing, and fibres are laid by the rules of Bayer et al. (2012).

    Parameters
    ----------
    model : RefineResult, LabelMap or path-like
        As for `surfaces_of`: a result, the folder it was saved to, canonical labels on thin slices, or
        their file.
    edge_mm : float
        Edge of the lattice that the tetrahedra come from, 0.75 to 5; the mean edge is a little shorter.
        Walls thinner than 1.5 edges (4 mm at most) are thickened outwards to that, as they would have
        holes: a thin RV wall needs small edges.
    angles : FibreAngles, optional
        Of fibres and sheets at endo- and epicardium; those of the paper when absent.
    progress : callable, optional
        Receives a `Progress` at the beginning and the end of each step, as `refine` sends them.

    Returns
    -------
    VolumeMesh

    Warns
    -----
    InputWarning
        If a wall holds over a tenth more than the model's because it was thickened.

    Raises
    ------
    InvalidInputError
        If there is no LV wall around an LV cavity (NO_LV_WALL), a cavity is closed all around
        (CLOSED_CAVITY), the landmarks are unusable (BAD_LANDMARKS), the edge is out of range (BAD_EDGE),
        or the model cannot be read.

    Examples
    --------
    >>> from cardiacreg import sample_heart, volume_mesh
    >>> heart = sample_heart(1, group="hypertrophic", spacing_mm=(2, 2, 3), with_image=False)
    >>> mesh = volume_mesh(heart.labels)  # doctest: +SKIP

    Of the left ventricle alone, whose thicker wall allows a longer edge:

    >>> from cardiacreg import LabelMap
    >>> left = LabelMap(heart.labels.array * (heart.labels.array < 3), heart.labels.voxel_to_world)
    >>> mesh = volume_mesh(left, edge_mm=4)
    >>> bool(mesh.scaled_jacobians().min() > 0.1), sorted(set(mesh.surfaces.tolist()))
    (True, [1, 3, 4])
    """
    check_argument(edge_mm, Real, "volume_mesh: edge_mm")
    check_argument(angles, (FibreAngles, type(None)), "volume_mesh: angles")
    if not _SHORTEST_MM <= edge_mm <= _LONGEST_MM:
        raise InvalidInputError(
            f"volume_mesh: got an edge of {edge_mm} mm; needs {_SHORTEST_MM} to {_LONGEST_MM} "
            "(edge_mm= or --edge-mm).",
            code="BAD_EDGE",
        )
    known, parts = as_model(model), Parts(progress, _STAGES)
    frame = heart_directions(known.landmarks or landmarks_from_labels(known.labels))
    with parts.step("walls"):
        fields = wall_fields(known.labels, frame, _THINNEST * edge_mm)
    with parts.step("fill"):
        filled = stuffed(fields.wall, edge_mm / STEP_MM)
    with parts.step("improve"):
        made = improved(filled)
    with parts.step("boundary"):
        nodes, tetrahedra = _used(made.nodes, without_pinches(made.tetrahedra))
        nodes_mm = apply_matrix(fields.voxel_to_world, nodes)
        if np.linalg.det(fields.voxel_to_world[:3, :3]) < 0:
            tetrahedra = tetrahedra[:, [0, 1, 3, 2]]
        triangles = boundary_of(tetrahedra)
        surfaces = surface_numbers(nodes_mm, triangles, fields, frame)
        regions = _regions(nodes[tetrahedra].mean(axis=1), fields)
    with parts.step("fibres"):
        laid = rule_based_fibres(nodes_mm, tetrahedra, triangles, surfaces, frame, angles)
    mesh = VolumeMesh(
        nodes_mm,
        tetrahedra.astype(np.int32),
        regions,
        triangles.astype(np.int32),
        surfaces,
        laid.fibres,
        laid.sheets,
    )
    _tell_of_thickened_walls(mesh, known.labels, edge_mm)
    return mesh


def _used(nodes: Float, tetrahedra: NDArray[np.int64]) -> tuple[Float, NDArray[np.int64]]:
    """Leave out nodes that no tetrahedron has."""
    used, rows = np.unique(tetrahedra, return_inverse=True)
    return nodes[used], np.asarray(rows.reshape(-1, 4), dtype=np.int64)


def _tell_of_thickened_walls(mesh: VolumeMesh, labels: LabelMap, edge_mm: float) -> None:
    """Warn where a region holds much more muscle than the model has."""
    model_ml = structure_volumes_ml(labels)
    for name, found_ml in mesh.volumes_ml().items():
        own_ml = model_ml.get(name) or 0.0
        if own_ml > 0 and found_ml > (1 + _MOST_EXCESS) * own_ml:
            warn(
                f"volume_mesh: {name} has {found_ml:.0f} ml as tetrahedra and {own_ml:.0f} ml in the "
                f"model, since walls thinner than {_THINNEST} edges of {edge_mm:g} mm are thickened; "
                "take a smaller edge (edge_mm= or --edge-mm)."
            )


def _regions(centres: Float, fields: WallFields) -> NDArray[np.int32]:
    left = value_at(fields.left, centres) > 0
    if RV_ENDO in fields.cavities:
        # Where a wall was thickened past the epicardium, the nearer cavity tells whose it is.
        near = [value_at(fields.cavities[name], centres) for name in (LV_ENDO, RV_ENDO)]
        left |= near[0] > near[1]
    else:
        left[:] = True
    return np.where(left, LV_WALL, RV_WALL).astype(np.int32)
