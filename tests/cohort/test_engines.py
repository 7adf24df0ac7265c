"""Tasks go through a window; what a dying worker takes with it is told, and tried once more alone."""

import json
from collections import Counter

import pytest

from cardiacreg import InvalidInputError, refine_cohort
from cardiacreg.cohort import _refine_cohort, engines
from cardiacreg.cohort.manifest import open_manifest
from cardiacreg.cohort.task import BUSY, DONE, FAILED, LOST, Outcome, Task
from tests.helpers.cohorts import settings, stub


class Recorded(engines.SerialEngine):
    """Keeps how many tasks were in flight."""

    window = 4

    def __init__(self, work=stub):
        super().__init__(work)
        self.in_flight, self.most, self.seen = 0, 0, []

    def submit(self, task):
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        self.seen.append(task)
        super().submit(task)

    def next(self):
        self.in_flight -= 1
        return super().next()


@pytest.fixture
def cohort(tmp_path):
    """Run a cohort of given names through an engine, and return what became of it."""

    def run(names, engine):
        place = tmp_path / "m.csv"
        place.write_text("subject,labels\n" + "".join(f"{name},x.nii\n" for name in names))
        (tmp_path / "out").mkdir(exist_ok=True)
        told = []
        how = settings(tmp_path / "out", tmp_path)
        found = _refine_cohort._run(
            engine, open_manifest(place), how, lambda run, outcome: told.append(outcome)
        )
        return found, told

    return run


class TestWindow:
    def test_few_are_in_flight_and_all_come_back(self, tmp_path):
        engine = Recorded()
        tasks = (Task(f"s{n}", {}, settings(tmp_path, tmp_path)) for n in range(50))
        found = [outcome.subject for _, outcome in engines.windowed(tasks, engine)]
        assert found == [f"s{n}" for n in range(50)] and engine.most == 4

    def test_rows_are_read_as_they_are_needed(self, tmp_path):
        engine, read = Recorded(), []

        def tasks():
            for n in range(50):
                read.append(n)
                yield Task(f"s{n}", {}, settings(tmp_path, tmp_path))

        next(iter(engines.windowed(tasks(), engine)))
        assert len(read) == 4


class TestRun:
    def test_counts_what_became_of_everybody(self, cohort, tmp_path):
        run, told = cohort(["a", "bad", "c"], Recorded())
        assert run.counts == Counter({DONE: 2, FAILED: 1}) and run.codes == {"BAD": 1}
        assert run.findings == {"LOOK": 2} and [each.subject for each in run.failed] == ["bad"]
        assert len(told) == 3
        note = json.loads((tmp_path / "out" / "progress.json").read_text())
        assert note["total"] == 3 and note["left"] == 0

    def test_lost_ones_are_tried_once_more_alone_at_the_end(self, cohort, tmp_path):
        def work(task):
            lost = task.subject == "poison" or (task.subject == "neighbour" and not task.alone)
            return Outcome(task.subject, LOST, "PROCESS_ENDED", "killed") if lost else stub(task)

        engine = Recorded(work)
        (tmp_path / "x.nii").write_bytes(b"")
        run, told = cohort(["neighbour", "poison", "a"], engine)
        assert [task.subject for task in engine.seen] == [
            "neighbour",
            "poison",
            "a",
            "neighbour",
            "poison",
        ]
        assert [task.alone for task in engine.seen] == [False] * 3 + [True] * 2
        assert {o.subject: o.state for o in told} == {
            "a": DONE,
            "neighbour": DONE,
            "poison": FAILED,
        }
        named = json.loads((tmp_path / "out/patients/poison/status.json").read_text())
        assert named["code"] == "PROCESS_ENDED" and "tried twice" in named["message"]
        assert named["attempts"] == 2 and not named["final"]

    def test_a_time_limit_is_not_tried_twice(self, cohort, tmp_path):
        engine = Recorded(
            lambda task: Outcome(task.subject, LOST, "TIME_LIMIT", "not done after 1 s")
        )
        run, _ = cohort(["slow"], engine)
        assert run.codes == {"TIME_LIMIT": 1} and len(engine.seen) == 1

    def test_busy_ones_are_asked_for_again_at_the_end(self, cohort):
        engine = Recorded(lambda task: Outcome(task.subject, BUSY))
        run, _ = cohort(["a"], engine)
        assert len(engine.seen) == 2 and run.counts == {BUSY: 1}

    def test_a_full_disk_stops_it(self, cohort):
        def work(task):
            return Outcome(task.subject, FAILED, "OUTPUT_NOT_WRITABLE", "no space", stops=True)

        engine = Recorded(work)
        with pytest.raises(InvalidInputError, match="takes no more files"):
            cohort([f"s{n}" for n in range(40)], engine)
        assert len(engine.seen) == 4


