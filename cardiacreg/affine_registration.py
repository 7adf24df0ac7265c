"""Label-based improvement of the landmark affine, by the same consistency as the deformation.

Not in the paper, whose landmarks come from a network. Landmarks derived from thick slices of unusual
hearts can be a centimetre off; twelve numbers are then improved on the acquired slices before atlases
are chosen. The affine correction is written on a lattice of one cell, on which splines reproduce it
exactly, so that objective and gradient are those of the deformation.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cardiacreg._lbfgs import minimise
from cardiacreg.ffd_registration import PreparedTarget
from cardiacreg.geometry import Affine, LabelMap
from cardiacreg.label_consistency import ConsistencyObjective, atlas_cells

Float = NDArray[np.float64]


def improve_affine(
    prepared: PreparedTarget,
    atlas: LabelMap,
    target_to_atlas: Affine,
    *,
    stride: int = 4,
    iterations: int = 30,
) -> Affine:
    """Return the affine with the best label consistency near a given one.

    Parameters
    ----------
    prepared : PreparedTarget
        The sampled target; its margin, class weights and unknown labels apply.
    atlas : LabelMap
    target_to_atlas : Affine
        Start, target world mm to atlas world mm.
    stride : int
        In-plane sampling stride.
    iterations : int
        Most line searches.

    Returns
    -------
    Affine
        Never of lower consistency, on the sampled voxels, than the start.
    """
    samples = prepared.samples.every(stride)
    frame = samples.frame_to_world
    objective = ConsistencyObjective(
        samples,
        atlas_cells(atlas, prepared.codes.codes),
        target_to_atlas.matrix @ frame,
        prepared.codes.score,
    )
    centre = (prepared.lower_mm + prepared.upper_mm) / 2
    spacing = prepared.upper_mm - prepared.lower_mm
    origin = prepared.lower_mm - spacing
    axes = [(origin[a] + spacing[a] * np.arange(4) - centre[a]) / spacing[a] for a in range(3)]
    points = np.stack([*np.meshgrid(*axes, indexing="ij"), np.ones((4, 4, 4))], axis=-1)
    shifts = np.zeros((len(samples.labels), 2))

    def function(x: Float) -> tuple[float, Float]:
        displacements = np.einsum("abcn,nd->abcd", points, x.reshape(4, 3))
        c = objective(displacements, origin, spacing, shifts)
        gradient = np.einsum("abcn,abcd->nd", points, c.displacement_gradient)
        return 1 - c.value, -gradient.ravel()

    found = minimise(function, np.zeros(12), iterations=iterations, first_step=2.0, tolerance=1e-4)
    linear, shift = found.x.reshape(4, 3)[:3].T / spacing, found.x[9:]
    local = np.eye(4)
    local[:3, :3] += linear
    local[:3, 3] = shift - linear @ centre
    return Affine(target_to_atlas.matrix @ frame @ local @ np.linalg.inv(frame))
