"""Two dense label maps registered by us at several lattices and by other packages, side by side.

Each registration runs in a process of its own, two threads, from the same affine, and gives back where
every fixed voxel goes; all maps are scored alike: the moving labels pulled back by nearest neighbour.
Ours is measured at the second call of its process (``first`` tells the first, kernels from the disk
cache). Peers run under the interpreter named by ``CARDIACREG_PEERS_PYTHON``, by default this one; those
that are not installed are skipped with the reason (``pip install 'cardiacreg[bench-peers]'``).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from scipy.ndimage import (
    binary_dilation,
    binary_erosion,
    distance_transform_edt,
    map_coordinates,
)

from benchmarks import machine, tabulate
from benchmarks.cases import DataAbsent, data_folder
from benchmarks.peer_adapters import PEERS, apply

SEEDS = (10_000, 10_001)
THREADS = 2
LIMIT_SECONDS = 900
LATTICES_MM = (16.0, 8.0, 5.0, 4.0, 3.0, 2.5)
_OURS = """
import json, resource, sys, time
import numpy as np
import cardiacreg
from benchmarks.peer_adapters import processor_seconds
folder, finest, threads = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
fixed, moving = (cardiacreg.read_labels(f"{folder}/{n}.nii.gz") for n in ("fixed", "moving"))
affine = cardiacreg.Affine(np.loadtxt(f"{folder}/affine.txt"))
options = cardiacreg.RegistrationOptions.dense(finest)
runs = []
for _ in range(2):
    start, used = time.perf_counter(), processor_seconds()
    found = cardiacreg.register_labels(fixed, moving, affine, options=options, threads=threads)
    runs.append((time.perf_counter() - start, processor_seconds() - used))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
field = cardiacreg.dense_displacement(found.target_to_atlas, fixed)
from cardiacreg.geometry import voxel_grid
np.save(f"{folder}/map.npy", voxel_grid(fixed.shape, fixed.voxel_to_world) + field.displacements_mm)
json.dump({"seconds": runs[1][0], "cpu_seconds": runs[1][1], "first_seconds": runs[0][0],
           "first_cpu_seconds": runs[0][1], "peak_memory_mib": peak,
           "minimum_jacobian": found.minimum_jacobian}, open(f"{folder}/measured.json", "w"))
