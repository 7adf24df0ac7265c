"""Files that appear together: an old set, a new one, or none that claims to be one, also when killed."""

import json
import os
import time

import pytest

from cardiacreg.errors import InvalidInputError
from cardiacreg.io import output_folder, replaced_files
from cardiacreg.io.output_folder import all_or_nothing, check_output
from tests.helpers.killed_steps import killed_at_every_step

NAMES = ("a", "b", "c", "result.json")


def save(folder, word, *, names=NAMES, **how):
    with all_or_nothing(folder, names, **({"overwrite": True} | how)) as stage:
        for name in names:
            (stage / name).write_text(word)


def shown(folder):
    """Names and content of what a user sees."""
    return {p.name: p.read_text() for p in folder.iterdir() if not p.name.startswith(".")}


def whole(word, names=NAMES):
    return dict.fromkeys(names, word)


def code_of(call, *arguments, **keywords):
    with pytest.raises(InvalidInputError) as caught:
        call(*arguments, **keywords)
    return caught.value.code


CODE = """
from pathlib import Path
from cardiacreg.io.output_folder import all_or_nothing

def save(folder, word, names):
    with all_or_nothing(folder, names, overwrite=True, outdated=("surface.png",)) as stage:
        for name in names:
            (stage / name).write_text(word)

def prepare(place):
    save(Path(place) / "out", "old", OLD)
    (Path(place) / "out" / "notes.txt").write_text("mine")

def work(place):
    save(Path(place) / "out", "new", NEW)
"""
SETS = {
    "the same names": (NAMES, NAMES),
    "more names": (NAMES, ("surface.png", *NAMES)),
    "fewer names": (("surface.png", *NAMES), NAMES),
    "no old set": (("b",), NAMES),
}


@pytest.mark.parametrize("sets", SETS)
def test_a_process_killed_at_any_step_leaves_the_old_or_the_new_set(tmp_path, sets):
    old, new = SETS[sets]
    places = killed_at_every_step(f"OLD, NEW = {old!r}, {new!r}" + CODE, tmp_path)
    assert len(places) > 3 * len(NAMES)
    complete = {"notes.txt": "mine"} | whole("new", new)
    before = {"notes.txt": "mine"} | whole("old", old)
    seen = []
    for place in places:
        found = shown(place / "out")
        if "result.json" in found:
            assert found in (before, complete)
        with pytest.raises(InvalidInputError, match="already"):
            check_output(place / "out", NAMES, overwrite=False)
        healed = shown(place / "out")
        assert healed in (before, complete)
        seen.append(healed == complete)
        save(place / "out", "third", outdated=("surface.png",))
        assert shown(place / "out") == {"notes.txt": "mine"} | whole("third")
        left = [p.name for p in (place / "out").iterdir() if p.name.startswith(".")]
        assert all(name.endswith(".partial") for name in left) and len(left) <= 1
    assert seen == sorted(seen) and seen[-1] and not seen[0]


@pytest.mark.parametrize("failing", range(8))
def test_a_move_that_fails_brings_the_old_set_back(tmp_path, monkeypatch, failing):
    out = tmp_path / "out"
    save(out, "old", names=("surface.png", *NAMES))
    calls, kept = [], os.replace

    def replace(source, target):
        if ".partial" in str(target) or ".partial" in str(source).rsplit("/", 1)[-1]:
            return kept(source, target)
        calls.append(source)
        if len(calls) == failing + 1:
            raise OSError(28, "No space left on device")
        return kept(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(OSError, match="No space"):
        save(out, "new", outdated=("surface.png",))
    monkeypatch.undo()
    assert {p.name: p.read_text() for p in out.iterdir()} == whole("old", ("surface.png", *NAMES))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo], ids=["folder", "pipe"])
def test_nothing_is_touched_where_a_name_is_no_file(tmp_path, name, make):
    save(tmp_path / "out", "old")
    (tmp_path / "out" / name).unlink()
    make(tmp_path / "out" / name)
    before = {p.name: p.stat().st_ino for p in (tmp_path / "out").iterdir()}
    for overwrite in (False, True):
        how = {"overwrite": overwrite}
        assert code_of(check_output, tmp_path / "out", NAMES, **how) == "OUTPUT_NOT_WRITABLE"
        assert code_of(save, tmp_path / "out", "new", **how) == "OUTPUT_NOT_WRITABLE"
    assert {p.name: p.stat().st_ino for p in (tmp_path / "out").iterdir()} == before


