"""Weights of atlases from their joint errors, after Wang et al., IEEE TPAMI 35(3):611-623, 2013.

The chance that two atlases are wrong together at a voxel is read off their best-matching patches:
``M_mn = (mean_p |f_p - f_{m,p}| |f_p - f_{n,p}|) ** exponent``. The weights that minimise the expected
error are ``w = M^-1 1 / (1' M^-1 1)``, with a ridge on the diagonal; weights below zero are set to zero.
Best-patch votes, weighed by distance, are here too: both start from `patch_votes.best_matches`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cardiacreg.compute.jit import kernel
from cardiacreg.fusion.patch_tiles import Box, Matches, Scene, displacements


def best_patch_votes(scene: Scene, box: Box, matches: Matches) -> NDArray[np.float32]:
    """Return one vote per atlas for the label of its best match, weighed by eq. (5)'s exponential.

    Returns
    -------
    ndarray of float32, shape (i, j, k, n_labels)
        Right at active voxels.
    """
    weights = np.exp2(matches.halvings.min(axis=0) - matches.halvings)
    return _collect(scene, box, matches, np.maximum(weights, 2.0**-100))


def joint_votes(
    scene: Scene, box: Box, matches: Matches, *, exponent: float = 2.0, ridge: float = 0.1
) -> NDArray[np.float32]:
    """Return one vote per atlas for the label of its best match, weighed by joint errors.

    Parameters
    ----------
    scene : Scene
    box : Box
    matches : Matches
    exponent : float
        Of the errors' correlation.
    ridge : float
        Added to the diagonal of M, as a share of its mean.

    Returns
    -------
    ndarray of float32, shape (i, j, k, n_labels)
        Right at active voxels.
    """
    weights = np.zeros(matches.ranks.shape)
    _joint_kernel(
        scene.target, scene.atlases, scene.active, np.array(box), matches.ranks,
        displacements(scene.search), np.array(scene.patch), np.array([exponent, ridge]), weights,
    )  # fmt: skip
    return _collect(scene, box, matches, weights)


def _collect(
    scene: Scene, box: Box, matches: Matches, weights: NDArray[np.float64]
) -> NDArray[np.float32]:
    votes = np.zeros((*matches.ranks.shape[1:], scene.n_labels), dtype=np.float32)
    _collect_kernel(
        scene.codes, scene.active, np.array(box), matches.ranks, displacements(scene.search),
        weights, votes,
    )  # fmt: skip
    return votes


# ---------------------------------------------------------------------------------------------- kernels


@kernel
def _collect_kernel(codes, active, box, ranks, shifts, weights, votes):
    """Add each atlas's weight to the label of its best match."""
    for n in range(codes.shape[0]):
        for i in range(box[0], box[1]):
            for j in range(box[2], box[3]):
                for k in range(box[4], box[5]):
                    if active[i, j, k]:
                        y, x, z = i - box[0], j - box[2], k - box[4]
                        shift = shifts[ranks[n, y, x, z]]
                        label = codes[n, i + shift[0], j + shift[1], k + shift[2]]
                        votes[y, x, z, label] += weights[n, y, x, z]


@kernel
def _joint_kernel(target, atlases, active, box, ranks, shifts, patch, settings, weights):
    """Weights of every active voxel of a box."""
    n_atlases = atlases.shape[0]
    n_patch = (2 * patch[0] + 1) * (2 * patch[1] + 1)
    errors = np.empty((n_atlases, n_patch))
    matrix, solution = np.empty((n_atlases, n_atlases)), np.empty(n_atlases)
    for i in range(box[0], box[1]):
        for j in range(box[2], box[3]):
            for k in range(box[4], box[5]):
                if not active[i, j, k]:
                    continue
                y, x, z = i - box[0], j - box[2], k - box[4]
                for n in range(n_atlases):
                    _patch_errors(target, atlases[n], i, j, k, shifts[ranks[n, y, x, z]], patch,
                                  errors[n])  # fmt: skip
                _error_matrix(errors, settings, matrix)
                _solve_for_ones(matrix, solution)
                total = 0.0
                for n in range(n_atlases):
                    total += max(solution[n], 0.0)
                for n in range(n_atlases):
                    weights[n, y, x, z] = max(solution[n], 0.0) / total


@kernel
def _patch_errors(target, atlas, i, j, k, shift, patch, errors):
    """Absolute differences over a patch; positions beyond the lattice are moved onto its border."""
    ni, nj = target.shape[0] - 1, target.shape[1] - 1
    place = 0
    for di in range(-patch[0], patch[0] + 1):
        own_i, other_i = min(max(i + di, 0), ni), min(max(i + di + shift[0], 0), ni)
        for dj in range(-patch[1], patch[1] + 1):
            own_j, other_j = min(max(j + dj, 0), nj), min(max(j + dj + shift[1], 0), nj)
            own = np.float64(target[own_i, own_j, k])
            errors[place] = abs(own - np.float64(atlas[other_i, other_j, k + shift[2]]))
            place += 1


@kernel
def _error_matrix(errors, settings, matrix):
    """Mean products of errors to a power, with a ridge."""
    n = errors.shape[0]
    trace = 0.0
    for a in range(n):
        for b in range(a + 1):
            mean = 0.0
            for p in range(errors.shape[1]):
                mean += errors[a, p] * errors[b, p]
            matrix[a, b] = (mean / errors.shape[1]) ** settings[0]
            matrix[b, a] = matrix[a, b]
        trace += matrix[a, a]
    for a in range(n):
        matrix[a, a] += settings[1] * trace / n + 1e-6


@kernel
def _solve_for_ones(matrix, solution):
    """Solve M x = 1 by Cholesky's factors; M is overwritten."""
    n = len(solution)
    for a in range(n):
        for b in range(a + 1):
            left = matrix[a, b]
            for c in range(b):
                left -= matrix[a, c] * matrix[b, c]
            if a == b:
                matrix[a, a] = np.sqrt(max(left, 1e-12))
            else:
                matrix[a, b] = left / matrix[b, b]
    for a in range(n):
        left = 1.0
        for c in range(a):
            left -= matrix[a, c] * solution[c]
        solution[a] = left / matrix[a, a]
    for a in range(n - 1, -1, -1):
        left = solution[a]
        for c in range(a + 1, n):
            left -= matrix[c, a] * solution[c]
        solution[a] = left / matrix[a, a]
