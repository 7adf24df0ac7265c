"""``cardiacreg cohort``: every patient of a manifest, and what became of them."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cardiacreg.cli.heart import ORIENTATIONS, chosen_options, coverage_words
from cardiacreg.cli.model import surface_formats_option
from cardiacreg.cli.presets import meaning_options, one_meaning, spacing_option
from cardiacreg.cli.report import report_option
from cardiacreg.cli.support import (
    EXIT_CODES,
    EXIT_REFINEMENT,
    atlas_options,
    echo_json,
    in_options,
    say,
)
from cardiacreg.compute.progress import ProgressBar

if TYPE_CHECKING:
    from cardiacreg.cohort._refine_cohort import CohortRun
    from cardiacreg.cohort.overview import CohortStatus
    from cardiacreg.cohort.task import Outcome

_LINE_SECONDS = 10.0
_EACH = 50
"""Cohorts of at most this size are told patient by patient."""


class _RunByDefault(click.Group):
    """A group that takes what is no name of a command of its own for arguments of ``run``."""

    def parse_args(self, context: click.Context, arguments: list[str]) -> list[str]:
        """Put ``run`` before arguments that name no command."""
        if arguments and arguments[0] not in (*self.commands, *context.help_option_names):
            arguments = ["run", *arguments]
        return super().parse_args(context, arguments)


def shard_words(
    context: click.Context, parameter: click.Parameter, word: str | None
) -> tuple[int, int] | None:
    """Turn ``3/10`` into its numbers."""
    if word is None:
        return None
    number, _, count = word.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise click.BadParameter(f"{word!r}; needs I/N with 1 <= I <= N, as 3/10.")
    return int(number), int(count)


@click.group(
    cls=_RunByDefault,
    epilog=EXIT_CODES,
    short_help="Refine many patients, or tell how far that is.",
)
def cohort() -> None:
    """Refine many patients (cardiacreg cohort MANIFEST -o OUT), or tell how far that is.

    What names no command is taken for arguments of run; see cardiacreg cohort run --help.
    """


@cohort.command(epilog=EXIT_CODES)
@click.argument("manifest", type=click.Path(readable=False, path_type=Path))
@click.option(
    "-o", "--output", required=True, type=click.Path(readable=False, path_type=Path), metavar="OUT",
    help="Folder for the results; any number of runs may share it, and a later one goes on in it.",
)  # fmt: skip
@click.option(
    "--workers", type=click.IntRange(min=1),
    help="Processes on this computer, by dask.distributed; every CPU when nothing else is said.",
)  # fmt: skip
@click.option(
    "--scheduler", metavar="ADDRESS", help="A running dask scheduler, as tcp://host:8786."
)
@click.option(
    "--shard", metavar="I/N", callback=shard_words,
    help="Part I of N, one patient after the other and without dask: for job arrays.",
)  # fmt: skip
@click.option(
    "--time-limit", "time_limit_seconds", type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS", help="Longest time for one patient.",
)  # fmt: skip
@click.option(
    "--memory-limit", "memory_limit_mib", type=click.FloatRange(min=0, min_open=True),
    metavar="MIB", help="Most memory for one patient.",
)  # fmt: skip
@click.option(
    "--threads", type=click.IntRange(min=1), default=1, show_default=True,
    help="For one patient.",
)  # fmt: skip
@atlas_options
@meaning_options()
@meaning_options("views", prefix="view-")
@click.option(
    "--no-views",
    "use_views",
    is_flag=True,
    flag_value=False,
    default=True,
    help="Leave out long-axis views that are found.",
)
@spacing_option
@click.option(
    "--coverage", multiple=True, metavar="[END=]WORD", callback=coverage_words,
    help="As for refine.",
)  # fmt: skip
@click.option("--orientation", type=click.Choice(ORIENTATIONS), help="As for refine.")
@click.option(
    "--spacing", "spacing_mm", nargs=3, type=float, default=(1.25, 1.25, 2.0), show_default=True,
    help="Spacing of the models in mm.",
)  # fmt: skip
@click.option(
    "--method", type=click.Choice(["default", "fast", "paper"]), default="default",
    show_default=True, help="As for refine.",
)  # fmt: skip
@report_option
@surface_formats_option("--surfaces")
@click.option(
    "--accept-failed", is_flag=True, help="End with exit code 0 although patients failed."
)
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def run(
    manifest: Path,
    output: Path,
    workers: int | None,
    scheduler: str | None,
    shard: tuple[int, int] | None,
    method: str,
    only: tuple[tuple[str, tuple[str, ...]], ...],
    selection: str,
    coverage: Mapping[str, str],
    orientation: str | None,
    preset: str | None,
    mapping: dict[int, int] | None,
    view_preset: str | None,
    view_mapping: dict[int, int] | None,
    with_report: bool,
    formats: tuple[str, ...],
    accept_failed: bool,
    as_json: bool,
    quiet: bool,
    **how: Any,
) -> None:
    """Refine every patient of a manifest or a folder.

    MANIFEST is a CSV or Parquet file with the columns subject and labels and, where there are any,
    image, frames, views, landmarks and preset, or a folder with a folder per patient. Run again, it goes
    on: what is complete and unchanged is skipped, and a report or surfaces that are asked for later are
    made of the saved models. Exit code 3 says that patients failed; the others are
    done.
    """
    from cardiacreg.cohort._refine_cohort import refine_cohort
    from cardiacreg.compute.threads import available_threads

    if sum(each is not None for each in (workers, scheduler, shard)) > 1:
        raise click.UsageError("Give one of --workers, --scheduler and --shard.")
    if workers is None and scheduler is None and shard is None:
        cpus = available_threads()
        workers, shard = (None, (1, 1)) if cpus == 1 else (cpus, None)
    options = chosen_options(method, coverage, orientation, only, selection)
    with _told_to_go_on(), _lines(quiet) as lines:
        found = refine_cohort(
            manifest, output, preset=one_meaning(preset, mapping),
            view_preset=one_meaning(view_preset, view_mapping, "view-"), options=options,
            workers=workers, scheduler=scheduler, shard=shard, report=with_report, surfaces=formats,
            progress=lines, **how,
        )  # fmt: skip
    if as_json:
        echo_json(found.described())
    else:
        _echo_run(found, page=with_report)
    if found.counts["failed"] and not accept_failed:
        raise click.exceptions.Exit(EXIT_REFINEMENT)


@contextmanager
def _told_to_go_on() -> Iterator[None]:
    """Say after an interruption how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        say("what is done is kept; the same command goes on from there.")
        raise


