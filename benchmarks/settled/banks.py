"""Which container a bank should have: plain memory-mapped arrays, HDF5 or zarr.

The embedded bank's labels and images are written into each, one chunk per atlas where a container has
chunks. Opening and reading are measured in fresh processes that have imported what they need, with files
in the system's cache; zarr and h5py come with the extra ``bench-peers``. A bank of ten thousand
atlases of few voxels shows that opening does not depend on how many there are.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import machine, tabulate
from benchmarks.harness.measuring import rounded
from cardiacreg.atlases.bank import AtlasBank
from cardiacreg.atlases.bank_building import build_atlas_bank
from cardiacreg.atlases.embedded import default_atlases
from cardiacreg.geometry import LabelMap, Subject

MANY = 10_000
_PROGRAMS = {
    "memory-mapped .npy": (
        "from cardiacreg.atlases.bank import AtlasBank",
        "bank = AtlasBank(place)",
        "bank.without_image(n).labels.array.sum()",
    ),
    "HDF5, gzip": ("import h5py", "bank = h5py.File(place)", "bank[f'labels/{n}'][...].sum()"),
    "HDF5, plain": ("import h5py", "bank = h5py.File(place)", "bank[f'labels/{n}'][...].sum()"),
    "zarr, default codec": (
        "import zarr",
        "bank = zarr.open_group(place, mode='r')",
        "bank[f'labels/{n}'][...].sum()",
    ),
}
_READ = """
import json, random, sys, time
{imports}
place, size, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
start = time.perf_counter(); cpu = time.process_time()
{opening}
opened = time.process_time() - cpu
order = list(range(size)); random.Random(0).shuffle(order)
cpu = time.process_time()
for n in order[:count]:
    {reading}
print(json.dumps([1e3 * opened, 1e3 * (time.process_time() - cpu) / count]))
"""


def run(quick: bool) -> dict[str, Any]:
    """Write the bank into every container and read atlases in random order."""
    bank = default_atlases()
    size = 8 if quick else len(bank)
    bank = bank.subset(range(size))
    records = []
    with tempfile.TemporaryDirectory() as folder:
        for name in _PROGRAMS:
            place = Path(folder) / name.replace(" ", "_")
            start = time.process_time()
            try:
                _write(name, bank, place)
            except ImportError as absent:
                print(f"banks: without {name}: {absent} (extra bench-peers)")
                continue
            seconds = time.process_time() - start
            found = [_read(name, place, size) for _ in range(1 if quick else 5)]
            records.append(
                {
                    "container": name,
                    "write_seconds": seconds,
                    "megabytes": _size(place) / 1e6,
                    "open_milliseconds": statistics.median(each[0] for each in found),
                    "read_milliseconds": statistics.median(each[1] for each in found),
                }
            )
            shutil.rmtree(place, ignore_errors=True)
    many = rounded(_many(100 if quick else MANY, 1 if quick else 5))
    return {"seeds": [], "atlases": size, "records": rounded(records), "many": many}


def _many(size: int, repeats: int) -> dict[str, Any]:
    """Open a bank of many small atlases, and read some of them."""
    subjects = [
        Subject(LabelMap(np.full((8, 8, 8), 1 + n % 4, np.uint8), np.eye(4)), name=f"{n}")
        for n in range(size)
    ]
    name = "memory-mapped .npy"
    with tempfile.TemporaryDirectory() as folder:
        build_atlas_bank(Path(folder) / "bank", subjects, threads=1)
        found = [_read(name, Path(folder) / "bank", size) for _ in range(repeats)]
    return {
        "atlases": size,
        "open_milliseconds": statistics.median(each[0] for each in found),
        "read_milliseconds": statistics.median(each[1] for each in found),
    }


def _write(name: str, bank: AtlasBank, place: Path) -> None:
    if name.startswith("memory"):
        build_atlas_bank(place, bank, threads=1)
        return
    if name.startswith("HDF5"):
        import h5py

        with h5py.File(place, "w") as file:
            options = {"compression": "gzip"} if "gzip" in name else {}
            for n, subject in enumerate(bank):
                for kind, array in _arrays(subject).items():
                    chunks = array.shape if options else None
                    file.create_dataset(f"{kind}/{n}", data=array, chunks=chunks, **options)
        return
    import zarr

    group = zarr.open_group(place, mode="w")
    for n, subject in enumerate(bank):
        for kind, array in _arrays(subject).items():
            group.create_array(f"{kind}/{n}", data=array, chunks=array.shape)


def _arrays(subject: Any) -> dict[str, np.ndarray]:
    return {
        "labels": subject.labels.array,
        "images": np.clip(np.rint(subject.image.array), 0, 255).astype(np.uint8),
    }


def _size(place: Path) -> int:
    if place.is_file():
        return place.stat().st_size
    return sum(file.stat().st_size for file in place.rglob("*") if file.is_file())


def _read(name: str, place: Path, size: int) -> list[float]:
    imports, opening, reading = _PROGRAMS[name]
    code = _READ.format(imports=imports, opening=opening, reading=reading)
    done = subprocess.run(
        [sys.executable, "-c", code, str(place), str(size), str(min(size, 40))],
        cwd=machine.ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found: list[float] = json.loads(done.stdout.splitlines()[-1])
    return found


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return one row per container."""
    rows = [
        [
            r["container"], f"{r['megabytes']:.1f}", f"{r['open_milliseconds']:.2f}",
            f"{r['read_milliseconds']:.2f}", f"{r['write_seconds']:.1f}",
        ]
        for r in result["records"]
    ]  # fmt: skip
    header = ["container", "MB", "opening, ms", "labels of one atlas, ms", "writing, s"]
    found = {"banks": tabulate.markdown(header, rows)}
    if "many" in result:
        many = result["many"]
        times = [f"{many[name]:.2f}" for name in ("open_milliseconds", "read_milliseconds")]
        found["banks-many"] = tabulate.markdown(
            ["atlases of few voxels", "opening, ms", "labels of one atlas, ms"],
            [[str(many["atlases"]), *times]],
        )
    return found
