"""What workers on this computer do first: they leave Ctrl-C to the driver, which ends them in order."""

from __future__ import annotations

import signal
from typing import Any


def dask_setup(worker: Any) -> None:
    """Ignore the signal that a terminal sends to every process at once.

    Parameters
    ----------
    worker : distributed.Worker
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
