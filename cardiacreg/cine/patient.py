"""What is decided once per patient: how the heart lies, where the stack ends, shifts and atlases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from cardiacreg.algebra import invert, multiply
from cardiacreg.anatomy.landmarks import base_is_at_last_slice, derive_landmarks
from cardiacreg.anatomy.stack_coverage import Coverage, stack_coverage
from cardiacreg.arrays import Float
from cardiacreg.atlases.view import AtlasView
from cardiacreg.cine.frames import GatheredFrames
from cardiacreg.cine.views import CineViews
from cardiacreg.compute.threads import ProgressCallable
from cardiacreg.geometry import STRUCTURES, LabelMap, Landmarks, Subject
from cardiacreg.refinement._refine import make_context, oriented_context
from cardiacreg.refinement.atlas_choice import SelectedAtlas, select_atlases
from cardiacreg.refinement.canonical_axes import CanonicalAxes, find_canonical_axes
from cardiacreg.refinement.context import Clock, RefinementContext
from cardiacreg.refinement.options import RefineOptions
from cardiacreg.refinement.output_lattice import lattice_over_heart
from cardiacreg.refinement.steps import prepare_over_lattice
from cardiacreg.results.result import Orientation
from cardiacreg.slice_motion.shared_shifts import CONFIDENCE_PAST_ED, frame_shifts, shared_shifts
from cardiacreg.slice_motion.shifts import SliceMotion
from cardiacreg.slice_motion.shifts_with_views import estimate_motion_with_views
from cardiacreg.transforms.resampling import Lattice


class Patient(NamedTuple):
    """Everything that the frames of a patient share."""

    gathered: GatheredFrames
    """As stored."""
    axes: CanonicalAxes
    """Where everything but `gathered` lies."""
    context: RefinementContext
    """Of end-diastole."""
    contexts: Mapping[int, RefinementContext]
    """Of every labelled frame, by position."""
    orientation: Orientation
    selected: tuple[SelectedAtlas, ...]
    """The atlases, aligned at end-systole."""
    lattice: Lattice
    """Of all models."""
    shifts_mm: Float
    """Of the slices."""
    view_shifts_mm: Float
    """Of the views, shape (n_views, 2), along their own axes."""
    bank_size: int


def decide(
    gathered: GatheredFrames,
    bank: AtlasView,
    spacing_mm: ArrayLike,
    options: RefineOptions,
    threads: int,
    progress: ProgressCallable | None,
    clock: Clock,
    views: CineViews,
) -> Patient:
    """Decide what all frames of a patient share.

    Parameters
    ----------
    gathered : GatheredFrames
    bank : AtlasView
    spacing_mm, options, threads, progress
        As for `refine_cine`.
    clock : Clock
    views : CineViews
        As stored.

    Returns
    -------
    Patient
    """
    stored, axes = gathered, _axes_of_all(gathered, options)
    gathered = _on_axes(stored, axes)
    shared = (axes.spacing(spacing_mm), options, threads, progress, clock)
    normal = axes.slice_normal(stored.labels[stored.ed])
    first, last = (
        make_context(gathered.subject(n), *shared)._replace(slice_normal=normal)
        for n in (gathered.ed, gathered.es)
    )
    with clock.step("orient"):
        found = oriented_context(first, [last] if gathered.ed != gathered.es else [], bank)
        contexts = _contexts(gathered, found.context, found.orientation)
        contexts = {
            n: each._replace(views=axes.views(views.frames[n])) for n, each in contexts.items()
        }
    ranking = found.ranking
    with clock.step("select"):
        chosen = {gathered.ed: select_atlases(contexts[gathered.ed], bank, ranking)}
        if gathered.es != gathered.ed:
            chosen[gathered.es] = select_atlases(contexts[gathered.es], bank)
    lattice = _union(*(_lattice(contexts[n], each) for n, each in chosen.items()))
    with clock.step("slice motion"):
        shifts, of_views = _shifts(contexts, chosen, lattice, options)
    selected = tuple(chosen[gathered.es][: options.n_atlases])
    return Patient(
        stored, axes, contexts[gathered.ed], contexts, found.orientation, selected, lattice, shifts,
        of_views, len(bank),
    )  # fmt: skip


def _axes_of_all(gathered: GatheredFrames, options: RefineOptions) -> CanonicalAxes:
    """Return the canonical axes of a cine: those of end-diastole, a window over all frames' labels."""
    every = options.registration.background_slices
    first = gathered.subject(gathered.ed)
    anywhere = np.max([each.array for each in gathered.labels], axis=0)
    whole = replace(first, labels=LabelMap(anywhere, first.labels.voxel_to_world))
    axes = find_canonical_axes(first, all_slices=every)
    return find_canonical_axes(whole, all_slices=every, like=axes)


def _on_axes(gathered: GatheredFrames, axes: CanonicalAxes) -> GatheredFrames:
    matrix = gathered.labels[gathered.ed].voxel_to_world
    alike = [Subject(LabelMap(each.array, matrix)) for each in gathered.labels]
    shown = axes.subject(gathered.subject(gathered.ed)).image
    labels = tuple(axes.subject(each).labels for each in alike)
    return replace(gathered, labels=labels, image=shown)


