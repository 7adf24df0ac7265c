"""Fields whose zero levels bound the structures of a model: smooth, nested, of the right volume.

A share of labels is smoothed by a Gaussian and turned into mm by the inverse of a Gaussian step, so that
the field is close to a signed distance (positive inside) and linear across its zero level, whatever the
lattice. Only unions are smoothed whose inside is thick: a thin wall is what lies between two of them.
Each level is moved until the surface holds the volume of the labels, and later fields are clipped by
earlier ones: the endocardium lies inside the epicardium, and no ventricle inside the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import erfinv

from cardiacreg.arrays import Float
from cardiacreg.geometry import LV_CAVITY, LV_WALL, RV_CAVITY, RV_WALL, LabelMap
from cardiacreg.slices import labelled_box
from cardiacreg.surfaces.handles import without_handles
from cardiacreg.surfaces.triangles import Surface, Triangles, enclosed_volume, total_area

LV_ENDO, LV_EPI, RV_ENDO, RV_EPI, EPI = "LV_ENDO", "LV_EPI", "RV_ENDO", "RV_EPI", "EPI"
STRUCTURES_INSIDE: dict[str, tuple[int, ...]] = {
    LV_ENDO: (LV_CAVITY,),
    LV_EPI: (LV_CAVITY, LV_WALL),
    RV_ENDO: (RV_CAVITY,),
    RV_EPI: (RV_CAVITY, RV_WALL),
    EPI: (LV_CAVITY, LV_WALL, RV_CAVITY, RV_WALL),
}
"""Surface to the labels that it encloses, in the order in which the levels are found."""

SMOOTHING = 0.75
"""Standard deviation of the Gaussian in largest voxel edges: about a voxel's edge is smoothed away."""
_LARGEST_SMOOTHING_MM = 2.5
_FARTHEST = 3.0
"""In standard deviations: beyond it a share says no more than inside or outside."""
_NEAR_NODE = 0.02
"""In lattice steps: no level passes a node more closely, as slivers would come of it."""
_VOLUME_TOLERANCE = 5e-4
_MOST_STEPS = 6
_CUT_DEPTHS, _MOST_WIDER = (_NEAR_NODE, 0.25, 1.0), 2
_FAR_MM = 1e3
"""More than any field holds."""

Field = NDArray[np.float32]
Change = Callable[[Field], Field]


class FineFields(NamedTuple):
    """Smooth fields in mm of a model's unions on its own lattice, before any level is moved."""

    fields: dict[str, Field]
    volumes_mm3: dict[str, float]
    voxel_to_world: Float
    dropped: dict[str, float]
    """Share of a union's volume that lay in other pieces than its largest, and was left out."""


class LevelField(NamedTuple):
    """A field on a lattice whose zero level is a surface."""

    field: Field
    voxel_to_world: Float


def fine_fields(labels: LabelMap, names: tuple[str, ...] = tuple(STRUCTURES_INSIDE)) -> FineFields:
    """Return the smooth field of every union of structures that the labels show.

    Parameters
    ----------
    labels : LabelMap
        Canonical labels.
    names : tuple of str
        Of `STRUCTURES_INSIDE`.

    Raises
    ------
    InvalidInputError
        If the labels are all background (EMPTY_LABELS).
    """
    spacing = labels.spacing_mm
    sigma = min(SMOOTHING * float(spacing.max()), _LARGEST_SMOOTHING_MM)
    width = np.ceil((_FARTHEST + 1) * sigma / spacing).astype(int) + 1
    box = labelled_box(labels)
    array = np.pad(labels.array[box], [(int(n), int(n)) for n in width])
    matrix = np.array(labels.voxel_to_world)
    matrix[:3, 3] += matrix[:3, :3] @ (np.array([side.start for side in box]) - width)
    fields, volumes, dropped = {}, {}, {}
    voxel_mm3 = abs(float(np.linalg.det(matrix[:3, :3])))
    for name in names:
        mask = np.isin(array, STRUCTURES_INSIDE[name])
        if not mask.any():
            continue
        piece = one_piece(mask)
        dropped[name] = 1 - float((piece & mask).sum() / mask.sum())
        fields[name] = _distance_like(piece, sigma, spacing)
        volumes[name] = float(piece.sum()) * voxel_mm3
    return FineFields(fields, volumes, matrix, dropped)


