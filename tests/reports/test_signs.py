"""Signs beside the findings: shifts that are too large, atlases that do not fit, slices that repeat."""

import dataclasses

import numpy as np
import pytest

from cardiacreg.geometry import LabelMap
from cardiacreg.phantoms.toy_heart import make_toy_heart
from cardiacreg.reports.case import Inputs, open_case
from cardiacreg.reports.report import verdict_of
from cardiacreg.reports.signs import LARGEST_SHIFT_MM, LEAST_CONSISTENCY, unusual_signs

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
