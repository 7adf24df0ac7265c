"""A synthetic heart that beats: one person's end-diastole and end-systole, and every frame between them.

The measures of the two phases (`population.sample_shape`) are interpolated along a curve of contraction:
systole takes `SYSTOLE` of the cycle, filling is fast at first. Where interpolation changes the volume of
the LV wall, its thickness makes that good, so that muscle keeps its volume over the cycle. The apex stays
where it is, as in a scanner, and the base descends.
"""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np

from cardiacreg.anatomy.landmarks import derive_landmarks
from cardiacreg.anatomy.topology import clean_topology
from cardiacreg.arrays import Float
from cardiacreg.errors import InvalidInputError
from cardiacreg.geometry import LV_CAVITY, LV_WALL, RV_CAVITY, RV_WALL, LabelMap, Subject
from cardiacreg.phantoms.anatomy import HeartShape, heart_fields, structure_fractions
from cardiacreg.phantoms.population import coarse_axes, sample_shape, shape_volumes
from cardiacreg.phantoms.published_measures import LV_AXIAL_STRETCH, LV_CENTRE_MM

SYSTOLE = 0.38
"""Share of the cycle from end-diastole to end-systole."""
_FILLING = 0.75
"""Below 1: filling is faster early than late."""
_MARGIN_MM, _HELD = 12.0, 0.25
_ROUNDS = 2
_VALUES = {"lv_cavity": LV_CAVITY, "lv_wall": LV_WALL, "rv_wall": RV_WALL, "rv_cavity": RV_CAVITY}


def contraction(times: Float) -> Float:
    """Return how contracted a heart is: 0 at end-diastole, 1 at end-systole.

    Parameters
    ----------
    times : ndarray
        In cycles; 0 is end-diastole.

    Returns
    -------
    ndarray

    Examples
    --------
    >>> import numpy as np
    >>> from cardiacreg.phantoms.beating import SYSTOLE, contraction
    >>> contraction(np.array([0.0, SYSTOLE, 1.0])).round(6).tolist()
    [0.0, 1.0, 0.0]
    """
    phase = np.asarray(times, dtype=np.float64) % 1.0
    filling = np.clip((phase - SYSTOLE) / (1 - SYSTOLE), 0, 1) ** _FILLING
    systole = np.clip(phase / SYSTOLE, 0, 1)
    return np.asarray(0.5 - 0.5 * np.cos(np.pi * np.where(phase < SYSTOLE, systole, 1 + filling)))


def beating_heart(
    seed: int,
    *,
    n_frames: int = 25,
    group: str = "healthy",
    spacing_mm: tuple[float, float, float] = (1.25, 1.25, 2.0),
) -> list[Subject]:
    """Make one synthetic heart at evenly spaced times of its cycle, on one lattice.

    Parameters
    ----------
    seed : int
        As for `sample_heart`: the same person.
    n_frames : int
        At least 2; frame 0 is end-diastole. With 2 the other one is end-systole.
    group : str
        As for `sample_heart`.
    spacing_mm : tuple of three floats

    Returns
    -------
    list of Subject
        Labels of every frame, all on one lattice, with landmarks; ``metadata["contraction"]`` is 0 at
        end-diastole and 1 at end-systole.

    Raises
    ------
    InvalidInputError
        If there are fewer than 2 frames (BAD_FRAME), or as `sample_heart`.

    Examples
    --------
    >>> from cardiacreg.anatomy.volumes import volumes_ml
    >>> from cardiacreg.phantoms.beating import beating_heart
    >>> ed, es = beating_heart(10_000, n_frames=2, spacing_mm=(3.0, 3.0, 4.0))
    >>> volumes_ml(es.labels)["LV cavity"] < volumes_ml(ed.labels)["LV cavity"]
    True
    """
    if n_frames < 2:
        raise InvalidInputError(
            f"beating_heart: n_frames is {n_frames}; needs at least 2.", code="BAD_FRAME"
        )
    ends = [sample_shape(seed, phase=phase, group=group) for phase in ("ED", "ES")]
    times = np.array([0.0, SYSTOLE]) if n_frames == 2 else np.arange(n_frames) / n_frames
    amounts = contraction(times)
    shapes = [shape_between(ends[0], ends[1], float(amount)) for amount in amounts]
    steps = np.asarray(spacing_mm, dtype=np.float64)
    axes = _axes_over(shapes, steps)
    return [
        _frame(shape, axes, steps, f"{group}_{seed:05d}_{number:02d}", float(amount))
        for number, (shape, amount) in enumerate(zip(shapes, amounts, strict=True))
    ]


