"""Compiled kernels on disk: found again, never out of date, and not needed for a right answer."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cardiacreg.compute import cache_files

ROOT = Path(__file__).parents[1]
FILES = {
    "far": "from cardiacreg.compute.jit import kernel\n@kernel\ndef _step(x):\n    return x + 1\n",
    "near": "from cardiacreg.compute.jit import kernel\nfrom far import _step\n"
    "@kernel\ndef _two_steps(x):\n    return _step(_step(x))\n",
    "top": "from cardiacreg.compute.jit import kernel\nfrom near import _two_steps\n"
    "FACTOR = 10\n@kernel\ndef _all(x):\n    return FACTOR * _two_steps(x)\n",
}
CALL_TOP = "import top; found = top._all(1), dict(top._all.stats.cache_hits)"
REPORT = """
import json, sys, warnings
sys.path.insert(0, sys.argv[1])
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    {work}
print(json.dumps([found[0], len(found[1]), [f"{{w.category.__name__}}: {{w.message}}" for w in caught]]))
"""
FORKING = """
import json, os, sys, traceback
import numba
numba.njit(lambda x: x + 1)(1)
for line in sys.stdin:
    script, folder, variables = json.loads(line)
    child = os.fork()
    if child == 0:
        try:
            said = os.open(folder + "/said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(said, 1)
            os.dup2(said, 2)
            os.environ.clear()
            os.environ.update(variables)
            numba.core.config.reload_config()
            sys.dont_write_bytecode, sys.argv = True, ["-c", folder]
            exec(script, {"__name__": "__main__"})
            sys.stdout.flush()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    print(os.waitpid(child, 0)[1], flush=True)
"""


@pytest.fixture
def project(tmp_path):
    """Three files whose kernels call each other, and a cache of their own."""
    for name, text in FILES.items():
        (tmp_path / f"{name}.py").write_text(text)
    return tmp_path


@pytest.fixture(scope="module")
def forking():
    """A process that has Numba loaded and forks; None where processes cannot."""
    if sys.platform != "linux":
        yield None
        return
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    command = [sys.executable, "-c", FORKING]
    with subprocess.Popen(command, cwd=ROOT, env=variables_of(), text=True, **pipes) as process:
        yield process
        process.stdin.close()


@pytest.fixture
def call(forking):
    """A process of its own, forked where that can be: Numba and what hashes begin with are the same."""

    def called(folder, work=CALL_TOP, **variables):
        if forking is None:
            return call_anew(folder, work, **variables)
        order = REPORT.format(work=work), str(folder), variables_of(folder, **variables)
        print(json.dumps(order), file=forking.stdin, flush=True)
        status, said = forking.stdout.readline(), folder / "said"
        text = said.read_text()
        said.unlink()
        assert status == "0\n", text
        return tuple(json.loads(text))

    return called


def call_anew(folder, work=CALL_TOP, **variables):
    """A fresh process: what the kernel returned, how many signatures it found on disk, warnings."""
    done = subprocess.run(
        [sys.executable, "-c", REPORT.format(work=work), str(folder)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=variables_of(folder, **variables),
    )
    assert done.returncode == 0, done.stderr
    return tuple(json.loads(done.stdout))


def variables_of(folder=Path(), **variables):
    """The variables of a process: nothing of this one about Numba or caches."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("NUMBA", "CARDIACREG"))}
    settings = {"CARDIACREG_CACHE": str(folder / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
    return kept | settings | variables


def edit(folder, name, old, new):
    path = folder / f"{name}.py"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def stored(folder):
    return sorted(path.name for path in (folder / "cache" / "kernels").glob("*.kernel"))


def test_kernels_are_found_again_and_only_in_the_cache(project):
    assert call_anew(project) == (30, 0, [])
    first = stored(project)
    assert [name.partition("-")[0] for name in first] == [
        "far._step",
        "near._two_steps",
        "top._all",
    ]
    assert call_anew(project) == (30, 1, [])
    assert stored(project) == first
    assert {path.name for path in project.iterdir()} == {"cache", *(f"{n}.py" for n in FILES)}


def test_edits_are_noticed_in_own_file_and_one_and_two_files_away(call, project):
    call(project)
    edit(project, "near", "_step(_step(x))", "_step(_step(_step(x)))")
    assert call(project) == (40, 0, [])
    edit(project, "far", "x + 1", "x + 2")
    assert call(project) == (70, 0, [])
    edit(project, "top", "FACTOR = 10", "FACTOR = 20")
    assert call(project) == (140, 0, [])
    assert call(project) == (140, 1, [])
    edit(project, "far", "x + 2", "x + 1")
    edit(project, "top", "FACTOR = 20", "FACTOR = 10")
    edit(project, "near", "_step(_step(_step(x)))", "_step(_step(x))")
    assert call(project) == (30, 1, [])


def test_a_constant_that_comes_from_a_file_without_kernels_is_noticed(call, project):
    (project / "sizes.py").write_text("FACTOR = 10\n")
    edit(project, "top", "FACTOR = 10", "from sizes import FACTOR")
    assert call(project) == (30, 0, [])
    (project / "sizes.py").write_text("FACTOR = 11\n")
    assert call(project) == (33, 0, [])


def test_kernels_that_a_function_closes_over_are_noticed(call, project):
    (project / "made.py").write_text(
        "from cardiacreg.compute.jit import kernel\nfrom far import _step\n"
        "def make(factor, step):\n    @kernel\n    def _made(x):\n        return factor * step(x)\n"
        "    return _made\n"
        "first, second = make(2, _step), make(3, _step)\n"
    )
    work = "import made; found = made.first(1) + made.second(1), made.second.stats.cache_hits"
    assert call(project, work) == (10, 0, [])
    assert call(project, work) == (10, 1, [])
    edit(project, "far", "x + 1", "x + 2")
    assert call(project, work) == (15, 0, [])


def test_fields_of_a_named_tuple_from_another_file_are_noticed(call, project):
    shape = "from typing import NamedTuple\nclass Pair(NamedTuple):\n    {}: int\n    {}: int\n"
    (project / "pair.py").write_text(shape.format("first", "second"))
    edit(project, "top", "FACTOR * _two_steps(x)", "x.first")
    work = "import top, pair; found = top._all(pair.Pair(1, 2)), dict(top._all.stats.cache_hits)"
    assert call(project, work) == (1, 0, [])
    (project / "pair.py").write_text(shape.format("second", "first"))
    assert call(project, work) == (2, 0, [])


def test_checkouts_of_equal_content_share_and_others_do_not_meet(call, project, tmp_path_factory):
    call(project)
    other = tmp_path_factory.mktemp("other")
    for name, text in FILES.items():
        (other / f"{name}.py").write_text(text)
    cache = {"CARDIACREG_CACHE": str(project / "cache")}
    assert call(other, **cache) == (30, 1, [])
    edit(other, "far", "x + 1", "x + 5")
    assert call(other, **cache) == (110, 0, [])
    assert call(project) == (30, 1, [])


def test_checked_kernels_are_never_taken_for_unchecked_ones(project):
    (project / "beyond.py").write_text(
        "from cardiacreg.compute.jit import kernel\n@kernel\ndef _read(values, n):\n"
        "    for i in range(n):\n        values[i] += 1\n    return values[0]\n"
    )
    work = (
        "import beyond, numpy as np\n    try: first = float(beyond._read(np.zeros(8)[:4], {}))\n"
        "    except IndexError: first = 'checked'\n"
        "    found = first, beyond._read.stats.cache_hits"
    )
    assert call_anew(project, work.format(5)) == (1, 0, [])
    checked = {"NUMBA_BOUNDSCHECK": "1"}
    assert call_anew(project, work.format(5), **checked) == ("checked", 0, [])
    assert call_anew(project, work.format(5), **checked) == ("checked", 1, [])
    assert call_anew(project, work.format(5)) == (1, 1, [])


def test_numbas_own_variable_says_where_kernels_are_kept(call, project):
    elsewhere = {"NUMBA_CACHE_DIR": str(project / "elsewhere")}
    assert call(project, **elsewhere) == (30, 0, [])
    assert call(project, **elsewhere) == (30, 1, [])
    assert len(list((project / "elsewhere" / "kernels").iterdir())) == 3
    assert not (project / "cache").exists()


def test_other_packages_keep_their_cache(call, project):
    (project / "theirs.py").write_text(
        "import numba\n@numba.njit(cache=True)\ndef add(x):\n    return x + 1\n"
    )
    work = (
        "import top, theirs; top._all(1); found = theirs.add(1), {}; "
        "assert theirs.add.stats.cache_path.endswith('__pycache__'), theirs.add.stats.cache_path"
    )
    assert call(project, work) == (2, 0, [])
    assert list((project / "__pycache__").glob("theirs.add*.nbc"))


@pytest.mark.parametrize("damage", ["empty", "cut", "changed"])
def test_a_damaged_file_is_made_again(call, project, damage):
    call(project)
    (file,) = (project / "cache" / "kernels").glob("top._all-*")
    whole = file.read_bytes()
    broken = {"empty": b"", "cut": whole[:-9], "changed": whole[:-9] + b"\0" + whole[-8:]}
    file.write_bytes(broken[damage])
    assert call(project) == (30, 0, [])
    assert call(project) == (30, 1, [])


UNWRITABLE = ["/dev/null/cache", "/proc/cache"]


@pytest.mark.skipif(sys.platform != "linux", reason="these places are Linux's")
@pytest.mark.parametrize("place", UNWRITABLE)
def test_without_a_writable_folder_there_is_one_warning(call, project, place):
    value, hits, (warning,) = call(project, CARDIACREG_CACHE=place)
    assert (value, hits) == (30, 0)
    assert warning.startswith(f"CacheWarning: kernel cache: {place}/kernels cannot be written")
    assert "CARDIACREG_CACHE" in warning


@pytest.mark.skipif(sys.platform != "linux", reason="these places are Linux's")
def test_without_a_writable_home_there_is_one_warning(call, project):
    home = {"HOME": "/dev/null/home", "XDG_CACHE_HOME": "", "CARDIACREG_CACHE": ""}
    value, hits, warnings = call(project, **home)
    assert (value, hits, len(warnings)) == (30, 0, 1)


def test_a_user_without_a_home_gets_no_folder_in_the_working_directory(monkeypatch):
    monkeypatch.delenv("CARDIACREG_CACHE")
    for answer in (lambda name: "~/.cache/cardiacreg", lambda name: Path("~nobody?").expanduser()):
        monkeypatch.setattr(cache_files.platformdirs, "user_cache_dir", answer)
        assert cache_files.cache_folder().is_absolute()
        assert cache_files.why_not_writable(cache_files.cache_folder())


def test_kernels_in_a_folder_that_cannot_be_written_are_used_without_a_warning(call, project):
    call(project)
    broken = (
        "import cardiacreg.compute.kernel_cache as k\n"
        "    def full(*_): raise OSError(28, 'No space left')\n"
        "    k.write_kernel = full\n    " + CALL_TOP
    )
    assert call(project, broken) == (30, 1, [])
    edit(project, "top", "FACTOR = 10", "FACTOR = 20")
    value, hits, (warning,) = call(project, broken)
    assert (value, hits) == (60, 0) and "(No space left)" in warning


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_leaves_nothing_behind(call, project):
    full = (
        "import pathlib; opened = pathlib.Path.open\n"
        "    def open_full(path, *words, **more):\n"
        "        if path.suffix != '.partial': return opened(path, *words, **more)\n"
        "        path.touch()\n"
        "        return open('/dev/full', *words, **more)\n"
        "    pathlib.Path.open = open_full\n    " + CALL_TOP
    )
    value, hits, (warning,) = call(project, full)
    assert (value, hits) == (30, 0) and "No space left" in warning
    assert list((project / "cache" / "kernels").iterdir()) == []


@pytest.mark.parametrize("gone", ["_rebuild", "_reduce"])
def test_another_numba_means_no_cache_and_one_warning(call, project, gone):
    value, hits, (warning,) = call(
        project, f"import numba.core.compiler as c; del c.CompileResult.{gone}\n    {CALL_TOP}"
    )
    assert (value, hits) == (30, 0)
    assert warning.startswith("CacheWarning: kernel cache: Numba ")
    assert not (project / "cache").exists()


def test_a_stored_kernel_that_numba_does_not_take_is_compiled(call, project):
    call(project)
    other = (
        "import numba.core.compiler as c\n    def rebuild(*_): raise TypeError('other arguments')\n"
        "    c.CompileResult._rebuild = rebuild\n    " + CALL_TOP
    )
    value, hits, (warning,) = call(project, other)
    assert (value, hits) == (30, 0) and "other arguments" in warning


def test_kernels_work_without_compilation(project):
    work = "import top; found = top._all(1), {}"
    assert call_anew(project, work, NUMBA_DISABLE_JIT="1") == (30, 0, [])
