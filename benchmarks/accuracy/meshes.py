"""Volume meshes of synthetic hearts and of patients: how good, how long, and what they hold.

Synthetic hearts are drawn on the lattice of a refined model; patients (ACDC, on whom no setting was
chosen) are refined first, which is not timed. Volumes are compared with those of the labels. A good
boundary has no edge of more than two triangles.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.harness import tabulate
from benchmarks.harness.cases import DataAbsent, acdc
from benchmarks.harness.measuring import refine_quietly, rounded
from benchmarks.harness.store import Record, Unit, gather
from cardiacreg.geometry import LV_WALL, RV_WALL, LabelMap
from cardiacreg.meshes.tetrahedral import VolumeMesh, volume_mesh
from cardiacreg.phantoms.hearts import FIRST_EVALUATION_SEED, GROUPS, PHASES, sample_heart
from cardiacreg.results.saved_model import Model

EDGES_MM = (1.5, 2.5)
_HEARTS = 3
_PATIENTS = (3, 23)
"""None of those that settings were chosen on."""
_PHASE = "ED"


def run(quick: bool, cases: int = _HEARTS) -> dict[str, Any]:
    """Mesh 3 hearts and 2 patients with two edges each (1 heart with coarse edges in a quick run)."""
    groups = tuple(GROUPS)
    edges = (5.0,) if quick else EDGES_MM
    units = [
        _heart_unit(FIRST_EVALUATION_SEED + 200 + n, groups[n % len(groups)], PHASES[n % 2], edge)
        for n in range(1 if quick else cases)
        for edge in edges
    ]
    return {"seeds": [], "records": gather("meshes", [*units, *([] if quick else _patients())])}


def _patients() -> list[Unit]:
    try:
        frames = [frame for frame in acdc(_PATIENTS) if frame.phase == _PHASE]
    except DataAbsent:
        return []
    found = []
    for frame in frames:
        for edge in EDGES_MM:
            head = {"case": frame.name, "kind": "patients", "edge_mm": edge}

            def measure(frame: Any = frame, head: Record = head) -> Record:
                result = refine_quietly(frame.labels, image=frame.image, preset=frame.preset)
                return rounded(head | _measured(result, result.labels, head["edge_mm"]))

            found.append(Unit(head, measure))
    return found


def _heart_unit(seed: int, group: str, phase: str, edge_mm: float) -> Unit:
    case = f"{group}_{phase}_{seed}"
    head = {"case": case, "kind": "synthetic hearts", "edge_mm": edge_mm}

    def measure() -> Record:
        heart = sample_heart(seed, group=group, phase=phase, with_image=False)
        return rounded(head | _measured(heart.labels, heart.labels, edge_mm))

    return Unit(head, measure)


def _measured(model: Model, labels: LabelMap, edge_mm: float) -> Record:
    start = time.process_time()
    mesh = volume_mesh(model, edge_mm=edge_mm)
    seconds = time.process_time() - start
    quality = mesh.scaled_jacobians()
    counts = np.bincount(labels.array.ravel(), minlength=5) * np.prod(labels.spacing_mm) / 1000
    volumes = mesh.volumes_ml()
    truth = {"LV wall": counts[LV_WALL], "RV wall": counts[RV_WALL]}
    return {
        "seconds": seconds,
        "tetrahedra": len(mesh.tetrahedra),
        "least_scaled_jacobian": float(quality.min()),
        "mean_scaled_jacobian": float(quality.mean()),
        "volume_errors": {name: 100 * (volumes[name] / ml - 1) for name, ml in truth.items()},
        "pinched_edges": _pinched_edges(mesh),
    }


def _pinched_edges(mesh: VolumeMesh) -> int:
    """Edges of the boundary that more than two of its triangles share."""
    pairs = [mesh.triangles[:, pair] for pair in ([0, 1], [1, 2], [2, 0])]
    _, count = np.unique(np.sort(np.concatenate(pairs), axis=1), axis=0, return_counts=True)
    return int((count != 2).sum())


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return one table: a row per kind of heart and edge."""
    records = [r for r in result["records"] if "error" not in r]
    if not records:
        return {}
    kinds = dict.fromkeys((r["kind"], r["edge_mm"]) for r in records)
    rows = [
        _row(kind, edge, [r for r in records if (r["kind"], r["edge_mm"]) == (kind, edge)])
        for kind, edge in kinds
    ]
    header = ["hearts, edge of the lattice", "tetrahedra", "processor seconds, most",
              "scaled Jacobian, least", "mean", "LV wall, % of the labels'", "RV wall, %",
              "pinched edges, most"]  # fmt: skip
    return {"meshes": tabulate.markdown(header, rows)}


def _row(kind: str, edge: float, found: Sequence[Record]) -> list[str]:
    errors = [[r["volume_errors"][name] for r in found] for name in ("LV wall", "RV wall")]
    return [
        f"{len(found)} {kind}, {edge} mm",
        f"{np.mean([r['tetrahedra'] for r in found]):.0f}",
        f"{np.median([r['seconds'] for r in found]):.0f}, {max(r['seconds'] for r in found):.0f}",
        f"{min(r['least_scaled_jacobian'] for r in found):.2f}",
        f"{np.mean([r['mean_scaled_jacobian'] for r in found]):.2f}",
        *(f"{np.mean(each):+.1f} [{min(each):+.1f}, {max(each):+.1f}]" for each in errors),
        str(max(r["pinched_edges"] for r in found)),
    ]
