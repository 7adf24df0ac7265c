"""Label-based improvement of the landmark affine, by the same consistency as the deformation.

Not in the paper, whose landmarks come from a network. Landmarks derived from thick slices of unusual
hearts can be a centimetre off; twelve numbers are then improved on the acquired slices before atlases
are chosen. The target is sampled once for all atlases (`AffineImprover`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cardiacreg.algebra import invert, multiply
from cardiacreg.arrays import Float
from cardiacreg.compute.lbfgs import minimise
from cardiacreg.geometry import Affine, LabelMap, Landmarks, apply_matrix
from cardiacreg.registration.affine_score import (
    PointList,
    sampled_points,
    score_affine,
)
from cardiacreg.registration.prepared_target import PreparedTarget
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
    improver = AffineImprover(prepared, shifts_mm=shifts_mm, stride=stride)
    return improver.improve(
        atlas, target_to_atlas, landmarks, landmark_weight=landmark_weight, iterations=iterations
    )


class AffineImprover:
    """Improves the affines of many atlases to one target; see `improve_affine` for its parameters."""

    def __init__(
        self, prepared: PreparedTarget, *, shifts_mm: Float | None = None, stride: int = 4
    ) -> None:
        self._codes = prepared.codes.codes
        self._axes = prepared.samples.axes_to_world
        self._centre = (prepared.lower_mm + prepared.upper_mm) / 2
        self._extent = prepared.upper_mm - prepared.lower_mm
        rows = prepared.shift_index
        shifts = np.zeros((len(rows), 2)) if shifts_mm is None else shifts_mm[rows]
        slices, views = sampled_points(prepared, stride, shifts)
        self._slices, self._views = self._scaled(slices), self._scaled(views)

    def _scaled(self, points: PointList) -> PointList:
        """The points by the extent of the heart around its centre: all twelve numbers are mm."""
        positions = (points.positions - self._centre[:, None]) / self._extent[:, None]
        return points._replace(positions=positions)

    def improve(
        self,
        atlas: LabelMap,
        target_to_atlas: Affine,
        landmarks: tuple[Landmarks, Landmarks] | None = None,
        *,
        landmark_weight: float = 1e-4,
        iterations: int = 30,
    ) -> Affine:
        """Return the improved affine of one atlas."""
        to_atlas = multiply(target_to_atlas.matrix, self._axes)
        anchor = self._landmark_term(landmarks, landmark_weight, to_atlas)
        objective = self.objective(atlas, to_atlas, anchor)
        found = minimise(
            objective, np.zeros(12), iterations=iterations, first_step=2.0, tolerance=1e-4
        )
        correction = found.x.reshape(4, 3)
        linear = correction[:3].T / self._extent
        local = np.eye(4)
        local[:3, :3] += linear
        local[:3, 3] = correction[3] - multiply(linear, self._centre)
        return Affine(multiply(to_atlas, local, invert(self._axes)))

    def objective(
        self, atlas: LabelMap, to_atlas: Float, anchor: Float
    ) -> Callable[[Float], tuple[float, Float]]:
        """Return what is minimised: a function of the correction of an affine.

        Parameters
        ----------
        atlas : LabelMap
        to_atlas : ndarray, shape (4, 4)
            The affine, from mm along the target's axes.
        anchor : ndarray, shape (13, 13)
            Symmetric; ``y' anchor y`` is added to 1 - the consistency, y being the correction and a 1.
        """
        cells = build_lookup(atlas, self._codes)
        to_voxel = multiply(invert(cells.voxel_to_world), to_atlas)
        place = np.diag([*self._extent, 1.0])
        place[:3, 3] = self._centre
        base = np.ascontiguousarray(multiply(to_voxel, place)[:3])
        linear = np.ascontiguousarray(to_voxel[:3, :3])
        found = np.empty(13)

        def function(correction: Float) -> tuple[float, Float]:
            score_affine(
                *self._slices, *self._views, cells.codes, base, linear, anchor, correction, found
            )
            return float(found[12]), found[:12].copy()

        return function

    def _landmark_term(
        self, landmarks: tuple[Landmarks, Landmarks] | None, weight: float, to_atlas: Float
    ) -> Float:
        """Weighted mean squared distance of landmarks, a quadratic of the correction and a 1."""
        anchor = np.zeros((13, 13))
        if landmarks is None or len(landmarks[0].points_mm) == 0:
            return anchor
        positions = apply_matrix(invert(self._axes), landmarks[0].points_mm)
        gap = apply_matrix(to_atlas, positions) - landmarks[1].points_mm
        scaled = (positions - self._centre) / self._extent
        basis, linear = np.column_stack([scaled, np.ones(len(scaled))]), to_atlas[:3, :3]
        products = np.einsum("pn,pm,ed,ef->ndmf", basis, basis, linear, linear)
        anchor[:12, :12] = products.reshape(12, 12)
        anchor[:12, 12] = anchor[12, :12] = np.einsum("pn,pe,ed->nd", basis, gap, linear).ravel()
        anchor[12, 12] = (gap**2).sum()
        return anchor * (weight / len(scaled))
