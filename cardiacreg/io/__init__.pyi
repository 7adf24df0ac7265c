from .landmark_files import read_landmarks as read_landmarks, write_landmarks as write_landmarks
from .nifti import (
    read_labels as read_labels,
    read_volume as read_volume,
    write_labels as write_labels,
    write_volume as write_volume,
)
