"""From what the user gives to a checked target and a bank: the door of `refine`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cardiacreg.errors import InvalidInputError
from cardiacreg.geometry import STRUCTURES, LabelMap, Landmarks, Subject

if TYPE_CHECKING:
    from cardiacreg.refinement.short_axis_frame import Placement

_THICK_MM = 4.0
_ALIKE = np.cos(np.deg2rad(5.0))
"""Cosine between axes of frames that are stored alike."""


class Target(NamedTuple):
    """A checked target."""

    subject: Subject
    unknown_labels: tuple[int, ...]
    """Structures that the target does not show: its background matches them in the atlases."""
    turned: bool = False
    """Whether it was resampled onto a short-axis lattice."""


def gather_target(
    segmentation: Any,
    image: Any,
    landmarks: Any,
    preset: str | Mapping[int, int] | None,
    frame: int | None,
    like: LabelMap | None = None,
) -> Target:
    """Read and check a target; see `cardiacreg.refine` for the arguments.

    `like` is another frame of the same patient that was turned: this one is turned as that one was.
    """
    from cardiacreg.io import nifti
    from cardiacreg.refinement import target_checks

    stored, with_frames = _read_frame(nifti.read_labels, segmentation, frame)
    unplaced, labels, placement = _short_axis_labels(stored, preset, like)
    target_checks.check_labels(labels)
    placed = None
    if image is not None:
        volume, image_with_frames = _read_frame(nifti.read_volume, image, frame)
        placed = target_checks.check_image(volume, unplaced)
        placed = placed and placement.image(placed)
        with_frames = with_frames or image_with_frames
    if not with_frames:
        nifti.read_labels(segmentation, frame=frame)
    points = _landmarks(landmarks)
    if points is not None:
        target_checks.check_landmarks(points, labels)
    name = Path(segmentation).name if isinstance(segmentation, str | Path) else "target"
    subject = Subject(labels, placed, points, name)
    return Target(subject, unknown_labels(labels), placement.lattice is not None)


def _short_axis_labels(
    stored: LabelMap, preset: str | Mapping[int, int] | None, like: LabelMap | None
) -> tuple[LabelMap, LabelMap, Placement]:
    """Canonical labels as stored and in short-axis slices, checked, and how one becomes the other."""
    from cardiacreg.anatomy.label_presets import canonical_labels, check_anatomy, fitting_presets
    from cardiacreg.refinement.short_axis_frame import axes_hint, placement

    unplaced = canonical_labels(stored, preset)
    try:
        place = placement(unplaced, like)
        placed = place.labels(stored)
        check_anatomy(placed, preset)
    except InvalidInputError as problem:
        if problem.code != "WRONG_PRESET" and fitting_presets(stored):
            check_anatomy(stored, preset)
        raise InvalidInputError(f"{problem}{axes_hint(unplaced)}", code=problem.code) from problem
    return unplaced, canonical_labels(placed, preset), place


def _read_frame(read: Callable[..., Any], source: Any, frame: int | None) -> tuple[Any, bool]:
    """Read a frame; where there is only one, read that, and say that none of this number is there.

    A segmentation of one frame may come with the 4-D image, and the other way round.
    """
    from cardiacreg.io.nifti import ONE_FRAME

    try:
        return _read_in_any_order(read, source, frame), True
    except InvalidInputError as problem:
        if problem.code != ONE_FRAME:
            raise
        return _read_in_any_order(read, source, None), False


def _read_in_any_order(read: Callable[..., Any], source: Any, frame: int | None) -> Any:
    """Read what has a plausible spacing with its slices along any axis."""
    from cardiacreg.io.nifti_header import checked_matrix

    try:
        return read(source, frame=frame)
    except InvalidInputError as problem:
        if problem.code != "IMPLAUSIBLE_SPACING":
            raise
        found = read(source, frame=frame, check_spacing=False)
        order = np.argsort(found.spacing_mm, kind="stable")
        if order[2] == 2:
            raise
        shape = tuple(found.shape[axis] for axis in order)
        checked_matrix(found.voxel_to_world[:, [*order, 3]], shape, check_spacing=True)
        return found


def gather_frames(
    segmentation: Any,
    frames: Sequence[Any],
    preset: str | Mapping[int, int] | None,
    target: Target,
) -> list[Target]:
    """Read the other frames of a patient; a number is a frame of the same 4-D segmentation.

    Raises
    ------
    InvalidInputError
        If a frame is of no use, or its axes are not the target's (FRAMES_DIFFER).
    """
    found = []
    for number, each in enumerate(frames):
        source, which = (segmentation, int(each)) if isinstance(each, Integral) else (each, None)
        try:
            like = target.subject.labels if target.turned else None
            other = gather_target(source, None, None, preset, which, like)
        except InvalidInputError as problem:
            raise InvalidInputError(f"frames[{number}]: {problem}", code=problem.code) from problem
        _check_stored_alike(number, target.subject.labels, other.subject.labels)
        found.append(other)
    return found


def _check_stored_alike(number: int, labels: LabelMap, other: LabelMap) -> None:
    """Raise if another frame's axes point elsewhere: it would tell of another orientation."""
    first, second = (each.voxel_to_world[:3, :3] / each.spacing_mm for each in (labels, other))
    worst = float(np.sum(first * second, axis=0).min())
    if worst < _ALIKE:
        raise InvalidInputError(
            f"frames[{number}]: its axes differ from the segmentation's by up to "
            f"{np.rad2deg(np.arccos(np.clip(worst, -1, 1))):.0f} degrees; needs frames of the same "
            "patient that are stored alike. Reorient it, or leave it out.",
            code="FRAMES_DIFFER",
        )


