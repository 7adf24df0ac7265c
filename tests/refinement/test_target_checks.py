import warnings

import numpy as np
import pytest
from hypothesis import given, strategies as st

from cardiacreg import InputWarning, InvalidInputError, LabelMap, Landmarks, Subject, Volume
from cardiacreg.io.nifti import read_labels, read_volume
from cardiacreg.phantoms.toy_heart import make_toy_heart
from cardiacreg.refinement.target import gather_target
from cardiacreg.refinement.target_checks import (
    check_atlases,
    check_image,
    check_labels,
    check_landmarks,
    check_target,
    place_image,
)
from tests.helpers.small_hearts import data_folder, matrix, relabelled, small_heart


def refused(code, function, *arguments):
    with pytest.raises(InvalidInputError) as error:
        function(*arguments)
    assert error.value.code == code, str(error.value)
    return str(error.value)


def image_of(labels, seed=0):
    array = np.random.default_rng(seed).normal(size=labels.shape)
    return Volume(array, labels.voxel_to_world)


def moved(grid, shift_voxels):
    """The same array, its lattice shifted by voxels."""
    shift = np.eye(4)
    shift[:3, 3] = shift_voxels
    return type(grid)(grid.array, grid.voxel_to_world @ shift)


# ---- labels


def test_a_good_target_passes_without_a_word():
    heart = small_heart(rv_wall=True)
    image = image_of(heart)
    found = check_target(heart, image)
    assert found.missing == () and found.gap_slices == () and found.image is image
    assert check_target(heart, None).image is None


def test_an_rv_wall_is_optional():
    assert check_labels(small_heart()).missing == ()


def test_an_empty_map_is_refused():
    assert "frame" in refused("EMPTY_LABELS", check_labels, LabelMap(np.zeros((9, 9, 9)), matrix()))


def test_labels_that_are_not_canonical_are_refused():
    assert "[7]" in refused("UNEXPECTED_LABEL", check_labels, relabelled(small_heart(), {4: 7}))


@pytest.mark.parametrize("n_slices", [1, 2])
def test_fewer_than_three_slices_are_refused(n_slices):
    heart = small_heart(shape=(40, 40, n_slices + 2))
    assert f"{n_slices} of" in refused("TOO_FEW_SLICES", check_labels, heart)


@pytest.mark.parametrize("factor", [1e-3, 0.1, 5, 10, 1000])
def test_a_heart_of_another_size_is_refused_also_in_memory(factor):
    heart = small_heart()
    scaled = LabelMap(heart.array, np.diag([factor] * 3 + [1.0]) @ heart.voxel_to_world)
    message = refused("IMPLAUSIBLE_SIZE", check_labels, scaled)
    assert "ml over 6 slices" in message and "size of a heart" in message
    units = {1e-3: "In metres", 0.1: "In centimetres", 1000: "In micrometres"}
    assert ("would be a heart" in message) == (factor in units)
    assert units.get(factor, "") in message
    with pytest.raises(InvalidInputError) as error:
        gather_target(scaled, None, None, None, None)
    assert error.value.code in ("IMPLAUSIBLE_SIZE", "NOT_SHORT_AXIS")


@pytest.mark.parametrize("spacing", [(1.5, 1.5, 60), (1.5, 1.5, 0.2), (0.1, 0.1, 8), (20, 20, 8)])
def test_one_absurd_spacing_is_refused(spacing):
    refused("IMPLAUSIBLE_SIZE", check_labels, small_heart(voxel_to_world=matrix(spacing)))


def test_without_an_lv_all_labels_are_measured():
    rv = relabelled(small_heart(), {1: 0, 2: 0})
    with pytest.warns(InputWarning, match="missing"):
        check_labels(rv)
    tiny = LabelMap(rv.array, matrix((0.02, 0.02, 0.1)))
    assert "the labels fill" in refused("IMPLAUSIBLE_SIZE", check_labels, tiny)


def test_three_slices_are_enough():
    check_labels(small_heart(shape=(40, 40, 5)))


