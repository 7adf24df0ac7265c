"""Whether a commit made something slower: ratios to another commit, measured in one run.

``python -m benchmarks.speed.guard --base REF`` checks REF out into a folder of its own, compiles its
extension, and lets both trees do the same things in fresh processes, in turn; a ratio is that of medians,
of processor seconds and of peak memory. Exit code 1 says that one is over ``--limit``. Only public names
are used, so that REF may be old.

A script, and not asv: asv installs every commit into an environment of its own, from an index, and
compares numbers of different hours. On a machine that others use too, only runs beside each other tell
anything.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks.harness.machine import ROOT

Figures = dict[str, float]
Measure = Callable[[Path, str], Figures]

_START = """
import json, sys, time, warnings
warnings.simplefilter("ignore")
start = 0.0
"""
_DRAWN = """
import numpy as np
from cardiacreg import Affine, LabelMap, register_labels
def drawn(size):
    i, j, k = np.indices((44, 44, 24)) - np.array([22, 22, 12]).reshape(3, 1, 1, 1)
    left, right = np.hypot(np.hypot(i + 5, j), k), np.hypot(np.hypot(i - 5, j), k)
    labels = np.select([left < 6 * size, left < 9 * size, right < 9 * size], [1, 2, 4], 0)
    return LabelMap(labels.astype(np.uint8), np.diag([2.0, 2.0, 3.0, 1.0]))
"""
_END = """
seconds = time.process_time() - start
import cardiacreg
print(json.dumps({"seconds": seconds, "peak_mb": peak_mb(), "file": cardiacreg.__file__}))
"""
_PEAK = """
def peak_mb():
    try:
        import resource
    except ImportError:
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
"""
_RESTART = "start = time.process_time()\n"

PROGRAMS = {
    "import": "import cardiacreg",
    "import refine": "from cardiacreg import refine",
    "refine a tiny heart": f"import cardiacreg\n{_RESTART}cardiacreg.warm_up(threads=1)",
    "register two hearts": (
        f"{_DRAWN}one, other = drawn(1.0), drawn(0.85)\n{_RESTART}"
        "register_labels(one, other, Affine.identity(), threads=1)"
    ),
}
"""What both trees do, by name; the clock starts with the process, or where a program restarts it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the ratios, and return 1 where one is over the limit."""
    asked = _parser().parse_args(arguments)
    names = asked.only or list(PROGRAMS)
    with tempfile.TemporaryDirectory(prefix="cardiacreg_guard_") as folder:
        base = Path(folder) / "base"
        _git("worktree", "add", "--detach", str(base), asked.base)
        try:
            _compile(base)
            runs = measure_in_turn(base, ROOT, names, asked.rounds, _measure_in(Path(folder)))
        finally:
            _git("worktree", "remove", "--force", str(base))
    found = ratios(runs)
    print(table(runs, found, asked.limit))
    return int(bool(over(found, asked.limit)))


def measure_in_turn(
    base: Path, own: Path, names: Sequence[str], rounds: int, measure: Measure
) -> dict[str, dict[str, list[Figures]]]:
    """Return figures of every program in both trees, which go first in turn; one before fills caches."""
    trees = {"base": base, "own": own}
    runs: dict[str, dict[str, list[Figures]]] = {}
    for name in names:
        runs[name] = {which: [] for which in trees}
        for tree in trees.values():
            measure(tree, name)
        for number in range(rounds):
            order = list(trees) if number % 2 == 0 else list(trees)[::-1]
            for which in order:
                runs[name][which].append(measure(trees[which], name))
    return runs


def ratios(runs: Mapping[str, Mapping[str, Sequence[Figures]]]) -> dict[str, Figures]:
    """Return own median / base median of every figure of every program; those that are 0 are left out."""
    found: dict[str, Figures] = {}
    for name, of in runs.items():
        medians = {which: _medians(figures) for which, figures in of.items()}
        found[name] = {
            key: medians["own"][key] / value for key, value in medians["base"].items() if value > 0
        }
    return found


def over(found: Mapping[str, Figures], limit: float) -> list[tuple[str, str]]:
    """Return (program, figure) of every ratio over a limit."""
    return [(name, key) for name, own in found.items() for key in own if own[key] > limit]


def table(
    runs: Mapping[str, Mapping[str, Sequence[Figures]]],
    found: Mapping[str, Figures],
    limit: float,
) -> str:
    """Return lines for a person: medians of both trees, their ratio, and what is over the limit."""
    lines = [f"{'program':24s} {'figure':10s} {'base':>10s} {'own':>10s} {'own/base':>9s}"]
    for name, own in found.items():
        medians = {which: _medians(figures) for which, figures in runs[name].items()}
        for key, ratio in own.items():
            mark = f"  over {limit:g}" if ratio > limit else ""
            values = f"{medians['base'][key]:10.3f} {medians['own'][key]:10.3f} {ratio:9.2f}"
            lines.append(f"{name:24s} {key:10s} {values}{mark}")
    return "\n".join(lines)


def _medians(figures: Sequence[Figures]) -> Figures:
    return {key: statistics.median(each[key] for each in figures) for key in figures[0]}


def _measure_in(folder: Path) -> Measure:
    """Return what runs a program of a tree in a fresh process with a cache of that tree's own."""

    def measure(tree: Path, name: str) -> Figures:
        cache = str(folder / f"cache_{tree.name}")
        own = {"CARDIACREG_CACHE": cache, "NUMBA_CACHE_DIR": cache, "OPENBLAS_NUM_THREADS": "1"}
        program = f"{_PEAK}{_START}{PROGRAMS[name]}{_END}"
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=tree, env=os.environ | own, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            sys.exit(f"{name}, in {tree}:\n{done.stderr}")
        told = json.loads(done.stdout.splitlines()[-1])
        if not Path(told.pop("file")).is_relative_to(tree):
            sys.exit(f"{name}: another cardiacreg than that of {tree} was measured")
        return dict(told)

    return measure


def _compile(tree: Path) -> None:
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    subprocess.run(command, cwd=tree, check=True, capture_output=True)


def _git(*words: str) -> None:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"git {' '.join(words)}: {done.stderr.strip()}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.guard", description=__doc__)
    parser.add_argument("--base", required=True, metavar="REF", help="the commit to compare with")
    parser.add_argument("--limit", type=float, default=1.25, help="the largest ratio, %(default)s")
    parser.add_argument("--rounds", type=int, default=7, help="runs per tree, %(default)s")
    parser.add_argument("--only", action="append", choices=PROGRAMS, help="one program; repeat")
    return parser


if __name__ == "__main__":
    sys.exit(main())
