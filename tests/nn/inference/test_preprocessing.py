"""The box and its way back: exact where it can be, the same point always."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from cardiacreg_nn.inference.preprocessing import (
    NetworkBox,
    acquired,
    place,
    rescale,
    sample_image,
    sample_labels,
    sub_stacks,
    to_box,
    to_native,
    turns,
)

THICK = NetworkBox((32, 32, 8), (2.0, 2.0, 10.0), native_slices=True)


def matrix(spacing, mirrored=False):
    found = np.diag([*spacing, 1.0])
    found[2, 2] *= -1 if mirrored else 1
    found[:3, 3] = (5, -7, 11)
    return found


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("turn", range(8))
def test_labels_come_back_as_they_went(turn, mirrored):
    """On a lattice of the box's spacing nothing is interpolated, whatever the turn."""
    rng = np.random.default_rng(turn)
    labels = np.zeros((27, 24, 7), dtype=np.uint8)
    labels[3:23, 5:20] = rng.integers(0, 5, (20, 15, 7))
    centre = (13.2, 11.6, 3.0)
    box_matrix = matrix((2.0, 2.0, 10.0), mirrored)
    placement = place(labels.shape, box_matrix, THICK, centre=centre, turn=turns()[turn])
    box = sample_labels(labels, placement)
    one_hot = np.stack([box == c for c in range(5)]).astype(np.float32)
    assert np.array_equal(to_native(one_hot, placement).argmax(axis=0), labels)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 7), st.booleans(), st.floats(0.7, 2.2), st.floats(5, 13), st.integers(3, 12))
def test_points_come_back_and_slices_stay_slices(turn, mirrored, pixel, distance, slices):
    shape = (40, 36, slices)
    placement = place(shape, matrix((pixel, pixel, distance), mirrored), THICK, turn=turns()[turn])
    points = np.random.default_rng(0).uniform(0, 30, (5, 3))
    assert np.allclose(placement.points_to_box(placement.points_to_native(points)), points)
    assert np.linalg.det(placement.to_native[:3, :3]) * (-1 if mirrored else 1) > 0
    heights = placement.points_to_native(np.c_[np.zeros((8, 2)), np.arange(8)])[:, 2]
    if 7.9 < distance < 12.6:
        assert np.allclose(heights, heights.round(), atol=1e-9)
        assert np.allclose(np.abs(np.diff(heights)), 1)
    else:
        assert np.allclose(np.abs(np.diff(heights)), 10.0 / distance)


def test_turns_are_the_eight_proper_ones():
    found = turns()
    assert len({t.tobytes() for t in (np.round(t) + 0.0 for t in found)}) == 8
    assert all(np.linalg.det(t) == pytest.approx(1) and abs(t[2, 2]) == 1 for t in found)
    assert len(turns(in_plane=False)) == 2


@settings(max_examples=20, deadline=None)
@given(st.floats(-1, 1), st.floats(0.7, 2.2), st.floats(0.7, 2.2))
def test_a_turned_box_is_turned_in_mm_about_its_centre(angle, first, second):
    box = NetworkBox((32, 48, 8), (1.5, 2.5, 10.0), native_slices=True)
    spacing = np.array([first, second, 10.0])
    placement = place((40, 36, 8), matrix(spacing), box)
    turned = placement.turned(angle)
    middle = (np.array(box.shape) - 1) / 2
    assert np.allclose(turned.points_to_native(middle), placement.points_to_native(middle))
    before, after = (p.to_native[:3, :3] * spacing[:, None] for p in (placement, turned))
    assert np.allclose(after.T @ after, before.T @ before)
    assert np.trace(np.linalg.solve(before, after)) == pytest.approx(1 + 2 * np.cos(angle))


def test_slices_that_were_not_acquired_are_zero():
    image = np.full((30, 30, 4), 7.0) + np.random.default_rng(0).random((30, 30, 4))
    placement = place(image.shape, matrix((2.0, 2.0, 10.0)), THICK)
    inside, box = acquired(placement), to_box(image, placement)
    assert inside.any(axis=(1, 2)).sum() == 4
    assert box[~inside].max() == 0 and box.min() >= 0 and box.max() == 1


