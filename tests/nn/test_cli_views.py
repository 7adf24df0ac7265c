"""``cardiacreg run --view-image``: long-axis images beside the stack's, used, told or left out."""

import dataclasses
import json

import nibabel
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from scipy.ndimage import binary_erosion
from torch import nn

import cardiacreg
from cardiacreg.cli import run as cli_run
from cardiacreg.cli.app import main
from cardiacreg.cli.run import VIEW_FILES
from cardiacreg.geometry import LV_CAVITY, LV_WALL, LabelMap, Volume, apply_matrix, nearest_labels
from cardiacreg.io import nifti
from cardiacreg.registration.view_samples import MOST_VIEWS
from cardiacreg.reports.case import open_case
from cardiacreg.reports.inputs import Inputs
from cardiacreg_nn.inference import cine_prediction, prediction, view_prediction
from cardiacreg_nn.inference.preprocessing import NetworkBox
from cardiacreg_nn.inference.weights import Model
from cardiacreg_nn.networks.sslln import NetworkConfig, Prediction
from tests.nn.tiny_training import coded_heart, oracle_model


class ViewOracle(nn.Module):
    """Reads the labels off a coded image, and sees nothing in one that is not coded."""

    def __init__(self):
        super().__init__()
        self.config = NetworkConfig(slices=1)
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, stack):
        coded = ((stack * 4).frac() - 0.5).abs().mean(dim=(1, 2, 3)) > 0.4
        labels = (stack * 4).round().long().clamp(0, 4) * coded[:, None, None, None]
        return Prediction(12.0 * nn.functional.one_hot(labels, 5).movedim(-1, 1).float(), None)


@pytest.fixture(autouse=True)
def oracles(monkeypatch):
    box = NetworkBox((96, 96, 1), (2.0, 2.0, 8.0))
    model = Model(ViewOracle().eval(), box, {"name": "view oracle"})
    for module in (prediction, cine_prediction):
        monkeypatch.setattr(module, "load_model", lambda *_: oracle_model())
    monkeypatch.setattr(view_prediction, "load_model", lambda *_: model)


def run(*arguments):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def in_plane(labels):
    """The plane of the stack's first and third axes through the middle of the heart."""
    matrix = np.eye(4)
    middle = np.argwhere(labels.array == LV_CAVITY).mean(axis=0)
    (centre,) = apply_matrix(labels.voxel_to_world, middle[None])
    matrix[:3, :3] = np.array([[2.0, 0, 0], [0, 0, -6.0], [0, 2.0, 0]])
    matrix[:3, 3] = centre - matrix[:3, :2] @ [40, 40]
    axes = np.meshgrid(*(np.arange(n, dtype=float) for n in (80, 80, 1)), indexing="ij")
    at = apply_matrix(np.linalg.inv(labels.voxel_to_world) @ matrix, np.stack(axes, axis=-1))
    return LabelMap(nearest_labels(labels, at), matrix)


@pytest.fixture
def files(tmp_path):
    image, labels = coded_heart()
    shading = np.linspace(0, 1e-3, image.shape[0])[:, None, None]  # or it would be a label map
    nifti.write_volume(tmp_path / "sax.nii.gz", Volume(image.array + shading, image.voxel_to_world))
    view = in_plane(labels)
    picture = view.array.astype(np.float32)
    aside = view.voxel_to_world.copy()
    aside[:3, 3] += [0.0, 0.0, 45.0]
    noise = np.random.default_rng(0).random(view.shape, dtype=np.float32)
    for name, array, matrix in (
        ("2ch", picture, view.voxel_to_world), ("noise", noise, view.voxel_to_world),
        ("aside", picture, aside),
    ):  # fmt: skip
        nifti.write_volume(tmp_path / f"{name}.nii.gz", Volume(array, matrix))
    cine = np.stack([noise, picture], axis=-1)
    nibabel.save(nibabel.Nifti1Image(cine, view.voxel_to_world), tmp_path / "cine.nii.gz")
    return tmp_path


def refined(files, tiny_files, *more):
    fixed = ("-o", files / "out", "--atlases", tiny_files.atlases, "--threads", 1, "--overwrite")
    return run("run", "-i", files / "sax.nii.gz", *fixed, *more)


def test_a_view_is_segmented_and_refined_with(files, tiny_files):
    done = refined(files, tiny_files, "--view-image", files / "2ch.nii.gz")
    assert done.exit_code == 0, done.stderr
    assert "left out" not in done.stderr
    seen = nifti.read_labels(files / "out" / VIEW_FILES[0])
    assert seen.shape == (80, 80, 1) and set(seen.present()) == {1, 2, 4}
    kept = json.loads((files / "out" / "result.json").read_text())
    (view,) = kept["views"]
    assert view["name"] == "2ch.nii.gz" and view["agreement"]["LV cavity"] > 0.6
    assert view["agreement"]["RV cavity"] is None  # kept as it was segmented, left to the slices
    assert "view 2ch.nii.gz: shifted by" in done.stdout
    again = refined(files, tiny_files, "-q")
    assert again.exit_code == 0 and not (files / "out" / VIEW_FILES[0]).exists()


def test_views_of_nothing_or_of_elsewhere_are_told_and_left_out(files, tiny_files):
    given = [
        word for n in ("noise", "2ch", "aside") for word in ("--view-image", files / f"{n}.nii.gz")
    ]
    done = refined(files, tiny_files, *given)
    assert done.exit_code == 0, done.stderr
    told = [line for line in done.stderr.splitlines() if "is left out" in line]
    assert len(told) == 2 and "noise.nii.gz" in told[0] and "left ventricle" in told[0]
    assert "aside.nii.gz" in told[1] and "Dice" in told[1]
    kept = json.loads((files / "out" / "result.json").read_text())
    assert [view["name"] for view in kept["views"]] == ["2ch.nii.gz"]
    assert not (files / "out" / VIEW_FILES[1]).exists()


