"""A result as a folder of files: all of them, or none.

``result.json`` comes last, so that its presence says that the rest is there, and holds the checksum of
each other file, so that anyone can tell later whether they still belong together.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from cardiacreg.anatomy.volumes import structure_masses_g, structure_volumes_ml
from cardiacreg.errors import InvalidInputError
from cardiacreg.io import nifti
from cardiacreg.io.atomic_write import write_bytes_atomically
from cardiacreg.io.landmark_files import write_json, write_landmarks
from cardiacreg.io.output_folder import all_or_nothing
from cardiacreg.results.folders import CINE_SUMMARY, RESULT_SUMMARY
from cardiacreg.results.result import RefineResult
from cardiacreg.results.transform_files import NAMES as TRANSFORM_NAMES
from cardiacreg.results.view_planes import VIEWS, has_planes, planes_content, view_summary

SCHEMA_VERSION = 2
FILE_NAMES = ("labels.nii.gz", "confidence.nii.gz", "landmarks.json", "qc.png", RESULT_SUMMARY)
SURFACE = "surface.png"
"""Written on request; one of an earlier result is removed with it."""
ON_INPUT = "labels_input_lattice.nii.gz"
"""The model on the lattice of a segmentation that was turned onto a short-axis one."""
MESH_NAMES = ("LV_ENDO", "LV_EPI", "RV_ENDO", "RV_EPI", "EPI")
MESH_FORMATS = ("vtp", "stl", "ply", "obj")
REPORT = "report.html"
ON_REQUEST = (
    CINE_SUMMARY,
    SURFACE,
    ON_INPUT,
    REPORT,
    VIEWS,
    *TRANSFORM_NAMES,
    *(f"{name}.{ending}" for name in MESH_NAMES for ending in MESH_FORMATS),
)
"""What may be written beside a result, and what would make a cine of it; an earlier one's are removed."""


def save_result(
    result: RefineResult,
    folder: Path,
    *,
    overwrite: bool,
    surface: bool = False,
    more: Mapping[str, bytes] | None = None,
) -> Path:
    """Write a result into a folder, complete or not at all.

    Parameters
    ----------
    result : RefineResult
    folder : pathlib.Path
        Made when missing.
    overwrite : bool
        Replace the files of an earlier result.
    surface : bool
        Also draw the heart from outside, as `SURFACE`.
    more : mapping of str to bytes, optional
        Further files to write beside it, by names of `ON_REQUEST`: surfaces, a report, transforms.

    Returns
    -------
    pathlib.Path
        The folder, now with `FILE_NAMES`.

    Raises
    ------
    InvalidInputError
        If files of these names exist and `overwrite` is not set (OUTPUT_EXISTS), one of them is an
        input of the result (OUTPUT_IS_INPUT), or the folder cannot be made or written
        (OUTPUT_NOT_WRITABLE).
    """
    asked = (*((SURFACE,) if surface else ()), *besides(result), *(more or {}))
    names = (*asked, *FILE_NAMES)
    with all_or_nothing(
        Path(folder), names, overwrite=overwrite, outdated=ON_REQUEST, inputs=result.input_files
    ) as stage:
        for name, content in (more or {}).items():
            write_bytes_atomically(stage / name, content)
        write_files(result, stage, surface=surface)
    return Path(folder)


def check_figures() -> None:
    """Check that figures can be drawn, before long work.

    Raises
    ------
    InvalidInputError
        If Matplotlib does not load (NO_FIGURES).
    """
    try:
        import_module("cardiacreg.results.qc_figure")
    except (ImportError, ValueError) as error:
        raise InvalidInputError(
            f"figures cannot be drawn: Matplotlib does not load ({error}); mend its installation, or "
            "unset the environment variable MPLBACKEND.",
            code="NO_FIGURES",
        ) from error


def besides(result: RefineResult) -> tuple[str, ...]:
    """Return what `write_files` writes beside `FILE_NAMES` for a result."""
    views = (VIEWS,) if has_planes(result.views) else ()
    return (*views, ON_INPUT) if result.was_turned else views


def write_files(result: RefineResult, stage: Path, *, surface: bool = False) -> None:
    """Write the files of a result into a folder; ``result.json`` tells the checksums of all there.

    Parameters
    ----------
    result : RefineResult
    stage : pathlib.Path
        A folder that `all_or_nothing` gave.
    surface : bool
        Also write `SURFACE`.
    """
    check_figures()
    from cardiacreg.results.qc_figure import draw_qc_figure, png_bytes

    nifti.write_labels(stage / "labels.nii.gz", result.labels)
    nifti.write_volume(stage / "confidence.nii.gz", result.confidence)
    write_landmarks(stage / "landmarks.json", result.landmarks)
    write_bytes_atomically(stage / "qc.png", png_bytes(draw_qc_figure(result)))
    if has_planes(result.views):
        write_bytes_atomically(stage / VIEWS, planes_content(result.views))
    if result.was_turned:
        nifti.write_labels(stage / ON_INPUT, result.labels_on_input())
    if surface:
        from cardiacreg.results.surface_figure import draw_surface_figure

        write_bytes_atomically(stage / SURFACE, png_bytes(draw_surface_figure(result)))
    checksums = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(stage.iterdir())
    }
    write_json(stage / RESULT_SUMMARY, summary(result) | {"files_sha256": checksums})


def summary(result: RefineResult) -> dict[str, Any]:
    """Return what ``result.json`` says, in terms that `landmark_files.write_json` can write.

    Parameters
    ----------
    result : RefineResult

    Returns
    -------
    dict
        Measures of the model, agreement with the input, findings, atlases, shifts, warnings, options,
        provenance and timings; lengths in mm, volumes in ml, times in seconds.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "target": result.target.name,
        "volumes_ml": structure_volumes_ml(result.labels),
        "orientation": None
        if result.orientation is None
        else dataclasses.asdict(result.orientation),
        "ends": [end._asdict() for end in result.ends],
        "volumes": {name: dataclasses.asdict(v) for name, v in result.volumes.items()},
        "masses_g": structure_masses_g(result.labels),
        "agreement_dice": result.agreement,
        "minimum_jacobian": result.minimum_jacobian,
        "atlases": [dataclasses.asdict(atlas) for atlas in result.atlases],
        "atlas_diversity": result.atlas_diversity,
        "slice_shifts_mm": result.slice_shifts_mm,
        "slice_turns_degrees": result.slice_turns_degrees,
        "views": [view_summary(view) for view in result.views],
        "structures_from_atlases": list(result.structures_from_atlases),
        "findings": [dataclasses.asdict(finding) for finding in result.findings],
        "warnings": list(result.warnings),
        "output": {"shape": list(result.labels.shape), "spacing_mm": result.labels.spacing_mm},
        "options": dataclasses.asdict(result.options),
        "provenance": result.provenance,
        "timings_seconds": result.timings_seconds,
    }
