"""Unseen synthetic hearts, degraded to thick shifted slices, refined and interpolated.

The default votes by labels and would give the same with an image; the paper preset is measured without an
image here, and eq. (5) in `fusion_modes`.
"""

from __future__ import annotations

from typing import Any

from benchmarks import tabulate
from benchmarks.cases import synthetic_cases
from benchmarks.measuring import BASELINES, interpolated, refined, rounded
from cardiacreg.options import RefineOptions

DEFAULT = "cardiacreg"
PAPER = "paper preset, labels only"


def run(quick: bool) -> dict[str, Any]:
    """Measure the default and the paper preset against both interpolations."""
    records = []
    for case in synthetic_cases(2 if quick else 20):
        records += [interpolated(case, method) for method in BASELINES]
        records.append(refined(case, DEFAULT))
        records.append(refined(case, PAPER, options=RefineOptions.paper()))
    return {"seeds": sorted({r["seed"] for r in records}), "records": rounded(records)}


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return the tables of Dice, distances, volumes and shifts."""
    records = result["records"]
    walls, cavities = ("LV wall", "RV wall"), ("LV cavity", "RV cavity")
    return {
        "simulated-dice": tabulate.figure_table(records, "dice", alignments=("raw", "tilt")),
        "simulated-hausdorff-slicewise": tabulate.figure_table(
            records, "hausdorff_slicewise_mm", alignments=("raw", "tilt"), digits=2
        ),
        "simulated-hausdorff": tabulate.figure_table(records, "hausdorff_mm", digits=2),
        "simulated-hausdorff95": tabulate.figure_table(records, "hausdorff95_mm", digits=2),
        "simulated-surface": tabulate.figure_table(
            records, "average_surface_distance_mm", digits=2
        ),
        "simulated-volumes": tabulate.figure_table(
            records, "volume_error_ml", structures=cavities, digits=1, absolute=True
        ),
        "simulated-masses": tabulate.figure_table(
            records, "mass_error_g", structures=walls, digits=1, absolute=True
        ),
        "simulated-groups": _by_group(records),
        "simulated-shifts": tabulate.shift_table(records),
        "simulated-significance": tabulate.comparison_table(records, DEFAULT, [*BASELINES, PAPER]),
    }


def _by_group(records: list[dict[str, Any]]) -> str:
    chosen = [
        record | {"method": f"{record['group'].replace('_', ' ')}, {record['phase']}"}
        for record in records
        if record["method"] == DEFAULT
    ]
    return tabulate.figure_table(chosen, "dice")
