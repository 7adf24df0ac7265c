"""What a user waits for before anything is refined: imports, the command line, the first compilation.

Every run is a fresh process. *Cold* has an empty kernel cache, *cached* finds compiled kernels on disk.
The tiny heart is as small as a heart can be, so that its refinement shows the overhead.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np

from benchmarks.harness import machine, plots, tabulate
from benchmarks.harness.store import Record, Unit, gather

_WARM_UP = "import cardiacreg; cardiacreg.warm_up(threads=1)"
_REGISTER = (
    "from cardiacreg import Affine, register_labels; "
    "from cardiacreg.phantoms.toy_heart import make_toy_heart; "
    "target, atlas = make_toy_heart().labels, make_toy_heart(size=0.9).labels; "
    "register_labels(target, atlas, Affine.identity(), threads=1)"
)
_REFINE = (
    "import sys, warnings; warnings.simplefilter('ignore'); import cardiacreg; "
    "from cardiacreg.phantoms.toy_heart import make_toy_heart; "
    "cardiacreg.refine(make_toy_heart().labels, progress={progress})"
)
_FIRST, _TO_THE_FIRST_STEP = (
    _REFINE.format(progress=each) for each in ("None", "lambda report: sys.exit(0)")
)
PROGRAMS = {
    "python alone": ["-c", "pass"],
    "import numpy": ["-c", "import numpy"],
    "import cardiacreg": ["-c", "import cardiacreg"],
    "label maps (numpy)": ["-c", "from cardiacreg import LabelMap"],
    "metrics": ["-c", "from cardiacreg import dice, hausdorff_mm"],
    "refine (numba)": ["-c", "from cardiacreg import refine"],
    "cardiacreg --help": ["-m", "cardiacreg", "--help"],
    "cardiacreg evaluate --help": ["-m", "cardiacreg", "evaluate", "--help"],
    "register a tiny heart, cached": ["-c", _REGISTER],
    "refine a tiny heart, cached": ["-c", _WARM_UP],
}
COLD = "refine a tiny heart, cold"
FRESH = "refine with the embedded atlases, fresh installation"
TO_A_START = "the same until the first step is done, cached"
LATER = "the same whole, cached"


def run(quick: bool, cases: int = 7) -> dict[str, Any]:
    """Time every program; `cases` is the number of runs (one or two where it compiles)."""
    repeats = 1 if quick else cases
    units = [_unit(name, arguments, repeats) for name, arguments in PROGRAMS.items()]
    if not quick:
        units += [_cold(COLD, _WARM_UP, 2), _cold(FRESH, _FIRST, 3)]
        units += [
            _unit(name, ["-c", program], repeats)
            for name, program in ((TO_A_START, _TO_THE_FIRST_STEP), (LATER, _FIRST))
        ]
    return {"seeds": [], "records": gather("startup", units)}


def _unit(name: str, arguments: list[str], repeats: int) -> Unit:
    def measure() -> Record:
        if repeats > 1:
            _timed(arguments)
        return {"method": name, "runs": [_timed(arguments) for _ in range(repeats)]}

    return Unit({"method": name, "options": {"arguments": arguments, "repeats": repeats}}, measure)


def _cold(name: str, program: str, repeats: int) -> Unit:
    """Time a program with empty caches."""

    def once() -> dict[str, float]:
        with tempfile.TemporaryDirectory() as cache:
            return _timed(["-c", program], NUMBA_CACHE_DIR=cache, CARDIACREG_CACHE=cache)

    def measure() -> Record:
        return {"method": name, "runs": [once() for _ in range(repeats)]}

    options = {"program": program, "repeats": repeats}
    return Unit({"method": name, "options": options}, measure)


def _timed(arguments: list[str], **variables: str) -> dict[str, float]:
    """Wall and processor seconds of a process and its children."""
    start, before = time.perf_counter(), os.times()
    subprocess.run(
        [sys.executable, *arguments],
        cwd=machine.ROOT, env=os.environ | variables, capture_output=True, check=True,
    )  # fmt: skip
    after = os.times()
    cpu = sum(after[n] - before[n] for n in (2, 3))
    return {"seconds": time.perf_counter() - start, "cpu_seconds": cpu}


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return the median and the quickest run of every program."""
    columns = {
        "seconds, median": lambda own: f"{np.median(_values(own, 'seconds')):.2f}",
        "seconds, quickest": lambda own: f"{min(_values(own, 'seconds')):.2f}",
        "processor seconds, median": lambda own: f"{np.median(_values(own, 'cpu_seconds')):.2f}",
        "runs": lambda own: str(len(_values(own, "seconds"))),
    }
    good = [r for r in result["records"] if "runs" in r]
    return {
        "startup": tabulate.summary_table(good, columns).replace("| method |", "| process |", 1)
    }


def _values(own: Any, key: str) -> list[float]:
    return [each[key] for record in own for each in record["runs"]]


def plots_of(result: dict[str, Any]) -> dict[str, Any]:
    """Return processor seconds of every program."""
    good = [r for r in result["records"] if "runs" in r]
    figure, axes = plots.panels(1, 1, width=5.6, height=3.0)
    values = [_values([r], "cpu_seconds") for r in good]
    plots.bars(axes[0, 0], [r["method"] for r in good], values, plots.METHOD_COLOURS[0])
    axes[0, 0].set_xscale("log")
    axes[0, 0].set_xlabel("processor seconds of a fresh process")
    return {"startup": figure}
