"""Valid files of every kind that is read, and ways to damage them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import NamedTuple

import nibabel
import numpy as np

import cardiacreg
from cardiacreg import FFD, Affine
from cardiacreg.phantoms.toy_heart import make_toy_heart

HEAD_BYTES = 600
_WORDS = (b"\xff" * 8, bytes(8), b"nan     ", b"1e999   ", b"99999999", "é心ö".encode())


class Kind(NamedTuple):
    """A kind of file: how one is written, and how it is read."""

    name: str
    write: Callable[[Path], object]
    read: Callable[[Path], object]


def kinds() -> tuple[Kind, ...]:
    """Return every kind of file that is damaged."""
    heart = make_toy_heart()
    points = cardiacreg.landmarks_from_labels(heart.labels)
    moves = np.random.default_rng(0).normal(size=(6, 6, 5, 3))
    spline = FFD(Affine.identity(), moves, np.diag([20.0, 20.0, 20.0, 1.0]))
    surface = cardiacreg.surfaces_of(heart.labels)["LV_ENDO"]
    mgh = nibabel.MGHImage(heart.labels.array, heart.labels.voxel_to_world.astype(np.float32))
    field = cardiacreg.dense_displacement(spline, heart.labels)
    return (
        Kind("labels.nii", lambda p: cardiacreg.write_labels(p, heart.labels), _read_segmentation),
        Kind(
            "labels.nii.gz", lambda p: cardiacreg.write_labels(p, heart.labels), _read_segmentation
        ),
        Kind(
            "image.nii.gz",
            lambda p: cardiacreg.write_volume(p, heart.image),
            cardiacreg.read_volume,
        ),
        Kind("labels.mgz", lambda p: nibabel.save(mgh, p), _read_segmentation),
        Kind(
            "points.json",
            lambda p: cardiacreg.write_landmarks(p, points),
            cardiacreg.read_landmarks,
        ),
        Kind("points.vtk", lambda p: _write_vtk(p, points.points_mm), _read_ras),
        Kind("spline.dof", lambda p: cardiacreg.write_dof(p, spline), cardiacreg.read_dof),
        Kind(
            "spline.tfm",
            lambda p: cardiacreg.write_itk_transform(p, spline),
            cardiacreg.read_itk_transform,
        ),
        Kind(
            "affine.mat",
            lambda p: cardiacreg.write_itk_transform(p, Affine.identity()),
            cardiacreg.read_itk_transform,
        ),
        Kind(
            "field.nii.gz",
            lambda p: cardiacreg.write_displacement_field(p, field),
            cardiacreg.read_displacement_field,
        ),
        *(
            Kind(
                f"surface.{ending}",
                lambda p: cardiacreg.write_surface(p, surface),
                cardiacreg.read_surface,
            )
            for ending in ("vtp", "stl", "ply", "obj")
        ),
        *(Kind(f"bank: {name}", _write_bank, _read_bank) for name in _BANK_FILES),
    )


_BANK_FILES = ("index.json", "entries.jsonl", "ends.npy", "labels.npy", "images.npy")


def _read_segmentation(path: Path) -> object:
    return cardiacreg.read_segmentation(path)


def _read_ras(path: Path) -> object:
    return cardiacreg.read_landmarks(path, space="RAS")


def _write_vtk(path: Path, points: np.ndarray) -> None:
    rows = "\n".join(" ".join(f"{x:.3f}" for x in point) for point in points)
    head = "# vtk DataFile Version 3.0\npoints\nASCII\nDATASET POLYDATA\nPOINTS 6 float\n"
    path.write_text(head + rows + "\n")


def _write_bank(path: Path) -> None:
    """A bank in the folder of the file that is to be damaged."""
    hearts = [make_toy_heart(), make_toy_heart(size=0.9)]
    cardiacreg.build_atlas_bank(path.parent, hearts, threads=1)


def _read_bank(path: Path) -> object:
    bank = cardiacreg.AtlasBank(path.parent)
    return [each.labels.shape for each in bank], cardiacreg.verify_atlas_bank(path.parent)


def damaged(content: bytes, random: Random) -> bytes:
    """Return a file's bytes with some flipped, set, lost, repeated or replaced by words.

    Parameters
    ----------
    content : bytes
    random : random.Random
    """
    found, chance = bytearray(content), random.random()
    if chance < 0.15:
        return bytes(found[: random.randrange(len(found))])
    if chance < 0.25:
        where = random.randrange(len(found))
        part = found[where : where + random.randrange(1, 50)]
        found[where:where] = part * random.randrange(1, 30)
    size = min(len(found), HEAD_BYTES) if random.random() < 0.6 else len(found)
    for _ in range(random.choice((1, 1, 2, 4, 16))):
        where = random.randrange(size)
        if random.random() < 0.5:
            found[where] = random.randrange(256)
        else:
            found[where] ^= 1 << random.randrange(8)
    if chance > 0.85:
        where = random.randrange(size)
        found[where : where + 8] = random.choice(_WORDS)
    return bytes(found)
