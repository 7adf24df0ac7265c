import csv
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import assume, given, settings, strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from cardiacreg import InputWarning, InvalidInputError, LabelMap
from cardiacreg.anatomy.label_presets import canonical_labels
from cardiacreg.anatomy.volumes import structure_masses_g, structure_volumes_ml
from cardiacreg.io.nifti import read_labels
from cardiacreg.metrics.overlap import (
    average_surface_distance_mm,
    compare,
    count_components,
    dice,
    hausdorff95_mm,
    hausdorff_mm,
    hausdorff_slicewise_mm,
    limits_of_agreement,
    normalized_surface_dice,
    topology_counts,
    volumes_ml,
)
from tests.helpers.small_hearts import data_folder, matrix, relabelled, small_heart

SPACING = (1.25, 1.5, 2.0)
DISTANCES = [hausdorff_mm, hausdorff95_mm, average_surface_distance_mm]
OVERLAPS = [dice, normalized_surface_dice]
masks = arrays(np.uint8, (6, 5, 4), elements=st.integers(0, 1))


def labels_of(array, spacing=SPACING):
    return LabelMap(np.asarray(array), matrix(spacing))


def ball(radius_mm, centre_mm=(30, 30, 30), spacing=SPACING, shape=(48, 40, 30)):
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) * spacing
    return labels_of(np.linalg.norm(grid - centre_mm, axis=-1) <= radius_mm, spacing)


def naive_distances(first, second, spacing):
    """Directed border-to-border distances by the definition, with loops over all pairs."""

    def border(mask):
        points = []
        for i, j, k in np.argwhere(mask):
            padded = np.pad(mask, 1)
            neighbours = [(0, 1, 1), (2, 1, 1), (1, 0, 1), (1, 2, 1), (1, 1, 0), (1, 1, 2)]
            if not all(padded[i + a, j + b, k + c] for a, b, c in neighbours):
                points.append(np.array([i, j, k]) * spacing)
        return np.array(points)

    a, b = border(first), border(second)
    pairs = np.linalg.norm(a[:, None] - b[None], axis=-1)
    return pairs.min(axis=1), pairs.min(axis=0)


@given(masks, masks)
@settings(max_examples=60, deadline=None)
def test_distances_agree_with_their_definitions(first, second):
    assume(first.any() and second.any())
    one, two = labels_of(first), labels_of(second)
    a, b = naive_distances(first, second, SPACING)
    assert hausdorff_mm(one, two, 1) == pytest.approx(max(a.max(), b.max()))
    percentiles = np.percentile(a, 95), np.percentile(b, 95)
    assert hausdorff95_mm(one, two, 1) == pytest.approx(max(percentiles))
    assert average_surface_distance_mm(one, two, 1) == pytest.approx(np.mean([*a, *b]))
    expected = 2 * (first & second).sum() / (first.sum() + second.sum())
    assert dice(one, two, 1) == pytest.approx(expected)


@given(masks, masks)
@settings(max_examples=30, deadline=None)
def test_every_measure_is_symmetric_and_perfect_for_equals(first, second):
    one, two = labels_of(first), labels_of(second)
    for measure in (*DISTANCES, *OVERLAPS, hausdorff_slicewise_mm):
        assert measure(one, two, 1) == pytest.approx(measure(two, one, 1))
    assert all(measure(one, one, 1) == 0 for measure in DISTANCES)
    assert all(measure(one, one, 1) == 1 for measure in OVERLAPS)


@given(arrays(np.uint8, (5, 5, 4), elements=st.integers(0, 1)), st.permutations([0, 1, 2]))
@settings(max_examples=30, deadline=None)
def test_axis_order_does_not_matter(first, order):
    second = np.roll(first, 1, axis=0)
    turned = tuple(SPACING[axis] for axis in order)
    for measure in (*DISTANCES, *OVERLAPS):
        expected = measure(labels_of(first), labels_of(second), 1)
        found = measure(
            labels_of(first.transpose(order), turned), labels_of(second.transpose(order), turned), 1
        )
        assert found == pytest.approx(expected)


