"""``cardiacreg segment`` and ``run`` from outside."""

import dataclasses
import json
import subprocess
import sys
import warnings
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from cardiacreg.cli import run as cli_run, segment
from cardiacreg.cli.app import main
from cardiacreg.errors import ResultWarning
from cardiacreg.geometry import Volume
from cardiacreg.io import nifti
from cardiacreg.io.landmark_files import read_landmarks
from cardiacreg.phantoms.acquisition import simulate_low_resolution
from cardiacreg.phantoms.hearts import sample_heart
from cardiacreg.refinement import _refine
from cardiacreg.results.files import FILE_NAMES
from cardiacreg.results.guards import FAILED_AGREEMENT, Finding
from cardiacreg_nn import save_weights
from cardiacreg_nn.inference import cine_prediction, prediction, shipped_weights
from cardiacreg_nn.inference.shipped_weights import weight_files
from cardiacreg_nn.inference.weights import read_card
from cardiacreg_nn.networks.sslln import SSLLN
from tests.nn.tiny_training import BOX, coded_heart, oracle_model, tiny_config

ROOT = Path(__file__).parents[2]


def run(*arguments):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "sax.nii.gz"
    image = coded_heart()[0]
    shading = np.linspace(0, 1e-3, image.shape[0])[:, None, None]  # or it would be a label map
    nifti.write_volume(path, Volume(image.array + shading, image.voxel_to_world))
    return path


@pytest.fixture
def oracle(monkeypatch):
    for module in (prediction, cine_prediction):
        monkeypatch.setattr(module, "load_model", lambda *_: oracle_model())


def test_segment_writes_labels_landmarks_and_the_licence(picture, oracle, tmp_path):
    out = tmp_path / "out"
    result = run("segment", "-i", picture, "-o", out)
    assert result.exit_code == 0, result.stderr
    assert sorted(p.name for p in out.iterdir()) == sorted(segment.SEGMENT_FILES)
    labels = nifti.read_labels(out / "segmentation.nii.gz")
    assert (labels.array == coded_heart()[0].array).mean() > 0.95
    assert b"oracle; weights Apache-2.0" in bytes(
        nibabel.load(out / "segmentation.nii.gz").header["descrip"]
    )
    assert len(read_landmarks(out / "segmentation_landmarks.json").points_mm) == 6
    card = json.loads((out / "segmentation.json").read_text())
    assert card["network"]["licence"] == "Apache-2.0" and len(card["landmarks"]) == 6
    assert "licence Apache-2.0" in result.stderr and "LV cavity" in result.stdout


def test_segment_writes_probabilities_that_refine_takes(picture, oracle, tiny_files, tmp_path):
    out = tmp_path / "out"
    assert run("segment", "-i", picture, "-o", out, "-q", "--probabilities").exit_code == 0
    shares = nibabel.load(out / "segmentation_probabilities.nii.gz")
    assert shares.shape == (*coded_heart()[0].shape, 5)
    given = ("-i", out / "segmentation.nii.gz", "--atlases", tiny_files.atlases, "--threads", 1)
    told = ("--probabilities", out / "segmentation_probabilities.nii.gz", "-q")
    done = run("refine", *given, *told, "-o", tmp_path / "model")
    assert done.exit_code == 0, done.stderr
    kept = json.loads((tmp_path / "model" / "result.json").read_text())
    assert "sha256" in kept["provenance"]["inputs"]["probabilities"]
    assert run("segment", "-i", picture, "-o", out, "-q", "--overwrite").exit_code == 0
    assert not (out / "segmentation_probabilities.nii.gz").exists()
    wrong = run("refine", *given, "--probabilities", picture, "-o", tmp_path / "no")
    assert wrong.exit_code == 1 and "(i, j, k, classes)" in wrong.stderr


def test_segment_writes_all_frames_of_a_cine(picture, oracle, tmp_path):
    one = nibabel.load(picture)
    cine = np.stack([one.get_fdata()] * 3, axis=-1).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(cine, one.affine), tmp_path / "cine.nii.gz")
    out = tmp_path / "out"
    done = run("segment", "-i", tmp_path / "cine.nii.gz", "-o", out, "--all-frames")
    assert done.exit_code == 0, done.stderr
    assert nibabel.load(out / "segmentation.nii.gz").shape == cine.shape
    card = json.loads((out / "segmentation.json").read_text())
    assert [each["frame"] for each in card["frames"]] == [0, 1, 2]
    assert card["frames"][0]["slices_with_heart"] and card["network"]["licence"] == "Apache-2.0"
    assert len(done.stdout.splitlines()) == 4 and "licence" in done.stderr
    refused = run("segment", "-i", picture, "-o", tmp_path / "no", "--all-frames")
    assert refused.exit_code == 1 and "NOT_4D" in refused.stderr
    both = run("segment", "-i", picture, "-o", tmp_path / "no", "--all-frames", "--frame", 1)
    assert both.exit_code == 2


