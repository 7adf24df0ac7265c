"""How ``cardiacreg refine`` and ``run`` end, and ``cardiacreg verify``, which makes a result again."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cardiacreg.cli.support import (
    EXIT_CODES,
    as_cell,
    echo_json,
    in_options,
    progress_lines,
    say,
)
from cardiacreg.errors import RefinementError, ResultWarning

if TYPE_CHECKING:
    from cardiacreg.results.result import RefineResult

_FAILED = "FAILED_AGREEMENT"
_COLUMNS = (
    ("input ml", "input_ml"),
    ("inside ml", "inside_ml"),
    ("beyond apex ml", "beyond_apex_ml"),
    ("beyond base ml", "beyond_base_ml"),
    ("total ml", "total_ml"),
)


def accept_failed_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the option that lets a command end well although the model does not follow its input."""
    return click.option(
        "--accept-failed",
        is_flag=True,
        help="End with exit code 0 although a structure of the model agrees with the input by less "
        "than 0.5 (failed refinement).",
    )(command)


def transform_words(
    context: click.Context, parameter: click.Parameter, text: str | None
) -> tuple[str, ...]:
    """Turn ``npz,dof`` into the formats of transforms that it names."""
    from cardiacreg.results.transform_files import FORMATS, checked_formats

    words = [word.strip().lower() for word in (text or "").split(",") if word.strip()]
    if not set(words) <= set(FORMATS):
        raise click.BadParameter(f"{text!r}; needs some of {', '.join(FORMATS)}.")
    return checked_formats(words)


def transforms_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--transforms``."""
    return click.option(
        "--transforms", metavar="FORMAT[,FORMAT]", callback=transform_words,
        help="Also write the transforms from the model to every chosen atlas: npz (all of them, "
        "transforms.npz), dof (MIRTK), tfm or h5 (ITK, as atlas_1.tfm); npz only with --frames.",
    )(command)  # fmt: skip


def transforms_of(result: RefineResult, formats: tuple[str, ...]) -> dict[str, bytes]:
    """Return the files of a result's transforms, by name; none where none is asked for."""
    from cardiacreg.results.transform_files import transform_contents

    return transform_contents(result, formats)


def bids_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--bids`` and ``--bids-subject`` to a command that refines a heart, or a patient's folder."""

    @wraps(command)
    def run(*, bids: Path | None, bids_subject: str | None, **options: Any) -> None:
        if bids is None:
            if bids_subject is not None:
                raise click.UsageError("--bids-subject goes with --bids DIR.")
            command(**options)
            return
        from cardiacreg.results.bids import bids_labels, check_bids, write_bids

        place, overwrite, patient = options["output"], options["overwrite"], options["patient"]
        if patient is not None:
            from cardiacreg.cohort.patients import find_patient

            place /= find_patient(patient).subject
        labels = bids_labels(patient or options["segmentation"] or "", bids_subject)
        check_bids(bids, labels, overwrite=overwrite)
        command(**options)
        write_bids(place, bids, subject=labels.stem, overwrite=overwrite)
        if not options["quiet"]:
            say(f"BIDS derivatives of {labels.stem} are in {bids}")

    for option in (
        click.option(
            "--bids-subject", metavar="LABEL",
            help="With --bids: 01 or sub-01_ses-02; that in the input's path, or its name's letters, "
            "when absent.",
        ),
        click.option(
            "--bids", type=click.Path(readable=False, path_type=Path), metavar="DIR",
            help="Also add the result to a folder of BIDS derivatives, as derivatives/cardiacreg.",
        ),
    ):  # fmt: skip
        run = option(run)
    return run


