"""The other ways to a high-resolution heart that Table V compares, each as its authors use it.

Interpolations and smoothing see the slices only; the multi-atlas methods see the image and the same
selected atlases as ours. Where a choice is free it was made in the comparator's favour.
"""

from __future__ import annotations

import importlib
import importlib.util
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.harness import ants_fusion
from benchmarks.harness.propagation import Propagated
from cardiacreg.fusion.label_fusion import FusionOptions, fuse_labels
from cardiacreg.geometry import LabelMap, Volume
from cardiacreg.metrics import baselines

GAUSSIAN_IN_PLANE_MM, GAUSSIAN_THROUGH_MM = 1.0, 4.0
# Search and patch of CIMAS's demonstration; of h in 10, 400, 1600 the best for these images.
PATCH_FUSION = FusionOptions(search=(7, 7, 3), patch=(7, 7, 1), bandwidth=1600.0)
JLF_BETA, JLF_RADIUS, JLF_SEARCH, JLF_RIDGE = 4.0, 2, 3, 0.01
_REACH_VOXELS = 3
_UNDECIDED = 255


class Fused(NamedTuple):
    """Fused labels, and the processor seconds of the fusion alone, in whichever process."""

    labels: LabelMap
    cpu_seconds: float


def gaussian_smoothing(
    labels: LabelMap,
    grid: LabelMap,
    in_plane_mm: float = GAUSSIAN_IN_PLANE_MM,
    through_mm: float = GAUSSIAN_THROUGH_MM,
) -> LabelMap:
    """Interpolate each label's indicator linearly, blur it, and keep the label with the largest value.

    The usual remedy for staircases in label maps; widths were chosen on hearts that are not evaluated.
    Beyond half a slice outside the stack there is background, as for the other interpolations.
    """
    positions = baselines.voxel_positions(labels, grid)
    sigma = np.array([in_plane_mm, in_plane_mm, through_mm]) / grid.spacing_mm
    best = np.full(grid.shape, -np.inf, dtype=np.float32)
    found = np.zeros(grid.shape, dtype=np.uint8)
    for value in (0, *labels.present()):
        indicator = (labels.array == value).astype(np.float32)
        share = ndimage.map_coordinates(indicator, positions, order=1, mode="nearest")
        blurred = ndimage.gaussian_filter(share.reshape(grid.shape), sigma, mode="nearest")
        found[blurred > best] = value
        np.maximum(best, blurred, out=best)
    found[~baselines.inside(labels, positions).reshape(grid.shape)] = 0
    return LabelMap(found, grid.voxel_to_world)


def staple(atlases: Propagated) -> Fused:
    """Fuse warped atlases by SimpleITK's STAPLE (Warfield et al. 2004); undecided voxels by majority."""
    itk = importlib.import_module("SimpleITK")
    start = time.process_time()
    arrays = [labels.array for _, labels in atlases.atlases]
    maps = [itk.GetImageFromArray(np.ascontiguousarray(array)) for array in arrays]
    found = itk.GetArrayFromImage(itk.MultiLabelSTAPLE(maps, _UNDECIDED))
    most = fuse_labels(None, [(None, labels) for _, labels in atlases.atlases], threads=1).labels
    array = np.where(found == _UNDECIDED, most.array, found)
    return Fused(LabelMap(array, most.voxel_to_world), time.process_time() - start)


def patch_fusion(atlases: Propagated) -> Fused:
    """Fuse by non-local patches (Bai et al. 2013), with the better of the published bandwidths."""
    return _fused(atlases.image, atlases.atlases, PATCH_FUSION)


def _fused(
    image: Volume | None, atlases: Sequence[tuple[Volume | None, LabelMap]], options: FusionOptions
) -> Fused:
    start = time.process_time()
    labels = fuse_labels(image, atlases, options=options, threads=1).labels
    return Fused(labels, time.process_time() - start)


def joint_label_fusion(atlases: Propagated) -> Fused:
    """Fuse by joint label fusion (Wang et al. 2013) as ANTs does it, with its usual settings.

    Voxels on whose label all atlases agree keep it, which saves most of the time.
    """
    stack = np.stack([labels.array for _, labels in atlases.atlases])
    split = (stack != stack[0]).any(axis=0)
    heart = ndimage.binary_dilation((stack > 0).any(axis=0), iterations=_REACH_VOXELS)
    box = ndimage.find_objects(
        ndimage.binary_dilation(heart, iterations=_REACH_VOXELS).astype(np.uint8)
    )[0]
    inner, used = ants_fusion.fuse(
        _grey(atlases.image, heart)[box], split[box],
        [_grey(each, heart)[box] for each, _ in atlases.atlases], list(stack[:, *box]),
        spacing_mm=atlases.image.spacing_mm, beta=JLF_BETA, rad=JLF_RADIUS, rho=JLF_RIDGE,
        r_search=JLF_SEARCH,
    )  # fmt: skip
    found = stack[0].copy()
    found[box] = inner
    return Fused(LabelMap(found, atlases.image.voxel_to_world), used["cpu_seconds"])


def _grey(image: Volume, inside: NDArray[np.bool_]) -> NDArray[np.float32]:
    low, high = np.percentile(image.array[inside], (1, 99))
    return np.clip((image.array - low) / max(float(high - low), 1e-6), 0, 1).astype(np.float32)


def available(package: str) -> bool:
    """Tell whether a comparator's package is installed where it would run."""
    if package == "ants":
        return ants_fusion.version() is not None
    return importlib.util.find_spec(package) is not None


def absent() -> dict[str, str]:
    """Return the comparators that cannot run, and why."""
    needed = (
        ("joint label fusion", "ants", "bench-peers"),
        ("STAPLE", "SimpleITK", "bench-peers"),
        ("3D-Seg, 3D U-Net, 3D-AE, 3D-ACNN", "torch", "nn"),
    )
    return {
        name: f"the package {module!r} is not installed (extra {extra})"
        for name, module, extra in needed
        if not available(module)
    }
