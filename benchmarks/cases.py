"""The hearts that the benchmarks measure on: synthetic, real anatomies, real acquisitions.

Synthetic hearts take seeds that the embedded bank must not contain. Data sets that cannot be shipped are
looked for in the folder named by ``CARDIACREG_DATA``; a benchmark whose data are absent raises
`DataAbsent`, which the runner reports as a skip.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from cardiacreg.degradation import LowResolution, simulate_low_resolution
from cardiacreg.geometry import LabelMap, Subject
from cardiacreg.nifti import read_labels
from cardiacreg.phantoms import FIRST_EVALUATION_SEED, sample_heart

DATA_VARIABLE = "CARDIACREG_DATA"
ANATOMIES = tuple(f"subject{n:02d}" for n in range(19))
RANDOM_SHAPES = tuple(f"random{n:03d}" for n in range(15))
CUT_BELOW_MITRAL_MM = 6.0
SLICE_MM, SHIFT_SD_MM, LOST_APICAL_SLICES = 10.0, 2.5, 1
_GROUPS = ("healthy", "pulmonary_hypertension")
_PHASES = ("ED", "ES")
_PAD_VOXELS = 10


class DataAbsent(Exception):
    """The data of a benchmark are not on this machine."""


@dataclass(frozen=True)
class Case:
    """A degraded heart, the true shifts of its slices, and the truth on the lattice to evaluate on."""

    name: str
    seed: int
    group: str
    phase: str
    target: Subject
    slice_shifts_mm: np.ndarray
    truth: LabelMap


@dataclass(frozen=True)
class Acquisition:
    """Files of one real frame."""

    name: str
    labels: Path
    image: Path
    preset: str
    group: str
    phase: str


def data_folder(name: str) -> Path:
    """Return the folder of a data set.

    Raises
    ------
    DataAbsent
        If it is not there.
    """
    beside = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
    folder = Path(os.environ.get(DATA_VARIABLE, beside)) / name
    if not folder.is_dir():
        raise DataAbsent(f"no folder {name!r}; set {DATA_VARIABLE} to the folder that holds it")
    return folder


@dataclass(frozen=True)
class Degradation:
    """How a high-resolution heart becomes a clinical stack; the default is that of every benchmark."""

    slice_mm: float = SLICE_MM
    shift_sd_mm: float = SHIFT_SD_MM
    turn_sd_degrees: float = 0.0
    lost_apical_slices: int = LOST_APICAL_SLICES


@dataclass(frozen=True)
class Heart:
    """Names one unseen synthetic heart and its degradation, without making them."""

    seed: int
    group: str = "healthy"
    phase: str = "ED"
    degradation: Degradation = Degradation()

    @property
    def name(self) -> str:
        """Return the name that the case will have."""
        return f"{self.group}_{self.phase}_{self.seed:05d}"

    def case(self) -> Case:
        """Make the heart and its slices; the last few are kept."""
        return _synthetic_case(self)


def synthetic_hearts(
    count: int, *, groups: tuple[str, ...] = _GROUPS, phases: tuple[str, ...] = _PHASES
) -> list[Heart]:
    """Name unseen synthetic hearts: groups in turn, and phases more slowly."""
    return [
        Heart(
            FIRST_EVALUATION_SEED + number,
            groups[number % len(groups)],
            phases[number // len(groups) % len(phases)],
        )
        for number in range(count)
    ]


def synthetic_cases(count: int) -> Iterator[Case]:
    """Yield unseen synthetic hearts: healthy and hypertensive, end-diastole and end-systole in turn."""
    return (heart.case() for heart in synthetic_hearts(count))


@lru_cache(maxsize=2)
def _synthetic_case(heart: Heart) -> Case:
    subject = sample_heart(heart.seed, group=heart.group, phase=heart.phase)
    low = degrade(subject, heart.seed, heart.degradation)
    return Case(
        heart.name, heart.seed, heart.group, heart.phase, low.subject, low.slice_shifts_mm,
        low.reference,
    )  # fmt: skip


def degrade(heart: Subject, seed: int, how: Degradation = Degradation()) -> LowResolution:
    """Make thick, shifted slices without the apical one, as all simulated benchmarks do."""
    return simulate_low_resolution(
        heart,
        seed=seed,
        slice_thickness_mm=how.slice_mm,
        shift_sd_mm=how.shift_sd_mm,
        turn_sd_degrees=how.turn_sd_degrees,
        lost_apical_slices=how.lost_apical_slices,
    )


def real_anatomy(name: str) -> Subject:
    """Return one real anatomy, cut 6 mm under its mitral valve centre; the lattice ends at the cut."""
    folder = data_folder("hr_bank")
    labels = read_labels(folder / f"{name}.nii.gz")
    with (folder / "index.csv").open(encoding="utf-8") as table:
        rows = {row["name"]: row for row in csv.DictReader(table)}
    mitral_mm = np.array([float(value) for value in rows[name]["mv"].split()])
    return Subject(_padded(_cut(labels, mitral_mm[2] - CUT_BELOW_MITRAL_MM)), name=name)


def _cut(labels: LabelMap, level_mm: float) -> LabelMap:
    """Remove the labels above a level; z runs from apex to base in these files.

    The library's `cut_base` finds the base from the LV's area, which a sealed outflow tract can belie.
    """
    heights_mm = labels.voxel_to_world[2, 3] + labels.spacing_mm[2] * np.arange(labels.shape[2])
    array = labels.array.copy()
    array[:, :, heights_mm > level_mm] = 0
    return LabelMap(array, labels.voxel_to_world)


def _padded(labels: LabelMap) -> LabelMap:
    """Add background all around, except beyond the last labelled slice, where the lattice ends."""
    last = int(np.flatnonzero(labels.array.any(axis=(0, 1)))[-1])
    pads = ((_PAD_VOXELS, _PAD_VOXELS), (_PAD_VOXELS, _PAD_VOXELS), (_PAD_VOXELS, 0))
    array = np.pad(labels.array[:, :, : last + 1], pads)
    matrix = labels.voxel_to_world.copy()
    matrix[:3, 3] -= matrix[:3, :3] @ np.full(3, _PAD_VOXELS)
    return LabelMap(array, matrix)


def anatomy_case(name: str, seed: int) -> Case:
    """Return one real anatomy as a degraded target."""
    heart = real_anatomy(name)
    low = degrade(heart, seed)
    return Case(name, seed, "healthy", "ED", low.subject, low.slice_shifts_mm, heart.labels)


def acdc(patients: tuple[int, ...]) -> list[Acquisition]:
    """Return both labelled frames of the given ACDC training patients."""
    folder = data_folder("acdc")
    with (folder / "index.csv").open(encoding="utf-8") as table:
        rows = list(csv.DictReader(table))
    found = []
    for row in rows:
        patient, file = row["file"].split("/")
        if int(patient.removeprefix("patient")) not in patients:
            continue
        frame = int(file.split("frame")[1].split(".")[0])
        found.append(
            Acquisition(
                name=file.removesuffix(".nii.gz"),
                labels=folder / patient / file.replace(".nii.gz", "_gt.nii.gz"),
                image=folder / patient / file,
                preset="acdc",
                group=row["group"],
                phase="ED" if frame == int(row["ED"]) else "ES",
            )
        )
    return found


def autofd() -> list[Acquisition]:
    """Return the seven AutoFD stacks."""
    folder = data_folder("autofd")
    return [
        Acquisition(
            name=f"autofd_{each.name}",
            labels=each / "labels.nii.gz",
            image=each / "image.nii.gz",
            preset="digital_heart",
            group="unknown",
            phase="ED",
        )
        for each in sorted(folder.iterdir())
        if each.is_dir()
    ]
