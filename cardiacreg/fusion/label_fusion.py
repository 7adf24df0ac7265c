"""Step 6: fusion of the warped atlases: non-local patch voting (eq. 5) or a majority.

``S_x = argmax_k sum_n sum_{y in N(x)} exp(-d(f_x, f_{n,y}) / h) [l_{n,y} = k]``. Stated exactly: target
and atlas intensities are grey levels 0..255 (`fusion.grey_levels`); d is the mean or sum of squared
differences over the in-bounds part of the patch, or one minus the patches' correlation; h is in the units
of d. A voxel whose whole search window holds one label in every atlas is settled without arithmetic,
exactly. Weights are relative to the voxel's best match, so they never all vanish. Labels whose votes
agree within a millionth of all votes are tied, and the lowest of them wins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cardiacreg.compute.jit import kernel
from cardiacreg.compute.threads import ProgressCallable, check_threads, run_tasks
from cardiacreg.errors import InvalidInputError, check_argument, check_option_kinds
from cardiacreg.fusion.grey_levels import HARMONISATIONS, box_around, grey_levels
from cardiacreg.fusion.patch_tiles import DISTANCES, Box, Scene
from cardiacreg.fusion.patch_votes import nonlocal_votes
from cardiacreg.geometry import LabelMap, Volume, same_lattice

MODES = ("nonlocal", "majority")
_LARGEST_SUM = {"mean": 255.0**2, "sum": 255.0**2, "correlation": 2.0}
_TIED_SHARE = 1e-6
_TILE = (32, 32)
_MOST_PATCH_VOXELS = 32_768
_MOST_LABELS = 255


@dataclass(frozen=True, slots=True)
class FusionOptions:
    """How `fuse_labels` votes.

    Parameters
    ----------
    mode : {"nonlocal", "majority"}
        Non-local patches (eq. 5), or one vote per atlas.
    search : tuple of int
        Search window N in voxels along (i, j, k), odd.
    patch : tuple of int
        Patch in voxels along (i, j, k), odd; one voxel along k.
    bandwidth : float
        h of eq. (5), in units of the distance: squared grey levels of the 0..255 scale for "mean" and
        "sum", correlation for "correlation" (0.1 is a start).
    distance : {"mean", "sum", "correlation"}
        Mean or sum of squared differences over the patch, or one minus the correlation of the patches
        (0 to 2; 1 where a patch is constant), which another scanner or contrast does not disturb.
    harmonisation : {"percentiles", "quantiles", "none"}
        How intensities become grey levels (`intensity_harmonisation`).
    probabilities : bool
        Whether to return the share of every label.
    """

    mode: str = "nonlocal"
    search: tuple[int, int, int] = (7, 7, 3)
    patch: tuple[int, int, int] = (7, 7, 1)
    bandwidth: float = 10.0
    distance: str = "mean"
    harmonisation: str = "percentiles"
    probabilities: bool = False

    def __post_init__(self) -> None:
        check_option_kinds(self)
        self._check_sizes()
        known = {"mode": MODES, "distance": DISTANCES, "harmonisation": HARMONISATIONS}
        for name, allowed in known.items():
            if getattr(self, name) not in allowed:
                raise InvalidInputError(
                    f"FusionOptions: {name} {getattr(self, name)!r}; needs one of {', '.join(allowed)}.",
                    code="BAD_OPTION",
                )
        patch_voxels = self.patch[0] * self.patch[1] if self.distance == "sum" else 1
        least = 2e-9 * _LARGEST_SUM[self.distance] * patch_voxels
        if not self.bandwidth > least:
            raise InvalidInputError(
                f"FusionOptions: bandwidth {self.bandwidth}; needs more than {least:.2g} with distance "
                f"{self.distance!r}.",
                code="BAD_OPTION",
            )

    def _check_sizes(self) -> None:
        sizes = (*self.search, *self.patch)
        if min(sizes) < 1 or any(size % 2 == 0 for size in sizes) or self.patch[2] != 1:
            raise InvalidInputError(
                f"FusionOptions: search {self.search}, patch {self.patch}; needs odd sizes and one "
                "slice per patch.",
                code="BAD_OPTION",
            )
        if self.patch[0] * self.patch[1] > _MOST_PATCH_VOXELS:
            raise InvalidInputError(
                f"FusionOptions: patch {self.patch}; needs at most {_MOST_PATCH_VOXELS} voxels.",
                code="BAD_OPTION",
            )


@dataclass(frozen=True, slots=True, eq=False)
class Fusion:
    """Fused labels and the confidence of the vote.

    Parameters
    ----------
    labels : LabelMap
    confidence : Volume
        Winning share of the votes, 0 to 1.
    probabilities : mapping of int to Volume, or None
        Share of the votes of every label that occurs in an atlas, where `FusionOptions` asked for it.
    n_ties : int
        Voxels where the lowest of several equal labels won.
    atlas_voxels : ndarray, shape (n_atlases, k, n_labels), or None
        How many voxels each warped atlas has of every label in every slice of the lattice, where it was
        counted.
    """

    labels: LabelMap
    confidence: Volume
    probabilities: Mapping[int, Volume] | None = None
    n_ties: int = 0
    atlas_voxels: NDArray[np.float32] | None = None


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
        The target on the lattice of the warped atlases. Without it or an atlas's image there is a
        majority vote.
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
        If there are no atlases, the lattices differ, or there are more than 255 labels.

    Examples
    --------
    >>> from cardiacreg import FusionOptions, dice, fuse_labels
    >>> from cardiacreg.phantoms.toy_heart import make_toy_heart
    >>> hearts = [make_toy_heart(size=size) for size in (0.9, 1.0, 1.05)]
    >>> warped = [(heart.image, heart.labels) for heart in hearts]
    >>> fused = fuse_labels(hearts[1].image, warped, options=FusionOptions(mode="majority"))
    >>> round(dice(fused.labels, hearts[1].labels), 2)
    0.99
    """
    check_argument(options, (FusionOptions, type(None)), "fuse_labels: options")
    settings, n_threads = options or FusionOptions(), check_threads(threads)
    _check_lattices(target_image, warped_atlases)
    labels = [labels.array for _, labels in warped_atlases]
    images = [image.array for image, _ in warped_atlases if image is not None]
    canvas = _Canvas(labels, settings)
    if settings.mode == "majority" or target_image is None or len(images) < len(labels):
        canvas.vote_by_majority(labels)
    elif canvas.disputed:
        scene = _scene(target_image.array, images, labels, canvas, settings, n_threads)

        def run(box: Box) -> None:
            canvas.decide(box, nonlocal_votes(scene, box), scene.active)

        boxes = _tiles(scene.active, _TILE)
        run_tasks(run, boxes, threads=n_threads, step="fuse", progress=progress)
    return canvas.fusion(warped_atlases[0][1].voxel_to_world)


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
    labels = np.empty(votes.shape[:3], dtype=np.uint8)
    share = np.empty(votes.shape[:3], dtype=np.float32)
    _most_votes_kernel(votes.reshape(-1, votes.shape[3]), values, labels.ravel(), share.ravel())
    return Fusion(LabelMap(labels, voxel_to_world), Volume(share, voxel_to_world))


