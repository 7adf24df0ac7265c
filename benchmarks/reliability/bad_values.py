"""Bad values for public calls, one each, and the code of the error that each must end in."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import cardiacreg
from benchmarks.reliability.bad_files import HEART, Bad, surface
from cardiacreg import (
    FFD,
    Affine,
    FusionOptions,
    LabelMap,
    Landmarks,
    RefineOptions,
    RegistrationOptions,
    Volume,
)
from cardiacreg.phantoms.toy_heart import make_toy_heart

ATLAS = make_toy_heart(size=0.9)
NAN = float("nan")
MATRIX = HEART.labels.voxel_to_world


def bad_values() -> list[Bad]:
    """Return every bad value."""
    return [*_nouns(), *_landmarks(), *_options(), *_refinements(), *_measures(), *_outputs()]


def _matrix(**changes: float) -> np.ndarray[Any, Any]:
    matrix = np.array(MATRIX)
    for place, value in changes.items():
        matrix[int(place[1]), int(place[2])] = value
    return matrix


def _nouns() -> Iterator[Bad]:
    heart = np.array(HEART.labels.array)
    masked = np.ma.masked_array(heart, heart > 1)
    for what, expected, array, matrix in (
        ("two dimensions", "BAD_SHAPE", heart[0], MATRIX),
        ("no voxel", "BAD_SHAPE", heart[:0], MATRIX),
        ("labels of half numbers", "FRACTIONAL_LABELS", heart / 2, MATRIX),
        ("labels below 0", "UNKNOWN_LABEL", heart.astype(int) - 1, MATRIX),
        ("labels of 1000", "UNKNOWN_LABEL", heart.astype(int) * 1000, MATRIX),
        ("NaN", "FRACTIONAL_LABELS", np.where(heart, np.nan, 0), MATRIX),
        ("text", "BAD_DTYPE", np.full((2, 2, 2), "a"), MATRIX),
        ("objects", "BAD_DTYPE", np.full((2, 2, 2), None), MATRIX),
        ("complex numbers", "BAD_DTYPE", heart.astype(complex), MATRIX),
        ("a mask", "MASKED_ARRAY", masked, MATRIX),
        ("a matrix of 3 x 3", "BAD_MATRIX", heart, MATRIX[:3, :3]),
        ("a matrix of NaN", "BAD_MATRIX", heart, _matrix(a00=NAN)),
        ("a singular matrix", "SINGULAR_MATRIX", heart, _matrix(a00=0.0)),
        ("a matrix with another last row", "BAD_MATRIX", heart, _matrix(a33=2.0)),
        ("a heart of 0.1 mm", "IMPLAUSIBLE_SIZE", heart, np.diag([1e-3, 1e-3, 1e-3, 1])),
    ):
        yield Bad("LabelMap", what, expected, partial(_refine, LabelMap, array, matrix))
    for what, expected, values in (
        ("two dimensions", "BAD_SHAPE", heart[0]),
        ("complex numbers", "BAD_DTYPE", heart.astype(complex)),
        ("text", "BAD_DTYPE", np.full((2, 2, 2), "a")),
    ):
        yield Bad("Volume", what, expected, lambda p, v=values: Volume(v, MATRIX))
    yield Bad("Affine", "infinite numbers", "BAD_MATRIX",
              lambda p: Affine(_matrix(a03=float("inf"))))  # fmt: skip
    moves = np.zeros((5, 5, 5, 3))
    yield Bad("FFD", "a lattice of three control points", "BAD_LATTICE",
              lambda p: FFD(Affine.identity(), moves[:3], np.diag([25.0, 25, 25, 1])))  # fmt: skip
    yield Bad("FFD", "NaN", "BAD_LATTICE",
              lambda p: FFD(Affine.identity(), moves + NAN, np.diag([25.0, 25, 25, 1])))  # fmt: skip


def _refine(kind: type, array: Any, matrix: Any, folder: Path) -> object:
    labels = kind(array, matrix)
    return cardiacreg.refine(labels, atlases=[ATLAS], threads=1)


def _landmarks() -> Iterator[Bad]:
    points = np.array(cardiacreg.landmarks_from_labels(HEART.labels).points_mm)
    orders = {
        "apex and mitral valve exchanged": [0, 1, 2, 3, 5, 4],
        "LV and RV walls exchanged": [0, 3, 2, 1, 4, 5],
        "all in reverse": [5, 4, 3, 2, 1, 0],
    }
    for what, order in orders.items():
        yield Bad("landmarks of refine", what, "BAD_LANDMARKS", partial(_with, points[order]))
    exchanged = points[[2, 1, 0, 3, 4, 5]]
    yield Bad("landmarks of refine", "insertions exchanged, along the scanner's axes", "a warning",
              partial(_with, exchanged), "RV insertion are exchanged")  # fmt: skip
    yield Bad("landmarks of refine", "insertions exchanged, oblique to the scanner", "BAD_LANDMARKS",
              partial(_oblique, exchanged))  # fmt: skip
    for what, expected, given in (
        ("five points", "BAD_LANDMARKS", points[:5]),
        ("all in one place", "BAD_LANDMARKS", np.zeros((6, 3))),
        ("300 mm away", "LANDMARKS_OUTSIDE", points + 300.0),
        ("in metres", "NO_OVERLAP", points / 1000),
        ("in LPS", "LANDMARK_SPACE", points * [-1, -1, 1]),
        ("NaN", "BAD_LANDMARKS", points + NAN),
    ):
        yield Bad("landmarks of refine", what, expected, partial(_with, given))
    line = np.outer(np.arange(6.0), [1.0, 2.0, 3.0])
    yield Bad("fit_landmark_affine", "points on a line", "BAD_LANDMARKS",
              lambda p: cardiacreg.fit_landmark_affine(Landmarks(line), Landmarks(points)))  # fmt: skip
    yield Bad("fit_landmark_affine", "six points for four", "BAD_LANDMARKS",
              lambda p: cardiacreg.fit_landmark_affine(
                  Landmarks(points), Landmarks(points[:4])))  # fmt: skip


def _with(points: Any, folder: Path, labels: LabelMap = HEART.labels) -> object:
    return cardiacreg.refine(
        labels, landmarks=Landmarks(points), atlases=[ATLAS], threads=1,
        options=RefineOptions.fast(),
    )  # fmt: skip


def _oblique(points: Any, folder: Path) -> object:
    """As `_with`, in a world that is turned by 36.9 degrees about two axes."""
    one, two = np.eye(4), np.eye(4)
    one[:2, :2] = two[1:3, 1:3] = [[0.8, -0.6], [0.6, 0.8]]
    world = one @ two
    labels = LabelMap(HEART.labels.array, world @ HEART.labels.voxel_to_world)
    return _with(points @ world[:3, :3].T, folder, labels)


def _options() -> Iterator[Bad]:
    values: tuple[tuple[type, str, object], ...] = (
        (RefineOptions, "n_atlases", 0), (RefineOptions, "n_atlases", -5),
        (RefineOptions, "n_atlases", 2.5), (RefineOptions, "n_atlases", "5"),
        (RefineOptions, "n_atlases", True), (RefineOptions, "orientation", "upside down"),
        (RefineOptions, "selection", "by taste"), (RefineOptions, "registration", {}),
        (RefineOptions, "metadata", 3),
        (RegistrationOptions, "spacings_mm", ()), (RegistrationOptions, "spacings_mm", (0.0,)),
        (RegistrationOptions, "spacings_mm", (NAN,)), (RegistrationOptions, "iterations", (-1,)),
        (RegistrationOptions, "iterations", "many"), (RegistrationOptions, "strides", (0,)),
        (RegistrationOptions, "bending_weight", -1.0),
        (RegistrationOptions, "bending_weight", float("inf")),
        (FusionOptions, "patch", (2, 2, 2)), (FusionOptions, "search", (0, 0, 0)),
        (FusionOptions, "bandwidth", 0.0), (FusionOptions, "bandwidth", NAN),
    )  # fmt: skip
    for kind, name, value in values:
        yield Bad(kind.__name__, f"{name}={value!r}", "BAD_OPTION",
                  lambda p, k=kind, n=name, v=value: k(**{n: v}))  # fmt: skip


def _refinements() -> Iterator[Bad]:
    given: tuple[tuple[str, str, object], ...] = (
        ("threads", "BAD_THREADS", "2"), ("threads", "BAD_THREADS", 0),
        ("threads", "BAD_THREADS", 1.5), ("spacing_mm", "BAD_SPACING", (1, 1)),
        ("spacing_mm", "BAD_SPACING", (1, 1, NAN)), ("spacing_mm", "BAD_SPACING", 0),
        ("spacing_mm", "BAD_SPACING", (1e-9, 1, 1)), ("spacing_mm", "BAD_SPACING", (0.01, 0.01, 0.01)),
        ("frame", "ONE_FRAME", 7), ("frame", "ONE_FRAME", "ED"), ("atlases", "EMPTY_BANK", []),
        ("atlases", "BAD_TYPE", [None]), ("atlases", "FILE_NOT_FOUND", "nowhere"),
        ("preset", "UNKNOWN_PRESET", "nowhere"), ("preset", "BAD_PRESET", {1: "left ear"}),
        ("image", "FILE_NOT_FOUND", "nowhere.nii"), ("landmarks", "FILE_NOT_FOUND", "nowhere.json"),
        ("options", "BAD_OPTION", "fast"), ("options", "BAD_OPTION", {}),
        ("frames", "FILE_NOT_FOUND", ["nowhere.nii"]),
    )  # fmt: skip
    for name, expected, value in given:
        yield Bad("refine", f"{name}={value!r}", expected, partial(_refine_with, {name: value}))
    for what, expected, call in (
        ("None", "BAD_TYPE", lambda p: cardiacreg.refine(None, atlases=[ATLAS])),
        ("a number", "BAD_TYPE", lambda p: cardiacreg.refine(3, atlases=[ATLAS])),
        ("an array without a matrix", "BAD_TYPE", lambda p: cardiacreg.refine(
            HEART.labels.array, atlases=[ATLAS])),
        ("a cine of no frame", "TOO_FEW_FRAMES", lambda p: cardiacreg.refine_cine([], atlases=[ATLAS])),
        ("a cine whose frames differ in shape", "FRAMES_DIFFER", lambda p: cardiacreg.refine_cine(
            [HEART.labels, LabelMap(HEART.labels.array[:20], MATRIX)], atlases=[ATLAS])),
    ):  # fmt: skip
        yield Bad("refine", what, expected, call)


def _refine_with(given: dict[str, Any], folder: Path) -> object:
    how = {"atlases": [ATLAS], "threads": 1, "options": RefineOptions.fast()} | given
    return cardiacreg.refine(HEART.labels, **how)


def _measures() -> Iterator[Bad]:
    other = make_toy_heart(size=0.9).labels
    moved = LabelMap(other.array[:30], MATRIX)
    none = LabelMap(np.zeros((5, 5, 5), np.uint8), np.diag([2.0, 2, 2, 1]))
    calls: tuple[tuple[str, str, str, Any], ...] = (
        ("dice", "lattices that differ", "LATTICE_MISMATCH",
         lambda p: cardiacreg.dice(HEART.labels, moved)),
        ("compare", "lattices that differ", "LATTICE_MISMATCH",
         lambda p: cardiacreg.compare(HEART.labels, moved)),
        ("measure", "no heart", "TOO_FEW_SLICES", lambda p: cardiacreg.measure(none, none)),
        ("surfaces_of", "no heart", "EMPTY_LABELS", lambda p: cardiacreg.surfaces_of(none)),
        ("landmarks_from_labels", "no heart", "TOO_FEW_SLICES",
         lambda p: cardiacreg.landmarks_from_labels(none)),
        ("wall_coordinates", "no heart", "TOO_FEW_SLICES",
         lambda p: cardiacreg.wall_coordinates(none)),
        ("hausdorff_mm", "lattices that differ", "LATTICE_MISMATCH",
         lambda p: cardiacreg.hausdorff_mm(HEART.labels, moved)),
        ("sample_heart", "a group nobody knows", "BAD_GROUP",
         lambda p: cardiacreg.sample_heart(1, group="martian")),
        ("sample_heart", "a spacing of 0", "BAD_SPACING",
         lambda p: cardiacreg.sample_heart(1, spacing_mm=(0, 1, 1))),
        ("rank_atlases", "no atlas", "EMPTY_BANK",
         lambda p: cardiacreg.rank_atlases(HEART.labels, [], [])),
    )  # fmt: skip
    for kind, what, expected, call in calls:
        yield Bad(kind, what, expected, call)


def _outputs() -> Iterator[Bad]:
    def taken(folder: Path) -> object:
        (folder / "bank").mkdir()
        (folder / "bank" / "letter.txt").write_text("mine")
        return cardiacreg.build_atlas_bank(folder / "bank", [HEART], threads=1)

    def read_only(folder: Path) -> object:
        (folder / "labels.nii.gz").mkdir()
        return cardiacreg.write_labels(folder / "labels.nii.gz", HEART.labels)

    for kind, what, expected, call in (
        ("write_labels", "a folder that is not there", "NO_FOLDER",
         lambda p: cardiacreg.write_labels(p / "no" / "a.nii.gz", HEART.labels)),
        ("write_labels", "an unknown ending", "BAD_FILE_NAME",
         lambda p: cardiacreg.write_labels(p / "a.xyz", HEART.labels)),
        ("write_labels", "a folder of that name", "OUTPUT_NOT_WRITABLE", read_only),
        ("write_dof", "a folder that is not there", "NO_FOLDER",
         lambda p: cardiacreg.write_dof(p / "no" / "a.dof", Affine.identity())),
        ("write_surface", "an unknown ending", "BAD_FILE_NAME", lambda p: cardiacreg.write_surface(
            p / "a.xyz", surface())),
        ("build_atlas_bank", "a folder with a letter in it", "BAD_ATLAS_BANK", taken),
        ("build_atlas_bank", "no atlas", "EMPTY_BANK",
         lambda p: cardiacreg.build_atlas_bank(p / "bank", [], threads=1)),
        ("load_result", "an empty folder", "NO_RESULT", lambda p: cardiacreg.load_result(p)),
        ("load_cine", "an empty folder", "NO_RESULT", lambda p: cardiacreg.load_cine(p)),
        ("verify_result", "an empty folder", "NO_RESULT", lambda p: cardiacreg.verify_result(p)),
        ("cohort_status", "an empty folder", "NO_COHORT", lambda p: cardiacreg.cohort_status(p)),
        ("find_patient", "an empty folder", "NO_PATIENT", lambda p: cardiacreg.find_patient(p)),
    ):  # fmt: skip
        yield Bad(kind, what, expected, call)
