"""A folder for what was found in a study: images of every stack, contours, and a table."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from io import StringIO
from pathlib import Path

from cardiacreg.doors.cvi42 import FrameLabels
from cardiacreg.doors.dicom_cine import CineStack
from cardiacreg.doors.guide_points import GuidePoints
from cardiacreg.geometry import LabelMap
from cardiacreg.io.landmark_files import write_json
from cardiacreg.io.nifti import write_labels, write_volume_frames
from cardiacreg.io.output_folder import all_or_nothing

TABLE, SUMMARY = "series.csv", "series.json"
_COLUMNS = (
    "file", "slices", "frames", "pixel_mm_i", "pixel_mm_j", "slice_distance_mm", "last_frame_ms",
    "missing_slices", "descriptions", "notes",
)  # fmt: skip


def write_cine_stacks(
    folder: str | os.PathLike[str],
    stacks: Sequence[CineStack],
    *,
    overwrite: bool = False,
    inputs: Sequence[Path] = (),
) -> tuple[str, ...]:
    """Write stacks as 4-D NIfTI images, with ``series.csv`` and ``series.json``: all files or none.

    Parameters
    ----------
    folder : path-like
        Made when missing.
    stacks : sequence of CineStack
    overwrite : bool
        Replace files of these names.
    inputs : sequence of pathlib.Path
        Files that must not be replaced.

    Returns
    -------
    tuple of str
        Names of the files. The JSON says every slice's trigger times, which NIfTI has no place for.

    Raises
    ------
    InvalidInputError
        OUTPUT_EXISTS, OUTPUT_NOT_WRITABLE, OUTPUT_IS_INPUT.
    """
    names = (*(f"{stack.name}.nii.gz" for stack in stacks), TABLE, SUMMARY)
    with all_or_nothing(Path(folder), names, overwrite=overwrite, inputs=inputs) as stage:
        for name, stack in zip(names, stacks, strict=False):
            write_volume_frames(
                stage / name, stack.array, stack.voxel_to_world, step_ms=_step_ms(stack)
            )
        text = StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows(_row(stack) for stack in stacks)
        (stage / TABLE).write_text(text.getvalue(), encoding="utf-8")
        write_json(stage / SUMMARY, {stack.name: _summary(stack) for stack in stacks})
    return names


def write_label_folder(
    folder: str | os.PathLike[str],
    labels: dict[str, LabelMap],
    *,
    overwrite: bool = False,
    inputs: Sequence[Path] = (),
) -> tuple[str, ...]:
    """Write label maps as NIfTI by their names, all or none; as `write_cine_stacks`."""
    names = tuple(f"{name}.nii.gz" for name in labels)
    with all_or_nothing(Path(folder), names, overwrite=overwrite, inputs=inputs) as stage:
        for name, each in zip(names, labels.values(), strict=True):
            write_labels(stage / name, each)
    return names


def labels_of_guide_points(points: GuidePoints) -> dict[str, LabelMap]:
    """Return the short-axis stack and every long-axis plane of guide points, by name."""
    long_axis = points.long_axis_labels()
    return {"sax": points.short_axis_labels()} | {
        f"lax_{number}": labels for number, labels in long_axis.items()
    }


def labels_of_frames(frames: Sequence[FrameLabels]) -> dict[str, LabelMap]:
    """Return the label maps of frames by name."""
    return {f"sax_frame_{each.frame:03d}": each.labels for each in frames}


def _step_ms(stack: CineStack) -> float | None:
    if stack.times_ms is None or stack.n_frames < 2:
        return None
    return float(stack.times_ms[-1] - stack.times_ms[0]) / (stack.n_frames - 1)


def _row(stack: CineStack) -> list[object]:
    spacing = [f"{step:.4g}" for step in stack.spacing_mm.tolist()]
    last = "" if stack.times_ms is None else f"{stack.times_ms[-1]:.1f}"
    return [
        f"{stack.name}.nii.gz", stack.array.shape[2], stack.n_frames, *spacing, last,
        " ".join(map(str, stack.missing_slices)), "; ".join(stack.descriptions),
        "; ".join(stack.notes),
    ]  # fmt: skip


def _summary(stack: CineStack) -> dict[str, object]:
    return {
        "file": f"{stack.name}.nii.gz",
        "descriptions": list(stack.descriptions),
        "times_ms": stack.times_ms,
        "slice_times_ms": stack.slice_times_ms,
        "missing_slices": list(stack.missing_slices),
        "notes": list(stack.notes),
    }
