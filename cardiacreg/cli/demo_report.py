"""The report of the demo: one HTML file that needs nothing else, and the figures behind its tables."""

from __future__ import annotations

import base64
import html
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cardiacreg.anatomy.label_presets import PRESETS
from cardiacreg.cli.support import as_cell
from cardiacreg.geometry import LV_CAVITY, LV_WALL, RV_CAVITY, RV_WALL, STRUCTURES, LabelMap
from cardiacreg.io.landmark_files import write_json
from cardiacreg.io.output_folder import all_or_nothing
from cardiacreg.results.qc_comparison import draw_cuts_with_truth, draw_slices_with_truth
from cardiacreg.results.qc_figure import draw_qc_figure, png_bytes
from cardiacreg.results.result import RefineResult
from cardiacreg.results.surface_figure import Scene, draw_looks, make_scene

FILE_NAME = "report.html"
NUMBERS = "measures.json"
Figures = dict[str, dict[str, dict[str, Any]]]

_TRUTH = "truth"
_METHODS = {
    "nearest_neighbour": "nearest neighbour",
    "shape_based": "shape-based interpolation",
    "as_published": "as published (2019)",
    "refined": "cardiacreg",
}
_MEASURES = (
    ("dice", "Overlap (Dice)", 3, "1 is perfect."),
    ("average_surface_distance_mm", "Mean surface distance, mm", 2, "0 is perfect."),
    ("hausdorff95_mm", "95 % Hausdorff distance, mm", 2, "5 % of the surface is farther off."),
    ("hausdorff_mm", "Hausdorff distance, mm", 2, "The farthest point of the surface."),
    ("hausdorff_slicewise_mm", "Hausdorff distance in slices, mm", 2,
     "The farthest point of the outline, mean over thin slices, as in the paper."),
    ("volume_error_ml", "Volume error, ml", 1, "Model minus truth."),
)  # fmt: skip
_OF_PRESETS = {
    "sslln": "this software's own labels",
    "digital_heart": "Digital Heart, no RV wall",
    "acdc": "ACDC challenge",
    "mms": "M&Ms, M&Ms-2, UK Biobank",
    "totalsegmentator": "TotalSegmentator, current",
    "totalsegmentator_v1": "TotalSegmentator, version 1",
    "mmwhs": "MM-WHS challenge",
    "myops": "MyoPS, MS-CMRSeg",
    "emidec": "EMIDEC, no RV",
    "mms_scar": "M&Ms values and scar",
    "acdc_scar": "ACDC values and scar",
}
_PRESET_ORDER = (LV_CAVITY, LV_WALL, RV_WALL, RV_CAVITY)
_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 1180px; margin: 0 auto; padding: 1em;
       color: #222; background: #fff; }
