import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardiacreg import InvalidInputError, LabelMap, Volume
from cardiacreg._slabs import Progress
from cardiacreg.label_fusion import FusionOptions, fuse_labels, fusion_from_votes
from tests import naive
from tests.strategies import blobs, few, light, oblique_matrix, random_labels, seeds

OPTIONS = FusionOptions(search=(3, 5, 3), patch=(5, 3, 1), bandwidth=2000.0)
SHAPE = (6, 5, 4)


def random_case(seed, *, n_atlases=3, shape=SHAPE, labels=(0, 1, 2, 4)):
    """A target image and warped (image, labels) pairs on one lattice."""
    rng = np.random.default_rng(seed)
    matrix = oblique_matrix(rng)
    base = blobs(rng, shape, labels[1:])
    grids = []
    for _ in range(n_atlases):
        noisy = np.where(rng.random(shape) < 0.2, random_labels(rng, shape, labels), base)
        image = 40.0 * base + rng.normal(0, 15, size=shape)
        grids.append((Volume(image, matrix), LabelMap(noisy, matrix)))
    return Volume(40.0 * base + rng.normal(0, 15, size=shape), matrix), grids


def oracle_votes(target, atlases, options):
    """Eq. (5) after scaling every image to 0..255 inside the dilated heart."""
    heart = naive.dilated(np.any([labels.array != 0 for _, labels in atlases], axis=0), 4)
    heart = heart if heart.any() else ~heart
    pairs = [(naive.grey_levels(image.array, heart), labels.array) for image, labels in atlases]
    return naive.nonlocal_votes(
        naive.grey_levels(target.array, heart),
        pairs,
        options.search,
        options.patch,
        options.bandwidth,
        options.distance == "mean",
    )


def relabelled(grids, table):
    return [
        (image, LabelMap(table[labels.array], labels.voxel_to_world)) for image, labels in grids
    ]


class TestNonlocal:
    @pytest.mark.parametrize(
        "options",
        [
            OPTIONS,
            dataclasses.replace(OPTIONS, distance="sum", bandwidth=20000.0),
            dataclasses.replace(OPTIONS, bandwidth=10.0),
            dataclasses.replace(OPTIONS, patch=(1, 1, 1)),
            dataclasses.replace(OPTIONS, search=(1, 1, 1)),
            dataclasses.replace(OPTIONS, search=(1, 9, 5), patch=(3, 13, 1)),
        ],
        ids=["mean", "sum", "sharp", "one-voxel patch", "no search", "wider than the lattice"],
    )
    def test_equals_the_literal_loop(self, options):
        target, atlases = random_case(1, n_atlases=2)
        found = fuse_labels(target, atlases, options=options)
        self.compare(found, oracle_votes(target, atlases, options))

    @few
    @given(seeds, st.integers(1, 3))
    def test_equals_the_literal_loop_for_any_seed(self, seed, n_atlases):
        target, atlases = random_case(seed, n_atlases=n_atlases, shape=(5, 4, 3))
        found = fuse_labels(target, atlases, options=OPTIONS)
        self.compare(found, oracle_votes(target, atlases, OPTIONS))

    @staticmethod
    def compare(found, votes):
        for index, of_voxel in votes.items():
            share = of_voxel[int(found.labels.array[index])] / sum(of_voxel.values())
            best = max(of_voxel.values()) / sum(of_voxel.values())
            assert share == pytest.approx(best, abs=2e-4)
            assert found.confidence.array[index] == pytest.approx(best, abs=2e-4)

    def test_scale_of_intensities_does_not_matter(self):
        target, atlases = random_case(3)
        scaled = [
            (Volume(image.array * 7 + 300, image.voxel_to_world), labels)
            for image, labels in atlases
        ]
        first, second = (fuse_labels(target, a, options=OPTIONS) for a in (atlases, scaled))
        np.testing.assert_array_equal(first.labels.array, second.labels.array)
        np.testing.assert_allclose(first.confidence.array, second.confidence.array, atol=1e-3)

    def test_constant_images_are_accepted_and_vote_evenly(self):
        target, atlases = random_case(4, shape=(5, 4, 3))
        flat = Volume(np.ones((5, 4, 3)), target.voxel_to_world)
        found = fuse_labels(flat, [(flat, labels) for _, labels in atlases], options=OPTIONS)
        votes = oracle_votes(flat, [(flat, labels) for _, labels in atlases], OPTIONS)
        self.compare(found, votes)

    def test_intensities_far_from_the_heart_do_not_set_the_scale(self):
        rng = np.random.default_rng(6)
        array = np.zeros((18, 3, 2), dtype=np.uint8)
        array[:5] = random_labels(rng, (5, 3, 2))
        ramp = np.arange(18.0)[:, None, None] ** 2 + rng.normal(size=array.shape)
        target, atlas = (
            Volume(ramp, np.eye(4)),
            (Volume(ramp[:, ::-1], np.eye(4)), LabelMap(array, np.eye(4))),
        )
        options = dataclasses.replace(OPTIONS, search=(5, 3, 1), patch=(1, 3, 1))
        found = fuse_labels(target, [atlas], options=options)
        self.compare(found, oracle_votes(target, [atlas], options))

    def test_progress_counts_slices(self):
        target, atlases = random_case(5)
        seen = []
        fuse_labels(target, atlases, options=OPTIONS, threads=1, progress=seen.append)
        assert seen == [Progress("fuse", n + 1, SHAPE[2]) for n in range(SHAPE[2])]


