"""``cardiacreg run``: from an image alone to a model, of one frame or of a cine, with `cardiacreg_nn`.

That package and torch are imported inside the command, so that everything else works without them.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import click

from cardiacreg.cli.heart import heart_options, told
from cardiacreg.cli.patient import frames_word, number_of, show_cine
from cardiacreg.cli.report import PAGE as PAGE_NAME, page_of, report_option, with_inputs
from cardiacreg.cli.result import accept_failed_option, echo_result, findings_kept_for_the_end
from cardiacreg.cli.segment import (
    FRAME_FILES,
    SEGMENT_FILES,
    licence,
    load_network,
    network_options,
    predict,
    segment_names,
    write_frames,
    write_segmentation,
)
from cardiacreg.cli.support import EXIT_CODES, Extras, atlas_options, progress_lines
from cardiacreg.compute.progress import PAGE, REFINE, SAVE, SEGMENT, parts_of_command
from cardiacreg.errors import InputWarning, InvalidInputError, kept_warnings

if TYPE_CHECKING:
    from cardiacreg.cine.result import CineResult
    from cardiacreg.geometry import LabelMap, Subject
    from cardiacreg.refinement.views import View
    from cardiacreg.results.result import RefineResult

VIEW_FILES = tuple(f"segmentation_view_{number}.nii.gz" for number in range(1, 52))
"""As many as a refinement may have views, in their order."""
_LEAST_AGREEMENT = 0.5


@click.command(epilog=EXIT_CODES, short_help="Segment an image and refine the segmentation.")
@network_options
@heart_options
@atlas_options
@accept_failed_option
@report_option
@click.option(
    "--frames", "cine_frames", metavar="all|ED,ES|0,5,9", callback=frames_word,
    help="Segment all frames of a 4-D image together, and refine all of them, those at end-diastole and "
    "end-systole, or some by their numbers; views have as many frames. Writes what `cardiacreg refine "
    "--frames` writes.",
)  # fmt: skip
@click.option(
    "--view-image",
    "view_images",
    multiple=True,
    type=click.Path(readable=False),
    metavar="FILE",
    help="Image of a long-axis view of the same heart in the same world; segmented too, and refined "
    "with. May be repeated.",
)
@click.option("--threads", type=click.IntRange(min=1), help="Every CPU when absent.")
def run(
    output: Path,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
    atlases: str | None,
    only: tuple[tuple[str, tuple[str, ...]], ...],
    selection: str,
    coverage: Mapping[str, str],
    orientation: str | None,
    frames: Sequence[str | int],
    cine_frames: str | tuple[int, ...] | None,
    accept_failed: bool,
    with_report: bool,
    view_images: Sequence[str],
    threads: int | None,
    **inputs: Any,
) -> None:
    """Segment an image and refine the segmentation into a high-resolution model.

    Writes what `cardiacreg segment` and `cardiacreg refine` write, and of each long-axis view that is
    used segmentation_view_1.nii.gz, ... A view without a heart, or whose labels disagree with the
    stack's, is told and left out.
    """
    from cardiacreg.cine.files import FILE_NAMES as OF_CINES
    from cardiacreg.io.kept_inputs import files_of
    from cardiacreg.io.output_folder import check_output
    from cardiacreg.refinement.options import RefineOptions
    from cardiacreg.results.files import FILE_NAMES, ON_REQUEST, check_figures

    files = files_of(inputs["image"], inputs["weights"], atlases, *frames, *view_images)
    kinds = (SEGMENT_FILES, VIEW_FILES, ON_REQUEST, FILE_NAMES, OF_CINES)
    every = tuple(dict.fromkeys(name for names in kinds for name in names))
    how: Any = {"overwrite": overwrite, "inputs": files}
    check_output(output, every, **how)
    check_figures()
    options = told(RefineOptions(metadata=only, selection=selection), coverage, orientation)
    more: Any = {
        "views": view_images, "as_json": as_json, "quiet": quiet, "accept_failed": accept_failed,
        "with_report": with_report, "saving": {"outdated": every, **how}, "inputs": inputs,
        "refining": {"options": options, "atlases": atlases, "threads": threads},
    }  # fmt: skip
    if cine_frames is None:
        _run_frame(output, frames, **more)
        return
    _check_single_frame_options(inputs, frames, selection)
    _run_cine(output, cine_frames, **more)


def _run_frame(
    output: Path,
    frames: Sequence[str | int],
    *,
    views: Sequence[str],
    as_json: bool,
    quiet: bool,
    accept_failed: bool,
    with_report: bool,
    refining: dict[str, Any],
    saving: dict[str, Any],
    inputs: dict[str, Any],
) -> None:
    """Segment one frame of stack and views, refine it, save and show it."""
    from cardiacreg.refinement._refine import refine

    steps = (SEGMENT, REFINE, *((PAGE,) if with_report else ()), SAVE)
    with progress_lines(quiet) as progress, findings_kept_for_the_end():
        parts = parts_of_command(progress, only=steps)
        with parts.step(SEGMENT):
            subject = predict(**inputs)
            others = _other_frames(frames, **inputs)
            seen = _seen_views(views, subject, **inputs)
        result = refine(
            subject.labels, image=subject.image, landmarks=subject.landmarks,
            probabilities=subject.metadata["probabilities"], frames=others, views=_as_views(seen),
            progress=parts.of(REFINE), **refining,
        )  # fmt: skip
        result = _named(result, subject)
        stack = {"segmentation": output / SEGMENT_FILES[0], "preset": None, "frame": None}
        result = with_inputs(result, output, stack | {"image": inputs["image"]})
        extras = Extras()
        with extras.attempt(PAGE_NAME):
            shown = dict.fromkeys((*stack, "image"))
            extras.files |= page_of(result, with_report, shown, parts)
        with parts.step(SAVE):
            _save(result, subject, seen, extras.files, output, saving)
    extras.say(output)
    look_at = output / (PAGE_NAME if PAGE_NAME in extras.files else "qc.png")
    notes = () if quiet else (licence(subject), f"look at {look_at}")
    echo_result(
        result, output, as_json=as_json, accept_failed=accept_failed, notes=notes,
        more={"network": subject.metadata["network"]},
    )  # fmt: skip
    extras.end()


def _save(
    result: RefineResult,
    subject: Subject,
    views: Sequence[Subject],
    extras: Mapping[str, bytes],
    output: Path,
    how: Mapping[str, Any],
) -> None:
    """Write the segmentations and the model; they appear together."""
    from cardiacreg.io.atomic_write import write_bytes_atomically
    from cardiacreg.io.output_folder import all_or_nothing
    from cardiacreg.results.files import FILE_NAMES, besides, write_files

    names = (
        *segment_names(subject),
        *VIEW_FILES[: len(views)],
        *extras,
        *besides(result),
        *FILE_NAMES,
    )
    with all_or_nothing(output, names, **how) as stage:
        write_segmentation(stage, subject)
        _write_views(stage, views)
        for name, content in extras.items():
            write_bytes_atomically(stage / name, content)
        write_files(result, stage)


def _named(result: RefineResult, subject: Subject) -> RefineResult:
    """Return a result that says what it was segmented from, and by which network."""
    provenance = {**result.provenance, "network": subject.metadata["network"]}
    return replace(result, provenance=provenance, target=replace(result.target, name=subject.name))


def _seen_views(
    files: Sequence[str], subject: Subject, *, frame: int | None, device: str | None, **others: Any
) -> list[Subject]:
    """Segment long-axis views, and leave out those that show no heart or another place of it."""
    from cardiacreg.refinement.views import check_view_count

    check_view_count(len(files))
    found: list[Subject] = []
    for file in files:
        try:
            seen = _seen_view(
                file, frame=frame, device=device, check_spacing=others["check_spacing"]
            )
        except InvalidInputError as error:
            if error.code != "NO_HEART":
                raise
            _leave_out(file, str(error))
            continue
        share = load_network().agreement_with_stack(seen.labels, subject.labels)
        if not _agrees(file, share):
            continue
        found.append(seen)
    return found


def _seen_view(file: str, *, frame: int | None, **how: Any) -> Subject:
    """Segment a view, in the same frame as the stack where the view has several."""
    from cardiacreg.io.label_values import ONE_FRAME

    try:
        seen = load_network().predict_view(file, frame=frame, **how)
    except InvalidInputError as error:
        if error.code != ONE_FRAME:
            raise
        seen = load_network().predict_view(file, **how)
    return seen  # type: ignore[no-any-return]


def _agrees(file: str, share: float | None) -> bool:
    """Whether a view shows the stack's heart, by their agreement; tell where it does not."""
    if share is not None and share >= _LEAST_AGREEMENT:
        return True
    said = "nowhere in the stack" if share is None else f"with a Dice of {share:.2f}"
    _leave_out(
        file,
        f"its left ventricle agrees with that of the stack {said}; needs {_LEAST_AGREEMENT}. Look at "
        "the view, and whether it is of the same heart in the same world.",
    )
    return False


