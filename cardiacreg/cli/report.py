"""``cardiacreg report``: a page to look at a saved result, and ``--report`` of ``cardiacreg refine``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cardiacreg.cli.presets import frame_option, meaning_options, one_meaning
from cardiacreg.cli.support import EXIT_CODES, echo_json, in_options, progress_lines, say
from cardiacreg.compute.progress import PAGE as PART, Parts, parts_of_command

if TYPE_CHECKING:
    from cardiacreg.cine.result import CineResult
    from cardiacreg.cohort._refine_patient import PatientResult
    from cardiacreg.compute.threads import ProgressCallable
    from cardiacreg.reports.inputs import Inputs
    from cardiacreg.results.result import RefineResult

PAGE = "report.html"
"""As `results.files.REPORT`, which takes time to load."""


@click.command(epilog=EXIT_CODES, short_help="Write a page to look at a saved result.")
@click.argument("folder", type=click.Path(readable=False, path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(readable=False, path_type=Path), metavar="HTML",
    help="The page; report.html in FOLDER when absent.",
)  # fmt: skip
@click.option(
    "-i", "--input", "segmentation", type=click.Path(readable=False), metavar="SEG",
    help="The segmentation that was refined; found by itself where FOLDER says where it is.",
)  # fmt: skip
@click.option(
    "--image", type=click.Path(readable=False), metavar="IMG",
    help="The short-axis image, to draw slices over it.",
)  # fmt: skip
@meaning_options()
@frame_option
@click.option(
    "--es", "es_result", type=click.Path(readable=False, path_type=Path), metavar="FOLDER",
    help="Result of end-systole, where FOLDER is end-diastole: for ejection fractions and thickening.",
)  # fmt: skip
@click.option("--height-cm", type=float, help="Height of the body, to index by its surface.")
@click.option("--weight-kg", type=float, help="Weight of the body.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier page.")
@click.option("--json", "as_json", is_flag=True, help="Print the verdict as JSON.")
def report(
    folder: Path,
    output: Path | None,
    preset: str | None,
    mapping: dict[int, int] | None,
    as_json: bool,
    **more: Any,
) -> None:
    """Write a page about a saved result: verdict, pictures, volumes, measures, a view in 3D.

    FOLDER is one that cardiacreg refine wrote, of a frame or of a cine. The page is one HTML file that
    needs nothing else.
    """
    from cardiacreg.reports.case import open_case
    from cardiacreg.reports.inputs import Inputs
    from cardiacreg.reports.report import score_of, verdict_of, write_case

    inputs = Inputs(
        more["segmentation"], more["image"], one_meaning(preset, mapping), more["frame"]
    )
    case = open_case(folder, inputs, more["es_result"])
    with progress_lines(as_json) as lines:
        parts = parts_of_command(lines, phases=len(case.phases), only=(PART,))
        with parts.step(PART) as progress:
            page = write_case(
                case, output or folder / PAGE, inputs=inputs, height_cm=more["height_cm"],
                weight_kg=more["weight_kg"], overwrite=more["overwrite"], progress=progress,
            )  # fmt: skip
    verdict = verdict_of(case)
    if as_json:
        echo_json({"page": page, **verdict._asdict(), "score": score_of(case)})
        return
    click.echo(f"{verdict.word}: {verdict.meaning} Quality score {score_of(case):.2f}.")
    for reason in verdict.reasons:
        click.echo(f"  {in_options(reason)}")
    if case.missing_input:
        say(f"slices are left out: {case.missing_input}; give the segmentation with -i.")
    say(f"look at {page}")


def report_option(command: Any) -> Any:
    """Add ``--report``."""
    return click.option(
        "--report", "with_report", is_flag=True,
        help="Also write report.html: verdict, pictures, volumes, measures, a view in 3D.",
    )(command)  # fmt: skip


_Result = TypeVar("_Result", "RefineResult", "CineResult")


def with_inputs(result: _Result, output: Path, inputs: dict[str, Any]) -> _Result:
    """Let a result say where its stack is, so that a report can be written of its folder alone.

    Parameters
    ----------
    result : RefineResult or CineResult
    output : pathlib.Path
        The folder it is saved to.
    inputs : dict
        As the command was told: segmentation, image, preset, frame.
    """
    from cardiacreg.reports.inputs import note_inputs

    noted = note_inputs(output, _inputs(inputs))
    return replace(result, provenance={**result.provenance, "stack": noted})


def page_of(
    result: RefineResult | CineResult, wanted: bool, inputs: dict[str, Any], parts: Parts
) -> dict[str, bytes]:
    """Return the page of a result by the name of its file; nothing where none is wanted."""
    if not wanted:
        return {}
    from cardiacreg.reports.case import open_case
    from cardiacreg.reports.report import patient_page

    with parts.step(PART) as progress:
        page = patient_page(open_case(result, _inputs(inputs)), progress=progress)
    return {PAGE: page.encode()}


def page_of_patient(result: PatientResult, progress: ProgressCallable | None) -> bytes:
    """Return the page of a patient: end-diastole and end-systole, or the whole cine."""
    from cardiacreg.cohort._refine_patient import body_of
    from cardiacreg.reports.case import open_case
    from cardiacreg.reports.inputs import Inputs
    from cardiacreg.reports.report import patient_page

    files = result.patient
    if result.cine is not None:
        frame = files.frames[0]
        preset: Any = files.preset
        case = open_case(result.cine, Inputs(frame.labels, frame.image, preset))
    else:
        phases = [result.frames[name] for name in result.phases]
        case = open_case(phases[0], Inputs(), *phases[1:2])
    case = replace(case, name=files.subject)
    return patient_page(case, progress=progress, **body_of(files)).encode()


def _inputs(said: dict[str, Any]) -> Inputs:
    from cardiacreg.reports.inputs import Inputs

    return Inputs(*(said[name] for name in ("segmentation", "image", "preset", "frame")))
