"""The scripts of the gallery run, with few atlases, and each draws at least one picture."""

import runpy
from pathlib import Path

import matplotlib
import pytest

from cardiacreg.atlases import embedded
from cardiacreg.phantoms.hearts import HeartSpecification

matplotlib.use("Agg")

SCRIPTS = sorted((Path(__file__).parents[2] / "examples" / "gallery").glob("*.py"))
GROUPS = ("dilated", "healthy", "hypertrophic")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::cardiacreg.errors.InputWarning"),
    pytest.mark.filterwarnings("ignore::cardiacreg.errors.ResultWarning"),
]


@pytest.fixture
def few_atlases(monkeypatch):
    few = tuple(HeartSpecification(seed, group) for seed, group in enumerate(GROUPS))
    monkeypatch.setattr(embedded, "default_specifications", lambda: few)
    monkeypatch.setattr(embedded, "_model_key", lambda: "gallery")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_runs_and_draws(script, few_atlases, monkeypatch, tmp_path, capsys):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    monkeypatch.chdir(tmp_path)
    pyplot.close("all")
    found = runpy.run_path(str(script))
    assert pyplot.get_fignums()
    pyplot.close("all")
    assert capsys.readouterr().out
    for name, value in found.items():
        if isinstance(value, Path) and value.suffix == ".png":
            assert value.is_file(), name
    assert not list(tmp_path.iterdir())