def _leave_out(file: str, why: str) -> None:
    warnings.warn(f"the view {Path(file).name} is left out: {why}", InputWarning, stacklevel=3)


def _as_views(seen: Sequence[Subject] | Sequence[Sequence[Subject]]) -> list[View]:
    """Return what of segmented views the refinement takes."""
    return [load_network().as_view(each) for each in seen]


def _write_views(place: Path, views: Sequence[Subject]) -> None:
    from cardiacreg.io.nifti import write_labels

    for name, view in zip(VIEW_FILES, views, strict=False):
        write_labels(os.fspath(place / name), view.labels, description=(view.name or "")[:79])


def _other_frames(frames: Sequence[str | int], **inputs: Any) -> list[LabelMap]:
    """Segment other frames of the patient: images, or frames of the same image."""
    found = []
    for each in frames:
        which = {"frame": each} if isinstance(each, int) else {"image": each, "frame": None}
        found.append(predict(**inputs | which).labels)
    return found


def _check_single_frame_options(
    inputs: dict[str, Any], frames: Sequence[str | int], selection: str
) -> None:
    """Refuse options of a single frame, before anything is segmented."""
    given = {
        "--frame": inputs.pop("frame") is not None,
        "--other-frame": bool(frames),
        "--select-by image": selection == "image",
    }
    if wrong := [word for word, is_given in given.items() if is_given]:
        raise click.UsageError(f"--frames does not go with {' and '.join(wrong)}.")


