"""Every check against another tool that docs/interoperability.md tells of, and the page itself."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path
from unittest.mock import MagicMock

import pytest

import cardiacreg
from cardiacreg.phantoms.toy_heart import make_toy_heart
from cardiacreg.surfaces.files import write_surfaces
from tests.helpers.interoperability import CHECKS, FORMATS, PAGE, READ, WRITTEN, page

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize(
    "check", CHECKS, ids=[f"{each.format}-{each.direction}-{each.tool}" for each in CHECKS]
)
def test_agrees_with(check, tmp_path):
    check.run(tmp_path)


def test_the_page_is_current():
    """`python -m tests.helpers.interoperability` writes it."""
    assert PAGE.read_text(encoding="utf-8") == page()


@pytest.mark.parametrize("each", FORMATS, ids=lambda each: each.name)
def test_whatever_is_read_or_written_is_checked(each):
    checked = {check.direction for check in CHECKS if check.format == each.name}
    said = {
        direction
        for direction, text in ((READ, each.read), (WRITTEN, each.written))
        if not text.startswith("–")
    }
    assert said == checked


def test_every_check_is_of_a_format_and_functions_exist():
    assert {check.format for check in CHECKS} <= {each.name for each in FORMATS}
    named = re.findall(r"`((?:read|write|labels)_\w+)", PAGE.read_text(encoding="utf-8"))
    assert named and all(hasattr(cardiacreg, name) for name in named)


class TestViewers:
    """The scripts for 3D Slicer and ParaView, against stand-ins that note what they are asked for."""

    @pytest.fixture
    def result(self, tmp_path):
        labels = make_toy_heart().labels
        cardiacreg.write_labels(tmp_path / "labels.nii.gz", labels)
        points = cardiacreg.landmarks_from_labels(labels)
        cardiacreg.write_landmarks(tmp_path / "landmarks.mrk.json", points)
        write_surfaces(tmp_path / "meshes", cardiacreg.surfaces_of(labels, triangles=800))
        return tmp_path

    def asked(self, monkeypatch, module, name):
        stand_in = MagicMock()
        monkeypatch.setitem(sys.modules, module, stand_in)
        return getattr(stand_in, name)

    def test_slicer_is_given_every_file_by_the_right_reader(self, result, monkeypatch):
        util = self.asked(monkeypatch, "slicer", "util")
        main = runpy.run_path(str(EXAMPLES / "04_open_in_slicer.py"))["main"]
        meshes = [f"{name}.vtp" for name in ("EPI", "LV_ENDO", "LV_EPI", "RV_ENDO", "RV_EPI")]
        assert main(result) == ["labels.nii.gz", *meshes, "landmarks.mrk.json"]
        cardiacreg.write_segmentation(result / "model.seg.nrrd", make_toy_heart().labels)
        assert main(result, result / "labels.nii.gz")[:2] == ["labels.nii.gz", "model.seg.nrrd"]
        for reader in (util.loadVolume, util.loadSegmentation, util.loadModel, util.loadMarkups):
            assert reader.call_args_list
            assert all(Path(call.args[0]).is_file() for call in reader.call_args_list)

    def test_paraview_is_given_the_four_surfaces(self, result, monkeypatch):
        simple = self.asked(monkeypatch, "paraview", "simple")
        main = runpy.run_path(str(EXAMPLES / "05_open_in_paraview.py"))["main"]
        shown = main(result / "meshes", result / "picture.png")
        assert shown == ["LV_ENDO.vtp", "LV_EPI.vtp", "RV_ENDO.vtp", "RV_EPI.vtp"]
        assert simple.OpenDataFile.call_count == 4 and simple.SaveScreenshot.called
