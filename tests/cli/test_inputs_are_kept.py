"""No command replaces a file that it was made from, by whatever name or link it is reached."""

import dataclasses
import os
import shutil
from types import SimpleNamespace

import nibabel
import pytest
from click.testing import CliRunner

from cardiacreg.anatomy.landmarks import landmarks_from_labels
from cardiacreg.atlases.bank import AtlasBank
from cardiacreg.atlases.bank_building import build_atlas_bank
from cardiacreg.atlases.folder import open_atlas_folder
from cardiacreg.cli import demo
from cardiacreg.cli.app import main
from cardiacreg.cli.segment import SEGMENT_FILES
from cardiacreg.errors import InvalidInputError
from cardiacreg.io import kept_inputs, nifti
from cardiacreg.io.kept_inputs import check_inputs_are_kept, files_of
from cardiacreg.io.landmark_files import write_landmarks
from cardiacreg.phantoms.toy_heart import make_toy_heart
from cardiacreg.refinement import _refine
from cardiacreg.results import qc_figure
from cardiacreg.results.files import FILE_NAMES


@pytest.fixture
def no_work(monkeypatch):
    """Fail where a command does not refuse before its work."""

    def begin(*_, **__):
        raise AssertionError("the work was begun")

    monkeypatch.setattr(_refine, "refine", begin)
    monkeypatch.setattr(demo, "_simulated", begin)


@pytest.fixture
def quick_picture(monkeypatch):
    monkeypatch.setattr(qc_figure, "draw_qc_figure", lambda result: None)
    monkeypatch.setattr(qc_figure, "png_bytes", lambda figure: b"picture")


@pytest.fixture
def files(tmp_path):
    """A heart, its image, landmarks, another frame and two atlases."""
    folder = tmp_path / "in"
    for name, size in (("atlases/one", 0.9), ("atlases/two", 0.95), ("", 1.0)):
        place, heart = folder / name, make_toy_heart(size=size)
        place.mkdir(parents=True, exist_ok=True)
        nifti.write_labels(place / "labels.nii.gz", heart.labels)
        nifti.write_volume(place / "image.nii.gz", heart.image)
        write_landmarks(place / "landmarks.json", landmarks_from_labels(heart.labels))
    nifti.write_labels(folder / "other.nii.gz", heart.labels)
    return folder


def refused(*words, code="OUTPUT_IS_INPUT"):
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 1 and f"error [{code}]" in result.stderr, result.output
    return result.stderr


def content(folder):
    return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


INPUTS = ("-i", "--image", "--landmarks", "--other-frame", "--atlases")


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize("way", ["symlink", "hard link"])
@pytest.mark.parametrize("role", INPUTS)
def test_refine_refuses_to_replace_any_input(files, tmp_path, role, way):
    names = dict(zip(INPUTS, ("labels.nii.gz", "image.nii.gz", "landmarks.json"), strict=False))
    options = {"-i": files / "labels.nii.gz", "--atlases": files / "atlases"}
    given = files / names.get(role, "other.nii.gz")
    if role == "--atlases":
        given = files / "atlases" / "two" / "labels.nii.gz"
    else:
        options[role] = given
    out = tmp_path / "out"
    out.mkdir()
    (os.symlink if way == "symlink" else os.link)(given, out / "labels.nii.gz")
    before = content(files)
    words = [word for pair in options.items() for word in pair]
    refused("refine", *words, "-o", out, "--overwrite")
    assert content(files) == before


@pytest.mark.usefixtures("no_work")
def test_a_result_is_not_refined_in_its_own_place(files):
    before = content(files)
    words = ("refine", "-i", files / "labels.nii.gz", "--atlases", files / "atlases")
    assert "labels.nii.gz" in refused(*words, "-o", files, "--overwrite")
    refused(*words, "-o", files / ".." / "in", "--overwrite")
    refused(*words, "-o", files)
    (files.parent / "link").symlink_to(files, target_is_directory=True)
    refused(*words, "-o", files.parent / "link", "--overwrite")
    assert content(files) == before


def test_the_outputs_of_other_commands_are_compared_too(files, tmp_path, no_work):
    pytest.importorskip("torch")
    out = tmp_path / "out"
    out.mkdir()
    for command, names in (("segment", SEGMENT_FILES), ("run", (*SEGMENT_FILES, *FILE_NAMES))):
        for name in names:
            os.link(files / "image.nii.gz", out / name)
            refused(command, "-i", files / "image.nii.gz", "-o", out, "--overwrite")
            (out / name).unlink()
    os.link(files / "atlases" / "one" / "image.nii.gz", out / "confidence.nii.gz")
    words = ("run", "-i", files / "image.nii.gz", "--atlases", files / "atlases", "--overwrite")
    refused(*words, "-o", out)
    (out / "weights.safetensors").write_bytes(b"x")
    os.link(out / "weights.safetensors", out / "segmentation.json")
    words = ("segment", "-i", files / "image.nii.gz", "--weights", out / "weights.safetensors")
    refused(*words, "-o", out, "--overwrite")


