"""What a cohort costs beside its patients, how its memory grows, and what a biobank would take.

Engine and memory: the driver is a fresh process, and a patient is a stub that sleeps for a fixed time, so
that all that is measured is the engine's. Statuses: as many as a cohort of that size leaves. Patients:
synthetic hearts as files, through the whole way of `refine_cohort`; processor seconds are those that
their own processes tell in their statuses, reading, figures, measures, files and hashes included.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import machine, tabulate
from benchmarks.harness.cases import CLINICAL
from benchmarks.harness.store import Record, Unit, gather

SEED = 10_000
COHORT, FRAMES = 100_000, 50
SERIES = (4, 12)
_TASK_SECONDS = 0.2
_ENGINE = """
import json, os, sys, time
from pathlib import Path
from benchmarks.speed.cohort import stub
from benchmarks.registration.peer_adapters import peak_memory_mib
from cardiacreg.cohort import _refine_cohort, engines
from cardiacreg.cohort.manifest import open_manifest
from cardiacreg.cohort.task import Settings

def main():
    folder, workers = Path(sys.argv[1]), int(sys.argv[2])
    manifest, settings = open_manifest(folder / "manifest.csv"), Settings(folder, folder)
    def run(engine):
        start, cpu = time.perf_counter(), time.process_time()
        found = _refine_cohort._run(engine, manifest, settings, None)
        assert found.counts["done"] == manifest.total
        return {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}
    if workers:
        with engines.dask_engine(workers, None, work=stub) as engine:
            measured = run(engine)
    else:
        measured = run(engines.SerialEngine(stub))
    print(json.dumps(measured | {"peak_memory_mib": peak_memory_mib()}))

if __name__ == "__main__":
    main()
"""
_STATUS = """
import json, sys, time
from benchmarks.registration.peer_adapters import peak_memory_mib
import cardiacreg
start = time.perf_counter()
found = cardiacreg.cohort_status(sys.argv[1], tables=sys.argv[1])
print(json.dumps({"seconds": time.perf_counter() - start, "done": found.counts["done"],
                  "peak_memory_mib": peak_memory_mib()}))
"""


def stub(task: Any) -> Any:
    """Sleep as long as the manifest's labels say, in place of a refinement."""
    from cardiacreg.cohort.task import DONE, Outcome

    time.sleep(float(task.row["labels"]))
    return Outcome(task.subject, DONE)


def run(quick: bool, cases: int = 3) -> dict[str, Any]:
    """Measure engine, memory and statuses, and in a full run patients; `cases` is their number."""
    if quick:
        units = [_engine_unit("engine", 0, 20, 0.01), _engine_unit("memory", 0, 50, 0.0)]
        units.append(_status_unit(20))
    else:
        units = [_engine_unit("engine", n, 200 * max(n, 1), _TASK_SECONDS) for n in (0, 1, 2)]
        units += [_engine_unit("memory", 0, size, 0.0) for size in (1_000, 10_000, COHORT)]
        units += [_engine_unit("memory", 2, size, 0.0) for size in (1_000, 10_000)]
        units += [_status_unit(size) for size in (1_000, 10_000)]
        units.append(_patients_unit("end-diastole and end-systole", cases, 0))
        units += [_patients_unit(f"series of {count} frames", 1, count) for count in SERIES]
    return {"seeds": [SEED], "records": gather("cohort", units)}


def _engine_unit(what: str, workers: int, tasks: int, seconds: float) -> Unit:
    key = {"what": what, "workers": workers, "tasks": tasks, "task_seconds": seconds}

    def measure() -> Record:
        with tempfile.TemporaryDirectory() as folder:
            with (Path(folder) / "manifest.csv").open("w") as table:
                table.write("subject,labels\n")
                table.writelines(f"s{n:07d},{seconds}\n" for n in range(tasks))
            program = Path(folder) / "driver.py"
            program.write_text(_ENGINE)
            return key | _measured([str(program), folder, str(workers)])

    return Unit(key, measure)


def _status_unit(size: int) -> Unit:
    key = {"what": "status", "tasks": size}

    def measure() -> Record:
        with tempfile.TemporaryDirectory() as folder:
            _write_statuses(Path(folder), size)
            return key | _measured(["-c", _STATUS, folder])

    return Unit(key, measure)


