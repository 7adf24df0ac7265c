"""From landmark probabilities to six points, each with what speaks for it.

A landmark is the centre of the largest cluster of voxels whose most likely class it is, weighted by the
odds of that class, and so finer than a voxel. (The balanced loss lets probabilities saturate over a wide
cluster; odds still tell its middle.) Its confidence is the cluster's peak probability and its spread in
mm. A landmark without a voxel is missing; the caller completes it from the segmentation.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label as connected_components

from cardiacreg.arrays import Float

_LEAST_DOUBT = 1e-4


class FoundLandmark(NamedTuple):
    """One landmark as the network sees it.

    Parameters
    ----------
    position : ndarray, shape (3,)
        Box voxels along (k, i, j); NaN when missing.
    presence : float
        Highest probability in the cluster, 0 when missing.
    spread_mm : float
        Root-mean-square distance of the cluster's voxels from its centre; NaN when missing.
    """

    position: Float
    presence: float
    spread_mm: float

    @property
    def missing(self) -> bool:
        """Whether there was no voxel of this landmark."""
        return self.presence == 0.0


MISSING = FoundLandmark(np.full(3, np.nan), 0.0, float("nan"))


def extract_landmarks(
    probabilities: NDArray[np.float32], spacing_mm: tuple[float, float, float] | Float
) -> list[FoundLandmark]:
    """Find every landmark in class probabilities.

    Parameters
    ----------
    probabilities : ndarray, shape (landmarks + 1, S, H, W)
        Class 0 is "none".
    spacing_mm : sequence of three float
        Along (k, i, j).

    Returns
    -------
    list of FoundLandmark
        One per landmark, in order.
    """
    winner = probabilities.argmax(axis=0)
    return [
        _largest_cluster(winner == number, probabilities[number], np.asarray(spacing_mm, float))
        for number in range(1, len(probabilities))
    ]


def _largest_cluster(
    mask: NDArray[np.bool_], probability: NDArray[np.float32], spacing_mm: Float
) -> FoundLandmark:
    if not mask.any():
        return MISSING
    clusters, count = connected_components(mask, structure=np.ones((3, 3, 3)))
    odds = probability.astype(np.float64) / (1 - probability + _LEAST_DOUBT)
    mass = np.bincount(clusters.ravel(), probability.ravel(), minlength=count + 1)
    mass[0] = 0
    where = np.argwhere(clusters == int(mass.argmax()))
    weight = odds[tuple(where.T)]
    centre = np.average(where, axis=0, weights=weight)
    squared = (((where - centre) * spacing_mm) ** 2).sum(axis=1)
    presence = float(probability[tuple(where.T)].max())
    spread = float(np.sqrt(np.average(squared, weights=weight)))
    return FoundLandmark(centre, presence, spread)


def regressed_landmarks(
    shares: NDArray[np.float32], shape: tuple[int, int, int]
) -> list[FoundLandmark]:
    """Return the landmarks of a network that regresses coordinates; it states no confidence.

    Parameters
    ----------
    shares : ndarray, shape (landmarks, 3)
        Positions along (k, i, j) as shares of half the field.
    shape : tuple of three int
        Of the box along (S, H, W).
    """
    half = (np.array(shape, dtype=np.float64) - 1) / 2
    return [FoundLandmark(half + share * half, 1.0, float("nan")) for share in shares]
