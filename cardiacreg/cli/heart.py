"""What the commands that refine are told about a heart: coverage, orientation and other frames."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from cardiacreg.refinement.options import RefineOptions
    from cardiacreg.refinement.views import View

ENDS = ("apex", "base")
COVERAGES = ("auto", "whole", "partial")
ORIENTATIONS = ("auto", "as-stored", "mirrored", "upside-down", "mirrored-upside-down")
"""As in `anatomy.stack_coverage` and `options`, which take time to load."""


def coverage_words(
    context: click.Context, parameter: click.Parameter, words: tuple[str, ...]
) -> dict[str, str]:
    """Turn ``partial`` or ``apex=partial`` into the coverage of each end that is named."""
    found: dict[str, str] = {}
    for word in words:
        end, equals, coverage = word.rpartition("=")
        ends = (end,) if equals else ENDS
        if coverage not in COVERAGES or not set(ends) <= set(ENDS):
            raise click.BadParameter(
                f"{word!r}; needs one of {', '.join(COVERAGES)}, for one end as apex=partial."
            )
        found |= dict.fromkeys(ends, coverage)
    return found


def frame_words(
    context: click.Context, parameter: click.Parameter, words: tuple[str, ...]
) -> tuple[str | int, ...]:
    """Turn words into numbers of frames where they are numbers; the others are files."""
    return tuple(int(word) if word.isdecimal() else word for word in words)


def heart_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what is known about a heart beside its labels: `coverage`, `orientation`, `frames`."""
    options = (
        click.option(
            "--coverage", multiple=True, metavar="[END=]WORD", callback=coverage_words,
            help="Whether the stack covers the ventricles: whole, partial (cut there) or auto; for one "
            "end as apex=partial or base=whole. May be repeated.  [default: as the method says]",
        ),
        click.option(
            "--orientation", type=click.Choice(ORIENTATIONS),
            help="How the heart lies in its file; auto weighs header, labels, image and other frames.  "
            "[default: as the method says]",
        ),
        click.option(
            "--other-frame", "frames", multiple=True, metavar="FILE|NUMBER", callback=frame_words,
            help="Another frame of the same patient, stored alike: a file, or the number of a frame "
            "of the same 4-D file. The orientation is inferred from all of them. May be repeated.",
        ),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def paired_views(labels: Sequence[str], images: Sequence[str], preset: Any) -> list[View]:
    """Return the views that a command was given.

    Parameters
    ----------
    labels, images : sequence of str
        Files; as many images as labels, or one of both is empty.
    preset : str, mapping or None
        Meaning of the labels' values.

    Raises
    ------
    click.UsageError
        If there are other numbers of both.
    """
    from cardiacreg.refinement.views import View

    if labels and images and len(labels) != len(images):
        raise click.UsageError(
            f"{len(images)} times --view-image for {len(labels)} times --view; give one for each, in the "
            "same order."
        )
    pairs = zip_longest(labels, images)
    return [View(file, image=image, preset=preset) for file, image in pairs]


def told(
    options: RefineOptions, coverage: Mapping[str, str], orientation: str | None
) -> RefineOptions:
    """Return options with what the command was told about the heart.

    Parameters
    ----------
    options : RefineOptions
        Of a preset; what the command was not told stays as it is there.
    coverage : mapping
        End ("apex", "base") to its coverage.
    orientation : str or None
    """
    apex, base = (
        coverage.get(end, word) for end, word in zip(ENDS, options.coverages, strict=True)
    )
    return replace(
        options,
        coverage=apex if apex == base else (apex, base),
        orientation=orientation or options.orientation,
    )


def chosen_options(
    method: str,
    coverage: Mapping[str, str],
    orientation: str | None,
    only: tuple[tuple[str, tuple[str, ...]], ...],
    selection: str,
) -> RefineOptions:
    """Return the options that a command was given.

    Parameters
    ----------
    method : {"default", "fast", "paper"}
    coverage, orientation
        As for `told`.
    only, selection
        `RefineOptions.metadata` and `RefineOptions.selection`.
    """
    from cardiacreg.refinement.options import RefineOptions

    ways = {"default": RefineOptions, "fast": RefineOptions.fast, "paper": RefineOptions.paper}
    options = told(ways[method](), coverage, orientation)
    return replace(options, metadata=only, selection=selection)
