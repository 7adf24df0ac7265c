"""Damaged files through every reader, and one heart stored in other ways: what comes of them.

Every input is drawn by a number, so that a run can be repeated. A file is read, or refused by one of the
library's own errors; anything else is foreign. Equivalent inputs are counted by whether the model's
voxels are equal bit by bit.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

import cardiacreg
from benchmarks.harness import tabulate
from benchmarks.reliability.damaged_files import Kind, damaged, kinds
from cardiacreg import InvalidInputError, LabelMap, RefinementError, RefineOptions
from cardiacreg.errors import kept_warnings
from cardiacreg.phantoms.hearts import FIRST_EVALUATION_SEED

_SECONDS, _QUICK_SECONDS = 240.0, 4.0
_HEARTS, _QUICK_HEARTS = 4, 1
_SPACING_MM = (2.0, 2.0, 3.0)
_ENDS = ("inputs", "read", "refused", "foreign")


def run(quick: bool) -> dict[str, Any]:
    """Feed damaged files for some minutes, and refine hearts stored in other ways."""
    every = kinds()
    seconds = (_QUICK_SECONDS if quick else _SECONDS) / len(every)
    with tempfile.TemporaryDirectory() as folder:
        files = [{"file": each.name} | _feed(each, Path(folder), seconds) for each in every]
    ways = _equivalent(_QUICK_HEARTS if quick else _HEARTS)
    return {"records": files + [{"way": way} | counts for way, counts in ways.items()]}


def _feed(kind: Kind, folder: Path, seconds: float) -> dict[str, Any]:
    """Damage one kind of file until the time is over; return how each ended."""
    name = kind.name.removeprefix("bank: ")
    place = folder / (f"bank {name}" if name != kind.name else name)
    path = place / name if name != kind.name else place
    kind.write(path)
    whole, random, ends = path.read_bytes(), Random(0), Counter[str]()
    foreign: Counter[str] = Counter()
    slowest, until = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < until:
        path.write_bytes(damaged(whole, random))
        start = time.perf_counter()
        with kept_warnings():
            try:
                kind.read(path)
                ends["read"] += 1
            except (InvalidInputError, RefinementError):
                ends["refused"] += 1
            except Exception as error:  # noqa: BLE001 - what else there is, is what is looked for
                ends["foreign"] += 1
                foreign[type(error).__name__] += 1
        slowest = max(slowest, time.perf_counter() - start)
    return {
        "inputs": sum(ends.values()),
        **{each: ends[each] for each in ("read", "refused", "foreign")},
        "foreign_errors": dict(foreign),
        "slowest_seconds": round(slowest, 2),
    }


def _mirrored(labels: LabelMap, axis: int) -> LabelMap:
    matrix = np.array(labels.voxel_to_world)
    matrix[:3, 3] += matrix[:3, axis] * (labels.shape[axis] - 1)
    matrix[:3, axis] *= -1
    return LabelMap(np.flip(labels.array, axis), matrix)


def _exchanged(labels: LabelMap, order: tuple[int, int, int]) -> LabelMap:
    return LabelMap(labels.array.transpose(order), labels.voxel_to_world[:, [*order, 3]])


def _padded(labels: LabelMap) -> LabelMap:
    """Seven voxels of background on all sides of a stack that has an empty slice at either end."""
    matrix = np.array(labels.voxel_to_world)
    matrix[:3, 3] -= matrix[:3, :3] @ np.full(3, 7.0)
    return LabelMap(np.pad(labels.array, 7), matrix)


def _moved(
    labels: LabelMap, seed: int, precision: type = np.float64, turn: bool = True
) -> LabelMap:
    """The heart in a world that is turned at random and moved."""
    random = np.random.default_rng(seed)
    world = np.eye(4)
    if turn:
        world[:3, :3] = np.linalg.qr(random.normal(size=(3, 3)))[0]
        world[:3, 0] *= np.sign(np.linalg.det(world[:3, :3]))
    world[:3, 3] = random.uniform(-300, 300, 3)
    return LabelMap(labels.array, (world @ labels.voxel_to_world).astype(precision))


WAYS: dict[str, Callable[[LabelMap, int], LabelMap]] = {
    "seven voxels of padding": lambda labels, _: _padded(labels),
    "i mirrored, with its matrix": lambda labels, _: _mirrored(labels, 0),
    "j mirrored, with its matrix": lambda labels, _: _mirrored(labels, 1),
    "k mirrored, with its matrix": lambda labels, _: _mirrored(labels, 2),
    "i and j exchanged": lambda labels, _: _exchanged(labels, (1, 0, 2)),
    "slices first": lambda labels, _: _exchanged(labels, (2, 0, 1)),
    "translated": lambda labels, seed: _moved(labels, seed, turn=False),
    "world rotated": _moved,
    "world rotated, matrix in single precision": lambda labels, seed: _moved(
        labels, seed, np.float32
    ),
}


def _equivalent(count: int) -> dict[str, dict[str, int]]:
    """Count hearts whose model keeps its bits in each way of storing them."""
    atlases = [
        cardiacreg.sample_heart(n, group="healthy", spacing_mm=_SPACING_MM, with_image=False)
        for n in range(1, 5)
    ]
    found = {way: {"equal": 0, "hearts": count} for way in WAYS}
    for seed in range(FIRST_EVALUATION_SEED, FIRST_EVALUATION_SEED + count):
        heart = cardiacreg.sample_heart(seed, spacing_mm=_SPACING_MM, with_image=False)
        stack = _with_empty_ends(cardiacreg.Degradation().of(heart, seed=seed).subject.labels)
        expected = _model(stack, atlases)
        for way, store in WAYS.items():
            found[way]["equal"] += int(_same_bits(_model(store(stack, seed), atlases), expected))
    return found


def _with_empty_ends(labels: LabelMap) -> LabelMap:
    matrix = np.array(labels.voxel_to_world)
    matrix[:3, 3] -= matrix[:3, 2]
    return LabelMap(np.pad(labels.array, ((0, 0), (0, 0), (1, 1))), matrix)


def _model(labels: LabelMap, atlases: list[Any]) -> cardiacreg.RefineResult:
    with kept_warnings():
        return cardiacreg.refine(
            labels, atlases=atlases, options=RefineOptions.fast(), spacing_mm=(2.0, 2.0, 2.0),
            threads=1,
        )  # fmt: skip


def _same_bits(found: cardiacreg.RefineResult, expected: cardiacreg.RefineResult) -> bool:
    """Whether two models are equal along the heart's own axes, whatever those of the lattice."""
    return found.volumes == expected.volumes and any(
        np.array_equal(turned, expected.labels.array) for turned in _orders(found.labels.array)
    )


def _orders(array: np.ndarray) -> list[np.ndarray]:
    """The array with its axes in every order and direction."""
    orders = ((0, 1, 2), (1, 0, 2), (0, 2, 1), (2, 1, 0), (1, 2, 0), (2, 0, 1))
    flips = [[a for a in range(3) if n >> a & 1] for n in range(8)]
    return [np.flip(array.transpose(order), flip) for order in orders for flip in flips]


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return tables of how damaged files end, and of which ways of storing keep the bits."""
    files = [each for each in result["records"] if "file" in each]
    ways = [each for each in result["records"] if "way" in each]
    rows = [[each["file"], *(f"{each[key]:,}" for key in _ENDS)] for each in files]
    totals = [sum(each[key] for each in files) for key in _ENDS]
    rows.append(["all", *(f"{total:,}" for total in totals)])
    return {
        "reliability_files": tabulate.markdown(
            ["damaged file", "inputs", "read", "refused", "foreign errors"], rows
        ),
        "reliability_ways": tabulate.markdown(
            ["the same heart with", "hearts", "models with equal bits"],
            [[each["way"], str(each["hearts"]), str(each["equal"])] for each in ways],
        ),
    }
