"""Given views with the model cut by their planes: each view as it was given, and with the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from scipy import ndimage

from cardiacreg.arrays import Float
from cardiacreg.geometry import LabelMap, Landmarks, Subject
from cardiacreg.reports.before_after import draw_scale_bar, legend, page
from cardiacreg.reports.directions import letters_of
from cardiacreg.results.qc_figure import (
    COLOURS,
    draw_image,
    draw_labels,
    outline_structures,
    prepare_panel,
)
from cardiacreg.results.qc_views import STEP_MM, Box, label_share
from cardiacreg.results.result import ViewReport

_APEX, _BASE, _TURNING = 4, 5, 1
_GIVEN = "#d0208a"
_LINE = 1.6
_MOST_PANEL_INCHES = 3.6
_WIDTH_INCHES = 12.0
_GAP_INCHES = 0.32


class _Scene(NamedTuple):
    """A view to draw: unit vectors to the right and up in the world, a box in mm, its points."""

    right: Float
    up: Float
    box: Box
    pixels: Float
    points: Float


def draw_views(
    views: Sequence[ViewReport], model: LabelMap, landmarks: Landmarks, *, believed: bool = True
) -> Figure:
    """Draw every view above as it was given, below with the model cut by its plane.

    Parameters
    ----------
    views : sequence of ViewReport
        With planes.
    model : LabelMap
        In the views' world.
    landmarks : Landmarks
    believed : bool
        Whether the matrices tell the patient's directions, which are written then.

    Returns
    -------
    matplotlib.figure.Figure
        The apex is down, as far as turns by right angles allow. The model is cut where the view lies
        after its own shift.
    """
    scenes = [_scene(view, landmarks) for view in views]
    columns = len(views)
    width = min(_WIDTH_INCHES, columns * _MOST_PANEL_INCHES)
    aspect = max((s.box.top - s.box.bottom) / (s.box.right - s.box.left) for s in scenes)
    figure, grid = page([aspect / columns] * 2, columns, width, gap_inches=_GAP_INCHES)
    for column, (view, scene) in enumerate(zip(views, scenes, strict=True)):
        above, below = (figure.add_subplot(grid[row, column]) for row in range(2))
        above.set_title(view.name, fontsize=9)
        assert view.plane is not None
        _draw_given(above, view.plane, scene)
        _draw_cut(below, view, scene, model)
        for panel in (above, below):
            panel.set_anchor("N")
            _write_directions(panel, scene, believed)
        if column == 0:
            above.set_ylabel("as given", fontsize=10)
            below.set_ylabel("with the model", fontsize=10)
            draw_scale_bar(below, scene.box, dark=view.plane.image is None)
    legend(figure, Line2D([], [], color=_GIVEN, lw=_LINE, label="the view's own labels"))
    return figure


def _scene(view: ViewReport, landmarks: Landmarks) -> _Scene:
    """Turn a plane by right angles, so that the base is up and the RV on the left."""
    assert view.plane is not None
    labels = view.plane.labels
    axes = labels.voxel_to_world[:3, :2] / labels.spacing_mm[:2]
    points = landmarks.points_mm
    upward, leftward = points[_BASE] - points[_APEX], points[_TURNING] - points[_BASE]
    vertical = int(np.argmax(np.abs(upward @ axes)))
    up = axes[:, vertical] * (1.0 if upward @ axes[:, vertical] >= 0 else -1.0)
    right = axes[:, 1 - vertical]
    right = -right if leftward @ right > 0 else right
    origin = labels.voxel_to_world[:3, 3]
    box = _box_of(labels, origin, right, up)
    x, y = (np.arange(low, high, STEP_MM) for low, high in (box[:2], box[2:]))
    where = origin + x[None, :, None] * right + y[:, None, None] * up
    voxels = (where - origin) @ axes / labels.spacing_mm[:2]
    return _Scene(right, up, box, np.moveaxis(voxels, -1, 0), where)


def _box_of(labels: LabelMap, origin: Float, right: Float, up: Float) -> Box:
    """The whole of what is kept of a view, in mm from its first voxel."""
    last = np.array(labels.shape[:2]) - 1
    corners = np.array([[0, 0], [last[0], 0], [0, last[1]], last])
    places = corners @ labels.voxel_to_world[:3, :2].T
    x, y = places @ right, places @ up
    return Box(float(x.min()), float(x.max()), float(y.min()), float(y.max()))


def _draw_given(panel: Any, plane: Subject, scene: _Scene) -> None:
    prepare_panel(panel, scene.box)
    if plane.image is not None:
        _draw_grey(panel, plane, scene)
        _outline_all(panel, plane.labels, scene, dict(COLOURS))
    else:
        nearest = np.rint(scene.pixels)
        found = ndimage.map_coordinates(
            plane.labels.array[:, :, 0], nearest, order=0, mode="constant"
        )
        draw_labels(panel, found, scene.box)


def _draw_cut(panel: Any, view: ViewReport, scene: _Scene, model: LabelMap) -> None:
    """Draw the model where the view lies after its shift, over the view."""
    plane = view.plane
    assert plane is not None
    prepare_panel(panel, scene.box)
    if plane.image is not None:
        _draw_grey(panel, plane, scene)
    _outline_all(panel, plane.labels, scene, dict.fromkeys(COLOURS, _GIVEN))
    axes = plane.labels.voxel_to_world[:3, :2] / plane.labels.spacing_mm[:2]
    where = scene.points + axes @ np.asarray(view.shift_mm)
    outline_structures(
        panel, lambda label: label_share(model, label, np.eye(4), where), scene.box, COLOURS, _LINE
    )


def _draw_grey(panel: Any, plane: Subject, scene: _Scene) -> None:
    assert plane.image is not None
    grey = ndimage.map_coordinates(
        plane.image.array[:, :, 0].astype(np.float64), scene.pixels, order=1, mode="nearest"
    )
    draw_image(panel, grey, scene.box)


def _outline_all(panel: Any, labels: LabelMap, scene: _Scene, colours: dict[int, str]) -> None:
    def share_of(label: int) -> NDArray[np.float64]:
        mask = (labels.array[:, :, 0] == label).astype(np.float64)
        share: NDArray[np.float64] = ndimage.map_coordinates(
            mask, scene.pixels, order=1, mode="nearest"
        )
        return share

    outline_structures(panel, share_of, scene.box, colours, _LINE)


def _write_directions(panel: Any, scene: _Scene, believed: bool) -> None:
    style: dict[str, Any] = {
        "fontsize": 7, "color": "white", "transform": panel.transAxes,
        "bbox": {"facecolor": "0.2", "alpha": 0.6, "lw": 0, "pad": 1.0},
    }  # fmt: skip
    up, right = (letters_of(each) if believed else "" for each in (scene.up, scene.right))
    panel.text(0.5, 0.97, f"base ({up})" if up else "base", va="top", ha="center", **style)
    for place, side, letters in (
        (0.02, "left", letters_of(-scene.right) if believed else ""),
        (0.98, "right", right),
    ):
        if letters:
            panel.text(place, 0.5, letters, va="center", ha=side, **style)
