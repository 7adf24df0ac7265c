"""One objective-and-gradient pass against this machine's limits, and what a registration costs.

Peak arithmetic and memory bandwidth are measured in the same run by two small kernels. A pass is counted
in floating-point operations and in bytes that must come from memory; counts follow the kernels of
`label_consistency`. Times are the least processor time of many passes, since the machine may be shared.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numba
import numpy as np

from benchmarks.harness import machine, tabulate
from cardiacreg.anatomy.landmarks import landmarks_from_labels
from cardiacreg.geometry import Affine, LabelMap
from cardiacreg.phantoms.acquisition import simulate_low_resolution
from cardiacreg.phantoms.hearts import FIRST_EVALUATION_SEED, sample_heart
from cardiacreg.registration.ffd_registration import (
    RegistrationOptions,
    prepare_target,
    register_prepared,
)
from cardiacreg.registration.label_affine import improve_affine
from cardiacreg.registration.label_consistency import ConsistencyObjective
from cardiacreg.registration.landmark_affine import fit_landmark_affine
from cardiacreg.registration.prepared_target import PreparedTarget
from cardiacreg.registration.regularisation import (
    BendingEnergy,
    FoldingPenalty,
    WhitenedDisplacements,
)
from cardiacreg.registration.target_sampling import TargetSamples
from cardiacreg.transforms.atlas_lookup import AtlasLookup, build_lookup
from cardiacreg.transforms.bspline import lattice_over_box

# Floating-point operations per voxel: four-term sums of three coordinates, tests of the bounds and the
# cell; and, in a mixed cell: fractions, trilinear weight with gradient, spreading to four rows.
_PER_VOXEL = 21 + 12
_PER_MIXED = 6 + 32 + 24
_PER_COLUMN = 3 * (7 + 8)
_FRESH = """
import time
start = time.perf_counter()
import sys, json
import cardiacreg
imported = time.perf_counter() - start
target, atlas = (cardiacreg.read_labels(p) for p in sys.argv[1:3])
import numpy as np
affine = cardiacreg.Affine(np.loadtxt(sys.argv[3]))
runs = []
for _ in range(4):
    begin, used = time.perf_counter(), time.process_time()
    cardiacreg.register_labels(target, atlas, affine, threads=1)
    runs.append((time.perf_counter() - begin, time.process_time() - used))
