"""Every guard speaks past its threshold, is silent at it, and says what to do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cardiacreg.anatomy.slice_volumes import StructureVolume
from cardiacreg.results import guards
from cardiacreg.results.guards import CODES, Finding, find_problems

GOOD = {"LV cavity": 0.99, "LV wall": 0.97, "RV wall": None, "RV cavity": 0.98}
PLAIN = StructureVolume(100.0, 98.0, 1.0, 3.0, 102.0, 2.0, 6.0)


def problems(agreement=None, volumes=None, **keywords):
    given = {"LV cavity": PLAIN, "LV wall": PLAIN, "RV cavity": PLAIN} | (volumes or {})
    return find_problems(GOOD | (agreement or {}), given, slice_distance_mm=10.0, **keywords)


def codes(*arguments, **keywords):
    return [finding.code for finding in problems(*arguments, **keywords)]


def test_a_good_result_has_no_findings():
    assert problems(atlas_diversity=0.3, orientation_probability=0.99) == ()


def test_a_view_that_differs_is_named():
    agreement = {"4ch": {"LV cavity": 0.79, "RV wall": None}, "2ch": {"LV cavity": 0.8}, "rv": {}}
    (found,) = problems(view_agreement=agreement)
    assert (
        found.code == "VIEW_DISAGREES"
        and "4ch 0.79" in found.message
        and "2ch" not in found.message
    )


def test_values_at_the_thresholds_are_still_good():
    at_most = StructureVolume(100.0, 99.0, 0.0, 11.0, 110.0, 0.0, 10.0)
    assert codes(
        {"LV wall": 0.85},
        {"LV wall": at_most},
        atlas_diversity=guards.MOST_ATLAS_DIVERSITY,
        orientation_probability=0.9,
    ) == []  # fmt: skip


@pytest.mark.parametrize(
    ("dice", "expected"),
    [(0.849, ["LOW_AGREEMENT"]), (0.5, ["LOW_AGREEMENT"]), (0.499, ["FAILED_AGREEMENT"]),
     (0.0, ["FAILED_AGREEMENT"]), (None, [])],
)  # fmt: skip
def test_low_agreement_is_a_warning_and_very_low_agreement_a_failure(dice, expected):
    found = problems({"RV cavity": dice})
    assert [finding.code for finding in found] == expected
    for finding in found:
        assert f"RV cavity {dice:.2f}" in finding.message and "LV" not in finding.message


def test_each_structure_is_named_under_the_code_that_it_deserves():
    failed, low = problems({"LV cavity": 0.1, "LV wall": 0.6, "RV cavity": 0.7})
    assert failed.code == "FAILED_AGREEMENT" and "LV cavity 0.10" in failed.found
    assert low.code == "LOW_AGREEMENT" and "LV wall 0.60, RV cavity 0.70" in low.found


@pytest.mark.parametrize(("total", "expected"), [(111.0, "+11 %"), (88.0, "-12 %")])
def test_a_differing_volume_is_told_in_ml_and_percent(total, expected):
    (found,) = problems(volumes={"RV cavity": replace(PLAIN, total_ml=total)})
    assert found.code == "VOLUME_DIFFERS"
    assert f"RV cavity {total:.1f} for 100.0 ml ({expected})" in found.message


def test_a_structure_that_the_input_lacks_cannot_differ_from_it():
    lacking = replace(PLAIN, input_ml=None, total_ml=300.0)
    assert codes(volumes={"RV wall": lacking, "LV wall": lacking}) == []


@pytest.mark.parametrize("end", ["apex", "base"])
@pytest.mark.parametrize("name", ["LV cavity", "LV wall", "RV cavity"])
@pytest.mark.parametrize(("ml", "mm"), [(3.0, 10.1), (11.0, 4.0)], ids=["far", "much"])
def test_a_model_beyond_an_end_is_told_with_its_structure(end, name, ml, mm):
    beyond = {f"beyond_{end}_ml": ml, f"beyond_{end}_mm": mm}
    (found,) = problems(volumes={name: replace(PLAIN, **beyond)})
    assert found.code == "BEYOND_ENDS"
    assert f"at the {end}: {name} {mm:.0f} mm ({ml:.1f} ml);" in found.message


def test_each_end_has_a_finding_of_its_own():
    long = replace(PLAIN, beyond_apex_mm=12.0, beyond_base_mm=25.0)
    apex, base = problems(volumes={"LV cavity": long, "LV wall": long})
    assert "at the apex: LV cavity 12 mm" in apex.found and "LV wall 12 mm" in apex.found
    assert "at the base: LV cavity 25 mm" in base.found


def test_what_the_rv_wall_does_beyond_the_ends_is_not_told():
    assert codes(volumes={"RV wall": replace(PLAIN, beyond_base_mm=50.0)}) == []


def test_doubtful_orientation_and_scattered_atlases():
    orientation, scattered = problems(orientation_probability=0.62, atlas_diversity=0.6)
    assert orientation.code == "ORIENTATION_DOUBTFUL" and "0.62" in orientation.message
    assert scattered.code == "ATLASES_SCATTERED" and "60 %" in scattered.message


def everything():
    wrong = StructureVolume(100.0, 100.0, 20.0, 30.0, 150.0, 30.0, 40.0)
    return problems(
        {"LV cavity": 0.2, "LV wall": 0.7},
        {"LV cavity": wrong},
        orientation_probability=0.5,
        atlas_diversity=0.9,
        lv_slices=3,
        view_agreement={"4ch": {"LV cavity": 0.3}},
    )


def test_the_most_severe_comes_first():
    order = [CODES.index(finding.code) for finding in everything()]
    assert order == sorted(order) and set(order) == set(range(len(CODES)))
    assert everything()[0].code == "FAILED_AGREEMENT"


def test_every_message_is_one_line_with_advice():
    for finding in everything():
        found, semicolon, advice = finding.message.partition("; ")
        assert finding.found == found and semicolon and len(advice) > 20
        assert ";" not in advice and "\n" not in finding.message and not advice.endswith(".")
        assert str(finding) == f"[{finding.code}] {finding.message}"


@pytest.mark.parametrize("name", ["LV cavity", "LV wall", "RV cavity", "RV wall"])
@pytest.mark.parametrize("dice", [0.0, 0.04])
def test_a_lost_structure_is_a_failure_whichever_it_is(name, dice):
    (finding,) = problems({name: dice})
    assert finding.code == "FAILED_AGREEMENT" and f"{name} {dice:.2f}" in finding.message


def test_an_rv_wall_that_agrees_poorly_is_no_failure():
    assert codes({"RV wall": 0.3}) == []


@pytest.mark.parametrize(
    ("n_slices", "length", "few"),
    [(3, 0.42, True), (4, 1.0, True), (5, 0.59, True), (5, 0.6, False), (12, 1.2, False)],
)
def test_few_slices_are_said(n_slices, length, few):
    found = problems(lv_slices=n_slices, lv_length_over_width=length)
    assert [finding.code for finding in found] == ["FEW_SLICES"] * few
    if few:
        assert f"{length:.2f} times its width" in found[0].message


def test_a_finding_cannot_be_changed():
    with pytest.raises(AttributeError):
        Finding("A", "b").code = "C"
