"""How a heart lies in its file, decided once per patient: which end is the base, which side anterior.

Headers of public data sets often carry a matrix without meaning (slices stored base first under a
right-handed unit matrix), so that the heart looks mirrored, anterior and inferior traded. Each of four
orientations is scored by the atlases: under affines improved from the landmarks of that orientation, the
best ones' Dice tells how well a heart of that hand explains the labels, and a little the NMI under the
landmarks' own affines, which are noisier. These scores add up over all frames of a patient, since a
patient has one orientation. They are weighed against what the header says, where it is one of a scanner
(an oblique slice normal), against the growth of areas towards the base, and against what an image shows
around the heart, where there is one. The result is a probability.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cardiacreg.algebra import exponential, multiply
from cardiacreg.anatomy.landmarks import (
    base_is_at_last_slice,
    base_is_uncertain,
    derive_landmarks,
)
from cardiacreg.errors import warn
from cardiacreg.geometry import LabelMap, Landmarks, Subject
from cardiacreg.refinement.atlas_choice import (
    Ranking,
    improve_affines,
    labels_of,
    prepared_for_affines,
    rank_by_landmarks,
)
from cardiacreg.refinement.context import RefinementContext
from cardiacreg.refinement.surroundings import weigh_surroundings
from cardiacreg.results.result import Orientation

_CANDIDATES, _BEST = 12, 3
_LANDMARK_SHARE = 0.2
_SHARPNESS = 60.0
"""Log-likelihood per unit of score. On 17 patients differences between the right hand and the other one,
summed over two frames, are 0.095 on average with a deviation of 0.045: two normal distributions so far
apart would give 94. So few patients tell little of rare ones, so that two thirds are taken."""
_MOST_PER_FRAME = 8.0
_BASE_BY_AREAS, _BASE_BY_UNCERTAIN_AREAS = 6.0, 2.0
_HAND_BY_HEADER, _BASE_BY_HEADER = 5.0, 5.0
_OBLIQUE = np.cos(np.deg2rad(15.0))
_APEX_DIRECTION = np.array([-1.0, 1.0, -1.0]) / np.sqrt(3.0)
"""From base to apex: left, anterior and inferior, in RAS+."""


class _Hypothesis(NamedTuple):
    """One way a heart may lie in its file."""

    mirrored: bool
    """Whether its hand is not the one of the file's matrix."""
    turned: bool
    """Whether its base is not where the areas suggest."""

    @property
    def name(self) -> str:
        """Its name in `RefineOptions.orientation`."""
        words = [
            word for word, holds in zip(("mirrored", "upside-down"), self, strict=True) if holds
        ]
        return "-".join(words) or "as-stored"


_HYPOTHESES = tuple(_Hypothesis(m, t) for t in (False, True) for m in (False, True))


class Oriented(NamedTuple):
    """A context whose landmarks say how the heart lies."""

    context: RefinementContext
    orientation: Orientation
    ranking: Ranking | None
    """The bank under those landmarks, where it was ranked to find them."""


def orient(
    context: RefinementContext, others: Sequence[RefinementContext], bank: Sequence[Subject]
) -> Oriented:
    """Decide how a patient's heart lies, and give the context landmarks that say so.

    Parameters
    ----------
    context : RefinementContext
        With landmarks given, or derived as if the heart lay as stored.
    others : sequence of RefinementContext
        Other frames of the same patient, stored alike.
    bank : sequence of Subject

    Returns
    -------
    Oriented
        With the landmarks of the chosen orientation, its name and probability; given landmarks or a given
        orientation are certain.
    """
    asked = context.options.orientation
    if context.landmarks.source != "labels":
        if asked not in ("auto", "as-stored"):
            _tell_that_landmarks_decide(asked)
        return Oriented(context, Orientation("as-stored", None, "the landmarks were given"), None)
    if asked != "auto":
        chosen = next(h for h in _HYPOTHESES if h.name == asked)
        given = Orientation(asked, None, "the orientation was given")
        return Oriented(_oriented(context, chosen), given, None)
    prior = _prior(context, any(_is_turned(context, other) for other in others))
    possible = [h for h in _HYPOTHESES if prior[h] > max(prior.values()) - _BASE_BY_AREAS]
    rankings = [_rank(context, bank, h) for h in possible]
    priors = np.array([prior[h] for h in possible])
    evidence, improved = _evidence(context, bank, rankings)
    scores = priors + evidence
    for other in others:
        ranked = [_rank(other, bank, _as_of(h, context, other)) for h in possible]
        scores += _evidence(other, bank, ranked)[0]
    parts = {"areas and header": priors, "atlases": scores - priors}
    if context.target.image is not None:
        parts["image"] = _image_evidence(context, possible)
        scores += parts["image"]
    named = _named(possible, scores, parts, 1 + len(others))
    best = [h.name for h in possible].index(named.name)
    ranking = rankings[best]._replace(improved=improved[best].improved)
    return Oriented(_oriented(context, possible[best]), named, ranking)


