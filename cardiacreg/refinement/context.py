"""What all steps of one refinement share: target, options, threads, progress and the clock."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cardiacreg.anatomy.stack_coverage import Coverage
from cardiacreg.arrays import Float
from cardiacreg.compute.threads import ProgressCallable
from cardiacreg.geometry import Landmarks, Subject
from cardiacreg.refinement.options import RefineOptions
from cardiacreg.registration.view_samples import ViewPlane
from cardiacreg.slices import DOUBT_LEVELS


class Clock:
    """Wall-clock seconds per named step."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._start = time.perf_counter()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Add the time spent inside to a step."""
        begin = time.perf_counter()
        yield
        self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - begin

    def timings_seconds(self) -> dict[str, float]:
        """Return seconds per step and ``"total"`` since the clock was made."""
        return {**self._seconds, "total": time.perf_counter() - self._start}


class RefinementContext(NamedTuple):
    """What every step of one refinement shares."""

    target: Subject
    landmarks: Landmarks
    """The target's, given or derived; they say which end is the base and which side is anterior."""
    coverage: Coverage
    unknown_labels: tuple[int, ...]
    spacing_mm: ArrayLike
    options: RefineOptions
    threads: int
    progress: ProgressCallable | None
    clock: Clock
    probabilities: NDArray[np.float32] | None = None
    """Of every canonical label at the target's voxels, shape (N_LABELS, i, j, k), where known."""
    doubt: NDArray[np.uint8] | None = None
    """How doubtful each of the target's voxels is, see `doubt_levels`."""
    views: tuple[ViewPlane, ...] = ()
    """Planes beside the stack that show the same heart."""
    slice_normal: Float | None = None
    """Direction of the slice axis in the patient's world, where the target lies on axes of its own."""

    @property
    def images_vote(self) -> bool:
        """Whether fusion compares images, for which the atlases' own are needed."""
        return self.target.image is not None and self.options.fusion is not None

    @property
    def certainty(self) -> NDArray[np.float32] | None:
        """How much each of the target's voxels counts, from 0 to 1; None where all count."""
        if self.doubt is None:
            return None
        return np.asarray(1 - self.doubt / np.float32(DOUBT_LEVELS), dtype=np.float32)
