"""Shifts that frames share: averaged by how sure frames are, and not led astray by one of them."""

import numpy as np
import pytest

from cardiacreg.slice_motion.shared_shifts import FrameShifts, shared_shifts

TRUE = np.array([[1.0, -2.0], [-1.5, 0.5], [0.5, 0.5], [0.0, 2.0], [0.0, -1.0]])
N = len(TRUE)


def frame(shifts, slices=None, confidence=1.0):
    """A frame that is equally sure of all its slices, but not of a shift common to all."""
    slices = np.arange(len(shifts)) if slices is None else np.array(slices)
    n = len(slices)
    one = confidence * (np.eye(n) - np.full((n, n), 1 / n)) + 1e-6 * np.eye(n)
    return FrameShifts(slices, np.asarray(shifts, float), np.kron(np.eye(2), one))


def test_one_frame_is_taken_as_it_is():
    np.testing.assert_allclose(shared_shifts([frame(TRUE)], N), TRUE - TRUE.mean(axis=0), atol=1e-9)


def test_noise_of_frames_is_averaged_by_how_sure_they_are():
    noise = 0.1 * np.random.default_rng(0).normal(size=(2, N, 2))
    found = shared_shifts([frame(TRUE + noise[0], confidence=3.0), frame(TRUE + noise[1])], N)
    wanted = TRUE + 0.75 * noise[0] + 0.25 * noise[1]
    np.testing.assert_allclose(found, wanted - wanted.mean(axis=0), atol=1e-5)


def test_a_factor_says_how_sure_a_frame_is():
    other = TRUE[::-1] * 0.1 + TRUE
    found = shared_shifts([frame(TRUE), frame(other)], N, [1.0, 0.25])
    wanted = 0.8 * TRUE + 0.2 * other
    np.testing.assert_allclose(found, wanted - wanted.mean(axis=0), atol=1e-5)


def test_a_common_shift_of_a_frame_with_fewer_slices_changes_nothing():
    """The mean of a frame's own slices tells nothing: the other slices hold the frames together."""
    few = frame(TRUE[1:4] + [3.0, -2.0], slices=[1, 2, 3])
    found = shared_shifts([frame(TRUE), few], N)
    np.testing.assert_allclose(found, TRUE - TRUE.mean(axis=0), atol=1e-4)


def test_slices_that_no_frame_labels_stay():
    found = shared_shifts([frame(TRUE[:3], slices=[1, 2, 3])], N)
    assert not found[[0, 4]].any()
    np.testing.assert_allclose(found[1:4], TRUE[:3] - TRUE[:3].mean(axis=0), atol=1e-9)


def test_a_stray_slice_of_one_frame_hardly_counts():
    stray = TRUE.copy()
    stray[2] += 6.0
    found = shared_shifts([frame(TRUE), frame(TRUE), frame(stray)], N)
    error = found - (TRUE - TRUE.mean(axis=0))
    assert np.abs(error - error.mean(axis=0)).max() < 0.2 < 6.0 / 3


def test_no_motion_wins_where_most_frames_say_so():
    assert not shared_shifts([None, None, frame(TRUE)], N).any()
    assert shared_shifts([None, frame(TRUE)], N).any()
    assert not shared_shifts([None], N).any()


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_the_order_of_frames_does_not_matter(order):
    frames = [frame(TRUE), frame(TRUE * 1.1, confidence=2.0), frame(TRUE[:4], slices=[0, 1, 2, 3])]
    found = shared_shifts([frames[n] for n in order], N)
    np.testing.assert_allclose(found, shared_shifts(frames, N), atol=1e-9)