def _contexts(
    gathered: GatheredFrames, ed: RefinementContext, orientation: Orientation
) -> dict[int, RefinementContext]:
    """Return the context of every labelled frame: orientation, ends and unknown labels of the patient."""
    labels = gathered.labels[gathered.ed]
    turned = "upside-down" in orientation.name
    base_at_last = base_is_at_last_slice(labels) != turned
    mirrored = orientation.name.startswith("mirrored")
    shown = {label for each in gathered.labels for label in each.present()}
    unknown = tuple(label for label in STRUCTURES if label not in shown)
    found = {}
    for position in gathered.labelled:
        own = gathered.labels[position]
        landmarks = ed.landmarks
        if position != gathered.ed:
            landmarks = _landmarks(own, base_at_last, mirrored)
        found[position] = ed._replace(
            target=gathered.subject(position),
            landmarks=landmarks,
            coverage=_coverage(own, ed.coverage, base_at_last),
            unknown_labels=unknown,
        )
    return found


def _landmarks(labels: LabelMap, base_at_last: bool, mirrored: bool) -> Landmarks:
    found = derive_landmarks(labels, base_at_last_slice=base_at_last)
    if not mirrored:
        return found
    return Landmarks(found.points_mm[[2, 1, 0, 3, 4, 5]], source="labels")


def _coverage(labels: LabelMap, of_patient: Coverage, base_at_last: bool) -> Coverage:
    """Return where one frame ends, at an end that is cut or not in all frames."""
    words = ["partial" if end.coverage == "partial" else "whole" for end in of_patient.ends]
    return stack_coverage(labels, (words[0], words[1]), base_at_last_slice=base_at_last)


def _lattice(context: RefinementContext, chosen: list[SelectedAtlas]) -> Lattice:
    options = context.options
    aligned = [each.aligned for each in chosen[: options.n_atlases]]
    return lattice_over_heart(context.target.labels, aligned, context.spacing_mm, options.margin_mm)


def _union(*lattices: Lattice) -> Lattice:
    """Return the lattice over several that differ by whole voxels."""
    first = lattices[0]
    to_first = invert(first.voxel_to_world)
    starts = np.array(
        [np.rint(multiply(to_first, each.voxel_to_world)[:3, 3]) for each in lattices]
    )
    stops = starts + [each.shape for each in lattices]
    low, high = starts.min(axis=0), stops.max(axis=0)
    matrix = first.voxel_to_world.copy()
    matrix[:3, 3] += multiply(matrix[:3, :3], low)
    ni, nj, nk = (int(n) for n in high - low)
    return Lattice((ni, nj, nk), matrix)


def _shifts(
    contexts: Mapping[int, RefinementContext],
    chosen: Mapping[int, list[SelectedAtlas]],
    lattice: Lattice,
    options: RefineOptions,
) -> tuple[Float, Float]:
    """Estimate the shifts that all frames share, at end-diastole and end-systole: of slices, of views."""
    any_context = next(iter(contexts.values()))
    n_slices, n_views = any_context.target.labels.shape[2], len(any_context.views)
    if options.slice_motion is None:
        return np.zeros((n_slices, 2)), np.zeros((n_views, 2))
    stage = options.slice_motion
    n_registered = max(options.n_atlases, options.n_motion_atlases)
    found: list[Any] = []
    for position, atlases in chosen.items():
        context = contexts[position]
        aligned = [each.aligned for each in atlases]
        prepared = prepare_over_lattice(context, context.target.labels, stage, lattice)
        how: dict[str, Any] = {
            "statistics": aligned[: options.n_statistics_atlases],
            "threads": context.threads,
            "progress": context.progress,
        }
        few = aligned[:n_registered]
        if context.views:
            found.append(estimate_motion_with_views(prepared, context.views, few, stage, **how))
        else:
            found.append(frame_shifts(prepared, few, stage, **how))
    confidence = [1.0, CONFIDENCE_PAST_ED][: len(found)]
    if not n_views:
        return shared_shifts(found, n_slices, confidence), np.zeros((0, 2))
    shown = [contexts[position] for position in chosen]
    return _mean_motion(found, shown, confidence)


def _mean_motion(
    found: Sequence[SliceMotion],
    shown: Sequence[RefinementContext],
    confidence: Sequence[float],
) -> tuple[Float, Float]:
    """Mean of the frames' shifts, of slices and views, over the frames that label them."""
    tables = np.stack([np.concatenate([each.shifts_mm, each.view_shifts_mm]) for each in found])
    labelled = np.stack(
        [
            np.concatenate([
                each.target.labels.array.any(axis=(0, 1)),
                [view.labels.array.any() for view in each.views],
            ])
            for each in shown
        ]
    )  # fmt: skip
    weights = labelled * np.array(confidence)[:, None]
    total = np.maximum(weights.sum(axis=0), 1e-9)
    mean = (weights[..., None] * tables).sum(axis=0) / total[:, None]
    n_slices = len(found[0].shifts_mm)
    return mean[:n_slices], mean[n_slices:]
