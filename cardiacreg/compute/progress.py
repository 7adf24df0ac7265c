"""How far a call of many steps is: one share that only grows, and in words what is being done.

`WholeProgress` makes one share out of the steps that `run_tasks` reports, by how long each usually takes.
`part_of` makes a refinement one of several, `Parts` one of what a command does. `ProgressBar` shows it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, NamedTuple

from cardiacreg.compute.threads import Progress, ProgressCallable

_TICK_SECONDS = 0.5


class Stage(NamedTuple):
    """What a step is called, and how long it takes compared with the others."""

    title: str
    weight: float


COMPILE, REPORT = "compile", "compare"
ONE_FRAME: dict[str, Stage] = {
    COMPILE: Stage("compiling for this processor, once", 0.0),
    "align": Stage("aligning atlases by landmarks", 0.2),
    "select": Stage("ranking atlases", 0.4),
    "affine": Stage("aligning the best atlases", 0.4),
    "slice motion": Stage("finding how slices moved", 0.5),
    "register": Stage("registering atlases", 0.7),
    "fuse": Stage("fusing labels", 0.4),
    REPORT: Stage("comparing with the input", 0.1),
}
"""Steps of a refinement in order, weighted by seconds that they took (docs/studies/speed.md)."""
COMPILE_WEIGHT = 8.0
SEGMENT, REFINE, SURFACES, TRANSFORMS, PAGE, SAVE = (
    "segment", "refine", "surfaces", "transforms", "report", "save",
)  # fmt: skip
OF_A_COMMAND: dict[str, Stage] = {
    SEGMENT: Stage("segmenting the image", 4.0),
    REFINE: Stage("refining", sum(stage.weight for stage in ONE_FRAME.values())),
    SURFACES: Stage("making surfaces", 0.6),
    TRANSFORMS: Stage("gathering transforms", 0.1),
    PAGE: Stage("making the report", 7.8),
    SAVE: Stage("drawing figures and saving", 0.9),
}
"""What a command does in order, weighted likewise; a report by each phase that it shows."""
OUTSIDE_WEIGHT = 4.4
"""Of the heart drawn from outside, which is a part of saving."""


def stages_of(n_frames: int = 1, *, compiles: bool = False) -> dict[str, Stage]:
    """Return the stages of a refinement of so many frames.

    Parameters
    ----------
    n_frames : int
        Of a cine, whose atlases are chosen in two frames and tracked through all.
    compiles : bool
        Whether kernels are compiled first.
    """
    times = {"register": n_frames, "fuse": n_frames, REPORT: n_frames}
    if n_frames > 1:
        times |= dict.fromkeys(("align", "select", "affine", "slice motion"), 2)
    found = {
        name: stage._replace(weight=stage.weight * times.get(name, 1))
        for name, stage in ONE_FRAME.items()
    }
    if compiles:
        found[COMPILE] = found[COMPILE]._replace(weight=COMPILE_WEIGHT)
    return found


class WholeProgress:
    """A progress callable that adds titles and the share of the whole, and hands on.

    Parameters
    ----------
    progress : callable
        Receives each `Progress` with `title` and `share`.
    stages : mapping of str to Stage
        Steps in the order in which they come. One that comes again moves nothing back.
    """

    def __init__(self, progress: ProgressCallable, stages: Mapping[str, Stage]) -> None:
        self._progress, self._share = progress, 0.0
        self._stages, self._before = dict(stages), {}
        total = sum(stage.weight for stage in stages.values())
        passed = 0.0
        for name, stage in stages.items():
            self._before[name] = passed / total
            passed += stage.weight
        self._total = total

    def __call__(self, report: Progress) -> None:
        """Receive a `Progress` of one step."""
        stage, title = self._stages.get(report.step), report.title or report.step
        if stage is not None:
            title = stage.title
            inside = stage.weight / self._total * report.done / max(report.total, 1)
            self._share = max(self._share, self._before[report.step] + inside)
        self._progress(report._replace(title=title, share=min(self._share, 1.0)))


def whole_progress(
    progress: ProgressCallable | None, stages: Mapping[str, Stage]
) -> ProgressCallable | None:
    """Return a `WholeProgress`, or None where nobody listens."""
    return None if progress is None else WholeProgress(progress, stages)


def part_of(
    progress: ProgressCallable | None, number: int, count: int, name: str = ""
) -> ProgressCallable | None:
    """Return a progress callable for one of several calls, whose share it makes one of the whole.

    Parameters
    ----------
    progress : callable, optional
    number, count : int
        Which of how many calls, from 0.
    name : str
        What comes before each title, as the frame.

    Examples
    --------
    >>> from cardiacreg.compute.progress import part_of
    >>> from cardiacreg.compute.threads import Progress
    >>> tell = part_of(lambda report: print(report.title, report.share), 1, 2, "ES")
    >>> tell(Progress("register", 1, 2, "registering atlases", 0.5))
    ES: registering atlases 0.75
    """
    if progress is None:
        return None

    def receive(report: Progress) -> None:
        title = f"{name}: {report.title or report.step}" if name else report.title
        share = report.share or 0.0
        progress(report._replace(title=title, share=(number + share) / count))

    return receive


class Parts:
    """Makes one whole of what a command does: calls and steps that follow each other.

    Parameters
    ----------
    progress : callable, optional
    stages : mapping of str to Stage
        In order; what has no weight is told to nobody. The last one ends at the whole.

    Examples
    --------
    >>> from cardiacreg.compute.progress import Parts, Stage
    >>> tell = lambda report: print(report.title, report.done, report.share)
    >>> parts = Parts(tell, {"one": Stage("refining", 3.0), "two": Stage("saving", 1.0)})
    >>> parts.of("one")(Progress("fuse", 1, 1, "fusing labels", 0.5))
    fusing labels 1 0.375
    >>> with parts.step("two"):
    ...     print("at work")
    saving 0 0.75
    at work
    saving 1 1.0
    """

    def __init__(self, progress: ProgressCallable | None, stages: Mapping[str, Stage]) -> None:
        self._progress = progress
        self._stages = {name: stage for name, stage in stages.items() if stage.weight > 0}
        self._total = sum(stage.weight for stage in self._stages.values())

    def of(self, name: str) -> ProgressCallable | None:
        """Return a progress callable for a part, whose share it makes one of the whole."""
        progress = self._progress
        if progress is None or name not in self._stages:
            return None
        earlier = list(self._stages)[: list(self._stages).index(name)]
        before = sum(self._stages[each].weight for each in earlier)
        weight = self._stages[name].weight

        def receive(report: Progress) -> None:
            share = report.done / max(report.total, 1) if report.share is None else report.share
            progress(report._replace(share=(before + weight * share) / self._total))

        return receive

    @contextmanager
    def step(self, name: str) -> Iterator[ProgressCallable | None]:
        """Tell when a part begins and ends; gives what its own parts may tell their progress to."""
        tell = self.of(name)
        if tell is None:
            yield None
            return
        title = self._stages[name].title
        tell(Progress(name, 0, 1, title))
        yield tell
        tell(Progress(name, 1, 1, title))


def parts_of_command(
    progress: ProgressCallable | None,
    *,
    n_frames: int = 1,
    phases: int = 1,
    together: bool = False,
    outside: bool = False,
    only: tuple[str, ...] = (),
) -> Parts:
    """Return the parts of a command that refines and writes.

    Parameters
    ----------
    progress : callable, optional
    n_frames : int
        Of the heart.
    phases : int
        That a report shows in full.
    together : bool
        Whether the frames are refined as a cine, not one by one.
    outside : bool
        Whether the heart is drawn from outside.
    only : tuple of str
        Parts that the command has.
    """
    from cardiacreg.compute.preparation import needs_compiling

    compiles = progress is not None and REFINE in only and needs_compiling()
    stages = stages_of(n_frames if together else 1, compiles=compiles).values()
    refine = sum(stage.weight for stage in stages) * (1 if together else n_frames)
    times = {REFINE: refine / OF_A_COMMAND[REFINE].weight, PAGE: phases}
    times[SAVE] = 1 if together else n_frames
    times[SEGMENT] = max(1.0, n_frames / 10) if together else 1.0
    found = {
        name: stage._replace(weight=stage.weight * times.get(name, 1))
        for name, stage in OF_A_COMMAND.items()
        if name in only
    }
    if outside:
        found[SAVE] = found[SAVE]._replace(weight=found[SAVE].weight + OUTSIDE_WEIGHT)
    return Parts(progress, found)


class ProgressBar:
    """A bar by tqdm for every ``progress=`` of the library, with the step and the time left.

    One bar per call: it names the step at work, never goes back and ticks while a step is long. It serves
    `refine`, `refine_cine` and `refine_patient`, single steps, and `refine_cohort`, where it counts
    patients.

    Parameters
    ----------
    **options
        For `tqdm.tqdm`, as ``leave=False`` or ``file=sys.stdout``.

    Examples
    --------
    >>> import cardiacreg
    >>> with cardiacreg.ProgressBar() as bar:  # doctest: +SKIP
    ...     result = cardiacreg.refine("seg.nii.gz", progress=bar)

    It is a context manager for any call, here without a terminal to draw on:

    >>> from cardiacreg import Progress
    >>> with cardiacreg.ProgressBar(disable=True) as bar:
    ...     bar(Progress("register", 1, 5, "registering atlases", 0.4))
    """

    def __init__(self, **options: Any) -> None:
        from tqdm import tqdm

        shape = "{desc} {percentage:3.0f}%|{bar}| {elapsed}, {remaining} left"
        given = {"bar_format": shape, "smoothing": 0, "dynamic_ncols": True} | options
        self._bar = tqdm(total=1.0, **given)
        self._stop = threading.Event()
        self._ticking: threading.Thread | None = None

    def __call__(self, report: Any, outcome: Any = None) -> None:
        """Receive a `Progress`, or of a cohort its run and what became of a patient."""
        if outcome is not None:
            settled, total = report.n_settled, max(report.total, 1)
            report = Progress(outcome.subject, settled, total, f"{settled} of {total} patients")
        share = report.done / max(report.total, 1) if report.share is None else report.share
        if self._ticking is None and not self._bar.disable:
            self._ticking = threading.Thread(target=self._tick, daemon=True)
            self._ticking.start()
        self._bar.set_description_str(report.title or report.step, refresh=False)
        self._bar.update(max(share - self._bar.n, 0.0))
        self._bar.refresh()

    def write(self, line: str) -> None:
        """Write a line above the bar."""
        self._bar.write(line, file=self._bar.fp)

    def _tick(self) -> None:
        """Show the time going on while a step reports nothing."""
        while not self._stop.wait(_TICK_SECONDS):
            self._bar.refresh()

    def close(self) -> None:
        """Finish the bar."""
        self._stop.set()
        if self._ticking is not None:
            self._ticking.join()
        self._bar.close()

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
