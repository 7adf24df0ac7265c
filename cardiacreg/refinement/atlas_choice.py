"""Which atlases are registered: landmark affines for all, NMI over all, the best improved and kept.

The paper fits every atlas by its landmarks and keeps the five with the best NMI. The default goes on:
the affine of the best candidates is improved on the labels themselves, and the mean Dice of the target's
structures then decides among them, since NMI hardly sees a thin RV wall. Selection by image puts the NMI
of images in the place of both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from cardiacreg.anatomy.landmarks import derive_landmarks
from cardiacreg.atlases.ranking import RankedAtlas, rank_atlases
from cardiacreg.atlases.ranking_by_image import image_of, rank_atlases_by_image
from cardiacreg.atlases.view import AtlasView
from cardiacreg.compute.threads import run_tasks
from cardiacreg.errors import InvalidInputError, kept_warnings, pass_on, warn
from cardiacreg.geometry import Affine, LabelMap, Landmarks, Subject
from cardiacreg.refinement.context import RefinementContext
from cardiacreg.refinement.output_lattice import upsample_labels
from cardiacreg.registration.aligned_atlas import AlignedAtlas
from cardiacreg.registration.ffd_registration import PreparedTarget, prepare_target
from cardiacreg.registration.label_affine import AffineImprover
from cardiacreg.registration.landmark_affine import (
    LandmarkFit,
    fit_landmark_affine,
    fit_landmark_affines,
)
from cardiacreg.slice_motion.shifts_with_views import shifts_at_crossings
from cardiacreg.slices import labelled_slices

_DERIVED: dict[bytes, Landmarks] = {}
_MOST_DERIVED = 1000
"""Landmarks of atlases that have none, by what their labels are: a refinement asks several times."""
_COARSE_MM = 3.0
"""Largest distance of the points that rank a bank by landmarks, where this order is preliminary."""


class SelectedAtlas(NamedTuple):
    """An atlas that was chosen: its place in the ranking, how it was aligned, and itself."""

    ranked: RankedAtlas
    fit: LandmarkFit
    subject: Subject

    @property
    def aligned(self) -> AlignedAtlas:
        """Its labels under its affine."""
        return AlignedAtlas(self.subject.labels, self.ranked.target_to_atlas)


class Ranking(NamedTuple):
    """A whole bank ranked under one set of target landmarks."""

    landmarks: Landmarks
    fits: dict[int, LandmarkFit]
    ranked: tuple[RankedAtlas, ...]
    improved: Mapping[int, Affine] = MappingProxyType({})
    """Affines that were improved under the same landmarks on the same target, by position."""


def select_atlases(
    context: RefinementContext, bank: Sequence[Subject], ranking: Ranking | None = None
) -> list[SelectedAtlas]:
    """Fit every atlas by its landmarks, rank all by NMI of labels or of images and keep the best.

    Parameters
    ----------
    context : RefinementContext
    bank : sequence of Subject
    ranking : Ranking, optional
        The bank under the run's landmarks, where it is known already.

    Returns
    -------
    list of SelectedAtlas
        Best first: those to fuse, with their images where these vote, and behind them, without images,
        those that only help to estimate slice motion, and at the end, with affines from landmarks alone,
        those that only serve statistics.

    Raises
    ------
    InvalidInputError
        If selection is by image and the target or every atlas lacks one (NO_IMAGE).
    """
    by_image = context.options.selection == "image"
    if by_image:
        image_of(context.target)
    atlases = labels_of(bank)
    wanted = max(
        context.options.n_atlases,
        context.options.n_motion_atlases,
        context.options.n_statistics_atlases,
    )
    ranking = ranking or rank_by_landmarks(context, atlases, context.landmarks)
    candidates = context.options.affine_candidates
    if candidates:
        prepared = prepared_for_affines(context)
        if by_image:
            ranking = _by_image(context, bank, ranking)
        improved = max(candidates, context.options.n_atlases, context.options.n_motion_atlases)
        ranking = improve_affines(context, atlases, ranking, prepared, improved)
        if by_image:
            ranking = ranking._replace(ranked=ranking.ranked[:improved])
    if by_image:
        ranking = _by_image(context, bank, ranking)
    voting = context.options.n_atlases if context.images_vote else 0
    return [
        SelectedAtlas(r, ranking.fits[r.index], (bank if n < voting else atlases)[r.index])
        for n, r in enumerate(ranking.ranked[:wanted])
    ]


def prepared_for_affines(context: RefinementContext) -> PreparedTarget:
    """Return the target as affines are improved on it."""
    return prepare_target(
        context.target.labels,
        context.options.registration,
        unknown_labels=context.unknown_labels,
        empty_planes=context.coverage.planes,
        shared_planes=context.coverage.shared,
        views=context.views,
        doubt=context.doubt,
    )


def rank_by_landmarks(
    context: RefinementContext, atlases: Sequence[Subject], landmarks: Landmarks
) -> Ranking:
    """Align a whole bank by landmarks and rank it by NMI of labels.

    Where affines are improved afterwards, the order only says which atlases' are, and points up to 3 mm
    apart are scored.
    """

    def points(atlas: Subject) -> Landmarks | InvalidInputError:
        try:
            return _atlas_landmarks(atlas, landmarks.source)
        except InvalidInputError as problem:
            return problem

    own = run_tasks(
        points, atlases, threads=context.threads, step="align", progress=context.progress
    )
    found = _fit_all(landmarks, own)
    _tell_unusable(atlases, found)
    fits = {n: f for n, f in enumerate(found) if isinstance(f, LandmarkFit)}
    usable = list(fits)
    scored = _score(
        context,
        [atlases[n] for n in usable],
        [fits[n].target_to_atlas for n in usable],
        stride=_coarse_stride(context) if context.options.affine_candidates else 1,
    )
    ranked = tuple(replace(r, index=usable[r.index]) for r in scored)
    return Ranking(landmarks, fits, ranked)


def _fit_all(
    landmarks: Landmarks, atlases: Sequence[Landmarks | InvalidInputError]
) -> list[LandmarkFit | InvalidInputError]:
    """Fit atlases by their landmarks, where they have any."""
    known = [points for points in atlases if isinstance(points, Landmarks)]
    fits = iter(fit_landmark_affines(landmarks, known))
    return [p if isinstance(p, InvalidInputError) else next(fits) for p in atlases]


def _by_image(context: RefinementContext, bank: Sequence[Subject], ranking: Ranking) -> Ranking:
    """Rank the same atlases under the same affines by their images."""
    before = ranking.ranked
    found = rank_atlases_by_image(
        context.target,
        AtlasView(bank, [r.index for r in before]),
        [r.target_to_atlas for r in before],
        threads=context.threads,
        progress=context.progress,
    )
    return ranking._replace(ranked=tuple(replace(r, index=before[r.index].index) for r in found))


def _tell_unusable(
    atlases: Sequence[Subject], fits: Sequence[LandmarkFit | InvalidInputError]
) -> None:
    """Warn about atlases that cannot be aligned; raise if none can."""
    problems = {n: f for n, f in enumerate(fits) if isinstance(f, InvalidInputError)}
    if problems and len(problems) == len(fits):
        raise next(iter(problems.values()))
    for n, problem in problems.items():
        name = atlases[n].name or str(n)
        warn(f"atlas {name} is left out: {problem}")


def _coarse_stride(context: RefinementContext) -> int:
    """Stride at which scored points are at most 3 mm apart; 1 where pixels are larger."""
    return max(1, int(_COARSE_MM / context.target.labels.spacing_mm[:2].max()))


def _score(
    context: RefinementContext,
    atlases: Sequence[Subject],
    affines: Sequence[Affine],
    *,
    stride: int = 1,
) -> tuple[RankedAtlas, ...]:
    return rank_atlases(
        _scored_labels(context),
        atlases,
        affines,
        unknown_labels=context.unknown_labels,
        whole_lattice=context.options.upsample_target,
        empty_planes=_background_planes(context),
        stride=stride,
        threads=context.threads,
        progress=context.progress,
    )


def _background_planes(context: RefinementContext) -> list[float]:
    """Positions beyond all labels where both ventricles have ended."""
    held = labelled_slices(context.target.labels.array)
    beyond = {p.position for p in context.coverage.planes if p.weight == 1}
    return sorted(position for position in beyond if not held[0] <= position <= held[-1])


def _scored_labels(context: RefinementContext) -> LabelMap:
    labels = context.target.labels
    return (
        upsample_labels(labels, context.spacing_mm) if context.options.upsample_target else labels
    )


def labels_of(bank: Sequence[Subject]) -> AtlasView:
    """Return the atlases of a bank without their images; a view keeps those that it has read."""
    return bank.labels_only() if isinstance(bank, AtlasView) else AtlasView(bank, images=False)


def _atlas_landmarks(atlas: Subject, source: str) -> Landmarks:
    """Landmarks by the same definition as the target's: its own, or derived by the same rule."""
    own = atlas.landmarks
    if own is not None and (source != "labels" or own.source == "labels"):
        return own
    key = _digest(atlas.labels)
    found = _DERIVED.get(key)
    if found is None:
        with kept_warnings() as notes:
            found = derive_landmarks(atlas.labels)
        pass_on(notes)
        if len(_DERIVED) >= _MOST_DERIVED:
            _DERIVED.clear()
        if not notes:
            _DERIVED[key] = found
    return found


