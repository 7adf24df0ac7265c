"""How a target is stored does not change its model."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import Phase, given, settings, strategies as st

from cardiacreg import (
    Affine,
    InvalidInputError,
    LabelMap,
    Landmarks,
    RefineOptions,
    Subject,
    Volume,
)
from cardiacreg.anatomy.landmarks import landmarks_from_labels
from cardiacreg.errors import kept_warnings
from cardiacreg.geometry import apply_matrix
from cardiacreg.metrics.agreement import slice_agreement
from cardiacreg.phantoms.acquisition import simulate_low_resolution
from cardiacreg.phantoms.hearts import sample_heart
from cardiacreg.phantoms.toy_heart import make_toy_heart
from cardiacreg.refinement._refine import refine
from cardiacreg.refinement.canonical_axes import find_canonical_axes
from cardiacreg.transforms.ffd import FFD
from cardiacreg.transforms.ffd_chain import FFDChain
from tests.helpers.equivalent_inputs import (
    cropped,
    exchanged,
    mirrored,
    moved,
    padded,
    rotated_worlds,
    translation,
)
from tests.helpers.tiny_bank import (
    SPACING_MM,
    expect_tiny_findings,
    tiny_atlases,
    tiny_options,
    tiny_target,
    with_image,
)
from tests.helpers.turned_hearts import dice_in_world, few_atlases, rotation_matrix

pytestmark = expect_tiny_findings

QUICK = replace(RefineOptions.fast(), n_atlases=2, affine_candidates=2)


EXACT = {
    "translated": lambda labels: moved(labels, translation()),
    "padded": lambda labels: padded(labels, 7),
    "cropped": cropped,
    "mirrored i": lambda labels: mirrored(labels, 0),
    "mirrored j": lambda labels: mirrored(labels, 1),
    "mirrored k": lambda labels: mirrored(labels, 2),
    "exchanged i, j": lambda labels: exchanged(labels, (1, 0, 2)),
    "slices first": lambda labels: exchanged(labels, (2, 0, 1)),
    "slices second": lambda labels: exchanged(mirrored(labels, 1), (0, 2, 1)),
}


def with_empty_slices(labels):
    """One empty slice at each end: a stack without them says less about where the heart ends."""
    held = np.flatnonzero(labels.array.any(axis=(0, 1)))
    matrix = np.array(labels.voxel_to_world)
    matrix[:3, 3] += matrix[:3, 2] * (held[0] - 1)
    array = np.pad(labels.array[:, :, held[0] : held[-1] + 1], ((0, 0), (0, 0), (1, 1)))
    return LabelMap(array, matrix)


@pytest.fixture(scope="module", params=[(10_021, "ED"), (10_031, "ES"), (10_025, "ED")])
def heart(request):
    seed, phase = request.param
    scan = simulate_low_resolution(sample_heart(seed, group="healthy", phase=phase), seed=seed)
    labels = with_empty_slices(scan.subject.labels)
    return labels, refined(labels)


def refined(labels):
    with kept_warnings():
        return refine(
            labels, atlases=few_atlases(3), options=QUICK, spacing_mm=(2, 2, 3), threads=1
        )


def canonical_bits(result):
    """The model's voxels in an order that its axes in the world decide, and numbers that are the same."""
    subject = Subject(result.labels)
    frame = find_canonical_axes(subject, all_slices=True)
    return frame.subject(subject).labels.array


@pytest.mark.parametrize("way", EXACT)
def test_equal_bits_however_a_heart_is_stored(heart, way):
    labels, expected = heart
    stored = EXACT[way](labels)
    found = refined(stored)
    np.testing.assert_array_equal(canonical_bits(found), canonical_bits(expected))
    assert found.agreement == expected.agreement and found.volumes == expected.volumes
    assert found.orientation == expected.orientation
    assert sorted(np.abs(found.slice_shifts_mm).ravel())[-8:] == sorted(
        np.abs(expected.slice_shifts_mm).ravel()
    )[-8:]  # fmt: skip
    back = translation() if way == "translated" else np.eye(4)
    np.testing.assert_allclose(
        found.landmarks.points_mm,
        apply_matrix(back, expected.landmarks.points_mm),
        atol=1e-6,
    )
    assert dice_in_world(moved(found.labels, np.linalg.inv(back)), expected.labels) == 1


def test_equal_bits_in_a_rotated_world(heart):
    """The header's part of the evidence changes, and with it how sure the orientation is."""
    labels, expected = heart
    turn = rotation_matrix((10, 20, -30))
    found = refined(moved(labels, turn))
    same_model_elsewhere(found, expected, turn, atol=1e-9)


