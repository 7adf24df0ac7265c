"""A segmentation or model judged against the truth, wherever the two lie and whatever they lack.

Overlap and distances are measured on the truth's lattice, volumes and masses on each map's own: a map
that was cropped keeps its volume. A structure that is not in the truth has no overlap and no distance.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from cardiacreg.anatomy.volumes import structure_masses_g, structure_volumes_ml
from cardiacreg.errors import InvalidInputError
from cardiacreg.geometry import STRUCTURES, LabelMap, apply_matrix, same_lattice
from cardiacreg.metrics.baselines import interpolate_nearest
from cardiacreg.metrics.overlap import compare

NOT_IN_TRUTH = "not in the truth"
NOT_IN_PREDICTION = "not in the prediction"
_NEEDS_BOTH = (
    "hausdorff",
    "average_surface",
    "normalized_surface",
    "volume_error",
    "mass_error",
    "n_",
)


class Evaluation(NamedTuple):
    """What was found of every structure that is in either map.

    Parameters
    ----------
    structures : dict
        Structure name to its figures, as `compare` has them, with None for what cannot be measured, and
        ``note``: `NOT_IN_TRUTH`, `NOT_IN_PREDICTION` or "".
    resampled_onto_truth : bool
        Whether the lattices differ.
    outside_truth : float
        Share of the prediction's labelled volume that lies outside the truth's lattice, 0 to 1.
    outside_prediction : float
        Share of the truth's labelled volume that lies outside the prediction's lattice, 0 to 1.
    """

    structures: dict[str, dict[str, Any]]
    resampled_onto_truth: bool
    outside_truth: float
    outside_prediction: float


def evaluate_labels(prediction: LabelMap, truth: LabelMap) -> Evaluation:
    """Compare labels with the truth, on lattices that may differ.

    Parameters
    ----------
    prediction, truth : LabelMap
        Canonical labels.

    Returns
    -------
    Evaluation

    Raises
    ------
    InvalidInputError
        If a map is empty (EMPTY_LABELS), or nothing labelled in one lies in the field of the other
        (LATTICE_MISMATCH).
    """
    for labels, what in ((prediction, "the prediction"), (truth, "the truth")):
        if not labels.array.any():
            raise InvalidInputError(
                f"evaluate: {what} holds no labels; check the file and the frame.",
                code="EMPTY_LABELS",
            )
    outside = _share_outside(prediction, truth), _share_outside(truth, prediction)
    if max(outside) == 1:
        raise InvalidInputError(
            "evaluate: nothing labelled in one map lies in the field of the other; needs two maps of one "
            "heart in one place: check both headers.",
            code="LATTICE_MISMATCH",
        )
    resampled = not same_lattice(prediction, truth)
    figures = compare(interpolate_nearest(prediction, truth) if resampled else prediction, truth)
    here, there = set(prediction.present()), set(truth.present())
    structures = {
        name: _completed(name, label, figures.get(name, {}), (prediction, truth))
        for label, name in STRUCTURES.items()
        if label in here | there
    }
    return Evaluation(structures, resampled, *outside)


def _completed(
    name: str, label: int, row: dict[str, Any], maps: tuple[LabelMap, LabelMap]
) -> dict[str, Any]:
    """Return figures with each map's own size, and without those that a missing structure spoils."""
    sizes: dict[str, Any] = {}
    for what, measured in (("volume_ml", structure_volumes_ml), ("mass_g", structure_masses_g)):
        ours, true = (measured(each).get(name) for each in maps)
        error = what.replace("_", "_error_")
        if name in measured(maps[1]):
            sizes |= {what: ours, f"true_{what}": true}
            sizes[error] = None if ours is None or true is None else ours - true
    note = "".join(
        words
        for words, labels in zip((NOT_IN_PREDICTION, NOT_IN_TRUTH), maps, strict=True)
        if label not in labels.present()
    )
    if note:
        row = {key: None if key.startswith(_NEEDS_BOTH) else value for key, value in row.items()}
        row["dice"] = None if note == NOT_IN_TRUTH else 0.0
    elif row.get("missed"):  # lost by cropping or resampling
        row = {key: None if key.startswith("hausdorff") else value for key, value in row.items()}
    return row | sizes | {"note": note, "missed": bool(note)}


def _share_outside(labels: LabelMap, other: LabelMap) -> float:
    """Return the share of labelled voxels whose centre lies in no voxel of another lattice."""
    where = np.argwhere(labels.array).astype(np.float64)
    to_other = np.linalg.inv(other.voxel_to_world) @ labels.voxel_to_world
    voxels = apply_matrix(np.asarray(to_other, dtype=np.float64), where)
    limit = np.array(other.shape) - 0.5 + 1e-6
    return float(1 - ((voxels >= -0.5 - 1e-6) & (voxels <= limit)).all(axis=1).mean())
