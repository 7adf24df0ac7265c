"""``cardiacreg refine --frames`` and ``cardiacreg refine PATIENT_FOLDER``: all that a patient has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cardiacreg.cli.report import PAGE as PAGE_NAME, page_of, page_of_patient, with_inputs
from cardiacreg.cli.support import (
    Extras,
    ProgressLines,
    as_cell,
    echo_json,
    in_options,
    progress_lines,
    say,
)
from cardiacreg.compute.progress import PAGE, REFINE, SAVE, TRANSFORMS, Parts, parts_of_command
from cardiacreg.errors import RefinementError

if TYPE_CHECKING:
    from cardiacreg.cine.result import CineResult
    from cardiacreg.cohort._refine_patient import PatientResult
    from cardiacreg.cohort.patients import PatientFiles
    from cardiacreg.refinement.options import RefineOptions

_FAILED = "FAILED_AGREEMENT"
_SINGLE_FRAME = ("landmarks", "probabilities", "frame", "frames")
_USUAL_FRAMES = 25
"""Of a cine."""
_SHOWN = ("EDV", "ESV", "SV", "EF", "M")
_WORDS = {
    "landmarks": "--landmarks",
    "probabilities": "--probabilities",
    "frame": "--frame",
    "frames": "--other-frame",
}


def frames_word(
    context: click.Context, parameter: click.Parameter, word: str | None
) -> str | tuple[int, ...] | None:
    """Turn ``0,5,9`` into numbers of frames, and leave ``all`` and ``ED,ES``."""
    if word is None or word.lower() == "all" or word.upper().replace(" ", "") == "ED,ES":
        return word and word.replace(" ", "").lower().replace("ed,es", "ED,ES")
    numbers = [part.strip() for part in word.split(",")]
    if not all(number.isdecimal() for number in numbers):
        raise click.BadParameter(f"{word!r}; needs all, ED,ES or numbers of frames as 0,5,9.")
    return tuple(int(number) for number in numbers)


def refine_frames(
    output: Path,
    frames: str | tuple[int, ...],
    options: RefineOptions,
    *,
    overwrite: bool,
    accept_failed: bool,
    with_report: bool,
    surface: bool,
    transforms: tuple[str, ...],
    as_json: bool,
    quiet: bool,
    inputs: dict[str, Any],
) -> None:
    """Refine the frames of a cine, save them and show their volumes.

    Parameters
    ----------
    output : pathlib.Path
    frames : str or tuple of int
        As for `refine_cine`.
    options : RefineOptions
    overwrite, accept_failed, with_report, surface, as_json, quiet : bool
        As the command was told.
    transforms : tuple of str
        Formats to write them in.
    inputs : dict
        What is left of the command's options.
    """
    from cardiacreg.cine._refine_cine import refine_cine
    from cardiacreg.cine.files import FILE_NAMES, ON_REQUEST, save_cine, transform_contents
    from cardiacreg.cli.result import findings_kept_for_the_end
    from cardiacreg.io.kept_inputs import files_of
    from cardiacreg.io.output_folder import check_output
    from cardiacreg.refinement.views import sources_of
    from cardiacreg.results.files import check_figures

    _leave_single_frame_options(inputs, surface, transforms)
    given = (inputs[name] for name in ("segmentation", "image", "atlases"))
    files = files_of(*given, *sources_of(inputs["views"]))
    check_output(output, (*FILE_NAMES, *ON_REQUEST), overwrite=overwrite, inputs=files)
    check_figures()
    asked = {TRANSFORMS: transforms, PAGE: with_report}
    only = (REFINE, *(name for name, is_asked in asked.items() if is_asked), SAVE)
    with progress_lines(quiet) as progress, findings_kept_for_the_end():
        parts = parts_of_command(
            progress, n_frames=number_of(frames), together=True, phases=2, only=only
        )
        result = refine_cine(frames=frames, options=options, progress=parts.of(REFINE), **inputs)
        shown = inputs | {"frame": None}
        result = with_inputs(replace(result, input_files=files), output, shown)
        extras = Extras()
        with parts.step(TRANSFORMS), extras.attempt("transforms"):
            extras.files |= transform_contents(result) if transforms else {}
        with extras.attempt(PAGE_NAME):
            extras.files |= page_of(result, with_report, shown, parts)
        with parts.step(SAVE):
            save_cine(result, output, overwrite=overwrite, more=extras.files)
    show_cine(result, output, extras, as_json=as_json, quiet=quiet, accept_failed=accept_failed)


def show_cine(
    result: CineResult,
    output: Path,
    extras: Extras,
    *,
    as_json: bool,
    quiet: bool,
    accept_failed: bool,
    notes: Sequence[str] = (),
) -> None:
    """Show the volumes of a cine that was saved, where to look, and every finding.

    Parameters
    ----------
    result : CineResult
    output : pathlib.Path
    extras : Extras
    as_json, quiet, accept_failed : bool
        As the command was told.
    notes : sequence of str
        Lines before the one that says where to look.
    """
    from cardiacreg.cine.files import cine_summary

    extras.say(output)
    if as_json:
        echo_json(cine_summary(result) | {"folder": output})
    else:
        _echo_table(result, output)
    if not quiet and not as_json:
        for note in (*notes, _where_to_look(output, PAGE_NAME in extras.files)):
            say(note)
    _end_with_findings(result, output, accept_failed=accept_failed)
    extras.end()


def _leave_single_frame_options(
    inputs: dict[str, Any], surface: bool, transforms: tuple[str, ...]
) -> None:
    """Take options of a single frame away; refuse those that were given."""
    if surface:
        raise click.UsageError("--frames does not go with --surface.")
    unused = [name for name in _SINGLE_FRAME if inputs.pop(name) not in (None, (), [])]
    if unused:
        raise click.UsageError(
            f"--frames does not go with {' and '.join(_WORDS[name] for name in unused)}."
        )
    if set(transforms) - {"npz"}:
        raise click.UsageError("--frames writes --transforms npz only.")
    if not inputs.pop("check_spacing", True):
        raise click.UsageError("--frames does not go with --no-check-spacing.")


def _where_to_look(place: Path, with_report: bool) -> str:
    """Name the page of a cine, or the figure that is there, and how to have the page."""
    if with_report:
        return f"look at {place / PAGE_NAME}"
    return f"look at {place / 'curves.png'}; for slices and cuts: cardiacreg report {place}"


def number_of(frames: str | tuple[int, ...]) -> int:
    """How many frames there will be, as far as that is known before the file is read."""
    if isinstance(frames, str):
        return 2 if frames == "ED,ES" else _USUAL_FRAMES
    return len(frames)


def _echo_table(result: CineResult, output: Path) -> None:
    curves = result.volumes_ml
    click.echo(f"{'frame':>5s} {'phase':6s}" + "".join(f"{name + ' ml':>14s}" for name in curves))
    for position, frame in enumerate(result.frames):
        phase = {result.ed: "ED", result.es: "ES"}.get(position, "")
        phase += " *" if frame.filled_in else ""
        cells = [f"{as_cell(frame.volumes_ml[name], 1):>14s}" for name in curves]
        click.echo(f"{frame.number:5d} {phase:6s}{''.join(cells)}")
    if any(frame.filled_in for frame in result.frames):
        click.echo("* no labels: filled in from the neighbours in time")
    shares = [
        f"{side} {100 * value:.1f} %"
        for side, value in result.ejection_fractions.items()
        if value is not None
    ]
    click.echo(
        f"ejection fraction {', '.join(shares) or 'unknown'}; smallest Jacobian "
        f"{result.minimum_jacobian:.3f}; written to {output}"
    )


def _end_with_findings(result: CineResult, output: Path, *, accept_failed: bool) -> None:
    """Write findings to stderr, of single frames those that most do not share; then fail or not."""
    for finding in result.findings:
        say(f"warning [{finding.code}]: {in_options(finding.message)}")
    shared, failed = {finding.code for finding in result.findings}, []
    for frame in result.frames:
        for finding in frame.findings:
            if finding.code not in shared:
                say(
                    f"warning [{finding.code}]: frame {frame.number}: {in_options(finding.message)}"
                )
            failed += [f"frame {frame.number}: {finding.found}"] if finding.code == _FAILED else []
    if failed and not accept_failed:
        raise RefinementError(
            f"failed refinement: {failed[0]}; the files in {output} are there to look at.",
            code=_FAILED,
        )


def check_one_input(patient: Path | None, segmentation: str | None) -> None:
    """Refuse both a folder and a file, and neither."""
    if (patient is None) == (segmentation is None):
        raise click.UsageError("Give a segmentation (-i SEG) or a PATIENT_FOLDER, one of them.")


def refine_folder(
    patient: Path,
    output: Path,
    options: RefineOptions,
    *,
    overwrite: bool,
    accept_failed: bool,
    as_json: bool,
    quiet: bool,
    with_report: bool,
    inputs: dict[str, Any],
    unused: dict[str, Any],
) -> None:
    """Refine every frame in a patient's folder, save them and show the measures.

    Parameters
    ----------
    patient, output : pathlib.Path
    options : RefineOptions
    overwrite, accept_failed, as_json, quiet, with_report : bool
        As the command was told.
    inputs : dict
        What is left of the command's options.
    unused : dict
        Options that do not go with a folder, by their names.
    """
    from cardiacreg.cli.result import findings_kept_for_the_end
    from cardiacreg.cohort._refine_patient import (
        check_patient_output,
        patient_summary,
        refine_patient,
    )
    from cardiacreg.cohort.patients import find_patient
    from cardiacreg.io.kept_inputs import files_of
    from cardiacreg.results.files import check_figures

    del inputs["segmentation"]
    words = _WORDS | {"image": "--image", "views": "--view"}
    unused |= {word: inputs.pop(name) for name, word in words.items()}
    if wrong := [word for word, value in unused.items() if value not in (None, (), [], False)]:
        raise click.UsageError(f"A PATIENT_FOLDER does not go with {' and '.join(wrong)}.")
    found = find_patient(patient)
    if not quiet:
        for line in found.lines():
            say(line)
    place, names = output / found.subject, [frame.name for frame in found.frames]
    files = files_of(*found.files().values(), inputs["atlases"])
    check_patient_output(place, names, overwrite=overwrite, inputs=files)
    check_figures()
    with progress_lines(quiet) as progress, findings_kept_for_the_end():
        parts = _parts_of_folder(progress, found, with_report)
        result = refine_patient(found, options=options, progress=parts.of(REFINE), **inputs)
        extras = Extras()
        with parts.step(PAGE) as within, extras.attempt(PAGE_NAME):
            if with_report:
                extras.files[PAGE_NAME] = page_of_patient(result, within)
        page = extras.files.get(PAGE_NAME)
        with parts.step(SAVE):
            result.save(place, overwrite=overwrite, page=page)
    extras.say(place)
    if as_json:
        echo_json(patient_summary(result) | {"folder": place})
    else:
        _echo_measures(result, place)
    if not quiet and not as_json:
        seen = (
            [place / PAGE_NAME]
            if page is not None
            else [place / n / "qc.png" for n in result.frames]
        )
        say(f"look at {' and '.join(map(str, seen))}")
    _end_with_frames(result, place, accept_failed=accept_failed)
    extras.end()


def _parts_of_folder(progress: ProgressLines, found: PatientFiles, with_report: bool) -> Parts:
    """Return the parts of the work: of a series end-diastole and end-systole are refined."""
    n_frames = 2 if found.series is not None else len(found.frames)
    only = (REFINE, *((PAGE,) if with_report else ()), SAVE)
    return parts_of_command(progress, n_frames=n_frames, phases=min(2, n_frames), only=only)


def _echo_measures(result: PatientResult, place: Path) -> None:
    click.echo(f"{'':4s}" + "".join(f"{name:>9s}" for name in _SHOWN) + "   ml, ml, ml, %, g")
    rows = () if result.measures is None else result.measures.table()
    values = {row.name: row.value for row in rows}
    for side in ("LV", "RV"):
        cells = [as_cell(values.get(f"{side}{name}"), 1) for name in _SHOWN]
        click.echo(f"{side:4s}" + "".join(f"{cell:>9s}" for cell in cells))
    for name, frame in result.frames.items():
        dice = [f"{structure} {as_cell(d, 3)}" for structure, d in frame.agreement.items()]
        click.echo(f"{name}: agreement with the input {', '.join(dice)}")
    click.echo(
        f"measured at {' and '.join(result.phases)}; the rest, and a folder per frame, written to {place}"
    )


def _end_with_frames(result: PatientResult, place: Path, *, accept_failed: bool) -> None:
    """Write every finding to stderr; the last line is an error where a frame failed."""
    failed = []
    for frame, finding in result.findings:
        about = f"{frame}: {finding.message}" if frame else finding.message
        say(f"warning [{finding.code}]: {in_options(about)}")
        failed += [f"{frame}: {finding.found}"] if finding.code == _FAILED else []
    if failed and not accept_failed:
        raise RefinementError(
            f"failed refinement: {failed[0]}; the files in {place} are there to look at.",
            code=_FAILED,
        )
