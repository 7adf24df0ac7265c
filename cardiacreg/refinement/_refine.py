"""The main call: from a thick-slice segmentation to a smooth, complete bi-ventricular model."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from cardiacreg.anatomy.label_probabilities import doubt_levels
from cardiacreg.anatomy.landmarks import base_by_landmarks, derive_landmarks
from cardiacreg.anatomy.slice_order import left_ventricle_along
from cardiacreg.anatomy.slice_volumes import stack_volumes
from cardiacreg.anatomy.stack_coverage import Coverage, stack_coverage
from cardiacreg.atlases.ranking import diversity
from cardiacreg.atlases.view import AtlasView
from cardiacreg.compute.preparation import compile_kernels, needs_compiling
from cardiacreg.compute.progress import REPORT, stages_of, whole_progress
from cardiacreg.compute.threads import Progress, ProgressCallable, check_threads
from cardiacreg.errors import InvalidInputError, ResultWarning, kept_warnings, pass_on, warn
from cardiacreg.geometry import LabelMap, Landmarks, Subject
from cardiacreg.io.input_records import recorded, recorded_mapping
from cardiacreg.io.kept_inputs import files_of
from cardiacreg.metrics.agreement import slice_agreement
from cardiacreg.refinement.canonical_axes import CanonicalAxes, find_canonical_axes
from cardiacreg.refinement.context import Clock, RefinementContext
from cardiacreg.refinement.options import RefineOptions, checked_options
from cardiacreg.refinement.orientation import Oriented, orient
from cardiacreg.refinement.output_lattice import checked_spacing
from cardiacreg.refinement.steps import Outcome, run_steps
from cardiacreg.refinement.target import (
    PROBABILITIES,
    gather_atlases,
    gather_frames,
    gather_target,
    structure_names,
    unknown_labels,
)
from cardiacreg.refinement.views import View, as_view, gather_views, sources_of, view_reports
from cardiacreg.registration.view_samples import ViewPlane
from cardiacreg.results.guards import find_problems
from cardiacreg.results.result import AtlasReport, Orientation, RefineResult
from cardiacreg.results.view_planes import with_planes


def refine(
    segmentation: Any,
    *,
    image: Any = None,
    landmarks: Any = None,
    probabilities: Any = None,
    views: Sequence[Any] = (),
    atlases: Any = None,
    preset: str | Mapping[int, int] | None = None,
    frame: int | str | None = None,
    frames: Sequence[Any] = (),
    check_spacing: bool = True,
    spacing_mm: ArrayLike = (1.25, 1.25, 2.0),
    options: RefineOptions | None = None,
    threads: int | None = None,
    progress: ProgressCallable | None = None,
) -> RefineResult:
    """Refine a short-axis segmentation into a smooth, complete, high-resolution bi-ventricular model.

    Parameters
    ----------
    segmentation : path, nibabel image, (array, voxel_to_world) or LabelMap
        The target's labels on its native lattice (i, j, k = slice), oblique or left-handed.
    image : path, nibabel image, (array, voxel_to_world) or Volume, optional
        The target's short-axis image; shown in figures, evidence for how the heart lies in its file,
        and used where the options ask for patch fusion (eq. 5) or for selection by image.
    landmarks : path, (6, 3) array in world RAS+ mm or Landmarks, optional
        The six landmarks of the paper; derived from the segmentation when absent.
    probabilities : path or array_like, shape (n, i, j, k), optional
        What a network thinks of the segmentation's voxels, as its softmax: the probability of the values
        0 (background), 1, ..., n - 1 on the segmentation's lattice. Files: ``.npz`` of nnU-Net, or NIfTI
        of shape (i, j, k, n). A clear voxel then holds the model, a doubtful one gives way.
    views : sequence of View, or of what its `segmentation` may be, optional
        Label maps of other planes of the same heart, as long-axis views: they show where the ventricles
        end, and how the stack as a whole is shifted and leans, which its own slices cannot show.
    atlases : folder or sequence of Subject, optional
        The bank; the embedded population when absent. Which part of it may be chosen, as the same
        phase, is `RefineOptions.metadata`.
    preset : str or mapping, optional
        Meaning of the label values (``"acdc"``, ``"mms"``, ``"ukbb"``, ``"digital_heart"``,
        ``"sslln"``, ``"emidec"``, ``"myops"``, ``"mmwhs"``, ...; ``cardiacreg presets`` lists them) or
        a mapping from them to ours; canonical when absent.
    frame : int, "ED" or "ES", optional
        Which frame of 4-D files; ED is the one with most labelled voxels, ES that with fewest.
    frames : sequence, optional
        Other frames of the same patient, stored alike: whatever `segmentation` may be, or numbers of
        frames of a 4-D file. All of them together tell how the heart lies in its file, so that every
        frame of a patient is oriented alike.
    check_spacing : bool
        Whether to refuse files with a spacing outside 0.2 to 5 mm in plane and 0.3 to 20 mm between
        slices.
    spacing_mm : array_like, shape (3,)
        Spacing of the result along the target's (i, j, k).
    options : RefineOptions, optional
        `RefineOptions` is recommended, `RefineOptions.fast` takes two thirds of the time,
        `RefineOptions.paper` is the published method.
    threads : int, optional
        All CPUs of this process when absent; the result is the same for any number.
    progress : callable, optional
        Receives a `Progress` after each piece of work, as `ProgressBar` does; raising inside it cancels.

    Returns
    -------
    RefineResult

    Raises
    ------
    InvalidInputError
        If an input cannot give a right answer; the message says what to do.
    RefinementError
        If no atlas could be registered.

    Warns
    -----
    InputWarning
        For everything that was repaired or should be known; also kept in ``result.warnings``.
    ResultWarning
        For every reason to look at the result before it is used, as ``"[CODE] message"``; also kept in
        ``result.findings``.

    Examples
    --------
    >>> import cardiacreg
    >>> result = cardiacreg.refine("seg.nii.gz", image="sax.nii.gz", preset="acdc")  # doctest: +SKIP
    >>> result.save("out/")  # doctest: +SKIP

    With atlases of one's own, here toy hearts:

    >>> from cardiacreg.phantoms.toy_heart import make_toy_heart
    >>> atlases = [make_toy_heart(size=size) for size in (0.85, 0.9, 1.0, 1.05)]
    >>> options = cardiacreg.RefineOptions(n_atlases=3, orientation="as-stored")
    >>> result = cardiacreg.refine(make_toy_heart(size=0.95).labels, atlases=atlases, options=options)
    >>> result.labels.spacing_mm, result.agreement["LV wall"] > 0.8
    (array([1.25, 1.25, 2.  ]), True)
    """
    settings, n_threads, clock = checked_options(options), check_threads(threads), Clock()
    checked_spacing(spacing_mm)
    given = _Given(
        segmentation, image, landmarks, probabilities, views, atlases, preset, frame, frames,
        check_spacing, spacing_mm,
    )  # fmt: skip
    with kept_warnings() as kept:
        with clock.step("read"):
            target = _read(given, settings)
            seen = gather_views(views, target.labels, preset, with_image=target.image is not None)
            _check_options_of_views(seen, settings)
            bank = gather_atlases(atlases, target, settings.n_atlases, settings.metadata)
        progress = prepared(progress, n_threads, clock)
        every = settings.registration.background_slices
        axes_of_all = find_canonical_axes(target, all_slices=every)
        spacing = axes_of_all.spacing(spacing_mm)

        def start(each: Subject, like: CanonicalAxes | None = None) -> RefinementContext:
            found = like and find_canonical_axes(each, all_slices=every, like=like)
            found = found or axes_of_all
            made = make_context(found.subject(each), spacing, settings, n_threads, progress, clock)
            return made._replace(slice_normal=found.slice_normal(each.labels))

        context = _with_doubt(start(target), target, axes_of_all)
        context = context._replace(views=axes_of_all.views([plane for _, plane in seen]))
        with clock.step("orient"):
            others = [
                start(each, axes_of_all)
                for each in gather_frames(segmentation, frames, preset, target, check_spacing)
            ]
            oriented = oriented_context(context, others, bank)
            context = oriented.context
        outcome = run_steps(context, bank, oriented.ranking)
    told = tuple(dict.fromkeys(kept))
    pass_on(told)
    notes = tuple(note.message for note in told)
    result = _result(context, target, outcome, notes, bank, oriented.orientation, seen)
    result = _with_views(_with_inputs(axes_of_all.result(result), given), seen)
    if progress is not None:
        progress(Progress(REPORT, 1, 1))
    for finding in result.findings:
        warn(str(finding), ResultWarning)
    return result


def prepared(
    progress: ProgressCallable | None, threads: int, clock: Clock, n_frames: int = 1
) -> ProgressCallable | None:
    """Compile what is not compiled yet; return what tells how much of the whole is done."""
    compiles = needs_compiling()
    whole = whole_progress(progress, stages_of(n_frames, compiles=compiles))
    if compiles:
        with clock.step("compile"):
            compile_kernels(threads, whole)
    return whole


def _read(given: _Given, options: RefineOptions) -> Subject:
    _check_options_of_probabilities(given.probabilities, options)
    return gather_target(
        given.segmentation, given.image, given.landmarks, given.preset, given.frame,
        given.check_spacing, probabilities=given.probabilities,
    )  # fmt: skip


def _with_doubt(
    context: RefinementContext, target: Subject, axes: CanonicalAxes
) -> RefinementContext:
    """Let the steps know how probable the target's labels are, where that was given."""
    known = target.metadata.get(PROBABILITIES)
    if known is None:
        return context
    found = axes.probabilities(known)
    return context._replace(probabilities=found, doubt=doubt_levels(context.target.labels, found))


