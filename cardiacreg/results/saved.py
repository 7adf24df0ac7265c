"""A result read back from the folder that `RefineResult.save` wrote."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cardiacreg.anatomy.label_presets import canonical_labels
from cardiacreg.anatomy.slice_volumes import StructureVolume
from cardiacreg.anatomy.stack_coverage import End
from cardiacreg.arrays import Float
from cardiacreg.errors import InvalidInputError
from cardiacreg.geometry import LabelMap, Landmarks, Subject, Volume, same_lattice
from cardiacreg.io.landmark_files import read_landmarks, without_repeated_keys
from cardiacreg.io.nifti import read_labels, read_volume
from cardiacreg.io.regular_file import check_regular_file, is_file
from cardiacreg.results.corrected import corrected_stack
from cardiacreg.results.files import SCHEMA_VERSION
from cardiacreg.results.folders import CINE_SUMMARY, RESULT_SUMMARY, no_result
from cardiacreg.results.guards import Finding
from cardiacreg.results.result import AtlasReport, Orientation, ViewReport
from cardiacreg.results.transform_files import BUNDLE
from cardiacreg.results.view_planes import VIEWS, read_planes

if TYPE_CHECKING:
    from cardiacreg.transforms.ffd import FFD
    from cardiacreg.transforms.ffd_chain import FFDChain

_LARGEST_JSON_BYTES = 20_000_000
_READ = ("labels.nii.gz", "confidence.nii.gz", "landmarks.json")


@dataclass(frozen=True, slots=True, eq=False)
class SavedResult:
    """What a refinement saved: its model, and what ``result.json`` says of how it came about.

    Parameters
    ----------
    labels, confidence, landmarks, slice_shifts_mm, slice_turns_degrees, atlases, agreement, volumes
        As in `RefineResult`.
    volumes_ml, masses_g : dict
        Of the model, by structure.
    findings, orientation, ends, warnings, structures_from_atlases, atlas_diversity, views
        As in `RefineResult`.
    options : dict
        The options of the run, by name, as JSON holds them.
    provenance, timings_seconds, minimum_jacobian
        As in `RefineResult`.
    folder : pathlib.Path
    target : Subject or None
        The acquired labels and image, where they were given to `load_result`.
    transforms : tuple of FFD or FFDChain
        As in `RefineResult`, where they were saved (``transforms.npz``); else empty.
    """

    labels: LabelMap
    confidence: Volume
    landmarks: Landmarks
    slice_shifts_mm: Float
    slice_turns_degrees: Float
    atlases: tuple[AtlasReport, ...]
    agreement: dict[str, float | None]
    volumes: dict[str, StructureVolume]
    volumes_ml: dict[str, float | None]
    masses_g: dict[str, float | None]
    findings: tuple[Finding, ...]
    orientation: Orientation | None
    ends: tuple[End, ...]
    warnings: tuple[str, ...]
    structures_from_atlases: tuple[str, ...]
    atlas_diversity: float | None
    views: tuple[ViewReport, ...]
    options: dict[str, Any]
    provenance: dict[str, Any]
    timings_seconds: dict[str, float]
    minimum_jacobian: float
    folder: Path
    target: Subject | None = None
    transforms: tuple[FFD | FFDChain, ...] = ()

    def corrected_stack(self, target: Subject | None = None) -> Subject:
        """Return the acquired labels and image with every slice moved to where it belongs.

        Parameters
        ----------
        target : Subject, optional
            The acquired stack with canonical labels; the one given to `load_result` when absent.

        Returns
        -------
        Subject
            On the stack's own lattice, see `results.corrected.corrected_stack`.

        Raises
        ------
        InvalidInputError
            If there is no target (NO_TARGET), or it has another number of slices (BAD_SHAPE).
        """
        stack = target or self.target
        if stack is None:
            raise InvalidInputError(
                f"{self.folder}: the acquired stack is not among the saved files; give it as "
                "load_result(folder, segmentation=...).",
                code="NO_TARGET",
            )
        return corrected_stack(stack, self.slice_shifts_mm, self.slice_turns_degrees)


def load_result(
    folder: str | Path,
    *,
    segmentation: Any = None,
    image: Any = None,
    preset: str | Mapping[int, int] | None = None,
    frame: int | None = None,
) -> SavedResult:
    """Read what `RefineResult.save` wrote.

    Parameters
    ----------
    folder : path
    segmentation, image, preset, frame
        The target as it was given to `refine`, which is not among the saved files; needed for
        `SavedResult.corrected_stack` and figures.

    Returns
    -------
    SavedResult

    Raises
    ------
    InvalidInputError
        If the folder holds no result of a single frame (NO_RESULT; a cine is read by `load_cine`), it is
        of another version (RESULT_VERSION), its files are damaged or do not belong together
        (DAMAGED_RESULT), the segmentation is another one than was refined (TARGET_DIFFERS), or the
        image lies on another lattice (LATTICE_MISMATCH).

    Examples
    --------
    >>> import cardiacreg
    >>> from cardiacreg.phantoms.toy_heart import make_toy_heart
    >>> atlases = [make_toy_heart(size=size) for size in (0.85, 0.9, 1.0, 1.05)]
    >>> options = cardiacreg.RefineOptions(n_atlases=3, orientation="as-stored")
    >>> result = cardiacreg.refine(make_toy_heart(size=0.95).labels, atlases=atlases, options=options)
    >>> folder = result.save("out", transforms=["npz", "tfm"])
    >>> found = cardiacreg.load_result("out")
    >>> found.agreement["LV wall"] > 0.8, found.slice_shifts_mm.shape
    (True, (8, 2))

    Points of the target in an atlas, by the transform that was kept, and by the one written for ITK:

    >>> points = found.landmarks.points_mm
    >>> in_atlas = found.transforms[0].apply(points)
    >>> again = cardiacreg.read_itk_transform("out/atlas_1.tfm").apply(points)
    >>> len(found.transforms), bool(abs(in_atlas - again).max() < 1e-9)
    (3, True)
    """
    place = Path(folder)
    check_kind(place, RESULT_SUMMARY, CINE_SUMMARY, "cardiacreg.load_cine")
    said = read_summary(place, RESULT_SUMMARY, SCHEMA_VERSION)
    check_files(place, said, _READ, RESULT_SUMMARY)
    try:
        found = _saved(place, said)
        kept = read_kept_transforms(place, said, RESULT_SUMMARY, len(found.atlases))
        found = replace(found, views=read_kept_planes(place, said, RESULT_SUMMARY, found.views))
    except InvalidInputError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(place, f"result.json does not say what it should ({error!r})") from error
    target = _target(said, segmentation, image, preset, frame)
    return replace(found, target=target, transforms=kept)


def check_kind(place: Path, wanted: str, other: str, reader: str) -> None:
    """Refuse a folder that holds a result of the other kind, with the name of what reads that."""
    if is_file(place / other) and not is_file(place / wanted):
        raise InvalidInputError(
            f"{place}: holds no {wanted}, but {other}; read it with {reader}.", code="NO_RESULT"
        )


def read_kept_transforms(
    place: Path, said: dict[str, Any], summary: str, count: int
) -> tuple[FFD | FFDChain, ...]:
    """Read the transforms of a folder of results, where there are any; they have to be `count`."""
    if not os.path.lexists(place / BUNDLE):
        return ()
    from cardiacreg.transforms.files_bundle import read_transforms

    check_files(place, said, (BUNDLE,), summary)
    found, _ = read_transforms(place / BUNDLE)
    if len(found) != count:
        raise damaged(place, f"{BUNDLE} holds {len(found)} transforms, {summary} tells of {count}")
    return found


def read_kept_planes(
    place: Path, said: dict[str, Any], summary: str, views: tuple[ViewReport, ...]
) -> tuple[ViewReport, ...]:
    """Return views with the planes that a folder of results holds, where it does."""
    if not os.path.lexists(place / VIEWS):
        return views
    check_files(place, said, (VIEWS,), summary)
    return read_planes(place / VIEWS, views)


def read_summary(place: Path, name: str, version: int) -> dict[str, Any]:
    """Read the JSON file that says what a folder of results holds, of the version that is read."""
    file = place / name
    if not is_file(file):
        raise no_result(place, name)
    check_regular_file(file)
    if file.stat().st_size > _LARGEST_JSON_BYTES:
        raise damaged(place, f"{name} is larger than {_LARGEST_JSON_BYTES} bytes")
    try:
        text = file.read_text(encoding="utf-8")
        said = json.loads(text, object_pairs_hook=without_repeated_keys)
    except (UnicodeDecodeError, RecursionError, ValueError) as error:
        raise damaged(place, f"{name} is not JSON ({error})") from error
    if not isinstance(said, dict) or said.get("schema_version") != version:
        found = said.get("schema_version") if isinstance(said, dict) else None
        raise InvalidInputError(
            f"{place}: {name} is of version {found}; this cardiacreg reads version "
            f"{version}. Refine anew, or read it with the version that wrote it.",
            code="RESULT_VERSION",
        )
    return said


def damaged(place: Path, why: str) -> InvalidInputError:
    """Return the error for a folder whose files are damaged or do not belong together."""
    return InvalidInputError(f"{place}: {why}; refine anew.", code="DAMAGED_RESULT")


def check_files(place: Path, said: dict[str, Any], names: Sequence[str], summary: str) -> None:
    """Compare the files that are read with the checksums of the run."""
    known = said.get("files_sha256")
    for name in names:
        file = place / name
        if not isinstance(known, dict) or name not in known or not file.is_file():
            raise damaged(place, f"{name} is missing, or {summary} does not know it")
        check_regular_file(file)
        if hashlib.sha256(file.read_bytes()).hexdigest() != known[name]:
            raise damaged(place, f"{name} was changed since {summary} was written")


def _target(
    said: dict[str, Any],
    segmentation: Any,
    image: Any,
    preset: str | Mapping[int, int] | None,
    frame: int | None,
) -> Subject | None:
    """Read the target, and see to it that it is the one that was refined."""
    if segmentation is None:
        return None
    labels = canonical_labels(read_labels(segmentation, frame=frame), preset)
    if hashlib.sha256(labels.array.tobytes()).hexdigest() != said["provenance"]["labels_sha256"]:
        raise InvalidInputError(
            "load_result: the segmentation is not the one that was refined; check file, frame and "
            "preset.",
            code="TARGET_DIFFERS",
        )
    shown = None if image is None else read_volume(image, frame=frame)
    if shown is not None and not same_lattice(shown, labels):
        raise InvalidInputError(
            "load_result: the image lies on another lattice than the segmentation; needs one on the "
            "same.",
            code="LATTICE_MISMATCH",
        )
    return Subject(labels, shown, name=said["target"])


def _saved(place: Path, said: dict[str, Any]) -> SavedResult:
    shifts = np.array(said["slice_shifts_mm"], dtype=np.float64).reshape(-1, 2)
    orientation = said["orientation"]
    return SavedResult(
        labels=read_labels(place / "labels.nii.gz", check_spacing=False),
        confidence=read_volume(place / "confidence.nii.gz", check_spacing=False),
        landmarks=read_landmarks(place / "landmarks.json"),
        slice_shifts_mm=shifts,
        slice_turns_degrees=np.array(said["slice_turns_degrees"], dtype=np.float64),
        atlases=tuple(
            AtlasReport(**{**each, "iterations": tuple(each["iterations"])})
            for each in said["atlases"]
        ),
        agreement=dict(said["agreement_dice"]),
        volumes={name: StructureVolume(**each) for name, each in said["volumes"].items()},
        volumes_ml=dict(said["volumes_ml"]),
        masses_g=dict(said["masses_g"]),
        findings=tuple(Finding(**each) for each in said["findings"]),
        orientation=None if orientation is None else Orientation(**orientation),
        ends=tuple(End(**each) for each in said["ends"]),
        warnings=tuple(said["warnings"]),
        structures_from_atlases=tuple(said["structures_from_atlases"]),
        atlas_diversity=said["atlas_diversity"],
        views=tuple(
            ViewReport(**{**each, "shift_mm": tuple(each["shift_mm"])})
            for each in said.get("views", ())
        ),
        options=dict(said["options"]),
        provenance=dict(said["provenance"]),
        timings_seconds=dict(said["timings_seconds"]),
        minimum_jacobian=float(said["minimum_jacobian"]),
        folder=place,
    )
