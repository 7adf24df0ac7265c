"""What a bank replaces and what it leaves alone, also where its process is killed at any step."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from cardiacreg.atlases import bank_files, bank_place
from cardiacreg.atlases.bank import AtlasBank
from cardiacreg.atlases.bank_building import append_to_atlas_bank, build_atlas_bank
from cardiacreg.atlases.bank_lock import LOCK, locked_bank
from cardiacreg.atlases.bank_verification import verify_atlas_bank
from cardiacreg.cli.app import main
from cardiacreg.errors import InputWarning, InvalidInputError
from cardiacreg.geometry import Subject
from cardiacreg.io.folder_locks import locked_folder
from cardiacreg.phantoms.toy_heart import make_toy_heart
from cardiacreg.refinement.target import gather_atlases
from tests.helpers.killed_steps import killed_at_every_step

taken_over = pytest.mark.filterwarnings("ignore:.*taken over:cardiacreg.errors.InputWarning")


def hearts(*sizes):
    return [Subject(make_toy_heart(size=size).labels, name=f"tiny {size}") for size in sizes]


def refused(code, call, *arguments, **keywords):
    with pytest.raises(InvalidInputError) as caught:
        call(*arguments, **keywords)
    assert caught.value.code == code, str(caught.value)
    return str(caught.value)


def content(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def bank(tmp_path):
    build_atlas_bank(tmp_path / "bank", hearts(0.9, 1.0))
    return tmp_path / "bank"


class TestWhatIsNoBank:
    @pytest.mark.parametrize(
        "files",
        [
            {"thesis.txt": "years of work"},
            {"data/thesis.txt": "years of work"},
            {"labels.npy": "x", "images.npy": "x"},
            {"index.json": '{"a": 1}'},
            {"index.json": "[]", "labels.npy": "x"},
        ],
    )
    def test_a_folder_is_left_alone(self, tmp_path, files):
        place = tmp_path / "place"
        for name, text in files.items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_text(text)
        before = content(tmp_path)
        message = refused("BAD_ATLAS_BANK", build_atlas_bank, place, hearts(1.0))
        assert str(place) in message and "choose another place" in message
        assert content(tmp_path) == before
        assert [p.name for p in tmp_path.iterdir()] == ["place"]

    def test_a_file_is_left_alone(self, tmp_path):
        (tmp_path / "file").write_text("years of work")
        refused("BAD_ATLAS_BANK", build_atlas_bank, tmp_path / "file", hearts(1.0))
        assert (tmp_path / "file").read_text() == "years of work"

    def test_an_empty_folder_is_used(self, tmp_path):
        (tmp_path / "empty").mkdir()
        assert len(build_atlas_bank(tmp_path / "empty", hearts(1.0))) == 1

    @pytest.mark.parametrize("name", ["notes.txt", "sub/notes.txt", ".hidden", "labels-x.npy"])
    def test_a_foreign_file_in_a_bank_is_named_and_kept(self, bank, name):
        (bank / name).parent.mkdir(exist_ok=True)
        (bank / name).write_text("mine")
        before = content(bank)
        message = refused("FOREIGN_FILES", build_atlas_bank, bank, hearts(1.1))
        assert name.split("/")[0] in message and "move it" in message
        assert content(bank) == before

    def test_a_foreign_file_that_comes_during_the_build_is_kept(self, bank, monkeypatch):
        kept = bank_files.write_index

        def late(*arguments):
            (bank / "notes.txt").write_text("mine")
            kept(*arguments)

        monkeypatch.setattr(bank_files, "write_index", late)
        refused("FOREIGN_FILES", build_atlas_bank, bank, hearts(1.1))
        assert (bank / "notes.txt").read_text() == "mine" and len(AtlasBank(bank)) == 2
        assert [p.name for p in bank.parent.iterdir()] == ["bank"]

    def test_a_link_to_a_bank_stays_a_link(self, bank, tmp_path):
        (tmp_path / "link").symlink_to("bank", target_is_directory=True)
        assert build_atlas_bank(tmp_path / "link", hearts(1.1)).names == ("tiny 1.1",)
        assert (tmp_path / "link").is_symlink() and AtlasBank(bank).names == ("tiny 1.1",)

    def test_the_command_says_so_before_any_work(self, bank, tiny_files, tmp_path):
        (bank / "notes.txt").write_text("mine")
        words = ["atlas", "build", str(tiny_files.atlases), "-o", str(bank), "--overwrite"]
        result = CliRunner().invoke(main, words)
        assert result.exit_code == 1 and "error [FOREIGN_FILES]: atlas build" in result.stderr
        assert "notes.txt" in result.stderr and (bank / "notes.txt").exists()

    def test_a_damaged_bank_can_be_replaced(self, bank):
        (bank / "labels.npy").write_bytes(b"")
        assert len(build_atlas_bank(bank, hearts(1.1))) == 1
        (bank / "index.json").write_text("{")
        assert len(build_atlas_bank(bank, hearts(1.1, 1.2))) == 2


CODE = """
from pathlib import Path
from cardiacreg.atlases.bank_building import append_to_atlas_bank, build_atlas_bank
from cardiacreg.geometry import Subject
from cardiacreg.phantoms.toy_heart import make_toy_heart

