"""Signs beside the findings: shifts that are too large, atlases that do not fit, slices that repeat."""

import dataclasses

import numpy as np
import pytest

from cardiacreg.anatomy.cut_base import LARGEST_WIDENING, widening_at_base
from cardiacreg.geometry import LabelMap
from cardiacreg.phantoms.hearts import sample_heart
from cardiacreg.phantoms.toy_heart import make_toy_heart
from cardiacreg.reports.case import open_case
from cardiacreg.reports.inputs import Inputs
from cardiacreg.reports.report import score_of, verdict_of
from cardiacreg.reports.signs import (
    LARGEST_SHIFT_MM,
    LEAST_CONSISTENCY,
    LIMITS,
    measured_signs,
    quality_score,
    unusual_signs,
)
from cardiacreg.results.guards import Finding

STILL = np.zeros((8, 2))


def codes(*signs):
    return [sign.code for sign in unusual_signs(*signs)]


@pytest.mark.parametrize(("beyond", "found"), [(-0.1, []), (0.1, ["SHIFTS_UNUSUAL"])])
def test_a_slice_that_was_moved_too_far_is_named(beyond, found):
    shifts = STILL.copy()
    shifts[5] = (LARGEST_SHIFT_MM + beyond) * np.array([0.6, -0.8])
    assert codes(shifts, ()) == found
    for sign in unusual_signs(shifts, ()):
        assert "slice 5 by 8.1 mm" in sign.message


@pytest.mark.parametrize(("beyond", "found"), [(0.001, []), (-0.001, ["ATLASES_MISFIT"])])
def test_atlases_that_do_not_fit(tiny_result, beyond, found):
    atlases = [
        dataclasses.replace(each, consistency_after=LEAST_CONSISTENCY + beyond)
        for each in tiny_result.atlases
    ]
    assert codes(STILL, atlases) == found


def test_a_copied_slice_is_named():
    labels = make_toy_heart().labels
    assert codes(STILL, (), labels) == []
    array = np.array(labels.array)
    array[:, :, 5] = array[:, :, 3]
    (sign,) = unusual_signs(STILL, (), LabelMap(array, labels.voxel_to_world))
    assert sign.code == "SLICES_ALIKE" and "slices 3 and 5" in sign.message


@pytest.fixture(scope="module")
def whole():
    """A heart of the population in slices of 8 mm that end with its base."""
    labels = sample_heart(
        20_003, group="pulmonary_hypertension", spacing_mm=(2.5, 2.5, 8.0), with_image=False
    ).labels
    held = np.flatnonzero(np.isin(labels.array, (1, 2)).any(axis=(0, 1)))
    return LabelMap(labels.array[:, :, : held[-1] + 1], labels.voxel_to_world)


class TestCutBase:
    def without(self, labels, count):
        return LabelMap(labels.array[:, :, : labels.shape[2] - count], labels.voxel_to_world)

    def test_widens_the_more_slices_are_missing(self, whole):
        found = [
            widening_at_base(self.without(whole, count), base_at_last_slice=True)
            for count in range(4)
        ]
        assert found == sorted(found) and found[0] < LARGEST_WIDENING < found[3]
        assert codes(STILL, (), whole) == []
        assert codes(STILL, (), self.without(whole, 3)) == ["BASE_MISSING"]

    def test_is_found_whichever_end_the_base_is_at(self, whole):
        cut = self.without(whole, 3)
        turned = LabelMap(cut.array[:, :, ::-1], cut.voxel_to_world)
        assert widening_at_base(turned, base_at_last_slice=False) == widening_at_base(
            cut, base_at_last_slice=True
        )
        (sign,) = unusual_signs(STILL, (), turned, base_at_last_slice=False)
        assert sign.code == "BASE_MISSING" and "base=partial" in sign.message

    def test_a_slice_without_labels_says_that_the_heart_has_ended(self, whole):
        cut = self.without(whole, 3)
        empty = np.pad(cut.array, ((0, 0), (0, 0), (0, 1)))
        assert (
            widening_at_base(LabelMap(empty, cut.voxel_to_world), base_at_last_slice=True) is None
        )

    def test_a_few_slices_say_nothing(self, whole):
        assert (
            widening_at_base(self.without(whole, whole.shape[2] - 4), base_at_last_slice=True)
            is None
        )


