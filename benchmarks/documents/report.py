"""Put measured tables between the markers of the documents and draw the figures they show.

``python -m benchmarks report`` does both, ``python -m benchmarks plots`` the figures alone.

Tables come from ``benchmarks/results/*.json``; a marker without a result says so. Nothing between
``<!-- table NAME -->`` and ``<!-- end NAME -->`` is ever typed; ``figure-NAME`` shows a drawn figure.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.harness import machine

FIGURES = machine.ROOT / "docs" / "figures"
RESULTS = machine.ROOT / "benchmarks" / "results"
DOCUMENTS = (
    *(
        machine.ROOT / name
        for name in (
            "README.md",
            "docs/usage.md",
            "docs/results.md",
            "docs/performance.md",
            "docs/reliability.md",
            "docs/scaling.md",
        )
    ),
    *sorted((machine.ROOT / "docs" / "studies").glob("*.md")),
)
_FIGURES_HERE = "{docs}/"  # stands for the folder of documents, as seen from the one that is filled
MARKER = re.compile(r"<!-- table (?P<name>[\w-]+) -->\n(?P<body>.*?)<!-- end (?P=name) -->", re.S)


def main(*, figures_only: bool = False) -> int:
    """Fill every marker of every document, and draw every figure."""
    draw(RESULTS, FIGURES)
    if figures_only:
        return 0
    found = collect(RESULTS)
    for document in DOCUMENTS:
        if document.exists():
            text = document.read_text(encoding="utf-8")
            document.write_text(fill(text, found, document.parent), encoding="utf-8")
            print(f"{document.name}: {len(MARKER.findall(text))} tables")
    return 0


def collect(folder: Path) -> dict[str, str]:
    """Return every table of every stored result, by marker name."""
    from benchmarks.__main__ import load
    from benchmarks.documents import excerpts, summary

    tables = {"presets": presets()} | _pictures_of(sorted(FIGURES.glob("*.png")))
    results = {}
    for file in sorted(folder.glob("*.json")):
        result = json.loads(file.read_text(encoding="utf-8"))
        results[result["benchmark"]] = result
        make = getattr(load(result["benchmark"]), "tables", None)
        if make is not None:
            tables |= make(result)
        tables[f"{result['benchmark']}-machine"] = describe(result)
    tables |= summary.tables(results)
    return tables | excerpts.tables(tables)


def _pictures_of(files: Iterable[Path]) -> dict[str, str]:
    """Return a line that shows each drawn figure; `fill` makes its links relative to the document."""
    place = f"{_FIGURES_HERE}{FIGURES.name}"
    return {
        f"figure-{file.stem}": (
            f"![{file.stem.replace('-', ' ')}]({place}/{file.name}) "
            f"([SVG]({place}/{file.stem}.svg))"
        )
        for file in files
        if file.with_suffix(".svg").exists()
    }


def draw(results: Path, folder: Path) -> list[Path]:
    """Draw the figures of every stored result into a folder; return the files written."""
    from benchmarks.__main__ import load
    from benchmarks.harness import plots

    written = []
    for file in sorted(results.glob("*.json")):
        result = json.loads(file.read_text(encoding="utf-8"))
        make = getattr(load(result["benchmark"]), "plots_of", None)
        with plots.style():
            for name, figure in (make(result) if make else {}).items():
                written += plots.save(figure, folder, name)
    return written


def presets() -> str:
    """Return the label values of every preset."""
    from benchmarks.harness.tabulate import markdown
    from cardiacreg.anatomy.preset_tables import ALIASES, PRESETS
    from cardiacreg.geometry import STRUCTURES

    rows = []
    for name, mapping in PRESETS.items():
        also = ", ".join(f"`{alias}`" for alias, known in ALIASES.items() if known == name)
        values = [
            ", ".join(str(value) for value, label in mapping.items() if label == wanted) or "–"
            for wanted in STRUCTURES
        ]
        rows.append([f"`{name}`", *values, also or "–"])
    return markdown(["preset", *STRUCTURES.values(), "also called"], rows)


def describe(result: dict[str, Any]) -> str:
    """Return one line on what a result was measured with."""
    found = result["machine"]
    quick = "a **quick** run, " if result["quick"] else ""
    if result.get("left_out"):
        quick += f"an **unfinished** run ({result['left_out']} measurements left out), "
    return (
        f"Measured with {quick}`python -m benchmarks {result['benchmark']}`{_count(result)}: cardiacreg "
        f"{found['cardiacreg']} at commit {found['commit']}, Python {found['python']}, NumPy "
        f"{found['numpy']}, Numba {found['numba']}, {_peers(result)}{found['processor']}, "
        f"{found['cpus']} CPUs."
    )


def _count(result: dict[str, Any]) -> str:
    """Tell on how many cases, where a benchmark has cases."""
    records = result.get("records", [])
    cases = {record.get("case") for record in records if isinstance(record, dict)} - {None}
    return f" on {len(cases)} cases" if len(cases) > 1 else ""


def _peers(result: dict[str, Any]) -> str:
    """Versions of the packages that a comparison used."""
    found = result["machine"].get("others", {}) if result["benchmark"] == "comparison" else {}
    return "".join(f"{name} {found[name]}, " for name in ("SimpleITK", "antspyx") if name in found)


def fill(text: str, tables: dict[str, str], folder: Path = FIGURES.parent) -> str:
    """Return a document, which lies in a folder, with every marked place filled."""
    docs = os.path.relpath(FIGURES.parent, folder)
    place = "" if docs == os.curdir else f"{docs}/"

    def table(found: re.Match[str]) -> str:
        name = found["name"]
        body = tables.get(name, "Not measured yet.").replace(_FIGURES_HERE, place)
        return f"<!-- table {name} -->\n{body}\n<!-- end {name} -->"

    return MARKER.sub(table, text)
