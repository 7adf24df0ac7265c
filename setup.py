"""Declare the one compiled extension and the description for package indexes.

All other metadata lives in pyproject.toml.
"""

import re
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup


def description(readme: str) -> str:
    """Return the README for a package index, which has no files for relative links to lead to.

    Such links become the names of files in the source distribution; pictures become their captions.
    """
    text = re.sub(r"<!--.*?-->\n?", "", readme)
    text = re.sub(r"!\[([^\]]*)\]\((?!https?:)([^)]*)\)", r"*\1 (`\2`)*", text)
    text = re.sub(r"\[([^\]]+)\]\(#[^)]*\)", r"\1", text)

    def named(link: re.Match[str]) -> str:
        words, path = link[1], link[2].partition("#")[0]
        return f"`{path}`" if words == path else f"{words} (`{path}`)"

    text = re.sub(r"\[([^\]]+)\]\((?!https?:)([^)]+)\)", named, text)
    return text.replace(
        "Links are relative to the repository.", "These files are in the source distribution."
    )


setup(
    long_description=description(Path(__file__).with_name("README.md").read_text(encoding="utf-8")),
    long_description_content_type="text/markdown",
    ext_modules=cythonize(
        [
            Extension(
                "cardiacreg.compute.label_counts",
                ["cardiacreg/compute/label_counts.pyx"],
                include_dirs=[numpy.get_include()],
                define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")],
                extra_compile_args=["-O3", "-ffp-contract=off"],
            )
        ],
        language_level=3,
    ),
)
