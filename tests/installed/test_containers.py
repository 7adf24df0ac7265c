"""What the definitions of containers say, done without a container.

The wheel is built of what they copy, installed into an environment of its own, made read-only, and run
with the variables that they set, without a home, by a user whom permissions bind.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from cardiacreg.compute import cache_files
from tests.helpers.wheels import BUILT, ROOT, build_wheel, skip_without_build_tools

DOCKERFILE = ROOT / "containers" / "Dockerfile"
IGNORED = ROOT / "containers" / "Dockerfile.dockerignore"
APPTAINER = ROOT / "containers" / "cardiacreg.def"
DROP_FROM_BOUNDING_SET = 24
LEFT_OUT = "cardiacreg.fusion.label_fusion._most_votes_kernel"
OVERRIDES_OF_PERMISSIONS = (1, 2, 3)
"""prctl(2) and capabilities(7): root reads and writes what permissions forbid, unless these are gone."""


def stages(text):
    """The parts of a Dockerfile, one for each FROM, with continued lines joined."""
    return re.split(r"^FROM ", text.replace("\\\n", " "), flags=re.M)[1:]


def docker_environment():
    """The variables of the last stage."""
    (found,) = re.findall(r"^ENV (.*)$", stages(DOCKERFILE.read_text())[-1], re.M)
    return dict(each.split("=", 1) for each in found.split())


def apptainer_environment():
    section = APPTAINER.read_text().split("%environment")[1].split("%runscript")[0]
    return dict(re.findall(r"export (\w+)=(.*)", section))


def copied():
    """What the definitions bring into their build, by name."""
    docker = {
        line[1:].removesuffix("/**") for line in IGNORED.read_text().splitlines() if line[:1] == "!"
    }
    section = APPTAINER.read_text().split("%files")[1].split("%post")[0]
    apptainer = dict(line.split() for line in section.strip().splitlines())
    assert all(place == f"/source/{name}" for name, place in apptainer.items())
    assert docker == set(apptainer)
    return docker


class TestDefinitions:
    def test_are_twins(self):
        docker, apptainer = DOCKERFILE.read_text(), APPTAINER.read_text()
        for pattern in (r'"cardiacreg\[([\w,-]+)\]', r"apt-get install (.*)", r"pip wheel (.*)"):
            assert re.findall(pattern, docker) == re.findall(pattern, apptainer) != [], pattern
        shared = apptainer_environment()
        assert shared.items() <= docker_environment().items()

    def test_name_extras_and_a_python_that_exist(self):
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        text = DOCKERFILE.read_text()
        (extras,) = re.findall(r'"cardiacreg\[([\w,-]+)\]', text)
        assert set(extras.split(",")) <= set(project["optional-dependencies"])
        (python,) = re.findall(r"ARG PYTHON=(.*)", text)
        assert f"Programming Language :: Python :: {python}" in project["classifiers"]
        assert set(re.findall(r"From: python:(.*)-slim", APPTAINER.read_text())) == {python}

    def test_leave_the_compiler_behind_and_run_as_a_user(self):
        build, final = stages(DOCKERFILE.read_text())
        assert "gcc" in build and "gcc" not in final and "apt-get" not in final
        assert re.search(r"^USER (?!root|0)", final, re.M)
        assert final.index("\nUSER") < final.index("\nENTRYPOINT")
        last = APPTAINER.read_text().split("Stage: final")[1]
        assert "gcc" not in last and "apt-get" not in last


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """An environment with the wheel, read-only; its libraries are those of the tests."""
    source = tmp_path_factory.mktemp("context")
    skip_without_build_tools()
    for name in copied():
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=BUILT)
        else:
            shutil.copy(ROOT / name, source)
    wheel = build_wheel(source, tmp_path_factory.mktemp("wheel"))
    environment = tmp_path_factory.mktemp("opt") / "cardiacreg"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = environment / "bin" / "python"
    quiet = ["--no-deps", "--no-index", "--quiet", "--disable-pip-version-check"]
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, "install", *quiet, wheel], check=True
    )
    (packages,) = environment.glob("lib/python*/site-packages")
    libraries = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "libraries.pth").write_text("\n".join(libraries) + "\n")
    for path in (environment, *environment.rglob("*")):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & 0o555)
    yield environment
    for path in (environment, *environment.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)


def bound_by_permissions():
    """Before a program starts: permissions hold for it, though it may be root's."""
    if os.getuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        for capability in OVERRIDES_OF_PERMISSIONS:
            libc.prctl(DROP_FROM_BOUNDING_SET, capability, 0, 0, 0)


def run(installed, words, variables, folder):
    """Run a program of the environment where only a cache, data and temporary files can be written."""
    places = {name: folder / name for name in ("cache", "data", "tmp")}
    for place in places.values():
        place.mkdir(exist_ok=True)
    settings = {
        name: value.replace("/opt/cardiacreg", str(installed)).replace("$PATH", os.defpath)
        for name, value in variables.items()
    }
    settings = {
        name: str(places["cache"]) + value.removeprefix("/cache")
        if value.startswith("/cache")
        else value
        for name, value in settings.items()
    }
    return subprocess.run(
        [installed / "bin" / words[0], *words[1:]], cwd=places["data"], capture_output=True, text=True,
        env=settings | {"HOME": "/nonexistent", "TMPDIR": str(places["tmp"])},
        preexec_fn=bound_by_permissions,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="containers are of Linux")
class TestSteps:
    def test_the_installation_cannot_be_written(self, installed, tmp_path):
        script = "import cardiacreg, pathlib; print(pathlib.Path(cardiacreg.__file__).parent)"
        where = run(
            installed, ["python", "-c", script], docker_environment(), tmp_path
        ).stdout.strip()
        assert Path(where).is_relative_to(installed)
        touch = f"import pathlib; pathlib.Path({where!r}, 'new').touch()"
        done = run(installed, ["python", "-c", touch], docker_environment(), tmp_path)
        assert "PermissionError" in done.stderr

    def test_of_docker_refine_into_data_and_keep_their_cache(self, installed, tmp_path, tiny_files):
        """All kernels but one are there from other tests: the last is compiled and kept."""
        variables = docker_environment()
        kernels = tmp_path / "cache" / "kernels"
        kernels.mkdir(parents=True)
        for path in cache_files.kernel_folder().glob("*.kernel"):
            if not path.name.startswith(LEFT_OUT):
                shutil.copy(path, kernels)
        self.refine(installed, variables, tmp_path, tiny_files)
        assert list(kernels.glob(f"{LEFT_OUT}-*"))
        kept = {path for path in (tmp_path / "cache").rglob("*") if path.is_file()}
        done = run(installed, ["cardiacreg", "doctor"], variables, tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        assert kept <= set((tmp_path / "cache").rglob("*"))

    def test_of_apptainer_refine_where_there_is_no_home(self, installed, tmp_path, tiny_files):
        self.refine(installed, apptainer_environment(), tmp_path, tiny_files)

    def refine(self, installed, variables, tmp_path, tiny_files):
        (tmp_path / "data").mkdir(exist_ok=True)
        shutil.copy(tiny_files.labels, tmp_path / "data" / "seg.nii.gz")
        shutil.copytree(tiny_files.atlases, tmp_path / "data" / "atlases")
        words = ["cardiacreg", "refine", "-i", "seg.nii.gz", "-o", "out", "--atlases", "atlases"]
        done = run(installed, [*words, "--spacing", "2.5", "2.5", "2.5"], variables, tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        assert (tmp_path / "data" / "out" / "result.json").is_file()
