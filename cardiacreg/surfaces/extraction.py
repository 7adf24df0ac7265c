"""Surfaces of a model: endo- and epicardium of both ventricles, and the whole."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real

import numpy as np

from cardiacreg.errors import InvalidInputError, check_argument, warn
from cardiacreg.geometry import apply_matrix
from cardiacreg.results.saved_model import Model, as_model
from cardiacreg.surfaces.level_fields import (
    EPI,
    STRUCTURES_INSIDE,
    FineFields,
    LevelField,
    fine_fields,
    level_set,
    leveled,
    resampled,
)
from cardiacreg.surfaces.triangles import Surface

DEFAULT_TRIANGLES = 20_000
_FEWEST_TRIANGLES = 200
_TRIAL_STEP_MM = 3.0
_FINEST_STEP = 0.5
"""In smallest voxel edges; finer triangles would show nothing more."""
_COARSEST_STEP_MM = 8.0
_TOLD_SHARE = 0.005


def surfaces_of(
    model: Model,
    *,
    triangles: int = DEFAULT_TRIANGLES,
    structures: Sequence[str] | None = None,
) -> dict[str, Surface]:
    """Return closed surfaces of a model.

    Each is a level set, by marching cubes, of the smoothed share of the labels it encloses. All are
    taken on one lattice, the levels are moved until each surface holds the volume of its labels, and an
    inner field nowhere exceeds an outer one, so that walls keep their volume and no surface crosses
    another. A structure that is not labelled has no surface.

    Parameters
    ----------
    model : RefineResult, LabelMap or path-like
        A result, the folder it was saved to, canonical labels on thin slices, or their file.
    triangles : int
        Most triangles of the largest surface; the others have fewer, of the same size.
    structures : sequence of str, optional
        Which of ``LV_ENDO`` (around the LV cavity), ``LV_EPI`` (cavity and wall), ``RV_ENDO``,
        ``RV_EPI`` and ``EPI`` (everything); all when absent.

    Returns
    -------
    dict of str to Surface
        Closed, in world RAS+ mm, looking outwards, in one piece each.

    Raises
    ------
    InvalidInputError
        If the labels are all background (EMPTY_LABELS), a structure is unknown (UNKNOWN_STRUCTURE),
        or fewer than 200 triangles are asked for (BAD_TRIANGLES).

    Warns
    -----
    InputWarning
        If labels outside their structure's largest piece are left out.

    Examples
    --------
    >>> from cardiacreg import surfaces_of
    >>> from cardiacreg.phantoms.toy_heart import make_toy_heart
    >>> surfaces = surfaces_of(make_toy_heart().labels, triangles=4000)
    >>> list(surfaces), surfaces["LV_ENDO"].is_closed()
    (['LV_ENDO', 'LV_EPI', 'RV_ENDO', 'RV_EPI', 'EPI'], True)
    >>> round(surfaces["LV_ENDO"].volume_ml())
    32
    """
    wanted = _wanted(structures)
    check_argument(triangles, Real, "surfaces_of: triangles")
    if not triangles >= _FEWEST_TRIANGLES:
        raise InvalidInputError(
            f"surfaces_of: got {triangles} triangles; needs at least {_FEWEST_TRIANGLES}.",
            code="BAD_TRIANGLES",
        )
    labels = as_model(model).labels
    fine = fine_fields(labels)
    for name, share in fine.dropped.items():
        if share > _TOLD_SHARE and name in wanted:
            warn(
                f"surfaces_of: {100 * share:.1f} % of what {name} encloses lies apart from the rest "
                "and is left out; look at the labels, or apply clean_topology to them."
            )
    fields = _within_budget(fine, triangles, float(labels.spacing_mm.min()))
    return {name: _surface(name, field) for name, field in fields.items() if name in wanted}


def _wanted(structures: Sequence[str] | None) -> tuple[str, ...]:
    wanted = tuple(STRUCTURES_INSIDE) if structures is None else tuple(structures)
    unknown = [name for name in wanted if name not in STRUCTURES_INSIDE]
    if unknown:
        raise InvalidInputError(
            f"surfaces_of: {', '.join(map(str, unknown))} is unknown; needs some of "
            f"{', '.join(STRUCTURES_INSIDE)}.",
            code="UNKNOWN_STRUCTURE",
        )
    return wanted


def _within_budget(
    fine: FineFields, triangles: int, smallest_edge_mm: float
) -> dict[str, LevelField]:
    """Choose the lattice's step so that the largest surface has at most so many triangles."""
    trial = FineFields({EPI: fine.fields[EPI]}, fine.volumes_mm3, fine.voxel_to_world, {})
    coarse, _ = resampled(trial, _TRIAL_STEP_MM)
    count = len(level_set(coarse[EPI])[1])
    step = _TRIAL_STEP_MM * float(np.sqrt(count / triangles)) * 1.01
    step = float(np.clip(step, _FINEST_STEP * smallest_edge_mm, _COARSEST_STEP_MM))
    while True:
        fields = leveled(fine, step)
        most = max(len(level_set(field.field)[1]) for field in fields.values())
        if most <= triangles:
            return fields
        step *= 1.005 * float(np.sqrt(most / triangles))


def _surface(name: str, found: LevelField) -> Surface:
    vertices, triangles = level_set(found.field)
    if np.linalg.det(found.voxel_to_world[:3, :3]) < 0:
        triangles = triangles[:, ::-1]
    return Surface(apply_matrix(found.voxel_to_world, vertices), triangles, name)
