"""Surfaces of models against true surfaces of synthetic hearts, and against other ways to make them.

Truth: every structure's share of voxels of 0.6 mm, taken from the analytic heart with a border of 1 mm,
at its level of one half. Models: the same hearts as labels on the lattice of a refined model, so that
only the making of the surfaces is judged. "True shares" takes level sets of the shares that the
structures have in the model's voxels: what a field finer than labels could give at best.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from benchmarks.harness import tabulate
from benchmarks.harness.comparators import available
from benchmarks.harness.measuring import rounded
from benchmarks.harness.store import Record, Unit, gather
from cardiacreg.geometry import LV_CAVITY, LV_WALL, RV_CAVITY, RV_WALL, LabelMap
from cardiacreg.phantoms.anatomy import heart_fields, structure_fractions
from cardiacreg.phantoms.hearts import FIRST_EVALUATION_SEED, GROUPS, PHASES, sample_heart
from cardiacreg.phantoms.population import sample_shape
from cardiacreg.surfaces.extraction import surfaces_of
from cardiacreg.surfaces.level_fields import STRUCTURES_INSIDE, level_set
from cardiacreg.surfaces.triangles import Surface

OURS = "nested level sets (ours)"
SHARES = "level sets of true shares"
CUBES = "marching cubes of labels"
ALONE = "each label smoothed alone"
NETS = "SurfaceNets of labels (VTK)"
_TRUE_STEP_MM, _SOFTNESS_MM = 0.6, 1.0
_SMOOTHING_MM = 1.5
_HEARTS = 10
_CHECKED_HEARTS = 100
"""Of which only is asked whether surfaces are closed and have no handles."""
_KEYS = {LV_CAVITY: "lv_cavity", LV_WALL: "lv_wall", RV_WALL: "rv_wall", RV_CAVITY: "rv_cavity"}
_WALLS = {"LV wall": ("LV_EPI", "LV_ENDO"), "RV wall": ("RV_EPI", "RV_ENDO")}
_CAVITIES = {"LV cavity": "LV_ENDO", "RV cavity": "RV_ENDO"}

Shares = dict[str, NDArray[np.float32]]


def run(quick: bool, cases: int = _HEARTS) -> dict[str, Any]:
    """Measure 10 hearts of all groups and phases, and look for handles in 100 (1 each in a quick run)."""
    units = [_unit(*heart) for heart in _hearts(1 if quick else cases)]
    checks = [_check_unit(*heart) for heart in _hearts(1 if quick else _CHECKED_HEARTS)]
    records = gather("surfaces", [*units, *checks])
    return {
        "seeds": [],
        "records": [record for record in records if not record.get("only_checked")],
        "checked": [record for record in records if record.get("only_checked")],
    }


def _hearts(count: int) -> list[tuple[int, str, str]]:
    """Seed, group and phase of the first hearts."""
    groups = tuple(GROUPS)
    return [
        (FIRST_EVALUATION_SEED + n, groups[n % len(groups)], PHASES[n // len(groups) % 2])
        for n in range(count)
    ]


def _unit(seed: int, group: str, phase: str) -> Unit:
    head = {"case": f"{group}_{phase}_{seed}", "group": group, "phase": phase}
    return Unit(
        head | {"vtk": available("vtk")}, lambda: rounded(head | _measure(seed, group, phase))
    )


def _check_unit(seed: int, group: str, phase: str) -> Unit:
    head = {"case": f"{group}_{phase}_{seed}", "only_checked": True}

    def measure() -> Record:
        labels = sample_heart(seed, group=group, phase=phase, with_image=False).labels
        return head | {"checks": _checks(surfaces_of(labels))}

    return Unit(head, measure)


def _checks(surfaces: dict[str, Surface]) -> Record:
    return {
        name: {
            "triangles": len(surface.triangles),
            "closed": surface.is_closed(),
            "euler": surface.euler_characteristic(),
        }
        for name, surface in surfaces.items()
    }


def _measure(seed: int, group: str, phase: str) -> Record:
    labels = sample_heart(seed, group=group, phase=phase, with_image=False).labels
    truth = _Truth(seed, group, phase, labels)
    surfaces_of(labels)
    start = time.process_time()
    ours = surfaces_of(labels)
    seconds = time.process_time() - start
    made = {OURS: ours, SHARES: truth.level_sets(), CUBES: _cubes(labels)}
    sizes = truth.labels_ml(labels)
    volumes = {name: _volumes(surfaces) for name, surfaces in made.items()}
    volumes[ALONE] = _label_volumes(labels, _alone)
    if available("vtk"):
        volumes[NETS] = _nets(labels)
    return {
        "seconds": seconds,
        "volume_errors": {
            method: {name: 100 * (ml / sizes[name] - 1) for name, ml in found.items()}
            for method, found in volumes.items()
        },
        "distances": {
            method: {name: truth.compare(name, surface) for name, surface in surfaces.items()}
            for method, surfaces in made.items()
        },
    }


class _Truth:
    """True surfaces of a heart, as dense points with normals, and shares on the model's lattice."""

    def __init__(self, seed: int, group: str, phase: str, labels: LabelMap) -> None:
        self._shape = sample_shape(seed, group=group, phase=phase)
        self._labels = labels
        first = labels.voxel_to_world[:3, 3]
        last = first + labels.spacing_mm * (np.array(labels.shape) - 1)
        axes = tuple(np.arange(a, b, _TRUE_STEP_MM) for a, b in zip(first, last, strict=True))
        self._points = {}
        for name, field in self._fields(axes, _SOFTNESS_MM).items():
            vertices, triangles = level_set(field)
            corners = vertices[triangles] * _TRUE_STEP_MM + first
            normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
            normals /= np.maximum(np.linalg.norm(normals, axis=1)[:, None], 1e-12)
            self._points[name] = (cKDTree(corners.mean(axis=1)), normals)

    def _fields(self, axes: Any, softness_mm: float) -> Shares:
        found = structure_fractions(
            heart_fields(self._shape, axes), self._shape.rv_wall_mm, softness_mm
        )
        return {
            name: np.sum([found[_KEYS[label]] for label in inside], axis=0) - np.float32(0.5)
            for name, inside in STRUCTURES_INSIDE.items()
        }

    def level_sets(self) -> dict[str, Surface]:
        """Level sets of the shares in the voxels of the model."""
        labels = self._labels
        axes = tuple(
            start + step * np.arange(n)
            for start, step, n in zip(
                labels.voxel_to_world[:3, 3], labels.spacing_mm, labels.shape, strict=True
            )
        )
        shares = self._fields(axes, float(labels.spacing_mm[:2].mean()))
        return {name: _surface(field, labels, name) for name, field in shares.items()}

    def labels_ml(self, labels: LabelMap) -> dict[str, float]:
        """Volumes of the labels, which the surfaces are to hold."""
        ml = (
            np.bincount(labels.array.ravel(), minlength=5)
            * float(np.prod(labels.spacing_mm))
            / 1000
        )
        return {"LV cavity": ml[LV_CAVITY], "LV wall": ml[LV_WALL],
                "RV cavity": ml[RV_CAVITY], "RV wall": ml[RV_WALL]}  # fmt: skip

    def compare(self, name: str, surface: Surface) -> dict[str, float]:
        """Distances of triangles' centres to the true surface, mm, and angles of normals, degrees."""
        tree, true_normals = self._points[name]
        corners = surface.vertices_mm[surface.triangles]
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        areas = np.linalg.norm(normals, axis=1)
        normals /= np.maximum(areas[:, None], 1e-12)
        centres = corners.mean(axis=1)
        _, near = tree.query(centres)
        offsets = centres - tree.data[near]
        distances = np.abs((offsets * true_normals[near]).sum(axis=1))
        angles = np.degrees(np.arccos(np.clip((normals * true_normals[near]).sum(axis=1), -1, 1)))
        return {
            "mean_mm": float(np.average(distances, weights=areas)),
            "p95_mm": float(np.quantile(distances, 0.95)),
            "max_mm": float(np.linalg.norm(offsets, axis=1).max()),
            "normals_degrees": float(np.average(angles, weights=areas)),
        }