def test_a_few_pixels_may_be_alike():
    array = np.zeros((20, 20, 4), dtype=np.uint8)
    array[3:6, 3:6, :] = 1
    assert codes(STILL[:4], (), LabelMap(array, np.eye(4))) == []


def test_signs_make_the_verdict_a_look_with_their_words(tiny_result):
    shifts = np.array(tiny_result.slice_shifts_mm)
    shifts[2] = (9.0, 0.0)
    verdict = verdict_of(
        open_case(dataclasses.replace(tiny_result, slice_shifts_mm=shifts), Inputs())
    )
    assert verdict.word != "accept" and "SHIFTS_UNUSUAL" in verdict.codes
    assert any("slice 2 by 9.0 mm" in reason for reason in verdict.reasons)
    assert len(verdict.reasons) == len(set(verdict.reasons))


@pytest.mark.parametrize(
    ("measured", "word", "score"),
    [
        ({}, "accept", 1.0),
        ({"largest_shift_mm": LARGEST_SHIFT_MM}, "accept", 0.5),
        ({"largest_shift_mm": LARGEST_SHIFT_MM / 2, "volume_change": 0.01}, "accept", 0.75),
        ({"largest_shift_mm": 5 * LARGEST_SHIFT_MM}, "accept", 0.0),
        ({}, "look", 0.5),
        ({}, "reject", 0.0),
        ({"of another name": 9.0}, "accept", 1.0),
    ],
)
def test_the_score_falls_with_the_worst_sign(measured, word, score):
    assert quality_score(measured, word) == pytest.approx(score)


class TestEndSystole:
    """Each frame is judged by what was found for it, not by what was found for end-diastole."""

    @pytest.fixture
    def moved(self, tiny_result):
        shifts = np.array(tiny_result.slice_shifts_mm)
        shifts[2] = (9.0, 0.0)
        return dataclasses.replace(tiny_result, slice_shifts_mm=shifts)

    def test_shifts_there_count(self, tiny_result, moved):
        still = open_case(tiny_result, Inputs(), tiny_result)
        case = open_case(tiny_result, Inputs(), moved)
        assert score_of(case) <= 0.5 - (9.0 / LARGEST_SHIFT_MM - 1.0) / 2
        assert "SHIFTS_UNUSUAL" not in verdict_of(still).codes
        (told,) = [r for r in verdict_of(case).reasons if "slice 2 by 9.0 mm" in r]
        assert told.startswith("End-systole: ")

    def test_atlases_there_count(self, tiny_result):
        poor = [dataclasses.replace(a, consistency_after=0.9) for a in tiny_result.atlases]
        case = open_case(
            tiny_result, Inputs(), dataclasses.replace(tiny_result, atlases=tuple(poor))
        )
        assert "ATLASES_MISFIT" in verdict_of(case).codes and score_of(case) == 0.0

    def test_shifts_at_end_diastole_do_not_count_twice(self, tiny_result, moved):
        case = open_case(moved, Inputs(), tiny_result)
        told = [r for r in verdict_of(case).reasons if "slice 2 by 9.0 mm" in r]
        assert len(told) == 1 and told[0].startswith("End-diastole: ")


def test_the_score_of_a_case_is_that_of_its_worst_sign_and_verdict(tiny_result):
    case = open_case(tiny_result, Inputs())
    signs = measured_signs(
        tiny_result.agreement, tiny_result.volumes, tiny_result.slice_shifts_mm,
        tiny_result.atlases, tiny_result.atlas_diversity,
    )  # fmt: skip
    assert set(signs) == set(LIMITS)
    assert score_of(case) == quality_score(signs, verdict_of(case).word)
    rejected = dataclasses.replace(
        tiny_result, findings=(Finding("FAILED_AGREEMENT", "the model does not follow"),)
    )
    assert score_of(open_case(rejected, Inputs())) == 0.0
