"""Commands in odd surroundings: names that no locale shows, a wrong backend, early signals."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

import cardiacreg
from cardiacreg.cli.support import _one_line_errors
from cardiacreg.errors import InvalidInputError
from cardiacreg.results import files

PLAIN = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def run(*arguments, **environment):
    command = [sys.executable, "-m", "cardiacreg", *arguments]
    return subprocess.run(command, capture_output=True, env=os.environ | environment, check=False)


def refine(segmentation, output, tiny_files, *more, **environment):
    return run(
        "refine", "-i", segmentation, "-o", output, "--atlases", tiny_files.atlases,
        "--spacing", "2.5", "2.5", "4", "--orientation", "as-stored", "-q", *more, **environment,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "environment"), [("cœur 心.nii.gz", PLAIN), (b"not utf8 \xff.nii.gz", {})]
)
def test_any_name_is_read_and_written(tiny_files, tmp_path, name, environment):
    segmentation = tmp_path / os.fsdecode(name)
    try:
        shutil.copy(tiny_files.labels, segmentation)
    except OSError:
        pytest.skip("this file system does not take the name")
    output = tmp_path / f"out {os.fsdecode(name)[:-7]}"
    done = refine(segmentation, output, tiny_files, "--json", **environment)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert set(files.FILE_NAMES) <= {path.name for path in output.iterdir()}
    result = cardiacreg.load_result(output)
    assert result.volumes_ml == said["volumes_ml"]


def test_a_name_that_is_not_there_is_told_in_any_locale(tmp_path):
    done = run("evaluate", "-i", "nirgends ö.nii", "-r", b"nowhere \xff.nii", **PLAIN)
    assert done.returncode == 1 and b"error [FILE_NOT_FOUND]" in done.stderr


def test_commands_draw_whatever_backend_is_asked_for(tiny_files, tmp_path):
    (tmp_path / "file").touch()
    nowhere = {"MPLBACKEND": "nonsense", "MPLCONFIGDIR": str(tmp_path / "file" / "settings")}
    done = refine(tiny_files.labels, tmp_path / "out", tiny_files, **nowhere)
    assert done.returncode == 0, done.stderr
    assert b"Matplotlib" not in done.stderr
    assert (tmp_path / "out" / "qc.png").is_file()


def test_drawing_is_tried_before_the_work(tiny_files, tmp_path, monkeypatch):
    from click.testing import CliRunner

    from cardiacreg.cli.app import main

    def fail(name):
        raise ImportError("no such library")

    monkeypatch.setattr(files, "import_module", fail)
    monkeypatch.setattr("cardiacreg.refinement._refine.refine", None)
    arguments = ["refine", "-i", str(tiny_files.labels), "-o", str(tmp_path / "out")]
    found = CliRunner().invoke(main, arguments)
    assert found.exit_code == 1 and "[NO_FIGURES]" in found.stderr
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InvalidInputError, match="MPLBACKEND"):
        files.check_figures()


def test_a_full_disk_is_told(capsys):
    import errno

    import click

    with pytest.raises(click.exceptions.Exit) as caught, _one_line_errors():
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.exit_code == 1
    said = capsys.readouterr().err
    assert said.startswith("error [FILE_ERROR]: No space left on device: the disk is full")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_modules_are_imported_is_told(number):
    script = (
        "import sys, types, os, signal\n"
        "class Slow(types.ModuleType):\n"
        "    def __getattr__(self, name):\n"
        f"        os.kill(os.getpid(), {int(number)}); signal.pause()\n"
        "sys.modules['cardiacreg.cli.app'] = Slow('cardiacreg.cli.app')\n"
        "from cardiacreg.__main__ import run\n"
        "run()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert done.returncode == 130
    assert done.stderr == "interrupted; nothing was left half-written.\n"
