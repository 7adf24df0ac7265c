"""Simulated thick slices: majority labels, mean images, tilt, the sign of the shifts, lost ends."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy.ndimage import affine_transform

from cardiacreg import Degradation, InvalidInputError, LabelMap, Subject, Volume
from cardiacreg.geometry import apply_matrix, voxel_grid
from cardiacreg.phantoms.acquisition import simulate_low_resolution
from cardiacreg.phantoms.hearts import FIRST_EVALUATION_SEED, sample_heart
from cardiacreg.phantoms.stack_labels import base_is_last, draw_as_experts, wall_share
from cardiacreg.slices import rotation, slice_axis_mm


@pytest.fixture(scope="module")
def heart():
    return sample_heart(FIRST_EVALUATION_SEED, spacing_mm=(2.0, 2.0, 2.0))


def centre_mm(labels, k, value=1):
    inside = np.argwhere(labels.array[:, :, k] == value)
    return inside.mean(axis=0) * labels.spacing_mm[:2] + labels.voxel_to_world[:2, 3]


def test_a_seed_gives_the_same_stack(heart):
    first, again = (simulate_low_resolution(heart, seed=3) for _ in range(2))
    assert np.array_equal(first.subject.labels.array, again.subject.labels.array)
    assert np.array_equal(first.subject.image.array, again.subject.image.array)
    assert np.array_equal(first.slice_shifts_mm, again.slice_shifts_mm)


def test_true_position_is_stored_position_plus_shift(heart):
    options = {"seed": 1, "lost_apical_slices": 0}
    still = simulate_low_resolution(heart, shift_sd_mm=0.0, **options)
    moved = simulate_low_resolution(heart, shift_sd_mm=3.0, **options)
    assert np.array_equal(still.slice_shifts_mm, np.zeros_like(moved.slice_shifts_mm))
    big = np.flatnonzero((still.subject.labels.array == 1).sum(axis=(0, 1)) > 200)
    assert len(big) > 3
    for k in big:
        stored, true = (centre_mm(x.subject.labels, k) for x in (moved, still))
        assert stored + moved.slice_shifts_mm[k] == pytest.approx(true, abs=0.5)


def test_without_shift_labels_are_the_majority_and_the_image_the_mean():
    rng = np.random.default_rng(0)
    array = np.zeros((12, 12, 12), dtype=np.uint8)
    array[3:9, 3:9, 2:11] = 2
    array[4:8, 4:8, 5:11] = 1
    labels = LabelMap(array, np.diag([1.0, 1.0, 2.0, 1.0]))
    image = Volume(rng.uniform(0, 9, array.shape), labels.voxel_to_world)
    stack = simulate_low_resolution(
        Subject(labels, image), seed=0, slice_thickness_mm=2.0, shift_sd_mm=0, lost_apical_slices=0
    ).subject
    offset = stack.labels.voxel_to_world[2, 3] / 2.0
    low = int(np.floor(offset + 1))
    weight = offset + 1 - low
    for k in range(1, stack.labels.shape[2] - 1):
        i = low - 1 + k
        expected = (1 - weight) * image.array[:, :, i] + weight * image.array[:, :, i + 1]
        assert stack.image.array[:, :, k] == pytest.approx(expected, abs=1e-4)
        nearer = array[:, :, i] if weight < 0.5 else array[:, :, i + 1]
        assert np.array_equal(stack.labels.array[:, :, k], nearer)
        if k + low >= 10:
            break


def test_the_stack_covers_the_heart_in_thick_slices(heart):
    stack = simulate_low_resolution(heart, seed=2, slice_thickness_mm=8.0, in_plane_spacing_mm=1.5)
    assert stack.subject.labels.spacing_mm == pytest.approx([1.5, 1.5, 8.0])
    assert stack.subject.image.shape == stack.subject.labels.shape
    assert len(stack.slice_shifts_mm) == stack.subject.labels.shape[2]
    assert stack.subject.landmarks is None
    assert stack.subject.labels.present() == (1, 2, 3, 4)


def test_lost_apical_slices_are_dropped_or_unlabelled(heart):
    whole, dropped, blank = (
        simulate_low_resolution(heart, seed=4, lost_apical_slices=n, drop_lost_slices=drop)
        for n, drop in [(0, True), (2, True), (2, False)]
    )
    labelled = [x.subject.labels.array.any(axis=(0, 1)).sum() for x in (whole, dropped, blank)]
    assert labelled == [labelled[0], labelled[0] - 2, labelled[0] - 2]
    assert blank.subject.labels.shape == whole.subject.labels.shape
    assert np.array_equal(
        dropped.slice_shifts_mm, whole.slice_shifts_mm[-len(dropped.slice_shifts_mm) :]
    )
    assert dropped.subject.labels.voxel_to_world[2, 3] > whole.subject.labels.voxel_to_world[2, 3]


@pytest.mark.parametrize(
    "wrong",
    [
        {"slice_thickness_mm": 1.0},
        {"lost_apical_slices": -1},
        {"lost_apical_slices": 99},
        {"shift_sd_mm": -1.0},
        {"tilt_sd_degrees": float("nan")},
        {"label_rule": "radiologist"},
        {"empty_slices": (1, -1)},
        {"empty_slices": (1, 1, 1)},
    ],
)
def test_wrong_requests_are_refused(heart, wrong):
    with pytest.raises(InvalidInputError):
        simulate_low_resolution(heart, seed=0, **wrong)


def test_an_image_on_another_grid_is_refused(heart):
    image = Volume(np.zeros((4, 4, 4)), np.eye(4))
    with pytest.raises(InvalidInputError):
        simulate_low_resolution(Subject(heart.labels, image), seed=0)


def test_true_position_is_the_turned_stored_position(heart):
    """c + R (x + s - c), c the mean in-plane position of the labels; centroids obey it too."""
    options = {"seed": 1, "lost_apical_slices": 0}
    still = simulate_low_resolution(heart, shift_sd_mm=0.0, **options)
    moved = simulate_low_resolution(heart, shift_sd_mm=2.0, turn_sd_degrees=8.0, **options)
    assert np.abs(moved.slice_turns_degrees).max() > 5
    axis = slice_axis_mm(heart.labels) + heart.labels.voxel_to_world[:2, 3]
    for k in np.flatnonzero((still.subject.labels.array == 4).sum(axis=(0, 1)) > 1000):
        for value in (1, 4):
            stored, true = (centre_mm(x.subject.labels, k, value) for x in (moved, still))
            turn = rotation(moved.slice_turns_degrees[k])
            placed = axis + turn @ (stored + moved.slice_shifts_mm[k] - axis)
            assert placed == pytest.approx(true, abs=0.5)


def stack_by_weights(heart, stack, phase):
    """The labels of an untilted stack from whole slices, weighted by their overlap."""
    labels, spacing, thickness = heart.labels, heart.labels.spacing_mm, 10.0
    start = -0.5 * spacing[2] - phase
    low = (np.arange(labels.shape[2]) - 0.5) * spacing[2]
    shares = np.zeros((5, *stack.subject.labels.shape))
    for k in range(shares.shape[3]):
        first, last = start + thickness * k, start + thickness * (k + 1)
        overlap = np.minimum(last, low + spacing[2]) - np.maximum(first, low)
        weights = np.maximum(overlap, 0.0) / thickness
        for value in range(5):
            shares[value, :, :, k] = affine_transform(
                (labels.array == value) @ weights,
                np.eye(2),
                offset=stack.slice_shifts_mm[k] / spacing[:2],
                order=1,
                mode="nearest",
            )
        shares[0, :, :, k] += 1.0 - weights.sum()
    return shares.argmax(axis=0)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_an_untilted_stack_is_made_of_whole_slices(heart, seed):
    stack = simulate_low_resolution(heart, seed=seed, lost_apical_slices=0)
    phase = np.random.default_rng([seed, 7]).uniform(0.0, 10.0)
    assert np.array_equal(stack.subject.labels.array, stack_by_weights(heart, stack, phase))
    assert not stack.tilt_degrees.any()


@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    lean=st.tuples(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5)),
)
def test_an_oblique_stack_shows_a_plane_where_it_is(seed, lean):
    """The majority of a voxel is the side of the plane on which its middle lies."""
    normal = np.array([*lean, 1.0]) / np.linalg.norm([*lean, 1.0])
    centre, shape = np.array([22.5, 22.5, 22.5]), (46, 46, 46)  # between voxels
    array = np.where((voxel_grid(shape, np.eye(4)) - centre) @ normal < 0, 1, 2)
    stack = simulate_low_resolution(
        Subject(LabelMap(array, np.eye(4))),
        seed=seed,
        slice_thickness_mm=6.0,
        shift_sd_mm=0.0,
        tilt_sd_degrees=10.0,
        lost_apical_slices=0,
    ).subject.labels
    places = voxel_grid(stack.shape, stack.voxel_to_world)
    side = (places - centre) @ normal
    inner = ((places > 8.0) & (places < 37.0)).all(axis=-1)
    clear = inner & (np.abs(side) > 0.5)
    assert clear.sum() > 500
    assert np.array_equal(stack.array[clear], np.where(side < 0, 1, 2)[clear])


def test_a_tilt_is_in_the_matrix_and_has_the_wanted_size(heart):
    angles, seen = [], []
    bare = Subject(heart.labels)
    for seed in range(24):
        low = simulate_low_resolution(
            bare, seed=seed, tilt_sd_degrees=8.0, in_plane_spacing_mm=12.0
        )
        axes = low.subject.labels.voxel_to_world[:3, :3] / low.subject.labels.spacing_mm
        assert axes.T @ axes == pytest.approx(np.eye(3), abs=1e-12)
        assert np.linalg.det(axes) == pytest.approx(1.0)
        normal = axes[:, 2]
        seen.append(np.degrees(np.arctan2(-normal[1], normal[2])))
        angles.append(low.tilt_degrees)
    angles = np.array(angles)
    assert 5.5 < angles.std() < 10.5
    assert np.array(seen) == pytest.approx(angles[:, 0], abs=0.6)


def test_tilted_thin_slices_are_the_heart_at_their_place(heart):
    """Thin slices have hardly a thickness: the label at the voxel's true place in the world."""
    low = simulate_low_resolution(
        heart, seed=3, slice_thickness_mm=2.0, tilt_sd_degrees=9.0, lost_apical_slices=0
    )
    stack, truth = low.subject.labels, heart.labels
    axes = stack.voxel_to_world[:3, :2] / stack.spacing_mm[:2]
    places = voxel_grid(stack.shape, stack.voxel_to_world) + low.slice_shifts_mm @ axes.T
    voxels = np.rint(apply_matrix(np.linalg.inv(truth.voxel_to_world), places)).astype(int)
    inside = ((voxels >= 0) & (voxels < truth.shape)).all(axis=-1)
    i, j, k = np.moveaxis(np.where(inside[..., None], voxels, 0), -1, 0)
    true = np.where(inside, truth.array[i, j, k], 0)
    assert np.abs(low.tilt_degrees).max() > 5
    for value in (1, 2, 4):
        ours, there = stack.array == value, true == value
        assert 2 * (ours & there).sum() / (ours.sum() + there.sum()) > 0.96
        if value != 2:
            both = [np.argwhere(mask).mean(axis=0) * stack.spacing_mm for mask in (ours, there)]
            assert both[0] == pytest.approx(both[1], abs=0.1)


