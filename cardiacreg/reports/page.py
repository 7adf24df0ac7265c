"""Contents become one page of HTML that needs nothing else; figures become pictures inside it."""

from __future__ import annotations

import base64
from importlib.resources import files
from io import BytesIO
from typing import Any, NamedTuple

import jinja2
import matplotlib
from matplotlib.figure import Figure

from cardiacreg.results.qc_figure import png_bytes

_TEMPLATES = "templates"


def render(template: str, **contents: Any) -> str:
    """Render one of our templates; text is escaped, and a name that is missing is an error.

    Parameters
    ----------
    template : str
        Name of a file in the templates' folder.
    **contents
        What the template names.

    Returns
    -------
    str
    """
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(template_text),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    environment.globals["text_of"] = lambda name: _trusted(template_text(name))
    return environment.get_template(template).render(**contents)


def template_text(name: str) -> str:
    """Return the text of a file of ours that pages are made of."""
    return files("cardiacreg.reports").joinpath(_TEMPLATES, name).read_text(encoding="utf-8")


def _trusted(text: str) -> Any:
    """Mark a text of ours as HTML."""
    from markupsafe import Markup

    return Markup(text)


def number(value: float | None, digits: int = 1, *, signed: bool = False) -> str:
    """Return a number for a table, a dash where there is none.

    Examples
    --------
    >>> from cardiacreg.reports.page import number
    >>> number(3.14159, 2), number(None), number(2.0, signed=True)
    ('3.14', '–', '+2.0')
    """
    if value is None or value != value:
        return "–"
    return f"{value:{'+' if signed else ''}.{digits}f}"


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
