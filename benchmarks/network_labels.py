"""From image to model: a network's labels of a simulated stack, refined, beside its true labels, refined.

The image is the evaluated heart's, drawn with more of its surroundings than the truth's lattice holds and
degraded with the same shifts, so that true labels and truth are those of the other rows. The network is
the shipped one that saw synthetic hearts alone, none of them evaluated here; the other shipped weights
saw patients and are no comparison on drawings.
"""

from __future__ import annotations

import time
import warnings
from functools import lru_cache
from typing import Any

import numpy as np

from benchmarks import baselines, scoring
from benchmarks.cases import Case, Heart, degrade
from benchmarks.measuring import heart_key, refine_quietly, rounded, scored
from benchmarks.store import Record, Unit
from cardiacreg.errors import InputWarning
from cardiacreg.geometry import LabelMap, Subject, Volume
from cardiacreg.phantom_anatomy import heart_fields, structure_fractions
from cardiacreg.phantom_image import render_image
from cardiacreg.phantom_population import GROUPS, PHASES, sample_shape
from cardiacreg.phantoms import sample_heart

WEIGHTS = "sslln_lr_synthetic"
TRUE, TRUE_REFINED = "true labels, shape-based", "true labels, refined"
NETWORK, NETWORK_REFINED = "network labels, shape-based", "network labels, refined"
METHODS = (TRUE, TRUE_REFINED, NETWORK, NETWORK_REFINED)
_WIDER_VOXELS = 40


def unit(heart: Heart, method: str) -> Unit:
    """One way from a stack to a model, to be measured where it is not stored."""
    from cardiacreg_nn import load_weights
    from cardiacreg_nn.prediction import SHIPPED

    path = SHIPPED / "synthetic" / f"{WEIGHTS}.safetensors"
    card = load_weights(path).card
    key = heart_key(heart, method) | {"weights": card["sha256"]}
    return Unit(key, lambda: rounded(_measure(heart, method, str(path))))


def _measure(heart: Heart, method: str, weights: str) -> Record:
    case, start, cpu = heart.case(), time.perf_counter(), time.process_time()
    given = network_labels(heart, weights) if method in (NETWORK, NETWORK_REFINED) else case.target
    labels = LabelMap(given.labels.array, given.labels.voxel_to_world)
    if method in (TRUE, NETWORK):
        found = baselines.shape_based(labels, case.truth)
    else:
        model = refine_quietly(labels, landmarks=given.landmarks, threads=1)
        found = baselines.nearest_neighbour(model.labels, case.truth)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return scored(case, method, found, seconds) | {
        "cpu_seconds": cpu,
        "slice_dice": _slice_dice(labels, case),
    }


def _slice_dice(labels: LabelMap, case: Case) -> dict[str, float]:
    """Dice of the labels that go in with the stack's true ones, on the stack."""
    found = baselines.nearest_neighbour(labels, case.target.labels)
    figures = scoring.raw_dice(found, case.target.labels)["raw"]
    return {name: each["dice"] for name, each in figures.items()}


@lru_cache(maxsize=1)
def network_labels(heart: Heart, weights: str) -> Subject:
    """Return labels and landmarks that the network finds in a heart's simulated stack."""
    from cardiacreg_nn import predict

    stack = wide_stack(heart)
    assert stack.image is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        return predict(stack.image, weights=weights)


def wide_stack(heart: Heart) -> Subject:
    """Return the degraded heart with its image drawn far into the surroundings.

    Labels and shifts are those of ``heart.case()``; only the planes are larger.
    """
    truth = sample_heart(heart.seed, group=heart.group, phase=heart.phase, with_image=False).labels
    wide = _WIDER_VOXELS
    matrix = truth.voxel_to_world.copy()
    matrix[:3, 3] -= matrix[:3, :3] @ np.array([wide, wide, 0.0])
    array = np.pad(truth.array, ((wide, wide), (wide, wide), (0, 0)))
    axes = tuple(
        matrix[n, 3] + matrix[n, n] * np.arange(size) for n, size in enumerate(array.shape)
    )
    shape = sample_shape(heart.seed, phase=heart.phase, group=heart.group)
    fields = heart_fields(shape, axes)
    fractions = structure_fractions(fields, shape.rv_wall_mm, float(truth.spacing_mm[:2].mean()))
    seeds = [heart.seed, sorted(GROUPS).index(heart.group), 1 + PHASES.index(heart.phase), 1]
    image = render_image(fields, fractions, axes, np.random.default_rng(seeds))
    subject = Subject(LabelMap(array, matrix), image=Volume(image, matrix))
    return degrade(subject, heart.seed, heart.degradation).subject


def slice_dice(records: list[Record], method: str) -> dict[str, list[float]]:
    """Return the Dice of what went in, per structure, over the cases of a method."""
    own = [r["slice_dice"] for r in records if r["method"] == method and "slice_dice" in r]
    names: Any = own[0] if own else ()
    return {name: [each[name] for each in own] for name in names}
