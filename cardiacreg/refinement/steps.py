"""The steps of a refinement in order, on checked inputs (paper, Fig. 5): no arithmetic of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cardiacreg.anatomy.end_shapes import smooth_ends
from cardiacreg.anatomy.topology import clean_topology
from cardiacreg.compute.threads import Progress, ProgressCallable, run_tasks
from cardiacreg.errors import RefinementError, warn
from cardiacreg.fusion.area_matching import match_areas
from cardiacreg.fusion.label_fusion import Fusion, fuse_labels, fusion_from_votes, share_of_labels
from cardiacreg.fusion.slice_evidence import add_slice_evidence
from cardiacreg.geometry import N_LABELS, LabelMap, Subject
from cardiacreg.refinement.atlas_choice import Ranking, SelectedAtlas, select_atlases
from cardiacreg.refinement.context import RefinementContext
from cardiacreg.refinement.output_lattice import (
    lattice_box_mm,
    lattice_over_heart,
    place_target_image,
    upsample_labels,
)
from cardiacreg.registration.aligned_atlas import AlignedAtlas
from cardiacreg.registration.ffd_registration import (
    PreparedTarget,
    Registration,
    RegistrationOptions,
    StopReason,
    prepare_target,
    register_prepared,
)
from cardiacreg.slice_motion.rotations import (
    RotatedMotion,
    estimate_shifts_and_rotations,
    rotate_image,
)
from cardiacreg.slice_motion.shifts import SliceMotion, estimate_slice_motion, no_view_shifts
from cardiacreg.slice_motion.shifts_with_views import estimate_motion_with_views
from cardiacreg.slices import slice_axis_mm, stack_axes
from cardiacreg.transforms.ffd import FFD
from cardiacreg.transforms.ffd_chain import FFDChain
from cardiacreg.transforms.resampling import Lattice, add_label_votes, warp_labels, warp_volume


class Outcome(NamedTuple):
    """Everything the steps produced."""

    fusion: Fusion
    slice_shifts_mm: NDArray[np.float64]
    slice_turns_degrees: NDArray[np.float64]
    view_shifts_mm: NDArray[np.float64]
    turned: LabelMap
    """The target's labels with every slice turned to where it belongs."""
    selected: tuple[SelectedAtlas, ...]
    registrations: tuple[Registration, ...]


def run_steps(
    context: RefinementContext, atlases: Sequence[Subject], ranking: Ranking | None = None
) -> Outcome:
    """Align, select, register, warp and fuse.

    Parameters
    ----------
    context : RefinementContext
    atlases : sequence of Subject
    ranking : Ranking, optional
        The atlases under the run's landmarks, where they are ranked already.

    Returns
    -------
    Outcome

    Raises
    ------
    RefinementError
        If no atlas overlaps the target.
    """
    labels, options = context.target.labels, context.options
    with context.clock.step("select"):
        chosen = select_atlases(context, atlases, ranking)
    aligned = [atlas.aligned for atlas in chosen]
    selected, registered = chosen[: options.n_atlases], aligned[: options.n_atlases]
    lattice = lattice_over_heart(labels, registered, context.spacing_mm, options.margin_mm)
    with context.clock.step("slice motion"):
        prepared = prepare_over_lattice(context, labels, options.registration, lattice)
        motion, turns, turned = _slice_motion(context, prepared, lattice, aligned)
    with context.clock.step("register"):
        registrations = _register(context, prepared, turned, lattice, registered, motion)
    kept = [n for n, r in enumerate(registrations) if r.stop_reason is not StopReason.NO_OVERLAP]
    if not kept:
        raise RefinementError(
            "refine: none of the selected atlases overlaps the target after the landmark affine; "
            "check the landmarks (RAS+ mm?) and that target and atlases show the same anatomy.",
            code="NO_OVERLAP",
        )
    used = [(selected[n].subject, registrations[n]) for n in kept]
    with context.clock.step("fuse"):
        fusion = _fuse(context, lattice, used, motion.shifts_mm, turns, turned)
        fusion = complete(context, fusion, turned)
    shifts = motion.shifts_mm
    return Outcome(
        fusion, shifts, turns, motion.view_shifts_mm, turned, tuple(selected), tuple(registrations),
    )  # fmt: skip


