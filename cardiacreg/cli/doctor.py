"""``cardiacreg doctor``: whether an installation is sound, and where it keeps things."""

from __future__ import annotations

import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click

from cardiacreg import __version__
from cardiacreg.cli.support import EXIT_CODES, EXIT_REFINEMENT, echo_json

_LIBRARIES = ("numpy", "scipy", "numba", "nibabel", "scikit-image", "matplotlib", "click")
_LOWEST_DICE = 0.7  # of the RV wall, which is one voxel thick in the tiny heart


@click.command(epilog=EXIT_CODES)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(as_json: bool) -> None:
    """Report versions, threads and caches, and refine a tiny heart to see that all works."""
    report = {
        "versions": _versions(),
        "threads": _threads(),
        "caches": _caches(),
        "self_check": _self_check(),
    }
    if as_json:
        echo_json(report)
    else:
        _echo_report(report)
    if not report["self_check"]["passed"]:
        raise click.exceptions.Exit(EXIT_REFINEMENT)


def _versions() -> dict[str, str]:
    found = {"cardiacreg": __version__, "python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found | {"system": platform.platform()}


def _threads() -> dict[str, Any]:
    from cardiacreg.compute.threads import available_threads

    return {
        "cpus": os.cpu_count(),
        "used_by_default": available_threads(),
        "OPENBLAS_NUM_THREADS": os.environ.get("OPENBLAS_NUM_THREADS"),
    }


def _caches() -> dict[str, Any]:
    from cardiacreg.atlases.bank import cache_folder

    kernels = os.environ.get("NUMBA_CACHE_DIR")
    folders = {
        "atlases": cache_folder(),
        "kernels": Path(kernels)
        if kernels
        else Path(__file__).parents[1] / "compute" / "__pycache__",
    }
    return {
        name: {"folder": folder, "writable": _is_writable(folder)}
        for name, folder in folders.items()
    }


def _is_writable(folder: Path) -> bool:
    """Whether files can be made in a folder, or in the nearest parent that exists."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)


def _self_check() -> dict[str, Any]:
    """Refine a tiny heart with a smaller one as the only atlas: the answer must fit the heart."""
    import warnings

    from cardiacreg.errors import InputWarning
    from cardiacreg.phantoms.toy_heart import tiny_heart
    from cardiacreg.refinement._refine import refine

    heart, start = tiny_heart(), time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        result = refine(
            heart.labels,
            image=heart.image,
            atlases=[tiny_heart(size=0.95)],
            spacing_mm=(2.5, 2.5, 4.0),
        )
    worst = min(dice for dice in result.agreement.values() if dice is not None)
    return {
        "passed": bool(worst >= _LOWEST_DICE and result.minimum_jacobian > 0),
        "smallest_dice": worst,
        "seconds": time.perf_counter() - start,
    }


def _echo_report(report: dict[str, Any]) -> None:
    for title in ("versions", "threads"):
        click.echo(title)
        for name, value in report[title].items():
            click.echo(f"  {name:22s} {'-' if value is None else value}")
    click.echo("caches")
    for name, cache in report["caches"].items():
        state = "writable" if cache["writable"] else "NOT writable"
        click.echo(f"  {name:22s} {cache['folder']} ({state})")
    check = report["self_check"]
    verdict = "passed" if check["passed"] else "FAILED"
    click.echo(
        f"self-check {verdict}: smallest Dice {check['smallest_dice']:.3f} "
        f"in {check['seconds']:.1f} s"
    )
