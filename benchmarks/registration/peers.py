"""Two dense label maps registered by us at several lattices and by other packages, side by side.

Each registration runs in a process of its own, two threads, from the same affine, and gives back where
every fixed voxel goes; all maps are scored alike: the moving labels pulled back by nearest neighbour,
determinants by central differences. Ours is the mean of the second and third call of its process
(``first`` tells the first, kernels from the disk cache). Peers run under the interpreter named by
``CARDIACREG_PEERS_PYTHON``, by default this one; what is not installed (``pip install
'cardiacreg[bench-peers]'``), fails or needs more than `LIMIT_SECONDS` of processor time has a row that
says so.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import lru_cache, partial
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

from benchmarks.harness import machine, plots, tabulate
from benchmarks.harness.cases import DataAbsent, data_folder, degrade
from benchmarks.harness.store import Record, Unit, gather
from benchmarks.registration.peer_adapters import PEERS, Pair, apply

SEEDS = (10_000, 10_001)
THREADS = 2
LIMIT_SECONDS = 600
LATTICES_MM = (16.0, 10.0, 8.0, 6.0, 5.0, 4.0, 3.0, 2.5)
COMPOSED_MM = (8.0, 5.0)
QUICK = ("affine alone", "SimpleITK demons")
# Seconds of a MIRTK-class registration of a clinical stack that the goals are set against: quoted.
QUOTED_SECONDS = 41.0
_OURS = """
import dataclasses, json, sys, time
import numpy as np
import cardiacreg
from benchmarks.registration.peer_adapters import peak_memory_mib, processor_seconds
folder, asked, threads = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
fixed, moving = (cardiacreg.read_labels(f"{folder}/{n}.nii.gz") for n in ("fixed", "moving"))
affine = cardiacreg.Affine(np.loadtxt(f"{folder}/affine.txt"))
options = cardiacreg.RegistrationOptions()
if "finest_mm" in asked:
    options = cardiacreg.RegistrationOptions.dense(asked.pop("finest_mm"))
options = dataclasses.replace(options, **asked)
runs = []
for _ in range(3):
    start, used = time.perf_counter(), processor_seconds()
    found = cardiacreg.register_labels(fixed, moving, affine, options=options, threads=threads)
    runs.append((time.perf_counter() - start, processor_seconds() - used))
peak = peak_memory_mib()
field = cardiacreg.dense_displacement(found.target_to_atlas, fixed)
from cardiacreg.geometry import voxel_grid
np.save(f"{folder}/map.npy", voxel_grid(fixed.shape, fixed.voxel_to_world) + field.displacements_mm)
seconds, cpu = (float(np.median([run[n] for run in runs[1:]])) for n in (0, 1))
json.dump({"seconds": seconds, "cpu_seconds": cpu, "first_seconds": runs[0][0],
           "first_cpu_seconds": runs[0][1], "peak_memory_mib": peak,
           "package": f"cardiacreg {cardiacreg.__version__}",
           "minimum_jacobian": found.minimum_jacobian}, open(f"{folder}/measured.json", "w"))
