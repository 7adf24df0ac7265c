"""The Makefile names files that are there, and each command sets up what it needs and no more."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def listed(name):
    """The paths of a list of tests in the Makefile."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    (words,) = re.findall(rf"^{name} := \$\(addprefix tests/,(.*)\)$", text, flags=re.MULTILINE)
    return [ROOT / "tests" / word for word in words.split()]


def commands(target):
    done = subprocess.run(
        ["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.mark.parametrize("name", ["KERNEL_TESTS", "QUICK_TESTS"])
def test_every_listed_test_is_there(name):
    assert listed(name)
    for path in listed(name):
        assert path.exists(), path


@needs_make
def test_the_demo_needs_the_library_alone():
    text = commands("demo")
    assert ".venv-demo" in text and "[dev]" not in text
    assert re.search(r"\.venv/bin/(python|cardiacreg|ruff)", text) is None


@needs_make
def test_the_demo_leaves_out_what_its_page_does_not_need():
    """Only what nothing else of the demo's imports: the viewer is made with these out of reach."""
    (line,) = [each for each in commands("demo").splitlines() if "pip uninstall" in each]
    absent = [name for name in line.split() if name in ("jedi", "parso", "setuptools")]
    assert len(absent) == 3
    block = "import sys; sys.modules.update(dict.fromkeys(%r))" % [*absent, "pkg_resources"]
    needs = "from cardiacreg.reports import viewer; import k3d, matplotlib.figure, skimage.measure"
    done = subprocess.run(
        [sys.executable, "-c", f"{block}; {needs}"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@needs_make
def test_the_whole_check_runs_every_tool_and_every_test():
    text = commands("test")
    for tool in ("ruff check .", "ruff format --check .", "/mypy", "cython-lint cardiacreg"):
        assert tool in text
    assert re.search(r"^\S*python -m pytest -n 2 --dist worksteal$", text, flags=re.MULTILINE)
    assert re.search(r"^NUMBA_BOUNDSCHECK=1 .*-m pytest", text, flags=re.MULTILINE)


@needs_make
def test_the_quick_check_runs_lint_and_a_refinement():
    text = commands("quick")
    assert "ruff check ." in text and "tests/results/test_files.py" in text
