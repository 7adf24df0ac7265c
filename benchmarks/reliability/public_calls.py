"""Public calls that take values, with arguments that are right, and ways to make one or two wrong."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np

import cardiacreg
from benchmarks.reliability import damaged_files as files
from benchmarks.reliability.wrong_values import (
    CONTROL,
    HEART,
    LATTICE,
    MOVES,
    OTHER,
    POINTS,
    SPLINE,
    nearly,
    wrong_value,
)
from cardiacreg import FFD, Affine, Lattice, RefineOptions

_NEARLY, _SELDOM_NEARLY = 0.4, 0.03
"""How often an argument is nearly right, so that more is carried out, and where that is long."""


class Call(NamedTuple):
    """A public call, and arguments by name with which it ends well."""

    function: Callable[..., object]
    arguments: dict[str, Any]
    is_long: bool = False
    """Whether it takes half a second or more where it ends well."""
    prepare: Callable[[], object] = lambda: None
    """Writes what the arguments name."""


def public_calls(folder: Path) -> dict[str, Call]:
    """Return the calls by name; those that read or write do so in the folder."""
    return {
        **_nouns(),
        **_quick_calls(),
        **_writers(folder),
        **_readers(folder),
        **_folder_readers(folder),
        **_studies(folder),
        **_measured(folder),
        **_long_calls(folder),
    }


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
                                              "orientation": "auto", "metadata": (("phase", "ED"),)}),
        "RegistrationOptions": Call(cardiacreg.RegistrationOptions, {
            "spacings_mm": (16.0, 8.0), "iterations": (5, 5), "strides": (2, 1),
            "bending_weight": 0.1}),
        "FusionOptions": Call(cardiacreg.FusionOptions, {
            "patch": (3, 3, 1), "search": (3, 3, 1), "bandwidth": 10.0}),
        "Degradation": Call(cardiacreg.Degradation, {
            "slice_thickness_mm": 10.0, "in_plane_spacing_mm": 1.5, "shift_sd_mm": 1.0,
            "lost_apical_slices": 1, "label_rule": "clinical", "empty_slices": "random"}),
        "ViewAcquisition": Call(cardiacreg.ViewAcquisition, {
            "thickness_mm": 8.0, "pixel_mm": 1.5, "shift_sd_mm": 1.0, "draw_rv_wall": False}),
        "View": Call(cardiacreg.View, {
            "segmentation": HEART.labels, "image": HEART.image, "name": "four_chamber"}),
        "FibreAngles": Call(cardiacreg.FibreAngles, {"endo_degrees": 40.0, "epi_degrees": -50.0}),
        "Surface": Call(cardiacreg.Surface, {
            "vertices_mm": np.eye(3) * 10, "triangles": np.array([[0, 1, 2]]), "name": "a"}),
        "DisplacementField": Call(cardiacreg.DisplacementField, {
            "displacements_mm": MOVES, "voxel_to_world": CONTROL}),
        "BSplineMap": Call(cardiacreg.BSplineMap, {
            "displacements_mm": MOVES, "lattice_to_world": CONTROL, "order": 3}),
        "TransformChain": Call(cardiacreg.TransformChain, {"maps": (SPLINE, Affine.identity())})
    }  # fmt: skip


def _quick_calls() -> dict[str, Call]:
    labels, other = HEART.labels, OTHER.labels
    pair = {"a": labels, "b": other}
    calls: dict[str, tuple[Callable[..., object], dict[str, Any]]] = {
        "canonical_labels": (cardiacreg.canonical_labels, {
            "labels": labels, "preset": {1: 1, 2: 2, 3: 3, 4: 4}}),
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
        "with_metadata": (cardiacreg.with_metadata, {
            "atlases": [replace(HEART, metadata={"phase": "ED"})], "phase": "ED"}),
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


@lru_cache
def _measures() -> cardiacreg.Measures:
    return cardiacreg.measure(HEART.labels, OTHER.labels)


def _measured(folder: Path) -> dict[str, Call]:
    labels, other = HEART.labels, OTHER.labels
    pair, path = {"a": labels, "b": other, "label": None}, folder / "w.csv"
    found = _measures()
    finding = files.one_result().findings
    calls: dict[str, tuple[Callable[..., object], dict[str, Any]]] = {
        "hausdorff_mm": (cardiacreg.hausdorff_mm, pair),
        "hausdorff95_mm": (cardiacreg.hausdorff95_mm, pair),
        "hausdorff_slicewise_mm": (cardiacreg.hausdorff_slicewise_mm, pair),
        "average_surface_distance_mm": (cardiacreg.average_surface_distance_mm, pair),
        "normalized_surface_dice": (cardiacreg.normalized_surface_dice, pair | {"tolerance_mm": 2.0}),
        "judge": (cardiacreg.judge, {
            "findings": finding, "agreement": {"LV cavity": 0.9}, "minimum_jacobian": 0.5}),
        "labels_from_contours": (cardiacreg.labels_from_contours, {
            "contours": [(np.array([[0, 0, 8], [20, 0, 8], [20, 20, 8.0]]), 1)], "shape": (10, 10, 4),
            "voxel_to_world": np.diag([2.5, 2.5, 8.0, 1.0]), "edge_pixels": 0.0}),
        "mean_displacement": (cardiacreg.mean_displacement, {
            "transforms": [SPLINE, SPLINE], "grid": LATTICE}),
        "carried_surface": (cardiacreg.carried_surface, {
            "surface": cardiacreg.Surface(np.eye(3) * 10, np.array([[0, 1, 2]])),
            "target_to_atlas": SPLINE, "onto": None}),
        "simulate_low_resolution": (cardiacreg.simulate_low_resolution, {
            "subject": HEART, "seed": 1, "slice_thickness_mm": 10.0, "shift_sd_mm": 1.0,
            "lost_apical_slices": 1, "label_rule": "any"}),
        "write_measures_csv": (cardiacreg.write_measures_csv, {"path": path, "measures": {"ED": found}}),
        "write_cohort_report": (cardiacreg.write_cohort_report, {
            "table": [{"subject": "a", "state": "done"}], "path": folder / "w.html", "title": "a",
            "overwrite": True}),
    }  # fmt: skip
    return {name: Call(_by_place(call), given) for name, (call, given) in calls.items()}


def _writers(folder: Path) -> dict[str, Call]:
    calls: dict[str, tuple[Callable[..., object], str, Any]] = {
        "write_labels": (cardiacreg.write_labels, "w.nii", HEART.labels),
        "write_volume": (cardiacreg.write_volume, "w.nii", HEART.image),
        "write_segmentation": (cardiacreg.write_segmentation, "w.nii.gz", HEART.labels),
        "write_landmarks": (cardiacreg.write_landmarks, "w.json", POINTS),
        "write_dof": (cardiacreg.write_dof, "w.dof", SPLINE),
        "write_itk_transform": (cardiacreg.write_itk_transform, "w.tfm", Affine.identity()),
        "write_transforms": (partial(cardiacreg.write_transforms, names=["a"]), "w.npz", [SPLINE]),
        "write_displacement_field": (
            cardiacreg.write_displacement_field, "w.nii.gz",
            cardiacreg.dense_displacement(SPLINE, LATTICE)),
        "write_surface": (
            cardiacreg.write_surface, "w.ply", cardiacreg.Surface(np.eye(3), np.array([[0, 1, 2]]))),
        "write_guide_points": (
            partial(cardiacreg.write_guide_points, overwrite=True), "w", HEART.labels),
    }  # fmt: skip
    return {
        name: Call(lambda path, value, write=write: write(path, value),
                   {"path": folder / file, "value": value})
        for name, (write, file, value) in calls.items()
    }  # fmt: skip


def _readers(folder: Path) -> dict[str, Call]:
    """Readers of a source of any kind, which are given a file that is right."""
    readers: dict[str, tuple[Callable[..., object], str, dict[str, Any]]] = {
        "read_labels": (cardiacreg.read_labels, "labels.nii", {"frame": None}),
        "read_volume": (cardiacreg.read_volume, "image.nii.gz", {"frame": None}),
        "read_segmentation": (cardiacreg.read_segmentation, "labels.nii.gz", {
            "frame": None, "preset": {1: 1, 2: 2, 3: 3, 4: 4}}),
        "read_landmarks": (cardiacreg.read_landmarks, "points.vtk", {"space": "LPS"}),
        "read_dof": (cardiacreg.read_dof, "spline.dof", {}),
        "read_itk_transform": (cardiacreg.read_itk_transform, "affine.mat", {"index": None}),
        "read_displacement_field": (cardiacreg.read_displacement_field, "field.nii.gz", {
            "space": "LPS"}),
        "read_transforms": (cardiacreg.read_transforms, "transforms.npz", {}),
        "read_surface": (cardiacreg.read_surface, "surface.ply", {"space": None}),
        "read_guide_points": (cardiacreg.read_guide_points, "guide points: GPFile_000.txt", {}),
        "read_cvi42": (cardiacreg.read_cvi42, "contours.cvi42wsx", {}),
        "convert": (cardiacreg.convert, "labels.nii", {
            "destination": folder / "w.nii.gz", "space_from": None, "space_to": None, "frame": None,
            "overwrite": True}),
    }  # fmt: skip
    if "labels.dcm" in _kinds():
        readers["read_dicom_seg"] = (cardiacreg.read_dicom_seg, "labels.dcm", {"preset": None})
    return {
        name: Call(
            _by_place(read), {"source": _kinds()[kind].path(folder)} | more,
            prepare=partial(_kinds()[kind].put, folder),
        )
        for name, (read, kind, more) in readers.items()
    }  # fmt: skip


@lru_cache
def _kinds() -> dict[str, files.Kind]:
    return {each.name: each for each in files.kinds()}


def _folder_readers(folder: Path) -> dict[str, Call]:
    readers: dict[str, tuple[Callable[..., object], str]] = {
        "load_result": (cardiacreg.load_result, "result: result.json"),
        "load_cine": (cardiacreg.load_cine, "cine: cine.json"),
        "AtlasBank": (cardiacreg.AtlasBank, "bank: index.json"),
        "verify_atlas_bank": (cardiacreg.verify_atlas_bank, "bank: index.json"),
        "find_patient": (cardiacreg.find_patient, "patient: patient.csv"),
        "cohort_status": (cardiacreg.cohort_status, "cohort: cohort.json"),
    }
    found = {}
    for name, (read, kind) in readers.items():
        path = _kinds()[kind].path(folder)
        found[name] = Call(
            _by_place(read), {"folder": path.parent}, prepare=partial(_kinds()[kind].put, folder)
        )
    return found | {
        "open_atlas_folder": Call(
            _by_place(cardiacreg.open_atlas_folder),
            {"folder": folder / "patient", "preset": None},
            prepare=partial(_written_atlases, folder / "patient"),
        )
    }


def _written_atlases(folder: Path) -> None:
    for n, heart in enumerate((HEART, OTHER)):
        (folder / str(n)).mkdir(parents=True)
        cardiacreg.write_labels(folder / str(n) / "labels.nii.gz", heart.labels)


def _studies(folder: Path) -> dict[str, Call]:
    """Calls of DICOM."""
    name = next((each for each in _kinds() if each.startswith("study: ")), "")
    if not name:
        return {}
    path = _kinds()[name].path(folder)
    small = cardiacreg.Volume(HEART.image.array[:6, :6, :2], HEART.image.voxel_to_world)
    return {
        "read_dicom_cine": Call(
            _by_place(cardiacreg.read_dicom_cine), {"folder": path.parent, "still_images": False},
            prepare=partial(_kinds()[name].put, folder),
        ),
        "write_dicom_cine": Call(_by_place(cardiacreg.write_dicom_cine), {
            "folder": folder / "written", "frames": [small, small], "times_ms": (0.0, 40.0),
            "patient": "a", "overwrite": True}),
    }  # fmt: skip


@lru_cache
def _left_ventricle() -> cardiacreg.LabelMap:
    heart = cardiacreg.sample_heart(
        1, group="hypertrophic", spacing_mm=(2.5, 2.5, 4.0), with_image=False
    ).labels
    return cardiacreg.LabelMap(heart.array * (heart.array < 3), heart.voxel_to_world)


def _long_calls(folder: Path) -> dict[str, Call]:
    how = {"atlases": [OTHER], "threads": 1, "preset": "canonical", "landmarks": POINTS,
           "image": HEART.image, "views": (), "frame": None,
           "spacing_mm": (2.5, 2.5, 4.0), "options": RefineOptions.fast()}  # fmt: skip
    few = {name: how[name] for name in ("atlases", "threads", "options", "spacing_mm")}
    series, given = [HEART.labels, OTHER.labels], {"labels": HEART.labels}
    calls: dict[str, tuple[Callable[..., object], dict[str, Any]]] = {
        "refine": (cardiacreg.refine, {"segmentation": HEART.labels} | how),
        "refine_cine": (cardiacreg.refine_cine, {
            "series": series, "frames": "all", "ed": 0, "es": 1, "times_ms": (0.0, 300.0)} | few),
        "refine_patient": (cardiacreg.refine_patient, {"patient": folder / "patient"} | few),
        "refine_cohort": (cardiacreg.refine_cohort, {
            "source": folder / "one.csv", "output": folder / "cohort", "shard": (1, 1), "threads": 1}),
        "build_atlas_bank": (cardiacreg.build_atlas_bank, {
            "folder": folder / "bank", "subjects": [HEART], "threads": 1}),
        "append_to_atlas_bank": (cardiacreg.append_to_atlas_bank, {
            "folder": folder / "bank", "subjects": [HEART], "threads": 1}),
        "sample_heart": (cardiacreg.sample_heart, {
            "seed": 1, "group": "healthy", "phase": "ED", "spacing_mm": (2.5, 2.5, 4.0)}),
        "simulate_views": (cardiacreg.simulate_views, {
            "heart": HEART, "names": ("four_chamber",), "seed": 1}),
        "measure": (cardiacreg.measure, {
            "ed": HEART.labels, "es_result": OTHER.labels, "height_cm": 170.0, "weight_kg": 70.0}),
        "measure_cine": (cardiacreg.measure_cine, {"cine": files.one_cine(), "cycle_ms": 800.0}),
        "wall_coordinates": (cardiacreg.wall_coordinates, given),
        "surfaces_of": (cardiacreg.surfaces_of, given | {"triangles": 2000, "structures": None}),
        "volume_mesh": (cardiacreg.volume_mesh, {"model": _left_ventricle(), "edge_mm": 5.0}),
        "write_report": (cardiacreg.write_report, {
            "result": files.one_result(), "path": folder / "w.html", "overwrite": True}),
        "AtlasIndex.build": (cardiacreg.AtlasIndex.build, {"atlases": [HEART, OTHER]}),
        "rank_atlases_by_image": (cardiacreg.rank_atlases_by_image, {
            "target": HEART, "atlases": [OTHER], "affines": [Affine.identity()], "levels": 32}),
        "fuse_labels": (cardiacreg.fuse_labels, {
            "image": HEART.image, "atlases": [(HEART.image, HEART.labels)]}),
        "register_labels": (cardiacreg.register_labels, {
            "target": HEART.labels, "atlas": OTHER.labels, "target_to_atlas": Affine.identity(),
            "options": RefineOptions.fast().registration, "threads": 1}),
        "verify_result": (cardiacreg.verify_result, {
            "folder": folder / "result", "segmentation": HEART.labels, "atlases": [OTHER]}),
    }  # fmt: skip
    prepared = {
        "refine_patient": "patient: patient.csv",
        "append_to_atlas_bank": "bank: index.json",
        "verify_result": "result: result.json",
    }
    found = {name: Call(_by_place(call), given, True) for name, (call, given) in calls.items()}
    for name, kind in prepared.items():
        write = partial(_kinds()[kind].put, folder)
        found[name] = found[name]._replace(prepare=write)
    table = partial((folder / "one.csv").write_text, "subject,labels\na,nowhere.nii.gz\n")
    return found | {"refine_cohort": found["refine_cohort"]._replace(prepare=table)}


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


def wrongly(call: Call, draw: Random) -> dict[str, Any]:
    """Return arguments of a call of which one or two are of any kind, or nearly right."""
    given, often = dict(call.arguments), _SELDOM_NEARLY if call.is_long else _NEARLY
    for name in draw.sample(sorted(given), min(len(given), draw.choice((1, 1, 1, 2)))):
        if draw.random() < often:
            given[name] = nearly(given[name], draw)
            continue
        value = wrong_value(draw)
        while call.is_long and (value is None or isinstance(value, int)):
            value = wrong_value(draw)
        given[name] = value
    return given
