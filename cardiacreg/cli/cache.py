"""``cardiacreg cache``: what is kept on disk to be quick, and how to be rid of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cardiacreg.cli.support import EXIT_CODES, echo_json, say
from cardiacreg.compute import cache_files


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