def test_segment_does_not_replace_without_being_told(picture, oracle, tmp_path):
    assert run("segment", "-i", picture, "-o", tmp_path / "o", "-q").exit_code == 0
    again = run("segment", "-i", picture, "-o", tmp_path / "o", "-q")
    assert again.exit_code == 1 and "OUTPUT_EXISTS" in again.stderr
    more = run("segment", "-i", picture, "-o", tmp_path / "o", "-q", "--overwrite", "--json")
    assert json.loads(more.stdout)["network"]["name"] == "oracle"


def test_run_segments_and_refines(picture, oracle, tiny_files, tmp_path):
    out = tmp_path / "out"
    result = run("run", "-i", picture, "-o", out, "--atlases", tiny_files.atlases, "--threads", 1)
    assert result.exit_code == 0, result.stderr
    assert {p.name for p in out.iterdir()} == {*segment.SEGMENT_FILES, *FILE_NAMES}
    kept = json.loads((out / "result.json").read_text())
    assert kept["provenance"]["network"]["licence"] == "Apache-2.0"
    assert kept["target"] == picture.name
    assert "beyond base ml" in result.stdout and "agreement" in result.stdout
    assert f"look at {out / 'qc.png'}" in result.stderr
    shares = [int(line[1:4]) for line in result.stderr.splitlines() if line.startswith("[")]
    assert shares == sorted(shares) and shares[-1] == 100 and max(shares[:-1]) < 100


def test_run_writes_a_page_that_can_be_written_again(picture, oracle, tiny_files, tmp_path):
    out = tmp_path / "out"
    result = run(
        "run", "-i", picture, "-o", out, "--atlases", tiny_files.atlases, "--threads", 1, "--report"
    )
    assert result.exit_code == 0, result.stderr
    assert f"look at {out / 'report.html'}" in result.stderr
    page = (out / "report.html").read_text(encoding="utf-8")
    assert 'id="before-after"' in page and "Slices and cuts are left out" not in page
    again = run("report", out, "--overwrite")
    assert again.exit_code == 0 and "slices are left out" not in again.stderr


def test_run_ends_a_failed_refinement_as_refine_does(
    picture, oracle, tiny_result, tmp_path, monkeypatch
):
    finding = Finding(FAILED_AGREEMENT, "agreement 0.1; look at it")

    def fail(*_, **__):
        warnings.warn(str(finding), ResultWarning, stacklevel=2)
        return dataclasses.replace(tiny_result, findings=(finding,))

    monkeypatch.setattr(_refine, "refine", fail)
    out = tmp_path / "out"
    result = run("run", "-i", picture, "-o", out, "--json")
    assert result.exit_code == 3 and json.loads(result.stdout)["network"]["name"] == "oracle"
    assert {p.name for p in out.iterdir()} == {*segment.SEGMENT_FILES, *FILE_NAMES}
    *steps, warned, failed = result.stderr.splitlines()
    assert [line.partition("] ")[2] for line in steps] == [
        "segmenting the image", "drawing figures and saving",
    ]  # fmt: skip
    assert [warned, failed] == [
        "warning [FAILED_AGREEMENT]: agreement 0.1; look at it",
        "error [FAILED_AGREEMENT]: failed refinement: agreement 0.1; the files in "
        f"{out} are there to look at.",
    ]
    accepted = run("run", "-i", picture, "-o", out, "-q", "--overwrite", "--accept-failed")
    assert accepted.exit_code == 0 and "error" not in accepted.stderr


def test_run_chooses_atlases_as_refine_does(picture, oracle, tiny_files, tmp_path):
    chosen = ("--atlases", tiny_files.atlases, "--select-by", "image", "--threads", 1)
    result = run("run", "-i", picture, "-o", tmp_path / "out", *chosen)
    assert result.exit_code == 0, result.stderr
    options = json.loads((tmp_path / "out" / "result.json").read_text())["options"]
    assert options["selection"] == "image"
    none = run("run", "-i", picture, "-o", tmp_path / "no", *chosen, "--only", "phase=systole")
    assert none.exit_code == 1 and "phase" in none.stderr


