from .anatomy import (
    canonical_labels as canonical_labels,
    clean_topology as clean_topology,
    landmarks_from_labels as landmarks_from_labels,
    masses_g as masses_g,
    read_segmentation as read_segmentation,
    stack_volumes as stack_volumes,
    volumes_ml as volumes_ml,
)
from .atlases import (
    AtlasBank as AtlasBank,
    AtlasIndex as AtlasIndex,
    RankedAtlas as RankedAtlas,
    append_to_atlas_bank as append_to_atlas_bank,
    build_atlas_bank as build_atlas_bank,
    default_atlases as default_atlases,
    normalized_mutual_information as normalized_mutual_information,
    open_atlas_folder as open_atlas_folder,
    rank_atlases as rank_atlases,
    rank_atlases_by_image as rank_atlases_by_image,
    verify_atlas_bank as verify_atlas_bank,
    with_metadata as with_metadata,
)
from .cine import (
    CineFrame as CineFrame,
    CineResult as CineResult,
    SavedCine as SavedCine,
    load_cine as load_cine,
    refine_cine as refine_cine,
)
from .cohort import (
    CohortRun as CohortRun,
    CohortStatus as CohortStatus,
    FrameFiles as FrameFiles,
    PatientFiles as PatientFiles,
    PatientResult as PatientResult,
    cohort_status as cohort_status,
    find_patient as find_patient,
    refine_cohort as refine_cohort,
    refine_patient as refine_patient,
)
from .compute import Progress as Progress, ProgressBar as ProgressBar
from .doors import (
    CineStack as CineStack,
    Conversion as Conversion,
    GuidePoints as GuidePoints,
    convert as convert,
    labels_from_contours as labels_from_contours,
    labels_from_cvi42 as labels_from_cvi42,
    read_cvi42 as read_cvi42,
    read_dicom_cine as read_dicom_cine,
    read_dicom_seg as read_dicom_seg,
    read_guide_points as read_guide_points,
    write_dicom_cine as write_dicom_cine,
    write_dicom_seg as write_dicom_seg,
    write_guide_points as write_guide_points,
    write_segmentation as write_segmentation,
)
from .errors import (
    CacheWarning as CacheWarning,
    InputWarning as InputWarning,
    InvalidInputError as InvalidInputError,
    RefinementError as RefinementError,
    ResultWarning as ResultWarning,
)
from .fusion import Fusion as Fusion, FusionOptions as FusionOptions, fuse_labels as fuse_labels
from .geometry import (
    Affine as Affine,
    LabelMap as LabelMap,
    Landmarks as Landmarks,
    Subject as Subject,
    Volume as Volume,
)
from .io import (
    read_labels as read_labels,
    read_landmarks as read_landmarks,
    read_volume as read_volume,
    write_labels as write_labels,
    write_landmarks as write_landmarks,
    write_volume as write_volume,
)
from .measures import (
    CineMeasures as CineMeasures,
    Measures as Measures,
    WallCoordinates as WallCoordinates,
    draw_bullseye as draw_bullseye,
    measure as measure,
    measure_cine as measure_cine,
    wall_coordinates as wall_coordinates,
    write_measures_csv as write_measures_csv,
    write_measures_parquet as write_measures_parquet,
)
from .meshes import (
    FibreAngles as FibreAngles,
    VolumeMesh as VolumeMesh,
    volume_mesh as volume_mesh,
    write_volume_mesh as write_volume_mesh,
)
from .metrics import (
    average_surface_distance_mm as average_surface_distance_mm,
    compare as compare,
    dice as dice,
    hausdorff95_mm as hausdorff95_mm,
    hausdorff_mm as hausdorff_mm,
    hausdorff_slicewise_mm as hausdorff_slicewise_mm,
    normalized_surface_dice as normalized_surface_dice,
)
from .phantoms import (
    Degradation as Degradation,
    LowResolution as LowResolution,
    ViewAcquisition as ViewAcquisition,
    sample_heart as sample_heart,
    simulate_low_resolution as simulate_low_resolution,
    simulate_views as simulate_views,
)
from .refinement import (
    RefineOptions as RefineOptions,
    Verification as Verification,
    View as View,
    refine as refine,
    verify_result as verify_result,
    warm_up as warm_up,
)
from .registration import (
    LandmarkFit as LandmarkFit,
    Registration as Registration,
    RegistrationOptions as RegistrationOptions,
    StopReason as StopReason,
    fit_landmark_affine as fit_landmark_affine,
    register_labels as register_labels,
)
from .reports import (
    Verdict as Verdict,
    judge as judge,
    write_cohort_report as write_cohort_report,
    write_report as write_report,
)
from .results import (
    RefineResult as RefineResult,
    SavedResult as SavedResult,
    load_result as load_result,
    write_bids as write_bids,
)
from .surfaces import (
    Surface as Surface,
    carried_surface as carried_surface,
    read_surface as read_surface,
    surfaces_of as surfaces_of,
    write_surface as write_surface,
)
from .transforms import (
    FFD as FFD,
    BSplineMap as BSplineMap,
    DisplacementField as DisplacementField,
    FFDChain as FFDChain,
    Lattice as Lattice,
    TransformChain as TransformChain,
    dense_displacement as dense_displacement,
    invert_points as invert_points,
    jacobian_map as jacobian_map,
    mean_displacement as mean_displacement,
    read_displacement_field as read_displacement_field,
    read_dof as read_dof,
    read_itk_transform as read_itk_transform,
    read_transforms as read_transforms,
    warp_labels as warp_labels,
    warp_volume as warp_volume,
    write_displacement_field as write_displacement_field,
    write_dof as write_dof,
    write_itk_transform as write_itk_transform,
    write_transforms as write_transforms,
)

__version__: str
