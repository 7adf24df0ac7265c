"""Values that a public call should refuse: of any kind at all, or nearly the right one."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

import cardiacreg
from cardiacreg import FFD, Affine, LabelMap, Landmarks, Lattice, Subject, Volume
from cardiacreg.phantoms.toy_heart import make_toy_heart

HEART, OTHER = make_toy_heart(), make_toy_heart(size=0.9)
POINTS = cardiacreg.landmarks_from_labels(HEART.labels)
MOVES, CONTROL = (
    np.random.default_rng(0).normal(size=(5, 5, 5, 3)),
    np.diag([25.0, 25.0, 25.0, 1.0]),
)
SPLINE = FFD(Affine.identity(), MOVES, CONTROL)
LATTICE = Lattice((6, 6, 4), np.diag([10.0, 10.0, 12.0, 1.0]))


def wrong_value(draw: Random, depth: int = 0) -> Any:
    """Return a value of any kind, drawn by number."""
    kind = draw.randrange(12 if depth < 2 else 8)
    if kind == 0:
        return draw.choice([None, True, False, object(), ..., int, len])
    if kind == 1:
        return draw.choice([0, 1, -1, 2, 7, 10**6, -(10**30), 2**63, draw.randrange(-99, 99)])
    if kind == 2:
        return draw.choice([0.0, -0.0, 0.5, -1.5, 1e-300, 1e300, float("inf"), float("nan"), 1j])
    if kind == 3:
        return draw.choice(
            ["", " ", "a", "ED", "0", "-1", "nan", "nowhere.nii", "x" * 300, "é心", "\0"]
        )
    if kind == 4:
        return draw.choice([b"", b"a", b"\xff\xfe", bytearray(b"1"), os.fsencode("nowhere.nii")])
    if kind == 5:
        return _odd_array(draw)
    if kind == 6:
        return draw.choice(
            [HEART, HEART.labels, HEART.image, POINTS, SPLINE, LATTICE, Path("nowhere")]
        )
    if kind == 7:
        return draw.choice([np.float64(1.5), np.int8(3), np.bool_(True), np.datetime64("NaT")])
    if kind == 8:
        return [wrong_value(draw, depth + 1) for _ in range(draw.randrange(4))]
    if kind == 9:
        return tuple(wrong_value(draw, depth + 1) for _ in range(draw.randrange(4)))
    if kind == 10:
        keys = [
            draw.choice(["a", "", 0, 1, None, 1.5, "LV cavity"]) for _ in range(draw.randrange(4))
        ]
        return {key: wrong_value(draw, depth + 1) for key in keys}
    return {draw.randrange(9) for _ in range(draw.randrange(3))}


def _odd_array(draw: Random) -> np.ndarray[Any, Any]:
    shape = tuple(draw.randrange(5) for _ in range(draw.randrange(5)))
    kind = draw.choice(["f8", "f4", "i8", "u1", "c16", "U1", "O", "?", "M8[s]", "S2"])
    filled = draw.choice([0, 1, 2, 255])
    array = np.full(shape, filled).astype(kind)
    if kind in ("f8", "f4") and draw.random() < 0.3:
        array = array * np.float64(draw.choice([np.nan, np.inf, 1e30]))
    return array[::-1] if array.ndim and draw.random() < 0.2 else array


def nearly(value: Any, draw: Random, depth: int = 0) -> Any:
    """Return a value like a right one with one thing changed, or one of any kind.

    Parameters
    ----------
    value : object
        What the call ends well with.
    draw : random.Random
    depth : int, optional
        How deep inside the argument this is.
    """
    change = next((how for kind, how in _CHANGES if isinstance(value, kind)), None)
    if change is None or depth > 3:
        return wrong_value(draw)
    try:
        return change(value, draw, depth)
    except (cardiacreg.InvalidInputError, TypeError, ValueError, OverflowError, IndexError):
        return wrong_value(draw)  # what is refused as it is made cannot be given


def _number(value: Any, draw: Random, depth: int) -> Any:
    return draw.choice(
        [-value, value + 1, value - 1, value * 1000, value / 1000, float(value), str(value), 0,
         np.float32(value), np.array(value), [value], value + 0.5, float("nan"), bool(value)]
    )  # fmt: skip


def _text(value: str, draw: Random, depth: int) -> Any:
    return draw.choice(
        [value.upper(), value.lower(), f" {value}", value[:-1], value * 2, value.encode(),
         Path(value), [value], np.str_(value), value + "\0", value + "é", ""]
    )  # fmt: skip


def _path(value: Path, draw: Random, depth: int) -> Any:
    return draw.choice(
        [str(value), os.fsencode(value), value / "x", value.parent, value.with_suffix(""),
         value.with_suffix(draw.choice([".nii", ".json", ".dof", ".mat", ".npz", ".dcm", ".csv"])),
         value.with_name("x" * 300), value.with_name("\0"), value.with_name("ü"), [value],
         str(value).upper(), f"{value}/"]
    )  # fmt: skip


def _array(value: np.ndarray[Any, Any], draw: Random, depth: int) -> Any:
    kind = draw.randrange(9)
    if kind == 0:
        return value.astype(draw.choice(["f4", "i8", "u1", "c16", "O", "?", "U9", "i1", ">f8"]))
    if kind == 1:
        return draw.choice([value.ravel(), value[..., None], value[None], value.T, value[:0]])
    if kind == 2:
        return value[tuple(slice(draw.choice((0, 1)), None) for _ in value.shape)]
    if kind == 3:
        return value * draw.choice([0, -1, 1e30, 1e-30, 1000, 0.5])
    if kind == 4:
        return np.ma.masked_array(value, np.zeros(value.shape, bool))
    if kind == 5:
        return value.tolist()
    if kind == 6:
        return np.flip(value, draw.randrange(max(1, value.ndim)))
    changed = np.array(value, dtype=np.float64 if kind == 7 else value.dtype)
    where = tuple(draw.randrange(n) for n in changed.shape)
    changed[where] = draw.choice([np.nan, np.inf, 1e300]) if kind == 7 else draw.randrange(128)
    return changed


def _sequence(value: Any, draw: Random, depth: int) -> Any:
    items, kind = list(value), draw.randrange(7)
    if kind == 0:
        items = items[:-1]
    elif kind == 1:
        items = items * 2
    elif kind == 2:
        return iter(items)
    elif kind == 3:
        return draw.choice([list, tuple])(items[::-1])
    elif items:
        where = draw.randrange(len(items))
        items[where] = nearly(items[where], draw, depth + 1)
    return type(value)(items) if type(value) in (list, tuple) else items


def _mapping(value: dict[Any, Any], draw: Random, depth: int) -> Any:
    changed = dict(value)
    if not changed:
        return {wrong_value(draw, 2).__class__.__name__: 1}
    name = draw.choice(list(changed))
    held = changed.pop(name)
    if draw.random() < 0.3:
        return changed
    if draw.random() < 0.3:
        return changed | {nearly(name, draw, depth + 1): held}
    return changed | {name: nearly(held, draw, depth + 1)}


def _labels(value: LabelMap, draw: Random, depth: int) -> Any:
    array, matrix = np.array(value.array), np.array(value.voxel_to_world)
    kind = draw.randrange(8)
    if kind == 0:
        return LabelMap(np.zeros_like(array), matrix)
    if kind == 1:
        return LabelMap(np.where(array == draw.randrange(1, 5), array, 0), matrix)
    if kind == 2:
        return LabelMap(np.where(array == draw.randrange(1, 5), 0, array), matrix)
    if kind == 3:
        return LabelMap(array, matrix @ np.diag([draw.choice([-1, 0.5, 2, 20]), 1, 1, 1.0]))
    if kind == 4:
        matrix[:3, 3] += draw.choice([1.0, 100.0, 1e6])
        return LabelMap(array, matrix)
    if kind == 5:
        return LabelMap(array[:, :, : draw.choice((1, 2, 4))], matrix)
    if kind == 6:
        return LabelMap(array + np.uint8(draw.choice((1, 100, 250))), matrix)
    return draw.choice(
        [array, (array, matrix), Volume(array, matrix), LabelMap(array[:1, :1], matrix)]
    )


def _volume(value: Volume, draw: Random, depth: int) -> Any:
    array, matrix = np.array(value.array), np.array(value.voxel_to_world)
    kind = draw.randrange(6)
    if kind == 0:
        return Volume(array * 0, matrix)
    if kind == 1:
        array[draw.randrange(len(array))] = draw.choice([np.nan, np.inf, -1e30])
        return Volume(array, matrix)
    if kind == 2:
        return Volume(array[::2, ::2], matrix)
    if kind == 3:
        matrix[:3, 3] += draw.choice([1.0, 100.0, 1e6])
        return Volume(array, matrix)
    return draw.choice(
        [array, (array, matrix), array[..., None], Volume(array[:1, :1, :1], matrix)]
    )


def _landmarks(value: Landmarks, draw: Random, depth: int) -> Any:
    points = np.array(value.points_mm)
    made = draw.choice(
        [points[:5], points[::-1], points * 0, points + 1000, points / 1000, points * [-1, -1, 1],
         points[[0] * 6], points * [1, 1, 0]]
    )  # fmt: skip
    return Landmarks(made) if draw.random() < 0.8 else made


def _affine(value: Affine, draw: Random, depth: int) -> Any:
    scale = draw.choice([-1.0, 1e-6, 1e6, 0.5])
    matrix = np.array(value.matrix)
    matrix[:3, 3] += draw.choice([0.0, 1000.0])
    return draw.choice([Affine(matrix @ np.diag([scale, 1, 1, 1])), matrix, Affine(matrix)])


def _spline(value: FFD, draw: Random, depth: int) -> Any:
    moves = np.array(value.displacements_mm) * draw.choice([0.0, 30.0, 1e6, -1.0])
    matrix = np.array(value.lattice_to_world) @ np.diag(
        [draw.choice([-1.0, 1e-3, 1.0, 50.0])] * 3 + [1]
    )
    return FFD(nearly_affine(value.affine, draw), moves, matrix)


def nearly_affine(value: Affine, draw: Random) -> Affine:
    """Return an affine, changed or not."""
    changed = _affine(value, draw, 0)
    return changed if isinstance(changed, Affine) else value


def _fields(value: Any, draw: Random, depth: int) -> Any:
    names = [each.name for each in dataclasses.fields(value) if each.init]
    name = draw.choice(names)
    return dataclasses.replace(value, **{name: nearly(getattr(value, name), draw, depth + 1)})


_CHANGES: tuple[tuple[Any, Any], ...] = (
    (bool, lambda value, draw, _: draw.choice([not value, str(value), np.bool_(value), 2])),
    ((int, float), _number),
    (str, _text),
    (Path, _path),
    (np.ndarray, _array),
    ((list, tuple), _sequence),
    (dict, _mapping),
    (LabelMap, _labels),
    (Volume, _volume),
    (Landmarks, _landmarks),
    (Affine, _affine),
    (FFD, _spline),
    (Subject, _fields),
)
"""How a value of a kind is changed: the first kind that it is of counts."""