def _slice_motion(
    context: RefinementContext,
    prepared: PreparedTarget,
    lattice: Lattice,
    aligned: list[AlignedAtlas],
) -> RotatedMotion:
    stage, labels = context.options.slice_motion, context.target.labels
    still = np.zeros(labels.shape[2])
    if stage is None:
        return RotatedMotion(
            SliceMotion(np.zeros((len(still), 2)), (), no_view_shifts(len(context.views))),
            still,
            labels,
        )
    few = aligned[: max(context.options.n_atlases, context.options.n_motion_atlases)]
    many = aligned[: context.options.n_statistics_atlases]

    def prepare(turned: LabelMap) -> PreparedTarget:
        if turned is labels and stage.sampling == prepared.sampling:
            return prepared
        return prepare_over_lattice(context, turned, stage, lattice)

    if context.options.slice_turns:
        return estimate_shifts_and_rotations(
            labels,
            prepare,
            few,
            stage,
            statistics=many,
            threads=context.threads,
            progress=context.progress,
        )
    if context.views:
        motion = estimate_motion_with_views(
            prepare(labels),
            context.views,
            few,
            stage,
            image=context.target.image,
            statistics=many,
            threads=context.threads,
            progress=context.progress,
        )
        return RotatedMotion(motion, still, labels)
    motion = estimate_slice_motion(
        prepare(labels),
        few,
        stage,
        statistics=many,
        threads=context.threads,
        progress=context.progress,
    )
    return RotatedMotion(motion, still, labels)


def _register(
    context: RefinementContext,
    prepared: PreparedTarget,
    turned: LabelMap,
    lattice: Lattice,
    aligned: list[AlignedAtlas],
    motion: SliceMotion,
) -> list[Registration]:
    """Deform every atlas onto the slices; they are sampled again where they were turned."""
    options, upsample = context.options.registration, context.options.upsample_target
    labels = upsample_labels(turned, context.spacing_mm) if upsample else turned
    if labels is not prepared.labels:
        prepared = prepare_over_lattice(context, labels, options, lattice)
    known = None if upsample else motion.shifts_mm

    def register(number: int) -> Registration:
        atlas, affine = aligned[number]
        start = motion.deformations[number] if motion.deformations else None
        return register_prepared(
            prepared,
            atlas,
            affine,
            options,
            slice_shifts_mm=known,
            view_shifts_mm=motion.view_shifts_mm,
            start=start,
        )

    return run_tasks(
        register,
        range(len(aligned)),
        threads=context.threads,
        step="register",
        progress=context.progress,
    )


def prepare_over_lattice(
    context: RefinementContext, labels: LabelMap, options: RegistrationOptions, lattice: Lattice
) -> PreparedTarget:
    """Sample a target for registrations whose domain covers a lattice."""
    axes = stack_axes(labels.voxel_to_world, "refine")
    whole = options.background_slices or context.options.upsample_target
    return prepare_target(
        labels,
        options,
        unknown_labels=context.unknown_labels,
        empty_planes=() if whole else context.coverage.planes,
        shared_planes=() if whole else context.coverage.shared,
        views=context.views,
        domain_mm=lattice_box_mm(lattice, axes),
        doubt=context.doubt,
    )