def share_of_labels(votes: NDArray[np.float32], labels: LabelMap) -> Volume:
    """Return the share of the votes that each voxel's label has, whatever made it win.

    Parameters
    ----------
    votes : ndarray of float32, shape (i, j, k, n_labels)
    labels : LabelMap, shape (i, j, k)
        Labels below n_labels.
    """
    share = np.empty(votes.shape[:3], dtype=np.float32)
    _share_kernel(votes.reshape(-1, votes.shape[3]), labels.array.ravel(), share.ravel())
    return Volume(share, labels.voxel_to_world)


def _check_lattices(
    target_image: Volume | None, warped: Sequence[tuple[Volume | None, LabelMap]]
) -> None:
    check_argument(target_image, (Volume, type(None)), "fuse_labels: target_image")
    check_argument(warped, Sequence, "fuse_labels: warped_atlases")
    if len(warped) == 0:
        raise InvalidInputError(
            "fuse_labels: no atlases to fuse; needs at least one.", code="EMPTY_BANK"
        )
    for pair in warped:
        if not (isinstance(pair, tuple | list) and len(pair) == 2):
            raise InvalidInputError(
                f"fuse_labels: an atlas is a {type(pair).__name__}; needs pairs of an image, or None, "
                "and labels.",
                code="BAD_TYPE",
            )
        check_argument(pair[0], (Volume, type(None)), "fuse_labels: the image of an atlas")
        check_argument(pair[1], LabelMap, "fuse_labels: the labels of an atlas")
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


