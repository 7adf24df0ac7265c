"""The benchmarks' own parts: baselines, alignment, scores, tables; the long runs are no tests."""

import json

import numpy as np
import pytest

from benchmarks import __main__ as runner
from benchmarks.accuracy import ablation, pathology, real, simulated
from benchmarks.atlases import selection, selection_by_image
from benchmarks.documents import excerpts, report
from benchmarks.fusion import fusion_modes
from benchmarks.harness import (
    cases,
    comparators,
    hidden_slices,
    measuring,
    plots,
    scoring,
    store,
    tabulate,
    turned,
)
from benchmarks.settled import selection_large
from cardiacreg import LabelMap, RefineOptions, Subject, Volume
from cardiacreg.atlases.view import AtlasView
from cardiacreg.fusion.label_fusion import FusionOptions
from cardiacreg.io.nifti import read_labels
from cardiacreg.metrics import baselines, overlap
from cardiacreg.phantoms.hearts import FIRST_EVALUATION_SEED, sample_heart
from cardiacreg.phantoms.toy_heart import make_toy_heart
from tests.helpers.tiny_bank import tiny_atlases, tiny_target

MARKED = [
    found
    for document in report.DOCUMENTS
    for found in report.MARKER.findall(document.read_text(encoding="utf-8"))
]
THICK = np.diag([1.0, 1.0, 10.0, 1.0])
FINE = np.diag([1.0, 1.0, 2.0, 1.0])


def discs(radii_mm, voxel_to_world, *, centre=(20.0, 20.0)):
    """A stack of discs of label 1, one radius per slice."""
    i, j = np.meshgrid(np.arange(41), np.arange(41), indexing="ij")
    distance = np.hypot(i - centre[0], j - centre[1])
    return LabelMap((distance[..., None] <= np.asarray(radii_mm)).astype(np.uint8), voxel_to_world)


def fine_grid(n_slices):
    return LabelMap(np.zeros((41, 41, n_slices), dtype=np.uint8), FINE)


def two_discs(shape=(48, 44, 12)):
    """Two nested structures that change along k, so that translation and tilt both matter."""
    i, j, k = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    distance = np.hypot(i - 24, j - 20)
    array = np.where(distance < 6 + 0.3 * k, 1, np.where(distance < 11 + 0.2 * k, 2, 0))
    return LabelMap(array, np.diag([1.25, 1.25, 2.0, 1.0]))


def margins_mm(labels):
    """Background between the outermost labels and the ends of the lattice, shape (2, 3)."""
    held = np.argwhere(labels.array)
    after = np.array(labels.shape) - 1 - held.max(axis=0)
    return np.stack([held.min(axis=0), after]) * labels.spacing_mm


def moved(labels, translation_voxels, tilt_voxels):
    """The map with every slice moved by whole voxels: translation + tilt * height in [-1, 1]."""
    array = np.zeros_like(labels.array)
    for k in range(labels.shape[2]):
        height = 2 * k / (labels.shape[2] - 1) - 1
        shift = np.rint(np.array(translation_voxels) + height * np.array(tilt_voxels)).astype(int)
        array[:, :, k] = np.roll(labels.array[:, :, k], tuple(shift), axis=(0, 1))
    return LabelMap(array, labels.voxel_to_world)


