"""Run a benchmark: ``python -m benchmarks NAME [--quick] [--json FILE]``; ``report`` fills the documents.

A benchmark is a module of this package with ``run(quick: bool) -> dict``; ``tables(result) -> dict`` is
optional and gives the markdown tables that `report` puts between the markers of the documents.
"""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import benchmarks
from benchmarks import machine
from benchmarks.cases import DataAbsent

_HELPERS = {
    "__main__",
    "baselines",
    "cases",
    "fusion_peers",
    "machine",
    "peer_adapters",
    "measuring",
    "report",
    "scoring",
    "tabulate",
}


def names() -> list[str]:
    """Return the names of all benchmarks."""
    found = {module.name for module in pkgutil.iter_modules(benchmarks.__path__)}
    return sorted(found - _HELPERS)


def load(name: str) -> ModuleType:
    """Import one benchmark."""
    return importlib.import_module(f"benchmarks.{name}")


def measure(name: str, *, quick: bool) -> dict[str, Any]:
    """Run one benchmark and add what it was measured on."""
    start = time.perf_counter()
    result: dict[str, Any] = load(name).run(quick)
    return {
        "benchmark": name,
        "quick": quick,
        "machine": machine.describe(),
        "seconds": round(time.perf_counter() - start, 1),
        **result,
    }


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=[*names(), "report"])
    parser.add_argument("--quick", action="store_true", help="few cases; shows that it runs")
    parser.add_argument("--json", type=Path, help="where to write; needed to keep a quick run")
    chosen = parser.parse_args(arguments)
    if chosen.name == "report":
        from benchmarks import report

        return report.main()
    try:
        result = measure(chosen.name, quick=chosen.quick)
    except DataAbsent as absent:
        print(f"{chosen.name}: skipped, {absent}")
        return 0
    for title, table in getattr(load(chosen.name), "tables", lambda _: {})(result).items():
        print(f"\n[{title}]\n{table}")
    place = chosen.json
    if place is None and not chosen.quick:
        place = machine.ROOT / "benchmarks" / "results" / f"{chosen.name}.json"
    if place is not None:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
