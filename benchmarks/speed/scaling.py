"""How time and memory grow: with threads, volume, bank, atlases, control points and iterations.

Each refinement is a fresh process with compiled kernels on disk that refines once and then measures
again; wall and processor seconds are of the later runs. The result is the same for any number of
threads. More threads than the machine has are simulated: slabs of one pass are timed one after the
other and dealt out. Registrations of one atlas show control points and iterations.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.harness import machine, plots, tabulate
from benchmarks.harness.cases import synthetic_hearts
from benchmarks.harness.store import Record, Unit, gather
from benchmarks.speed import roofline
from cardiacreg.atlases.embedded import default_atlases
from cardiacreg.registration.ffd_registration import (
    RegistrationOptions,
    prepare_target,
    register_prepared,
)

SPACINGS_MM = (2.5, 1.75, 1.25, 0.9)
BANK_SIZES = (8, 16, 32, 64, 128, 256)
ATLASES = (1, 3, 5, 10)
LATTICES_MM = (32.0, 16.0, 8.0, 4.0)
FACTORS = (0, 1, 2, 4, 8)
_PROGRAM = """
import dataclasses, json, sys, time, warnings
import cardiacreg
from benchmarks.registration.peer_adapters import peak_memory_mib
from benchmarks.harness.cases import synthetic_hearts
warnings.simplefilter("ignore")
asked = json.loads(sys.argv[1])
case = synthetic_hearts(1)[0].case()
bank = cardiacreg.default_atlases()
size = min(asked["bank"], len(bank))
atlases = [bank[n * len(bank) // size] for n in range(size)] if size < len(bank) else bank
step = asked["spacing_mm"]
options = dataclasses.replace(cardiacreg.RefineOptions(), n_atlases=asked["registered"])
runs = []
for number in range(1 + asked["repeats"]):
    start, cpu = time.perf_counter(), time.process_time()
    result = cardiacreg.refine(
        case.target.labels, atlases=atlases, threads=asked["threads"], options=options,
        spacing_mm=(step, step, 1.6 * step),
    )
    runs.append({"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu,
                 "steps": result.timings_seconds})
print(json.dumps({"runs": runs[1:], "peak_memory_mib": peak_memory_mib(),
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
    wanted += [("atlases", n, {"registered": n}) for n in (ATLASES[:1] if quick else ATLASES)]
    repeats = 1 if quick else cases
    units = [_refinement(what, x, given, repeats, whole) for what, x, given in wanted]
    units.append(Unit({"what": "slabs", "quick": quick}, lambda: _slabs(3 if quick else 60)))
    lattices = [
        replace(_ONE_LEVEL, spacings_mm=(h,)) for h in (LATTICES_MM[:1] if quick else LATTICES_MM)
    ]
    units += [_registration("control points", given, repeats) for given in lattices]
    plain = RegistrationOptions(tolerance=0.0)
    longer = [
        replace(plain, iterations=tuple(factor * n for n in plain.iterations))
        for factor in (FACTORS[:2] if quick else FACTORS)
    ]
    units += [_registration("iterations", given, repeats) for given in longer]
    records = gather("scaling", units)
    return {"seeds": [synthetic_hearts(1)[0].seed], "records": records}


_ONE_LEVEL = RegistrationOptions(
    spacings_mm=(16.0,), strides=(1,), iterations=(20,), tolerance=0.0, background_slices=True
)


def _refinement(what: str, x: float, given: dict[str, Any], repeats: int, whole: int) -> Unit:
    asked = {"threads": 1, "spacing_mm": 1.25, "bank": whole, "registered": 5, "repeats": repeats}
    asked |= given

    def measure() -> Record:
        found = subprocess.run(
            [sys.executable, "-c", _PROGRAM, json.dumps(asked)],
            cwd=machine.ROOT, env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        measured: Record = json.loads(found.stdout.splitlines()[-1])
        return {"what": what, "x": x, **measured}

    return Unit({"what": what, "x": x, "options": asked}, measure)


def _registration(what: str, options: RegistrationOptions, repeats: int) -> Unit:
    """One registration of a dense heart (control points) or of a stack (iterations), one thread."""

    def measure() -> Record:
        kind = "dense" if what == "control points" else "stack"
        target, atlas, affine = roofline.targets()[kind]
        prepared = prepare_target(target, options)
        runs = []
        for _ in range(1 + repeats):
            start, used = time.perf_counter(), time.process_time()
            found = register_prepared(prepared, atlas, affine, options)
            seconds = {"seconds": time.perf_counter() - start}
            runs.append(seconds | {"cpu_seconds": time.process_time() - used})
        points = int(np.prod(found.target_to_atlas.displacements_mm.shape[:3]))
        searches = sum(found.iterations)
        x = points if what == "control points" else searches
        return {
            "what": what, "x": x, "runs": runs[1:], "line_searches": searches,
            "consistency": found.consistency_after,
        }  # fmt: skip

    return Unit({"what": what, "options": repr(options), "repeats": repeats}, measure)


def _slabs(repeats: int) -> Record:
    return {"what": "slabs", "points": roofline.slab_seconds(roofline.targets()["dense"], repeats)}


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return times and memory of refinements, of registrations, and of simulated threads."""
    good = [r for r in result["records"] if "error" not in r]
    slabs = [r for r in good if r["what"] == "slabs"]
    found = {
        "scaling": _refinements([r for r in good if "voxels" in r]),
        "scaling-registration": _registrations([r for r in good if "line_searches" in r]),
    }
    if slabs:
        found["scaling-slabs"] = _simulated_threads(slabs[0]["points"])
    return found


def _refinements(records: Sequence[Record]) -> str:
    words = {
        "threads": "threads",
        "volume": "voxel edge in plane, mm",
        "bank": "atlases in the bank",
        "atlases": "atlases registered",
    }
    least = {r["what"]: _median(r, "cpu_seconds") for r in reversed(records)}
    rows = [
        [
            f"{words[r['what']]}: {r['x']:g}",
            *(f"{_median(r, key):.2f}" for key in ("seconds", "cpu_seconds")),
            f"{_median(r, 'cpu_seconds') / least[r['what']]:.2f}",
            f"{_step(r, 'select'):.2f}",
            f"{r['voxels'] / 1e6:.2f}",
            f"{r['peak_memory_mib']:.0f}",
            str(len(r["runs"])),
        ]
        for r in records
    ]
    header = [
        "steady refinement", "seconds", "processor seconds", "of the first row", "of which selection",
        "million voxels", "peak MiB", "runs",
    ]  # fmt: skip
    return tabulate.markdown(header, rows)


def _registrations(records: Sequence[Record]) -> str:
    rows = [
        [
            f"{'dense' if r['what'] == 'control points' else 'stack'}, by {r['what']}: {r['x']}",
            str(r["line_searches"]),
            f"{_median(r, 'cpu_seconds'):.3f}",
            f"{1e3 * _median(r, 'cpu_seconds') / max(r['line_searches'], 1):.1f}",
            f"{r['consistency']:.4f}",
        ]
        for r in records
    ]
    header = ["one registration", "line searches", "processor seconds", "ms each", "consistency"]
    return tabulate.markdown(header, rows)


def _simulated_threads(points: Sequence[Record]) -> str:
    first = points[0]["milliseconds"]
    rows = [
        [str(p["threads"]), f"{p['milliseconds']:.2f}", f"{first / p['milliseconds']:.1f}"]
        for p in points
    ]
    return tabulate.markdown(["threads, simulated", "ms of the busiest", "times faster"], rows)


def _median(record: Record, key: str) -> float:
    return float(np.median([run[key] for run in record["runs"]]))


def _step(record: Record, name: str) -> float:
    return float(np.median([run["steps"].get(name, 0.0) for run in record["runs"]]))


def plots_of(result: dict[str, Any]) -> dict[str, Any]:
    """Return processor time against threads, voxels, atlases, control points and iterations."""
    records = [r for r in result["records"] if "runs" in r]
    panels = (
        ("threads", "threads", lambda r: r["x"], "seconds"),
        ("volume", "million output voxels", lambda r: r["voxels"] / 1e6, "cpu_seconds"),
        ("bank", "atlases in the bank", lambda r: r["x"], "cpu_seconds"),
        ("atlases", "atlases registered", lambda r: r["x"], "cpu_seconds"),
        ("control points", "thousand control points", lambda r: r["x"] / 1e3, "cpu_seconds"),
        ("iterations", "line searches", lambda r: r["x"], "cpu_seconds"),
    )
    figure, axes = plots.panels(2, 3, width=2.7)
    for panel, (what, label, x, key) in zip(axes.ravel(), panels, strict=True):
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
