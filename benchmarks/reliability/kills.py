"""Processes that are killed at random times, and what they leave: the old, or the new, never less.

Every kind of work is prepared in a folder of its own and begun in a fork of this process, so that a kill
costs no start of Python. It is killed by SIGKILL after a random share of the time that it takes; half of
the kills wait first for the moment at which its folder changes. Then the folder must hold all of what
was there before or all of what is new, and the same work, not killed, must end well.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import cardiacreg
from benchmarks.harness import machine
from benchmarks.harness.store import Record, Unit
from cardiacreg import AtlasBank, RefineOptions
from cardiacreg.compute import cache_files
from cardiacreg.errors import kept_warnings
from cardiacreg.phantoms.toy_heart import make_toy_heart

HEART, ATLAS = make_toy_heart(), make_toy_heart(size=0.9)
_KILLS = {
    "refine": 70, "refine, by the command": 20, "save": 70, "build": 70, "append": 70,
    "cache of kernels": 20, "cohort": 20,
}  # fmt: skip
_KERNELS_COMPILED = 3
_AT_ONCE = 10
_SPACING_MM = (2.5, 2.5, 4.0)


class Work(NamedTuple):
    """Work that is killed: how its folder is prepared, what is done, and what the folder then holds.

    `state` returns a word for what is there, or raises where it is damaged.
    """

    prepare: Callable[[Path], object]
    begin: Callable[[Path], object]
    state: Callable[[Path], str]


def units(quick: bool) -> list[Unit]:
    """Return units of some kills each, as many as `_KILLS` asks for."""
    found = []
    for name, kills in _KILLS.items():
        if quick and name not in ("build", "save"):
            continue
        for part in range(1 if quick else kills // _AT_ONCE):
            key = {"what": "kills", "work": name, "part": part, "kills": 2 if quick else _AT_ONCE}
            found.append(Unit(key, lambda key=key: key | killed(**_of(key))))
    return found


def _of(key: dict[str, Any]) -> dict[str, Any]:
    return {name: key[name] for name in ("work", "part", "kills")}


def killed(work: str, part: int, kills: int) -> Record:
    """Kill a kind of work at random times, and count what was left and whether it went on."""
    chosen, draw, ends = WORKS[work](), random.Random(f"{work} {part}"), Counter[str]()
    with tempfile.TemporaryDirectory() as folder, kept_warnings():
        first = Path(folder) / "first"
        first.mkdir()
        chosen.prepare(first)
        start = time.perf_counter()
        assert os.waitpid(_forked(chosen.begin, first), 0)[1] == 0, f"{work} fails by itself"
        seconds = time.perf_counter() - start
        for n in range(kills):
            place = Path(folder) / str(n)
            place.mkdir()
            chosen.prepare(place)
            process = _forked(chosen.begin, place)
            ends[_kill(process, place, seconds, draw)] += 1
            ends[_left(chosen, place)] += 1
            done = os.waitpid(_forked(chosen.begin, place), 0)[1] == 0
            ends["went on" if done and _left(chosen, place) == "new" else "did not go on"] += 1
            shutil.rmtree(place)
    return {"ends": dict(ends)}


def _forked(work: Callable[[Path], object], place: Path) -> int:
    """Begin work in a fork in a group of its own, and return its number."""
    with warnings.catch_warnings():  # of Python 3.12, about forks beside threads: there are none
        warnings.simplefilter("ignore")
        process = os.fork()
    if process:
        return process
    status = 1
    try:
        os.setsid()
        work(place)
        status = 0
    finally:
        os._exit(status)


def _kill(process: int, place: Path, seconds: float, draw: random.Random) -> str:
    """Kill a process and its group at a random time; tell whether it was still at work."""
    if draw.random() < 0.5:
        before, until = _listing(place), time.perf_counter() + 2 * seconds + 1
        while _listing(place) == before and time.perf_counter() < until:
            time.sleep(0.0005)
        time.sleep(draw.random() * 0.05)
    else:
        time.sleep(draw.random() * seconds)
    try:
        os.killpg(process, signal.SIGKILL)
    except ProcessLookupError:  # before it has a group of its own
        os.kill(process, signal.SIGKILL)
    status = os.waitpid(process, 0)[1]
    return "killed at work" if os.WIFSIGNALED(status) else "had ended"


def _listing(place: Path) -> list[str]:
    try:
        return sorted(str(path) for path in place.rglob("*"))
    except OSError:
        return []


def _left(work: Work, place: Path) -> str:
    try:
        return work.state(place)
    except Exception as error:  # noqa: BLE001 - whatever it is, something was lost
        return f"lost: {type(error).__name__}"


def _options() -> RefineOptions:
    return replace(RefineOptions.fast(), orientation="as-stored")


def _refined(labels: Any = HEART.labels) -> cardiacreg.RefineResult:
    return cardiacreg.refine(
        labels, atlases=[ATLAS], options=_options(), spacing_mm=_SPACING_MM, threads=1
    )


def _result_state(place: Path) -> str:
    """Which of two results a folder holds, whole; they tell themselves by their volumes."""
    found = cardiacreg.load_result(place / "out")
    known = json.loads((place / "known.json").read_text())
    return known[f"{found.volumes['LV cavity'].total_ml:.3f}"]  # type: ignore[no-any-return]


def _saving(everything: bool) -> Work:
    """A result that replaces another; `everything`: it is refined first, in the killed process."""
    old, new = _refined(make_toy_heart(size=1.03).labels), _refined()
    known = {
        f"{each.volumes['LV cavity'].total_ml:.3f}": name
        for each, name in ((old, "old"), (new, "new"))
    }

    def prepare(place: Path) -> None:
        old.save(place / "out")
        (place / "known.json").write_text(json.dumps(known))

    def begin(place: Path) -> None:
        (_refined() if everything else new).save(place / "out", overwrite=True)

    return Work(prepare, begin, _result_state)


def _building() -> Work:
    old, new = [ATLAS], [ATLAS, HEART]

    def state(place: Path) -> str:
        cardiacreg.verify_atlas_bank(place / "bank")
        return {1: "old", 2: "new"}[len(AtlasBank(place / "bank"))]

    return Work(
        lambda place: cardiacreg.build_atlas_bank(place / "bank", old, threads=1),
        lambda place: cardiacreg.build_atlas_bank(place / "bank", new, threads=1),
        state,
    )


def _appending() -> Work:
    """A heart is appended; where that was done already, it is not appended again."""
    building = _building()

    def begin(place: Path) -> None:
        if len(AtlasBank(place / "bank")) == 1:
            cardiacreg.append_to_atlas_bank(place / "bank", [HEART], threads=1)

    return Work(building.prepare, begin, building.state)


def _caching() -> Work:
    """Kernels are compiled into an empty cache by two processes, which meet at some."""
    compiling = "from cardiacreg.compute.preparation import compile_part; compile_part(14, 4)"

    def begin(place: Path) -> None:
        environment = os.environ | {cache_files.CACHE_VARIABLE: str(place / "cache")}
        environment.pop(cache_files.NUMBA_VARIABLE, None)
        started = [
            subprocess.Popen([sys.executable, "-c", compiling], cwd=machine.ROOT, env=environment)
            for _ in range(2)
        ]
        assert [each.wait() for each in started] == [0, 0]

    def state(place: Path) -> str:
        kernels = sorted((place / "cache").rglob("*.kernel"))
        damaged = [each for each in kernels if cache_files.read_kernel(each) is None]
        assert not damaged, damaged
        return "new" if len(kernels) >= _KERNELS_COMPILED else "old"

    return Work(lambda place: None, begin, state)


def _command(*words: object) -> None:
    """Run a command of ours on few voxels, in a process of its own."""
    how = (
        "--orientation", "as-stored", "--spacing", *_SPACING_MM, "--method", "fast"
    )  # fmt: skip
    command = [sys.executable, "-m", "cardiacreg", *map(str, (*words, *how))]
    subprocess.run(command, cwd=machine.ROOT, check=True, capture_output=True)


def _commanded() -> Work:
    """A result replaces another by the command."""
    saving = _saving(False)

    def prepare(place: Path) -> None:
        saving.prepare(place)
        cardiacreg.write_labels(place / "in.nii.gz", HEART.labels)
        cardiacreg.build_atlas_bank(place / "bank", [ATLAS], threads=1)

    def begin(place: Path) -> None:
        _command(
            "refine", "-i", place / "in.nii.gz", "-o", place / "out", "--overwrite", "--atlases",
            place / "bank", "--threads", 1,
        )  # fmt: skip

    return Work(prepare, begin, saving.state)


def _cohort() -> Work:
    """Two patients, by the command, in processes of their own."""

    def prepare(place: Path) -> None:
        rows = ["subject,labels"]
        for n in range(2):
            labels = make_toy_heart(size=1 - 0.02 * n).labels
            cardiacreg.write_labels(place / f"p{n}.nii.gz", labels)
            rows.append(f"p{n},p{n}.nii.gz")
        (place / "cohort.csv").write_text("\n".join(rows) + "\n")
        cardiacreg.build_atlas_bank(place / "bank", [ATLAS], threads=1)

    def begin(place: Path) -> None:
        _command(
            "cohort", place / "cohort.csv", "-o", place / "out", "--atlases", place / "bank",
            "--shard", "1/1",
        )  # fmt: skip

    def state(place: Path) -> str:
        if not (place / "out" / "cohort.json").exists():
            return "old"
        counts = cardiacreg.cohort_status(place / "out").counts
        for each in (place / "out").glob("patients/*/status.json"):
            assert json.loads(each.read_text())["state"] == "done"
        return "new" if counts == {"done": 2} else "old"

    return Work(prepare, begin, state)


WORKS: dict[str, Callable[[], Work]] = {
    "refine": lambda: _saving(True),
    "refine, by the command": _commanded,
    "save": lambda: _saving(False),
    "build": _building,
    "append": _appending,
    "cache of kernels": _caching,
    "cohort": _cohort,
}
"""Kinds of work that are killed."""


def rows(records: list[Record]) -> list[list[str]]:
    """Return a row of the table per kind of work, and one of all."""
    total, found = Counter[str](), []
    for name in _KILLS:
        ends = Counter[str]()
        for record in records:
            if record.get("work") == name and "ends" in record:
                ends.update(record["ends"])
        total.update(ends)
        if ends:
            found.append(_row(name, ends))
    return [*found, _row("all", total)]


def _row(name: str, ends: Counter[str]) -> list[str]:
    lost = sum(count for end, count in ends.items() if end.startswith("lost"))
    numbers = (
        ends["killed at work"], ends["had ended"], ends["old"], ends["new"], lost, ends["went on"],
        ends["did not go on"],
    )  # fmt: skip
    return [name, *(str(number) for number in numbers)]
