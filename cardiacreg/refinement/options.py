"""The options of a refinement: one place for every default, and the settings of the paper."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cardiacreg.anatomy.stack_coverage import COVERAGES
from cardiacreg.errors import InvalidInputError, check_option_kinds
from cardiacreg.fusion.label_fusion import FusionOptions
from cardiacreg.geometry import RV_WALL
from cardiacreg.registration.ffd_registration import RegistrationOptions

SELECTIONS = ("labels", "image")
ORIENTATIONS = ("auto", "as-stored", "mirrored", "upside-down", "mirrored-upside-down")


def _are_pairs(metadata: object) -> bool:
    """Whether this is a tuple of (text, value) with every text once."""
    if not isinstance(metadata, tuple):
        return False
    fit = all(isinstance(p, tuple) and len(p) == 2 and isinstance(p[0], str) for p in metadata)
    return fit and len({pair[0] for pair in metadata}) == len(metadata)


def _is_coverage(coverage: object) -> bool:
    """Whether this is a word for both ends, or a word for each."""
    if isinstance(coverage, str):
        return coverage in COVERAGES
    pair = isinstance(coverage, tuple) and len(coverage) == 2
    return pair and all(isinstance(word, str) and word in COVERAGES for word in coverage)  # type: ignore[attr-defined]


def _shift_stage() -> RegistrationOptions:
    return RegistrationOptions(
        spacings_mm=(64.0,),
        strides=(2,),
        iterations=(40,),
        bending_weight=30.0,
        estimate_shifts=True,
        shift_weight=5e-5,
        tolerance=1e-6,
    )


def _deformation() -> RegistrationOptions:
    return RegistrationOptions(
        spacings_mm=(64.0, 32.0, 16.0, 8.0), strides=(2, 2, 2, 1), iterations=(10, 10, 20, 20)
    )


def _paper_registration() -> RegistrationOptions:
    return RegistrationOptions(
        spacings_mm=(64.0, 32.0, 16.0),
        strides=(4, 2, 1),
        iterations=(40, 40, 40),
        bending_weight=0.1,
        class_weights=(),
        background_slices=True,
        stretch_weight=0.0,
    )


def checked_options(options: RefineOptions | None) -> RefineOptions:
    """Return options, the recommended ones for None.

    Raises
    ------
    InvalidInputError
        If they are something else (BAD_OPTION).
    """
    if options is None:
        return RefineOptions()
    if not isinstance(options, RefineOptions):
        raise InvalidInputError(
            f"refine: options is a {type(options).__name__}; needs RefineOptions(...).",
            code="BAD_OPTION",
        )
    return options


@dataclass(frozen=True, slots=True)
class RefineOptions:
    """How `refine` works; the default is recommended.

    `RefineOptions.fast` takes two thirds of the time, `RefineOptions.paper` is the published method.

    Parameters
    ----------
    n_atlases : int
        Atlases registered and fused (L).
    metadata : tuple of (str, value or tuple of values)
        Only atlases with these metadata are chosen from: ``(("phase", "ED"),)``, or with any of several
        values: ``(("phase", "ED"), ("group", ("healthy", "dilated")))``. Empty: the whole bank.
    selection : {"labels", "image"}
        What ranks the atlases: their labels, or the normalised mutual information of their images
        with the target's (`rank_atlases_by_image`), which needs both. Affines come from
        landmarks and labels either way; `structure_weights` have no effect on a ranking by images.
    affine_candidates : int
        Best atlases by landmarks whose affine is improved on the labels before the final ranking; 0
        keeps the landmark affine, as the paper does.
    landmark_weight : float
        Weight of the mean squared landmark distance while affines are improved, per mm^2.
    structure_weights : tuple of (int, float) or None
        Candidates with improved affines are ranked by the mean Dice of the target's structures; weights
        of labels in that mean, 1 where not named. None: by NMI, as the paper does.
    registration : RegistrationOptions
        The deformation of each selected atlas.
    slice_motion : RegistrationOptions or None
        The stiff registration that estimates one in-plane shift per acquired slice; the shifts of all
        atlases are combined by their median and then fixed. None: no slice motion.
    slice_turns : bool
        Estimate one in-plane rotation per acquired slice, too; needs `slice_motion`.
    n_motion_atlases : int
        Best atlases whose shifts are combined; those beyond `n_atlases` contribute nothing else.
    n_statistics_atlases : int
        Best atlases whose statistics give a second estimate of the slice shifts; fewer than 24 are not
        enough for one.
    coverage : {"auto", "whole", "partial"} or pair of them
        Whether the stack covers the ventricles at its apical and basal end. Whole: they end before the
        slice that would come next. Partial: the stack is cut there, and the atlases alone complete it.
        Auto: whole, unless the outermost slices show a cut.
    orientation : {"auto", "as-stored", "mirrored", "upside-down", "mirrored-upside-down"}
        How the heart lies in its file; auto weighs header, labels, image and other frames.
    match_areas : bool
        End label fusion by making every acquired slice show each structure as large as it was drawn, and
        smooth the ventricles' ends beyond their outermost slices.
    fusion : FusionOptions or None
        Patch fusion (eq. 5) where target and atlases have images. None: the atlases' warped trilinear
        label weights are summed, which measured better once slice motion is corrected.
    upsample_target : bool
        Resample the target to the output spacing by nearest neighbour before registration, as the
        paper does, instead of evaluating the objective on the acquired slices.
    margin_mm : float
        Background kept around the heart on the output lattice.
    clean_topology : bool
        End with one component per structure and no holes.
    """

    n_atlases: int = 5
    metadata: tuple[tuple[str, Any], ...] = ()
    selection: str = "labels"
    affine_candidates: int = 64
    landmark_weight: float = 1e-4
    structure_weights: tuple[tuple[int, float], ...] | None = ((RV_WALL, 3.0),)
    registration: RegistrationOptions = field(default_factory=_deformation)
    slice_motion: RegistrationOptions | None = field(default_factory=_shift_stage)
    slice_turns: bool = False
    n_motion_atlases: int = 8
    n_statistics_atlases: int = 96
    coverage: str | tuple[str, str] = "auto"
    orientation: str = "auto"
    match_areas: bool = True
    fusion: FusionOptions | None = None
    upsample_target: bool = False
    margin_mm: float = 6.0
    clean_topology: bool = True

    def __post_init__(self) -> None:
        if not _is_coverage(self.coverage):
            raise InvalidInputError(
                f"RefineOptions: coverage {self.coverage!r}; needs one of {', '.join(COVERAGES)}, or a "
                "pair of them for apex and base.",
                code="BAD_OPTION",
            )
        check_option_kinds(self)
        if self.n_atlases < 1 or self.margin_mm < 0:
            raise InvalidInputError(
                f"RefineOptions: n_atlases {self.n_atlases}, margin {self.margin_mm} mm; needs at "
                "least one atlas and a margin that is not negative.",
                code="BAD_OPTION",
            )
        if self.selection not in SELECTIONS:
            raise InvalidInputError(
                f"RefineOptions: selection {self.selection!r}; needs one of {', '.join(SELECTIONS)}.",
                code="BAD_OPTION",
            )
        if self.orientation not in ORIENTATIONS:
            raise InvalidInputError(
                f"RefineOptions: orientation {self.orientation!r}; needs one of "
                f"{', '.join(ORIENTATIONS)}.",
                code="BAD_OPTION",
            )
        if not _are_pairs(self.metadata):
            raise InvalidInputError(
                f"RefineOptions: metadata {self.metadata!r}; needs a tuple of pairs with different "
                "keys, as (('phase', 'ED'),).",
                code="BAD_OPTION",
            )
        if self.slice_turns and self.slice_motion is None:
            raise InvalidInputError(
                "RefineOptions: slice_turns without slice_motion; give slice_motion or leave turns out.",
                code="BAD_OPTION",
            )

    @property
    def coverages(self) -> tuple[str, str]:
        """What is known of the stack's apical and basal end."""
        if isinstance(self.coverage, str):
            return self.coverage, self.coverage
        return self.coverage

    @classmethod
    def fast(cls) -> RefineOptions:
        """Return the default for about two thirds of the processor time, and nearly as good.

        Slice motion looks at fewer atlases, fewer affines are improved, and the last lattice is
        twice as coarse, so that walls follow the acquired slices less closely. The figures are in
        ``docs/studies/fast_method.md``.
        """
        return cls(
            affine_candidates=12,
            n_motion_atlases=6,
            registration=RegistrationOptions(
                spacings_mm=(64.0, 32.0, 16.0), strides=(2, 2, 1), iterations=(10, 10, 20)
            ),
        )

    @classmethod
    def paper(cls) -> RefineOptions:
        """Return the method as published: upsampled target, no slice motion, L = 5, eq. (5) fusion.

        Search 7x7x3, patch 7x7x1 and h = 10; h applies to the mean squared difference of intensities on
        the 0..255 scale of `label_fusion`, the scale on which the released code's h made sense.
        """
        return cls(
            affine_candidates=0,
            structure_weights=None,
            n_motion_atlases=0,
            n_statistics_atlases=0,
            registration=_paper_registration(),
            slice_motion=None,
            fusion=FusionOptions(search=(7, 7, 3), patch=(7, 7, 1), bandwidth=10.0),
            upsample_target=True,
            orientation="as-stored",
            coverage="partial",
            match_areas=False,
        )
