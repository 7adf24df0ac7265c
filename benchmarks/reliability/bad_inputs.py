"""Bad inputs, one each, and whether they end in the error that each must end in.

Files in `bad_files`, values in `bad_values`; each of their errors was judged by hand when it was first
seen. Damage at random is fed by `reliability`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.harness import tabulate
from benchmarks.harness.store import Record, Unit, gather
from benchmarks.reliability.bad_files import Bad, bad_files
from benchmarks.reliability.bad_values import bad_values
from cardiacreg.errors import kept_warnings


def run(quick: bool) -> dict[str, Any]:
    """Feed every bad input."""
    inputs = [*bad_files(), *bad_values()][:: 20 if quick else 1]
    return {"records": gather("bad_inputs", [_unit(each) for each in inputs])}


def _unit(bad: Bad) -> Unit:
    key = {"what": "bad input", "kind": bad.kind, "input": bad.what, "expected": bad.expected}

    def measure() -> Record:
        with tempfile.TemporaryDirectory() as folder, kept_warnings() as notes:
            try:
                bad.call(Path(folder))
            except Exception as error:  # noqa: BLE001 - which one it is, is what is asked
                return key | {"code": getattr(error, "code", type(error).__name__)}
        told = bad.warning and any(bad.warning in note.message for note in notes)
        return key | {"code": "a warning" if told else "accepted"}

    return Unit(key, measure)


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return the table of bad inputs."""
    return {
        "bad_inputs": tabulate.markdown(
            ["bad input", "what is wrong", "error", "right"],
            [[r["kind"], r["input"], r.get("code", "none"),
              "yes" if r.get("code") == r["expected"] else "NO"] for r in result["records"]],
        )
    }  # fmt: skip
