"""What a command tells while it works: every step by name, and 100 % at the end of them all."""

import os
import re
import struct
import subprocess
import sys
from contextlib import suppress

import pytest
from click.testing import CliRunner

from cardiacreg.cli import support
from cardiacreg.cli.app import main
from cardiacreg.io.nifti import write_label_frames
from cardiacreg.phantoms.toy_heart import make_toy_heart

pytestmark = pytest.mark.filterwarnings("ignore::cardiacreg.errors.InputWarning")
EXTRAS = ("--report", "--surfaces", "stl", "--transforms", "npz")
STEPS = (
    "comparing with the input", "making surfaces", "gathering transforms", "making the report",
    "drawing figures and saving",
)  # fmt: skip


@pytest.fixture(scope="module")
def how(tiny_files):
    return (
        "refine", "-i", tiny_files.labels, "--atlases", tiny_files.atlases, "--spacing", 2.5, 2.5, 4,
        "--accept-failed",
    )  # fmt: skip


def run(*words):
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    return done


def told(stderr):
    """Share and title of every line of progress."""
    lines = re.findall(r"^\[ *(\d+) %, [\d.]+ s\] (.*)$", stderr, re.MULTILINE)
    return [int(share) for share, _ in lines], [title for _, title in lines]


def check(stderr, steps):
    shares, titles = told(stderr)
    assert titles[-len(steps) :] == list(steps), titles
    assert shares == sorted(shares) and shares[-1] == 100 and max(shares[:-1]) < 100


def test_lines_go_on_to_the_end_of_what_is_written(how, tmp_path):
    check(run(*how, "-o", tmp_path / "all", *EXTRAS).stderr, STEPS)
    check(run(*how, "-o", tmp_path / "plain").stderr, (STEPS[0], STEPS[-1]))
    assert told(run(*how, "-o", tmp_path / "quiet", "-q").stderr) == ([], [])


def test_lines_of_a_cine_do_too(tiny_files, tmp_path):
    hearts = [make_toy_heart(size=size).labels for size in (1.0, 0.95, 0.9)]
    write_label_frames(tmp_path / "cine.nii.gz", hearts)
    done = run(
        "refine", "-i", tmp_path / "cine.nii.gz", "-o", tmp_path / "out", "--frames", "all",
        "--atlases", tiny_files.atlases, "--spacing", 2.5, 2.5, 4, "--report", "--accept-failed",
    )  # fmt: skip
    check(done.stderr, (STEPS[0], *STEPS[3:]))
    page = run("report", tmp_path / "out", "--overwrite")
    assert told(page.stderr) == ([100], [STEPS[3]])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs a terminal of POSIX")
def test_a_bar_on_a_terminal_never_goes_back_and_ends_with_the_work(how, tmp_path):
    words = [*map(str, how), "-o", str(tmp_path / "out"), *EXTRAS]
    shown = on_a_terminal([sys.executable, "-m", "cardiacreg", *words])
    drawn = re.findall(r"([^\r\n|]*?) *(\d+)%\|", shown)
    titles, shares = [title for title, _ in drawn], [int(share) for _, share in drawn]
    assert shares == sorted(shares) and shares[-1] == 100
    assert {title for title, share in drawn if int(share) == 100} == {STEPS[-1]}
    seen = list(dict.fromkeys(titles))
    assert [title for title in seen if title in STEPS] == list(STEPS)
    assert "report: drawing surfaces" in seen and "report: making the view in 3D" in seen
    assert f"look at {tmp_path}" in shown.rpartition("%|")[2]


def on_a_terminal(command):
    """What a command shows on a terminal of 100 columns."""
    import fcntl
    import pty
    import termios

    terminal, inside = pty.openpty()
    fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    process = subprocess.Popen(command, stdin=inside, stdout=inside, stderr=inside)
    os.close(inside)
    shown = bytearray()
    with suppress(OSError):  # Linux: the other end is closed
        while part := os.read(terminal, 65536):
            shown += part
    os.close(terminal)
    assert process.wait() == 0, shown.decode(errors="replace")
    return shown.decode()


def test_a_line_beside_a_bar_stands_above_it(monkeypatch, capsys):
    from cardiacreg import Progress

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with support.progress_lines(quiet=False) as tell:
        tell(Progress("fuse", 1, 2, "fusing labels", 0.5))
        support.say("warning: something")
    before, _, after = capsys.readouterr().err.partition("warning: something\n")
    assert before.endswith("\r") and "fusing labels" in before and "fusing labels" in after
    support.say("afterwards")
    assert capsys.readouterr().err == "afterwards\n"