@contextmanager
def _lines(quiet: bool) -> Iterator[_Lines | None]:
    """Give what tells of a cohort: with a bar on a terminal."""
    if quiet:
        yield None
    elif not sys.stderr.isatty():
        yield _Lines()
    else:
        with ProgressBar(leave=False) as bar:
            yield _Lines(bar)


class _Lines:
    """Tells of every patient of a small cohort, of those that fail in a large one, and how far it is."""

    def __init__(self, bar: ProgressBar | None = None) -> None:
        self._last, self._bar = time.monotonic(), bar
        self._say = say if bar is None else bar.write

    def __call__(self, run: CohortRun, outcome: Outcome) -> None:
        if outcome.state == "failed":
            message = in_options(" ".join(outcome.message.split()))
            self._say(f"failed [{outcome.code}] {outcome.subject}: {message}")
        elif run.total <= _EACH:
            note = f" ({', '.join(outcome.findings)})" if outcome.findings else ""
            self._say(f"{outcome.state} {outcome.subject}{note}")
        if outcome.state != "failed" and outcome.message:
            self._say(
                f"warning: {outcome.subject}: {in_options(' '.join(outcome.message.split()))}"
            )
        if self._bar is not None:
            self._bar(run, outcome)
        elif time.monotonic() - self._last >= _LINE_SECONDS and run.total > _EACH:
            self._last = time.monotonic()
            counts = ", ".join(f"{number} {state}" for state, number in sorted(run.counts.items()))
            left = run.seconds * (run.total / max(run.n_settled, 1) - 1)
            self._say(
                f"{run.n_settled} of {run.total}: {counts}; {run.seconds:.0f} s, about {left:.0f} s left"
            )


