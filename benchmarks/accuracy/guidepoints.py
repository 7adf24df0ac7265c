"""Contours of one patient's cine study, in short and long axis: which planes and phases there are.

`cardiacreg.doors.guide_points` reads them and says what they hold.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cardiacreg.doors.guide_points import (
    PLANES_FILE,
    GuidePoints as Phase,
    read_guide_planes,
    read_guide_points,
)
from cardiacreg.doors.image_planes import ImagePlane as Plane
from cardiacreg.geometry import LabelMap

SHORT_AXIS = (1, 2, 3, 4, 5, 6)
LONG_AXIS = (7, 8, 9, 11)
PHASES = tuple(range(25))
PIXELS = (256, 208)


def read_planes(folder: Path) -> dict[int, Plane]:
    """Read the acquired planes by number."""
    return read_guide_planes(folder / PLANES_FILE)


def read_phase(folder: Path, number: int, planes: dict[int, Plane]) -> Phase:
    """Read the points of one phase.

    Raises
    ------
    InvalidInputError
        If a point lies off its plane: points and planes are then not of one frame.
    """
    return read_guide_points(folder / f"GPFile_{number:03d}.txt", planes=planes)


def short_axis_labels(phase: Phase, planes: dict[int, Plane]) -> LabelMap:
    """Rasterise the short-axis contours of one phase; planes without contours stay, empty."""
    first, second = planes[SHORT_AXIS[0]], planes[SHORT_AXIS[1]]
    matrix = np.eye(4)
    matrix[:3, :2] = first.steps_mm.T
    matrix[:3, 2] = second.origin_mm - first.origin_mm
    matrix[:3, 3] = first.origin_mm
    return LabelMap(phase.short_axis_labels(shape=PIXELS).array, matrix)
