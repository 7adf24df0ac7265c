"""``cardiacreg doctor``: whether an installation is sound, and where it keeps things."""

from __future__ import annotations

import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import click

from cardiacreg import __version__
from cardiacreg.cli.support import EXIT_CODES, EXIT_INPUT, EXIT_REFINEMENT, echo_json, say
from cardiacreg.compute import cache_files
from cardiacreg.errors import InvalidInputError

_LIBRARIES = ("numpy", "scipy", "numba", "nibabel", "scikit-image", "matplotlib", "click")
_REMEDIES = {
    "kernels": "cardiacreg cache clear --kernels",
    "atlases": "pip install --force-reinstall --no-deps cardiacreg",
}
_LOWEST_DICE = 0.7  # of the RV wall, which is one voxel thick in the tiny heart


@click.command(
    epilog=EXIT_CODES, short_help="Report versions and caches, and check that all works."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(as_json: bool) -> None:
    """Report versions, threads and caches, and refine a tiny heart to see that all works.

    What is stored is read and checked. Exit code 1 says that some of it is damaged.
    """
    report = {"versions": _versions(), "threads": _threads(), "self_check": _self_check()}
    report["caches"] = {"kernels": _kernels(), "atlases": _atlases()}
    if as_json:
        echo_json(report)
    else:
        _echo_report(report)
    damaged = [name for name, cache in report["caches"].items() if cache["damage"]]
    for name in damaged:
        say(f"stored {name} are damaged; mend it with: {_REMEDIES[name]}")
    if not report["self_check"]["passed"]:
        raise click.exceptions.Exit(EXIT_REFINEMENT)
    if damaged:
        raise click.exceptions.Exit(EXIT_INPUT)


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


def _kernels() -> dict[str, Any]:
    """Where compiled kernels are kept, or why they are not; asked after a refinement."""
    from cardiacreg.compute import kernel_cache

    folder, files = cache_files.kernel_folder(), cache_files.kernel_files()
    broken = [path.name for path in files if cache_files.read_kernel(path) is None]
    why = cache_files.why_not_writable(folder)
    return {
        "folder": folder,
        "writable": why is None,
        "trouble": kernel_cache.trouble()
        or (f"{folder} cannot be written ({why})" if why else None),
        "state": f"{len(files)} files",
        "damage": f"damaged: {', '.join(broken)}" if broken else None,
    }


def _atlases() -> dict[str, Any]:
    """Where the embedded bank is, and whether it is what was shipped."""
    from cardiacreg.atlases import packed

    damage = _damage()
    return {
        "folder": packed.SHIPPED,
        "trouble": None,
        "state": "damaged" if damage else "complete",
        "damage": damage,
    }


def _damage() -> str | None:
    """What is wrong with the embedded bank, by every hash that it holds."""
    from cardiacreg.atlases.bank_verification import problems_of
    from cardiacreg.atlases.embedded import CONTENT_SHA256, default_atlases, default_bank_key

    try:
        found = problems_of(default_atlases())
    except InvalidInputError as error:
        return str(error)
    if default_bank_key() != CONTENT_SHA256:
        return "not the atlases of this version"
    return "; ".join(f"{atlas}: {what}" for atlas, what in found) or None


def _self_check() -> dict[str, Any]:
    """Refine a tiny heart with a smaller one as the only atlas: the answer must fit the heart."""
    import warnings

    from cardiacreg.errors import CacheWarning, InputWarning
    from cardiacreg.phantoms.toy_heart import make_toy_heart
    from cardiacreg.refinement._refine import refine

    heart, start = make_toy_heart(), time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        warnings.simplefilter("ignore", CacheWarning)  # the report tells
        result = refine(
            heart.labels,
            image=heart.image,
            atlases=[make_toy_heart(size=0.95)],
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
        click.echo(f"  {name:22s} {cache['folder']}: {cache['damage'] or cache['state']}")
        if cache["trouble"]:
            click.echo(f"  {'':22s} {cache['trouble']}")
    check = report["self_check"]
    verdict = "passed" if check["passed"] else "FAILED"
    click.echo(
        f"self-check {verdict}: smallest Dice {check['smallest_dice']:.3f} "
        f"in {check['seconds']:.1f} s"
    )
