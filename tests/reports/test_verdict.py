"""Accept, look or reject: by findings, whole and in sentences."""

import pytest

from cardiacreg.anatomy.slice_volumes import StructureVolume
from cardiacreg.reports.verdict import MEANINGS, WORDS, judge, sentence
from cardiacreg.results.guards import CODES, FAILED_AGREEMENT, Finding, find_problems

GOOD = {"LV cavity": 0.98, "LV wall": 0.93, "RV wall": 0.4, "RV cavity": 0.96}


def test_a_result_without_findings_is_accepted_and_says_what_was_looked_at():
    verdict = judge((), agreement=GOOD, minimum_jacobian=0.2)
    assert verdict.word == "accept" and verdict.codes == ()
    assert "LV wall agrees least with the input, by 0.93" in verdict.reasons[0]
    assert "0.200, above 0" in verdict.reasons[1]


def test_a_structure_that_does_not_follow_its_input_rejects():
    found = find_problems(GOOD | {"RV cavity": 0.49}, {}, slice_distance_mm=10.0)
    verdict = judge(found, agreement=GOOD, minimum_jacobian=0.2)
    assert verdict.word == "reject" and verdict.codes[0] == FAILED_AGREEMENT


@pytest.mark.parametrize("code", [code for code in CODES if code != FAILED_AGREEMENT])
def test_any_other_finding_asks_for_a_look_with_its_message_whole(code):
    verdict = judge([Finding(code, "something was found; do something about it")])
    assert verdict.word == "look" and verdict.codes == (code,)
    assert verdict.reasons == ("Something was found; do something about it.",)


def test_a_fold_asks_for_a_look():
    verdict = judge((), agreement=GOOD, minimum_jacobian=-0.01)
    assert verdict.word == "look" and "folds" in verdict.reasons[0]


def test_findings_of_volumes_are_told_by_their_code():
    volume = StructureVolume(100.0, 120.0, 0.0, 0.0, 120.0, 0.0, 0.0)
    found = find_problems(GOOD, {"LV cavity": volume}, slice_distance_mm=10.0)
    assert judge(found).codes == ("VOLUME_DIFFERS",)


def test_every_word_has_a_meaning():
    assert tuple(MEANINGS) == WORDS


def test_sentences():
    assert sentence("look here") == "Look here."
    assert sentence("Look!") == "Look!"
