"""Speed of fusion side by side, in one run: eq. (5) as literal loops, every mode here, and ANTs.

An unseen synthetic heart is the target; atlases of the population, registered to its labels and warped
onto a lattice of 192 x 192 x 80 voxels of 1.25 x 1.25 x 2 mm, are fused with windows 7x7x3 and patches
7x7x1. Processor seconds add up all threads. The literal loops run over the voxels that need a vote, and
over a sample of the whole lattice, scaled up. Windows and patches of ANTs are the same, and so is its
mask; it runs on one thread, in a process of its own (`benchmarks.harness.ants_fusion`). STAPLE is the
library's mode, which calls SimpleITK. Which mode is most accurate is measured by
`benchmarks.fusion.fusion_modes`.
"""

from __future__ import annotations

import json
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import ants_fusion, machine, tabulate
from benchmarks.harness.measuring import rounded
from cardiacreg.fusion.grey_levels import grey_levels
from cardiacreg.fusion.label_fusion import Fusion, FusionOptions, fuse_labels
from cardiacreg.geometry import STRUCTURES, Affine, LabelMap, Volume
from cardiacreg.metrics import overlap
from cardiacreg.phantoms.hearts import FIRST_EVALUATION_SEED, sample_heart
from cardiacreg.registration.ffd_registration import RegistrationOptions, register_labels
from cardiacreg.registration.landmark_affine import fit_landmark_affine
from cardiacreg.transforms.resampling import Lattice, warp_labels, warp_volume

SPACING_MM = (1.25, 1.25, 2.0)
SHAPE, QUICK_SHAPE = (192, 192, 80), (96, 96, 40)
N_ATLASES = 5
MODES = {
    "eq. (5), mean": FusionOptions(),
    "eq. (5), correlation": FusionOptions(distance="correlation", bandwidth=0.1),
    "majority": FusionOptions(mode="majority"),
}
CURVES: dict[str, dict[str, FusionOptions | int]] = {
    "atlases": {str(n): n for n in (1, 2, 3, 5, 8, 10)},
    "search window": {
        f"{n}x{n}x{d}": FusionOptions(search=(n, n, d))
        for n, d in ((1, 1), (3, 1), (3, 3), (5, 3), (7, 3), (9, 3), (11, 3), (11, 5))
    },
    "patch": {f"{n}x{n}x1": FusionOptions(patch=(n, n, 1)) for n in (1, 3, 5, 7, 9, 13, 17, 21)},
}
FIGURE = machine.ROOT / "docs" / "figures" / "fusion_cost"
NAIVE, NAIVE_WHOLE = "literal loops, voxels in dispute", "literal loops, whole lattice"
ANTS, OURS = "ANTs joint label fusion, same mask", "eq. (5), mean"
_MEMORY = """
import json, pickle, sys
from pathlib import Path
from benchmarks.fusion import fusion
def peak_mib():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024
target, warped, truth = pickle.load(open(sys.argv[1], "rb"))
options = fusion.MODES[sys.argv[2]]
tiny = fusion.crop(target, warped, 24)
fusion.fuse_labels(*tiny, options=options, threads=2)
inputs = target.array.nbytes + sum(i.array.nbytes + l.array.nbytes for i, l in warped)
Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
before = peak_mib()
fusion.fuse_labels(target, warped, options=options, threads=2)
print(json.dumps({"inputs_mib": inputs / 2**20, "added_mib": peak_mib() - before}))
"""
Scene = tuple[Volume, list[tuple[Volume, LabelMap]], LabelMap]


def run(quick: bool) -> dict[str, Any]:
    """Measure every fusion on one scene; the curves with one thread."""
    target, warped, truth = scene(quick)
    options = FusionOptions()
    reference = fuse_labels(target, warped, options=options)
    mask = disputed(warped, options)
    records = list(_ours(target, warped, truth, 1 if quick else 5))
    records += _peers(target, warped, truth, mask, reference, 10_000 if quick else None)
    result = {
        "seeds": [FIRST_EVALUATION_SEED],
        "shape": list(target.shape),
        "atlases": len(warped),
        "disputed": {"voxels": int(mask.sum()), "share": float(mask.mean())},
        "records": rounded(records),
        "memory": rounded(list(_memory((target, warped, truth), quick))),
        "curves": rounded(_curves(target, warped, 1 if quick else 3)),
    }
    if not quick:
        draw(result, FIGURE)
    return result


