"""Real processes where something is amiss: poison, no right to write, one CPU, statuses that lie."""

import json
import os
import shutil
import signal
import sys

import pytest

from cardiacreg import cohort_status
from cardiacreg.cohort.status import read_status
from cardiacreg.compute.cache_files import CACHE_VARIABLE, NUMBA_VARIABLE, kernel_folder
from tests.helpers.cohorts import (
    obey_permissions,
    read_only,
    start_cohort,
    statuses,
    wait_until,
    write_cohort,
    write_patient,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux"),
]
HOW = ("--shard", "1/1")
POISON = """
import os, signal, sys

def die(event, arguments):
    if event == "open" and str(arguments[0]).endswith("poison/ED.nii.gz"):
        with open(os.environ["DEATHS"], "a") as told:
            told.write(f"{os.getpid()}\\n")
        os.kill(os.getpid(), getattr(signal, os.environ["DEATH"]))

if "patient_process" in " ".join(sys.orig_argv):
    sys.addaudithook(die)
"""


def ended(driver):
    """What a driver said, and how it ended."""
    said, _ = driver.communicate(timeout=200)
    return said, driver.returncode


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    return write_cohort(tmp_path_factory.mktemp("data") / "cohort", 1)


class TestPoison:
    @pytest.mark.parametrize("death", ["SIGKILL", "SIGSEGV"])
    def test_is_named_after_one_retry_and_its_neighbours_are_done(
        self, tmp_path, tiny_files, death
    ):
        cohort = write_cohort(tmp_path / "cohort", 2)
        write_patient(cohort / "poison", phases=("ED",))
        (cohort / "p0").rename(cohort / "z")
        (tmp_path / "sitecustomize.py").write_text(POISON)
        deaths = tmp_path / "deaths"
        ways = {"PYTHONPATH": str(tmp_path), "DEATHS": str(deaths), "DEATH": death}
        output = tmp_path / "out"
        driver = start_cohort(cohort, output, tiny_files.atlases, *HOW, environment=ways)
        said, code = ended(driver)
        assert code == 3 and "failed [PROCESS_ENDED] poison" in said, said
        named = read_status(output / "patients" / "poison")
        assert death in named["message"] and "tried twice" in named["message"]
        assert (named["attempts"], named["final"]) == (2, False)
        pids = deaths.read_text().split()
        assert len(pids) == len(set(pids)) == 2
        found = {name: read_status(output / "patients" / name) for name in ("p1", "z")}
        assert [found[name]["state"] for name in ("p1", "z")] == ["failed", "done"]
        assert {each["attempts"] for each in found.values()} == {1}


class TestPermissions:
    def test_inputs_atlases_and_caches_may_be_read_only(self, one, tmp_path, tiny_files):
        cache = tmp_path / "cache"
        cache.mkdir()
        shutil.copytree(kernel_folder(), cache / "kernels")
        ways = {CACHE_VARIABLE: str(cache), NUMBA_VARIABLE: str(cache)}
        with read_only(one), read_only(cache), read_only(tiny_files.atlases):
            driver = start_cohort(
                one, tmp_path / "out", tiny_files.atlases, *HOW,
                environment=ways, before=obey_permissions,
            )  # fmt: skip
            said, code = ended(driver)
        assert code == 0 and cohort_status(tmp_path / "out").counts == {"done": 1}, said

    def test_a_cache_that_cannot_be_made_costs_no_patient(self, one, tmp_path, tiny_files):
        (tmp_path / "cache").write_text("a file")
        ways = {
            CACHE_VARIABLE: str(tmp_path / "cache"),
            NUMBA_VARIABLE: str(kernel_folder().parent),
        }
        driver = start_cohort(one, tmp_path / "out", tiny_files.atlases, *HOW, environment=ways)
        said, code = ended(driver)
        assert code == 0 and "done p0" in said, said

    @pytest.mark.parametrize("where", [".", "patients"])
    def test_an_output_that_is_read_only_is_told_once(self, one, tmp_path, tiny_files, where):
        output = tmp_path / "out"
        (output / where).mkdir(parents=True)
        with read_only(output / where):
            driver = start_cohort(one, output, tiny_files.atlases, *HOW, before=obey_permissions)
            said, code = ended(driver)
        assert code == 1 and "OUTPUT_NOT_WRITABLE" in said and "Traceback" not in said, said


def test_one_cpu_is_enough_and_gives_the_same_bits(one, tmp_path, tiny_files):
    first = {min(os.sched_getaffinity(0))}
    ways = {"PYTHONPATH": str(tmp_path)}
    (tmp_path / "distributed.py").write_text("raise ImportError('not on one CPU')")
    drivers = [
        start_cohort(one, tmp_path / "one", tiny_files.atlases, environment=ways,
                     before=lambda: os.sched_setaffinity(0, first)),
        start_cohort(one, tmp_path / "two", tiny_files.atlases, *HOW, "--threads", 2),
    ]  # fmt: skip
    for driver in drivers:
        said, code = ended(driver)
        assert code == 0, said
    made = [read_status(tmp_path / name / "patients" / "p0")["outputs_sha256"]["ED/labels.nii.gz"]
            for name in ("one", "two")]  # fmt: skip
    assert made[0] == made[1]


def test_a_stopped_run_goes_on_where_it_was(tmp_path, tiny_files):
    cohort = write_cohort(tmp_path / "cohort", 1)
    write_patient(cohort / "q", phases=("ED",))
    output = tmp_path / "out"
    driver = start_cohort(cohort, output, tiny_files.atlases, *HOW)
    wait_until(lambda: (output / "patients" / "q").is_dir())
    kept = (output / "patients/p0/status.json").read_bytes()
    os.killpg(driver.pid, signal.SIGTERM)
    said, code = ended(driver)
    assert code == 130 and statuses(output) == ["p0"], said
    said, code = ended(start_cohort(cohort, output, tiny_files.atlases, *HOW, "--json", "-q"))
    assert code == 0 and json.loads(said)["counts"] == {"skipped": 1, "done": 1}, said
    assert (output / "patients/p0/status.json").read_bytes() == kept
