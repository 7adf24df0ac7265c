"""What a measurement was made on: machine, versions, threads."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def describe() -> dict[str, Any]:
    """Return processor, memory, operating system, versions and the commit measured."""
    import numba
    import numpy
    import scipy

    import cardiacreg

    return {
        "processor": _processor(),
        "cpus": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "memory_gib": _memory_gib(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "cardiacreg": cardiacreg.__version__,
        "numpy": numpy.__version__,
        "scipy": scipy.__version__,
        "numba": numba.__version__,
        "commit": _commit(),
        "others": _others(),
    }


def _others() -> dict[str, str]:
    """Versions of the peers that are installed."""
    found = {}
    for name in ("SimpleITK", "antspyx", "torch"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return None


def _commit() -> str | None:
    """The commit measured; a plus sign where the code differed from it."""
    try:
        found = _git("rev-parse", "--short", "HEAD")
        edited = _git("status", "--porcelain", "--", "cardiacreg", "benchmarks/**/*.py")
    except (OSError, subprocess.CalledProcessError):
        return None
    return found + ("+" if edited else "")


def _git(*arguments: str) -> str:
    found = subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return found.stdout.strip()
