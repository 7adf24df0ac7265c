"""Thick, tilted, shifted, incomplete slices made from a high-resolution heart, with the true shifts.

Imitates a clinical short-axis stack: planned a few degrees off the heart's long axis, averaged over the
thickness of its slices, each moved in its plane by breathing, and labelled as experts do, who leave out
basal slices. `Degradation` bundles what a stack does to a heart, by default as measured on patients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from cardiacreg.arrays import Float
from cardiacreg.errors import (
    InvalidInputError,
    check_arguments,
    check_option_kinds,
)
from cardiacreg.geometry import LabelMap, Subject, Volume, same_lattice
from cardiacreg.phantoms.population import check_seed
from cardiacreg.phantoms.stack_labels import LabelRule, base_is_last, draw_as_experts, lose_apex
from cardiacreg.phantoms.thick_slices import (
    Motion,
    Stack,
    majority_labels,
    mean_image,
    plan_stack,
)

EmptySlices = tuple[int, int] | Literal["random"] | None
_MOST_RANDOM_EMPTY = 2


@dataclass(frozen=True, slots=True, eq=False)
class LowResolution:
    """A simulated thick-slice stack and the truth it was made from.

    Parameters
    ----------
    subject : Subject
        The stack: labels, image if there was one, no landmarks.
    slice_shifts_mm : ndarray, shape (n_slices, 2), float64
        The correction of each slice along the stack's i and j axes, in mm: **true position = stored
        position + slice_shifts_mm**.
    reference : LabelMap
        The high-resolution labels at their true place, whole: also what no slice shows.
    slice_turns_degrees : ndarray, shape (n_slices,), float64
        The rotation of each slice after its shift, from axis i towards axis j, about the mean position of
        the high-resolution labels.
    tilt_degrees : ndarray, shape (2,), float64
        The rotation of the whole stack about the i and j axes of the high-resolution labels. It is
        part of the stack's matrix already.
    """

    subject: Subject
    slice_shifts_mm: Float
    reference: LabelMap
    slice_turns_degrees: Float
    tilt_degrees: Float


def simulate_low_resolution(
    subject: Subject,
    *,
    seed: int,
    slice_thickness_mm: float = 10.0,
    in_plane_spacing_mm: float | None = None,
    shift_sd_mm: float = 2.5,
    tilt_sd_degrees: float = 0.0,
    turn_sd_degrees: float = 0.0,
    lost_apical_slices: int = 1,
    drop_lost_slices: bool = True,
    label_rule: LabelRule = "any",
    empty_slices: EmptySlices = None,
) -> LowResolution:
    """Degrade a high-resolution heart into a thick-slice stack.

    The defaults are those of Duan et al. 2019, Section III-F; `Degradation` has those of patients.

    Parameters
    ----------
    subject : Subject
        Labels and, optionally, an image on the same grid.
    seed : int
        Seed of all that is random: tilt, where the first slice starts, shifts, turns, empty slices.
    slice_thickness_mm : float
        Slice thickness and distance; at least the input's.
    in_plane_spacing_mm : float, optional
        Pixel size; the input's by default.
    shift_sd_mm : float
        Standard deviation of a slice's shift along each in-plane axis; 2.5 gives a mean length of
        about 3.1 mm.
    tilt_sd_degrees : float
        Standard deviation of the turn of the whole stack about each in-plane axis of the input, as
        planned; the stack is oblique then, and its matrix says so.
    turn_sd_degrees : float
        Standard deviation of a slice's turn in its plane.
    lost_apical_slices : int
        Number of apical slices with labels to lose.
    drop_lost_slices : bool
        Whether lost slices, and all beyond them, leave the stack; otherwise they lose their labels.
    label_rule : {"any", "clinical"}
        ``"any"``: every slice is labelled by the largest share in each voxel. ``"clinical"``: experts
        leave a basal slice out when less than half of the wall's circumference is seen. From the
        middle of the LV towards the base, the LV is unlabelled from the first slice on in which the
        wall is met in fewer than half of the directions from the cavity's centre (as it was last
        before the valve's plane cut the cavity). The RV goes at most one slice further, and is
        unlabelled where its cavity is below 50 mm2.
    empty_slices : (int, int) or "random", optional
        How many slices without labels are acquired beyond the apical and beyond the basal end;
        ``"random"``: 0 to 2 each. None beyond an apex whose slices are lost and dropped. By default
        the stack covers the input's lattice.

    Returns
    -------
    LowResolution
        Labels by majority over the slice where it truly lies, image by its mean; the true shifts.

    Raises
    ------
    InvalidInputError
        If image and labels have different grids, the thickness is below the input's, a standard
        deviation or number of slices is negative, the rule is unknown, or no labelled slice is left.

    Examples
    --------
    >>> from cardiacreg import sample_heart, simulate_low_resolution
    >>> heart = sample_heart(10_000, with_image=False)
    >>> stack = simulate_low_resolution(heart, seed=1, tilt_sd_degrees=5.3, label_rule="clinical")
    >>> stack.slice_shifts_mm.shape == (stack.subject.labels.shape[2], 2)
    True
    """
    how = Degradation(
        slice_thickness_mm, in_plane_spacing_mm, shift_sd_mm, tilt_sd_degrees, turn_sd_degrees,
        lost_apical_slices, drop_lost_slices, label_rule, empty_slices,
    )  # fmt: skip
    return how.of(subject, seed=seed)


@dataclass(frozen=True, slots=True)
class Degradation:
    """What a short-axis stack does to a heart; the defaults are those of a clinical stack.

    Over 100 patients of ACDC at end-diastole the LV's centre line leans against the slice normal by
    5.5 and 5.1 degrees (standard deviation per axis), and slices scatter about it by 1.35 mm per axis
    (median standard deviation). Patients' angles have heavier tails than a normal distribution: this one
    has their 90th percentile (11.4 against 11.2 degrees), and a larger median (6.2 against 4.1).

    Parameters
    ----------
    slice_thickness_mm, in_plane_spacing_mm, shift_sd_mm, tilt_sd_degrees, turn_sd_degrees
        As for `simulate_low_resolution`.
    lost_apical_slices, drop_lost_slices, label_rule, empty_slices
        As for `simulate_low_resolution`.

    Examples
    --------
    >>> from cardiacreg import sample_heart
    >>> from cardiacreg.phantoms.acquisition import Degradation
    >>> heart = sample_heart(10_000, with_image=False)
    >>> clinical = Degradation().of(heart, seed=1)
    >>> harder = Degradation(shift_sd_mm=5.0, lost_apical_slices=1).of(heart, seed=1)
    """

    slice_thickness_mm: float = 10.0
    in_plane_spacing_mm: float | None = None
    shift_sd_mm: float = 1.35
    tilt_sd_degrees: float = 5.3
    turn_sd_degrees: float = 0.0
    lost_apical_slices: int = 0
    drop_lost_slices: bool = True
    label_rule: LabelRule = "clinical"
    empty_slices: EmptySlices = "random"

    def __post_init__(self) -> None:
        check_option_kinds(self)

    def of(self, heart: Subject, *, seed: int) -> LowResolution:
        """Return the stack of a heart, shape, errors and meaning as for `simulate_low_resolution`.

        Parameters
        ----------
        heart : Subject
            Labels and, optionally, an image on the same grid.
        seed : int
            Seed of all that is random.
        """
        return self.of_frames([heart], seed=seed)[0]

    def of_frames(self, hearts: Sequence[Subject], *, seed: int) -> list[LowResolution]:
        """Return the stacks of a beating heart: every slice shows all frames in one breath-hold.

        Parameters
        ----------
        hearts : sequence of Subject
            The frames, all on one lattice. The stack is planned on the first.
        seed : int
            Seed of all that is random: it is the same for all frames, shifts above all.

        Returns
        -------
        list of LowResolution
            One per frame, all on one lattice with the same shifts. Slices are acquired as far as any
            frame has labels, and the empty ones beyond.

        Raises
        ------
        InvalidInputError
            If the frames lie on different lattices (GRID_MISMATCH), or as `simulate_low_resolution`.

        Examples
        --------
        >>> from cardiacreg import Degradation
        >>> from cardiacreg.phantoms.beating import beating_heart
        >>> frames = beating_heart(10_000, n_frames=2, spacing_mm=(3.0, 3.0, 4.0))
        >>> ed, es = Degradation().of_frames(frames, seed=1)
        >>> bool((ed.slice_shifts_mm == es.slice_shifts_mm).all())
        True
        """
        check_arguments(hearts, Subject, "degradation: hearts")
        check_seed(seed, "degradation")
        for heart in hearts:
            _check(heart, self)
            _check_one_lattice(hearts[0].labels, heart.labels)
        labels = hearts[0].labels
        rng = np.random.default_rng([seed, 7])
        planning = np.random.default_rng([seed, 11])
        tilt = planning.normal(0.0, abs(self.tilt_sd_degrees), size=2)  # not -0.0
        empty = _empty_counts(self.empty_slices, seed)
        pixel = self.in_plane_spacing_mm
        stack = plan_stack(
            labels,
            pixel_mm=labels.spacing_mm[:2] if pixel is None else np.full(2, float(pixel)),
            thickness_mm=self.slice_thickness_mm,
            tilt_degrees=tilt,
            phase_mm=rng.uniform(0.0, self.slice_thickness_mm),
            more_slices=max(empty or (0,)),
        )
        motion = self._motion(stack.shape[2], max(empty or (0,)), rng)
        arrays = [majority_labels(heart.labels, stack, motion) for heart in hearts]
        ranges = [
            self._labelled_as_wanted(array, heart.labels, stack.pixel_mm, empty)
            for array, heart in zip(arrays, hearts, strict=True)
        ]
        kept = slice(min(each.start for each in ranges), max(each.stop for each in ranges))
        return [
            _acquired(heart, array, stack, motion, kept, tilt)
            for heart, array in zip(hearts, arrays, strict=True)
        ]

    def _motion(self, n_slices: int, n_added: int, rng: np.random.Generator) -> Motion:
        """Draw shifts and turns; the slices added at both ends come last, and change no other's."""
        shifts, turns = [], []
        for count in (n_slices - 2 * n_added, n_added, n_added):
            shifts.append(rng.normal(0.0, abs(self.shift_sd_mm), size=(count, 2)))
            turns.append(rng.normal(0.0, abs(self.turn_sd_degrees), size=count))
        middle, below, above = range(3)
        order = (below, middle, above)
        return Motion(
            np.concatenate([shifts[n] for n in order]), np.concatenate([turns[n] for n in order])
        )

    def _labelled_as_wanted(
        self,
        stack: NDArray[np.uint8],
        heart: LabelMap,
        pixel_mm: Float,
        empty: tuple[int, int] | None,
    ) -> slice:
        """Remove labels in place by the rule and at the apex; return the slices that are acquired."""
        lost = self.lost_apical_slices
        everything = slice(0, stack.shape[2])
        if self.label_rule == "any" and lost == 0 and empty is None:
            return everything
        base_last = base_is_last(heart)
        if self.label_rule == "clinical":
            draw_as_experts(stack, pixel_mm, base_last=base_last)
        gone = lose_apex(stack, lost, base_last=base_last)
        held = np.flatnonzero((stack > 0).any(axis=(0, 1)))
        dropped = lost > 0 and self.drop_lost_slices
        if empty is None:
            first, last = 0, stack.shape[2] - 1
            if dropped:
                first, last = (gone[-1] + 1, last) if base_last else (first, gone[0] - 1)
        else:
            acquired = held if dropped else np.union1d(held, gone)
            ends = (0 if dropped else empty[0], empty[1])
            low, high = ends if base_last else ends[::-1]
            first, last = acquired[0] - low, acquired[-1] + high
        return slice(int(first), int(last) + 1)