def test_the_first_and_the_last_percent_are_clipped():
    box = np.linspace(-100, 300, 1000, dtype=np.float32).reshape(10, 10, 10)
    found = rescale(box, np.ones(box.shape, dtype=bool))
    assert (found == 0).mean() == pytest.approx(0.01, abs=0.002)
    assert (found == 1).mean() == pytest.approx(0.01, abs=0.002)
    assert rescale(np.ones_like(box), np.ones(box.shape, dtype=bool)).max() == 0


def test_fine_pixels_are_averaged_not_skipped():
    stripes = np.zeros((128, 128, 4))
    stripes[::2] = 1.0
    placement = place(stripes.shape, matrix((0.5, 0.5, 10.0)), THICK)
    middle = sample_image(stripes, placement)[4, 8:24, 8:24]
    assert np.ptp(middle) < 0.3 and middle.mean() == pytest.approx(0.5, abs=0.05)


def test_the_default_is_the_papers_lattice():
    assert NetworkBox().shape == (192, 192, 80) and NetworkBox().spacing_mm == (1.25, 1.25, 2.0)
    placement = place((100, 100, 10), matrix((1.25, 1.25, 10.0)), NetworkBox())
    heights = placement.points_to_native(np.c_[np.zeros((80, 2)), np.arange(80)])[:, 2]
    assert np.allclose(np.diff(heights), 0.2)


@pytest.mark.parametrize("shape", [(30, 32, 8), (32, 32), (0, 32, 8)])
def test_impossible_boxes_are_refused(shape):
    with pytest.raises(ValueError, match="needs"):
        NetworkBox(shape)


@settings(max_examples=60, deadline=None)
@given(st.integers(3, 60), st.floats(1.0, 25.0))
def test_parts_of_a_stack_hold_all_slices_as_far_apart_as_the_network_knows(slices, distance):
    parts = sub_stacks(slices, distance, THICK)
    assert sorted({k for part in parts for k in part}) == list(range(slices))
    assert {len(part) <= THICK.shape[2] for part in parts} == {True}
    steps = {part.step for part in parts}
    assert len(steps) == 1 and min(len(part) for part in parts) >= 3
    share = distance * steps.pop() / 10
    enough = slices // 3 >= 10 / distance + 1
    assert not enough or 0.7 < share < 1.42 or (distance > 10 and share == distance / 10)


def test_the_usual_stack_is_one_part_and_a_resampled_one_stays_whole():
    assert sub_stacks(8, 10.0, THICK) == [range(8)]
    assert sub_stacks(40, 2.0, NetworkBox((32, 32, 8), (2.0, 2.0, 2.0))) == [range(40)]
    assert sub_stacks(7, 5.0, THICK) == [range(0, 7, 2), range(1, 7, 2)]


def test_a_box_over_other_slices_keeps_its_place_in_the_plane():
    placement = place(
        (27, 24, 7), matrix((2.0, 2.0, 10.0)), THICK, centre=(9, 8, 3), turn=turns()[5]
    )
    other = placement.over(8)
    np.testing.assert_array_equal(other.to_native[:2], placement.to_native[:2])
    ends = sorted(other.points_to_native([[0, 0, 0], [0, 0, 7]])[:, 2])
    assert ends == [0, 7] and other.native_shape == (27, 24, 8)


@pytest.mark.parametrize("distance", [3.0, 4.4, 5.5, 7.7, 9.9, 11.0, 14.0, 17.7])
@pytest.mark.parametrize("slices", [4, 7, 12, 20, 30])
def test_the_end_slices_of_a_resampled_stack_are_kept(slices, distance):
    """A box slice on an end slice is acquired, whatever rounding makes of its place."""
    box = NetworkBox((32, 32, 60), (2.0, 2.0, distance / 2))
    matrix = np.diag([2.0, 2.0, distance, 1.0])
    placed = place((40, 40, slices), matrix, box, centre=(19.5, 19.5, (slices - 1) / 2 + 0.25))
    depth = placed.to_native[2, 2] * np.arange(60) + placed.to_native[2, 3]
    inside = acquired(placed).any(axis=(1, 2))
    for end in (0, slices - 1):
        nearest = int(np.abs(depth - end).argmin())
        if abs(depth[nearest] - end) < 1e-9:
            assert inside[nearest]
    assert inside.sum() in (2 * slices - 1, 2 * slices - 2)