class _Canvas:
    """The result while it is made: it starts with what needs no vote."""

    def __init__(self, labels: Sequence[NDArray[np.uint8]], options: FusionOptions) -> None:
        low, high = labels[0].copy(), labels[0].copy()
        seen = np.zeros(256, dtype=bool)
        for array in labels:
            _survey_kernel(np.ascontiguousarray(array).ravel(), low.ravel(), high.ravel(), seen)
        self.values = np.flatnonzero(seen).astype(np.uint8)
        if len(self.values) > _MOST_LABELS:
            raise InvalidInputError(
                "fuse_labels: the atlases hold 256 labels; needs at most 255.",
                code="TOO_MANY_LABELS",
            )
        self.labelled = high != 0
        self.labels = low
        self.confidence = np.ones(low.shape, dtype=np.float32)
        self.ties: list[int] = []
        self.shares: NDArray[np.float32] | None = None
        if options.probabilities:
            self.shares = np.stack([(low == value).astype(np.float32) for value in self.values])
        self.low, self.high = low.copy(), high
        self.window, self.active = self._find_active(options.search)
        self.disputed = bool(self.active.any())

    def _find_active(
        self, search: tuple[int, int, int]
    ) -> tuple[tuple[slice, ...], NDArray[np.bool_]]:
        """Find the voxels whose search window holds two labels, and the box around what they need."""
        corner = self.low[0, 0, 0]
        other = (self.low != corner) | (self.high != corner)
        if not other.any():
            return (slice(0, 1),) * 3, np.zeros((1, 1, 1), dtype=bool)
        reach = tuple(size // 2 for size in search)
        window = box_around(other, tuple(2 * n for n in reach))
        low = _over_windows(self.low[window], reach, np.minimum)
        high = _over_windows(self.high[window], reach, np.maximum)
        return window, low != high

    def vote_by_majority(self, labels: Sequence[NDArray[np.uint8]]) -> None:
        """Give every voxel the label of most atlases."""
        most = np.zeros(self.low.shape, dtype=np.uint16)
        tied = np.zeros(self.low.shape, dtype=bool)
        for number, value in enumerate(self.values):
            count = np.zeros_like(most)
            for array in labels:
                count += array == value
            tied &= count <= most
            tied |= (count == most) & (count > 0)
            self.labels[count > most] = value
            np.maximum(most, count, out=most)
            if self.shares is not None:
                self.shares[number] = count / np.float32(len(labels))
        np.divide(most, np.float32(len(labels)), out=self.confidence)
        self.ties.append(int(tied.sum()))

    def decide(self, box: Box, votes: NDArray[np.float32], active: NDArray[np.bool_]) -> None:
        """Write the winners of a box; its indices count from the window's corner."""
        place = tuple(
            slice(start.start + a, start.start + b)
            for start, a, b in zip(self.window, box[::2], box[1::2], strict=True)
        )
        own = active[box.i0 : box.i1, box.j0 : box.j1, box.k0 : box.k1]
        counted = votes[own]
        totals, tied = np.empty(len(counted), np.float32), np.zeros(1, np.int64)
        labels, confidence = self.labels[place], self.confidence[place]
        _decide_kernel(counted, own, self.values, labels, confidence, totals, tied)
        self.ties.append(int(tied[0]))
        if self.shares is not None:
            for number in range(len(self.values)):
                self.shares[number][place][own] = counted[:, number] / totals

    def fusion(self, voxel_to_world: NDArray[np.float64]) -> Fusion:
        """Hand the result over."""
        shares = None
        if self.shares is not None:
            pairs = zip(self.values.tolist(), self.shares, strict=True)
            shares = {value: Volume(share, voxel_to_world) for value, share in pairs}
        for array in (self.labels, self.confidence):
            array.setflags(write=False)
        return Fusion(
            LabelMap(self.labels, voxel_to_world),
            Volume(self.confidence, voxel_to_world),
            shares,
            sum(self.ties),
        )


def _over_windows(
    array: NDArray[np.uint8], reach: tuple[int, ...], extreme: np.ufunc
) -> NDArray[np.uint8]:
    """Least or greatest label in the part of each voxel's window that lies inside the array."""
    for axis, steps in enumerate(reach):
        out = array.copy()
        moved, found = np.moveaxis(out, axis, 0), np.moveaxis(array, axis, 0)
        for step in range(1, min(steps, len(found) - 1) + 1):
            extreme(moved[step:], found[:-step], out=moved[step:])
            extreme(moved[:-step], found[step:], out=moved[:-step])
        array = out
    return array


def _scene(
    target: NDArray[np.float32],
    images: Sequence[NDArray[np.float32]],
    labels: Sequence[NDArray[np.uint8]],
    canvas: _Canvas,
    options: FusionOptions,
    threads: int,
) -> Scene:
    """Cut out what the disputed voxels can reach, as grey levels and codes."""
    reach = tuple(size // 2 for size in options.search)
    patch = (options.patch[0] // 2, options.patch[1] // 2)
    grow = [reach[0] + 2 * patch[0], reach[1] + 2 * patch[1], reach[2]]
    needed = box_around(canvas.active, (0, 0, 0))
    inside = [
        slice(max(0, w.start + b.start - g), min(n, w.start + b.stop + g))
        for w, b, g, n in zip(canvas.window, needed, grow, target.shape, strict=True)
    ]
    window = (inside[0], inside[1], inside[2])
    grey, atlas_grey = grey_levels(
        target, images, canvas.labelled, harmonisation=options.harmonisation, window=window,
        threads=threads,
    )  # fmt: skip
    table = np.zeros(256, dtype=np.uint8)
    table[canvas.values] = np.arange(len(canvas.values))
    codes = np.empty(atlas_grey.shape, dtype=np.uint8)
    for array, code in zip(labels, codes, strict=True):
        _encode_kernel(np.ascontiguousarray(array[window]).ravel(), table, code.ravel())
    active = np.zeros(grey.shape, dtype=bool)
    starts = [
        w.start + b.start - n.start for w, b, n in zip(canvas.window, needed, window, strict=True)
    ]
    found = canvas.active[needed]
    active[tuple(slice(s, s + size) for s, size in zip(starts, found.shape, strict=True))] = found
    canvas.window = window
    return Scene(
        grey, atlas_grey, codes, active,
        (reach[0], reach[1], reach[2]), patch, options.distance, options.bandwidth,
        len(canvas.values),
    )  # fmt: skip


def _tiles(active: NDArray[np.bool_], size: tuple[int, int]) -> list[Box]:
    """Boxes around the active voxels of each tile of columns."""
    boxes = []
    for i in range(0, active.shape[0], size[0]):
        for j in range(0, active.shape[1], size[1]):
            own = active[i : i + size[0], j : j + size[1]]
            if own.any():
                a, b, c = box_around(own, (0, 0, 0))
                boxes.append(Box(i + a.start, i + a.stop, j + b.start, j + b.stop, c.start, c.stop))
    return boxes


# ---------------------------------------------------------------------------------------------- kernels


@kernel
def _survey_kernel(labels, low, high, seen):
    """Take one atlas into the least and greatest label of every voxel and into the labels seen.

    Labels are seen in words of eight, and a word that repeats the one before it shows nothing new.
    """
    size = np.uint64(len(labels))
    for v in range(size):
        low[v] = min(low[v], labels[v])
        high[v] = max(high[v], labels[v])
    words = labels[: len(labels) // 8 * 8].view(np.uint64)
    for word in range(np.uint64(len(words))):
        if word == 0 or words[word] != words[word - np.uint64(1)]:
            for v in range(np.uint64(8) * word, np.uint64(8) * word + np.uint64(8)):
                seen[labels[v]] = True
    for v in range(len(words) * 8, len(labels)):
        seen[labels[v]] = True


@kernel
def _encode_kernel(labels, table, codes):
    """Positions of labels in the list of labels."""
    for v in range(np.uint64(len(labels))):
        codes[v] = table[labels[v]]


@kernel
def _most_votes_kernel(votes, values, labels, share):
    """The lowest label with most votes, and its part of all votes."""
    for v in range(votes.shape[0]):
        total, best = np.float32(0), 0
        for label in range(votes.shape[1]):
            total += votes[v, label]
            if votes[v, label] > votes[v, best]:
                best = label
        labels[v] = values[best]
        share[v] = min(votes[v, best] / max(total, np.float32(1e-30)), np.float32(1))


@kernel
def _share_kernel(votes, labels, share):
    """The part of all votes that the given labels have."""
    for v in range(votes.shape[0]):
        total = np.float32(0)
        for label in range(votes.shape[1]):
            total += votes[v, label]
        share[v] = min(votes[v, labels[v]] / total, np.float32(1))


@kernel
def _decide_kernel(votes, own, values, labels, confidence, totals, tied):
    """Give voxels the lowest label whose votes are within a millionth of all votes of the most."""
    v = 0
    for i in range(own.shape[0]):
        for j in range(own.shape[1]):
            for k in range(own.shape[2]):
                if not own[i, j, k]:
                    continue
                total, most = np.float32(0), np.float32(0)
                for label in range(votes.shape[1]):
                    total += votes[v, label]
                    most = max(most, votes[v, label])
                least, n_equal, best = most - np.float32(_TIED_SHARE) * total, 0, most
                for label in range(votes.shape[1] - 1, -1, -1):
                    if votes[v, label] >= least:
                        n_equal += 1
                        labels[i, j, k], best = values[label], votes[v, label]
                confidence[i, j, k] = min(best / total, np.float32(1))
                totals[v] = total
                tied[0] += n_equal > 1
                v += 1
