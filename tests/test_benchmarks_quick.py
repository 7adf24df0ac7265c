"""The quick runs that are cheap enough for every change: each measures and makes its tables."""

import json

import pytest

from benchmarks import __main__ as runner
from benchmarks import store

REFINES = "refines whole hearts; `make bench-quick` runs it"
TIMES = "times fresh processes or every kernel; `make bench-quick` runs it"
TRAINS = "needs torch; the network has tests of its own"
REAL = "needs data that cannot be shipped"
DRAWS = "draws pictures and makes no tables"
LEFT_OUT = {
    "ablation": REFINES,
    "anatomy": "samples every group and phase of the population; `make bench-quick` runs it",
    "anatomy_transfer": REAL,
    "comparison": REFINES,
    "figures": DRAWS,
    "fusion": TIMES,
    "fusion_modes": REFINES,
    "network": TRAINS,
    "network_acdc": REAL,
    "network_hr": TRAINS,
    "optimisers": "registers by every optimiser; `make bench-quick` runs it",
    "pathology": REFINES,
    "peers": "registers by other packages; `make bench-quick` runs it",
    "population_figure": DRAWS,
    "real": REAL,
    "roofline": TIMES,
    "scaling": TIMES,
    "selection": "simulates a bank of hundreds; `make bench-quick` runs it",
    "simulated": REFINES,
    "speed": TIMES,
    "startup": TIMES,
}
CHEAP = sorted(set(runner.names()) - set(LEFT_OUT))


def test_what_is_left_out_exists_and_something_is_left():
    assert set(LEFT_OUT) <= set(runner.names())
    assert CHEAP


@pytest.mark.parametrize("name", CHEAP)
def test_a_quick_run_measures_and_makes_its_tables(name, monkeypatch, tmp_path):
    monkeypatch.setattr(store, "FOLDER", tmp_path)
    monkeypatch.setattr(store, "settings", store.Settings())
    result = json.loads(json.dumps(runner.measure(name, quick=True)))
    assert result["quick"] and result["machine"]["commit"]
    assert not result.get("failed")
    assert result["records"] and not any("error" in record for record in result["records"])
    made = runner.load(name).tables(result)
    assert made and all(len(table.splitlines()) > 2 for table in made.values())
