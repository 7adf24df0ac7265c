"""From what the user gives to the checked frames of one patient, with end-diastole and end-systole."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from cardiacreg.anatomy.segmentation import canonical_frame_labels
from cardiacreg.anatomy.volumes import voxel_ml
from cardiacreg.errors import InvalidInputError, kept_warnings, pass_on, warn
from cardiacreg.geometry import LV_CAVITY, LabelMap, Subject, Volume, same_lattice
from cardiacreg.io.label_values import ONE_FRAME, StoredLabels
from cardiacreg.io.nifti import read_stored_frames, read_volume
from cardiacreg.refinement.short_axis_lattice import placement
from cardiacreg.refinement.target_checks import check_image, check_labels
from cardiacreg.slices import labelled_slices

FEWEST_SLICES = 3
"""A frame with labels in fewer slices is filled in from its neighbours."""
ALL, PHASES = "all", "ED,ES"
FRAME_WORDS = (ALL, PHASES)
Frames = str | Sequence[int]


@dataclass(frozen=True, slots=True, eq=False)
class GatheredFrames:
    """The wanted frames of one patient, on one lattice.

    Parameters
    ----------
    numbers : tuple of int
        Of the frames, in the series that was given.
    labels : tuple of LabelMap
        Canonical labels of every frame.
    n_series : int
        Frames of the series.
    ed, es : int
        Position of end-diastole and of end-systole among the frames.
    image : Volume or None
        At end-diastole, on the lattice of the labels.
    name : str
    """

    numbers: tuple[int, ...]
    labels: tuple[LabelMap, ...]
    n_series: int
    ed: int
    es: int
    image: Volume | None
    name: str

    @property
    def labelled(self) -> tuple[int, ...]:
        """Positions of the frames with enough labels to be registered."""
        return tuple(n for n, each in enumerate(self.labels) if is_labelled(each))

    def subject(self, position: int) -> Subject:
        """Return one frame as a target; the image goes with end-diastole."""
        image = self.image if position == self.ed else None
        return Subject(self.labels[position], image, name=f"{self.name}, frame {position}")


def is_labelled(labels: LabelMap) -> bool:
    """Whether a frame holds enough labels to be registered."""
    return len(labelled_slices(labels.array)) >= FEWEST_SLICES


def gather_cine(
    segmentation: Any,
    frames: Frames,
    *,
    image: Any = None,
    preset: str | Mapping[int, int] | None = None,
    ed: int | None = None,
    es: int | None = None,
) -> GatheredFrames:
    """Read and check the frames of a patient; see `refine_cine` for the arguments.

    Raises
    ------
    InvalidInputError
        If the frames lie on different lattices (FRAMES_DIFFER), a number is not there (BAD_FRAME), fewer
        than two frames have labels (TOO_FEW_FRAMES), or a frame is of no use, as `refine` says.
    """
    series = read_series(segmentation)
    check_one_lattice([each.codes for each in series])
    labels = [
        _named(number, lambda each=each: canonical_frame_labels(each, preset, arrange=_as_stored))
        for number, each in enumerate(series)
    ]
    numbers = _wanted(frames, labels, ed, es)
    chosen = [labels[n] for n in numbers]
    labelled = [n for n, each in enumerate(chosen) if is_labelled(each)]
    if len(labelled) < 2:
        raise InvalidInputError(
            f"refine_cine: {len(labelled)} of {len(chosen)} frames have labels in at least "
            f"{FEWEST_SLICES} slices; needs two. One frame is what refine is for.",
            code="TOO_FEW_FRAMES",
        )
    _check_frames(numbers, chosen, labelled)
    largest, smallest = phases_by_volume(chosen)
    first = largest if ed is None else _position(ed, "ed", numbers, labelled)
    second = smallest if es is None else _position(es, "es", numbers, labelled)
    shown = None if image is None else _image(image, numbers[first], len(series), chosen[first])
    name = Path(segmentation).name if isinstance(segmentation, str | Path) else "cine"
    return GatheredFrames(tuple(numbers), tuple(chosen), len(series), first, second, shown, name)


def phases_by_volume(frames: Sequence[LabelMap]) -> tuple[int, int]:
    """Return the positions of end-diastole and end-systole: largest and smallest LV cavity.

    The cavity's labelled area times the slice distance counts, of frames with labels in enough slices.
    Where no frame shows an LV cavity, the first and the middle labelled frame are returned.

    Parameters
    ----------
    frames : sequence of LabelMap
        Canonical labels; at least one with labels.

    Returns
    -------
    tuple of int

    Examples
    --------
    >>> from cardiacreg.cine.frames import phases_by_volume
    >>> from cardiacreg.phantoms.toy_heart import make_toy_heart
    >>> phases_by_volume([make_toy_heart(size=size).labels for size in (0.9, 1.0, 0.8)])
    (1, 2)
    """
    labelled = [n for n, each in enumerate(frames) if is_labelled(each)]
    sizes = {n: (frames[n].array == LV_CAVITY).sum() * voxel_ml(frames[n]) for n in labelled}
    shown = {n: float(size) for n, size in sizes.items() if size}
    if not shown:
        return labelled[0], labelled[len(labelled) // 2]
    return max(shown, key=lambda n: shown[n]), min(shown, key=lambda n: shown[n])


def read_series(segmentation: Any) -> list[StoredLabels]:
    """Read every frame: of one 4-D source, or one per element of a sequence.

    Parameters
    ----------
    segmentation : path, nibabel image, (array, voxel_to_world) or sequence of frames

    Returns
    -------
    list of StoredLabels

    Raises
    ------
    InvalidInputError
        If an element holds several frames (FRAME_NEEDED), or as `read_labels`.
    """
    if not _is_sequence_of_frames(segmentation):
        return read_stored_frames(segmentation)
    found = []
    for number, each in enumerate(segmentation):
        own = _named(number, lambda each=each: read_stored_frames(each))
        if len(own) != 1:
            raise InvalidInputError(
                f"frame {number}: holds {len(own)} frames itself; needs one 4-D file, or a sequence of "
                "single frames.",
                code="FRAME_NEEDED",
            )
        found += own
    return found


def _is_sequence_of_frames(segmentation: Any) -> TypeGuard[Sequence[Any]]:
    """Whether this is a sequence of frames, and not an array with its matrix."""
    if isinstance(segmentation, str) or not isinstance(segmentation, Sequence):
        return False
    return not (len(segmentation) == 2 and _is_matrix(segmentation[1]))


def _is_matrix(value: Any) -> bool:
    try:
        return bool(np.shape(value) == (4, 4))
    except ValueError:  # of a ragged sequence
        return False


def _named(number: int, work: Any) -> Any:
    """Say which frame an error is about."""
    try:
        return work()
    except InvalidInputError as problem:
        raise InvalidInputError(f"frame {number}: {problem}", code=problem.code) from problem


def check_one_lattice(series: Sequence[LabelMap]) -> None:
    """Raise if frames lie on different lattices (FRAMES_DIFFER)."""
    for number, each in enumerate(series):
        if not same_lattice(series[0], each):
            raise InvalidInputError(
                f"refine_cine: frame {number} ({each.shape}) lies on another lattice than frame 0 "
                f"({series[0].shape}); needs frames of one series, with one matrix.",
                code="FRAMES_DIFFER",
            )


def _wanted(
    frames: Frames, labels: Sequence[LabelMap], ed: int | None, es: int | None
) -> list[int]:
    """Return the numbers of the frames to refine, ascending."""
    if isinstance(frames, str):
        word = frames.replace(" ", "")
        if word == ALL:
            return list(range(len(labels)))
        if word.upper() == PHASES:
            found = phases_by_volume(labels) if any(map(is_labelled, labels)) else (0, 0)
            return sorted({found[0] if ed is None else ed, found[1] if es is None else es})
        numbers = word.split(",")
        if not all(number.isdecimal() for number in numbers):
            raise InvalidInputError(
                f"refine_cine: frames {frames!r}; needs 'all', 'ED,ES' or numbers as '0,5,9'.",
                code="BAD_FRAME",
            )
        frames = [int(number) for number in numbers]
    try:
        chosen = sorted({operator.index(number) for number in frames})
    except TypeError as error:
        raise InvalidInputError(
            f"refine_cine: frames {frames!r}; needs 'all', 'ED,ES' or whole numbers, as (0, 5, 9).",
            code="BAD_FRAME",
        ) from error
    for number in chosen:
        if not 0 <= number < len(labels):
            raise InvalidInputError(
                f"refine_cine: frame {number} of {len(labels)}; needs 0 to {len(labels) - 1}.",
                code="BAD_FRAME",
            )
    return chosen


def _position(number: int, what: str, numbers: Sequence[int], labelled: Sequence[int]) -> int:
    """Where a given phase stands among the chosen frames."""
    if (
        not isinstance(number, int | np.integer)
        or number not in numbers
        or numbers.index(number) not in labelled
    ):
        raise InvalidInputError(
            f"refine_cine: {what}={number} is not among the frames with labels "
            f"{[numbers[n] for n in labelled]}; needs one of them.",
            code="BAD_FRAME",
        )
    return numbers.index(number)


def _check_frames(
    numbers: Sequence[int], chosen: Sequence[LabelMap], labelled: Sequence[int]
) -> None:
    """Check every frame, and say once what was found in any of them."""
    with kept_warnings() as kept:
        for n in labelled:
            _named(numbers[n], lambda each=chosen[n]: check_labels(each))
    pass_on(dict.fromkeys(kept), stacklevel=4)
    few = [numbers[n] for n, each in enumerate(chosen) if n not in labelled]
    if few:
        warn(
            f"refine_cine: frames {few} have labels in fewer than {FEWEST_SLICES} slices; they are "
            "filled in from their neighbours in time.",
            stacklevel=4,
        )


def _as_stored(codes: LabelMap, labels: LabelMap) -> LabelMap:
    """Refuse frames whose slices would have to be arranged, as `refine` does with a single one."""
    with kept_warnings():
        found = placement(labels)
    if found.lattice is not None or found.slices is not None or found.order != (0, 1, 2):
        raise InvalidInputError(
            "labels: the slices are not stored along the last axis, across the heart's long axis and in "
            "their order; needs frames like that. Reorder them with their matrix, or refine one frame "
            "at a time, which does that.",
            code="NOT_SHORT_AXIS",
        )
    return codes


def _image(image: Any, number: int, n_series: int, labels: LabelMap) -> Volume | None:
    """Read the image at end-diastole, of a series as long as that of the labels or of one frame."""
    found = image_of_frame(image, number, n_series, labels)
    if found is not None:
        return found
    return check_image(read_volume(image[0] if _is_sequence_of_frames(image) else image), labels)


def image_of_frame(image: Any, number: int, n_series: int, labels: LabelMap) -> Volume | None:
    """Read one frame of a series of images, and check that it shows what a frame's labels do.

    Parameters
    ----------
    image : path, image or sequence of images
    number, n_series : int
        Which of how many frames.
    labels : LabelMap
        Of the frame.

    Returns
    -------
    Volume or None
        None where there is one image and no series.

    Raises
    ------
    InvalidInputError
        For another number of images than frames (FRAMES_DIFFER), or as `read_volume`.
    """
    if _is_sequence_of_frames(image):
        if len(image) not in (1, n_series):
            raise InvalidInputError(
                f"refine_cine: {len(image)} images for {n_series} frames; needs one of each.",
                code="FRAMES_DIFFER",
            )
        return check_image(read_volume(image[number]), labels) if len(image) > 1 else None
    try:
        return check_image(read_volume(image, frame=number), labels)
    except InvalidInputError as problem:
        if problem.code != ONE_FRAME:
            raise
    return None