HEARTS = {size: Subject(make_toy_heart(size=size).labels, name=f"tiny {size}") for size in (0.9, 1.1)}

def prepare(place):
    build_atlas_bank(Path(place) / "bank", [HEARTS[0.9]], threads=1)
"""


@taken_over
def test_a_rebuild_killed_at_any_step_leaves_the_old_or_the_new_bank(tmp_path):
    work = """
def work(place):
    build_atlas_bank(Path(place) / "bank", [HEARTS[1.1]], threads=1)
"""
    places = killed_at_every_step(CODE + work, tmp_path)
    assert len(places) > 10
    seen = []
    for number, place in enumerate(places):
        bank = place / "bank"
        missing = not bank.exists()
        opened = AtlasBank(bank) if number % 2 else gather_atlases(str(bank), hearts(1)[0], 1)
        name = opened[0].name
        assert name in ("tiny 0.9", "tiny 1.1") and (name == "tiny 0.9" or not missing)
        seen.append((missing, name))
        assert verify_atlas_bank(bank) == ()
        assert build_atlas_bank(bank, hearts(1.2), threads=1).names == ("tiny 1.2",)
        left = {p.name for p in place.iterdir()} - {"bank"}
        assert all(name.endswith(".building") for name in left) and len(left) <= 1
    assert (True, "tiny 0.9") in seen
    assert seen[0] == (False, "tiny 0.9") and seen[-1] == (False, "tiny 1.1")
    names = [name for _, name in seen]
    assert names == sorted(names)


@taken_over
def test_an_append_killed_at_any_step_leaves_the_bank_and_no_lock_for_ever(tmp_path):
    work = """
def work(place):
    append_to_atlas_bank(Path(place) / "bank", [HEARTS[1.1]], threads=1)
