"""A saved result can be made again, and what differs is told."""

import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

import cardiacreg
from cardiacreg import InvalidInputError, LabelMap, RefineOptions, verify_result
from cardiacreg.anatomy.landmarks import landmarks_from_labels
from cardiacreg.cli.app import main
from cardiacreg.errors import kept_warnings
from cardiacreg.fusion.label_fusion import FusionOptions
from cardiacreg.io.input_records import digest_of, recorded
from cardiacreg.refinement.verification import _options
from tests.helpers.tiny_bank import (
    SPACING_MM,
    expect_tiny_findings,
    tiny_atlases,
    tiny_options,
    tiny_target,
)

pytestmark = expect_tiny_findings

OPTIONS = tiny_options(
    fusion=FusionOptions(search=(3, 3, 1), patch=(3, 3, 1)), coverage=("whole", "auto")
)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Where a result is made once, and a copy of it as it was."""
    folder = tmp_path_factory.mktemp("made")
    make(folder / "here")
    shutil.copytree(folder / "here", folder / "copy")
    return folder


@pytest.fixture
def made(kept):
    """A folder with a result, made from files in another one; both as they were."""
    shutil.rmtree(kept / "here")
    shutil.copytree(kept / "copy", kept / "here")
    return kept / "here" / "out", kept / "here" / "inputs"


def make(folder):
    target, inputs = tiny_target(), folder / "inputs"
    inputs.mkdir(parents=True)
    cardiacreg.build_atlas_bank(inputs / "bank", tiny_atlases(3))
    cardiacreg.write_labels(inputs / "seg.nii.gz", target.labels)
    cardiacreg.write_volume(inputs / "image.nii.gz", target.image)
    cardiacreg.write_landmarks(inputs / "points.json", landmarks_from_labels(target.labels))
    refined(inputs / "seg.nii.gz", inputs).save(folder / "out")


def refined(segmentation, inputs, **more):
    given = {"image": inputs / "image.nii.gz", "landmarks": inputs / "points.json"}
    with kept_warnings():
        return cardiacreg.refine(
            segmentation, atlases=inputs / "bank", spacing_mm=SPACING_MM, options=OPTIONS,
            preset={1: 1, 2: 2, 3: 3, 4: 4}, threads=1, **(given | more),
        )  # fmt: skip


def other_labels(path):
    labels = cardiacreg.read_labels(path)
    return LabelMap(np.roll(labels.array, 3, axis=0), labels.voxel_to_world)


def test_a_result_is_made_again_bit_by_bit(made):
    folder, _ = made
    found = verify_result(folder, threads=2)
    assert found.same_labels and found.sentences == (
        "the labels made again are the saved ones, voxel by voxel",
    )
    assert found.dice["LV cavity"] == 1
    assert found.result.options == OPTIONS


def test_a_changed_input_is_told(made):
    folder, inputs = made
    cardiacreg.write_labels(inputs / "seg.nii.gz", other_labels(inputs / "seg.nii.gz"))
    found = verify_result(folder, threads=1)
    assert not found.same_labels
    assert found.changed_inputs == (f"segmentation: {inputs / 'seg.nii.gz'} was changed since",)
    assert "what was read is not what it was: labels" in found.differences
    assert "differ from the saved ones" in found.sentences[0]
    cardiacreg.write_labels(inputs / "seg.nii.gz", LabelMap(np.zeros((9, 9, 9)), np.eye(4)))
    with pytest.raises(InvalidInputError, match="was changed since; ") as error:
        verify_result(folder, threads=1)
    assert error.value.code == "EMPTY_LABELS"


def test_another_bank_is_told(made):
    folder, inputs = made
    cardiacreg.append_to_atlas_bank(inputs / "bank", [tiny_atlases(4)[3]])
    found = verify_result(folder, threads=1)
    assert found.changed_inputs == (f"atlases: {inputs / 'bank'} was changed since",)
    assert "what was read is not what it was: bank size" in found.differences


def test_a_moved_input_is_asked_for_and_compared(made):
    folder, inputs = made
    (inputs / "seg.nii.gz").rename(inputs / "moved.nii.gz")
    with pytest.raises(InvalidInputError, match="is not there any more; give it") as error:
        verify_result(folder)
    assert error.value.code == "INPUT_MISSING"
    found = verify_result(folder, segmentation=inputs / "moved.nii.gz", threads=1)
    assert found.same_labels and not found.changed_inputs
    other = verify_result(
        folder, segmentation=cardiacreg.read_labels(inputs / "moved.nii.gz"), threads=1
    )
    assert other.same_labels and "cannot be compared" in other.changed_inputs[0]


def test_other_versions_and_options_are_told(made):
    folder, _ = made
    said = json.loads((folder / "result.json").read_text())
    said["provenance"]["numpy"] = "0.1"
    said["options"]["from_the_future"] = 1
    said["options"]["registration"]["more"] = 1
    (folder / "result.json").write_text(json.dumps(said))
    found = verify_result(folder, threads=1)
    assert found.same_labels
    assert found.changed_versions == {"numpy": ("0.1", np.__version__)}
    assert f"numpy was 0.1 and is {np.__version__}" in found.sentences
    assert [d for d in found.differences if "not known to this version" in d] == [
        "the option registration.more is not known to this version",
        "the option from_the_future is not known to this version",
    ]


def test_what_was_in_memory_is_asked_for(made, tmp_path):
    _, inputs = made
    target = tiny_target()
    points = landmarks_from_labels(target.labels)
    with kept_warnings():
        result = cardiacreg.refine(
            target.labels, landmarks=points.points_mm, atlases=cardiacreg.AtlasBank(inputs / "bank"),
            spacing_mm=SPACING_MM, options=tiny_options(), threads=1,
        )  # fmt: skip
    folder = result.save(tmp_path / "memory")
    with pytest.raises(InvalidInputError, match="was in memory") as error:
        verify_result(folder)
    assert error.value.code == "INPUT_MISSING"
    found = verify_result(folder, segmentation=target.labels, threads=1)
    assert found.same_labels and found.result.landmarks.source == "given"
    part = cardiacreg.AtlasBank(inputs / "bank").subset([0, 1])
    assert recorded(part) == {"in_memory": "AtlasBank"}


def test_a_result_that_does_not_say_how_it_was_made_is_refused(made):
    folder, _ = made
    said = json.loads((folder / "result.json").read_text())
    del said["provenance"]["inputs"]
    (folder / "result.json").write_text(json.dumps(said))
    with pytest.raises(InvalidInputError) as error:
        verify_result(folder)
    assert error.value.code == "NOT_RECORDED"


EVERY = [RefineOptions(), RefineOptions.fast(), RefineOptions.paper(), OPTIONS]


@pytest.mark.parametrize(
    "options", [*EVERY, RefineOptions(metadata=(("phase", ("ED", "ES")),), structure_weights=None)]
)
def test_options_come_back_from_json(options):
    from dataclasses import asdict

    from cardiacreg.io.landmark_files import json_text

    assert _options(json.loads(json_text(asdict(options)))) == (options, [])


def test_a_digest_tells_contents(tmp_path):
    (tmp_path / "a").write_bytes(b"1")
    first = digest_of(tmp_path / "a")
    folder = digest_of(tmp_path)
    (tmp_path / "a").write_bytes(b"22")
    assert digest_of(tmp_path / "a") != first and digest_of(tmp_path) != folder
    assert digest_of(tmp_path / "nowhere") is None


def test_the_command_says_the_same(made):
    folder, inputs = made
    found = CliRunner().invoke(main, ["verify", str(folder), "-q", "--threads", "1"])
    assert found.exit_code == 0, found.output
    assert found.stdout == f"{folder}: the labels made again are the saved ones, voxel by voxel\n"
    cardiacreg.write_labels(inputs / "seg.nii.gz", other_labels(inputs / "seg.nii.gz"))
    found = CliRunner().invoke(main, ["verify", str(folder), "-q", "--json"])
    assert found.exit_code == 3 and "error [RESULT_DIFFERS]" in found.stderr
    said = json.loads(found.stdout)
    assert said["same_labels"] is False and len(said["changed_inputs"]) == 1
    (inputs / "seg.nii.gz").unlink()
    found = CliRunner().invoke(main, ["verify", str(folder), "-q"])
    assert found.exit_code == 1 and "give it (--input)" in found.stderr
