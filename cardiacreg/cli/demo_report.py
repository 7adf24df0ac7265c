"""The report of the demo: one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import html
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cardiacreg.cli.support import as_cell
from cardiacreg.io.output_folder import all_or_nothing
from cardiacreg.results.qc_figure import draw_qc_figure, png_bytes
from cardiacreg.results.result import RefineResult
from cardiacreg.results.surface_figure import draw_surface_figure

FILE_NAME = "report.html"
Figures = dict[str, dict[str, dict[str, Any]]]

_ROWS = (
    ("dice", "Dice", 3),
    ("hausdorff_slicewise_mm", "Hausdorff distance, mean over slices (mm)", 2),
    ("hausdorff_mm", "Hausdorff distance (mm)", 2),
    ("hausdorff95_mm", "95 % Hausdorff distance (mm)", 2),
    ("average_surface_distance_mm", "Mean surface distance (mm)", 2),
    ("volume_error_ml", "Volume error (ml)", 1),
)
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1180px; margin: 2em auto; padding: 0 1em;
       color: #222; background: #fff; }
table { border-collapse: collapse; margin: 1em 0; }
th, td { padding: .25em .9em; border-bottom: 1px solid #ddd; text-align: right; }
th:first-child, td:first-child { text-align: left; }
img { width: 100%; }
"""


def write_report(
    folder: Path, figures: Figures, result: RefineResult, true_shifts_mm: NDArray[np.float64]
) -> None:
    """Write `FILE_NAME`, in place of an earlier one.

    Parameters
    ----------
    folder : pathlib.Path
    figures : dict
        Method to what `cardiacreg.metrics.overlap.compare` says of it.
    result : RefineResult
        The default refinement.
    true_shifts_mm : ndarray, shape (n_slices, 2)
        What the simulation shifted the slices by.
    """
    text = _page(figures, result, true_shifts_mm)
    with all_or_nothing(folder, (FILE_NAME,), overwrite=True) as stage:
        (stage / FILE_NAME).write_text(text, encoding="utf-8")


def _page(figures: Figures, result: RefineResult, true_shifts_mm: NDArray[np.float64]) -> str:
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><title>cardiacreg demo</title>",
        f"<style>{_STYLE}</style></head><body><h1>cardiacreg demo</h1>",
        "<p>A synthetic heart that is none of the atlases was turned into a clinical stack of thick, "
        "shifted, tilted slices, refined, and compared with the heart it came from.</p>",
        _picture("input and model from outside", draw_surface_figure(result)),
        _picture("input and model in cuts", draw_qc_figure(result)),
        *(_table(figures, *row) for row in _ROWS),
        _shift_sentence(result, true_shifts_mm),
        f"<p>Refined in {result.timings_seconds['total']:.1f} s on "
        f"{result.provenance['threads']} threads; smallest Jacobian "
        f"{result.minimum_jacobian:.3f}.</p></body></html>",
    ]
    return "\n".join(parts)


def _picture(what: str, figure: Figure) -> str:
    data = base64.b64encode(png_bytes(figure)).decode()
    return f"<img alt='{what}' src='data:image/png;base64,{data}'>"


def _table(figures: Figures, key: str, title: str, digits: int) -> str:
    structures = list(dict.fromkeys(name for rows in figures.values() for name in rows))
    head = "".join(f"<th>{html.escape(name)}</th>" for name in structures)
    lines = [f"<h2>{html.escape(title)}</h2><table><tr><th></th>{head}</tr>"]
    for method, rows in figures.items():
        cells = "".join(
            f"<td>{as_cell(rows.get(name, {}).get(key), digits)}</td>" for name in structures
        )
        lines.append(f"<tr><td>{html.escape(method.replace('_', ' '))}</td>{cells}</tr>")
    return "\n".join([*lines, "</table>"])


def _shift_sentence(result: RefineResult, true_shifts_mm: NDArray[np.float64]) -> str:
    """Compare shifts up to a common one, which moves the whole heart and cannot be seen."""
    shown = (result.target.labels.array > 0).any(axis=(0, 1))
    true, found = true_shifts_mm[shown], result.slice_shifts_mm[shown]
    before = np.linalg.norm(true - np.median(true, axis=0), axis=1).mean()
    rest = true - found
    after = np.linalg.norm(rest - np.median(rest, axis=0), axis=1).mean()
    return (
        f"<p>Slices were displaced by {before:.2f} mm on average relative to each other; after the "
        f"estimated correction {after:.2f} mm remain.</p>"
    )