class TestBaselines:
    def test_nearest_neighbour_repeats_each_slice_over_its_thickness(self):
        thick = discs([5, 9, 12], THICK)
        fine = baselines.interpolate_nearest(thick, fine_grid(12))
        levels = [int((fine.array[:, :, k] > 0).sum()) for k in range(12)]
        expected = [int((thick.array[:, :, k] > 0).sum()) for k in range(3)]
        assert levels == [expected[0]] * 3 + [expected[1]] * 5 + [expected[2]] * 4

    def test_nearest_neighbour_is_background_outside(self):
        thick = discs([5, 5], THICK)
        assert not baselines.interpolate_nearest(thick, fine_grid(20)).array[:, :, 8:].any()

    @pytest.mark.parametrize(
        "method", [baselines.interpolate_nearest, baselines.interpolate_shape_based]
    )
    def test_a_cylinder_is_reproduced_exactly(self, method):
        fine = method(discs([8, 8, 8], THICK), fine_grid(11))
        assert (fine.array == discs([8] * 11, FINE).array).all()

    def test_shape_based_interpolates_a_cone(self):
        fine = baselines.interpolate_shape_based(discs([16, 10, 4], THICK), fine_grid(11))
        areas = (fine.array > 0).sum(axis=(0, 1))
        radii = np.sqrt(areas / np.pi)
        np.testing.assert_allclose(radii, np.linspace(16, 4, 11), atol=0.4)

    def test_nearest_neighbour_makes_steps_of_a_cone(self):
        fine = baselines.interpolate_nearest(discs([16, 10, 4], THICK), fine_grid(11))
        assert len(np.unique((fine.array > 0).sum(axis=(0, 1)))) == 3

    def test_shape_based_leaves_no_gap_between_nested_labels(self):
        outer, inner = discs([14, 14], THICK).array, discs([4, 9], THICK).array
        fine = baselines.interpolate_shape_based(LabelMap(outer + inner, THICK), fine_grid(6))
        assert ((fine.array > 0) == (discs([14] * 6, FINE).array > 0)).all()
        sizes = (fine.array == 2).sum(axis=(0, 1))
        assert (np.diff(sizes) > 0).all()

    @pytest.mark.parametrize("radius", [3, 14])
    @pytest.mark.parametrize("empties", [0, 2])
    def test_shape_based_ends_halfway_to_a_slice_that_does_not_show_it(self, radius, empties):
        thick = discs([radius] * 3 + [-1] * empties, THICK)
        levels = baselines.interpolate_shape_based(thick, fine_grid(24)).array.any(axis=(0, 1))
        assert levels.tolist() == [2.0 * k <= 25.0 for k in range(24)]

    @pytest.mark.parametrize("flip", [slice(None), slice(None, None, -1)])
    def test_a_structure_inside_another_ends_halfway_too(self, flip):
        """The cavity ends over the wall of an apex; the wall goes on."""
        outer, inner = discs([14, 14], THICK).array, discs([-1, 5], THICK).array
        thick = LabelMap((outer + inner)[:, :, flip], THICK)
        fine = baselines.interpolate_shape_based(thick, fine_grid(6)).array[:, :, flip]
        assert (fine > 0).any(axis=(0, 1)).all()
        assert ((fine > 0) == (discs([14] * 6, FINE).array > 0)).all()
        assert (fine == 2).any(axis=(0, 1)).tolist() == [False] * 3 + [True] * 3
        assert ((fine == 2)[:, :, 3:] == (discs([5] * 3, FINE).array > 0)).all()

    def test_a_hidden_slice_beside_one_that_shows_a_structure_shows_it_in_shape_based(self):
        stack, hidden = hidden_slices.every_second(discs([2, 6, 8, 9, 9], THICK))
        alone = LabelMap(np.where(np.arange(3) > 0, stack.array, 0), stack.voxel_to_world)
        filled = baselines.interpolate_shape_based(alone, hidden[0])
        assert (filled.array[:, :, 0] == alone.array[:, :, 1]).all()

    def test_shape_based_works_on_a_shifted_grid(self):
        grid_matrix = FINE.copy()
        grid_matrix[:3, 3] = (3.0, -2.0, 4.0)
        grid = LabelMap(np.zeros((20, 20, 3)), grid_matrix)
        fine = baselines.interpolate_shape_based(discs([8, 8], THICK), grid)
        expected = discs([8] * 3, FINE).array[3:23]
        expected = np.pad(expected, ((0, 0), (2, 0), (0, 0)))[:, :20]
        assert (fine.array == expected).all()


