"""A patient's folder becomes a folder of models with a table."""

import csv
import json
import warnings
from dataclasses import replace

import numpy as np
import pytest

from cardiacreg import (
    InvalidInputError,
    LabelMap,
    find_patient,
    load_result,
    refine_patient,
    write_labels,
)
from cardiacreg.cohort._refine_patient import _phases, agreements, judged
from cardiacreg.errors import InputWarning
from cardiacreg.io.nifti import write_label_frames
from cardiacreg.phantoms.long_axis_views import simulate_views
from cardiacreg.phantoms.toy_heart import make_toy_heart
from cardiacreg.reports.case import open_case
from cardiacreg.reports.inputs import Inputs
from cardiacreg.reports.report import score_of
from tests.helpers.cohorts import SPACING_MM, quick_options, write_patient

QUIET = pytest.mark.filterwarnings("ignore::cardiacreg.errors.InputWarning")


@pytest.fixture(scope="module")
def how(tiny_files):
    return {"atlases": tiny_files.atlases, "spacing_mm": SPACING_MM, "options": quick_options()}


@pytest.fixture(scope="module")
def refined(tmp_path_factory, how):
    folder = write_patient(tmp_path_factory.mktemp("patients") / "somebody")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        return refine_patient(folder, **how)


def series(path, sizes):
    """Frames of one file; size 0 is a frame without labels."""
    hearts = [make_toy_heart(size=size or 1.0).labels for size in sizes]
    frames = [
        heart if size else LabelMap(np.zeros_like(heart.array), heart.voxel_to_world)
        for heart, size in zip(hearts, sizes, strict=True)
    ]
    write_label_frames(path, frames)


class TestFrames:
    def test_are_evidence_for_each_other(self, refined):
        assert list(refined.frames) == ["ED", "ES"] and refined.phases == ("ED", "ES")
        for frame, other in (("ED", "ES"), ("ES", "ED")):
            names = [path.name for path in refined.frames[frame].input_files]
            assert f"{other}.nii.gz" in names

    def test_are_measured_together(self, refined):
        values = {row.name: row.value for row in refined.measures.table()}
        assert values["LVSV"] == pytest.approx(values["LVEDV"] - values["LVESV"])
        assert 5 < values["LVEF"] < 50 and values["LVM"] > 10

    def test_are_saved_in_folders_of_their_own(self, refined, tmp_path):
        place = refined.save(tmp_path / "out")
        assert sorted(path.name for path in place.iterdir()) == [
            "ED", "ES", "measures.csv", "measures_units.json", "patient.json",
        ]  # fmt: skip
        again = load_result(place / "ES")
        assert (again.labels.array == refined.frames["ES"].labels.array).all()
        (row,) = csv.DictReader((place / "measures.csv").read_text().splitlines())
        assert row["subject"] == "somebody" and float(row["LVEF (%)"]) > 0
        told = json.loads((place / "patient.json").read_text())
        assert told["phases"] == {"ED": "ED", "ES": "ES"} and told["convention"] == "table"
        assert told["frames"]["ED"]["agreement_dice"]["LV cavity"] > 0.9
        with pytest.raises(InvalidInputError, match="holds .* already"):
            refined.save(place)

    def test_never_replace_their_inputs(self, refined, tmp_path):
        folder = write_patient(tmp_path / "p", phases=("ED",))
        (folder / "ED").mkdir()
        (folder / "ED.nii.gz").rename(folder / "ED" / "labels.nii.gz")
        files = (folder / "ED" / "labels.nii.gz",)
        with pytest.raises(InvalidInputError) as told:
            replace(refined, input_files=files).save(folder, overwrite=True)
        assert told.value.code == "OUTPUT_IS_INPUT"

    def test_agreement_is_the_least_of_all(self, refined):
        least = agreements(refined)["LV cavity"]
        assert least == min(each.agreement["LV cavity"] for each in refined.frames.values())

    def test_that_are_unusable_are_named(self, how, tmp_path):
        folder = write_patient(tmp_path / "p")
        (folder / "ES.nii.gz").write_bytes(b"nothing")
        with pytest.raises(InvalidInputError, match="E[DS]: .*ES.nii.gz"):
            refine_patient(folder, **how)


class TestPhases:
    @QUIET
    def test_only_end_systole_is_not_measured_as_end_diastole(self, how, tmp_path):
        with pytest.warns(InputWarning, match="end-systole is all there is"):
            found = refine_patient(write_patient(tmp_path / "p", phases=("ES",)), **how)
        assert found.measures is None and found.phases == ("ES",)
        place = found.save(tmp_path / "out")
        assert json.loads((place / "patient.json").read_text())["measures"] == {}

    def test_are_found_by_the_cavity_where_names_do_not_tell(self, refined):
        hearts = {"frame01": refined.frames["ED"], "frame09": refined.frames["ES"]}
        assert _phases(hearts) == ("frame01", "frame09")
        assert _phases(dict(reversed(hearts.items()))) == ("frame01", "frame09")
        assert _phases({"only": refined.frames["ED"]}) == ("only",)

    @QUIET
    def test_of_a_series_are_found_in_it(self, how, tmp_path):
        series(tmp_path / "x_sa_gt.nii.gz", (0, 0.9, 1.0))
        found = refine_patient(find_patient(tmp_path, subject="x"), preset="sslln", **how)
        assert list(found.frames) == ["ED", "ES"]
        volumes = [found.frames[name].volumes["LV cavity"].total_ml for name in ("ED", "ES")]
        assert volumes[0] > volumes[1]


class TestJudged:
    def test_the_worst_frame_decides(self, refined):
        good = judged(refined)
        shifts = np.array(refined.frames["ES"].slice_shifts_mm)
        shifts[1] = (12.0, 0.0)
        es = replace(refined.frames["ES"], slice_shifts_mm=shifts)
        found = judged(replace(refined, frames=refined.frames | {"ES": es}))
        assert "SHIFTS_UNUSUAL" in found.codes and found.verdict == "look"
        assert set(good.codes) < set(found.codes)
        assert found.score <= 0.25 < good.score

    @QUIET
    def test_a_series_is_judged_as_its_report_does(self, how, tmp_path):
        series(tmp_path / "x_sa_gt.nii.gz", (1.0, 0.95, 0.9))
        files = replace(find_patient(tmp_path, subject="x"), series="all")
        found = refine_patient(files, preset="sslln", **how)
        whole = open_case(found.cine, Inputs(files.frames[0].labels, preset="sslln"))
        assert judged(found, "sslln").score == score_of(whole) < 1.0
        assert score_of(open_case(found.cine, Inputs())) == score_of(whole), "volumes are its own"
        with pytest.raises(InvalidInputError):
            judged(found, "acdc")


@QUIET
def test_views_take_part_unless_they_are_left_out(how, tmp_path):
    folder = write_patient(tmp_path / "p", phases=("ED",))
    view = simulate_views(make_toy_heart(), ["four_chamber"], seed=0)[0].subject.labels
    write_labels(folder / "la.nii.gz", view)
    (folder / "patient.csv").write_text("frame,labels,view\nED,ED.nii.gz,\nED,la.nii.gz,4ch\n")
    found = refine_patient(folder, **how)
    assert [each.name for each in found.frames["ED"].views] == ["4ch"]
    assert "la.nii.gz" in [path.name for path in found.input_files]
    without = refine_patient(folder, use_views=False, **how)
    assert not without.frames["ED"].views
