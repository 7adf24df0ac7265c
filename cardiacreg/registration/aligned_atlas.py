"""An atlas and where it lies under its affine: what every later step takes."""

from __future__ import annotations

from typing import NamedTuple

from cardiacreg.geometry import Affine, LabelMap


class AlignedAtlas(NamedTuple):
    """The labels of an atlas and the affine that brings it to the target.

    Parameters
    ----------
    labels : LabelMap
    target_to_atlas : Affine
        Target world mm to atlas world mm.
    """

    labels: LabelMap
    target_to_atlas: Affine
