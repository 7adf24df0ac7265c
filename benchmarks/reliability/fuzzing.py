"""A million inputs: damaged files through every reader, wrong values into public calls.

Inputs are drawn by number, in batches that are stored as they are done (`benchmarks.harness.store`),
so that a long run goes on where it stopped. A file is read or refused, a call is carried out or refused:
by an error of this library, or by a TypeError where an argument is of another kind than it can be. All
else is foreign; a batch with a foreign error is not stored, so that it is fed again until it has none.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from random import Random

import numpy as np

from benchmarks.harness.store import Record, Unit
from benchmarks.reliability.damaged_files import Kind, damaged, kinds
from benchmarks.reliability.public_calls import public_calls, wrongly
from cardiacreg import InvalidInputError, RefinementError
from cardiacreg.errors import kept_warnings

BATCH = 1000
FILES, CALLS = 160_000, 850_000
"""How many inputs a full run feeds, of damaged files and of wrong values."""
_MILLISECONDS = {
    "labels.nii": 6, "labels.nii.gz": 3, "image.nii.gz": 3, "labels.mgz": 4, "labels.seg.nrrd": 15,
    "classes.npz": 4, "guide points: GPFile_000.txt": 15, "guide points: SliceInfoFile.txt": 4,
    "spline.h5": 500, "refine_cohort": 400, "measure": 40, "measure_cine": 40, "write_report": 100,
    "verify_result": 40, "wall_coordinates": 40,
    "surface.vtp": 4, "surface.stl": 45, "surface.ply": 5, "surface.obj": 20,
    "study: slice_000_frame_000.dcm": 20, "labels.dcm": 80, "bank: index.json": 5,
    "bank: entries.jsonl": 7, "bank: ends.npy": 3, "bank: labels.npy": 11, "bank: images.npy": 14,
    "result: result.json": 4, "result: landmarks.json": 4, "result: confidence.nii.gz": 4,
    "cine: cine.json": 5,
    "write_guide_points": 15, "convert": 4, "read_dicom_seg": 80, "read_dicom_cine": 20,
    "write_dicom_cine": 15, "write_cohort_report": 15, "simulate_low_resolution": 5,
    "hausdorff_mm": 3, "hausdorff95_mm": 3, "hausdorff_slicewise_mm": 3,
    "average_surface_distance_mm": 3, "normalized_surface_dice": 3, "labels_from_contours": 2,
}  # fmt: skip
"""About how long an input takes where that is more than 1 ms; the more, the fewer are fed."""
_LONG_MILLISECONDS = 20
_LEAST = 100
"""How many inputs of a kind are fed at least."""
_OURS = (InvalidInputError, RefinementError)


class Foreign(Exception):
    """An input ended in an error that is not ours."""


def units(quick: bool) -> list[Unit]:
    """Return the batches of all kinds of files and of all calls."""
    found = []
    files = dict.fromkeys(_kinds(), 1)
    calls = {name: _LONG_MILLISECONDS if long else 1 for name, long in _call_names().items()}
    for what, usual, total in (("files", files, FILES), ("calls", calls, CALLS)):
        shares = {name: 1 / _MILLISECONDS.get(name, cost) for name, cost in usual.items()}
        for name, share in shares.items():
            wanted = max(_LEAST, round(total * share / sum(shares.values())))
            for part, inputs in enumerate(_batches(3 if quick else wanted)):
                key = {"what": what, "fed": name, "part": part, "inputs": inputs}
                found.append(Unit(key, lambda key=key: key | feed(key)))
    return found


def _batches(inputs: int) -> list[int]:
    """Whole batches, or one of all inputs where these are fewer."""
    return [BATCH] * -(-inputs // BATCH) if inputs > BATCH else [inputs]


@lru_cache
def _kinds() -> dict[str, Kind]:
    return {each.name: each for each in kinds()}


@lru_cache
def _call_names() -> dict[str, bool]:
    return {name: each.is_long for name, each in public_calls(Path()).items()}


def feed(key: dict[str, object]) -> Record:
    """Feed a batch of inputs to a reader or a call, and count how they ended."""
    one = _fed_files if key["what"] == "files" else _fed_calls
    ends, slowest, name = Counter[str](), 0.0, str(key["fed"])
    draw = Random(f"{name} {key['part']}")
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), _silence():
        with contextlib.closing(one(name, Path(folder), draw)) as fed:
            for _ in range(int(str(key["inputs"]))):
                start = time.perf_counter()
                ends[next(fed)] += 1
                slowest = max(slowest, time.perf_counter() - start)
    return {"ends": dict(ends), "slowest_seconds": round(slowest, 2)}


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    with warnings.catch_warnings(), np.errstate(all="ignore"), kept_warnings():
        warnings.simplefilter("ignore")
        with contextlib.redirect_stdout(io.StringIO()):
            yield


def _fed_files(name: str, folder: Path, draw: Random) -> Iterator[str]:
    kind = _kinds()[name]
    path = kind.put(folder)
    whole = path.read_bytes()
    while True:
        path.write_bytes(damaged(whole, draw))
        try:
            kind.read(path)
        except _OURS:
            yield "refused"
        except Exception as error:
            raise Foreign(f"{name}: {error!r}") from error
        else:
            yield "read"


def _fed_calls(name: str, folder: Path, draw: Random) -> Iterator[str]:
    call = public_calls(folder)[name]
    call.prepare()
    while True:
        given = wrongly(call, draw)
        try:
            call.function(**given)
        except (*_OURS, TypeError):
            yield "refused"
        except Exception as error:
            raise Foreign(f"{name}({given!r:.300}): {error!r}") from error
        else:
            yield "carried out"


def rows(records: list[Record]) -> dict[str, list[list[str]]]:
    """Return rows of the tables of files and of calls, with a sum each."""
    found = {}
    for what, well in (("files", "read"), ("calls", "carried out")):
        by_name: dict[str, Counter[str]] = {}
        for record in records:
            if record.get("what") == what:
                ends = by_name.setdefault(record["fed"], Counter())
                ends.update(record.get("ends", {"foreign": 1}))
        total = sum(by_name.values(), Counter[str]())
        found[what] = [
            [name, *(f"{ends[end]:,}" for end in (well, "refused", "foreign"))]
            for name, ends in [*by_name.items(), ("all", total)]
        ]
        for row, ends in zip(found[what], [*by_name.values(), total], strict=True):
            row.insert(1, f"{ends.total():,}")
    return found
