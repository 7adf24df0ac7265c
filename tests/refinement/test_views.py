from dataclasses import replace

import numpy as np
import pytest

from cardiacreg import (
    InvalidInputError,
    LabelMap,
    RefineOptions,
    View,
    ViewAcquisition,
    Volume,
    build_atlas_bank,
    refine,
    simulate_views,
    verify_result,
    write_labels,
)
from cardiacreg.phantoms.acquisition import Degradation
from cardiacreg.phantoms.toy_heart import make_toy_heart
from cardiacreg.refinement.views import gather_views
from cardiacreg.results.files import summary
from cardiacreg.slices import labelled_slices

ATLASES = [make_toy_heart(size=size) for size in (0.85, 0.9, 1.0, 1.05)]
OPTIONS = RefineOptions(n_atlases=3, orientation="as-stored")
HOW = ViewAcquisition(thickness_mm=4.0, shift_sd_mm=2.0)


@pytest.fixture(scope="module")
def heart():
    return make_toy_heart(size=0.95)


@pytest.fixture(scope="module")
def views(heart):
    return simulate_views(heart, ["four_chamber", "two_chamber"], seed=4, acquisition=HOW)


@pytest.fixture(scope="module")
def labels(views):
    return [view.subject.labels for view in views]


def moved(labels, shift_mm):
    matrix = labels.voxel_to_world.copy()
    matrix[:3, 3] += shift_mm
    return LabelMap(labels.array, matrix)


def far_image(labels):
    matrix = labels.voxel_to_world.copy()
    matrix[:3, 3] += 90.0 * matrix[:3, 2] / np.linalg.norm(matrix[:3, 2])
    return Volume(labels.array.astype(np.float32), matrix)


def moved_image(labels):
    return Volume(labels.array.astype(np.float32), moved(labels, (3.0, 0, 0)).voxel_to_world)


def test_what_a_view_does_not_draw_at_all_is_left_open(heart, labels):
    ((name, plane),) = gather_views([labels[0]], heart.labels, None)
    assert name == "view 1" and plane.not_drawn == (3,)


def test_every_labelled_plane_of_a_stack_of_views_counts_by_itself(heart, labels):
    array = np.repeat(labels[0].array, 3, axis=2)
    array[:, :, 1] = 0
    found = gather_views(
        [View(LabelMap(array, labels[0].voxel_to_world), name="4ch")], heart.labels, None
    )
    assert [name for name, _ in found] == ["4ch, plane 0", "4ch, plane 2"]
    step = found[1][1].labels.voxel_to_world[:3, 3] - found[0][1].labels.voxel_to_world[:3, 3]
    np.testing.assert_allclose(step, 2 * labels[0].voxel_to_world[:3, 2])


