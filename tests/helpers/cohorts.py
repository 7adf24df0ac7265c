"""Cohorts of toy hearts on disk, and work that stands in for refinements, for processes of their own."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from cardiacreg import RefineOptions, write_labels
from cardiacreg.cohort.task import DONE, FAILED, Outcome, Settings, Task
from cardiacreg.phantoms.toy_heart import make_toy_heart

ROOT = Path(__file__).parents[2]
QUICK = ("--orientation", "as-stored", "--spacing", "2.5", "2.5", "4", "--method", "fast")
SPACING_MM = (2.5, 2.5, 4.0)
_PR_CAPBSET_DROP, _DAC_OVERRIDE, _DAC_READ_SEARCH = 24, 1, 2


def quick_options():
    """As `QUICK` has it."""
    return replace(RefineOptions.fast(), orientation="as-stored")


def settings(output, atlases, **changes):
    """Settings under which a toy patient takes about a second."""
    known = {"spacing_mm": SPACING_MM, "options": quick_options(), "atlases": atlases}
    return Settings(Path(output), Path(output).parent, **known | changes)


def write_patient(folder, *, size=1.0, phases=("ED", "ES")):
    """A patient of toy hearts under names of our table, with canonical labels."""
    folder.mkdir(parents=True, exist_ok=True)
    for phase in phases:
        heart = make_toy_heart(size=size if phase == "ED" else 0.9 * size)
        write_labels(folder / f"{phase}.nii.gz", heart.labels)
    rows = [f"{phase},{phase}.nii.gz" for phase in phases]
    (folder / "patient.csv").write_text("\n".join(["frame,labels", *rows]) + "\n")
    return folder


def write_cohort(folder, count):
    """Patients p0, p1, ... of one frame each; the second of them is broken."""
    for n in range(count):
        place = write_patient(folder / f"p{n}", size=1 - 0.01 * n, phases=("ED",))
        if n == 1:
            (place / "ED.nii.gz").write_bytes(b"no image")
    return folder


def start_cohort(cohort, output, atlases, *how, environment=None, before=None):
    """The command in a process and a group of its own; `before` is called in it before it begins."""
    command = [sys.executable, "-m", "cardiacreg", "cohort", cohort, "-o", output, "--atlases",
               atlases, *QUICK, *how]  # fmt: skip

    def begin():
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if before is not None:
            before()

    return subprocess.Popen(
        list(map(str, command)), cwd=ROOT, start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, preexec_fn=begin,
        env=os.environ | (environment or {}),
    )  # fmt: skip


def obey_permissions():
    """Let files' permissions hold for the superuser too, from the next program on (Linux)."""
    if os.geteuid() == 0:
        for right in (_DAC_OVERRIDE, _DAC_READ_SEARCH):
            if ctypes.CDLL(None, use_errno=True).prctl(_PR_CAPBSET_DROP, right, 0, 0, 0):
                raise OSError(ctypes.get_errno(), "the right to write everywhere stays")


@contextmanager
def read_only(folder):
    """Nothing in a folder can be changed by those who obey permissions."""
    places = [folder, *folder.rglob("*")]
    for place in places:
        place.chmod(0o555 if place.is_dir() else 0o444)
    try:
        refused = subprocess.run(
            ["touch", folder / "new"], preexec_fn=obey_permissions, capture_output=True
        )
        assert refused.returncode, "permissions do not hold here"
        yield
    finally:
        for place in places:
            place.chmod(0o755 if place.is_dir() else 0o644)


def wait_until(condition, seconds=120.0):
    """Wait for something to be true, and return it."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.05)
    return found


def statuses(output):
    return sorted(path.parent.name for path in Path(output).glob("patients/*/status.json"))


def patient_processes(driver):
    """Numbers of the patient processes below a driver, however deep."""
    table = subprocess.run(["ps", "-wweo", "pid,ppid,args"], capture_output=True, text=True).stdout
    rows = [line.split(None, 2) for line in table.splitlines()[1:]]
    below, found = {str(driver)}, []
    for _ in range(4):
        for pid, parent, command in rows:
            if parent in below and pid not in below:
                below.add(pid)
                if "patient_process" in command:
                    found.append(int(pid))
    return found


def stub(task: Task) -> Outcome:
    """Work that only tells; "poison" kills its worker, "bad" fails."""
    if task.subject.startswith("poison"):
        os.kill(os.getpid(), signal.SIGKILL)
    if task.subject.startswith("bad"):
        return Outcome(task.subject, FAILED, "BAD", "it is bad")
    return Outcome(task.subject, DONE, findings=("LOOK",))
