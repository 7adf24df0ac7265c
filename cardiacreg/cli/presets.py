"""``cardiacreg presets``: what label values mean in public data sets, and what a file can be.

The options of every command that reads labels are here too: ``--preset``, ``--map``, ``--frame`` and
``--no-check-spacing``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from cardiacreg.cli.support import EXIT_CODES, echo_json

PHASES = ("ED", "ES")
"""As in `io.label_values`, which takes time to load."""


class FrameType(click.ParamType):  # type: ignore[type-arg]
    """A number from 0, or ED or ES."""

    name = "frame"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | str:
        """Return the number or the phase."""
        if isinstance(value, int):
            return value
        if str(value).upper() in PHASES:
            return str(value).upper()
        if not str(value).isdecimal():
            self.fail(f"{value!r}; needs a number from 0, ED or ES.", param, ctx)
        return int(value)


def mapping_words(
    context: click.Context, parameter: click.Parameter, words: tuple[str, ...]
) -> dict[int, int] | None:
    """Turn ``500=1,205=2`` into {500: 1, 205: 2}; None where nothing was said."""
    found: dict[int, int] = {}
    for pair in (each.strip() for word in words for each in word.split(",") if each.strip()):
        theirs, _, ours = pair.partition("=")
        if not (theirs.strip().removeprefix("-").isdecimal() and ours.strip().isdecimal()):
            raise click.BadParameter(
                f"{pair!r}; needs THEIRS=OURS in whole numbers, as 500=1,205=2,600=4 (1 LV cavity, 2 LV "
                "wall, 3 RV wall, 4 RV cavity, 0 to be ignored)."
            )
        if found.setdefault(int(theirs), int(ours)) != int(ours):
            raise click.BadParameter(f"{theirs.strip()} is given twice.")
    return found or None


def one_meaning(preset: str | None, mapping: dict[int, int] | None, flags: str = "") -> Any:
    """Return what was said about the values: a preset or a mapping, not both."""
    if preset is not None and mapping is not None:
        raise click.UsageError(f"--{flags}preset and --{flags}map say the same; give one of them.")
    return preset if mapping is None else mapping


def meaning_options(
    what: str = "",
    prefix: str = "",
    absent: str = "canonical (1 LV cavity, 2 LV wall, 3 RV wall, 4 RV cavity)",
) -> Callable[[Any], Any]:
    """Add ``--preset`` and ``--map``, or those of another file with a prefix; see `one_meaning`."""
    of = f" in {what}" if what else ""
    name = prefix.replace("-", "_")

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        command = click.option(
            f"--{prefix}map", f"{name}mapping", multiple=True, metavar="THEIRS=OURS,...",
            callback=mapping_words,
            help=f"Meaning of the label values{of} where no preset fits, as 500=1,205=2,600=4 with 1 LV "
            "cavity, 2 LV wall, 3 RV wall, 4 RV cavity, 0 to be ignored.",
        )(command)  # fmt: skip
        return click.option(
            f"--{prefix}preset", f"{name}preset", metavar="NAME",
            help=f"Meaning of the label values{of}: acdc, mms, ukbb, digital_heart, emidec, myops, "
            f"mmwhs, ... (cardiacreg presets lists them); {absent} when absent.",
        )(command)  # fmt: skip

    return add


def spacing_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--no-check-spacing``."""
    return click.option(
        "--no-check-spacing", "check_spacing", is_flag=True, flag_value=False, default=True,
        help="Accept voxels outside 0.2 to 5 mm in plane and 0.3 to 20 mm between slices.",
    )(command)  # fmt: skip


def frame_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--frame``."""
    return click.option(
        "--frame", type=FrameType(), metavar="NUMBER|ED|ES",
        help="Which frame of 4-D files: a number from 0, or the largest (ED) or smallest (ES) labelled "
        "heart.",
    )(command)  # fmt: skip


@click.command(
    epilog=EXIT_CODES, short_help="List what label values mean, or tell which fit a file."
)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option(
    "-i", "--input", "segmentation", type=click.Path(readable=False), metavar="SEG",
    help="Tell for every preset whether this segmentation can be a heart under it, and why not.",
)  # fmt: skip
@frame_option
@spacing_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def presets(
    names: tuple[str, ...],
    segmentation: str | None,
    frame: int | str | None,
    check_spacing: bool,
    as_json: bool,
) -> None:
    """List what label values mean in public data sets, or tell which fits a file.

    With NAMEs only those, aliases included.
    """
    from cardiacreg.anatomy.preset_tables import ALIASES, PRESETS, preset_mapping

    for name in names:
        preset_mapping(name)  # refuses what is not known
    plain = [name.lower().replace("-", "_") for name in names]
    wanted = [ALIASES.get(name, name) for name in plain] or list(PRESETS)
    if segmentation is not None:
        _tell_about(segmentation, wanted, frame, check_spacing, as_json)
        return
    found = {name: _description(name) for name in wanted}
    if as_json:
        echo_json(found)
        return
    for name, each in found.items():
        others = f" (also {', '.join(each['aliases'])})" if each["aliases"] else ""
        ignored = each["ignored"]
        click.echo(f"{name}{others}: {each['description']}")
        click.echo(f"    {each['meaning']}" + (f"; ignored: {ignored}" if ignored else ""))


def _description(name: str) -> dict[str, Any]:
    from cardiacreg.anatomy.preset_tables import ALIASES, DESCRIPTIONS, PRESETS, mapping_words

    ignored = sorted(theirs for theirs, ours in PRESETS[name].items() if ours == 0)
    shown = ", ".join(map(str, ignored)) if len(ignored) <= 12 else f"{len(ignored)} other values"
    return {
        "description": DESCRIPTIONS[name],
        "aliases": [alias for alias, meant in ALIASES.items() if meant == name],
        "values": {str(theirs): ours for theirs, ours in PRESETS[name].items() if ours},
        "meaning": mapping_words(PRESETS[name]),
        "ignored": shown,
    }


def _tell_about(
    segmentation: str,
    wanted: list[str],
    frame: int | str | None,
    check_spacing: bool,
    as_json: bool,
) -> None:
    from cardiacreg.anatomy.label_presets import explained
    from cardiacreg.io.nifti import read_stored_labels

    stored = read_stored_labels(segmentation, frame=frame, check_spacing=check_spacing)
    found = {name: told for name, told in explained(stored.codes, values=stored.values)}
    if as_json:
        values = list(stored.values.values())
        echo_json({"values": values, "presets": {name: found[name] for name in wanted}})
        return
    for name in wanted:
        click.echo(f"{name:20s} {found[name]}")