class TestOptions:
    @pytest.mark.parametrize("how", [{}, {"workers": 0}, {"workers": 1, "shard": (1, 1)}])
    def test_one_engine_is_asked_for(self, tmp_path, how):
        (tmp_path / "m.csv").write_text("subject,labels\na,x\n")
        with pytest.raises(InvalidInputError, match="one of them only"):
            refine_cohort(tmp_path / "m.csv", tmp_path / "out", **how)

    @pytest.mark.parametrize("shard", [{1: 2, 3: 4}, ("1", "2"), "12"])
    def test_shards_are_numbers(self, tmp_path, shard):
        with pytest.raises(InvalidInputError, match="refine_cohort: shard") as told:
            refine_cohort(tmp_path, tmp_path / "out", shard=shard)
        assert told.value.code == "BAD_TYPE"

    @pytest.mark.parametrize("shard", [(0, 2), (3, 2), (1,)])
    def test_shards_are_parts(self, tmp_path, shard):
        with pytest.raises(InvalidInputError, match="1 <= i <= n"):
            refine_cohort(tmp_path, tmp_path / "out", shard=shard)

    def test_results_go_elsewhere(self, tmp_path):
        (tmp_path / "p").mkdir()
        with pytest.raises(InvalidInputError) as told:
            refine_cohort(tmp_path, tmp_path, shard=(1, 1))
        assert told.value.code == "OUTPUT_IS_INPUT"


class TestDask:
    @pytest.fixture(autouse=True)
    def needs_dask(self):
        pytest.importorskip("distributed")

    @pytest.mark.filterwarnings("default")
    def test_a_worker_that_dies_costs_only_its_patient(self, cohort, tmp_path):
        names = [f"s{n}" for n in range(12)] + ["poison"] + [f"t{n}" for n in range(12)]
        with engines.dask_engine(2, None, work=stub) as engine:
            run, told = cohort(names, engine)
        states = {outcome.subject: outcome.state for outcome in told}
        assert states.pop("poison") == FAILED
        assert len(states) == 24 and set(states.values()) == {DONE}
        named = json.loads((tmp_path / "out/patients/poison/status.json").read_text())
        assert named["code"] == "PROCESS_ENDED"

    @pytest.mark.filterwarnings("default")
    def test_a_running_scheduler_is_used(self, cohort):
        from distributed import LocalCluster

        with LocalCluster(n_workers=1, processes=False, dashboard_address="127.0.0.1:0") as cluster:
            with engines.dask_engine(None, cluster.scheduler_address, work=stub) as engine:
                run, _ = cohort(["a", "b", "bad"], engine)
        assert run.counts == {DONE: 2, FAILED: 1}

    def test_nobody_at_the_address(self, monkeypatch):
        import distributed

        def refused(address):
            raise OSError("nobody there")

        monkeypatch.setattr(distributed, "Client", refused)
        with pytest.raises(InvalidInputError) as told:
            with engines.dask_engine(None, "tcp://127.0.0.1:1"):
                pass
        assert told.value.code == "NO_SCHEDULER"

    def test_without_dask_it_is_said_what_to_install(self, monkeypatch):
        import sys

        monkeypatch.setitem(sys.modules, "distributed", None)
        with pytest.raises(InvalidInputError, match=r"cardiacreg\[cohort\].*--shard 1/1"):
            with engines.dask_engine(2, None):
                pass
