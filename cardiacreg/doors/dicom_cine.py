"""Cine studies in DICOM: images grouped by plane and trigger time, planes grouped into stacks.

A slice is one place of one series, its frames ordered by the time after the R wave. Parallel slices with
the same pixels make a stack, in order along their normal, so that its matrix is right-handed. Heart beats
differ from slice to slice, so that frames are matched by their number in the cycle; every slice's own
times are kept.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cardiacreg.arrays import Float
from cardiacreg.doors.dicom_images import DicomImage, pixels, read_images
from cardiacreg.doors.image_planes import (
    UNEVEN_SHARE,
    ImagePlane,
    heights_mm,
    unevenness,
    usual_step,
)
from cardiacreg.errors import InvalidInputError, check_argument, warn
from cardiacreg.geometry import Volume

_SAME_PLACE_MM = 0.1
_SAME_STEP_MM = 1e-3
_REPEATED_SHARE = 0.25
"""Of the distance of slices: what lies nearer was taken twice."""
_SIDEWAYS_PIXELS = 0.5
_SAME_TIME_MS = 0.01
_MOST_MISSING = 3
FEWEST_SLICES = 3
"""Of a short-axis stack; fewer parallel planes are long-axis views, or localisers."""


@dataclass(frozen=True, slots=True, eq=False)
class CineStack:
    """Parallel slices of a cine study, or a single plane.

    Parameters
    ----------
    name : str
        Unique within a study; good as a file name.
    array : ndarray of float32, shape (i, j, k, t)
        Intensities; i runs along DICOM's columns, j along its rows.
    voxel_to_world : ndarray, shape (4, 4)
        To RAS+ mm.
    times_ms : ndarray, shape (t,), or None
        After the R wave, mean over the slices; None where no file says.
    slice_times_ms : ndarray, shape (k, t)
        Of every slice; NaN where no file says, and in missing slices.
    descriptions : tuple of str
        Series descriptions, each once.
    images : tuple of tuple of DicomImage
        By slice and frame; empty for a missing slice.
    notes : tuple of str
        What was found and done, in plain words: gaps, duplicates, mixed spacing or numbers of frames.
    """

    name: str
    array: NDArray[np.float32]
    voxel_to_world: Float
    times_ms: Float | None
    slice_times_ms: Float
    descriptions: tuple[str, ...]
    images: tuple[tuple[DicomImage, ...], ...] = field(repr=False)
    notes: tuple[str, ...] = field(default=())

    @property
    def n_frames(self) -> int:
        """Images through the cardiac cycle."""
        return int(self.array.shape[3])

    @property
    def is_stack(self) -> bool:
        """Whether there are as many parallel slices as a short-axis stack has."""
        return bool(self.array.shape[2] >= FEWEST_SLICES)

    @property
    def missing_slices(self) -> tuple[int, ...]:
        """Slices (k) of which there is no image; their intensities are 0."""
        return tuple(k for k, own in enumerate(self.images) if not own)

    @property
    def uids(self) -> set[str]:
        """SOP instance UIDs of all images."""
        return {image.uid for own in self.images for image in own}

    @property
    def spacing_mm(self) -> Float:
        """Distance between voxel centres along (i, j, k), shape (3,)."""
        return np.asarray(np.linalg.norm(self.voxel_to_world[:3, :3], axis=0))

    def frame(self, number: int) -> Volume:
        """Return one frame.

        Raises
        ------
        InvalidInputError
            If there is none of this number (NO_SUCH_FRAME).
        """
        if not 0 <= number < self.n_frames:
            raise InvalidInputError(
                f"{self.name}: there is no frame {number}; choose 0 to {self.n_frames - 1}.",
                code="NO_SUCH_FRAME",
            )
        return Volume(self.array[..., number], self.voxel_to_world)


@dataclass(slots=True)
class _Slice:
    """The images of one place, in order of time."""

    images: list[DicomImage]
    notes: list[str] = field(default_factory=list)

    @property
    def first(self) -> DicomImage:
        return self.images[0]

    @property
    def words(self) -> str:
        return f"series {self.first.series_number} ({self.first.description or 'no description'})"


_Placed = list[tuple[int, _Slice]]
"""Slices of a stack with their place k in it."""


def read_dicom_cine(
    folder: str | os.PathLike[str], *, still_images: bool = False
) -> list[CineStack]:
    """Read the cine stacks and planes in a folder of DICOM files, and in the folders in it.

    Parameters
    ----------
    folder : path-like
        One patient's images, of any number of series; other files are passed over, with a word.
    still_images : bool
        Also return series with one image per place, such as localisers and late enhancement.

    Returns
    -------
    list of CineStack
        Cine before still images, stacks with many slices before others; `CineStack.notes` says what was
        found.

    Raises
    ------
    InvalidInputError
        FILE_NOT_FOUND, NO_DICOM (no image, or no cine), NO_PYDICOM, UNREADABLE_FILE, or
        SEVERAL_PATIENTS.

    Warns
    -----
    InputWarning
        If files or series are left out.

    Notes
    -----
    Needs the extra ``dicom``. A slice that is missing inside a stack is there, with intensities of 0.
    Where slices lie at uneven distances, a stack is parted.

    Examples
    --------
    >>> from cardiacreg import read_dicom_cine, write_dicom_cine
    >>> from cardiacreg.phantoms.toy_heart import make_toy_heart
    >>> write_dicom_cine("dicom", [make_toy_heart().image] * 3, times_ms=[0, 40, 80])
    >>> for stack in read_dicom_cine("dicom"):
    ...     print(stack.name, stack.array.shape, stack.times_ms, stack.notes)
    sax (40, 40, 8, 3) [ 0. 40. 80.] ()
    """
    check_argument(still_images, bool, "read_dicom_cine: still_images")
    images, left_out = read_images(folder)
    _check_one_patient(folder, images)
    slices = _slices(images)
    still = [each for each in slices if len(each.images) == 1]
    if not still_images:
        slices = [each for each in slices if len(each.images) > 1]
        if still:
            left_out["of series with one image per place (localisers, late enhancement)"] = len(
                still
            )
    told = "; ".join(f"{count} {why}" for why, count in left_out.items() if "not DICOM" not in why)
    if not slices:
        raise InvalidInputError(
            f"{folder}: holds no cine, only images left out: {told}; needs several times of one place.",
            code="NO_DICOM",
        )
    if told:
        warn(f"{folder}: images left out: {told}.")
    stacks = [stack for group in _groups(slices) for stack in _parted(group)]
    stacks.sort(key=_importance)
    names: Counter[str] = Counter()
    return [_assembled(stack, names) for stack in stacks]


def _importance(stack: _Placed) -> tuple[bool, int, int]:
    """Cine before still images, many slices before few, in order of series."""
    first = stack[0][1]
    return len(first.images) == 1, -len(stack), first.first.series_number


def _check_one_patient(folder: str | os.PathLike[str], images: Iterable[DicomImage]) -> None:
    patients = sorted({image.patient for image in images})
    if len(patients) > 1:
        raise InvalidInputError(
            f"{folder}: holds images of {len(patients)} patients; needs a folder for each.",
            code="SEVERAL_PATIENTS",
        )


def _slices(images: Iterable[DicomImage]) -> list[_Slice]:
    """Group images by series and place, and put each group in order of time."""
    found: dict[object, list[DicomImage]] = defaultdict(list)
    for image in images:
        plane = (*image.plane.origin_mm.round(2), *image.plane.steps_mm.ravel().round(4))
        found[image.series, image.kind, image.shape, image.space, plane].append(image)
    joined: list[list[DicomImage]] = []
    for own in found.values():
        for group in joined:
            if _same_place(group[0], own[0]):
                group.extend(own)
                break
        else:
            joined.append(list(own))
    return [_in_order(own) for own in joined]


def _same_place(one: DicomImage, other: DicomImage) -> bool:
    """Whether images are of one place; scanners write positions with a little noise."""
    if one.series != other.series or one.kind != other.kind or one.shape != other.shape:
        return False
    apart = np.abs(one.plane.origin_mm - other.plane.origin_mm).max()
    turned = np.abs(one.plane.steps_mm - other.plane.steps_mm).max()
    return bool(one.space == other.space and apart <= _SAME_PLACE_MM and turned <= _SAME_STEP_MM)


def _in_order(images: list[DicomImage]) -> _Slice:
    times = [image.time_ms for image in images]
    known = [time for time in times if time is not None]
    if len(known) < len(times) or len(images) > 1 and max(known) - min(known) < _SAME_TIME_MS:
        images = sorted(images, key=lambda image: image.instance)
        found = _Slice([image._replace(time_ms=None) for image in images])
        if len(images) > 1:
            found.notes.append(
                f"{found.words}: no trigger times; frames are in the order of their numbers"
            )
        return found
    images = sorted(images, key=lambda image: (image.time_ms, image.instance))
    kept = [
        image for image, following in zip(images, [*images[1:], None], strict=True)
        if following is None or (following.time_ms or 0) - (image.time_ms or 0) > _SAME_TIME_MS
    ]  # fmt: skip
    found = _Slice(kept)
    if len(kept) < len(images):
        found.notes.append(
            f"{found.words}: {len(images) - len(kept)} images are there twice, at one place and time; "
            "of each pair the one with the higher number is used"
        )
    return found


def _groups(slices: Iterable[_Slice]) -> list[list[_Slice]]:
    """Group parallel slices with the same pixels, none of which lies sideways of the others."""
    groups: list[list[_Slice]] = []
    for each in sorted(slices, key=lambda own: own.first.series_number):
        for group in groups:
            if _belong_together(group[0].first, each.first, len(group[0].images), len(each.images)):
                group.append(each)
                break
        else:
            groups.append([each])
    return groups


def _belong_together(one: DicomImage, other: DicomImage, n_one: int, n_other: int) -> bool:
    same = (one.shape, one.kind, one.space, n_one > 1) == (
        other.shape,
        other.kind,
        other.space,
        n_other > 1,
    )
    if not same or not one.plane.is_parallel(other.plane):
        return False
    if not np.allclose(one.plane.steps_mm, other.plane.steps_mm, atol=0.02 * one.plane.pixel_mm):
        return False
    return bool(np.abs(one.plane.pixels(other.plane.origin_mm[None])).max() <= _SIDEWAYS_PIXELS)


def _parted(group: list[_Slice]) -> list[_Placed]:
    """Put slices in order, leave out repeated ones, and part them where their distance changes."""
    heights = heights_mm([each.first.plane for each in group])
    steps = np.diff(np.sort(heights))
    apart = steps[steps > _SAME_PLACE_MM]
    near = (
        max(_SAME_PLACE_MM, _REPEATED_SHARE * float(np.median(apart)))
        if len(apart)
        else _SAME_PLACE_MM
    )
    chosen: list[_Slice] = []
    places: list[float] = []
    for n in np.argsort(heights, kind="stable"):
        if places and abs(heights[n] - places[-1]) <= near:
            chosen[-1] = _later(chosen[-1], group[n])
            places[-1] = float(heights[n]) if chosen[-1] is group[n] else places[-1]
        else:
            chosen.append(group[n])
            places.append(float(heights[n]))
    return _even_runs(chosen, np.abs(np.diff(places)))


def _later(one: _Slice, other: _Slice) -> _Slice:
    kept, lost = (
        (one, other) if one.first.series_number > other.first.series_number else (other, one)
    )
    kept.notes.append(
        f"{lost.words} shows the same place as {kept.words}, which is used as the later one"
    )
    return kept


def _even_runs(slices: list[_Slice], steps: Float) -> list[_Placed]:
    """Part slices where a distance is no whole multiple, up to 4, of the usual one."""
    words = unevenness(steps) if len(slices) > 1 else ""
    runs: list[_Placed] = []
    first = 0
    while first < len(slices):
        run: _Placed = [(0, slices[first])]
        for each, step in zip(slices[first + 1 :], _multiples(steps[first:]), strict=True):
            if not step:
                break
            run.append((run[-1][0] + step, each))
        runs.append(run)
        first += len(run)
    if words:
        parted = "; the stack is parted there" if len(runs) > 1 else ""
        slices[0].notes.append(f"uneven slices: {words}{parted}")
    return runs


def _multiples(steps: Float) -> list[int]:
    """Return how many usual steps each step is, 0 where it is no whole number of them."""
    if not len(steps):
        return []
    usual = usual_step(steps)
    multiples = np.rint(steps / usual)
    even = (np.abs(steps - multiples * usual) <= UNEVEN_SHARE * usual) & (multiples >= 1)
    return [int(n) for n in np.where(even & (multiples <= _MOST_MISSING + 1), multiples, 0)]


def _assembled(placed: _Placed, names: Counter[str]) -> CineStack:
    """Read the pixels of a stack."""
    slices = [each for _, each in placed]
    counts = Counter(len(each.images) for each in slices)
    n_frames = max(counts, key=lambda count: (counts[count], count))
    notes = [note for each in slices for note in each.notes]
    for each in slices:
        if len(each.images) != n_frames:
            notes.append(
                f"{each.words}: has {len(each.images)} frames where others have {n_frames}; each frame "
                "takes the image nearest in the cycle"
            )
    images: list[tuple[DicomImage, ...]] = [()] * (placed[-1][0] + 1)
    for k, each in placed:
        nearest = np.arange(n_frames) * len(each.images) // n_frames
        images[k] = tuple(each.images[n] for n in nearest)
    first = slices[0].first
    array = np.zeros((*first.shape, len(images), n_frames), dtype=np.float32)
    for k, own in enumerate(images):
        for t, image in enumerate(own):
            array[:, :, k, t] = pixels(image)
    times = np.array([[_or_nan(t) for t in _times(own, n_frames)] for own in images])
    descriptions = tuple(
        dict.fromkeys(each.first.description for each in slices if each.first.description)
    )
    return CineStack(
        name=_name(descriptions, len(images), first.kind, names),
        array=array,
        voxel_to_world=_matrix(placed),
        times_ms=_mean_times(times),
        slice_times_ms=times,
        descriptions=descriptions,
        images=tuple(images),
        notes=tuple(dict.fromkeys(notes)),
    )


def _matrix(placed: _Placed) -> Float:
    """To RAS+ mm: the first slice's pixels, and steps from slice to slice along the normal."""
    plane: ImagePlane = placed[0][1].first.plane
    if len(placed) == 1:
        return plane.voxel_to_world(placed[0][1].first.thickness_mm or 1.0)
    last, end = placed[-1]
    return plane.voxel_to_world(float(heights_mm([plane, end.first.plane])[1]) / last)


def _times(images: Sequence[DicomImage], n_frames: int) -> list[float | None]:
    """Times of one slice, or parts of the interval between R waves where only that is known."""
    if not images:
        return [None] * n_frames
    cycle = images[0].cycle_ms
    if images[0].time_ms is None and cycle:
        return [cycle * n / n_frames for n in range(n_frames)]
    return [image.time_ms for image in images]


def _or_nan(time: float | None) -> float:
    return np.nan if time is None else time


def _mean_times(times: Float) -> Float | None:
    known = ~np.isnan(times).any(axis=1)
    return np.asarray(times[known].mean(axis=0)) if known.any() else None


def _name(descriptions: Sequence[str], n_slices: int, kind: str, names: Counter[str]) -> str:
    """Name a stack sax, and a plane by its description; numbers tell equal ones apart."""
    words = "sax" if n_slices >= FEWEST_SLICES else (descriptions or ("plane",))[0]
    letters = (
        "".join(c if c.isascii() and c.isalnum() else "_" for c in words.lower()).strip("_")
        or "plane"
    )
    if kind not in ("", "M"):
        letters += "_" + kind.lower()
    names[letters] += 1
    return letters if names[letters] == 1 else f"{letters}_{names[letters]}"
