"""``cardiacreg segment`` and ``cardiacreg run``: from an image alone, with `cardiacreg_nn`.

That package and torch are imported inside the commands, so that everything else works without them.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cardiacreg.cli.heart import heart_options, told
from cardiacreg.cli.presets import spacing_option
from cardiacreg.cli.report import PAGE as PAGE_NAME, page_of, report_option, with_inputs
from cardiacreg.cli.result import accept_failed_option, echo_result, findings_kept_for_the_end
from cardiacreg.cli.support import (
    EXIT_CODES,
    Extras,
    as_cell,
    atlas_options,
    echo_json,
    progress_lines,
    say,
)
from cardiacreg.compute.progress import PAGE, REFINE, SAVE, SEGMENT, parts_of_command
from cardiacreg.errors import InputWarning, InvalidInputError

if TYPE_CHECKING:
    from cardiacreg.geometry import LabelMap, Subject
    from cardiacreg.refinement.views import View
    from cardiacreg.results.result import RefineResult

SEGMENT_FILES = ("segmentation.nii.gz", "segmentation_landmarks.json", "segmentation.json")
PROBABILITIES_FILE = "segmentation_probabilities.nii.gz"
VIEW_FILES = tuple(f"segmentation_view_{number}.nii.gz" for number in range(1, 52))
"""As many as a refinement may have views, in their order."""
_LEAST_AGREEMENT = 0.5

_Command = Callable[..., Any]


def _network_options(command: _Command) -> _Command:
    """Add what both commands share."""
    options = [
        click.option(
            "-i", "--input", "image", required=True, type=click.Path(readable=False), metavar="IMG",
            help="Short-axis image, NIfTI.",
        ),
        click.option(
            "-o", "--output", required=True, metavar="OUT",
            type=click.Path(readable=False, path_type=Path),
            help="Folder for the results; made when missing.",
        ),
        click.option(
            "--weights", type=click.Path(readable=False), metavar="FILE|NAME",
            help="A .safetensors file with its card, or the name of weights that are installed, as "
            "unet2d_synthetic; the best that are when absent.",
        ),
        click.option("--frame", type=click.IntRange(min=0), help="Which frame of a 4-D file."),
        click.option("--device", help="cpu, cuda, cuda:1, ...; a GPU when there is one."),
        click.option(
            "--turn", type=click.Choice(["over", "none", "any"]), default="over", show_default=True,
            help="Rotations by right angles to try: base first or last, none, or quarter turns too.",
        ),
        click.option("--overwrite", is_flag=True, help="Replace an earlier result in OUT."),
        click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON."),
        click.option("-q", "--quiet", is_flag=True, help="No progress."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return spacing_option(command)


@click.command(epilog=EXIT_CODES)
@_network_options
@click.option(
    "--probabilities", "with_probabilities", is_flag=True,
    help="Also write segmentation_probabilities.nii.gz, for cardiacreg refine --probabilities.",
)  # fmt: skip
@click.option(
    "--all-frames", is_flag=True,
    help="Segment all frames of a 4-D file together: one orientation, and neighbours in time that agree. "
    "segmentation.nii.gz is then 4-D, for cardiacreg refine --frames.",
)  # fmt: skip
def segment(
    output: Path,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
    with_probabilities: bool,
    all_frames: bool,
    **inputs: Any,
) -> None:
    """Segment an image and find its six landmarks.

    Writes segmentation.nii.gz (1 LV cavity, 2 LV wall, 3 RV wall, 4 RV cavity, on the image's own
    lattice), segmentation_landmarks.json and, last, segmentation.json, which names the weights and
    their licence.
    """
    from cardiacreg.io.kept_inputs import files_of
    from cardiacreg.io.output_folder import all_or_nothing, check_output

    every = (*SEGMENT_FILES, PROBABILITIES_FILE)
    how: Any = {"overwrite": overwrite, "inputs": files_of(inputs["image"], inputs["weights"])}
    check_output(output, every, **how)
    if all_frames:
        if with_probabilities or inputs["frame"] is not None:
            raise click.UsageError("--all-frames does not go with --probabilities or --frame.")
        _segment_cine(output, every, how, as_json=as_json, quiet=quiet, inputs=inputs)
        return
    subject = _predict(**inputs)
    names = (*_names(subject), *([PROBABILITIES_FILE] if with_probabilities else []))
    with all_or_nothing(output, names, outdated=every, **how) as stage:
        _write_segmentation(stage, subject)
        if with_probabilities:
            _write_probabilities(stage, subject)
    found = _summary(subject)
    if as_json:
        echo_json(found | {"folder": output})
        return
    for name, volume in found["volumes_ml"].items():
        click.echo(f"{name:12s} {'-' if volume is None else f'{volume:.1f}':>10s} ml")
    if not quiet:
        say(_licence(subject))


@click.command(epilog=EXIT_CODES, short_help="Segment an image and refine the segmentation.")
@_network_options
@heart_options
@atlas_options
@accept_failed_option
@report_option
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
    from cardiacreg.io.kept_inputs import files_of
    from cardiacreg.io.output_folder import check_output
    from cardiacreg.refinement._refine import refine
    from cardiacreg.refinement.options import RefineOptions
    from cardiacreg.results.files import FILE_NAMES, ON_REQUEST, check_figures

    files = files_of(inputs["image"], inputs["weights"], atlases, *frames, *view_images)
    every = (*SEGMENT_FILES, *VIEW_FILES, *ON_REQUEST, *FILE_NAMES)
    how: Any = {"overwrite": overwrite, "inputs": files}
    check_output(output, every, **how)
    check_figures()
    options = told(RefineOptions(metadata=only, selection=selection), coverage, orientation)
    steps = (SEGMENT, REFINE, *((PAGE,) if with_report else ()), SAVE)
    with progress_lines(quiet) as progress, findings_kept_for_the_end():
        parts = parts_of_command(progress, only=steps)
        with parts.step(SEGMENT):
            subject = _predict(**inputs)
            others = _other_frames(frames, **inputs)
            views = _seen_views(view_images, subject, **inputs)
        result = refine(
            subject.labels, image=subject.image, landmarks=subject.landmarks,
            probabilities=subject.metadata["probabilities"], atlases=atlases, frames=others,
            views=views, options=options, threads=threads, progress=parts.of(REFINE),
        )  # fmt: skip
        result = _named(result, subject)
        stack = {"segmentation": output / SEGMENT_FILES[0], "preset": None, "frame": None}
        result = with_inputs(result, output, stack | {"image": inputs["image"]})
        extras = Extras()
        with extras.attempt(PAGE_NAME):
            shown = dict.fromkeys((*stack, "image"))
            extras.files |= page_of(result, with_report, shown, parts)
        with parts.step(SAVE):
            _save(result, subject, views, extras.files, output, {"outdated": every, **how})
    extras.say(output)
    seen = output / (PAGE_NAME if PAGE_NAME in extras.files else "qc.png")
    notes = () if quiet else (_licence(subject), f"look at {seen}")
    echo_result(
        result, output, as_json=as_json, accept_failed=accept_failed, notes=notes,
        more={"network": subject.metadata["network"]},
    )  # fmt: skip
    extras.end()


def _save(
    result: RefineResult,
    subject: Subject,
    views: Sequence[View],
    extras: Mapping[str, bytes],
    output: Path,
    how: Mapping[str, Any],
) -> None:
    """Write the segmentations and the model; they appear together."""
    from cardiacreg.io.atomic_write import write_bytes_atomically
    from cardiacreg.io.output_folder import all_or_nothing
    from cardiacreg.results.files import FILE_NAMES, besides, write_files

    names = (*_names(subject), *VIEW_FILES[: len(views)], *extras, *besides(result), *FILE_NAMES)
    with all_or_nothing(output, names, **how) as stage:
        _write_segmentation(stage, subject)
        _write_views(stage, views)
        for name, content in extras.items():
            write_bytes_atomically(stage / name, content)
        write_files(result, stage)


def _named(result: RefineResult, subject: Subject) -> RefineResult:
    """Return a result that says what it was segmented from, and by which network."""
    provenance = {**result.provenance, "network": subject.metadata["network"]}
    return replace(result, provenance=provenance, target=replace(result.target, name=subject.name))


def _predict(image: str, *, cine: bool = False, **options: Any) -> Any:
    """Return the segmented subject, or those of all frames of a cine."""
    network = _network()
    return network.predict_cine(image, **options) if cine else network.predict(image, **options)


def _network() -> Any:
    """Import the package of the network."""
    try:
        import cardiacreg_nn

        cardiacreg_nn.predict  # noqa: B018  (loads what it needs)
    except ImportError as error:
        raise InvalidInputError(
            f"the network needs torch and safetensors ({error.__cause__ or error}); install them with: "
            'pip install "cardiacreg[nn]".',
            code="NO_TORCH",
        ) from error
    return cardiacreg_nn


def _seen_views(
    files: Sequence[str], subject: Subject, *, frame: int | None, device: str | None, **others: Any
) -> list[View]:
    """Segment long-axis views, and leave out those that show no heart or another place of it."""
    from cardiacreg.refinement.views import View, check_view_count

    check_view_count(len(files))
    found = []
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
        share = _network().agreement_with_stack(seen.labels, subject.labels)
        if share is None or share < _LEAST_AGREEMENT:
            said = "nowhere in the stack" if share is None else f"with a Dice of {share:.2f}"
            _leave_out(
                file,
                f"its left ventricle agrees with that of the stack {said}; needs "
                f"{_LEAST_AGREEMENT}. Look at the view, and whether it is of the same heart in the "
                "same world.",
            )
            continue
        found.append(View(seen.labels, image=seen.image, name=seen.name or ""))
    return found


def _seen_view(file: str, *, frame: int | None, **how: Any) -> Subject:
    """Segment a view, in the same frame as the stack where the view has several."""
    from cardiacreg.io.label_values import ONE_FRAME

    try:
        seen = _network().predict_view(file, frame=frame, **how)
    except InvalidInputError as error:
        if error.code != ONE_FRAME:
            raise
        seen = _network().predict_view(file, **how)
    return seen  # type: ignore[no-any-return]


def _leave_out(file: str, why: str) -> None:
    warnings.warn(f"the view {Path(file).name} is left out: {why}", InputWarning, stacklevel=3)


def _write_views(place: Path, views: Sequence[View]) -> None:
    from cardiacreg.io.nifti import write_labels

    for name, view in zip(VIEW_FILES, views, strict=False):
        write_labels(os.fspath(place / name), view.segmentation, description=view.name[:79])


def _other_frames(frames: Sequence[str | int], **inputs: Any) -> list[LabelMap]:
    """Segment other frames of the patient: images, or frames of the same image."""
    found = []
    for each in frames:
        which = {"frame": each} if isinstance(each, int) else {"image": each, "frame": None}
        found.append(_predict(**inputs | which).labels)
    return found


def _licence(subject: Subject) -> str:
    network = subject.metadata["network"]
    return f"weights {network.get('name')}, licence {network.get('licence', 'unknown')}"


def _summary(subject: Subject) -> dict[str, Any]:
    from cardiacreg.anatomy.volumes import structure_volumes_ml

    return {
        "name": subject.name,
        "volumes_ml": structure_volumes_ml(subject.labels),
        "landmarks": subject.metadata["landmarks"],
        "network": subject.metadata["network"],
    }


def _names(subject: Subject) -> list[str]:
    """The files that a segmentation gives; landmarks are not found in every image."""
    return [n for n in SEGMENT_FILES if subject.landmarks is not None or "landmarks" not in n]


def _segment_cine(
    output: Path,
    every: Sequence[str],
    how: dict[str, Any],
    *,
    as_json: bool,
    quiet: bool,
    inputs: dict[str, Any],
) -> None:
    """Segment all frames together, write them, and show volumes over time."""
    from cardiacreg.io.landmark_files import write_json
    from cardiacreg.io.nifti import write_label_frames
    from cardiacreg.io.output_folder import all_or_nothing

    given = {name: value for name, value in inputs.items() if name != "frame"}
    frames = _predict(cine=True, **given)
    found = {
        "name": frames[0].name,
        "network": frames[0].metadata["network"],
        "frames": [_frame_summary(each) for each in frames],
    }
    names = (SEGMENT_FILES[0], SEGMENT_FILES[2])
    with all_or_nothing(output, names, outdated=every, **how) as stage:
        write_label_frames(stage / names[0], [each.labels for each in frames])
        write_json(stage / names[1], found)
    if as_json:
        echo_json(found | {"folder": output})
        return
    _echo_frames(found["frames"])
    if not quiet:
        say(_licence(frames[0]))


def _frame_summary(subject: Subject) -> dict[str, Any]:
    import numpy as np

    from cardiacreg.anatomy.volumes import structure_volumes_ml

    held = subject.labels.array.any(axis=(0, 1))
    return {
        "frame": subject.metadata["frame"],
        "volumes_ml": structure_volumes_ml(subject.labels),
        "slices_with_heart": np.flatnonzero(held).tolist(),
    }


def _echo_frames(frames: Sequence[dict[str, Any]]) -> None:
    names = list(frames[0]["volumes_ml"])
    click.echo(f"{'frame':>5s}" + "".join(f"{name + ' ml':>14s}" for name in names))
    for each in frames:
        cells = [f"{as_cell(each['volumes_ml'][name], 1):>14s}" for name in names]
        click.echo(f"{each['frame']:5d}{''.join(cells)}")


def _write_probabilities(place: Path, subject: Subject) -> None:
    import numpy as np

    from cardiacreg.io.nifti import write_volume_frames

    found = np.moveaxis(subject.metadata["probabilities"], 0, 3)
    matrix = subject.labels.voxel_to_world
    write_volume_frames(place / PROBABILITIES_FILE, np.ascontiguousarray(found), matrix)


def _write_segmentation(place: Path, subject: Subject) -> None:
    from cardiacreg.io.landmark_files import write_json, write_landmarks
    from cardiacreg.io.nifti import write_labels

    network = subject.metadata["network"]
    note = f"{network.get('name')}; weights {network.get('licence', 'unknown licence')}"
    write_labels(os.fspath(place / SEGMENT_FILES[0]), subject.labels, description=note)
    if subject.landmarks is not None:
        write_landmarks(place / SEGMENT_FILES[1], subject.landmarks)
    write_json(place / SEGMENT_FILES[2], _summary(subject))
