"""Long-axis views on the command line."""

import json

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner

from cardiacreg import LabelMap, read_labels, write_labels
from cardiacreg.cli import simulate
from cardiacreg.cli.app import main
from cardiacreg.cli.heart import paired_views
from cardiacreg.phantoms.long_axis_views import VIEW_DEGREES, simulate_views
from tests.helpers.tiny_bank import tiny_atlases


@pytest.fixture(scope="module")
def view(tmp_path_factory):
    """A four-chamber view in codes of ACDC, with an atrium that is nobody's."""
    (seen,) = simulate_views(tiny_atlases(1)[0], ["four_chamber"], seed=0)
    labels = seen.subject.labels
    array = np.array([0, 3, 2, 9, 1], dtype=np.uint8)[labels.array]
    array[:3, :3] = 7
    file = tmp_path_factory.mktemp("view") / "4ch.nii.gz"
    write_labels(file, LabelMap(array, labels.voxel_to_world))
    return file


def refine(files, output, *more):
    words = ("refine", "-i", files.labels, "--atlases", files.atlases, "--spacing", 2.5, 2.5, 4)
    return CliRunner().invoke(main, [str(word) for word in (*words, "-o", output, *more)])


def test_a_view_is_used_and_told(tiny_files, view, tmp_path):
    words = ("--view", view, "--view-map", "3=1,2=2,1=4,7=0")
    result = refine(tiny_files, tmp_path / "out", *words)
    assert result.exit_code == 0, result.output
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("view ")]
    assert "4ch.nii.gz: shifted by" in line and "LV cavity 0." in line and "RV wall" not in line
    (saved,) = json.loads((tmp_path / "out" / "result.json").read_text())["views"]
    assert saved["name"] == "4ch.nii.gz" and saved["agreement"]["LV cavity"] > 0.7


def test_a_view_that_cannot_be_read_is_named(tiny_files, view, tmp_path):
    result = refine(tiny_files, tmp_path / "out", "--view", view)
    assert result.exit_code == 1 and "4ch.nii.gz" in result.stderr
    assert "--view-map" in result.stderr or "--map" in result.stderr
    assert not (tmp_path / "out").exists()


def test_views_of_a_cine_have_its_frames(tiny_files, view, tmp_path):
    """A single frame of a view for a series of two is refused by its name."""
    stack = read_labels(tiny_files.labels)
    series = tmp_path / "cine.nii.gz"
    nib.save(nib.Nifti1Image(np.stack([stack.array] * 2, -1), stack.voxel_to_world), series)
    words = ("refine", "-i", series, "--atlases", tiny_files.atlases, "-o", tmp_path / "out")
    words += ("--frames", "all", "--view", view, "--view-map", "3=1,2=2,1=4,7=0")
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert (
        result.exit_code == 1
        and "error [FRAMES_DIFFER]: 4ch.nii.gz: 1 frames for 2" in result.stderr
    )


def test_simulate_acquires_views(tmp_path):
    words = ["simulate", "--seed", "10001", "--view", "two_chamber", "-o", str(tmp_path / "s")]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    labels = read_labels(tmp_path / "s" / "two_chamber.nii.gz", check_spacing=False)
    assert labels.shape[2] == 1 and (tmp_path / "s" / "two_chamber_image.nii.gz").is_file()
    shifts = json.loads((tmp_path / "s" / "slice_shifts.json").read_text())
    assert len(shifts["view_shifts"]["two_chamber"]) == 3
    assert tuple(VIEW_DEGREES) == simulate.VIEWS


def test_images_of_views_are_paired_in_order(tiny_files, view, tmp_path):
    words = ("--view", view, "--view-image", "a.nii.gz", "--view-image", "b.nii.gz")
    result = refine(tiny_files, tmp_path / "out", *words)
    assert result.exit_code == 2 and "2 times --view-image for 1 times --view" in result.stderr
    pair, alone = (
        paired_views(["l.nii.gz"], ["i.nii.gz"], "mms"),
        paired_views([], ["i.nii.gz"], None),
    )
    assert [(v.segmentation, v.image, v.preset) for v in pair] == [("l.nii.gz", "i.nii.gz", "mms")]
    assert [(v.segmentation, v.image, v.name) for v in alone] == [(None, "i.nii.gz", "i.nii.gz")]
