"""The steps of a refinement in order, on checked inputs (paper, Fig. 5): no arithmetic of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cardiacreg.anatomy.end_shapes import smooth_ends
from cardiacreg.anatomy.topology import clean_topology
from cardiacreg.compute.threads import run_tasks
from cardiacreg.errors import RefinementError, warn
from cardiacreg.fusion.area_matching import match_areas
from cardiacreg.fusion.label_fusion import Fusion, fuse_labels, fusion_from_votes
from cardiacreg.geometry import N_LABELS, Affine, LabelMap, Subject, Volume
from cardiacreg.refinement.atlas_choice import Ranking, SelectedAtlas, select_atlases
from cardiacreg.refinement.context import Run
from cardiacreg.refinement.output_lattice import (
    lattice_box_mm,
    lattice_over_heart,
    place_target_image,
    upsample_labels,
)
from cardiacreg.registration.ffd_registration import (
    PreparedTarget,
    Registration,
    RegistrationOptions,
    StopReason,
    prepare_target,
    register_prepared,
)
from cardiacreg.slice_motion.rotations import TurnedMotion, estimate_turned_motion, turned_image
from cardiacreg.slice_motion.shifts import SliceMotion, estimate_slice_motion
from cardiacreg.slices import slice_axis_mm, target_frame
from cardiacreg.transforms.resampling import Lattice, add_label_votes, warp_labels, warp_volume


class Outcome(NamedTuple):
    """Everything the steps produced."""

    fusion: Fusion
    slice_shifts_mm: NDArray[np.float64]
    slice_turns_degrees: NDArray[np.float64]
    turned: LabelMap
    """The target's labels with every slice turned to where it belongs."""
    selected: tuple[SelectedAtlas, ...]
    registrations: tuple[Registration, ...]


