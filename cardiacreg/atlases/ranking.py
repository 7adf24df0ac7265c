"""Steps 2 and 3: bring every atlas to the target by its landmarks and keep those with the best NMI.

``NMI(S, l o A) = (H(S) + H(l)) / H(S, l)`` from the joint label histogram over the target's own voxels:
one nearest look-up per voxel and no warped copy of the atlas. Ties go to the lowest index.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cardiacreg.algebra import settled
from cardiacreg.arrays import Float
from cardiacreg.compute.label_counts import joint_counts
from cardiacreg.compute.threads import ProgressCallable, check_threads, run_tasks
from cardiacreg.errors import InvalidInputError, check_argument
from cardiacreg.geometry import Affine, LabelMap, Subject

if TYPE_CHECKING:
    from cardiacreg.atlases.scoring_points import ScoringPoints

Counts = NDArray[np.int64]
_MOST_SHOWN = 20


@dataclass(frozen=True, slots=True, eq=False)
class RankedAtlas:
    """One atlas of a ranking.

    Parameters
    ----------
    index : int
        Position in the bank.
    target_to_atlas : Affine
        The affine the atlas was scored with.
    nmi : float
        Normalised mutual information, 1 (independent) to 2 (identical partitions).
    dice : dict of int to float
        Dice at the scored voxels of every label that the target shows.
    """

    index: int
    target_to_atlas: Affine
    nmi: float
    dice: dict[int, float] = field(default_factory=dict)


def normalized_mutual_information(
    target: LabelMap,
    atlas: LabelMap,
    target_to_atlas: Affine | None = None,
    *,
    unknown_labels: tuple[int, ...] = (),
) -> float:
    """Return the normalised mutual information of two label maps.

    Parameters
    ----------
    target, atlas : LabelMap
        Label maps; without `target_to_atlas` they must have the same shape and are compared voxel by
        voxel, else over all target voxels, atlas labels looked up at the nearest voxel (outside: 0).
    target_to_atlas : Affine, optional
        Target world mm to atlas world mm.
    unknown_labels : tuple of int
        Atlas labels that count as background because the target does not show them.

    Returns
    -------
    float
        ``(H(S) + H(l)) / H(S, l)``: 1 to 2; by convention 1 when both maps are constant.

    Raises
    ------
    InvalidInputError
        If the shapes differ and no transform is given.

    Examples
    --------
    >>> import numpy as np
    >>> from cardiacreg import Affine, normalized_mutual_information
    >>> from cardiacreg.phantoms.toy_heart import make_toy_heart
    >>> heart = make_toy_heart().labels
    >>> round(normalized_mutual_information(heart, heart, Affine(np.eye(4))), 3)
    2.0
    """
    check_argument(target, LabelMap, "normalized_mutual_information: target")
    check_argument(atlas, LabelMap, "normalized_mutual_information: atlas")
    if target_to_atlas is not None:
        points = _scoring_points(target, whole=True)
        return nmi_of_counts(_fold(points.counts(atlas, target_to_atlas), unknown_labels))
    if target.shape != atlas.shape:
        raise InvalidInputError(
            f"normalized_mutual_information: shapes {target.shape} and {atlas.shape} differ; give "
            "target_to_atlas, or maps on one lattice.",
            code="BAD_SHAPE",
        )
    counts = joint_counts(target.array.ravel(), atlas.array.ravel())
    return nmi_of_counts(_fold(counts, unknown_labels))


def rank_atlases(
    target: LabelMap,
    atlases: Sequence[Subject],
    target_to_atlas: Sequence[Affine],
    *,
    unknown_labels: tuple[int, ...] = (),
    whole_lattice: bool = False,
    empty_planes: Sequence[float] = (),
    stride: int = 1,
    threads: int | None = None,
    progress: ProgressCallable | None = None,
) -> tuple[RankedAtlas, ...]:
    """Rank a bank by normalised mutual information with the target, best first.

    Parameters
    ----------
    target : LabelMap
    atlases : sequence of Subject
        Read one at a time; may be lazy and larger than memory. A bank with a method
        ``without_image(index)`` is spared the reading of its images.
    target_to_atlas : sequence of Affine
        One per atlas.
    unknown_labels : tuple of int
        Atlas labels that count as background because the target does not show them.
    whole_lattice : bool
        Score over every target voxel, as the paper does, instead of over the box around the labels in
        the slices that hold labels (what was not acquired is unknown).
    empty_planes : sequence of float
        Planes beyond the labels that are scored as background, in slices from the first one; the heart
        ended before them. None of them counts with `whole_lattice`.
    stride : int
        Every so many pixels of a slice are scored, along i and j.
    threads : int, optional
    progress : callable, optional

    Returns
    -------
    tuple of RankedAtlas
        All atlases; ties keep the order of the bank.

    Raises
    ------
    InvalidInputError
        If the bank is empty or the counts differ.

    Examples
    --------
    >>> import numpy as np
    >>> from cardiacreg import Affine, rank_atlases
    >>> from cardiacreg.phantoms.toy_heart import make_toy_heart
    >>> atlases = [make_toy_heart(size=size) for size in (0.8, 0.9, 1.0)]
    >>> start = [Affine(np.eye(4))] * len(atlases)
    >>> [ranked.index for ranked in rank_atlases(make_toy_heart(size=0.95).labels, atlases, start)]
    [2, 1, 0]
    """
    check_argument(target, LabelMap, "rank_atlases: target")
    for many in (atlases, target_to_atlas):
        if isinstance(many, Set | Mapping):
            check_argument(many, Sequence, "rank_atlases: atlases or transforms")
    if len(atlases) == 0 or len(atlases) != len(target_to_atlas):
        raise InvalidInputError(
            f"rank_atlases: {len(atlases)} atlases and {len(target_to_atlas)} transforms; needs at "
            "least one atlas and one transform for each.",
            code="EMPTY_BANK",
        )
    points = _scoring_points(target, whole=whole_lattice, empty_planes=empty_planes, stride=stride)
    read = getattr(atlases, "without_image", atlases.__getitem__)

    def score(index: int) -> RankedAtlas:
        affine, atlas = target_to_atlas[index], read(index)
        check_argument(affine, Affine, f"rank_atlases: transform {index}")
        check_argument(atlas, Subject, f"rank_atlases: atlas {index}")
        counts = _fold(points.counts(atlas.labels, affine), unknown_labels)
        return RankedAtlas(index, affine, nmi_of_counts(counts), _dice(counts))

    scored = run_tasks(
        score, range(len(atlases)), threads=check_threads(threads), step="select", progress=progress
    )
    return tuple(sorted(scored, key=lambda ranked: (-ranked.nmi, ranked.index)))


def with_metadata(atlases: Sequence[Subject], /, **wanted: object) -> tuple[int, ...]:
    """Return the positions of the atlases whose metadata hold given values.

    Parameters
    ----------
    atlases : sequence of Subject
        One with a property ``metadata`` (one mapping per atlas) is not read.
    **wanted
        A value, or a collection of allowed values, per key: ``phase="ED", group=("healthy", "dilated")``.
        A text also fits a value that is written so: ``age="60"``.

    Returns
    -------
    tuple of int
        In the order of the atlases; ``bank.subset`` makes a bank of them.

    Raises
    ------
    InvalidInputError
        If no atlas fits; the message lists the values there are.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from cardiacreg import with_metadata
    >>> from cardiacreg.phantoms.toy_heart import make_toy_heart
    >>> atlases = [replace(make_toy_heart(), metadata={"phase": phase}) for phase in ("ED", "ES", "ED")]
    >>> with_metadata(atlases, phase="ED")
    (0, 2)
    """
    known = getattr(atlases, "metadata", None)
    described = known if known is not None else [_metadata_of(atlas) for atlas in atlases]
    allowed = {
        key: tuple(value) if isinstance(value, list | tuple | set | frozenset) else (value,)
        for key, value in wanted.items()
    }
    found = tuple(
        n
        for n, held in enumerate(described)
        if all(key in held and _fits(held[key], values) for key, values in allowed.items())
    )
    if not found:
        there = "; ".join(_values_there(described, key) for key in wanted)
        raise InvalidInputError(
            f"with_metadata: none of {len(described)} atlases has {wanted}; there is {there}.",
            code="EMPTY_BANK",
        )
    return found


def _metadata_of(atlas: object) -> dict[str, Any]:
    """Metadata of an atlas; none of what is no atlas, which the check of a bank reports."""
    return getattr(atlas, "metadata", None) or {}


def _fits(value: object, allowed: tuple[object, ...]) -> bool:
    try:
        return value in allowed or str(value) in allowed
    except ValueError:  # an array is no value of metadata
        return False


def _values_there(described: Sequence[Mapping[str, Any]], key: str) -> str:
    """Say in words which values of a key a bank holds, or which keys."""
    values = sorted({str(held[key]) for held in described if key in held})
    if values:
        more = f" and {len(values) - _MOST_SHOWN} more" if len(values) > _MOST_SHOWN else ""
        return f"{key} {', '.join(values[:_MOST_SHOWN])}{more}"
    keys = sorted({str(other) for held in described for other in held})
    return f"no {key}, but {', '.join(keys[:_MOST_SHOWN])}" if keys else "no metadata at all"


def diversity(
    target: LabelMap, atlases: Sequence[Subject], target_to_atlas: Sequence[Affine]
) -> float:
    """Return how much chosen atlases differ: mean share of the heart's voxels on which two disagree.

    Parameters
    ----------
    target : LabelMap
        Its voxels are where the atlases are compared, by the affines, at the nearest voxel.
    atlases : sequence of Subject
        The chosen ones.
    target_to_atlas : sequence of Affine

    Returns
    -------
    float
        0 (all the same, or one atlas) to 1.
    """
    points = _scoring_points(target, whole=False)
    pairs = zip(atlases, target_to_atlas, strict=True)
    seen = [points.read(atlas.labels, affine) for atlas, affine in pairs]
    shares = []
    for n, first in enumerate(seen):
        for second in seen[:n]:
            heart = (first != 0) | (second != 0)
            shares.append(float((first != second)[heart].mean()) if heart.any() else 0.0)
    return float(np.mean(shares)) if shares else 0.0


def _scoring_points(
    target: LabelMap, *, whole: bool, empty_planes: Sequence[float] = (), stride: int = 1
) -> ScoringPoints:
    """List a target's voxels; only what looks them up in an atlas loads Numba."""
    from cardiacreg.atlases.scoring_points import ScoringPoints

    return ScoringPoints(target, whole=whole, empty_planes=empty_planes, stride=stride)