@pytest.mark.parametrize("shift", [(3, 0, 0), (0, 2, 0), (0, 0, 4)])
def test_a_shifted_ball_is_as_far_as_the_shift(shift):
    distance = float(np.linalg.norm(np.array(shift) * SPACING))
    first, second = ball(12), ball(12, np.array([30, 30, 30]) + np.array(shift) * SPACING)
    assert hausdorff_mm(first, second) == pytest.approx(distance)
    assert 0.4 * distance < average_surface_distance_mm(first, second) < distance
    assert normalized_surface_dice(first, second, tolerance_mm=distance + 1e-6) == 1


def test_concentric_balls_are_as_far_as_their_radii():
    spacing = (0.5, 0.5, 0.5)
    first = ball(6, (10, 10, 10), spacing, (42, 42, 42))
    second = ball(9, (10, 10, 10), spacing, (42, 42, 42))
    for measure in DISTANCES:
        assert measure(first, second) == pytest.approx(3, abs=0.5)
    assert dice(first, second) == pytest.approx(2 * 6**3 / (6**3 + 9**3), abs=0.01)
    assert normalized_surface_dice(first, second, tolerance_mm=2.0) == 0
    assert normalized_surface_dice(first, second, tolerance_mm=4.0) == 1


def test_the_95_percent_distance_ignores_one_stray_voxel():
    first = ball(12)
    array = first.array.copy()
    array[0, 0, 0] = 1
    stray = LabelMap(array, first.voxel_to_world)
    assert hausdorff95_mm(first, stray) == 0 < hausdorff_mm(first, stray)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # raised inside SimpleITK
def test_hausdorff_agrees_with_simpleitk():
    simpleitk = pytest.importorskip("SimpleITK")
    rng = np.random.default_rng(0)
    for seed in range(4):
        blobs = [ndimage.gaussian_filter(rng.normal(size=(30, 28, 16)), 3) > 0.02 for _ in "ab"]
        images = [simpleitk.GetImageFromArray(b.astype(np.uint8).T.copy()) for b in blobs]
        for image in images:
            image.SetSpacing(SPACING)
        measure = simpleitk.HausdorffDistanceImageFilter()
        measure.Execute(*images)
        # SimpleITK measures from all voxels, and inside the other structure the distance is 0.
        outside = [
            ndimage.distance_transform_edt(~b, sampling=SPACING)[a].max()
            for a, b in (blobs, blobs[::-1])
        ]
        assert measure.GetHausdorffDistance() == pytest.approx(max(outside), rel=1e-5), seed
        ours = hausdorff_mm(*(labels_of(b) for b in blobs))
        assert ours >= max(outside) - 1e-6


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # raised inside SimpleITK
def test_hausdorff_of_hearts_equals_that_of_simpleitk():
    simpleitk = pytest.importorskip("SimpleITK")
    first, second = small_heart(), small_heart(wall_voxels=6)
    for label in (1, 2, 4):
        images = [
            simpleitk.GetImageFromArray((heart.array == label).astype(np.uint8).T.copy())
            for heart in (first, second)
        ]
        for image in images:
            image.SetSpacing(first.spacing_mm.tolist())
        measure = simpleitk.HausdorffDistanceImageFilter()
        measure.Execute(*images)
        assert hausdorff_mm(first, second, label) == pytest.approx(measure.GetHausdorffDistance())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # raised inside surface_distance
@pytest.mark.parametrize("tolerance_mm", [0.0, 1.0, 2.5])
@pytest.mark.parametrize("seed", range(3))
def test_surface_dice_agrees_with_surface_distance(seed, tolerance_mm):
    surface_distance = pytest.importorskip("surface_distance")
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(24, 22, 14))
    first = ndimage.gaussian_filter(noise, 2) > 0.02
    second = ndimage.gaussian_filter(noise + rng.normal(size=noise.shape), 2) > 0.03
    theirs = surface_distance.compute_surface_distances(first, second, SPACING)
    expected = surface_distance.compute_surface_dice_at_tolerance(theirs, tolerance_mm)
    found = normalized_surface_dice(labels_of(first), labels_of(second), tolerance_mm=tolerance_mm)
    assert found == pytest.approx(expected, abs=1e-9)