def run_steps(run: Run, atlases: Sequence[Subject], ranking: Ranking | None = None) -> Outcome:
    """Align, select, register, warp and fuse.

    Parameters
    ----------
    run : Run
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
    labels, options = run.target.labels, run.options
    with run.clock.step("select"):
        helpers = select_atlases(run, atlases, ranking)
    pairs = [(atlas.subject.labels, atlas.ranked.target_to_atlas) for atlas in helpers]
    selected = helpers[: options.n_atlases]
    lattice = lattice_over_heart(
        labels, pairs[: options.n_atlases], run.spacing_mm, options.margin_mm
    )
    with run.clock.step("slice motion"):
        motion, turns, turned = _slice_motion(run, lattice, pairs)
    with run.clock.step("register"):
        registrations = _register(run, turned, lattice, pairs[: options.n_atlases], motion)
    kept = [n for n, r in enumerate(registrations) if r.stop_reason is not StopReason.NO_OVERLAP]
    if not kept:
        raise RefinementError(
            "refine: none of the selected atlases overlaps the target after the landmark affine; "
            "check the landmarks (RAS+ mm?) and that target and atlases show the same anatomy.",
            code="NO_OVERLAP",
        )
    used = [(selected[n].subject, registrations[n]) for n in kept]
    with run.clock.step("fuse"):
        fusion = _fuse(run, lattice, used, motion.shifts_mm, turns, turned)
        if options.match_areas:
            fusion = Fusion(smooth_ends(fusion.labels, turned), fusion.confidence)
        if options.clean_topology:
            fusion = Fusion(clean_topology(fusion.labels), fusion.confidence)
    shifts = motion.shifts_mm
    return Outcome(fusion, shifts, turns, turned, tuple(selected), tuple(registrations))


def _slice_motion(run: Run, lattice: Lattice, pairs: list[tuple[LabelMap, Affine]]) -> TurnedMotion:
    stage, labels = run.options.slice_motion, run.target.labels
    still = np.zeros(labels.shape[2])
    if stage is None:
        return TurnedMotion(SliceMotion(np.zeros((len(still), 2)), ()), still, labels)
    few = pairs[: max(run.options.n_atlases, run.options.n_motion_atlases)]
    many = pairs[: run.options.n_statistics_atlases]

    def prepare(turned: LabelMap) -> PreparedTarget:
        return _prepare(run, turned, replace(stage, estimate_shifts=True), lattice)

    if run.options.slice_turns:
        return estimate_turned_motion(
            labels, prepare, few, statistics=many, threads=run.threads, progress=run.progress
        )
    motion = estimate_slice_motion(
        prepare(labels), few, statistics=many, threads=run.threads, progress=run.progress
    )
    return TurnedMotion(motion, still, labels)


def _register(
    run: Run,
    turned: LabelMap,
    lattice: Lattice,
    pairs: list[tuple[LabelMap, Affine]],
    motion: SliceMotion,
) -> list[Registration]:
    upsample = run.options.upsample_target
    labels = upsample_labels(turned, run.spacing_mm) if upsample else turned
    prepared = _prepare(run, labels, run.options.registration, lattice)
    known = None if upsample else motion.shifts_mm

    def register(number: int) -> Registration:
        atlas, affine = pairs[number]
        start = motion.deformations[number] if motion.deformations else None
        found = register_prepared(prepared, atlas, affine, slice_shifts_mm=known, start=start)
        lowest = found.target_to_atlas.minimum_jacobian(*lattice)
        return replace(found, minimum_jacobian=min(lowest, found.minimum_jacobian))

    return run_tasks(
        register, range(len(pairs)), threads=run.threads, step="register", progress=run.progress
    )


def _prepare(
    run: Run, labels: LabelMap, options: RegistrationOptions, lattice: Lattice
) -> PreparedTarget:
    frame = target_frame(labels.voxel_to_world, "refine")
    whole = options.background_slices or run.options.upsample_target
    return prepare_target(
        labels,
        options,
        unknown_labels=run.unknown_labels,
        empty_planes=() if whole else run.coverage.planes,
        domain_mm=lattice_box_mm(lattice, frame),
    )


def _fuse(
    run: Run,
    lattice: Lattice,
    used: list[tuple[Subject, Registration]],
    shifts: NDArray[np.float64],
    turns: NDArray[np.float64],
    turned: LabelMap,
) -> Fusion:
    image, options = run.target.image, run.options.fusion
    if image is None or options is None:
        return _label_votes(run, lattice, used, turned, shifts)
    if any(atlas.image is None for atlas, _ in used):
        warn("fusion: atlases without images are among the selected; labels alone are fused.")
        return _label_votes(run, lattice, used, turned, shifts)
    image = turned_image(image, slice_axis_mm(run.target.labels), shifts, turns)
    placed = place_target_image(image, shifts, lattice)
    warped = []
    for atlas, registration in used:
        assert atlas.image is not None
        transform = registration.target_to_atlas
        labels = warp_labels(atlas.labels, transform, lattice, threads=run.threads)
        warped.append((warp_volume(atlas.image, transform, lattice, threads=run.threads), labels))
    return fuse_labels(placed, warped, options=options, threads=run.threads, progress=run.progress)


def _label_votes(
    run: Run,
    lattice: Lattice,
    used: list[tuple[Subject, Registration]],
    turned: LabelMap,
    shifts: NDArray[np.float64],
) -> Fusion:
    """Label-only fusion: the atlases' warped trilinear label weights, summed."""
    votes = np.zeros((*lattice.shape, N_LABELS), dtype=np.float32)
    for atlas, registration in used:
        add_label_votes(
            votes, atlas.labels, registration.target_to_atlas, lattice, threads=run.threads
        )
    values = np.arange(N_LABELS, dtype=np.uint8)
    if not run.options.match_areas:
        return fusion_from_votes(votes, values, lattice.voxel_to_world)
    matched = match_areas(votes.copy(), lattice, turned, shifts)
    labels = fusion_from_votes(matched, values, lattice.voxel_to_world).labels
    return Fusion(labels, _share_of_winner(votes, labels))


def _share_of_winner(votes: NDArray[np.float32], labels: LabelMap) -> Volume:
    """Share of the atlases' own votes that each voxel's label has, whatever made it win."""
    won = np.take_along_axis(votes, labels.array[..., None].astype(np.int64), axis=3)[..., 0]
    return Volume(np.minimum(won / votes.sum(axis=3), 1), labels.voxel_to_world)
