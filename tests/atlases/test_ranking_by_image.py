import numpy as np
import pytest
from hypothesis import given

from cardiacreg import Affine, InputWarning, InvalidInputError, LabelMap, Subject, Volume
from cardiacreg.atlases.ranking_by_image import rank_atlases_by_image
from cardiacreg.compute.threads import Progress
from tests.helpers import naive
from tests.helpers.strategies import (
    blobs,
    light,
    oblique_matrix,
    random_labels,
    seeds,
    well_conditioned_matrix,
)

SHAPE, SPACING_MM = (14, 12, 6), (4.0, 5.0, 8.0)
IDENTITY = Affine.identity()


def smooth_image(rng, shape=SHAPE, matrix=None):
    """Smooth waves and noise, so that levels are neither constant nor all different."""
    waves = sum(
        np.cos(np.arange(n) * rng.uniform(0.2, 0.9)).reshape(np.roll([-1, 1, 1], axis))
        for axis, n in enumerate(shape)
    )
    return Volume(
        100 + 40 * waves + rng.normal(0, 8, shape), np.eye(4) if matrix is None else matrix
    )


def heart(rng):
    """A target with labels in some slices, and an image on another lattice that covers part of it."""
    array = np.zeros(SHAPE, dtype=np.uint8)
    array[5:9, 4:8, 1:5] = blobs(rng, (4, 4, 4))
    array[6, 5, 1:5] = 1
    array[:, :, 3] = 0
    matrix = oblique_matrix(rng, SPACING_MM, centre_of=SHAPE)
    return Subject(LabelMap(array, matrix), smooth_image(rng, (13, 12, 6), matrix))


def bank(rng, count):
    """Atlases whose images end halfway along i."""
    atlases = []
    for _ in range(count):
        matrix = oblique_matrix(rng, SPACING_MM, centre_of=(12, 11, 8))
        image = smooth_image(rng, (7, 11, 8), matrix)
        atlases.append(Subject(LabelMap(blobs(rng), matrix), image))
    return atlases, [Affine(well_conditioned_matrix(rng)) for _ in range(count)]


def oracle(target, atlas, affine, levels=32):
    labels = target.labels
    voxels = naive.voxels_near_labels(labels.array, labels.spacing_mm, 10.0)
    images = [
        (target.image.array, target.image.voxel_to_world, np.eye(4)),
        (atlas.image.array, atlas.image.voxel_to_world, affine.matrix),
    ]
    counts = naive.image_histogram(voxels, labels.voxel_to_world, images, levels)
    return naive.normalized_mutual_information(counts)


def refused(*arguments, **keywords):
    with pytest.raises(InvalidInputError) as caught:
        rank_atlases_by_image(*arguments, **keywords)
    return caught.value