@pytest.mark.parametrize(("label", "name"), [(1, "LV cavity"), (2, "LV wall"), (4, "RV cavity")])
def test_a_missing_structure_is_listed(label, name):
    with pytest.warns(InputWarning, match=f"{name} missing"):
        found = check_labels(relabelled(small_heart(), {label: 0}))
    assert found.missing == (label,)


def test_a_structure_of_a_few_voxels_is_doubted():
    array = relabelled(small_heart(), {4: 0}).array.copy()
    array[2, 2, 3:6] = 4
    with pytest.warns(InputWarning, match="RV cavity of fewer than 10"):
        check_labels(LabelMap(array, matrix()))


def test_gap_slices_are_listed():
    array = small_heart(shape=(40, 40, 10)).array.copy()
    array[:, :, [3, 5, 6]] = 0
    with pytest.warns(InputWarning, match=r"\[3, 5, 6\]"):
        found = check_labels(LabelMap(array, matrix()))
    assert found.gap_slices == (3, 5, 6)


# ---- image


@pytest.mark.parametrize("shift_mm", [0.0, 5e-4])
def test_lattices_that_agree_are_left_alone(shift_mm):
    heart = small_heart()
    image = moved(image_of(heart), [shift_mm / 1.5, 0, 0])
    assert check_image(image, heart) is image


@pytest.mark.parametrize("shift", [[0.01, 0, 0], [0, -0.49, 0], [0, 0, 0.49]])
def test_up_to_half_a_voxel_the_labels_matrix_is_used(shift):
    heart = small_heart()
    image = moved(image_of(heart), shift)
    with pytest.warns(InputWarning, match="that of the labels is used"):
        placed = check_image(image, heart)
    np.testing.assert_array_equal(placed.array, image.array)
    np.testing.assert_array_equal(placed.voxel_to_world, heart.voxel_to_world)


@pytest.mark.parametrize("shift", [[0.51, 0, 0], [0, 0, -1], [100, 0, 0]])
def test_the_same_shape_elsewhere_is_refused(shift):
    heart = small_heart()
    message = refused("LATTICE_MISMATCH", check_image, moved(image_of(heart), shift), heart)
    assert "half a voxel" in message


def test_the_same_shape_with_another_spacing_is_refused():
    heart = small_heart()
    image = Volume(image_of(heart).array, matrix((1.25, 1.25, 8)))
    refused("LATTICE_MISMATCH", check_image, image, heart)


@pytest.mark.parametrize("axes", [(0,), (1,), (0, 1), (2,)])
@pytest.mark.parametrize("exchanged", [False, True])
def test_the_same_lattice_in_another_axis_order_is_put_in_order(axes, exchanged):
    heart = small_heart()
    image = image_of(heart)
    turn = np.eye(4)
    for axis in axes:
        turn[axis, axis] = -1
        turn[axis, 3] = heart.shape[axis] - 1
    array = np.flip(image.array, axes)
    if exchanged:
        array, turn = np.swapaxes(array, 0, 1), turn[:, [1, 0, 2, 3]]
    placed = check_image(Volume(array, image.voxel_to_world @ turn), heart)
    np.testing.assert_array_equal(placed.array, image.array)
    np.testing.assert_array_equal(placed.voxel_to_world, heart.voxel_to_world)


