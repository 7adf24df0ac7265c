"""The steps of a refinement in order, on checked inputs (paper, Fig. 5): no arithmetic of its own."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cardiacreg._slabs import ProgressCallable, run_tasks
from cardiacreg.atlas_selection import RankedAtlas, rank_atlases
from cardiacreg.errors import RefinementError
from cardiacreg.ffd_registration import (
    PreparedTarget,
    Registration,
    RegistrationOptions,
    StopReason,
    prepare_target,
    register_prepared,
)
from cardiacreg.geometry import N_LABELS, Affine, LabelMap, Landmarks, Subject
from cardiacreg.label_consistency import target_frame
from cardiacreg.label_fusion import Fusion, fuse_labels, fusion_from_votes
from cardiacreg.landmark_affine import LandmarkFit, fit_landmark_affine
from cardiacreg.landmarks import landmarks_from_labels
from cardiacreg.options import RefineOptions
from cardiacreg.output_lattice import (
    lattice_box_mm,
    lattice_over_heart,
    place_target_image,
    upsample_labels,
)
from cardiacreg.resampling import Lattice, add_label_votes, warp_labels, warp_volume
from cardiacreg.slice_motion import estimate_slice_shifts
from cardiacreg.topology import clean_topology


class SelectedAtlas(NamedTuple):
    """An atlas that was chosen: its place in the ranking, how it was aligned, and itself."""

    ranked: RankedAtlas
    fit: LandmarkFit
    subject: Subject


class Outcome(NamedTuple):
    """Everything the steps produced."""

    fusion: Fusion
    landmarks: Landmarks
    slice_shifts_mm: NDArray[np.float64]
    selected: tuple[SelectedAtlas, ...]
    registrations: tuple[Registration, ...]


class Clock:
    """Wall-clock seconds per named step."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._start = time.perf_counter()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Add the time spent inside to a step."""
        begin = time.perf_counter()
        yield
        self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - begin

    def timings_seconds(self) -> dict[str, float]:
        """Return seconds per step and ``"total"`` since the clock was made."""
        return {**self._seconds, "total": time.perf_counter() - self._start}


class Run(NamedTuple):
    """What every step of one refinement shares."""

    target: Subject
    unknown_labels: tuple[int, ...]
    spacing_mm: ArrayLike
    options: RefineOptions
    threads: int
    progress: ProgressCallable | None
    clock: Clock


def run_steps(run: Run, atlases: Sequence[Subject]) -> Outcome:
    """Align, select, register, warp and fuse.

    Parameters
    ----------
    run : Run
    atlases : sequence of Subject

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
        landmarks, selected = select_atlases(run, atlases)
    pairs = [(atlas.subject.labels, atlas.ranked.target_to_atlas) for atlas in selected]
    lattice = lattice_over_heart(labels, pairs, run.spacing_mm, options.margin_mm)
    with run.clock.step("slice motion"):
        shifts = _slice_shifts(run, lattice, pairs)
    with run.clock.step("register"):
        registrations = _register(run, lattice, pairs, shifts)
    kept = [n for n, r in enumerate(registrations) if r.stop_reason is not StopReason.NO_OVERLAP]
    if not kept:
        raise RefinementError(
            "refine: none of the selected atlases overlaps the target after the landmark affine; "
            "check the landmarks (RAS+ mm?) and that target and atlases show the same anatomy.",
            code="NO_OVERLAP",
        )
    used = [(selected[n].subject, registrations[n]) for n in kept]
    with run.clock.step("fuse"):
        fusion = _fuse(run, lattice, used, shifts)
        if options.clean_topology:
            fusion = Fusion(clean_topology(fusion.labels), fusion.confidence)
    return Outcome(fusion, landmarks, shifts, tuple(selected), tuple(registrations))


def select_atlases(run: Run, atlases: Sequence[Subject]) -> tuple[Landmarks, list[SelectedAtlas]]:
    """Fit every atlas by its landmarks, rank all by NMI and keep the best."""
    target = run.target
    landmarks = target.landmarks or landmarks_from_labels(target.labels)

    def fit(atlas: Subject) -> LandmarkFit:
        return fit_landmark_affine(landmarks, _atlas_landmarks(atlas, landmarks.source))

    fits = run_tasks(fit, atlases, threads=run.threads, step="align", progress=run.progress)
    scored = upsample_labels(target.labels, run.spacing_mm) if run.options.upsample_target else None
    ranking = rank_atlases(
        scored or target.labels,
        atlases,
        [f.target_to_atlas for f in fits],
        unknown_labels=run.unknown_labels,
        whole_lattice=scored is not None,
        threads=run.threads,
        progress=run.progress,
    )
    best = ranking[: run.options.n_atlases]
    return landmarks, [SelectedAtlas(r, fits[r.index], atlases[r.index]) for r in best]


def _atlas_landmarks(atlas: Subject, source: str) -> Landmarks:
    """Landmarks by the same definition as the target's: its own, or derived by the same rule."""
    own = atlas.landmarks
    if own is not None and (source != "labels" or own.source == "labels"):
        return own
    return landmarks_from_labels(atlas.labels)