@pytest.mark.parametrize("mode", ["nonlocal", "majority"])
class TestBothModes:
    def options(self, mode):
        return dataclasses.replace(OPTIONS, mode=mode)

    def test_labels_are_only_names(self, mode):
        """Renaming labels renames the result (the order of names is kept: ties go to the lowest)."""
        target, atlases = random_case(6)
        table = np.array([0, 9, 30, 31, 200], dtype=np.uint8)
        before = fuse_labels(target, atlases, options=self.options(mode))
        after = fuse_labels(target, relabelled(atlases, table), options=self.options(mode))
        np.testing.assert_array_equal(after.labels.array, table[before.labels.array])
        np.testing.assert_array_equal(after.confidence.array, before.confidence.array)

    def test_a_permutation_of_names_only_moves_ties(self, mode):
        target, atlases = random_case(7)
        table = np.array([4, 2, 1, 3, 0], dtype=np.uint8)
        before = fuse_labels(target, atlases, options=self.options(mode))
        after = fuse_labels(target, relabelled(atlases, table), options=self.options(mode))
        clear = before.confidence.array > 0.5 + 1e-3
        assert clear.mean() > 0.5
        np.testing.assert_array_equal(after.labels.array[clear], table[before.labels.array][clear])

    @light
    @given(seed=seeds)
    def test_labels_of_the_result_are_labels_of_the_atlases(self, mode, seed):
        target, atlases = random_case(seed, shape=(4, 3, 3), labels=(0, 3, 7))
        found = fuse_labels(target, atlases, options=self.options(mode))
        allowed = set(np.unique([labels.array for _, labels in atlases]))
        assert set(np.unique(found.labels.array)) <= allowed
        assert ((found.confidence.array > 0) & (found.confidence.array <= 1)).all()

    def test_order_of_atlases_does_not_matter(self, mode):
        target, atlases = random_case(8)
        first = fuse_labels(target, atlases, options=self.options(mode))
        second = fuse_labels(target, atlases[::-1], options=self.options(mode))
        np.testing.assert_array_equal(first.labels.array, second.labels.array)

    def test_unanimous_maps_are_unchanged_and_certain(self, mode):
        target, atlases = random_case(9)
        ones = LabelMap(np.full(SHAPE, 3), target.voxel_to_world)
        found = fuse_labels(
            target, [(image, ones) for image, _ in atlases], options=self.options(mode)
        )
        assert (found.labels.array == 3).all()
        assert (found.confidence.array == 1).all()

    def test_lattice_of_the_result_is_that_of_the_atlases(self, mode):
        target, atlases = random_case(10)
        found = fuse_labels(target, atlases, options=self.options(mode))
        np.testing.assert_array_equal(found.labels.voxel_to_world, target.voxel_to_world)
        np.testing.assert_array_equal(found.confidence.voxel_to_world, target.voxel_to_world)


