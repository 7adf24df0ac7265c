"""Bad files of every kind, one damage each, and the code of the error that each must end in."""

from __future__ import annotations

import gzip
import json
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import cardiacreg
from cardiacreg import FFD, Affine
from cardiacreg.phantoms.toy_heart import make_toy_heart

HEART = make_toy_heart()
MANY = 2**31


class Bad(NamedTuple):
    """A bad input: what is wrong with it, what is done with it, and the code that must come of it."""

    kind: str
    what: str
    expected: str
    call: Callable[[Path], object]
    warning: str = ""
    """What a warning must say, where the input is accepted with "a warning"."""


def bad_files() -> list[Bad]:
    """Return every bad file."""
    return [
        *_nifti(), *_arrays_in_nifti(), *_no_files(), *_landmark_files(), *_transforms(),
        *_surfaces(), *_banks(), *_manifests(),
    ]  # fmt: skip


def _nifti() -> Iterator[Bad]:
    """Headers of which a field is wrong: its place, its form and what stands there."""
    nan, large = float("nan"), 3e38
    fields: tuple[tuple[str, str, int, str, tuple[float, ...]], ...] = (
        ("no dimension", "BAD_HEADER", 40, "<h", (0,)),
        ("eight dimensions", "BAD_HEADER", 40, "<h", (8,)),
        ("a negative number of dimensions", "BAD_HEADER", 40, "<h", (-3,)),
        ("two dimensions", "BAD_SHAPE", 40, "<h", (2,)),
        ("a width of 0", "EMPTY_IMAGE", 42, "<h", (0,)),
        ("a width below 0", "BAD_HEADER", 42, "<h", (-40,)),
        ("30,000 voxels a side", "TRUNCATED_FILE", 42, "<3h", (30_000, 30_000, 30_000)),
        ("more slices than data", "TRUNCATED_FILE", 46, "<h", (9,)),
        ("an unknown data type", "BAD_DTYPE", 70, "<h", (3,)),
        ("a data type of colours", "BAD_DTYPE", 70, "<h", (128,)),
        ("complex numbers", "BAD_DTYPE", 70, "<h", (32,)),
        ("a data type of one bit", "BAD_DTYPE", 70, "<h", (1,)),
        ("voxels that begin inside the header", "BAD_HEADER", 108, "<f", (100.0,)),
        ("voxels that begin past the end", "TRUNCATED_FILE", 108, "<f", (1e9,)),
        ("voxels that begin at NaN", "BAD_HEADER", 108, "<f", (nan,)),
        ("voxels that begin below 0", "BAD_HEADER", 108, "<f", (-352.0,)),
        ("a slope of a half", "FRACTIONAL_LABELS", 112, "<f", (0.5,)),
        ("a slope of 100", "UNKNOWN_LABEL", 112, "<f", (100.0,)),
        ("an intercept below 0", "UNKNOWN_LABEL", 116, "<f", (-1.0,)),
        ("metres", "IMPLAUSIBLE_SPACING", 123, "<B", (1,)),
        ("an sform of 1e38 mm", "IMPLAUSIBLE_SPACING", 280, "<f", (large,)),
        ("a sheared sform", "SHEARED_MATRIX", 280, "<4f", (2.5, 1.5, 0, -50)),
        ("a spacing of 0.001 mm", "IMPLAUSIBLE_SPACING", 280, "<4f", (0.001, 0, 0, 0)),
        ("a spacing of 2 m", "IMPLAUSIBLE_SPACING", 312, "<4f", (0, 0, 2000.0, 0)),
        ("another magic word", "NOT_NIFTI", 344, "<4s", ()),
    )
    for what, expected, place, form, values in fields:
        yield Bad("NIfTI header", what, expected, partial(_patched, place, form, values))
    for what, expected, row in (
        ("an sform of NaN and no qform", "BAD_MATRIX", (nan, 0, 0, 0)),
        ("an infinite sform and no qform", "BAD_MATRIX", (2.5, 0, 0, float("inf"))),
        ("an sform whose axes lie in a plane and no qform", "SINGULAR_MATRIX", (0, 0, 0, 0)),
    ):
        yield Bad("NIfTI header", what, expected, partial(_without_qform, row))
    for what, expected, change in (
        ("an empty file", "NOT_NIFTI", lambda b: b""),
        ("a header cut in its middle", "NOT_NIFTI", lambda b: b[:100]),
        ("a header and no voxels", "TRUNCATED_FILE", lambda b: b[:352]),
        ("the last byte lost", "TRUNCATED_FILE", lambda b: b[:-1]),
        ("text", "NOT_NIFTI", lambda b: b"no image\n" * 100),
        ("zeros", "NOT_NIFTI", lambda b: bytes(len(b))),
    ):
        yield Bad("NIfTI file", what, expected, partial(_changed, "labels.nii", change))
    for what, expected, change in (
        ("half of it", "TRUNCATED_FILE", lambda b: b[: len(b) // 2]),
        ("a flipped bit", "TRUNCATED_FILE", lambda b: b[:-30] + bytes([b[-30] ^ 4]) + b[-29:]),
        (
            "a flipped bit of its checksum",
            "CORRUPT_FILE",
            lambda b: b[:-8] + bytes([b[-8] ^ 1]) + b[-7:],
        ),
        ("zeros inside", "NOT_NIFTI", lambda b: gzip.compress(bytes(2**20))),
        ("nothing inside", "NOT_NIFTI", lambda b: gzip.compress(b"")),
    ):
        yield Bad("compressed NIfTI", what, expected, partial(_changed, "labels.nii.gz", change))


def _patched(place: int, form: str, values: Sequence[float], folder: Path) -> object:
    whole = tuple(int(v) if form[-1] in "hBi" else v for v in values) or (b"none",)
    return _changed(
        "labels.nii",
        lambda b: b[:place] + struct.pack(form, *whole) + b[place + struct.calcsize(form) :],
        folder,
    )


def _without_qform(row: Sequence[float], folder: Path) -> object:
    def change(content: bytes) -> bytes:
        content = content[:252] + bytes(2) + content[254:]
        return content[:280] + struct.pack("<4f", *row) + content[296:]

    return _changed("labels.nii", change, folder)


def _changed(name: str, change: Callable[[bytes], bytes], folder: Path) -> object:
    path = folder / name
    cardiacreg.write_labels(path, HEART.labels)
    path.write_bytes(change(path.read_bytes()))
    return cardiacreg.read_labels(path)


def _arrays_in_nifti() -> Iterator[Bad]:
    """Images of a valid form that hold no labels of a heart."""
    import nibabel

    shape = HEART.labels.shape

    def segmented(array: np.ndarray[Any, Any], folder: Path, **how: Any) -> object:
        path = folder / "labels.nii.gz"
        nibabel.save(nibabel.Nifti1Image(array, HEART.labels.voxel_to_world), path)
        return cardiacreg.read_segmentation(path, **how)

    grey = np.random.default_rng(0).normal(100, 30, shape).astype(np.float32)
    heart = np.array(HEART.labels.array)
    for what, expected, array in (
        ("one label everywhere", "ONE_STRUCTURE", np.ones(shape, np.uint8)),
        ("an image of grey levels", "FRACTIONAL_LABELS", grey),
        ("whole grey levels", "UNKNOWN_LABEL", grey.astype(np.int16)),
        ("NaN", "FRACTIONAL_LABELS", np.where(heart > 0, np.nan, 0).astype(np.float32)),
        ("infinite labels", "FRACTIONAL_LABELS", np.where(heart > 0, np.inf, 0).astype(np.float32)),
        ("labels below 0", "UNEXPECTED_LABEL", -heart.astype(np.int16)),
        ("labels of half numbers", "FRACTIONAL_LABELS", heart.astype(np.float32) / 2),
        ("labels of 10 to 13 without a meaning", "UNEXPECTED_LABEL", np.where(heart, heart + 9, 0)),
        ("four dimensions and no frame named", "FRAME_NEEDED", np.stack([heart] * 3, -1)),
        ("five dimensions", "BAD_SHAPE", np.zeros((*shape, 2, 2), np.uint8)),
        (
            "a heart of a few voxels",
            "ONE_STRUCTURE",
            (np.indices(shape).sum(0) == 40).astype(np.uint8)[:, :, :1],
        ),
    ):
        small = np.asarray(array)
        small = small.astype(np.uint8) if small.dtype == np.int64 else small
        yield Bad("segmentation", what, expected, partial(segmented, small))
    yield Bad("segmentation", "frame 7 of 3", "BAD_FRAME",
              partial(segmented, np.stack([heart] * 3, -1), frame=7))  # fmt: skip
    yield Bad("segmentation", "frame 2 of a 3-D file", "ONE_FRAME",
              partial(segmented, heart, frame=2))  # fmt: skip


def _no_files() -> Iterator[Bad]:
    """What stands where a file should be."""

    def folder_(place: Path) -> Path:
        (place / "labels.nii").mkdir()
        return place / "labels.nii"

    def pipe(place: Path) -> Path:
        os.mkfifo(place / "labels.nii")
        return place / "labels.nii"

    def loop(place: Path) -> Path:
        (place / "labels.nii").symlink_to(place / "labels.nii")
        return place / "labels.nii"

    def dangling(place: Path) -> Path:
        (place / "labels.nii").symlink_to(place / "nowhere.nii")
        return place / "labels.nii"

    places: tuple[tuple[str, str, Callable[[Path], Path]], ...] = (
        ("nothing", "FILE_NOT_FOUND", lambda p: p / "labels.nii"),
        ("a folder", "UNREADABLE_FILE", folder_),
        ("a named pipe", "UNREADABLE_FILE", pipe),
        ("a link to itself", "UNREADABLE_FILE", loop),
        ("a link to nothing", "FILE_NOT_FOUND", dangling),
        ("a device", "UNREADABLE_FILE", lambda p: Path("/dev/zero")),
        ("a name of 300 letters", "UNREADABLE_FILE", lambda p: p / ("x" * 300)),
        ("a name with a zero byte", "FILE_NOT_FOUND", lambda p: p / "a\0b.nii"),
    )
    readers: tuple[tuple[str, Callable[[Path], object]], ...] = (
        ("labels", cardiacreg.read_labels), ("volume", cardiacreg.read_volume),
        ("landmarks", cardiacreg.read_landmarks), ("dof", cardiacreg.read_dof),
    )  # fmt: skip
    for what, expected, place in places:
        for name, read in readers if what in ("nothing", "a named pipe") else readers[:1]:
            yield Bad(f"file of {name}", what, expected, partial(_read_there, place, read))


def _read_there(
    place: Callable[[Path], Path], read: Callable[[Path], object], folder: Path
) -> object:
    return read(place(folder))


def _landmark_files() -> Iterator[Bad]:
    good = cardiacreg.landmarks_from_labels(HEART.labels).points_mm.tolist()
    names: tuple[tuple[str, str, object], ...] = (
        ("no JSON", "BAD_LANDMARK_FILE", "{points"),
        ("nothing", "BAD_LANDMARK_FILE", ""),
        ("a list", "BAD_LANDMARK_FILE", [1, 2]),
        ("no points", "BAD_LANDMARK_FILE", {"space": "RAS", "points_mm": []}),
        ("points of two numbers", "BAD_LANDMARK_FILE", {"space": "RAS", "points_mm": [[1, 2]] * 6}),
        (
            "points of text",
            "BAD_LANDMARK_FILE",
            {"space": "RAS", "points_mm": [["a", "b", "c"]] * 6},
        ),
        ("NaN", "BAD_LANDMARK_FILE", '{"space": "RAS", "points_mm": [[NaN, 0, 0]]}'),
        ("1e999", "BAD_LANDMARK_FILE", '{"space": "RAS", "points_mm": [[1e999, 0, 0]]}'),
        ("no space", "BAD_LANDMARK_FILE", {"points_mm": good}),
        ("a space nobody knows", "BAD_LANDMARK_FILE", {"space": "XYZ", "points_mm": good}),
        ("a name twice", "REPEATED_NAME", '{"space": "RAS", "space": "LPS", "points_mm": []}'),
        ("1,000,000 brackets", "BAD_LANDMARK_FILE", "[" * 1_000_000),
    )
    for what, expected, content in names:
        yield Bad("landmarks", what, expected, partial(_landmarks, "points.json", content))
    for what, content in (
        ("VTK without points", "# vtk DataFile Version 3.0\np\nASCII\nDATASET POLYDATA\n"),
        ("VTK with fewer points than said",
         "# vtk DataFile Version 3.0\np\nASCII\nDATASET POLYDATA\nPOINTS 6 float\n1 2 3\n"),
        ("VTK with 2^31 points",
         f"# vtk DataFile Version 3.0\np\nASCII\nDATASET POLYDATA\nPOINTS {MANY} float\n1 2 3\n"),
        ("binary VTK of nothing",
         "# vtk DataFile Version 3.0\np\nBINARY\nDATASET POLYDATA\nPOINTS 6 float\n"),
    ):  # fmt: skip
        yield Bad(
            "landmarks", what, "BAD_LANDMARK_FILE", partial(_landmarks, "points.vtk", content)
        )


def _landmarks(name: str, content: object, folder: Path) -> object:
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / name).write_text(text)
    return cardiacreg.read_landmarks(folder / name)


def _spline() -> FFD:
    moves = np.random.default_rng(0).normal(size=(5, 5, 5, 3))
    return FFD(Affine.identity(), moves, np.diag([25.0, 25.0, 25.0, 1.0]))


def _transforms() -> Iterator[Bad]:
    lost, other, half = "TRUNCATED_FILE", "BAD_FILE_TYPE", "BAD_LATTICE"
    kinds: tuple[tuple[str, Callable[..., Any], Callable[[Path], object], tuple[str, ...]], ...] = (
        ("spline.dof", cardiacreg.write_dof, cardiacreg.read_dof, (lost, lost, *[other] * 3)),
        ("spline.tfm", cardiacreg.write_itk_transform, cardiacreg.read_itk_transform,
         (other, half, *[other] * 3)),
        ("affine.mat", cardiacreg.write_itk_transform, cardiacreg.read_itk_transform,
         ("CORRUPT_FILE",) * 5),
    )  # fmt: skip
    changes: tuple[tuple[str, Callable[[bytes], bytes]], ...] = (
        ("empty", lambda b: b""),
        ("half of it", lambda b: b[: len(b) // 2]),
        ("text", lambda b: b"no transform\n" * 30),
        ("bytes of 255", lambda b: b"\xff" * len(b)),
        ("its head lost", lambda b: b[40:]),
    )
    for name, write, read, codes in kinds:
        transform = Affine.identity() if name == "affine.mat" else _spline()
        for (what, change), expected in zip(changes, codes, strict=True):
            yield Bad(f"transform {name}", what, expected,
                      partial(_transform, name, write, transform, read, change))  # fmt: skip
    head, affine = "#Insight Transform File V1.0\n", "Transform: AffineTransform_double_3_3\n"
    fixed = "FixedParameters: 0 0 0\n"
    for what, expected, text in (
        ("an unknown kind", other, head + "Transform: Magic_double_3_3\nParameters: 1\n" + fixed),
        ("two dimensions", other, head + "Transform: AffineTransform_double_2_2\n"
         "Parameters: 1 0 0 1 0 0\nFixedParameters: 0 0\n"),
        ("too few parameters", other, head + affine + "Parameters: 1 0 0\n" + fixed),
        ("NaN", other, head + affine + "Parameters: nan 0 0 0 1 0 0 0 1 0 0 0\n" + fixed),
        ("a singular matrix", "SINGULAR_MATRIX", head + affine + f"Parameters:{' 0' * 12}\n{fixed}"),
        ("words for numbers", "CORRUPT_FILE", head + affine + "Parameters: one two three\n" + fixed),
        ("no transform", "CORRUPT_FILE", head),
    ):  # fmt: skip
        yield Bad("transform text.tfm", what, expected, partial(
            _transform, "text.tfm", None, None, cardiacreg.read_itk_transform,
            lambda _, text=text: text.encode()))  # fmt: skip


def _transform(
    name: str,
    write: Callable[..., Any] | None,
    transform: object,
    read: Callable[[Path], object],
    change: Callable[[bytes], bytes],
    folder: Path,
) -> object:
    path = folder / name
    if write is not None:
        write(path, transform)
    path.write_bytes(change(path.read_bytes() if write is not None else b""))
    return read(path)


@lru_cache
def surface() -> cardiacreg.Surface:
    """The inner surface of the LV of a toy heart."""
    return cardiacreg.surfaces_of(HEART.labels)["LV_ENDO"]


def _surfaces() -> Iterator[Bad]:
    for ending in ("vtp", "stl", "ply", "obj"):
        for what, change in (
            ("empty", lambda b: b""),
            ("text", lambda b: b"no surface\n" * 30),
            ("half of it", lambda b: b[: len(b) // 2]),
        ):
            if (ending, what) == ("obj", "half of it"):
                continue  # whole lines of points and triangles are a smaller surface
            yield Bad(
                f"surface .{ending}", what, "BAD_SURFACE_FILE", partial(_surface, ending, change)
            )
    yield Bad("surface .obj", "a triangle of a point that is not there", "BAD_SURFACE_FILE",
              partial(_surface, "obj", lambda _: b"v 0 0 0\nv 1 0 0\nf 1 2 9\n"))  # fmt: skip
    yield Bad("surface .ply", "2^31 points", "BAD_SURFACE_FILE", partial(_surface, "ply", lambda _: (
        b"ply\nformat ascii 1.0\nelement vertex 2147483648\nproperty float x\nproperty float y\n"
        b"property float z\nend_header\n")))  # fmt: skip
    yield Bad("surface .xyz", "an unknown ending", "BAD_FILE_NAME",
              partial(_surface, "xyz", lambda b: b))  # fmt: skip


def _surface(ending: str, change: Callable[[bytes], bytes], folder: Path) -> object:
    whole = folder / f"whole.{'stl' if ending == 'xyz' else ending}"
    cardiacreg.write_surface(whole, surface())
    path = folder / f"surface.{ending}"
    path.write_bytes(change(whole.read_bytes()))
    return cardiacreg.read_surface(path)


def _banks() -> Iterator[Bad]:
    changes: tuple[tuple[str, str, Callable[[bytes], bytes]], ...] = (
        ("index.json", "lost", lambda b: b""),
        ("index.json", "no JSON", lambda b: b"{"),
        ("index.json", "another version", lambda b: b.replace(b'"', b"'", 2)),
        ("entries.jsonl", "half of it", lambda b: b[: len(b) // 2]),
        ("entries.jsonl", "no JSON", lambda b: b"}\n" * 2),
        ("labels.npy", "half of it", lambda b: b[: len(b) // 2]),
        ("labels.npy", "pickled objects", lambda b: b.replace(b"|u1", b"|O ")),
        ("images.npy", "half of it", lambda b: b[: len(b) // 2]),
        ("ends.npy", "bytes of 255", lambda b: b[:-16] + b"\xff" * 16),
    )
    for name, what, change in changes:
        yield Bad(f"bank, {name}", what, "BAD_ATLAS_BANK", partial(_bank, name, change))
    yield Bad("bank", "an empty folder", "BAD_ATLAS_BANK", lambda p: cardiacreg.AtlasBank(p))
    yield Bad("bank", "no folder", "BAD_ATLAS_BANK", lambda p: cardiacreg.AtlasBank(p / "nowhere"))


def _bank(name: str, change: Callable[[bytes], bytes], folder: Path) -> object:
    place = folder / "bank"
    hearts = [HEART, make_toy_heart(size=0.9)]
    cardiacreg.build_atlas_bank(place, hearts, threads=1)
    (place / name).write_bytes(change((place / name).read_bytes()))
    bank = cardiacreg.AtlasBank(place)
    cardiacreg.verify_atlas_bank(place)
    return [each.labels.shape for each in bank]


def _manifests() -> Iterator[Bad]:
    for what, expected, text in (
        ("nothing", "BAD_MANIFEST", ""),
        ("no column of labels", "BAD_MANIFEST", "subject\na\n"),
        ("no column of subjects", "BAD_MANIFEST", "labels\na.nii\n"),
        ("a subject twice", "DUPLICATE_SUBJECT", "subject,labels\na,a.nii\na,b.nii\n"),
        ("a subject that is a way out", "BAD_SUBJECT", "subject,labels\n../a,a.nii\n"),
        ("a subject without a name", "BAD_MANIFEST", "subject,labels\n,a.nii\n"),
        ("a column twice", "BAD_MANIFEST", "subject,labels,labels\na,a.nii,b.nii\n"),
        ("a head and no patient", "NO_PATIENT", "subject,labels\n"),
    ):
        yield Bad("manifest of a cohort", what, expected, partial(_manifest, text.encode()))
    yield Bad("manifest of a cohort", "bytes that are no UTF-8", "BAD_MANIFEST",
              partial(_manifest, b"subject,labels\n\xff\xfe,a\n"))  # fmt: skip
    yield Bad("manifest of a cohort", "Parquet of nothing", "BAD_MANIFEST",
              partial(_manifest, b"PAR1", name="cohort.parquet"))  # fmt: skip


def _manifest(content: bytes, folder: Path, name: str = "cohort.csv") -> object:
    (folder / name).write_bytes(content)
    return cardiacreg.refine_cohort(folder / name, folder / "out", shard=(1, 1))
