"""Volume curves of a cine as a figure."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cardiacreg.cine.result import CineResult
from cardiacreg.geometry import LV_CAVITY, LV_WALL, RV_CAVITY, RV_WALL, STRUCTURES
from cardiacreg.results.qc_figure import COLOURS

_PANELS = {"cavities": (LV_CAVITY, RV_CAVITY), "walls": (LV_WALL, RV_WALL)}


def draw_curves(result: CineResult) -> Figure:
    """Draw the volume of every structure over the frames.

    Parameters
    ----------
    result : CineResult

    Returns
    -------
    matplotlib.figure.Figure
        End-diastole and end-systole are marked; frames that were filled in are hollow.
    """
    figure = Figure(figsize=(9.0, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(_PANELS))
    for panel, (title, labels) in zip(panels, _PANELS.items(), strict=True):
        _draw_panel(panel, result, labels)
        panel.set_title(title)
    panels[0].set_ylabel("volume, ml")
    fractions = [
        f"{side} ejection fraction {100 * value:.0f} %"
        for side, value in result.ejection_fractions.items()
        if value is not None
    ]
    figure.suptitle("   ".join(fractions) or "no ejection fraction", fontsize=11)
    return figure


def _draw_panel(panel: Any, result: CineResult, labels: tuple[int, ...]) -> None:
    times = [frame.time_ms for frame in result.frames]
    known = all(time is not None for time in times)
    along = np.array(times if known else [frame.number for frame in result.frames], dtype=float)
    filled_in = np.array([frame.filled_in for frame in result.frames])
    for label in labels:
        name, colour = STRUCTURES[label], COLOURS[label]
        curve, unseen = result.volumes_ml[name], _is_from_atlases(result, name)
        words = f"{name} (from atlases)" if unseen else name
        panel.plot(along, curve, ":" if unseen else "-", color=colour, label=words)
        panel.plot(along[~filled_in], curve[~filled_in], "o", color=colour, markersize=3.5)
        panel.plot(
            along[filled_in], curve[filled_in], "o", color=colour, markersize=5, fillstyle="none"
        )
    for position, name in ((result.ed, "ED"), (result.es, "ES")):
        panel.axvline(along[position], color="0.7", linewidth=0.9, zorder=0)
        panel.annotate(
            name,
            (along[position], 1.0),
            xytext=(3, -4),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            va="top",
            fontsize=8,
        )
    panel.set_ylim(0, 1.12 * panel.get_ylim()[1])
    panel.set_xlabel("time, ms" if known else "frame")
    # A place of its own: looking for the best one takes long on a busy machine, and then warns.
    below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.16), "ncols": 2}
    panel.legend(fontsize=8, frameon=False, **below)


def _is_from_atlases(result: CineResult, name: str) -> bool:
    """Whether no labelled frame shows a structure."""
    found = [frame.volumes[name].input_ml for frame in result.frames if name in frame.volumes]
    return bool(found) and all(each is None for each in found)
