"""Quick runs of the benchmarks, on a bank of a few atlases and hearts of coarse voxels.

`make bench-quick` runs every benchmark; here it is those that need no data but ours and take seconds.
Those whose data are absent show that they say so.
"""

import json
import warnings
from functools import partial

import pytest

from benchmarks import __main__ as runner
from benchmarks.accuracy import surfaces
from benchmarks.harness import cases, store
from benchmarks.network import network_labels
from cardiacreg.atlases import packed
from cardiacreg.errors import InputWarning
from cardiacreg.phantoms.hearts import HeartSpecification, sample_heart

COARSE_MM = (2.5, 2.5, 4.0)
CHEAP = (
    "bad_inputs", "cohort", "comparison", "fast_method", "initialisation", "long_axis", "meshes",
    "network_scanners", "pathology", "peers", "reliability", "startup", "surfaces",
)  # fmt: skip
COARSE = (
    "comparison",
    "fast_method",
    "initialisation",
    "long_axis",
    "network_scanners",
    "pathology",
    "reliability",
    "surfaces",
)
NEEDS_TORCH = ("network_scanners",)
ABSENT = (
    "acdc_cohort", "anatomy_transfer", "hidden_ends", "missing_base", "network_acdc", "orientation",
    "other_image", "real", "two_frames", "volumes",
)  # fmt: skip
TIMES = "times fresh processes or every kernel for minutes"
TRAINS = "trains or runs a network; the network has tests of its own"
LEFT_OUT = {
    "ablation": "refines whole hearts in every step of the ablation, half a minute",
    "anatomy": "samples every group and phase of the population, a minute",
    "example": "runs the README's lines with the whole bank; test_documentation runs them with few",
    "cine": "refines every frame of a beating heart twice; its tables are tested in test_cine_tables",
    "banks": "reads banks in fresh processes, with packages of the extra bench-peers",
    "figures": "writes into the documentation",
    "fusion": TIMES,
    "fusion_modes": "fuses whole hearts in every mode; the modes have tests of their own",
    "intervals": "refines whole hearts, half a minute; tables and fit are tested in test_intervals",
    "measures": "draws and refines whole hearts, a minute; what it measures is tested in tests/measures",
    "network": TRAINS,
    "network_cine": TRAINS,
    "network_doubt": TRAINS,
    "network_gpu": TRAINS,
    "network_hr": TRAINS,
    "network_views": "draws and refines whole hearts; its tables are tested in test_views_tables",
    "network_labels": "draws and refines whole hearts; its parts are tested in test_learned_comparators",
    "optimisers": "registers with every optimiser for minutes; its parts have tests of their own",
    "population_figure": "draws whole hearts; no numbers",
    "quality": "refines whole hearts after every failure; these are tested in test_failures",
    "roofline": TIMES,
    "scaling": TIMES,
    "selection": "simulates a bank of hundreds",
    "selection_by_image": "refines whole hearts thrice",
    "selection_large": "simulates hearts; its parts are tested in test_benchmarks",
    "simulated": "refines whole hearts for minutes; the steps that it shares with `comparison` run here",
    "speed": TIMES,
    "views": "refines whole hearts four times; its tables are tested in test_views_tables",
}
GROUPS = ("pulmonary_hypertension", "healthy", "healthy", "pulmonary_hypertension", "dilated")


def test_every_benchmark_runs_here_or_has_a_reason():
    assert {*CHEAP, *ABSENT, *LEFT_OUT} == set(runner.names())
    assert len(CHEAP) + len(ABSENT) + len(LEFT_OUT) == len(runner.names())


def test_all_leaves_settled_questions_out(monkeypatch, tmp_path):
    ran = []
    monkeypatch.setattr(runner, "_one", lambda name, *_: ran.append(name))
    assert runner.main(["all", "--quick", "--json", str(tmp_path)]) == 0
    assert set(runner.names()) - set(ran) == {
        "banks",
        "network_gpu",
        "optimisers",
        "selection_large",
    }


@pytest.fixture(scope="module")
def few_packed(tmp_path_factory):
    """The file of a bank of five atlases, which is only read."""
    file = tmp_path_factory.mktemp("few") / "few.zip"
    packed.write_packed_bank(
        file, tuple(HeartSpecification(seed, group) for seed, group in enumerate(GROUPS))
    )
    return file


@pytest.fixture
def few_hearts(few_packed, monkeypatch, tmp_path):
    """A bank of five atlases, no data, and nothing measured before."""
    monkeypatch.setattr(packed, "SHIPPED", few_packed)
    monkeypatch.setattr(store, "FOLDER", tmp_path)
    monkeypatch.setattr(store, "settings", store.Settings())
    monkeypatch.setenv(cases.DATA_VARIABLE, str(tmp_path))


@pytest.fixture
def coarse_hearts(monkeypatch):
    """Hearts of coarse voxels, and points of true surfaces farther apart."""
    for module in (cases, network_labels, surfaces):
        coarse = partial(sample_heart, spacing_mm=COARSE_MM)
        monkeypatch.setattr(module, "sample_heart", coarse)
    monkeypatch.setattr(surfaces, "_TRUE_STEP_MM", 1.2)
    cases._synthetic_case.cache_clear()
    yield
    cases._synthetic_case.cache_clear()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # raised inside SimpleITK
@pytest.mark.parametrize("name", CHEAP)
def test_a_quick_run_measures_without_error_and_fills_its_tables(name, few_hearts, request):
    if name in NEEDS_TORCH:
        pytest.importorskip("torch")
    if name in COARSE:
        request.getfixturevalue("coarse_hearts")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        result = json.loads(json.dumps(runner.measure(name, quick=True)))
    assert result["quick"] and result["machine"]["commit"]
    assert result["records"] and not [r["error"] for r in result["records"] if "error" in r]
    tables = runner.load(name).tables(result)
    assert tables and all(table.count("\n") > 1 for table in tables.values())


@pytest.mark.parametrize("name", ABSENT)
def test_what_needs_data_says_which_are_absent(name, few_hearts):
    with pytest.raises(cases.DataAbsent, match=r"set CARDIACREG_DATA|is there"):
        runner.measure(name, quick=True)