@given(st.tuples(*[st.integers(0, 6)] * 6))
def test_a_cropped_or_padded_image_is_placed_exactly(margins):
    heart = small_heart(shape=(30, 32, 10))
    image = image_of(heart)
    i0, i1, j0, j1, k0, k1 = margins
    k0, k1 = k0 // 3, k1 // 3
    cropped = image.array[i0 : 30 - i1, j0 : 32 - j1, k0 : 10 - k1]
    offset = np.eye(4)
    offset[:3, 3] = (i0, j0, k0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        placed = place_image(Volume(cropped, image.voxel_to_world @ offset), heart)
    expected = np.zeros_like(image.array)
    expected[i0 : 30 - i1, j0 : 32 - j1, k0 : 10 - k1] = cropped
    np.testing.assert_array_equal(placed.array, expected)


def test_another_spacing_is_interpolated_linearly():
    heart = small_heart()
    fine = np.eye(4)
    fine[:3, :3] = np.diag([0.5, 0.5, 0.25])
    shape = (80, 80, 32)
    i, j, k = np.meshgrid(*map(np.arange, shape), indexing="ij")
    image = Volume(2.0 * i - j + 0.5 * k, heart.voxel_to_world @ fine)
    placed = check_image(image, heart)
    i, j, k = np.meshgrid(*map(np.arange, heart.shape), indexing="ij")
    expected = 4.0 * i - 2 * j + 2 * k
    inside = (slice(0, 39), slice(0, 39), slice(0, 8))
    np.testing.assert_allclose(placed.array[inside], expected[inside], atol=1e-3)


def test_an_image_that_covers_a_part_says_how_much():
    heart = small_heart()
    image = image_of(heart)
    half = Volume(image.array[:, :, :4], image.voxel_to_world)
    with pytest.warns(InputWarning, match="only 50.0%"):
        placed = check_image(half, heart)
    assert not placed.array[:, :, 4:].any()


def test_an_image_of_somewhere_else_or_another_view_is_refused():
    heart = small_heart()
    image = image_of(small_heart(shape=(20, 20, 6)))
    message = refused("LATTICE_MISMATCH", check_image, moved(image, [100, 0, 0]), heart)
    assert "none of the labelled voxels" in message
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]]
    tilted = Volume(image.array, turn @ image.voxel_to_world)
    assert "not parallel" in refused("LATTICE_MISMATCH", check_image, tilted, heart)


@pytest.mark.parametrize("outside", [0.0, 100.0])
def test_an_image_that_is_constant_at_the_heart_is_left_aside(outside):
    heart = small_heart()
    array = np.full(heart.shape, 7.0)
    array[0, 0, 0] += outside
    with pytest.warns(InputWarning, match="constant"):
        assert check_image(Volume(array, heart.voxel_to_world), heart) is None


# ---- landmarks


