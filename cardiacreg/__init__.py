"""Smooth, complete, high-resolution bi-ventricular models from thick-slice cardiac MR segmentations.

``cardiacreg.refine("seg.nii.gz", image="sax.nii.gz", preset="acdc")`` runs the whole method; every step
is public on its own. Nothing heavy is loaded until it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_PUBLIC = {
    "Affine": "geometry",
    "LabelMap": "geometry",
    "Landmarks": "geometry",
    "Subject": "geometry",
    "Volume": "geometry",
    "InputWarning": "errors",
    "InvalidInputError": "errors",
    "RefinementError": "errors",
    "fit_landmark_affine": "landmark_affine",
    "LandmarkFit": "landmark_affine",
}

__all__ = sorted(_PUBLIC)

if TYPE_CHECKING:
    from cardiacreg.errors import InputWarning, InvalidInputError, RefinementError
    from cardiacreg.geometry import Affine, LabelMap, Landmarks, Subject, Volume
    from cardiacreg.landmark_affine import LandmarkFit, fit_landmark_affine
else:

    def __getattr__(name):
        """Load a public name on first use and remember it."""
        if name not in _PUBLIC:
            raise AttributeError(f"module 'cardiacreg' has no attribute {name!r}")
        value = getattr(import_module(f"cardiacreg.{_PUBLIC[name]}"), name)
        globals()[name] = value
        return value

    def __dir__():
        """List the public names."""
        return [*globals(), *__all__]
