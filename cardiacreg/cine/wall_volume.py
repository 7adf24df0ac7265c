"""Muscle keeps its volume: over a whole cycle the LV walls of the frames are drawn towards their median.

Labels are drawn frame by frame, and a basal slice that counts in one frame and not in the next moves the
end of the model, so that the wall's volume changes by more than a heart's. Deviations that are as small
as such errors are mostly taken away; larger ones, which only other labels can explain, nearly stay. The
wall gains and loses at its outside alone, where its votes are nearest to a tie: both cavities keep every
voxel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cardiacreg.arrays import Float
from cardiacreg.fusion.label_fusion import Fusion
from cardiacreg.geometry import LV_CAVITY, LV_WALL, RV_CAVITY, RV_WALL, LabelMap, Volume
from cardiacreg.refinement.steps import Voted

_DOUBTED = 0.03
"""A deviation of this share of the volume is halved; no volume changes by more than half of it."""
_OUTSIDE = np.array([0, RV_WALL], dtype=np.uint8)


class WallRim(NamedTuple):
    """Voxels that the LV wall may gain or lose."""

    voxels: NDArray[np.int64]
    """Positions in the flattened lattice, shape (n,)."""
    lead: Float
    """Votes of the wall less those of the label outside it, in votes; not negative where the wall is."""
    outside: NDArray[np.uint8]
    """The label outside the wall: background or RV wall."""
    shares: Float
    """Of the atlases' own votes, of the wall and of the label outside, shape (n, 2)."""


class FusedWall(NamedTuple):
    """A frame's fused labels, and what its wall may gain or lose."""

    fusion: Fusion
    rim: WallRim


def wall_rim(voted: Voted) -> WallRim:
    """Return the voxels that lie between the LV wall and what is outside it.

    Parameters
    ----------
    voted : Voted
    """
    own = voted.votes.reshape(-1, voted.votes.shape[3])
    near = np.flatnonzero(own[:, LV_WALL] > 0)
    votes, labels = voted.decided.reshape(own.shape)[near], voted.fusion.labels.array.ravel()[near]
    outside = votes[:, _OUTSIDE]
    lead = votes[:, LV_WALL] - outside.max(axis=1)
    next_to_cavity = votes[:, [LV_CAVITY, RV_CAVITY]].max(axis=1) > outside.max(axis=1)
    held = np.where(labels == LV_WALL, ~next_to_cavity, np.isin(labels, _OUTSIDE))
    index, other = near[held], _OUTSIDE[outside.argmax(axis=1)[held]]
    of_atlases = own[index]
    shares = np.stack(
        [
            of_atlases[:, LV_WALL],
            np.take_along_axis(of_atlases, other[:, None].astype(int), 1)[:, 0],
        ],
        axis=-1,
    )
    return WallRim(index, lead[held], other, shares / of_atlases.sum(axis=1, keepdims=True))


def even_walls(frames: Sequence[FusedWall]) -> list[Fusion]:
    """Draw the volumes of the LV wall towards their median.

    Parameters
    ----------
    frames : sequence of FusedWall
        Of a whole cycle, on one lattice.

    Returns
    -------
    list of Fusion
        Cavities as they were.
    """
    counts = [int((each.fusion.labels.array == LV_WALL).sum()) for each in frames]
    wanted = drawn_together(counts)
    return [
        _with_wall(each, int(round(float(more))))
        for each, more in zip(frames, wanted - counts, strict=True)
    ]


def drawn_together(volumes: ArrayLike) -> Float:
    """Return volumes that should be equal, with their small deviations from the median taken away.

    A deviation of the share d of the median becomes d^3 / (d^2 + c^2), c = 3 %: a tenth of it stays of
    1 %, half of 3 %, and 92 % of 10 %.

    Parameters
    ----------
    volumes : array_like, shape (n,)

    Returns
    -------
    ndarray, shape (n,)

    Examples
    --------
    >>> from cardiacreg.cine.wall_volume import drawn_together
    >>> drawn_together([100.0, 101.0, 97.0, 100.0, 120.0]).round(1).tolist()
    [100.0, 100.1, 98.5, 100.0, 119.6]
    """
    given = np.asarray(volumes, dtype=np.float64)
    middle = float(np.median(given))
    if middle <= 0:
        return given
    deviation = given / middle - 1
    return np.asarray(middle * (1 + deviation**3 / (deviation**2 + _DOUBTED**2)))


def _with_wall(frame: FusedWall, more: int) -> Fusion:
    """Give the wall so many voxels more, or fewer, at its outside."""
    rim, fusion = frame.rim, frame.fusion
    is_wall = rim.lead >= 0
    at = np.flatnonzero(is_wall if more < 0 else ~is_wall)
    count = min(abs(more), len(at))
    if count == 0:
        return fusion
    changed = at[np.argsort(np.abs(rim.lead[at]), kind="stable")[:count]]
    labels, confidence = fusion.labels.array.copy(), fusion.confidence.array.copy()
    labels.reshape(-1)[rim.voxels[changed]] = LV_WALL if more > 0 else rim.outside[changed]
    confidence.reshape(-1)[rim.voxels[changed]] = rim.shares[changed, 0 if more > 0 else 1]
    matrix = fusion.labels.voxel_to_world
    return replace(fusion, labels=LabelMap(labels, matrix), confidence=Volume(confidence, matrix))
