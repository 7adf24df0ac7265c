"""What a refinement of a whole cine returns: a model of every frame, curves, and what they share."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cardiacreg.anatomy.slice_volumes import StructureVolume
from cardiacreg.anatomy.stack_coverage import End
from cardiacreg.anatomy.volumes import structure_volumes_ml
from cardiacreg.arrays import Float
from cardiacreg.cine.motion import BeatingHeart
from cardiacreg.geometry import LV_CAVITY, RV_CAVITY, STRUCTURES, LabelMap, Landmarks, Volume
from cardiacreg.refinement.options import RefineOptions
from cardiacreg.results.guards import Finding
from cardiacreg.results.result import Orientation, ViewReport
from cardiacreg.transforms.ffd import FFD

_CAVITIES = {"LV": LV_CAVITY, "RV": RV_CAVITY}


@dataclass(frozen=True, slots=True, eq=False)
class CineFrame:
    """The model of one frame.

    Parameters
    ----------
    number : int
        Of the frame, in the series that was given.
    labels : LabelMap
        Canonical labels; the lattice is the same for all frames.
    confidence : Volume
        Share of the votes for the label that won.
    agreement : dict
        As `RefineResult.agreement`; empty where the frame had no labels.
    volumes : dict
        As `RefineResult.volumes`; empty where the frame had no labels.
    findings : tuple of Finding
        Reasons to look at this frame before it is used.
    minimum_jacobian : float
        Smallest det(I + du/dx) of its deformations; above 0: no folding.
    filled_in : bool
        Whether the frame had no labels and comes from its neighbours in time.
    time_ms : float or None
        After the first frame, where it was given.
    transforms : tuple of FFD
        One per atlas: world mm in this frame to world mm of the atlas.
    """

    number: int
    labels: LabelMap
    confidence: Volume
    agreement: dict[str, float | None]
    volumes: dict[str, StructureVolume]
    findings: tuple[Finding, ...]
    minimum_jacobian: float
    filled_in: bool = False
    time_ms: float | None = None
    transforms: tuple[FFD, ...] = ()

    @property
    def volumes_ml(self) -> dict[str, float | None]:
        """Volume of every structure of the model in ml."""
        return structure_volumes_ml(self.labels)


@dataclass(frozen=True, slots=True, eq=False)
class CineResult(BeatingHeart):
    """Models of all frames of a patient: one orientation, one set of slice shifts, the same atlases.

    Parameters
    ----------
    frames : tuple of CineFrame
        In the order of the series.
    ed, es : int
        Positions of end-diastole and end-systole among `frames`.
    slice_shifts_mm : ndarray, shape (n_slices, 2)
        In-plane shift of every slice, for all frames: true position = stored position + shift.
    landmarks : Landmarks
        At end-diastole.
    atlases : tuple of str
        Names of the chosen atlases, in the order of every frame's transforms.
    orientation : Orientation
    ends : tuple of End
        What was assumed about the ends of the stack.
    options : RefineOptions
    findings : tuple of Finding
        Reasons to look at the cine as a whole; those of frames are theirs.
    warnings : tuple of str
    timings_seconds : dict
    provenance : dict
    input_files : tuple of pathlib.Path
        Which `save` never replaces.
    views : tuple of ViewReport
        The views beside the stack: one shift for the whole cycle, agreement at end-diastole.
    """

    frames: tuple[CineFrame, ...]
    ed: int
    es: int
    slice_shifts_mm: Float
    landmarks: Landmarks
    atlases: tuple[str, ...]
    orientation: Orientation
    ends: tuple[End, ...]
    options: RefineOptions
    findings: tuple[Finding, ...] = ()
    warnings: tuple[str, ...] = ()
    timings_seconds: dict[str, float] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    input_files: tuple[Path, ...] = ()
    views: tuple[ViewReport, ...] = ()

    @property
    def volumes_ml(self) -> dict[str, Float]:
        """Curves: volume of every structure in every frame in ml; NaN where it is not there."""
        per_frame = [frame.volumes_ml for frame in self.frames]
        return {
            name: np.array(
                [np.nan if (v := each[name]) is None else v for each in per_frame], dtype=np.float64
            )
            for name in STRUCTURES.values()
        }

    @property
    def ejection_fractions(self) -> dict[str, float | None]:
        """Share of the volume at end-diastole that is ejected till end-systole, of LV and RV.

        Both by the frames `ed` and `es`, which are those of the LV; None where a cavity is missing.
        """
        curves, found = self.volumes_ml, {}
        for side, label in _CAVITIES.items():
            full, rest = curves[STRUCTURES[label]][[self.ed, self.es]]
            known = np.isfinite([full, rest]).all() and full > 0
            found[side] = float((full - rest) / full) if known else None
        return found

    @property
    def minimum_jacobian(self) -> float:
        """Smallest det(I + du/dx) over all frames and atlases; above 0: no folding."""
        return min(frame.minimum_jacobian for frame in self.frames)

    def save(
        self, folder: str | Path, *, overwrite: bool = False, transforms: bool = False
    ) -> Path:
        """Write labels.nii.gz (4-D), volumes.csv, curves.png and cine.json into a folder, all or none.

        Parameters
        ----------
        folder : path
            Made when missing.
        overwrite : bool
            Replace files of an earlier run; otherwise their presence is an error.
        transforms : bool
            Also write the transforms of all frames, ``transforms.npz``, so that what `load_cine` gives
            can follow points too.

        Returns
        -------
        pathlib.Path
            The folder.

        Raises
        ------
        InvalidInputError
            If the folder holds results and `overwrite` is not set, one of its files is an input of
            this result, it cannot be written, or there are no transforms to write (NO_TRANSFORMS).
        """
        from cardiacreg.cine.files import save_cine, transform_contents

        more = transform_contents(self) if transforms else {}
        return save_cine(self, Path(folder), overwrite=overwrite, more=more)
