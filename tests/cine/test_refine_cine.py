"""A whole cine of toy hearts: every frame a model, one set of shifts, and files that say so."""

import csv
import json
import warnings
from dataclasses import replace

import nibabel
import numpy as np
import pytest
from click.testing import CliRunner

import cardiacreg
from cardiacreg.cine.files import FILE_NAMES
from cardiacreg.cine.models import WALL_VOLUME_VARIES, cine_findings
from cardiacreg.cli.app import main
from cardiacreg.errors import InputWarning, InvalidInputError, RefinementError
from cardiacreg.fusion.label_fusion import FusionOptions
from cardiacreg.geometry import LabelMap
from cardiacreg.io.nifti import read_stored_frames
from cardiacreg.phantoms.toy_heart import make_toy_heart
from cardiacreg.refinement.options import RefineOptions
from cardiacreg.results.guards import Finding

SIZES = (1.0, 0.97, 0.9, 0.85, 0.82, 0.84, 0.89, 0.94, 0.98)
SPACING_MM = (2.5, 2.5, 4.0)
OPTIONS = RefineOptions(n_atlases=2, orientation="as-stored", affine_candidates=3)
ATLASES = [make_toy_heart(size=size) for size in (0.8, 0.9, 1.02)]


def toys(sizes=SIZES):
    return [make_toy_heart(size=size).labels for size in sizes]


def refined(series, **arguments):
    given = {"atlases": ATLASES, "spacing_mm": SPACING_MM, "options": OPTIONS, "threads": 2}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        return cardiacreg.refine_cine(series, **(given | arguments))


@pytest.fixture(scope="module")
def result():
    frames = toys()
    frames[6] = LabelMap(np.zeros(frames[6].shape, np.uint8), frames[6].voxel_to_world)
    return refined(frames, times_ms=[80.0 * n for n in range(9)])


def test_every_frame_has_a_model_on_one_lattice(result):
    assert [frame.number for frame in result.frames] == list(range(9))
    for frame in result.frames:
        np.testing.assert_array_equal(
            frame.labels.voxel_to_world, result.frames[0].labels.voxel_to_world
        )
        assert frame.labels.shape == result.frames[0].labels.shape
        assert set(frame.labels.present()) == {1, 2, 3, 4}
    assert result.minimum_jacobian > 0


def test_models_follow_their_frames(result):
    """A low pass in time keeps the slow wave."""
    for n, frame in enumerate(result.frames):
        if not frame.filled_in:
            assert frame.agreement["LV cavity"] > 0.85, n
            assert frame.volumes["LV cavity"].input_ml > 0
    curve = result.volumes_ml["LV cavity"]
    truth = np.array([cardiacreg.volumes_ml(each)["LV cavity"] for each in toys()])
    assert np.corrcoef(curve, truth)[0, 1] > 0.93


def test_a_frame_without_labels_is_filled_in_and_marked(result):
    assert [frame.filled_in for frame in result.frames] == [n == 6 for n in range(9)]
    curve = result.volumes_ml["LV cavity"]
    assert curve[5] < curve[6] < curve[7]
    assert result.frames[6].agreement == {} and result.frames[6].findings == ()
    assert any("frames [6]" in note for note in result.warnings)


def test_phases_and_ejection_fraction(result):
    assert (result.ed, result.es) == (0, 4)
    true = [cardiacreg.volumes_ml(make_toy_heart(size=s).labels)["LV cavity"] for s in (1, 0.82)]
    assert result.ejection_fractions["LV"] == pytest.approx(1 - true[1] / true[0], abs=0.1)
    assert 0 < result.ejection_fractions["RV"] < 1
    assert [frame.time_ms for frame in result.frames] == [80.0 * n for n in range(9)]


def test_there_is_one_set_of_shifts_and_of_atlases(result):
    assert result.slice_shifts_mm.shape == (8, 2)
    assert len(result.atlases) == 2
    assert all(len(frame.transforms) == 2 for frame in result.frames)


