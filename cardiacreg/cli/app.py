"""The command line: ``cardiacreg refine``, ``segment``, ``run``, ``evaluate``, ``presets``, ...

Modules that take time to load are imported inside the commands, so that ``--help`` is quick.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cardiacreg import __version__
from cardiacreg.cli.atlas import atlas
from cardiacreg.cli.cohort import cohort
from cardiacreg.cli.demo import demo
from cardiacreg.cli.doctor import cache, doctor
from cardiacreg.cli.heart import chosen_options, heart_options, paired_views
from cardiacreg.cli.model import (
    convert,
    evaluate,
    measure,
    mesh,
    meshes_of,
    surface_formats_option,
    surfaces,
)
from cardiacreg.cli.patient import check_one_input, frames_word, refine_folder, refine_frames
from cardiacreg.cli.presets import (
    frame_option,
    meaning_options,
    one_meaning,
    presets,
    spacing_option,
)
from cardiacreg.cli.report import PAGE as PAGE_NAME, page_of, report, report_option, with_inputs
from cardiacreg.cli.result import (
    accept_failed_option,
    bids_option,
    echo_result,
    findings_kept_for_the_end,
    transforms_of,
    transforms_option,
    verify,
)
from cardiacreg.cli.run import run as run_both
from cardiacreg.cli.segment import segment
from cardiacreg.cli.simulate import simulate
from cardiacreg.cli.support import EXIT_CODES, Extras, SafeGroup, atlas_options, progress_lines
from cardiacreg.compute.progress import (
    PAGE,
    REFINE,
    SAVE,
    SURFACES,
    TRANSFORMS,
    parts_of_command,
)

if TYPE_CHECKING:
    from cardiacreg.refinement.options import RefineOptions


_EVERYWHERE = {"max_content_width": 100, "help_option_names": ["-h", "--help"]}


@click.group(cls=SafeGroup, epilog=EXIT_CODES, context_settings=_EVERYWHERE)
@click.version_option(__version__, prog_name="cardiacreg")
def main() -> None:
    """Smooth, complete, high-resolution bi-ventricular models from thick-slice cardiac MR."""


for _command in (
    segment,
    run_both,
    verify,
    surfaces,
    mesh,
    measure,
    report,
    convert,
    cohort,
    evaluate,
    presets,
    simulate,
    demo,
    atlas,
    cache,
    doctor,
):
    main.add_command(_command)


@main.command(epilog=EXIT_CODES)
@click.argument(
    "patient", required=False, type=click.Path(readable=False, path_type=Path),
    metavar="[PATIENT_FOLDER]",
)  # fmt: skip
@click.option(
    "-i",
    "--input",
    "segmentation",
    type=click.Path(readable=False),
    metavar="SEG",
    help="Short-axis segmentation: NIfTI, .nrrd, .seg.nrrd, .mha or .mgz.",
)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(readable=False, path_type=Path),
    metavar="OUT",
    help="Folder for the results; made when missing.",
)
@click.option(
    "--image",
    type=click.Path(readable=False),
    metavar="IMG",
    help="The short-axis image. Labels alone are fused; the image is drawn in the figure, is evidence of "
    "the orientation, and is used by --select-by image.",
)
@click.option(
    "--landmarks",
    type=click.Path(readable=False),
    metavar="FILE",
    help="The six landmarks: JSON, .mrk.json, .fcsv, or a .vtk or .vtp that states its space; derived "
    "from the segmentation when absent.",
)
@click.option(
    "--probabilities",
    type=click.Path(readable=False),
    metavar="FILE",
    help="How probable a network finds each value of the segmentation: .npz of nnU-Net, or NIfTI with "
    "the classes along the fourth axis. A clear voxel then holds the model, a doubtful one gives way.",
)
@atlas_options
@meaning_options()
@frame_option
@spacing_option
@click.option(
    "--frames",
    "cine_frames",
    metavar="all|ED,ES|0,5,9",
    callback=frames_word,
    help="Refine all frames of a 4-D segmentation together, those at end-diastole and end-systole, or "
    "some by their numbers. Writes labels.nii.gz (4-D), volumes.csv, curves.png and cine.json.",
)
@heart_options
@click.option(
    "--view",
    "views",
    multiple=True,
    type=click.Path(readable=False),
    metavar="FILE",
    help="Segmentation of a long-axis view, or of any other plane of the same heart in the same world: "
    "it shows where the ventricles end and how the whole stack is shifted. May be repeated.",
)
@click.option(
    "--view-image",
    "view_images",
    multiple=True,
    type=click.Path(readable=False),
    metavar="FILE",
    help="Image of each view, in the order of --view; or, without --view, images of views that nobody "
    "segmented. With --image they tell how slices and views are shifted.",
)
@meaning_options("views", prefix="view-")
@click.option(
    "--spacing",
    "spacing_mm",
    nargs=3,
    type=float,
    default=(1.25, 1.25, 2.0),
    show_default=True,
    help="Spacing of the model in mm.",
)
@click.option(
    "--method",
    type=click.Choice(["default", "fast", "paper"]),
    default="default",
    show_default=True,
    help="Recommended, nearly as good in two thirds of the time, or the method as published.",
)
@click.option("--threads", type=click.IntRange(min=1), help="Every CPU when absent.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier result in OUT.")
@accept_failed_option
@surface_formats_option("--surfaces")
@click.option("--surface", is_flag=True, help="Also draw the heart from outside: surface.png.")
@transforms_option
@bids_option
@report_option
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def refine(
    patient: Path | None,
    output: Path,
    cine_frames: str | tuple[int, ...] | None,
    method: str,
    only: tuple[tuple[str, tuple[str, ...]], ...],
    selection: str,
    coverage: Mapping[str, str],
    orientation: str | None,
    preset: str | None,
    mapping: dict[int, int] | None,
    view_preset: str | None,
    view_mapping: dict[int, int] | None,
    view_images: tuple[str, ...],
    overwrite: bool,
    accept_failed: bool,
    surface: bool,
    with_report: bool,
    formats: tuple[str, ...],
    transforms: tuple[str, ...],
    as_json: bool,
    quiet: bool,
    **inputs: Any,
) -> None:
    """Refine a segmentation into a high-resolution model.

    Writes labels.nii.gz, confidence.nii.gz, landmarks.json, qc.png and, last, result.json. Of a
    PATIENT_FOLDER, in place of -i, every frame that is found is refined, into a folder each in a folder
    of the patient in OUT, with measures.csv; names are known of ACDC, M&Ms, M&Ms-2, ukbb_cardiac,
    nnU-Net and MONAI, others stand in a table, patient.csv.
    """
    inputs["preset"] = one_meaning(preset, mapping)
    of_views = one_meaning(view_preset, view_mapping, "view-")
    inputs["views"] = paired_views(inputs["views"], view_images, of_views)
    options = chosen_options(method, coverage, orientation, only, selection)
    check_one_input(patient, inputs["segmentation"])
    if patient is not None:
        unused = {
            "--frames": cine_frames, "--surface": surface, "--surfaces": formats,
            "--transforms": transforms,
        }  # fmt: skip
        refine_folder(
            patient, output, options, overwrite=overwrite, accept_failed=accept_failed,
            as_json=as_json, quiet=quiet, with_report=with_report,
            inputs=inputs | {"view_preset": of_views}, unused=unused,
        )  # fmt: skip
        return
    if cine_frames is not None:
        if formats:
            raise click.UsageError(
                "--frames does not go with --surfaces; cardiacreg surfaces OUT --frame N writes those of "
                "one."
            )
        refine_frames(
            output, cine_frames, options, overwrite=overwrite, accept_failed=accept_failed,
            with_report=with_report, surface=surface, transforms=transforms, as_json=as_json,
            quiet=quiet, inputs=inputs,
        )  # fmt: skip
        return
    _refine_frame(
        output, options, overwrite=overwrite, accept_failed=accept_failed, surface=surface,
        with_report=with_report, formats=formats, transforms=transforms, as_json=as_json, quiet=quiet,
        inputs=inputs,
    )  # fmt: skip


def _refine_frame(
    output: Path,
    options: RefineOptions,
    *,
    overwrite: bool,
    accept_failed: bool,
    surface: bool,
    with_report: bool,
    formats: tuple[str, ...],
    transforms: tuple[str, ...],
    as_json: bool,
    quiet: bool,
    inputs: dict[str, Any],
) -> None:
    """Refine one frame, save it and show what was found."""
    from cardiacreg.io.kept_inputs import files_of
    from cardiacreg.io.output_folder import check_output
    from cardiacreg.refinement._refine import refine as run
    from cardiacreg.refinement.views import sources_of
    from cardiacreg.results.files import FILE_NAMES, ON_REQUEST, check_figures, save_result

    names = ("segmentation", "image", "landmarks", "probabilities", "atlases")
    given = (inputs[name] for name in names)
    files = files_of(*given, *inputs["frames"], *sources_of(inputs["views"]))
    check_output(output, (*FILE_NAMES, *ON_REQUEST), overwrite=overwrite, inputs=files)
    check_figures()
    asked = {SURFACES: formats, TRANSFORMS: transforms, PAGE: with_report}
    with progress_lines(quiet) as progress, findings_kept_for_the_end():
        parts = parts_of_command(
            progress,
            outside=surface,
            only=(REFINE, *(n for n, is_asked in asked.items() if is_asked), SAVE),
        )
        result = run(options=options, progress=parts.of(REFINE), **inputs)
        result = with_inputs(replace(result, input_files=files), output, inputs)
        extras = Extras()
        with parts.step(SURFACES), extras.attempt("surfaces"):
            extras.files |= meshes_of(result, formats)
        with parts.step(TRANSFORMS), extras.attempt("transforms"):
            extras.files |= transforms_of(result, transforms)
        with extras.attempt(PAGE_NAME):
            extras.files |= page_of(result, with_report, inputs, parts)
        with parts.step(SAVE):
            save_result(result, output, overwrite=overwrite, surface=surface, more=extras.files)
    extras.say(output)
    seen = PAGE_NAME if PAGE_NAME in extras.files else "qc.png"
    notes = () if quiet else (f"look at {output / seen}",)
    echo_result(result, output, as_json=as_json, accept_failed=accept_failed, notes=notes)
    extras.end()
