"""From image to model: a network's labels of a simulated stack, refined, beside its true labels, refined.

The image is the evaluated heart's, drawn with more of its surroundings than the truth's lattice holds and
degraded with the same shifts, so that true labels and truth are those of the other rows. The networks are
the shipped ones that saw synthetic hearts alone, none of them evaluated here: the U-Net, and the paper's
SSLLN. The other shipped weights saw patients and are no comparison on drawings.
"""

from __future__ import annotations

import time
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import paper, scoring, tabulate
from benchmarks.harness.cases import Case, Heart, degrade, synthetic_hearts
from benchmarks.harness.measuring import heart_key, refine_quietly, rounded, scored
from benchmarks.harness.store import Record, Unit, gather
from benchmarks.network.network import require_torch
from cardiacreg.errors import InputWarning
from cardiacreg.geometry import LabelMap, Subject, Volume
from cardiacreg.metrics import baselines
from cardiacreg.phantoms.anatomy import heart_fields, structure_fractions
from cardiacreg.phantoms.hearts import sample_heart
from cardiacreg.phantoms.mr_image import render_image
from cardiacreg.phantoms.population import GROUPS, PHASES, sample_shape

TRUE = "true labels"
NETWORKS = {"U-Net": "unet2d_synthetic", "SSLLN": "sslln_lr_synthetic"}
SIMPLE, REFINED = "shape-based", "refined"
_WIDER_VOXELS = 40


def run(quick: bool, cases: int = 12) -> dict[str, Any]:
    """Interpolate and refine the true labels of stacks and what each network makes of their images."""
    require_torch()
    units = [
        _unit(heart, source, way)
        for heart in synthetic_hearts(1 if quick else cases)
        for source in (TRUE, *NETWORKS)
        for way in (SIMPLE, REFINED)
    ]
    records = gather("network_labels", units)
    return {"seeds": sorted({r["seed"] for r in records}), "records": records}


def _unit(heart: Heart, source: str, way: str) -> Unit:
    """One way from a stack to a model, to be measured where it is not stored."""
    key = heart_key(heart, f"{source}, {way}")
    if source in NETWORKS:
        from cardiacreg_nn.inference.weights import read_card

        key["weights"] = read_card(_weights(source).with_suffix(".json"))["sha256"]
    return Unit(key, lambda: rounded(_measure(heart, source, way)))


def _weights(source: str) -> Path:
    from cardiacreg_nn.inference.shipped_weights import weight_path

    return weight_path(NETWORKS[source])


def _measure(heart: Heart, source: str, way: str) -> Record:
    case, start, cpu = heart.case(), time.perf_counter(), time.process_time()
    given = case.target
    if source in NETWORKS:
        given = network_labels(heart, str(_weights(source)))
    labels = LabelMap(given.labels.array, given.labels.voxel_to_world)
    if way == SIMPLE:
        found = baselines.interpolate_shape_based(labels, case.truth)
    else:
        model = refine_quietly(labels, landmarks=given.landmarks, threads=1)
        found = baselines.interpolate_nearest(model.labels, case.truth)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return scored(case, f"{source}, {way}", found, seconds) | {
        "cpu_seconds": cpu,
        "slice_dice": _slice_dice(labels, case),
    }


def _slice_dice(labels: LabelMap, case: Case) -> dict[str, float]:
    """Dice of the labels that go in with the stack's true ones, on the stack."""
    found = baselines.interpolate_nearest(labels, case.target.labels)
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


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return what each network's labels give, beside true labels of the same hearts."""
    records = result["records"]
    figure_table = tabulate.figure_table
    walls, cavities = ("LV wall", "RV wall"), ("LV cavity", "RV cavity")
    quoted = (paper.VOLUMES_NAME, paper.VOLUMES_ML), (paper.VOLUMES_NAME, paper.MASSES_G)
    return {
        "network-labels-in": _given(records),
        "network-labels-dice": figure_table(
            records, "dice", alignments=("raw", "tilt"), quoted=(paper.DICE_NAME, paper.DICE)
        ),
        "network-labels-hausdorff-slicewise": figure_table(
            records, "hausdorff_slicewise_mm", digits=2,
            quoted=(paper.DICE_NAME, paper.HAUSDORFF_SLICEWISE_MM),
        ),
        "network-labels-volumes": figure_table(
            records, "volume_error_ml", structures=cavities, digits=1, absolute=True,
            quoted=quoted[0],
        ),
        "network-labels-masses": figure_table(
            records, "mass_error_g", structures=walls, digits=1, absolute=True, quoted=quoted[1]
        ),
        "network-labels-significance": _significance(records),
        "network-labels-robustness": tabulate.robustness_table(records),
    }  # fmt: skip


def _given(records: list[Record]) -> str:
    """Dice of what went in, per network."""
    rows = []
    for source in NETWORKS:
        method = f"{source}, {REFINED}"
        own = [r["slice_dice"] for r in records if r["method"] == method and "slice_dice" in r]
        cells = [tabulate.mean_sd([each[name] for each in own]) for name in tabulate.ORDER]
        rows.append([source, *cells])
    return tabulate.markdown(
        ["Dice of the labels that go in, on the slices", *tabulate.ORDER], rows
    )


def _significance(records: list[Record]) -> str:
    """Each network's refined labels against them interpolated, and against the true ones refined."""
    lines: list[str] = []
    for source in NETWORKS:
        others = [f"{source}, {SIMPLE}", f"{TRUE}, {REFINED}"]
        table = tabulate.comparison_table(records, f"{source}, {REFINED}", others).splitlines()
        lines += table if not lines else table[2:]
    return "\n".join(lines)
