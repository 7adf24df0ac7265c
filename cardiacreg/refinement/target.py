"""From what the user gives to a checked target and a bank: the door of `refine`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cardiacreg.atlases.view import AtlasView
from cardiacreg.errors import InvalidInputError, warn
from cardiacreg.geometry import STRUCTURES, LabelMap, Landmarks, Subject
from cardiacreg.io.label_values import Frame
from cardiacreg.results.result import INPUT_LATTICE, TURNED

PROBABILITIES = "probabilities"
"""Where a target's metadata keep those of its labels."""
_THICK_MM = 4.0
_ALIKE = np.cos(np.deg2rad(5.0))
"""Cosine between axes of frames that are stored alike."""


def gather_target(
    segmentation: Any,
    image: Any,
    landmarks: Any,
    preset: str | Mapping[int, int] | None,
    frame: Frame,
    check_spacing: bool = True,
    like: LabelMap | None = None,
    probabilities: Any = None,
) -> Subject:
    """Read and check a target; see `cardiacreg.refine` for the arguments.

    `like` is another frame of the same patient that was turned: this one is turned as that one was.
    """
    from cardiacreg.io import nifti
    from cardiacreg.refinement import image_placement, target_checks

    arranged = _Arranged(like)
    with image_placement.swapped_inputs_told(segmentation, image):
        found, with_frames = _read_labels(segmentation, preset, frame, check_spacing, arranged)
    labels, shares = found.labels, None
    if probabilities is not None:
        shares = arranged.probabilities(probabilities, preset)
        labels = _without_doubtful_ends(labels, shares)
    target_checks.check_labels(labels)
    placed = None
    if image is not None:
        wanted = found.frame if found.frame is not None else frame
        read_image = partial(nifti.read_volume, check_spacing=check_spacing)
        volume, image_with_frames = _read_frame(read_image, image, wanted)
        placed = target_checks.check_image(volume, arranged.stored)
        placed = placed and arranged.placement.image(placed)
        if placed is not None:
            image_placement.check_contrast(placed, labels)
        with_frames = with_frames or image_with_frames
    if not with_frames:
        nifti.read_stored_labels(segmentation, frame=frame, check_spacing=check_spacing)
    points = _landmarks(landmarks)
    if points is not None:
        target_checks.check_landmarks(points, labels)
    name = Path(segmentation).name if isinstance(segmentation, str | Path) else "target"
    notes = arranged.notes if shares is None else arranged.notes | {PROBABILITIES: shares}
    return Subject(labels, placed, points, name, notes)


def _without_doubtful_ends(labels: LabelMap, probabilities: NDArray[np.float32]) -> LabelMap:
    """Leave out what its probabilities do not bear out at the RV's base, and say so."""
    from cardiacreg.anatomy.label_probabilities import without_doubtful_ends

    kept, left_out = without_doubtful_ends(labels, probabilities)
    if left_out:
        warn(f"probabilities: left out as ended before: {'; '.join(map(str, left_out))}.")
    return kept


class _Arranged:
    """Puts stored codes into short-axis slices, and keeps how they were stored and what was done."""

    def __init__(self, like: LabelMap | None) -> None:
        from cardiacreg.refinement.short_axis_lattice import Placement

        self._like = like
        self.stored: Any = None
        self.placement = Placement()

    @property
    def notes(self) -> dict[str, Any]:
        """What a target keeps of how it was stored: its lattice, unless its slices were sorted."""
        from cardiacreg.transforms.resampling import Lattice

        turned = {TURNED: True} if self.placement.lattice is not None else {}
        if self.stored is None or self.placement.slices is not None:
            return turned
        stored = Lattice(self.stored.shape, self.stored.voxel_to_world)
        return {INPUT_LATTICE: stored, **turned}

    def probabilities(
        self, source: Any, preset: str | Mapping[int, int] | None
    ) -> NDArray[np.float32]:
        """Read the probabilities of the stored labels, and put them where the target's are."""
        from cardiacreg.anatomy.label_probabilities import read_probabilities

        found = read_probabilities(source, self.stored, preset)
        return np.stack([self.placement.shares(each) for each in found])

    def __call__(self, codes: LabelMap, labels: LabelMap) -> LabelMap:
        from cardiacreg.refinement.short_axis_lattice import placement

        self.stored = labels
        self.placement = placement(labels, self._like)
        return self.placement.labels(codes)


def _read_labels(
    segmentation: Any,
    preset: str | Mapping[int, int] | None,
    frame: Frame,
    check_spacing: bool,
    arranged: _Arranged,
) -> tuple[Any, bool]:
    """Canonical labels in short-axis slices, and whether there was a frame of this number."""
    from cardiacreg.anatomy.segmentation import gather_segmentation
    from cardiacreg.refinement.short_axis_lattice import axes_hint

    read = partial(
        gather_segmentation, preset=preset, check_spacing=check_spacing, arrange=arranged
    )
    try:
        return _read_frame(read, segmentation, frame, grid=lambda _: arranged.stored)
    except InvalidInputError as problem:
        hint = "" if arranged.stored is None else axes_hint(arranged.stored)
        if not hint:
            raise
        raise InvalidInputError(f"{problem}{hint}", code=problem.code) from problem