def test_a_view_has_a_meaning_of_its_own_and_its_atria_may_be_background(heart, labels, tmp_path):
    stored = np.array([0, 3, 2, 9, 1, 5], dtype=np.uint8)[labels[0].array]
    stored[:4, :4] = 5
    write_labels(tmp_path / "4ch.nii.gz", LabelMap(stored, labels[0].voxel_to_world))
    view = View(tmp_path / "4ch.nii.gz", preset={3: 1, 2: 2, 1: 4, 5: 0})
    ((name, plane),) = gather_views([view], heart.labels, "mms")
    assert name == "4ch.nii.gz"
    np.testing.assert_array_equal(plane.labels.array, labels[0].array)


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (lambda labels: [moved(labels, (0, 90.0, 0))], "VIEW_ELSEWHERE"),
        (lambda labels: [LabelMap(0 * labels.array, labels.voxel_to_world)], "EMPTY_LABELS"),
        (lambda labels: [LabelMap(4 * (labels.array > 0), labels.voxel_to_world)], "EMPTY_LABELS"),
        (lambda labels: [View(image=far_image(labels))], "VIEW_ELSEWHERE"),
        (lambda labels: [View(labels, image=moved_image(labels))], "LATTICE_MISMATCH"),
        (lambda labels: labels, "BAD_TYPE"),
        (lambda labels: [labels] * 60, "TOO_MANY_VIEWS"),
        (lambda labels: [View(LabelMap(labels.array + 40, labels.voxel_to_world))], "UNEXPECTED_LABEL"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_view_is_refused(heart, labels, wrong, code):
    with pytest.raises(InvalidInputError) as caught:
        gather_views(wrong(labels[0]), heart.labels, None)
    assert caught.value.code == code


def test_a_refinement_with_views_tells_how_they_lie_and_agrees_with_them(heart, labels, views):
    without = refine(heart.labels, atlases=ATLASES, options=OPTIONS)
    result = refine(heart.labels, atlases=ATLASES, options=OPTIONS, views=labels)
    assert without.views == ()
    assert [report.name for report in result.views] == ["view 1", "view 2"]
    for report, view in zip(result.views, views, strict=True):
        assert report.agreement["RV wall"] is None
        assert report.agreement["LV cavity"] > 0.9
        np.testing.assert_allclose(report.shift_mm, view.shift_mm[:2], atol=1.5)
    assert summary(result)["views"][0]["shift_mm"] == result.views[0].shift_mm


def test_views_move_with_their_stack_through_the_world(heart, labels):
    """Equal bits: everything runs in a frame of the target's own."""
    step = np.array([32.0, -64.0, 16.0])
    here = refine(heart.labels, atlases=ATLASES, options=OPTIONS, views=labels)
    there = refine(
        moved(heart.labels, step),
        atlases=ATLASES,
        options=OPTIONS,
        views=[moved(each, step) for each in labels],
    )
    np.testing.assert_array_equal(here.labels.array, there.labels.array)
    np.testing.assert_array_equal(here.slice_shifts_mm, there.slice_shifts_mm)


def test_a_view_given_as_a_file_is_an_input_that_is_kept(heart, labels, tmp_path):
    write_labels(tmp_path / "labels.nii.gz", labels[0])
    result = refine(
        heart.labels, atlases=ATLASES, options=OPTIONS, views=[tmp_path / "labels.nii.gz"]
    )
    with pytest.raises(InvalidInputError) as caught:
        result.save(tmp_path, overwrite=True)
    assert caught.value.code == "OUTPUT_IS_INPUT"
    assert (tmp_path / "labels.nii.gz").stat().st_size > 0


def test_a_view_needs_labels_or_an_image():
    with pytest.raises(InvalidInputError) as caught:
        View()
    assert caught.value.code == "EMPTY_VIEW"


@pytest.mark.filterwarnings("ignore::cardiacreg.ResultWarning")
def test_a_view_without_labels_moves_slices_by_its_image(heart):
    """A striped image over a striped stack: the slices' shifts show in the view's."""
    stack = Degradation(shift_sd_mm=3.0, tilt_sd_degrees=0.0).of(heart, seed=5)
    seen = simulate_views(
        heart, ["four_chamber", "two_chamber"], seed=5, acquisition=ViewAcquisition(shift_sd_mm=0.0)
    )
    options = RefineOptions(n_atlases=3, orientation="as-stored", n_statistics_atlases=0)
    found = refine(
        stack.subject.labels,
        image=stack.subject.image,
        atlases=ATLASES,
        options=options,
        views=[View(image=view.subject.image, name=view.name) for view in seen],
    )
    held = labelled_slices(stack.subject.labels.array)
    true = stack.slice_shifts_mm[held]
    left = np.sqrt(((found.slice_shifts_mm[held] - true) ** 2).sum(axis=1).mean())
    assert left < 0.6 * np.sqrt((true**2).sum(axis=1).mean())
    assert [report.name for report in found.views] == ["four_chamber", "two_chamber"]
    assert all(value is None for report in found.views for value in report.agreement.values())


def test_a_result_with_views_is_made_again(heart, labels, tmp_path):
    for name, each in (("sax", heart.labels), ("4ch", labels[0]), ("2ch", labels[1])):
        write_labels(tmp_path / f"{name}.nii.gz", each)
    bank = build_atlas_bank(tmp_path / "bank", ATLASES)
    views = [View(tmp_path / "4ch.nii.gz", preset={1: 1, 2: 2, 4: 4}), tmp_path / "2ch.nii.gz"]
    result = refine(tmp_path / "sax.nii.gz", atlases=bank, options=OPTIONS, views=views)
    found = verify_result(result.save(tmp_path / "out"))
    assert found.same_labels and found.differences == () and found.changed_inputs == ()
    assert [view.name for view in found.result.views] == ["4ch.nii.gz", "2ch.nii.gz"]
    write_labels(tmp_path / "2ch.nii.gz", labels[0])
    (changed,) = verify_result(tmp_path / "out").changed_inputs
    assert "views[1].segmentation" in changed


def test_a_view_by_its_image_needs_an_image_of_the_stack(heart, labels):
    image = Volume(labels[0].array.astype(np.float32), labels[0].voxel_to_world)
    with pytest.raises(InvalidInputError) as caught:
        refine(heart.labels, atlases=ATLASES, options=OPTIONS, views=[View(image=image)])
    assert caught.value.code == "NO_IMAGE"


def test_turns_of_slices_do_not_go_with_views(heart, labels):
    options = RefineOptions(n_atlases=3, orientation="as-stored", slice_turns=True)
    with pytest.raises(InvalidInputError, match="slice_turns with views"):
        refine(heart.labels, atlases=ATLASES, options=options, views=labels)


@pytest.mark.filterwarnings("ignore::cardiacreg.ResultWarning")
def test_the_published_method_takes_views_too(heart, labels):
    options = replace(RefineOptions.paper(), n_atlases=3, fusion=None)
    result = refine(heart.labels, atlases=ATLASES, options=options, views=labels)
    assert [report.shift_mm for report in result.views] == [(0.0, 0.0)] * 2
    assert min(report.agreement["LV cavity"] for report in result.views) > 0.7
