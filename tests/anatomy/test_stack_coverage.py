"""Where ventricles end along a stack: at planes beyond their own last slices, however it is stored."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from cardiacreg import InvalidInputError, LabelMap, RefineOptions
from cardiacreg.anatomy.stack_coverage import stack_coverage
from tests.helpers.strategies import light

LEFT, RIGHT = (1, 2), (4, 3)
AUTO = ("auto", "auto")
TAPERED = (3, 7, 9, 10, 10, 10, 10)
"""Radii of an LV from its apex on."""


@st.composite
def spans(draw, count):
    first = draw(st.integers(0, count - 1))
    return first, draw(st.integers(first, count - 1))


@st.composite
def stacks(draw):
    """Stacks whose ventricles end in slices of their own, on slices of any distance."""
    count = draw(st.integers(3, 9))
    array = np.zeros((12, 12, count), dtype=np.uint8)
    first, last = draw(spans(count))
    array[6:10, 3:9, first : last + 1] = 2
    array[7:9, 4:8, first : last + 1] = 1
    if draw(st.booleans()):
        first, last = draw(spans(count))
        array[1:5, 3:9, first : last + 1] = 4
    return LabelMap(array, np.diag([1.5, 1.5, draw(st.floats(3.0, 14.0)), 1.0]))


words = st.sampled_from(["auto", "whole", "partial"])
word_pairs = st.tuples(words, words)


def shown(labels, structures):
    """The slices that show structures."""
    return np.flatnonzero(np.isin(labels.array, structures).any(axis=(0, 1)))


def stack_of(radii, *, distance_mm=10.0, empty=(0, 0)):
    """A stack of LV discs, apex first, with empty slices before and behind."""
    i, j = np.meshgrid(np.arange(32), np.arange(32), indexing="ij")
    apart = np.hypot(i - 16, j - 16)
    planes = [np.where(apart <= r, 2, 0) * 1 for r in (*[-1] * empty[0], *radii, *[-1] * empty[1])]
    return LabelMap(np.stack(planes, axis=-1), np.diag([3.0, 3.0, distance_mm, 1.0]))


def flipped(labels):
    return LabelMap(labels.array[:, :, ::-1], labels.voxel_to_world)


def coverages(labels, coverage=AUTO, *, base_at_last_slice=True):
    found = stack_coverage(labels, coverage, base_at_last_slice=base_at_last_slice)
    assert [end.name for end in found.ends] == ["apex", "base"]
    return tuple(end.coverage for end in found.ends)


class TestPlanes:
    @light
    @given(stacks(), word_pairs, st.booleans())
    def test_lie_beyond_the_last_slice_of_their_own_ventricle(self, labels, coverage, base_at_last):
        found = stack_coverage(labels, coverage, base_at_last_slice=base_at_last)
        for plane in found.planes:
            assert plane.structures in (LEFT, RIGHT)
            held = shown(labels, plane.structures)
            if plane.position > held[-1]:
                assert plane.slice_before == held[-1]
            else:
                assert plane.position < held[0] and plane.slice_before == held[0]
            assert 0 < plane.weight <= 1

    @light
    @given(stacks(), word_pairs, st.booleans())
    def test_are_at_every_end_but_a_partial_one(self, labels, coverage, base_at_last):
        found = stack_coverage(labels, coverage, base_at_last_slice=base_at_last)
        for end, word in zip(found.ends, coverage, strict=True):
            if word == "partial":
                assert end.coverage == "partial"
            if word == "whole":
                assert end.coverage in ("whole", "empty slice")
            towards_last = base_at_last == (end.name == "base")
            for structures in (LEFT, RIGHT):
                own = [p for p in found.planes if p.structures == structures]
                held = shown(labels, structures)
                if not len(held):
                    assert not own
                    continue
                there = [p for p in own if (p.position > held[-1]) == towards_last]
                assert bool(there) == (end.coverage != "partial")

    @light
    @given(stacks())
    def test_reach_a_centimetre_and_a_slice_and_count_fully_at_slices(self, labels):
        found = stack_coverage(labels, ("whole", "whole"), base_at_last_slice=True)
        for structures in (LEFT, RIGHT):
            for k in shown(labels, structures)[[0, -1]] if len(shown(labels, structures)) else ():
                away = {
                    abs(p.position - k): p.weight
                    for p in found.planes
                    if p.structures == structures and p.slice_before == k
                }
                whole = [step for step, weight in away.items() if weight == 1]
                assert min(whole) == 1 and all(step == round(step) for step in whole)
                assert max(whole) * labels.spacing_mm[2] >= 10 - 1e-5
                assert all(step < 1 for step, weight in away.items() if weight < 1)
                beyond = {k - 1, k + 1} - set(shown(labels, structures))
                held_back = structures == LEFT or beyond & set(shown(labels, LEFT))
                assert any(weight < 1 for weight in away.values()) == bool(held_back)

    @light
    @given(stacks(), word_pairs, st.booleans())
    def test_are_the_same_in_a_stack_stored_from_the_other_end(
        self, labels, coverage, base_at_last
    ):
        one = stack_coverage(labels, coverage, base_at_last_slice=base_at_last)
        other = stack_coverage(flipped(labels), coverage, base_at_last_slice=not base_at_last)
        assert one.ends == other.ends
        last = labels.shape[2] - 1
        mirrored = {
            (round(last - p.position, 9), last - p.slice_before, p.structures, p.weight)
            for p in other.planes
        }
        assert {(round(p.position, 9), *p[1:]) for p in one.planes} == mirrored
        between = {
            (round(last - p.position, 9), last - p.outer, last - p.inner, p.structures)
            for p in other.shared
        }
        assert {(round(p.position, 9), *p[1:]) for p in one.shared} == between

    @light
    @given(
        st.lists(st.integers(2, 15), min_size=2, max_size=7),
        st.sampled_from([1, 2, 4]),
        st.sampled_from(["whole", "partial"]),
    )
    def test_lead_to_a_basal_slice_that_shows_little_of_the_lv(self, radii, label, base):
        discs = stack_of(radii, empty=(1, 1))
        labels = LabelMap(discs.array // 2 * label, discs.voxel_to_world)
        found = stack_coverage(labels, ("whole", base), base_at_last_slice=True)
        areas = (labels.array > 0).sum(axis=(0, 1))
        outer, inner = len(radii), len(radii) - 1
        expected = set()
        if label in LEFT and base == "whole" and areas[outer] < 0.6 * areas[inner]:
            expected = {(round(outer - t / 3, 9), outer, inner, LEFT) for t in (1, 2)}
        assert {(round(p.position, 9), *p[1:]) for p in found.shared} == expected


class TestEnds:
    def test_a_whole_stack_is_taken_as_whole(self):
        assert coverages(stack_of(TAPERED)) == ("whole", "whole")

    @pytest.mark.parametrize("first", [2, 3, 4])
    def test_a_cut_apex_is_recognised(self, first):
        cut = stack_of(TAPERED[first:])
        assert coverages(cut) == ("partial", "whole")
        assert coverages(flipped(cut), base_at_last_slice=False) == ("partial", "whole")
        assert not [p for p in stack_coverage(cut, AUTO, base_at_last_slice=True).planes if
                    p.position < 0]  # fmt: skip

    def test_one_lost_slice_of_a_pointed_apex_is_no_cut(self):
        assert coverages(stack_of(TAPERED[1:]))[0] == "whole"

    def test_a_cut_base_is_recognised_by_a_short_ventricle(self):
        assert coverages(stack_of(TAPERED[:3])) == ("whole", "partial")
        assert coverages(stack_of(TAPERED[:5])) == ("whole", "whole")

    def test_a_short_ventricle_whose_apex_was_cut_tells_nothing_of_its_base(self):
        assert coverages(stack_of(TAPERED[3:6])) == ("partial", "whole")

    @pytest.mark.parametrize("coverage", [AUTO, ("whole", "whole")])
    def test_an_acquired_empty_slice_is_named(self, coverage):
        cut = stack_of(TAPERED[3:], empty=(2, 1))
        apex, base = stack_coverage(cut, coverage, base_at_last_slice=True).ends
        assert (apex.coverage, base.coverage) == ("empty slice", "empty slice")
        assert "2 slices" in apex.reason and "1 slice " in base.reason
        assert str(apex) == "apex: empty slice (2 slices without labels beyond them)"

    def test_what_is_given_is_believed(self):
        cut = stack_of(TAPERED[3:])
        assert coverages(cut, ("whole", "partial")) == ("whole", "partial")
        assert coverages(stack_of(TAPERED, empty=(1, 1)), ("partial", "auto"))[0] == "partial"
        ends = stack_coverage(cut, ("whole", "partial"), base_at_last_slice=True).ends
        assert [end.reason for end in ends] == ["given", "given"]

    def test_without_a_left_ventricle_an_end_is_whole(self):
        array = np.zeros((8, 8, 3))
        array[2:5, 2:5] = 4
        found = stack_coverage(LabelMap(array, np.eye(4)), AUTO, base_at_last_slice=True)
        assert [end.coverage for end in found.ends] == ["whole", "whole"]
        assert {plane.structures for plane in found.planes} == {RIGHT}


class TestOption:
    @pytest.mark.parametrize(
        "wrong", ["most", "", ("whole",), ("auto",) * 3, ("whole", "most"), ("apex", "base")]
    )
    def test_a_wrong_coverage_is_refused(self, wrong):
        with pytest.raises(InvalidInputError, match="coverage") as caught:
            RefineOptions(coverage=wrong)
        assert caught.value.code == "BAD_OPTION"

    def test_one_word_stands_for_both_ends(self):
        assert RefineOptions(coverage="whole").coverages == ("whole", "whole")
        assert RefineOptions(coverage=("auto", "partial")).coverages == ("auto", "partial")

    def test_a_wrong_orientation_is_refused(self):
        with pytest.raises(InvalidInputError, match="orientation") as caught:
            RefineOptions(orientation="sideways")
        assert caught.value.code == "BAD_OPTION"


@pytest.mark.parametrize("coverage", ["half", ("whole",), ("whole", "half"), 5, None])
def test_a_coverage_that_is_none_is_refused(coverage):
    with pytest.raises(InvalidInputError, match="needs one of auto, whole, partial, or a pair"):
        RefineOptions(coverage=coverage)
