"""How unusual a result is among good ones, by what it knows of itself; no truth is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from cardiacreg.anatomy.slice_volumes import StructureVolume
from cardiacreg.anatomy.stack_coverage import End
from cardiacreg.arrays import Float
from cardiacreg.results.guards import GUARDED
from cardiacreg.results.result import AtlasReport, Orientation


class Judged(Protocol):
    """What a quality is computed from: a `RefineResult` or a `SavedResult`."""

    @property
    def agreement(self) -> dict[str, float | None]:
        """Dice with the input by structure."""

    @property
    def volumes(self) -> dict[str, StructureVolume]:
        """Of input and model by structure."""

    @property
    def slice_shifts_mm(self) -> Float:
        """Of every slice, shape (n_slices, 2)."""

    @property
    def atlases(self) -> tuple[AtlasReport, ...]:
        """The chosen ones."""

    @property
    def atlas_diversity(self) -> float | None:
        """How much they differ, 0 to 1."""

    @property
    def orientation(self) -> Orientation | None:
        """How the heart was taken to lie."""

    @property
    def ends(self) -> tuple[End, ...]:
        """What was assumed of the stack's ends."""


def quality_features(result: Judged) -> dict[str, float]:
    """Return what tells good results from failed ones; each is larger where a result is worse.

    Parameters
    ----------
    result : Judged

    Returns
    -------
    dict of str to float
    """
    moved = result.slice_shifts_mm[np.abs(result.slice_shifts_mm).any(axis=1)]
    lengths = np.linalg.norm(moved, axis=1) if len(moved) else np.zeros(1)
    return {
        "disagreement": 1.0 - min(_known(result.agreement), default=1.0),
        "volume_change": max(_changes(result.volumes), default=0.0),
        "share_beyond": max(_shares(result.volumes), default=0.0),
        "largest_shift_mm": float(lengths.max()),
        "typical_shift_mm": float(np.sqrt(np.mean(lengths**2))),
        "landmark_residual_mm": min(each.landmark_residual_mm for each in result.atlases),
        "inconsistency_before": 1.0 - max(each.consistency_before for each in result.atlases),
        "inconsistency_after": 1.0 - float(np.mean([e.consistency_after for e in result.atlases])),
        "least_affine": -max(each.nmi for each in result.atlases),
        "atlas_diversity": result.atlas_diversity or 0.0,
        "cut_ends": float(sum(end.coverage == "partial" for end in result.ends)),
    }


def _known(agreement: Mapping[str, float | None]) -> Sequence[float]:
    return [dice for name, dice in agreement.items() if name in GUARDED and dice is not None]


def _changes(volumes: Mapping[str, StructureVolume]) -> Sequence[float]:
    """How much the volume of each structure differs from the input's, as a share."""
    return [
        abs(volume.total_ml / volume.input_ml - 1)
        for name, volume in volumes.items()
        if name in GUARDED and volume.input_ml
    ]


def _shares(volumes: Mapping[str, StructureVolume]) -> Sequence[float]:
    """How much of each structure's model lies beyond the labelled slices."""
    return [
        (volume.beyond_apex_ml + volume.beyond_base_ml) / volume.total_ml
        for name, volume in volumes.items()
        if name in GUARDED and volume.total_ml
    ]


def json_features(result: Judged) -> dict[str, Any]:
    """Return the features rounded, for files."""
    return {name: round(value, 5) for name, value in quality_features(result).items()}
