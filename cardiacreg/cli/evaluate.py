"""``cardiacreg evaluate``: compare a segmentation or model with the truth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cardiacreg.cli.presets import frame_option, meaning_options, one_meaning, spacing_option
from cardiacreg.cli.support import EXIT_CODES, about, as_cell, echo_json, say

if TYPE_CHECKING:
    from cardiacreg.metrics.evaluation import Evaluation

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
@meaning_options("PRED")
@meaning_options("TRUTH", "reference-")
@frame_option
@spacing_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def evaluate(
    prediction: str,
    reference: str,
    preset: str | None,
    mapping: dict[int, int] | None,
    reference_preset: str | None,
    reference_mapping: dict[int, int] | None,
    as_json: bool,
    **how: Any,
) -> None:
    """Compare labels with the truth: overlap, distances in mm, volumes and masses.

    Overlap and distances are measured on TRUTH's lattice, volumes and masses on each map's own.
    """
    from cardiacreg.anatomy.segmentation import gather_segmentation
    from cardiacreg.metrics.evaluation import evaluate_labels

    meaning = one_meaning(preset, mapping)
    labels = gather_segmentation(prediction, preset=meaning, **how)
    meaning = one_meaning(reference_preset, reference_mapping, "reference-")
    with about("reference-"):
        truth = gather_segmentation(reference, preset=meaning, **how)
    found = evaluate_labels(labels.labels, truth.labels)
    if as_json:
        read_as = {"prediction": labels.assumed, "truth": truth.assumed}
        echo_json({"read_as": read_as, **found._asdict()})
        return
    say(f"PRED is read by its {labels.assumed}.")
    say(f"TRUTH is read by its {truth.assumed}.")
    _say_where(found)
    click.echo(table(found.structures))


def _say_where(found: Evaluation) -> None:
    if found.resampled_onto_truth:
        say(
            "the lattices differ: overlap and distances are of PRED resampled onto TRUTH's by nearest "
            "neighbour, volumes of each map as it is."
        )
    for share, first, second in (
        (found.outside_truth, "PRED", "TRUTH"),
        (found.outside_prediction, "TRUTH", "PRED"),
    ):
        if share > 0:
            say(
                f"warning: {100 * share:.1f} % of {first}'s labelled voxels lie outside {second}'s field."
            )


def table(figures: dict[str, dict[str, Any]]) -> str:
    """Return the figures of `compare` as text, a line per structure; distances in mm."""
    lines = [f"{'structure':12s}" + "".join(f"{title:>11s}" for title, _ in COLUMNS.values())]
    for name, row in figures.items():
        cells = [as_cell(row.get(key), digits) for key, (_, digits) in COLUMNS.items()]
        note = row.get("note") or ("in one map only" if row["missed"] else "")
        note = f"  {note}" if note else ""
        lines.append(f"{name:12s}" + "".join(f"{cell:>11s}" for cell in cells) + note)
    return "\n".join(lines)
