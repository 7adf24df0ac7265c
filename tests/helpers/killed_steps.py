"""Kill a real process before each step that changes a folder, one process per step."""

import subprocess
import sys
from pathlib import Path

_KILLER = """
import os, shutil, signal, sys
steps = [0]

def killing(call):
    def stopped(*arguments, **keywords):
        steps[0] += 1
        if steps[0] == LIMIT:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments, **keywords)
    return stopped

def arm():
    for name in ("replace", "rename", "unlink", "remove", "rmdir", "mkdir", "link", "fsync"):
        setattr(os, name, killing(getattr(os, name)))
    shutil.rmtree = killing(shutil.rmtree)
"""
_LOOP = """
PLACE = None
LIMIT = 0
for LIMIT in range(1, 400):
    PLACE = sys.argv[1] + "/" + str(LIMIT)
    os.makedirs(PLACE)
    child = os.fork()
    if child == 0:
        prepare(PLACE)
        arm()
        work(PLACE)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert status == 0 or os.WIFSIGNALED(status), status
    if status == 0:
        break
print(LIMIT)
"""


def killed_at_every_step(code: str, folder: Path) -> list[Path]:
    """Places in which work was killed before its first, second, ... change; it ends in the last one.

    The code defines ``prepare(place)`` and ``work(place)``; the work alone is killed.
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _KILLER + code + _LOOP, str(folder)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [folder / str(n) for n in range(1, int(done.stdout) + 1)]
