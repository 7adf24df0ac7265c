"""The embedded bank: exact contents, lazy opening, repair of a damaged one."""

import json

import numpy as np
import pytest

from cardiacreg import InvalidInputError, Subject, atlas_bank
from cardiacreg.atlas_bank import AtlasBank, build_atlas_bank, default_atlases
from cardiacreg.phantoms import FIRST_EVALUATION_SEED, HeartSpecification, sample_heart

FEW = (
    HeartSpecification(FIRST_EVALUATION_SEED),
    HeartSpecification(FIRST_EVALUATION_SEED, "pulmonary_hypertension", "ES"),
    HeartSpecification(FIRST_EVALUATION_SEED + 1, "hypertrophic"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("banks") / "few"
    build_atlas_bank(place, FEW, threads=2)
    return place


@pytest.fixture
def few_by_default(monkeypatch, tmp_path):
    monkeypatch.setattr(atlas_bank, "default_specifications", lambda: FEW[:1])
    monkeypatch.setattr(atlas_bank, "_model_key", lambda: "few")
    monkeypatch.setenv(atlas_bank.CACHE_VARIABLE, str(tmp_path))
    return tmp_path / "atlas_bank_few"


def test_a_bank_returns_what_was_put_in(folder):
    bank = AtlasBank(folder)
    assert len(bank) == len(FEW)
    assert bank.names == tuple(item.name for item in FEW)
    for item, kept in zip(FEW, bank, strict=True):
        made = sample_heart(item.seed, group=item.group, phase=item.phase)
        assert np.array_equal(kept.labels.array, made.labels.array)
        assert np.allclose(kept.labels.voxel_to_world, made.labels.voxel_to_world)
        assert np.allclose(kept.landmarks.points_mm, made.landmarks.points_mm)
        assert kept.metadata == made.metadata
        inside = made.image.array < np.percentile(made.image.array, 99.5)
        assert np.abs(kept.image.array - made.image.array)[inside].max() < 1.0


def test_the_number_of_threads_changes_nothing(folder, tmp_path):
    build_atlas_bank(tmp_path / "one", FEW, threads=1)
    for name in ("labels.npy", "images.npy", "index.json"):
        assert (tmp_path / "one" / name).read_bytes() == (folder / name).read_bytes()


def test_a_bank_is_a_sequence(folder):
    bank = AtlasBank(folder)
    assert bank[-1].name == bank[2].name == FEW[2].name
    assert [heart.name for heart in bank[1:]] == list(bank.names[1:])
    with pytest.raises(IndexError):
        bank[3]


def test_labels_are_mapped_not_read(folder):
    bank = AtlasBank(folder)
    array = bank[1].labels.array
    assert not array.flags.owndata
    assert not array.flags.writeable


def test_subjects_without_image_or_landmarks_are_kept(tmp_path):
    heart = sample_heart(FIRST_EVALUATION_SEED, with_image=False)
    (kept,) = build_atlas_bank(tmp_path / "plain", [Subject(heart.labels, name="plain")])
    assert kept.image is None
    assert kept.landmarks is None
    assert kept.name == "plain"


def test_the_default_bank_is_built_once(few_by_default):
    first = default_atlases(threads=1)
    stamp = (few_by_default / "labels.npy").stat().st_mtime_ns
    assert default_atlases().names == first.names
    assert (few_by_default / "labels.npy").stat().st_mtime_ns == stamp


@pytest.mark.parametrize("damage", ["index", "truncated", "missing", "format"])
def test_a_damaged_default_bank_is_rebuilt(few_by_default, damage):
    default_atlases(threads=1)
    index, labels = few_by_default / "index.json", few_by_default / "labels.npy"
    if damage == "index":
        index.write_text("{", encoding="utf-8")
    elif damage == "truncated":
        labels.write_bytes(labels.read_bytes()[:-1000])
    elif damage == "missing":
        labels.unlink()
    else:
        entries = json.loads(index.read_text(encoding="utf-8"))
        index.write_text(json.dumps(entries | {"format": -1}), encoding="utf-8")
    with pytest.raises(InvalidInputError):
        AtlasBank(few_by_default)
    assert len(default_atlases(threads=1)) == 1
    assert len(AtlasBank(few_by_default)) == 1


def test_nothing_is_left_beside_a_bank_even_after_a_failure(tmp_path):
    with pytest.raises(InvalidInputError):
        build_atlas_bank(tmp_path / "bad", [HeartSpecification(-1)], threads=1)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_bank_is_refused(tmp_path):
    with pytest.raises(InvalidInputError):
        build_atlas_bank(tmp_path / "empty", [])


def test_the_default_bank_holds_what_it_promises():
    items = atlas_bank.default_specifications()
    assert len(items) == len(set(items)) >= 64
    assert {"healthy", "pulmonary_hypertension"} <= {item.group for item in items}
    assert {item.phase for item in items} == {"ED", "ES"}
    assert all(item.seed < FIRST_EVALUATION_SEED for item in items)
