"""The scripts of the gallery run, coarsely, and each draws at least one picture."""

import runpy
import tempfile
from pathlib import Path

import matplotlib
import pytest

from cardiacreg import build_atlas_bank, sample_heart
from tests.helpers.snippets import HEARTS_MM, coarsely

matplotlib.use("Agg")

SCRIPTS = sorted((Path(__file__).parents[2] / "examples" / "gallery").glob("*.py"))
WITH_THE_SHIPPED_BANK = "01_refine_one_heart"
COARSER = {
    "(1.5, 1.5, 2.5)": str(HEARTS_MM),
    "(1.5, 1.5, 2.0)": str(HEARTS_MM),
    "(2.0, 2.0, 2.5)": str(HEARTS_MM),
    "n_frames=8": "n_frames=3",
    "range(6)": "range(3)",  # atlases of a group
}
"""Words of the scripts that make many voxels or models, and what they are here."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::cardiacreg.errors.InputWarning"),
    pytest.mark.filterwarnings("ignore::cardiacreg.errors.ResultWarning"),
]


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    """A bank of few coarse hearts, of both phases."""
    hearts = [
        sample_heart(seed, phase=phase, group=group, spacing_mm=HEARTS_MM, with_image=False)
        for phase in ("ED", "ES")
        for seed, group in enumerate(("healthy", "dilated", "hypertrophic"))
    ]
    folder = tmp_path_factory.mktemp("bank") / "bank"
    build_atlas_bank(folder, hearts)
    return folder


def coarser(script, folder):
    """A copy of a script that asks for less."""
    text = script.read_text(encoding="utf-8")
    for asked, less in COARSER.items():
        text = text.replace(asked, less)
    (folder / script.name).write_text(text, encoding="utf-8")
    return folder / script.name


def test_what_is_made_coarser_is_still_said():
    said = "".join(script.read_text(encoding="utf-8") for script in SCRIPTS)
    assert all(asked in said for asked in COARSER)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_runs_and_draws(script, bank, monkeypatch, tmp_path, tmp_path_factory, capsys):
    script = coarser(script, tmp_path_factory.mktemp("script"))
    pyplot = pytest.importorskip("matplotlib.pyplot")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("temporary")))
    pyplot.close("all")
    with coarsely(None if script.stem == WITH_THE_SHIPPED_BANK else bank):
        found = runpy.run_path(str(script))
    assert pyplot.get_fignums()
    pyplot.close("all")
    assert capsys.readouterr().out
    for name, value in found.items():
        if isinstance(value, Path) and value.suffix == ".png":
            assert value.is_file(), name
    assert not list(tmp_path.iterdir())