def test_points_are_followed_there_and_back(result):
    points = make_toy_heart().labels.voxel_to_world[:3, 3] + [
        [60.0, 50.0, 40.0],
        [70.0, 55.0, 36.0],
    ]
    there = result.follow(points, result.es)
    assert np.linalg.norm(there - points, axis=1).max() < 20
    np.testing.assert_allclose(result.follow(points, result.ed), points, atol=0.01)
    back = result.follow(there, result.ed, since=result.es)
    np.testing.assert_allclose(back, points, atol=1.5)
    bare = replace(result, frames=tuple(replace(f, transforms=()) for f in result.frames))
    with pytest.raises(InvalidInputError) as caught:
        bare.follow(points, 0)
    assert caught.value.code == "NO_TRANSFORMS"


def test_threads_change_nothing(result):
    frames = toys((1.0, 0.85))
    one, other = (refined(frames, threads=threads) for threads in (1, 2))
    for ours, theirs in zip(one.frames, other.frames, strict=True):
        np.testing.assert_array_equal(ours.labels.array, theirs.labels.array)
        np.testing.assert_array_equal(ours.confidence.array, theirs.confidence.array)


def test_chosen_frames_are_refined_alone():
    found = refined(toys(), frames="ED,ES")
    assert [frame.number for frame in found.frames] == [0, 4]
    assert (found.ed, found.es) == (0, 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"slice_turns": True},
        {"upsample_target": True},
        {"selection": "image"},
        {"fusion": FusionOptions()},
    ],
)
def test_options_of_single_frames_are_refused(changes):
    with pytest.raises(InvalidInputError) as caught:
        refined(toys((1.0, 0.85)), options=replace(OPTIONS, **changes))
    assert caught.value.code == "BAD_OPTION"


@pytest.mark.parametrize("times", [[0.0], [0.0, 0.0], [10.0, 5.0]])
def test_bad_times_are_refused(times):
    with pytest.raises(InvalidInputError) as caught:
        refined(toys((1.0, 0.85)), times_ms=times)
    assert caught.value.code == "BAD_TIMES"


def test_no_slice_motion_is_no_shift():
    found = refined(toys((1.0, 0.85)), options=replace(OPTIONS, slice_motion=None))
    assert not found.slice_shifts_mm.any()


def test_a_wall_that_changes_is_a_finding(result):
    half = np.array(result.frames[1].labels.array)
    half[half == 2] = np.where(np.arange((half == 2).sum()) % 2, 2, 0)
    thin = replace(result.frames[1], labels=LabelMap(half, result.frames[1].labels.voxel_to_world))
    steady = replace(result.frames[0], findings=())
    codes = [
        f.code for f in cine_findings([steady, replace(thin, findings=())], result.orientation)
    ]
    assert codes == [WALL_VOLUME_VARIES]
    assert cine_findings([steady, steady], result.orientation) == ()


def test_a_finding_that_most_frames_share_names_itself(result):
    beyond = Finding("BEYOND_ENDS", "beyond the base: LV 9 ml")
    frames = [replace(result.frames[0], number=n, findings=(beyond,) * (n > 0)) for n in range(3)]
    (found,) = cine_findings(frames, result.orientation)
    assert found.code == "BEYOND_ENDS"
    assert found.message == "in 2 of 3 frames, as in frame 1: beyond the base: LV 9 ml"


def test_atlases_that_do_not_overlap_end_the_work(monkeypatch):
    monkeypatch.setattr("cardiacreg.cine.models.track_atlas", lambda *arguments: [])
    with pytest.raises(RefinementError) as caught:
        refined(toys((1.0, 0.85)))
    assert caught.value.code == "NO_OVERLAP"