"""


class NotRun(Exception):
    """A registration gave no result; the words say why."""

    def __repr__(self) -> str:
        return str(self)


def run(quick: bool) -> dict[str, Any]:
    """Register the embedded pairs, and the shared one where it is, by everything that is installed."""
    pairs: dict[str, Callable[[Path], None]] = {"synthetic": _synthetic_pair, "stack": _stack_pair}
    try:
        pairs["shared"] = partial(_shared_pair, data_folder("peers_pair"))
    except DataAbsent as absent:
        print(f"peers: without the shared pair, {absent}")
    asked = {f"cardiacreg {h:g} mm": {"finest_mm": h} for h in LATTICES_MM}
    asked |= {
        f"cardiacreg {h:g} mm, composed": {"finest_mm": h, "compositions": 2} for h in COMPOSED_MM
    }
    dense = [(name, _ours(options)) for name, options in asked.items()]
    dense += [(name, _peer(name)) for name in PEERS]
    stack = [
        ("cardiacreg, default", _ours({})),
        ("cardiacreg, with slice shifts", _ours({"estimate_shifts": True})),
    ]
    wanted = {pair: stack if pair == "stack" else dense for pair in pairs}
    if quick:
        pairs = {"synthetic": _tiny_pair}
        wanted = {"synthetic": [*dense[:2], *((name, _peer(name)) for name in QUICK)]}
    units = [
        _unit(pair, make, *wanted[pair][n])
        for n in range(max(map(len, wanted.values())))
        for pair, make in pairs.items()
        if n < len(wanted[pair])
    ]
    records = [_with_reason(r) for r in gather("peers", units)]
    return {"seeds": list(SEEDS), "threads": THREADS, "records": records}


def _unit(pair: str, make: Callable[[Path], None], name: str, command: list[str]) -> Unit:
    def measure() -> Record:
        with tempfile.TemporaryDirectory() as scratch:
            make(Path(scratch))
            return {"pair": pair, "method": name, **_measured(command, Path(scratch))}

    key = {"pair": pair, "method": name, "options": {"words": command[2:]}}
    return Unit(key, measure, _code_of_peer(make, name) if name in PEERS else None)


def _code_of_peer(make: Callable[[Path], None], name: str) -> str:
    """What a peer's figures depend on: its adapter, the scores and the pair, not the library."""
    parts = (Pair, PEERS[name][0], _measured, _scores, _surface_distance_mm)
    return "".join(map(inspect.getsource, parts)) + _digest_of_pair(make)


@lru_cache
def _digest_of_pair(make: Callable[[Path], None]) -> str:
    found = hashlib.sha256()
    with tempfile.TemporaryDirectory() as scratch:
        make(Path(scratch))
        for name in ("fixed", "moving"):
            found.update(
                np.asarray(nibabel.load(Path(scratch) / f"{name}.nii.gz").dataobj).tobytes()
            )
        found.update(np.loadtxt(Path(scratch) / "affine.txt").round(6).tobytes())
    return found.hexdigest()


def _with_reason(record: Record) -> Record:
    """A registration that did not run, as a row rather than an error."""
    if "error" not in record:
        return record
    return {n: record[n] for n in ("pair", "method")} | {"reason": record["error"]}


def _ours(options: dict[str, Any]) -> list[str]:
    return [sys.executable, "-c", _OURS, "FOLDER", json.dumps(options), str(THREADS)]


def _peer(name: str) -> list[str]:
    interpreter = os.environ.get("CARDIACREG_PEERS_PYTHON", sys.executable)
    program = str(Path(__file__).with_name("peer_adapters.py"))
    return [interpreter, program, name, "FOLDER", str(THREADS), str(LIMIT_SECONDS)]


def _measured(command: list[str], folder: Path) -> Record:
    """Run one registration in its own process; return its figures and scores.

    Raises
    ------
    NotRun
        If it failed; one that used up its time gives a record with the reason, which is kept.
    """
    names = ("OMP", "OPENBLAS", "MKL", "ITK_GLOBAL_DEFAULT_NUMBER_OF")
    limits = {f"{n}_THREADS": str(THREADS) for n in names} | {"OMP_WAIT_POLICY": "PASSIVE"}
    words = [str(folder) if word == "FOLDER" else word for word in command]
    done = subprocess.run(
        words, cwd=machine.ROOT, env=os.environ | limits, capture_output=True, text=True
    )
    if done.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        return {"reason": f"stopped at {LIMIT_SECONDS} processor seconds"}
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise NotRun(lines[-1] if lines else f"it ended with code {done.returncode}")
    measured = json.loads((folder / "measured.json").read_text(encoding="utf-8"))
    rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in measured.items()}
    return rounded | _scores(folder)


