"""Commands and code of the documents: found in their text, and run where a reader would type them."""

from __future__ import annotations

import re
import shlex
import sys
import tomllib
import types
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

import cardiacreg

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^```([\w{}-]*)[^\n]*\n(.*?)^```$", re.S | re.M)
INLINE = re.compile(r"`(cardiacreg [^`]+)`")
COMMANDS = ("", "console", "bash")
CONTINUED = "..."
STANDS_FOR = {
    "IN": "labels.nii.gz",
    "OUT": "labels_again.nii.gz",
    "$SLURM_ARRAY_TASK_ID/100": "1/2",
}
"""Words of a document that are a reader's own, and what they are here."""
SERIES = {"seg.nii.gz": "cine_seg.nii.gz", "image.nii.gz": "cine.nii.gz"}
"""What stands for a file where all of its frames are asked for."""
LESS = {"workers=4": "workers=1", "edge_mm=1.5": "edge_mm=3.0"}
"""The same in Python; `tests/cohort` has several workers, `tests/meshes` short edges."""
HEARTS_MM = (2.5, 2.5, 4.0)
COARSE_MM = (3.0, 3.0, 5.0)
"""Voxels of synthetic hearts, on which the RV's wall still holds together, and of models."""
MODELS = ("refine", "refine_cine", "refine_patient", "refine_cohort")
ELSEWHERE = {
    "cardiacreg demo": "tests/cli/test_demo_page.py",
    "cardiacreg doctor": "tests/cli/test_commands.py",
    "cardiacreg cohort cohort.csv -o out --scheduler tcp://head:8786": "tests/cohort",
}
"""Commands that are run by other tests, which have what they need."""
PATHS_ONLY = ("Slicer", "pvpython")
"""Programs that nobody installs for tests: the files that they are given have to be there."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a document."""

    document: Path
    number: int
    language: str
    text: str

    @property
    def name(self):
        return f"{self.document.relative_to(ROOT)}:{self.number}"


def blocks(document):
    """The blocks of a document, in order."""
    text = document.read_text(encoding="utf-8")
    return [
        Block(document, text[: found.start()].count("\n") + 1, found[1], found[2])
        for found in FENCE.finditer(text)
    ]


def commands(block):
    """Every command of a block, whole: what is said beside it is left out, options are added to it.

    What is run with further options goes to a folder of its own, so that ``out`` stays one result.
    """
    whole, found = "", []
    for line in block.text.splitlines():
        typed = re.split(r"\s{2,}|\s# ", line.strip())[0]
        if not typed or typed.startswith("#"):
            continue
        if typed.startswith(CONTINUED):
            apart = re.sub(r" -o out(?= |$)", f" -o out_{len(found)}", whole)
            typed = apart + typed.removeprefix(CONTINUED)
        else:
            whole = typed
        found.append(typed.removeprefix("$ "))
    return found


def run_command(typed, folder):
    """Run what a reader types, or check it where the program is not ours."""
    words = shlex.split(typed)
    checks = {
        "cardiacreg": run_cardiacreg, "docker": run_in_container, "apptainer": run_in_container,
        "pip": check_pip, "make": check_make, "python": check_module,
    }  # fmt: skip
    if words[0] in PATHS_ONLY:
        return check_paths(words, folder)
    return checks[words[0]](words, folder)


def command_of(words):
    """The command of `cardiacreg` that words begin with, and how many words name it."""
    from cardiacreg.cli.app import main

    command, used = main, 1
    while used < len(words) and words[used] in getattr(command, "commands", {}):
        command, used = command.commands[words[used]], used + 1
    if hasattr(command, "commands") and "run" in command.commands and used > 1:
        command = command.commands["run"]
    return command, used


