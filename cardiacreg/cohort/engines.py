"""What moves tasks to processes: one process here, or the workers of dask.distributed.

An engine knows nothing of what is done; the truth is in the statuses on disk. Every worker carries out
its tasks in a `PatientProcess` of its own, so that a patient that kills its process kills no worker.
"""

from __future__ import annotations

import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from cardiacreg.cohort.patient_process import PatientProcess, Preparation
from cardiacreg.cohort.task import LOST, PROCESS_ENDED, Outcome, Task
from cardiacreg.errors import InvalidInputError

Work = Callable[[Task], Outcome]
_CRITICAL = 50
"""What dask logs below that is said in words of our own."""
_PER_SLOT, _FEWEST = 3, 8
"""Tasks in flight: few enough to cost no memory and to lose little, enough that no worker ever waits."""
_PREFIX = "patient"
"""One for all: a scheduler keeps a record of every prefix for ever."""
_mine = threading.local()


class Engine(Protocol):
    """Carries out tasks, in any order."""

    @property
    def window(self) -> int:
        """How many tasks may be in flight."""
        ...

    def submit(self, task: Task) -> None:
        """Take a task."""
        ...

    def next(self) -> tuple[Task, Outcome]:
        """Wait for any of the tasks."""
        ...

    def prepare(self, atlases: Any) -> dict[str, Any] | tuple[str, str]:
        """Open the atlases once, and return the version at work, or why the process ended."""
        ...


def in_own_process(task: Task) -> Outcome:
    """Carry out a task in the patient process that belongs to this thread."""
    found: Outcome = _process().carry_out(task)
    return found


def prepare_in_own_process(atlases: Any) -> dict[str, Any] | tuple[str, str]:
    """Open the atlases in the patient process that belongs to this thread."""
    return _process().ask(Preparation(atlases))


def _process() -> PatientProcess:
    if not hasattr(_mine, "process"):
        _mine.process = PatientProcess()
    found: PatientProcess = _mine.process
    return found


class SerialEngine:
    """One patient after the other, without a scheduler.

    Parameters
    ----------
    work : callable, optional
        What is done with a task.
    """

    window = 1

    def __init__(self, work: Work = in_own_process) -> None:
        self._work = work
        self._tasks: deque[Task] = deque()

    def submit(self, task: Task) -> None:
        """Take a task."""
        self._tasks.append(task)

    def next(self) -> tuple[Task, Outcome]:
        """Carry out the next task."""
        task = self._tasks.popleft()
        return task, self._work(task)

    def prepare(self, atlases: Any) -> dict[str, Any] | tuple[str, str]:
        """Open the atlases once."""
        return prepare_in_own_process(atlases)


class DaskEngine:
    """The workers of a dask scheduler.

    Parameters
    ----------
    client : dask.distributed.Client
    work : callable, optional
        What is done with a task; importable on the workers.
    """

    def __init__(self, client: Any, work: Work = in_own_process) -> None:
        from distributed import as_completed

        self._client, self._work = client, work
        self._completed = as_completed()
        self._tasks: dict[str, Task] = {}
        self._window, self._asked = _FEWEST, 0

    @property
    def window(self) -> int:
        """Tasks in flight, by the workers that there are; their number may change."""
        self._asked += 1
        if self._asked % _FEWEST == 1:
            threads = sum(self._client.nthreads().values())
            self._window = max(_FEWEST, _PER_SLOT * threads)
        return self._window

    def submit(self, task: Task) -> None:
        """Send a task."""
        key = f"{_PREFIX}-{uuid.uuid4().hex}"
        self._tasks[key] = task
        self._completed.add(self._client.submit(self._work, task, key=key, pure=False, retries=0))

    def next(self) -> tuple[Task, Outcome]:
        """Wait for any of the tasks; one whose worker died is lost."""
        from distributed.scheduler import KilledWorker

        future = next(self._completed)
        task = self._tasks.pop(future.key)
        if future.cancelled():
            raise InvalidInputError(
                "the scheduler is gone; what is done is on disk. Start one and run the same command "
                "again, which goes on from there.",
                code="NO_SCHEDULER",
            )
        problem = future.exception()
        if isinstance(problem, KilledWorker):
            return task, Outcome(task.subject, LOST, PROCESS_ENDED, "its worker ended")
        if problem is not None:
            raise _cannot_work(problem) from problem
        outcome: Outcome = future.result()
        return task, outcome

    def prepare(self, atlases: Any) -> dict[str, Any] | tuple[str, str]:
        """Open the atlases once, on any worker."""
        future = self._client.submit(prepare_in_own_process, atlases, pure=False)
        try:
            found: dict[str, Any] | tuple[str, str] = future.result()
        except (ImportError, AttributeError) as problem:
            raise _cannot_work(problem) from problem
        return found


