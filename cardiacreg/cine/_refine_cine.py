"""The main call for a patient: from the segmentations of all frames to a model of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from numpy.typing import ArrayLike

from cardiacreg.cine.frames import Frames, GatheredFrames, gather_cine
from cardiacreg.cine.models import cine_findings, model_frames
from cardiacreg.cine.patient import Patient, decide
from cardiacreg.cine.result import CineFrame, CineResult
from cardiacreg.cine.views import CineViews, gather_cine_views
from cardiacreg.compute.progress import REPORT
from cardiacreg.compute.threads import Progress, ProgressCallable, check_threads
from cardiacreg.errors import (
    InvalidInputError,
    ResultWarning,
    kept_warnings,
    pass_on,
    warn,
)
from cardiacreg.io.kept_inputs import files_of
from cardiacreg.refinement._refine import prepared, provenance_of
from cardiacreg.refinement.canonical_axes import CanonicalAxes
from cardiacreg.refinement.context import Clock
from cardiacreg.refinement.options import RefineOptions, checked_options
from cardiacreg.refinement.output_lattice import checked_spacing
from cardiacreg.refinement.target import gather_atlases
from cardiacreg.refinement.views import sources_of, view_reports
from cardiacreg.results.result import ViewReport
from cardiacreg.results.view_planes import with_planes


def refine_cine(
    segmentation: Any,
    *,
    frames: Frames = "all",
    image: Any = None,
    views: Sequence[Any] = (),
    atlases: Any = None,
    preset: str | Mapping[int, int] | None = None,
    ed: int | None = None,
    es: int | None = None,
    times_ms: Sequence[float] | None = None,
    spacing_mm: ArrayLike = (1.25, 1.25, 2.0),
    options: RefineOptions | None = None,
    threads: int | None = None,
    progress: ProgressCallable | None = None,
) -> CineResult:
    """Refine all frames of one patient together.

    Orientation, ends of the stack, slice shifts and atlases are decided once. The frames of a slice are
    acquired in one breath-hold, so that its shift is one unknown for the whole cycle; it is estimated
    at end-diastole and at end-systole. The atlases are those that fit best at end-systole, and the
    same in every frame: each frame is the same atlas points moved (`CineResult.follow`). Over a whole
    cycle of at least eight labelled frames motion is smooth in time, and the LV wall keeps its volume:
    deviations of 1 % from the median are nearly taken away, those of 10 % nearly stay.

    Parameters
    ----------
    segmentation : path, nibabel image, (array, voxel_to_world) or sequence of frames
        A 4-D series of labels, or one 3-D source per frame, all on one lattice. Frames without labels
        are filled in from their neighbours in time.
    frames : {"all", "ED,ES"} or sequence of int
        Which frames to refine. ``"ED,ES"``: those with the largest and the smallest LV cavity.
    image : path, image or sequence of images, optional
        The cine, or its frame at end-diastole; evidence for how the heart lies in its file.
    views : sequence of View, or of what its `segmentation` may be, optional
        Label maps of long-axis views: 4-D series, or sequences with one source per frame, of the same
        frames as the stack's. One shift per view for the whole cycle; see `refine`.
    atlases, preset
        As for `refine`.
    ed, es : int, optional
        Numbers of the frames at end-diastole and end-systole; those with the largest and the smallest
        labelled area of the LV cavity times the slice distance when absent.
    times_ms : sequence of float, optional
        Time of every frame of the series, which covers one cycle; evenly spaced when absent.
    spacing_mm, options, threads, progress
        As for `refine`. Options for label fusion alone, without turns of slices.

    Returns
    -------
    CineResult

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
        For every reason to look at the cine as a whole before it is used. Findings of single frames are
        in ``result.frames``.

    Examples
    --------
    >>> import cardiacreg
    >>> result = cardiacreg.refine_cine("cine_seg.nii.gz", preset="acdc")  # doctest: +SKIP
    >>> result.save("out")  # doctest: +SKIP

    With atlases of one's own and frames in a list, here of toy hearts:

    >>> from cardiacreg.phantoms.toy_heart import make_toy_heart
    >>> atlases = [make_toy_heart(size=size) for size in (0.8, 0.9, 1.0)]
    >>> frames = [make_toy_heart(size=size).labels for size in (0.95, 0.85)]
    >>> options = cardiacreg.RefineOptions(n_atlases=2, orientation="as-stored")
    >>> result = cardiacreg.refine_cine(frames, atlases=atlases, options=options)
    >>> result.ed, result.es, 0.2 < result.ejection_fractions["LV"] < 0.4
    (0, 1, True)
    """
    settings, n_threads, clock = checked_options(options), check_threads(threads), Clock()
    _check_options(settings)
    checked_spacing(spacing_mm)
    with kept_warnings() as kept:
        with clock.step("read"):
            gathered = gather_cine(segmentation, frames, image=image, preset=preset, ed=ed, es=es)
            times = _times(times_ms, gathered)
            seen = gather_cine_views(views, gathered, preset)
            first = gathered.subject(gathered.ed)
            bank = gather_atlases(atlases, first, settings.n_atlases, settings.metadata)
            progress = prepared(progress, n_threads, clock, len(gathered.labels))
        patient = decide(gathered, bank, spacing_mm, settings, n_threads, progress, clock, seen)
        models, used = model_frames(patient, _in_cycles(times, gathered), times)
    told = tuple(dict.fromkeys(kept))
    pass_on(told)
    result = _result(patient, models, used, tuple(note.message for note in told))
    result = replace(result, views=_view_reports(seen, patient, result))
    given = segmentation if isinstance(segmentation, list | tuple) else (segmentation,)
    shown = image if isinstance(image, list | tuple) else (image,)
    of_views = [
        each
        for source in sources_of(views)
        for each in (source if isinstance(source, list | tuple) else (source,))
    ]
    result = replace(result, input_files=files_of(atlases, *given, *shown, *of_views))
    if progress is not None:
        progress(Progress(REPORT, 1, 1))
    for finding in result.findings:
        warn(str(finding), ResultWarning)
    return result


def _view_reports(seen: CineViews, patient: Patient, result: CineResult) -> tuple[ViewReport, ...]:
    """Compare the views with the model at end-diastole."""
    labels, planes = result.frames[result.ed].labels, seen.frames[result.ed]
    found = view_reports(seen.names, planes, patient.view_shifts_mm, labels)
    return with_planes(found, [(plane.labels, plane.image) for plane in planes])


def _check_options(options: RefineOptions) -> None:
    """Refuse what frames do not share."""
    refused = {
        "slice_turns": options.slice_turns,
        "upsample_target": options.upsample_target,
        "selection='image'": options.selection == "image",
        "fusion": options.fusion is not None,
    }
    asked = [name for name, is_set in refused.items() if is_set]
    if asked:
        raise InvalidInputError(
            f"refine_cine: the options ask for {', '.join(asked)}, which is there for single frames "
            "only; leave it out, or use refine.",
            code="BAD_OPTION",
        )


def _times(times_ms: Sequence[float] | None, gathered: GatheredFrames) -> list[float] | None:
    """Return the times of the chosen frames, ascending."""
    if times_ms is None:
        return None
    try:
        times = [float(time) for time in times_ms]
    except (TypeError, ValueError):
        times = []
    rising = all(a < b for a, b in zip(times, times[1:], strict=False))
    if len(times) != gathered.n_series or not rising:
        raise InvalidInputError(
            f"refine_cine: {len(times)} times for {gathered.n_series} frames; needs one per frame of the "
            "series, ascending, in ms.",
            code="BAD_TIMES",
        )
    return times


def _in_cycles(times_ms: list[float] | None, gathered: GatheredFrames) -> list[float]:
    """Return when each frame is, in cycles; the series covers one."""
    if times_ms is None:
        return [number / gathered.n_series for number in gathered.numbers]
    step = (times_ms[-1] - times_ms[0]) / max(len(times_ms) - 1, 1)
    length = times_ms[-1] - times_ms[0] + step
    return [(times_ms[number] - times_ms[0]) / length for number in gathered.numbers]


def _result(
    patient: Patient, models: Sequence[CineFrame], atlases: tuple[str, ...], notes: tuple[str, ...]
) -> CineResult:
    context, gathered, axes = patient.context, patient.gathered, patient.axes
    stored = gathered.subject(gathered.ed)
    return CineResult(
        frames=tuple(_placed(model, axes) for model in models),
        ed=gathered.ed,
        es=gathered.es,
        slice_shifts_mm=axes.shifts_back(patient.shifts_mm, stored.labels.shape[2]),
        landmarks=axes.landmarks_back(context.landmarks),
        atlases=atlases,
        orientation=patient.orientation,
        ends=axes.ends_back(context.coverage.ends, context.landmarks, stored.labels),
        options=context.options,
        findings=cine_findings(models, patient.orientation),
        warnings=notes,
        timings_seconds=context.clock.timings_seconds(),
        provenance=provenance_of(stored, context.threads, patient.bank_size),
    )


def _placed(model: CineFrame, axes: CanonicalAxes) -> CineFrame:
    """Return the model of a frame on the stored axes, in the stored world."""
    return replace(
        model,
        labels=axes.labels_back(model.labels),
        confidence=axes.volume_back(model.confidence),
        transforms=tuple(axes.transform_back(each) for each in model.transforms),
    )
