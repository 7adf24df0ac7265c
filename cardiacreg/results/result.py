"""What a refinement returns, and how it is saved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cardiacreg.anatomy.slice_volumes import StructureVolume
from cardiacreg.anatomy.stack_coverage import End
from cardiacreg.geometry import LabelMap, Landmarks, Subject, Volume
from cardiacreg.results.guards import Finding

INPUT_LATTICE, TURNED = "input lattice", "resampled onto a short-axis lattice"
"""What a target's metadata hold of how it was stored."""

if TYPE_CHECKING:
    from cardiacreg.refinement.options import RefineOptions
    from cardiacreg.transforms.ffd import FFD
    from cardiacreg.transforms.ffd_chain import FFDChain


@dataclass(frozen=True, slots=True, eq=False)
class AtlasReport:
    """How one selected atlas fared.

    Parameters
    ----------
    index : int
        Position in the bank.
    name : str
    nmi : float
        Normalised mutual information after the affine, of labels or, when selected by image, of grey
        levels.
    landmark_residual_mm : float
        Root-mean-square distance of the aligned landmarks.
    affine_model : str
        ``"affine"``, ``"similarity"`` or ``"rigid"``.
    consistency_before, consistency_after : float
        Class-weighted label consistency under the affine and under the deformation.
    minimum_jacobian : float
        Smallest det(I + du/dx) over the control lattice's domain, which covers the output lattice.
    iterations : tuple of int
        Per level.
    stop_reason : str
        Name of a `StopReason`.
    """

    index: int
    name: str
    nmi: float
    landmark_residual_mm: float
    affine_model: str
    consistency_before: float
    consistency_after: float
    minimum_jacobian: float
    iterations: tuple[int, ...]
    stop_reason: str


@dataclass(frozen=True, slots=True, eq=False)
class ViewReport:
    """How a view beside the stack was used.

    Parameters
    ----------
    name : str
    shift_mm : tuple of float
        In-plane shift along the view's i and j axes: true position = stored position + shift.
    agreement : dict
        Dice per structure between the view and the model cut by its plane, after the shift; None for a
        structure that the view does not draw.
    plane : Subject or None
        The view's labels and image around its heart, in the world as stored, grey levels in 255 steps
        (`results.view_planes`); None where a saved result does not hold it.
    """

    name: str
    shift_mm: tuple[float, float]
    agreement: dict[str, float | None]
    plane: Subject | None = None


@dataclass(frozen=True, slots=True)
class Orientation:
    """How a heart was taken to lie in its file.

    Parameters
    ----------
    name : str
        ``"as-stored"``, ``"mirrored"`` (its hand is not that of the file's matrix: anterior and inferior
        traded), ``"upside-down"`` (its base is not where the areas suggest) or both of the latter.
    probability : float or None
        How probable that is, 0 to 1; None where it was given.
    reason : str
        What it rests on.
    evidence : dict
        Log-odds against the next probable orientation by what they rest on: ``"areas and header"``,
        ``"atlases"`` and, where there is one, ``"image"``; empty where it was given.
    """

    name: str
    probability: float | None
    reason: str
    evidence: dict[str, float] = field(default_factory=dict, hash=False)

    @property
    def sentence(self) -> str:
        """What a user should know, in one sentence; empty for a heart that lies as stored."""
        if self.name == "as-stored":
            return ""
        sure = "" if self.probability is None else f" with a probability of {self.probability:.2f}"
        return f"the heart is taken as stored {self.name}{sure}, {self.reason}"