def test_slicewise_distance_is_a_mean_over_slices_that_both_show():
    first = np.zeros((20, 20, 5), dtype=np.uint8)
    second = first.copy()
    first[5:10, 5:10, 1:4] = 1
    second[5:10, 5:10, 2] = 1
    second[7:12, 5:10, 3:] = 1
    found = hausdorff_slicewise_mm(labels_of(first), labels_of(second), 1)
    assert found == pytest.approx((1.25, 2.5, 2, 2))


def test_slicewise_distance_fills_holes_and_uses_both_spacings():
    ring = np.zeros((20, 20, 3), dtype=np.uint8)
    ring[4:12, 4:12] = 1
    disc = ring.copy()
    ring[6:10, 6:10] = 0
    assert hausdorff_slicewise_mm(labels_of(ring), labels_of(disc)).mean_mm == 0
    moved = np.roll(disc, 1, axis=1)
    assert hausdorff_slicewise_mm(labels_of(ring), labels_of(moved)).mean_mm == 1.5


def test_a_structure_in_neither_map_is_perfect():
    empty = labels_of(np.zeros((4, 5, 6)))
    assert [measure(empty, empty, 1) for measure in DISTANCES] == [0, 0, 0]
    assert [measure(empty, empty, 1) for measure in OVERLAPS] == [1, 1]
    assert hausdorff_slicewise_mm(empty, empty, 1) == (0, 0, 0, 0)


def test_a_missed_structure_costs_the_diagonal():
    empty, full = labels_of(np.zeros((4, 5, 6))), labels_of(np.ones((4, 5, 6)))
    diagonal = np.linalg.norm([4 * 1.25, 5 * 1.5, 6 * 2.0])
    for one, two in ((empty, full), (full, empty)):
        assert [measure(one, two, 1) for measure in DISTANCES] == pytest.approx([diagonal] * 3)
        assert [measure(one, two, 1) for measure in OVERLAPS] == [0, 0]
        assert hausdorff_slicewise_mm(one, two, 1) == pytest.approx((diagonal, diagonal, 0, 6))


def test_slices_that_never_coincide_cost_the_diagonal():
    first, second = np.zeros((4, 4, 2)), np.zeros((4, 4, 2))
    first[..., 0] = second[..., 1] = 1
    found = hausdorff_slicewise_mm(labels_of(first), labels_of(second))
    assert found.n_used == 0 and found.n_skipped == 2 and found.mean_mm > 6


def test_maps_on_different_lattices_are_refused():
    heart = small_heart()
    other = small_heart(voxel_to_world=matrix((1.5, 1.5, 7)))
    for measure in (*DISTANCES, *OVERLAPS, hausdorff_slicewise_mm, compare):
        with pytest.raises(InvalidInputError) as error:
            measure(heart, other)
        assert error.value.code == "LATTICE_MISMATCH"


@pytest.mark.parametrize("tolerance_mm", [-1.0, np.nan])
def test_an_impossible_tolerance_is_refused(tolerance_mm):
    heart = small_heart()
    with pytest.raises(InvalidInputError, match="tolerance_mm"):
        normalized_surface_dice(heart, heart, tolerance_mm=tolerance_mm)


def test_volumes_and_masses_of_known_boxes():
    array = np.zeros((20, 20, 20), dtype=np.uint8)
    array[:10, :10, :10], array[10:, :10, :10], array[:10, 10:, :5] = 1, 2, 3
    labels = labels_of(array)
    voxel_ml = 1.25 * 1.5 * 2 / 1000
    assert structure_volumes_ml(labels) == pytest.approx(
        {
            "LV cavity": 1000 * voxel_ml,
            "LV wall": 1000 * voxel_ml,
            "RV wall": 500 * voxel_ml,
            "RV cavity": None,
        }
    )
    expected = {"LV wall": 1050 * voxel_ml, "RV wall": 525 * voxel_ml}
    assert structure_masses_g(labels) == pytest.approx(expected)


def test_a_ball_has_the_volume_of_a_ball_in_any_frame():
    first = ball(20)
    flipped = LabelMap(first.array, first.voxel_to_world @ np.diag([-1, 1, 1, 1.0]))
    expected = 4 / 3 * np.pi * 20**3 / 1000
    for labels in (first, flipped):
        assert volumes_ml(labels)["LV cavity"] == pytest.approx(expected, rel=0.01)


