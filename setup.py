"""Declare the one compiled extension; all metadata lives in pyproject.toml."""

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup

setup(
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
    )
)