def _run_cine(
    output: Path,
    frames: str | tuple[int, ...],
    *,
    views: Sequence[str],
    as_json: bool,
    quiet: bool,
    accept_failed: bool,
    with_report: bool,
    refining: dict[str, Any],
    saving: dict[str, Any],
    inputs: dict[str, Any],
) -> None:
    """Segment all frames of stack and views, refine the wanted ones together, save and show them."""
    from cardiacreg.cine._refine_cine import refine_cine

    steps = (SEGMENT, REFINE, *((PAGE,) if with_report else ()), SAVE)
    with progress_lines(quiet) as progress, findings_kept_for_the_end():
        parts = parts_of_command(
            progress, n_frames=number_of(frames), together=True, phases=2, only=steps
        )
        with parts.step(SEGMENT):
            subjects = _hearts(predict(cine=True, **inputs))
            seen = _cines_of_views(views, subjects, **inputs)
        stack: dict[str, Any] = {
            "segmentation": [each.labels for each in subjects],
            "image": [each.image for each in subjects],
        }
        result = refine_cine(
            frames=frames, views=_as_views(seen), progress=parts.of(REFINE), **stack, **refining
        )
        provenance = {**result.provenance, "network": subjects[0].metadata["network"]}
        result = replace(result, provenance=provenance)
        kept = {"segmentation": output / FRAME_FILES[0], "preset": None, "frame": None}
        result = with_inputs(result, output, kept | {"image": inputs["image"]})
        extras = Extras()
        with extras.attempt(PAGE_NAME):
            extras.files |= page_of(result, with_report, kept | stack, parts)
        with parts.step(SAVE):
            _save_cine(result, subjects, seen, extras.files, output, saving)
    show_cine(
        result, output, extras, as_json=as_json, quiet=quiet, accept_failed=accept_failed,
        notes=(licence(subjects[0]),),
    )  # fmt: skip


def _hearts(subjects: Sequence[Subject]) -> list[Subject]:
    """Empty the labels of frames that cannot be a heart, and tell: they are filled in."""
    import numpy as np

    from cardiacreg.geometry import LabelMap

    found = []
    for subject in subjects:
        if (why := _no_heart(subject.labels)) is not None:
            warnings.warn(
                f"frame {subject.metadata['frame']}: what the network finds is no heart ({why}); the "
                "frame counts as one without labels.",
                InputWarning,
                stacklevel=3,
            )
            empty = np.zeros(subject.labels.shape, dtype=np.uint8)
            subject = replace(subject, labels=LabelMap(empty, subject.labels.voxel_to_world))
        found.append(subject)
    return found


def _no_heart(labels: LabelMap) -> str | None:
    """Why the labels of a frame cannot be a heart's; None where they can, and where there are none."""
    from cardiacreg.anatomy.label_presets import check_anatomy

    try:
        with kept_warnings():
            if labels.array.any():
                check_anatomy(labels, None)
    except InvalidInputError as error:
        return str(error).partition(", ")[2].partition("; ")[0]
    return None


def _cines_of_views(
    files: Sequence[str], subjects: Sequence[Subject], **inputs: Any
) -> list[Sequence[Subject]]:
    """Segment all frames of long-axis views, and leave out those that `_seen_views` would."""
    from cardiacreg.refinement.views import check_view_count

    check_view_count(len(files))
    found: list[Sequence[Subject]] = []
    how = {name: inputs[name] for name in ("device", "check_spacing")}
    for file in files:
        try:
            seen = load_network().predict_view_cine(file, **how)
        except InvalidInputError as error:
            if error.code != "NO_HEART":
                raise
            _leave_out(file, str(error))
            continue
        pairs = zip(seen, subjects, strict=False)
        shares = [load_network().agreement_with_stack(a.labels, b.labels) for a, b in pairs]
        known = [share for share in shares if share is not None]
        if _agrees(file, median(known) if known else None):
            found.append(seen)
    return found


def _save_cine(
    result: CineResult,
    subjects: Sequence[Subject],
    views: Sequence[Sequence[Subject]],
    extras: Mapping[str, bytes],
    output: Path,
    saving: Mapping[str, Any],
) -> None:
    """Write the segmentations and the models of a cine; they appear together."""
    from cardiacreg.cine.files import names_of, write_cine
    from cardiacreg.io.nifti import write_label_frames
    from cardiacreg.io.output_folder import all_or_nothing

    seen = VIEW_FILES[: len(views)]
    names = (*FRAME_FILES, *seen, *names_of(result, extras))
    with all_or_nothing(output, names, **saving) as stage:
        write_frames(stage, subjects)
        for name, view in zip(seen, views, strict=True):
            write_label_frames(stage / name, [each.labels for each in view])
        write_cine(result, stage, extras)