class TestScoring:
    def test_equal_maps_score_perfectly(self):
        labels = two_discs()
        found = scoring.score(labels, labels)
        for alignment in found.values():
            assert all(alignment[name]["dice"] == 1 for name in ("LV cavity", "LV wall"))
        assert found["raw"]["LV wall"]["hausdorff_mm"] == 0
        assert found["raw"]["LV wall"]["mass_error_g"] == 0

    def test_a_translation_is_found_and_removed(self):
        truth = two_discs()
        found = scoring.align(moved(truth, (4, -3), (0, 0)), truth, tilt=False)
        np.testing.assert_allclose(found.translation_mm, (-5.0, 3.75), atol=0.3)
        assert overlap.dice(found.labels, truth, 2) > 0.99

    def test_a_tilt_is_found_and_removed(self):
        truth = two_discs()
        tilted = moved(truth, (1, 0), (3, -2))
        without = scoring.align(tilted, truth, tilt=False)
        found = scoring.align(tilted, truth, tilt=True)
        np.testing.assert_allclose(found.tilt_mm, (-3.75, 2.5), atol=0.7)
        assert overlap.dice(found.labels, truth, 2) > overlap.dice(without.labels, truth, 2) + 0.02
        assert overlap.dice(found.labels, truth, 2) > 0.97

    def test_alignment_never_lowers_the_mean_dice(self):
        truth = two_discs()
        noisy = moved(truth, (1, 1), (1, 0))
        found = scoring.dice_only(noisy, truth)
        means = [
            np.mean([found[key][name]["dice"] for name in ("LV cavity", "LV wall")])
            for key in ("raw", "translation", "tilt")
        ]
        assert means == sorted(means)

    def test_centres_of_the_lv_give_the_second_start_of_the_search(self):
        truth = two_discs()
        other = moved(truth, (1, 0), (3, -2))
        found = scoring._centroid_shifts(other.array, truth.array, tilt=True)
        np.testing.assert_allclose(found, (1, 0, 3, -2), atol=0.25)
        found = scoring._centroid_shifts(other.array, truth.array, tilt=False)
        np.testing.assert_allclose(found, (1, 0, 0, 0), atol=0.25)
        empty = np.zeros_like(truth.array)
        assert not scoring._centroid_shifts(empty, truth.array, tilt=True).any()

    def test_both_layouts_agree_on_dice(self):
        truth = two_discs()
        other = moved(truth, (2, 0), (0, 1))
        full, short = scoring.score(other, truth), scoring.dice_only(other, truth)
        for key, figures in short.items():
            for name, values in figures.items():
                assert full[key].get(name, values)["dice"] == values["dice"]

    def test_shift_errors_remove_mean_and_trend(self):
        slices = np.arange(1, 6)
        estimated = np.zeros((8, 2))
        true = np.zeros((8, 2))
        true[slices, 0] = 2.0 + 0.5 * slices
        found = scoring.shift_errors_mm(estimated, true, slices)
        assert found["raw"] > found["mean_removed"] > found["trend_removed"]
        assert found["trend_removed"] == pytest.approx(0, abs=1e-12)
        assert found["mean_removed"] == pytest.approx(np.sqrt(0.5 * 0.5**2 * 2))
        assert found["median_mean_removed"] == pytest.approx(0.5)
        assert found["median_trend_removed"] == pytest.approx(0, abs=1e-12)

    def test_a_cylinder_has_no_steps_and_stairs_have_more_than_a_cone(self):
        even = discs([10] * 20, FINE)
        assert scoring.staircase_mm(even, 1) == 0
        cone = discs(np.linspace(16, 4, 31), FINE)
        stairs = discs(np.repeat(np.linspace(16, 4, 7), 5)[2:-2], FINE)
        assert scoring.staircase_mm(stairs, 1) > 1.5 * scoring.staircase_mm(cone, 1) > 0
        assert scoring.staircase_mm(LabelMap(np.zeros((4, 4, 4)), FINE), 1) == 0

    def test_regions_run_from_apex_to_base(self):
        truth = discs(np.linspace(4, 14, 12), FINE)
        wrong = truth.array.copy()
        wrong[:, :, :4] = 0
        for flip in (slice(None), slice(None, None, -1)):
            maps = [LabelMap(array[:, :, flip], FINE) for array in (wrong, truth.array)]
            found = scoring.score(*maps)["raw"]["LV cavity"]
            assert found["dice_apex"] == 0
            assert found["dice_mid"] == found["dice_base"] == 1

    def test_sizes_come_with_dice(self):
        truth, smaller = discs([10] * 5, FINE), discs([8] * 5, FINE)
        found = scoring.sizes_and_dice(smaller, truth)["raw"]["LV cavity"]
        assert found["volume_error_ml"] == pytest.approx(-found["true_volume_ml"] * 0.36, rel=0.1)

    def test_wilcoxon_of_equal_pairs_is_one(self):
        assert scoring.wilcoxon_p([1.0, 2.0], [1.0, 2.0]) == 1
        assert scoring.wilcoxon_p(np.arange(20) + 1.0, np.zeros(20)) < 0.001


@pytest.fixture(scope="module")
def tiny_records():
    """The tiny heart measured as the long benchmarks measure theirs."""
    heart, atlas = make_toy_heart(), make_toy_heart(size=0.9)
    case = cases.Case("tiny", 1, "healthy", "ED", heart, np.zeros((8, 2)), heart.labels)
    options = RefineOptions(n_atlases=1, affine_candidates=1)
    records = [measuring.interpolated(case, method) for method in measuring.BASELINES]
    records.append(measuring.refined(case, simulated.DEFAULT, options=options, atlases=[atlas]))
    return measuring.rounded(records)


class TestMeasuring:
    def test_records_hold_scores_time_and_shift_errors(self, tiny_records):
        record = tiny_records[-1]
        assert 0.5 < record["scores"]["raw"]["LV cavity"]["dice"] <= 1
        assert record["seconds"] > 0
        assert record["input_shift_error_mm"]["raw"] == 0
        json.dumps(tiny_records)

    def test_interpolating_onto_the_own_lattice_is_exact(self, tiny_records):
        assert tiny_records[0]["scores"]["raw"]["RV wall"]["dice"] == 1

    def test_tables_have_one_row_per_method(self, tiny_records):
        table = tabulate.figure_table(tiny_records, "dice")
        assert len(table.splitlines()) == 2 + 3
        assert "shape-based" in table and "RV wall" in table

    def test_volume_tables_take_absolute_errors(self, tiny_records):
        table = tabulate.figure_table(tiny_records, "volume_error_ml", digits=1, absolute=True)
        assert "-" not in table.splitlines()[-1]

    def test_shift_table_starts_with_the_input(self, tiny_records):
        assert tabulate.shift_table(tiny_records).splitlines()[2].startswith("| input | 0.00")


