"""Short tables for the pages that are read first: rows and columns of the studies' own tables.

Cells are copied as they stand in the generated tables, so that both pages say the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from benchmarks.harness import tabulate

Tables = Mapping[str, str]
_METHODS = ("nearest neighbour", "shape-based", "cardiacreg")
_ED, _ES = "ACDC, other, ED: {}", "ACDC, other, ES: {}"
_EJECTION, _PHASES = "ACDC, other: {}", "{}, all 25 phases"
_PERCENT, _EF, _MM = "volumes-agreement-percent", "volumes-ejection", "long-axis-ends"
# What is shown of patients: words, table, row with a place for the method, column.
_PATIENTS = (
    ("LV cavity volume at ED, % of the input", _PERCENT, _ED, "LV cavity"),
    ("LV cavity volume at ES, %", _PERCENT, _ES, "LV cavity"),
    ("LV wall volume at ED, %", _PERCENT, _ED, "LV wall"),
    ("RV cavity volume at ED, %", _PERCENT, _ED, "RV cavity"),
    ("RV cavity volume at ES, %", _PERCENT, _ES, "RV cavity"),
    ("LV ejection fraction, points", _EF, _EJECTION, "LV cavity"),
    ("RV ejection fraction, points", _EF, _EJECTION, "RV cavity"),
    ("long axis: base past the mitral points, mm", _MM, _PHASES, "base at the mitral points"),
    ("long axis: apex past the apex point, mm", _MM, _PHASES, "apex at the apex point"),
)


class _Excerpt(NamedTuple):
    """Some columns and rows of a table: their names, # for any number, and what they are called here."""

    table: str
    rows: Mapping[str, str]
    columns: Sequence[str]


_EXCERPTS = {
    "summary-speed": _Excerpt(
        "speed",
        {
            "default, labels only, cold, 2 threads": "first heart ever, kernels are compiled",
            "default, labels only, cached, 2 threads": "first heart of a new process",
            "default, labels only, steady, 2 threads": "each further heart",
            "fast method, labels only, steady, 2 threads": "each further heart, fast method",
        },
        ("seconds", "processor seconds", "peak memory, MiB"),
    ),
    "summary-registration": _Excerpt(
        "peers-shared-front",
        {
            name: name
            for name in (
                "FireANTs greedy",
                "Greedy SSD, velocity",
                "elastix B-spline",
                "ANTs label SyN",
            )
        },
        (
            "surface distance, mm",
            "processor seconds",
            "its distance, mm",
            "its processor seconds",
            "times fewer",
        ),
    ),
    "summary-comparison": _Excerpt(
        "comparison-best",
        {
            "another method, raw": "raw",
            "another method, after translation and tilt": "after translation and tilt",
        },
        ("LV cavity", "LV wall", "RV cavity", "RV wall"),
    ),
    "summary-overlap": _Excerpt(
        "summary-findings",
        {
            f"{data} (#), {view}": ""
            for data, views in {
                "real anatomies, cut into slices": ("raw", "after translation and tilt"),
                "the same with a four- and a two-chamber view": ("raw",),
                "unseen synthetic hearts": ("raw", "after translation and tilt"),
                "ACDC, hidden slices": ("raw",),
                "AutoFD, hidden slices": ("raw",),
            }.items()
            for view in views
        },
        ("LV cavity", "LV wall", "RV cavity", "RV wall"),
    ),
    "summary-orientation": _Excerpt(
        "orientation",
        {
            f"other patients, {words}": f"83 patients, {words}"
            for words in ("labels alone", "labels and image")
        },
        ("frames", "right", "right and sure", "wrong and in doubt", "wrong and sure"),
    ),
    "summary-network": _Excerpt(
        "nn-acdc-dice",
        {
            f"{key}, {phase}": f"{words}, {phase}"
            for key, words in (
                ("unet2d_acdc, folds pooled", "trained on ACDC, five folds"),
                ("unet2d_synthetic", "trained on synthetic hearts alone"),
            )
            for phase in ("ED", "ES")
        },
        ("frames", "LV cavity", "LV wall", "RV cavity"),
    ),
}


def tables(found: Tables) -> dict[str, str]:
    """Return the short tables whose sources are among the tables found."""
    sources = {name: _parse(text) for name, text in found.items()}
    short = {
        name: tabulate.markdown(*_excerpt(each, sources[each.table]))
        for name, each in _EXCERPTS.items()
        if each.table in sources
    }
    if all(table in sources for _, table, _, _ in _PATIENTS):
        rows = [
            [words, *(sources[table][row.format(method)][column] for method in _METHODS)]
            for words, table, row, column in _PATIENTS
        ]
        short["summary-patients"] = tabulate.markdown(
            ["patients, mean ± SD [95 % limits; long axis: range]", *_METHODS], rows
        )
    return short


def _excerpt(
    wanted: _Excerpt, source: Mapping[str, Mapping[str, str]]
) -> tuple[list[str], list[list[str]]]:
    """Return the heading and the rows of a short table; a row that the source lacks is left out."""
    rows = []
    for name, words in wanted.rows.items():
        pattern = re.escape(name).replace(r"\#", r"\d+")
        for row, cells in source.items():
            if re.fullmatch(pattern, row):
                rows.append([words or row, *(cells[column] for column in wanted.columns)])
    return [_title(source), *wanted.columns], rows


def _title(source: Mapping[str, Mapping[str, str]]) -> str:
    """Return the heading of a table's first column."""
    return next(iter(source.values()), {}).get("", "")


def _parse(table: str) -> dict[str, dict[str, str]]:
    """Return the cells of a markdown table by row and column; the key "" gives the first heading."""
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    if len(lines) < 3:
        return {}
    header, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return {row[0]: {"": header[0]} | dict(zip(header[1:], row[1:], strict=False)) for row in rows}
