"""The acquired stack of a report: what was given, and what a folder of results says it was made from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """The stack as it was given to the refinement; a folder of results does not hold it.

    Parameters
    ----------
    segmentation, image : path-like or object in memory, optional
    preset : str or mapping, optional
    frame : int, "ED" or "ES", optional
    """

    segmentation: Any = None
    image: Any = None
    preset: str | Mapping[int, int] | None = None
    frame: int | str | None = None


def noted_inputs(place: Path, provenance: Mapping[str, Any]) -> Inputs:
    """Return the stack that a folder of results says it was made from; paths are relative to it."""
    noted = provenance.get("stack") or _recorded(provenance.get("inputs") or {})
    segmentation, image = (
        None if noted.get(key) is None else place / noted[key] for key in ("segmentation", "image")
    )
    return Inputs(segmentation, image, _noted_preset(noted.get("preset")), noted.get("frame"))


def _recorded(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The same of the inputs that `verify_result` goes by, whose files are named by absolute paths."""
    files = {key: inputs.get(key) or {} for key in ("segmentation", "image")}
    found = {key: file.get("path") for key, file in files.items() if isinstance(file, Mapping)}
    return {"preset": inputs.get("preset"), "frame": inputs.get("frame"), **found}


def note_inputs(place: Path, inputs: Inputs) -> dict[str, Any]:
    """Return what `noted_inputs` understands, of inputs that are files.

    Examples
    --------
    >>> from pathlib import Path
    >>> from cardiacreg.reports.inputs import Inputs, note_inputs
    >>> note_inputs(Path("study/out"), Inputs("study/seg.nii.gz", preset="acdc"))
    {'segmentation': '../seg.nii.gz', 'image': None, 'preset': 'acdc', 'frame': None}
    """
    preset: Any = inputs.preset
    if isinstance(preset, Mapping):
        preset = {str(theirs): ours for theirs, ours in preset.items()}
    segmentation, image = (
        None if path is None else _relative(path, place)
        for path in (inputs.segmentation, inputs.image)
    )
    return {"segmentation": segmentation, "image": image, "preset": preset, "frame": inputs.frame}


def _relative(path: str | os.PathLike[str], place: Path) -> str:
    """The way from a folder to a file, so that both can be moved together; absolute on another drive."""
    try:
        return Path(os.path.relpath(path, place)).as_posix()
    except ValueError:
        return Path(path).absolute().as_posix()


def _noted_preset(noted: Any) -> str | dict[int, int] | None:
    """Undo what JSON does to a mapping: names of entries are text there."""
    if isinstance(noted, list):
        noted = dict(noted)
    if isinstance(noted, Mapping):
        return {int(key): int(value) for key, value in noted.items()}
    return noted  # type: ignore[no-any-return]