def _check_options_of_probabilities(probabilities: Any, options: RefineOptions) -> None:
    if probabilities is not None and (options.slice_turns or options.upsample_target):
        raise InvalidInputError(
            "refine: probabilities (probabilities= or --probabilities) with slices that are turned or a "
            "target that is resampled (RefineOptions: slice_turns, upsample_target, as in the preset "
            "paper); leave one of them out.",
            code="BAD_OPTION",
        )


def _check_options_of_views(views: Sequence[Any], options: RefineOptions) -> None:
    if views and options.slice_turns:
        raise InvalidInputError(
            "RefineOptions: slice_turns with views; rotations of slices are found without views only: "
            "leave one of them out.",
            code="BAD_OPTION",
        )


class _Given(NamedTuple):
    """What a refinement was made from, as the user gave it."""

    segmentation: Any
    image: Any
    landmarks: Any
    probabilities: Any
    views: Sequence[Any]
    atlases: Any
    preset: str | Mapping[int, int] | None
    frame: int | str | None
    frames: Sequence[Any]
    check_spacing: bool
    spacing_mm: ArrayLike


def _with_views(result: RefineResult, seen: Sequence[tuple[str, ViewPlane]]) -> RefineResult:
    """Keep the views as they were given beside what was found of them."""
    planes = [(plane.labels, plane.image) for _, plane in seen]
    return replace(result, views=with_planes(result.views, planes))


