"""A cine as a folder of files: all of them, or none; ``cine.json`` comes last."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from cardiacreg.anatomy.volumes import structure_masses_g
from cardiacreg.cine.result import CineFrame, CineResult
from cardiacreg.errors import InvalidInputError
from cardiacreg.geometry import STRUCTURES
from cardiacreg.io.atomic_write import write_bytes_atomically
from cardiacreg.io.landmark_files import write_json
from cardiacreg.io.nifti import write_label_frames
from cardiacreg.io.output_folder import all_or_nothing
from cardiacreg.results.files import REPORT
from cardiacreg.results.folders import CINE_SUMMARY, RESULT_SUMMARY
from cardiacreg.results.transform_files import BUNDLE
from cardiacreg.results.view_planes import VIEWS, has_planes, planes_content, view_summary
from cardiacreg.transforms.files_bundle import bundle_content

SCHEMA_VERSION = 2
FILE_NAMES = ("labels.nii.gz", "volumes.csv", "curves.png", CINE_SUMMARY)
ON_REQUEST = (REPORT, BUNDLE, VIEWS, RESULT_SUMMARY)
"""What may be written beside them; that of an earlier result is removed with it."""


def save_cine(
    result: CineResult,
    folder: Path,
    *,
    overwrite: bool,
    more: Mapping[str, bytes] | None = None,
) -> Path:
    """Write a cine into a folder, complete or not at all.

    Parameters
    ----------
    result : CineResult
    folder : pathlib.Path
        Made when missing.
    overwrite : bool
        Replace the files of an earlier result.
    more : mapping of str to bytes, optional
        Further files to write beside it, by names of `ON_REQUEST`: a report, the transforms.

    Returns
    -------
    pathlib.Path
        The folder, now with `FILE_NAMES`.

    Raises
    ------
    InvalidInputError
        As `results.files.save_result`.
    """
    extra = more or {}
    with all_or_nothing(
        Path(folder), names_of(result, extra), overwrite=overwrite, outdated=ON_REQUEST,
        inputs=result.input_files,
    ) as stage:  # fmt: skip
        write_cine(result, stage, extra)
    return Path(folder)


def names_of(result: CineResult, more: Mapping[str, bytes]) -> tuple[str, ...]:
    """Return the files that `write_cine` writes; ``cine.json`` is the last."""
    return (*more, *((VIEWS,) if has_planes(result.views) else ()), *FILE_NAMES)


def write_cine(result: CineResult, stage: Path, more: Mapping[str, bytes]) -> None:
    """Write the files of a cine into a folder that is there, for `save_cine` and who writes more.

    Parameters
    ----------
    result : CineResult
    stage : pathlib.Path
    more : mapping of str to bytes
        As for `save_cine`.
    """
    from cardiacreg.cine.curves_figure import draw_curves
    from cardiacreg.results.qc_figure import png_bytes

    for name, content in more.items():
        write_bytes_atomically(stage / name, content)
    labels = [frame.labels for frame in result.frames]
    write_label_frames(stage / "labels.nii.gz", labels, step_ms=_step_ms(result))
    write_bytes_atomically(stage / "volumes.csv", _table(result).encode())
    if has_planes(result.views):
        write_bytes_atomically(stage / VIEWS, planes_content(result.views))
    write_bytes_atomically(stage / "curves.png", png_bytes(draw_curves(result)))
    checksums = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(stage.iterdir())
    }
    write_json(stage / CINE_SUMMARY, cine_summary(result) | {"files_sha256": checksums})


def transform_contents(result: CineResult) -> dict[str, bytes]:
    """Return the transforms of all frames, atlas by atlas in each, as a file by its name.

    Raises
    ------
    InvalidInputError
        If the result holds none (NO_TRANSFORMS).
    """
    transforms = [each for frame in result.frames for each in frame.transforms]
    if not transforms:
        raise InvalidInputError(
            "the result holds no transforms to write; refine anew.", code="NO_TRANSFORMS"
        )
    names = [f"frame {each.number}, {name}" for each in result.frames for name in result.atlases]
    return {BUNDLE: bundle_content(transforms, names)}


def cine_summary(result: CineResult) -> dict[str, Any]:
    """Return what ``cine.json`` says, in terms that `landmark_files.write_json` can write.

    Parameters
    ----------
    result : CineResult

    Returns
    -------
    dict
        What the frames share, and each frame's volumes, agreement and findings; lengths in mm, volumes
        in ml, times in ms.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "ed_frame": result.frames[result.ed].number,
        "es_frame": result.frames[result.es].number,
        "ejection_fractions": result.ejection_fractions,
        "masses_g_ed": structure_masses_g(result.frames[result.ed].labels),
        "landmarks": dataclasses.asdict(result.landmarks),
        "slice_shifts_mm": result.slice_shifts_mm,
        "views": [view_summary(view) for view in result.views],
        "atlases": list(result.atlases),
        "orientation": dataclasses.asdict(result.orientation),
        "ends": [end._asdict() for end in result.ends],
        "minimum_jacobian": result.minimum_jacobian,
        "findings": [dataclasses.asdict(finding) for finding in result.findings],
        "frames": [_frame_summary(frame) for frame in result.frames],
        "warnings": list(result.warnings),
        "options": dataclasses.asdict(result.options),
        "provenance": result.provenance,
        "timings_seconds": result.timings_seconds,
    }


def _frame_summary(frame: CineFrame) -> dict[str, Any]:
    return {
        "frame": frame.number,
        "time_ms": frame.time_ms,
        "filled_in": frame.filled_in,
        "volumes_ml": frame.volumes_ml,
        "volumes": {name: dataclasses.asdict(each) for name, each in frame.volumes.items()},
        "agreement_dice": frame.agreement,
        "minimum_jacobian": frame.minimum_jacobian,
        "findings": [dataclasses.asdict(finding) for finding in frame.findings],
    }


def _step_ms(result: CineResult) -> float | None:
    """Mean time between neighbouring frames, where times were given."""
    first, last = result.frames[0].time_ms, result.frames[-1].time_ms
    if first is None or last is None or len(result.frames) < 2:
        return None
    return (last - first) / (len(result.frames) - 1)


def _table(result: CineResult) -> str:
    """Volumes per frame as CSV; nothing stands for what is not there."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["frame", "time_ms", "phase", "filled_in", *(f"{name} ml" for name in STRUCTURES.values())]
    )
    phases = {result.ed: "ED", result.es: "ES"}
    for position, frame in enumerate(result.frames):
        volumes = [frame.volumes_ml[name] for name in STRUCTURES.values()]
        writer.writerow(
            [
                frame.number,
                "" if frame.time_ms is None else f"{frame.time_ms:g}",
                phases.get(position, ""),
                "yes" if frame.filled_in else "no",
                *("" if volume is None else f"{volume:.2f}" for volume in volumes),
            ]
        )
    return text.getvalue()