"""
    places = killed_at_every_step(CODE + work, tmp_path)
    assert len(places) > 8
    for place in places:
        bank = place / "bank"
        assert AtlasBank(bank).names in (("tiny 0.9",), ("tiny 0.9", "tiny 1.1"))
        if (bank / LOCK).exists() and not (bank / LOCK).read_text():
            (bank / LOCK).unlink()  # killed before it could say who it is
        appended = append_to_atlas_bank(bank, hearts(1.1, 1.2), threads=1)
        assert appended.names == ("tiny 0.9", "tiny 1.1", "tiny 1.2")
        assert verify_atlas_bank(bank) == ()
        assert not any(p.name.startswith(".") or p.name == LOCK for p in bank.iterdir())


class TestSwap:
    def test_an_interrupted_one_is_healed_by_whoever_opens(self, bank):
        for opener in (AtlasBank, lambda place: gather_atlases(place, hearts(1)[0], 1)):
            bank.rename(bank.parent / ".bank.replaced")
            assert len(opener(bank)) == 2
            assert [p.name for p in bank.parent.iterdir()] == ["bank"]

    def test_the_old_bank_is_healed_over_an_empty_folder_only(self, bank):
        bank.rename(bank.parent / ".bank.replaced")
        bank.mkdir()
        assert len(AtlasBank(bank)) == 2
        bank.rename(bank.parent / ".bank.replaced")
        bank.mkdir()
        (bank / "notes.txt").write_text("mine")
        refused("BAD_ATLAS_BANK", AtlasBank, bank)
        assert (bank / "notes.txt").read_text() == "mine"

    def test_a_hidden_folder_that_is_no_bank_is_never_touched(self, bank):
        aside = bank.parent / ".bank.replaced"
        aside.mkdir()
        (aside / "notes.txt").write_text("mine")
        with pytest.raises(OSError, match="bank"):
            build_atlas_bank(bank, hearts(1.1))
        assert len(AtlasBank(bank)) == 2 and (aside / "notes.txt").read_text() == "mine"

    @pytest.mark.parametrize("error", [OSError(28, "No space left"), KeyboardInterrupt()])
    def test_a_failure_keeps_the_old_bank(self, bank, monkeypatch, error):
        kept = os.replace

        def fail(source, target):
            if str(source).endswith(".building"):
                raise error
            kept(source, target)

        monkeypatch.setattr(os, "replace", fail)
        with pytest.raises(type(error)):
            build_atlas_bank(bank, hearts(1.1))
        monkeypatch.undo()
        assert len(AtlasBank(bank)) == 2
        assert [p.name for p in bank.parent.iterdir()] == ["bank"]

    def test_a_reader_in_the_middle_waits_for_it(self, bank):
        """A process opens the bank while both renames are not done yet."""
        code = (
            "import sys; from cardiacreg.atlases.bank import AtlasBank\n"
            "print(len(AtlasBank(sys.argv[1])))"
        )
        with locked_folder(bank.parent) as alone:
            assert alone
            bank.rename(bank.parent / ".bank.replaced")
            reader = subprocess.Popen(
                [sys.executable, "-c", code, str(bank)],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )  # fmt: skip
            time.sleep(3)
            assert reader.poll() is None
            (bank.parent / ".bank.replaced").rename(bank)
        assert reader.communicate(timeout=60)[0] == "2\n"

    def test_parts_of_two_banks_are_never_mixed(self, bank, tmp_path, monkeypatch):
        """The bank is replaced by one of the same size between the opening of its first and last file."""
        build_atlas_bank(tmp_path / "other", hearts(1.0, 0.9))
        kept, calls = bank_place.Part, []

        def part(folder, number, **sizes):
            found = kept(folder, number, **sizes)
            calls.append(found)
            if len(calls) == 1:
                bank.rename(tmp_path / "gone")
                (tmp_path / "other").rename(bank)
            return found

        monkeypatch.setattr(bank_place, "Part", part)
        assert AtlasBank(bank).names == ("tiny 1.0", "tiny 0.9") and len(calls) == 2

    def test_what_a_killed_build_left_is_removed_after_a_day(self, bank):
        names = [f".bank.{digit * 32}.building" for digit in "01"] + [".bank.mine.building"]
        for name in names:
            (bank.parent / name).mkdir()
            past = time.time() - (2 * 86400 if name != names[0] else 0)
            os.utime(bank.parent / name, (past, past))
        build_atlas_bank(bank, hearts(1.1))
        assert {p.name for p in bank.parent.iterdir()} == {"bank", names[0], names[2]}

    def test_a_rebuild_waits_for_no_append(self, bank):
        with locked_bank(bank, "test"):
            refused("BANK_IS_LOCKED", build_atlas_bank, bank, hearts(1.1))
            assert len(AtlasBank(bank)) == 2
        assert len(build_atlas_bank(bank, hearts(1.1))) == 1


class TestLinksInABank:
    NAMES = ("labels-1.npy", "images-1.npy", "entries-1.jsonl", "ends-1.npy", "index.json", LOCK)

    @pytest.mark.parametrize("name", NAMES)
    def test_nothing_is_written_through_one(self, bank, tmp_path, name):
        precious = tmp_path / "precious"
        if (bank / name).exists():
            (bank / name).rename(precious)
        else:
            precious.write_text("years of work")
        before = precious.read_bytes()
        (bank / name).symlink_to(precious)
        message = refused("LINK_IN_BANK", append_to_atlas_bank, bank, hearts(1.1))
        assert name in message and "symbolic link" in message
        assert precious.read_bytes() == before
        assert len(AtlasBank(bank)) == 2

    @pytest.mark.parametrize("make", [os.mkdir, os.mkfifo], ids=["folder", "pipe"])
    def test_nor_where_there_is_no_file(self, bank, make):
        make(bank / "labels-1.npy")
        refused("LINK_IN_BANK", append_to_atlas_bank, bank, hearts(1.1))
        assert len(AtlasBank(bank)) == 2

    def test_a_hard_link_keeps_its_content(self, bank, tmp_path):
        (tmp_path / "precious").write_text("years of work")
        os.link(tmp_path / "precious", bank / "labels-1.npy")
        assert len(append_to_atlas_bank(bank, hearts(1.1))) == 3
        assert (tmp_path / "precious").read_text() == "years of work"

    def test_a_rebuild_names_a_link_as_foreign(self, bank, tmp_path):
        (bank / "labels.npy").rename(tmp_path / "elsewhere.npy")
        (bank / "labels.npy").symlink_to(tmp_path / "elsewhere.npy")
        assert len(AtlasBank(bank)) == 2
        assert "labels.npy" in refused("FOREIGN_FILES", build_atlas_bank, bank, hearts(1.1))

    def test_the_current_folder_is_not_replaced(self, tmp_path, monkeypatch):
        (tmp_path / "here").mkdir()
        monkeypatch.chdir(tmp_path / "here")
        for folder in ("", ".", "../here", tmp_path / "here"):
            assert "current folder" in refused(
                "BAD_ATLAS_BANK", build_atlas_bank, folder, hearts(1.1)
            )
        assert Path.cwd() == tmp_path / "here" and list(Path().iterdir()) == []

    def test_an_append_that_fails_leaves_no_files(self, bank):
        before = content(bank)
        refused("GRID_MISMATCH", append_to_atlas_bank, bank, [mismatched()])
        assert content(bank) == before


def mismatched():
    heart = make_toy_heart()
    return Subject(
        heart.labels, image=type(heart.image)(heart.image.array[1:], heart.image.voxel_to_world)
    )


class TestLock:
    def test_says_who_holds_it(self, bank):
        with locked_bank(bank, "test"):
            message = refused("BANK_IS_LOCKED", append_to_atlas_bank, bank, hearts(1.1))
        assert f"process {os.getpid()} on {socket.gethostname()} is at work" in message
        assert not (bank / LOCK).exists()

    def test_of_a_killed_process_is_taken_over_with_a_warning(self, bank):
        code = """
