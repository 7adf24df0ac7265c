"""Damaged files, wrong values, kills, and one heart stored in other ways: what comes of them.

Every input is drawn by a number, so that a run can be repeated. An input is read or carried out, or
refused by one of the library's own errors; anything else is foreign (`fuzzing`). Killed work leaves all
or nothing (`kills`). Inputs that are bad in one way each are in `bad_inputs`.
Equivalent inputs, of synthetic hearts and of development patients, are counted by whether the model's
voxels are equal bit by bit.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

import cardiacreg
from benchmarks.harness import measuring, tabulate
from benchmarks.harness.cases import Acquisition, DataAbsent, acdc
from benchmarks.harness.store import Record, Unit, gather
from benchmarks.reliability import fuzzing, kills
from cardiacreg import LabelMap, RefineOptions
from cardiacreg.errors import kept_warnings
from cardiacreg.phantoms.hearts import FIRST_EVALUATION_SEED

_HEARTS, _QUICK_HEARTS = 4, 1
_DEVELOPMENT = tuple(n for n in range(1, 101) if measuring.is_development(n))
_PATIENTS = 5
"""How many development patients, evenly taken; `--cases` takes others."""
_SPACING_MM = (2.0, 2.0, 3.0)


def run(quick: bool, cases: int = _PATIENTS) -> dict[str, Any]:
    """Feed all of it, in units that are stored; `cases` patients' frames are stored in other ways."""
    units = fuzzing.units(quick)[:: 20 if quick else 1]
    for name, heart in _hearts(0 if quick else cases).items():
        units += [_way_unit(name, heart, way) for way in (list(WAYS)[:2] if quick else WAYS)]
    units += kills.units(quick)
    return {"records": gather("reliability", units)}


def _hearts(patients: int) -> dict[str, Callable[[], LabelMap]]:
    """Stacks by name: synthetic ones and, where the data are, both frames of development patients."""
    count, first = _HEARTS if patients else _QUICK_HEARTS, FIRST_EVALUATION_SEED
    found = {f"synthetic {n}": lambda n=n: _synthetic(n) for n in range(first, first + count)}
    try:
        every = -(-len(_DEVELOPMENT) // patients) if patients else len(_DEVELOPMENT)
        frames = acdc(_DEVELOPMENT[::every]) if patients else []
    except DataAbsent:
        frames = []
    for each in frames:
        found[f"patient {each.name}"] = lambda each=each: _real(each)
    return found


def _real(acquisition: Acquisition) -> LabelMap:
    with kept_warnings():
        found = cardiacreg.read_segmentation(acquisition.labels, preset=acquisition.preset)
    return _with_empty_ends(found)


def _way_unit(name: str, heart: Callable[[], LabelMap], way: str) -> Unit:
    key = {"what": "way", "heart": name, "way": way}

    def measure() -> Record:
        stack, seed = heart(), sum(name.encode())
        stored = WAYS[way](stack, seed)
        return key | {"equal": _same_bits(_model(stored, _atlases()), _expected(name, heart))}

    return Unit(key, measure)


@lru_cache(maxsize=1)
def _expected(name: str, heart: Callable[[], LabelMap]) -> cardiacreg.RefineResult:
    return _model(heart(), _atlases())


@lru_cache(maxsize=1)
def _atlases() -> list[Any]:
    return [
        cardiacreg.sample_heart(n, group="healthy", spacing_mm=_SPACING_MM, with_image=False)
        for n in range(1, 5)
    ]


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


def _synthetic(seed: int) -> LabelMap:
    heart = cardiacreg.sample_heart(seed, spacing_mm=_SPACING_MM, with_image=False)
    return _with_empty_ends(cardiacreg.Degradation().of(heart, seed=seed).subject.labels)


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
    """Return the tables of files, calls and kills, and of equivalent inputs."""
    records = [each for each in result["records"] if "what" in each]
    fed, endings = fuzzing.rows(records), ["refused", "foreign errors"]
    ways = [each for each in records if each["what"] == "way" and "equal" in each]
    return {
        "reliability_files": tabulate.markdown(
            ["damaged file", "inputs", "read", *endings], fed["files"]
        ),
        "reliability_calls": tabulate.markdown(
            ["call with wrong values", "inputs", "carried out", *endings], fed["calls"]
        ),
        "reliability_kills": tabulate.markdown(
            ["killed", "at work", "had ended", "all of the old", "all of the new", "lost",
             "went on", "did not go on"],
            kills.rows([each for each in records if each["what"] == "kills"]),
        ),
        "reliability_ways": tabulate.markdown(
            ["the same heart with", "synthetic hearts", "equal bits", "patients' frames",
             "equal bits"],
            [_way_row(way, [each for each in ways if each["way"] == way]) for way in WAYS],
        ),
    }  # fmt: skip


def _way_row(way: str, records: list[Record]) -> list[str]:
    row = [way]
    for kind in ("synthetic", "patient"):
        equal = [each["equal"] for each in records if each["heart"].startswith(kind)]
        row += [str(len(equal)), str(sum(equal))]
    return row
