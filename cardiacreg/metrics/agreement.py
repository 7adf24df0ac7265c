"""How well a model agrees with the slices that it was made from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cardiacreg.algebra import invert, multiply
from cardiacreg.geometry import STRUCTURES, LabelMap, apply_matrix, nearest_labels
from cardiacreg.slices import labelled_slices


def slice_agreement(
    target: LabelMap, refined: LabelMap, slice_shifts_mm: NDArray[np.float64]
) -> dict[str, float | None]:
    """Return Dice per structure between a target and a model sampled at its acquired slices.

    Parameters
    ----------
    target : LabelMap
        The acquired slices; only slices with labels count.
    refined : LabelMap
        The model, on any lattice with parallel axes.
    slice_shifts_mm : ndarray, shape (n_slices, 2)
        Where each slice truly lies: stored position + shift.

    Returns
    -------
    dict
        Structure name to Dice, None for structures that the target lacks.
    """
    sampled = sample_at_slices(target, refined, slice_shifts_mm)
    slices = labelled_slices(target.array)
    own, model = target.array[:, :, slices], sampled[:, :, slices]
    return {name: _dice(own == label, model == label) for label, name in STRUCTURES.items()}


def _dice(own: NDArray[np.bool_], model: NDArray[np.bool_]) -> float | None:
    if not own.any():
        return None
    return float(2 * (own & model).sum() / (own.sum() + model.sum()))


def sample_at_slices(
    target: LabelMap, refined: LabelMap, slice_shifts_mm: NDArray[np.float64]
) -> NDArray[np.uint8]:
    """Return the model's nearest label at every target voxel's true position."""
    to_voxel = multiply(invert(refined.voxel_to_world), target.voxel_to_world)
    grid = np.stack(
        np.meshgrid(*(np.arange(n, dtype=float) for n in target.shape), indexing="ij"), -1
    )
    grid[..., :2] += (slice_shifts_mm / target.spacing_mm[:2])[None, None]
    return nearest_labels(refined, apply_matrix(to_voxel, grid))
