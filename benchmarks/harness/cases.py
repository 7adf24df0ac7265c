"""The hearts that the benchmarks measure on: synthetic, real anatomies, real acquisitions.

Synthetic hearts take seeds that the embedded bank must not contain. Data sets that cannot be shipped are
looked for in the folder named by ``CARDIACREG_DATA``; a benchmark whose data are absent raises
`DataAbsent`, which the runner reports as a skip.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from cardiacreg.geometry import LabelMap, Subject
from cardiacreg.io.nifti import read_labels
from cardiacreg.phantoms.acquisition import Degradation, LowResolution
from cardiacreg.phantoms.hearts import FIRST_EVALUATION_SEED, sample_heart

DATA_VARIABLE = "CARDIACREG_DATA"
ANATOMIES = tuple(f"subject{n:02d}" for n in range(19))
RANDOM_SHAPES = tuple(f"random{n:03d}" for n in range(15))
MARGIN_MM = 20.0
"""Background around every truth, on all sides, so that what a method draws beyond a heart counts."""
CLINICAL = Degradation()
_GROUPS = ("healthy", "pulmonary_hypertension")
_PHASES = ("ED", "ES")


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
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    folder = Path(os.environ.get(DATA_VARIABLE, beside)) / name
    if not folder.is_dir():
        raise DataAbsent(f"no folder {name!r}; set {DATA_VARIABLE} to the folder that holds it")
    return folder


@dataclass(frozen=True)
class Heart:
    """Names one unseen synthetic heart and its degradation, without making them."""

    seed: int
    group: str = "healthy"
    phase: str = "ED"
    degradation: Degradation = CLINICAL

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
        padded(low.reference),
    )  # fmt: skip


def degrade(heart: Subject, seed: int, how: Degradation = CLINICAL) -> LowResolution:
    """Make the slices and labels of a clinical stack, as all simulated benchmarks do."""
    return how.of(heart, seed=seed)


def real_anatomy(name: str) -> Subject:
    """Return one real anatomy, whole, outflow tracts included, with a margin of background."""
    return Subject(padded(read_labels(data_folder("hr_bank") / f"{name}.nii.gz")), name=name)


def padded(labels: LabelMap) -> LabelMap:
    """Add background where there is less than `MARGIN_MM` of it around all labels."""
    wanted = np.ceil(MARGIN_MM / labels.spacing_mm).astype(int)
    held = np.argwhere(labels.array)
    before = np.maximum(wanted - held.min(axis=0), 0)
    after = np.maximum(wanted + held.max(axis=0) + 1 - labels.shape, 0)
    matrix = labels.voxel_to_world.copy()
    matrix[:3, 3] -= matrix[:3, :3] @ before
    return LabelMap(np.pad(labels.array, np.stack([before, after], axis=1)), matrix)


def anatomy_case(name: str, seed: int) -> Case:
    """Return one real anatomy as a degraded target."""
    heart = real_anatomy(name)
    low = degrade(heart, seed)
    return Case(name, seed, "healthy", "ED", low.subject, low.slice_shifts_mm, low.reference)


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


def siblings(frame: Acquisition, frames: Sequence[Acquisition]) -> list[Acquisition]:
    """Return the other frames of a frame's patient: those whose files lie beside its own."""
    return [e for e in frames if e.labels.parent == frame.labels.parent and e.name != frame.name]


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