def _acquired(
    heart: Subject,
    array: NDArray[np.uint8],
    stack: Stack,
    motion: Motion,
    kept: slice,
    tilt_degrees: Float,
) -> LowResolution:
    """Gather what a stack's acquired slices show of one heart."""
    image = None if heart.image is None else mean_image(heart.image, stack, motion)
    matrix = stack.voxel_to_world.copy()
    matrix[:3, 3] += matrix[:3, 2] * kept.start
    degraded = replace(
        heart,
        labels=LabelMap(array[:, :, kept], matrix),
        image=None if image is None else Volume(image[:, :, kept], matrix),
        landmarks=None,
    )
    return LowResolution(
        degraded, motion.shifts_mm[kept], heart.labels, motion.turns_degrees[kept], tilt_degrees
    )


def _check_one_lattice(first: LabelMap, other: LabelMap) -> None:
    if not same_lattice(first, other):
        raise InvalidInputError(
            f"degradation: frames of shapes {first.shape} and {other.shape} on different lattices; "
            "needs all frames of a heart on one.",
            code="GRID_MISMATCH",
        )


def _empty_counts(wanted: EmptySlices, seed: int) -> tuple[int, int] | None:
    """How many slices without labels to keep beyond apex and base."""
    if wanted != "random":
        return wanted
    rng = np.random.default_rng([seed, 13])
    drawn = rng.integers(0, _MOST_RANDOM_EMPTY + 1, size=2)
    return int(drawn[0]), int(drawn[1])


