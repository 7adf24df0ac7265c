"""A saved result comes back as it was, or says why it cannot."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

import cardiacreg
from cardiacreg.errors import InvalidInputError
from cardiacreg.geometry import LabelMap, Subject, Volume
from cardiacreg.results import qc_figure
from cardiacreg.results.corrected import corrected_stack


@pytest.fixture
def saved(tiny_result, tmp_path, monkeypatch):
    monkeypatch.setattr(qc_figure, "draw_qc_figure", lambda result: None)
    monkeypatch.setattr(qc_figure, "png_bytes", lambda figure: b"picture")
    return tiny_result.save(tmp_path / "out")


SAME = (
    "atlases", "agreement", "volumes", "findings", "orientation", "ends", "warnings",
    "structures_from_atlases", "provenance", "timings_seconds", "atlas_diversity", "minimum_jacobian",
)  # fmt: skip


def test_a_loaded_result_knows_what_the_result_knew(tiny_result, saved):
    found = cardiacreg.load_result(saved)
    np.testing.assert_array_equal(found.labels.array, tiny_result.labels.array)
    np.testing.assert_array_equal(found.confidence.array, tiny_result.confidence.array)
    np.testing.assert_allclose(found.landmarks.points_mm, tiny_result.landmarks.points_mm)
    np.testing.assert_array_equal(found.slice_shifts_mm, tiny_result.slice_shifts_mm)
    np.testing.assert_array_equal(found.slice_turns_degrees, tiny_result.slice_turns_degrees)
    for name in SAME:
        known = getattr(tiny_result, name)
        if name == "atlases":
            ours = [dataclasses.astuple(each) for each in found.atlases]
            assert ours == [dataclasses.astuple(each) for each in known]
        else:
            assert getattr(found, name) == known, name
    assert found.options["n_atlases"] == tiny_result.options.n_atlases
    assert found.volumes_ml["LV wall"] == cardiacreg.volumes_ml(tiny_result.labels)["LV wall"]


def test_the_corrected_stack_needs_the_target(tiny_result, saved):
    with pytest.raises(InvalidInputError) as caught:
        cardiacreg.load_result(saved).corrected_stack()
    assert caught.value.code == "NO_TARGET"
    given = tiny_result.target
    found = cardiacreg.load_result(saved, segmentation=given.labels, image=given.image)
    ours, theirs = found.corrected_stack(), tiny_result.corrected_stack()
    np.testing.assert_array_equal(ours.labels.array, theirs.labels.array)
    np.testing.assert_array_equal(ours.image.array, theirs.image.array)


def test_another_segmentation_is_refused(tiny_result, saved):
    array = np.array(tiny_result.target.labels.array)
    array[0, 0, 0] = 1
    other = LabelMap(array, tiny_result.target.labels.voxel_to_world)
    with pytest.raises(InvalidInputError) as caught:
        cardiacreg.load_result(saved, segmentation=other)
    assert caught.value.code == "TARGET_DIFFERS"


def test_an_image_on_another_lattice_is_refused(tiny_result, saved):
    image = tiny_result.target.image
    moved = image.voxel_to_world.copy()
    moved[0, 3] += 10
    with pytest.raises(InvalidInputError) as caught:
        cardiacreg.load_result(
            saved, segmentation=tiny_result.target.labels, image=Volume(image.array, moved)
        )
    assert caught.value.code == "LATTICE_MISMATCH"


@pytest.mark.parametrize("name", ["labels.nii.gz", "confidence.nii.gz", "landmarks.json"])
@pytest.mark.parametrize("kind", ["gone", "changed"])
def test_damage_is_noticed(saved, name, kind):
    if kind == "gone":
        (saved / name).unlink()
    else:
        (saved / name).write_bytes((saved / name).read_bytes()[:-1])
    with pytest.raises(InvalidInputError) as caught:
        cardiacreg.load_result(saved)
    assert caught.value.code == "DAMAGED_RESULT"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (None, "NO_RESULT"),
        ("{", "DAMAGED_RESULT"),
        ("[1]", "RESULT_VERSION"),
        ('{"schema_version": 1}', "RESULT_VERSION"),
        ('{"schema_version": 2}', "DAMAGED_RESULT"),
    ],
)
def test_another_result_json_is_refused(saved, content, code):
    file = saved / "result.json"
    file.unlink() if content is None else file.write_text(content)
    with pytest.raises(InvalidInputError) as caught:
        cardiacreg.load_result(saved)
    assert caught.value.code == code


@pytest.mark.parametrize("name", ["ends", "slice_shifts_mm", "volumes"])
def test_a_result_json_that_lacks_something_is_refused(saved, name):
    said = json.loads((saved / "result.json").read_text())
    del said[name]
    (saved / "result.json").write_text(json.dumps(said))
    with pytest.raises(InvalidInputError) as caught:
        cardiacreg.load_result(saved)
    assert caught.value.code == "DAMAGED_RESULT"


def disc(centre, shape=(40, 44, 3), spacing=(1.5, 1.2, 8.0)):
    i, j = (np.arange(n) * s for n, s in zip(shape[:2], spacing[:2], strict=True))
    inside = np.hypot(i[:, None] - centre[0], j[None, :] - centre[1]) < 9
    array = np.zeros(shape, dtype=np.uint8)
    array[inside] = 1
    image = np.tile((np.exp(-((i - centre[0]) ** 2) / 50))[:, None, None], (1, *shape[1:]))
    matrix = np.diag([*spacing, 1.0])
    return Subject(LabelMap(array, matrix), Volume(image, matrix))


def test_slices_move_by_their_shifts():
    stack = disc((30.0, 26.0))
    moved = corrected_stack(stack, np.array([[3.0, 0.0], [0.0, -2.4], [0.0, 0.0]]))
    for k, centre in enumerate([(33.0, 26.0), (30.0, 23.6), (30.0, 26.0)]):
        wanted = disc(centre)
        np.testing.assert_array_equal(
            moved.labels.array[:, :, k], wanted.labels.array[:, :, k], str(k)
        )
        np.testing.assert_allclose(
            moved.image.array[:, :, k], wanted.image.array[:, :, k], atol=1e-4
        )


def test_slices_turn_about_the_mean_position_of_the_labels():
    """A disc beside the centre of two, by a quarter of a turn from axis i towards axis j."""
    one, other = disc((20.4, 26.4)).labels, disc((38.4, 26.4)).labels
    array = one.array.copy()
    array[other.array == 1] = 2
    stack = Subject(LabelMap(array, one.voxel_to_world))
    middle = np.argwhere(array)[:, :2].mean(axis=0) * one.spacing_mm[:2]
    turned = corrected_stack(stack, np.zeros((3, 2)), np.array([90.0, 0.0, 0.0])).labels
    np.testing.assert_array_equal(turned.array[:, :, 1:], array[:, :, 1:])
    for label, side in ((1, -9.0), (2, 9.0)):
        centre = np.argwhere(turned.array[:, :, 0] == label).mean(axis=0) * one.spacing_mm[:2]
        np.testing.assert_allclose(centre, middle + [0.0, side], atol=0.3)


def test_shifts_of_another_stack_are_refused():
    with pytest.raises(InvalidInputError) as caught:
        corrected_stack(disc((30.0, 26.0)), np.zeros((4, 2)))
    assert caught.value.code == "BAD_SHAPE"
