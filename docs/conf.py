"""Settings of the documentation site: `make docs` builds it, and nothing is fetched from the network.

The Markdown files of this folder are the pages; they are also read as they are, beside the code. What is
made by code is made before the pages are read: drawings (`_extensions/drawings.py`), the reference of
functions and commands (`_extensions/reference.py`) and, by sphinx-gallery, the examples with their
pictures.
"""

import os
import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(_HERE / "_extensions"), str(_HERE.parent)]
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import cardiacreg  # noqa: E402

project = "cardiacreg"
author = "the authors of cardiacreg"
copyright = "the authors of cardiacreg, Apache-2.0"  # noqa: A001
version = release = cardiacreg.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "numpydoc",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
    "drawings",
    "reference",
]

source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_build", "figures", "_static", "_extensions"]
root_doc = "index"

myst_enable_extensions = ["colon_fence", "deflist", "attrs_block"]
myst_heading_anchors = 3

autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
numpydoc_show_class_members = False

copybutton_prompt_text = "$ "

sphinx_gallery_conf = {
    "examples_dirs": ["../examples/gallery"],
    "gallery_dirs": ["gallery"],
    "filename_pattern": r"\.py$",
    "within_subsection_order": "FileNameSortKey",
    "download_all_examples": False,
    "show_signature": False,
    "write_computation_times": False,
    "remove_config_comments": True,
    "abort_on_example_error": True,
    "image_scrapers": ("pictures.named_pictures", "matplotlib"),
    "default_thumb_file": str(_HERE / "figures" / "overview.png"),
}

html_theme = "furo"
html_title = f"cardiacreg {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
