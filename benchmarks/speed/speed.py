"""Time per subject (first process, cached process, steady) and peak memory, with 1 and 2 threads.

*Cold* is a fresh process with an empty kernel cache, *cached* a fresh process that finds the compiled
kernels on disk, *steady* a further refinement in a process that has made one. Peak memory is that of the
steady process. All with the embedded bank (five atlases registered out of all), which is built before.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import machine, tabulate
from benchmarks.harness.store import Record, Unit, gather

SEED = 10_000
_PROGRAM = """
import json, resource, sys, time
start = time.perf_counter()
import cardiacreg
from benchmarks.harness.cases import synthetic_cases
imported = time.perf_counter() - start
case = next(iter(synthetic_cases(1)))
threads, repeats, image = (int(value) for value in sys.argv[1:4])
ways = {"paper": cardiacreg.RefineOptions.paper, "fast": cardiacreg.RefineOptions.fast}
options = ways.get(sys.argv[4], cardiacreg.RefineOptions)()
runs = []
for number in range(repeats):
    start, cpu = time.perf_counter(), time.process_time()
    result = cardiacreg.refine(
        case.target.labels, image=case.target.image if image else None, threads=threads,
        options=options,
    )
    runs.append({"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu,
                 "steps": result.timings_seconds})
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"import_seconds": imported, "runs": runs, "peak_memory_mib": peak,
                  "bank_size": result.provenance["bank_size"]}))
"""


def run(quick: bool) -> dict[str, Any]:
    """Measure cold, cached and steady times of a refinement."""
    from cardiacreg.atlases.embedded import default_atlases

    default_atlases()
    repeats = 1 if quick else 3
    units = [
        Unit(
            {"threads": threads, "repeats": repeats, "quick": quick},
            partial(_measure, threads, repeats, quick),
        )
        for threads in ((1,) if quick else (1, 2))
    ]
    found = gather("speed", units)
    return {"seeds": [SEED], "records": [r for each in found for r in each.get("records", [])]}


def _measure(threads: int, repeats: int, quick: bool) -> Record:
    """All states with one number of threads, which share a kernel cache that starts empty."""
    with tempfile.TemporaryDirectory() as cache:
        records = [_process("cold", threads, 1, cache)]
        records += [_process("cached", threads, 1, cache) for _ in range(repeats)]
        records.append(_process("steady", threads, 1 + 2 * repeats, cache))
        if not quick:
            records.append(_process("steady", threads, 1 + 2 * repeats, cache, method="fast"))
            records.append(_process("steady", threads, 2, cache, method="paper", image=True))
    return {"records": records}


def _process(
    state: str, threads: int, repeats: int, cache: str, *, image: bool = False, method: str = ""
) -> dict[str, Any]:
    flags = [*(str(int(value)) for value in (threads, repeats, image)), method]
    found = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *flags],
        cwd=machine.ROOT,
        env=os.environ | {"NUMBA_CACHE_DIR": str(Path(cache)), "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    measured = json.loads(found.stdout.splitlines()[-1])
    runs = measured.pop("runs")
    named = f"{method} method" if method else "default"
    what = f"{named}, {'with image' if image else 'labels only'}"
    kept = runs[1:] if state == "steady" else runs
    return {"method": what, "state": state, "threads": threads, "runs": kept, **measured}


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return medians per state and the steady time of each step."""
    groups: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for record in result["records"]:
        key = (record["method"], record["state"], record["threads"])
        groups.setdefault(key, []).append(record)
    rows = [
        [
            f"{method}, {state}, {threads} thread{'s' if threads > 1 else ''}",
            _median([run["seconds"] for each in own for run in each["runs"]]),
            _median([run["cpu_seconds"] for each in own for run in each["runs"]]),
            f"{max(each['peak_memory_mib'] for each in own):.0f}",
            str(sum(len(each["runs"]) for each in own)),
        ]
        for (method, state, threads), own in groups.items()
    ]
    header = ["refinement", "seconds", "processor seconds", "peak memory, MiB", "runs"]
    return {"speed": tabulate.markdown(header, rows), "speed-steps": _steps(result["records"])}


def _steps(records: list[dict[str, Any]]) -> str:
    steady = [r for r in records if r["state"] == "steady"]
    names = list(steady[0]["runs"][0]["steps"])
    rows = [
        [
            f"{r['method']}, {r['threads']} thread{'s' if r['threads'] > 1 else ''}",
            *[_median([run["steps"].get(name, 0.0) for run in r["runs"]]) for name in names],
        ]
        for r in steady
    ]
    return tabulate.markdown(["seconds, steady", *names], rows)


def _median(numbers: list[float]) -> str:
    return f"{statistics.median(numbers):.2f}"