def _echo_run(run: CohortRun, *, page: bool) -> None:
    states = {
        "done": "done", "skipped": "complete since an earlier run", "failed": "failed",
        "busy": "at work in another run",
    }  # fmt: skip
    parts = [f"{run.counts[state]} {words}" for state, words in states.items() if run.counts[state]]
    click.echo(f"{run.total} patients in {run.seconds:.0f} s: {', '.join(parts) or 'none'}")
    for code, number in sorted(run.codes.items()):
        click.echo(f"  failed {code}: {number}")
    for code, number in sorted(run.findings.items()):
        click.echo(f"  to be looked at, {code}: {number}")
    what = "for tables and a page that leads to the reports" if page else "for tables"
    more = " --page" if page else ""
    click.echo(f"results in {run.output}; {what}: cardiacreg cohort status {run.output}{more}")


@cohort.command(epilog=EXIT_CODES)
@click.argument(
    "outputs", nargs=-1, required=True, type=click.Path(readable=False, path_type=Path),
    metavar="OUT...",
)  # fmt: skip
@click.option(
    "-o", "--tables", type=click.Path(readable=False, path_type=Path), metavar="DIR",
    help="Folder for the tables; OUT when it is one and nothing is said.",
)  # fmt: skip
@click.option(
    "--page", is_flag=True, help="Also write cohort.html, to look at patients and their pictures."
)
@click.option(
    "--bids", type=click.Path(readable=False, path_type=Path), metavar="DIR",
    help="Also add every finished patient to a folder of BIDS derivatives.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
def status(
    outputs: tuple[Path, ...], tables: Path | None, page: bool, bids: Path | None, as_json: bool
) -> None:
    """Tell what is done of a cohort, and write tables of all patients.

    OUT is a folder that cardiacreg cohort wrote; several are merged, as of shards on computers that share
    no disk. Writes cohort.csv (a row per patient), measures.csv, summary.json and, with pyarrow,
    cohort.parquet.
    """
    from cardiacreg.cohort.overview import cohort_status

    if tables is None and len(outputs) > 1:
        raise click.UsageError("Several folders are merged into one of their own: give -o DIR.")
    place = tables or outputs[0]
    found = cohort_status(*outputs, tables=place, bids=bids)
    if page:
        from cardiacreg.reports.cohort import write_cohort_report

        made = write_cohort_report(place / "cohort.csv", place / "cohort.html", overwrite=True)
        found.tables = (*found.tables, made)
    if as_json:
        echo_json(found.described() | {"tables": found.tables})
        return
    _echo_status(found)


def _echo_status(found: CohortStatus) -> None:
    counts = dict(found.counts) | {"missing": found.n_missing}
    parts = [f"{number} {state}" for state, number in sorted(counts.items()) if number]
    hours = found.processor_seconds / 3600
    click.echo(f"{found.expected} patients: {', '.join(parts)}; {hours:.2f} processor hours")
    for subject, code, message in found.failed:
        click.echo(f"  failed [{code}] {subject}: {in_options(' '.join(message.split()))}")
    for code, number in sorted(found.findings.items()):
        click.echo(f"  to be looked at, {code}: {number}")
    for what, each in (("versions", found.versions), ("sets of options", found.options)):
        if len(each) > 1:
            say(f"warning: results of {len(each)} {what} ({', '.join(map(str, each))})")
    click.echo(f"written: {', '.join(str(path) for path in found.tables)}")
