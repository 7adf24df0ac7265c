"""Real segmentations of patients: every one must run; the model must agree with its slices and be whole.

There is no high-resolution truth here. Measured are the agreement with the acquired slices after the
estimated shifts, topology, folding and time.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks import tabulate
from benchmarks.cases import Acquisition, DataAbsent, acdc, autofd
from benchmarks.measuring import refine_quietly, rounded
from cardiacreg import metrics
from cardiacreg.geometry import STRUCTURES

_ALL = tuple(range(1, 101))
_SAMPLE = (1, 21, 41, 61, 81, 100)


def run(quick: bool) -> dict[str, Any]:
    """Refine ACDC (all 200 frames; 12 in a quick run) and AutoFD, ED and ES."""
    found: list[Acquisition] = []
    for load in (lambda: acdc(_SAMPLE if quick else _ALL), autofd):
        try:
            found += load()
        except DataAbsent:
            continue
    if not found:
        raise DataAbsent("neither acdc nor autofd is there")
    records = [_measure(each) for each in found]
    return {"seeds": [], "records": rounded(records)}


def _measure(acquisition: Acquisition) -> dict[str, Any]:
    record: dict[str, Any] = {
        "case": acquisition.name,
        "group": acquisition.group,
        "phase": acquisition.phase,
        "data": "AutoFD" if acquisition.name.startswith("autofd") else "ACDC",
    }
    start = time.perf_counter()
    try:
        result = refine_quietly(
            acquisition.labels,
            preset=acquisition.preset,
            threads=1,
        )
    except Exception as error:  # a crash is a finding, counted and shown
        return record | {"error": repr(error), "traceback": traceback.format_exc()}
    topology = {
        name: list(metrics.topology_counts(result.labels, label))
        for label, name in STRUCTURES.items()
    }
    return record | {
        "seconds": time.perf_counter() - start,
        "timings_seconds": result.timings_seconds,
        "agreement": result.agreement,
        "topology": topology,
        "minimum_jacobian": result.minimum_jacobian,
        "shift_rms_mm": float(np.sqrt((result.slice_shifts_mm**2).mean())),
        "volumes_ml": metrics.volumes_ml(result.labels),
        "warnings": [_without_folders(text, acquisition) for text in result.warnings],
        "structures_from_atlases": list(result.structures_from_atlases),
    }


def _without_folders(text: str, acquisition: Acquisition) -> str:
    return text.replace(f"{acquisition.labels.parent}/", "")


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return agreement, robustness and where the agreement is lowest."""
    records = [_named(record) for record in result["records"]]
    columns = {
        "frames": lambda own: str(len(own)),
        "failed": lambda own: str(sum("error" in r for r in own)),
        **{name: _agreement(name) for name in ("LV cavity", "LV wall", "RV cavity")},
        "lowest of any structure": _lowest,
    }
    whole = {
        "frames": lambda own: str(len(own)),
        "one piece each": _share(lambda r: all(t[0] == 1 for t in r["topology"].values())),
        "no holes": _share(lambda r: all(t[1] == 0 for t in r["topology"].values())),
        "not folded": _share(lambda r: r["minimum_jacobian"] > 0),
        "smallest Jacobian": lambda own: f"{min(r['minimum_jacobian'] for r in _good(own)):.3f}",
        "seconds, median": lambda own: f"{np.median([r['seconds'] for r in _good(own)]):.2f}",
        "seconds, largest": lambda own: f"{max(r['seconds'] for r in _good(own)):.2f}",
    }
    return {
        "real-agreement": tabulate.summary_table(records, columns),
        "real-robustness": tabulate.summary_table(records, whole),
        "real-groups": _by_group(records),
    }


def _named(record: dict[str, Any]) -> dict[str, Any]:
    return record | {"method": f"{record['data']}, {record['phase']}"}


def _good(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [record for record in records if "error" not in record]


def _agreement(name: str) -> Any:
    def make(own: Sequence[dict[str, Any]]) -> str:
        found = [r["agreement"][name] for r in _good(own) if r["agreement"][name] is not None]
        return tabulate.mean_sd(found)

    return make


def _lowest(own: Sequence[dict[str, Any]]) -> str:
    found = [
        (value, record["case"], name)
        for record in _good(own)
        for name, value in record["agreement"].items()
        if value is not None
    ]
    value, case, name = min(found)
    return f"{value:.3f} ({name}, {case})"


def _share(holds: Any) -> Any:
    return lambda own: f"{sum(bool(holds(r)) for r in _good(own))} of {len(own)}"


def _by_group(records: list[dict[str, Any]]) -> str:
    chosen = [
        r | {"method": f"{r['group']}, {r['phase']}"} for r in _good(records) if r["data"] == "ACDC"
    ]
    columns = {
        "frames": lambda own: str(len(own)),
        **{name: _agreement(name) for name in ("LV cavity", "LV wall", "RV cavity")},
    }
    return tabulate.summary_table(sorted(chosen, key=lambda r: r["method"]), columns)