def _named(
    possible: Sequence[_Hypothesis],
    scores: NDArray[np.float64],
    parts: Mapping[str, NDArray[np.float64]],
    n_frames: int,
) -> Orientation:
    """Name the most probable orientation, and by how much each part prefers it to the next one."""
    shares = exponential(scores - scores.max())
    shares /= shares.sum()
    best = int(np.argmax(shares))
    following = int(np.argmax(np.where(np.arange(len(scores)) == best, -np.inf, scores)))
    reason = f"by the atlases' fit to {'1 frame' if n_frames == 1 else f'{n_frames} frames'}"
    if "image" in parts and parts["image"].any():
        reason += " and by the image"
    evidence = {name: float(part[best] - part[following]) for name, part in parts.items()}
    return Orientation(possible[best].name, float(shares[best]), reason, evidence)


def _tell_that_landmarks_decide(asked: str) -> None:
    warn(
        f"refine: orientation {asked!r} is not used, since the landmarks that were given say how the "
        "heart lies; leave the landmarks out, or give them in their right order."
    )


def _prior(context: RefinementContext, frames_disagree: bool) -> dict[_Hypothesis, float]:
    """Log-prior of every orientation: from the growth of areas, and from a scanner's header."""
    labels, normal = context.target.labels, context.slice_normal
    doubtful = base_is_uncertain(labels) or frames_disagree
    areas = _BASE_BY_UNCERTAIN_AREAS if doubtful else _BASE_BY_AREAS
    if normal is None:
        normal = labels.voxel_to_world[:3, 2] / labels.spacing_mm[2]
    oblique = bool(np.abs(normal).max() < _OBLIQUE)
    to_apex = -normal if base_is_at_last_slice(labels) else normal
    upright = _BASE_BY_HEADER * float(multiply(to_apex, _APEX_DIRECTION)) if oblique else 0.0
    hand = _HAND_BY_HEADER if oblique else 0.0
    return {h: -hand * h.mirrored - (areas + upright) * h.turned for h in _HYPOTHESES}


def _image_evidence(
    context: RefinementContext, possible: Sequence[_Hypothesis]
) -> NDArray[np.float64]:
    """Log-likelihood of the image under every orientation, up to a constant."""
    labels, image = context.target.labels, context.target.image
    assert image is not None
    found = weigh_surroundings(labels, image, context.landmarks)
    at_last = base_is_at_last_slice(labels)
    scores = [
        (found.anterior if h.mirrored == h.turned else -found.anterior) / 2
        + (found.base_at_last_slice if at_last != h.turned else -found.base_at_last_slice) / 2
        for h in possible
    ]
    return np.array(scores) - max(scores)


def _is_turned(context: RefinementContext, other: RefinementContext) -> bool:
    """Whether areas suggest the base at the other end in another frame."""
    return base_is_at_last_slice(context.target.labels) != base_is_at_last_slice(
        other.target.labels
    )


def _as_of(
    hypothesis: _Hypothesis, context: RefinementContext, frame: RefinementContext
) -> _Hypothesis:
    """Return the same orientation in the words of another frame's areas."""
    return hypothesis._replace(turned=hypothesis.turned != _is_turned(context, frame))


def _oriented(context: RefinementContext, hypothesis: _Hypothesis) -> RefinementContext:
    return context._replace(landmarks=_landmarks(context.target.labels, hypothesis))


def _landmarks(labels: LabelMap, hypothesis: _Hypothesis) -> Landmarks:
    at_last = base_is_at_last_slice(labels) != hypothesis.turned
    found = derive_landmarks(labels, base_at_last_slice=at_last)
    if not hypothesis.mirrored:
        return found
    return Landmarks(found.points_mm[[2, 1, 0, 3, 4, 5]], source="labels")


def _rank(context: RefinementContext, bank: Sequence[Subject], hypothesis: _Hypothesis) -> Ranking:
    return rank_by_landmarks(
        context, labels_of(bank), _landmarks(context.target.labels, hypothesis)
    )


def _evidence(
    context: RefinementContext, bank: Sequence[Subject], rankings: Sequence[Ranking]
) -> tuple[NDArray[np.float64], list[Ranking]]:
    """Log-likelihood of a frame under every orientation, up to a constant, and the improved rankings."""
    prepared = prepared_for_affines(context)
    improved = [
        improve_affines(context, labels_of(bank), each, prepared, _CANDIDATES) for each in rankings
    ]
    found = np.array([_score(*pair) for pair in zip(rankings, improved, strict=True)])
    return np.maximum(_SHARPNESS * (found - found.max()), -_MOST_PER_FRAME), improved


def _score(ranking: Ranking, improved: Ranking) -> float:
    """Mean Dice of the best improved atlases under an orientation, and a share of NMI by landmarks."""
    dice = sorted(np.mean(list(r.dice.values())) for r in improved.ranked[:_CANDIDATES])
    return float(np.mean(dice[-_BEST:])) + _LANDMARK_SHARE * _mean_nmi(ranking)


def _mean_nmi(ranking: Ranking) -> float:
    values: NDArray[np.float64] = np.array([r.nmi for r in ranking.ranked[:_BEST]])
    return float(values.mean())
