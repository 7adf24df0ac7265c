"""Put measured tables between the markers of the documents: ``python -m benchmarks report``.

Tables come from ``benchmarks/results/*.json``; a marker without a result says so. Nothing between
``<!-- table NAME -->`` and ``<!-- end NAME -->`` is ever typed.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from benchmarks import machine

RESULTS = machine.ROOT / "benchmarks" / "results"
DOCUMENTS = tuple(
    machine.ROOT / name for name in ("README.md", "docs/results.md", "docs/performance.md")
)
MARKER = re.compile(r"<!-- table (?P<name>[\w-]+) -->\n(?P<body>.*?)<!-- end (?P=name) -->", re.S)


def main() -> int:
    """Fill every marker of every document."""
    found = collect(RESULTS)
    for document in DOCUMENTS:
        if document.exists():
            text = document.read_text(encoding="utf-8")
            document.write_text(fill(text, found), encoding="utf-8")
            print(f"{document.name}: {len(MARKER.findall(text))} tables")
    return 0


def collect(folder: Path) -> dict[str, str]:
    """Return every table of every stored result, by marker name."""
    from benchmarks.__main__ import load

    tables = {"presets": presets()}
    for file in sorted(folder.glob("*.json")):
        result = json.loads(file.read_text(encoding="utf-8"))
        make = getattr(load(result["benchmark"]), "tables", None)
        if make is not None:
            tables |= make(result)
        tables[f"{result['benchmark']}-machine"] = describe(result)
    return tables


def presets() -> str:
    """Return the label values of every preset."""
    from benchmarks.tabulate import markdown
    from cardiacreg.geometry import STRUCTURES
    from cardiacreg.label_presets import ALIASES, PRESETS

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
    return (
        f"Measured with {quick}`python -m benchmarks {result['benchmark']}`: cardiacreg "
        f"{found['cardiacreg']} at commit {found['commit']}, Python {found['python']}, NumPy "
        f"{found['numpy']}, Numba {found['numba']}, {found['processor']}, {found['cpus']} CPUs."
    )


def fill(text: str, tables: dict[str, str]) -> str:
    """Return a document with every marked place filled."""

    def table(found: re.Match[str]) -> str:
        name = found["name"]
        body = tables.get(name, "Not measured yet.")
        return f"<!-- table {name} -->\n{body}\n<!-- end {name} -->"

    return MARKER.sub(table, text)
