"""``cardiacreg cache`` and what ``cardiacreg doctor`` says of caches."""

import json
import os
import sys
import time

import pytest
from click.testing import CliRunner

from cardiacreg.atlases import embedded
from cardiacreg.cli import doctor
from cardiacreg.cli.app import main
from cardiacreg.compute import cache_files, kernel_cache
from cardiacreg.phantoms.hearts import FIRST_EVALUATION_SEED, HeartSpecification

KEY = "0123456789abcdef"
HEX = "0123456789abcdef" * 2
PASSED = {"passed": True, "smallest_dice": 0.9, "seconds": 1.0}


def run(*arguments, **more):
    result = CliRunner().invoke(main, list(arguments), **more)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A cache with two kernels, this version's bank of one heart, another bank, and other things."""
    few = (HeartSpecification(FIRST_EVALUATION_SEED),)
    monkeypatch.setenv("CARDIACREG_CACHE", str(tmp_path))
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setattr(embedded, "default_specifications", lambda: few)
    monkeypatch.setattr(embedded, "_model_key", lambda: KEY)
    monkeypatch.setattr(kernel_cache, "_troubles", [])
    monkeypatch.setattr(doctor, "_self_check", lambda: PASSED)
    for name in ("ours._one", "ours.part._two"):
        cache_files.write_kernel(tmp_path / "kernels" / f"{name}-{HEX}.kernel", b"code" * 9)
    embedded.build_atlas_bank(tmp_path / f"atlas_bank_{KEY}", few, threads=1)
    embedded.build_atlas_bank(tmp_path / f"atlas_bank_{KEY[::-1]}", few, threads=1)
    for name in ("kernels/notes.txt", "kernels/numba.nbi", "atlas_bank_mine.txt", "thesis.txt"):
        (tmp_path / name).write_text("not ours")
    (tmp_path / "atlas_bank_mine").mkdir()
    (tmp_path / "atlas_bank_mine" / "index.json").write_text("not ours")
    return tmp_path


def leave_over(folder, hours):
    """What a killed build and a killed compilation leave, of a given age."""
    work = folder / f".atlas_bank_{KEY}-{HEX}"
    aside = folder / f".atlas_bank_{KEY}-old-x1_y2"
    half = folder / "kernels" / f".{HEX}.partial"
    (aside / "bank").mkdir(parents=True)
    work.mkdir()
    files = [work / "labels.npy", aside / "bank" / "index.json", half]
    when = time.time() - 3600 * hours
    for path in files:
        path.write_bytes(b"half")
    for path in (*files, aside / "bank", work, aside):
        os.utime(path, (when, when))
    return {half, work, aside}


def kept(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


OTHERS = {
    "kernels/notes.txt",
    "kernels/numba.nbi",
    "atlas_bank_mine.txt",
    "atlas_bank_mine/index.json",
    "thesis.txt",
}


def test_info_lists_everything(folder):
    left = leave_over(folder, hours=2)
    found = json.loads(run("cache", "info", "--json").stdout)
    assert found["folder"] == str(folder)
    assert found["kernels"]["folder"] == str(folder / "kernels") and found["kernels"]["files"] == 2
    used = {bank["folder"]: bank["used"] for bank in found["banks"]}
    ours = f"atlas_bank_{KEY}"
    assert used == {str(folder / ours): True, str(folder / f"atlas_bank_{KEY[::-1]}"): False}
    assert all(bank["megabytes"] > 0 for bank in found["banks"])
    assert set(found["leftovers"]) == {str(path) for path in left}
    text = run("cache", "info").stdout
    assert "2 files" in text and "used by this version" in text and text.count("leftover") == 3


def test_info_of_a_cache_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("CARDIACREG_CACHE", str(tmp_path / "none"))
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    result = run("cache", "info")
    assert result.exit_code == 0 and "0 files" in result.stdout
    assert "nothing to remove" in run("cache", "clear").stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [(), ("--kernels", "--banks")])
def test_clear_removes_what_is_ours_and_nothing_else(folder, words):
    leave_over(folder, hours=2)
    result = run("cache", "clear", "--yes", *words)
    assert result.exit_code == 0, result.stderr
    assert "5 files" not in result.stderr and "removed 3 files of kernels" in result.stderr
    assert kept(folder) == OTHERS
    assert not [path for path in folder.iterdir() if KEY in path.name]


