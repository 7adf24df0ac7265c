"""``cardiacreg simulate``: a synthetic heart, and the thick-slice stack a scanner would give of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cardiacreg.cli_support import EXIT_CODES

if TYPE_CHECKING:
    from cardiacreg.degradation import LowResolution
    from cardiacreg.geometry import Subject

FILE_NAMES = (
    "truth_labels.nii.gz",
    "truth_image.nii.gz",
    "truth_landmarks.json",
    "labels.nii.gz",
    "image.nii.gz",
    "slice_shifts.json",
)
# The names of cardiacreg.phantoms, written out so that --help need not load it; a test compares.
GROUPS = ("healthy", "pulmonary_hypertension", "dilated", "hypertrophic")
PHASES = ("ED", "ES")


@click.command(epilog=EXIT_CODES)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    required=True,
    help="Which person; from 10000 on, nobody of the embedded atlases.",
)
@click.option("--group", type=click.Choice(GROUPS), default="healthy", show_default=True)
@click.option("--phase", type=click.Choice(PHASES), default="ED", show_default=True)
@click.option("--thickness", type=float, default=10.0, show_default=True, help="Of a slice, mm.")
@click.option(
    "--shift-sd",
    type=float,
    default=2.5,
    show_default=True,
    help="Standard deviation of a slice's shift along each axis, mm.",
)
@click.option("--lost-apical-slices", type=click.IntRange(min=0), default=1, show_default=True)
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), metavar="DIR")
@click.option("--overwrite", is_flag=True, help="Replace files of an earlier simulation.")
def simulate(
    seed: int, group: str, phase: str, output: Path, overwrite: bool, **degradation: Any
) -> None:
    """Make a heart and its thick, shifted, incomplete slices.

    Writes truth_labels.nii.gz, truth_image.nii.gz and truth_landmarks.json; labels.nii.gz and
    image.nii.gz as a scanner would give them; and slice_shifts.json, in mm along the stack's two
    in-plane axes: true position = stored position + shift.
    """
    from cardiacreg._output_folder import check_free
    from cardiacreg.degradation import simulate_low_resolution
    from cardiacreg.phantoms import sample_heart

    check_free(output, FILE_NAMES, overwrite=overwrite)
    heart = sample_heart(seed, group=group, phase=phase)
    stack = simulate_low_resolution(
        heart,
        seed=seed,
        slice_thickness_mm=degradation["thickness"],
        shift_sd_mm=degradation["shift_sd"],
        lost_apical_slices=degradation["lost_apical_slices"],
    )
    write_simulation(output, heart, stack, overwrite=overwrite)
    click.echo(f"{heart.name}: {stack.subject.labels.shape[2]} slices written to {output}")


def write_simulation(
    folder: Path, heart: Subject, stack: LowResolution, *, overwrite: bool
) -> None:
    """Write a heart with image and landmarks, and its stack, as `FILE_NAMES`."""
    from cardiacreg import nifti
    from cardiacreg._output_folder import all_or_nothing
    from cardiacreg.landmark_files import write_json, write_landmarks

    assert heart.image is not None and heart.landmarks is not None
    assert stack.subject.image is not None
    with all_or_nothing(folder, FILE_NAMES, overwrite=overwrite) as stage:
        nifti.write_labels(stage / "truth_labels.nii.gz", stack.reference)
        nifti.write_volume(stage / "truth_image.nii.gz", heart.image)
        write_landmarks(stage / "truth_landmarks.json", heart.landmarks)
        nifti.write_labels(stage / "labels.nii.gz", stack.subject.labels)
        nifti.write_volume(stage / "image.nii.gz", stack.subject.image)
        write_json(stage / "slice_shifts.json", _true_shifts(heart, stack))


def _true_shifts(heart: Subject, stack: LowResolution) -> dict[str, Any]:
    return {
        "meaning": "true position = stored position + shift, along the i and j axes of the slices",
        "unit": "mm",
        "slice_shifts": stack.slice_shifts_mm,
        "heart": heart.metadata,
    }