def scene(quick: bool) -> Scene:
    """Return target image, warped atlases and the target's true labels on one lattice."""
    spacing = tuple(2 * n for n in SPACING_MM) if quick else SPACING_MM
    heart = sample_heart(FIRST_EVALUATION_SEED, group="healthy", spacing_mm=spacing)
    shape = QUICK_SHAPE if quick else SHAPE
    matrix = np.array(heart.labels.voxel_to_world)
    margin = (np.array(shape) - np.array(heart.labels.shape)) // 2
    matrix[:3, 3] -= matrix[:3, :3] @ margin
    lattice, here = Lattice(shape, matrix), Affine.identity()
    warped = []
    for seed in range(2 if quick else N_ATLASES):
        atlas = sample_heart(seed, group="healthy", spacing_mm=spacing)
        fit = fit_landmark_affine(heart.landmarks, atlas.landmarks)
        found = register_labels(
            heart.labels, atlas.labels, fit.target_to_atlas, options=RegistrationOptions()
        ).target_to_atlas
        warped.append(
            (warp_volume(atlas.image, found, lattice), warp_labels(atlas.labels, found, lattice))
        )
    image = warp_volume(heart.image, here, lattice)
    return image, warped, warp_labels(heart.labels, here, lattice)


def crop(target: Volume, warped: Any, size: int) -> tuple[Volume, list[tuple[Volume, LabelMap]]]:
    """Return the middle of a scene, to compile kernels with."""
    window = tuple(slice(n // 2 - size // 2, n // 2 + size // 2) for n in target.shape)
    matrix = target.voxel_to_world
    return Volume(target.array[window], matrix), [
        (Volume(image.array[window], matrix), LabelMap(labels.array[window], matrix))
        for image, labels in warped
    ]


def disputed(warped: Any, options: FusionOptions) -> np.ndarray:
    """Return the voxels whose search window holds more than one label."""
    from scipy import ndimage

    stack = np.stack([labels.array for _, labels in warped])
    low = ndimage.minimum_filter(stack.min(axis=0), size=options.search, mode="nearest")
    high = ndimage.maximum_filter(stack.max(axis=0), size=options.search, mode="nearest")
    return np.asarray(low != high)


def _timed(call: Any, repeats: int) -> tuple[Any, dict[str, float]]:
    walls, cpus = [], []
    for _ in range(repeats):
        start, cpu = time.perf_counter(), time.process_time()
        found = call()
        walls.append(time.perf_counter() - start)
        cpus.append(time.process_time() - cpu)
    return found, {
        "seconds": statistics.median(walls),
        "least_seconds": min(walls),
        "cpu_seconds": statistics.median(cpus),
    }


def _ours(target: Volume, warped: Any, truth: LabelMap, repeats: int) -> Iterator[dict[str, Any]]:
    for name, options in MODES.items():
        for threads in (1, 2):
            fuse_labels(target, warped, options=options, threads=threads)
            call = lambda: fuse_labels(target, warped, options=options, threads=threads)  # noqa: B023,E731
            found, used = _timed(call, repeats)
            yield {"method": name, "threads": threads, **used, "dice": _dice(found.labels, truth)}


def _dice(found: LabelMap, truth: LabelMap) -> dict[str, float]:
    return {name: overlap.dice(found, truth, label) for label, name in STRUCTURES.items()}


def _peers(
    target: Volume, warped: Any, truth: LabelMap, mask: np.ndarray, ours: Fusion, sample: int | None
) -> list[dict[str, Any]]:
    records = [*_naive(target, warped, mask, ours, sample)]
    joint = _ants_joint_fusion(target, warped, mask, (3, 3, 1), (3, 3))
    if joint is None:
        print(f"fusion: without {ANTS}: antspyx is not installed (extra bench-peers)")
    else:
        found, used = joint
        records.append({"method": ANTS, "threads": 1, **used, "dice": _dice(found, truth)})
    return records


def _naive(
    target: Volume, warped: Any, mask: np.ndarray, ours: Fusion, sample: int | None
) -> Iterator[dict[str, Any]]:
    arrays = [image.array for image, _ in warped]
    stack = np.stack([labels.array for _, labels in warped])
    values = np.unique(stack)
    grey, atlases = grey_levels(target.array, arrays, (stack != 0).any(axis=0))
    given = (grey.astype(np.float32), atlases.astype(np.float32), np.searchsorted(values, stack))
    rest = (np.array([3, 3, 1]), np.array([3, 3]), 10.0, len(values))
    inside = np.argwhere(mask)
    inside = inside if sample is None else inside[:: max(1, len(inside) // sample)]
    everywhere = np.argwhere(np.ones(mask.shape, dtype=bool))
    everywhere = everywhere[:: max(1, len(everywhere) // (sample or 40_000))]
    _naive_nonlocal(*given, inside[:2], *rest)
    for name, voxels, total in (
        (NAIVE, inside, int(mask.sum())), (NAIVE_WHOLE, everywhere, mask.size),
    ):  # fmt: skip
        call = lambda: _naive_nonlocal(*given, voxels, *rest)  # noqa: B023,E731
        shares, used = _timed(call, 1)
        scale = total / len(voxels)
        place = tuple(voxels.T)
        winner = values[shares.argmax(axis=1)]
        yield {
            "method": name,
            "threads": 1,
            **{key: value * scale for key, value in used.items()},
            "voxels_measured": len(voxels),
            "other_labels": int((ours.labels.array[place] != winner).sum()),
            "ties": ours.n_ties,
            "confidence_apart": f"{np.abs(ours.confidence.array[place] - shares.max(axis=1)).max():.1e}",
        }


def _memory(given: Scene, quick: bool) -> Iterator[dict[str, Any]]:
    """Peak memory of a process of its own above what it held with its inputs."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "scene.pkl"
        with file.open("wb") as stream:
            pickle.dump(given, stream)
        for name in list(MODES)[: 1 if quick else None]:
            done = subprocess.run(
                [sys.executable, "-c", _MEMORY, str(file), name],
                cwd=machine.ROOT, env=os.environ.copy(), capture_output=True, text=True, check=True,
            )  # fmt: skip
            yield {"method": name, **json.loads(done.stdout.splitlines()[-1])}


def _curves(target: Volume, warped: Any, repeats: int) -> dict[str, Any]:
    curves: dict[str, Any] = {}
    for curve, points in CURVES.items():
        curves[curve] = {}
        for label, what in points.items():
            if isinstance(what, int):
                used, options = [warped[n % len(warped)] for n in range(what)], FusionOptions()
            else:
                used, options = warped, what
            call = lambda: fuse_labels(target, used, options=options, threads=1)  # noqa: B023,E731
            _, seconds = _timed(call, repeats)
            voxels = int(disputed(used, options).sum())
            curves[curve][label] = {"cpu_seconds": seconds["cpu_seconds"], "disputed": voxels}
    return curves


def _ants_joint_fusion(
    target: Volume,
    warped: Sequence[tuple[Volume, LabelMap]],
    mask: NDArray[np.bool_],
    search: Any,
    patch: Any,
) -> tuple[LabelMap, dict[str, Any]] | None:
    """Joint label fusion of ANTs with the same mask and windows; None where ANTsPy is not installed.

    Its weights are ANTsPy's defaults; it is given harmonised grey levels and one thread.
    """
    if ants_fusion.version() is None:
        return None
    arrays = [image.array for image, _ in warped]
    stack = [labels.array for _, labels in warped]
    heart = np.any([labels != 0 for labels in stack], axis=0)
    grey, others = grey_levels(target.array, arrays, heart)
    found, used = ants_fusion.fuse(
        grey.astype(np.float32), mask, list(others.astype(np.float32)), stack,
        rad=[*patch, 0], r_search="x".join(str(n) for n in search),
    )  # fmt: skip
    return LabelMap(found, target.voxel_to_world), used


@numba.njit(error_model="numpy")  # type: ignore[untyped-decorator]
def _naive_nonlocal(target, atlases, labels, voxels, search, patch, bandwidth, n_labels):  # type: ignore[no-untyped-def]
    """Eq. (5) as written, at listed voxels: every atlas, displacement and patch voxel in its own loop.

    Takes grey levels (float32) and label positions (uint8); returns the shares of all labels.
    """
    shares = np.zeros((len(voxels), n_labels), np.float32)
    ni, nj, nk = target.shape
    window = (2 * search[0] + 1) * (2 * search[1] + 1) * (2 * search[2] + 1)
    distances = np.empty(len(atlases) * window)
    found = np.empty(len(atlases) * window, np.int64)
    for v in range(len(voxels)):
        i, j, k = voxels[v]
        size = 0
        for n in range(len(atlases)):
            for di in range(-search[0], search[0] + 1):
                for dj in range(-search[1], search[1] + 1):
                    for dk in range(-search[2], search[2] + 1):
                        if not (0 <= i + di < ni and 0 <= j + dj < nj and 0 <= k + dk < nk):
                            continue
                        total, count = 0.0, 0
                        for p in range(-patch[0], patch[0] + 1):
                            for q in range(-patch[1], patch[1] + 1):
                                a, b = i + p, j + q
                                c, d = a + di, b + dj
                                if 0 <= a < ni and 0 <= b < nj and 0 <= c < ni and 0 <= d < nj:
                                    apart = target[a, b, k] - atlases[n, c, d, k + dk]
                                    total += apart * apart
                                    count += 1
                        distances[size] = total / count
                        found[size] = labels[n, i + di, j + dj, k + dk]
                        size += 1
        least = distances[:size].min()
        for m in range(size):
            shares[v, found[m]] += np.exp((least - distances[m]) / bandwidth)
        shares[v] /= shares[v].sum()
    return shares


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return the times side by side, memory, and the curves."""
    first = next(r for r in result["records"] if r["method"] == OURS)
    rows = []
    for record in result["records"]:
        dice = record.get("dice", {})
        threads = record["threads"]
        rows.append(
            [
                record["method"] + (f", {threads} thread{'s' * (threads > 1)}" if threads else ""),
                f"{record['seconds']:.2f}",
                f"{record['cpu_seconds']:.2f}",
                f"{record['cpu_seconds'] / first['cpu_seconds']:.1f}",
                *[f"{dice[name]:.3f}" if name in dice else "–" for name in tabulate.ORDER],
            ]
        )
    header = ["fusion", "seconds", "processor seconds", "times eq. (5)", *tabulate.ORDER]
    memory = [
        [
            r["method"], f"{r['inputs_mib']:.0f}", f"{r['added_mib']:.0f}",
            f"{1 + r['added_mib'] / r['inputs_mib']:.2f}",
        ]
        for r in result["memory"]
    ]  # fmt: skip
    curves = [
        [f"{curve} {label}", f"{point['cpu_seconds']:.2f}", f"{point['disputed']}"]
        for curve, points in result["curves"].items()
        for label, point in points.items()
    ]
    return {
        "fusion-ratios": _ratios(result["records"]),
        "fusion-speed": tabulate.markdown(header, rows),
        "fusion-memory": tabulate.markdown(
            ["fusion", "inputs, MiB", "added at the peak, MiB", "peak over inputs"], memory
        ),
        "fusion-curves": tabulate.markdown(
            ["eq. (5), one thread", "processor seconds", "voxels in dispute"], curves
        ),
        "fusion-agreement": tabulate.markdown(
            ["literal loops", "voxels compared", "other labels", "ties", "confidence apart, most"],
            [
                [
                    r["method"],
                    str(r["voxels_measured"]),
                    str(r["other_labels"]),
                    str(r["ties"]),
                    r["confidence_apart"],
                ]
                for r in result["records"]
                if "voxels_measured" in r
            ],  # fmt: skip
        ),
    }


def _ratios(records: list[dict[str, Any]]) -> str:
    """Processor seconds of the others over ours, both on one thread."""
    spent = {r["method"]: r["cpu_seconds"] for r in reversed(records)}
    pairs = [(NAIVE, OURS), (NAIVE_WHOLE, OURS), (ANTS, OURS)]
    rows = [
        [other, own, f"{spent[other] / spent[own]:.1f}" if other in spent else "not measured"]
        for other, own in pairs
    ]
    return tabulate.markdown(["processor seconds of", "over those of our", "times"], rows)


def draw(result: dict[str, Any], stem: Path) -> None:
    """Write the cost curves as PNG and SVG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.4), dpi=120, facecolor="white")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(result["curves"]), sharey=True)
    for panel, (curve, points) in zip(panels, result["curves"].items(), strict=True):
        seconds = [point["cpu_seconds"] for point in points.values()]
        panel.plot(range(len(points)), seconds, "o-", color="#1f5f99")
        panel.set_xticks(range(len(points)), points, rotation=45 if len(points) > 6 else 0)
        panel.set_xlabel(curve)
        panel.grid(axis="y", color="0.9")
        for side in ("top", "right"):
            panel.spines[side].set_visible(False)
    panels[0].set_ylabel("processor seconds")
    highest = max(p["cpu_seconds"] for points in result["curves"].values() for p in points.values())
    panels[0].set_ylim(0, 1.05 * highest)
    figure.suptitle("eq. (5): what one fusion costs", fontsize=11)
    figure.tight_layout()
    stem.parent.mkdir(parents=True, exist_ok=True)
    for suffix in (".png", ".svg"):
        figure.savefig(
            stem.with_suffix(suffix), metadata={"Date": None} if suffix == ".svg" else {}
        )
