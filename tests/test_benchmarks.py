"""The benchmarks' own parts: baselines, alignment, scores, tables; the long runs are no tests."""

import json

import numpy as np
import pytest

from benchmarks import __main__ as runner
from benchmarks import (
    ablation,
    baselines,
    cases,
    fusion_modes,
    measuring,
    real,
    report,
    scoring,
    simulated,
    tabulate,
)
from cardiacreg import LabelMap, RefineOptions, Volume, metrics
from cardiacreg.phantoms import FIRST_EVALUATION_SEED
from cardiacreg.tiny_heart import tiny_heart

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
        fine = baselines.nearest_neighbour(thick, fine_grid(12))
        levels = [int((fine.array[:, :, k] > 0).sum()) for k in range(12)]
        expected = [int((thick.array[:, :, k] > 0).sum()) for k in range(3)]
        assert levels == [expected[0]] * 3 + [expected[1]] * 5 + [expected[2]] * 4

    def test_nearest_neighbour_is_background_outside(self):
        thick = discs([5, 5], THICK)
        assert not baselines.nearest_neighbour(thick, fine_grid(20)).array[:, :, 8:].any()

    @pytest.mark.parametrize("method", [baselines.nearest_neighbour, baselines.shape_based])
    def test_a_cylinder_is_reproduced_exactly(self, method):
        fine = method(discs([8, 8, 8], THICK), fine_grid(11))
        assert (fine.array == discs([8] * 11, FINE).array).all()

    def test_shape_based_interpolates_a_cone(self):
        fine = baselines.shape_based(discs([16, 10, 4], THICK), fine_grid(11))
        areas = (fine.array > 0).sum(axis=(0, 1))
        radii = np.sqrt(areas / np.pi)
        np.testing.assert_allclose(radii, np.linspace(16, 4, 11), atol=0.4)

    def test_nearest_neighbour_makes_steps_of_a_cone(self):
        fine = baselines.nearest_neighbour(discs([16, 10, 4], THICK), fine_grid(11))
        assert len(np.unique((fine.array > 0).sum(axis=(0, 1)))) == 3

    def test_shape_based_leaves_no_gap_between_nested_labels(self):
        outer, inner = discs([14, 14], THICK).array, discs([4, 9], THICK).array
        fine = baselines.shape_based(LabelMap(outer + inner, THICK), fine_grid(6))
        assert ((fine.array > 0) == (discs([14] * 6, FINE).array > 0)).all()
        sizes = (fine.array == 2).sum(axis=(0, 1))
        assert (np.diff(sizes) > 0).all()

    def test_shape_based_works_on_a_shifted_grid(self):
        grid_matrix = FINE.copy()
        grid_matrix[:3, 3] = (3.0, -2.0, 4.0)
        grid = LabelMap(np.zeros((20, 20, 3)), grid_matrix)
        fine = baselines.shape_based(discs([8, 8], THICK), grid)
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
        assert metrics.dice(found.labels, truth, 2) > 0.99

    def test_a_tilt_is_found_and_removed(self):
        truth = two_discs()
        tilted = moved(truth, (1, 0), (3, -2))
        without = scoring.align(tilted, truth, tilt=False)
        found = scoring.align(tilted, truth, tilt=True)
        np.testing.assert_allclose(found.tilt_mm, (-3.75, 2.5), atol=0.7)
        assert metrics.dice(found.labels, truth, 2) > metrics.dice(without.labels, truth, 2) + 0.02
        assert metrics.dice(found.labels, truth, 2) > 0.97

    def test_alignment_never_lowers_the_mean_dice(self):
        truth = two_discs()
        noisy = moved(truth, (1, 1), (1, 0))
        found = scoring.dice_only(noisy, truth)
        means = [
            np.mean([found[key][name]["dice"] for name in ("LV cavity", "LV wall")])
            for key in ("raw", "translation", "tilt")
        ]
        assert means == sorted(means)

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

    def test_wilcoxon_of_equal_pairs_is_one(self):
        assert scoring.wilcoxon_p([1.0, 2.0], [1.0, 2.0]) == 1
        assert scoring.wilcoxon_p(np.arange(20) + 1.0, np.zeros(20)) < 0.001


@pytest.fixture(scope="module")
def tiny_records():
    """The tiny heart measured as the long benchmarks measure theirs."""
    heart, atlas = tiny_heart(), tiny_heart(size=0.9)
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


class TestCases:
    def test_synthetic_cases_are_not_in_the_bank(self):
        case = next(cases.synthetic_cases(1))
        assert case.seed >= FIRST_EVALUATION_SEED
        assert case.target.labels.spacing_mm[2] == 10
        assert isinstance(case.target.image, Volume)
        assert case.slice_shifts_mm.shape == (case.target.labels.shape[2], 2)
        assert case.truth.present() == (1, 2, 3, 4)

    def test_absent_data_are_said_to_be_absent(self, monkeypatch, tmp_path):
        monkeypatch.setenv(cases.DATA_VARIABLE, str(tmp_path))
        with pytest.raises(cases.DataAbsent, match="CARDIACREG_DATA"):
            cases.data_folder("acdc")

    def test_real_anatomies_are_cut_below_the_mitral_valve(self):
        try:
            heart = cases.real_anatomy("subject00")
        except cases.DataAbsent as absent:
            pytest.skip(str(absent))
        top = heart.labels.voxel_to_world[2, 3] + 2.0 * (heart.labels.shape[2] - 1)
        assert 15.0 < top <= 23.7 - cases.CUT_BELOW_MITRAL_MM
        assert heart.labels.array[:, :, -1].any()

    def test_the_last_ablation_step_is_the_default(self):
        assert list(ablation.variants().values())[-1] == RefineOptions()

    def test_fusion_variants_start_without_an_image(self):
        assert fusion_modes.variants()[fusion_modes.LABEL_VOTES] is None


class TestRunner:
    def test_every_benchmark_has_a_run(self):
        names = runner.names()
        assert {"simulated", "anatomy_transfer", "real", "speed", "ablation"} <= set(names)
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

    def test_a_crash_on_real_data_is_recorded(self, tmp_path):
        broken = cases.Acquisition("x", tmp_path / "no.nii", tmp_path / "no.nii", "acdc", "", "ED")
        record = real._measure(broken)
        assert "error" in record and "scores" not in record


class TestReport:
    TEXT = "a\n<!-- table one -->\nold\n<!-- end one -->\nb\n<!-- table two -->\n<!-- end two -->\n"

    def test_markers_are_filled_and_kept(self):
        filled = report.fill(self.TEXT, {"one": "| 1 |"})
        assert "old" not in filled and "| 1 |" in filled
        assert "Not measured yet." in filled
        assert report.fill(filled, {"one": "| 1 |"}) == filled

    def test_stored_results_give_tables(self):
        tables = report.collect(report.RESULTS)
        assert all(isinstance(table, str) and table for table in tables.values())