print(json.dumps({"import": imported, "runs": runs}))
"""


def run(quick: bool) -> dict[str, Any]:
    """Measure limits, passes and whole registrations."""
    repeats = 20 if quick else 150
    limits = {"gflops": _peak_gflops(), "gbytes_per_s": _bandwidth_gbytes()}
    hearts = targets()
    passes = []
    for name, (target, atlas, affine) in hearts.items():
        prepared = prepare_target(target, replace(RegistrationOptions(), background_slices=True))
        cells = build_lookup(atlas, prepared.codes.codes)
        for stride in (4, 2, 1):
            passes.append(_pass(name, prepared, cells, affine, stride, 16.0, repeats))
        for spacing in (64.0, 32.0, 8.0, 4.0):
            passes.append(_pass(name, prepared, cells, affine, 1, spacing, repeats))
    target, atlas, affine = hearts["stack"]
    return {
        "seeds": [FIRST_EVALUATION_SEED, FIRST_EVALUATION_SEED + 1],
        "limits": limits,
        "passes": passes,
        "terms": _terms(repeats),
        "threads": slab_seconds(hearts["dense"], repeats),
        "iterations": _iterations(target, atlas, affine),
        "registration": _fresh(target, atlas, affine),
    }


def targets() -> dict[str, tuple[LabelMap, LabelMap, Affine]]:
    """Return a stack and a dense heart, each with an atlas and its affine."""
    seed = FIRST_EVALUATION_SEED
    heart = sample_heart(seed, group="healthy").labels
    atlas = sample_heart(seed + 1, group="pulmonary_hypertension").labels
    stack = simulate_low_resolution(sample_heart(seed, group="healthy"), seed=seed).subject.labels
    found = {}
    for name, target in (("stack", stack), ("dense", heart)):
        fit = fit_landmark_affine(landmarks_from_labels(target), landmarks_from_labels(atlas))
        prepared = prepare_target(target, RegistrationOptions())
        found[name] = (target, atlas, improve_affine(prepared, atlas, fit.target_to_atlas))
    return found


def least_seconds(call: Callable[[], Any], repeats: int) -> float:
    """Return the least processor seconds of one thread that a call took."""
    call()
    best = float("inf")
    for _ in range(repeats):
        start = time.thread_time_ns()
        call()
        best = min(best, (time.thread_time_ns() - start) * 1e-9)
    return best


def _pass(
    name: str,
    prepared: PreparedTarget,
    cells: AtlasLookup,
    affine: Affine,
    stride: int,
    spacing_mm: float,
    repeats: int,
) -> dict[str, Any]:
    samples = prepared.samples.every(stride)
    objective, arguments = _problem(prepared, samples, cells, affine, spacing_mm)
    seconds = least_seconds(lambda: objective(*arguments), repeats)
    voxels = int((samples.spans[..., 1] - samples.spans[..., 0]).sum())
    mixed = _mixed(samples, cells, affine)
    shape = arguments[0].shape
    columns = len(samples.labels) * shape[0] * samples.labels.shape[2]
    operations = voxels * _PER_VOXEL + mixed * _PER_MIXED + columns * _PER_COLUMN
    # Labels and cells once each; control points and their gradients twice.
    octets = 2 * voxels + 8 * mixed + 4 * 8 * int(np.prod(shape))
    return {
        "target": name, "stride": stride, "spacing_mm": spacing_mm, "voxels": voxels, "mixed": mixed,
        "control_points": int(np.prod(shape[:3])), "milliseconds": round(1e3 * seconds, 4),
        "operations": operations, "bytes": octets,
    }  # fmt: skip


def _problem(
    prepared: PreparedTarget,
    samples: TargetSamples,
    cells: AtlasLookup,
    affine: Affine,
    spacing_mm: float,
    threads: int = 1,
) -> tuple[ConsistencyObjective, tuple[Any, ...]]:
    objective = ConsistencyObjective(
        samples, cells, affine.matrix @ samples.axes_to_world, prepared.codes.score, threads,
        shift_gradient=False,
    )  # fmt: skip
    origin, shape = lattice_over_box(prepared.lower_mm, prepared.upper_mm, spacing_mm)
    moved = np.random.default_rng(0).normal(size=(*shape, 3))
    shifts = np.zeros((len(samples.labels), 2))
    return objective, (moved, origin, np.full(3, spacing_mm), shifts)


def _mixed(samples: TargetSamples, cells: AtlasLookup, affine: Affine) -> int:
    """How many samples meet a cell of several labels, at rest."""
    axes = np.meshgrid(samples.position_mm[2], *samples.position_mm[:2], indexing="ij")
    positions = np.stack([axes[1], axes[2], axes[0]], axis=-1)
    matrix = np.linalg.inv(cells.voxel_to_world) @ affine.matrix @ samples.axes_to_world
    voxels = np.floor(positions @ matrix[:3, :3].T + matrix[:3, 3]).astype(int)
    columns = np.arange(samples.labels.shape[2])
    counted = (columns >= samples.spans[..., :1]) & (columns < samples.spans[..., 1:])
    inside = ((voxels >= 0) & (voxels < np.array(cells.codes.shape[1:]) - 1)).all(axis=-1) & counted
    return int((cells.codes[1][tuple(voxels[inside].T)] == 255).sum())


def _terms(repeats: int) -> dict[str, float]:
    """Milliseconds of what a pass is joined by, on the lattice of a stack's last level."""
    shape, spacing = (15, 13, 11, 3), np.full(3, 16.0)
    moved = 2.5 * np.random.default_rng(0).normal(size=shape)
    bending, folding = BendingEnergy(shape, spacing, 0.03), FoldingPenalty(shape, spacing, 0.3)
    whitened = WhitenedDisplacements(shape, spacing, 3.0, 0.03, 0.003)
    calls = {
        "bending energy": lambda: bending(moved),
        "folding penalty": lambda: folding(moved),
        "whitening, both ways": lambda: (whitened.displacements(moved), whitened.gradient(moved)),
    }
    return {name: round(1e3 * least_seconds(call, repeats), 4) for name, call in calls.items()}