@pytest.mark.parametrize("word", ["--kernels", "--banks"])
def test_clear_removes_one_kind(folder, word):
    run("cache", "clear", "--yes", word)
    left = kept(folder) - OTHERS
    assert {name.partition("/")[0][:6] for name in left} == (
        {"atlas_"} if word == "--kernels" else {"kernel"}
    )


def test_clear_asks_first(folder):
    before = kept(folder)
    assert run("cache", "clear", input="n\n").exit_code == 1
    assert kept(folder) == before
    assert run("cache", "clear", input="y\n").exit_code == 0
    assert kept(folder) == OTHERS


def test_what_another_process_is_writing_now_stays(folder):
    fresh = leave_over(folder, hours=0.1)
    run("cache", "clear", "--yes")
    assert all(path.exists() for path in fresh)


def test_foreign_files_in_a_bank_and_links_stay(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "index.json").write_text("not ours")
    (folder / "atlas_bank_ffffffffffffffff").symlink_to(elsewhere)
    note = folder / f"atlas_bank_{KEY}" / "note.txt"
    note.write_text("why I keep this")
    result = run("cache", "clear", "--yes")
    assert "other files" in result.stderr and result.exit_code == 0
    assert [path.name for path in note.parent.iterdir()] == ["note.txt"]
    assert (elsewhere / "index.json").exists()


def test_doctor_tells_which_caches_are_used(folder):
    result = run("doctor")
    assert result.exit_code == 0, result.stderr
    assert f"{folder / 'kernels'}: 2 files" in result.stdout
    assert f"{folder / f'atlas_bank_{KEY}'}: complete" in result.stdout


def test_doctor_says_that_a_bank_is_not_built_yet(folder):
    run("cache", "clear", "--yes", "--banks")
    result = run("doctor")
    assert result.exit_code == 0 and "not built yet" in result.stdout
    assert kept(folder) - OTHERS == {path for path in kept(folder) if path.endswith(".kernel")}


@pytest.mark.parametrize("damage", ["opens not", "voxels"])
def test_doctor_finds_a_damaged_bank_and_says_how_to_mend_it(folder, damage):
    labels = folder / f"atlas_bank_{KEY}" / "labels.npy"
    whole = labels.read_bytes()
    labels.write_bytes(whole[:-7] if damage == "opens not" else whole[:-7] + b"\4" * 7)
    result = run("doctor")
    assert result.exit_code == 1 and "cardiacreg cache clear --banks" in result.stderr
    found = json.loads(run("doctor", "--json").stdout)["caches"]["atlases"]
    assert found["state"] == "damaged" and found["damage"]
    run("cache", "clear", "--banks", "--yes")
    assert run("doctor").exit_code == 0


def test_doctor_finds_damaged_kernels(folder):
    file = folder / "kernels" / f"ours._one-{HEX}.kernel"
    file.write_bytes(file.read_bytes()[:-1])
    result = run("doctor")
    assert result.exit_code == 1 and "cardiacreg cache clear --kernels" in result.stderr
    run("cache", "clear", "--kernels", "--yes")
    assert run("doctor").exit_code == 0


@pytest.mark.skipif(sys.platform != "linux", reason="these places are Linux's")
@pytest.mark.parametrize("place", ["/dev/null/cache", "/proc/cache"])
def test_doctor_says_why_there_is_no_cache(folder, monkeypatch, place):
    monkeypatch.setenv("CARDIACREG_CACHE", place)
    result = run("doctor")
    assert result.exit_code == 0, result.stderr
    assert f"{place}/kernels cannot be written" in result.stdout
    assert f"{place} cannot be written" in result.stdout and "each process" in result.stdout
    found = json.loads(run("doctor", "--json").stdout)["caches"]
    assert not found["kernels"]["writable"] and not found["atlases"]["writable"]


def test_doctor_passes_on_what_the_kernels_met(folder, monkeypatch):
    monkeypatch.setattr(kernel_cache, "_troubles", ["Numba 9.9 works in another way"])
    assert "Numba 9.9 works in another way" in run("doctor").stdout