class TestFiles:
    def test_a_saved_cine_says_everything(self, result, tmp_path):
        folder = result.save(tmp_path / "out")
        assert {path.name for path in folder.iterdir()} == set(FILE_NAMES)
        frames = read_stored_frames(folder / "labels.nii.gz")
        for ours, frame in zip(frames, result.frames, strict=True):
            np.testing.assert_array_equal(ours.codes.array, frame.labels.array)
        header = nibabel.load(folder / "labels.nii.gz").header
        assert header["pixdim"][4] == pytest.approx(80) and header.get_xyzt_units()[1] == "msec"
        with (folder / "volumes.csv").open(encoding="utf-8") as table:
            rows = list(csv.DictReader(table))
        assert [row["phase"] for row in rows] == ["ED", "", "", "", "ES", "", "", "", ""]
        assert rows[6]["filled_in"] == "yes" and rows[1]["time_ms"] == "80"
        curve = [float(row["LV cavity ml"]) for row in rows]
        np.testing.assert_allclose(curve, result.volumes_ml["LV cavity"], atol=0.01)
        said = json.loads((folder / "cine.json").read_text(encoding="utf-8"))
        assert (said["ed_frame"], said["es_frame"]) == (0, 4)
        assert np.shape(said["slice_shifts_mm"]) == (8, 2) and len(said["frames"]) == 9
        assert set(said["files_sha256"]) == set(FILE_NAMES) - {"cine.json"}

    def test_a_saved_cine_becomes_bids_derivatives(self, result, tmp_path):
        folder = result.save(tmp_path / "out")
        place = cardiacreg.write_bids(folder, tmp_path / "bids", subject="1")
        (labels,) = place.glob("anat/*.nii.gz")
        assert labels.read_bytes() == (folder / "labels.nii.gz").read_bytes()
        said = json.loads(labels.with_name(labels.name.replace(".nii.gz", ".json")).read_text())
        assert said["cardiacreg"]["es_frame"] == 4 and any(place.glob("figures/*.png"))

    def test_an_earlier_cine_is_kept(self, result, tmp_path):
        (tmp_path / "cine.json").write_text("mine")
        with pytest.raises(InvalidInputError) as caught:
            result.save(tmp_path)
        assert caught.value.code == "OUTPUT_EXISTS"
        result.save(tmp_path, overwrite=True)
        assert json.loads((tmp_path / "cine.json").read_text())["schema_version"] == 2

    def test_a_result_and_a_cine_replace_each_other(self, result, tmp_path):
        atlases = [make_toy_heart(size=size) for size in (0.9, 1.0)]
        options = RefineOptions(n_atlases=1, orientation="as-stored")
        single = cardiacreg.refine(
            make_toy_heart(size=0.95).labels, atlases=atlases, options=options
        )
        for made, there, gone in (
            (result, "cine.json", "result.json"),
            (single, "result.json", "cine.json"),
            (result, "cine.json", "result.json"),
        ):
            made.save(tmp_path, overwrite=True)
            assert (tmp_path / there).is_file() and not (tmp_path / gone).exists()


class TestCommand:
    @pytest.fixture
    def series(self, tmp_path):
        frames = toys((1.0, 0.9, 0.82))
        array = np.stack([each.array for each in frames], axis=-1)
        path = tmp_path / "cine.nii.gz"
        nibabel.save(nibabel.Nifti1Image(array, frames[0].voxel_to_world), path)
        return path

    def run(self, series, files, *more):
        arguments = ["refine", "-i", series, "--atlases", files.atlases, "--spacing", 2.5, 2.5, 4]
        arguments += ["--orientation", "as-stored", "-o", series.parent / "out", *more]
        return CliRunner().invoke(main, [str(each) for each in arguments])

    def test_frames_are_refined_from_a_file(self, series, tiny_files):
        found = self.run(series, tiny_files, "--frames", "ED,ES", "-q")
        assert found.exit_code == 0, found.output
        assert {path.name for path in (series.parent / "out").iterdir()} == set(FILE_NAMES)
        assert "ejection fraction LV" in found.stdout
        assert [line.split()[0] for line in found.stdout.splitlines()[1:3]] == ["0", "2"]

    def test_json_is_printed(self, series, tiny_files):
        found = self.run(series, tiny_files, "--frames", "0,2", "-q", "--json")
        assert found.exit_code == 0, found.output
        assert [each["frame"] for each in json.loads(found.stdout)["frames"]] == [0, 2]

    @pytest.mark.parametrize("more", [("--frames", "some"), ("--frames", "all", "--frame", "0"),
                                      ("--frames", "all", "--surface")])  # fmt: skip
    def test_wrong_usage_is_told(self, series, tiny_files, more):
        found = self.run(series, tiny_files, *more)
        assert found.exit_code == 2 and "Error" in found.stderr

    def test_a_frame_that_is_not_there_is_an_input_error(self, series, tiny_files):
        found = self.run(series, tiny_files, "--frames", "0,7")
        assert found.exit_code == 1 and "error [BAD_FRAME]" in found.stderr
