"""What every command shares: exit codes, one-line errors and warnings, progress, JSON."""

from __future__ import annotations

import errno
import io
import logging
import os
import re
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TextIO

import click

from cardiacreg.compute.cache_files import kernel_folder
from cardiacreg.compute.progress import COMPILE, ProgressBar
from cardiacreg.errors import CacheWarning, InputWarning, InvalidInputError, RefinementError

EXIT_INPUT, EXIT_USAGE, EXIT_REFINEMENT, EXIT_INTERRUPTED = 1, 2, 3, 130
EXIT_CODES = """\b
Exit codes:
  0    done
  1    an input or output is not usable; the message says why
  2    wrong usage of the command
  3    the refinement failed although its inputs were valid, or its model does not follow them
  130  interrupted"""


_WORTH_SHORTENING = 40
"""Characters of what is said of a second file as of the first, from which on it is not repeated."""
_WORDS = (
    (r"\(\w+=\S* or (--[\w-]+)\)", r"(\1)"),
    (r"\((--[\w-]+), \w+=\w+\)", r"(\1)"),
    (r"in Python (\w+\(\)), or (?=cardiacreg )", ""),
    (r"pass check_spacing=False", "add --no-check-spacing"),
    (r"(?:pass )?a mapping \{their label: canonical label\}", "--{prefix}map THEIRS=OURS,..."),
    (r"complete the mapping, with", "complete --{prefix}map, with"),
    (r"the given mapping", "the given --{prefix}map"),
    (r"preset=None", "no --{prefix}preset"),
    (r"preset='(\w+)'", r"--{prefix}preset \1"),
    (r" or '(\w+)'(?=[.;])", r" or \1"),
    (r"frame='?(\w+)'?", r"--frame \1"),
    (r"frame=(?!\w)", "--frame"),
    (r"selection='(\w+)'", r"--select-by \1"),
    (r"; raise max_bytes if this is right", "; larger ones are read from Python only (max_bytes)"),
    (r": use Landmarks\.from_voxels", ": give them in world mm, RAS"),
    (r"cardiacreg\.read_segmentation reads them", "the commands read them"),
    (r"cardiacreg\.read_segmentation and refine read them", "the commands read them"),
    (
        r"translate them with canonical_labels and the preset of the data",
        "translate them with --preset",
    ),
    (r"convert it, or read it with SimpleITK and pass the image", "convert it to NIfTI"),
    (
        r"pass space='RAS' or space='LPS'",
        "add --from RAS or --from LPS",
    ),
    (
        r"pass space='LPS' or 'RAS' to cardiacreg\.read_landmarks",
        "write it as JSON with cardiacreg convert FILE OUT.json --from LPS or --from RAS",
    ),
    (r"pass weights=", "name them with --weights"),
)
"""What messages say in the words of Python, as patterns, and the same in options of a command."""


def in_options(text: str, prefix: str = "") -> str:
    """Return a message of the library in the words of the command line.

    Parameters
    ----------
    text : str
    prefix : str
        Of the options for the file that the message is about, as ``"reference-"``.

    Examples
    --------
    >>> in_options("labels: no label; try preset='acdc'")
    'labels: no label; try --preset acdc'
    """
    for pattern, words in _WORDS:
        text = re.sub(pattern, words.replace("{prefix}", prefix), text)
    return re.sub(
        r"\{(-?\d+: \d(?:, -?\d+: \d)*)\}",
        lambda m: m[1].replace(": ", "=").replace(", ", ","),
        text,
    )


@contextmanager
def about(prefix: str) -> Iterator[None]:
    """Let messages about a file name the options that are for this file, as ``--reference-preset``."""
    try:
        yield
    except InvalidInputError as error:
        raise InvalidInputError(in_options(str(error), prefix), code=error.code) from error


class SafeGroup(click.Group):
    """A group whose commands end with one clear line and a documented exit code."""

    def invoke(self, context: click.Context) -> Any:
        """Run the chosen command."""
        with (
            _any_name_can_be_printed(),
            _without_windows(),
            _one_line_errors(),
            _termination_as_interrupt(),
            _warnings_as_lines(),
        ):
            return super().invoke(context)


_bars: list[ProgressBar] = []
"""The bar on the terminal, where there is one."""


def say(message: str) -> None:
    """Write a line about the work itself to stderr, above a bar; results go to stdout."""
    if _bars:
        _bars[-1].write(message)
    else:
        click.echo(message, err=True)


@contextmanager
def _any_name_can_be_printed() -> Iterator[None]:
    """Escape what a stream cannot show, as bytes of file names that are no UTF-8, in place of failing."""
    streams = [s for s in (sys.stdout, sys.stderr) if isinstance(s, io.TextIOWrapper)]
    before = [(stream, stream.errors) for stream in streams]
    for stream in streams:
        stream.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        for stream, errors in before:
            if not stream.closed:
                stream.reconfigure(errors=errors)


@contextmanager
def _without_windows() -> Iterator[None]:
    """Draw into files only: a MPLBACKEND, or a place for settings, that is not there does not matter."""
    before = os.environ.get("MPLBACKEND")
    os.environ["MPLBACKEND"] = "agg"
    told = logging.getLogger("matplotlib")
    level = told.level
    told.setLevel(logging.ERROR)
    try:
        yield
    finally:
        told.setLevel(level)
        if before is None:
            os.environ.pop("MPLBACKEND", None)
        else:
            os.environ["MPLBACKEND"] = before


