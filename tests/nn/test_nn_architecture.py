"""Rules of the network's package: small files and functions, one way of imports, light commands."""

import ast
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "cardiacreg_nn"
MODULES = {
    ".".join(p.relative_to(PACKAGE).with_suffix("").parts): ast.parse(p.read_text())
    for p in sorted(PACKAGE.rglob("*.py"))
}
MEETS_CARDIACREG = {
    "data.atria",
    "data.tissue_map",
    "data.training_hearts",
    "data.view_hearts",
    "inference.calibration",
    "inference.cine_prediction",
    "inference.orientation_search",
    "inference.prediction",
    "inference.shipped_weights",
    "inference.view_prediction",
    "inference.weights",
}


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def functions():
    for tree in MODULES.values():
        yield from (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef))


@pytest.mark.parametrize("module", MODULES)
def test_few_files_meet_the_library(module):
    for name in imported(MODULES[module]):
        if name.partition(".")[0] == "cardiacreg" and name != "cardiacreg.arrays":
            assert module in MEETS_CARDIACREG, f"{module} imports {name}"


def test_no_function_is_long_and_the_usual_one_is_short():
    lengths = []
    for function in functions():
        lines = function.end_lineno - function.lineno + 1
        if ast.get_docstring(function):
            lines -= function.body[0].end_lineno - function.body[0].lineno + 1
        assert lines <= 60, function.name
        lengths.append(lines)
    assert statistics.median(lengths) <= 11


def test_everything_public_is_documented_and_no_function_is_named_like_a_module():
    for module, tree in MODULES.items():
        assert ast.get_docstring(tree), module
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                assert node.name.startswith("_") or ast.get_docstring(node), f"{module}.{node.name}"
                assert node.name not in {m.rpartition(".")[2] for m in MODULES}


def test_commands_load_without_torch():
    code = "import cardiacreg.cli.app, sys; print('torch' in sys.modules, 'cardiacreg_nn' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "False"]
