"""``cardiacreg simulate``: a synthetic heart, and the thick-slice stack a scanner would give of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cardiacreg.cli.support import EXIT_CODES

if TYPE_CHECKING:
    from cardiacreg.geometry import Subject
    from cardiacreg.phantoms.acquisition import LowResolution
    from cardiacreg.phantoms.long_axis_views import SimulatedView

FILE_NAMES = (
    "truth_labels.nii.gz",
    "truth_image.nii.gz",
    "truth_landmarks.json",
    "labels.nii.gz",
    "image.nii.gz",
    "slice_shifts.json",
)
# The names of cardiacreg.phantoms.hearts and the defaults of Degradation, written out so that --help
# need not load them; a test compares.
GROUPS = ("healthy", "pulmonary_hypertension", "dilated", "hypertrophic")
PHASES = ("ED", "ES")
LABEL_RULES = ("any", "clinical")
VIEWS = ("four_chamber", "two_chamber", "three_chamber")
CLINICAL = {
    "slice_thickness_mm": 10.0,
    "shift_sd_mm": 1.35,
    "tilt_sd_degrees": 5.3,
    "lost_apical_slices": 0,
    "label_rule": "clinical",
    "empty_slices": "random",
}


def _empty_slices(
    context: click.Context, parameter: click.Parameter, value: str
) -> str | tuple[int, int]:
    """Read "random" or two numbers as in "0,2"."""
    if value == "random":
        return value
    try:
        apex, base = (int(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(
            f"{value!r} is neither 'random' nor two numbers such as 0,2."
        ) from None
    return apex, base


def _option(flag: str, name: str, kind: Any, words: str, **more: Any) -> Callable[[Any], Any]:
    """An option whose default is that of a clinical stack."""
    return click.option(
        flag, name, type=kind, default=CLINICAL[name], show_default=True, help=words, **more
    )


@click.command(epilog=EXIT_CODES)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    required=True,
    help="Seed of the heart; from 10000 on, none of the embedded atlases.",
)
@click.option("--group", type=click.Choice(GROUPS), default="healthy", show_default=True)
@click.option("--phase", type=click.Choice(PHASES), default="ED", show_default=True)
@_option("--thickness", "slice_thickness_mm", float, "Of a slice, mm.")
@_option(
    "--shift-sd", "shift_sd_mm", float, "Standard deviation of a slice's shift along each axis, mm."
)
@_option(
    "--tilt-sd",
    "tilt_sd_degrees",
    float,
    "Standard deviation of the stack's tilt about each in-plane axis, degrees.",
)
@_option("--lost-apical-slices", "lost_apical_slices", click.IntRange(min=0), "With labels.")
@_option(
    "--label-rule",
    "label_rule",
    click.Choice(LABEL_RULES),
    "clinical: no LV where less than half of its wall's circumference is seen.",
)
@_option(
    "--empty-slices",
    "empty_slices",
    str,
    "Slices without labels beyond apex and base, as in 0,2; random: 0 to 2 each.",
    callback=_empty_slices,
)
@click.option(
    "--view",
    "views",
    multiple=True,
    type=click.Choice(VIEWS),
    help="Also acquire this long-axis view, with image; repeatable.",
)
@click.option(
    "-o", "--output", required=True, type=click.Path(readable=False, path_type=Path), metavar="DIR"
)
@click.option("--overwrite", is_flag=True, help="Replace files of an earlier simulation.")
def simulate(
    seed: int,
    group: str,
    phase: str,
    views: tuple[str, ...],
    output: Path,
    overwrite: bool,
    **degradation: Any,
) -> None:
    """Make a heart and its thick, tilted, shifted, incomplete slices.

    Writes truth_labels.nii.gz, truth_image.nii.gz and truth_landmarks.json; labels.nii.gz and
    image.nii.gz as a scanner and an expert would give them; and slice_shifts.json, in mm along the
    stack's two in-plane axes: true position = stored position + shift. The defaults are those of a
    clinical stack. A view is written as NAME.nii.gz (labels without RV wall) and NAME_image.nii.gz.
    """
    from cardiacreg.io.output_folder import check_free
    from cardiacreg.phantoms.acquisition import Degradation
    from cardiacreg.phantoms.hearts import sample_heart
    from cardiacreg.phantoms.long_axis_views import simulate_views

    names = tuple(dict.fromkeys(views))
    check_free(output, _file_names(names), overwrite=overwrite)
    heart = sample_heart(seed, group=group, phase=phase)
    stack = Degradation(**degradation).of(heart, seed=seed)
    seen = simulate_views(heart, names, seed=seed)
    write_simulation(output, heart, stack, seen, overwrite=overwrite)
    click.echo(f"{heart.name}: {stack.subject.labels.shape[2]} slices written to {output}")


def _file_names(views: Sequence[str]) -> tuple[str, ...]:
    of_views = [f"{name}{what}.nii.gz" for name in views for what in ("", "_image")]
    return (*FILE_NAMES, *of_views)


def write_simulation(
    folder: Path,
    heart: Subject,
    stack: LowResolution,
    views: Sequence[SimulatedView] = (),
    *,
    overwrite: bool,
) -> None:
    """Write a heart with image and landmarks, its stack as `FILE_NAMES`, and its views."""
    from cardiacreg.io import nifti
    from cardiacreg.io.landmark_files import write_json, write_landmarks
    from cardiacreg.io.output_folder import all_or_nothing

    assert heart.image is not None and heart.landmarks is not None
    assert stack.subject.image is not None
    names = _file_names([view.name for view in views])
    with all_or_nothing(folder, names, overwrite=overwrite) as stage:
        nifti.write_labels(stage / "truth_labels.nii.gz", stack.reference)
        nifti.write_volume(stage / "truth_image.nii.gz", heart.image)
        write_landmarks(stage / "truth_landmarks.json", heart.landmarks)
        nifti.write_labels(stage / "labels.nii.gz", stack.subject.labels)
        nifti.write_volume(stage / "image.nii.gz", stack.subject.image)
        for view in views:
            assert view.subject.image is not None
            nifti.write_labels(stage / f"{view.name}.nii.gz", view.subject.labels)
            nifti.write_volume(stage / f"{view.name}_image.nii.gz", view.subject.image)
        write_json(stage / "slice_shifts.json", _true_shifts(heart, stack, views))


def _true_shifts(
    heart: Subject, stack: LowResolution, views: Sequence[SimulatedView]
) -> dict[str, Any]:
    return {
        "meaning": "true position = stored position + shift, along the i and j axes of the slices",
        "unit": "mm",
        "slice_shifts": stack.slice_shifts_mm,
        "tilt_degrees": stack.tilt_degrees,
        "view_shifts": {view.name: view.shift_mm for view in views},
        "heart": heart.metadata,
    }
