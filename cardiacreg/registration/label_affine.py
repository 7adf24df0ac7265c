"""Label-based improvement of the landmark affine, by the same consistency as the deformation.

Not in the paper, whose landmarks come from a network. Landmarks derived from thick slices of unusual
hearts can be a centimetre off; twelve numbers are then improved on the acquired slices before atlases
are chosen. The affine correction is written on a lattice of one cell, on which splines reproduce it
exactly, so that objective and gradient are those of the deformation.
"""

from __future__ import annotations

import numpy as np

from cardiacreg.algebra import invert, multiply
from cardiacreg.arrays import Float
from cardiacreg.compute.lbfgs import minimise
from cardiacreg.geometry import Affine, LabelMap, Landmarks, apply_matrix
from cardiacreg.registration.ffd_registration import PreparedTarget
from cardiacreg.registration.target_objective import TargetObjective
from cardiacreg.transforms.atlas_lookup import build_lookup


def improve_affine(
    prepared: PreparedTarget,
    atlas: LabelMap,
    target_to_atlas: Affine,
    *,
    landmarks: tuple[Landmarks, Landmarks] | None = None,
    landmark_weight: float = 1e-4,
    shifts_mm: Float | None = None,
    stride: int = 4,
    iterations: int = 30,
) -> Affine:
    """Return the affine with the best label consistency near a given one.

    Minimises ``1 - C + w * mean |T(p) - q|^2`` over 12 numbers; the landmarks hold what thick slices
    hardly show, the heart's length.

    Parameters
    ----------
    prepared : PreparedTarget
        The sampled target; its margin, class weights and unknown labels apply.
    atlas : LabelMap
    target_to_atlas : Affine
        Start, target world mm to atlas world mm.
    landmarks : pair of Landmarks, optional
        Corresponding points p of the target and q of the atlas, world mm.
    landmark_weight : float
        w, per mm^2.
    shifts_mm : ndarray, shape (n_slices + n_views, 2), optional
        Of the target's slices, then of its views; zero when absent.
    stride : int
        In-plane sampling stride.
    iterations : int
        Most line searches.

    Returns
    -------
    Affine
        Its objective is never worse, on the sampled voxels, than the start's.
    """
    axes = prepared.samples.axes_to_world
    to_atlas = multiply(target_to_atlas.matrix, axes)
    objective = TargetObjective(
        prepared, build_lookup(atlas, prepared.codes.codes), to_atlas, stride
    )
    centre = (prepared.lower_mm + prepared.upper_mm) / 2
    spacing = prepared.upper_mm - prepared.lower_mm
    origin = prepared.lower_mm - spacing
    ticks = [origin[a] + spacing[a] * np.arange(4) for a in range(3)]
    points = _basis(np.stack(np.meshgrid(*ticks, indexing="ij"), axis=-1), centre, spacing)
    rows = prepared.shift_index
    shifts = np.zeros((len(rows), 2)) if shifts_mm is None else shifts_mm[rows]
    anchor = _LandmarkTerm(landmarks, landmark_weight, to_atlas, axes, centre, spacing)

    def function(x: Float) -> tuple[float, Float]:
        correction = x.reshape(4, 3)
        displacements = np.einsum("abcn,nd->abcd", points, correction)
        c = objective(displacements, origin, spacing, shifts)
        term, term_gradient = anchor(correction)
        gradient = term_gradient - np.einsum("abcn,abcd->nd", points, c.displacement_gradient)
        return 1 - c.value + term, gradient.ravel()

    found = minimise(function, np.zeros(12), iterations=iterations, first_step=2.0, tolerance=1e-4)
    linear, shift = found.x.reshape(4, 3)[:3].T / spacing, found.x[9:]
    local = np.eye(4)
    local[:3, :3] += linear
    local[:3, 3] = shift - multiply(linear, centre)
    return Affine(multiply(to_atlas, local, invert(axes)))


def _basis(positions_mm: Float, centre_mm: Float, spacing_mm: Float) -> Float:
    """Scaled coordinates and 1 for points of shape (..., 3): the correction is linear in them."""
    scaled = (positions_mm - centre_mm) / spacing_mm
    return np.concatenate([scaled, np.ones((*scaled.shape[:-1], 1))], axis=-1)


class _LandmarkTerm:
    """Weighted mean squared landmark distance as a function of the correction, with its gradient."""

    def __init__(
        self,
        landmarks: tuple[Landmarks, Landmarks] | None,
        weight: float,
        to_atlas: Float,
        axes: Float,
        centre_mm: Float,
        spacing_mm: Float,
    ) -> None:
        self._count = 0 if landmarks is None else len(landmarks[0].points_mm)
        if landmarks is None:
            return
        positions = Affine(axes).inverse().apply(landmarks[0].points_mm)
        self._gap = apply_matrix(to_atlas, positions) - landmarks[1].points_mm
        self._basis = _basis(positions, centre_mm, spacing_mm)
        self._linear = to_atlas[:3, :3]
        self._weight = weight / self._count

    def __call__(self, correction: Float) -> tuple[float, Float]:
        if self._count == 0:
            return 0.0, np.zeros((4, 3))
        moved = np.einsum("pn,nd->pd", self._basis, correction)
        residual = self._gap + np.einsum("pd,ed->pe", moved, self._linear)
        back = np.einsum("pe,ed->pd", residual, self._linear)
        gradient = 2 * self._weight * np.einsum("pn,pd->nd", self._basis, back)
        return self._weight * float((residual**2).sum()), gradient