def check_words(words):
    """That the command and every option of it exist."""
    command, used = command_of(words)
    assert used > 1 or "--help" in words or "--version" in words, words
    known = {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
    for word in words[used:]:
        option = word.partition("=")[0]
        if re.fullmatch(r"--?[a-z][\w-]*", option):
            assert option in known | {"--help"}, f"{' '.join(words)}: no option {option}"


def run_cardiacreg(words, folder):
    """Run a command with a small bank in place of the shipped one, coarsely, over what is there."""
    from cardiacreg.cli.app import main

    check_words(words)
    if " ".join(words) in ELSEWHERE:
        return
    command, used = command_of(words)
    options = {name for each in command.params for name in each.opts}
    given = [STANDS_FOR.get(word, word) for word in words[1:]]
    if "--workers" in given:
        given[given.index("--workers") + 1] = "1"
    if "--frames" in given:
        given = [SERIES.get(word, word) for word in given]
    if "--atlases" in options and "--atlases" not in given:
        given += ["--atlases", str(folder / "BANK")]
    if "--spacing" in options and "--spacing" not in given:
        given += ["--spacing", *map(str, COARSE_MM)]
    if "--edge-mm" in options and "--edge-mm" not in given:
        given += ["--edge-mm", "3"]
    if "--overwrite" in options and "--overwrite" not in given:
        given += ["--overwrite"]
    with coarsely():
        done = CliRunner().invoke(main, given)
    assert done.exit_code == 0, f"{' '.join(words)}: {done.output}{done.exception!r}"


def run_in_container(words, folder):
    """Check the definition that is built; run the command of a container here, where /data is."""
    if "build" in words[:2]:
        (definition,) = [word for word in words if word.startswith("containers/")]
        assert (ROOT / definition).is_file(), definition
        return
    image = next(
        n for n, word in enumerate(words) if n > 1 and word in ("cardiacreg", "cardiacreg.sif")
    )
    assert any(word.endswith(":/data") for word in words[:image]), words
    run_cardiacreg(["cardiacreg", *words[image + 1 :]], folder)


def check_pip(words, folder):
    """That every extra that is installed is one."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert words[1] == "install", words
    for extra in re.findall(r"\[([\w,-]+)\]", " ".join(words)):
        assert set(extra.split(",")) <= set(project["optional-dependencies"]), extra


def check_make(words, folder):
    assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M), words


def check_module(words, folder):
    """`python FILE` or `python -m MODULE` of this repository."""
    place = words[2].replace(".", "/") if words[1] == "-m" else words[1]
    assert any((ROOT / each).exists() for each in (place, f"{place}.py")), words


def check_paths(words, folder):
    for word in words[1:]:
        if not word.startswith("-") and not word.endswith(".png"):
            assert (ROOT / word).exists() or (folder / word).exists(), word


def dask_jobqueue():
    """A module that stands in for dask-jobqueue: workers of this computer, whatever is asked for."""
    from distributed import LocalCluster

    class Cluster(LocalCluster):
        def __init__(self, *, queue, cores, memory, walltime, worker_extra_args):
            super().__init__(n_workers=1, threads_per_worker=cores, dashboard_address=None)

        def adapt(self, *, maximum_jobs):
            assert maximum_jobs > 0

    module = types.ModuleType("dask_jobqueue")
    module.SLURMCluster = module.PBSCluster = Cluster
    return module


def with_less(text):
    for said, here in LESS.items():
        text = text.replace(said, here)
    return text


@contextmanager
def coarsely(bank=None):
    """Make hearts and models coarse, of the atlases of a small bank, where nothing else is asked for."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("sample_heart", *MODELS):
            voxels = COARSE_MM if name in MODELS else HEARTS_MM
            patch.setitem(getattr(cardiacreg, name).__kwdefaults__, "spacing_mm", voxels)
        for name in MODELS if bank is not None else ():
            patch.setitem(getattr(cardiacreg, name).__kwdefaults__, "atlases", bank)
        yield


def run_python(block, folder):
    """Run a block as a script of its own, in the working folder, as commands are run."""
    if "dask_jobqueue" in block.text:
        sys.modules["dask_jobqueue"] = dask_jobqueue()
    try:
        with coarsely(folder / "BANK"):
            exec(compile(with_less(block.text), block.name, "exec"), {"__name__": "__main__"})
    finally:
        sys.modules.pop("dask_jobqueue", None)
