"""What the deformations of several atlases have in common."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cardiacreg.errors import InvalidInputError, check_argument, check_arguments
from cardiacreg.transforms.displacement_field import DisplacementField
from cardiacreg.transforms.ffd import FFD
from cardiacreg.transforms.ffd_chain import FFDChain
from cardiacreg.transforms.resampling import GRIDS, Grid


def mean_displacement(transforms: Sequence[FFD | FFDChain], grid: Grid) -> DisplacementField:
    """Return the mean of several transforms' deformations, without their affines.

    A transform of a result is ``T(x) = A(x + u(x))``, from the target to an atlas. Under its affine alone
    every atlas lies about where the target does; u says where in the aligned atlas a point of the target
    is found. The mean over the atlases says how this heart differs in shape from the atlases chosen for
    it: ``x + mean(u)(x)`` is the place of x in their mean. Zero everywhere would mean that affines were
    enough. It is no transform to any single atlas; for those, see `dense_displacement`.

    Parameters
    ----------
    transforms : sequence of FFD or FFDChain
        Of one target, such as `RefineResult.transforms`.
    grid : Lattice, Volume or LabelMap
        Lattice of the field, such as the result's labels.

    Returns
    -------
    DisplacementField
        In target world mm; `write_displacement_field` writes it for ITK and ANTs.

    Raises
    ------
    InvalidInputError
        If there are no transforms (NO_TRANSFORMS).

    Examples
    --------
    >>> import numpy as np
    >>> from cardiacreg import FFD, Affine, Lattice, mean_displacement
    >>> place = np.diag([20.0, 20.0, 20.0, 1.0])
    >>> place[:3, 3] = -40.0
    >>> still, moved = np.zeros((6, 6, 6, 3)), np.full((6, 6, 6, 3), 2.0)
    >>> transforms = [FFD(Affine(np.eye(4)), each, place) for each in (still, moved)]
    >>> field = mean_displacement(transforms, Lattice((3, 3, 3), np.diag([5.0, 5.0, 5.0, 1.0])))
    >>> field.displacements_mm[1, 1, 1].round(3).tolist()
    [1.0, 1.0, 1.0]
    """
    check_arguments(transforms, (FFD, FFDChain), "mean_displacement: transforms")
    check_argument(grid, GRIDS, "mean_displacement: grid")
    if not len(transforms):
        raise InvalidInputError(
            "mean_displacement: there are no transforms; a saved result holds them if it was saved with "
            "transforms (transforms= or --transforms npz).",
            code="NO_TRANSFORMS",
        )
    total = np.zeros((*grid.shape, 3))
    for transform in transforms:
        total += transform.grid_displacement(grid.shape, grid.voxel_to_world)
    return DisplacementField(total / len(transforms), grid.voxel_to_world)
