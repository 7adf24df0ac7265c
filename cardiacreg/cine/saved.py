"""A cine read back from the folder that `CineResult.save` wrote."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cardiacreg.anatomy.slice_volumes import StructureVolume
from cardiacreg.anatomy.stack_coverage import End
from cardiacreg.arrays import Float
from cardiacreg.cine.files import SCHEMA_VERSION
from cardiacreg.cine.motion import BeatingHeart
from cardiacreg.errors import InvalidInputError
from cardiacreg.geometry import STRUCTURES, LabelMap, Landmarks
from cardiacreg.io.nifti import read_stored_frames
from cardiacreg.results.folders import CINE_SUMMARY, RESULT_SUMMARY
from cardiacreg.results.guards import Finding
from cardiacreg.results.result import Orientation, ViewReport
from cardiacreg.results.saved import (
    check_files,
    check_kind,
    damaged,
    read_kept_planes,
    read_kept_transforms,
    read_summary,
)
from cardiacreg.transforms.ffd import FFD
from cardiacreg.transforms.ffd_chain import FFDChain


@dataclass(frozen=True, slots=True, eq=False)
class SavedFrame:
    """The model of one frame, as its folder tells it.

    Parameters
    ----------
    number, labels, agreement, findings, minimum_jacobian, filled_in, time_ms
        As in `CineFrame`.
    volumes_ml : dict
        Structure name to ml; None where it is not there.
    volumes, transforms
        As in `CineFrame`; no transforms where they were not saved.
    """

    number: int
    labels: LabelMap
    agreement: dict[str, float | None]
    findings: tuple[Finding, ...]
    minimum_jacobian: float
    filled_in: bool
    time_ms: float | None
    volumes_ml: dict[str, float | None]
    volumes: dict[str, StructureVolume]
    transforms: tuple[FFD, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class SavedCine(BeatingHeart):
    """What a refinement of a cine saved: the models, and what ``cine.json`` says of them.

    Parameters
    ----------
    frames : tuple of SavedFrame
    ed, es, slice_shifts_mm, landmarks, atlases, orientation, ends, findings, warnings, views
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
    landmarks: Landmarks
    atlases: tuple[str, ...]
    orientation: Orientation
    ends: tuple[End, ...]
    findings: tuple[Finding, ...]
    warnings: tuple[str, ...]
    views: tuple[ViewReport, ...]
    ejection_fractions: dict[str, float | None]
    minimum_jacobian: float
    options: dict[str, Any]
    provenance: dict[str, Any]
    timings_seconds: dict[str, float]
    folder: Path

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
        If the folder holds no cine (NO_RESULT; a single frame is read by `load_result`), it is of another
        version (RESULT_VERSION), or its files are damaged or do not belong together (DAMAGED_RESULT).

    Examples
    --------
    >>> import cardiacreg
    >>> from cardiacreg.phantoms.toy_heart import make_toy_heart
    >>> atlases = [make_toy_heart(size=size) for size in (0.8, 0.9, 1.0)]
    >>> frames = [make_toy_heart(size=size).labels for size in (0.95, 0.85)]
    >>> options = cardiacreg.RefineOptions(n_atlases=2, orientation="as-stored")
    >>> result = cardiacreg.refine_cine(frames, atlases=atlases, options=options)
    >>> folder = result.save("cine_out", transforms=True)
    >>> cine = cardiacreg.load_cine("cine_out")
    >>> len(cine.frames), cine.volumes_ml["LV cavity"].round() > 0
    (2, array([ True,  True]))

    Points of the heart at end-diastole, where they are at end-systole, and the same as a field:

    >>> bool((cine.follow(cine.landmarks.points_mm, cine.es) == cine.landmarks.points_mm).all())
    False
    >>> around = cardiacreg.Lattice((3, 3, 3), cine.frames[cine.ed].labels.voxel_to_world)
    >>> cine.motion(cine.es, grid=around).displacements_mm.shape
    (3, 3, 3, 3)
    """
    place = Path(folder)
    check_kind(place, CINE_SUMMARY, RESULT_SUMMARY, "cardiacreg.load_result")
    said = read_summary(place, CINE_SUMMARY, SCHEMA_VERSION)
    check_files(place, said, ("labels.nii.gz",), CINE_SUMMARY)
    stored = read_stored_frames(place / "labels.nii.gz")
    try:
        found = _saved(place, said, [each.codes for each in stored])
        count = len(found.frames) * len(found.atlases)
        found = replace(found, views=read_kept_planes(place, said, CINE_SUMMARY, found.views))
        transforms = read_kept_transforms(place, said, CINE_SUMMARY, count)
        return _with_transforms(found, transforms)
    except InvalidInputError:
        raise
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise damaged(place, f"{CINE_SUMMARY} does not say what it should ({error!r})") from error


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
            volumes={name: StructureVolume(**own) for name, own in each["volumes"].items()},
        )
        for each, own in zip(said["frames"], labels, strict=True)
    )
    numbers = [frame.number for frame in frames]
    return SavedCine(
        frames=frames,
        ed=numbers.index(said["ed_frame"]),
        es=numbers.index(said["es_frame"]),
        slice_shifts_mm=np.array(said["slice_shifts_mm"], dtype=np.float64).reshape(-1, 2),
        landmarks=_landmarks(said["landmarks"]),
        atlases=tuple(said["atlases"]),
        orientation=Orientation(**said["orientation"]),
        ends=tuple(End(**each) for each in said["ends"]),
        findings=_findings(said),
        warnings=tuple(said["warnings"]),
        views=tuple(
            ViewReport(**{**each, "shift_mm": tuple(each["shift_mm"])}) for each in said["views"]
        ),
        ejection_fractions=dict(said["ejection_fractions"]),
        minimum_jacobian=float(said["minimum_jacobian"]),
        options=dict(said["options"]),
        provenance=dict(said["provenance"]),
        timings_seconds=dict(said["timings_seconds"]),
        folder=place,
    )


def _with_transforms(cine: SavedCine, transforms: Sequence[FFD | FFDChain]) -> SavedCine:
    """Give every frame its transforms, one per atlas."""
    splines = tuple(each for each in transforms if isinstance(each, FFD))
    if len(splines) != len(transforms):
        raise ValueError("chains of deformations, which no cine has")
    n_atlases = len(cine.atlases)
    frames = tuple(
        replace(each, transforms=splines[n * n_atlases : (n + 1) * n_atlases])
        for n, each in enumerate(cine.frames)
    )
    return replace(cine, frames=frames)


def _landmarks(said: dict[str, Any]) -> Landmarks:
    return Landmarks(np.array(said["points_mm"]), tuple(said["names"]), said["source"])


def _findings(said: dict[str, Any]) -> tuple[Finding, ...]:
    return tuple(Finding(**each) for each in said["findings"])
