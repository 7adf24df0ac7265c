"""Selection by image instead of labels: the atlases whose grey values tell most about the target's.

``NMI(I, J o A) = (H(I) + H(J)) / H(I, J)`` from joint counts of grey levels at the target's own voxels,
in the slices that hold labels, up to 10 mm from a label in the plane. One nearest look-up per voxel and
no warped copy of the atlas. The levels of either image divide the span from the 1st to the 99th
percentile of the values compared evenly, so that gain and offset of a scanner do not matter; what lies
outside an atlas's image is a level of its own. Ties go to the lowest index.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from numbers import Integral

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cardiacreg.algebra import invert, multiply
from cardiacreg.atlases.ranking import RankedAtlas, nmi_of_counts
from cardiacreg.compute.label_counts import joint_counts
from cardiacreg.compute.threads import ProgressCallable, check_threads, run_tasks
from cardiacreg.errors import InvalidInputError, check_argument, warn
from cardiacreg.geometry import Affine, LabelMap, Subject, Volume

REACH_MM = 10.0
_LOW_HIGH = (1.0, 99.0)
_MOST_LEVELS = 255
_TOLERANCE_MM = 1e-6


def rank_atlases_by_image(
    target: Subject,
    atlases: Sequence[Subject],
    target_to_atlas: Sequence[Affine],
    *,
    levels: int = 32,
    threads: int | None = None,
    progress: ProgressCallable | None = None,
) -> tuple[RankedAtlas, ...]:
    """Rank a bank by normalised mutual information of its images with the target's, best first.

    Parameters
    ----------
    target : Subject
        With an image, on the lattice of its labels or any other. The labels say where to look.
    atlases : sequence of Subject
        Read one at a time; may be lazy and larger than memory. Their labels are not looked at.
    target_to_atlas : sequence of Affine
        One per atlas.
    levels : int
        Grey levels of each image, 2 to 255.
    threads : int, optional
    progress : callable, optional

    Returns
    -------
    tuple of RankedAtlas
        All atlases with images, without Dice; ties keep the order of the bank.

    Raises
    ------
    InvalidInputError
        If the target or every atlas lacks an image (NO_IMAGE), the target's image misses its labels
        (NO_OVERLAP), the bank is empty or the counts differ (EMPTY_BANK), or `levels` is out of range
        (BAD_OPTION).

    Warns
    -----
    InputWarning
        If some atlases have no image; they are left out.

    Examples
    --------
    >>> import numpy as np
    >>> from cardiacreg import Affine, rank_atlases_by_image
    >>> from cardiacreg.phantoms.toy_heart import make_toy_heart
    >>> atlases = [make_toy_heart(size=size) for size in (0.8, 0.9, 1.0)]
    >>> start = [Affine(np.eye(4))] * len(atlases)
    >>> [ranked.index for ranked in rank_atlases_by_image(make_toy_heart(size=0.88), atlases, start)]
    [1, 0, 2]
    """
    check_argument(target, Subject, "rank_atlases_by_image: target")
    _check(atlases, target_to_atlas, levels)
    points = _ImagePoints(target, levels)

    def score(index: int) -> RankedAtlas | None:
        check_argument(atlases[index], Subject, f"rank_atlases_by_image: atlas {index}")
        image, affine = atlases[index].image, target_to_atlas[index]
        check_argument(affine, Affine, f"rank_atlases_by_image: transform {index}")
        if image is None:
            return None
        counts = joint_counts(points.levels, points.levels_of(image, affine))
        return RankedAtlas(index, affine, nmi_of_counts(counts))

    scored = run_tasks(
        score, range(len(atlases)), threads=check_threads(threads), step="select", progress=progress
    )
    found = [ranked for ranked in scored if ranked is not None]
    _tell_without_image(len(scored) - len(found), len(scored))
    return tuple(sorted(found, key=lambda ranked: (-ranked.nmi, ranked.index)))


def image_of(target: Subject) -> Volume:
    """Return the target's image, which selection by image needs.

    Raises
    ------
    InvalidInputError
        If there is none (NO_IMAGE).
    """
    if target.image is None:
        raise InvalidInputError(
            "selection by image: the target has no image, or one that shows nothing; give its image, "
            "or select by labels (selection='labels').",
            code="NO_IMAGE",
        )
    return target.image


def _check(atlases: Sequence[Subject], target_to_atlas: Sequence[Affine], levels: int) -> None:
    check_argument(levels, Integral, "rank_atlases_by_image: levels")
    for many in (atlases, target_to_atlas):
        if isinstance(many, Set | Mapping):
            check_argument(many, Sequence, "rank_atlases_by_image: atlases or transforms")
    if not 2 <= levels <= _MOST_LEVELS:
        raise InvalidInputError(
            f"rank_atlases_by_image: {levels} levels; needs 2 to {_MOST_LEVELS}.", code="BAD_OPTION"
        )
    if len(atlases) == 0 or len(atlases) != len(target_to_atlas):
        raise InvalidInputError(
            f"rank_atlases_by_image: {len(atlases)} atlases and {len(target_to_atlas)} transforms; "
            "needs at least one atlas and one transform for each.",
            code="EMPTY_BANK",
        )


def _tell_without_image(without: int, total: int) -> None:
    """Warn about atlases that have no image; raise if none has."""
    if without == total:
        raise InvalidInputError(
            f"selection by image: none of {total} atlases has an image; use atlases with images "
            "(image.nii.gz beside labels.nii.gz), or select by labels (selection='labels').",
            code="NO_IMAGE",
        )
    if without:
        warn(
            f"selection by image: {without} of {total} atlases have no image and are left out.",
            stacklevel=3,
        )


class _ImagePoints:
    """The target voxels whose grey values are compared, listed once for a whole bank."""

    def __init__(self, target: Subject, levels: int) -> None:
        self._n_levels = levels
        self._voxel_to_world = target.labels.voxel_to_world
        self._points = np.argwhere(_near_heart(target.labels)).T.astype(np.float64)
        values, inside = self._look_up(image_of(target), Affine.identity())
        if not inside.any():
            raise InvalidInputError(
                "selection by image: the target's image shows nothing of its labelled slices; check "
                "that image and segmentation belong together.",
                code="NO_OVERLAP",
            )
        self._points = self._points[:, inside]
        self.levels = _grey_levels(values[inside], levels)

    def levels_of(self, image: Volume, affine: Affine) -> NDArray[np.uint8]:
        """Grey level of an atlas at every point, 0 outside its image."""
        values, inside = self._look_up(image, affine)
        found = np.zeros(len(values), dtype=np.uint8)
        if inside.any():
            found[inside] = _grey_levels(values[inside], self._n_levels)
        return found

    def _look_up(
        self, image: Volume, affine: Affine
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Value of the nearest voxel at every point, and whether there is one.

        Three products are summed in a fixed order, without BLAS, for the same bits everywhere.
        """
        matrix = multiply(invert(image.voxel_to_world), affine.matrix, self._voxel_to_world)
        inside = np.ones(self._points.shape[1], dtype=bool)
        voxels = []
        for row, size in zip(matrix[:3], image.shape, strict=True):
            x, y, z = (step * along for step, along in zip(row, self._points, strict=False))
            nearest = np.floor(x + y + z + row[3] + 0.5)
            inside &= (nearest >= 0) & (nearest < size)
            voxels.append(np.clip(nearest, 0, size - 1).astype(np.intp))
        return image.array[tuple(voxels)].astype(np.float64), inside


def _near_heart(labels: LabelMap) -> NDArray[np.bool_]:
    """Voxels of labelled slices within reach of a label of their slice; all voxels if there is none."""
    if not labels.array.any():
        return np.ones(labels.shape, dtype=bool)
    near = np.zeros(labels.shape, dtype=bool)
    for k in np.flatnonzero(labels.array.any(axis=(0, 1))):
        background = labels.array[:, :, k] == 0
        away_mm = ndimage.distance_transform_edt(background, sampling=labels.spacing_mm[:2])
        near[:, :, k] = away_mm <= REACH_MM + _TOLERANCE_MM
    return near


def _grey_levels(values: NDArray[np.float64], levels: int) -> NDArray[np.uint8]:
    """Levels 1, 2, ... of values, evenly between two percentiles; beyond them the first and the last."""
    low, high = np.percentile(values, _LOW_HIGH)
    if high <= low:
        return np.asarray(1 + (values > high), dtype=np.uint8)
    share = np.clip((values - low) / (high - low), 0.0, 1.0)
    return np.asarray(1 + np.minimum(np.floor(share * levels), levels - 1), dtype=np.uint8)
