"""How a bank is written: built beside its place and swapped in, or appended to.

A bank is built in a folder beside its place, one atlas at a time, and swapped in when complete
(`bank_place`). Appended atlases are further arrays; the index that names them is replaced last. So a
reader never sees half of a bank, and neither does one who comes after a crash.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cardiacreg.algebra import invert, multiply
from cardiacreg.atlases import bank_files, bank_place
from cardiacreg.atlases.bank import AtlasBank, entry_hash, label_hash
from cardiacreg.atlases.checks import check_atlas_anatomy, check_label_set
from cardiacreg.compute.threads import check_threads, run_tasks
from cardiacreg.errors import InvalidInputError, check_argument
from cardiacreg.geometry import Affine, Landmarks, Subject, Volume, apply_matrix, same_lattice
from cardiacreg.io.regular_file import real_path
from cardiacreg.phantoms.hearts import HeartSpecification, sample_heart
from cardiacreg.transforms.resampling import warp_volume

_BATCH = 32


def build_atlas_bank(
    folder: str | os.PathLike[str],
    subjects: Sequence[Subject | HeartSpecification],
    *,
    threads: int | None = None,
) -> AtlasBank:
    """Write subjects as an atlas bank and open it.

    Parameters
    ----------
    folder : path
        Where the bank is to be. A bank that is there, whole or damaged, is replaced at once when the
        new one is complete; anything else is left alone.
    subjects : sequence of Subject or HeartSpecification
        Atlases with landmarks; a specification is generated here. Image and labels of a subject
        have one shape; an image that is stored otherwise is placed by its matrix, a missing one allowed.
    threads : int, optional
        Threads for generating; every CPU by default.

    Returns
    -------
    AtlasBank
        The bank; labels are kept exactly, images in 255 steps.

    Raises
    ------
    InvalidInputError
        If there are no subjects, one has an image on another grid than its labels or is no heart as it
        stands (UNEXPECTED_LABEL, WRONG_PRESET, MIRRORED_ATLAS), the folder is no
        bank (BAD_ATLAS_BANK) or holds files that are no part of one (FOREIGN_FILES), or another process
        is appending there (BANK_IS_LOCKED).

    Examples
    --------
    >>> from cardiacreg import build_atlas_bank
    >>> from cardiacreg.phantoms.toy_heart import make_toy_heart
    >>> bank = build_atlas_bank("my_bank", [make_toy_heart(size=0.9), make_toy_heart()])
    >>> bank.names
    ('tiny heart 0.9', 'tiny heart 1')
    """
    check_argument(subjects, Sequence, "build_atlas_bank: subjects")
    if not subjects:
        raise InvalidInputError(
            "build_atlas_bank: there are no subjects; needs at least one.", code="EMPTY_BANK"
        )
    place = real_path(folder)
    if place == real_path(os.curdir):
        raise InvalidInputError(
            f"build_atlas_bank: {place} is the current folder, which a bank would replace; give a folder "
            "of its own (folder= or --output).",
            code="BAD_ATLAS_BANK",
        )
    bank_place.heal(place)
    bank_place.check_replaceable(place, "build_atlas_bank")
    with bank_place.work_folder(place) as work:
        sizes = _write_part(work, 0, subjects, check_threads(threads))
        bank_files.write_index(work, [sizes])
        bank_place.move_into_place(work, place, "build_atlas_bank")
    return AtlasBank(folder)


def append_to_atlas_bank(
    folder: str | os.PathLike[str],
    subjects: Sequence[Subject | HeartSpecification],
    *,
    threads: int | None = None,
) -> AtlasBank:
    """Add subjects to a bank on disk; readers that have it open keep what they see.

    Parameters
    ----------
    folder : path
        A bank.
    subjects : sequence of Subject or HeartSpecification
        Atlases; those whose labels are in the bank already are left out.
    threads : int, optional

    Returns
    -------
    AtlasBank
        The whole bank.

    Raises
    ------
    InvalidInputError
        If the folder is no bank (BAD_ATLAS_BANK), one of its files is a symbolic link (LINK_IN_BANK),
        or another process is appending (BANK_IS_LOCKED).

    Warns
    -----
    InputWarning
        If an earlier process was killed while it appended; what it left is removed.

    Examples
    --------
    >>> from cardiacreg import append_to_atlas_bank, build_atlas_bank
    >>> from cardiacreg.phantoms.toy_heart import make_toy_heart
    >>> bank = build_atlas_bank("grown_bank", [make_toy_heart(size=0.9)])
    >>> len(append_to_atlas_bank("grown_bank", [make_toy_heart(), make_toy_heart(size=0.9)]))
    2
    """
    check_argument(subjects, Sequence, "append_to_atlas_bank: subjects")
    place = Path(folder)
    AtlasBank(place)
    with bank_place.open_for_writing(place, "append_to_atlas_bank"):
        parts, known = bank_files.read_index(place), set(AtlasBank(place).label_hashes)
        sizes = _write_part(place, len(parts), subjects, check_threads(threads), known)
        if sizes["atlases"]:
            bank_files.write_index(place, [*parts, sizes])
    return AtlasBank(place)


Packed = tuple[NDArray[np.uint8], NDArray[np.uint8], dict[str, Any]]


def pack_subject(item: Subject | HeartSpecification) -> Packed:
    """Flatten one subject: labels, image in 255 steps and index entry.

    Parameters
    ----------
    item : Subject or HeartSpecification
        Checked, or generated.

    Returns
    -------
    tuple of ndarray, ndarray and dict

    Raises
    ------
    InvalidInputError
        If it is no heart as it stands, or its image does not fit.
    """
    subject = item
    if isinstance(item, HeartSpecification):
        subject = sample_heart(item.seed, phase=item.phase, group=item.group)
    check_argument(subject, (Subject, HeartSpecification), "atlas bank: a subject")
    assert isinstance(subject, Subject)
    if subject is item:
        check_label_set(subject.labels, f"atlas {subject.name}")
        check_atlas_anatomy(subject, f"atlas {subject.name}")
    image, step = _quantise(subject)
    entry = {
        "name": subject.name,
        "shape": list(subject.labels.shape),
        "voxel_to_world": subject.labels.voxel_to_world.tolist(),
        "has_image": subject.image is not None,
        "intensity_step": step,
        "landmarks": _landmark_entry(subject.landmarks),
        "metadata": subject.metadata,
        "label_hash": label_hash(subject.labels),
        "image_hash": hashlib.sha256(image.data).hexdigest() if subject.image is not None else None,
    }
    return subject.labels.array.ravel(), image, entry | {"entry_hash": entry_hash(entry)}


def _landmark_entry(points: Landmarks | None) -> dict[str, Any] | None:
    if points is None:
        return None
    return {
        "points_mm": points.points_mm.tolist(),
        "names": list(points.names),
        "source": points.source,
    }


def _quantise(subject: Subject) -> tuple[NDArray[np.uint8], float]:
    """Return the image in 255 steps up to its 99.9th percentile, and the size of a step."""
    if subject.image is None:
        return np.zeros(subject.labels.array.size, dtype=np.uint8), 1.0
    if subject.image.shape != subject.labels.shape:
        raise InvalidInputError(
            f"build_atlas_bank: image {subject.image.shape} and labels {subject.labels.shape} of "
            f"{subject.name} differ; needs both on one grid.",
            code="GRID_MISMATCH",
        )
    grey = _on_lattice_of_labels(subject.image, subject).array
    step = max(float(np.percentile(grey[::2, ::2, ::2], 99.9)) / 255.0, 1e-6)
    levels = np.clip(np.rint(grey / np.float32(step)), 0, 255)
    return levels.astype(np.uint8).ravel(), step


def _on_lattice_of_labels(image: Volume, subject: Subject) -> Volume:
    """Place an image by its matrix: a bank holds one matrix per atlas."""
    labels = subject.labels
    if same_lattice(image, labels):
        return image
    to_image = multiply(invert(image.voxel_to_world), labels.voxel_to_world)
    voxels = apply_matrix(to_image, np.argwhere(labels.array).astype(np.float64))
    if voxels.min() < -1 or (voxels > np.array(image.shape)).any():
        raise InvalidInputError(
            f"build_atlas_bank: the image of {subject.name} does not cover its labels; check both "
            "matrices, or leave the image out.",
            code="GRID_MISMATCH",
        )
    return warp_volume(image, Affine.identity(), labels)


def _write_part(
    folder: Path,
    part: int,
    subjects: Sequence[Subject | HeartSpecification],
    threads: int,
    known: Collection[str | None] = (),
) -> dict[str, int]:
    """Write a part, a few subjects at a time, without those whose labels are known; return its sizes."""
    with bank_files.PartWriter(folder, part) as writer:
        for first in range(0, len(subjects), _BATCH):
            batch = [subjects[n] for n in range(first, min(first + _BATCH, len(subjects)))]
            packed = run_tasks(pack_subject, batch, threads=threads, step="building the atlas bank")
            for flat, image, entry in packed:
                if entry["label_hash"] not in known:
                    writer.add(flat, image, entry)
    return writer.sizes
