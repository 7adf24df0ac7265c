"""Valid files of every kind that is read, and ways to damage them."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import NamedTuple

import nibabel
import numpy as np

import cardiacreg
from benchmarks.reliability.wrong_values import HEART, OTHER, POINTS, SPLINE
from cardiacreg import Affine, RefineOptions, Volume
from cardiacreg.anatomy.label_probabilities import read_probabilities
from cardiacreg.cohort.manifest import open_manifest
from cardiacreg.errors import kept_warnings
from cardiacreg.phantoms.toy_heart import make_toy_heart

HEAD_BYTES = 600
_WORDS = (b"\xff" * 8, bytes(8), b"nan     ", b"1e999   ", b"99999999", "é心ö".encode())


class Kind(NamedTuple):
    """A kind of file: how one is written, and how it is read.

    A name with a colon is that of a file in a folder that is read as a whole, `write` and `read` take
    the path of the file either way.
    """

    name: str
    write: Callable[[Path], object]
    read: Callable[[Path], object]

    def path(self, folder: Path) -> Path:
        """Return where the file lies in a folder of its own."""
        place, _, file = self.name.rpartition(": ")
        return folder / place / file

    def put(self, folder: Path) -> Path:
        """Write the file to its place, and return that."""
        path = self.path(folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.write(path)
        return path


def kinds() -> tuple[Kind, ...]:
    """Return every kind of file that is damaged, of those whose readers are installed."""
    return (*_images(), *_points(), *_transforms(), *_surfaces(), *_studies(), *_folders())


def _is_installed(*modules: str) -> bool:
    return all(importlib.util.find_spec(each) is not None for each in modules)


def _images() -> Iterator[Kind]:
    labels, image = HEART.labels, HEART.image
    read = cardiacreg.read_segmentation
    mgh = nibabel.MGHImage(labels.array, labels.voxel_to_world.astype(np.float32))
    yield Kind("labels.nii", lambda p: cardiacreg.write_labels(p, labels), lambda p: read(p))
    yield Kind("labels.nii.gz", lambda p: cardiacreg.write_labels(p, labels), lambda p: read(p))
    yield Kind("image.nii.gz", lambda p: cardiacreg.write_volume(p, image), cardiacreg.read_volume)
    yield Kind("labels.mgz", lambda p: nibabel.save(mgh, p), lambda p: read(p))
    if _is_installed("SimpleITK"):
        yield Kind(
            "labels.seg.nrrd", lambda p: cardiacreg.write_segmentation(p, labels), lambda p: read(p)
        )
    classes = np.stack([labels.array == n for n in range(5)]).astype(np.float32) * 0.8 + 0.04
    yield Kind(
        "classes.npz",
        lambda p: np.savez(p, probabilities=classes.transpose(0, 3, 2, 1)),
        lambda p: read_probabilities(p, labels),
    )


def _points() -> Iterator[Kind]:
    write = cardiacreg.write_landmarks
    yield Kind("points.json", lambda p: write(p, POINTS), cardiacreg.read_landmarks)
    yield Kind("points.vtk", _write_vtk, lambda p: cardiacreg.read_landmarks(p, space="RAS"))
    for file in ("GPFile_000.txt", "SliceInfoFile.txt"):
        yield Kind(
            f"guide points: {file}",
            lambda p: cardiacreg.write_guide_points(p.parent, HEART.labels),
            lambda p: cardiacreg.read_guide_points(p.parent / "GPFile_000.txt"),
        )
    yield Kind("contours.cvi42wsx", _write_contours, cardiacreg.read_cvi42)


def _transforms() -> Iterator[Kind]:
    field = cardiacreg.dense_displacement(SPLINE, HEART.labels)
    write, read = cardiacreg.write_itk_transform, cardiacreg.read_itk_transform
    yield Kind("spline.dof", lambda p: cardiacreg.write_dof(p, SPLINE), cardiacreg.read_dof)
    yield Kind("spline.tfm", lambda p: write(p, SPLINE), read)
    yield Kind("affine.mat", lambda p: write(p, Affine.identity()), read)
    yield Kind("elastix.0.txt", _write_elastix, read)
    yield Kind(
        "field.nii.gz",
        lambda p: cardiacreg.write_displacement_field(p, field),
        cardiacreg.read_displacement_field,
    )
    yield Kind(
        "transforms.npz",
        lambda p: cardiacreg.write_transforms(p, [SPLINE, SPLINE], ["a", "b"]),
        cardiacreg.read_transforms,
    )
    if _is_installed("h5py"):
        yield Kind("spline.h5", lambda p: write(p, SPLINE), read)


def _surfaces() -> Iterator[Kind]:
    surface = cardiacreg.surfaces_of(HEART.labels)["LV_ENDO"]
    for ending in ("vtp", "stl", "ply", "obj"):
        yield Kind(
            f"surface.{ending}",
            lambda p: cardiacreg.write_surface(p, surface),
            cardiacreg.read_surface,
        )


def _studies() -> Iterator[Kind]:
    """Files of DICOM."""
    if not _is_installed("pydicom", "highdicom"):
        return
    study = "study: slice_000_frame_000.dcm"
    yield Kind(study, write_study, lambda p: cardiacreg.read_dicom_cine(p.parent))
    yield Kind("labels.dcm", _write_dicom_seg, cardiacreg.read_dicom_seg)


def write_study(path: Path) -> None:
    """Write a stack of two frames as DICOM into the folder of a file, which is renamed to that one."""
    heart = Volume(HEART.image.array[10:20, 10:20, 2:5], HEART.image.voxel_to_world)
    cardiacreg.write_dicom_cine(path.parent, [heart, heart])
    sorted(path.parent.glob("*.dcm"))[0].rename(path)


def _write_dicom_seg(path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        cardiacreg.write_dicom_cine(folder, [HEART.image] * 2)
        (stack,) = cardiacreg.read_dicom_cine(folder)
        cardiacreg.write_dicom_seg(path, HEART.labels, stack)


def _folders() -> Iterator[Kind]:
    for file in ("index.json", "entries.jsonl", "ends.npy", "labels.npy", "images.npy"):
        yield Kind(f"bank: {file}", lambda p: _write_bank(p.parent), lambda p: _read_bank(p.parent))
    for file in ("result.json", "landmarks.json", "confidence.nii.gz"):
        yield Kind(
            f"result: {file}",
            lambda p: _put(p.parent, "result"),
            lambda p: cardiacreg.load_result(p.parent).volumes_ml,
        )
    yield Kind(
        "cine: cine.json",
        lambda p: _put(p.parent, "cine"),
        lambda p: cardiacreg.load_cine(p.parent).frames[0].labels,
    )
    yield Kind(
        "patient: patient.csv",
        lambda p: write_patient(p.parent),
        lambda p: cardiacreg.find_patient(p.parent),
    )
    yield Kind("cohort.csv", _write_manifest, lambda p: list(open_manifest(p).rows()))
    for file in ("cohort.json", "patients/a/status.json"):
        yield Kind(
            f"cohort: {file}",
            lambda p: _put(_cohort_of(p), "cohort"),
            lambda p: cardiacreg.cohort_status(_cohort_of(p)),
        )
    yield Kind("index.npz", lambda p: one_index().save(p), cardiacreg.AtlasIndex.load)


@lru_cache
def one_result() -> cardiacreg.RefineResult:
    """Return a result, refined in a moment."""
    options = replace(RefineOptions.fast(), orientation="as-stored")
    with kept_warnings():
        return cardiacreg.refine(
            HEART.labels, atlases=[OTHER], options=options, spacing_mm=(2.5, 2.5, 4.0), threads=1
        )


@lru_cache
def one_cine() -> cardiacreg.CineResult:
    """Return the models of two frames."""
    options = replace(RefineOptions.fast(), orientation="as-stored")
    with kept_warnings():
        return cardiacreg.refine_cine(
            [HEART.labels, OTHER.labels], atlases=[OTHER], options=options, threads=1,
            spacing_mm=(2.5, 2.5, 4.0),
        )  # fmt: skip


@lru_cache
def one_index() -> cardiacreg.AtlasIndex:
    """Return an index of two atlases."""
    return cardiacreg.AtlasIndex.build([HEART, OTHER])


def write_patient(folder: Path) -> None:
    """Write two frames and the table that names them into a folder."""
    rows = ["frame,labels"]
    for phase, heart in (("ED", HEART), ("ES", make_toy_heart(size=0.95))):
        cardiacreg.write_labels(folder / f"{phase}.nii.gz", heart.labels)
        rows.append(f"{phase},{phase}.nii.gz")
    (folder / "patient.csv").write_text("\n".join(rows) + "\n")


def _write_manifest(path: Path) -> None:
    rows = ["subject,labels,frames,height_cm,weight_kg"]
    rows += [f"p{n},p{n}.nii.gz,ED,{160 + n},{60 + n}" for n in range(12)]
    path.write_text("\n".join(rows) + "\n")


def _cohort_of(path: Path) -> Path:
    return path.parents[0 if path.name == "cohort.json" else 2]


def _write_cohort(folder: Path) -> None:
    """Write the folder of a cohort of one patient, which was refused."""
    manifest = folder.parent / "one.csv"
    manifest.write_text("subject,labels\na,nowhere.nii.gz\n")
    cardiacreg.refine_cohort(manifest, folder, shard=(1, 1), threads=1)


@lru_cache
def _contents(what: str) -> dict[Path, bytes]:
    """Files of a folder that takes seconds to write, by their places in it."""
    write = {
        "result": lambda place: one_result().save(place),
        "cine": lambda place: one_cine().save(place),
        "cohort": _write_cohort,
    }
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "place"
        write[what](place)
        files = [path for path in place.rglob("*") if path.is_file()]
        return {path.relative_to(place): path.read_bytes() for path in files}


def _put(folder: Path, what: str) -> None:
    for place, content in _contents(what).items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_bytes(content)


def _write_vtk(path: Path) -> None:
    rows = "\n".join(" ".join(f"{x:.3f}" for x in point) for point in POINTS.points_mm)
    head = "# vtk DataFile Version 3.0\npoints\nASCII\nDATASET POLYDATA\nPOINTS 6 float\n"
    path.write_text(head + rows + "\n")


def _write_elastix(path: Path) -> None:
    path.write_text(
        '(Transform "EulerTransform")\n(NumberOfParameters 6)\n'
        "(TransformParameters 0.01 -0.02 0.03 1.5 2 -3)\n"
        '(InitialTransformParametersFileName "NoInitialTransform")\n'
        '(UseBinaryFormatForTransformationParameters "false")\n(HowToCombineTransforms "Compose")\n'
        "(FixedImageDimension 3)\n(MovingImageDimension 3)\n(Size 20 20 10)\n"
        '(CenterOfRotationPoint 10 20 30)\n(ComputeZYX "false")\n'
    )


def _write_contours(path: Path) -> None:
    space, corners = (
        "http://www.circlecvi.com/cvi42/Workspace/",
        ((8, 8), (28, 8), (28, 28), (8, 28)),
    )
    points = "".join(
        f"<List:item><Point:x>{x}</Point:x><Point:y>{y}</Point:y></List:item>" for x, y in corners
    )
    contours = "".join(
        f'<Hash:item Hash:key="{name}"><Hash:item Hash:key="Points" List:count="4">{points}'
        '</Hash:item><Hash:item Hash:key="SubpixelResolution">4</Hash:item></Hash:item>'
        for name in ("saendocardialContour", "saepicardialContour")
    )
    path.write_text(
        f'<?xml version="1.0" encoding="UTF-8"?><Hash:hash xmlns:Hash="{space}Hash/" '
        f'xmlns:List="{space}List/" xmlns:Point="{space}Point/" xmlns:Workspace="{space}">'
        '<Hash:item Hash:key="StudyMapStates"><List:item><Hash:item Hash:key="ImageStates">'
        '<Hash:item Hash:key="1.2.3"><Hash:item Hash:key="Contours" Hash:count="2">'
        f"{contours}</Hash:item></Hash:item></Hash:item></List:item></Hash:item></Hash:hash>"
    )


def _write_bank(folder: Path) -> None:
    cardiacreg.build_atlas_bank(folder, [HEART, OTHER], threads=1)


def _read_bank(folder: Path) -> object:
    bank = cardiacreg.AtlasBank(folder)
    return [each.labels.shape for each in bank], cardiacreg.verify_atlas_bank(folder)


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
