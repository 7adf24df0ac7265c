"""A cine read back from the folder that `CineResult.save` wrote."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cardiacreg.anatomy.landmarks import landmarks_from_labels
from cardiacreg.anatomy.stack_coverage import End
from cardiacreg.arrays import Float
from cardiacreg.cine.files import SCHEMA_VERSION
from cardiacreg.geometry import STRUCTURES, LabelMap, Landmarks
from cardiacreg.io.nifti import read_stored_frames
from cardiacreg.results.guards import Finding
from cardiacreg.results.result import Orientation
from cardiacreg.results.saved import check_files, damaged, read_summary

SUMMARY = "cine.json"


@dataclass(frozen=True, slots=True, eq=False)
class SavedFrame:
    """The model of one frame, as its folder tells it.

    Parameters
    ----------
    number, labels, agreement, findings, minimum_jacobian, filled_in, time_ms
        As in `CineFrame`.
    volumes_ml : dict
        Structure name to ml; None where it is not there.
    """

    number: int
    labels: LabelMap
    agreement: dict[str, float | None]
    findings: tuple[Finding, ...]
    minimum_jacobian: float
    filled_in: bool
    time_ms: float | None
    volumes_ml: dict[str, float | None]


@dataclass(frozen=True, slots=True, eq=False)
class SavedCine:
    """What a refinement of a cine saved: the models, and what ``cine.json`` says of them.

    Parameters
    ----------
    frames : tuple of SavedFrame
    ed, es, slice_shifts_mm, atlases, orientation, ends, findings, warnings
        As in `CineResult`.
    ejection_fractions, minimum_jacobian
        As in `CineResult`.
    options : dict
        The options of the run, by name, as JSON holds them.
    provenance, timings_seconds
        As in `CineResult`.
    folder : pathlib.Path
    """

    frames: tuple[SavedFrame, ...]
    ed: int
    es: int
    slice_shifts_mm: Float
    atlases: tuple[str, ...]
    orientation: Orientation
    ends: tuple[End, ...]
    findings: tuple[Finding, ...]
    warnings: tuple[str, ...]
    ejection_fractions: dict[str, float | None]
    minimum_jacobian: float
    options: dict[str, Any]
    provenance: dict[str, Any]
    timings_seconds: dict[str, float]
    folder: Path

    @property
    def landmarks(self) -> Landmarks:
        """Of the model at end-diastole."""
        return landmarks_from_labels(self.frames[self.ed].labels)

    @property
    def volumes_ml(self) -> dict[str, Float]:
        """Curves: volume of every structure in every frame in ml; NaN where it is not there."""
        return {
            name: np.array([_number(frame.volumes_ml[name]) for frame in self.frames])
            for name in STRUCTURES.values()
        }


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def load_cine(folder: str | Path) -> SavedCine:
    """Read what `CineResult.save` wrote.

    Parameters
    ----------
    folder : path

    Returns
    -------
    SavedCine

    Raises
    ------
    InvalidInputError
        If the folder holds no cine (NO_RESULT), it is of another version (RESULT_VERSION), or its files
        are damaged or do not belong together (DAMAGED_RESULT).

    Examples
    --------
    >>> from cardiacreg import load_cine
    >>> cine = load_cine("cine_out")  # doctest: +SKIP
    >>> cine.ejection_fractions["LV"], len(cine.frames)  # doctest: +SKIP
    (0.52, 25)
    """
    place = Path(folder)
    said = read_summary(place, SUMMARY, SCHEMA_VERSION)
    check_files(place, said, ("labels.nii.gz",), SUMMARY)
    stored = read_stored_frames(place / "labels.nii.gz")
    try:
        return _saved(place, said, [each.codes for each in stored])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise damaged(place, f"{SUMMARY} does not say what it should ({error!r})") from error


def _saved(place: Path, said: dict[str, Any], labels: list[LabelMap]) -> SavedCine:
    frames = tuple(
        SavedFrame(
            number=each["frame"],
            labels=own,
            agreement=dict(each["agreement_dice"]),
            findings=_findings(each),
            minimum_jacobian=float(each["minimum_jacobian"]),
            filled_in=bool(each["filled_in"]),
            time_ms=each["time_ms"],
            volumes_ml=dict(each["volumes_ml"]),
        )
        for each, own in zip(said["frames"], labels, strict=True)
    )
    numbers = [frame.number for frame in frames]
    return SavedCine(
        frames=frames,
        ed=numbers.index(said["ed_frame"]),
        es=numbers.index(said["es_frame"]),
        slice_shifts_mm=np.array(said["slice_shifts_mm"], dtype=np.float64).reshape(-1, 2),
        atlases=tuple(said["atlases"]),
        orientation=Orientation(**said["orientation"]),
        ends=tuple(End(**each) for each in said["ends"]),
        findings=_findings(said),
        warnings=tuple(said["warnings"]),
        ejection_fractions=dict(said["ejection_fractions"]),
        minimum_jacobian=float(said["minimum_jacobian"]),
        options=dict(said["options"]),
        provenance=dict(said["provenance"]),
        timings_seconds=dict(said["timings_seconds"]),
        folder=place,
    )


def _findings(said: dict[str, Any]) -> tuple[Finding, ...]:
    return tuple(Finding(**each) for each in said["findings"])
