"""Run a benchmark: ``python -m benchmarks NAME [--quick] [--json FILE]``.

``all`` runs every benchmark but those of settled questions (`benchmarks.settled`), ``report`` fills the
documents' tables and draws their figures. A benchmark is a module of this package with
``run(quick: bool) -> dict``; optional are ``tables(result) -> dict`` of markdown tables that `report`
puts between the markers of the documents, ``plots_of(result) -> dict`` of figures, and an argument
``cases`` of `run`. What is measured is kept (see `benchmarks.harness.store`): an interrupted run goes on
where it stopped.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import sys
import time
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

import benchmarks
from benchmarks.harness import machine, store
from benchmarks.harness.cases import DataAbsent

_LAST = ("startup", "scaling", "speed")
ALIASES = {"high_resolution": "network_hr", "gaps": "network_hr", "landmarks": "network_acdc"}


def names() -> list[str]:
    """Return the names of all benchmarks: the modules that define ``run``."""
    return sorted(_places())


def is_settled(name: str) -> bool:
    """Return whether a benchmark's question is settled: it runs by its name alone."""
    return _places()[name].startswith("benchmarks.settled.")


def _places() -> dict[str, str]:
    """Dotted module of every benchmark by its name."""
    folder = Path(benchmarks.__path__[0])
    return {
        file.stem: f"benchmarks.{file.parent.name}.{file.stem}"
        for file in folder.glob("*/*.py")
        if "\ndef run(" in file.read_text(encoding="utf-8")
    }


def load(name: str) -> ModuleType:
    """Import one benchmark."""
    return importlib.import_module(_places()[name])


def measure(name: str, *, quick: bool, cases: int | None = None) -> dict[str, Any]:
    """Run one benchmark and add what it was measured on."""
    start, measured_on = time.perf_counter(), machine.describe()
    run = load(name).run
    given = {"cases": cases} if cases and "cases" in inspect.signature(run).parameters else {}
    store.settings.left_out = 0
    result: dict[str, Any] = run(quick, **given)
    return {
        "benchmark": name,
        "quick": quick,
        "left_out": store.settings.left_out,
        "machine": measured_on,
        "seconds": round(time.perf_counter() - start, 1),
        **result,
    }


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line."""
    chosen = _parser().parse_args(arguments)
    if chosen.name in ("report", "plots"):
        from benchmarks.documents import report

        return report.main(figures_only=chosen.name == "plots")
    store.settings = store.Settings(
        chosen.fresh, chosen.shard, verbose=True, stored_only=chosen.stored
    )
    if chosen.name != "all":
        return _one(chosen.name, chosen, chosen.json)
    failed = []
    current = [name for name in names() if not is_settled(name)]
    for name in sorted(current, key=lambda name: (name in _LAST, name)):
        place = chosen.json / f"{name}.json" if chosen.json else None
        try:
            _one(name, chosen, place)
        except Exception:  # the others go on
            traceback.print_exc()
            failed.append(name)
    print(f"all: {len(failed)} benchmarks failed {failed}")
    return 1 if failed else 0


def _one(name: str, chosen: argparse.Namespace, place: Path | None) -> int:
    """Measure one benchmark, show its tables and store the result."""
    try:
        result = measure(name, quick=chosen.quick, cases=chosen.cases)
    except DataAbsent as absent:
        print(f"{name}: skipped, {absent}")
        return 0
    except store.ShardDone as done:
        print(f"{name}: {done}; run without --shard for the result")
        return 0
    for title, table in getattr(load(name), "tables", lambda _: {})(result).items():
        print(f"\n[{title}]\n{table}")
    if place is None and not chosen.quick:
        place = machine.ROOT / "benchmarks" / "results" / f"{name}.json"
    if place is not None:
        _write(place, json.dumps(result, indent=1) + "\n")
    return 0


def _write(place: Path, text: str) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    half = place.with_name(place.name + ".part")
    half.write_text(text, encoding="utf-8")
    half.replace(place)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    choices = [*names(), "all", "report", "plots"]
    parser.add_argument(
        "name", type=_name, choices=choices, metavar="NAME",
        help=f"one of {', '.join(choices)}; "
        + ", ".join(f"{alias.replace('_', '-')} is {name}" for alias, name in ALIASES.items()),
    )  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="few cases; shows that it runs")
    parser.add_argument(
        "--json", type=Path, help="where to write (for all: a folder); needed to keep a quick run"
    )
    parser.add_argument("--cases", type=int, help="how many cases, where a benchmark can choose")
    parser.add_argument("--fresh", action="store_true", help="measure again what is stored")
    parser.add_argument(
        "--stored", action="store_true", help="measure nothing; make the result of what is stored"
    )
    parser.add_argument(
        "--shard", type=_shard, metavar="I/N", help="measure and keep only every Nth unit, from I"
    )
    return parser


def _name(text: str) -> str:
    """Return the module of a benchmark from its name, which may have hyphens, or from an alias."""
    name = text.replace("-", "_")
    return ALIASES.get(name, name)


def _shard(text: str) -> tuple[int, int]:
    first, _, total = text.partition("/")
    if not (first.isdigit() and total.isdigit() and 1 <= int(first) <= int(total)):
        raise argparse.ArgumentTypeError(f"{text!r}; needs I/N with 1 <= I <= N, such as 1/2")
    return int(first), int(total)


if __name__ == "__main__":
    sys.exit(main())
