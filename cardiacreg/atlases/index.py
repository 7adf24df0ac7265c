"""An index that proposes the atlases most like a target, so that a large bank need not be searched.

Every atlas is laid over one template by its landmarks, and its labels are read once at
some thousand points where atlases differ: its signature. A target's labels are read at the same points,
as far as its labelled slices show them, because what was not acquired is unknown. Atlases that disagree
at the fewest of the first thousand points are kept, these are ordered by NMI over all points, and the
best are proposed; `atlases.ranking` then ranks them by NMI over the target's voxels. The points are in
random order, so that the first ones are a fair sample. The paper names such hashing as future work.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cardiacreg.algebra import invert
from cardiacreg.anatomy.landmarks import derive_landmarks
from cardiacreg.atlases.ranking import nmi_of_histograms
from cardiacreg.compute.threads import ProgressCallable, check_threads, run_tasks
from cardiacreg.errors import InvalidInputError, check_argument
from cardiacreg.geometry import N_LABELS, LabelMap, Landmarks, Subject, apply_matrix, nearest_labels
from cardiacreg.io.atomic_write import write_bytes_atomically
from cardiacreg.io.bounded_read import DAMAGED_NPZ
from cardiacreg.io.regular_file import check_regular_file
from cardiacreg.registration.landmark_affine import fit_landmark_affine

_SPACING_MM = 6.0
_MARGIN_MM = 15.0
_SAMPLE = 500
_FIRST_POINTS = 1000
_FIRST_KEPT = 1000
_ROWS = 256
_LEAST_SHARE = 0.002


class AtlasIndex:
    """Labels of a bank's atlases at few points of one template, and the search among them.

    Parameters
    ----------
    template : Landmarks
        Landmarks of the template.
    points_mm : ndarray, shape (m, 3)
        Where labels are read, in the template's world.
    signatures : ndarray of uint8, shape (n, m)
        Labels of each atlas at the points, moved to it by its landmarks.
    """

    def __init__(
        self,
        template: Landmarks,
        points_mm: NDArray[np.float64],
        signatures: NDArray[np.uint8],
    ) -> None:
        self.template, self.points_mm, self.signatures = template, points_mm, signatures

    def __len__(self) -> int:
        return len(self.signatures)

    @classmethod
    def build(
        cls,
        atlases: Sequence[Subject],
        *,
        n_points: int = 2000,
        threads: int | None = None,
        progress: ProgressCallable | None = None,
    ) -> AtlasIndex:
        """Index a bank; atlases are read one at a time, without images.

        Parameters
        ----------
        atlases : sequence of Subject
            With landmarks, or with labels that landmarks can be derived from.
        n_points : int
            Most points per atlas, one byte each.
        threads : int, optional
        progress : callable, optional

        Raises
        ------
        InvalidInputError
            If there are fewer than two atlases, or one has no usable landmarks.
        """
        if not hasattr(atlases, "__getitem__") or isinstance(atlases, Mapping):
            check_argument(atlases, Sequence, "AtlasIndex.build: atlases")
        if len(atlases) < 2:
            raise InvalidInputError(
                f"AtlasIndex.build: {len(atlases)} atlases; needs at least two.", code="EMPTY_BANK"
            )
        read = getattr(atlases, "without_image", atlases.__getitem__)
        first = read(0)
        template = _landmarks(first)

        def sign(number: int, points: NDArray[np.float64]) -> NDArray[np.uint8]:
            atlas = read(number)
            affine = fit_landmark_affine(template, _landmarks(atlas)).target_to_atlas
            return read_labels_at(atlas.labels, affine.apply(points))

        lattice = _points_around(first.labels)
        sample = range(0, len(atlases), -(-len(atlases) // _SAMPLE))
        chosen = telling_points(np.stack([sign(n, lattice) for n in sample]), n_points)
        points = lattice[chosen]
        found = run_tasks(
            lambda number: sign(number, points), range(len(atlases)),
            threads=check_threads(threads), step="index", progress=progress,
        )  # fmt: skip
        return cls(template, points, np.stack(found))

    def propose(
        self,
        target: LabelMap,
        landmarks: Landmarks,
        count: int,
        *,
        unknown_labels: tuple[int, ...] = (),
    ) -> NDArray[np.int64]:
        """Return the positions of the atlases whose shapes are most like a target's, best first.

        Parameters
        ----------
        target : LabelMap
            Slices without labels count as unknown.
        landmarks : Landmarks
            The target's, defined as those of the atlases.
        count : int
            How many; all atlases where there are fewer.
        unknown_labels : tuple of int
            Atlas labels that count as background because the target does not show them.
        """
        labels, shown = self._read(target, landmarks)
        meaning = np.arange(256, dtype=np.uint8)
        meaning[[*unknown_labels, *range(N_LABELS, 256)]] = 0
        apart = self._disagreements(meaning[labels], shown, meaning)
        kept = np.argsort(apart, kind="stable")[: max(_FIRST_KEPT, count)]
        alike = np.concatenate(
            [
                _nmi(meaning[labels[shown]], meaning[self.signatures[np.ix_(rows, shown)]])
                for rows in np.array_split(kept, -(-len(kept) // _ROWS))
            ]
        )
        return np.asarray(kept[np.lexsort((kept, -alike))][:count], dtype=np.int64)

    def _read(
        self, target: LabelMap, landmarks: Landmarks
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """A target's labels at the points, and which points its labelled slices show."""
        to_target = fit_landmark_affine(landmarks, self.template).target_to_atlas.inverse()
        points = to_target.apply(self.points_mm)
        slices: NDArray[np.bool_] = np.asarray(target.array.any(axis=(0, 1)))
        to_voxel = np.asarray(invert(target.voxel_to_world), dtype=np.float64)
        nearest = np.rint(apply_matrix(to_voxel, points)[:, 2]).astype(np.int64)
        shown = (nearest >= 0) & (nearest < len(slices))
        shown &= slices[np.clip(nearest, 0, len(slices) - 1)]
        if not shown.any():
            shown[:] = True
        return read_labels_at(target, points), np.flatnonzero(shown)

    def _disagreements(
        self, labels: NDArray[np.uint8], shown: NDArray[np.int64], meaning: NDArray[np.uint8]
    ) -> NDArray[np.int64]:
        """At how many of the first points that are shown each atlas has another label."""
        first = shown[:_FIRST_POINTS]
        stop, plain = int(first[-1]) + 1, bool((meaning[:N_LABELS] == np.arange(N_LABELS)).all())
        seen = np.zeros(stop, dtype=bool)
        seen[first] = True
        apart = np.empty(len(self), dtype=np.int64)
        for start in range(0, len(self), _ROWS):
            rows = self.signatures[start : start + _ROWS, :stop]
            differ = (rows if plain else meaning[rows]) != labels[:stop]
            differ &= seen
            apart[start : start + _ROWS] = np.count_nonzero(differ, axis=1)
        return apart

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the index as one ``.npz`` file."""
        stream = io.BytesIO()
        np.savez(
            stream, template=self.template.points_mm, source=np.array(self.template.source),
            points_mm=self.points_mm, signatures=self.signatures,
        )  # fmt: skip
        write_bytes_atomically(Path(path), stream.getvalue())
        return Path(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> AtlasIndex:
        """Read an index that `save` wrote.

        Raises
        ------
        InvalidInputError
            If the file is not one.
        """
        try:
            check_regular_file(path)
            with Path(path).open("rb") as stream, np.load(stream, allow_pickle=False) as held:
                template = Landmarks(held["template"], source=str(held["source"]))
                points_mm, signatures = held["points_mm"], held["signatures"]
        except DAMAGED_NPZ as error:
            raise InvalidInputError(
                f"AtlasIndex.load: {path} is not an index ({error}); build it again.",
                code="BAD_ATLAS_INDEX",
            ) from error
        return cls(template, points_mm, signatures)


def telling_points(sample: NDArray[np.uint8], count: int) -> NDArray[np.int64]:
    """Choose points at which atlases differ, in random order.

    Parameters
    ----------
    sample : ndarray of uint8, shape (n, m)
        Labels of some atlases at all points.
    count : int
        Most points to choose.

    Returns
    -------
    ndarray of int64
        Positions of the chosen points; the same for the same sample.
    """
    usual = np.stack([(sample == label).mean(axis=0) for label in range(N_LABELS)]).max(axis=0)
    differ = np.flatnonzero(usual < 1 - _LEAST_SHARE)
    if len(differ) == 0:
        differ = np.arange(sample.shape[1])
    rng = np.random.default_rng(0)
    return rng.permutation(differ)[:count]


def read_labels_at(labels: LabelMap, points_mm: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return the label of the nearest voxel at world points (n, 3); 0 outside."""
    to_voxel = np.asarray(invert(labels.voxel_to_world), dtype=np.float64)
    return nearest_labels(labels, apply_matrix(to_voxel, points_mm))


def _nmi(labels: NDArray[np.uint8], rows: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Normalised mutual information of labels (m,) with every row of (n, m)."""
    pairs = rows.astype(np.int64)
    pairs += labels.astype(np.int64) * N_LABELS
    pairs += np.arange(len(rows))[:, None] * N_LABELS**2
    counts = np.bincount(pairs.ravel(), minlength=len(rows) * N_LABELS**2)
    return nmi_of_histograms(counts.reshape(len(rows), N_LABELS, N_LABELS))


def _landmarks(subject: Subject) -> Landmarks:
    check_argument(subject, Subject, "AtlasIndex.build: an atlas")
    return subject.landmarks or derive_landmarks(subject.labels)


def _points_around(labels: LabelMap) -> NDArray[np.float64]:
    """A coarse lattice over the structures of the template and a margin."""
    where = apply_matrix(labels.voxel_to_world, np.argwhere(labels.array).astype(np.float64))
    axes = [
        np.arange(low - _MARGIN_MM, high + _MARGIN_MM, _SPACING_MM)
        for low, high in zip(where.min(axis=0), where.max(axis=0), strict=True)
    ]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
