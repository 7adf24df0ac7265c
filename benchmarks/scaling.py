"""How time and memory grow: with threads, with the size of the volume, and with the bank.

Each point is a fresh process with compiled kernels on disk that refines once and then measures again;
wall and processor seconds are of the later runs. The result is the same for any number of threads.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks import machine, plots, tabulate
from benchmarks.cases import synthetic_hearts
from benchmarks.store import Record, Unit, gather
from cardiacreg.atlas_bank import default_atlases

SPACINGS_MM = (2.5, 1.75, 1.25, 0.9)
BANK_SIZES = (8, 16, 32, 64, 128, 256)
_PROGRAM = """
import json, resource, sys, time, warnings
import cardiacreg
from benchmarks.cases import synthetic_hearts
warnings.simplefilter("ignore")
asked = json.loads(sys.argv[1])
case = synthetic_hearts(1)[0].case()
bank = cardiacreg.default_atlases()
size = min(asked["bank"], len(bank))
atlases = [bank[n * len(bank) // size] for n in range(size)] if size < len(bank) else bank
step = asked["spacing_mm"]
runs = []
for number in range(1 + asked["repeats"]):
    start, cpu = time.perf_counter(), time.process_time()
    result = cardiacreg.refine(
        case.target.labels, atlases=atlases, threads=asked["threads"], spacing_mm=(step, step, 1.6 * step)
    )
    runs.append({"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu,
                 "steps": result.timings_seconds})
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"runs": runs[1:], "peak_memory_mib": peak,
                  "voxels": int(result.labels.array.size)}))
"""


def run(quick: bool, cases: int = 3) -> dict[str, Any]:
    """Measure every point; `cases` is the number of repeats."""
    whole = len(default_atlases())
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    threads = [n for n in (1, 2, 4, 8, 16) if n <= processors]
    wanted = [("threads", n, {"threads": n}) for n in (threads[:1] if quick else threads)]
    spacings, sizes = (SPACINGS_MM[:1], BANK_SIZES[:1]) if quick else (SPACINGS_MM, BANK_SIZES)
    wanted += [("volume", step, {"spacing_mm": step}) for step in spacings]
    wanted += [("bank", n, {"bank": n}) for n in sorted({min(n, whole) for n in sizes})]
    units = [_unit(what, x, given, 1 if quick else cases, whole) for what, x, given in wanted]
    records = gather("scaling", units)
    return {"seeds": [synthetic_hearts(1)[0].seed], "records": records}


def _unit(what: str, x: float, given: dict[str, Any], repeats: int, whole: int) -> Unit:
    asked = {"threads": 1, "spacing_mm": 1.25, "bank": whole, "repeats": repeats} | given

    def measure() -> Record:
        found = subprocess.run(
            [sys.executable, "-c", _PROGRAM, json.dumps(asked)],
            cwd=machine.ROOT, env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        measured: Record = json.loads(found.stdout.splitlines()[-1])
        return {"what": what, "x": x, **measured}

    return Unit({"what": what, "x": x, "options": asked}, measure)


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return median times and memory per point."""
    words = {
        "threads": "threads",
        "volume": "voxel edge in plane, mm",
        "bank": "atlases in the bank",
    }
    rows = [
        [
            f"{words[r['what']]}: {r['x']:g}",
            *(f"{_median(r, key):.2f}" for key in ("seconds", "cpu_seconds")),
            f"{_step(r, 'select'):.2f}",
            f"{r['voxels'] / 1e6:.2f}",
            f"{r['peak_memory_mib']:.0f}",
            str(len(r["runs"])),
        ]
        for r in result["records"]
        if "runs" in r
    ]
    header = ["seconds", "processor seconds", "of which selection", "million voxels", "peak MiB"]
    return {"scaling": tabulate.markdown(["steady refinement", *header, "runs"], rows)}


def _median(record: Record, key: str) -> float:
    return float(np.median([run[key] for run in record["runs"]]))


def _step(record: Record, name: str) -> float:
    return float(np.median([run["steps"].get(name, 0.0) for run in record["runs"]]))


def plots_of(result: dict[str, Any]) -> dict[str, Any]:
    """Return processor time against threads, voxels and bank size."""
    records = [r for r in result["records"] if "runs" in r]
    panels = (
        ("threads", "threads", lambda r: r["x"], "seconds"),
        ("volume", "million output voxels", lambda r: r["voxels"] / 1e6, "cpu_seconds"),
        ("bank", "atlases in the bank", lambda r: r["x"], "cpu_seconds"),
    )
    figure, axes = plots.panels(1, len(panels), width=2.7)
    for panel, (what, label, x, key) in zip(axes[0], panels, strict=True):
        own = sorted((r for r in records if r["what"] == what), key=x)
        _lines(panel, own, x, key)
        panel.set_xlabel(label)
        panel.set_ylabel({"seconds": "seconds", "cpu_seconds": "processor seconds"}[key])
        panel.set_ylim(bottom=0)
    axes[0, 0].set_xticks(sorted({r["x"] for r in records if r["what"] == "threads"}))
    return {"scaling": figure}


def _lines(panel: Any, own: Sequence[Record], x: Any, key: str) -> None:
    found = [[run[key] for run in r["runs"]] for r in own]
    if own:
        plots.curve(panel, [x(r) for r in own], found, color=plots.METHOD_COLOURS[0])