def test_what_becomes_a_folder_meanwhile_is_found_before_the_move(tmp_path):
    save(tmp_path, "old")
    with (
        pytest.raises(InvalidInputError) as caught,
        all_or_nothing(tmp_path, NAMES, overwrite=True) as stage,
    ):
        for name in NAMES:
            (stage / name).write_text("new")
        (tmp_path / "b").unlink()
        (tmp_path / "b").mkdir()
    assert caught.value.code == "OUTPUT_NOT_WRITABLE"
    assert {p.name for p in tmp_path.iterdir()} == set(NAMES)
    assert all((tmp_path / name).read_text() == "old" for name in NAMES if name != "b")


def test_a_link_is_replaced_and_its_target_stays(tmp_path):
    (tmp_path / "precious").write_text("years of work")
    (tmp_path / "out").mkdir()
    for name in ("a", "result.json"):
        (tmp_path / "out" / name).symlink_to(tmp_path / "precious")
    (tmp_path / "out" / "b").symlink_to("nowhere")
    assert code_of(save, tmp_path / "out", "new", overwrite=False) == "OUTPUT_EXISTS"
    save(tmp_path / "out", "new")
    assert shown(tmp_path / "out") == whole("new")
    assert (tmp_path / "precious").read_text() == "years of work"


def test_outdated_files_count_as_ours(tmp_path):
    (tmp_path / "surface.png").write_text("old")
    how = {"outdated": ("surface.png",)}
    assert code_of(save, tmp_path, "new", overwrite=False, **how) == "OUTPUT_EXISTS"
    save(tmp_path, "new", **how)
    assert shown(tmp_path) == whole("new")


def test_a_file_that_came_after_the_interruption_is_not_replaced_by_the_old_set(tmp_path):
    places = killed_at_every_step(f"OLD, NEW = {NAMES!r}, {NAMES!r}" + CODE, tmp_path)
    out = next(p / "out" for p in places if shown(p / "out").get("b") == "new")
    assert "result.json" not in shown(out)
    (out / "b").unlink()
    (out / "b").write_text("mine")
    check_output(out, ("other",), overwrite=False)
    assert (out / "b").read_text() == "mine"
    (aside,) = out.glob(".*.replaced")
    assert (aside / "b").read_text() == "old"


@pytest.mark.parametrize("note", ["", "[]", "{"])
def test_a_hidden_folder_that_is_not_understood_is_left_alone(tmp_path, note):
    aside = tmp_path / f".{'0' * 32}.replaced"
    aside.mkdir()
    (aside / "replaced.json").write_text(note)
    (aside / "a").write_text("old")
    save(tmp_path, "new")
    assert (aside / "a").read_text() == "old" and shown(tmp_path) == whole("new")


def test_what_killed_processes_left_is_removed_after_a_day(tmp_path):
    for number, name in enumerate(
        (f".{'0' * 32}.partial", f".{'1' * 32}.partial", ".mine.partial")
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_text("x")
        past = time.time() - (0 if number == 0 else 2 * 86400)
        os.utime(tmp_path / name, (past, past))
    save(tmp_path, "new")
    left = {p.name for p in tmp_path.iterdir()} - set(NAMES)
    assert left == {f".{'0' * 32}.partial", ".mine.partial"}


def test_a_place_in_use_is_not_removed_however_old(tmp_path):
    with all_or_nothing(tmp_path, NAMES, overwrite=False) as stage:
        os.utime(stage, (0, 0))
        save(tmp_path, "other")
        for name in NAMES:
            (stage / name).write_text("late")
        for name in NAMES:
            (tmp_path / name).unlink()
    assert shown(tmp_path) == whole("late")


def test_without_locks_nothing_is_put_back_or_removed(tmp_path, monkeypatch):
    from cardiacreg.io import folder_locks

    monkeypatch.setattr(folder_locks, "fcntl", None)
    monkeypatch.setattr(
        output_folder, "put_back_interrupted", lambda folder: pytest.fail("not alone")
    )
    (tmp_path / f".{'0' * 32}.partial").mkdir()
    os.utime(tmp_path / f".{'0' * 32}.partial", (0, 0))
    save(tmp_path, "new")
    save(tmp_path, "newer")
    assert shown(tmp_path) == whole("newer")
    assert (tmp_path / f".{'0' * 32}.partial").is_dir()


def test_the_note_says_what_was_new(tmp_path, monkeypatch):
    notes = []
    kept = replaced_files._remove

    def look(aside):
        notes.append(json.loads((aside / "replaced.json").read_text()))
        kept(aside)

    monkeypatch.setattr(replaced_files, "_remove", look)
    save(tmp_path, "new")
    found = {name: (tmp_path / name).stat() for name in NAMES}
    marks = {name: [s.st_ino, s.st_mtime_ns, s.st_size] for name, s in found.items()}
    assert notes == [{"marker": "result.json", "new": marks}]
