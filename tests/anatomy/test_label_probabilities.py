"""Probabilities of labels: formats, meaning, refusals, doubt, and ends that are not borne out."""

import nibabel
import numpy as np
import pytest

from cardiacreg import InvalidInputError
from cardiacreg.anatomy.label_probabilities import (
    doubt_levels,
    read_probabilities,
    without_doubtful_ends,
)
from cardiacreg.geometry import LV_CAVITY, LV_WALL, RV_CAVITY, RV_WALL, LabelMap
from cardiacreg.phantoms.toy_heart import make_toy_heart

LABELS = make_toy_heart().labels


def softmax(labels=LABELS, sure=0.8):
    rest = (1 - sure) / 4
    return np.stack([labels.array == n for n in range(5)]) * (sure - rest) + rest


def test_an_array_a_nifti_file_and_an_npz_of_nnunet_say_the_same(tmp_path):
    given = softmax().astype(np.float32)
    last = np.moveaxis(given, 0, 3)
    nibabel.save(nibabel.Nifti1Image(last, LABELS.voxel_to_world), tmp_path / "p.nii.gz")
    np.savez(tmp_path / "p.npz", probabilities=given.transpose(0, 3, 2, 1))
    np.savez(tmp_path / "old.npz", softmax=given.transpose(0, 3, 2, 1).astype(np.float16))
    found = read_probabilities(given, LABELS)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-6)
    for name in ("p.nii.gz", "p.npz", "old.npz"):
        np.testing.assert_allclose(read_probabilities(tmp_path / name, LABELS), found, atol=1e-3)


def test_classes_mean_what_the_values_of_the_segmentation_mean():
    ours = softmax()
    in_acdc = np.stack([ours[0] + ours[3], ours[4], ours[2], ours[1]])  # RV, wall, LV cavity
    labels = LabelMap(np.where(LABELS.array == 3, 0, LABELS.array), LABELS.voxel_to_world)
    found = read_probabilities(in_acdc, labels, "acdc")
    np.testing.assert_allclose(found[[1, 2, 4]], ours[[1, 2, 4]], atol=1e-6)
    assert not found[3].any()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda p: p[:, :-1], "PROBABILITIES_MISMATCH"),
        (lambda p: p[0], "PROBABILITIES_MISMATCH"),
        (lambda p: p[:1], "PROBABILITIES_MISMATCH"),
        (lambda p: p * 2, "BAD_PROBABILITIES"),
        (lambda p: p[:3], "BAD_PROBABILITIES"),
        (lambda p: np.where(p > 0.5, np.nan, p), "BAD_PROBABILITIES"),
        (lambda p: p[[0, 2, 1, 4, 3]], "PROBABILITIES_DIFFER"),
        (lambda p: p[..., ::-1], "PROBABILITIES_DIFFER"),
        (lambda p: "a word", "FILE_NOT_FOUND"),
        (lambda p: "a word.npz", "FILE_NOT_FOUND"),
        (lambda p: [["x"]], "BAD_TYPE"),
    ],
)
def test_what_cannot_belong_to_the_segmentation_is_refused(change, code):
    with pytest.raises(InvalidInputError) as told:
        read_probabilities(change(softmax()), LABELS)
    assert told.value.code == code


@pytest.mark.parametrize(
    "damage", [lambda b: b[:100], lambda b: b[:40] + b"x" * 40 + b[80:], bytes.upper]
)
def test_a_damaged_npz_is_refused_with_its_name(damage, tmp_path):
    np.savez_compressed(tmp_path / "p.npz", probabilities=softmax())
    content = damage((tmp_path / "p.npz").read_bytes())
    (tmp_path / "bad.npz").write_bytes(content)
    with pytest.raises(InvalidInputError, match=r"bad\.npz") as told:
        read_probabilities(tmp_path / "bad.npz", LABELS)
    assert told.value.code == "BAD_PROBABILITIES"


def test_an_npz_without_the_array_names_what_it_holds(tmp_path):
    np.savez(tmp_path / "other.npz", logits=softmax())
    with pytest.raises(InvalidInputError, match="holds logits; needs an array named probabilities"):
        read_probabilities(tmp_path / "other.npz", LABELS)


def test_pickles_are_not_opened(tmp_path):
    np.savez(tmp_path / "p.npz", probabilities=np.array([{}], dtype=object))
    with pytest.raises(InvalidInputError, match="not a readable"):
        read_probabilities(tmp_path / "p.npz", LABELS)


def test_a_voxel_is_as_doubtful_as_the_next_label_is_probable():
    labels = LabelMap(np.full((1, 1, 4), 2), np.eye(4))
    own = np.array([1.0, 0.75, 0.5, 0.1])
    shares = np.zeros((5, 1, 1, 4), np.float32)
    shares[2, 0, 0], shares[1, 0, 0] = own, 1 - own
    np.testing.assert_array_equal(doubt_levels(labels, shares)[0, 0], [0, 8, 15, 15])


def basal_slice(labels=LABELS):
    """The last slice of the RV, which has the base last."""
    return int(np.flatnonzero((labels.array == RV_CAVITY).any(axis=(0, 1)))[-1])


def test_an_rv_that_is_doubted_at_its_base_is_left_out_and_a_sure_one_stays():
    last = basal_slice()
    shares = softmax(sure=0.99).astype(np.float32)
    same, none = without_doubtful_ends(LABELS, shares)
    assert not none
    np.testing.assert_array_equal(same.array, LABELS.array)
    shares[..., last] = softmax(sure=0.6)[..., last]
    kept, (left_out,) = without_doubtful_ends(LABELS, shares)
    assert left_out.slice == last and left_out.probability < left_out.needed < 0.9
    assert not np.isin(kept.array[:, :, last], (RV_WALL, RV_CAVITY)).any()
    left = np.isin(LABELS.array, (LV_CAVITY, LV_WALL))
    np.testing.assert_array_equal(kept.array[left], LABELS.array[left])
    np.testing.assert_array_equal(kept.array[..., :last], LABELS.array[..., :last])
    assert f"slice {last}, at its base" in str(left_out)


def test_a_network_that_is_never_sure_keeps_its_base():
    _, left_out = without_doubtful_ends(LABELS, softmax(sure=0.6).astype(np.float32))
    assert not left_out


def test_some_slices_of_the_rv_stay_whatever_is_doubted():
    shares = softmax(sure=0.99).astype(np.float32)
    shares[3:] *= 0.3
    kept, _ = without_doubtful_ends(LABELS, shares / shares.sum(axis=0))
    assert (kept.array == RV_CAVITY).any(axis=(0, 1)).sum() >= 3
