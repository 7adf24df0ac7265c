"""``cardiacreg demo``: the whole method on a synthetic heart, judged against its truth."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cardiacreg.cli.simulate import FILE_NAMES as SIMULATED, write_simulation
from cardiacreg.cli.support import EXIT_CODES, progress_lines, say
from cardiacreg.errors import InputWarning, ResultWarning
from cardiacreg.io.kept_inputs import files_of

if TYPE_CHECKING:
    from cardiacreg.geometry import LabelMap, Subject
    from cardiacreg.phantoms.acquisition import LowResolution
    from cardiacreg.refinement.options import RefineOptions
    from cardiacreg.results.result import RefineResult

_GROUP, _PHASE, _SEED = "hypertrophic", "ED", 10_005
"""Nobody of the embedded atlases (`hearts.FIRST_EVALUATION_SEED`); its stack is tilted by 4.4 degrees, an
ordinary one."""
_RESULTS = ("refined", "as_published")
_NUMBERS, _REPORT = "measures.json", "report.html"


@click.command(epilog=EXIT_CODES)
@click.option(
    "-o",
    "--output",
    type=click.Path(readable=False, path_type=Path),
    default=Path("demo_output"),
    show_default=True,
    metavar="DIR",
)
@click.option(
    "--atlases",
    type=click.Path(readable=False),
    metavar="DIR",
    help="Folder of atlases or a built bank; the synthetic population when absent.",
)
@click.option(
    "--spacing",
    "spacing_mm",
    nargs=3,
    type=float,
    default=(1.25, 1.25, 2.0),
    show_default=True,
    help="Spacing of the models in mm.",
)
@click.option("--threads", type=click.IntRange(min=1), help="Every CPU when absent.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier demo.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def demo(output: Path, overwrite: bool, quiet: bool, **how: Any) -> None:
    """Refine a synthetic heart and compare with its truth.

    The heart is none of the embedded atlases. A clinical stack of it is refined by default and as
    published, and compared with the truth beside two ways of interpolating them.
    """
    from cardiacreg.io.landmark_files import write_json
    from cardiacreg.io.output_folder import all_or_nothing, check_output
    from cardiacreg.metrics.overlap import compare
    from cardiacreg.reports.beside_truth import Known, known_page

    check_output(output, _every_name(), overwrite=overwrite, inputs=files_of(how["atlases"]))
    heart, stack = _simulated()
    preparation = _prepared(how)
    results = _refined(stack, quiet, how)
    for name in (_NUMBERS, _REPORT):
        (output / name).unlink(missing_ok=True)
    write_simulation(output / "inputs", heart, stack, overwrite=overwrite)
    for name, result in results.items():
        result.save(output / name, overwrite=overwrite)
    simple = _interpolated(stack)
    models = simple | {name: result.labels for name, result in results.items()}
    figures = {
        name: compare(_on_truth(model, stack.reference), stack.reference)
        for name, model in models.items()
    }
    say("drawing the report ...")
    known = Known(
        results["refined"], stack.reference, simple["shape_based"], figures, stack.slice_shifts_mm,
        preparation,
    )  # fmt: skip
    with all_or_nothing(output, (_NUMBERS, _REPORT), overwrite=True) as stage:
        write_json(stage / _NUMBERS, figures)
        (stage / _REPORT).write_text(known_page(known), encoding="utf-8")
    _echo_figures(figures)
    click.echo(f"look at {output / _REPORT}")


def _simulated() -> tuple[Subject, LowResolution]:
    from cardiacreg.phantoms.acquisition import Degradation
    from cardiacreg.phantoms.hearts import sample_heart

    say("making a heart that no atlas was made from, and its thick slices ...")
    heart = sample_heart(_SEED, group=_GROUP, phase=_PHASE)
    return heart, Degradation().of(heart, seed=_SEED)


def _every_name() -> list[str]:
    """All files of a demo, the report last."""
    from cardiacreg.results.files import FILE_NAMES, SURFACE

    folders = {"inputs": SIMULATED} | dict.fromkeys(_RESULTS, (*FILE_NAMES, SURFACE))
    files = [f"{folder}/{name}" for folder, names in folders.items() for name in names]
    return [*files, _NUMBERS, _REPORT]


def _options() -> dict[str, RefineOptions]:
    """How to refine; the name is that of the folder."""
    from cardiacreg.refinement.options import RefineOptions

    return dict(zip(_RESULTS, (RefineOptions(), RefineOptions.paper()), strict=True))


def _prepared(how: dict[str, Any]) -> float:
    """Compile what is compiled once, so that times do not hold it; in seconds."""
    from cardiacreg.phantoms.toy_heart import make_toy_heart
    from cardiacreg.refinement._refine import refine

    start = time.perf_counter()
    say("compiling, which is kept for the next time ...")
    heart, atlases = make_toy_heart(), [make_toy_heart(size=0.95), make_toy_heart(size=0.9)]
    for options in _options().values():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InputWarning)
            warnings.simplefilter("ignore", ResultWarning)
            refine(
                heart.labels,
                image=heart.image,
                atlases=atlases,
                spacing_mm=(2.5, 2.5, 4.0),
                options=options,
                threads=how["threads"],
            )
    return time.perf_counter() - start


def _refined(stack: LowResolution, quiet: bool, how: dict[str, Any]) -> dict[str, RefineResult]:
    """Refine by default and as published, which is there to be compared: its findings are not told."""
    from cardiacreg.refinement._refine import refine

    labels, image, found = stack.subject.labels, stack.subject.image, {}
    for name, options in _options().items():
        say(f"refining: {name.replace('_', ' ')} ...")
        with progress_lines(quiet) as progress, warnings.catch_warnings():
            if name != _RESULTS[0]:
                warnings.simplefilter("ignore", ResultWarning)
            found[name] = refine(labels, image=image, options=options, progress=progress, **how)
    return found


def _interpolated(stack: LowResolution) -> dict[str, LabelMap]:
    from cardiacreg.metrics.baselines import interpolate_nearest, interpolate_shape_based

    labels, truth = stack.subject.labels, stack.reference
    return {
        "nearest_neighbour": interpolate_nearest(labels, truth),
        "shape_based": interpolate_shape_based(labels, truth),
    }


def _on_truth(model: LabelMap, truth: LabelMap) -> LabelMap:
    from cardiacreg.metrics.baselines import interpolate_nearest

    return interpolate_nearest(model, truth)


def _echo_figures(figures: dict[str, dict[str, dict[str, Any]]]) -> None:
    from cardiacreg.cli.model import table

    for name, rows in figures.items():
        click.echo(f"\n{name.replace('_', ' ')}")
        click.echo(table(rows))
    click.echo()
