"""The given views beside a result, compact: each plane around its labels, grey levels in 255 steps.

A saved result keeps them in ``views.npz``, a NumPy archive of plain arrays: of view n ``labels_n``
(uint8, canonical), ``voxel_to_world_n`` (its matrix as stored, RAS+ mm), and where it had an image
``levels_n`` (uint8) with ``scale_n``, the grey level of 0 and the size of a step. Names, shifts and
agreement stand in the JSON file beside it.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import fields, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cardiacreg.geometry import N_LABELS, LabelMap, Subject, Volume
from cardiacreg.io.bounded_read import DAMAGED_NPZ
from cardiacreg.results.result import ViewReport

VIEWS = "views.npz"
_MARGIN_MM = 25.0
_STEPS = 255
_MOST_BYTES = 100_000_000


def kept_plane(labels: LabelMap, image: Volume | None) -> Subject:
    """Return what is kept of a view's plane: the part around its labels, all of it without any.

    Parameters
    ----------
    labels : LabelMap
        Shape (i, j, 1).
    image : Volume, optional
        On the same lattice.

    Returns
    -------
    Subject
        On a lattice of its own in the same world.
    """
    held = np.argwhere(labels.array[:, :, 0] > 0)
    low, high = np.zeros(2, dtype=int), np.array(labels.shape[:2])
    if len(held):
        margin = np.ceil(_MARGIN_MM / labels.spacing_mm[:2]).astype(int)
        low = np.maximum(held.min(axis=0) - margin, 0)
        high = np.minimum(held.max(axis=0) + margin + 1, high)
    part = (slice(low[0], high[0]), slice(low[1], high[1]))
    matrix = labels.voxel_to_world.copy()
    matrix[:3, 3] += matrix[:3, :2] @ low
    grey = None if image is None else _in_steps(image.array[part])
    return Subject(
        LabelMap(labels.array[part].copy(), matrix),
        None if grey is None else Volume(_greys(*grey), matrix),
    )


def with_planes(
    reports: Sequence[ViewReport], planes: Sequence[tuple[LabelMap, Volume | None]]
) -> tuple[ViewReport, ...]:
    """Return reports of views that hold their planes.

    Parameters
    ----------
    reports : sequence of ViewReport
    planes : sequence of (LabelMap, Volume or None)
        As stored, in the same order.
    """
    return tuple(
        replace(report, plane=kept_plane(*plane))
        for report, plane in zip(reports, planes, strict=True)
    )


def view_summary(report: ViewReport) -> dict[str, Any]:
    """Return what a JSON file says of a view: all but its plane."""
    return {
        each.name: getattr(report, each.name) for each in fields(report) if each.name != "plane"
    }


def has_planes(reports: Sequence[ViewReport]) -> bool:
    """Return whether there are planes to keep."""
    return bool(reports) and all(report.plane is not None for report in reports)


def planes_content(reports: Sequence[ViewReport]) -> bytes:
    """Return the content of `VIEWS`.

    Parameters
    ----------
    reports : sequence of ViewReport
        All with planes.
    """
    arrays: dict[str, Any] = {}
    for number, report in enumerate(reports):
        plane = report.plane
        assert plane is not None
        arrays[f"labels_{number}"] = plane.labels.array[:, :, 0]
        arrays[f"voxel_to_world_{number}"] = plane.labels.voxel_to_world
        if plane.image is not None:
            levels, low, step = _in_steps(plane.image.array)
            arrays[f"levels_{number}"] = levels[:, :, 0]
            arrays[f"scale_{number}"] = np.array([low, step])
    buffer = BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def read_planes(file: Path, reports: Sequence[ViewReport]) -> tuple[ViewReport, ...]:
    """Return reports with the planes that a file of theirs holds.

    Parameters
    ----------
    file : pathlib.Path
        Written by `planes_content`.
    reports : sequence of ViewReport

    Raises
    ------
    OSError, ValueError, KeyError
        If it is damaged, too large or holds other planes.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            size = sum(member.file_size for member in archive.infolist())
            if size > _MOST_BYTES:
                raise ValueError(f"{VIEWS} would hold {size} bytes")
        with np.load(file, allow_pickle=False) as arrays:
            planes = [_plane(arrays, number) for number in range(len(reports))]
    except DAMAGED_NPZ as error:
        raise ValueError(str(error)) from error
    return tuple(
        replace(report, plane=plane) for report, plane in zip(reports, planes, strict=True)
    )


def _plane(arrays: Any, number: int) -> Subject:
    labels, matrix = arrays[f"labels_{number}"], arrays[f"voxel_to_world_{number}"]
    if labels.dtype != np.uint8 or labels.ndim != 2 or labels.max(initial=0) >= N_LABELS:
        raise ValueError(f"{VIEWS}: view {number} holds no labels")
    image = None
    if f"levels_{number}" in arrays:
        low, step = arrays[f"scale_{number}"].tolist()
        levels = arrays[f"levels_{number}"]
        if levels.shape != labels.shape or levels.dtype != np.uint8:
            raise ValueError(f"{VIEWS}: view {number} holds another image")
        image = Volume(_greys(levels[:, :, None], low, step), matrix)
    return Subject(LabelMap(labels[:, :, None], matrix), image)


def _in_steps(grey: NDArray[np.floating[Any]]) -> tuple[Any, float, float]:
    """Grey levels in equal steps from the least to the largest, which gives the same again."""
    low, high = float(grey.min()), float(grey.max())
    step = (high - low) / _STEPS
    levels = np.rint((grey - low) / step) if step > 0 else np.zeros_like(grey)
    return levels.astype(np.uint8), low, step


def _greys(levels: Any, low: float, step: float) -> Any:
    return (low + step * levels.astype(np.float64)).astype(np.float32)
