"""``cardiacreg report`` and ``refine --report``, as a user runs them."""

import json
import shutil

import nibabel
import numpy as np
import pytest
from click.testing import CliRunner

from cardiacreg.cli.app import main
from cardiacreg.phantoms.toy_heart import make_toy_heart

pytestmark = pytest.mark.filterwarnings("ignore::cardiacreg.errors.InputWarning")


def run(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture(scope="module")
def folder(tiny_files, tmp_path_factory):
    """A result with its page, beside copies of its inputs."""
    place = tmp_path_factory.mktemp("study")
    for source, name in ((tiny_files.labels, "seg.nii.gz"), (tiny_files.image, "img.nii.gz")):
        shutil.copy(source, place / name)
    done = run(
        "refine", "-i", place / "seg.nii.gz", "--image", place / "img.nii.gz", "-o", place / "out",
        "--atlases", tiny_files.atlases, "--spacing", 2.5, 2.5, 4, "--report", "--accept-failed",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert f"look at {place / 'out' / 'report.html'}" in done.stderr
    return place / "out"


def test_refine_writes_the_page_with_the_result(folder):
    said = json.loads((folder / "result.json").read_text())
    assert "report.html" in said["files_sha256"]
    assert said["provenance"]["stack"] == {
        "segmentation": "../seg.nii.gz", "image": "../img.nii.gz", "preset": None, "frame": None,
    }  # fmt: skip
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "data-verdict=" in page and "Slices and cuts are left out" not in page


def test_a_page_of_a_folder_finds_its_stack_and_tells_the_verdict(folder, tmp_path):
    moved = tmp_path / "elsewhere"
    shutil.copytree(folder.parent, moved)
    done = run("report", moved / "out", "-o", tmp_path / "page.html")
    assert done.exit_code == 0, done.output
    word, _, _ = done.stdout.partition(":")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert f'data-verdict="{word}"' in page and "Slices and cuts are left out" not in page


def test_an_earlier_page_is_kept(folder):
    done = run("report", folder)
    assert done.exit_code == 1 and "OUTPUT_EXISTS" in done.stderr


def test_a_later_result_leaves_no_page_of_an_earlier_one(folder, tiny_files, tmp_path):
    copy = tmp_path / "study"
    shutil.copytree(folder.parent, copy)
    done = run(
        "refine", "-i", copy / "seg.nii.gz", "-o", copy / "out", "--atlases", tiny_files.atlases,
        "--spacing", 2.5, 2.5, 4, "--overwrite", "--accept-failed",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert not (copy / "out/report.html").exists()


def test_a_folder_without_a_result_is_refused(tmp_path):
    done = run("report", tmp_path)
    assert done.exit_code == 1 and "NO_RESULT" in done.stderr


def test_another_segmentation_is_refused(folder, tmp_path):
    image = nibabel.load(folder.parent / "seg.nii.gz")
    array = np.asarray(image.dataobj).copy()
    array[:, :, 2] = 0
    nibabel.save(nibabel.Nifti1Image(array, image.affine), tmp_path / "other.nii.gz")
    done = run("report", folder, "-o", tmp_path / "p.html", "-i", tmp_path / "other.nii.gz")
    assert done.exit_code == 1 and "TARGET_DIFFERS" in done.stderr


def test_a_cine_is_reported_too(tiny_files, tmp_path):
    frames = [make_toy_heart(size=size).labels for size in (1.0, 0.9)]
    series = np.stack([each.array for each in frames], axis=-1)
    nibabel.save(nibabel.Nifti1Image(series, frames[0].voxel_to_world), tmp_path / "cine.nii.gz")
    done = run(
        "refine", "-i", tmp_path / "cine.nii.gz", "-o", tmp_path / "out", "--frames", "all",
        "--atlases", tiny_files.atlases, "--spacing", 2.5, 2.5, 4, "--accept-failed",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    done = run("report", tmp_path / "out", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["word"] in ("accept", "look", "reject")
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert "Volume curves" in page and "Slices and cuts are left out" not in page
