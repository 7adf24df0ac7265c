"""Atlases brought onto a target, for fusions and registrations other than ours to be measured with.

`by_labels` is the library's own way (selection, slice motion, label registration). `by_intensity` is how
multi-atlas segmentation of images works (Bai et al. 2013): the same selected atlases, then a deformation
by intensities, here diffeomorphic demons of SimpleITK after histogram matching, in two resolutions.
"""

from __future__ import annotations

import time
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.cases import Heart
from cardiacreg.atlases.embedded import default_atlases
from cardiacreg.geometry import Affine, LabelMap, Subject, Volume
from cardiacreg.refinement._refine import make_context, oriented_context
from cardiacreg.refinement.atlas_choice import SelectedAtlas, select_atlases
from cardiacreg.refinement.context import Clock, RefinementContext
from cardiacreg.refinement.options import RefineOptions
from cardiacreg.refinement.output_lattice import lattice_over_heart, place_target_image
from cardiacreg.refinement.steps import run_steps
from cardiacreg.refinement.target import gather_atlases, gather_target
from cardiacreg.transforms.resampling import Lattice, warp_labels, warp_volume

SPACING_MM = (1.25, 1.25, 2.0)
LEVELS = ((2, 40), (1, 20))
SMOOTHING_VOXELS = 2.0


class Propagated(NamedTuple):
    """A target's image and its atlases' images and labels on one lattice, and the time it took.

    `seconds` are processor seconds.
    """

    image: Volume
    atlases: list[tuple[Volume, LabelMap]]
    seconds: float


def _context(heart: Heart) -> tuple[RefinementContext, Any]:
    target = heart.case().target
    options = RefineOptions()
    gathered = gather_target(target.labels, target.image, None, None, None)
    bank = gather_atlases(default_atlases(), gathered, options.n_atlases)
    context = make_context(gathered, SPACING_MM, options, 1, None, Clock())
    return oriented_context(context, (), bank).context, bank


@lru_cache(maxsize=1)
def by_labels(heart: Heart) -> Propagated:
    """Bring the selected atlases onto a heart as `cardiacreg.refine` does, slice shifts corrected."""
    start = time.process_time()
    context, bank = _context(heart)
    outcome = run_steps(context, bank)
    grid = outcome.fusion.labels
    lattice = Lattice(grid.shape, grid.voxel_to_world)
    warped = []
    for chosen, registration in zip(outcome.selected, outcome.registrations, strict=True):
        transform = registration.target_to_atlas
        image = warp_volume(_image(bank[chosen.ranked.index]), transform, lattice, threads=1)
        warped.append((image, warp_labels(chosen.subject.labels, transform, lattice, threads=1)))
    image = place_target_image(_image(context.target), outcome.slice_shifts_mm, lattice)
    return Propagated(image, warped, time.process_time() - start)


@lru_cache(maxsize=1)
def by_intensity(heart: Heart) -> Propagated:
    """Bring the selected atlases onto a heart's image by intensities; its slices stay as acquired."""
    start = time.process_time()
    context, bank = _context(heart)
    chosen = select_atlases(context, bank)[: context.options.n_atlases]
    aligned = [each.aligned for each in chosen]
    lattice = lattice_over_heart(
        context.target.labels, aligned, SPACING_MM, context.options.margin_mm
    )
    shifts = np.zeros((context.target.labels.shape[2], 2))
    image = place_target_image(_image(context.target), shifts, lattice)
    warped = [_registered(image, each, _image(bank[each.ranked.index])) for each in chosen]
    return Propagated(image, warped, time.process_time() - start)


def _image(subject: Subject) -> Volume:
    assert subject.image is not None, subject.name
    return subject.image


def _registered(fixed: Volume, atlas: SelectedAtlas, moving: Volume) -> tuple[Volume, LabelMap]:
    """Deform one atlas onto the target by its intensities after its affine."""
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    affine = _to_sitk_affine(atlas.ranked.target_to_atlas)
    target, source = to_sitk(fixed.array, fixed), to_sitk(moving.array, moving)
    aligned = sitk.Resample(source, target, affine, sitk.sitkLinear, 0.0)
    matched = sitk.HistogramMatching(aligned, target, 256, 15)
    field = None
    for shrink, iterations in LEVELS:
        small = [sitk.Shrink(each, [shrink, shrink, 1]) for each in (target, matched)]
        demons = sitk.DiffeomorphicDemonsRegistrationFilter()
        demons.SetNumberOfIterations(iterations)
        demons.SetStandardDeviations(SMOOTHING_VOXELS)
        if field is None:
            field = demons.Execute(*small)
        else:
            field = demons.Execute(*small, sitk.Resample(field, small[0]))
    displacement = sitk.DisplacementFieldTransform(
        sitk.Cast(sitk.Resample(field, target), sitk.sitkVectorFloat64)
    )
    transform = sitk.CompositeTransform([affine, displacement])
    labels = _vote(atlas.subject.labels, transform, target, fixed)
    warped = sitk.Resample(source, target, transform, sitk.sitkLinear, 0.0)
    return Volume(from_sitk(warped), fixed.voxel_to_world), labels


def _vote(labels: LabelMap, transform: Any, target: Any, fixed: Volume) -> LabelMap:
    """Return the label with the largest trilinear weight, as `warp_labels` does."""
    import SimpleITK as sitk

    best = np.full(fixed.shape, 0.5, dtype=np.float32)
    found = np.zeros(fixed.shape, dtype=np.uint8)
    for value in labels.present():
        indicator = to_sitk((labels.array == value).astype(np.float32), labels)
        weight = from_sitk(sitk.Resample(indicator, target, transform, sitk.sitkLinear, 0.0))
        heavier = weight > np.where(found == 0, 1 / 3, best)
        found[heavier] = value
        best[heavier] = weight[heavier]
    return LabelMap(found, fixed.voxel_to_world)


def to_sitk(array: NDArray[Any], grid: Volume | LabelMap) -> Any:
    """Return an image whose points are our world mm; both sides of a registration keep that frame."""
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose(2, 1, 0)))
    spacing = grid.spacing_mm
    image.SetSpacing([float(step) for step in spacing])
    image.SetOrigin([float(x) for x in grid.voxel_to_world[:3, 3]])
    image.SetDirection((grid.voxel_to_world[:3, :3] / spacing).ravel().tolist())
    return image


def from_sitk(image: Any) -> NDArray[Any]:
    """Return an image's array in (i, j, k) order."""
    import SimpleITK as sitk

    return np.ascontiguousarray(sitk.GetArrayFromImage(image).transpose(2, 1, 0))


def _to_sitk_affine(affine: Affine) -> Any:
    import SimpleITK as sitk

    found = sitk.AffineTransform(3)
    found.SetMatrix(affine.matrix[:3, :3].ravel().tolist())
    found.SetTranslation(affine.matrix[:3, 3].tolist())
    return found
