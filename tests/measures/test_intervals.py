"""Intervals: what widens and moves them, that they hold what they should, and where there are none."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from cardiacreg import measure
from cardiacreg.anatomy.slice_volumes import StructureVolume
from cardiacreg.geometry import STRUCTURES
from cardiacreg.measures import intervals
from cardiacreg.measures.intervals import (
    ERRORS,
    PARTS,
    ErrorModel,
    expected_ml,
    expected_stroke,
    mass_interval,
    stroke_intervals,
    volume_intervals,
)
from cardiacreg.phantoms.toy_heart import make_toy_heart
from cardiacreg.results.saved_model import as_model

QUANTILE = 1.645
PLAIN = ErrorModel(
    0.02, (0.03, 1.0), 0.25, (0.1, 0.5), ((-QUANTILE, QUANTILE),) * 3, 0.5,
    (-QUANTILE, QUANTILE), (-QUANTILE, QUANTILE),
)  # fmt: skip


def volume(
    inside=100.0, beyond=5.0, *, ends=(4.0, 16.0), inside_of=(98.0, 102.0), beyond_of=(4.0, 6.0)
):
    return StructureVolume(
        inside, inside, 0.0, beyond, inside + beyond, 0.0, 5.0, ends, inside_of, beyond_of
    )


def test_means_and_standard_deviations_of_parts():
    found = expected_ml(volume(), PLAIN)
    spread = np.sqrt(2)  # sample standard deviation of 98 and 102 is 2 sqrt(2)
    assert found["acquired"].ml == pytest.approx(102.0)
    assert found["acquired"].sd_ml == pytest.approx(np.hypot(3.0, 2 * spread))
    assert found["extrapolated"].ml == pytest.approx(5.0 + 0.25 * 16)
    assert found["extrapolated"].sd_ml == pytest.approx(np.hypot(2.0, 0.5 * spread))
    assert found["whole"].ml == pytest.approx(111.0)
    parts = [found[part].sd_ml for part in PARTS[1:]]
    assert found["whole"].sd_ml == pytest.approx(np.hypot(*parts))


@pytest.mark.parametrize(
    "wider",
    [volume(inside_of=(90.0, 110.0)), volume(beyond_of=(0.0, 12.0)), volume(ends=(4.0, 40.0))],
)
def test_disagreeing_atlases_and_large_outermost_slices_widen_them(wider, monkeypatch):
    monkeypatch.setitem(ERRORS, "LV cavity", PLAIN)
    usual, wide = (volume_intervals(each, "LV cavity")["whole"] for each in (volume(), wider))
    assert wide.high - wide.low > 1.1 * (usual.high - usual.low)


def test_no_volume_is_negative(monkeypatch):
    monkeypatch.setitem(ERRORS, "LV cavity", PLAIN)
    found = volume_intervals(volume(2.0, 0.0, beyond_of=(0.0, 30.0)), "LV cavity")
    assert found["whole"].low == 0 == found["extrapolated"].low < found["whole"].high


def test_function_as_sampled():
    """Ten thousand pairs of phases with correlated errors: the spread of SV and EF."""
    ed, es = intervals.Expected(150.0, 5.0), intervals.Expected(60.0, 4.0)
    stroke, ejection = expected_stroke(ed, es, 0.6)
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(2, 200_000))
    full, rest = 150 + 5 * a, 60 + 4 * (0.6 * a + 0.8 * b)
    assert stroke.ml == 90 and ejection.ml == pytest.approx(60)
    assert stroke.sd_ml == pytest.approx((full - rest).std(), rel=0.01)
    assert ejection.sd_ml == pytest.approx((100 * (1 - rest / full)).std(), rel=0.02)


def test_they_hold_the_truth_of_errors_like_those_assumed(monkeypatch):
    """Truths drawn from the model of the error lie inside nine times out of ten."""
    monkeypatch.setitem(ERRORS, "LV cavity", PLAIN)
    rng = np.random.default_rng(7)
    held = []
    for _ in range(4000):
        one = volume(float(rng.uniform(40, 200)), float(rng.uniform(0, 9)))
        expected = expected_ml(one, PLAIN)["whole"]
        low, high = volume_intervals(one, "LV cavity")["whole"]
        held.append(low <= rng.normal(expected.ml, expected.sd_ml) <= high)
    assert np.mean(held) == pytest.approx(0.9, abs=0.015)


def test_every_structure_has_constants_that_make_sense():
    assert set(ERRORS) == set(STRUCTURES.values())
    for model in ERRORS.values():
        assert all(0 <= each < 5 for each in (*model.acquired_sd, *model.extrapolated_sd))
        every = (*model.quantiles, model.stroke_quantiles, model.ejection_quantiles)
        assert all(-3 < low < 0 < high < 3 for low, high in every)
        assert -1 < model.phases < 1


def test_where_nothing_is_known_there_is_none():
    whole = volume()
    unseen = dataclasses.replace(whole, input_ml=None)
    earlier = dataclasses.replace(whole, atlases_inside_ml=(), atlases_beyond_ml=())
    for each in (None, unseen, earlier):
        assert volume_intervals(each, "LV cavity") == {}
        assert mass_interval(each, "LV wall") is None
        assert stroke_intervals(whole, each, "LV cavity") is None
    assert volume_intervals(whole, "LA cavity") == {}


def test_labels_alone_have_none():
    found = measure(make_toy_heart().labels)
    assert found.intervals() == {}
    rows = {row.name: row.value for row in found.table()}
    assert rows["LVEDV low"] is None and rows["LVEDV"] > 0


def test_a_result_has_them(tiny_result, tmp_path):
    """And so has the folder it was saved to."""
    found = measure(tiny_result, tiny_result, height_cm=180, weight_kg=80)
    known = found.intervals()
    own = {"LVEDV", "LVESV", "LVSV", "LVEF", "LVM", "RVM", "RVEDV", "RVEF", "LVEDVi", "LVMi"}
    assert own | {"LVEDV acquired", "LV wall ES extrapolated"} <= set(known)
    assert all(low <= high for low, high in known.values())
    rows = {row.name: row.value for row in found.table()}
    for name, (low, high) in known.items():
        assert (rows[f"{name} low"], rows[f"{name} high"]) == (low, high)
    assert known["LVEDVi"].high == pytest.approx(known["LVEDV"].high / 2)
    assert known["LVSV"].low < 0 < known["LVSV"].high  # one phase taken twice
    saved = measure(tiny_result.save(tmp_path / "out")).intervals()
    assert saved["LVEDV"] == pytest.approx(known["LVEDV"])
    parts = as_model(tmp_path / "out").volumes
    assert parts == tiny_result.volumes


def test_the_labels_of_a_result_are_that_result(tiny_result, tmp_path):
    folder = tiny_result.save(tmp_path / "out")
    known = measure(folder / "labels.nii.gz").intervals()
    assert known and known == measure(folder).intervals()
    alone = (folder / "labels.nii.gz").rename(tmp_path / "labels.nii.gz")
    assert "LVEDV acquired" not in measure(alone).intervals()


def test_a_wall_that_the_input_lacks_has_none(tiny_result):
    parts = dict(tiny_result.volumes)
    parts["RV wall"] = dataclasses.replace(parts["RV wall"], input_ml=None)
    unseen = dataclasses.replace(tiny_result, volumes=parts, structures_from_atlases=("RV wall",))
    assert "RVM" not in measure(unseen).intervals()
    assert (
        np.isnan(measure(unseen).ed.rv_thickness_mm) and measure(tiny_result).ed.rv_thickness_mm > 1
    )