def same_model_elsewhere(found, expected, world, atol):
    np.testing.assert_array_equal(found.labels.array, expected.labels.array)
    np.testing.assert_array_equal(found.confidence.array, expected.confidence.array)
    np.testing.assert_array_equal(found.slice_shifts_mm, expected.slice_shifts_mm)
    assert found.agreement == expected.agreement and found.volumes == expected.volumes
    assert found.orientation.name == expected.orientation.name
    np.testing.assert_allclose(
        found.labels.voxel_to_world, world @ expected.labels.voxel_to_world, atol=atol
    )
    np.testing.assert_allclose(
        found.landmarks.points_mm, apply_matrix(world, expected.landmarks.points_mm), atol=atol
    )


@pytest.fixture(scope="module")
def toys():
    """Toy hearts: a target with an image and spacings that are no binary fractions, and atlases."""
    labels, atlases = toy_labels(0.95), [make_toy_heart(size=s) for s in (0.85, 0.9, 1.0)]
    image = with_image(labels).image
    points = landmarks_from_labels(labels).points_mm + 0.123456789

    @cache
    def at_home(with_points, shown):
        return refined_toy(
            labels, image if shown else None, points if with_points else None, atlases
        )

    return labels, image, points, atlases, at_home


def toy_labels(size):
    labels = make_toy_heart(size=size).labels
    scale = np.diag([1.06719, 1.1, 1.06666, 1.0])
    return LabelMap(labels.array, scale @ labels.voxel_to_world)


def refined_toy(labels, image, points, atlases):
    options = RefineOptions(n_atlases=2, affine_candidates=2, orientation="as-stored")
    with kept_warnings():
        return refine(
            labels, image=image, landmarks=points, atlases=atlases, spacing_mm=SPACING_MM,
            options=options, threads=1,
        )  # fmt: skip


@settings(max_examples=6, deadline=None, database=None, phases=[Phase.generate])
@given(rotated_worlds(), st.booleans(), st.booleans())
def test_any_rotation_gives_equal_bits(toys, given_world, with_points, shown):
    (world, precision), (labels, image, points, atlases, at_home) = given_world, toys
    # A header in single precision moves the labels by more than landmarks are rounded to.
    with_points = with_points and precision is np.float64
    expected = at_home(with_points, shown)
    matrix = (world @ labels.voxel_to_world).astype(precision)
    found = refined_toy(
        LabelMap(labels.array, matrix),
        Volume(image.array, matrix) if shown else None,
        apply_matrix(world, points) if with_points else None,
        atlases,
    )
    same_model_elsewhere(found, expected, world, atol=1e-8 if precision is np.float64 else 1e-2)


def test_rounded_spacings_forget_noise_and_keep_headers():
    for spacing in (1.3671875, 1.171875, 1.36719, 1.517865, 1.0416667, 1.8, 0.8333333, 9.6, 10.0):
        held = float(np.float32(spacing))
        kept = canonical_spacing([held, 1.5, 8.0])
        assert abs(kept[0] - spacing) < 6e-6
        for noise in (1e-15, 1e-7, -1e-7):
            np.testing.assert_array_equal(canonical_spacing([held * (1 + noise), 1.5, 8.0]), kept)
    for spacing in (1.36719, 1.44531, 1.8, 9.6, 1.171875):
        assert canonical_spacing([np.float32(spacing), 1.5, 8.0])[0] == np.float32(spacing)


def canonical_spacing(spacing_mm):
    array = np.zeros((6, 6, 4), np.uint8)
    array[1:3, 2:4, 1:3], array[3:5, 2:4, 1:3] = 4, 1
    return find_canonical_axes(Subject(LabelMap(array, np.diag([*spacing_mm, 1.0])))).spacing_mm


def test_without_a_right_ventricle_the_world_is_evidence():
    """The patient's right-anterior says where it would be: the directions of the world stay."""
    labels = toy_labels(1.0)
    left = LabelMap(np.where(labels.array > 2, 0, labels.array), labels.voxel_to_world)
    frame = find_canonical_axes(Subject(moved(left, rotation_matrix((0, 0, 40)))))
    assert not frame.turned
    local = frame.subject(Subject(moved(left, rotation_matrix((0, 0, 40)))))
    directions = local.labels.voxel_to_world[:3, :3] / local.labels.spacing_mm
    assert np.abs(directions - np.diag(np.diag(directions))).max() > 0.5
    np.testing.assert_array_equal(frame.canonical_to_world[:3, :3], np.eye(3))