def test_a_model_does_not_change_with_a_view_that_is_left_out(files, tiny_files):
    assert refined(files, tiny_files, "-q").exit_code == 0
    alone = nifti.read_labels(files / "out" / "labels.nii.gz")
    assert refined(files, tiny_files, "--view-image", files / "noise.nii.gz").exit_code == 0
    assert np.array_equal(nifti.read_labels(files / "out" / "labels.nii.gz").array, alone.array)


def test_a_view_of_several_frames_gives_that_of_the_stack(files, tiny_files):
    one = nibabel.load(files / "sax.nii.gz")
    both = np.stack([one.get_fdata()] * 2, axis=-1).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(both, one.affine), files / "sax.nii.gz")
    given = (
        "--frame",
        1,
        "--view-image",
        files / "cine.nii.gz",
        "--view-image",
        files / "2ch.nii.gz",
    )
    done = refined(files, tiny_files, *given)
    assert done.exit_code == 0, done.stderr
    first, second = (nifti.read_labels(files / "out" / name).array for name in VIEW_FILES[:2])
    assert np.array_equal(first, second)


def test_a_damaged_view_is_an_error_in_one_line_also_with_a_frame(files, tiny_files):
    one = nibabel.load(files / "sax.nii.gz")
    both = np.stack([one.get_fdata()] * 2, axis=-1).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(both, one.affine), files / "sax.nii.gz")
    (files / "bad.nii.gz").write_bytes(b"no image")
    done = refined(files, tiny_files, "--frame", 1, "--view-image", files / "bad.nii.gz")
    assert done.exit_code == 1 and "error [NOT_NIFTI]" in done.stderr
    assert not (files / "out").exists()


def test_a_stack_is_no_view(files, tiny_files):
    done = refined(files, tiny_files, "--view-image", files / "sax.nii.gz")
    assert done.exit_code == 1 and "SEVERAL_PLANES" in done.stderr
    assert not (files / "out").exists()


@pytest.fixture
def cine(files):
    """Three frames of stack and view."""
    for name in ("sax", "2ch"):
        one = nibabel.load(files / f"{name}.nii.gz")
        frames = np.stack([one.get_fdata(dtype=np.float32)] * 3, axis=-1)
        nibabel.save(nibabel.Nifti1Image(frames, one.affine), files / f"{name}.nii.gz")
    return files


def test_a_cine_is_segmented_and_refined_with_its_views(cine, tiny_files, monkeypatch):
    # A frame in which the network finds all but a heart, and one with a small cavity.
    predicted = cli_run.predict

    def changed(**given):
        first, second, third = predicted(**given)
        inside_out = np.array([0, 2, 1, 3, 4], dtype=np.uint8)[second.labels.array]
        small = third.labels.array.copy()
        cavity = small == LV_CAVITY
        small[cavity & ~binary_erosion(cavity, np.ones((3, 3, 1)))] = LV_WALL
        return first, *(
            dataclasses.replace(each, labels=LabelMap(array, each.labels.voxel_to_world))
            for each, array in ((second, inside_out), (third, small))
        )

    monkeypatch.setattr(cli_run, "predict", changed)
    done = refined(cine, tiny_files, "--frames", "all", "--view-image", cine / "2ch.nii.gz")
    assert done.exit_code == 0, done.stderr
    (told,) = [line for line in done.stderr.splitlines() if "is no heart" in line]
    assert "frame 1: what the network finds" in told and "preset" not in told
    assert "filled in from the neighbours" in done.stdout
    assert "ejection fraction" in done.stdout
    found = cardiacreg.load_cine(cine / "out")
    assert len(found.frames) == 3 and [view.name for view in found.views] == ["2ch.nii.gz"]
    assert found.provenance["network"]["name"] == "oracle"
    for name, shape in (("segmentation.nii.gz", 4), (VIEW_FILES[0], 4), ("labels.nii.gz", 4)):
        assert nibabel.load(cine / "out" / name).ndim == shape
    assert (cine / "out" / "segmentation.json").is_file()
    # The folder holds what a report of it needs.
    assert not open_case(cine / "out", Inputs()).missing_input
    # Of a single frame, another result takes its place.
    monkeypatch.setattr(cli_run, "predict", predicted)
    assert refined(cine, tiny_files, "--frame", 0, "-q").exit_code == 0
    assert not (cine / "out" / "cine.json").exists() and not (cine / "out" / VIEW_FILES[0]).exists()


@pytest.mark.parametrize(
    "words", [("--frame", 0), ("--other-frame", 1), ("--select-by", "image")], ids=lambda w: w[0]
)
def test_options_of_a_single_frame_do_not_go_with_a_cine(cine, tiny_files, words):
    done = refined(cine, tiny_files, "--frames", "ED,ES", *words)
    assert done.exit_code == 2 and words[0] in done.stderr
    assert not (cine / "out").exists()


def test_a_view_of_other_frames_than_the_stack_is_told(cine, tiny_files):
    view = nibabel.load(cine / "2ch.nii.gz")
    two = view.get_fdata(dtype=np.float32)[..., :2]
    nibabel.save(nibabel.Nifti1Image(two, view.affine), cine / "two.nii.gz")
    done = refined(cine, tiny_files, "--frames", "all", "--view-image", cine / "two.nii.gz")
    assert done.exit_code == 1 and "error [FRAMES_DIFFER]: two.nii.gz: 2 frames" in done.stderr
    assert not (cine / "out").exists()


def test_there_are_names_for_as_many_views_as_a_refinement_may_have():
    assert len(VIEW_FILES) == MOST_VIEWS
