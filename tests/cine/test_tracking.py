"""An atlas through all frames: onto each of them, smooth in time, and across frames without labels."""

from dataclasses import replace

import numpy as np
import pytest

from cardiacreg import Affine
from cardiacreg.cine.tracking import low_pass, make_cycle, track_atlas
from cardiacreg.metrics.overlap import dice
from cardiacreg.phantoms.toy_heart import make_toy_heart
from cardiacreg.registration.ffd_registration import RegistrationOptions, prepare_target
from cardiacreg.transforms.resampling import Lattice, warp_labels

OPTIONS = RegistrationOptions.dense(16.0)
ATLAS = make_toy_heart(size=0.92).labels
SIZES = 0.94 + 0.06 * np.cos(2 * np.pi * np.arange(10) / 10)
TIMES = tuple(np.arange(10) / 10)


def cycle(sizes=SIZES, times=TIMES, left_out=(), options=OPTIONS, reference=5):
    frames = {n: make_toy_heart(size=s).labels for n, s in enumerate(sizes) if n not in left_out}
    prepared = {n: prepare_target(each, options) for n, each in frames.items()}
    n_slices = ATLAS.shape[2]
    return frames, make_cycle(prepared, options, times, reference, np.zeros((n_slices, 2)))


def track(made, atlas=ATLAS):
    return track_atlas(made, atlas, dict.fromkeys(made.prepared, Affine.identity()))


@pytest.fixture(scope="module")
def tracked():
    frames, made = cycle()
    return frames, track(made)


def test_atlases_follow_every_frame(tracked):
    """Of four, since rounding alone moves the Dice of one by 0.014 in hearts of so few voxels."""
    frames, made = cycle()
    found = {0.92: tracked[1]}
    for size in (0.9, 0.91, 0.93):
        found[size] = track(made, make_toy_heart(size=size).labels)
    for label in (1, 2, 4):
        means = []
        for size, each in found.items():
            atlas = make_toy_heart(size=size).labels
            after = [warp_labels(atlas, each[n].target_to_atlas, f) for n, f in frames.items()]
            scores = [dice(a, f, label) for a, f in zip(after, frames.values(), strict=True)]
            before = [dice(atlas, frame, label) for frame in frames.values()]
            assert min(scores) > min(before), (size, label, scores)
            means.append(np.mean(scores))
        assert np.mean(means) > 0.85, (label, means)
    assert min(frame.minimum_jacobian for each in found.values() for frame in each) > 0


def test_all_frames_have_one_control_lattice(tracked):
    _, found = tracked
    for each in found:
        np.testing.assert_allclose(
            each.target_to_atlas.lattice_to_world, found[0].target_to_atlas.lattice_to_world
        )
        assert each.target_to_atlas.displacements_mm.shape == (
            found[0].target_to_atlas.displacements_mm.shape
        )


def test_a_frame_without_labels_lies_between_its_neighbours():
    _, made = cycle(left_out=(2, 3))
    found = track(made)
    first, last = (found[n].target_to_atlas.displacements_mm for n in (1, 4))
    for n, share in ((2, 1 / 3), (3, 2 / 3)):
        between = (1 - share) * first + share * last
        np.testing.assert_allclose(found[n].target_to_atlas.displacements_mm, between, atol=1e-9)


def test_the_last_frame_is_filled_in_across_the_end_of_the_cycle():
    _, made = cycle(left_out=(9,))
    found = track(made)
    between = sum(found[n].target_to_atlas.displacements_mm for n in (8, 0)) / 2
    np.testing.assert_allclose(found[9].target_to_atlas.displacements_mm, between, atol=1e-9)


def test_two_frames_are_registered_each_and_not_smoothed():
    _, made = cycle(sizes=(1.0, 0.85), times=(0.0, 0.5), reference=1)
    assert not made.is_whole
    found = track(made)
    for size, each in zip((1.0, 0.85), found, strict=True):
        frame = make_toy_heart(size=size).labels
        assert dice(warp_labels(ATLAS, each.target_to_atlas, frame), frame, 1) > 0.9


def test_which_frames_make_a_whole_cycle():
    assert cycle()[1].is_whole
    assert not cycle(left_out=(3, 7))[1].is_whole  # gaps of a fifth of the cycle
    assert not cycle(sizes=SIZES[:6], times=TIMES[:6], reference=0)[1].is_whole


def test_an_atlas_far_away_is_not_tracked():
    _, made = cycle(sizes=(1.0, 0.85), times=(0.0, 0.5), reference=1)
    far = np.eye(4)
    far[:3, 3] = 500.0
    assert track_atlas(made, ATLAS, dict.fromkeys(made.prepared, Affine(far))) == []


def test_compositions_are_left_out():
    _, made = cycle(options=replace(OPTIONS, compositions=3))
    assert made.options == OPTIONS
    assert OPTIONS.compositions == 0


class TestLowPass:
    TIMES = np.arange(25) / 25

    def test_keeps_the_slow_and_takes_the_fast(self):
        slow = 3 + np.cos(2 * np.pi * self.TIMES) + 0.3 * np.sin(4 * np.pi * self.TIMES)
        fast = 0.2 * np.sin(2 * np.pi * 10 * self.TIMES)
        np.testing.assert_allclose(low_pass(slow + fast, self.TIMES), slow, atol=0.015)

    def test_knows_that_the_last_frame_is_before_the_first(self):
        values = np.random.default_rng(0).normal(size=(25, 2, 3))
        turned = low_pass(np.roll(values, 7, axis=0), self.TIMES)
        np.testing.assert_allclose(
            turned, np.roll(low_pass(values, self.TIMES), 7, axis=0), atol=1e-9
        )

    def test_of_uneven_times_a_slow_wave_stays(self):
        times = np.delete(self.TIMES, [3, 11])
        slow = np.cos(2 * np.pi * times)
        np.testing.assert_allclose(low_pass(slow, times), slow, atol=1e-3)

    def test_keeps_constants(self):
        np.testing.assert_allclose(low_pass(np.full((9, 4), 2.5), np.arange(9) / 9), 2.5)


def test_the_warped_atlas_beyond_the_labels_is_background(tracked):
    _, found = tracked
    far = np.eye(4)
    far[:3, 3] = 500.0
    assert not warp_labels(ATLAS, found[0].target_to_atlas, Lattice((4, 4, 4), far)).array.any()
