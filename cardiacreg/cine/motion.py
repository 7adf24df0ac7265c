"""Where points of a beating heart are in its other frames, by the transforms of every frame.

Every frame is the same atlas points moved: a point is taken to each atlas by the transform of its own
frame, and back by that of the other one. The median over the atlases is where it is; atlases whose
transform has no inverse there are left out.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from cardiacreg.arrays import Float
from cardiacreg.compute.threads import check_threads, run_tasks
from cardiacreg.errors import InvalidInputError
from cardiacreg.geometry import LabelMap, Landmarks, voxel_grid
from cardiacreg.transforms.displacement_field import DisplacementField
from cardiacreg.transforms.ffd import FFD
from cardiacreg.transforms.inverse import invert_points
from cardiacreg.transforms.resampling import Grid

_AT_ONCE = 50_000


class MovedFrame(Protocol):
    """What is needed of a frame."""

    @property
    def labels(self) -> LabelMap:
        """The model."""

    @property
    def transforms(self) -> tuple[FFD, ...]:
        """One per atlas: world mm in this frame to world mm of the atlas."""


class BeatingHeart:
    """What cines have in common that were just refined or read back: the motion of their points."""

    __slots__ = ()
    frames: Sequence[MovedFrame]
    ed: int
    landmarks: Landmarks

    def follow(self, points_mm: ArrayLike, frame: int, *, since: int | None = None) -> Float:
        """Return where points of the heart are in another frame.

        Every frame is the same atlas points moved: a point is taken to each atlas by the transform of
        its own frame, and back by that of the other one. The median over the atlases is returned.

        Parameters
        ----------
        points_mm : array_like, shape (n, 3)
            World mm, at frame `since`.
        frame : int
            Position of the other frame among `frames`.
        since : int, optional
            Position of the points' frame; end-diastole when absent.

        Returns
        -------
        ndarray, shape (n, 3)

        Raises
        ------
        InvalidInputError
            If the cine holds no transforms (NO_TRANSFORMS), a frame is not among its own (BAD_FRAME), the
            points are not finite (n, 3) (BAD_SHAPE), or a point is nowhere in the other frame
            (NO_INVERSE).
        """
        first = self._frame("follow", self.ed if since is None else since)
        other = self._frame("follow", frame)
        points = np.asarray(points_mm, dtype=np.float64)
        if points.ndim != 2 or points.shape[1] != 3 or not np.isfinite(points).all():
            raise InvalidInputError(
                f"follow: points of shape {points.shape}; needs finite (n, 3) in world mm.",
                code="BAD_SHAPE",
            )
        return _followed(points, first.transforms, other.transforms)

    def motion(
        self,
        frame: int,
        *,
        since: int | None = None,
        grid: Grid | None = None,
        threads: int | None = None,
    ) -> DisplacementField:
        """Return how far every voxel of the model moves until another frame: `follow` as a field.

        Parameters
        ----------
        frame : int
            Position of the other frame among `frames`.
        since : int, optional
            Position of the frame that the field belongs to; end-diastole when absent.
        grid : Lattice, Volume or LabelMap, optional
            Where to evaluate it; the voxels of the model when absent. The work grows with their number.
        threads : int, optional
            All CPUs of this process when absent; the field is the same for any number.

        Returns
        -------
        DisplacementField
            World mm in frame `since` to world mm in the other one, as `write_displacement_field` writes.

        Raises
        ------
        InvalidInputError
            As `follow`.
        """
        first = self._frame("motion", self.ed if since is None else since)
        other = self._frame("motion", frame)
        where = first.labels if grid is None else grid
        points = voxel_grid(where.shape, where.voxel_to_world)
        moved = _followed(
            points.reshape(-1, 3), first.transforms, other.transforms, check_threads(threads)
        )
        return DisplacementField(moved.reshape(points.shape) - points, where.voxel_to_world)

    def _frame(self, caller: str, position: int) -> MovedFrame:
        try:
            number = operator.index(position)
        except TypeError:
            number = -1
        if not 0 <= number < len(self.frames):
            raise InvalidInputError(
                f"{caller}: frame {position!r} of {len(self.frames)}; needs a position from 0 to "
                f"{len(self.frames) - 1}.",
                code="BAD_FRAME",
            )
        if not self.frames[number].transforms:
            raise InvalidInputError(
                f"{caller}: this cine holds no transforms; refine anew, and save it with its transforms.",
                code="NO_TRANSFORMS",
            )
        return self.frames[number]


def _followed(points: Float, first: Sequence[FFD], other: Sequence[FFD], threads: int = 1) -> Float:
    """Points of one frame in another, by the same atlases in both; a few at a time for memory's sake."""
    parts = run_tasks(
        lambda start: _median_over_atlases(points[start : start + _AT_ONCE], first, other),
        range(0, len(points), _AT_ONCE),
        threads=threads,
        step="follow",
    )
    found = np.concatenate([np.zeros((0, 3)), *parts])
    lost = int(np.isnan(found[:, 0]).sum())
    if lost:
        raise InvalidInputError(
            f"follow: {lost} of {len(points)} points have no place in the other frame by any atlas; "
            "needs points in the heart.",
            code="NO_INVERSE",
        )
    return found


def _median_over_atlases(points: Float, first: Sequence[FFD], other: Sequence[FFD]) -> Float:
    """The median of where each atlas says that points are; NaN where none can tell."""
    moved = np.full((len(first), *points.shape), np.nan)
    for n, (here, there) in enumerate(zip(first, other, strict=True)):
        in_atlas = here.affine.apply(points + here.displacement_and_gradient(points)[0])
        found = invert_points(there, in_atlas)
        moved[n, found.converged] = found.points_mm[found.converged]
    result: Float = np.median(moved, axis=0)
    some = np.flatnonzero(np.isnan(result[:, 0]) & np.isfinite(moved[..., 0]).any(axis=0))
    result[some] = np.nanmedian(moved[:, some], axis=0)
    return result
