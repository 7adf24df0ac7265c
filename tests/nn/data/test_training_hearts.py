"""Training hearts: in one frame whatever their storage, with folds that keep patients apart."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cardiacreg import InvalidInputError, LabelMap, Volume, landmarks_from_labels
from cardiacreg.phantoms.toy_heart import make_toy_heart
from cardiacreg_nn.data.batches import cached_synthetic
from cardiacreg_nn.data.training_hearts import (
    acdc_folds,
    acdc_sources,
    anatomy_source,
    collate,
    source_from_pair,
    sources_from_stack,
    synthetic_source,
)
from cardiacreg_nn.inference.preprocessing import turns
from tests.nn.tiny_training import BOX

DATA = Path(os.environ.get("CARDIACREG_DATA", "../shared/data"))
needs_acdc = pytest.mark.skipif(
    not (DATA / "acdc").is_dir(), reason="CARDIACREG_DATA holds no folder acdc"
)


@pytest.fixture(scope="module")
def synthetic():
    return synthetic_source(20_001)


def centre_of(source, *labels):
    return np.argwhere(np.isin(source.labels, labels)).mean(axis=0)


def in_frame(source):
    """Base last: more heart at high k; RV at low i."""
    area = np.isin(source.labels, (1, 2)).sum(axis=(1, 2))
    held = np.flatnonzero(area)
    base_last = np.average(held, weights=area[held]) > held.mean()
    return base_last and centre_of(source, 4)[1] < centre_of(source, 1, 2)[1]


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("turn", range(8))
def test_hearts_are_turned_into_one_frame(turn, mirrored):
    """The stored array is turned by right angles and mirrored; the source is always the same."""
    heart, rotation = make_toy_heart(), np.rint(turns()[turn]).astype(int)
    array, matrix = heart.labels.array, heart.labels.voxel_to_world
    if mirrored:
        array, flip = array[:, :, ::-1], np.eye(4)
        flip[2, 2], flip[2, 3] = -1, array.shape[2] - 1
        matrix = matrix @ flip
    order = np.abs(rotation).argmax(axis=0)
    moved = array.transpose(order)
    change = np.eye(4)
    change[:3, :3] = rotation
    for axis in range(3):
        if rotation[order[axis], axis] < 0:
            moved = np.flip(moved, axis)
            change[order[axis], 3] = array.shape[order[axis]] - 1
    labels = LabelMap(moved, matrix @ change)
    assert np.allclose(
        landmarks_from_labels(labels).points_mm,
        landmarks_from_labels(heart.labels).points_mm,
        atol=0.5,
    )
    source = source_from_pair(Volume(labels.array, labels.voxel_to_world), labels, BOX)
    plain = source_from_pair(heart.image, heart.labels, BOX)
    assert in_frame(source)
    for label in range(1, 5):  # the canvas' centre is a whole voxel, so that of another may differ
        assert (source.labels == label).sum() == (plain.labels == label).sum()
        assert np.abs(from_landmarks(source, label) - from_landmarks(plain, label)).max() < 0.5


def from_landmarks(source, label):
    """Vectors in mm from every landmark to a structure's centre."""
    middle = (np.array(source.labels.shape) - 1) / 2
    return (centre_of(source, label) - middle) * source.spacing_mm - source.landmarks_mm


def test_a_synthetic_heart_is_in_the_frame_and_complete(synthetic):
    assert in_frame(synthetic) and synthetic.fine and all(synthetic.known)
    assert set(np.unique(synthetic.labels)) == {0, 1, 2, 3, 4}
    blood, muscle = (synthetic.image[synthetic.labels == n].mean() for n in (1, 2))
    assert blood > 1.5 * muscle
    apex, mitral = synthetic.landmarks_mm[4], synthetic.landmarks_mm[5]
    assert mitral[0] - apex[0] > 50


def test_a_seed_is_one_heart(synthetic, tmp_path):
    first = cached_synthetic(20_001, tmp_path)
    again = cached_synthetic(20_001, tmp_path)
    for name in ("image", "labels", "landmarks_mm", "spacing_mm", "tissues"):
        assert np.array_equal(getattr(first, name), getattr(again, name))
        assert np.array_equal(getattr(first, name), getattr(synthetic, name))
    assert (first.group, first.extent, first.fine) == (again.group, again.extent, again.fine)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_heart_in_whole_slices_is_kept_apart(synthetic, tmp_path):
    cached_synthetic(20_001, tmp_path)
    whole = cached_synthetic(20_001, tmp_path, whole=True)
    assert len(list(tmp_path.iterdir())) == 2
    assert whole.labels.any() and not np.array_equal(whole.labels, synthetic.labels)


