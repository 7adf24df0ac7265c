"""Real processes: limits, kills, interruptions, two runs at once; nothing is lost, nobody else fails."""

import json
import os
import signal
import subprocess
import sys

import nibabel
import numpy as np
import pytest

from cardiacreg import cohort_status
from cardiacreg.cohort.patient_process import PatientProcess, resident_mib
from cardiacreg.cohort.status import read_status
from cardiacreg.cohort.task import DONE, LOST, Task
from tests.helpers.cohorts import (
    patient_processes,
    settings,
    start_cohort,
    statuses,
    wait_until,
    write_cohort,
    write_patient,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX"),
]
HOW = ("--shard", "1/1")


@pytest.fixture
def process():
    found = PatientProcess()
    yield found
    found.close()


def task_of(folder, output, atlases, **how):
    row = {"subject": folder.name, "labels": str(folder)}
    return Task(folder.name, row, settings(output, atlases, **how))


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return write_cohort(tmp_path_factory.mktemp("data") / "cohort", 3)


def hidden(output):
    """What work on patients has not tidied up."""
    return list((output / "patients").rglob(".*"))


class TestOneProcess:
    def test_limits_of_time_and_memory_and_a_kill_end_it_and_the_next_patient_is_done(
        self, process, tmp_path, tiny_files
    ):
        folder = write_patient(tmp_path / "p", phases=("ED",))
        output = tmp_path / "out"
        slow = task_of(folder, output, tiny_files.atlases, time_limit_seconds=0.3)
        found = process.carry_out(slow)
        assert (found.state, found.code) == (LOST, "TIME_LIMIT")
        assert process.pid is None and statuses(output) == []
        hungry = task_of(folder, output, tiny_files.atlases, memory_limit_mib=20.0)
        found = process.carry_out(hungry)
        assert (found.state, found.code) == (LOST, "MEMORY_LIMIT") and "20 MiB" in found.message
        allowed = task_of(folder, output, tiny_files.atlases, memory_limit_mib=4000.0)
        assert process.carry_out(allowed).state == DONE and not hidden(output)
        pid = process.pid
        assert process.carry_out(allowed).state == "skipped" and process.pid == pid
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: process._process.poll() is not None)
        assert process.carry_out(allowed).state == "skipped" and process.pid != pid

    def test_memory_of_a_process_is_known(self):
        assert 5 < resident_mib(os.getpid()) < 100_000
        assert resident_mib(None) is None

    def test_that_ends_by_itself_tells_how(self, process, tmp_path):
        process._send(None)  # the end of its work
        assert process._replies.get(timeout=60) is None
        code, message = process._ended()
        assert code == "PROCESS_ENDED" and "exit code 0" in message


class TestKills:
    def test_of_a_patient_process_cost_one_retry(self, cohort, tmp_path, tiny_files):
        output = tmp_path / "out"
        driver = start_cohort(cohort, output, tiny_files.atlases, "--workers", 1, "--accept-failed")
        wait_until(lambda: statuses(output))
        first = set(statuses(output))
        (victim,) = wait_until(lambda: patient_processes(driver.pid))
        os.kill(victim, signal.SIGKILL)
        said, _ = driver.communicate(timeout=200)
        assert driver.returncode == 0, said
        assert cohort_status(output).counts == {"done": 2, "failed": 1}, said
        attempts = {n: read_status(output / "patients" / n)["attempts"] for n in statuses(output)}
        assert sorted(attempts.values())[-1] == 2 and all(attempts[name] == 1 for name in first)
        assert not hidden(output)

    def test_of_the_driver_lose_nothing(self, cohort, tmp_path, tiny_files):
        output = tmp_path / "out"
        driver = start_cohort(cohort, output, tiny_files.atlases, *HOW)
        wait_until(lambda: statuses(output))
        driver.kill()
        driver.communicate()
        kept = {n: (output / f"patients/{n}/status.json").read_bytes() for n in statuses(output)}
        again = start_cohort(cohort, output, tiny_files.atlases, *HOW, "--json")
        said, _ = again.communicate(timeout=200)
        assert again.returncode == 3, said
        for name, content in kept.items():
            assert (output / f"patients/{name}/status.json").read_bytes() == content
        assert cohort_status(output).counts == {"done": 2, "failed": 1} and not hidden(output)

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_by_request_end_in_order(self, cohort, tmp_path, tiny_files, number):
        output = tmp_path / "out"
        driver = start_cohort(cohort, output, tiny_files.atlases, *HOW)
        wait_until(lambda: patient_processes(driver.pid) and (output / "patients" / "p0").is_dir())
        os.killpg(driver.pid, number)
        said, _ = driver.communicate(timeout=60)
        assert (
            driver.returncode == 130
            and "the same command goes on" in said
            and "Traceback" not in said
        )
        wait_until(lambda: not hidden(output), 20)


class TestNeighbours:
    def test_of_a_patient_that_takes_too_much_memory_are_done(self, tmp_path, tiny_files):
        cohort = write_cohort(tmp_path / "cohort", 1)
        large = cohort / "large"
        large.mkdir()
        image = nibabel.Nifti1Image(
            np.zeros((512, 512, 400), np.int32), np.diag([0.5, 0.5, 1.0, 1])
        )
        nibabel.save(image, large / "ED.nii.gz")
        (large / "patient.csv").write_text("labels\nED.nii.gz\n")
        output = tmp_path / "out"
        driver = start_cohort(cohort, output, tiny_files.atlases, *HOW, "--memory-limit", 600)
        said, _ = driver.communicate(timeout=300)
        assert driver.returncode == 3 and "failed [MEMORY_LIMIT] large" in said, said
        assert read_status(output / "patients" / "p0")["state"] == "done"
        assert "tried twice" in read_status(output / "patients" / "large")["message"]

    def test_two_runs_share_a_folder(self, cohort, tmp_path, tiny_files):
        output = tmp_path / "out"
        both = [start_cohort(cohort, output, tiny_files.atlases, *HOW, "--json") for _ in range(2)]
        said = [driver.communicate(timeout=200)[0] for driver in both]
        assert cohort_status(output).counts == {"done": 2, "failed": 1}, said
        found = [json.loads(text[text.index("{") :])["counts"] for text in said]
        assert sum(counts.get("done", 0) for counts in found) == 2 and not hidden(output)

    def test_a_run_that_cannot_write_says_so_before_it_works(self, cohort, tmp_path, tiny_files):
        (tmp_path / "out").write_text("a file")
        driver = start_cohort(cohort, tmp_path / "out", tiny_files.atlases, *HOW)
        said, _ = driver.communicate(timeout=60)
        assert driver.returncode == 1 and "OUTPUT_NOT_WRITABLE" in said, said


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a small disk of Linux")
def test_a_disk_that_is_full_keeps_what_is_done(cohort, tmp_path, tiny_files):
    output = tmp_path / "small"
    output.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", output],
                          capture_output=True)  # fmt: skip
    if done.returncode:
        pytest.skip("no right to mount a small disk")
    try:
        driver = start_cohort(cohort, output / "out", tiny_files.atlases, *HOW)
        said, _ = driver.communicate(timeout=200)
        assert driver.returncode == 1 and "OUTPUT_NOT_WRITABLE" in said, said
        assert not [each for each in hidden(output) if each.name != ".lock"]
    finally:
        subprocess.run(["umount", output], check=True)
