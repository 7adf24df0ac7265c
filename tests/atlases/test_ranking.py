import numpy as np
import pytest
from hypothesis import given

from cardiacreg import Affine, InvalidInputError, LabelMap, Subject
from cardiacreg.atlases.ranking import normalized_mutual_information, rank_atlases
from cardiacreg.compute.threads import Progress
from cardiacreg.metrics.overlap import dice
from tests.helpers import naive
from tests.helpers.strategies import (
    affines,
    blobs,
    label_maps,
    light,
    oblique_matrix,
    random_labels,
    seeds,
    well_conditioned_matrix,
)


def permuted(labels, rng):
    table = np.arange(256, dtype=np.uint8)
    table[1:] = rng.permutation(table[1:])
    return LabelMap(table[labels.array], labels.voxel_to_world)


def oracle(target, atlas, affine, voxels=None):
    counts = naive.joint_histogram(
        target.array,
        target.voxel_to_world,
        atlas.array,
        atlas.voxel_to_world,
        affine.matrix,
        voxels,
    )
    return naive.normalized_mutual_information(counts)


class TestNormalizedMutualInformation:
    @light
    @given(label_maps(), label_maps(), affines())
    def test_equals_the_oracle_through_an_affine(self, target, atlas, affine):
        value = normalized_mutual_information(target, atlas, affine)
        assert value == pytest.approx(oracle(target, atlas, affine), rel=1e-12)

    @light
    @given(label_maps())
    def test_is_two_for_identical_maps_and_their_permutations(self, labels):
        assert normalized_mutual_information(labels, labels) == pytest.approx(2)
        other = permuted(labels, np.random.default_rng(0))
        assert normalized_mutual_information(labels, other) == pytest.approx(2)

    @light
    @given(seeds)
    def test_is_symmetric_bounded_and_blind_to_label_values(self, seed):
        rng = np.random.default_rng(seed)
        first, second = (LabelMap(random_labels(rng), np.eye(4)) for _ in range(2))
        value = normalized_mutual_information(first, second)
        assert 1 <= value <= 2
        assert normalized_mutual_information(second, first) == pytest.approx(value, rel=1e-12)
        changed = normalized_mutual_information(permuted(first, rng), permuted(second, rng))
        assert changed == pytest.approx(value, rel=1e-12)

    def test_every_table_of_two_binary_maps_of_four_voxels(self):
        for first in range(16):
            for second in range(16):
                arrays = [
                    np.array([n >> bit & 1 for bit in range(4)]).reshape(4, 1, 1)
                    for n in (first, second)
                ]
                pair = [LabelMap(array, np.eye(4)) for array in arrays]
                value = normalized_mutual_information(*pair)
                assert value == pytest.approx(oracle(*pair, Affine.identity()))

    def test_is_one_when_both_maps_are_constant(self):
        labels = LabelMap(np.ones((2, 2, 2)), np.eye(4))
        assert normalized_mutual_information(labels, labels) == 1.0

    def test_unknown_labels_count_as_background(self):
        rng = np.random.default_rng(1)
        target, array = (
            LabelMap(random_labels(rng), np.eye(4)),
            random_labels(rng, labels=(0, 1, 3)),
        )
        folded = LabelMap(np.where(array == 3, 0, array), np.eye(4))
        expected = normalized_mutual_information(target, folded)
        atlas = LabelMap(array, np.eye(4))
        value = normalized_mutual_information(target, atlas, unknown_labels=(3,))
        assert value == pytest.approx(expected, rel=1e-12)

    def test_other_shapes_need_a_transform(self):
        maps = [LabelMap(np.ones(shape), np.eye(4)) for shape in ((2, 2, 2), (2, 2, 3))]
        with pytest.raises(InvalidInputError) as caught:
            normalized_mutual_information(*maps)
        assert caught.value.code == "BAD_SHAPE"