def _digest(labels: LabelMap) -> bytes:
    found = hashlib.blake2b(labels.array.tobytes(), digest_size=16)
    found.update(labels.voxel_to_world.tobytes())
    found.update(repr(labels.shape).encode())
    return found.digest()


def fitted_by_landmarks(landmarks: Landmarks, atlas: Subject) -> tuple[LandmarkFit, Landmarks]:
    """Align one atlas by landmarks; return also its own, by the same definition."""
    points = _atlas_landmarks(atlas, landmarks.source)
    return fit_landmark_affine(landmarks, points), points


def improve_affines(
    context: RefinementContext,
    atlases: Sequence[Subject],
    ranking: Ranking,
    prepared: PreparedTarget,
    candidates: int,
) -> Ranking:
    """Improve the affines of the best candidates on the labels and rank those again before the others."""
    indices = [r.index for r in ranking.ranked[:candidates]]
    views, image = context.views, context.target.image
    shifts = shifts_at_crossings(prepared, views, image) if views else None
    improver = AffineImprover(prepared, shifts_mm=shifts)

    def improve(index: int) -> Affine:
        if index in ranking.improved:
            return ranking.improved[index]
        atlas = atlases[index]
        return improver.improve(
            atlas.labels,
            ranking.fits[index].target_to_atlas,
            (ranking.landmarks, _atlas_landmarks(atlas, ranking.landmarks.source)),
            landmark_weight=context.options.landmark_weight,
        )

    affines = run_tasks(
        improve, indices, threads=context.threads, step="affine", progress=context.progress
    )
    again = _score(context, [atlases[index] for index in indices], affines)
    renamed = [replace(r, index=indices[r.index]) for r in again]
    weights = context.options.structure_weights
    if weights is not None:
        renamed.sort(key=lambda r: -_mean_dice(r, dict(weights)))
    return ranking._replace(
        ranked=(*renamed, *ranking.ranked[len(indices) :]),
        improved={**ranking.improved, **dict(zip(indices, affines, strict=True))},
    )


def _mean_dice(atlas: RankedAtlas, weights: dict[int, float]) -> float:
    """Mean Dice of the target's structures, weighted: thin walls say more than large cavities."""
    used = [weights.get(label, 1.0) for label in atlas.dice]
    return float(np.dot(used, list(atlas.dice.values()))) / sum(used)
