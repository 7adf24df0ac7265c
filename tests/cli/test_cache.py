"""``cardiacreg cache`` and what ``cardiacreg doctor`` says of caches."""

import json
import os
import shutil
import sys
import time

import numpy as np
import pytest
from click.testing import CliRunner

from cardiacreg import LabelMap, Subject
from cardiacreg.atlases import embedded, packed
from cardiacreg.atlases.bank_building import build_atlas_bank
from cardiacreg.cli import doctor
from cardiacreg.cli.app import main
from cardiacreg.compute import cache_files, kernel_cache
from cardiacreg.phantoms.hearts import FIRST_EVALUATION_SEED, HeartSpecification
from cardiacreg.phantoms.toy_heart import make_toy_heart

KEY = "0123456789abcdef"
HEX = "0123456789abcdef" * 2
PASSED = {"passed": True, "smallest_dice": 0.9, "seconds": 1.0}


def run(*arguments, **more):
    result = CliRunner().invoke(main, list(arguments), **more)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture(scope="module")
def banks(tmp_path_factory):
    """A packed bank of one heart, its digest, and a built one; each test takes copies."""
    place = tmp_path_factory.mktemp("banks")
    few = (HeartSpecification(FIRST_EVALUATION_SEED),)
    digest = packed.write_packed_bank(place / "bank.zip", few, threads=1)
    toy = make_toy_heart().labels
    large = LabelMap(np.pad(toy.array, ((0, 20), (0, 20), (0, 20))), toy.voxel_to_world)
    build_atlas_bank(place / "built", [Subject(large)], threads=1)
    return place, digest


@pytest.fixture
def folder(banks, tmp_path, tmp_path_factory, monkeypatch):
    """A cache with two kernels, two banks of earlier versions, and other things; a bank of one heart."""
    place, digest = banks
    monkeypatch.setenv("CARDIACREG_CACHE", str(tmp_path))
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    shipped = tmp_path_factory.mktemp("installed") / "bank.zip"
    shutil.copy(place / "bank.zip", shipped)
    monkeypatch.setattr(packed, "SHIPPED", shipped)
    monkeypatch.setattr(embedded, "CONTENT_SHA256", digest)
    monkeypatch.setattr(kernel_cache, "_troubles", [])
    monkeypatch.setattr(doctor, "_self_check", lambda: PASSED)
    for name in ("ours._one", "ours.part._two"):
        cache_files.write_kernel(tmp_path / "kernels" / f"{name}-{HEX}.kernel", b"code" * 9)
    for key in (KEY, KEY[::-1]):
        shutil.copytree(place / "built", tmp_path / f"atlas_bank_{key}")
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
    banks = {bank["folder"] for bank in found["banks"]}
    assert banks == {str(folder / f"atlas_bank_{key}") for key in (KEY, KEY[::-1])}
    assert all(bank["megabytes"] > 0 for bank in found["banks"])
    assert set(found["leftovers"]) == {str(path) for path in left}
    text = run("cache", "info").stdout
    assert "2 files" in text and "of an earlier version" in text and text.count("leftover") == 3


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
    assert f"{packed.SHIPPED}: complete" in result.stdout


@pytest.mark.parametrize("damage", ["opens not", "voxels", "another"])
def test_doctor_finds_a_damaged_bank_and_says_how_to_mend_it(folder, monkeypatch, damage):
    whole = packed.SHIPPED.read_bytes()
    if damage == "another":
        monkeypatch.setattr(embedded, "CONTENT_SHA256", HEX * 2)
    else:
        cut = whole[:-7] if damage == "opens not" else whole[:200] + bytes(300) + whole[500:]
        packed.SHIPPED.write_bytes(cut)
    result = run("doctor")
    assert result.exit_code == 1 and "pip install --force-reinstall" in result.stderr
    found = json.loads(run("doctor", "--json").stdout)["caches"]["atlases"]
    assert found["state"] == "damaged" and found["damage"]


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
    found = json.loads(run("doctor", "--json").stdout)["caches"]
    assert not found["kernels"]["writable"] and found["atlases"]["state"] == "complete"


def test_doctor_passes_on_what_the_kernels_met(folder, monkeypatch):
    monkeypatch.setattr(kernel_cache, "_troubles", ["Numba 9.9 works in another way"])
    assert "Numba 9.9 works in another way" in run("doctor").stdout