@contextmanager
def _one_line_errors() -> Iterator[None]:
    try:
        yield
    except InvalidInputError as error:
        _fail(error.code, error, EXIT_INPUT)
    except RefinementError as error:
        _fail(error.code, error, EXIT_REFINEMENT)
    except BrokenPipeError:
        raise
    except OSError as error:
        _fail("FILE_ERROR", _with_advice(error), EXIT_INPUT)
    except KeyboardInterrupt:
        say("interrupted; nothing was left half-written.")
        raise click.exceptions.Exit(EXIT_INTERRUPTED) from None


def _with_advice(error: OSError) -> Exception:
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return error
    return OSError(
        f"{error.strerror}: the disk is full or your share of it is used up; free some space, or choose "
        "another folder with -o. Nothing was left half-written."
    )


def _fail(code: str, error: Exception, exit_code: int) -> None:
    say(f"error [{code}]: {in_options(' '.join(str(error).split()))}")
    raise click.exceptions.Exit(exit_code) from None


@contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    """Let SIGTERM end the work as Ctrl-C does, with temporary files removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """Show each `InputWarning` and `CacheWarning` once, as one line on stderr."""
    seen: set[str] = set()
    with warnings.catch_warnings():
        others = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if not issubclass(category, InputWarning | CacheWarning):
                others(message, category, filename, lineno, file, line)
            elif str(message) not in seen:
                place, _, rest = str(message).partition(": ")
                likewise = len(rest) > _WORTH_SHORTENING and rest in seen
                seen.update((str(message), rest))
                text = f"{place}: likewise." if likewise else str(message)
                say(f"warning: {in_options(' '.join(text.split()))}")

        warnings.showwarning = show
        warnings.simplefilter("always", InputWarning)
        yield


class ProgressLines:
    """A progress callable: a bar on a terminal, a line per step elsewhere, nothing when quiet.

    Parameters
    ----------
    quiet : bool
        Show nothing.
    """

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._start = time.perf_counter()
        self._told: set[str] = set()
        self._bar: ProgressBar | None = None

    def __call__(self, progress: Any) -> None:
        """Receive a `Progress`."""
        if self._quiet:
            return
        if progress.step == COMPILE and COMPILE not in self._told:
            self._told.add(COMPILE)
            say(
                "preparing: the first time, kernels are compiled for this processor, some ten seconds; "
                f"they are kept in {kernel_folder()}"
            )
        if sys.stderr.isatty():
            self._advance(progress)
        else:
            self._tell(progress)

    def _tell(self, progress: Any) -> None:
        """Write a line when a step is done for the first time."""
        title = progress.title or progress.step
        if progress.done < progress.total or title in self._told:
            return
        self._told.add(title)
        seconds = time.perf_counter() - self._start
        whole = "" if progress.share is None else f"{100 * progress.share:3.0f} %, "
        say(f"[{whole}{seconds:.1f} s] {title}")

    def _advance(self, progress: Any) -> None:
        if self._bar is None:
            self._bar = ProgressBar(leave=False)
            _bars.append(self._bar)
        self._bar(progress)

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            _bars.remove(self._bar)
            self._bar.close()
            self._bar = None


@contextmanager
def progress_lines(quiet: bool) -> Iterator[ProgressLines]:
    """Give a progress callable, and tidy the terminal afterwards."""
    progress = ProgressLines(quiet=quiet)
    try:
        yield progress
    finally:
        progress.close()


class Extras:
    """What is made beside a model; where some of it fails, the model is saved all the same.

    Attributes
    ----------
    files : dict of str to bytes
        What was made, by name.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self._problems: list[str] = []

    @contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """Remember what goes wrong, for the end; interruptions pass."""
        try:
            yield
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            code = getattr(error, "code", type(error).__name__)
            self._problems.append(f"{what} could not be made ({code}: {error})")

    def say(self, output: os.PathLike[str]) -> None:
        """Tell what is missing."""
        for problem in self._problems:
            say(f"error: {problem}; the model is in {os.fspath(output)}.")

    def end(self) -> None:
        """End with exit code 1 where something is missing."""
        if self._problems:
            raise click.exceptions.Exit(EXIT_INPUT)


def echo_json(content: Any) -> None:
    """Write JSON to stdout, as the files have it."""
    from cardiacreg.io.landmark_files import json_text

    click.echo(json_text(content))


def metadata_pairs(
    context: click.Context, parameter: click.Parameter, words: tuple[str, ...]
) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Turn ``KEY=VALUE`` words into pairs of a key and all its values, as `RefineOptions.metadata`."""
    found: dict[str, tuple[str, ...]] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not (key and equals and value):
            raise click.BadParameter(f"{word!r}; needs KEY=VALUE, as phase=ED.")
        found[key] = (*found.get(key, ()), value)
    return tuple(found.items())


def atlas_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what tells a refinement which atlases to choose among: `atlases`, `only` and `selection`."""
    options = (
        click.option(
            "--atlases", type=click.Path(readable=False), metavar="DIR",
            help="Folder of atlases or a built bank; the synthetic population when absent.",
        ),
        click.option(
            "--only", multiple=True, metavar="KEY=VALUE", callback=metadata_pairs,
            help="Choose among the atlases with this metadata, as phase=ED. May be repeated: another key "
            "narrows the choice, another value of the same key widens it.",
        ),
        click.option(
            "--select-by", "selection", type=click.Choice(["labels", "image"]), default="labels",
            show_default=True,
            help="What the chosen atlases resemble most; image needs the image and atlases with images.",
        ),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def as_cell(value: float | None, digits: int) -> str:
    """Return a number for a table, a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"