"""


def run(quick: bool) -> dict[str, Any]:
    """Register the embedded pair, and the shared one where it is, by everything that is installed."""
    pairs = {"synthetic": _synthetic_pair}
    try:
        source = data_folder("peers_pair")
        pairs["shared"] = lambda folder: _shared_pair(source, folder)
    except DataAbsent as absent:
        print(f"peers: without the shared pair, {absent}")
    records, skipped = [], {}
    for pair, make in list(pairs.items())[: 1 if quick else None]:
        ours = [(f"cardiacreg {h:g} mm", _ours(h)) for h in LATTICES_MM[: 2 if quick else None]]
        theirs = [(n, _peer(n)) for n in list(PEERS)[: 2 if quick else None]]
        for name, command in ours + theirs:
            with tempfile.TemporaryDirectory() as scratch:
                make(Path(scratch))
                found = _measured(command, Path(scratch))
            if isinstance(found, str):
                skipped[name] = found
                print(f"peers: {name} skipped, {found}")
            else:
                records.append({"pair": pair, "method": name, **found})
    result = {"seeds": list(SEEDS), "threads": THREADS, "records": records, "skipped": skipped}
    if not quick:
        _draw(records)
    return result


def _ours(finest_mm: float) -> list[str]:
    return [sys.executable, "-c", _OURS, "FOLDER", str(finest_mm), str(THREADS)]


def _peer(name: str) -> list[str]:
    interpreter = os.environ.get("CARDIACREG_PEERS_PYTHON", sys.executable)
    program = str(Path(__file__).with_name("peer_adapters.py"))
    return [interpreter, program, name, "FOLDER", str(THREADS)]


def _measured(command: list[str], folder: Path) -> dict[str, Any] | str:
    """Run one registration in its own process; its figures and scores, or why there are none."""
    names = ("OMP", "OPENBLAS", "MKL", "ITK_GLOBAL_DEFAULT_NUMBER_OF")
    limits = {f"{n}_THREADS" if "ITK" not in n else n + "_THREADS": str(THREADS) for n in names}
    words = [str(folder) if word == "FOLDER" else word for word in command]
    try:
        done = subprocess.run(
            words, cwd=machine.ROOT, env=os.environ | limits, capture_output=True, text=True,
            timeout=LIMIT_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"more than {LIMIT_SECONDS} s"
    if done.returncode:
        return done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "it crashed"
    measured = json.loads((folder / "measured.json").read_text(encoding="utf-8"))
    return {k: round(v, 4) for k, v in measured.items()} | _scores(folder)


def _shared_pair(source: Path, folder: Path) -> None:
    for name in ("fixed", "moving"):
        (folder / f"{name}.nii.gz").write_bytes((source / f"{name}.nii.gz").read_bytes())
    (folder / "affine.txt").write_text((source / "affine_ras.txt").read_text(encoding="utf-8"))


def _synthetic_pair(folder: Path) -> None:
    """Two unseen synthetic hearts, a healthy one and one with pulmonary hypertension."""
    from cardiacreg import fit_landmark_affine, landmarks_from_labels, sample_heart, write_labels

    groups = ("healthy", "pulmonary_hypertension")
    fixed, moving = (
        sample_heart(seed, group=group).labels for seed, group in zip(SEEDS, groups, strict=True)
    )
    write_labels(folder / "fixed.nii.gz", fixed)
    write_labels(folder / "moving.nii.gz", moving)
    fit = fit_landmark_affine(landmarks_from_labels(fixed), landmarks_from_labels(moving))
    np.savetxt(folder / "affine.txt", fit.target_to_atlas.matrix)


def _scores(folder: Path) -> dict[str, Any]:
    images = [nibabel.load(folder / f"{name}.nii.gz") for name in ("fixed", "moving")]
    fixed, moving = (np.asarray(image.dataobj).astype(np.uint8) for image in images)
    positions = np.load(folder / "map.npy")
    voxels = apply(np.linalg.inv(images[1].affine), positions).reshape(-1, 3).T
    warped = map_coordinates(moving, voxels, order=0).reshape(fixed.shape)
    spacing_mm = np.linalg.norm(images[0].affine[:3, :3], axis=0)
    labels = [int(v) for v in np.unique(fixed) if v]
    pairs = [(warped == v, fixed == v) for v in labels]
    dice = [2 * float((a & b).sum()) / float(a.sum() + b.sum()) for a, b in pairs]
    distance = [_surface_distance_mm(a, b, spacing_mm) for a, b in pairs]
    slopes = np.stack(np.gradient(positions, axis=(0, 1, 2)), -1)
    determinants = np.linalg.det(slopes @ np.linalg.inv(images[0].affine[:3, :3]))
    around = binary_dilation(fixed > 0, iterations=5)
    return {
        "dice": {str(v): round(d, 4) for v, d in zip(labels, dice, strict=True)},
        "mean_dice": round(float(np.mean(dice)), 4),
        "surface_distance_mm": round(float(np.mean(distance)), 4),
        "folded_share": round(float((determinants[around] <= 0).mean()), 6),
    }


def _surface_distance_mm(first: np.ndarray, second: np.ndarray, spacing_mm: np.ndarray) -> float:
    surfaces = [mask & ~binary_erosion(mask) for mask in (first, second)]
    away = [distance_transform_edt(~surface, sampling=spacing_mm) for surface in surfaces]
    total = away[0][surfaces[1]].sum() + away[1][surfaces[0]].sum()
    return float(total / (surfaces[0].sum() + surfaces[1].sum()))


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return one table per pair."""
    header = [
        "registration, two threads", "processor seconds", "peak memory, MiB", "mean Dice",
        "surface distance, mm", "folded",
    ]  # fmt: skip
    found = {}
    for pair in ("synthetic", "shared"):
        rows = [
            [
                r["method"],
                f"{r['cpu_seconds']:.2f}",
                f"{r['peak_memory_mib']:.0f}",
                f"{r['mean_dice']:.4f}",
                f"{r['surface_distance_mm']:.3f}",
                f"{100 * r['folded_share']:.2f} %",
            ]
            for r in result["records"]
            if r["pair"] == pair
        ]
        if rows:
            found[f"peers-{pair}"] = tabulate.markdown(header, rows)
    return found


def _draw(records: list[dict[str, Any]]) -> None:
    """Draw accuracy against processor time, ours as a line."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    pairs = list(dict.fromkeys(r["pair"] for r in records))
    figure = Figure(figsize=(5.2 * len(pairs), 4.4), dpi=120, facecolor="white", layout="tight")
    FigureCanvasAgg(figure)
    for axes, pair in zip(figure.subplots(1, len(pairs), squeeze=False)[0], pairs, strict=True):
        own = [r for r in records if r["pair"] == pair and r["method"].startswith("cardiacreg")]
        other = [r for r in records if r["pair"] == pair and r not in own and r["cpu_seconds"] > 1]
        axes.plot(
            [r["cpu_seconds"] for r in own], [r["surface_distance_mm"] for r in own], "o-",
            color="tab:blue", label="cardiacreg, finest lattice",
        )  # fmt: skip
        for r in own:
            text = r["method"].removeprefix("cardiacreg ")
            place = (r["cpu_seconds"], r["surface_distance_mm"])
            axes.annotate(text, place, xytext=(5, 4), textcoords="offset points", fontsize=8)
        for r in other:
            place = (r["cpu_seconds"], r["surface_distance_mm"])
            axes.plot(*place, "s", color="tab:gray")
            axes.annotate(
                r["method"],
                place,
                xytext=(-4, 6),
                textcoords="offset points",
                fontsize=8,
                ha="right",
            )
        axes.set_xscale("log")
        axes.set_xlabel("processor seconds")
        axes.set_ylabel("mean surface distance, mm")
        axes.set_ylim(bottom=0)
        axes.set_title(f"{pair} pair", fontsize=10)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    folder = machine.ROOT / "docs" / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    for suffix in ("png", "svg"):
        figure.savefig(
            folder / f"registration_peers.{suffix}",
            metadata={"Date": None} if suffix == "svg" else None,
        )
