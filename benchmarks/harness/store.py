"""What was measured stays measured: units on disk, so that an interrupted benchmark goes on where it was.

A unit is one measurement, usually one method on one case. It is stored as soon as it is done, under a
digest of its key (everything that tells it from other units, options included), of the code that makes
its value and of the versions of the numerical libraries. That code is the library, the benchmarks'
shared measuring modules, and the benchmark's own module down to its ``tables``: what only prints may
change without measuring again.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from benchmarks.harness import machine

Record = dict[str, Any]
FOLDER = machine.ROOT / "bench_output" / "units"
_SHARED = (
    "cases",
    "comparators",
    "hidden_slices",
    "measuring",
    "network_labels",
    "propagation",
    "scoring",
)
_PARTS = {
    "cine": ("long_axis", "guidepoints", "plane_cuts"),
    "long_axis": ("guidepoints", "plane_cuts"),
    "views": ("long_axis", "guidepoints", "plane_cuts"),
    "hidden_ends": ("volumes",),
    "quality": ("failures",),
    "two_frames": ("quality",),
    "network_doubt": ("network_acdc",),
    "network_scanners": ("network_acdc",),
    "network_cine": ("long_axis", "guidepoints", "network_acdc"),
    "bad_inputs": ("bad_files", "bad_values"),
    "reliability": (
        "damaged_files",
        "fuzzing",
        "kills",
        "public_calls",
        "wrong_values",
    ),
}
"""Further modules of the benchmarks that the values of one benchmark depend on."""
_LIBRARIES = ("numpy", "scipy", "numba")


class ShardDone(Exception):
    """This process has measured its share; another run without a share assembles the result."""


@dataclass(frozen=True)
class Unit:
    """One measurement: a JSON key that identifies it, and how to make its record.

    `code` takes the place of the digest of all code where a value does not depend on the library: a
    text that changes with what it does depend on.
    """

    key: dict[str, Any]
    measure: Callable[[], Record]
    code: str | None = None


@dataclass
class Settings:
    """How `gather` treats stored units; the runner sets it from the command line.

    With `stored_only` nothing is measured; `left_out` counts the units that are not stored.
    """

    fresh: bool = False
    shard: tuple[int, int] | None = None
    verbose: bool = False
    stored_only: bool = False
    left_out: int = 0


settings = Settings()


def gather(benchmark: str, units: Sequence[Unit]) -> list[Record]:
    """Return the record of every unit, measuring those that are not stored (or leaving them out).

    A unit that raises gives a record with ``error`` and ``traceback``, which is not stored, so that
    the next run tries again; the others go on.

    Raises
    ------
    ShardDone
        If only a share of the units was to be measured.
    """
    records = []
    for number, unit in enumerate(units):
        if settings.shard and number % settings.shard[1] != settings.shard[0] - 1:
            continue
        if settings.stored_only and not place(benchmark, unit.key, unit.code).exists():
            settings.left_out += 1
            continue
        records.append(_record(benchmark, unit))
        if settings.verbose:
            print(f"{benchmark} {number + 1}/{len(units)} {_words(unit)}", file=sys.stderr)
    if settings.shard:
        raise ShardDone(f"{len(records)} of {len(units)} units measured")
    return records


def place(benchmark: str, key: dict[str, Any], code: str | None = None) -> Path:
    """Return the file of a unit."""
    text = json.dumps([key, code or code_digest(benchmark)], sort_keys=True, default=repr)
    return FOLDER / benchmark / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"


def _record(benchmark: str, unit: Unit) -> Record:
    file = place(benchmark, unit.key, unit.code)
    if file.exists() and not settings.fresh:
        stored: Record = json.loads(file.read_text(encoding="utf-8"))["record"]
        return stored
    try:
        record = unit.measure()
    except Exception as error:  # a crash is a finding, counted and shown
        kept = {k: v for k, v in unit.key.items() if k != "options"}
        where = traceback.format_exc().replace(f"{machine.ROOT}/", "")
        return kept | {"error": repr(error), "traceback": where}
    text = json.dumps({"key": unit.key, "record": record}, default=repr)
    file.parent.mkdir(parents=True, exist_ok=True)
    half = file.with_suffix(f".{os.getpid()}")
    half.write_text(text, encoding="utf-8")
    half.replace(file)
    return json.loads(text)["record"]


def _words(unit: Unit) -> str:
    named = [str(unit.key[name]) for name in ("case", "method") if name in unit.key]
    return ", ".join(
        named or [f"{name} {value}" for name, value in unit.key.items() if name != "options"]
    )


@lru_cache
def code_digest(benchmark: str) -> str:
    """Digest of the code and of the library versions that a unit's value depends on."""
    found = hashlib.sha256()
    package = machine.ROOT / "cardiacreg"
    for file in sorted([*package.rglob("*.py"), *package.rglob("*.pyx")]):
        found.update(file.read_bytes())
    for name in (*_SHARED, *_PARTS.get(benchmark, ()), benchmark):
        for file in sorted((machine.ROOT / "benchmarks").rglob(f"{name}.py")):
            found.update(file.read_text(encoding="utf-8").split("\ndef tables(")[0].encode())
    for library in _LIBRARIES:
        found.update(importlib.metadata.version(library).encode())
    return found.hexdigest()