def test_more_than_2_to_the_24_voxels_are_counted_exactly():
    labels = LabelMap(np.ones((257, 257, 257), dtype=np.uint8), np.eye(4))
    assert volumes_ml(labels)["LV cavity"] == 257**3 / 1000
    assert dice(labels, labels, 1) == 1


def test_components_are_joined_by_faces_and_holes_are_closed_on_all_sides():
    array = np.zeros((9, 9, 9), dtype=np.uint8)
    array[1:6, 1:6, 1:6] = 2
    array[6, 6, 6] = 2  # touches by a corner only
    array[3, 3, 3] = 1  # a closed pocket
    assert topology_counts(labels_of(array), 2) == (2, 1)
    assert topology_counts(labels_of(array), 1) == (1, 0)
    assert topology_counts(labels_of(array), 4) == (0, 0)
    array[3, 3, 1:3] = 0  # now open
    assert topology_counts(labels_of(array), 2) == (2, 0)
    assert count_components(labels_of(array), 2) == 2


def test_comparing_gives_every_figure_per_structure():
    first, second = small_heart(), small_heart(wall_voxels=6)
    found = compare(first, second)
    assert list(found) == ["LV cavity", "LV wall", "RV cavity"]
    wall = found["LV wall"]
    assert wall["dice"] == dice(first, second, 2)
    assert wall["hausdorff_mm"] == hausdorff_mm(first, second, 2)
    assert wall["hausdorff95_mm"] == hausdorff95_mm(first, second, 2)
    assert wall["average_surface_distance_mm"] == average_surface_distance_mm(first, second, 2)
    assert wall["normalized_surface_dice"] == normalized_surface_dice(first, second, 2)
    assert wall["hausdorff_slicewise_mm"] == hausdorff_slicewise_mm(first, second, 2).mean_mm
    assert wall["volume_error_ml"] == wall["volume_ml"] - wall["true_volume_ml"] < 0
    assert wall["mass_error_g"] == pytest.approx(1.05 * wall["volume_error_ml"])
    assert "mass_g" not in found["LV cavity"]
    assert (wall["n_components"], wall["n_holes"], wall["missed"]) == (1, 0, False)


def test_comparing_marks_what_was_missed():
    heart = small_heart()
    found = compare(relabelled(heart, {4: 0}), heart)["RV cavity"]
    assert found["missed"] is True and found["dice"] == 0
    assert found["volume_ml"] is None and found["volume_error_ml"] is None
    assert found["true_volume_ml"] == volumes_ml(heart)["RV cavity"]


def test_comparing_only_some_structures():
    heart = small_heart()
    assert list(compare(heart, heart, structures=[3, 1])) == ["RV wall", "LV cavity"]
    with pytest.raises(InvalidInputError, match="canonical"):
        compare(heart, heart, structures=[9])


def test_limits_of_agreement():
    found = limits_of_agreement([1.0, 3.0, 5.0], [1.0, 2.0, 3.0])
    assert found == pytest.approx((1.0, 1 - 1.96, 1 + 1.96))


@pytest.mark.parametrize(
    "pairs", [([1], [1]), ([1, 2], [1]), ([1, np.nan], [1, 2]), ([[1, 2]], [[1, 2]])]
)
def test_pairs_that_cannot_be_compared_are_refused(pairs):
    with pytest.raises(InvalidInputError, match="finite"):
        limits_of_agreement(*pairs)


def test_measuring_does_not_load_numba():
    code = "import sys, cardiacreg.metrics.overlap; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_volumes_of_a_real_heart_are_those_published_with_it():
    folder = data_folder("acdc")
    with (folder / "index.csv").open(newline="") as stream:
        row = next(csv.DictReader(stream))
    path = folder / row["file"].replace(".nii.gz", "_gt.nii.gz")
    with pytest.warns(InputWarning, match="spacing of pixdim"):
        labels = canonical_labels(read_labels(path), "acdc")
    expected = {"LV cavity": "LVml", "LV wall": "MYOml", "RV cavity": "RVml"}
    for name, column in expected.items():
        assert volumes_ml(labels)[name] == pytest.approx(float(row[column]), abs=0.06)