def test_a_tilted_stack_holds_the_whole_heart(heart):
    for seed in range(4):
        low = Degradation(tilt_sd_degrees=12.0, label_rule="any", in_plane_spacing_mm=2.5).of(
            Subject(heart.labels), seed=seed
        )
        ml = [
            np.bincount(each.array.ravel(), minlength=5) * np.prod(each.spacing_mm) / 1000
            for each in (low.subject.labels, heart.labels)
        ]
        assert ml[0][[1, 4]] == pytest.approx(ml[1][[1, 4]], rel=0.08)
        assert low.reference is heart.labels


def test_the_image_is_a_mean_and_goes_on_beyond_its_edge(heart):
    labels = heart.labels
    for values in (np.full(labels.shape, 7.0), heart.image.array):
        low = simulate_low_resolution(
            Subject(labels, Volume(values, labels.voxel_to_world)),
            seed=8,
            tilt_sd_degrees=8.0,
            empty_slices=(2, 2),
            lost_apical_slices=0,
        )
        image = low.subject.image.array
        assert image.shape == low.subject.labels.shape
        assert values.min() - 1e-3 <= image.min() and image.max() <= values.max() + 1e-3


# --- labels as experts draw them


def rings(shares, *, cavity=8.0, wall=12.0, right=(24, 30)):
    """Slices from the apex with a ring of wall over a share of the circumference, and an RV beside."""
    i, j = np.meshgrid(np.arange(64) - 30.0, np.arange(64) - 30.0, indexing="ij")
    radius, angle = np.hypot(i, j), (np.arctan2(j, i) / (2 * np.pi)) % 1.0
    stack = np.zeros((64, 64, len(shares)), dtype=np.uint8)
    for k, share in enumerate(shares):
        plane = stack[:, :, k]
        plane[(radius < wall) & (angle <= share)] = 2
        plane[radius < cavity] = 1
        plane[right[0] : right[1] + 30, 48:60] = 4
    return stack


