"""``cardiacreg evaluate``: compare a segmentation or model with the truth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cardiacreg.cli.support import EXIT_CODES, as_cell, echo_json, say

if TYPE_CHECKING:
    from cardiacreg.geometry import LabelMap

COLUMNS = {
    "dice": ("Dice", 3),
    "hausdorff_slicewise_mm": ("HD slices", 2),
    "hausdorff_mm": ("HD 3D", 2),
    "hausdorff95_mm": ("HD95", 2),
    "average_surface_distance_mm": ("surface", 2),
    "volume_ml": ("ml", 1),
    "true_volume_ml": ("true ml", 1),
    "mass_g": ("g", 1),
    "true_mass_g": ("true g", 1),
}
"""Figure of `cardiacreg.metrics.overlap.compare` to column title and digits."""


@click.command(epilog=EXIT_CODES)
@click.option(
    "-i",
    "--input",
    "prediction",
    required=True,
    type=click.Path(readable=False),
    metavar="PRED",
    help="Labels to judge, NIfTI.",
)
@click.option(
    "-r",
    "--reference",
    required=True,
    type=click.Path(readable=False),
    metavar="TRUTH",
    help="True labels, NIfTI.",
)
@click.option(
    "--preset", metavar="NAME", help="Meaning of the labels in PRED; canonical if absent."
)
@click.option("--reference-preset", metavar="NAME", help="Meaning of the labels in TRUTH.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def evaluate(
    prediction: str, reference: str, preset: str, reference_preset: str, as_json: bool
) -> None:
    """Compare labels with the truth: overlap, distances in mm, volumes and masses."""
    from cardiacreg.anatomy.label_presets import canonical_labels
    from cardiacreg.geometry import same_lattice
    from cardiacreg.io.nifti import read_labels
    from cardiacreg.metrics.overlap import compare

    labels = canonical_labels(read_labels(prediction), preset)
    truth = canonical_labels(read_labels(reference), reference_preset)
    resampled = not same_lattice(labels, truth)
    if resampled:
        labels = _on_lattice(labels, truth)
    figures = compare(labels, truth)
    if as_json:
        echo_json({"resampled_onto_truth": resampled, "structures": figures})
        return
    click.echo(table(figures))


def _on_lattice(labels: LabelMap, truth: LabelMap) -> LabelMap:
    from cardiacreg.metrics.baselines import interpolate_nearest

    say("the lattices differ: PRED is resampled onto TRUTH's by nearest neighbour.")
    return interpolate_nearest(labels, truth)


def table(figures: dict[str, dict[str, Any]]) -> str:
    """Return the figures of `compare` as text, a line per structure; distances in mm."""
    lines = [f"{'structure':12s}" + "".join(f"{title:>11s}" for title, _ in COLUMNS.values())]
    for name, row in figures.items():
        cells = [as_cell(row.get(key), digits) for key, (_, digits) in COLUMNS.items()]
        note = "  in one map only" if row["missed"] else ""
        lines.append(f"{name:12s}" + "".join(f"{cell:>11s}" for cell in cells) + note)
    return "\n".join(lines)
