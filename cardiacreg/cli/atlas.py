"""``cardiacreg atlas``: make a bank of atlases, and look at one."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cardiacreg.cli.presets import meaning_options, one_meaning, spacing_option
from cardiacreg.cli.support import EXIT_CODES, echo_json
from cardiacreg.errors import InvalidInputError

if TYPE_CHECKING:
    from cardiacreg.atlases.bank import AtlasBank


@click.group(epilog=EXIT_CODES)
def atlas() -> None:
    """Make a bank of atlases, or describe one."""


@atlas.command(epilog=EXIT_CODES)
@click.argument(
    "source",
    required=False,
    type=click.Path(readable=False, path_type=Path),
    metavar="[SRC_FOLDER]",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(readable=False, path_type=Path),
    metavar="BANK",
    help="Folder of the bank; needed with SRC_FOLDER.",
)
@meaning_options("SRC_FOLDER")
@spacing_option
@click.option("--threads", type=click.IntRange(min=1), help="Every CPU when absent.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier bank.")
def build(
    source: Path | None,
    output: Path | None,
    threads: int | None,
    overwrite: bool,
    **reading: Any,
) -> None:
    """Pack atlases into a bank that opens at once.

    SRC_FOLDER holds one folder per atlas with labels.nii.gz and, where there are any, image.nii.gz
    (on the same grid), landmarks.json and metadata.json. Without it BANK holds the embedded synthetic
    population, with the images that else are made whenever they are needed.
    """
    from cardiacreg.atlases.bank_building import build_atlas_bank
    from cardiacreg.atlases.embedded import default_specifications

    if output is None:
        raise click.UsageError("say where the bank is to be: -o BANK")
    _check_place(output, overwrite)
    subjects: Any = default_specifications() if source is None else _subjects(source, **reading)
    _echo_bank(build_atlas_bank(output, subjects, threads=threads))


def _subjects(
    source: Path, preset: str | None, mapping: dict[int, int] | None, check_spacing: bool
) -> Any:
    from cardiacreg.atlases.folder import open_atlas_folder

    meaning = one_meaning(preset, mapping)
    return open_atlas_folder(source, preset=meaning, check_spacing=check_spacing)


def _check_place(output: Path, overwrite: bool) -> None:
    """Refuse to replace anything but an earlier bank, and this only if that is allowed."""
    from cardiacreg.atlases.bank_place import check_replaceable, heal

    heal(output)
    check_replaceable(output, "atlas build")
    if output.exists() and any(output.iterdir()) and not overwrite:
        raise InvalidInputError(
            f"{output}: exists already; choose another place or add --overwrite.",
            code="OUTPUT_EXISTS",
        )


@atlas.command(epilog=EXIT_CODES, short_help="Add the atlases of a folder to a bank.")
@click.argument("bank", type=click.Path(readable=False, path_type=Path))
@click.argument("source", type=click.Path(readable=False, path_type=Path), metavar="SRC_FOLDER")
@meaning_options("SRC_FOLDER")
@spacing_option
@click.option("--threads", type=click.IntRange(min=1), help="Every CPU when absent.")
def append(bank: Path, source: Path, threads: int | None, **reading: Any) -> None:
    """Add the atlases of SRC_FOLDER to BANK; those it holds already are left out."""
    from cardiacreg.atlases.bank_building import append_to_atlas_bank

    _echo_bank(append_to_atlas_bank(bank, _subjects(source, **reading), threads=threads))


@atlas.command(epilog=EXIT_CODES, short_help="Check every atlas of a bank.")
@click.argument("bank", type=click.Path(readable=False, path_type=Path))
def verify(bank: Path) -> None:
    """Check hashes, geometry, labels and landmarks of every atlas of BANK."""
    from cardiacreg.atlases.bank_verification import verify_atlas_bank

    problems = verify_atlas_bank(bank)
    for problem in problems:
        click.echo(f"{problem.atlas}: {problem.what}")
    if problems:
        raise InvalidInputError(
            f"{bank}: {len(problems)} problems; see above.", code="BAD_ATLAS_BANK"
        )
    click.echo(f"{bank}: all is well")


@atlas.command(epilog=EXIT_CODES)
@click.argument("bank", required=False, type=click.Path(readable=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def info(bank: Path | None, as_json: bool) -> None:
    """Describe a bank; without BANK the embedded one."""
    from cardiacreg.atlases.bank import AtlasBank
    from cardiacreg.atlases.embedded import default_atlases

    opened = default_atlases() if bank is None else AtlasBank(bank)
    if as_json:
        echo_json(_description(opened))
        return
    _echo_bank(opened)


def _description(bank: AtlasBank) -> dict[str, Any]:
    kinds = Counter(
        " ".join(str(entry[key]) for key in ("group", "phase") if key in entry) or "not stated"
        for entry in bank.metadata
    )
    place = bank.folder
    files = place.iterdir() if place.is_dir() else [place]
    size = sum(path.stat().st_size for path in files)
    return {
        "folder": bank.folder,
        "atlases": len(bank),
        "megabytes": round(size / 1e6, 1),
        "kinds": dict(sorted(kinds.items())),
        "names": list(bank.names),
    }


def _echo_bank(bank: AtlasBank) -> None:
    found = _description(bank)
    click.echo(f"{found['folder']}: {found['atlases']} atlases, {found['megabytes']} MB")
    for kind, count in found["kinds"].items():
        click.echo(f"  {count:4d}  {kind}")