@contextmanager
def findings_kept_for_the_end() -> Iterator[None]:
    """Show no finding while the work goes on: `echo_result` shows them all."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResultWarning)
        yield


def echo_result(
    result: RefineResult,
    output: Path,
    *,
    as_json: bool,
    accept_failed: bool,
    more: Mapping[str, Any] | None = None,
    notes: tuple[str, ...] = (),
) -> None:
    """Show a saved result and end the command.

    Parameters
    ----------
    result : RefineResult
    output : pathlib.Path
        The folder with its files.
    as_json : bool
        Print the summary as JSON in place of the table.
    accept_failed : bool
        End well although the model does not follow its input.
    more : mapping, optional
        Added to the JSON.
    notes : tuple of str
        Lines for stderr, before the findings; left out beside JSON.

    Raises
    ------
    RefinementError
        If a structure of the model agrees with the input by less than 0.5 (FAILED_AGREEMENT) and
        that is not accepted.
    """
    from cardiacreg.results.files import summary

    found = summary(result)
    if as_json:
        echo_json(found | {"folder": output} | dict(more or {}))
    else:
        _echo_table(found, output)
        _echo_views(found["views"])
        for assumption in result.assumptions:
            click.echo(assumption)
        for note in notes:
            say(note)
    _end_with_findings(result, output, accept_failed=accept_failed)


def _echo_table(found: dict[str, Any], output: Path) -> None:
    heads = [f"{head:>{len(head) + 2}s}" for head, _ in _COLUMNS]
    click.echo(f"{'structure':10s}{''.join(heads)}{'mass g':>9s}{'agreement':>11s}")
    for name, volume in found["volumes"].items():
        mass, dice = found["masses_g"].get(name), found["agreement_dice"].get(name)
        cells = [f"{as_cell(volume[key], 1):>{len(head) + 2}s}" for head, key in _COLUMNS]
        click.echo(f"{name:10s}{''.join(cells)}{as_cell(mass, 1):>9s}{as_cell(dice, 3):>11s}")
    click.echo(
        f"smallest Jacobian {found['minimum_jacobian']:.3f}; the chosen atlases differ on "
        f"{100 * found['atlas_diversity']:.0f} % of the heart; written to {output}"
    )


def _echo_views(views: list[dict[str, Any]]) -> None:
    for view in views:
        drawn = [(n, d) for n, d in view["agreement"].items() if d is not None]
        dice = ", ".join(f"{name} {value:.3f}" for name, value in drawn)
        length = math.hypot(*view["shift_mm"])
        click.echo(f"view {view['name']}: shifted by {length:.1f} mm; agreement {dice}")


def _end_with_findings(result: RefineResult, output: Path, *, accept_failed: bool) -> None:
    """Write every finding to stderr; the last line is an error where one of them is a failure."""
    for finding in result.findings:
        say(f"warning [{finding.code}]: {in_options(finding.message)}")
    failed = [finding for finding in result.findings if finding.code == _FAILED]
    if failed and not accept_failed:
        raise RefinementError(
            f"failed refinement: {failed[0].found}; the files in {output} are there to look at.",
            code=_FAILED,
        )


_INPUTS = {
    "segmentation": ("-i", "--input", "The segmentation, where it was moved or is not recorded."),
    "image": ("--image", "The image, likewise."),
    "landmarks": ("--landmarks", "The landmarks, likewise."),
    "atlases": ("--atlases", "The atlases, likewise."),
}


def _input_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for name, (*words, text) in reversed(_INPUTS.items()):
        option = click.option(
            *words, name, type=click.Path(readable=False), metavar="FILE", help=text
        )
        command = option(command)
    return command


@click.command(epilog=EXIT_CODES, short_help="Make a saved result again, and compare.")
@click.argument("folder", metavar="RESULT", type=click.Path(readable=False, path_type=Path))
@_input_options
@click.option("--threads", type=click.IntRange(min=1), help="Every CPU when absent.")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def verify(
    folder: Path, threads: int | None, as_json: bool, quiet: bool, **inputs: str | None
) -> None:
    """Make a saved result again, and compare the labels with the saved ones.

    RESULT is a folder that `cardiacreg refine` wrote; its result.json names inputs, options and versions.
    Says which of these changed. Ends with exit code 3 where the labels differ.
    """
    from cardiacreg.refinement.verification import verify_result

    with progress_lines(quiet) as progress, findings_kept_for_the_end():
        found = verify_result(folder, threads=threads, progress=progress, **inputs)
    verdict, *others = found.sentences
    if as_json:
        echo_json(
            {
                "same_labels": found.same_labels,
                "dice": found.dice,
                "changed_inputs": found.changed_inputs,
                "changed_versions": found.changed_versions,
                "differences": found.differences,
                "folder": folder,
            }
        )
    else:
        click.echo(f"{folder}: {verdict}")
        for each in others:
            click.echo(each)
    if not found.same_labels:
        raise RefinementError(f"{folder}: {verdict}.", code="RESULT_DIFFERS")