def test_a_heart_kept_without_tissues_is_made_anew(synthetic, tmp_path):
    np.savez(tmp_path / "heart_020001.npz", image=np.zeros(1))
    assert np.array_equal(cached_synthetic(20_001, tmp_path).tissues, synthetic.tissues)


def test_labels_without_an_image_get_one(synthetic):
    matrix = np.diag([1.75, 1.75, 2.5, 1.0])
    labels = LabelMap(np.moveaxis(synthetic.labels, 0, 2), matrix)
    source = anatomy_source(labels, 0, name="anatomy")
    assert np.array_equal(source.labels, synthetic.labels) and source.name == "anatomy"
    assert source.image[source.labels == 1].mean() > 1.5 * source.image[source.labels == 2].mean()


def test_batches_pad_to_the_largest(synthetic):
    small = source_from_pair(make_toy_heart().image, make_toy_heart().labels, BOX)
    batch = collate([small, synthetic])
    assert batch.image.shape == batch.labels.shape == (2, 60, 112, 112)
    assert batch.centre[0].tolist() == [3.5, 39.5, 39.5] and not batch.image[0, 8:].any()
    assert batch.fine.tolist() == [False, True] and batch.image.max() <= 1
    assert not batch.tissues[0].any() and batch.tissues[1].any()
    assert collate([small]).tissues is None
    held: dict = {}
    for _ in range(2):
        again = collate([small, synthetic], "cpu", held)
        assert all(torch.equal(a, b) for a, b in zip(batch, again, strict=True))
    assert len(held) == 5 and held[synthetic, "labels"].shape == synthetic.labels.shape


def test_an_image_on_another_lattice_is_refused():
    heart = make_toy_heart()
    with pytest.raises(InvalidInputError, match="one lattice"):
        source_from_pair(
            Volume(heart.image.array[1:], heart.image.voxel_to_world), heart.labels, BOX
        )


def write_index(folder, groups):
    lines = ["file,group"]
    for number, group in enumerate(groups, start=1):
        for frame in (1, 9):
            lines.append(f"patient{number:03d}/patient{number:03d}_frame{frame:02d}.nii.gz,{group}")
    (folder / "index.csv").write_text("\n".join(lines))


def test_folds_keep_patients_apart_and_diagnoses_even(tmp_path):
    groups = ["NOR"] * 10 + ["DCM"] * 10 + ["RV"] * 5
    write_index(tmp_path, groups)
    folds = acdc_folds(tmp_path, 5, seed=3)
    assert sorted(p for fold in folds for p in fold) == list(range(1, 26))
    for fold in folds:
        assert [sum(groups[p - 1] == g for p in fold) for g in ("NOR", "DCM", "RV")] == [2, 2, 1]
    assert folds == acdc_folds(tmp_path, 5, seed=3) != acdc_folds(tmp_path, 5, seed=4)


@needs_acdc
def test_acdc_is_read_in_the_frame():
    found = acdc_sources(DATA / "acdc", [1, 60], replace(BOX, shape=(48, 48, 16)))
    assert len(found) == 4 and all(in_frame(source) for source in found)
    assert {source.phase for source in found} == {"ED", "ES"}
    assert all(source.known == (True, True, True, False, True) for source in found)
    assert all(3 not in source.labels for source in found)


@needs_acdc
def test_acdc_folds_are_twenty_patients_each():
    folds = acdc_folds(DATA / "acdc")
    assert [len(fold) for fold in folds] == [20] * 5


def test_a_fine_stack_is_trained_on_in_the_parts_that_prediction_looks_at():
    heart = make_toy_heart()
    labels = LabelMap(np.repeat(heart.labels.array, 2, axis=2), fine_matrix(heart.labels))
    image = Volume(labels.array.astype(np.float32), labels.voxel_to_world)
    parts = sources_from_stack(image, labels, BOX)
    assert len(parts) == 2
    for part in parts:
        np.testing.assert_allclose(part.spacing_mm, (8.0, 2.5, 2.5))
        assert set(np.unique(part.labels)) == set(np.unique(labels.array))
    whole = sources_from_stack(
        Volume(heart.labels.array.astype(np.float32), heart.labels.voxel_to_world),
        heart.labels,
        BOX,
    )
    assert len(whole) == 1


def fine_matrix(labels):
    """The matrix of slices half as far apart."""
    matrix = np.array(labels.voxel_to_world)
    matrix[:3, 2] /= 2
    return matrix