def _measured(arguments: Sequence[str]) -> Record:
    """What a fresh process prints, with the library of this checkout."""
    found = subprocess.run(
        [sys.executable, *arguments],
        cwd=machine.ROOT,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(machine.ROOT)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    measured: Record = json.loads(found.stdout.splitlines()[-1])
    return measured


def _write_statuses(folder: Path, size: int) -> None:
    """Statuses of patients with every measure, and nothing else."""
    from cardiacreg import measure
    from cardiacreg.phantoms.toy_heart import make_toy_heart

    rows = measure(make_toy_heart().labels, make_toy_heart(size=0.9).labels).table()
    status = {
        "schema_version": 1, "state": "done", "attempts": 1, "findings": ["LOW_AGREEMENT"],
        "frames": ["ED", "ES"], "agreement_dice": {"LV cavity": 0.98, "RV cavity": 0.95},
        "measures": {row.column: row.value for row in rows}, "processor_seconds": 6.0,
        "made_from": {"cardiacreg": "0", "options_sha256": "0" * 64},
    }  # fmt: skip
    for n in range(size):
        place = folder / "patients" / f"s{n:07d}"
        place.mkdir(parents=True)
        (place / "status.json").write_text(json.dumps({"subject": place.name} | status, indent=2))
    (folder / "cohort.json").write_text(json.dumps({"patients": size}))


def _patients_unit(what: str, count: int, n_frames: int) -> Unit:
    key = {"what": "patients", "method": what, "patients": count, "frames": n_frames or 2}
    key |= {"degradation": repr(CLINICAL)}

    def measure() -> Record:
        from cardiacreg import refine_cohort

        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            rows = [_write_patient(folder, SEED + n, n_frames) for n in range(count)]
            with (folder / "manifest.csv").open("w", newline="") as table:
                csv.writer(table).writerows([("subject", "labels", "frames"), *rows])
            start = time.perf_counter()
            found = refine_cohort(folder / "manifest.csv", folder / "out", shard=(1, 1))
            wall = time.perf_counter() - start
            assert found.counts["done"] == count, found.failed
            told = [
                json.loads(path.read_text())
                for path in sorted((folder / "out").glob("patients/*/status.json"))
            ]
        return key | {
            "wall_seconds": wall,
            "seconds": [each["seconds"] for each in told],
            "cpu_seconds": [each["processor_seconds"] for each in told],
            "peak_memory_mib": max(each["process_peak_memory_mib"] for each in told),
        }

    return Unit(key, measure)


def _write_patient(folder: Path, seed: int, n_frames: int) -> tuple[str, str, str]:
    """Write the labels of a beating heart's clinical stacks, and return the row of the manifest."""
    from cardiacreg.io.nifti import write_label_frames, write_labels
    from cardiacreg.phantoms.beating import beating_heart

    subject = f"s{seed}"
    hearts = beating_heart(seed, n_frames=n_frames or 2)
    stacks = [low.subject.labels for low in CLINICAL.of_frames(hearts, seed=seed)]
    if n_frames:
        write_label_frames(folder / f"{subject}.nii.gz", stacks)
        return subject, f"{subject}.nii.gz", "all"
    for name, stack in zip(("ED", "ES"), stacks, strict=True):
        write_labels(folder / f"{subject}_{name}.nii.gz", stack)
    return subject, f"ED={subject}_ED.nii.gz;ES={subject}_ES.nii.gz", ""


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return a table each of the engine, its memory, statuses, patients, and what a biobank takes."""
    good = [record for record in result["records"] if "error" not in record]
    by = {what: [r for r in good if r["what"] == what] for what in ("engine", "memory", "status")}
    patients = [r for r in good if r["what"] == "patients"]
    found = {
        "cohort-engine": tabulate.markdown(
            ["engine, patients that sleep", "patients", "seconds each", "seconds, whole run",
             "of the engine, ms per patient", "at one second per patient"],
            [_engine_row(r) for r in by["engine"]],
        ),
        "cohort-memory": tabulate.markdown(
            ["engine", "patients", "peak memory of the driver, MiB", "patients per second"],
            [[_name(r), f"{r['tasks']:,}", f"{r['peak_memory_mib']:.0f}",
              f"{r['tasks'] / r['seconds']:.0f}"] for r in by["memory"]],
        ),
        "cohort-status": tabulate.markdown(
            ["statuses", "seconds", "peak memory, MiB"],
            [[f"{r['tasks']:,}", f"{r['seconds']:.1f}", f"{r['peak_memory_mib']:.0f}"]
             for r in by["status"]],
        ),
    }  # fmt: skip
    if len(patients) > 2:
        found |= {
            "cohort-patients": _patients_table(patients),
            "cohort-biobank": _biobank(patients),
        }
    return found


def _name(record: Record) -> str:
    count = record["workers"]
    return (
        f"dask, {count} worker{'s' if count > 1 else ''}" if count else "one process, no scheduler"
    )


def _engine_row(record: Record) -> list[str]:
    slots, tasks = max(record["workers"], 1), record["tasks"]
    own = (record["seconds"] * slots - tasks * record["task_seconds"]) / tasks
    return [
        _name(record), f"{tasks}", f"{record['task_seconds']:g}", f"{record['seconds']:.1f}",
        f"{1000 * own:.1f}", f"{100 * own:.1f} %",
    ]  # fmt: skip


def _patients_table(patients: Sequence[Record]) -> str:
    rows = [
        [r["method"], str(r["patients"]), f"{np.mean(r['cpu_seconds']):.1f}",
         f"{np.mean(r['cpu_seconds']) / r['frames']:.2f}", f"{np.mean(r['seconds']):.1f}",
         f"{r['peak_memory_mib']:.0f}"]
        for r in patients
    ]  # fmt: skip
    header = [
        "patient",
        "patients",
        "processor seconds",
        "per frame",
        "seconds",
        "peak memory, MiB",
    ]
    return tabulate.markdown(header, rows)


def _biobank(patients: Sequence[Record]) -> str:
    """Hours of `COHORT` patients: two phases, and `FRAMES` frames on the line through both series."""
    seconds = {r["frames"]: float(np.mean(r["cpu_seconds"])) for r in patients}
    few, many = SERIES
    each = (seconds[many] - seconds[few]) / (many - few)
    whole = seconds[few] + (FRAMES - few) * each
    rows = [
        ["end-diastole and end-systole", f"{seconds[2]:.1f}", f"{seconds[2] / 2:.2f}",
         f"{COHORT * seconds[2] / 3600:,.0f}"],
        [f"{FRAMES} frames (first {few}: {seconds[few]:.1f} s, each further one {each:.2f} s)",
         f"{whole:.1f}", f"{whole / FRAMES:.2f}", f"{COHORT * whole / 3600:,.0f}"],
    ]  # fmt: skip
    head = f"processor hours of {COHORT:,} patients"
    return tabulate.markdown(
        ["of every patient", "processor seconds per patient", "per frame", head], rows
    )