def test_sheared_targets_are_refused():
    labels = toy_labels(1.0)
    matrix = np.array(labels.voxel_to_world)
    matrix[0, 1] += 0.3
    with pytest.raises(InvalidInputError) as caught:
        find_canonical_axes(Subject(LabelMap(labels.array, matrix)))
    assert caught.value.code == "SHEARED_TARGET"


def test_transforms_come_back_to_the_stored_world():
    rng = np.random.default_rng(3)
    stored = Subject(moved(toy_labels(1.0), rotation_matrix((30, -50, 70))))
    frame = find_canonical_axes(stored)
    lattice = np.diag([20.0, 20.0, 25.0, 1.0])
    affine = Affine(np.vstack([np.eye(4)[:3] + 0.01, [0, 0, 0, 1]]))
    local = FFD(affine, rng.normal(size=(6, 5, 4, 3)), lattice)
    first = FFD(Affine.identity(), rng.normal(size=(5, 5, 4, 3)), lattice)
    points = rng.uniform(20, 70, size=(30, 3))
    for each in (local, FFDChain((first, local)), FFDChain((first, first, local))):
        back = frame.transform_back(each)
        assert type(back) is type(each)
        np.testing.assert_allclose(
            back.apply(apply_matrix(frame.canonical_to_world, points)),
            each.apply(points),
            atol=1e-9,
        )


@pytest.mark.parametrize("way", ["mirrored i", "mirrored j", "mirrored k", "exchanged i, j"])
def test_what_comes_back_belongs_to_the_stored_slices(way):
    """Agreement computed anew on the stored stack, by the shifts that came back, is the result's own."""
    target = tiny_target()
    labels, image = (EXACT[way](each) for each in (target.labels, target.image))
    result = refine(
        labels, image=image, atlases=tiny_atlases(), spacing_mm=SPACING_MM, options=tiny_options(),
        threads=1,
    )  # fmt: skip
    assert result.target.labels is labels
    assert result.slice_shifts_mm.shape == (labels.shape[2], 2)
    again = slice_agreement(labels, result.labels, result.slice_shifts_mm)
    for name, dice in result.agreement.items():
        assert again[name] == pytest.approx(dice, abs=0.01), name
    linear = result.labels.voxel_to_world[:3, :3] / result.labels.spacing_mm
    np.testing.assert_allclose(linear, labels.voxel_to_world[:3, :3] / labels.spacing_mm, atol=1e-9)
    np.testing.assert_allclose(
        result.labels.spacing_mm, SPACING_MM, atol=1e-9
    )  # along the stored axes


@pytest.mark.parametrize("way", ["padded", "mirrored k"])
def test_empty_slices_are_counted_as_stored(way):
    labels = EXACT[way](with_empty_slices(tiny_target().labels))
    result = refine(
        labels, atlases=tiny_atlases(), spacing_mm=SPACING_MM, options=tiny_options(), threads=1
    )
    slices = "8 slices" if way == "padded" else "1 slice"
    assert [end.reason for end in result.ends] == [f"{slices} without labels beyond them"] * 2


def test_the_frame_keeps_the_world():
    target = tiny_target()
    points = landmarks_from_labels(target.labels)
    stored = Subject(
        mirrored(exchanged(target.labels, (1, 0, 2)), 2),
        mirrored(exchanged(target.image, (1, 0, 2)), 2),
        Landmarks(points.points_mm),
    )
    frame = find_canonical_axes(stored)
    local = frame.subject(stored)
    for label in (1, 4):
        at_home, away = (
            apply_matrix(each.voxel_to_world, np.argwhere(each.array == label).mean(axis=0))
            for each in (local.labels, stored.labels)
        )
        np.testing.assert_allclose(apply_matrix(frame.canonical_to_world, at_home), away, atol=1e-9)
    back = frame.landmarks_back(local.landmarks)
    np.testing.assert_allclose(back.points_mm, points.points_mm, atol=1e-6)
    assert isinstance(local.image, Volume) and local.image.shape == local.labels.shape
    np.testing.assert_array_equal(local.labels.voxel_to_world[:3, 3], 0)
    assert np.linalg.det(local.labels.voxel_to_world[:3, :3]) > 0
    np.testing.assert_array_equal(frame.spacing((1, 2, 3)), np.array([1, 2, 3])[list(frame.axes)])
