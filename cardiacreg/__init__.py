"""Smooth, complete, high-resolution bi-ventricular models from thick-slice cardiac MR segmentations.

``cardiacreg.refine("seg.nii.gz", image="sax.nii.gz", preset="acdc")`` runs the whole method; every step
is public on its own. Nothing heavy is loaded until it is used; ``__init__.pyi`` names what is public.

The rooms, from the bottom; a room imports only what stands above it in this list::

    errors, arrays, algebra,
    geometry, slices           The nouns: volumes, label maps, affines; the slices of a stack.
    io/                        Reading and writing files, safely.
    compute/                   Kernels, threads and the optimiser.
    anatomy/                   What labels mean: presets, landmarks, ends of a stack, topology, volumes.
    transforms/                Splines, deformations and warps, and the transform files of other tools.
    registration/              Alignment of one atlas with a target.
    slice_motion/              How breathing shifted and turned the slices.
    fusion/                    One label map from many.
    metrics/                   How well two label maps agree, and trivial interpolation to compare with.
    phantoms/                  Synthetic hearts and simulated scans of them.
    atlases/                   Banks of atlases: building, keeping, checking, ranking.
    results/                   What a refinement gives: its result, files, findings and figures.
    surfaces/                  Closed surfaces of a model: nested level sets, and their files.
    doors/                     Doors to scanners and other tools: contours, DICOM, conversion of files.
    measures/                  Numbers of a model: volumes, masses, function, wall thickness by segment.
    meshes/                    Tetrahedra of the walls for simulations, with fibres, and their files.
    refinement/                The method: from a thick-slice segmentation to a model.
    cine/                      A beating heart: all frames of a patient together.
    cohort/                    Many patients: folders, manifests, and what became of each.
    reports/                   Pages to look at: of a patient with its verdict, and of a cohort.
    cli/                       The command line.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