def bank(rng, count):
    matrices = [oblique_matrix(rng, (4.0, 5.0, 8.0), centre_of=(12, 11, 8)) for _ in range(count)]
    subjects = [Subject(LabelMap(blobs(rng), matrix)) for matrix in matrices]
    return subjects, [Affine(well_conditioned_matrix(rng)) for _ in range(count)]


def small_target(rng):
    array = np.zeros((14, 12, 7), dtype=np.uint8)
    array[4:9, 3:8, 2:6] = blobs(rng, (5, 5, 4))
    array[:, :, 4] = 0
    array[5, 5, 2:4], array[6, 6, 5] = 1, 2
    return LabelMap(array, oblique_matrix(rng, (4.0, 5.0, 8.0), centre_of=array.shape))


class TestRanking:
    @pytest.mark.parametrize("whole", [True, False])
    def test_equals_the_oracle(self, whole):
        rng = np.random.default_rng(2)
        target = small_target(rng)
        atlases, transforms = bank(rng, 5)
        voxels = (
            None if whole else naive.voxels_around_labels(target.array, target.spacing_mm, 10.0)
        )
        expected = [
            oracle(target, a.labels, t, voxels) for a, t in zip(atlases, transforms, strict=True)
        ]
        ranked = rank_atlases(target, atlases, transforms, whole_lattice=whole)
        assert [r.index for r in ranked] == sorted(range(5), key=lambda n: (-expected[n], n))
        np.testing.assert_allclose(
            [r.nmi for r in ranked], sorted(expected, reverse=True), rtol=1e-12
        )
        assert len(set(expected)) == 5
        assert all(r.target_to_atlas is transforms[r.index] for r in ranked)

    def test_dice_of_the_shown_structures_equals_the_measure(self):
        rng = np.random.default_rng(5)
        target, atlas = (LabelMap(random_labels(rng), np.eye(4)) for _ in range(2))
        [ranked] = rank_atlases(target, [Subject(atlas)], [Affine.identity()], whole_lattice=True)
        assert set(ranked.dice) == set(target.present())
        for label, value in ranked.dice.items():
            assert value == pytest.approx(dice(target, atlas, label))

    def test_ties_keep_the_order_of_the_bank(self):
        rng = np.random.default_rng(3)
        (a, b), (s, t) = bank(rng, 2)
        ranked = rank_atlases(small_target(rng), [a, b, a, b, a], [s, t, s, t, s])
        assert [r.index for r in ranked] in ([0, 2, 4, 1, 3], [1, 3, 0, 2, 4])
        assert ranked[0].nmi != ranked[-1].nmi

    def test_the_target_itself_is_best(self):
        rng = np.random.default_rng(4)
        target = small_target(rng)
        atlases, transforms = bank(rng, 3)
        ranked = rank_atlases(target, [*atlases, Subject(target)], [*transforms, Affine.identity()])
        assert ranked[0].index == 3
        assert ranked[0].nmi == pytest.approx(2)

    def test_progress_counts_every_atlas(self):
        rng = np.random.default_rng(5)
        atlases, transforms = bank(rng, 3)
        seen = []
        rank_atlases(small_target(rng), atlases, transforms, threads=1, progress=seen.append)
        assert seen == [Progress("select", n, 3) for n in (1, 2, 3)]

    def test_an_empty_target_is_scored_over_everything(self):
        rng = np.random.default_rng(6)
        atlases, transforms = bank(rng, 1)
        empty = LabelMap(np.zeros((3, 3, 3)), np.eye(4))
        assert rank_atlases(empty, atlases, transforms, whole_lattice=True)[0].nmi == pytest.approx(
            1
        )

    @pytest.mark.parametrize("count", [0, 1])
    def test_a_bank_needs_atlases_and_one_transform_each(self, count):
        rng = np.random.default_rng(7)
        atlases, transforms = bank(rng, 2)
        with pytest.raises(InvalidInputError) as caught:
            rank_atlases(small_target(rng), atlases[:count], transforms[: count * 2])
        assert caught.value.code == "EMPTY_BANK"
