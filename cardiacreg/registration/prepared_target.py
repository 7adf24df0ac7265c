"""A target sampled once for registration with many atlases: its voxels, label codes and domain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cardiacreg.arrays import Float
from cardiacreg.errors import InvalidInputError
from cardiacreg.geometry import LabelMap
from cardiacreg.registration.options import RegistrationOptions, Sampling
from cardiacreg.registration.target_sampling import Doubt, Shared, TargetSamples, sample_target
from cardiacreg.registration.view_samples import ViewPlane, ViewSamples, sample_views
from cardiacreg.slices import DOUBT_LEVELS, EmptyPlane, SharedPlane, labelled_slices

_MOST_CONTROL_POINTS = 5e6
_REACH_MM = (15.0, 15.0, 30.0)
_SHARED_WEIGHT = 0.5
"""Of the voxels of a plane between two slices; those of a slice have 1."""


class LabelCodes(NamedTuple):
    """Compact codes of labels, and which target code matches which atlas code how strongly."""

    codes: NDArray[np.uint8]
    score: Float
    n_labels: int
    """How many codes stand for labels of the target. The next one stands for all others in an atlas, and
    in the target for what says nothing; those behind it for voxels of planes beyond the ends."""
    first_shared: int
    """Behind those: what both slices beside a plane show. None without such planes."""
    first_doubtful: int
    """Behind those: doubtful voxels."""

    def shared(self, planes: Sequence[SharedPlane]) -> Shared | None:
        """How such planes are sampled; None where there are none."""
        return Shared(tuple(planes), self.first_shared, self.n_labels) if planes else None

    @property
    def of_structures(self) -> Float:
        """The score of labelled voxels alone, certain and doubtful ones."""
        kept = self.score.copy()
        kept[0] = 0.0
        kept[self.n_labels : self.first_doubtful + DOUBT_LEVELS - 1] = 0.0
        return kept


@dataclass(frozen=True, slots=True, eq=False)
class PreparedTarget:
    """A target sampled once, for many atlases and any options that sample alike; see `prepare_target`."""

    labels: LabelMap
    samples: TargetSamples
    codes: LabelCodes
    lower_mm: Float
    upper_mm: Float
    sampling: Sampling
    """How it was sampled; registrations with other such options need another."""
    views: ViewSamples | None = None

    @property
    def n_views(self) -> int:
        """How many views stand beside the stack."""
        return 0 if self.views is None else len(self.views.axes)

    @property
    def shift_index(self) -> NDArray[np.int64]:
        """Row of a table of shifts for each sampled slice, then for each view.

        Such a table has one row per target slice and then one per view.
        """
        if self.views is None:
            return self.samples.slice_index
        beyond = self.labels.shape[2] + np.arange(self.n_views)
        return np.concatenate([self.samples.slice_index, beyond])


def prepare_target(
    target: LabelMap,
    options: RegistrationOptions | Sampling,
    *,
    unknown_labels: tuple[int, ...] = (),
    empty_planes: Sequence[EmptyPlane] = (),
    shared_planes: Sequence[SharedPlane] = (),
    views: Sequence[ViewPlane] = (),
    domain_mm: tuple[Float, Float] | None = None,
    doubt: NDArray[np.uint8] | None = None,
) -> PreparedTarget:
    """Sample a target for registration with many atlases.

    Parameters
    ----------
    target : LabelMap
    options : RegistrationOptions or Sampling
        Of registration options, only those of their `sampling` matter here.
    unknown_labels : tuple of int
        See `register_labels`.
    empty_planes : sequence of EmptyPlane
        Planes across the stack where structures have ended, see `anatomy.stack_coverage`.
    shared_planes : sequence of SharedPlane
        Planes between two slices, where structures are that both show.
    views : sequence of ViewPlane
        Planes at any orientation that show the same heart.
    domain_mm : pair of ndarray, optional
        Lower and upper corner, in mm along the target's axes, of the box the control lattice
        must cover; the labels' box and 30 mm around it when absent.
    doubt : ndarray of uint8, shape (i, j, k), optional
        How doubtful each voxel of the target is, see `Doubt`.
    """
    if len(labelled_slices(target.array)) == 0:
        raise InvalidInputError(
            "register_labels: the target holds no labels; check the preset and the frame.",
            code="EMPTY_LABELS",
        )
    sampling = options if isinstance(options, Sampling) else options.sampling
    codes = _label_codes(
        target, sampling, unknown_labels, empty_planes, bool(shared_planes), doubt is not None
    )
    samples = sample_target(
        target,
        codes.codes,
        margin_mm=sampling.margin_mm,
        all_slices=sampling.background_slices,
        beyond=[(plane, codes.n_labels + 1 + n) for n, plane in enumerate(empty_planes)],
        shared=codes.shared(shared_planes),
        doubt=None if doubt is None else Doubt(doubt, codes.first_doubtful),
    )
    seen = _view_samples(target, samples, codes, views, sampling) if views else None
    lower, upper = _domain(samples, seen, domain_mm)
    return PreparedTarget(target, samples, codes, lower, upper, sampling, seen)


def _view_samples(
    target: LabelMap,
    samples: TargetSamples,
    codes: LabelCodes,
    views: Sequence[ViewPlane],
    sampling: Sampling,
) -> ViewSamples:
    return sample_views(
        views,
        samples.axes_to_world,
        codes.codes,
        codes.score,
        class_weights=dict(sampling.class_weights),
        pixel_area_mm2=float(target.spacing_mm[:2].prod()),
        margin_mm=sampling.margin_mm,
    )


def check_lattice(prepared: PreparedTarget, options: RegistrationOptions) -> None:
    """Refuse options whose finest control lattice over a target would have too many points."""
    finest, extent = options.spacings_mm[-1], prepared.upper_mm - prepared.lower_mm
    points = float(np.prod(extent / finest + 4))
    if not points <= _MOST_CONTROL_POINTS:
        raise InvalidInputError(
            f"register_labels: a lattice of {finest} mm over {np.round(extent)} mm would "
            f"have {points:.3g} control points, more than {_MOST_CONTROL_POINTS:.0e}; use a coarser one.",
            code="BAD_LATTICE",
        )


def _label_codes(
    target: LabelMap,
    sampling: Sampling,
    unknown_labels: tuple[int, ...],
    empty_planes: Sequence[EmptyPlane],
    with_shared: bool,
    with_doubt: bool,
) -> LabelCodes:
    labels = sorted({0, *target.present(), *unknown_labels})
    codes = np.full(256, len(labels), dtype=np.uint8)
    codes[labels] = np.arange(len(labels))
    weights = dict(sampling.class_weights)
    first_shared = len(labels) + 1 + len(empty_planes)
    size = first_shared + (len(labels) if with_shared else 0)
    further = len(labels) * (DOUBT_LEVELS - 1) if with_doubt else 0
    score = np.zeros((size + further, size))
    for code, label in enumerate(labels):
        score[code, code] = weights.get(label, 1.0)
    for label in unknown_labels:
        score[0, codes[label]] = score[0, 0]
    for row, plane in enumerate(empty_planes, start=len(labels) + 1):
        score[row, : len(labels) + 1] = plane.weight
        score[row, codes[list(plane.structures)]] = 0.0
    if with_shared:
        score[first_shared:size] = _SHARED_WEIGHT * score[: len(labels)]
    if with_doubt:
        counted = 1 - np.arange(1, DOUBT_LEVELS) / DOUBT_LEVELS
        score[size:] = (score[: len(labels), None] * counted[:, None]).reshape(further, size)
    return LabelCodes(codes, score, len(labels), first_shared, size)


def _domain(
    samples: TargetSamples, views: ViewSamples | None, domain_mm: tuple[Float, Float] | None
) -> tuple[Float, Float]:
    lower, upper = _domain_of_slices(samples, domain_mm)
    if views is None:
        return lower, upper
    reach = np.full(3, _REACH_MM[0])
    if len(views.points_mm) == 0:
        return lower, upper
    return (
        np.minimum(lower, views.points_mm.min(axis=0) - reach),
        np.maximum(upper, views.points_mm.max(axis=0) + reach),
    )


def _domain_of_slices(
    samples: TargetSamples, domain_mm: tuple[Float, Float] | None
) -> tuple[Float, Float]:
    lower = np.array([p.min() for p in samples.position_mm]) - _REACH_MM
    upper = np.array([p.max() for p in samples.position_mm]) + _REACH_MM
    if domain_mm is None:
        return lower, upper
    lower[2], upper[2] = samples.position_mm[2].min(), samples.position_mm[2].max()
    return np.minimum(lower, domain_mm[0]), np.maximum(upper, domain_mm[1])


def widen_domain(prepared: PreparedTarget, shifts_mm: Float) -> PreparedTarget:
    """Widen the domain for given shifts beyond its reach: splines must be complete at every sample."""
    beyond = np.append(np.maximum(np.abs(shifts_mm).max(axis=0) - _REACH_MM[:2], 0.0), 0.0)
    if not beyond.any():
        return prepared
    lower, upper = prepared.lower_mm - beyond, prepared.upper_mm + beyond
    return replace(prepared, lower_mm=lower, upper_mm=upper)
