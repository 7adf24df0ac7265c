import dataclasses

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy import ndimage

from cardiacreg import InvalidInputError, LabelMap, Volume
from cardiacreg.compute.threads import Progress
from cardiacreg.fusion import label_fusion, patch_votes
from cardiacreg.fusion.grey_levels import grey_levels
from cardiacreg.fusion.label_fusion import FusionOptions, fuse_labels, fusion_from_votes
from cardiacreg.fusion.patch_tiles import Box, Scene, cut_tile
from tests.helpers import naive
from tests.helpers.strategies import blobs, few, light, oblique_matrix, random_labels, seeds

MODES = label_fusion.MODES
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


def oracle_votes(target, atlases, options, **some):
    """The mode's votes after scaling every image to 0..255 inside the dilated heart."""
    heart = naive.dilated(np.any([labels.array != 0 for _, labels in atlases], axis=0), 4)
    heart = heart if heart.any() else ~heart
    pairs = [(naive.grey_levels(image.array, heart), labels.array) for image, labels in atlases]
    given = (naive.grey_levels(target.array, heart), pairs, options.search, options.patch)
    return naive.nonlocal_votes(*given, options.bandwidth, options.distance, **some)


def holds_whole_patches(tile):
    """Whether no patch of a tile is cut by an end of the lattice, nor any that it is compared with."""
    ends, (height, width) = tile.lattice[:4], tile.target.shape
    inside = np.array([0, height, 0, width // tile.lanes])
    return bool((ends[::2] <= inside[::2]).all() and (ends[1::2] >= inside[1::2]).all())


def compare(found, votes):
    """Same probabilities to 1e-5, and the same label except where the oracle's votes are tied."""
    for index, of_voxel in votes.items():
        total, best = sum(of_voxel.values()), max(of_voxel.values())
        assert of_voxel[int(found.labels.array[index])] / total == pytest.approx(
            best / total, abs=1e-5
        )
        assert found.confidence.array[index] == pytest.approx(best / total, abs=1e-5)


def wide_case(seed, *, low, shape=(24, 22, 4)):
    """A case whose labels lie in a small block from `low` on, and the voxels whose window meets it."""
    small_target, small = random_case(seed, n_atlases=2)
    rng, block = np.random.default_rng(seed), tuple(map(slice, low, np.add(low, SHAPE)))

    def widen(array, around):
        around[block] = array
        return around

    def image(of):
        around = rng.normal(40, 15, size=shape)
        return Volume(widen(of.array, around), of.voxel_to_world)

    atlases = [
        (image(grey), LabelMap(widen(m.array, np.zeros(shape, np.uint8)), m.voxel_to_world))
        for grey, m in small
    ]
    heart = np.any([labels.array != 0 for _, labels in atlases], axis=0)
    return image(small_target), atlases, ndimage.maximum_filter(heart, OPTIONS.search)


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
            dataclasses.replace(OPTIONS, distance="correlation", bandwidth=0.2),
        ],
        ids=[
            "mean",
            "sum",
            "sharp",
            "one-voxel patch",
            "no search",
            "wider than the lattice",
            "correlation",
        ],
    )
    def test_equals_the_literal_loop(self, options):
        target, atlases = random_case(1, n_atlases=2)
        found = fuse_labels(target, atlases, options=options)
        compare(found, oracle_votes(target, atlases, options))

    @few
    @given(seeds, st.integers(1, 3))
    def test_equals_the_literal_loop_for_any_seed(self, seed, n_atlases):
        target, atlases = random_case(seed, n_atlases=n_atlases, shape=(5, 4, 3))
        found = fuse_labels(target, atlases, options=OPTIONS)
        compare(found, oracle_votes(target, atlases, OPTIONS))

    @pytest.mark.parametrize("distance", ["mean", "correlation"])
    @pytest.mark.parametrize(
        ("low", "kinds"), [((9, 8, 0), {True}), ((1, 8, 0), {True, False})], ids=["inside", "edge"]
    )
    def test_equals_the_literal_loop_where_patches_are_whole(
        self, distance, low, kinds, monkeypatch
    ):
        """Far from the lattice's ends a correlation needs sums of products only; near them, all sums."""
        bandwidth = {"mean": 2000.0, "correlation": 0.2}[distance]
        options = dataclasses.replace(OPTIONS, distance=distance, bandwidth=bandwidth)
        target, atlases, reached = wide_case(27, low=low)
        tiles = []

        def watched(scene, box):
            tiles.append(cut_tile(scene, box))
            return tiles[-1]

        monkeypatch.setattr(patch_votes, "cut_tile", watched)
        monkeypatch.setattr(label_fusion, "_TILE", (4, 32))
        found = fuse_labels(target, atlases, options=options, threads=1)
        assert {holds_whole_patches(tile) for tile in tiles} == kinds
        if distance == "correlation":
            assert all((tile.totals.size > 3) == holds_whole_patches(tile) for tile in tiles)
        centres = [tuple(index) for index in np.argwhere(reached)[::2].tolist()]
        compare(found, oracle_votes(target, atlases, options, centres=centres))
        assert (found.labels.array[~reached] == 0).all()
        assert (found.confidence.array[~reached] == 1).all()

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
        compare(found, votes)

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
        compare(found, oracle_votes(target, [atlas], options))

    def test_no_voxel_outside_a_tile_is_read_or_voted_for(self):
        """A patch of one voxel leaves no rim around the search window: labels beyond the tile's ends,
        here an impossible one, must not be voted for.
        """
        rng = np.random.default_rng(3)
        grey, codes = (rng.integers(0, top, (2, *SHAPE)).astype(np.uint8) for top in (256, 3))
        scene = Scene(
            grey[0], grey, codes, np.ones(SHAPE, bool), (1, 1, 1), (0, 0), "mean", 10.0, 3
        )
        box = Box(0, SHAPE[0], 0, SHAPE[1], 0, SHAPE[2])
        tile = cut_tile(scene, box)
        expected = patch_votes._lows_and_votes(tile, 3)[1].ravel()
        guarded = np.full(tile.codes.size + 128, 250, np.uint8)
        guarded[64:-64] = tile.codes.ravel()
        tile = tile._replace(codes=guarded[64:-64].reshape(tile.codes.shape))
        votes = np.zeros(expected.size + 1024, np.float32)
        lows = np.full(expected.size // 4, 1 << 30, np.int32)
        limits = np.where(tile.active.ravel(), np.int32(2**31 - 1), np.int32(-1))
        patch_votes._nonlocal_kernel(tile, 4, lows, limits, votes)
        assert np.array_equal(votes, np.append(expected, np.zeros(1024, np.float32)))

    def test_a_correlation_has_the_same_bits_in_whole_and_in_cut_tiles(self, monkeypatch):
        """One tile for all cuts patches at the lattice's ends; of tiles of one column some cut none."""
        target, atlases, _ = wide_case(28, low=(2, 9, 0))
        options = dataclasses.replace(OPTIONS, distance="correlation", bandwidth=0.2)
        together = fuse_labels(target, atlases, options=options, threads=1)
        monkeypatch.setattr(label_fusion, "_TILE", (1, 1))
        split = fuse_labels(target, atlases, options=options, threads=1)
        np.testing.assert_array_equal(split.labels.array, together.labels.array)
        np.testing.assert_array_equal(split.confidence.array, together.confidence.array)

    def test_progress_counts_tiles(self, monkeypatch):
        monkeypatch.setattr(label_fusion, "_TILE", (3, 5))
        target, atlases = random_case(5)
        seen = []
        fuse_labels(target, atlases, options=OPTIONS, threads=1, progress=seen.append)
        assert seen == [Progress("fuse", n + 1, 2) for n in range(2)]

    def test_label_255_and_many_labels_are_names_like_any_other(self):
        target, atlases = random_case(15, labels=(0, 7, 99, 100, 101, 254, 255))
        compare(
            fuse_labels(target, atlases, options=OPTIONS), oracle_votes(target, atlases, OPTIONS)
        )

    def test_a_tiny_bandwidth_leaves_the_best_match_its_vote(self):
        target, atlases = random_case(16)
        options = dataclasses.replace(OPTIONS, bandwidth=2e-4)
        found = fuse_labels(target, atlases, options=options)
        assert (found.confidence.array > 0.3).all()


class TestDistances:
    def test_correlation_ignores_contrast_where_differences_do_not(self):
        target, atlases = random_case(23)
        options = dataclasses.replace(OPTIONS, distance="correlation", bandwidth=0.1)
        other = Volume(-2.0 * target.array, target.voxel_to_world)
        turned = [(Volume(-3.0 * image.array, image.voxel_to_world), m) for image, m in atlases]
        first = fuse_labels(target, atlases, options=options)
        second = fuse_labels(other, turned, options=options)
        same = first.labels.array == second.labels.array
        assert same.mean() > 0.95


class TestHarmonisation:
    def test_none_takes_values_as_grey_levels(self):
        target, atlases = random_case(24)
        shifted = [(Volume(image.array + 60, image.voxel_to_world), m) for image, m in atlases]
        options = dataclasses.replace(OPTIONS, harmonisation="none")
        first = fuse_labels(target, atlases, options=options)
        second = fuse_labels(target, shifted, options=options)
        assert not np.array_equal(first.confidence.array, second.confidence.array)

    def test_quantiles_undo_a_bent_grey_scale(self):
        rng = np.random.default_rng(25)
        target = rng.uniform(20, 200, size=(30, 30, 4)).astype(np.float32)
        bent = 3.0 * target**1.5
        heart = np.ones(target.shape, dtype=bool)
        grey, found = grey_levels(target, [bent], heart, harmonisation="quantiles")
        apart = np.abs(grey.astype(int) - found[0].astype(int))
        assert np.percentile(apart, 99) <= 3
        _, linear = grey_levels(target, [bent], heart)
        assert np.abs(grey.astype(int) - linear[0].astype(int)).mean() > 3 * apart.mean()

    def test_a_window_is_a_part_of_the_whole(self):
        target, atlases = random_case(26)
        arrays, heart = [image.array for image, _ in atlases], atlases[0][1].array != 0
        window = (slice(1, 4), slice(0, 3), slice(2, 4))
        whole = grey_levels(target.array, arrays, heart)
        part = grey_levels(target.array, arrays, heart, window=window)
        np.testing.assert_array_equal(part[0], whole[0][window])
        np.testing.assert_array_equal(part[1], whole[1][(slice(None), *window)])


@pytest.mark.parametrize("mode", MODES)
class TestEveryMode:
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
        assert clear.mean() > 0.3
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

    def test_probabilities_are_shares_of_the_votes(self, mode):
        target, atlases = random_case(17)
        options = dataclasses.replace(self.options(mode), probabilities=True)
        found = fuse_labels(target, atlases, options=options)
        present = {int(v) for _, labels in atlases for v in np.unique(labels.array)}
        assert set(found.probabilities) == present
        stacked = np.stack([found.probabilities[label].array for label in sorted(present)])
        np.testing.assert_allclose(stacked.sum(axis=0), 1, atol=1e-5)
        np.testing.assert_allclose(stacked.max(axis=0), found.confidence.array, atol=2e-6)

    @pytest.mark.parametrize("tile", [(1, 1), (2, 3), (100, 100)])
    def test_any_split_into_tiles_gives_the_same_bits(self, mode, tile, monkeypatch):
        target, atlases = random_case(18, shape=(9, 8, 4))
        options = dataclasses.replace(self.options(mode), probabilities=True)
        whole = fuse_labels(target, atlases, options=options, threads=1)
        monkeypatch.setattr(label_fusion, "_TILE", tile)
        split = fuse_labels(target, atlases, options=options, threads=3)
        np.testing.assert_array_equal(split.labels.array, whole.labels.array)
        np.testing.assert_array_equal(split.confidence.array, whole.confidence.array)
        for label, share in whole.probabilities.items():
            np.testing.assert_array_equal(split.probabilities[label].array, share.array)
        assert split.n_ties == whole.n_ties

    @light
    @given(seed=seeds)
    def test_a_copy_of_an_atlas_adds_to_its_labels(self, mode, seed):
        target, atlases = random_case(seed, n_atlases=2, shape=(5, 4, 2))
        options = dataclasses.replace(self.options(mode), search=(1, 1, 1), probabilities=True)
        shares = [
            fuse_labels(target, [*atlases, *[atlases[0]] * n], options=options).probabilities
            for n in range(3)
        ]
        own = atlases[0][1].array
        for label in np.unique(own):
            levels = [share[int(label)].array[own == label] for share in shares]
            assert (np.diff(levels, axis=0) >= -1e-6).all()
            assert np.mean(levels[2]) >= np.mean(levels[0]) - 1e-6

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

    @pytest.mark.parametrize("mode", MODES)
    def test_every_mode_returns_them_without_a_search(self, mode):
        target, atlases = random_case(19)
        options = dataclasses.replace(OPTIONS, mode=mode, search=(1, 1, 1))
        found = fuse_labels(target, [atlases[0]] * 3, options=options)
        np.testing.assert_array_equal(found.labels.array, atlases[0][1].array)
        np.testing.assert_allclose(found.confidence.array, 1, atol=1e-6)
        assert found.n_ties == 0

    def test_equal_votes_are_counted_as_ties_and_go_to_the_lowest(self):
        image = Volume(np.ones(SHAPE), np.eye(4))
        maps = [LabelMap(np.full(SHAPE, label), np.eye(4)) for label in (3, 2)]
        for mode in MODES:
            options = dataclasses.replace(OPTIONS, mode=mode)
            found = fuse_labels(image, [(image, m) for m in maps], options=options)
            assert (found.labels.array == 2).all()
            assert found.n_ties == np.prod(SHAPE)

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

    def test_more_labels_than_fit(self):
        every = LabelMap(np.arange(256).reshape(8, 8, 4), np.eye(4))
        self.refused("TOO_MANY_LABELS", fuse_labels, None, [(None, every)])

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
            {"mode": "median"},
            {"distance": "max"},
            {"bandwidth": 0.0},
            {"bandwidth": float("nan")},
            {"bandwidth": 1e-5},
            {"harmonisation": "magic"},
            {"patch": (183, 181, 1)},
        ],
    )
    def test_impossible_options(self, options):
        self.refused("BAD_OPTION", FusionOptions, **options)
