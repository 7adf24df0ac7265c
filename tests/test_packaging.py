"""The wheel holds the whole package, works without the checkout, and imports almost for free."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = tuple(
    name for name in ("cardiacreg", "cardiacreg_nn") if (ROOT / name / "__init__.py").exists()
)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A copy of the checkout, so that no build output lands in it."""
    if any(find_spec(name) is None for name in ("pip", "setuptools", "Cython")):
        pytest.skip("building a wheel needs pip, setuptools and Cython in this environment")
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    built = shutil.ignore_patterns("__pycache__", "*.so", "*.c", "*.egg-info")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=built)
    return source


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory):
    output = tmp_path_factory.mktemp("wheel")
    options = ["--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", str(output)]
    command = [sys.executable, "-m", "pip", "wheel", *options, str(source)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return next(output.glob("*.whl"))


def test_the_source_distribution_holds_what_the_extension_is_built_from(source, tmp_path):
    command = [sys.executable, "setup.py", "-q", "sdist", "-d", str(tmp_path)]
    subprocess.run(command, cwd=source, check=True, capture_output=True, text=True)
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert {"setup.py", "cardiacreg/compute/label_counts.pyx"} <= held
    assert not [name for name in held if name.endswith((".c", ".so"))]


def test_the_wheel_holds_every_module(wheel):
    held = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        path.relative_to(ROOT).as_posix()
        for name in PACKAGES
        for pattern in ("*.py", "*.pyi", "py.typed")
        for path in (ROOT / name).rglob(pattern)
    }
    assert wanted - held == set()
    assert any(name.startswith("cardiacreg/compute/label_counts.") for name in held - wanted)
    assert not [name for name in held if name.split("/")[0] in ("tests", "benchmarks", "examples")]
    assert not [name for name in held if name.endswith((".c", ".pyx"))]


def test_the_wheel_works_without_the_checkout(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path / "unpacked")
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import cardiacreg, cardiacreg.compute.label_counts as counts\n"
        "assert cardiacreg.__file__.startswith(sys.argv[1]), cardiacreg.__file__\n"
        "assert counts.__file__.startswith(sys.argv[1]), counts.__file__\n"
        "from cardiacreg.phantoms.toy_heart import make_toy_heart\n"
        "print(cardiacreg.landmarks_from_labels(make_toy_heart().labels).points_mm.shape)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "unpacked")]
    shown = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.strip() == "(6, 3)"


def test_import_loads_nothing_heavy():
    heavy = ("numba", "torch", "scipy", "numpy", "matplotlib", "nibabel", "skimage")
    script = f"import sys, cardiacreg; print([m for m in {heavy} if m in sys.modules])"
    shown = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert shown.stdout.strip() == "[]"


def test_every_public_name_can_be_loaded():
    import cardiacreg

    assert cardiacreg.__all__ == sorted(cardiacreg.__all__)
    for name in cardiacreg.__all__:
        assert getattr(cardiacreg, name) is not None