class TestTables:
    def test_failures_and_worst_cases_are_counted(self, tiny_records):
        crash = {"case": "other", "method": simulated.DEFAULT, "error": "x"}
        table = tabulate.robustness_table([*tiny_records, crash]).splitlines()
        assert table[-1].startswith(f"| {simulated.DEFAULT} | 2 | 1 | 0 |")

    def test_only_cases_of_both_methods_are_paired(self, tiny_records):
        more = [*tiny_records, tiny_records[0] | {"case": "alone"}]
        pair = tabulate.paired(more, ("nearest neighbour", "shape-based"), "LV wall", "dice")
        assert len(pair[0]) == len(pair[1]) == 1

    def test_quoted_rows_say_so_and_leave_gaps(self):
        row = tabulate.quoted_row("paper", {"LV wall": (0.5, 0.25)}, tabulate.ORDER, 2)
        assert row == ["*paper*", "–", "*0.50 ± 0.25*", "–", "–"]

    def test_limits_of_agreement_have_signs(self, tiny_records):
        figures = {"LV wall": ("mass_error_g", "g")}
        shifted = [r | {"case": "second"} for r in tiny_records]
        table = tabulate.agreement_table([*tiny_records, *shifted], figures)
        assert "LV wall, g" in table and "[" in table.splitlines()[-1]

    def test_means_are_taken_case_by_case_and_say_what_is_in_them(self, tiny_records):
        row = tabulate.means_table(tiny_records).splitlines()[2]
        assert row.startswith("| nearest neighbour | 1.000 ± 0.000 | 1.000 ± 0.000 |")
        older = [dict(r) for r in tiny_records]
        for record in older:
            kept = {k: v for k, v in record["scores"]["raw"].items() if k != "background"}
            record["scores"] = record["scores"] | {"raw": kept}
        assert tabulate.means_table(older).splitlines()[2].split("|")[3] == " – "

    def test_pieces_that_were_not_counted_are_no_zero(self, tiny_records):
        counted = tabulate.robustness_table(tiny_records[:1]).splitlines()[-1]
        dice = {"raw": {"LV wall": {"dice": 0.5}}}
        other = tabulate.robustness_table([{"method": "m", "case": "c", "scores": dice}])
        assert counted.split("|")[5].strip().isdigit()
        assert other.splitlines()[-1].split("|")[5] == " – "

    def test_every_module_makes_its_tables_and_figures(self, tiny_records):
        result = {"records": [r | {"group": "healthy"} for r in tiny_records]}
        assert all(simulated.tables(result).values())
        assert set(simulated.plots_of(result)) <= set(
            name.removeprefix("figure-") for name, _ in MARKED
        )


class TestStore:
    @pytest.fixture(autouse=True)
    def folder(self, monkeypatch, tmp_path):
        monkeypatch.setattr(store, "FOLDER", tmp_path)
        monkeypatch.setattr(store, "settings", store.Settings())

    def units(self, calls, count=3):
        def measure(number):
            calls.append(number)
            if number == 1 and calls.count(1) == 1:
                raise ValueError("not today")
            return {"number": number}

        return [store.Unit({"case": n}, lambda n=n: measure(n)) for n in range(count)]

    def test_what_is_measured_is_not_measured_again_and_failures_are(self):
        calls = []
        first = store.gather("x", self.units(calls))
        assert first[0] == {"number": 0} and "not today" in first[1]["error"]
        again = store.gather("x", self.units(calls))
        assert again == [{"number": n} for n in range(3)]
        assert calls == [0, 1, 2, 1]

    def test_another_key_and_other_code_are_other_units(self, monkeypatch):
        places = {store.place("x", {"case": 0}), store.place("x", {"case": 1})}
        monkeypatch.setattr(store, "code_digest", lambda benchmark: "edited")
        places.add(store.place("x", {"case": 0}))
        assert len(places) == 3

    def test_printing_code_does_not_count_as_code_that_measures(self, monkeypatch, tmp_path):
        (tmp_path / "cardiacreg").mkdir()
        (tmp_path / "benchmarks").mkdir()
        monkeypatch.setattr(store.machine, "ROOT", tmp_path)
        digests = []
        for text in ("a = 1\n\ndef tables(r):\n    b", "a = 1\n\ndef tables(r):\n    c", "a = 2"):
            (tmp_path / "benchmarks" / "x.py").write_text(text)
            digests.append(store.code_digest.__wrapped__("x"))
        assert digests[0] == digests[1] != digests[2]

    def test_an_unfinished_run_can_be_reported_without_measuring(self):
        calls = []
        store.gather("x", self.units(calls))
        store.settings = store.Settings(stored_only=True)
        assert store.gather("x", self.units(calls, 4)) == [{"number": 0}, {"number": 2}]
        assert store.settings.left_out == 2 and calls == [0, 1, 2]

    def test_shards_share_the_work(self):
        for share in (1, 2):
            store.settings = store.Settings(shard=(share, 2))
            with pytest.raises(store.ShardDone):
                store.gather("x", self.units([1, 1]))
        store.settings = store.Settings()
        calls = [1, 1]
        store.gather("x", self.units(calls))
        assert calls == [1, 1]