def _check(subject: Subject, how: Degradation) -> None:
    labels, image = subject.labels, subject.image
    if image is not None and (
        image.shape != labels.shape or not np.allclose(image.voxel_to_world, labels.voxel_to_world)
    ):
        raise InvalidInputError(
            f"simulate_low_resolution: image {image.shape} and labels {labels.shape} are on "
            "different grids; resample the image onto the labels first.",
            code="GRID_MISMATCH",
        )
    if not how.slice_thickness_mm >= labels.spacing_mm[2] - 1e-6:
        raise InvalidInputError(
            f"simulate_low_resolution: slice_thickness_mm is {how.slice_thickness_mm}; needs at "
            f"least the input's {labels.spacing_mm[2]:.2f} mm.",
            code="BAD_THICKNESS",
        )
    if not labels.present():
        raise InvalidInputError(
            "simulate_low_resolution: there is no label above 0; needs a heart.",
            code="TOO_FEW_SLICES",
        )
    _check_numbers(how)


def _check_numbers(how: Degradation) -> None:
    for name in ("shift_sd_mm", "tilt_sd_degrees", "turn_sd_degrees"):
        if not getattr(how, name) >= 0:
            raise InvalidInputError(
                f"simulate_low_resolution: {name} is {getattr(how, name)}; needs >= 0.",
                code="BAD_STANDARD_DEVIATION",
            )
    sizes = [each for each in (how.slice_thickness_mm, how.in_plane_spacing_mm) if each is not None]
    if not (np.isfinite(sizes).all() and min(sizes) > 0):
        raise InvalidInputError(
            f"simulate_low_resolution: a thickness of {how.slice_thickness_mm} and pixels of "
            f"{how.in_plane_spacing_mm} mm; needs sizes above 0.",
            code="BAD_THICKNESS",
        )
    if how.lost_apical_slices < 0:
        raise InvalidInputError(
            f"simulate_low_resolution: lost_apical_slices is {how.lost_apical_slices}; needs >= 0.",
            code="BAD_LOST_SLICES",
        )
    if how.label_rule not in get_args(LabelRule):
        raise InvalidInputError(
            f"simulate_low_resolution: label_rule is {how.label_rule!r}; needs one of "
            f"{get_args(LabelRule)}.",
            code="BAD_LABEL_RULE",
        )
    empty = how.empty_slices
    if not (empty is None or empty == "random" or (len(empty) == 2 and min(empty) >= 0)):
        raise InvalidInputError(
            f"simulate_low_resolution: empty_slices is {empty!r}; needs two numbers from 0 on, for "
            'apex and base, or "random".',
            code="BAD_EMPTY_SLICES",
        )
