from .label_fusion import (
    Fusion as Fusion,
    FusionOptions as FusionOptions,
    fuse_labels as fuse_labels,
)