def shape_between(ed: HeartShape, es: HeartShape, amount: float) -> HeartShape:
    """Interpolate all measures of one person's phases, and keep the volume of the LV wall.

    Parameters
    ----------
    ed, es : HeartShape
        At end-diastole and end-systole.
    amount : float
        How contracted the heart is: 0 at end-diastole, 1 at end-systole.

    Returns
    -------
    HeartShape

    Examples
    --------
    >>> from cardiacreg.phantoms.beating import shape_between
    >>> from cardiacreg.phantoms.population import sample_shape, shape_volumes
    >>> ends = [sample_shape(10_000, phase=phase) for phase in ("ED", "ES")]
    >>> volumes = [shape_volumes(shape_between(*ends, amount)).lv_cavity_ml for amount in (0, 0.5, 1)]
    >>> volumes[0] > volumes[1] > volumes[2]
    True
    """
    if amount in (0.0, 1.0):
        return es if amount else ed
    mixed = {
        field.name: (1 - amount) * getattr(ed, field.name) + amount * getattr(es, field.name)
        for field in fields(HeartShape)
    }
    shape = HeartShape(**mixed)
    first, last = (shape_volumes(each).lv_wall_ml for each in (ed, es))
    wanted = (1 - amount) * first + amount * last
    for _ in range(_ROUNDS):
        ratio = wanted / shape_volumes(shape).lv_wall_ml
        shape = replace(shape, wall_factor=shape.wall_factor * ratio**0.85)
    return shape


def _apex_mm(shape: HeartShape) -> float:
    """Height of the LV's apex over the mitral centre."""
    depth = LV_CENTRE_MM[2] - LV_AXIAL_STRETCH * float(shape.outer_radius_mm()[0, 0])
    return shape.scale * shape.elongation * depth


def _axes_over(shapes: list[HeartShape], steps_mm: Float) -> tuple[Float, Float, Float]:
    """Axes of a lattice around all frames, x and y from the mitral centre, z from the apex."""
    lower, upper = np.full(3, np.inf), np.full(3, -np.inf)
    for shape in (shapes[0], shapes[len(shapes) // 2], shapes[-1]):
        axes = coarse_axes(shape)
        shares = structure_fractions(heart_fields(shape, axes), shape.rv_wall_mm, 4.0)
        held = np.argwhere(np.sum(list(shares.values()), axis=0) > _HELD)
        low, high = held.min(axis=0), held.max(axis=0)
        rise = np.array([0.0, 0.0, _apex_mm(shape)])
        lower = np.minimum(lower, [a[n] for a, n in zip(axes, low, strict=True)] - rise)
        upper = np.maximum(upper, [a[n] for a, n in zip(axes, high, strict=True)] - rise)
    x, y, z = (
        np.arange(a - _MARGIN_MM, b + _MARGIN_MM, step)
        for a, b, step in zip(lower, upper, steps_mm, strict=True)
    )
    return x, y, z


def _frame(
    shape: HeartShape,
    axes: tuple[Float, Float, Float],
    steps_mm: Float,
    name: str,
    amount: float,
) -> Subject:
    own = (axes[0], axes[1], axes[2] + _apex_mm(shape))
    shares = structure_fractions(
        heart_fields(shape, own), shape.rv_wall_mm, float(steps_mm[:2].mean())
    )
    stacked = np.stack([shares[key] for key in _VALUES])
    background = 1 - stacked.sum(axis=0, keepdims=True)
    winner = np.argmax(np.concatenate([background, stacked]), axis=0)
    matrix = np.diag([*steps_mm, 1.0])
    matrix[:3, 3] = [axis[0] for axis in axes]
    array = np.array([0, *_VALUES.values()], dtype=np.uint8)[winner]
    labels = clean_topology(LabelMap(array, matrix))
    return Subject(
        labels, landmarks=derive_landmarks(labels), name=name, metadata={"contraction": amount}
    )