def _cannot_work(problem: BaseException) -> InvalidInputError:
    return InvalidInputError(
        f"the workers cannot carry out tasks ({type(problem).__name__}: {problem}); install the same "
        "versions of Python, dask and cardiacreg on all of them.",
        code="WORKERS_DIFFER",
    )


@contextmanager
def serial_engine() -> Iterator[SerialEngine]:
    """Give an engine that needs no scheduler, and end its process afterwards."""
    try:
        yield SerialEngine()
    finally:
        if hasattr(_mine, "process"):
            _mine.process.close()


@contextmanager
def dask_engine(
    workers: int | None, scheduler: str | None, work: Work = in_own_process
) -> Iterator[DaskEngine]:
    """Give an engine of workers on this computer, or of a scheduler that runs already.

    Parameters
    ----------
    workers : int or None
    scheduler : str or None
        Its address.
    work : callable, optional

    Raises
    ------
    InvalidInputError
        If dask.distributed is not installed (NO_DASK), or nobody answers at the address (NO_SCHEDULER).
    """
    with _client(workers, scheduler) as client:
        yield DaskEngine(client, work)


@contextmanager
def _client(workers: int | None, scheduler: str | None) -> Iterator[Any]:
    try:
        import dask
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise InvalidInputError(
            'several workers need dask.distributed; install it with: pip install "cardiacreg[cohort]". '
            "One process at a time needs nothing: --shard 1/1.",
            code="NO_DASK",
        ) from error
    settings = {
        "distributed.scheduler.allowed-failures": 0,
        "distributed.comm.timeouts.connect": "30s",
    }
    with dask.config.set(settings):
        if scheduler is not None:
            from distributed.utils import silence_logging_cmgr

            client = _connected(Client, scheduler)
            with silence_logging_cmgr(_CRITICAL), client:
                yield client
            return
        cluster = LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0",
            memory_limit=0, silence_logs=_CRITICAL, preload=["cardiacreg.cohort.dask_preload"],
        )  # fmt: skip
        with cluster, Client(cluster) as client:
            yield client


def _connected(client_of: Any, scheduler: str) -> Any:
    try:
        return client_of(scheduler)
    except (OSError, ValueError) as error:
        raise InvalidInputError(
            f"no scheduler of dask answers at {scheduler} ({error or 'no answer'}); start one with: dask "
            "scheduler, and give the address that it shows.",
            code="NO_SCHEDULER",
        ) from error


def windowed(tasks: Iterable[Task], engine: Engine) -> Iterator[tuple[Task, Outcome]]:
    """Carry out tasks with few of them in flight, however many there are.

    Parameters
    ----------
    tasks : iterable of Task
        Read as they are needed.
    engine : Engine

    Yields
    ------
    tuple of Task and Outcome
        As they come.
    """
    waiting = 0
    for task in tasks:
        engine.submit(task)
        waiting += 1
        if waiting >= engine.window:
            yield engine.next()
            waiting -= 1
    while waiting:
        yield engine.next()
        waiting -= 1
