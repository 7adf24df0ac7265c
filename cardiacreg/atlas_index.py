"""An index that proposes the atlases most like a target, so that a large bank need not be searched.

Every atlas is brought into the frame of one template by its landmarks, and its labels are read at a
coarse lattice of points there. Principal components of these label patterns (one indicator per structure)
are short vectors whose distances follow the disagreement of labels; a k-d tree holds them. A target's
vector is fitted to the points in its labelled slices only, because what was not acquired is unknown.
The proposed atlases are then ranked by NMI (`atlas_selection`). The paper names such hashing as future
work.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from cardiacreg._slabs import ProgressCallable, check_threads, run_tasks
from cardiacreg.errors import InvalidInputError
from cardiacreg.geometry import N_LABELS, LabelMap, Landmarks, Subject, apply_matrix
from cardiacreg.landmark_affine import fit_landmark_affine
from cardiacreg.landmarks import landmarks_from_labels

_SPACING_MM = 6.0
_MARGIN_MM = 15.0
_DAMPING = 1e-3


class AtlasIndex:
    """Short vectors of a bank's shapes in one frame, and a tree to search them.

    Parameters
    ----------
    template : Landmarks
        Landmarks of the common frame.
    points_mm : ndarray, shape (m, 3)
        Where labels are read, in the template's world.
    mean : ndarray of float32, shape (m * 4,)
    components : ndarray of float32, shape (c, m * 4)
    vectors : ndarray of float32, shape (n, c)
        One per atlas.
    """

    def __init__(
        self,
        template: Landmarks,
        points_mm: NDArray[np.float64],
        mean: NDArray[np.float32],
        components: NDArray[np.float32],
        vectors: NDArray[np.float32],
    ) -> None:
        self.template, self.points_mm = template, points_mm
        self.mean, self.components, self.vectors = mean, components, vectors
        self._tree = cKDTree(vectors)

    def __len__(self) -> int:
        return len(self.vectors)

    @classmethod
    def build(
        cls,
        atlases: Sequence[Subject],
        *,
        n_components: int = 32,
        threads: int | None = None,
        progress: ProgressCallable | None = None,
    ) -> AtlasIndex:
        """Index a bank; atlases are read one at a time, without images.

        Parameters
        ----------
        atlases : sequence of Subject
            With landmarks, or with labels that landmarks can be derived from.
        n_components : int
            Length of the vectors, less where there are fewer atlases.
        threads : int, optional
        progress : callable, optional

        Raises
        ------
        InvalidInputError
            If there are fewer than two atlases, or one has no usable landmarks.
        """
        if len(atlases) < 2:
            raise InvalidInputError(
                f"AtlasIndex.build: {len(atlases)} atlases; needs at least two.", code="EMPTY_BANK"
            )
        read = getattr(atlases, "without_image", atlases.__getitem__)
        first = read(0)
        template = _landmarks(first)
        points = _points_around(first.labels)

        def sign(number: int) -> NDArray[np.uint8]:
            atlas = read(number)
            affine = fit_landmark_affine(template, _landmarks(atlas)).target_to_atlas
            return read_labels_at(atlas.labels, affine.apply(points))

        found = run_tasks(
            sign, range(len(atlases)), threads=check_threads(threads), step="index",
            progress=progress,
        )  # fmt: skip
        return cls.from_patterns(template, points, np.stack(found), n_components=n_components)

    @classmethod
    def from_patterns(
        cls,
        template: Landmarks,
        points_mm: NDArray[np.float64],
        patterns: NDArray[np.uint8],
        *,
        n_components: int = 32,
    ) -> AtlasIndex:
        """Index label patterns that were read already.

        Parameters
        ----------
        template : Landmarks
        points_mm : ndarray, shape (m, 3)
        patterns : ndarray of uint8, shape (n, m)
            Labels of each atlas at the points, moved to it by its landmarks.
        n_components : int
        """
        sample = patterns[:: max(1, len(patterns) // 1000)]
        indicators = _indicators(sample)
        mean = indicators.mean(axis=0)
        _, _, components = np.linalg.svd(indicators - mean, full_matrices=False)
        components = np.ascontiguousarray(components[:n_components])
        vectors = np.concatenate(
            [
                (_indicators(patterns[start : start + 1000]) - mean) @ components.T
                for start in range(0, len(patterns), 1000)
            ]
        )
        return cls(template, points_mm, mean, components, vectors)

    def propose(self, target: LabelMap, landmarks: Landmarks, count: int) -> NDArray[np.int64]:
        """Return the positions of the atlases whose shapes are nearest to a target's, nearest first.

        Parameters
        ----------
        target : LabelMap
            Slices without labels count as unknown.
        landmarks : Landmarks
            The target's, defined as those of the atlases.
        count : int
            How many; all atlases where there are fewer.
        """
        vector = self.describe(target, landmarks)
        _, found = self._tree.query(vector, k=min(count, len(self)))
        return np.atleast_1d(np.asarray(found, dtype=np.int64))

    def describe(self, target: LabelMap, landmarks: Landmarks) -> NDArray[np.float64]:
        """Return a target's vector, fitted to the points that its labelled slices show."""
        affine = fit_landmark_affine(self.template, landmarks).target_to_atlas
        points = affine.apply(self.points_mm)
        pattern = read_labels_at(target, points)[None]
        slices: NDArray[np.bool_] = np.asarray(target.array.any(axis=(0, 1)))
        to_voxel = np.asarray(np.linalg.inv(target.voxel_to_world), dtype=np.float64)
        height = apply_matrix(to_voxel, points)[:, 2]
        nearest = np.rint(height).astype(np.int64)
        shown = (nearest >= 0) & (nearest < len(slices))
        shown &= slices[np.clip(nearest, 0, len(slices) - 1)]
        known = np.repeat(shown, N_LABELS - 1)
        basis = self.components[:, known].astype(np.float64)
        normal = basis @ basis.T + _DAMPING * np.eye(len(basis))
        offset = (_indicators(pattern)[0] - self.mean)[known].astype(np.float64)
        return np.asarray(np.linalg.solve(normal, basis @ offset), dtype=np.float64)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the index as one ``.npz`` file."""
        place = Path(path)
        with place.open("wb") as stream:
            np.savez(
                stream, template=self.template.points_mm, source=np.array(self.template.source),
                points_mm=self.points_mm, mean=self.mean, components=self.components,
                vectors=self.vectors,
            )  # fmt: skip
        return place

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> AtlasIndex:
        """Read an index that `save` wrote.

        Raises
        ------
        InvalidInputError
            If the file is not one.
        """
        try:
            with np.load(path, allow_pickle=False) as held:
                template = Landmarks(held["template"], source=str(held["source"]))
                parts = [held[name] for name in ("points_mm", "mean", "components", "vectors")]
        except (OSError, KeyError, ValueError) as error:
            raise InvalidInputError(
                f"AtlasIndex.load: {path} is not an index ({error}); build it again.",
                code="BAD_ATLAS_INDEX",
            ) from error
        return cls(template, *parts)


def read_labels_at(labels: LabelMap, points_mm: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return the label of the nearest voxel at world points (n, 3); 0 outside."""
    to_voxel = np.asarray(np.linalg.inv(labels.voxel_to_world), dtype=np.float64)
    voxels = np.rint(apply_matrix(to_voxel, points_mm)).astype(np.int64)
    last = np.array(labels.shape) - 1
    inside = ((voxels >= 0) & (voxels <= last)).all(axis=1)
    i, j, k = np.clip(voxels, 0, last).T
    return np.where(inside, labels.array[i, j, k], 0).astype(np.uint8)


def _indicators(patterns: NDArray[np.uint8]) -> NDArray[np.float32]:
    """One number per point and structure: 1 where the structure is."""
    structures = np.arange(1, N_LABELS, dtype=np.uint8)
    found = patterns[..., None] == structures
    return np.asarray(found.reshape(len(patterns), -1), dtype=np.float32)


def _landmarks(subject: Subject) -> Landmarks:
    return subject.landmarks or landmarks_from_labels(subject.labels)


def _points_around(labels: LabelMap) -> NDArray[np.float64]:
    """A coarse lattice over the structures of the template and a margin."""
    where = apply_matrix(labels.voxel_to_world, np.argwhere(labels.array).astype(np.float64))
    axes = [
        np.arange(low - _MARGIN_MM, high + _MARGIN_MM, _SPACING_MM)
        for low, high in zip(where.min(axis=0), where.max(axis=0), strict=True)
    ]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