def _read_frame(
    read: Callable[..., Any],
    source: Any,
    frame: Frame,
    grid: Callable[[Any], Any] = lambda found: found,
) -> tuple[Any, bool]:
    """Read a frame; where there is only one, read that, and say that none of this number is there.

    A segmentation of one frame may come with the 4-D image, and the other way round.
    """
    from cardiacreg.io.nifti import ONE_FRAME

    try:
        return _read_in_any_order(read, source, frame, grid), True
    except InvalidInputError as problem:
        if problem.code != ONE_FRAME:
            raise
        return _read_in_any_order(read, source, None, grid), False


def _read_in_any_order(
    read: Callable[..., Any], source: Any, frame: Frame, grid: Callable[[Any], Any]
) -> Any:
    """Read what has a plausible spacing with its slices along any axis."""
    from cardiacreg.io.nifti_header import checked_matrix

    try:
        return read(source, frame=frame)
    except InvalidInputError as problem:
        if problem.code != "IMPLAUSIBLE_SPACING":
            raise
        try:
            found = read(source, frame=frame, check_spacing=False)
        except InvalidInputError:
            raise problem from None
        stored = grid(found)
        order = np.argsort(stored.spacing_mm, kind="stable")
        if order[2] == 2:
            raise
        shape = tuple(stored.shape[axis] for axis in order)
        checked_matrix(stored.voxel_to_world[:, [*order, 3]], shape, check_spacing=True)
        return found


def gather_frames(
    segmentation: Any,
    frames: Sequence[Any],
    preset: str | Mapping[int, int] | None,
    target: Subject,
    check_spacing: bool = True,
) -> list[Subject]:
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
            like = target.labels if target.metadata.get(TURNED) else None
            other = gather_target(source, None, None, preset, which, check_spacing, like)
        except InvalidInputError as problem:
            raise InvalidInputError(f"frames[{number}]: {problem}", code=problem.code) from problem
        _check_stored_alike(number, target.labels, other.labels)
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
    try:
        points = np.asarray(landmarks, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(
            f"landmarks: got a {type(landmarks).__name__} ({error}); needs a file, Landmarks, or six "
            "points of three numbers in world RAS+ mm.",
            code="BAD_LANDMARKS",
        ) from error
    return Landmarks(points)


def gather_atlases(
    atlases: Any,
    target: Subject,
    n_atlases: int,
    metadata: tuple[tuple[str, Any], ...] = (),
) -> AtlasView:
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
    AtlasView

    Raises
    ------
    InvalidInputError
        If the bank is of no use, see `atlas_checks.check_atlases`, or nothing has the metadata, see
        `with_metadata`.
    """
    with _about_atlases():
        known = atlases is None
        return _usable(_open_bank(atlases), target, n_atlases, metadata, known_anatomy=known)


@contextmanager
def _about_atlases() -> Iterator[None]:
    """Say that a wrong preset is that of the atlases, which is not given with the segmentation's."""
    try:
        yield
    except InvalidInputError as error:
        if error.code not in ("WRONG_PRESET", "UNEXPECTED_LABEL"):
            raise
        raise InvalidInputError(
            f"{error} This is about the atlases, not the segmentation: make a bank of them with "
            "cardiacreg atlas build, which is told their own meaning, or open_atlas_folder.",
            code=error.code,
        ) from error


def _usable(
    bank: Sequence[Subject],
    target: Subject,
    n_atlases: int,
    metadata: tuple[tuple[str, Any], ...],
    *,
    known_anatomy: bool,
) -> AtlasView:
    """Return the atlases of a bank that may vote on a target; those of a known one are hearts."""
    from cardiacreg.atlases.checks import check_atlas, check_atlases
    from cardiacreg.atlases.ranking import with_metadata

    wanted: Sequence[int] = range(len(bank))
    if metadata and len(bank):
        wanted = with_metadata(bank, **dict(metadata))
    if _is_verified(bank) and target.labels.spacing_mm[2] > _THICK_MM and n_atlases <= len(wanted):
        view = AtlasView(bank, wanted)
        some = [] if known_anatomy else sorted({0, len(wanted) // 2, len(wanted) - 1})
        for position in some:
            check_atlas(view.without_image(position), wanted[position])
        return view
    return AtlasView(bank, check_atlases(bank, target.labels, n_atlases, positions=wanted).indices)


def _is_verified(bank: Sequence[Subject]) -> bool:
    """Whether the bank was checked when it was built; a thick target cannot equal one of its atlases."""
    from cardiacreg.atlases.bank import AtlasBank

    return isinstance(bank, AtlasBank)


def _open_bank(atlases: Any) -> Sequence[Subject]:
    if atlases is None:
        from cardiacreg.atlases.embedded import default_atlases

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
