import pickle

import numpy as np
import pytest

from cardiacreg import InputWarning, InvalidInputError, Landmarks, Volume
from cardiacreg.anatomy.label_presets import canonical_labels
from cardiacreg.atlases.folder import open_atlas_folder
from cardiacreg.atlases.ranking import with_metadata
from cardiacreg.io.landmark_files import write_landmarks
from cardiacreg.io.nifti import write_labels, write_volume
from tests.helpers.small_hearts import data_folder, relabelled, small_heart


def make_atlas(folder, *, image=False, landmarks=False, labels_name="labels.nii.gz"):
    folder.mkdir()
    heart = small_heart()
    write_labels(folder / labels_name, heart)
    if image:
        write_volume(folder / "image.nii.gz", Volume(heart.array, heart.voxel_to_world))
    if landmarks:
        write_landmarks(folder / "landmarks.json", Landmarks(np.eye(3)))


def test_atlases_are_sorted_named_and_read_with_what_they_have(tmp_path):
    make_atlas(tmp_path / "b", image=True, landmarks=True)
    make_atlas(tmp_path / "a", labels_name="LABELS.NII")
    (tmp_path / "notes.txt").touch()
    (tmp_path / "empty").mkdir()
    bank = open_atlas_folder(tmp_path)
    assert [atlas.name for atlas in bank] == ["a", "b"]
    assert bank[0].image is None and bank[0].landmarks is None
    assert bank[-1].image is not None and bank[1].landmarks is not None
    np.testing.assert_array_equal(bank[0].labels.array, small_heart().array)
    assert len(bank) == 2 and len(bank[1:]) == 1 and bank[1:][0].name == "b"
    with pytest.raises(IndexError):
        bank[2]


def test_atlases_are_read_when_asked_for_and_not_before(tmp_path):
    make_atlas(tmp_path / "a")
    make_atlas(tmp_path / "b")
    bank = open_atlas_folder(tmp_path)
    (tmp_path / "b" / "labels.nii.gz").write_bytes(b"damaged")
    assert bank[0].name == "a"
    with pytest.warns(InputWarning, match="atlas 'b'"), pytest.raises(InvalidInputError) as error:
        bank[1]
    assert str(error.value).startswith("atlas 'b': ") and error.value.code == "NOT_NIFTI"


def test_metadata_are_read_without_the_voxels(tmp_path):
    for name in ("a", "b", "c"):
        make_atlas(tmp_path / name)
    (tmp_path / "a" / "metadata.json").write_text('{"phase": "ED", "age": 60}')
    bank = open_atlas_folder(tmp_path)
    (tmp_path / "b" / "labels.nii.gz").write_bytes(b"damaged")
    assert bank.metadata == ({"phase": "ED", "age": 60}, {}, {})
    assert bank[0].metadata == {"phase": "ED", "age": 60} and bank[2].metadata == {}
    assert with_metadata(bank, phase="ED") == (0,)


@pytest.mark.parametrize("text", ["{", '["ED"]'])
def test_metadata_are_an_object(tmp_path, text):
    make_atlas(tmp_path / "a")
    (tmp_path / "a" / "metadata.json").write_text(text)
    with pytest.raises(InvalidInputError, match="metadata.json") as error:
        open_atlas_folder(tmp_path)[0]
    assert error.value.code == "BAD_METADATA_FILE"


def test_labels_are_translated_on_the_way(tmp_path):
    (tmp_path / "a").mkdir()
    write_labels(tmp_path / "a" / "labels.nii.gz", relabelled(small_heart(), {1: 3, 4: 1}))
    bank = open_atlas_folder(tmp_path, translate=lambda labels: canonical_labels(labels, "acdc"))
    np.testing.assert_array_equal(bank[0].labels.array, small_heart().array)


def test_a_bank_can_be_sent_to_another_process(tmp_path):
    make_atlas(tmp_path / "a")
    assert pickle.loads(pickle.dumps(open_atlas_folder(tmp_path)))[0].name == "a"


def test_an_empty_bank_is_refused(tmp_path):
    for folder, code in ((tmp_path, "EMPTY_BANK"), (tmp_path / "gone", "FILE_NOT_FOUND")):
        with pytest.raises(InvalidInputError) as error:
            open_atlas_folder(folder)
        assert error.value.code == code


def test_an_image_without_labels_and_two_label_maps_are_refused(tmp_path):
    make_atlas(tmp_path / "a", image=True)
    write_labels(tmp_path / "a" / "labels.nii", small_heart())
    with pytest.raises(InvalidInputError, match="keep one"):
        open_atlas_folder(tmp_path)
    for name in ("labels.nii", "labels.nii.gz"):
        (tmp_path / "a" / name).unlink()
    with pytest.raises(InvalidInputError, match=r"no labels\.nii\.gz"):
        open_atlas_folder(tmp_path)


def test_the_digital_heart_folder_is_a_bank():
    bank = open_atlas_folder(data_folder("autofd"))
    assert len(bank) == 7
    assert bank[0].labels.present() == (1, 2, 4) and bank[0].image is not None


def test_metadata_that_say_a_thing_twice_are_refused(tmp_path):
    make_atlas(tmp_path / "a")
    (tmp_path / "a" / "metadata.json").write_text('{"phase": "ED", "phase": "ES"}')
    with pytest.raises(InvalidInputError, match="'phase' more than once") as error:
        open_atlas_folder(tmp_path)[0]
    assert error.value.code == "BAD_METADATA_FILE"
