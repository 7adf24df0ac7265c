"""Findings: problems that a result's own numbers reveal, each with a stable code.

A `Finding` is a reason to look at a result before it is used. The thresholds are constants of this file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from cardiacreg.anatomy.slice_volumes import StructureVolume
from cardiacreg.geometry import LV_CAVITY, LV_WALL, RV_CAVITY, STRUCTURES

FAILED_AGREEMENT = "FAILED_AGREEMENT"
ORIENTATION_DOUBTFUL = "ORIENTATION_DOUBTFUL"
LOW_AGREEMENT = "LOW_AGREEMENT"
VOLUME_DIFFERS = "VOLUME_DIFFERS"
BEYOND_ENDS = "BEYOND_ENDS"
ATLASES_SCATTERED = "ATLASES_SCATTERED"
VIEW_DISAGREES = "VIEW_DISAGREES"
FEW_SLICES = "FEW_SLICES"
CODES = (
    FAILED_AGREEMENT,
    ORIENTATION_DOUBTFUL,
    FEW_SLICES,
    LOW_AGREEMENT,
    VIEW_DISAGREES,
    VOLUME_DIFFERS,
    BEYOND_ENDS,
    ATLASES_SCATTERED,
)
"""Every code, the most severe first."""

LEAST_AGREEMENT = 0.85
FAILING_AGREEMENT = 0.5
LEAST_VIEW_AGREEMENT = 0.8
"""Of the LV cavity; the views given of one contoured patient, in two phases, agree by 0.86 or more."""
LOST_AGREEMENT = 0.05
"""A structure that agrees by less is not there at all, the RV wall too."""
FEWEST_SLICES = 5
LEAST_LENGTH_OVER_WIDTH = 0.6
"""Of the LV along the stack; 200 frames of 100 ACDC patients have 0.74 or more, in 6 slices or more."""
MOST_VOLUME_DIFFERENCE = 0.1
MOST_SHARE_BEYOND = 0.1
LEAST_ORIENTATION_PROBABILITY = 0.9
MOST_ATLAS_DIVERSITY = 0.45
"""Ten frames of five ACDC patients (002, 004, 006, 008, 012; end-diastole and end-systole), refined with
the embedded bank by default, have 0.20 to 0.34."""
GUARDED = (STRUCTURES[LV_CAVITY], STRUCTURES[LV_WALL], STRUCTURES[RV_CAVITY])
"""Not the RV wall: thick slices show it too thin or not at all, so that right models differ from it."""
PICTURES = "qc.png"
"""Where slices of input and model can be looked at, as `results.files` writes it."""
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class Finding:
    """One reason to look at a result before it is used.

    Parameters
    ----------
    code : str
        One of `CODES`; stable, for programs.
    message : str
        One sentence: what was found, a semicolon, what to do.

    Examples
    --------
    >>> str(Finding("LOW_AGREEMENT", "RV cavity agrees by 0.77 only; look at qc.png"))
    '[LOW_AGREEMENT] RV cavity agrees by 0.77 only; look at qc.png'
    """

    code: str
    message: str

    def __str__(self) -> str:
        return f"[{self.code}] {self.message}"

    @property
    def found(self) -> str:
        """The first half of the message: what was found, without what to do."""
        return self.message.partition(";")[0]


def find_problems(
    agreement: Mapping[str, float | None],
    volumes: Mapping[str, StructureVolume],
    *,
    slice_distance_mm: float,
    atlas_diversity: float | None = None,
    orientation_probability: float | None = None,
    lv_slices: int | None = None,
    lv_length_over_width: float | None = None,
    view_agreement: Mapping[str, Mapping[str, float | None]] | None = None,
    pictures: str = PICTURES,
) -> tuple[Finding, ...]:
    """Return what a result's own numbers say against it.

    Parameters
    ----------
    agreement : mapping
        Structure name to Dice with the input at the acquired slices; None where the input lacks it.
    volumes : mapping
        Structure name to `StructureVolume`.
    slice_distance_mm : float
        Distance between the centres of neighbouring slices of the input.
    atlas_diversity : float, optional
        Share of the heart's voxels on which two chosen atlases disagree, 0 to 1.
    orientation_probability : float, optional
        How probable it is that the stack lies as assumed, 0 to 1.
    lv_slices : int, optional
        How many slices of the input show the LV.
    lv_length_over_width : float, optional
        Length of the input's LV along the stack over its width.
    view_agreement : mapping, optional
        Name of a view to structure to Dice between the view and the model cut by its plane.
    pictures : str
        Where slices of input and model can be looked at.

    Returns
    -------
    tuple of Finding
        At most one per code, but for BEYOND_ENDS one per end; the most severe first.

    Examples
    --------
    >>> [finding.code for finding in find_problems({"LV wall": 0.7}, {}, slice_distance_mm=10.0)]
    ['LOW_AGREEMENT']
    """
    return (
        *_failed_agreement(agreement, pictures),
        *_doubtful_orientation(orientation_probability, pictures),
        *_few_slices(lv_slices, lv_length_over_width),
        *_low_agreement(agreement, pictures),
        *_disagreeing_views(view_agreement or {}),
        *_differing_volumes(volumes),
        *_beyond("apex", volumes, slice_distance_mm, pictures),
        *_beyond("base", volumes, slice_distance_mm, pictures),
        *_scattered_atlases(atlas_diversity),
    )


def _failed_agreement(agreement: Mapping[str, float | None], pictures: str) -> Iterable[Finding]:
    lost = {name: dice for name, dice in agreement.items() if name not in GUARDED}
    shown = ", ".join(
        part
        for part in (
            _agreeing(agreement, lambda dice: dice < FAILING_AGREEMENT),
            _agreeing(lost, lambda dice: dice < LOST_AGREEMENT, names=tuple(lost)),
        )
        if part
    )
    if shown:
        yield Finding(
            FAILED_AGREEMENT,
            f"agreement with the input below {FAILING_AGREEMENT:.2f} (Dice): {shown}; do not use the "
            f"model before {pictures} shows why, and check the preset, the orientation and the landmarks",
        )


def _low_agreement(agreement: Mapping[str, float | None], pictures: str) -> Iterable[Finding]:
    shown = _agreeing(agreement, lambda dice: FAILING_AGREEMENT <= dice < LEAST_AGREEMENT)
    if shown:
        yield Finding(
            LOW_AGREEMENT,
            f"agreement with the input below {LEAST_AGREEMENT:.2f} (Dice): {shown}; look in {pictures} "
            "for slices where input and model differ, and check the input's labels there",
        )


def _disagreeing_views(views: Mapping[str, Mapping[str, float | None]]) -> Iterable[Finding]:
    cavity = STRUCTURES[LV_CAVITY]
    shown = [
        f"{name} {dice:.2f}"
        for name, agreement in views.items()
        if (dice := agreement.get(cavity)) is not None and dice < LEAST_VIEW_AGREEMENT
    ]
    if shown:
        yield Finding(
            VIEW_DISAGREES,
            f"views differ from the model (Dice of the {cavity} below {LEAST_VIEW_AGREEMENT:.2f}): "
            f"{', '.join(shown)}; check that they show this patient in the same frame of the heart beat, "
            "and what their label values mean",
        )


def _few_slices(n_slices: int | None, length_over_width: float | None) -> Iterable[Finding]:
    few = n_slices is not None and n_slices < FEWEST_SLICES
    short = length_over_width is not None and length_over_width < LEAST_LENGTH_OVER_WIDTH
    if few or short:
        found = [f"{n_slices} slices show the LV"] if few else []
        if length_over_width is not None:
            found.append(f"they reach along {length_over_width:.2f} times its width")
        yield Finding(
            FEW_SLICES,
            f"{', and '.join(found)}; needs {FEWEST_SLICES} slices and {LEAST_LENGTH_OVER_WIDTH:g}, so "
            "length and volumes are the atlases' guess: do not use them as measured. Give the whole "
            "stack, or say what is known of its ends (coverage= or --coverage)",
        )


def _agreeing(
    agreement: Mapping[str, float | None],
    wanted: Callable[[float], bool],
    names: tuple[str, ...] = GUARDED,
) -> str:
    """Name the structures whose agreement is as wanted, with its value."""
    return ", ".join(
        f"{name} {dice:.2f}"
        for name, dice in agreement.items()
        if name in names and dice is not None and wanted(dice)
    )


def _doubtful_orientation(probability: float | None, pictures: str) -> Iterable[Finding]:
    if probability is not None and probability < LEAST_ORIENTATION_PROBABILITY:
        yield Finding(
            ORIENTATION_DOUBTFUL,
            f"orientation of the stack doubtful: probability {probability:.2f}, needs at least "
            f"{LEAST_ORIENTATION_PROBABILITY:.2f}; check in {pictures} that apex and RV are where they "
            "should be, and give other frames of the patient (frames= or --other-frame), or, where it is "
            "known, the orientation (orientation= or --orientation)",
        )


def _differing_volumes(volumes: Mapping[str, StructureVolume]) -> Iterable[Finding]:
    shown = [
        f"{name} {volume.total_ml:.1f} for {volume.input_ml:.1f} ml ({100 * change:+.0f} %)"
        for name, volume in volumes.items()
        if name in GUARDED and volume.input_ml
        if abs(change := volume.total_ml / volume.input_ml - 1) > MOST_VOLUME_DIFFERENCE + _ROUNDING
    ]
    if shown:
        yield Finding(
            VOLUME_DIFFERS,
            f"model's volume differs by more than {100 * MOST_VOLUME_DIFFERENCE:.0f} % from the input's: "
            f"{', '.join(shown)}; see in the table of volumes whether that lies inside the labelled "
            "slices or beyond them, where no slice tells of it",
        )


def _beyond(
    end: str, volumes: Mapping[str, StructureVolume], slice_distance_mm: float, pictures: str
) -> Iterable[Finding]:
    """Report the structures that reach far past the labelled slices at one end."""
    shown = []
    for name in GUARDED:
        if name not in volumes:
            continue
        volume = volumes[name]
        at_apex = end == "apex"
        mm = volume.beyond_apex_mm if at_apex else volume.beyond_base_mm
        ml = volume.beyond_apex_ml if at_apex else volume.beyond_base_ml
        far = mm > slice_distance_mm * (1 + _ROUNDING)
        if far or ml > volume.total_ml * (MOST_SHARE_BEYOND + _ROUNDING):
            shown.append(f"{name} {mm:.0f} mm ({ml:.1f} ml)")
    if shown:
        yield Finding(
            BEYOND_ENDS,
            f"model beyond the labelled slices at the {end}: {', '.join(shown)}; no slice tells "
            f"of that part, so check in {pictures} that it looks like a heart, and where the stack does "
            "not end as assumed say so (coverage= or --coverage)",
        )


def _scattered_atlases(diversity: float | None) -> Iterable[Finding]:
    if diversity is not None and diversity > MOST_ATLAS_DIVERSITY:
        yield Finding(
            ATLASES_SCATTERED,
            f"chosen atlases differ on {100 * diversity:.0f} % of the heart, more than "
            f"{100 * MOST_ATLAS_DIVERSITY:.0f} %; the model depends on which were chosen, so check "
            "the landmarks, or use atlases that are closer to this heart",
        )
