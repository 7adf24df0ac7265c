from ._refine_cohort import CohortRun as CohortRun, refine_cohort as refine_cohort
from ._refine_patient import PatientResult as PatientResult, refine_patient as refine_patient
from .overview import CohortStatus as CohortStatus, cohort_status as cohort_status
from .patients import (
    FrameFiles as FrameFiles,
    PatientFiles as PatientFiles,
    find_patient as find_patient,
)