@dataclass(frozen=True, slots=True, eq=False)
class RefineResult:
    """A smooth, complete, high-resolution model and how it came about.

    Parameters
    ----------
    labels : LabelMap
        Canonical labels (1 LV cavity, 2 LV wall, 3 RV wall, 4 RV cavity) on the output lattice.
    confidence : Volume
        Winning share of the votes, 0 to 1, on the output lattice.
    landmarks : Landmarks
        The target's six landmarks, world mm, given or derived.
    slice_shifts_mm : ndarray, shape (n_slices, 2)
        In-plane shift of every target slice along its i and j axes: true position = stored position
        + shift.
    atlases : tuple of AtlasReport
        The selected atlases, best first.
    agreement : dict
        Dice per structure between the input and the result sampled at the acquired slices after the
        shifts; None for a structure that the input lacks.
    timings_seconds : dict
        Wall-clock time per step and ``"total"``.
    target : Subject
        The input as used: canonical labels and placed image on its own lattice.
    options : RefineOptions
    warnings : tuple of str
        Everything that was repaired or deserves attention, one sentence each.
    structures_from_atlases : tuple of str
        Structures that the input did not show and that come from the atlases alone.
    provenance : dict
        Versions, input hashes, threads.
    atlas_diversity : float or None
        How much the selected atlases differ under their affines: mean share of the heart's voxels in the
        acquired slices on which two of them disagree (`atlases.ranking.diversity`), 0 to 1.
    orientation : Orientation or None
        How the heart was taken to lie in its file.
    ends : tuple of End
        What was assumed about the stack's apical and basal end.
    slice_turns_degrees : ndarray, shape (n_slices,)
        In-plane rotation of every shifted slice, from axis i towards axis j about the mean in-plane
        position of the labels; zero unless the options ask for rotations.
    volumes : dict
        Structure name to `StructureVolume`: ml of the input, and of the model inside the labelled
        slices and beyond either end.
    findings : tuple of Finding
        Reasons to look at the result before it is used, the most severe first.
    input_files : tuple of pathlib.Path
        The files and folders it was made from, which `save` never replaces.
    views : tuple of ViewReport
        The views beside the stack, plane by plane.
    transforms : tuple of FFD or FFDChain
        One per atlas, in their order: world mm of the model to world mm of the atlas. Slices lie in the
        model's world after their shifts.
    """

    labels: LabelMap
    confidence: Volume
    landmarks: Landmarks
    slice_shifts_mm: NDArray[np.float64]
    atlases: tuple[AtlasReport, ...]
    agreement: dict[str, float | None]
    timings_seconds: dict[str, float]
    target: Subject
    options: RefineOptions
    warnings: tuple[str, ...] = ()
    structures_from_atlases: tuple[str, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)
    atlas_diversity: float | None = None
    orientation: Orientation | None = None
    ends: tuple[End, ...] = ()
    slice_turns_degrees: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    volumes: dict[str, StructureVolume] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    input_files: tuple[Path, ...] = ()
    views: tuple[ViewReport, ...] = ()
    transforms: tuple[FFD | FFDChain, ...] = ()

    @property
    def minimum_jacobian(self) -> float:
        """Smallest det(I + du/dx) over all selected atlases; above 0: no folding."""
        return min(report.minimum_jacobian for report in self.atlases)

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What was taken for granted, for a user to read: how the heart lies, where the stack ends."""
        sentence = "" if self.orientation is None else self.orientation.sentence
        return tuple(text for text in (sentence, ", ".join(map(str, self.ends))) if text)

    def corrected_stack(self) -> Subject:
        """Return the acquired labels and image with every slice moved to where it belongs.

        Returns
        -------
        Subject
            On the stack's own lattice, see `results.corrected.corrected_stack`.
        """
        from cardiacreg.results.corrected import corrected_stack

        return corrected_stack(self.target, self.slice_shifts_mm, self.slice_turns_degrees)

    @property
    def was_turned(self) -> bool:
        """Whether the segmentation was resampled onto a short-axis lattice before it was refined."""
        return bool(self.target.metadata.get(TURNED, False))

    def labels_on_input(self) -> LabelMap:
        """Return the model's labels on the lattice of the segmentation that was given.

        Of use where that is a volume along the body (`was_turned`). Thick slices are acquired at shifted
        places, which the model corrects: to compare it with them, see `corrected_stack`.

        Returns
        -------
        LabelMap
            Canonical labels, axes and voxels as stored; 0 outside the model's lattice.
        """
        from cardiacreg.geometry import Affine
        from cardiacreg.transforms.resampling import warp_labels

        lattice = self.target.metadata.get(INPUT_LATTICE, self.target.labels)
        return warp_labels(self.labels, Affine.identity(), lattice)

    def save(
        self,
        folder: str | Path,
        *,
        overwrite: bool = False,
        transforms: str | Sequence[str] = (),
    ) -> Path:
        """Write labels, confidence, landmarks, result.json and qc.png into a folder.

        Parameters
        ----------
        folder : path
            Made when missing.
        overwrite : bool
            Replace files of an earlier run; otherwise their presence is an error.
        transforms : sequence of {"npz", "dof", "tfm", "h5"}, optional
            Formats to write the transforms in too: all in ``transforms.npz``, which `load_result` reads,
            or one by one in ``atlas_1.dof`` (MIRTK), ``atlas_1.tfm`` or ``atlas_1.h5`` (ITK), and so on.

        Returns
        -------
        pathlib.Path
            The folder.

        Raises
        ------
        InvalidInputError
            If the folder holds results and `overwrite` is not set, one of its files is an input of
            this result, it cannot be written, or a format is unknown (BAD_OPTION), needs what is not
            installed (NO_H5PY) or cannot hold these transforms (BAD_TYPE).
        """
        from cardiacreg.results.files import save_result
        from cardiacreg.results.transform_files import transform_contents

        more = transform_contents(self, transforms)
        return save_result(self, Path(folder), overwrite=overwrite, more=more)