def slab_seconds(
    target: tuple[LabelMap, LabelMap, Affine], repeats: int
) -> list[dict[str, float | int]]:
    """Time of the slowest thread when slabs are dealt out in turn: measured slab by slab."""
    labels, atlas, affine = target
    prepared = prepare_target(labels, replace(RegistrationOptions(), background_slices=True))
    cells, whole = build_lookup(atlas, prepared.codes.codes), prepared.samples
    found: list[dict[str, float | int]] = []
    for threads in (1, 2, 4, 8):
        slabs = np.array_split(np.arange(len(whole.labels)), 1 if threads == 1 else 2 * threads)
        seconds = []
        for slab in slabs:
            i, j, k = whole.position_mm
            part = replace(
                whole, labels=whole.labels[slab], spans=whole.spans[slab],
                position_mm=(i, j, k[slab]), slice_index=whole.slice_index[slab],
            )  # fmt: skip
            objective, arguments = _problem(prepared, part, cells, affine, 16.0)
            seconds.append(least_seconds(lambda o=objective, a=arguments: o(*a), repeats // 4 + 1))
        busiest = np.zeros(threads)
        for each in sorted(seconds, reverse=True):
            busiest[busiest.argmin()] += each
        found.append({"threads": threads, "milliseconds": round(1e3 * busiest.max(), 3)})
    return found


def _iterations(target: LabelMap, atlas: LabelMap, affine: Affine) -> list[dict[str, float]]:
    found, prepared = [], prepare_target(target, RegistrationOptions())
    for factor in (0, 1, 2, 4):
        options = RegistrationOptions()
        options = replace(options, iterations=tuple(factor * n // 2 for n in options.iterations))
        register_prepared(prepared, atlas, affine, options)
        start = time.process_time()
        done = register_prepared(prepared, atlas, affine, options)
        found.append(
            {
                "iterations": sum(done.iterations),
                "cpu_seconds": round(time.process_time() - start, 4),
                "consistency": round(done.consistency_after, 5),
            }
        )
    return found


def _fresh(target: LabelMap, atlas: LabelMap, affine: Affine) -> dict[str, float]:
    """First and later calls in a fresh process whose compiled kernels are on disk."""
    import tempfile
    from pathlib import Path

    from cardiacreg.io.nifti import write_labels

    with tempfile.TemporaryDirectory() as scratch:
        files = [str(Path(scratch) / name) for name in ("target.nii", "atlas.nii", "affine.txt")]
        write_labels(files[0], target)
        write_labels(files[1], atlas)
        np.savetxt(files[2], affine.matrix)
        for _ in range(2):
            done = subprocess.run(
                [sys.executable, "-c", _FRESH, *files], cwd=machine.ROOT, env=os.environ,
                capture_output=True, text=True, check=True,
            )  # fmt: skip
    measured = json.loads(done.stdout.splitlines()[-1])
    later = sorted(measured["runs"][1:], key=lambda r: r[1])
    return {
        "first_seconds": round(measured["runs"][0][0], 3),
        "first_cpu_seconds": round(measured["runs"][0][1], 3),
        "steady_seconds": round(later[0][0], 4),
        "steady_cpu_seconds": round(later[0][1], 4),
    }


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return the tables of the performance page."""
    peak = result["limits"]["gflops"]
    rows = []
    for p in result["passes"]:
        rate = p["operations"] / p["milliseconds"] * 1e-6
        rows.append(
            [
                f"{p['target']}, stride {p['stride']}, {p['spacing_mm']:g} mm",
                f"{p['voxels']}",
                f"{100 * p['mixed'] / p['voxels']:.0f} %",
                f"{p['control_points']}",
                f"{p['milliseconds']:.2f}",
                f"{1e6 * p['milliseconds'] / p['voxels']:.1f}",
                f"{p['operations'] / p['voxels']:.0f}",
                f"{p['bytes'] / p['voxels']:.1f}",
                f"{rate:.1f}",
                f"{100 * rate / peak:.0f} %",
            ]
        )
    header = [
        "pass", "voxels", "in mixed cells", "control points", "ms", "ns per voxel",
        "operations per voxel", "bytes per voxel", "GFlop/s", "of peak",
    ]  # fmt: skip
    limits = [
        ["arithmetic, multiply and add, float64", f"{peak:.1f} GFlop/s"],
        ["memory, triad", f"{result['limits']['gbytes_per_s']:.1f} GB/s"],
    ]
    fresh = result["registration"]
    whole = [
        [key.replace("_cpu_seconds", " call"), f"{value:.3f}"]
        for key, value in fresh.items()
        if "cpu" in key
    ]
    return {
        "roofline-limits": tabulate.markdown(["one thread of this machine", "limit"], limits),
        "roofline-passes": tabulate.markdown(header, rows),
        "roofline-terms": tabulate.markdown(
            ["with each pass, 15 x 13 x 11 control points", "ms"],
            [[name, f"{value:.3f}"] for name, value in result["terms"].items()],
        ),
        "roofline-threads": tabulate.markdown(
            ["threads", "ms of the busiest"],
            [[str(r["threads"]), f"{r['milliseconds']:.2f}"] for r in result["threads"]],
        ),
        "roofline-iterations": tabulate.markdown(
            ["iterations made", "processor seconds", "consistency"],
            [
                [str(r["iterations"]), f"{r['cpu_seconds']:.3f}", f"{r['consistency']:.4f}"]
                for r in result["iterations"]
            ],
        ),
        "roofline-registration": tabulate.markdown(
            ["one registration of a stack, one thread", "processor seconds"], whole
        ),
    }


@numba.njit(error_model="numpy")
def _multiply_add(values: np.ndarray, times: int) -> None:
    for _ in range(times):
        for n in range(values.size):
            x = values[n]
            x = x * 0.999 + 0.1
            x = x * 0.998 + 0.2
            x = x * 0.997 + 0.3
            x = x * 0.996 + 0.4
            x = x * 0.995 + 0.5
            x = x * 0.994 + 0.6
            x = x * 0.993 + 0.7
            values[n] = x * 0.992 + 0.8


@numba.njit(error_model="numpy")
def _triad(first: np.ndarray, second: np.ndarray, third: np.ndarray) -> None:
    for n in range(first.size):
        first[n] = second[n] + 0.5 * third[n]


def _peak_gflops() -> float:
    values, times = np.ones(1024), 2000
    seconds = least_seconds(lambda: _multiply_add(values, times), 20)
    return round(16 * values.size * times / seconds * 1e-9, 2)


def _bandwidth_gbytes() -> float:
    arrays = [np.ones(8_000_000) for _ in range(3)]
    seconds = least_seconds(lambda: _triad(*arrays), 10)
    return round(24 * arrays[0].size / seconds * 1e-9, 2)
