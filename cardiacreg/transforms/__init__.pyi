from .displacement_field import (
    DisplacementField as DisplacementField,
    dense_displacement as dense_displacement,
    jacobian_map as jacobian_map,
    read_displacement_field as read_displacement_field,
    write_displacement_field as write_displacement_field,
)
from .ffd import FFD as FFD
from .ffd_chain import FFDChain as FFDChain
from .files_bundle import (
    read_transforms as read_transforms,
    write_transforms as write_transforms,
)
from .files_itk import (
    read_itk_transform as read_itk_transform,
    write_itk_transform as write_itk_transform,
)
from .files_mirtk import read_dof as read_dof, write_dof as write_dof
from .inverse import invert_points as invert_points
from .mean_field import mean_displacement as mean_displacement
from .point_maps import BSplineMap as BSplineMap, TransformChain as TransformChain
from .resampling import Lattice as Lattice, warp_labels as warp_labels, warp_volume as warp_volume