import os, signal, sys
from pathlib import Path
from cardiacreg.atlases.bank_lock import locked_bank
with locked_bank(Path(sys.argv[1]), "test"):
    os.kill(os.getpid(), signal.SIGKILL)
"""
        killed = subprocess.Popen([sys.executable, "-c", code, str(bank)])
        killed.wait()
        assert (bank / LOCK).exists()
        with pytest.warns(InputWarning, match=f"left by process {killed.pid} .*taken over"):
            assert len(append_to_atlas_bank(bank, hearts(1.1))) == 3
        assert not (bank / LOCK).exists()

    @pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="needs files without a name (Linux)")
    def test_is_signed_from_the_first_moment(self, bank):
        code = """
import os, signal, sys
from pathlib import Path
from cardiacreg.atlases import bank_lock
bank_lock._check_free = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
with bank_lock.locked_bank(Path(sys.argv[1]), "test"):
    pass
"""
        killed = subprocess.Popen([sys.executable, "-c", code, str(bank)])
        killed.wait()
        with pytest.warns(InputWarning, match=f"left by process {killed.pid} .*taken over"):
            assert len(append_to_atlas_bank(bank, hearts(1.1))) == 3
        assert sorted(each.name for each in bank.glob("*lock*")) == []

    def test_without_nameless_files_it_is_made_as_usual(self, bank, monkeypatch):
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
        with locked_bank(bank, "test"):
            refused("BANK_IS_LOCKED", append_to_atlas_bank, bank, hearts(1.1))
        assert len(append_to_atlas_bank(bank, hearts(1.1))) == 3

    @pytest.mark.parametrize("owner", [{}, {"process": 1, "computer": "elsewhere"}])
    def test_of_whom_nothing_is_known_counts_for_a_day(self, bank, owner):
        (bank / LOCK).write_text(json.dumps(owner) if owner else "")
        assert "remove this file" in refused(
            "BANK_IS_LOCKED", append_to_atlas_bank, bank, hearts(1.1)
        )
        past = time.time() - 2 * 86400
        os.utime(bank / LOCK, (past, past))
        with pytest.warns(InputWarning, match="taken over"):
            append_to_atlas_bank(bank, hearts(1.1))
        assert not (bank / LOCK).exists()

    def test_where_the_system_has_none_a_file_counts(self, bank, monkeypatch):
        monkeypatch.setattr("cardiacreg.io.folder_locks.fcntl", None)
        with locked_bank(bank, "test"):
            refused("BANK_IS_LOCKED", append_to_atlas_bank, bank, hearts(1.1))
        assert len(append_to_atlas_bank(bank, hearts(1.1))) == 3

    def test_of_a_bank_that_was_replaced_does_not_remove_the_next_ones(self, bank, tmp_path):
        with locked_bank(bank, "test"):
            bank.rename(tmp_path / "gone")
            bank.mkdir()
            (bank / LOCK).write_text("another's")
        assert (bank / LOCK).read_text() == "another's"
