"""Both wheels hold what they should under one licence each, and work without the checkout."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

import pytest

from tests.helpers.wheels import BUILT, PACKAGES, build_wheel, copy_source, unpack

ROOT = Path(__file__).parents[1]
WEIGHTS = ROOT / "weights/acdc"
MOST_BYTES = 16_000_000


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A copy of what is built, so that no build output lands in the checkout."""
    return copy_source(tmp_path_factory.mktemp("source"), "tests")


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory):
    return build_wheel(source, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def weights_wheel(source, tmp_path_factory):
    """The wheel of the weights that are not free; only the checkout has them."""
    if not WEIGHTS.is_dir():
        pytest.skip("a source distribution has no weights of another licence")
    copy = tmp_path_factory.mktemp("weights") / "acdc"
    shutil.copytree(WEIGHTS, copy, ignore=BUILT)
    return build_wheel(copy, tmp_path_factory.mktemp("weights_wheel"))


@pytest.fixture(scope="module")
def unpacked(wheel, tmp_path_factory):
    return unpack(wheel, tmp_path_factory.mktemp("unpacked"))


def held_by(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def metadata_of(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
        return message_from_bytes(archive.read(name))


def run_python(folder, script, *paths):
    """Run a script in a fresh process that finds modules in `paths` before all others."""
    start = "import sys; sys.path[:0] = sys.argv[1:]\n"
    command = [sys.executable, "-W", "error", "-c", start + script, *map(str, paths)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def held_by_sdist(source, tmp_path_factory):
    output = tmp_path_factory.mktemp("sdist")
    command = [sys.executable, "setup.py", "-q", "sdist", "-d", str(output)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with tarfile.open(next(output.glob("*.tar.gz"))) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}


class TestSourceDistribution:
    def test_holds_what_the_extension_is_built_from(self, held_by_sdist):
        assert {"setup.py", "cardiacreg/compute/label_counts.pyx"} <= held_by_sdist
        assert not [name for name in held_by_sdist if name.endswith((".c", ".so"))]

    def test_holds_the_tests_and_what_they_are_run_with(self, held_by_sdist):
        wanted = {p.relative_to(ROOT).as_posix() for p in (ROOT / "tests").rglob("*.py")}
        constraints = {path.name for path in ROOT.glob("constraints-*.txt")}
        assert wanted | constraints | {"Makefile", "CHANGELOG.md", "README.md"} <= held_by_sdist

    def test_holds_nothing_under_another_licence(self, held_by_sdist):
        assert not [
            name for name in held_by_sdist if "acdc" in name and name.endswith(".safetensors")
        ]


class TestWheel:
    def test_holds_every_module(self, wheel):
        held = held_by(wheel)
        wanted = {
            path.relative_to(ROOT).as_posix()
            for name in PACKAGES
            for pattern in ("*.py", "*.pyi", "py.typed", "templates/*", "default_bank.zip")
            for path in (ROOT / name).rglob(pattern)
        }
        assert wanted - held == set()
        assert {f"{name}/py.typed" for name in PACKAGES} <= held
        assert any(name.startswith("cardiacreg/compute/label_counts.") for name in held - wanted)

    def test_description_has_no_link_that_leads_nowhere_on_an_index(self, wheel):
        text = metadata_of(wheel).get_payload()
        assert "## Limits" in text and "`docs/usage.md`" in text
        assert re.findall(r"\]\((?!https?://)[^)]*\)", text) == []
        for path in re.findall(r"`(docs/[\w/.]+|[A-Z]+\.\w+)`", text):
            assert (ROOT / path).exists(), path

    def test_holds_nothing_else(self, wheel):
        held = held_by(wheel)
        heads = {name.split("/")[0] for name in held if ".dist-info/" not in name}
        assert heads == set(PACKAGES)
        assert not [name for name in held if name.endswith((".c", ".pyx"))]

    def test_is_small_and_under_one_licence(self, wheel):
        assert metadata_of(wheel)["License-Expression"] == "Apache-2.0"
        assert wheel.stat().st_size < MOST_BYTES
        weights = {Path(n).stem for n in held_by(wheel) if n.endswith(".safetensors")}
        assert weights == {"sslln_lr_synthetic", "unet2d_synthetic", "unet2d_views"}

    def test_works_without_the_checkout(self, unpacked, tmp_path):
        script = (
            "import cardiacreg, cardiacreg.compute.label_counts as counts\n"
            "assert cardiacreg.__file__.startswith(sys.argv[1]), cardiacreg.__file__\n"
            "assert counts.__file__.startswith(sys.argv[1]), counts.__file__\n"
            "from cardiacreg.phantoms.toy_heart import make_toy_heart\n"
            "print(cardiacreg.landmarks_from_labels(make_toy_heart().labels).points_mm.shape)\n"
        )
        assert run_python(tmp_path, script, unpacked) == ["(6, 3)"]


class TestWeights:
    def test_of_acdc_are_under_their_own_licence(self, weights_wheel):
        metadata = metadata_of(weights_wheel)
        assert metadata["Name"] == "cardiacreg-weights-acdc"
        assert metadata["License-Expression"] == "CC-BY-NC-SA-4.0"
        package = {p.name for p in (WEIGHTS / "cardiacreg_weights_acdc").iterdir() if p.is_file()}
        held = held_by(weights_wheel)
        assert {Path(n).name for n in held if n.startswith("cardiacreg_weights_acdc/")} == package
        assert {"LICENSE", "unet2d_acdc.safetensors", "unet2d_acdc.json"} <= package

    def test_that_are_free_are_the_default_where_the_others_are_not_installed(
        self, unpacked, tmp_path
    ):
        script = (
            "import warnings\n"
            "from cardiacreg_nn.inference import shipped_weights as shipped\n"
            "assert shipped.__file__.startswith(sys.argv[1]), shipped.__file__\n"
            "print(*shipped.weight_folders())\n"
            "with warnings.catch_warnings(record=True) as told:\n"
            "    warnings.simplefilter('always')\n"
            "    print(shipped.default_weights().stem)\n"
            "print(told[0].message)\n"
            "print('torch' in sys.modules)\n"
        )
        folders, default, told, torch = run_python(tmp_path, script, unpacked)
        assert (folders, default, torch) == ("synthetic", "unet2d_synthetic", "False")
        assert "pip install cardiacreg-weights-acdc" in told

    def test_of_acdc_are_found_once_installed(self, unpacked, weights_wheel, tmp_path):
        """By what their distribution says of itself: nothing of it is imported."""
        script = (
            "from cardiacreg_nn.inference import shipped_weights as shipped\n"
            "path = shipped.default_weights()\n"
            "assert path.is_relative_to(sys.argv[2]), path\n"
            "print(path.stem, *shipped.weight_folders())\n"
            "print('cardiacreg_weights_acdc' in sys.modules)\n"
            "print(shipped.pinned_sha256(path))\n"
        )
        installed = unpack(weights_wheel, tmp_path / "installed")
        found, imported, pin = run_python(tmp_path, script, unpacked, installed)
        assert (found, imported) == ("unet2d_acdc synthetic acdc", "False")
        assert len(pin) == 64


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


class TestLowestVersions:
    """What pyproject.toml allows is what is tested: constraints-lowest.txt has the same numbers."""

    def test_are_the_bounds_of_the_project(self):
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        extras = project["optional-dependencies"]
        wanted = [*project["dependencies"], *extras["nn"], *extras["itk"], *extras["parquet"]]
        tested = dict(
            line.lower().split("==")
            for line in (ROOT / "constraints-lowest.txt").read_text(encoding="utf-8").splitlines()
            if "==" in line
        )
        for name, bound in (each.lower().split(">=") for each in wanted):
            assert numbers(tested[name]) == numbers(bound), name

    def test_of_shared_names_are_the_same_in_every_extra(self):
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        bounds = {}
        for each in [
            *project["dependencies"],
            *(d for e in project["optional-dependencies"].values() for d in e),
        ]:
            name, _, bound = each.lower().partition(">=")
            assert bounds.setdefault(name, bound) == bound, each


def numbers(version):
    """A version as a tuple without zeros at its end."""
    parts = [int(part) for part in version.split(".")]
    while parts[-1] == 0:
        parts.pop()
    return tuple(parts)


class TestHabits:
    def test_files_for_the_forge_are_yaml(self):
        yaml = pytest.importorskip("yaml")
        files = [*(ROOT / ".github").rglob("*.yml"), ROOT / ".pre-commit-config.yaml"]
        assert len(files) >= 6
        for path in files:
            assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict), path

    def test_ci_runs_every_version_and_system_that_is_promised(self):
        yaml = pytest.importorskip("yaml")
        ci = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
        matrix = ci["jobs"]["newest"]["strategy"]["matrix"]
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        promised = [c.rpartition(" ")[2] for c in project["classifiers"] if ":: 3." in c]
        assert matrix["python"] == promised
        assert {name.partition("-")[0] for name in matrix["os"]} == {"ubuntu", "macos", "windows"}

    def test_changes_are_named_as_they_are_collected(self):
        settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
        towncrier = settings["tool"]["towncrier"]
        kinds = {each["directory"] for each in towncrier["type"]}
        for path in (ROOT / towncrier["directory"]).iterdir():
            assert path.name == "README.md" or path.name.split(".")[-2] in kinds, path.name
        changes = (ROOT / towncrier["filename"]).read_text(encoding="utf-8")
        assert changes.count(towncrier["start_string"]) == 1

    def test_the_citation_names_the_version(self):
        import cardiacreg

        assert f"version: {cardiacreg.__version__}" in (ROOT / "CITATION.cff").read_text()


class TestLicences:
    """The page of licences names all that users install, each as its package does."""

    FAMILIES = ("BSD", "MIT", "Apache", "MPL", "PSF", "Python Software Foundation")

    @pytest.fixture
    def told(self):
        text = (ROOT / "docs/licences.md").read_text(encoding="utf-8")
        rows = re.findall(r"^\| ([\w-]+) \| ([^|]+) \| ([^|]+) \|$", text, flags=re.MULTILINE)
        return {name.lower(): (wanted_by, licence) for name, wanted_by, licence in rows}

    @staticmethod
    def wanted():
        """Package and who needs it, of the library and of the extras that users install."""
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        extras = project["optional-dependencies"]
        developers = {"dev", "docs", "coverage", "test-peers", "bench-peers"}
        groups = {"the library": project["dependencies"]}
        groups |= {f"`{name}`": extras[name] for name in extras.keys() - developers}
        return [
            (re.split(r"[<>=!~;\[ ]", requirement)[0], name)
            for name, requirements in groups.items()
            for requirement in requirements
        ]

    def test_name_every_package_that_users_install(self, told):
        for package, wanted_by in self.wanted():
            assert wanted_by in told[package.lower()][0], package

    def test_are_those_that_the_packages_state(self, told):
        for package in {package for package, _ in self.wanted()} | {"llvmlite"}:
            try:
                found = metadata(package)
            except PackageNotFoundError:  # an extra that is not installed here
                continue
            words = " ".join(
                [found.get("License-Expression") or "", found.get("License") or ""]
                + [c for c in found.get_all("Classifier") or [] if c.startswith("License")]
            )
            licence = told[package.lower()][1].split(", parts")[0]
            named = {family for family in self.FAMILIES if family in licence}
            assert named and all(
                family in words or (family == "PSF" and "Python Software" in words)
                for family in named
            ), (package, licence, words[:200])
