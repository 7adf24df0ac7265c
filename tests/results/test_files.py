"""A saved result is complete, says everything, and never comes in parts."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import threading

import numpy as np
import pytest

from cardiacreg.anatomy.volumes import volumes_ml
from cardiacreg.errors import InvalidInputError
from cardiacreg.io import nifti
from cardiacreg.io.landmark_files import json_text, read_landmarks
from cardiacreg.results import files, qc_figure
from cardiacreg.results.files import FILE_NAMES
from cardiacreg.results.guards import Finding


@pytest.fixture
def quick_picture(monkeypatch):
    """Save without drawing, which takes a second and is tested elsewhere."""
    monkeypatch.setattr(qc_figure, "draw_qc_figure", lambda result: None)
    monkeypatch.setattr(qc_figure, "png_bytes", lambda figure: b"picture")


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_a_saved_result_can_be_read_back(tiny_result, tmp_path):
    folder = tiny_result.save(tmp_path / "a" / "b")
    assert names(folder) == set(FILE_NAMES)
    labels = nifti.read_labels(folder / "labels.nii.gz")
    np.testing.assert_array_equal(labels.array, tiny_result.labels.array)
    np.testing.assert_allclose(labels.voxel_to_world, tiny_result.labels.voxel_to_world, atol=1e-4)
    confidence = nifti.read_volume(folder / "confidence.nii.gz")
    np.testing.assert_array_equal(confidence.array, tiny_result.confidence.array)
    landmarks = read_landmarks(folder / "landmarks.json")
    np.testing.assert_allclose(landmarks.points_mm, tiny_result.landmarks.points_mm)


@pytest.mark.usefixtures("quick_picture")
def test_result_json_says_how_it_came_about(tiny_result, tmp_path):
    folder = tiny_result.save(tmp_path / "out")
    found = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    assert found["schema_version"] == files.SCHEMA_VERSION
    assert found["volumes_ml"] == pytest.approx(volumes_ml(tiny_result.labels))
    kept = tiny_result.volumes["RV cavity"]
    assert found["volumes"]["RV cavity"] == json.loads(json.dumps(dataclasses.asdict(kept)))
    assert list(found["volumes"]) == list(found["volumes_ml"])
    assert [atlas["name"] for atlas in found["atlases"]] == [a.name for a in tiny_result.atlases]
    assert found["minimum_jacobian"] == tiny_result.minimum_jacobian
    assert found["atlas_diversity"] == tiny_result.atlas_diversity > 0
    assert np.shape(found["slice_shifts_mm"]) == (8, 2)
    assert found["slice_turns_degrees"] == [0.0] * 8
    assert found["options"]["n_atlases"] == tiny_result.options.n_atlases
    assert found["warnings"] == list(tiny_result.warnings)
    assert len(found["provenance"]["labels_sha256"]) == 64
    assert {"agreement_dice", "masses_g", "timings_seconds", "structures_from_atlases"} <= set(
        found
    )


def test_what_was_assumed_is_in_result_json(tiny_result):
    found = json.loads(json_text(files.summary(tiny_result)))
    name, probability = tiny_result.orientation.name, tiny_result.orientation.probability
    assert (found["orientation"]["name"], found["orientation"]["reason"]) == (
        name,
        "by the atlases' fit to 1 frame",
    )
    assert found["orientation"]["probability"] == pytest.approx(probability)
    reason = "1 slice without labels beyond them"
    assert found["ends"] == [
        {"name": end, "coverage": "empty slice", "reason": reason} for end in ("apex", "base")
    ]


def test_findings_are_in_result_json_with_their_codes(tiny_result):
    finding = Finding("LOW_AGREEMENT", "RV cavity 0.77; look at it")
    found = files.summary(dataclasses.replace(tiny_result, findings=(finding,)))
    assert found["schema_version"] == 2
    assert found["findings"] == [{"code": "LOW_AGREEMENT", "message": "RV cavity 0.77; look at it"}]


@pytest.mark.usefixtures("quick_picture")
def test_result_json_holds_the_checksum_of_every_other_file(tiny_result, tmp_path):
    folder = tiny_result.save(tmp_path / "out")
    checksums = json.loads((folder / "result.json").read_text())["files_sha256"]
    assert set(checksums) == set(FILE_NAMES) - {"result.json"}
    for name, checksum in checksums.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == checksum


@pytest.mark.usefixtures("quick_picture")
@pytest.mark.parametrize("name", FILE_NAMES)
def test_existing_files_are_kept_unless_told_otherwise(tiny_result, tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(InvalidInputError, match="already") as caught:
        tiny_result.save(tmp_path)
    assert caught.value.code == "OUTPUT_EXISTS"
    assert names(tmp_path) == {name} and (tmp_path / name).read_text() == "mine"


@pytest.mark.usefixtures("quick_picture")
def test_overwrite_replaces_a_result_and_nothing_else(tiny_result, tmp_path):
    for name in (*FILE_NAMES, "notes.txt"):
        (tmp_path / name).write_text("old")
    tiny_result.save(tmp_path, overwrite=True)
    assert names(tmp_path) == {*FILE_NAMES, "notes.txt"}
    assert json.loads((tmp_path / "result.json").read_text())["schema_version"]
    assert (tmp_path / "notes.txt").read_text() == "old"


def test_a_file_in_the_way_is_an_input_error(tiny_result, tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(InvalidInputError) as caught:
        tiny_result.save(tmp_path / "out" / "deeper")
    assert caught.value.code == "OUTPUT_NOT_WRITABLE"


@pytest.mark.parametrize("failing", ["draw_qc_figure", "png_bytes"])
def test_a_failure_leaves_nothing_behind(
    tiny_result, tmp_path, monkeypatch, quick_picture, failing
):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(qc_figure, failing, fail)
    with pytest.raises(OSError, match="No space left"):
        tiny_result.save(tmp_path / "new" / "out")
    assert not (tmp_path / "new").exists()


def test_a_failure_keeps_the_earlier_result(tiny_result, tmp_path, monkeypatch, quick_picture):
    tiny_result.save(tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in FILE_NAMES}

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(qc_figure, "png_bytes", fail)
    with pytest.raises(KeyboardInterrupt):
        tiny_result.save(tmp_path, overwrite=True)
    assert {name: (tmp_path / name).read_bytes() for name in FILE_NAMES} == before
    assert names(tmp_path) == set(FILE_NAMES)


@pytest.mark.usefixtures("quick_picture")
def test_of_two_that_save_at_once_one_set_stays_and_is_consistent(tiny_result, tmp_path):
    errors = []

    def save():
        try:
            tiny_result.save(tmp_path / "out")
        except InvalidInputError as error:
            errors.append(error.code)

    threads = [threading.Thread(target=save) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == ["OUTPUT_EXISTS"] * 2
    assert names(tmp_path / "out") == set(FILE_NAMES)


def test_saving_twice_gives_the_same_bytes(tiny_result, tmp_path):
    first, second = tiny_result.save(tmp_path / "a"), tiny_result.save(tmp_path / "b")
    for name in FILE_NAMES:
        assert (first / name).read_bytes() == (second / name).read_bytes()


@pytest.mark.usefixtures("quick_picture")
def test_a_surface_picture_belongs_to_its_result(tiny_result, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "cardiacreg.results.surface_figure.draw_surface_figure", lambda result: None
    )
    files.save_result(tiny_result, tmp_path, overwrite=False, surface=True)
    assert names(tmp_path) == {*FILE_NAMES, "surface.png"}
    assert "surface.png" in json.loads((tmp_path / "result.json").read_text())["files_sha256"]
    tiny_result.save(tmp_path, overwrite=True)
    assert names(tmp_path) == set(FILE_NAMES)
