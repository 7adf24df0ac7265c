"""A process of its own for patients, one after the other, that can be stopped at any moment.

Time and memory of one patient can only be limited from outside, and what kills a process should kill this
one. Requests go in as pickles, replies come back as lines of JSON. The process ends when its parent does,
however that ends.
"""

from __future__ import annotations

import _thread
import json
import os
import pickle
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from cardiacreg.cohort.task import (
    LOST,
    MEMORY_LIMIT,
    PROCESS_ENDED,
    TIME_LIMIT,
    Outcome,
    Task,
)

_LOOK_SECONDS = 0.2
_GRACE_SECONDS = 5.0
_SIZE_BYTES = 8
_CODE = (
    "import sys; place = sys.argv[1]; place in sys.path or sys.path.insert(0, place); "
    "from cardiacreg.cohort.patient_process import serve; serve()"
)
_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class Preparation:
    """A request to open the atlases."""

    atlases: Path | None


class PatientProcess:
    """A process that carries out tasks; it is started when it is needed, and again after it ended."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._replies: queue.Queue[bytes | None] = queue.Queue()
        self._said: Any = None

    @property
    def pid(self) -> int | None:
        """Number of the process; None where none is alive."""
        return None if self._process is None else self._process.pid

    def carry_out(self, task: Task) -> Outcome:
        """Carry out a task within its limits.

        Parameters
        ----------
        task : Task

        Returns
        -------
        Outcome
            `LOST` with PROCESS_ENDED, TIME_LIMIT or MEMORY_LIMIT where the process did not survive.
        """
        if task.alone:
            self.close()
        settings = task.settings
        found = self.ask(task, settings.time_limit_seconds, settings.memory_limit_mib)
        if isinstance(found, tuple):
            return Outcome(task.subject, LOST, *found)
        return Outcome(**found | {"findings": tuple(found["findings"])})

    def ask(
        self, request: Any, seconds: float | None = None, memory_mib: float | None = None
    ) -> dict[str, Any] | tuple[str, str]:
        """Send a request and wait for its reply; a code and a message where there will be none."""
        started, most = time.monotonic(), 0.0
        self._send(request)
        while True:
            with suppress(queue.Empty):
                line = self._replies.get(timeout=_LOOK_SECONDS)
                return self._ended() if line is None else json.loads(line)
            took = time.monotonic() - started
            if seconds is not None and took > seconds:
                self._kill()
                return TIME_LIMIT, f"not done after {seconds:g} s"
            if memory_mib is not None:
                most = max(most, resident_mib(self.pid) or 0.0)
                if most > memory_mib:
                    self._kill()
                    return MEMORY_LIMIT, f"took {most:.0f} MiB, {memory_mib:g} MiB are allowed"

    def close(self) -> None:
        """End the process: it may tidy up for some seconds, then it is killed."""
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(OSError):
            process.stdin.close()  # type: ignore[union-attr]
        try:
            process.wait(_GRACE_SECONDS + 1)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()  # type: ignore[union-attr]
        self._said.close()

    def _send(self, request: Any) -> None:
        if self._process is None or self._process.poll() is not None:
            self.close()
            self._start()
        assert self._process is not None and self._process.stdin is not None
        self._said.seek(0)  # the process has the same place in the file
        self._said.truncate()
        with suppress(OSError):
            content = pickle.dumps(request)
            self._process.stdin.write(len(content).to_bytes(_SIZE_BYTES) + content)
            self._process.stdin.flush()

    def _start(self) -> None:
        self._replies = queue.Queue()
        self._said = tempfile.TemporaryFile()  # noqa: SIM115
        package = os.fspath(Path(__file__).parents[2])
        own = {name: "1" for name in _THREADS if name not in os.environ}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _CODE, package],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said,
            env=os.environ | own, start_new_session=True,
        )  # fmt: skip
        threading.Thread(
            target=_pass_on, args=(self._process.stdout, self._replies), daemon=True
        ).start()

    def _kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self.close()

    def _ended(self) -> tuple[str, str]:
        """Why the process ended by itself, as far as it can be known."""
        assert self._process is not None
        status = self._process.wait()
        self._said.seek(0, os.SEEK_END)
        self._said.seek(max(0, self._said.tell() - 2000))
        last = self._said.read().decode(errors="replace").strip().splitlines()[-1:]
        self.close()
        how = f"signal {-status}" if status < 0 else f"exit code {status}"
        if status < 0:
            with suppress(ValueError):
                how += f", {signal.Signals(-status).name}"
        if status == -getattr(signal, "SIGKILL", 9):
            how += ", as where memory runs out"
        return PROCESS_ENDED, f"its process ended ({how})" + (f": {last[0]}" if last else "")


def _pass_on(stream: Any, replies: queue.Queue[bytes | None]) -> None:
    with suppress(OSError, ValueError):
        for line in stream:
            replies.put(line)
    replies.put(None)


def resident_mib(pid: int | None) -> float | None:
    """Return the memory of a process in MiB; None where the system does not tell."""
    if pid is None:
        return None
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    except (OSError, IndexError, ValueError, AttributeError):
        pass
    try:
        import psutil

        return float(psutil.Process(pid).memory_info().rss) / 2**20
    except (ImportError, psutil.Error):
        return None


def serve() -> None:
    """Carry out what comes in on stdin until it ends; what is printed goes to stderr."""
    requests: queue.Queue[Any] = queue.Queue()
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _stop)
    threading.Thread(target=_listen, args=(requests,), daemon=True).start()
    with suppress(KeyboardInterrupt):
        while (request := requests.get()) is not None:
            reply = json.dumps(_answer(request)) + "\n"
            replies.write(reply.encode())
            replies.flush()


def _answer(request: Any) -> dict[str, Any]:
    from cardiacreg.cohort.work import carry_out, prepare

    if isinstance(request, Task):
        return asdict(carry_out(request))
    return {"cardiacreg": prepare(request.atlases)}


def _listen(requests: queue.Queue[Any]) -> None:
    """Hand requests on; when the parent is gone, stop the work, kindly first."""
    with suppress(EOFError, OSError):
        while True:
            size = int.from_bytes(_received(_SIZE_BYTES))
            requests.put(pickle.loads(_received(size)))
    requests.put(None)
    _thread.interrupt_main(signal.SIGTERM)
    time.sleep(_GRACE_SECONDS)
    os._exit(1)


def _received(size: int) -> bytes:
    """Read from stdin without a buffer, whose lock would hold up the end of the process."""
    parts: list[bytes] = []
    while size and (part := os.read(0, size)):
        parts.append(part)
        size -= len(part)
    if size:
        raise EOFError
    return b"".join(parts)


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