def _with_inputs(result: RefineResult, given: _Given) -> RefineResult:
    """Return a result that knows its input files, and what `verify_result` needs to make it again."""
    files = files_of(
        given.segmentation, given.image, given.landmarks, given.probabilities, given.atlases,
        *given.frames, *sources_of(given.views),
    )  # fmt: skip
    known = result.provenance | {"inputs": _recorded_inputs(given)}
    return replace(result, input_files=files, provenance=known)


def _recorded_inputs(given: _Given) -> dict[str, Any]:
    landmarks = given.landmarks
    if landmarks is not None and not isinstance(landmarks, str | os.PathLike | Landmarks):
        landmarks = Landmarks(np.asarray(landmarks, dtype=np.float64))
    return {
        "segmentation": recorded(given.segmentation),
        "image": recorded(given.image),
        "landmarks": recorded(landmarks),
        "probabilities": recorded(given.probabilities),
        "atlases": recorded(given.atlases),
        "preset": recorded_mapping(given.preset),
        "frame": given.frame,
        "frames": [recorded(each) for each in given.frames],
        "views": [_recorded_view(as_view(each)) for each in given.views],
        "check_spacing": given.check_spacing,
        "spacing_mm": np.asarray(given.spacing_mm, dtype=np.float64).tolist(),
    }


def _recorded_view(view: View) -> dict[str, Any]:
    return {
        "segmentation": recorded(view.segmentation),
        "image": recorded(view.image),
        "preset": recorded_mapping(view.preset),
        "frame": view.frame,
        "name": view.name,
    }


def _result(
    context: RefinementContext,
    stored: Subject,
    outcome: Outcome,
    notes: tuple[str, ...],
    bank: AtlasView,
    orientation: Orientation,
    seen: Sequence[tuple[str, ViewPlane]],
) -> RefineResult:
    labels, stack = outcome.fusion.labels, context.target.labels
    names = [name for name, _ in seen]
    views = view_reports(names, context.views, outcome.view_shifts_mm, labels)
    agreement = slice_agreement(outcome.turned, labels, outcome.slice_shifts_mm)
    volumes = stack_volumes(
        stack,
        labels,
        base_at_last_slice=base_by_landmarks(stack, context.landmarks),
        atlas_voxels=outcome.fusion.atlas_voxels,
    )
    scatter = diversity(
        stack,
        [atlas.subject for atlas in outcome.selected],
        [atlas.ranked.target_to_atlas for atlas in outcome.selected],
    )
    return RefineResult(
        labels=labels,
        confidence=outcome.fusion.confidence,
        landmarks=context.landmarks,
        slice_shifts_mm=outcome.slice_shifts_mm,
        slice_turns_degrees=outcome.slice_turns_degrees,
        atlases=_reports(outcome, bank),
        transforms=tuple(each.target_to_atlas for each in outcome.registrations),
        agreement=agreement,
        timings_seconds=context.clock.timings_seconds(),
        target=stored,
        options=context.options,
        warnings=notes,
        structures_from_atlases=structure_names(context.unknown_labels),
        provenance=provenance_of(stored, context.threads, len(bank)),
        atlas_diversity=scatter,
        volumes=volumes,
        findings=find_problems(
            agreement,
            volumes,
            slice_distance_mm=float(stack.spacing_mm[2]),
            atlas_diversity=scatter,
            orientation_probability=orientation.probability,
            view_agreement={view.name: view.agreement for view in views},
            **left_ventricle_along(stack),
        ),
        orientation=orientation,
        ends=context.coverage.ends,
        views=views,
    )


