"""What is no regular file is refused before it is opened: a named pipe would block for ever."""

import os
import signal
from contextlib import contextmanager

import numpy as np
import pytest

from cardiacreg import (
    Affine,
    InvalidInputError,
    Landmarks,
    read_displacement_field,
    read_dof,
    read_itk_transform,
    read_transforms,
    write_dof,
    write_itk_transform,
    write_transforms,
)
from cardiacreg.atlases.bank import AtlasBank
from cardiacreg.atlases.bank_building import build_atlas_bank
from cardiacreg.atlases.folder import open_atlas_folder
from cardiacreg.atlases.index import AtlasIndex
from cardiacreg.io.atomic_write import write_bytes_atomically
from cardiacreg.io.landmark_files import read_landmarks, write_landmarks
from cardiacreg.io.nifti import read_labels, read_volume, write_labels
from cardiacreg.phantoms.toy_heart import make_toy_heart

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")

READERS = (
    (read_labels, "a.nii.gz"),
    (read_volume, "a.nii"),
    (read_displacement_field, "a.nii.gz"),
    (read_landmarks, "a.json"),
    (read_landmarks, "a.vtk"),
    (read_dof, "a.dof"),
    *((read_itk_transform, f"a{suffix}") for suffix in (".tfm", ".txt", ".mat", ".h5")),
    (AtlasIndex.load, "a.npz"),
    (read_transforms, "a.npz"),
)
WRITERS = (
    (lambda path: write_labels(path, make_toy_heart().labels), "a.nii.gz"),
    (lambda path: write_landmarks(path, Landmarks(np.eye(3))), "a.json"),
    (lambda path: write_dof(path, Affine.identity()), "a.dof"),
    (lambda path: write_itk_transform(path, Affine.identity()), "a.tfm"),
    (lambda path: write_transforms(path, [], []), "a.npz"),
)


@contextmanager
def no_waiting(seconds=10):
    """Fail where a call blocks."""

    def wake(*_):
        raise AssertionError("it waits for the other end of a pipe")

    before = signal.signal(signal.SIGALRM, wake)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize(("read", "name"), READERS)
@pytest.mark.parametrize(("make", "kind"), [(os.mkfifo, "named pipe"), (os.mkdir, "folder")])
def test_no_reader_opens_what_is_no_file(tmp_path, read, name, make, kind):
    make(tmp_path / name)
    with no_waiting(), pytest.raises(InvalidInputError, match=kind) as caught:
        read(tmp_path / name)
    assert caught.value.code in ("UNREADABLE_FILE", "BAD_ATLAS_INDEX")
    assert name in str(caught.value)


@pytest.mark.parametrize(("write", "name"), WRITERS)
@pytest.mark.parametrize(("make", "kind"), [(os.mkfifo, "named pipe"), (os.mkdir, "folder")])
def test_no_writer_replaces_what_is_no_file(tmp_path, write, name, make, kind):
    make(tmp_path / name)
    with no_waiting(), pytest.raises(InvalidInputError, match=kind) as caught:
        write(tmp_path / name)
    assert caught.value.code == "OUTPUT_NOT_WRITABLE"
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert not (tmp_path / name).is_file()


@pytest.mark.parametrize("name", ["index.json", "labels.npy", "entries.jsonl", "ends.npy"])
def test_a_pipe_in_a_bank_does_not_block_it(tmp_path, name):
    build_atlas_bank(tmp_path / "bank", [make_toy_heart()])
    (tmp_path / "bank" / name).unlink()
    os.mkfifo(tmp_path / "bank" / name)
    with no_waiting(), pytest.raises(InvalidInputError, match="named pipe") as caught:
        AtlasBank(tmp_path / "bank")
    assert caught.value.code == "BAD_ATLAS_BANK"


@pytest.mark.parametrize("name", ["labels.nii.gz", "landmarks.json", "metadata.json"])
def test_a_pipe_in_an_atlas_folder_does_not_block_it(tmp_path, name):
    (tmp_path / "a").mkdir()
    if name != "labels.nii.gz":
        write_labels(tmp_path / "a" / "labels.nii.gz", make_toy_heart().labels)
    os.mkfifo(tmp_path / "a" / name)
    with no_waiting(), pytest.raises(InvalidInputError, match="named pipe"):
        open_atlas_folder(tmp_path)[0]


def test_a_link_that_was_named_stays_and_its_target_is_replaced(tmp_path):
    (tmp_path / "target").write_bytes(b"old")
    (tmp_path / "link").symlink_to("target")
    write_bytes_atomically(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "target").read_bytes() == b"new"


def test_a_link_to_itself_is_refused(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(InvalidInputError) as caught:
        write_bytes_atomically(tmp_path / "loop", b"new")
    assert caught.value.code == "OUTPUT_NOT_WRITABLE"
    with pytest.raises(InvalidInputError) as caught:
        read_landmarks(tmp_path / "loop")
    assert caught.value.code == "UNREADABLE_FILE"