def one_piece(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the largest piece of a mask, with the holes inside it filled."""
    pieces, count = ndimage.label(mask)
    if count > 1:
        mask = pieces == 1 + int(np.argmax(np.bincount(pieces.ravel())[1:]))
    outside, count = ndimage.label(~mask)
    if count > 1:
        mask = outside != 1 + int(np.argmax(np.bincount(outside.ravel())[1:]))
    return mask


def _distance_like(mask: NDArray[np.bool_], sigma: float, spacing: Float) -> Field:
    share = ndimage.gaussian_filter(mask.astype(np.float32), sigma / spacing, mode="constant")
    scale = sigma * np.sqrt(2)
    most = np.float32(1 - 1e-6)
    distance = scale * erfinv(np.clip(2 * share - 1, -most, most))
    return np.asarray(np.clip(distance, -_FARTHEST * sigma, _FARTHEST * sigma), dtype=np.float32)


def resampled(fine: FineFields, step_mm: float) -> tuple[dict[str, Field], Float]:
    """Return the fields on a lattice of a given step, and its matrix."""
    matrix = fine.voxel_to_world.copy()
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    ratio = step_mm / spacing
    shape = next(iter(fine.fields.values())).shape
    size = tuple(int(n) for n in np.floor((np.array(shape) - 1) / ratio).astype(int) + 1)
    matrix[:3, :3] *= ratio
    coarse = {
        name: ndimage.affine_transform(field, ratio, output_shape=size, order=1, mode="nearest")
        for name, field in fine.fields.items()
    }
    return coarse, matrix


def leveled(fine: FineFields, step_mm: float) -> dict[str, LevelField]:
    """Return fields whose zero levels are nested and hold the volumes of the labels.

    Parameters
    ----------
    fine : FineFields
    step_mm : float
        Of the lattice on which the surfaces are taken.
    """
    coarse, matrix = resampled(fine, step_mm)
    found: dict[str, Field] = {}
    for name, field in coarse.items():
        moved = _with_volume(field, _clipping(name, found), fine.volumes_mm3[name], matrix, step_mm)
        if moved is not None:
            found[name] = moved
    return {name: LevelField(field, matrix) for name, field in found.items()}


def _clipping(name: str, found: dict[str, Field]) -> Change:
    """Return what earlier surfaces ask of a field: outside the LV for the RV, around what it holds."""
    held = {LV_EPI: (LV_ENDO,), RV_EPI: (RV_ENDO,), EPI: (LV_ENDO, LV_EPI, RV_ENDO, RV_EPI)}
    inner = [found[each] for each in held.get(name, ()) if each in found]
    left = found.get(LV_EPI, found.get(LV_ENDO)) if name in (RV_ENDO, RV_EPI) else None

    def clipped(field: Field) -> Field:
        if left is not None:
            field = np.minimum(field, -left)
        for each in inner:
            field = np.maximum(field, each)
        return field

    return clipped


def _with_volume(
    field: Field, clipped: Change, volume_mm3: float, matrix: Float, step_mm: float
) -> Field | None:
    """Move the zero level until the surface holds a volume; away from nodes, in one piece.

    None where earlier surfaces leave no room for it.
    """
    unit = abs(float(np.linalg.det(matrix[:3, :3])))
    level, error = min(0.0, float(field.max()) - step_mm / 2), np.inf
    best: Field | None = None
    for _ in range(_MOST_STEPS):
        moved = _one_level(clipped(_off_nodes(field - np.float32(level), step_mm)))
        if not (moved > 0).any():
            break
        vertices, triangles = level_set(moved)
        excess = enclosed_volume(vertices, triangles) * unit - volume_mm3
        if abs(excess) < error:
            best, error = moved, abs(excess)
        if abs(excess) <= _VOLUME_TOLERANCE * volume_mm3:
            break
        level += excess / (total_area(vertices, triangles) * unit / step_mm)
    return None if best is None else _without_handles(best, clipped, step_mm)


def _without_handles(field: Field, clipped: Change, step_mm: float) -> Field:
    """Cut or fill handles, within what earlier surfaces allow.

    Marching cubes joins or parts nodes across a face by their values. Where handles come of that, cuts
    and fillings are made deeper, and then wider, until the surface has none; else the field stays.
    """
    if _is_a_sphere(field):
        return field
    inside = field > 0
    far, depth = np.full_like(field, _FAR_MM), np.abs(field) / step_mm
    may_go, may_come = clipped(-far) <= 0, clipped(far) > 0
    kept = without_handles(inside, depth, may_go, may_come)
    for wider in range(_MOST_WIDER + 1):
        wide = kept
        if wider:
            cut = ndimage.binary_dilation(inside & ~kept, iterations=wider) & may_go
            filled = ndimage.binary_dilation(kept & ~inside, iterations=wider) & may_come
            wide = one_piece((kept | filled) & ~cut)
        for share in _CUT_DEPTHS:
            little = np.abs(field).clip(np.float32(share * step_mm))
            found = clipped(np.where(wide == inside, field, np.where(wide, little, -little)))
            if _is_a_sphere(found):
                return found
    return field


def _is_a_sphere(field: Field) -> bool:
    """Whether the zero level has no handle."""
    vertices, triangles = level_set(field)
    return Surface(vertices, triangles).euler_characteristic() == 2


def _off_nodes(field: Field, step_mm: float) -> Field:
    """Keep the zero level a little away from every node; a larger field stays larger."""
    near = np.float32(_NEAR_NODE * step_mm)
    return np.where(np.abs(field) < near, near, field)


def _one_level(field: Field) -> Field:
    """Let only the border between the largest piece of the inside and of the outside be a zero level."""
    inside = field > 0
    kept = one_piece(inside)
    changed = kept != inside
    if not changed.any():
        return field
    little = np.abs(field).clip(1e-3)
    return np.where(changed, np.where(kept, little, -little), field)


def level_set(field: Field) -> tuple[Float, Triangles]:
    """Return vertices, in nodes, and outward triangles of a field's zero level."""
    from skimage.measure import marching_cubes

    vertices, triangles, *_ = marching_cubes(field, 0.0)
    vertices = vertices.astype(np.float64)
    if enclosed_volume(vertices, triangles) < 0:
        triangles = triangles[:, ::-1]
    return vertices, triangles