def _slice_shifts(
    run: Run, lattice: Lattice, pairs: list[tuple[LabelMap, Affine]]
) -> NDArray[np.float64]:
    stage = run.options.slice_motion
    if stage is None:
        return np.zeros((run.target.labels.shape[2], 2))
    prepared = _prepare(run, run.target.labels, replace(stage, estimate_shifts=True), lattice)
    return estimate_slice_shifts(prepared, pairs, threads=run.threads, progress=run.progress)


def _register(
    run: Run,
    lattice: Lattice,
    pairs: list[tuple[LabelMap, Affine]],
    shifts: NDArray[np.float64],
) -> list[Registration]:
    upsample = run.options.upsample_target
    labels = upsample_labels(run.target.labels, run.spacing_mm) if upsample else run.target.labels
    prepared = _prepare(run, labels, run.options.registration, lattice)

    def register(pair: tuple[LabelMap, Affine]) -> Registration:
        known = None if upsample else shifts
        return register_prepared(prepared, pair[0], pair[1], slice_shifts_mm=known)

    return run_tasks(register, pairs, threads=run.threads, step="register", progress=run.progress)


def _prepare(
    run: Run, labels: LabelMap, options: RegistrationOptions, lattice: Lattice
) -> PreparedTarget:
    frame = target_frame(labels.voxel_to_world, "refine")
    return prepare_target(
        labels,
        options,
        unknown_labels=run.unknown_labels,
        domain_mm=lattice_box_mm(lattice, frame),
    )


def _fuse(
    run: Run,
    lattice: Lattice,
    used: list[tuple[Subject, Registration]],
    shifts: NDArray[np.float64],
) -> Fusion:
    by_labels = _label_votes(run, lattice, used)
    image = run.target.image
    if image is None or any(atlas.image is None for atlas, _ in used):
        return by_labels
    placed = place_target_image(image, shifts, lattice)
    warped = []
    for atlas, registration in used:
        assert atlas.image is not None
        transform = registration.target_to_atlas
        labels = warp_labels(atlas.labels, transform, lattice, threads=run.threads)
        warped.append((warp_volume(atlas.image, transform, lattice, threads=run.threads), labels))
    return fuse_labels(
        placed, warped, options=run.options.fusion, threads=run.threads, progress=run.progress
    )


def _label_votes(run: Run, lattice: Lattice, used: list[tuple[Subject, Registration]]) -> Fusion:
    """Label-only fusion: the atlases' warped trilinear label weights, summed."""
    votes = np.zeros((*lattice.shape, N_LABELS), dtype=np.float32)
    for atlas, registration in used:
        add_label_votes(
            votes, atlas.labels, registration.target_to_atlas, lattice, threads=run.threads
        )
    values = np.arange(N_LABELS, dtype=np.uint8)
    return fusion_from_votes(votes, values, LabelMap(np.zeros((1, 1, 1)), lattice.voxel_to_world))
