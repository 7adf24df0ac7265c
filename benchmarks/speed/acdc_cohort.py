"""A real cohort: all patients of ACDC by one command, killed at work and begun again.

The command is the user's, on the folder of the data set: 100 patients, end-diastole and end-systole,
expert labels. The first run is killed, driver, workers and patients at once, when a third is done; the
same command goes on; once more it finds nothing to do. What was done before the kill must stay as it was.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import machine, tabulate
from benchmarks.harness.cases import data_folder
from benchmarks.harness.store import Record, Unit, gather

WORKERS = 2
_PATIENTS = 100
_POLL_SECONDS = 0.5
_RUNS = ("until it is killed", "the same command", "once more")


def run(quick: bool, cases: int = _PATIENTS) -> dict[str, Any]:
    """Refine so many patients of ACDC; a quick run takes two."""
    data = data_folder("acdc")
    return {"seeds": [], "records": gather("acdc_cohort", [_unit(data, 2 if quick else cases)])}


def _unit(data: Path, count: int) -> Unit:
    key = {"data": "ACDC", "patients": count, "workers": WORKERS}
    return Unit(key, lambda: key | _measured(data, count))


def _measured(data: Path, count: int) -> Record:
    with tempfile.TemporaryDirectory() as place:
        patients, out = Path(place) / "patients", Path(place) / "out"
        patients.mkdir()
        for each in sorted(data.glob("patient*"))[:count]:
            (patients / each.name).symlink_to(each)
        runs, before = [_carried_out(patients, out, kill_at=max(1, count // 3))], _statuses(out)
        runs += [_carried_out(patients, out) for _ in _RUNS[1:]]
        after = _statuses(out)
        told = [json.loads(text) for text, _ in after.values()]
    return {
        "runs": [{"run": name} | each for name, each in zip(_RUNS, runs, strict=True)],
        "done": sum(each["state"] == "done" for each in told),
        "failed": {each["subject"]: each.get("code") for each in told if each["state"] != "done"},
        "kept": sum(after[name] == status for name, status in before.items()),
        "cpu_seconds": [each["processor_seconds"] for each in told],
        "peak_memory_mib": max(each["process_peak_memory_mib"] for each in told),
    }


def _statuses(out: Path) -> dict[str, tuple[str, int]]:
    """Every patient's status, and when it was written."""
    return {
        path.parent.name: (path.read_text(encoding="utf-8"), path.stat().st_mtime_ns)
        for path in out.glob("patients/*/status.json")
    }


def _carried_out(patients: Path, out: Path, kill_at: int | None = None) -> Record:
    """Run the command; kill all of its processes where so many patients are done."""
    start, done_before = time.perf_counter(), len(_statuses(out))
    command = ["-m", "cardiacreg", "cohort", str(patients), "-o", str(out)]
    process = subprocess.Popen(
        [sys.executable, *command, "--workers", str(WORKERS), "--accept-failed"],
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(machine.ROOT)},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    peak_mib = 0.0
    while process.poll() is None:
        peak_mib = max(peak_mib, _resident_mib(process.pid))
        if kill_at is not None and len(list(out.glob("patients/*/status.json"))) >= kill_at:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        time.sleep(_POLL_SECONDS)
    return {
        "seconds": time.perf_counter() - start,
        "exit_code": process.returncode,
        "done_before": done_before,
        "done_after": len(_statuses(out)),
        "driver_mib": peak_mib,
    }


def _resident_mib(process: int) -> float:
    """Resident memory of a process, 0 where the system does not tell."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return what the runs did, and what the patients took."""
    good = [record for record in result["records"] if "error" not in record]
    if not good:
        return {}
    (record,) = good
    rows = [
        [each["run"], str(each["done_before"]), str(each["done_after"]), str(each["exit_code"]),
         f"{each['seconds']:.0f}", f"{each['driver_mib']:.0f}"]
        for each in record["runs"]
    ]  # fmt: skip
    header = ["run", "patients done before", "and after", "exit code", "seconds", "driver, MiB"]
    cpu = record["cpu_seconds"]
    failed = ", ".join(f"{name} {code}" for name, code in record["failed"].items())
    cells = [
        str(record["done"]), failed or "0", str(record["kept"]),
        f"{np.mean(cpu):.1f}", f"{np.max(cpu):.1f}", f"{record['peak_memory_mib']:.0f}",
    ]  # fmt: skip
    return {
        "acdc_cohort-runs": tabulate.markdown(header, rows),
        "acdc_cohort-patients": tabulate.markdown(
            ["patients done", "failed", "as they were before the kill", "processor seconds, mean",
             "most", "peak memory of a patient, MiB"],
            [cells],
        ),
    }  # fmt: skip
