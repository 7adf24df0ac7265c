from .overlap import (
    average_surface_distance_mm as average_surface_distance_mm,
    compare as compare,
    dice as dice,
    hausdorff95_mm as hausdorff95_mm,
    hausdorff_mm as hausdorff_mm,
    hausdorff_slicewise_mm as hausdorff_slicewise_mm,
    normalized_surface_dice as normalized_surface_dice,
)