def test_run_segments_other_frames_too_and_passes_on_what_it_is_told(
    picture, oracle, tiny_result, tmp_path, monkeypatch
):
    asked = {}

    def keep(labels, **given):
        asked.update(given, labels=labels)
        return dataclasses.replace(tiny_result, findings=())

    monkeypatch.setattr(_refine, "refine", keep)
    one = coded_heart()[0]
    cine = nibabel.Nifti1Image(np.stack([one.array] * 2, axis=-1), one.voxel_to_world)
    nibabel.save(cine, tmp_path / "cine.nii.gz")
    told = ("--coverage", "base=partial", "--orientation", "as-stored")
    others = ("--other-frame", 1, "--other-frame", picture)
    line = ("run", "-i", tmp_path / "cine.nii.gz", "--frame", 0, *told, *others)
    result = run(*line, "-o", tmp_path / "out", "-q")
    assert result.exit_code == 0, result.stderr
    assert asked["options"].coverages == ("auto", "partial")
    assert asked["options"].orientation == "as-stored"
    assert len(asked["frames"]) == 2
    for each in asked["frames"]:
        np.testing.assert_array_equal(each.array, asked["labels"].array)
    assert result.stdout.splitlines()[-1].startswith("apex: ")


def test_real_weights_that_find_nothing_end_with_one_line(picture, tmp_path):
    torch.manual_seed(0)
    config = tiny_config().network
    path = save_weights(
        tmp_path / "w.safetensors",
        SSLLN(config).state_dict(),
        kind="sslln",
        network=config,
        box=BOX,
    )
    path.write_bytes(path.read_bytes()[:-5])
    result = run("segment", "-i", picture, "-o", tmp_path / "o", "--weights", path)
    assert result.exit_code == 1 and "error [DAMAGED_WEIGHTS]" in result.stderr
    assert not (tmp_path / "o").exists()


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
from cardiacreg.cli.app import main
main(sys.argv[1:])
"""


def test_without_torch_the_command_says_what_to_install(picture, tmp_path):
    words = ["segment", "-i", str(picture), "-o", str(tmp_path / "o")]
    command = [sys.executable, "-c", WITHOUT_TORCH, *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "error [NO_TORCH]" in done.stderr, done.stderr
    assert done.stderr.count('pip install "cardiacreg[nn]"') == 1


def test_without_torch_the_library_says_what_to_install():
    code = "import sys; sys.modules['torch'] = None; from cardiacreg_nn import predict"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ModuleNotFoundError") and 'pip install "cardiacreg[nn]"' in last


@pytest.mark.parametrize("name", ["unet2d_acdc", "unet2d_synthetic"])
def test_every_output_names_weights_licence_and_digest(name, picture, tmp_path, monkeypatch):
    """By their name, whatever the licence of the weights is."""
    if name not in weight_files():
        pytest.skip(f"the weights {name} are not installed")
    scan = simulate_low_resolution(sample_heart(10_001, group="healthy"), seed=1).subject
    nifti.write_volume(picture, scan.image)
    out = tmp_path / "out"
    done = run("segment", "-i", picture, "-o", out, "--weights", name, "--device", "cpu")
    assert done.exit_code == 0, done.stderr
    card = read_card(weight_files()[name].with_suffix(".json"))
    told = json.loads((out / "segmentation.json").read_text())["network"]
    assert {key: told[key] for key in ("name", "licence", "sha256")} == {
        key: card[key] for key in ("name", "licence", "sha256")
    }
    assert card["licence"] in done.stderr
    assert card["licence"].encode() in bytes(
        nibabel.load(out / "segmentation.nii.gz").header["descrip"]
    )


def test_weights_that_are_not_installed_name_a_command(picture, tmp_path, monkeypatch):
    monkeypatch.setattr(shipped_weights, "weight_folders", lambda: {})
    done = run("segment", "-i", picture, "-o", tmp_path / "o", "--weights", "unet2d_acdc")
    assert done.exit_code == 1 and "error [NO_WEIGHTS]" in done.stderr
    assert "pip install cardiacreg-weights-acdc" in done.stderr


def test_landmarks_of_an_earlier_segmentation_do_not_stay_beside_one_without(
    picture, oracle, tiny_result, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        _refine, "refine", lambda *_, **__: dataclasses.replace(tiny_result, findings=())
    )
    predicted = segment.predict
    words = {"segment": segment.SEGMENT_FILES, "run": (*segment.SEGMENT_FILES, *FILE_NAMES)}
    for command, names in words.items():
        out = tmp_path / command
        assert run(command, "-i", picture, "-o", out, "-q").exit_code == 0
        assert {p.name for p in out.iterdir()} == set(names)
        (out / "surface.png").write_text("old")
        for module in (segment, cli_run):
            monkeypatch.setattr(
                module,
                "predict",
                lambda **given: dataclasses.replace(predicted(**given), landmarks=None),
            )
        assert run(command, "-i", picture, "-o", out, "-q", "--overwrite").exit_code == 0
        left = {p.name for p in out.iterdir()} - {"surface.png"}
        assert left == set(names) - {segment.SEGMENT_FILES[1]}
        assert (out / "surface.png").exists() == (command == "segment")
        for module in (segment, cli_run):
            monkeypatch.setattr(module, "predict", predicted)