def make_context(
    target: Subject,
    spacing_mm: ArrayLike,
    options: RefineOptions,
    threads: int,
    progress: ProgressCallable | None,
    clock: Clock,
) -> RefinementContext:
    """Return what all steps share, for a heart that lies as stored where it has no landmarks."""
    landmarks = target.landmarks or derive_landmarks(target.labels)
    coverage = _coverage(target.labels, landmarks, options)
    return RefinementContext(
        target, landmarks, coverage, unknown_labels(target.labels), spacing_mm, options, threads,
        progress, clock,
    )  # fmt: skip


def oriented_context(
    context: RefinementContext, others: Sequence[RefinementContext], bank: Sequence[Subject]
) -> Oriented:
    """Decide how the heart lies (`orientation.orient`), and where its ends are under that."""
    found = orient(context, others, bank)
    coverage = _coverage(context.target.labels, found.context.landmarks, context.options)
    ranking = found.ranking if coverage.planes == context.coverage.planes else None
    if ranking is not None and coverage.shared != context.coverage.shared:
        ranking = ranking._replace(improved={})  # affines see those planes, the ranking does not
    return found._replace(context=found.context._replace(coverage=coverage), ranking=ranking)


def _coverage(labels: LabelMap, landmarks: Landmarks, options: RefineOptions) -> Coverage:
    at_last = base_by_landmarks(labels, landmarks)
    return stack_coverage(labels, options.coverages, base_at_last_slice=at_last)


def _reports(outcome: Outcome, bank: AtlasView) -> tuple[AtlasReport, ...]:
    return tuple(
        AtlasReport(
            index=bank.positions[atlas.ranked.index],
            name=atlas.subject.name or f"atlas {atlas.ranked.index}",
            nmi=atlas.ranked.nmi,
            landmark_residual_mm=atlas.fit.residual_mm,
            affine_model=atlas.fit.model,
            consistency_before=r.consistency_before,
            consistency_after=r.consistency_after,
            minimum_jacobian=r.minimum_jacobian,
            iterations=r.iterations,
            stop_reason=r.stop_reason.name,
        )
        for atlas, r in zip(outcome.selected, outcome.registrations, strict=True)
    )


def provenance_of(target: Subject, threads: int, bank_size: int) -> dict[str, Any]:
    """Return versions, hashes of the input and what else a result came from."""
    import numba
    import scipy

    from cardiacreg import __version__

    hashes = {"labels_sha256": hashlib.sha256(target.labels.array.tobytes()).hexdigest()}
    if target.image is not None:
        hashes["image_sha256"] = hashlib.sha256(target.image.array.tobytes()).hexdigest()
    return {
        "cardiacreg": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "numba": numba.__version__,
        "threads": threads,
        "bank_size": bank_size,
        **hashes,
    }


def warm_up(threads: int | None = None) -> None:
    """Refine a tiny heart once, so that every kernel is compiled and cached.

    Parameters
    ----------
    threads : int, optional

    Examples
    --------
    >>> from cardiacreg import warm_up
    >>> warm_up(threads=1)
    """
    from cardiacreg.phantoms.long_axis_views import simulate_views
    from cardiacreg.phantoms.toy_heart import make_toy_heart
    from cardiacreg.slice_motion.shift_statistics import FEWEST_ATLASES

    heart, atlases = make_toy_heart(), [make_toy_heart(size=0.95)] * FEWEST_ATLASES
    views = [view.subject.labels for view in simulate_views(heart, ["four_chamber"], seed=0)]
    with kept_warnings():
        refine(heart.labels, image=heart.image, views=views, atlases=atlases, threads=threads)
