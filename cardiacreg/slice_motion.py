"""In-plane motion of the acquired slices: estimated inside the registration, agreed across atlases.

Breath-holds shift slices against each other. Each selected atlas is registered on a stiff lattice with
one free in-plane shift per slice; the shifts belong to the target, so the median over atlases is taken
and fixed for the deformations that follow. A shift common to all slices cannot be told from a moved
heart; it is kept at zero.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cardiacreg._slabs import ProgressCallable, run_tasks
from cardiacreg.ffd_registration import (
    PreparedTarget,
    Registration,
    StopReason,
    register_prepared,
)
from cardiacreg.geometry import Affine, LabelMap


def estimate_slice_shifts(
    prepared: PreparedTarget,
    atlases: Sequence[tuple[LabelMap, Affine]],
    *,
    threads: int = 1,
    progress: ProgressCallable | None = None,
) -> NDArray[np.float64]:
    """Return the in-plane shift of every target slice, agreed across atlases.

    Parameters
    ----------
    prepared : PreparedTarget
        Prepared with options whose `estimate_shifts` is set.
    atlases : sequence of (LabelMap, Affine)
        Labels of each atlas and its affine, target world mm to atlas world mm.
    threads : int
    progress : callable, optional

    Returns
    -------
    ndarray, shape (n_slices, 2)
        mm along the target's i and j axes, true position = stored position + shift; mean zero over the
        acquired slices, zero for slices without labels. Atlases that do not overlap have no say.
    """

    def register(pair: tuple[LabelMap, Affine]) -> Registration:
        return register_prepared(prepared, pair[0], pair[1])

    results = run_tasks(register, atlases, threads=threads, step="slice motion", progress=progress)
    found = [r.slice_shifts_mm for r in results if r.stop_reason is not StopReason.NO_OVERLAP]
    acquired = np.unique(prepared.samples.slice_index)
    agreed = np.zeros((prepared.labels.shape[2], 2))
    if not found:
        return agreed
    median = np.median(np.stack(found)[:, acquired], axis=0)
    agreed[acquired] = median - median.mean(axis=0)
    return agreed
