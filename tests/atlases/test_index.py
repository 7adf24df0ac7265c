"""The index of shapes: it proposes what NMI would choose, whole or through a file."""

from dataclasses import replace

import numpy as np
import pytest

from cardiacreg import Affine, InvalidInputError, LabelMap, Subject
from cardiacreg.anatomy.landmarks import landmarks_from_labels
from cardiacreg.atlases.index import AtlasIndex, read_labels_at, telling_points
from cardiacreg.atlases.ranking import diversity, rank_atlases
from cardiacreg.phantoms.toy_heart import make_toy_heart
from cardiacreg.registration.landmark_affine import fit_landmark_affine
from tests.helpers.tiny_bank import tiny_atlas


def with_landmarks(subject):
    return replace(subject, landmarks=landmarks_from_labels(subject.labels))


@pytest.fixture(scope="module")
def hearts():
    return [with_landmarks(tiny_atlas(seed, strength_mm=4.0)) for seed in range(12)]


@pytest.fixture(scope="module")
def index(hearts):
    return AtlasIndex.build(hearts, threads=1)


def moved(subject, matrix):
    labels = LabelMap(subject.labels.array, matrix @ subject.labels.voxel_to_world)
    return with_landmarks(Subject(labels))


class TestProposals:
    def test_an_atlas_finds_itself_first(self, hearts, index):
        for number in (0, 5, 11):
            found = index.propose(hearts[number].labels, hearts[number].landmarks, 3)
            assert found[0] == number and len(found) == 3

    def test_where_a_heart_lies_does_not_matter(self, hearts, index):
        turn = np.array([[0, -1, 0, 50], [1, 0, 0, -20], [0, 0, 1, 7], [0, 0, 0, 1.0]])
        there = moved(hearts[4], turn)
        own = replace(there, landmarks=replace(
            hearts[4].landmarks, points_mm=Affine(turn).apply(hearts[4].landmarks.points_mm)
        ))  # fmt: skip
        assert index.propose(own.labels, own.landmarks, 1)[0] == 4

    def test_slices_without_labels_are_unknown(self, hearts, index):
        array = hearts[7].labels.array.copy()
        array[:, :, : array.shape[2] // 2] = 0
        half = LabelMap(array, hearts[7].labels.voxel_to_world)
        assert index.propose(half, hearts[7].landmarks, 1)[0] == 7

    def test_hold_the_best_by_mutual_information(self, hearts, index):
        target = with_landmarks(tiny_atlas(99, strength_mm=4.0))
        affines = [
            fit_landmark_affine(target.landmarks, heart.landmarks).target_to_atlas
            for heart in hearts
        ]
        best = rank_atlases(target.labels, hearts, affines)[0].index
        assert best in index.propose(target.labels, target.landmarks, 6)

    def test_structures_that_the_target_lacks_do_not_count(self, hearts, index):
        labels = hearts[6].labels
        left = LabelMap(np.where(labels.array > 2, 0, labels.array), labels.voxel_to_world)
        found = index.propose(left, hearts[6].landmarks, 1, unknown_labels=(3, 4))
        assert found[0] == 6

    def test_are_all_atlases_where_more_are_asked_for(self, hearts, index):
        found = index.propose(hearts[0].labels, hearts[0].landmarks, 100)
        assert sorted(found) == list(range(len(hearts)))


def test_points_at_which_all_atlases_agree_tell_nothing():
    sample = np.zeros((4, 6), dtype=np.uint8)
    sample[:2, 1], sample[3, 4], sample[:, 5] = 3, 1, 2
    assert sorted(telling_points(sample, 10)) == [1, 4]
    assert len(telling_points(sample, 1)) == 1


class TestFiles:
    def test_a_saved_index_is_the_same(self, hearts, index, tmp_path):
        loaded = AtlasIndex.load(index.save(tmp_path / "index.npz"))
        np.testing.assert_array_equal(loaded.signatures, index.signatures)
        given = (hearts[3].labels, hearts[3].landmarks, 5)
        np.testing.assert_array_equal(loaded.propose(*given), index.propose(*given))

    def test_other_files_are_refused(self, tmp_path):
        (tmp_path / "no.npz").write_bytes(b"no")
        with pytest.raises(InvalidInputError, match="not an index"):
            AtlasIndex.load(tmp_path / "no.npz")


def test_one_atlas_is_no_bank():
    with pytest.raises(InvalidInputError, match="at least two"):
        AtlasIndex.build([make_toy_heart()])


def test_labels_are_read_at_the_nearest_voxel():
    labels = LabelMap(np.arange(8).reshape(2, 2, 2), np.diag([2.0, 2.0, 2.0, 1.0]))
    points = np.array([[0.9, 0, 0], [1.1, 0, 0], [2, 2, 2], [-1.1, 0, 0], [0, 0, 3.1]])
    assert read_labels_at(labels, points).tolist() == [0, 4, 7, 0, 0]


class TestDiversity:
    def test_of_copies_is_zero_and_of_opposites_one(self):
        array = np.zeros((6, 6, 4), dtype=np.uint8)
        array[1:5, 1:5] = 1
        one, other = (Subject(LabelMap(a, np.eye(4))) for a in (array, array * 2))
        here = [Affine.identity()] * 2
        assert diversity(one.labels, [one, one], here) == 0
        assert diversity(one.labels, [one, other], here) == 1
        assert diversity(one.labels, [one], here[:1]) == 0

    def test_is_the_mean_over_pairs(self):
        array = np.zeros((6, 6, 4), dtype=np.uint8)
        array[1:5, 1:5] = 1
        half = array.copy()
        half[3:5, 1:5] = 2
        atlases = [Subject(LabelMap(a, np.eye(4))) for a in (array, array, half)]
        found = diversity(atlases[0].labels, atlases, [Affine.identity()] * 3)
        assert found == pytest.approx(1 / 3)
