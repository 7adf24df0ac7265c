"""Composition of deformations: the atlas warped by the frozen part, and consistency under a chain.

Where the guard against folding holds a deformation T_1 back, the atlas is resampled through T_1 and
registered again from rest: ``T = T_1 o (id + u_2)``. The registration sees labels resampled once per
link; what is reported and what decides is the consistency of the atlas itself under the whole chain.
"""

from __future__ import annotations

import numpy as np

from cardiacreg.algebra import determinants, invert, multiply
from cardiacreg.arrays import Float
from cardiacreg.geometry import LabelMap, apply_matrix
from cardiacreg.registration.cell_matching import points_score
from cardiacreg.registration.prepared_target import PreparedTarget
from cardiacreg.transforms.atlas_lookup import AtlasLookup
from cardiacreg.transforms.ffd import FFD
from cardiacreg.transforms.ffd_chain import FFDChain
from cardiacreg.transforms.jacobian import dense_positions, refined_minimum
from cardiacreg.transforms.resampling import Lattice, warp_labels

_MOST_VOXELS = 4e6


def frozen_atlas(
    prepared: PreparedTarget, atlas: LabelMap, transform: FFD | FFDChain, threads: int = 1
) -> LabelMap:
    """Return the atlas resampled through a transform over the registration's domain.

    Parameters
    ----------
    prepared : PreparedTarget
    atlas : LabelMap
    transform : FFD or FFDChain
        Target world mm to atlas world mm.
    threads : int

    Returns
    -------
    LabelMap
        Along the target's axes, at half the finest spacing that target or atlas has.
    """
    extent = prepared.upper_mm - prepared.lower_mm
    spacing = 0.5 * min(prepared.labels.spacing_mm.min(), atlas.spacing_mm.min())
    spacing = max(spacing, float((np.prod(extent) / _MOST_VOXELS) ** (1 / 3)))
    local = np.diag([spacing, spacing, spacing, 1.0])
    local[:3, 3] = prepared.lower_mm
    counts = np.ceil(extent / spacing).astype(int) + 1
    shape = (int(counts[0]), int(counts[1]), int(counts[2]))
    lattice = Lattice(shape, multiply(prepared.samples.axes_to_world, local))
    return warp_labels(atlas, transform, lattice, threads=threads)


def prepend_link(transform: FFD | FFDChain, further: FFD) -> FFDChain:
    """Return a transform with a further deformation before it."""
    links = transform.links if isinstance(transform, FFDChain) else (transform,)
    return FFDChain((further, *links))


def minimum_of_chain(chain: FFDChain) -> float:
    """Return the smallest determinant over the first link's domain; see `jacobian.minimum_jacobian`."""
    first = chain.links[0]

    def at(positions: Float) -> Float:
        slopes = chain.displacement_gradient(apply_matrix(first.lattice_to_world, positions))
        return np.asarray(determinants(np.eye(3) + slopes))

    positions = dense_positions(first.displacements_mm.shape)
    grid = np.stack(np.meshgrid(*positions, indexing="ij"), axis=-1)
    return refined_minimum(at(grid), positions, at)


def consistency_under(
    prepared: PreparedTarget, cells: AtlasLookup, transform: FFD | FFDChain, shifts_mm: Float
) -> float:
    """Return the class-weighted label consistency at full sampling under any transform.

    Parameters
    ----------
    prepared : PreparedTarget
    cells : AtlasLookup
    transform : FFD or FFDChain
    shifts_mm : ndarray, shape (n_slices + n_views, 2)
        Of the target's slices, then of its views.
    """
    samples, score = prepared.samples, prepared.codes.score
    columns = np.arange(samples.labels.shape[2])
    counts = (columns >= samples.spans[..., :1]) & (columns < samples.spans[..., 1:])
    s, i, j = np.nonzero(counts)
    x, y, z = samples.position_mm
    moved = shifts_mm[samples.slice_index]
    axes_mm = np.stack([x[i] + moved[s, 0], y[j] + moved[s, 1], z[s]], axis=-1)
    voxels = _to_voxels(prepared, cells, transform, axes_mm)
    labels = samples.labels[s, i, j]
    value = points_score(voxels, labels, cells, score)
    total = float(score[labels].max(axis=1).sum())
    if prepared.views is not None:
        views = prepared.views
        count = np.diff(views.starts)
        shifts = np.einsum("va,vad->vd", shifts_mm[prepared.labels.shape[2] :], views.axes)
        seen = _to_voxels(
            prepared, cells, transform, views.points_mm + shifts.repeat(count, axis=0)
        )
        value += points_score(seen, views.rows, cells, views.score)
        total += views.total_weight
    return value / total


def _to_voxels(
    prepared: PreparedTarget, cells: AtlasLookup, transform: FFD | FFDChain, axes_mm: Float
) -> Float:
    """Map points along the target's axes to voxels of the padded atlas."""
    to_voxel = multiply(invert(cells.voxel_to_world), transform.affine.matrix)
    world = apply_matrix(prepared.samples.axes_to_world, axes_mm)
    return apply_matrix(to_voxel, world + transform.displacement(world))
