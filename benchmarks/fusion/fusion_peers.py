"""What fusion is compared with: the literal loops of eq. (5), joint label fusion of ANTs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import ants_fusion
from cardiacreg.fusion.grey_levels import grey_levels
from cardiacreg.geometry import LabelMap, Volume

Warped = Sequence[tuple[Volume, LabelMap]]


@numba.njit(error_model="numpy")  # type: ignore[untyped-decorator]
def naive_nonlocal(target, atlases, labels, voxels, search, patch, bandwidth, n_labels):  # type: ignore[no-untyped-def]
    """Eq. (5) as written, at listed voxels: every atlas, displacement and patch voxel in its own loop.

    Takes grey levels (float32) and label positions (uint8); returns the shares of all labels.
    """
    shares = np.zeros((len(voxels), n_labels), np.float32)
    ni, nj, nk = target.shape
    window = (2 * search[0] + 1) * (2 * search[1] + 1) * (2 * search[2] + 1)
    distances = np.empty(len(atlases) * window)
    found = np.empty(len(atlases) * window, np.int64)
    for v in range(len(voxels)):
        i, j, k = voxels[v]
        size = 0
        for n in range(len(atlases)):
            for di in range(-search[0], search[0] + 1):
                for dj in range(-search[1], search[1] + 1):
                    for dk in range(-search[2], search[2] + 1):
                        if not (0 <= i + di < ni and 0 <= j + dj < nj and 0 <= k + dk < nk):
                            continue
                        total, count = 0.0, 0
                        for p in range(-patch[0], patch[0] + 1):
                            for q in range(-patch[1], patch[1] + 1):
                                a, b = i + p, j + q
                                c, d = a + di, b + dj
                                if 0 <= a < ni and 0 <= b < nj and 0 <= c < ni and 0 <= d < nj:
                                    apart = target[a, b, k] - atlases[n, c, d, k + dk]
                                    total += apart * apart
                                    count += 1
                        distances[size] = total / count
                        found[size] = labels[n, i + di, j + dj, k + dk]
                        size += 1
        least = distances[:size].min()
        for m in range(size):
            shares[v, found[m]] += np.exp((least - distances[m]) / bandwidth)
        shares[v] /= shares[v].sum()
    return shares


def ants_joint_fusion(
    target: Volume, warped: Warped, mask: NDArray[np.bool_], search: Any, patch: Any
) -> tuple[LabelMap, dict[str, Any]] | None:
    """Joint label fusion of ANTs with the same mask and windows; None where ANTsPy is not installed.

    Its weights are ANTsPy's defaults; it is given harmonised grey levels and one thread.
    """
    if ants_fusion.version() is None:
        return None
    arrays = [image.array for image, _ in warped]
    stack = [labels.array for _, labels in warped]
    heart = np.any([labels != 0 for labels in stack], axis=0)
    grey, others = grey_levels(target.array, arrays, heart)
    found, used = ants_fusion.fuse(
        grey.astype(np.float32), mask, list(others.astype(np.float32)), stack,
        rad=[*patch, 0], r_search="x".join(str(n) for n in search),
    )  # fmt: skip
    return LabelMap(found, target.voxel_to_world), used