class TestComparators:
    def test_gaussian_smoothing_keeps_a_cylinder(self):
        fine = comparators.gaussian_smoothing(discs([9] * 3, THICK), fine_grid(11), 1.0, 4.0)
        assert overlap.dice(fine, discs([9] * 11, FINE), 1) > 0.97

    @pytest.mark.parametrize("method", ["nearest neighbour", "shape-based"])
    def test_hidden_slices_are_the_odd_ones_in_their_place(self, method):
        labels = discs([-1, 6, 7, 8, 9, 10, 11, -1], THICK)
        stack, hidden = hidden_slices.every_second(labels)
        assert stack.shape[2] == 3 and stack.spacing_mm[2] == 20
        assert (stack.array == labels.array[:, :, 1:7:2]).all()
        heights = [each.voxel_to_world[2, 3] for each in hidden]
        assert heights == [20.0, 40.0]
        filled = [measuring.BASELINES[method](stack, each) for each in hidden]
        dice = hidden_slices.score(filled, hidden)["raw"]["LV cavity"]["dice"]
        assert dice > (0.97 if method == "shape-based" else 0.8)
        assert "LV wall" not in hidden_slices.score(filled, hidden)["raw"]

    def test_hidden_slices_may_be_translated_one_by_one(self):
        labels = discs([8] * 7, THICK)
        _, hidden = hidden_slices.every_second(labels)
        moved = [
            LabelMap(np.roll(each.array, step, axis=0), each.voxel_to_world)
            for each, step in zip(hidden, (3, -2, 4), strict=True)
        ]
        found = hidden_slices.score(moved, hidden)
        assert found["translation"]["LV cavity"]["dice"] > 0.99 > found["raw"]["LV cavity"]["dice"]

    def test_a_model_is_moved_back_to_where_a_hidden_slice_was_acquired(self):
        labels = discs([8] * 7, THICK)
        stack, hidden = hidden_slices.every_second(labels)
        in_place = discs([8] * 7, THICK, centre=(22.0, 20.0))
        shifts = np.tile([2.0, 0.0], (stack.shape[2], 1))
        filled = [hidden_slices.as_acquired(in_place, stack, shifts, each) for each in hidden]
        assert hidden_slices.score(filled, hidden)["raw"]["LV cavity"]["dice"] == 1

    def test_the_shift_of_a_hidden_slice_lies_between_its_neighbours(self):
        labels = discs([8] * 5, THICK)
        stack, hidden = hidden_slices.every_second(labels)
        shifts = np.array([[0.0, 0.0], [0.0, 6.0], [0.0, 6.0]])
        found = [
            np.argwhere(hidden_slices.as_acquired(labels, stack, shifts, each).array).mean(axis=0)
            for each in hidden
        ]
        np.testing.assert_allclose([f[:2] for f in found], [(20, 17), (20, 14)], atol=0.01)

    def test_too_few_slices_are_said(self):
        with pytest.raises(hidden_slices.TooFewSlices, match="2 slices"):
            hidden_slices.every_second(discs([5, 6, 7], THICK))

    def test_staple_of_equal_maps_is_their_map(self):
        pytest.importorskip("SimpleITK")
        from benchmarks.harness.propagation import Propagated

        labels = discs([4, 6, 8, 9], FINE)
        image = Volume(labels.array.astype(np.float32), FINE)
        found = comparators.staple(Propagated(image, [(image, labels)] * 3, 0.0)).labels
        assert (found.array == labels.array).all()

    def test_joint_label_fusion_trusts_the_atlas_that_looks_alike(self):
        if not comparators.available("ants"):
            pytest.skip("antspyx is not installed; see the extra bench-peers")
        from benchmarks.harness.propagation import Propagated

        rng = np.random.default_rng(0)
        truth, other = discs([9] * 12, FINE), discs([6] * 12, FINE)
        images = [
            Volume(100.0 * each.array + rng.normal(0, 3, each.shape), FINE)
            for each in (truth, other)
        ]
        pairs = list(zip(images, (truth, other), strict=True))
        found, seconds = comparators.joint_label_fusion(Propagated(images[0], pairs, 0.0))
        assert seconds > 0
        assert overlap.dice(found, truth, 1) > 0.97 > overlap.dice(other, truth, 1)

    def test_turning_moves_target_and_truth_together(self):
        heart = make_toy_heart()
        case = cases.Case("tiny", 1, "healthy", "ED", heart, np.zeros((8, 2)), heart.labels)
        found = turned.turned(case, 40.0)
        turn = turned.rotation(40.0, 1)[:3, :3]
        np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
        assert np.trace(turn) == pytest.approx(1 + 2 * np.cos(np.radians(40)))
        spacing = found.target.labels.spacing_mm
        np.testing.assert_allclose(spacing, heart.labels.spacing_mm)
        np.testing.assert_allclose(
            found.truth.voxel_to_world, found.target.labels.voxel_to_world, atol=1e-12
        )

    def test_eccentricity_of_an_ellipse_is_the_ratio_of_its_axes(self):
        i, j = np.meshgrid(np.arange(90) - 30.2, np.arange(90) - 45.3, indexing="ij")
        plane = np.where(np.hypot(i / 20, j / 30) <= 1, 1, np.where(np.hypot(i - 40, j) < 9, 4, 0))
        labels = LabelMap(np.repeat(plane[..., None], 6, axis=2), FINE)
        assert pathology.eccentricity(labels) == pytest.approx(1.5, abs=0.03)

    def test_noise_of_outlines_has_the_wanted_size(self):
        labels = discs([12] * 6, FINE)
        case = cases.Case("c", 1, "", "", Subject(labels), np.zeros((6, 2)), labels)
        assert (ablation.outlines_moved(0.0)(case)["labels"].array == labels.array).all()
        dice = [
            overlap.dice(ablation.outlines_moved(size)(case)["labels"], labels, 1)
            for size in (1, 3)
        ]
        assert 0.95 > dice[0] > dice[1] > 0.5


