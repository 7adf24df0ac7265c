"""The examples run and do what their comments say."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from cardiacreg.atlases.bank_building import build_atlas_bank
from cardiacreg.phantoms.hearts import HeartSpecification, sample_heart
from tests.helpers.snippets import HEARTS_MM, coarsely

EXAMPLES = Path(__file__).parents[1] / "examples"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::cardiacreg.errors.InputWarning"),
]


def test_refine_a_phantom(tmp_path, capsys):
    specifications = [HeartSpecification(seed, "hypertrophic") for seed in range(4)]
    bank = build_atlas_bank(tmp_path / "bank", specifications)
    main = runpy.run_path(str(EXAMPLES / "01_refine_a_phantom.py"))["main"]
    with coarsely():
        result = main(tmp_path / "out", atlases=bank)
    assert (tmp_path / "out" / "qc.png").is_file()
    assert result.minimum_jacobian > 0
    assert "RV cavity  Dice" in capsys.readouterr().out


def test_bring_your_own_atlases(tmp_path, capsys):
    main = runpy.run_path(str(EXAMPLES / "02_bring_your_own_atlases.py"))["main"]
    result = main(tmp_path, spacing_mm=HEARTS_MM)
    assert len(result.atlases) == 3
    assert {report.name.split("_")[0] for report in result.atlases} == {"dilated"}
    assert (tmp_path / "refined" / "result.json").is_file()
    assert "4 atlases" in capsys.readouterr().out


def test_fuse_warped_atlases(tmp_path, capsys):
    spacing = (2.5, 2.5, 5.0)
    hearts = [sample_heart(seed, spacing_mm=spacing) for seed in range(3)]
    build_atlas_bank(tmp_path / "bank", hearts)
    main = runpy.run_path(str(EXAMPLES / "03_fuse_warped_atlases.py"))["main"]
    fusions = main(tmp_path / "out", bank=tmp_path / "bank", n_atlases=2, spacing_mm=spacing)
    assert (tmp_path / "out" / "confidence.png").is_file()
    assert all((fusion.confidence.array < 1).any() for fusion in fusions.values())
    assert "2 of 3 atlases" in capsys.readouterr().out


def test_every_example_is_tested():
    files = (Path(__file__), Path(__file__).parent / "doors" / "test_interoperability.py")
    source = "".join(file.read_text(encoding="utf-8") for file in files)
    assert all(path.name in source for path in EXAMPLES.glob("*.py"))
