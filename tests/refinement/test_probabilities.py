"""Probabilities in a refinement: doubt gives way, storage changes nothing, refusals."""

import warnings

import nibabel
import numpy as np
import pytest

import cardiacreg
from cardiacreg.geometry import LabelMap
from cardiacreg.metrics.agreement import sample_at_slices
from cardiacreg.phantoms.toy_heart import make_toy_heart
from tests.anatomy.test_label_probabilities import basal_slice, softmax

ATLASES = [make_toy_heart(size=size) for size in (0.85, 0.9, 1.0, 1.05)]
OPTIONS = cardiacreg.RefineOptions(n_atlases=3, orientation="as-stored")
HEART = make_toy_heart(size=0.95).labels


def refined(labels, **given):
    return cardiacreg.refine(labels, atlases=ATLASES, options=OPTIONS, threads=1, **given)


def with_a_wrong_slice():
    """A heart one of whose slices is drawn far too large, and doubted."""
    array = HEART.array.copy()
    k = array.shape[2] // 2
    array[4:-4, 4:-4, k][array[4:-4, 4:-4, k] == 0] = 2
    wrong = LabelMap(array, HEART.voxel_to_world)
    shares = softmax(wrong, sure=0.99)
    shares[..., k] = softmax(wrong, sure=0.3)[..., k]
    return wrong, shares, k


def test_a_doubtful_slice_gives_way_to_shape():
    wrong, shares, k = with_a_wrong_slice()
    with warnings.catch_warnings():  # the wrong slice makes the agreement low, as it should
        warnings.simplefilter("ignore", cardiacreg.ResultWarning)
        followed, doubted = refined(wrong), refined(wrong, probabilities=shares)
    truth, dice = HEART.array[:, :, k] == 2, []
    for result in (followed, doubted):
        shown = sample_at_slices(HEART, result.labels, result.slice_shifts_mm)[:, :, k] == 2
        dice.append(2 * (shown & truth).sum() / (shown.sum() + truth.sum()))
    assert dice[1] > dice[0] + 0.02, dice


def test_a_sure_softmax_keeps_the_slices_better_than_none():
    plain, sure = refined(HEART), refined(HEART, probabilities=softmax(HEART, sure=0.97))
    for name, dice in plain.agreement.items():
        assert sure.agreement[name] >= dice


def test_how_labels_and_probabilities_are_stored_changes_no_voxel(tmp_path):
    shares = softmax(HEART, sure=0.8)
    expected = refined(HEART, probabilities=shares)
    order = (2, 0, 1)
    matrix = HEART.voxel_to_world[:, [*order, 3]]
    turned = LabelMap(HEART.array.transpose(order), matrix)
    moved = shares.transpose(0, *(1 + axis for axis in order))
    path = tmp_path / "p.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.moveaxis(moved, 0, 3).astype(np.float32), matrix), path)
    with pytest.warns(cardiacreg.InputWarning, match="slices lie along"):
        found = refined(turned, probabilities=path)
    np.testing.assert_array_equal(found.labels.array, expected.labels.array)


def test_the_result_says_that_it_used_them_and_can_be_made_again(tmp_path):
    np.savez(tmp_path / "p.npz", probabilities=softmax(HEART, 0.8).transpose(0, 3, 2, 1))
    cardiacreg.write_labels(tmp_path / "seg.nii.gz", HEART)
    bank = cardiacreg.build_atlas_bank(tmp_path / "bank", ATLASES)
    found = cardiacreg.refine(
        tmp_path / "seg.nii.gz", probabilities=tmp_path / "p.npz", atlases=bank, options=OPTIONS
    )
    assert "sha256" in found.provenance["inputs"]["probabilities"]
    assert tmp_path / "p.npz" in found.input_files
    again = cardiacreg.verify_result(found.save(tmp_path / "out"))
    assert again.same_labels and not again.changed_inputs


@pytest.mark.parametrize("option", ["slice_turns", "upsample_target"])
def test_options_that_move_the_voxels_are_refused(option):
    options = cardiacreg.RefineOptions(**{option: True})
    with pytest.raises(cardiacreg.InvalidInputError, match="--probabilities"):
        cardiacreg.refine(HEART, atlases=ATLASES, options=options, probabilities=softmax(HEART))


@pytest.mark.filterwarnings("ignore:.*VOLUME_DIFFERS")  # so does a doubtful end of a tiny heart
def test_an_end_that_is_doubted_is_told():
    shares = softmax(HEART, sure=0.99)
    last = basal_slice(HEART)
    shares[..., last] = softmax(HEART, sure=0.5)[..., last]
    with pytest.warns(cardiacreg.InputWarning, match=f"RV in slice {last}, at its base"):
        refined(HEART, probabilities=shares)
