"""Label conventions, frames and formats as the commands see them."""

import json

import nibabel
import numpy as np
import pytest

from cardiacreg.geometry import LabelMap
from cardiacreg.io import nifti
from tests.cli.test_commands import assert_one_line_error, run
from tests.helpers.small_hearts import relabelled, small_heart

VALUES = {1: 500, 2: 205, 3: 0, 4: 600}


@pytest.fixture
def heart():
    return small_heart()


def write(path, labels):
    nifti.write_labels(path, labels)
    return path


def write_large(path, labels):
    """The values of MM-WHS."""
    table = np.array([VALUES.get(n, 0) for n in range(5)], dtype=np.int16)
    nibabel.Nifti1Image(table[labels.array], labels.voxel_to_world).to_filename(path)
    return path


def evaluated(prediction, truth, *more):
    result = run("evaluate", "-i", prediction, "-r", truth, *more, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize("meaning", [("--preset", "mmwhs"), ("--map", "500=1,205=2,600=4")])
def test_large_values_are_read_through_a_preset_or_a_map(heart, tmp_path, meaning):
    pred, truth = write_large(tmp_path / "a.nii.gz", heart), write(tmp_path / "b.nii.gz", heart)
    found = evaluated(pred, truth, *meaning)
    assert all(row["dice"] == 1 for row in found["structures"].values())
    assert "500 LV cavity" in found["read_as"]["prediction"]
    assert found["read_as"]["truth"].startswith("canonical labels: 1 LV cavity")


def test_a_wrong_meaning_is_refused_in_the_words_of_its_file(heart, tmp_path):
    good = write(tmp_path / "a.nii.gz", heart)
    acdc = write(tmp_path / "b.nii.gz", relabelled(heart, {1: 3, 4: 1}))
    result = run("evaluate", "-i", acdc, "-r", good)
    assert_one_line_error(result, "WRONG_PRESET")
    assert "b.nii.gz" in result.stderr and "try --preset acdc" in result.stderr
    result = run("evaluate", "-i", good, "-r", acdc)
    assert "try --reference-preset acdc" in result.stderr
    assert run("evaluate", "-i", good, "-r", acdc, "--reference-preset", "acdc").exit_code == 0
    result = run("evaluate", "-i", acdc, "-r", good, "--map", "3=1,2=2")
    assert_one_line_error(result, "UNEXPECTED_LABEL")
    assert "complete --map, with 1=0" in result.stderr
    for wrong in (("--map", "3"), ("--map", "a=1"), ("--map", "1=1,1=2"), ("--frame", "XY")):
        assert run("evaluate", "-i", good, "-r", good, *wrong).exit_code == 2
    assert run("evaluate", "-i", good, "-r", good, "--map", "1=1", "--preset", "mms").exit_code == 2


def test_evaluate_tells_which_preset_it_assumed(heart, tmp_path):
    good = write(tmp_path / "a.nii.gz", heart)
    result = run("evaluate", "-i", good, "-r", good)
    assert "PRED is read by its canonical labels: 1 LV cavity, 2 LV wall" in result.stderr


def test_a_cropped_map_keeps_its_volume(heart, tmp_path):
    cropped = LabelMap(heart.array[:, :, :4], heart.voxel_to_world)
    truth = write(tmp_path / "truth.nii.gz", heart)
    pred = write(tmp_path / "pred.nii.gz", cropped)
    for first, second, key in ((pred, truth, "outside_prediction"), (truth, pred, "outside_truth")):
        found = evaluated(first, second)
        assert found[key] == pytest.approx(0.5)
        cavity = found["structures"]["LV cavity"]
        sizes = {cavity["volume_ml"], cavity["true_volume_ml"]}
        assert min(sizes) == pytest.approx(max(sizes) / 2)
    assert "50.0 % of TRUTH's labelled voxels" in run("evaluate", "-i", pred, "-r", truth).stderr


def test_maps_that_do_not_meet_are_refused(heart, tmp_path):
    far = heart.voxel_to_world.copy()
    far[0, 3] += 500
    pred = write(tmp_path / "pred.nii.gz", LabelMap(heart.array, far))
    result = run("evaluate", "-i", pred, "-r", write(tmp_path / "truth.nii.gz", heart))
    assert_one_line_error(result, "LATTICE_MISMATCH")


def test_a_structure_that_is_missing_has_no_distance(heart, tmp_path):
    whole = write(tmp_path / "whole.nii.gz", heart)
    part = write(tmp_path / "part.nii.gz", relabelled(heart, {4: 0}))
    row = evaluated(whole, part)["structures"]["RV cavity"]
    assert row["note"] == "not in the truth" and row["dice"] is None and row["hausdorff_mm"] is None
    assert row["volume_ml"] > 0 and row["true_volume_ml"] is None
    row = evaluated(part, whole)["structures"]["RV cavity"]
    assert row["note"] == "not in the prediction" and row["dice"] == 0
    assert row["hausdorff_mm"] is None and row["true_volume_ml"] > 0
    text = run("evaluate", "-i", whole, "-r", part).stdout
    line = next(line for line in text.splitlines() if line.startswith("RV cavity"))
    assert "not in the truth" in line and "1.000" not in line


def test_frames_are_chosen_by_phase(heart, tmp_path):
    cine = np.zeros((*heart.shape, 6), dtype=np.uint8)
    cine[..., 1], cine[..., 4] = heart.array, relabelled(heart, {4: 0}).array
    nibabel.Nifti1Image(cine, heart.voxel_to_world).to_filename(tmp_path / "cine.nii.gz")
    words = ("evaluate", "-i", tmp_path / "cine.nii.gz", "-r", tmp_path / "cine.nii.gz")
    result = run(*words)
    assert_one_line_error(result, "FRAME_NEEDED")
    assert (
        "frames 1, 4 hold labels" in result.stderr and "--frame ED or --frame ES" in result.stderr
    )
    assert "frame 4" in run(*words, "--frame", "es").stderr
    assert run(*words, "--frame", 1).exit_code == 0


def test_a_file_for_a_folder_and_a_folder_for_a_file_are_told_apart(heart, tmp_path):
    path = write(tmp_path / "seg.nii.gz", heart)
    result = run("refine", path, "-o", tmp_path / "out")
    assert_one_line_error(result, "NO_FOLDER")
    assert "is a file" in result.stderr and "with -i" in result.stderr
    result = run("refine", "-i", tmp_path, "-o", tmp_path / "out")
    assert_one_line_error(result, "UNREADABLE_FILE")
    assert "without -i" in result.stderr


def test_surfaces_of_all_frames_are_refused_and_not_forgotten(heart, tmp_path):
    path = write(tmp_path / "seg.nii.gz", heart)
    more = ("--frames", "all", "--surfaces", "vtp")
    result = run("refine", "-i", path, "-o", tmp_path / "out", *more)
    assert result.exit_code == 2 and "cardiacreg surfaces OUT --frame N" in result.stderr


def test_what_is_said_of_a_second_file_as_of_the_first_is_not_repeated(heart, tmp_path):
    paths = []
    for name in ("a.nii.gz", "b.nii.gz"):
        image = nibabel.Nifti1Image(heart.array, heart.voxel_to_world)
        image.header["pixdim"][1:4] = heart.spacing_mm * 1.5
        image.to_filename(tmp_path / name)
        paths.append(tmp_path / name)
    lines = run("evaluate", "-i", paths[0], "-r", paths[1]).stderr.splitlines()
    told = [line for line in lines if line.startswith("warning: ") and "sform" in line]
    assert len(told) == 1 and "a.nii.gz" in told[0]
    assert f"warning: {paths[1]}: likewise." in lines


def test_fine_voxels_are_accepted_when_asked_for(heart, tmp_path):
    thick = LabelMap(heart.array, heart.voxel_to_world @ np.diag([1, 1, 4, 1]))
    path = write(tmp_path / "a.nii.gz", thick)
    result = run("evaluate", "-i", path, "-r", path)
    assert_one_line_error(result, "IMPLAUSIBLE_SPACING")
    assert "add --no-check-spacing" in result.stderr
    assert run("evaluate", "-i", path, "-r", path, "--no-check-spacing").exit_code == 0


def test_presets_are_listed_shown_and_tried(heart, tmp_path):
    text = run("presets").stdout
    assert "acdc" in text and "1 RV cavity, 2 LV wall, 3 LV cavity" in text
    found = json.loads(run("presets", "ukbb", "mm-whs", "--json").stdout)
    assert list(found) == ["mms", "mmwhs"] and found["mmwhs"]["values"]["500"] == 1
    assert_one_line_error(run("presets", "adcd"), "UNKNOWN_PRESET")
    assert "did you mean acdc?" in run("presets", "adcd").stderr
    acdc = write(tmp_path / "b.nii.gz", relabelled(heart, {1: 3, 4: 1}))
    lines = dict(x.split(maxsplit=1) for x in run("presets", "-i", acdc).stdout.splitlines())
    assert lines["acdc"] == "fits" and "LV cavity's outline" in lines["mms"]
    found = json.loads(run("presets", "acdc", "-i", acdc, "--json").stdout)
    assert found == {"values": [1, 2, 3], "presets": {"acdc": "fits"}}


def test_swapped_inputs_are_told(heart, tmp_path):
    noise = np.random.default_rng(0).integers(0, 900, heart.shape).astype(np.int16)
    nibabel.Nifti1Image(noise, heart.voxel_to_world).to_filename(tmp_path / "image.nii.gz")
    labels = write(tmp_path / "labels.nii.gz", heart)
    words = ("refine", "-i", tmp_path / "image.nii.gz", "--image", labels, "-o", tmp_path / "out")
    result = run(*words)
    assert_one_line_error(result, "UNKNOWN_LABEL")
    assert "did you swap them?" in result.stderr
