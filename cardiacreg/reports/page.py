"""Contents become one page of HTML that needs nothing else."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import jinja2

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
