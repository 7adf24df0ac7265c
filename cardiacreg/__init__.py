"""Smooth, complete, high-resolution bi-ventricular models from thick-slice cardiac MR segmentations.

``cardiacreg.refine("seg.nii.gz", image="sax.nii.gz", preset="acdc")`` runs the whole method; every step
is public on its own. Nothing heavy is loaded until it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_PUBLIC = {
    "Affine": "geometry",
    "AtlasBank": "atlas_bank",
    "AtlasIndex": "atlas_index",
    "Degradation": "degradation",
    "DisplacementField": "displacement_field",
    "FFD": "ffd",
    "FFDChain": "ffd_chain",
    "Fusion": "label_fusion",
    "FusionOptions": "label_fusion",
    "InputWarning": "errors",
    "InvalidInputError": "errors",
    "LabelMap": "geometry",
    "LandmarkFit": "landmark_affine",
    "Landmarks": "geometry",
    "Lattice": "resampling",
    "LowResolution": "degradation",
    "Progress": "_slabs",
    "RankedAtlas": "atlas_selection",
    "RefineOptions": "options",
    "RefineResult": "result",
    "RefinementError": "errors",
    "Registration": "ffd_registration",
    "RegistrationOptions": "ffd_registration",
    "ResultWarning": "errors",
    "StopReason": "ffd_registration",
    "Subject": "geometry",
    "Volume": "geometry",
    "append_to_atlas_bank": "atlas_bank",
    "average_surface_distance_mm": "metrics",
    "build_atlas_bank": "atlas_bank",
    "canonical_labels": "label_presets",
    "clean_topology": "topology",
    "compare": "metrics",
    "default_atlases": "atlas_bank",
    "dense_displacement": "displacement_field",
    "dice": "metrics",
    "fit_landmark_affine": "landmark_affine",
    "fuse_labels": "label_fusion",
    "hausdorff95_mm": "metrics",
    "hausdorff_mm": "metrics",
    "hausdorff_slicewise_mm": "metrics",
    "invert_points": "ffd_inverse",
    "jacobian_map": "displacement_field",
    "landmarks_from_labels": "landmarks",
    "masses_g": "volumes",
    "normalized_mutual_information": "atlas_selection",
    "normalized_surface_dice": "metrics",
    "open_atlas_folder": "atlas_folder",
    "rank_atlases": "atlas_selection",
    "rank_atlases_by_image": "image_selection",
    "read_displacement_field": "displacement_field",
    "read_dof": "transform_files_mirtk",
    "read_itk_transform": "transform_files_itk",
    "read_labels": "nifti",
    "read_landmarks": "landmark_files",
    "read_volume": "nifti",
    "refine": "refinement",
    "register_labels": "ffd_registration",
    "sample_heart": "phantoms",
    "simulate_low_resolution": "degradation",
    "stack_volumes": "slice_volumes",
    "verify_atlas_bank": "bank_verification",
    "volumes_ml": "volumes",
    "warm_up": "refinement",
    "warp_labels": "resampling",
    "warp_volume": "resampling",
    "with_metadata": "atlas_selection",
    "write_displacement_field": "displacement_field",
    "write_dof": "transform_files_mirtk",
    "write_itk_transform": "transform_files_itk",
    "write_labels": "nifti",
    "write_landmarks": "landmark_files",
    "write_volume": "nifti",
}

__all__ = sorted(_PUBLIC)

if TYPE_CHECKING:
    from cardiacreg._slabs import Progress as Progress
    from cardiacreg.atlas_bank import (
        AtlasBank as AtlasBank,
    )
    from cardiacreg.atlas_bank import (
        append_to_atlas_bank as append_to_atlas_bank,
    )
    from cardiacreg.atlas_bank import (
        build_atlas_bank as build_atlas_bank,
    )
    from cardiacreg.atlas_bank import (
        default_atlases as default_atlases,
    )
    from cardiacreg.atlas_folder import open_atlas_folder as open_atlas_folder
    from cardiacreg.atlas_index import AtlasIndex as AtlasIndex
    from cardiacreg.atlas_selection import (
        RankedAtlas as RankedAtlas,
    )
    from cardiacreg.atlas_selection import (
        normalized_mutual_information as normalized_mutual_information,
    )
    from cardiacreg.atlas_selection import (
        rank_atlases as rank_atlases,
    )
    from cardiacreg.atlas_selection import (
        with_metadata as with_metadata,
    )
    from cardiacreg.bank_verification import verify_atlas_bank as verify_atlas_bank
    from cardiacreg.degradation import (
        Degradation as Degradation,
    )
    from cardiacreg.degradation import (
        LowResolution as LowResolution,
    )
    from cardiacreg.degradation import (
        simulate_low_resolution as simulate_low_resolution,
    )
    from cardiacreg.displacement_field import (
        DisplacementField as DisplacementField,
    )
    from cardiacreg.displacement_field import (
        dense_displacement as dense_displacement,
    )
    from cardiacreg.displacement_field import (
        jacobian_map as jacobian_map,
    )
    from cardiacreg.displacement_field import (
        read_displacement_field as read_displacement_field,
    )
    from cardiacreg.displacement_field import (
        write_displacement_field as write_displacement_field,
    )
    from cardiacreg.errors import (
        InputWarning as InputWarning,
    )
    from cardiacreg.errors import (
        InvalidInputError as InvalidInputError,
    )
    from cardiacreg.errors import (
        RefinementError as RefinementError,
    )
    from cardiacreg.errors import (
        ResultWarning as ResultWarning,
    )
    from cardiacreg.ffd import FFD as FFD
    from cardiacreg.ffd_chain import FFDChain as FFDChain
    from cardiacreg.ffd_inverse import invert_points as invert_points
    from cardiacreg.ffd_registration import (
        Registration as Registration,
    )
    from cardiacreg.ffd_registration import (
        RegistrationOptions as RegistrationOptions,
    )
    from cardiacreg.ffd_registration import (
        StopReason as StopReason,
    )
    from cardiacreg.ffd_registration import (
        register_labels as register_labels,
    )
    from cardiacreg.geometry import (
        Affine as Affine,
    )
    from cardiacreg.geometry import (
        LabelMap as LabelMap,
    )
    from cardiacreg.geometry import (
        Landmarks as Landmarks,
    )
    from cardiacreg.geometry import (
        Subject as Subject,
    )
    from cardiacreg.geometry import (
        Volume as Volume,
    )
    from cardiacreg.image_selection import rank_atlases_by_image as rank_atlases_by_image
    from cardiacreg.label_fusion import (
        Fusion as Fusion,
    )
    from cardiacreg.label_fusion import (
        FusionOptions as FusionOptions,
    )
    from cardiacreg.label_fusion import (
        fuse_labels as fuse_labels,
    )
    from cardiacreg.label_presets import canonical_labels as canonical_labels
    from cardiacreg.landmark_affine import (
        LandmarkFit as LandmarkFit,
    )
    from cardiacreg.landmark_affine import (
        fit_landmark_affine as fit_landmark_affine,
    )
    from cardiacreg.landmark_files import (
        read_landmarks as read_landmarks,
    )
    from cardiacreg.landmark_files import (
        write_landmarks as write_landmarks,
    )
    from cardiacreg.landmarks import landmarks_from_labels as landmarks_from_labels
    from cardiacreg.metrics import (
        average_surface_distance_mm as average_surface_distance_mm,
    )
    from cardiacreg.metrics import (
        compare as compare,
    )
    from cardiacreg.metrics import (
        dice as dice,
    )
    from cardiacreg.metrics import (
        hausdorff95_mm as hausdorff95_mm,
    )
    from cardiacreg.metrics import (
        hausdorff_mm as hausdorff_mm,
    )
    from cardiacreg.metrics import (
        hausdorff_slicewise_mm as hausdorff_slicewise_mm,
    )
    from cardiacreg.metrics import (
        normalized_surface_dice as normalized_surface_dice,
    )
    from cardiacreg.nifti import (
        read_labels as read_labels,
    )
    from cardiacreg.nifti import (
        read_volume as read_volume,
    )
    from cardiacreg.nifti import (
        write_labels as write_labels,
    )
    from cardiacreg.nifti import (
        write_volume as write_volume,
    )
    from cardiacreg.options import RefineOptions as RefineOptions
    from cardiacreg.phantoms import sample_heart as sample_heart
    from cardiacreg.refinement import refine as refine
    from cardiacreg.refinement import warm_up as warm_up
    from cardiacreg.resampling import (
        Lattice as Lattice,
    )
    from cardiacreg.resampling import (
        warp_labels as warp_labels,
    )
    from cardiacreg.resampling import (
        warp_volume as warp_volume,
    )
    from cardiacreg.result import RefineResult as RefineResult
    from cardiacreg.slice_volumes import stack_volumes as stack_volumes
    from cardiacreg.topology import clean_topology as clean_topology
    from cardiacreg.transform_files_itk import read_itk_transform as read_itk_transform
    from cardiacreg.transform_files_itk import write_itk_transform as write_itk_transform
    from cardiacreg.transform_files_mirtk import read_dof as read_dof
    from cardiacreg.transform_files_mirtk import write_dof as write_dof
    from cardiacreg.volumes import masses_g as masses_g
    from cardiacreg.volumes import volumes_ml as volumes_ml
else:

    def __getattr__(name):
        """Load a public name on first use and remember it."""
        if name not in _PUBLIC:
            raise AttributeError(f"module 'cardiacreg' has no attribute {name!r}")
        value = getattr(import_module(f"cardiacreg.{_PUBLIC[name]}"), name)
        globals()[name] = value
        return value

    def __dir__():
        """List the public names."""
        return [*globals(), *__all__]
