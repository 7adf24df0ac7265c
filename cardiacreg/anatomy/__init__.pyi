from .label_presets import canonical_labels as canonical_labels
from .landmarks import landmarks_from_labels as landmarks_from_labels
from .segmentation import read_segmentation as read_segmentation
from .slice_volumes import stack_volumes as stack_volumes
from .topology import clean_topology as clean_topology
from .volumes import masses_g as masses_g, volumes_ml as volumes_ml
