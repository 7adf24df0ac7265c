"""Measures of a heart: from volumes to a table and its files."""

from __future__ import annotations

import csv
import dataclasses
import json

import numpy as np
import pytest

from cardiacreg import (
    LabelMap,
    draw_bullseye,
    masses_g,
    measure,
    sample_heart,
    volumes_ml,
    write_measures_csv,
    write_measures_parquet,
)
from cardiacreg.errors import InputWarning, InvalidInputError
from cardiacreg.geometry import RV_CAVITY, RV_WALL
from cardiacreg.measures.csv_files import units_of
from cardiacreg.measures.heart import body_surface_m2
from cardiacreg.phantoms.toy_heart import make_toy_heart

UKBB = [
    "LVEDV (mL)", "LVESV (mL)", "LVSV (mL)", "LVEF (%)", "LVM (g)", "RVEDV (mL)", "RVESV (mL)",
    "RVSV (mL)", "RVEF (%)", *(f"WT_AHA_{n} (mm)" for n in range(1, 17)), "WT_Global (mm)",
]  # fmt: skip
"""Columns of ukbb_cardiac's tables of ventricular volumes and of wall thickness."""


@pytest.fixture(scope="module")
def phases():
    return [sample_heart(10_003, phase=phase, with_image=False).labels for phase in ("ED", "ES")]


@pytest.fixture(scope="module")
def both(phases):
    return measure(*phases, height_cm=180.0, weight_kg=80.0)


def columns(measures):
    return {row.column: row.value for row in measures.table()}


def test_volumes_masses_and_function(phases, both):
    found = columns(both)
    ed, es = (volumes_ml(labels) for labels in phases)
    for side in ("LV", "RV"):
        diastole, systole = ed[f"{side} cavity"], es[f"{side} cavity"]
        assert found[f"{side}EDV (mL)"] == diastole and found[f"{side}ESV (mL)"] == systole
        assert found[f"{side}SV (mL)"] == pytest.approx(diastole - systole)
        assert found[f"{side}EF (%)"] == pytest.approx(100 * (1 - systole / diastole))
    assert found["LVM (g)"] == masses_g(phases[0])["LV wall"]
    assert found["RVM (g)"] == masses_g(phases[0])["RV wall"]
    assert found["LVM ES (g)"] == masses_g(phases[1])["LV wall"]


def test_indexed_by_body_surface(both):
    found = columns(both)
    assert found["BSA (m2)"] == pytest.approx(2.0)
    for name, unit in (("LVEDV", "mL"), ("RVSV", "mL"), ("LVM", "g")):
        assert found[f"{name}i ({unit}/m2)"] == pytest.approx(found[f"{name} ({unit})"] / 2)
    assert "LVEFi (%/m2)" not in found


def test_names_are_those_of_ukbb_cardiac(both):
    assert set(UKBB) <= set(columns(both))


def test_walls_thicken(both):
    assert np.isfinite(both.ed.thickness_mm).all() and np.isfinite(both.es.thickness_mm).all()
    assert 7 < both.ed.mean_thickness_mm < 12 < both.es.mean_thickness_mm < 16
    assert (both.thickening_percent() > 0).all()
    found = columns(both)
    assert found["Thickening_AHA_7 (%)"] == pytest.approx(
        100 * (found["WT_AHA_7 ES (mm)"] / found["WT_AHA_7 (mm)"] - 1)
    )
    assert 1.0 < found["Eccentricity ED"] < 1.4


def test_one_phase_has_no_function():
    found = columns(measure(make_toy_heart().labels))
    assert found["LVEDV (mL)"] == pytest.approx(31.8, abs=0.1)
    empty = [name for name, value in found.items() if value is None]
    assert {"LVESV (mL)", "LVEF (%)", "BSA (m2)", "LVEDVi (mL/m2)", "WT_AHA_1 ES (mm)"} <= set(
        empty
    )
    assert "LVEDV acquired (mL)" in empty  # labels alone do not say what was acquired


def test_a_result_tells_acquired_from_extrapolated(tiny_result):
    found = columns(measure(tiny_result))
    volume = tiny_result.volumes["LV cavity"]
    assert found["LVEDV acquired (mL)"] == volume.inside_ml
    assert found["LVEDV beyond base (mL)"] == volume.beyond_base_ml
    parts = sum(found[f"LVEDV {p} (mL)"] for p in ("acquired", "beyond apex", "beyond base"))
    assert parts == pytest.approx(found["LVEDV (mL)"])


def test_the_rv_wall_is_measured_only_where_the_input_shows_it(tiny_result):
    assert columns(measure(tiny_result))["RVM (g)"] > 0
    unseen = dataclasses.replace(tiny_result, structures_from_atlases=("RV wall",))
    assert columns(measure(unseen))["RVM (g)"] is None
    shown = columns(measure(tiny_result, tiny_result))
    assert shown["RV_Thickening_Global (%)"] == 0 and shown["RV_WT_Global ED (mm)"] > 1
    for phases in ((unseen, tiny_result), (tiny_result, unseen)):
        assert columns(measure(*phases))["RV_Thickening_Global (%)"] is None


def test_a_heart_without_a_right_ventricle(phases):
    array = np.where(np.isin(phases[0].array, (RV_CAVITY, RV_WALL)), 0, phases[0].array)
    with pytest.warns(InputWarning, match="no RV"):
        found = columns(measure(LabelMap(array, phases[0].voxel_to_world)))
    assert found["RVEDV (mL)"] is None and found["RVM (g)"] is None
    assert found["LVEDV (mL)"] > 100 and found["WT_Global (mm)"] > 5


