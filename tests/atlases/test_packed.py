"""The bank that comes with the package: what the generator makes, opened lazily, damage told."""

import hashlib
import json
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from cardiacreg import InvalidInputError, default_atlases
from cardiacreg.atlases import embedded, packed
from cardiacreg.atlases.bank import AtlasBank, label_hash
from cardiacreg.atlases.bank_building import build_atlas_bank
from cardiacreg.atlases.bank_verification import problems_of
from cardiacreg.atlases.ranking import with_metadata
from cardiacreg.io.input_records import recorded
from cardiacreg.phantoms.hearts import FIRST_EVALUATION_SEED, HeartSpecification, sample_heart

FEW = (
    HeartSpecification(FIRST_EVALUATION_SEED),
    HeartSpecification(FIRST_EVALUATION_SEED, "dilated", "ES"),
)


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    file = tmp_path_factory.mktemp("packed") / "few.zip"
    packed.write_packed_bank(file, FEW, threads=2)
    return file


class TestShippedBank:
    def test_holds_what_it_promises(self):
        items = embedded.default_specifications()
        assert default_atlases().names == tuple(item.name for item in items)
        assert len(items) == len(set(items)) >= 64
        assert {"healthy", "pulmonary_hypertension"} <= {item.group for item in items}
        assert {item.phase for item in items} == {"ED", "ES"}
        assert all(item.seed < FIRST_EVALUATION_SEED for item in items)

    def test_is_the_one_that_was_written_and_whole(self):
        assert packed.content_sha256() == embedded.CONTENT_SHA256
        assert problems_of(default_atlases()) == ()
        assert packed.SHIPPED.stat().st_size < 1_000_000

    @pytest.mark.parametrize("number", [0, 27, 45, 91])
    def test_equals_the_generator(self, number):
        """After a change of the population model: ``python -m cardiacreg.atlases.packed FILE``."""
        item = embedded.default_specifications()[number]
        made = sample_heart(item.seed, group=item.group, phase=item.phase, with_image=False)
        kept = default_atlases().without_image(number)
        np.testing.assert_array_equal(kept.labels.array, made.labels.array)
        np.testing.assert_array_equal(kept.labels.voxel_to_world, made.labels.voxel_to_world)
        np.testing.assert_array_equal(kept.landmarks.points_mm, made.landmarks.points_mm)
        assert (kept.name, dict(kept.metadata)) == (made.name, dict(made.metadata))

    def test_writes_nothing(self, tmp_path, monkeypatch):
        monkeypatch.setenv("CARDIACREG_CACHE", str(tmp_path / "cache"))
        before = packed.SHIPPED.stat().st_mtime_ns
        assert default_atlases()[3].image is not None
        assert list(tmp_path.iterdir()) == [] and packed.SHIPPED.stat().st_mtime_ns == before

    def test_is_unpacked_once_in_a_process(self):
        first, again = default_atlases(), default_atlases()
        assert first.without_image(5).labels.array is again.without_image(5).labels.array
        assert not first.without_image(5).labels.array.flags.writeable

    def test_is_recorded_as_what_is_used_without_atlases(self):
        assert recorded(default_atlases()) is None
        assert recorded(default_atlases().subset([1, 2])) == {"in_memory": "PackedBank"}

    def test_goes_to_another_process_by_name(self):
        for bank in (default_atlases(), default_atlases().subset([4, 2])):
            sent = pickle.dumps(bank)
            assert len(sent) < 200 and pickle.loads(sent).names == bank.names

    def test_can_be_narrowed(self):
        bank = default_atlases()
        late = bank.subset(with_metadata(bank, phase="ES"))
        assert len(late) == 46 and late.subset([3]).names == (bank.names[7],)
        assert bank.excluding([bank.without_image(0)]).names == bank.names[1:]


def test_a_packed_bank_is_what_a_built_one_is(few, tmp_path):
    built, bank = build_atlas_bank(tmp_path / "built", FEW, threads=2), packed.PackedBank(few)
    for kept, made in zip(bank, built, strict=True):
        assert kept.name == made.name and dict(kept.metadata) == dict(made.metadata)
        np.testing.assert_array_equal(kept.labels.array, made.labels.array)
        np.testing.assert_array_equal(kept.image.array, made.image.array)
        np.testing.assert_array_equal(kept.landmarks.points_mm, made.landmarks.points_mm)
    assert bank.label_hashes == built.label_hashes
    assert bank.image_hashes == (None, None) and bank.stored_image_hash(1) is None


def test_the_file_is_the_same_each_time(few, tmp_path):
    digest = packed.write_packed_bank(tmp_path / "again.zip", FEW, threads=1)
    assert (tmp_path / "again.zip").read_bytes() == few.read_bytes()
    with zipfile.ZipFile(few) as archive:
        text = archive.read("entries.jsonl")
        array = np.lib.format.read_array(archive.open(f"{FEW[1].name}.npy"))
    assert digest == hashlib.sha256(text).hexdigest()
    assert json.loads(text.splitlines()[1])["label_hash"] == label_hash(
        packed.PackedBank(few)[1].labels
    )
    np.testing.assert_array_equal(array, packed.PackedBank(few)[1].labels.array)


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "no heart", "bytes"])
def test_a_damaged_file_is_told(few, tmp_path, damage):
    file, whole = tmp_path / "bad.zip", few.read_bytes()
    if damage == "empty":
        file.write_bytes(b"")
    elif damage == "cut":
        file.write_bytes(whole[: len(whole) // 2])
    elif damage == "no heart":
        with zipfile.ZipFile(few) as archive, zipfile.ZipFile(file, "w") as less:
            less.writestr("entries.jsonl", archive.read("entries.jsonl"))
    elif damage == "bytes":
        file.write_bytes(whole[:400] + bytes(600) + whole[1000:])
    with pytest.raises(InvalidInputError, match="install the package again") as caught:
        packed.PackedBank(file)[0]
    assert caught.value.code == "BAD_ATLAS_BANK"


def test_a_folder_is_no_packed_bank(tmp_path):
    with pytest.raises(InvalidInputError):
        AtlasBank(packed.SHIPPED)
    with pytest.raises(InvalidInputError):
        packed.PackedBank(tmp_path)


def test_the_command_writes_the_default_hearts(tmp_path):
    code = (
        "import runpy, sys\n"
        "from cardiacreg.atlases import embedded\n"
        "few = embedded.default_specifications()[4:6]\n"
        "embedded.default_specifications = lambda: few\n"
        "sys.argv[1:] = [sys.argv[1]]\n"
        "runpy.run_module('cardiacreg.atlases.packed', run_name='__main__')\n"
    )
    file = tmp_path / "bank.zip"
    done = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == packed.content_sha256(file)
    kept, shipped = packed.PackedBank(file), default_atlases().subset([4, 5])
    assert kept.names == shipped.names and kept.label_hashes == shipped.label_hashes
