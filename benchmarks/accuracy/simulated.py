"""Unseen synthetic hearts, degraded to thick shifted slices, refined and interpolated.

True labels go in. The default votes by labels and would give the same with an image; the paper method is
measured without an image here, and eq. (5) in `fusion_modes`. What a network's labels of the same hearts
give is measured by `network_labels`.
"""

from __future__ import annotations

from typing import Any

from benchmarks.harness import paper, plots, tabulate
from benchmarks.harness.cases import synthetic_hearts
from benchmarks.harness.measuring import BASELINES, interpolated_unit, refined_unit
from benchmarks.harness.store import gather
from cardiacreg.refinement.options import RefineOptions

DEFAULT = "cardiacreg"
PAPER = "paper method, labels only"
VOLUMES = {"LV cavity": ("volume_error_ml", "ml"), "RV cavity": ("volume_error_ml", "ml")}
MASSES = {"LV wall": ("mass_error_g", "g"), "RV wall": ("mass_error_g", "g")}
GOALS = {"LV cavity": 0.974, "LV wall": 0.938, "RV cavity": 0.95}
QUANTITIES = {
    structure: (f"true_{figure.replace('_error', '')}", figure, unit)
    for structure, (figure, unit) in (VOLUMES | MASSES).items()
}


def run(quick: bool, cases: int = 40) -> dict[str, Any]:
    """Measure the default and the paper method against both interpolations."""
    units = []
    for heart in synthetic_hearts(2 if quick else cases):
        units += [interpolated_unit(heart, method) for method in BASELINES]
        units.append(refined_unit(heart, DEFAULT))
        units.append(refined_unit(heart, PAPER, options=RefineOptions.paper()))
    records = gather("simulated", units)
    return {"seeds": sorted({r["seed"] for r in records}), "records": records}


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return the tables of Dice, distances, volumes and shifts."""
    records = result["records"]
    walls, cavities = ("LV wall", "RV wall"), ("LV cavity", "RV cavity")
    others = [*BASELINES, PAPER]
    figure_table = tabulate.figure_table
    return {
        "simulated-dice": figure_table(
            records, "dice", alignments=("raw", "tilt"), quoted=(paper.DICE_NAME, paper.DICE)
        ),
        "simulated-regions": _regions(records),
        "simulated-means": tabulate.means_table(records),
        "simulated-hausdorff-slicewise": figure_table(
            records, "hausdorff_slicewise_mm", alignments=("raw", "tilt"), digits=2,
            quoted=(paper.DICE_NAME, paper.HAUSDORFF_SLICEWISE_MM),
        ),
        "simulated-hausdorff": figure_table(records, "hausdorff_mm", digits=2),
        "simulated-hausdorff95": figure_table(records, "hausdorff95_mm", digits=2),
        "simulated-surface": figure_table(records, "average_surface_distance_mm", digits=2),
        "simulated-staircase": tabulate.staircase_table(records),
        "simulated-volumes": figure_table(
            records, "volume_error_ml", structures=cavities, digits=1, absolute=True,
            quoted=(paper.VOLUMES_NAME, paper.VOLUMES_ML),
        ),
        "simulated-masses": figure_table(
            records, "mass_error_g", structures=walls, digits=1, absolute=True,
            quoted=(paper.VOLUMES_NAME, paper.MASSES_G),
        ),
        "simulated-agreement": tabulate.agreement_table(records, VOLUMES | MASSES),
        "simulated-robustness": tabulate.robustness_table(records),
        "simulated-groups": _by_group(records),
        "simulated-shifts": tabulate.shift_table(records),
        "simulated-significance": tabulate.comparison_table(records, DEFAULT, others),
        "simulated-significance-tilt": tabulate.comparison_table(records, DEFAULT, others, "tilt"),
        "simulated-significance-distance": tabulate.comparison_table(
            records, DEFAULT, others, figure="average_surface_distance_mm", digits=2
        ),
    }  # fmt: skip


def plots_of(result: dict[str, Any]) -> dict[str, Any]:
    """Return box plots of Dice and distances, and the Bland-Altman plot."""
    records = result["records"]
    names = {PAPER: "paper method"}
    figures = {
        "simulated-dice": plots.boxes(
            records, "dice", "Dice after translation and tilt", alignment="tilt", names=names,
            goals=GOALS,
        ),
        "simulated-hausdorff": plots.boxes(
            records, "hausdorff_slicewise_mm", "slice-wise Hausdorff, mm, raw", names=names
        ),
    }  # fmt: skip
    if tabulate.values(records, DEFAULT, "LV cavity", "true_volume_ml"):
        methods = tabulate.methods(records)
        figures["simulated-agreement"] = plots.bland_altman(records, QUANTITIES, methods)
    return figures


def _regions(records: list[dict[str, Any]]) -> str:
    """Raw Dice of the default and of shape-based interpolation in each third of the LV."""
    rows = []
    for method in (DEFAULT, "shape-based"):
        for region in ("apex", "mid", "base"):
            cells = [
                tabulate.mean_sd(tabulate.values(records, method, structure, f"dice_{region}"))
                for structure in tabulate.ORDER
            ]
            rows.append([f"{method}, {region} third", *cells])
    return tabulate.markdown(["Dice, raw", *tabulate.ORDER], rows)


def _by_group(records: list[dict[str, Any]]) -> str:
    chosen = [
        record | {"method": f"{record['group'].replace('_', ' ')}, {record['phase']}"}
        for record in records
        if record["method"] == DEFAULT
    ]
    return tabulate.figure_table(chosen, "dice")