def heart_points(labels, n=6):
    voxels = np.argwhere(labels.array == 1)[:: len(np.argwhere(labels.array == 1)) // n][:n]
    return Landmarks.from_voxels(voxels, labels.voxel_to_world)


FAR = matrix(origin_mm=(-300.0, 250.0, -500.0))


def test_landmarks_at_the_heart_pass():
    for heart in (small_heart(), small_heart(voxel_to_world=FAR)):
        check_landmarks(heart_points(heart), heart)


def test_lps_landmarks_are_recognised():
    heart = small_heart(voxel_to_world=FAR)
    flipped = Landmarks(heart_points(heart).points_mm * (-1, -1, 1))
    assert "seem to be LPS" in refused("LANDMARKS_OUTSIDE", check_landmarks, flipped, heart)


def test_voxel_landmarks_are_recognised():
    heart = small_heart(voxel_to_world=FAR)
    voxels = Landmarks(np.argwhere(heart.array == 1)[:6])
    message = refused("LANDMARKS_OUTSIDE", check_landmarks, voxels, heart)
    assert "Landmarks.from_voxels" in message


def test_landmarks_of_somewhere_else_name_the_worst():
    heart = small_heart()
    points = heart_points(heart).points_mm.copy()
    points[4, 2] += 400
    message = refused("LANDMARKS_OUTSIDE", check_landmarks, Landmarks(points), heart)
    assert "'apex'" in message and "of this subject" in message


@pytest.mark.parametrize(("distance_mm", "passes"), [(59, True), (61, False)])
def test_the_limit_is_in_mm_from_the_labels(distance_mm, passes):
    heart = small_heart()
    last = np.argwhere(heart.array).max(axis=0)
    points = Landmarks.from_voxels([last], heart.voxel_to_world).points_mm + [0, 0, distance_mm]
    if passes:
        check_landmarks(Landmarks(points), heart)
    else:
        refused("LANDMARKS_OUTSIDE", check_landmarks, Landmarks(points), heart)


# ---- atlases


def bank(*walls, **options):
    return [Subject(small_heart(wall_voxels=wall, **options), name=f"w{wall}") for wall in walls]


def test_a_good_bank_is_used_whole():
    pool = check_atlases(bank(2, 3, 4), small_heart(wall_voxels=5), 2)
    assert pool.indices == (0, 1, 2) and pool.n_atlases == 2


def test_an_empty_bank_is_refused():
    refused("EMPTY_BANK", check_atlases, [], small_heart(), 5)


def test_the_target_itself_is_left_out_however_it_is_cropped_and_placed():
    target = small_heart()
    cropped = LabelMap(target.array[3:, :, 1:], FAR)
    with pytest.warns(InputWarning, match="number 1 is the target"):
        pool = check_atlases([*bank(2), Subject(cropped), *bank(3)], target, 2)
    assert pool.indices == (0, 2)
    assert check_atlases([*bank(2), Subject(cropped)], None, 2).indices == (0, 1)


def test_a_bank_of_nothing_but_the_target_is_refused():
    with pytest.warns(InputWarning, match="is the target"):
        refused("EMPTY_BANK", check_atlases, bank(4), small_heart(), 1)


def test_the_same_array_at_another_spacing_is_another_heart():
    larger = small_heart(voxel_to_world=matrix((2, 2, 8)))
    assert check_atlases([Subject(larger)], small_heart(), 1).indices == (0,)


def test_duplicates_are_used_once():
    with pytest.warns(InputWarning, match="number 2, 3 repeat"):
        pool = check_atlases(bank(2, 3, 2, 3, 5), None, 3)
    assert pool.indices == (0, 1, 4)


def test_too_few_atlases_are_all_used():
    with pytest.warns(InputWarning, match="5 asked for, 2 there"):
        assert check_atlases(bank(2, 3), None, 5).n_atlases == 2


def test_an_atlas_with_other_labels_is_named():
    odd = Subject(relabelled(small_heart(), {4: 5}), name="odd one")
    message = refused("UNEXPECTED_LABEL", check_atlases, [*bank(2), odd], None, 1)
    assert "atlas 1 (odd one)" in message


def test_an_empty_atlas_and_something_else_are_named():
    empty = Subject(LabelMap(np.zeros((4, 4, 4)), matrix()))
    assert "atlas 0" in refused("EMPTY_LABELS", check_atlases, [empty], None, 1)
    assert "atlas 0: is a str" in refused("BAD_TYPE", check_atlases, ["a.nii"], None, 1)


def test_a_bank_in_which_only_some_have_an_rv_wall_is_doubted():
    mixed = [*bank(2), *bank(3, rv_wall=True)]
    with pytest.warns(InputWarning, match="number 0 .*no RV wall"):
        check_atlases(mixed, None, 1)


# ---- real data


@pytest.mark.parametrize("case", "ABCDEFG")
def test_real_images_on_another_lattice_are_placed_exactly(case):
    folder = data_folder("autofd") / case
    labels, image = read_labels(folder / "labels.nii.gz"), read_volume(folder / "image.nii.gz")
    found = check_target(labels, image)
    assert found.missing == () and found.gap_slices == ()
    np.testing.assert_array_equal(found.image.array[:, :, 3:-3], image.array)
    assert not found.image.array[:, :, :3].any() and not found.image.array[:, :, -3:].any()


def test_one_of_segmentation_and_image_may_have_a_single_frame():
    heart = make_toy_heart()
    labels, image, matrix = heart.labels.array, heart.image.array, heart.labels.voxel_to_world
    cines = [np.stack([array * 0, array], axis=-1) for array in (labels, image)]
    for stack, picture in (
        (labels, cines[1]), (cines[0], image), (cines[0], cines[1]), (cines[0], None)
    ):  # fmt: skip
        picture = None if picture is None else (picture, matrix)
        target = gather_target((stack, matrix), picture, None, None, 1)
        np.testing.assert_array_equal(target.labels.array, labels)
        if picture is not None:
            np.testing.assert_array_equal(target.image.array, image)
    for picture in (None, (image, matrix)):
        with pytest.raises(InvalidInputError, match="frame=1") as error:
            gather_target((labels, matrix), picture, None, None, 1)
        assert error.value.code == "ONE_FRAME"
