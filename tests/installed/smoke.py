"""A wheel installed where there is no compiler, and one heart refined with it: by CI, or by hand.

``python tests/installed/smoke.py [WHEEL]`` makes a new environment, installs the wheel (built of the
checkout when absent) with wheels alone, hides every program but those of the environment, refines a
synthetic scan with the atlases that come along, by Python and by the command, and compares the volumes
with the truth. It prints what it did and ends with 0, or says what is wrong and ends with 1.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FURTHEST_PERCENT = 15.0
REFINED = """
import shutil, sys
import cardiacreg
from cardiacreg.anatomy.volumes import structure_volumes_ml
from cardiacreg.phantoms.hearts import FIRST_EVALUATION_SEED

assert not any(map(shutil.which, ("cc", "gcc", "clang", "cl", "make"))), "a compiler is on the path"
place = sys.argv[1]
truth = cardiacreg.sample_heart(FIRST_EVALUATION_SEED + 3, group="hypertrophic", with_image=False)
scan = cardiacreg.Degradation().of(truth, seed=1).subject
cardiacreg.write_labels(f"{place}/scan.nii.gz", scan.labels)
result = cardiacreg.refine(scan.labels)
print("imported from", cardiacreg.__file__)
for name, volume in structure_volumes_ml(truth.labels).items():
    print("volume", round(volume, 1), round(result.volumes[name].total_ml, 1), name, sep="\\t")
"""


def main(arguments: list[str] | None = None) -> int:
    """Install, refine, compare."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("wheel", nargs="?", type=Path)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="cardiacreg-smoke-") as folder:
        place = Path(folder)
        wheel = given.wheel.absolute() if given.wheel else _built(place)
        print("wheel:", wheel.name)
        environment = _installed(wheel, place)
        problems = [*_refined(environment, place), *_by_command(environment, place)]
    print(*(problems or ["all is well"]), sep="\n")
    return 1 if problems else 0


def _built(place: Path) -> Path:
    """The wheel of a copy of the checkout; this alone may compile."""
    source, built = place / "source", place / "dist"
    for name in ("cardiacreg", "cardiacreg_nn"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("*.so", "*.c"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    _run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", built, source], None)
    return next(built.glob("cardiacreg-*.whl"))


def _installed(wheel: Path, place: Path) -> Path:
    """A new environment with the wheel and what it needs; the folder of its programs."""
    start = time.perf_counter()
    _run([sys.executable, "-m", "venv", place / "venv"], None)
    programs = Path(sysconfig.get_path("scripts", "venv", {"base": str(place / "venv")}))
    pip = [programs / "python", "-m", "pip", "install", "-q", "--only-binary", ":all:"]
    _run([*pip, wheel], _hidden(programs, place))
    held = sum(path.stat().st_size for path in (place / "venv").rglob("*") if path.is_file())
    print(f"installed in {time.perf_counter() - start:.0f} s, {held / 2**20:.0f} MiB")
    return programs


def _hidden(programs: Path, place: Path) -> dict[str, str]:
    """Variables with which no other program, no checkout and no cache is found."""
    kept = {
        name: text for name, text in os.environ.items() if not name.startswith(("PYTHON", "CC"))
    }
    return kept | {
        "PATH": str(programs),
        "CARDIACREG_CACHE": str(place / "cache"),
        "OPENBLAS_NUM_THREADS": "1",
    }


def _refined(programs: Path, place: Path) -> list[str]:
    """Refine a scan, and return what is wrong with the model."""
    start = time.perf_counter()
    command = [programs / "python", "-W", "error", "-I", "-c", REFINED, place]
    said = _run(command, _hidden(programs, place), cwd=place).splitlines()
    print(f"refined in {time.perf_counter() - start:.0f} s, kernels compiled")
    problems = [] if f"imported from {place}" in said[0] else [f"not the wheel: {said[0]}"]
    rows = [line.split("\t")[1:] for line in said if line.startswith("volume\t")]
    for true, found, name in rows:
        off = 100 * (float(found) / float(true) - 1)
        print(f"{name}: {found} ml, true {true} ml ({off:+.1f} %)")
        if abs(off) > FURTHEST_PERCENT:
            problems.append(f"{name} is {off:+.1f} % off; at most {FURTHEST_PERCENT} % is usual")
    return problems if len(rows) == 4 else [*problems, f"{len(rows)} structures; needs 4"]


def _by_command(programs: Path, place: Path) -> list[str]:
    """Refine the same scan by the command, and return what is missing."""
    command = [programs / "cardiacreg", "refine", "-i", place / "scan.nii.gz", "-o", place / "out"]
    start = time.perf_counter()
    _run(command, _hidden(programs, place), cwd=place)
    print(f"refined by the command in {time.perf_counter() - start:.0f} s")
    wanted = ("labels.nii.gz", "qc.png", "result.json")
    return [f"{name} is missing" for name in wanted if not (place / "out" / name).is_file()]


def _run(command: list[object], environment: dict[str, str] | None, cwd: Path | None = None) -> str:
    words = [str(each) for each in command]
    done = subprocess.run(words, env=environment, cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(words[:6])} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
