"""Step 6: non-local patch fusion of the warped atlases (eq. 5), majority voting without images.

``S_x = argmax_k sum_n sum_{y in N(x)} exp(-d(f_x, f_{n,y}) / h) [l_{n,y} = k]``. Stated exactly: target
and atlas intensities are scaled to 0..255 between their own 1st and 99th percentiles inside the dilated
heart; d is the mean (or sum) of squared differences over the in-bounds part of the patch; h is in those
units (squared grey levels). A voxel whose whole search window holds one label in every atlas is settled
without arithmetic, exactly. Weights are relative to the voxel's best match, so they never all vanish.
Ties go to the lowest label. Squared differences are formed once per offset and summed along i then j.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cardiacreg._jit import kernel
from cardiacreg._slabs import ProgressCallable, check_threads, run_tasks
from cardiacreg.errors import InvalidInputError
from cardiacreg.geometry import LabelMap, Volume, same_lattice

_GREY_LEVELS = 255.0


@dataclass(frozen=True, slots=True)
class FusionOptions:
    """How `fuse_labels` votes.

    Parameters
    ----------
    mode : {"nonlocal", "majority"}
        Eq. (5), or one vote per atlas.
    search : tuple of int
        Search window N in voxels along (i, j, k), odd.
    patch : tuple of int
        Patch in voxels along (i, j, k), odd; one voxel along k.
    bandwidth : float
        h of eq. (5), in squared grey levels of the 0..255 scale.
    distance : {"mean", "sum"}
        Mean or sum of squared differences over the patch.
    """

    mode: str = "nonlocal"
    search: tuple[int, int, int] = (7, 7, 3)
    patch: tuple[int, int, int] = (7, 7, 1)
    bandwidth: float = 10.0
    distance: str = "mean"

    def __post_init__(self) -> None:
        sizes = (*self.search, *self.patch)
        if min(sizes) < 1 or any(size % 2 == 0 for size in sizes) or self.patch[2] != 1:
            raise InvalidInputError(
                f"FusionOptions: search {self.search}, patch {self.patch}; needs odd sizes and one "
                "slice per patch.",
                code="BAD_OPTION",
            )
        if self.mode not in ("nonlocal", "majority") or self.distance not in ("mean", "sum"):
            raise InvalidInputError(
                f"FusionOptions: mode {self.mode!r}, distance {self.distance!r}; needs mode "
                "'nonlocal' or 'majority' and distance 'mean' or 'sum'.",
                code="BAD_OPTION",
            )
        if not self.bandwidth > 0:
            raise InvalidInputError(
                f"FusionOptions: bandwidth {self.bandwidth}; needs a positive number.",
                code="BAD_OPTION",
            )


@dataclass(frozen=True, slots=True, eq=False)
class Fusion:
    """Fused labels and how sure the vote was.

    Parameters
    ----------
    labels : LabelMap
    confidence : Volume
        Winning share of the votes, 0 to 1.
    """

    labels: LabelMap
    confidence: Volume


def fuse_labels(
    target_image: Volume | None,
    warped_atlases: Sequence[tuple[Volume | None, LabelMap]],
    *,
    options: FusionOptions | None = None,
    threads: int | None = None,
    progress: ProgressCallable | None = None,
) -> Fusion:
    """Fuse warped atlases into one label map.

    Parameters
    ----------
    target_image : Volume or None
        The target on the lattice of the warped atlases; None gives majority voting.
    warped_atlases : sequence of (Volume or None, LabelMap)
        Image and labels of each atlas, all on one lattice.
    options : FusionOptions, optional
    threads : int, optional
    progress : callable, optional

    Returns
    -------
    Fusion
        Labels and confidence on the common lattice. The labels that occur are a subset of the atlases'.

    Raises
    ------
    InvalidInputError
        If there are no atlases or the lattices differ.
    """
    settings = options or FusionOptions()
    labels = _stack_labels(target_image, warped_atlases)
    first = warped_atlases[0][1]
    values = np.unique(labels)
    codes = np.searchsorted(values, labels).astype(np.uint8)
    images = [image for image, _ in warped_atlases if image is not None]
    if settings.mode == "majority" or target_image is None or len(images) < len(warped_atlases):
        votes = np.stack(
            [(codes == n).sum(axis=0, dtype=np.float32) for n in range(len(values))], -1
        )
        return fusion_from_votes(votes, values, first.voxel_to_world)
    target_grey, atlas_grey = _harmonise(target_image, images, labels)
    return _fuse_nonlocal(
        target_grey, atlas_grey, codes, values, first, settings, check_threads(threads), progress
    )


def fusion_from_votes(
    votes: NDArray[np.float32], values: NDArray[np.uint8], voxel_to_world: NDArray[np.float64]
) -> Fusion:
    """Return the label with most votes (ties: lowest) and its share.

    Parameters
    ----------
    votes : ndarray of float32, shape (i, j, k, n)
    values : ndarray of uint8, shape (n,)
        Label of each column, ascending.
    voxel_to_world : ndarray, shape (4, 4)
    """
    winner = votes.argmax(axis=-1)
    best = np.take_along_axis(votes, winner[..., None], axis=-1)[..., 0]
    share = best / np.maximum(votes.sum(axis=-1), 1e-30)
    return Fusion(
        LabelMap(values[winner], voxel_to_world),
        Volume(np.clip(share, 0, 1), voxel_to_world),
    )


def _stack_labels(
    target_image: Volume | None, warped: Sequence[tuple[Volume | None, LabelMap]]
) -> NDArray[np.uint8]:
    if len(warped) == 0:
        raise InvalidInputError(
            "fuse_labels: no atlases to fuse; needs at least one.", code="EMPTY_BANK"
        )
    first = warped[0][1]
    for n, (image, labels) in enumerate(warped):
        for grid in (image, labels):
            if grid is not None and not same_lattice(grid, first):
                raise InvalidInputError(
                    f"fuse_labels: atlas {n} lies on another lattice than atlas 0 ({grid.shape}, "
                    f"{first.shape}); warp all of them onto one lattice first.",
                    code="LATTICE_MISMATCH",
                )
    if target_image is not None and not same_lattice(target_image, first):
        raise InvalidInputError(
            f"fuse_labels: the target image lies on another lattice ({target_image.shape}) than the "
            f"warped atlases ({first.shape}); resample it onto theirs first.",
            code="LATTICE_MISMATCH",
        )
    return np.stack([labels.array for _, labels in warped])


def _harmonise(
    target: Volume, images: list[Volume], labels: NDArray[np.uint8]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Scale each image to 0..255 between its percentiles inside the dilated union of the labels."""
    heart = ndimage.binary_dilation((labels != 0).any(axis=0), iterations=4)
    if not heart.any():
        heart = np.ones(heart.shape, dtype=bool)
    scaled = [_to_grey(image.array, heart) for image in (target, *images)]
    return scaled[0], np.stack(scaled[1:])