class TestIdenticalAtlases:
    def test_majority_returns_them(self):
        target, atlases = random_case(11)
        found = fuse_labels(None, [(None, atlases[0][1])] * 3)
        np.testing.assert_array_equal(found.labels.array, atlases[0][1].array)
        assert (found.confidence.array == 1).all()

    def test_nonlocal_returns_them_when_their_image_is_the_targets(self):
        """The zero offset has distance zero and a sharp h leaves no one else a vote."""
        target, atlases = random_case(12)
        options = dataclasses.replace(OPTIONS, bandwidth=1e-3)
        found = fuse_labels(target, [(target, atlases[0][1])] * 3, options=options)
        np.testing.assert_array_equal(found.labels.array, atlases[0][1].array)


class TestMajority:
    @light
    @given(seeds)
    def test_equals_the_oracle_with_ties_to_the_lowest_label(self, seed):
        rng = np.random.default_rng(seed)
        arrays = [random_labels(rng, (4, 3, 2)) for _ in range(4)]
        found = fuse_labels(None, [(None, LabelMap(a, np.eye(4))) for a in arrays])
        labels, share = naive.majority(arrays)
        np.testing.assert_array_equal(found.labels.array, labels)
        np.testing.assert_allclose(found.confidence.array, share, rtol=1e-6)

    @pytest.mark.parametrize("without", ["target image", "one atlas image"])
    def test_is_used_when_an_image_is_missing(self, without):
        target, atlases = random_case(13)
        mixed = [(None, atlases[0][1]), *atlases[1:]]
        if without == "target image":
            found = fuse_labels(None, atlases, options=OPTIONS)
        else:
            found = fuse_labels(target, mixed, options=OPTIONS)
        expected = fuse_labels(None, [(None, labels) for _, labels in atlases])
        np.testing.assert_array_equal(found.labels.array, expected.labels.array)


class TestVotes:
    def test_most_votes_win_and_ties_go_to_the_lowest(self):
        votes = np.array([[1, 3, 2], [2, 2, 1], [0, 0, 0]], dtype=np.float32).reshape(3, 1, 1, 3)
        found = fusion_from_votes(votes, np.array([0, 2, 4], dtype=np.uint8), np.eye(4))
        assert found.labels.array.ravel().tolist() == [2, 0, 0]
        np.testing.assert_allclose(found.confidence.array.ravel(), [0.5, 0.4, 0])


class TestRefusals:
    def refused(self, code, call, *arguments, **keywords):
        with pytest.raises(InvalidInputError) as caught:
            call(*arguments, **keywords)
        assert caught.value.code == code

    def test_no_atlases(self):
        self.refused("EMPTY_BANK", fuse_labels, None, [])

    def test_other_lattices(self):
        target, atlases = random_case(14)
        moved = np.array(target.voxel_to_world)
        moved[0, 3] += 1
        other = LabelMap(atlases[0][1].array, moved)
        self.refused("LATTICE_MISMATCH", fuse_labels, None, [*atlases, (None, other)])
        self.refused("LATTICE_MISMATCH", fuse_labels, Volume(target.array, moved), atlases)

    @pytest.mark.parametrize(
        "options",
        [
            {"search": (2, 3, 3)},
            {"patch": (3, 0, 1)},
            {"patch": (3, 3, 3)},
            {"mode": "staple"},
            {"distance": "max"},
            {"bandwidth": 0.0},
            {"bandwidth": float("nan")},
        ],
    )
    def test_impossible_options(self, options):
        self.refused("BAD_OPTION", FusionOptions, **options)
