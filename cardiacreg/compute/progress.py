"""How far a call of many steps is: one share that only grows, and in words what is being done.

`WholeProgress` makes one share out of the steps that `run_tasks` reports, by how long each usually takes.
`part_of` makes a refinement one of several. `ProgressBar` shows it.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
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
