"""Public calls that take values, with arguments that are right, and ways to make one or two wrong."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np

import cardiacreg
from cardiacreg import FFD, Affine, Lattice, RefineOptions
from cardiacreg.phantoms.toy_heart import make_toy_heart


class Call(NamedTuple):
    """A public call, and arguments by name with which it ends well."""

    function: Callable[..., object]
    arguments: dict[str, Any]
    refused_only: bool = False
    """Whether it is made only with what it must refuse, since it takes seconds where it does not."""


def public_calls(folder: Path) -> dict[str, Call]:
    """Return the calls by name; those that write, write into the folder."""
    return {
        **_nouns(),
        **_quick_calls(),
        **_writers(folder),
        **_readers(folder),
        **_long_calls(folder),
    }


HEART, OTHER = make_toy_heart(), make_toy_heart(size=0.9)
POINTS = cardiacreg.landmarks_from_labels(HEART.labels)
MOVES, CONTROL = (
    np.random.default_rng(0).normal(size=(5, 5, 5, 3)),
    np.diag([25.0, 25.0, 25.0, 1.0]),
)
SPLINE = FFD(Affine.identity(), MOVES, CONTROL)
LATTICE = Lattice((6, 6, 4), np.diag([10.0, 10.0, 12.0, 1.0]))


def _nouns() -> dict[str, Call]:
    array, matrix = np.array(HEART.labels.array), np.array(HEART.labels.voxel_to_world)
    return {
        "Affine": Call(Affine, {"matrix": matrix}),
        "LabelMap": Call(cardiacreg.LabelMap, {"array": array, "voxel_to_world": matrix}),
        "Volume": Call(cardiacreg.Volume, {"array": array, "voxel_to_world": matrix}),
        "Landmarks": Call(cardiacreg.Landmarks, {"points_mm": POINTS.points_mm}),
        "Subject": Call(cardiacreg.Subject, {
            "labels": HEART.labels, "image": HEART.image, "landmarks": POINTS, "name": "a"}),
        "FFD": Call(FFD, {"affine": Affine.identity(), "displacements_mm": MOVES,
                          "lattice_to_world": CONTROL}),
        "FFDChain": Call(cardiacreg.FFDChain, {"links": (SPLINE,)}),
        "Lattice": Call(Lattice, {"shape": (5, 5, 5), "voxel_to_world": matrix}),
        "RefineOptions": Call(RefineOptions, {"n_atlases": 5, "affine_candidates": 8,
                                              "orientation": "auto", "metadata": {}}),
        "RegistrationOptions": Call(cardiacreg.RegistrationOptions, {
            "spacings_mm": (16.0, 8.0), "iterations": (5, 5), "strides": (2, 1),
            "bending_weight": 0.1}),
        "FusionOptions": Call(cardiacreg.FusionOptions, {
            "patch": (3, 3, 1), "search": (3, 3, 1), "bandwidth": 10.0}),
        "Degradation": Call(cardiacreg.Degradation, {}),
    }  # fmt: skip


def _quick_calls() -> dict[str, Call]:
    labels, other = HEART.labels, OTHER.labels
    pair = {"a": labels, "b": other}
    calls: dict[str, tuple[Callable[..., object], dict[str, Any]]] = {
        "canonical_labels": (cardiacreg.canonical_labels, {"labels": labels, "preset": {1: "LV cavity"}}),
        "landmarks_from_labels": (cardiacreg.landmarks_from_labels, {"labels": labels}),
        "volumes_ml": (cardiacreg.volumes_ml, {"labels": labels}),
        "masses_g": (cardiacreg.masses_g, {"labels": labels}),
        "stack_volumes": (cardiacreg.stack_volumes, {
            "target": labels, "refined": other, "base_at_last_slice": True}),
        "clean_topology": (cardiacreg.clean_topology, {"labels": labels}),
        "fit_landmark_affine": (cardiacreg.fit_landmark_affine, {
            "target": POINTS, "atlas": POINTS, "model": "affine"}),
        "dice": (cardiacreg.dice, pair),
        "compare": (cardiacreg.compare, pair),
        "normalized_mutual_information": (cardiacreg.normalized_mutual_information, pair),
        "with_metadata": (cardiacreg.with_metadata, {"atlases": [HEART], "phase": "ED"}),
        "rank_atlases": (cardiacreg.rank_atlases, {
            "target": labels, "atlases": [OTHER], "affines": [Affine.identity()]}),
        "warp_labels": (cardiacreg.warp_labels, {
            "labels": labels, "transform": SPLINE, "grid": LATTICE}),
        "warp_volume": (cardiacreg.warp_volume, {
            "volume": HEART.image, "transform": SPLINE, "grid": LATTICE}),
        "dense_displacement": (cardiacreg.dense_displacement, {"transform": SPLINE, "grid": LATTICE}),
        "jacobian_map": (cardiacreg.jacobian_map, {"transform": SPLINE, "grid": LATTICE}),
        "invert_points": (cardiacreg.invert_points, {
            "transform": SPLINE, "points_mm": np.array([[30.0, 30.0, 30.0]])}),
    }  # fmt: skip
    return {name: Call(_by_place(call), given) for name, (call, given) in calls.items()}


def _writers(folder: Path) -> dict[str, Call]:
    calls: dict[str, tuple[Callable[..., object], str, Any]] = {
        "write_labels": (cardiacreg.write_labels, "w.nii", HEART.labels),
        "write_volume": (cardiacreg.write_volume, "w.nii", HEART.image),
        "write_landmarks": (cardiacreg.write_landmarks, "w.json", POINTS),
        "write_dof": (cardiacreg.write_dof, "w.dof", SPLINE),
        "write_itk_transform": (cardiacreg.write_itk_transform, "w.tfm", Affine.identity()),
    }
    return {
        name: Call(lambda path, value, write=write: write(path, value),
                   {"path": folder / file, "value": value})
        for name, (write, file, value) in calls.items()
    }  # fmt: skip


def _readers(folder: Path) -> dict[str, Call]:
    """Readers of a source of any kind; reading what is not there is the right argument."""
    absent = folder / "nowhere"
    readers: dict[str, tuple[Callable[..., object], dict[str, Any]]] = {
        "read_labels": (cardiacreg.read_labels, {"source": absent, "frame": None}),
        "read_volume": (cardiacreg.read_volume, {"source": absent, "frame": None}),
        "read_segmentation": (cardiacreg.read_segmentation, {
            "source": absent, "frame": None, "preset": None}),
        "read_landmarks": (cardiacreg.read_landmarks, {"path": absent, "space": None}),
        "read_dof": (cardiacreg.read_dof, {"path": absent}),
        "read_itk_transform": (cardiacreg.read_itk_transform, {"path": absent}),
        "read_displacement_field": (cardiacreg.read_displacement_field, {"path": absent}),
        "read_transforms": (cardiacreg.read_transforms, {"path": absent}),
        "read_surface": (cardiacreg.read_surface, {"path": absent}),
        "read_guide_points": (cardiacreg.read_guide_points, {"path": absent}),
        "read_cvi42": (cardiacreg.read_cvi42, {"path": absent}),
        "read_dicom_seg": (cardiacreg.read_dicom_seg, {"path": absent}),
        "load_result": (cardiacreg.load_result, {"folder": absent}),
        "load_cine": (cardiacreg.load_cine, {"folder": absent}),
        "verify_result": (cardiacreg.verify_result, {"folder": absent}),
        "AtlasBank": (cardiacreg.AtlasBank, {"folder": absent}),
        "verify_atlas_bank": (cardiacreg.verify_atlas_bank, {"folder": absent}),
        "open_atlas_folder": (cardiacreg.open_atlas_folder, {"folder": absent}),
        "find_patient": (cardiacreg.find_patient, {"folder": absent}),
        "cohort_status": (cardiacreg.cohort_status, {"folder": absent}),
    }  # fmt: skip
    return {name: Call(_by_place(call), how) for name, (call, how) in readers.items()}


def _by_place(call: Callable[..., object]) -> Callable[..., object]:
    """The call with its arguments without a default by place, whatever they are called."""
    needed = [
        each.name
        for each in inspect.signature(call).parameters.values()
        if each.default is each.empty and each.kind is each.POSITIONAL_OR_KEYWORD
    ]

    def called(**given: Any) -> object:
        count = max(1, len(needed))
        others = list(given)[count:]
        return call(*list(given.values())[:count], **{name: given[name] for name in others})

    return called


def _long_calls(folder: Path) -> dict[str, Call]:
    how = {"atlases": [OTHER], "threads": 1, "preset": None, "landmarks": None, "image": None,
           "spacing_mm": (2.5, 2.5, 4.0), "options": RefineOptions.fast()}  # fmt: skip
    few = {name: how[name] for name in ("atlases", "threads", "options")}
    calls: dict[str, tuple[Callable[..., object], dict[str, Any]]] = {
        "refine": (cardiacreg.refine, {"segmentation": HEART.labels} | how),
        "refine_cine": (cardiacreg.refine_cine, {"series": [HEART.labels, OTHER.labels]} | few),
        "refine_patient": (cardiacreg.refine_patient, {"patient": folder} | few),
        "build_atlas_bank": (cardiacreg.build_atlas_bank, {
            "folder": folder / "bank", "subjects": [HEART], "threads": 1}),
        "sample_heart": (cardiacreg.sample_heart, {"seed": 1, "group": "healthy", "phase": "ED"}),
        "measure": (cardiacreg.measure, {"ed": HEART.labels, "es": OTHER.labels}),
        "surfaces_of": (cardiacreg.surfaces_of, {"labels": HEART.labels}),
        "hausdorff_mm": (cardiacreg.hausdorff_mm, {"a": HEART.labels, "b": OTHER.labels}),
        "fuse_labels": (cardiacreg.fuse_labels, {
            "image": HEART.image, "atlases": [(HEART.image, HEART.labels)]}),
        "register_labels": (cardiacreg.register_labels, {
            "target": HEART.labels, "atlas": OTHER.labels, "start": Affine.identity()}),
    }  # fmt: skip
    return {name: Call(_by_place(call), given, True) for name, (call, given) in calls.items()}


def wrong_value(draw: Random, depth: int = 0) -> Any:
    """Return a value of any kind, drawn by number."""
    kind = draw.randrange(12 if depth < 2 else 8)
    if kind == 0:
        return draw.choice([None, True, False, object(), ..., int, len])
    if kind == 1:
        return draw.choice([0, 1, -1, 2, 7, 10**6, -(10**30), 2**63, draw.randrange(-99, 99)])
    if kind == 2:
        return draw.choice([0.0, -0.0, 0.5, -1.5, 1e-300, 1e300, float("inf"), float("nan"), 1j])
    if kind == 3:
        return draw.choice(
            ["", " ", "a", "ED", "0", "-1", "nan", "nowhere.nii", "x" * 300, "é心", "\0"]
        )
    if kind == 4:
        return draw.choice([b"", b"a", b"\xff\xfe", bytearray(b"1"), os.fsencode("nowhere.nii")])
    if kind == 5:
        return _odd_array(draw)
    if kind == 6:
        return draw.choice(
            [HEART, HEART.labels, HEART.image, POINTS, SPLINE, LATTICE, Path("nowhere")]
        )
    if kind == 7:
        return draw.choice([np.float64(1.5), np.int8(3), np.bool_(True), np.datetime64("NaT")])
    if kind == 8:
        return [wrong_value(draw, depth + 1) for _ in range(draw.randrange(4))]
    if kind == 9:
        return tuple(wrong_value(draw, depth + 1) for _ in range(draw.randrange(4)))
    if kind == 10:
        keys = [
            draw.choice(["a", "", 0, 1, None, 1.5, "LV cavity"]) for _ in range(draw.randrange(4))
        ]
        return {key: wrong_value(draw, depth + 1) for key in keys}
    return {draw.randrange(9) for _ in range(draw.randrange(3))}


def _odd_array(draw: Random) -> np.ndarray[Any, Any]:
    shape = tuple(draw.randrange(5) for _ in range(draw.randrange(5)))
    kind = draw.choice(["f8", "f4", "i8", "u1", "c16", "U1", "O", "?", "M8[s]", "S2"])
    filled = draw.choice([0, 1, 2, 255])
    array = np.full(shape, filled).astype(kind)
    if kind in ("f8", "f4") and draw.random() < 0.3:
        array = array * np.float64(draw.choice([np.nan, np.inf, 1e30]))
    return array[::-1] if array.ndim and draw.random() < 0.2 else array


def wrongly(call: Call, draw: Random) -> dict[str, Any]:
    """Return arguments of a call of which one or two are of any kind."""
    given = dict(call.arguments)
    if not given:
        return {f"a{draw.randrange(3)}": wrong_value(draw)}
    for name in draw.sample(sorted(given), min(len(given), draw.choice((1, 1, 1, 2)))):
        value = wrong_value(draw)
        while call.refused_only and (value is None or isinstance(value, int)):
            value = wrong_value(draw)
        given[name] = value
    return given