h1 { margin: .4em 0 0; } h2 { margin: 1.6em 0 .3em; } h3 { font-size: 1em; margin: 1em 0 0; }
figure { margin: 1.2em 0; } figcaption { color: #444; margin: .2em 0 .4em; }
img { width: 100%; height: auto; display: block; }
table { border-collapse: collapse; margin: .3em 0; font-variant-numeric: tabular-nums; }
th, td { padding: .2em .7em; border-bottom: 1px solid #ddd; text-align: right; font-weight: normal; }
th { color: #444; } th:first-child, td:first-child, .words { text-align: left; }
th:first-child, td:first-child { padding-left: 0; }
td strong { color: #000; } .note { color: #444; margin: 0; }
.tables { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 31em), 1fr));
          column-gap: 2.5em; }
pre { background: #f4f4f4; padding: .7em; white-space: pre-wrap; overflow-wrap: anywhere; }
code { overflow-wrap: anywhere; }
@media (max-width: 640px) { body { font-size: 14px; } th, td { padding: .2em .3em; font-size: 13px; } }
"""


class Demo(NamedTuple):
    """What a demo found: `figures` are what `compare` says of each method."""

    result: RefineResult
    truth: LabelMap
    shape_based: LabelMap
    figures: Figures
    true_shifts_mm: NDArray[np.float64]
    preparation_seconds: float


def write_report(folder: Path, demo: Demo) -> None:
    """Write `FILE_NAME` and `NUMBERS`, in place of earlier ones.

    Parameters
    ----------
    folder : pathlib.Path
    demo : Demo
    """
    page = _page(demo)
    with all_or_nothing(folder, (NUMBERS, FILE_NAME), overwrite=True) as stage:
        write_json(stage / NUMBERS, demo.figures)
        (stage / FILE_NAME).write_text(page, encoding="utf-8")


def _page(demo: Demo) -> str:
    result = demo.result
    columns = {
        "input": result.target.labels, "shape-based": demo.shape_based, "cardiacreg": result.labels,
        _TRUTH: demo.truth,
    }  # fmt: skip
    scene = make_scene(result, columns)
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        "<link rel='icon' href='data:,'><title>cardiacreg demo</title>",
        f"<style>{_STYLE}</style></head><body><h1>cardiacreg demo</h1>",
        _introduction(demo),
        "<h2>What it looks like</h2>",
        *_pictures(demo, scene),
        "<h2>How far from the truth</h2>",
        "<p>Each value compares a method with the truth, everywhere, base and apex included. The best "
        "of a column is bold. This is one heart; the README has the means over many, and patients.</p>",
        "<div class='tables'>",
        *(_table(demo.figures, *measure) for measure in _MEASURES),
        "</div>",
        _shift_sentence(result, demo.true_shifts_mm),
        _time_sentence(demo),
        "<h2>What every refinement writes</h2>",
        _figure(
            "The page qc.png of the result's folder, which needs no truth: input and model, slice "
            "shifts, volumes and findings.",
            draw_qc_figure(result),
        ),
        _your_data(),
        "</body></html>",
    ]
    return "\n".join(parts)


def _introduction(demo: Demo) -> str:
    target, best = demo.result.target.labels, demo.figures["refined"]
    dice = ", ".join(
        f"{html.escape(name)} {row['dice']:.2f}"
        for name, row in best.items()
        if row["dice"] is not None
    )
    return (
        f"<p>A heart whose shape is known was scanned as in a clinic: {target.shape[2]} slices, "
        f"{target.spacing_mm[2]:.0f} mm thick, tilted, shifted by breathing, labelled as experts do. "
        "<b>cardiacreg</b> saw these slices and their labels alone. Its model overlaps with the "
        "truth by (Dice) "
        f"{dice}. The heart is synthetic and none of the atlases was made from it.</p>"
    )


def _pictures(demo: Demo, scene: Scene) -> list[str]:
    return [
        _figure(
            "From the front: the slices make steps, interpolation rounds them and keeps the shifts, "
            "and the model is smooth and complete like the truth.",
            draw_looks(scene, ["front"]),
        ),
        _figure(
            "From the right: where dark blue shows, the thin RV wall (light blue) has a hole, as "
            "interpolation leaves it.",
            draw_looks(scene, ["right"]),
        ),
        _figure(
            "Opened along the LV's long axis: cut walls, and behind them the linings of both cavities.",
            draw_looks(scene, ["opened"]),
        ),
        _figure(
            "Two cuts along the LV's long axis: the closer the colours come to the black outline of "
            "the truth, the better.",
            draw_cuts_with_truth(demo.result, scene, _TRUTH),
        ),
        _figure(
            "Slices from apex to base: above as given, with the input's outlines; below at their "
            "corrected place, with the outlines of the model and of the truth.",
            draw_slices_with_truth(demo.result, scene, _TRUTH),
        ),
    ]


def _figure(caption: str, figure: Figure) -> str:
    data, words = base64.b64encode(png_bytes(figure)).decode(), html.escape(caption, quote=True)
    return (
        f"<figure><figcaption>{words}</figcaption>"
        f'<img alt="{words}" src="data:image/png;base64,{data}"></figure>'
    )


def _table(figures: Figures, key: str, title: str, digits: int, note: str) -> str:
    structures = list(dict.fromkeys(name for rows in figures.values() for name in rows))
    best = {name: _best(figures, name, key, digits) for name in structures}
    head = "".join(f"<th>{html.escape(name)}</th>" for name in structures)
    lines = [
        f"<section><h3>{html.escape(title)}</h3><p class='note'>{html.escape(note)}</p>",
        f"<table data-measure='{key}'><tr><th></th>{head}</tr>",
    ]
    for method, words in _METHODS.items():
        cells = [as_cell(figures[method].get(name, {}).get(key), digits) for name in structures]
        marked = (
            f"<td><strong>{cell}</strong></td>" if cell in best[name] else f"<td>{cell}</td>"
            for name, cell in zip(structures, cells, strict=True)
        )
        lines.append(f"<tr data-method='{method}'><td>{words}</td>{''.join(marked)}</tr>")
    return "\n".join([*lines, "</table></section>"])


def _best(figures: Figures, name: str, key: str, digits: int) -> set[str]:
    """Return the cells of the best methods: those that look the same are equally good."""
    found = [rows.get(name, {}).get(key) for rows in figures.values()]
    values = [round(value, digits) for value in found if value is not None]
    if not values:
        return set()
    wanted = max(values) if key == "dice" else min(map(abs, values))
    return {as_cell(value, digits) for value in values if wanted in (value, abs(value))}


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


def _time_sentence(demo: Demo) -> str:
    result, threads = demo.result, demo.result.provenance["threads"]
    return (
        f"<p>The refinement took <b>{result.timings_seconds['total']:.1f} s</b> on {threads} "
        f"{'thread' if threads == 1 else 'threads'}. What is done once and then kept, compiling and "
        f"opening the atlases, took {demo.preparation_seconds:.1f} s before and is not in it. No "
        f"deformation of an atlas folds: the smallest Jacobian is {result.minimum_jacobian:.3f}, above "
        "0.</p>"
    )


def _your_data() -> str:
    rows = "".join(
        f"<tr><td><code>{name}</code></td><td class='words'>{html.escape(_OF_PRESETS.get(name, ''))}</td>"
        f"{cells}</tr>"
        for name, cells in _preset_cells().items()
    )
    structures = "".join(f"<th>{STRUCTURES[label]}</th>" for label in _PRESET_ORDER)
    return (
        "<h2>Now your data</h2>"
        "<p>You need a short-axis segmentation as NIfTI. On the command line:</p>"
        "<pre>cardiacreg refine -i seg.nii.gz -o out --preset acdc</pre><p>In Python:</p>"
        "<pre>import cardiacreg\n"
        'result = cardiacreg.refine("seg.nii.gz", preset="acdc")\n'
        'result.save("out")</pre>'
        "<p>Choose the preset whose values are those of your labels; a wrong one is refused. If none "
        "fits, give a mapping in Python: <code>preset={1: 4, 2: 2, 3: 1}</code> says which of your "
        "values is 1 LV cavity, 2 LV wall, 3 RV wall, 4 RV cavity. Then look at "
        "<code>out/qc.png</code>.</p>"
        f"<table><tr><th>preset</th><th class='words'>for</th>{structures}</tr>{rows}</table>"
    )


def _preset_cells() -> dict[str, str]:
    """Table cells of each preset: the value of each structure."""
    found = {}
    for name, mapping in PRESETS.items():
        values = {
            label: ", ".join(str(value) for value, role in mapping.items() if role == label)
            for label in _PRESET_ORDER
        }
        found[name] = "".join(f"<td>{values[label] or '–'}</td>" for label in _PRESET_ORDER)
    return found
