"""Quick runs of the benchmarks that are cheap, on a bank of a few atlases, and why the others do not run.

`make bench-quick` runs every benchmark; here it is those that take seconds and need no data but ours.
"""

import json
import warnings

import pytest

from benchmarks import __main__ as runner
from benchmarks import cases, store
from cardiacreg import atlas_bank
from cardiacreg.errors import InputWarning
from cardiacreg.phantoms import HeartSpecification

CHEAP = ("initialisation", "comparison")
REFINES = "refines whole hearts for minutes; the steps that it shares with `comparison` run here"
TIMES = "times fresh processes or every kernel; a busy machine makes nonsense of it"
REAL = "needs data that cannot be shipped"
TRAINS = "trains or runs a network; the network has tests of its own"
LEFT_OUT = {
    "ablation": REFINES,
    "anatomy": "samples every group and phase of the population, a minute",
    "anatomy_transfer": REAL,
    "banks": "reads banks in fresh processes, with packages of the extra bench-peers",
    "figures": "writes into the documentation",
    "fusion": TIMES,
    "fusion_modes": REFINES,
    "network": TRAINS,
    "network_acdc": REAL,
    "network_hr": TRAINS,
    "optimisers": "registers with every optimiser for minutes; its parts have tests of their own",
    "pathology": REFINES,
    "peers": "registers with other packages, of the extra bench-peers",
    "population_figure": "draws whole hearts; no numbers",
    "real": REAL,
    "roofline": TIMES,
    "scaling": TIMES,
    "selection": "simulates a bank of hundreds",
    "simulated": REFINES,
    "speed": TIMES,
    "startup": TIMES,
}
GROUPS = ("pulmonary_hypertension", "healthy", "healthy", "pulmonary_hypertension", "dilated")


def test_every_benchmark_runs_here_or_has_a_reason():
    assert {*CHEAP, *LEFT_OUT} == set(runner.names())
    assert not set(CHEAP) & set(LEFT_OUT)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # raised inside SimpleITK
@pytest.mark.parametrize("name", CHEAP)
def test_a_quick_run_measures_without_error_and_fills_its_tables(name, monkeypatch, tmp_path):
    few = tuple(HeartSpecification(seed, group) for seed, group in enumerate(GROUPS))
    monkeypatch.setattr(atlas_bank, "default_specifications", lambda: few)
    monkeypatch.setattr(atlas_bank, "_model_key", lambda: "quick")
    monkeypatch.setattr(store, "FOLDER", tmp_path)
    monkeypatch.setattr(store, "settings", store.Settings())
    monkeypatch.setenv(cases.DATA_VARIABLE, str(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        result = json.loads(json.dumps(runner.measure(name, quick=True)))
    assert result["quick"] and result["machine"]["commit"]
    assert result["records"] and not [r["error"] for r in result["records"] if "error" in r]
    tables = runner.load(name).tables(result)
    assert tables and all(len(table.splitlines()) > 2 for table in tables.values())