def _surface(field: NDArray[np.float32], labels: LabelMap, name: str = "") -> Surface:
    vertices, triangles = level_set(np.pad(field, 1, constant_values=-0.5))
    place = labels.voxel_to_world[:3, 3]
    return Surface((vertices - 1) * labels.spacing_mm + place, triangles, name)


def _cubes(labels: LabelMap) -> dict[str, Surface]:
    return {
        name: _surface(np.isin(labels.array, inside).astype(np.float32) - 0.5, labels, name)
        for name, inside in STRUCTURES_INSIDE.items()
    }


def _volumes(surfaces: dict[str, Surface]) -> dict[str, float]:
    ml = {name: surface.volume_ml() for name, surface in surfaces.items()}
    return {name: ml[key] for name, key in _CAVITIES.items()} | {
        name: ml[outer] - ml[inner] for name, (outer, inner) in _WALLS.items()
    }


def _label_volumes(labels: LabelMap, make: Callable[[LabelMap, int], Surface]) -> dict[str, float]:
    names = {"LV cavity": LV_CAVITY, "LV wall": LV_WALL, "RV cavity": RV_CAVITY, "RV wall": RV_WALL}
    return {name: make(labels, label).volume_ml() for name, label in names.items()}


def _alone(labels: LabelMap, label: int) -> Surface:
    mask = (labels.array == label).astype(np.float32)
    return _surface(ndimage.gaussian_filter(mask, _SMOOTHING_MM / labels.spacing_mm) - 0.5, labels)


