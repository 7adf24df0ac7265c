"""A synthetic heart beats: one person, one lattice, muscle that stays, an apex that stands still."""

import numpy as np
import pytest

from cardiacreg import Degradation, InvalidInputError, sample_heart
from cardiacreg.anatomy.volumes import volumes_ml
from cardiacreg.phantoms.beating import SYSTOLE, beating_heart, contraction
from cardiacreg.slices import labelled_slices

COARSE_MM = (2.5, 2.5, 4.0)


@pytest.fixture(scope="module")
def frames():
    return beating_heart(10_001, n_frames=6, spacing_mm=COARSE_MM)


def test_contraction_is_periodic_and_has_one_end_systole():
    times = np.linspace(0, 1, 201)
    amounts = contraction(times)
    assert amounts[0] == pytest.approx(0) and amounts[-1] == pytest.approx(0)
    assert times[amounts.argmax()] == pytest.approx(SYSTOLE, abs=0.005)
    assert (np.diff(amounts)[times[1:] < SYSTOLE] > 0).all()
    assert (np.diff(amounts)[times[1:] > SYSTOLE + 0.005] < 0).all()
    np.testing.assert_allclose(contraction(times + 1), amounts, atol=1e-9)


def test_volumes_follow_the_contraction_and_muscle_stays(frames):
    amounts = np.array([each.metadata["contraction"] for each in frames])
    volumes = [volumes_ml(each.labels) for each in frames]
    for name in ("LV cavity", "RV cavity"):
        curve = np.array([each[name] for each in volumes])
        assert (np.argsort(curve) == np.argsort(-amounts)).all()
    wall = np.array([each["LV wall"] for each in volumes])
    assert np.ptp(wall) < 0.05 * wall.mean()


def test_its_first_frame_is_the_person_at_end_diastole(frames):
    person = volumes_ml(sample_heart(10_001, spacing_mm=COARSE_MM, with_image=False).labels)
    ours = volumes_ml(frames[0].labels)
    for name in ("LV cavity", "LV wall", "RV cavity"):
        assert ours[name] == pytest.approx(person[name], rel=0.06), name


def test_frames_share_a_lattice_and_the_apex(frames):
    for each in frames:
        np.testing.assert_array_equal(each.labels.voxel_to_world, frames[0].labels.voxel_to_world)
        assert each.labels.shape == frames[0].labels.shape
    apices = [np.argwhere(np.isin(f.labels.array, (1, 2)))[:, 2].min() for f in frames]
    assert np.ptp(apices) <= 1


def test_two_frames_are_the_two_phases():
    pair = beating_heart(10_001, n_frames=2, spacing_mm=COARSE_MM)
    assert [each.metadata["contraction"] for each in pair] == [0.0, 1.0]


def test_one_frame_is_refused():
    with pytest.raises(InvalidInputError) as caught:
        beating_heart(0, n_frames=1)
    assert caught.value.code == "BAD_FRAME"


class TestStacks:
    def test_all_frames_have_the_shifts_of_one_breath_hold(self, frames):
        lows = Degradation().of_frames(frames, seed=4)
        for each in lows:
            np.testing.assert_array_equal(each.slice_shifts_mm, lows[0].slice_shifts_mm)
            np.testing.assert_array_equal(
                each.subject.labels.voxel_to_world, lows[0].subject.labels.voxel_to_world
            )
            assert each.subject.labels.shape == lows[0].subject.labels.shape
        counts = [len(labelled_slices(each.subject.labels.array)) for each in lows]
        assert min(counts) >= 3 and len(set(counts)) > 1

    def test_one_frame_is_the_stack_of_a_heart(self, frames):
        (one,) = Degradation().of_frames(frames[:1], seed=4)
        other = Degradation().of(frames[0], seed=4)
        np.testing.assert_array_equal(one.subject.labels.array, other.subject.labels.array)
        np.testing.assert_array_equal(one.slice_shifts_mm, other.slice_shifts_mm)

    def test_frames_on_different_lattices_are_refused(self, frames):
        stranger = sample_heart(10_001, spacing_mm=COARSE_MM, with_image=False)
        with pytest.raises(InvalidInputError) as caught:
            Degradation().of_frames([frames[0], stranger], seed=4)
        assert caught.value.code == "GRID_MISMATCH"