def _to_grey(array: NDArray[np.float32], inside: NDArray[np.bool_]) -> NDArray[np.float32]:
    low, high = np.percentile(array[inside], (1, 99))
    width = max(float(high - low), 1e-6)
    grey = np.clip((array - low) / width, 0, 1) * _GREY_LEVELS
    return np.ascontiguousarray(grey.transpose(2, 0, 1), dtype=np.float32)


def _unanimous(codes: NDArray[np.uint8], search: tuple[int, int, int]) -> NDArray[np.bool_]:
    """Voxels whose whole search window holds one label in all atlases."""
    low = ndimage.minimum_filter(codes.min(axis=0), size=search, mode="nearest")
    high = ndimage.maximum_filter(codes.max(axis=0), size=search, mode="nearest")
    return np.asarray(low == high)


def _fuse_nonlocal(
    target: NDArray[np.float32],
    atlases: NDArray[np.float32],
    codes: NDArray[np.uint8],
    values: NDArray[np.uint8],
    lattice: LabelMap,
    options: FusionOptions,
    threads: int,
    progress: ProgressCallable | None,
) -> Fusion:
    active = np.ascontiguousarray(~_unanimous(codes, options.search).transpose(2, 0, 1))
    slice_codes = np.ascontiguousarray(codes.transpose(0, 3, 1, 2))
    winner = slice_codes[0].copy()
    share = np.ones(winner.shape, dtype=np.float32)
    sizes = np.array([s // 2 for s in (*options.search, *options.patch[:2])], dtype=np.int64)
    mean = options.distance == "mean"

    def run(k: int) -> None:
        if active[k].any():
            _nonlocal_kernel(
                k, target, atlases, slice_codes, active, sizes, 1.0 / options.bandwidth, mean,
                winner, share, np.zeros((*winner.shape[1:], len(values) + 1), dtype=np.float64),
            )  # fmt: skip

    run_tasks(run, range(len(winner)), threads=threads, step="fuse", progress=progress)
    return Fusion(
        LabelMap(values[winner.transpose(1, 2, 0)], lattice.voxel_to_world),
        Volume(share.transpose(1, 2, 0), lattice.voxel_to_world),
    )


# ---------------------------------------------------------------------------------------------- kernels


@kernel
def _squared_sums(target, atlas, di, dj, reach_i, box, squared, column):
    """Squared differences to the atlas slice moved by (di, dj), summed along i over the patch."""
    ni, nj = target.shape
    i0, i1, j0, j1 = box[0], box[1], box[2], box[3]
    for i in range(max(0, i0 - reach_i), min(ni, i1 + reach_i)):
        for j in range(j0, j1):
            squared[i, j] = 0.0
        if 0 <= i + di < ni:
            for j in range(max(j0, -dj), min(j1, nj - dj)):
                difference = target[i, j] - atlas[i + di, j + dj]
                squared[i, j] = difference * difference
    for i in range(i0, i1):
        for j in range(j0, j1):
            column[i, j] = 0.0
        for p in range(max(0, i - reach_i), min(ni, i + reach_i + 1)):
            for j in range(j0, j1):
                column[i, j] += squared[p, j]


@kernel
def _vote(column, codes, active, offsets, reach, inverse_bandwidth, mean, box, votes):
    """Add one offset's votes; the last entry of a voxel's votes holds its smallest distance so far."""
    di, dj = offsets[0], offsets[1]
    ni, nj = active.shape
    last = votes.shape[2] - 1
    for i in range(max(box[0], -di), min(box[1], ni - di)):
        rows = min(min(i, i + di), reach[0]) + min(ni - 1 - max(i, i + di), reach[0]) + 1
        for j in range(max(box[2], -dj), min(box[3], nj - dj)):
            if not active[i, j]:
                continue
            lower = min(min(j, j + dj), reach[1])
            upper = min(nj - 1 - max(j, j + dj), reach[1])
            distance = 0.0
            for q in range(j - lower, j + upper + 1):
                distance += column[i, q]
            if mean:
                distance /= rows * (lower + upper + 1)
            label = codes[i + di, j + dj]
            smallest = votes[i, j, last]
            if distance < smallest:
                scale = np.exp((distance - smallest) * inverse_bandwidth)
                for n in range(last):
                    votes[i, j, n] *= scale
                votes[i, j, label] += 1.0
                votes[i, j, last] = distance
            else:
                votes[i, j, label] += np.exp((smallest - distance) * inverse_bandwidth)


@kernel
def _nonlocal_kernel(
    k, target, atlases, codes, active, sizes, inverse_bandwidth, mean, winner, share, votes
):
    """Votes of one slice: every atlas, every offset of the search window, then the winner."""
    nk, ni, nj = target.shape
    last = votes.shape[2] - 1
    squared, column = np.zeros((ni, nj), np.float32), np.zeros((ni, nj), np.float32)
    box, wide, offsets = np.empty(4, np.int64), np.empty(4, np.int64), np.empty(2, np.int64)
    box[0], box[1], box[2], box[3] = ni, 0, nj, 0
    for i in range(ni):
        for j in range(nj):
            votes[i, j, last] = np.inf
            if active[k, i, j]:
                box[0], box[1] = min(box[0], i), max(box[1], i + 1)
                box[2], box[3] = min(box[2], j), max(box[3], j + 1)
    wide[0], wide[1] = box[0], box[1]
    wide[2], wide[3] = max(0, box[2] - sizes[4]), min(nj, box[3] + sizes[4])
    for n in range(atlases.shape[0]):
        for dk in range(max(-sizes[2], -k), min(sizes[2], nk - 1 - k) + 1):
            for di in range(-sizes[0], sizes[0] + 1):
                for dj in range(-sizes[1], sizes[1] + 1):
                    _squared_sums(
                        target[k], atlases[n, k + dk], di, dj, sizes[3], wide, squared, column
                    )
                    offsets[0], offsets[1] = di, dj
                    _vote(
                        column, codes[n, k + dk], active[k], offsets, sizes[3:], inverse_bandwidth,
                        mean, box, votes,
                    )  # fmt: skip
    _decide(votes, active[k], winner[k], share[k])


@kernel
def _decide(votes, active, winner, share):
    """Label with most votes (ties: lowest) and its share, at active voxels."""
    last = votes.shape[2] - 1
    for i in range(active.shape[0]):
        for j in range(active.shape[1]):
            if active[i, j]:
                best, total = 0, 0.0
                for n in range(last):
                    total += votes[i, j, n]
                    if votes[i, j, n] > votes[i, j, best]:
                        best = n
                winner[i, j] = best
                share[i, j] = votes[i, j, best] / total
