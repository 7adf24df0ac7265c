"""What fusion is compared with: the literal loops of eq. (5), joint label fusion of ANTs, STAPLE."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from cardiacreg.geometry import LabelMap, Volume
from cardiacreg.intensity_harmonisation import grey_levels

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
) -> tuple[LabelMap, dict[str, float]] | None:
    """Joint label fusion of ANTs with the same mask and windows; None where ANTsPy is not installed.

    Its weights are ANTsPy's defaults; it is given harmonised grey levels.
    """
    try:
        import ants
    except ImportError:
        return None
    arrays = [image.array for image, _ in warped]
    heart = np.any([labels.array != 0 for _, labels in warped], axis=0)
    grey, others = grey_levels(target.array, arrays, heart)
    images = [ants.from_numpy(other.astype(np.float32)) for other in others]
    # It takes label 0 for "no label" and never chooses it, so every label goes in as one more.
    maps = [ants.from_numpy(labels.array.astype(np.float32) + 1) for _, labels in warped]
    start, cpu = time.perf_counter(), time.process_time()
    found = ants.joint_label_fusion(
        ants.from_numpy(grey.astype(np.float32)), ants.from_numpy(mask.astype(np.float32)), images,
        label_list=maps, rad=[*patch, 0], r_search="x".join(str(n) for n in search),
    )  # fmt: skip
    used = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}
    labels = np.where(mask, np.rint(found["segmentation"].numpy()) - 1, warped[0][1].array)
    return LabelMap(labels.astype(np.uint8), target.voxel_to_world), used


def staple(warped: Warped) -> tuple[LabelMap, dict[str, float]] | None:
    """STAPLE for several labels by SimpleITK; None where it is not installed."""
    try:
        import SimpleITK
    except ImportError:
        return None
    maps = [SimpleITK.GetImageFromArray(labels.array) for _, labels in warped]
    start, cpu = time.perf_counter(), time.process_time()
    found = SimpleITK.GetArrayFromImage(SimpleITK.MultiLabelSTAPLE(maps, 255))
    used = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}
    found = np.where(found == 255, 0, found)
    return LabelMap(found.astype(np.uint8), warped[0][1].voxel_to_world), used
