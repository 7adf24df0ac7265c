from .ffd_registration import (
    Registration as Registration,
    RegistrationOptions as RegistrationOptions,
    StopReason as StopReason,
    register_labels as register_labels,
)
from .landmark_affine import LandmarkFit as LandmarkFit, fit_landmark_affine as fit_landmark_affine