def test_swapped_phases_are_told():
    with pytest.warns(InputWarning, match="swapped"):
        measure(*(make_toy_heart(size=size).labels for size in (0.85, 1.0)))


@pytest.mark.parametrize(
    ("height", "weight"), [(180, None), (None, 80), (1.8, 80), (180, 800), (np.nan, 80)]
)
def test_bodies_are_checked(height, weight):
    with pytest.raises(InvalidInputError) as raised:
        body_surface_m2(height, weight)
    assert raised.value.code == "BAD_BODY"


def test_csv_and_units(both, tmp_path):
    one = measure(make_toy_heart().labels)
    write_measures_csv(tmp_path / "hearts.csv", {"a, b": both, "toy": one})
    with (tmp_path / "hearts.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["subject"] for row in rows] == ["a, b", "toy"]
    assert float(rows[0]["LVEDV (mL)"]) == pytest.approx(both.ed.lv_volume_ml, rel=1e-5)
    assert rows[1]["LVEF (%)"] == ""
    units = json.loads((tmp_path / "hearts_units.json").read_text())
    assert list(units) == list(rows[0])[1:] == list(columns(both))
    assert units["LVM (g)"] == {
        "unit": "g", "meaning": "LV mass of the wall at end-diastole, 1.05 g/ml"
    }  # fmt: skip
    assert all(each["meaning"] for each in units.values())
    assert len({each["meaning"] for each in units.values()}) == len(units)


def test_parquet_holds_what_csv_does(both, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow")
    one = measure(make_toy_heart().labels)
    write_measures_parquet(tmp_path / "hearts.parquet", {"a": both, "toy": one})
    table = parquet.read_table(tmp_path / "hearts.parquet")
    assert table["subject"].to_pylist() == ["a", "toy"]
    for name, values in columns(both).items():
        assert table[name].to_pylist() == [values, columns(one)[name]]
    words = table.schema.field("LVM (g)").metadata
    assert words[b"unit"] == b"g" and b"1.05 g/ml" in words[b"meaning"]
    write_measures_parquet(tmp_path / "none.parquet", {})
    assert parquet.read_table(tmp_path / "none.parquet").column_names == ["subject"]


def test_parquet_without_pyarrow_or_with_another_name(both, tmp_path, monkeypatch):
    with pytest.raises(InvalidInputError) as raised:
        write_measures_parquet(tmp_path / "hearts.csv", {"a": both})
    assert raised.value.code == "BAD_FILE_NAME"
    monkeypatch.setattr("cardiacreg.measures.csv_files.find_spec", lambda name: None)
    with pytest.raises(InvalidInputError, match="pip install pyarrow") as raised:
        write_measures_parquet(tmp_path / "hearts.parquet", {"a": both})
    assert raised.value.code == "NO_PYARROW" and not list(tmp_path.iterdir())


def test_septum_and_right_wall(both):
    found = columns(both)
    assert 0.1 < found["Septal curvature ED (1/cm)"] < 0.6
    assert 0.3 < found["Septal curvature ratio ED"] < 1.3
    assert 2 < found["RV_WT_Global ED (mm)"] < 5 and found["RV_WT_Global ES (mm)"] > 2
    thicker = found["RV_WT_Global ES (mm)"] / found["RV_WT_Global ED (mm)"] - 1
    assert found["RV_Thickening_Global (%)"] == pytest.approx(100 * thicker) and thicker > 0
    assert found["LVEDV low (mL)"] is None  # labels alone say nothing of how sure they are


def test_no_hearts_and_wrong_names(tmp_path):
    write_measures_csv(tmp_path / "none.csv", {})
    assert (tmp_path / "none.csv").read_text() == "subject\n" and units_of({}) == {}
    with pytest.raises(InvalidInputError) as raised:
        write_measures_csv(tmp_path / "none.txt", {})
    assert raised.value.code == "BAD_FILE_NAME"


def test_bulls_eyes(both):
    """A patch per segment; text in each; the anterior segment up, the septum left."""
    figure = draw_bullseye(both)
    pictures = [axes for axes in figure.axes if axes.patches]
    assert len(pictures) == 3 and all(len(axes.patches) == 17 for axes in pictures)
    places = {text.get_text(): text.get_position() for text in pictures[0].texts}
    assert places["anterior"][1] > 0 > places["septal"][0]
    first, second = (pictures[0].patches[n].get_xy().mean(axis=0) for n in (0, 1))
    assert first[1] > 3 and abs(first[0]) < 0.5 and second[0] < -2
    only = draw_bullseye(dataclasses.replace(both, es=None))
    assert len([axes for axes in only.axes if axes.patches]) == 1


def test_bulls_eyes_show_what_is_missing(both):
    thickness = both.ed.thickness_mm.copy()
    thickness[3] = np.nan
    ed = dataclasses.replace(both.ed, thickness_mm=thickness)
    figure = draw_bullseye(dataclasses.replace(both, ed=ed, es=None))
    assert [text.get_text() for text in figure.axes[0].texts].count("–") == 1
    nothing = dataclasses.replace(both.ed, thickness_mm=np.full(17, np.nan))
    assert draw_bullseye(dataclasses.replace(both, ed=nothing, es=None)).axes
