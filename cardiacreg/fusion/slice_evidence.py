"""What a network thinks of the acquired slices, as further votes of label fusion.

The atlases vote with the shape that they were given; a network's probabilities say, voxel by voxel, how
clearly a slice shows each structure. Both are added: ``V_l(x) + w p_l(x)``, in shares of all votes. Where
the network is sure it decides; where it hesitates between two structures it adds nearly as much to both,
and the atlases decide. Between two slices probabilities are interpolated along the stack, so that where
the slices disagree, as wherever the heart tapers, they say nothing; beyond the outermost ones they fade
over one slice distance.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cardiacreg.arrays import Float
from cardiacreg.transforms.resampling import Lattice

EVIDENCE_WEIGHT = 1.0
"""w: votes of one certain voxel of a slice, in shares of all atlases'."""


def add_slice_evidence(
    votes: NDArray[np.float32],
    lattice: Lattice,
    probabilities: NDArray[np.float32],
    target_to_world: Float,
    slice_shifts_mm: Float,
    weight: float = EVIDENCE_WEIGHT,
) -> NDArray[np.float32]:
    """Add what the acquired slices' probabilities say to the atlases' votes.

    Parameters
    ----------
    votes : ndarray of float32, shape (i, j, k, N_LABELS)
        With the same sum everywhere; changed in place.
    lattice : Lattice
        Of the votes, with axes parallel to the target's.
    probabilities : ndarray of float32, shape (N_LABELS, i, j, k)
        On the target's lattice; zeros where nothing is known.
    target_to_world : ndarray, shape (4, 4)
        Voxels of the target to world mm.
    slice_shifts_mm : ndarray, shape (n_slices, 2)
        True position = stored position + shift.
    weight : float
        Votes of a certain voxel, in shares of all votes.

    Returns
    -------
    ndarray of float32, shape (i, j, k, N_LABELS)
        The same array; its sums differ now.
    """
    total = weight * float(votes[0, 0, 0].sum())
    to_voxel = np.linalg.inv(lattice.voxel_to_world) @ target_to_world
    spacing = np.linalg.norm(target_to_world[:3, :2], axis=0)
    moved = slice_shifts_mm / spacing
    planes = np.stack([
        _plane(probabilities[..., k], to_voxel, moved[k], votes.shape[:2])
        for k in range(probabilities.shape[3])
    ])  # fmt: skip
    heights = to_voxel[2, 2] * np.arange(len(planes)) + to_voxel[2, 3]
    for z, shares in enumerate(_shares(heights, abs(float(to_voxel[2, 2])), votes.shape[2])):
        for k in np.flatnonzero(shares):
            votes[:, :, z] += np.float32(total * shares[k]) * planes[k]
    return votes


def _plane(
    probabilities: NDArray[np.float32], to_voxel: Float, moved: Float, shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """Probabilities of one slice at the lattice's columns, shape (i, j, N_LABELS); 0 outside it."""
    ends = []
    for axis in range(2):
        at = (np.arange(shape[axis]) - to_voxel[axis, 3]) / to_voxel[axis, axis] - moved[axis]
        size = probabilities.shape[1 + axis]
        lower = np.clip(np.floor(at), 0, max(size - 2, 0)).astype(np.int64)
        inside = (at >= 0) & (at <= size - 1)
        part = np.clip(at - lower, 0, 1)
        upper = np.minimum(lower + 1, size - 1)
        ends.append(((lower, inside * (1 - part)), (upper, inside * part)))
    found = np.zeros((len(probabilities), *shape), dtype=np.float32)
    for rows, over_rows in ends[0]:
        across = probabilities[:, rows] * over_rows[:, None].astype(np.float32)
        for columns, over_columns in ends[1]:
            found += across[:, :, columns] * over_columns.astype(np.float32)
    return np.ascontiguousarray(np.moveaxis(found, 0, -1))


def _shares(heights: Float, step: float, depth: int) -> Float:
    """What each slice says at each height of the lattice, linear between, shape (depth, n_slices)."""
    apart = np.abs(np.arange(depth)[:, None] - heights[None]) / step
    return np.asarray(np.maximum(1 - apart, 0.0))
