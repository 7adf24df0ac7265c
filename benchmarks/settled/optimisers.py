"""Optimisers on one registration: objective and consistency by processor time.

L-BFGS and nonlinear conjugate gradients (Polak-Ribiere, restarted), each in plain control-point
coordinates and in whitened ones, with the library's own line search, on unseen synthetic stacks; every
level gets the same number of iterations. Gauss-Newton and Levenberg-Marquardt do not apply: label
consistency is a sum of matches, not of squares.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np

from benchmarks.harness import tabulate
from cardiacreg.anatomy.landmarks import landmarks_from_labels
from cardiacreg.compute import lbfgs
from cardiacreg.phantoms.acquisition import simulate_low_resolution
from cardiacreg.phantoms.hearts import FIRST_EVALUATION_SEED, sample_heart
from cardiacreg.registration import multiresolution
from cardiacreg.registration.ffd_registration import (
    RegistrationOptions,
    prepare_target,
    register_prepared,
)
from cardiacreg.registration.label_affine import improve_affine
from cardiacreg.registration.landmark_affine import fit_landmark_affine

Minimise = Callable[..., lbfgs.Minimum]


class Plain:
    """Control-point displacements as they are, in place of `WhitenedDisplacements`."""

    def __init__(self, shape: tuple[int, ...], *_: Any) -> None:
        self._shape = shape

    def displacements(self, whitened: np.ndarray) -> np.ndarray:
        return whitened.reshape(self._shape)

    def gradient(self, displacement_gradient: np.ndarray) -> np.ndarray:
        return displacement_gradient


def conjugate_gradients(
    function: Any,
    start: np.ndarray,
    *,
    iterations: int,
    first_step: float,
    tolerance: float,
    largest_change: Any,
) -> lbfgs.Minimum:
    """Polak-Ribiere+ with the library's line search; a step starts from the last one's length."""
    x, (value, gradient) = start, function(start)
    direction, history = -gradient, [value]
    step = None
    for _ in range(iterations):
        slope = float(direction @ gradient)
        if slope >= 0:
            direction, slope = -gradient, -float(gradient @ gradient)
        if not direction.any():
            break
        length = first_step / largest_change(direction) if step is None else step
        found = _line_search(function, x, value, direction, slope, length)
        if found is None:
            break
        new_x, value, new_gradient = found
        new_length = float(np.linalg.norm(new_x - x) / np.linalg.norm(direction))
        beta = max(0.0, float(new_gradient @ (new_gradient - gradient) / (gradient @ gradient)))
        new_direction = beta * direction - new_gradient
        new_slope = float(new_direction @ new_gradient)
        step = new_length * slope / new_slope if new_slope < 0 else None
        x, gradient, direction = new_x, new_gradient, new_direction
        history.append(value)
        if len(history) > 3 and history[-4] - value < tolerance:
            break
    return lbfgs.Minimum(x, value, len(history) - 1, "iteration limit")


def _line_search(
    function: Any,
    x: np.ndarray,
    value: float,
    direction: np.ndarray,
    slope: float,
    step: float,
) -> tuple[np.ndarray, float, np.ndarray] | None:
    """Backtracking or extending, as the library's; None where no step goes down."""
    for _ in range(12):
        new_x = x + step * direction
        new_value, gradient = function(new_x)
        if new_value <= value + 1e-4 * step * slope:
            break
        curvature = new_value - value - step * slope
        step *= min(0.5, max(0.1, -step * slope / (2 * curvature))) if curvature > 0 else 0.5
    else:
        return None
    found = new_x, new_value, gradient
    for _ in range(8):
        if float(direction @ found[2]) >= 0.9 * slope:
            break
        step *= 4
        new_x = x + step * direction
        new_value, gradient = function(new_x)
        if not new_value <= min(found[1], value + 1e-4 * step * slope):
            break
        found = new_x, new_value, gradient
    return found


METHODS: dict[str, tuple[Minimise, bool]] = {
    "L-BFGS, plain": (lbfgs.minimise, False),
    "conjugate gradients, plain": (conjugate_gradients, False),
    "conjugate gradients, whitened": (conjugate_gradients, True),
    "L-BFGS, whitened (ours)": (lbfgs.minimise, True),
}


def run(quick: bool) -> dict[str, Any]:
    """Register unseen stacks by every optimiser with growing numbers of iterations."""
    records = []
    seeds = [FIRST_EVALUATION_SEED + n for n in range(1 if quick else 6)]
    for seed in seeds:
        heart = sample_heart(seed, group="healthy")
        target = simulate_low_resolution(heart, seed=seed).subject.labels
        atlas = sample_heart(seed + 100, group="pulmonary_hypertension").labels
        fit = fit_landmark_affine(landmarks_from_labels(target), landmarks_from_labels(atlas))
        prepared = prepare_target(target, RegistrationOptions())
        affine = improve_affine(prepared, atlas, fit.target_to_atlas)
        for iterations in (5, 10) if quick else (5, 10, 20, 40, 80):
            options = replace(RegistrationOptions(), iterations=(iterations,) * 3, tolerance=0.0)
            for name in METHODS:
                found = _measured(name, prepared, options, atlas, affine)
                records.append({"seed": seed, "iterations": iterations} | found)
    return {"seeds": seeds, "records": records}


def _measured(
    name: str, prepared: Any, options: RegistrationOptions, atlas: Any, affine: Any
) -> dict[str, Any]:
    minimise, whitened = METHODS[name]
    reached: list[float] = []

    def recorded(*arguments: Any, **keywords: Any) -> lbfgs.Minimum:
        found = minimise(*arguments, **keywords)
        reached.append(found.value)
        return found

    coordinates = multiresolution.WhitenedDisplacements if whitened else Plain
    with (
        mock.patch.object(multiresolution, "minimise", recorded),
        mock.patch.object(multiresolution, "WhitenedDisplacements", coordinates),
    ):
        start = time.process_time()
        done = register_prepared(prepared, atlas, affine, options)
        seconds = time.process_time() - start
    return {
        "method": name,
        "cpu_seconds": round(seconds, 4),
        "objective": round(reached[-1], 6),
        "consistency": round(done.consistency_after, 5),
    }


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return mean objective (and median processor seconds) by method and iterations per level."""
    counts = sorted({r["iterations"] for r in result["records"]})
    rows = []
    for name in tabulate.methods(result["records"]):
        cells = []
        for count in counts:
            own = [r for r in result["records"] if r["method"] == name and r["iterations"] == count]
            objective = np.mean([r["objective"] for r in own])
            cells.append(f"{objective:.4f} ({np.median([r['cpu_seconds'] for r in own]):.2f} s)")
        rows.append([name, *cells])
    return {
        "optimisers": tabulate.markdown(
            ["objective (time) by iterations per level", *map(str, counts)], rows
        )
    }