def unknown_labels(labels: LabelMap) -> tuple[int, ...]:
    """Return the canonical structures that a label map does not show."""
    shown = set(labels.present())
    return tuple(label for label in STRUCTURES if label not in shown)


def _landmarks(landmarks: Any) -> Landmarks | None:
    if landmarks is None or isinstance(landmarks, Landmarks):
        return landmarks
    if isinstance(landmarks, str | Path):
        from cardiacreg.io.landmark_files import read_landmarks

        return read_landmarks(landmarks)
    return Landmarks(np.asarray(landmarks, dtype=np.float64))


class Pool(Sequence[Subject]):
    """The atlases of a bank that may be used, in its order, read when asked for.

    Parameters
    ----------
    bank : sequence of Subject
    positions : sequence of int
        Positions in the bank.
    """

    def __init__(self, bank: Sequence[Subject], positions: Sequence[int]) -> None:
        self._bank = bank
        self.positions = tuple(positions)

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Pool(self._bank, self.positions[index])
        return self._bank[self.positions[index]]

    def without_image(self, index: int) -> Subject:
        """Return an atlas's labels and landmarks, without its image where the bank can spare it."""
        read = getattr(self._bank, "without_image", self._bank.__getitem__)
        subject: Subject = read(self.positions[index])
        return subject


def gather_atlases(
    atlases: Any,
    target: Subject,
    n_atlases: int,
    metadata: tuple[tuple[str, Any], ...] = (),
) -> Pool:
    """Open a bank and leave out what may not vote on this target.

    Parameters
    ----------
    atlases : folder, sequence of Subject or None
        None is the embedded bank.
    target : Subject
    n_atlases : int
        How many are to be selected; fewer in the bank is worth a warning.
    metadata : tuple of (key, value or values)
        What every atlas must have.

    Returns
    -------
    Pool

    Raises
    ------
    InvalidInputError
        If the bank is of no use, see `atlas_checks.check_atlases`, or nothing has the metadata, see
        `atlas_selection.with_metadata`.
    """
    from cardiacreg.atlases.checks import check_atlases
    from cardiacreg.atlases.ranking import with_metadata

    bank = _open_bank(atlases)
    wanted: Sequence[int] = range(len(bank))
    if metadata and len(bank):
        wanted = with_metadata(bank, **dict(metadata))
    if _is_verified(bank) and target.labels.spacing_mm[2] > _THICK_MM and n_atlases <= len(wanted):
        return Pool(bank, wanted)
    return Pool(bank, check_atlases(bank, target.labels, n_atlases, positions=wanted).indices)


def _is_verified(bank: Sequence[Subject]) -> bool:
    """Whether the bank was checked when it was built; a thick target cannot equal one of its atlases."""
    from cardiacreg.atlases.bank import AtlasBank

    return isinstance(bank, AtlasBank)


def _open_bank(atlases: Any) -> Sequence[Subject]:
    if atlases is None:
        from cardiacreg.atlases.bank import default_atlases

        return default_atlases()
    if isinstance(atlases, str | Path):
        from cardiacreg.atlases.bank import AtlasBank
        from cardiacreg.atlases.bank_place import heal
        from cardiacreg.atlases.folder import open_atlas_folder

        heal(Path(atlases))
        built = (Path(atlases) / "index.json").is_file()
        return AtlasBank(atlases) if built else open_atlas_folder(atlases)
    if isinstance(atlases, Sequence):
        return atlases
    raise InvalidInputError(
        f"refine: atlases is a {type(atlases).__name__}; needs a folder of atlases or a sequence of "
        "Subject.",
        code="BAD_TYPE",
    )


def structure_names(labels: tuple[int, ...]) -> tuple[str, ...]:
    """Return the names of canonical labels."""
    return tuple(STRUCTURES[label] for label in labels)
