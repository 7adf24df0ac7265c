"""Models of all frames of a patient, from the atlases tracked through them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cardiacreg.anatomy.landmarks import base_by_landmarks
from cardiacreg.anatomy.slice_volumes import stack_volumes
from cardiacreg.arrays import Float
from cardiacreg.cine.patient import Patient
from cardiacreg.cine.result import CineFrame
from cardiacreg.cine.tracking import Cycle, TrackedFrame, make_cycle, track_atlas
from cardiacreg.cine.wall_volume import FusedWall, WallRim, even_walls, wall_rim
from cardiacreg.compute.threads import run_tasks
from cardiacreg.errors import RefinementError
from cardiacreg.fusion.label_fusion import Fusion
from cardiacreg.geometry import LV_WALL, STRUCTURES, Affine
from cardiacreg.metrics.agreement import slice_agreement
from cardiacreg.refinement.atlas_choice import (
    SelectedAtlas,
    fitted_by_landmarks,
    prepared_for_affines,
)
from cardiacreg.refinement.context import RefinementContext
from cardiacreg.refinement.steps import complete, prepare_over_lattice, vote_deformed
from cardiacreg.registration.label_affine import improve_affine
from cardiacreg.registration.prepared_target import PreparedTarget
from cardiacreg.results.guards import Finding, find_problems
from cardiacreg.results.result import Orientation

PICTURES = "the report"
"""Where slices of a cine can be looked at: its folder holds no figure of them."""
WALL_VOLUME_VARIES = "WALL_VOLUME_VARIES"
MOST_WALL_CHANGE = 0.2
"""Muscle keeps its volume over the cycle; labels of patients do not quite."""


def model_frames(
    patient: Patient, times: Sequence[float], times_ms: Sequence[float] | None
) -> tuple[list[CineFrame], tuple[str, ...]]:
    """Track the atlases through all frames, and fuse them in each.

    Parameters
    ----------
    patient : Patient
    times : sequence of float
        Of the frames, in cycles.
    times_ms : sequence of float, optional
        Of all frames of the series.

    Returns
    -------
    list of CineFrame
    tuple of str
        Names of the atlases that are fused, in the order of the frames' transforms.

    Raises
    ------
    RefinementError
        If no atlas overlaps the frame at end-systole (NO_OVERLAP).
    """
    context = patient.context
    with context.clock.step("register"):
        cycle = _cycle(patient, times)
        tracked = _tracked(patient, cycle)
    kept = [
        (atlas, frames) for atlas, frames in zip(patient.selected, tracked, strict=True) if frames
    ]
    if not kept:
        raise RefinementError(
            "refine_cine: none of the selected atlases overlaps the frame at end-systole after the "
            "affine; check that target and atlases show the same anatomy.",
            code="NO_OVERLAP",
        )

    def model(fused: tuple[int, Fusion]) -> CineFrame:
        number = patient.gathered.numbers[fused[0]]
        time = None if times_ms is None else float(times_ms[number] - times_ms[0])
        return _model(patient, *fused, [frames[fused[0]] for _, frames in kept], time)

    with context.clock.step("fuse"):
        fused = _fused(patient, cycle, kept)
        models = run_tasks(model, list(enumerate(fused)), threads=context.threads, step="fuse")
    return models, tuple(each.subject.name or f"atlas {each.ranked.index}" for each, _ in kept)


def _cycle(patient: Patient, times: Sequence[float]) -> Cycle:
    """Prepare every labelled frame for registration, on one domain."""
    options = patient.context.options
    prepared = {
        position: prepare_over_lattice(
            each, each.target.labels, options.registration, patient.lattice
        )
        for position, each in patient.contexts.items()
    }
    shifts = np.concatenate([patient.shifts_mm, patient.view_shifts_mm])
    return make_cycle(prepared, options.registration, times, patient.gathered.es, shifts)


def _tracked(patient: Patient, cycle: Cycle) -> list[list[TrackedFrame]]:
    """Deform every atlas onto every frame."""
    contexts = patient.contexts
    ready = {position: prepared_for_affines(each) for position, each in contexts.items()}
    moved = cycle.shifts_mm if patient.context.views else None

    def track(atlas: SelectedAtlas) -> list[TrackedFrame]:
        affines = {
            position: atlas.ranked.target_to_atlas
            if position == patient.gathered.es
            else _affine(each, atlas, ready[position], moved)
            for position, each in contexts.items()
        }
        return track_atlas(cycle, atlas.subject.labels, affines)

    return run_tasks(
        track,
        patient.selected,
        threads=patient.context.threads,
        step="register",
        progress=patient.context.progress,
    )


def _affine(
    context: RefinementContext,
    atlas: SelectedAtlas,
    ready: PreparedTarget,
    shifts_mm: Float | None,
) -> Affine:
    """Align an atlas with one frame as those of the choice were aligned; with views, as slices moved."""
    fit, points = fitted_by_landmarks(context.landmarks, atlas.subject)
    if not context.options.affine_candidates:
        return fit.target_to_atlas
    return improve_affine(
        ready,
        atlas.subject.labels,
        fit.target_to_atlas,
        landmarks=(context.landmarks, points),
        landmark_weight=context.options.landmark_weight,
        shifts_mm=shifts_mm,
    )


def _fused(
    patient: Patient, cycle: Cycle, kept: Sequence[tuple[SelectedAtlas, list[TrackedFrame]]]
) -> list[Fusion]:
    """Fuse the atlases in every frame; over a whole cycle walls are drawn to one volume."""
    context = patient.context
    evened = cycle.is_whole and context.options.match_areas

    def fuse(position: int) -> tuple[Fusion, WallRim | None]:
        own = patient.contexts.get(position, None)
        target = None if own is None else own.target.labels
        deformed = [(a.subject.labels, frames[position].target_to_atlas) for a, frames in kept]
        voted = vote_deformed(own or context, patient.lattice, deformed, target, patient.shifts_mm)
        return voted.fusion, wall_rim(voted) if evened else None

    found = run_tasks(
        fuse,
        range(len(cycle.times)),
        threads=context.threads,
        step="fuse",
        progress=context.progress,
    )
    if not evened:
        return [fusion for fusion, _ in found]
    return even_walls([FusedWall(fusion, rim) for fusion, rim in found if rim is not None])


def _model(
    patient: Patient,
    position: int,
    fusion: Fusion,
    tracked: Sequence[TrackedFrame],
    time_ms: float | None,
) -> CineFrame:
    gathered = patient.gathered
    context = patient.contexts.get(position)
    target = None if context is None else context.target.labels
    fusion = complete(context or patient.context, fusion, target)
    found = CineFrame(
        number=gathered.numbers[position],
        labels=fusion.labels,
        confidence=fusion.confidence,
        agreement={},
        volumes={},
        findings=(),
        minimum_jacobian=min(each.minimum_jacobian for each in tracked),
        filled_in=context is None,
        time_ms=time_ms,
        transforms=tuple(each.target_to_atlas for each in tracked),
    )
    return found if context is None else _measured(found, context, patient)


def _measured(frame: CineFrame, context: RefinementContext, patient: Patient) -> CineFrame:
    """Compare the model of a labelled frame with its labels."""
    stack = context.target.labels
    at_last = base_by_landmarks(stack, context.landmarks)
    agreement = slice_agreement(stack, frame.labels, patient.shifts_mm)
    volumes = stack_volumes(stack, frame.labels, base_at_last_slice=at_last)
    findings = find_problems(
        agreement, volumes, slice_distance_mm=float(stack.spacing_mm[2]), pictures=PICTURES
    )
    return replace(frame, agreement=agreement, volumes=volumes, findings=findings)


def cine_findings(frames: Sequence[CineFrame], orientation: Orientation) -> tuple[Finding, ...]:
    """Return what a cine's own numbers say against it as a whole.

    Parameters
    ----------
    frames : sequence of CineFrame
    orientation : Orientation

    Returns
    -------
    tuple of Finding
        Doubts about the orientation, findings that most frames share, and a wall whose volume changes.
    """
    found = list(
        find_problems(
            {},
            {},
            slice_distance_mm=1.0,
            orientation_probability=orientation.probability,
            pictures=PICTURES,
        )  # fmt: skip
    )
    labelled = [frame for frame in frames if not frame.filled_in]
    counts: dict[str, list[int]] = {}
    for frame in labelled:
        for code in {each.code for each in frame.findings}:
            counts.setdefault(code, []).append(frame.number)
    for code, numbers in counts.items():
        if len(numbers) * 2 > len(labelled):
            first = next(frame for frame in labelled if frame.number == numbers[0])
            (text, *_) = (each.message for each in first.findings if each.code == code)
            shown = f"in {len(numbers)} of {len(labelled)} frames, as in frame {numbers[0]}: {text}"
            found.append(Finding(code, shown))
    walls = np.array([frame.volumes_ml[STRUCTURES[LV_WALL]] or 0.0 for frame in labelled])
    change = float(np.ptp(walls) / walls.mean()) if len(walls) and walls.mean() > 0 else 0.0
    if change > MOST_WALL_CHANGE:
        message = (
            f"the LV wall's volume changes by {100 * change:.0f} % over the cycle, more than "
            f"{100 * MOST_WALL_CHANGE:.0f} %; muscle keeps its volume, so compare the labels of the "
            "frames"
        )
        found.append(Finding(WALL_VOLUME_VARIES, message))
    return tuple(found)