def _fold(counts: Counts, unknown_labels: tuple[int, ...]) -> Counts:
    folded = counts.copy()
    for label in unknown_labels:
        folded[:, 0] += folded[:, label]
        folded[:, label] = 0
    return folded


def nmi_of_counts(counts: Counts) -> float:
    """Return the normalised mutual information of a joint histogram; 1 when both sides are constant.

    Parameters
    ----------
    counts : ndarray of int64, shape (n, m)
    """
    return float(nmi_of_histograms(counts[None])[0])


def nmi_of_histograms(counts: Counts) -> Float:
    """Return the normalised mutual information of many joint histograms.

    Parameters
    ----------
    counts : ndarray of int64, shape (histograms, n, m)

    Returns
    -------
    ndarray, shape (histograms,)
        1 where both sides are constant.
    """
    counts = counts[:, :, counts.any(axis=(0, 1))]
    joint = counts / np.maximum(1, counts.sum(axis=(1, 2), keepdims=True))
    together = _entropies(joint.reshape(len(joint), -1))
    apart = _entropies(joint.sum(axis=1)) + _entropies(joint.sum(axis=2))
    shares = np.where(together > 0, apart / np.where(together > 0, together, 1.0), 1.0)
    return settled(shares, 2.0**-40)


def _entropies(probability: Float) -> Float:
    """Entropy of every row."""
    logarithm = np.log(np.where(probability > 0, probability, 1.0))
    return np.asarray(-(probability * logarithm).sum(axis=1), dtype=np.float64)


def _dice(counts: Counts) -> dict[int, float]:
    """Dice of every label but background that the rows hold."""
    rows, columns = counts.sum(axis=1), counts.sum(axis=0)
    return {
        int(label): float(2 * counts[label, label] / (rows[label] + columns[label]))
        for label in np.flatnonzero(rows)
        if label
    }