def _tiny_pair(folder: Path) -> None:
    """Two hearts of simple shapes on few voxels."""
    from cardiacreg import write_labels
    from cardiacreg.phantoms.toy_heart import make_toy_heart

    for name, size in (("fixed", 1.0), ("moving", 0.9)):
        write_labels(folder / f"{name}.nii.gz", make_toy_heart(size=size).labels)
    np.savetxt(folder / "affine.txt", np.eye(4))


def _stack_pair(folder: Path) -> None:
    """The same two hearts, the fixed one as a clinical stack: moved slices of 10 mm, without the apex."""
    from cardiacreg import read_labels, write_labels
    from cardiacreg.geometry import Subject

    _synthetic_pair(folder)
    low = degrade(Subject(read_labels(folder / "fixed.nii.gz")), SEEDS[0])
    write_labels(folder / "fixed.nii.gz", low.subject.labels)


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
        "least_determinant": round(float(determinants[around].min()), 4),
    }


def _surface_distance_mm(first: np.ndarray, second: np.ndarray, spacing_mm: np.ndarray) -> float:
    surfaces = [mask & ~binary_erosion(mask) for mask in (first, second)]
    away = [distance_transform_edt(~surface, sampling=spacing_mm) for surface in surfaces]
    total = away[0][surfaces[1]].sum() + away[1][surfaces[0]].sum()
    return float(total / (surfaces[0].sum() + surfaces[1].sum()))


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return one table per pair, one that compares each peer with ours, and the one of the stack."""
    found = {}
    for pair in ("synthetic", "shared"):
        own = [r for r in result["records"] if r["pair"] == pair]
        if own:
            found[f"peers-{pair}"] = _pair_table(own)
        if any(
            "reason" not in r and not _is_ours(r) and r["method"] != "affine alone" for r in own
        ):
            found[f"peers-{pair}-front"] = _front_table(own)
    stack = [r for r in result["records"] if r["pair"] == "stack" and "cpu_seconds" in r]
    if stack:
        found["peers-stack"] = _stack_table(stack)
    return found


def _pair_table(records: list[Record]) -> str:
    header = [
        "registration, two threads", "package", "processor seconds", "peak memory, MiB", "mean Dice",
        "surface distance, mm", "folded", "least determinant",
    ]  # fmt: skip
    labels = sorted({v for r in records for v in r.get("dice", {})})
    header[5:5] = [f"label {v}" for v in labels]
    rows = []
    for r in sorted(records, key=lambda r: "reason" in r):
        if "reason" in r:
            rows.append([r["method"], r["reason"], *["–"] * (len(header) - 2)])
            continue
        rows.append(
            [
                r["method"],
                r.get("package", "–"),
                f"{r['cpu_seconds']:.2f}",
                f"{r['peak_memory_mib']:.0f}",
                f"{r['mean_dice']:.4f}",
                *(f"{r['dice'][v]:.3f}" for v in labels),
                f"{r['surface_distance_mm']:.3f}",
                f"{100 * r['folded_share']:.2f} %",
                f"{r['least_determinant']:.2f}" if "least_determinant" in r else "–",
            ]
        )
    return tabulate.markdown(header, rows)


def _front_table(records: list[Record]) -> str:
    """For each peer, the cheapest of ours that is at least as close and does not fold."""
    measured = [r for r in records if "reason" not in r]
    ours = [r for r in measured if _is_ours(r) and not r["folded_share"]]
    rows = []
    for peer in (r for r in measured if not _is_ours(r) and r["method"] != "affine alone"):
        closer = [r for r in ours if r["surface_distance_mm"] <= peer["surface_distance_mm"]]
        best = min(closer, key=lambda r: r["cpu_seconds"], default=None)
        row = [peer["method"], f"{peer['surface_distance_mm']:.3f}", f"{peer['cpu_seconds']:.1f}"]
        if best is None:
            rows.append([*row, "none", "–", "–", "–", "–"])
            continue
        ratios = [peer["cpu_seconds"] / best[n] for n in ("cpu_seconds", "first_cpu_seconds")]
        rows.append(
            [
                *row,
                best["method"].removeprefix("cardiacreg "),
                f"{best['surface_distance_mm']:.3f}",
                f"{best['cpu_seconds']:.2f}",
                *(f"{ratio:.0f}" for ratio in ratios),
            ]
        )
    header = [
        "peer", "surface distance, mm", "processor seconds", "ours, at least as close",
        "its distance, mm", "its processor seconds", "times fewer", "times fewer, first call",
    ]  # fmt: skip
    return tabulate.markdown(header, rows)


def _stack_table(records: list[Record]) -> str:
    rows = [
        [
            r["method"],
            f"{r['cpu_seconds']:.3f}",
            f"{r['seconds']:.3f}",
            f"{r['first_cpu_seconds']:.2f}",
            f"{r['peak_memory_mib']:.0f}",
            f"{r['minimum_jacobian']:.2f}",
            f"{QUOTED_SECONDS / r['cpu_seconds']:.0f}",
        ]
        for r in records
    ]
    quoted = [
        "free-form deformation of the MIRTK kind (quoted, not measured)",
        f"{QUOTED_SECONDS:g}",
    ]
    header = [
        "clinical stack, 10 mm slices", "processor seconds", "seconds", "first call, processor seconds",
        "peak memory, MiB", "least determinant", "times fewer than quoted",
    ]  # fmt: skip
    return tabulate.markdown(header, [*rows, [*quoted, *["–"] * 5]])


def _is_ours(record: Record) -> bool:
    return bool(record["method"].startswith("cardiacreg"))


def plots_of(result: dict[str, Any]) -> dict[str, Any]:
    """Return surface distance against processor time, ours as a line."""
    records = [r for r in result["records"] if "cpu_seconds" in r]
    pairs = [p for p in ("synthetic", "shared") if any(r["pair"] == p for r in records)]
    if not pairs:
        return {}
    figure, axes = plots.panels(1, len(pairs), width=5.2, height=4.4)
    for panel, pair in zip(axes[0], pairs, strict=True):
        _draw(panel, [r for r in records if r["pair"] == pair])
        panel.set_title(f"{pair} pair")
    return {"registration_peers": figure}


def _draw(panel: Any, records: list[Record]) -> None:
    own = [r for r in records if _is_ours(r) and "composed" not in r["method"]]
    composed = [r for r in records if _is_ours(r) and "composed" in r["method"]]
    other = [r for r in records if not _is_ours(r) and r["method"] != "affine alone"]
    colours = plots.METHOD_COLOURS
    styles = (
        (own, "o-", colours[0], "cardiacreg, by finest lattice"),
        (composed, "D", colours[5], "cardiacreg, composed"),
        (other, "s", colours[6], "other packages"),
    )
    for found, marker, colour, label in styles:
        places = [(r["cpu_seconds"], r["surface_distance_mm"]) for r in found]
        panel.plot(*np.reshape(places, (-1, 2)).T, marker, color=colour, label=label, markersize=5)
        for r, place in zip(found, places, strict=True):
            panel.annotate(_mark(r), place, xytext=(4, 4), textcoords="offset points", fontsize=7.5)
    for r in sorted(other, key=lambda r: int(_mark(r))):
        panel.plot([], [], " ", label=f"{_mark(r)}  {r['method']}")
    panel.set_xscale("log")
    panel.set_xlabel("processor seconds")
    panel.set_ylabel("mean surface distance, mm")
    panel.set_yscale("log")
    panel.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=7.5)


def _mark(record: Record) -> str:
    """What stands beside a point: the lattice of ours, the number of a peer."""
    if _is_ours(record):
        return str(record["method"]).removeprefix("cardiacreg ").removesuffix(", composed")
    return str(list(PEERS).index(record["method"]))