class TestRanking:
    @light
    @given(seeds)
    def test_equals_the_oracle(self, seed):
        rng = np.random.default_rng(seed)
        target, (atlases, transforms) = heart(rng), bank(rng, 4)
        expected = [oracle(target, a, t, 8) for a, t in zip(atlases, transforms, strict=True)]
        ranked = rank_atlases_by_image(target, atlases, transforms, levels=8)
        np.testing.assert_allclose(
            [r.nmi for r in ranked], sorted(expected, reverse=True), rtol=1e-12
        )
        for each in ranked:
            assert each.nmi == pytest.approx(expected[each.index], rel=1e-12)
            assert each.target_to_atlas is transforms[each.index]

    def test_some_atlases_end_inside_the_heart(self):
        """What the oracle is compared on holds voxels outside the target's and the atlas's image."""
        rng = np.random.default_rng(1)
        target, (atlases, transforms) = heart(rng), bank(rng, 3)
        voxels = naive.voxels_near_labels(target.labels.array, SPACING_MM, 10.0)
        images = [
            (target.image.array, target.image.voxel_to_world, np.eye(4)),
            (atlases[0].image.array, atlases[0].image.voxel_to_world, transforms[0].matrix),
        ]
        counts = naive.image_histogram(voxels, target.labels.voxel_to_world, images, 8)
        assert any(pair[1] is None for pair in counts)
        assert any(pair[1] is not None for pair in counts)

    def test_the_own_image_is_first_whatever_its_labels(self):
        rng = np.random.default_rng(2)
        target, (atlases, transforms) = heart(rng), bank(rng, 3)
        scrambled = LabelMap(random_labels(rng, SHAPE), target.labels.voxel_to_world)
        hearts = [*atlases, Subject(scrambled, target.image)]
        [first, second, *_] = rank_atlases_by_image(target, hearts, [*transforms, IDENTITY])
        assert first.index == 3 and first.nmi == pytest.approx(2)
        assert second.nmi < 1.9

    def test_labels_that_fit_do_not_help_another_image(self):
        rng = np.random.default_rng(3)
        target = heart(rng)
        other = Subject(target.labels, smooth_image(rng, SHAPE, target.labels.voxel_to_world))
        same = Subject(LabelMap(random_labels(rng, SHAPE), np.eye(4)), target.image)
        ranked = rank_atlases_by_image(target, [other, same], [IDENTITY] * 2)
        assert [r.index for r in ranked] == [1, 0]

    def test_gain_and_offset_of_a_scanner_change_nothing(self):
        rng = np.random.default_rng(4)
        target, ([atlas], transforms) = heart(rng), bank(rng, 1)
        scaled = Volume(8 * atlas.image.array + 64, atlas.image.voxel_to_world)
        ranked = rank_atlases_by_image(
            target, [atlas, Subject(atlas.labels, scaled)], [*transforms, *transforms]
        )
        assert ranked[0].nmi == pytest.approx(ranked[1].nmi, rel=1e-3)

    def test_ties_keep_the_order_of_the_bank(self):
        rng = np.random.default_rng(5)
        target, ([a, b], [s, t]) = heart(rng), bank(rng, 2)
        ranked = rank_atlases_by_image(target, [a, b, a, b], [s, t, s, t])
        assert [r.index for r in ranked] in ([0, 2, 1, 3], [1, 3, 0, 2])

    def test_any_number_of_threads_gives_the_same_bits(self):
        rng = np.random.default_rng(6)
        target, (atlases, transforms) = heart(rng), bank(rng, 6)
        runs = [rank_atlases_by_image(target, atlases, transforms, threads=n) for n in (1, 2, 5)]
        assert len({tuple((r.index, r.nmi) for r in found) for found in runs}) == 1

    def test_progress_counts_every_atlas(self):
        rng = np.random.default_rng(7)
        seen = []
        rank_atlases_by_image(heart(rng), *bank(rng, 2), threads=1, progress=seen.append)
        assert seen == [Progress("select", n, 2) for n in (1, 2)]

    def test_a_constant_or_far_image_says_nothing(self):
        rng = np.random.default_rng(8)
        target = heart(rng)
        matrix = target.labels.voxel_to_world
        flat = Subject(target.labels, Volume(np.full(SHAPE, 7.0), matrix))
        away = np.array(matrix)
        away[:3, 3] += 1e4
        far = Subject(target.labels, Volume(target.image.array, away))
        for each in rank_atlases_by_image(target, [flat, far], [IDENTITY] * 2):
            assert each.nmi == pytest.approx(1)


class TestRefusals:
    def test_a_target_needs_an_image(self):
        rng = np.random.default_rng(9)
        error = refused(Subject(heart(rng).labels), *bank(rng, 1))
        assert error.code == "NO_IMAGE" and "target" in str(error)

    def test_a_bank_needs_an_image(self):
        rng = np.random.default_rng(10)
        target, (atlases, transforms) = heart(rng), bank(rng, 2)
        bare = [Subject(atlas.labels) for atlas in atlases]
        error = refused(target, bare, transforms)
        assert error.code == "NO_IMAGE" and "none of 2 atlases" in str(error)
        with pytest.warns(InputWarning, match="1 of 2 atlases have no image"):
            ranked = rank_atlases_by_image(target, [bare[0], atlases[1]], transforms)
        assert [r.index for r in ranked] == [1]

    def test_an_image_of_somewhere_else_is_refused(self):
        rng = np.random.default_rng(11)
        target = heart(rng)
        away = np.array(target.image.voxel_to_world)
        away[:3, 3] += 1e4
        lost = Subject(target.labels, Volume(target.image.array, away))
        assert refused(lost, *bank(rng, 1)).code == "NO_OVERLAP"

    @pytest.mark.parametrize("levels", [1, 256])
    def test_levels_have_limits(self, levels):
        rng = np.random.default_rng(12)
        assert refused(heart(rng), *bank(rng, 1), levels=levels).code == "BAD_OPTION"

    @pytest.mark.parametrize(("atlases", "transforms"), [(0, 0), (2, 1)])
    def test_a_bank_needs_atlases_and_one_transform_each(self, atlases, transforms):
        rng = np.random.default_rng(13)
        hearts, affines = bank(rng, 2)
        error = refused(heart(rng), hearts[:atlases], affines[:transforms])
        assert error.code == "EMPTY_BANK"
