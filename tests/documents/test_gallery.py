"""The scripts of the gallery run, and each draws at least one picture."""

import runpy
import tempfile
from pathlib import Path

import matplotlib
import pytest

matplotlib.use("Agg")

SCRIPTS = sorted((Path(__file__).parents[2] / "examples" / "gallery").glob("*.py"))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::cardiacreg.errors.InputWarning"),
    pytest.mark.filterwarnings("ignore::cardiacreg.errors.ResultWarning"),
]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_runs_and_draws(script, monkeypatch, tmp_path, tmp_path_factory, capsys):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("temporary")))
    pyplot.close("all")
    found = runpy.run_path(str(script))
    assert pyplot.get_fignums()
    pyplot.close("all")
    assert capsys.readouterr().out
    for name, value in found.items():
        if isinstance(value, Path) and value.suffix == ".png":
            assert value.is_file(), name
    assert not list(tmp_path.iterdir())
