"""Figures as pictures of a page: inline, with a caption and words for those who do not see them."""

from __future__ import annotations

import base64
from io import BytesIO
from typing import NamedTuple

import matplotlib
from matplotlib.figure import Figure

from cardiacreg.results.qc_figure import png_bytes


class Picture(NamedTuple):
    """A picture of a page: its source as a data address, what it shows, and its width in pixels."""

    source: str
    alt: str
    caption: str
    width: int


def as_png(figure: Figure, caption: str, alt: str = "") -> Picture:
    """Return a figure as pixels, for what is drawn over images."""
    data = base64.b64encode(png_bytes(figure)).decode("ascii")
    return _picture(figure, f"data:image/png;base64,{data}", caption, alt)


def as_svg(figure: Figure, caption: str, alt: str = "") -> Picture:
    """Return a figure as lines, which print sharply; the same for the same content."""
    buffer = BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "cardiacreg"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return _picture(figure, f"data:image/svg+xml;base64,{data}", caption, alt)


def _picture(figure: Figure, source: str, caption: str, alt: str) -> Picture:
    return Picture(source, alt or caption, caption, round(100 * figure.get_figwidth()))
