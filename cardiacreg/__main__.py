"""``python -m cardiacreg`` and the command ``cardiacreg``.

What interrupts the first second, in which modules are imported, ends with the same words as later.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType


def run() -> None:
    """Run the command line."""
    try:
        signal.signal(signal.SIGTERM, _interrupt)
        from cardiacreg.cli.app import main

        main(prog_name="cardiacreg")
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; nothing was left half-written.\n")
        sys.exit(130)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    run()
