"""``cardiacreg doctor`` and ``cache``: whether an installation is sound, and what it keeps on disk."""

from __future__ import annotations

import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
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


@click.group(epilog=EXIT_CODES, short_help="Describe or clear compiled kernels and other caches.")
def cache() -> None:
    """Describe or clear what is kept to be quick: compiled kernels, and atlases of earlier versions."""


@cache.command(epilog=EXIT_CODES, short_help="Tell where the cache is and what it holds.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def info(as_json: bool) -> None:
    """Tell where the cache is and what it holds, without changing anything."""
    found = _description()
    if as_json:
        echo_json(found)
        return
    click.echo(f"cache    {found['folder']}")
    kernels = found["kernels"]
    files = f"{kernels['files']} files, {kernels['megabytes']} MB"
    click.echo(f"kernels  {kernels['folder']}: {files}")
    for bank in found["banks"]:
        click.echo(f"bank     {bank['folder']}: {bank['megabytes']} MB, of an earlier version")
    for path in found["leftovers"]:
        click.echo(f"leftover {path}")


def _description() -> dict[str, Any]:
    kernels = cache_files.kernel_files()
    return {
        "folder": cache_files.cache_folder(),
        "kernels": {
            "folder": cache_files.kernel_folder(),
            "files": len(kernels),
            "megabytes": _megabytes(kernels),
        },
        "banks": [
            {"folder": bank, "megabytes": _megabytes([bank])} for bank in cache_files.bank_folders()
        ],
        "leftovers": [*cache_files.kernel_leftovers(), *cache_files.bank_leftovers()],
    }


def _megabytes(paths: list[Path]) -> float:
    return round(cache_files.size_of(paths) / 1e6, 1)


@cache.command(epilog=EXIT_CODES, short_help="Remove what is kept.")
@click.option("--kernels", is_flag=True, help="Remove compiled kernels.")
@click.option("--banks", is_flag=True, help="Remove atlases that earlier versions built.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def clear(kernels: bool, banks: bool, yes: bool) -> None:
    """Remove compiled kernels and atlases of earlier versions, or what is left of killed runs among them.

    Without --kernels and --banks both are removed. Kernels are made again when they are needed; the
    embedded atlases come with the package. Other files are left alone, and so are banks that you
    built elsewhere.
    """
    both = not (kernels or banks)
    files = _kernels_to_remove() if kernels or both else []
    folders = _banks_to_remove() if banks or both else []
    if not (files or folders):
        say("nothing to remove.")
        return
    what = f"{len(files)} files of kernels and {len(folders)} banks"
    if not yes:
        places = sorted({str(path.parent) for path in (*files, *folders)})
        size = _megabytes([*files, *folders])
        click.confirm(f"Remove {what} ({size} MB) from {', '.join(places)}?", abort=True, err=True)
    for path in files:
        path.unlink(missing_ok=True)
    for folder in folders:
        if not cache_files.remove_bank(folder):
            say(f"{folder}: holds other files too, which stay.")
    say(f"removed {what}.")


def _kernels_to_remove() -> list[Path]:
    return [*cache_files.kernel_files(), *cache_files.kernel_leftovers()]


def _banks_to_remove() -> list[Path]:
    return [*cache_files.bank_folders(), *cache_files.bank_leftovers()]