class TestPlots:
    def test_figures_are_written_twice_and_alike(self, tmp_path, tiny_records):
        first, second = [], []
        for folder, kept in (("a", first), ("b", second)):
            with plots.style():
                figure = plots.boxes(tiny_records, "dice", "Dice")
                kept += [f.read_bytes() for f in plots.save(figure, tmp_path / folder, "x")]
        assert first == second
        assert first[0].startswith(b"\x89PNG") and b"<svg" in first[1]


class TestCases:
    def test_synthetic_cases_are_not_in_the_bank(self):
        case = next(cases.synthetic_cases(1))
        assert case.seed >= FIRST_EVALUATION_SEED
        assert case.target.labels.spacing_mm[2] == pytest.approx(10, rel=0, abs=1e-10)
        assert isinstance(case.target.image, Volume)
        assert case.slice_shifts_mm.shape == (case.target.labels.shape[2], 2)
        assert case.truth.present() == (1, 2, 3, 4)

    def test_absent_data_are_said_to_be_absent(self, monkeypatch, tmp_path):
        monkeypatch.setenv(cases.DATA_VARIABLE, str(tmp_path))
        with pytest.raises(cases.DataAbsent, match="CARDIACREG_DATA"):
            cases.data_folder("acdc")

    def test_real_anatomies_are_whole_and_padded_on_all_sides(self):
        try:
            heart = cases.real_anatomy("subject00")
            given = read_labels(cases.data_folder("hr_bank") / "subject00.nii.gz")
        except cases.DataAbsent as absent:
            pytest.skip(str(absent))
        counts = [np.bincount(each.array.ravel())[1:] for each in (heart.labels, given)]
        assert (counts[0] == counts[1]).all()
        assert (margins_mm(heart.labels) >= cases.MARGIN_MM).all()
        again = baselines.interpolate_nearest(heart.labels, given)
        assert (again.array == given.array).all()
        case = cases.anatomy_case("subject00", 0)
        assert (case.truth.array == heart.labels.array).all()

    def test_padding_leaves_a_wide_lattice_alone(self):
        labels = two_discs()
        once = cases.padded(labels)
        assert (margins_mm(once) >= cases.MARGIN_MM).all()
        assert (margins_mm(once) < cases.MARGIN_MM + once.spacing_mm).all()
        assert cases.padded(once).shape == once.shape

    def test_the_truth_of_a_synthetic_heart_reaches_beyond_its_stack(self):
        heart = cases.Heart(FIRST_EVALUATION_SEED)
        case = heart.case()
        own = sample_heart(heart.seed, with_image=False).labels
        assert (margins_mm(case.truth) >= cases.MARGIN_MM).all()
        assert (
            np.bincount(case.truth.array.ravel())[1:] == np.bincount(own.array.ravel())[1:]
        ).all()
        axes = case.target.labels.voxel_to_world[:3, :3]
        assert abs((axes / np.linalg.norm(axes, axis=0))[2, 2]) < 1 - 1e-4

    def test_the_truth_scores_perfectly_with_its_margin_and_outflow_tract(self):
        try:
            truth = cases.real_anatomy("subject10").labels
        except cases.DataAbsent as absent:
            pytest.skip(str(absent))
        found = scoring.score(truth, truth)
        assert found["raw"]["LV cavity"]["dice_apex"] == 1
        wrong = truth.array.copy()
        held = np.flatnonzero(np.isin(wrong, (1, 2)).any(axis=(0, 1)))
        wrong[:, :, : held[0] + len(held) // 4] = 0
        cut = scoring.score(LabelMap(wrong, truth.voxel_to_world), truth)["raw"]["LV wall"]
        assert cut["dice_apex"] < 0.7 and cut["dice_mid"] == cut["dice_base"] == 1

    def test_what_is_drawn_above_the_base_is_scored(self):
        truth = cases.Heart(FIRST_EVALUATION_SEED).case().truth
        top = int(np.flatnonzero((truth.array == 1).any(axis=(0, 1)))[-1])
        array = truth.array.copy()
        array[:, :, top + 1 : top + 9] = array[:, :, top - 4 : top - 3]
        dice = overlap.dice(LabelMap(array, truth.voxel_to_world), truth, 1)
        assert dice < 0.95

    def test_the_last_ablation_step_is_the_default(self):
        assert list(ablation.variants().values())[-1] == RefineOptions()

    def test_recall_of_a_simulated_bank_is_whole_where_all_are_proposed(self, monkeypatch):
        monkeypatch.setattr(selection, "PROPOSED", (5, 12))
        bank = selection.SimulatedBank(4, 12)
        result = json.loads(json.dumps(selection.measure_recall(bank, 1)))
        assert result["recall"][0]["curve"]["12"]["recall"] == 1
        assert result["recall"][0]["brute_seconds"] > 0
        assert result["simulated"]["index_megabytes"] >= 0
        tables = selection_large.tables(result)
        assert "| 12 | 1.000 |" in tables["selection-large-recall"]

    def test_mixed_atlases_lie_between_their_hearts(self):
        bank = selection.SimulatedBank(4, 6)
        first, second, share = bank.recipes[5]
        assert 0.2 <= share <= 0.8 and first != second
        own, ends = bank.subject(5).labels, [bank.subject(n).labels for n in (first, second)]
        assert min(overlap.dice(own, end, 1) for end in ends) > overlap.dice(*ends, 1)
        points = np.array([10_000, 20, 12_345])
        assert (bank.labels_at(5, points) == own.array.ravel()[points]).all()

    def test_fusion_variants_start_without_an_image(self):
        assert fusion_modes.variants()[fusion_modes.LABEL_VOTES] is None

    @pytest.mark.filterwarnings("ignore::cardiacreg.errors.InputWarning")
    def test_fusions_by_image_look_at_the_atlases_images(self, monkeypatch):
        """A default refinement leaves them out; without them all fusions are the same votes."""
        bank = AtlasView(tiny_atlases(6))
        monkeypatch.setattr(fusion_modes, "gather_atlases", lambda *_: bank)
        monkeypatch.setattr(fusion_modes, "SPACING_MM", (3.0, 3.0, 4.0))
        target, patches = tiny_target(), FusionOptions(search=(3, 3, 1), bandwidth=200.0)
        found, _ = fusion_modes.fuse_every_way(
            target.labels, target.image, {"votes": None, "patches": patches}
        )
        votes, looked = (each.labels.array for each in found)
        assert 0 < (votes != looked).mean() < 0.05

    @pytest.mark.filterwarnings("ignore::cardiacreg.errors.InputWarning")
    def test_atlases_to_choose_from_by_image_have_theirs(self, monkeypatch):
        bank = AtlasView(tiny_atlases(4))
        monkeypatch.setattr(selection_by_image, "gather_atlases", lambda *_: bank)
        target = tiny_target()
        found = selection_by_image.best_by_labels(target.labels, target.image, 2)
        assert len(found) == 2 and all(atlas.image is not None for atlas in found)

    def test_fusion_sees_the_image_of_the_kept_slices_only(self):
        array = np.zeros((6, 5, 9), dtype=np.uint8)
        array[2:4, 2:4, 1:8] = 1
        labels = LabelMap(array, np.diag([2.0, 2.0, 10.0, 1.0]))
        values = np.broadcast_to(np.arange(9.0), array.shape)
        stack, hidden = hidden_slices.every_second(labels)
        seen = fusion_modes.of_stack(Volume(values, labels.voxel_to_world), stack)
        assert seen.array[0, 0].tolist() == [1, 3, 5, 7] and len(hidden) == 3
        np.testing.assert_array_equal(seen.voxel_to_world, stack.voxel_to_world)

    def test_gains_of_fusions_are_over_label_votes(self):
        def record(method, case, dice):
            scores = {name: {"LV wall": {"dice": dice}} for name in fusion_modes.ALIGNMENTS}
            return {
                "method": method,
                "case": case,
                "data": "ACDC",
                "scores": scores,
                "fuse_seconds": 1,
            }

        votes = fusion_modes.LABEL_VOTES
        records = [record(votes, "a", 0.5), record(votes, "b", 0.7)]
        records += [record("joint", "a", 0.6), record("joint", "b", 0.5)]
        table = fusion_modes.tables({"records": records})["fusion-gain"]
        assert "| joint | – | -0.050 (better in 1 of 2) | -0.050 (better in 1 of 2) |" in table


class TestRunner:
    def test_names_may_have_hyphens(self):
        assert runner._parser().parse_args(["fusion-modes"]).name == "fusion_modes"

    @pytest.mark.parametrize("alias", ["high-resolution", "gaps", "landmarks"])
    def test_experiments_of_the_paper_have_names_too(self, alias):
        assert runner._parser().parse_args([alias]).name in runner.names()

    def test_all_goes_on_after_a_failure(self, monkeypatch, capsys):
        monkeypatch.setattr(runner, "names", lambda: ["ablation", "simulated"])
        seen = []

        def measure(name, **options):
            seen.append(name)
            if name == "ablation":
                raise ValueError("broken")
            return {"records": []}

        monkeypatch.setattr(runner, "measure", measure)
        monkeypatch.setattr(runner, "load", lambda name: object())
        assert runner.main(["all", "--quick"]) == 1
        assert seen == ["ablation", "simulated"]
        assert "['ablation']" in capsys.readouterr().out

    def test_every_benchmark_has_a_run(self):
        names = runner.names()
        assert {"simulated", "anatomy_transfer", "real", "speed", "ablation"} <= set(names)
        assert not {"scoring", "plots", "store", "report", "hidden_slices"} & set(names)
        assert all(callable(runner.load(name).run) for name in names)

    def test_absent_data_are_a_skip_with_exit_code_0(self, monkeypatch, tmp_path, capsys):
        monkeypatch.setenv(cases.DATA_VARIABLE, str(tmp_path))
        assert runner.main(["anatomy_transfer", "--quick"]) == 0
        assert "skipped" in capsys.readouterr().out

    def test_a_result_is_written_with_its_machine(self, monkeypatch, tmp_path, tiny_records):
        monkeypatch.setattr(simulated, "run", lambda quick: {"seeds": [1], "records": tiny_records})
        monkeypatch.setattr(simulated, "tables", lambda result: {"one": "table"})
        place = tmp_path / "found.json"
        assert runner.main(["simulated", "--quick", "--json", str(place)]) == 0
        stored = json.loads(place.read_text())
        assert stored["quick"] and stored["machine"]["numpy"] == np.__version__
        assert len(stored["records"]) == 3

    def test_a_crash_on_real_data_is_recorded_and_not_kept(self, monkeypatch, tmp_path):
        broken = cases.Acquisition("x", tmp_path / "no.nii", tmp_path / "no.nii", "acdc", "", "ED")
        monkeypatch.setattr(store, "FOLDER", tmp_path)
        (record,) = store.gather("real", [real._unit(broken, "whole")])
        assert "error" in record and record["case"] == "x"
        assert not list(tmp_path.glob("real/*"))


class TestReport:
    TEXT = "a\n<!-- table one -->\nold\n<!-- end one -->\nb\n<!-- table two -->\n<!-- end two -->\n"

    def test_markers_are_filled_and_kept(self):
        filled = report.fill(self.TEXT, {"one": "| 1 |"})
        assert "old" not in filled and "| 1 |" in filled
        assert "Not measured yet." in filled
        assert report.fill(filled, {"one": "| 1 |"}) == filled

    def test_links_to_figures_start_at_the_document(self, tmp_path):
        (figure,) = report._pictures_of([report.FIGURES / "scaling.png"]).values()
        text = "<!-- table one -->\n<!-- end one -->\n"
        for folder, link in (
            ("", "docs/figures"),
            ("docs", "figures"),
            ("docs/studies", "../figures"),
        ):
            place = report.FIGURES.parent.parent / folder
            assert f"]({link}/scaling.png)" in report.fill(text, {"one": figure}, place)

    def test_short_tables_copy_cells_of_the_studies(self):
        row = "| default, labels only, steady, 2 threads | 1.5 | 2.5 | 300 | 6 |"
        head = (
            "| refinement | seconds | processor seconds | peak memory, MiB | runs |\n| --- | ---: |"
        )
        (table,) = excerpts.tables({"speed": f"{head}\n{row}"}).values()
        assert table.splitlines()[2:] == ["| each further heart | 1.5 | 2.5 | 300 |"]

    def test_stored_results_give_tables(self):
        tables = report.collect(report.RESULTS)
        assert all(isinstance(table, str) and table for table in tables.values())