def _fuse(
    context: RefinementContext,
    lattice: Lattice,
    used: list[tuple[Subject, Registration]],
    shifts: NDArray[np.float64],
    turns: NDArray[np.float64],
    turned: LabelMap,
) -> Fusion:
    image, options = context.target.image, context.options.fusion
    if image is None or options is None:
        return _label_votes(context, lattice, used, turned, shifts)
    if any(atlas.image is None for atlas, _ in used):
        warn("fusion: atlases without images are among the selected; labels alone are fused.")
        return _label_votes(context, lattice, used, turned, shifts)
    image = rotate_image(image, slice_axis_mm(context.target.labels), shifts, turns)
    placed = place_target_image(image, shifts, lattice)
    warped = []
    for atlas, registration in used:
        assert atlas.image is not None
        transform = registration.target_to_atlas
        labels = warp_labels(atlas.labels, transform, lattice, threads=context.threads)
        warped.append(
            (warp_volume(atlas.image, transform, lattice, threads=context.threads), labels)
        )
    fusion = fuse_labels(
        placed, warped, options=options, threads=context.threads, progress=context.progress
    )
    counts = [
        [(labels.array == label).sum(axis=(0, 1)) for label in range(N_LABELS)]
        for _, labels in warped
    ]
    return replace(fusion, atlas_voxels=np.swapaxes(counts, 1, 2).astype(np.float32))


def _label_votes(
    context: RefinementContext,
    lattice: Lattice,
    used: list[tuple[Subject, Registration]],
    turned: LabelMap,
    shifts: NDArray[np.float64],
) -> Fusion:
    """Label-only fusion: the atlases' warped trilinear label weights, summed."""
    deformed = [(atlas.labels, registration.target_to_atlas) for atlas, registration in used]
    return vote_deformed(context, lattice, deformed, turned, shifts, context.progress).fusion


class Voted(NamedTuple):
    """What the votes of deformed atlases say."""

    fusion: Fusion
    votes: NDArray[np.float32]
    """Of the atlases, and of the acquired slices where they count, shape (i, j, k, N_LABELS)."""
    decided: NDArray[np.float32]
    """The same after areas were matched: the labels are those with most of them."""


def vote_deformed(
    context: RefinementContext,
    lattice: Lattice,
    deformed: Sequence[tuple[LabelMap, FFD | FFDChain]],
    target: LabelMap | None,
    slice_shifts_mm: NDArray[np.float64],
    progress: ProgressCallable | None = None,
) -> Voted:
    """Fuse the labels of deformed atlases; `complete` follows, as the last step of a refinement.

    Parameters
    ----------
    context : RefinementContext
    lattice : Lattice
    deformed : sequence of (LabelMap, FFD or FFDChain)
        Each atlas and its transform, target world mm to atlas world mm.
    target : LabelMap or None
        The acquired slices whose areas are matched; None where there are none.
    slice_shifts_mm : ndarray, shape (n_slices, 2)
    progress : callable, optional

    Returns
    -------
    Voted
    """
    votes = np.zeros((*lattice.shape, N_LABELS), dtype=np.float32)
    added = []
    for labels, transform in deformed:
        added.append(add_label_votes(votes, labels, transform, lattice, threads=context.threads))
        if progress is not None:
            progress(Progress("fuse", len(added), len(deformed)))
    voxels = np.stack(added).astype(np.float32)
    values = np.arange(N_LABELS, dtype=np.uint8)
    if context.probabilities is not None and target is not None:
        add_slice_evidence(
            votes, lattice, context.probabilities, target.voxel_to_world, slice_shifts_mm
        )
    if target is None or not context.options.match_areas:
        fusion = fusion_from_votes(votes, values, lattice.voxel_to_world)
        return Voted(replace(fusion, atlas_voxels=voxels), votes, votes)
    matched = match_areas(votes.copy(), lattice, target, slice_shifts_mm, context.certainty)
    labels = fusion_from_votes(matched, values, lattice.voxel_to_world).labels
    return Voted(
        Fusion(labels, share_of_labels(votes, labels), atlas_voxels=voxels), votes, matched
    )


def complete(context: RefinementContext, fusion: Fusion, target: LabelMap | None) -> Fusion:
    """Smooth the ends and clean the topology of fused labels, where the options ask for it.

    Parameters
    ----------
    context : RefinementContext
    fusion : Fusion
    target : LabelMap or None
        The acquired slices, if any.
    """
    if context.options.match_areas and target is not None:
        fusion = replace(fusion, labels=smooth_ends(fusion.labels, target))
    if context.options.clean_topology:
        fusion = replace(fusion, labels=clean_topology(fusion.labels))
    return fusion