@given(share=st.floats(0.05, 1.0))
def test_the_share_of_the_wall_is_that_of_its_circumference(share):
    found = wall_share(rings([share])[:, :, 0], np.full(2, 30.0), np.ones(2))
    assert found == pytest.approx(share, abs=0.03)


@given(share=st.floats(0.0, 1.0).filter(lambda x: abs(x - 0.5) > 0.03), flip=st.booleans())
def test_a_basal_slice_is_left_out_below_half_of_the_circumference(share, flip):
    stack = rings([1.0, 1.0, 1.0, 1.0, share, 1.0, 1.0])
    before = stack.copy()
    view = stack[:, :, ::-1] if flip else stack
    given = np.ascontiguousarray(view)
    draw_as_experts(given, np.ones(2), base_last=not flip)
    found = given[:, :, ::-1] if flip else given
    if share > 0.5:
        assert np.array_equal(found, before)
        return
    left, right = (np.isin(found, labels).any(axis=(0, 1)) for labels in ((1, 2), (3, 4)))
    assert left.tolist() == [True] * 4 + [False] * 3
    assert right.tolist() == [True] * 5 + [False] * 2
    assert np.array_equal(found[:, :, :4], before[:, :, :4])


def test_the_remnant_of_a_cavity_is_judged_from_where_the_centre_was():
    """A rest of cavity within a rest of wall is closed around itself, but is no ring of the LV."""
    stack = rings([1.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    for k, size in ((4, 5), (5, 3)):
        stack[:, :, k] = 0
        stack[30 + size : 42, 26:34, k] = 2
        stack[32 + size : 40, 28:32, k] = 1
    assert wall_share(stack[:, :, 4], np.array([38.0, 29.5]), np.ones(2)) == 1.0
    draw_as_experts(stack, np.ones(2), base_last=True)
    assert np.isin(stack, (1, 2)).any(axis=(0, 1)).tolist() == [True] * 4 + [False] * 2


def test_open_rings_at_the_apex_and_small_right_ventricles():
    stack = rings([0.2, 1.0, 1.0, 1.0])
    stack[:, :, 0][stack[:, :, 0] == 4] = 0
    stack[50:57, 50:57, 0] = 4
    draw_as_experts(stack, np.ones(2), base_last=True)
    assert (stack == 1).any(axis=(0, 1)).all()
    assert (stack == 4).any(axis=(0, 1)).tolist() == [False, True, True, True]


@pytest.mark.parametrize("group", ["healthy", "hypertrophic", "dilated"])
def test_the_base_is_found_whichever_way_slices_run_and_above_an_outflow_tract(group):
    labels = sample_heart(FIRST_EVALUATION_SEED, group=group, with_image=False).labels
    tract = np.zeros((*labels.shape[:2], 8), dtype=np.uint8)
    tract[50:56, 40:46] = 1
    array = np.concatenate([labels.array[:, :, :-6], tract], axis=2)
    assert base_is_last(LabelMap(array, labels.voxel_to_world))
    assert not base_is_last(LabelMap(array[:, :, ::-1], labels.voxel_to_world))


@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    empty=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    rule=st.sampled_from(["any", "clinical"]),
)
def test_empty_slices_are_acquired_as_wanted_and_change_nothing_else(heart, seed, empty, rule):
    how = {"in_plane_spacing_mm": 4.0, "label_rule": rule}
    bare = Subject(heart.labels)
    with_ends = Degradation(empty_slices=empty, **how).of(bare, seed=seed)
    without = Degradation(empty_slices=(0, 0), **how).of(bare, seed=seed)
    labelled = with_ends.subject.labels.array.any(axis=(0, 1))
    held = np.flatnonzero(labelled)
    assert (held[0], len(labelled) - 1 - held[-1]) == empty
    inner = slice(empty[0], len(labelled) - empty[1])
    assert np.array_equal(with_ends.subject.labels.array[:, :, inner], without.subject.labels.array)
    assert np.array_equal(with_ends.slice_shifts_mm[inner], without.slice_shifts_mm)
    first = with_ends.subject.labels.voxel_to_world @ [0, 0, empty[0], 1]
    assert first == pytest.approx(without.subject.labels.voxel_to_world[:, 3], abs=1e-9)


def test_a_clinical_stack_has_up_to_two_empty_slices_at_either_end(heart):
    seen = set()
    for seed in range(40):
        how = Degradation(in_plane_spacing_mm=6.0)
        labelled = how.of(Subject(heart.labels), seed=seed).subject.labels.array.any(axis=(0, 1))
        held = np.flatnonzero(labelled)
        seen.add((int(held[0]), int(len(labelled) - 1 - held[-1])))
    assert seen == {(a, b) for a in range(3) for b in range(3)}


def test_nothing_is_acquired_below_a_lost_apex(heart):
    whole, lost, blank = (
        Degradation(lost_apical_slices=n, drop_lost_slices=drop, empty_slices=(2, 1)).of(
            Subject(heart.labels), seed=5
        )
        for n, drop in ((0, True), (1, True), (1, False))
    )
    n_slices = [x.subject.labels.shape[2] for x in (whole, lost, blank)]
    assert n_slices == [n_slices[0], n_slices[0] - 3, n_slices[0]]
    assert np.array_equal(lost.subject.labels.array, whole.subject.labels.array[:, :, 3:])
    assert not blank.subject.labels.array[:, :, :3].any()


def test_a_clinical_stack_leaves_basal_slices_out_and_its_truth_whole(heart):
    rules = [
        Degradation(label_rule=rule, in_plane_spacing_mm=2.5).of(Subject(heart.labels), seed=seed)
        for rule in ("any", "clinical")
        for seed in range(6)
    ]
    shown = [int(np.isin(x.subject.labels.array, (1, 2)).any(axis=(0, 1)).sum()) for x in rules]
    assert all(a - 2 <= b <= a for a, b in zip(shown[:6], shown[6:], strict=True))
    assert sum(shown[6:]) < sum(shown[:6])
    assert all(x.reference is heart.labels for x in rules)