def test_a_demo_keeps_atlases_and_what_is_no_demo(files, tmp_path, no_work):
    atlases = tmp_path / "refined"
    shutil.move(files / "atlases" / "one", atlases)
    words = ("demo", "-o", tmp_path)
    refused(*words, "--atlases", tmp_path, "--overwrite")
    refused(*words, "--atlases", files / "atlases", code="OUTPUT_EXISTS")
    assert (atlases / "labels.nii.gz").exists()


@pytest.mark.filterwarnings("ignore::cardiacreg.errors.InputWarning")
def test_a_result_knows_its_files_wherever_one_is(files, tmp_path, tiny_result, monkeypatch):
    monkeypatch.setattr(_refine, "_result", lambda *_: tiny_result)
    monkeypatch.setattr(_refine, "run_steps", lambda *_: None)
    monkeypatch.chdir(files)
    result = _refine.refine(
        "labels.nii.gz", image=nibabel.load("image.nii.gz"), landmarks="landmarks.json",
        atlases=open_atlas_folder("atlases"), frames=["other.nii.gz", ],
    )  # fmt: skip
    monkeypatch.chdir(tmp_path)
    names = ("labels.nii.gz", "image.nii.gz", "landmarks.json", "other.nii.gz")
    assert {files / name for name in names} <= set(result.input_files)
    with pytest.raises(InvalidInputError) as caught:
        result.save(files, overwrite=True)
    assert caught.value.code == "OUTPUT_IS_INPUT"
    with pytest.raises(InvalidInputError) as caught:
        result.save(files / "atlases" / "one", overwrite=True)
    assert caught.value.code == "OUTPUT_IS_INPUT"


@pytest.mark.usefixtures("quick_picture")
def test_a_result_beside_its_input_is_fine(files, tiny_result):
    given = files_of(files / "other.nii.gz")
    result = dataclasses.replace(tiny_result, input_files=given)
    (files / "labels.nii.gz").unlink()
    (files / "landmarks.json").unlink()
    before = (files / "other.nii.gz").read_bytes()
    result.save(files)
    assert (files / "other.nii.gz").read_bytes() == before


def test_files_are_found_behind_what_is_given(files, tmp_path):
    bank = build_atlas_bank(tmp_path / "bank", [make_toy_heart()])
    assert files_of(bank, None, 3, make_toy_heart().labels, [make_toy_heart()]) == (
        tmp_path / "bank",
    )
    assert set(files_of(open_atlas_folder(files / "atlases"))) == {
        files / "atlases" / name / file
        for name in ("one", "two")
        for file in ("labels.nii.gz", "image.nii.gz", "landmarks.json")
    }
    assert files_of(AtlasBank(tmp_path / "bank").subset([0])) == (tmp_path / "bank",)


def test_names_that_differ_in_case_are_one_file_where_the_disk_says_so(tmp_path, monkeypatch):
    """On such a disk both names have one number, which is all that is looked at."""
    there = tmp_path / "Labels.nii.gz"
    there.write_text("x")
    check_inputs_are_kept([tmp_path / "labels.nii.gz"], [there])
    ignoring_case = SimpleNamespace(stat=lambda path: there.stat())
    monkeypatch.setattr(kept_inputs, "os", ignoring_case)
    with pytest.raises(InvalidInputError) as caught:
        check_inputs_are_kept([tmp_path / "labels.nii.gz"], [there])
    assert caught.value.code == "OUTPUT_IS_INPUT"


@pytest.mark.parametrize("command", sorted(main.commands))
def test_a_file_without_permission_is_an_input_error_and_no_wrong_usage(command):
    """Click would end with exit code 2 where a path is there and cannot be read."""
    commands = getattr(main.commands[command], "commands", {command: main.commands[command]})
    for each in commands.values():
        for option in each.params:
            assert not getattr(option.type, "readable", False), option.name


def test_an_unreadable_segmentation_ends_with_exit_code_1(files, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    opened = type(files).open

    def deny(path, *arguments, **keywords):
        if path == files / "labels.nii.gz":
            raise PermissionError(13, "Permission denied")
        return opened(path, *arguments, **keywords)

    monkeypatch.setattr(type(files), "open", deny)
    words = ("refine", "-i", files / "labels.nii.gz", "--atlases", files / "atlases")
    refused(*words, "-o", tmp_path / "out", code="UNREADABLE_FILE")
    words = ("evaluate", "-i", files / "labels.nii.gz", "-r", files / "other.nii.gz")
    assert "Permission denied" in refused(*words, code="UNREADABLE_FILE")