def _nets(labels: LabelMap) -> dict[str, float]:
    """Volumes inside the surfaces of each label, all smoothed together, by VTK's defaults."""
    from vtkmodules.util.numpy_support import numpy_to_vtk, vtk_to_numpy
    from vtkmodules.vtkCommonDataModel import vtkImageData
    from vtkmodules.vtkFiltersCore import vtkSurfaceNets3D

    array = np.pad(labels.array, 2)
    image = vtkImageData()
    image.SetDimensions(*array.shape)
    image.SetSpacing(*labels.spacing_mm)
    image.GetPointData().SetScalars(numpy_to_vtk(array.ravel(order="F"), deep=1))
    nets = vtkSurfaceNets3D()
    nets.SetInputData(image)
    for n, label in enumerate((1, 2, 3, 4)):
        nets.SetValue(n, label)
    nets.SetOutputMeshTypeToTriangles()
    nets.Update()
    mesh = nets.GetOutput()
    points = vtk_to_numpy(mesh.GetPoints().GetData()).astype(np.float64)
    faces = vtk_to_numpy(mesh.GetPolys().GetConnectivityArray()).reshape(-1, 3)
    sides = vtk_to_numpy(mesh.GetCellData().GetArray("BoundaryLabels")).astype(int)
    a, b, c = (points[faces[:, corner]] for corner in range(3))
    parts = np.einsum("ij,ij->i", a, np.cross(b, c)) / 6000
    names = {"LV cavity": LV_CAVITY, "LV wall": LV_WALL, "RV cavity": RV_CAVITY, "RV wall": RV_WALL}
    return {
        name: abs(float(parts[sides[:, 0] == label].sum() - parts[sides[:, 1] == label].sum()))
        for name, label in names.items()
    }


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return volumes, distances and checks."""
    records = [r for r in result["records"] if "error" not in r]
    if not records:
        return {}
    return {
        "surfaces-volumes": _volume_table(records),
        "surfaces-distances": _distance_table(records),
        "surfaces-checks": _check_table(result.get("checked", []), records),
    }


def _volume_table(records: Sequence[Record]) -> str:
    rows = []
    for method in (OURS, CUBES, ALONE, NETS):
        found = [r["volume_errors"][method] for r in records if method in r["volume_errors"]]
        if found:
            cells = []
            for name in tabulate.ORDER:
                errors = np.array([each[name] for each in found])
                cells.append(f"{errors.mean():+.2f} [{errors.min():+.2f}, {errors.max():+.2f}]")
            rows.append([method, *cells])
    return tabulate.markdown(["volume minus the labels', %, mean [range]", *tabulate.ORDER], rows)


def _distance_table(records: Sequence[Record]) -> str:
    rows = []
    for method in (OURS, SHARES, CUBES):
        for name in STRUCTURES_INSIDE:
            found = [r["distances"][method][name] for r in records]
            mean, p95, most, normals = (
                [each[key] for each in found]
                for key in ("mean_mm", "p95_mm", "max_mm", "normals_degrees")
            )
            rows.append([
                f"{method}: {name}", tabulate.mean_sd(mean, 2), tabulate.mean_sd(p95, 2),
                f"{max(most):.1f}", tabulate.mean_sd(normals, 1),
            ])  # fmt: skip
    header = ["against the true surface", "mean, mm", "95 %, mm", "farthest of all, mm"]
    return tabulate.markdown([*header, "normals, degrees"], rows)


def _check_table(checked: Sequence[Record], records: Sequence[Record]) -> str:
    rows = []
    known = [record for record in checked if "error" not in record]
    for name in STRUCTURES_INSIDE:
        found = [record["checks"][name] for record in known]
        rows.append([
            name, f"{sum(c['closed'] for c in found)} of {len(found)}",
            f"{sum(c['euler'] == 2 for c in found)} of {len(found)}",
            str(max((c["triangles"] for c in found), default=0)),
        ])  # fmt: skip
    seconds = [r["seconds"] for r in records]
    rows.append([f"all five: processor seconds {np.median(seconds):.2f}, at most {max(seconds):.2f}",
                 "–", "–", "–"])  # fmt: skip
    return tabulate.markdown(["surface", "closed", "without handles", "most triangles"], rows)
