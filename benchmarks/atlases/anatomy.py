"""Measures of the synthetic population beside its targets and the real anatomies."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.harness import tabulate
from benchmarks.harness.cases import ANATOMIES, DataAbsent, real_anatomy
from cardiacreg.geometry import LabelMap
from cardiacreg.phantoms.hearts import FIRST_EVALUATION_SEED, PHASES, measures, sample_heart
from cardiacreg.phantoms.population import GROUPS

APEX_OFFSET, LENGTH = "RV apex over LV apex, mm", "LV length, mm"
REAL = "real anatomies, ED"


def run(quick: bool) -> dict[str, Any]:
    """Measure every group and phase and, where they are, the real anatomies."""
    count = 3 if quick else 24
    seeds = [FIRST_EVALUATION_SEED + n for n in range(count)]
    hearts = {
        f"{group}, {phase}": [
            _measure(sample_heart(seed, group=group, phase=phase, with_image=False).labels)
            for seed in seeds
        ]
        for group in GROUPS
        for phase in PHASES
    }
    try:
        hearts[REAL] = [_measure(real_anatomy(name).labels) for name in ANATOMIES[: count * 2]]
    except DataAbsent:
        pass
    return {
        "seeds": seeds,
        "measures": {name: _statistics(found) for name, found in hearts.items()},
    }


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return mean and standard deviation of every measure per group."""
    found = result["measures"]
    names = list(next(iter(found.values())))
    rows = [
        [group, *(f"{values[name][0]:.0f} ± {values[name][1]:.0f}" for name in names)]
        for group, values in found.items()
    ]
    return {"anatomy-measures": tabulate.markdown(["group", *names], rows)}


def _measure(labels: LabelMap) -> dict[str, float]:
    """Volumes, masses, length and apex offset; slices run from apex to base."""
    slices = {value: np.flatnonzero((labels.array == value).any(axis=(0, 1))) for value in (2, 4)}
    step = float(labels.spacing_mm[2])
    return measures(labels) | {
        LENGTH: step * float(slices[2][-1] - slices[2][0] + 1),
        APEX_OFFSET: step * float(slices[4][0] - slices[2][0]),
    }


def _statistics(found: list[dict[str, float]]) -> dict[str, list[float]]:
    return {
        name: [
            round(float(np.mean([one[name] for one in found])), 2),
            round(float(np.std([one[name] for one in found])), 2),
        ]
        for name in found[0]
    }
