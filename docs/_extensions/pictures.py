"""Pictures of the gallery: figures that a library returned, and picture files that a script names.

The scraper of sphinx-gallery sees figures of pyplot alone. Functions of `cardiacreg` return figures that
pyplot does not know, and write pictures into files; a script shows either by giving it a global name.
"""

from pathlib import Path
from shutil import copyfile
from typing import Any

from matplotlib.figure import Figure
from sphinx_gallery.scrapers import figure_rst

_DOTS_PER_INCH = 110


def named_pictures(block: Any, block_vars: dict[str, Any], gallery_conf: dict[str, Any]) -> str:
    """Save the pictures that a block of a script gave a name, and return the text that shows them."""
    from matplotlib import pyplot

    shown = block_vars.setdefault("shown_pictures", set())
    shown.update(
        pyplot.figure(number) for number in pyplot.get_fignums()
    )  # shown by another scraper
    places = []
    for value in list(block_vars["example_globals"].values()):
        if not _is_picture(value) or value in shown:
            continue
        shown.add(value)
        places.append(str(next(block_vars["image_path_iterator"])))
        if isinstance(value, Figure):
            value.savefig(places[-1], dpi=_DOTS_PER_INCH)
        else:
            copyfile(value, places[-1])
    return str(figure_rst(places, gallery_conf["src_dir"]))


def _is_picture(value: Any) -> bool:
    if isinstance(value, Path):
        return value.suffix == ".png" and value.is_file()
    return isinstance(value, Figure)
