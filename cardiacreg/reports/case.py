"""What a report shows of one patient: of a result, of a cine, or of the folder of either."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from cardiacreg.anatomy.slice_volumes import StructureVolume, stack_volumes
from cardiacreg.anatomy.volumes import structure_masses_g
from cardiacreg.arrays import Float
from cardiacreg.cine.frames import gather_cine, image_of_frame
from cardiacreg.cine.result import CineFrame, CineResult
from cardiacreg.cine.saved import SavedCine, SavedFrame, load_cine
from cardiacreg.errors import InvalidInputError, check_argument, kept_warnings
from cardiacreg.geometry import LabelMap, Landmarks, Subject, Volume
from cardiacreg.refinement.target import gather_target
from cardiacreg.reports.inputs import Inputs, noted_inputs
from cardiacreg.results.folders import CINE_SUMMARY, phases_of_patient
from cardiacreg.results.guards import Finding
from cardiacreg.results.qc_views import heart_axes
from cardiacreg.results.result import AtlasReport, Orientation, RefineResult, ViewReport
from cardiacreg.results.saved import SavedResult, load_result
from cardiacreg.results.saved_model import model_of_frame

Reported: TypeAlias = RefineResult | SavedResult | CineResult | SavedCine | str | os.PathLike[str]
"""What a report can be written of."""
_ANY_CINE = (CineResult, SavedCine)
_REPORTED = (RefineResult, SavedResult, *_ANY_CINE, str, os.PathLike)


@dataclass(frozen=True, slots=True, eq=False)
class Refined:
    """One refined frame with its acquired stack, as figures draw it (`qc_views.Drawable`)."""

    labels: LabelMap
    target: Subject
    landmarks: Landmarks
    slice_shifts_mm: Float


@dataclass(frozen=True, slots=True, eq=False)
class Phase:
    """One frame that is shown in full.

    Parameters
    ----------
    title : str
        Empty where there is only one.
    labels : LabelMap
    landmarks : Landmarks
    agreement, volumes, masses_g : dict
        By structure.
    refined : Refined or None
        None where the acquired stack is not known.
    views : tuple of ViewReport
        That took part in this frame.
    slice_shifts_mm : ndarray, shape (n_slices, 2)
        Of this frame; of a cine those that its frames share.
    atlases : tuple of AtlasReport
        Chosen for this frame; empty for a cine.
    atlas_diversity : float or None
    """

    title: str
    labels: LabelMap
    landmarks: Landmarks
    agreement: dict[str, float | None]
    volumes: dict[str, StructureVolume]
    masses_g: dict[str, float | None]
    refined: Refined | None
    views: tuple[ViewReport, ...] = ()
    slice_shifts_mm: Float = field(default_factory=lambda: np.zeros((0, 2)))
    atlases: tuple[AtlasReport, ...] = ()
    atlas_diversity: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """Everything that a report says, before it is drawn.

    Parameters
    ----------
    name : str
    phases : tuple of Phase
        One, or end-diastole and end-systole of a cine.
    movie : tuple of LabelMap
        The model of every frame.
    movie_titles : tuple of str
    measured : tuple
        What `measures.measure` takes: end-diastole and, where there is one, end-systole.
    cine : CineResult, SavedCine or None
    findings : tuple of (str, Finding)
        Where it was found, empty for the whole, and what.
    agreement : dict
        The least over all frames, by structure.
    warnings, assumptions : tuple of str
    atlases : tuple of AtlasReport
        Empty for a cine, which tells their names alone.
    atlas_names : tuple of str
    atlas_diversity : float or None
    orientation : Orientation or None
    structures_from_atlases : tuple of str
    slice_shifts_mm : ndarray, shape (n_slices, 2)
    minimum_jacobian : float
    options, provenance : dict
    timings_seconds : dict
    views : tuple of ViewReport
        Of long-axis views that took part.
    missing_input : str
        Why slices cannot be shown, one sentence; empty where they can.
    files : tuple of pathlib.Path
        What it was read from.
    """

    name: str
    phases: tuple[Phase, ...]
    movie: tuple[LabelMap, ...]
    movie_titles: tuple[str, ...]
    measured: tuple[Any, ...]
    findings: tuple[tuple[str, Finding], ...]
    agreement: dict[str, float | None]
    warnings: tuple[str, ...]
    assumptions: tuple[str, ...]
    atlas_names: tuple[str, ...]
    slice_shifts_mm: Float
    minimum_jacobian: float
    options: Any
    provenance: dict[str, Any]
    timings_seconds: dict[str, float]
    cine: CineResult | SavedCine | None = None
    atlases: tuple[AtlasReport, ...] = ()
    atlas_diversity: float | None = None
    orientation: Orientation | None = None
    structures_from_atlases: tuple[str, ...] = ()
    views: tuple[ViewReport, ...] = ()
    missing_input: str = ""
    files: tuple[Path, ...] = field(default=())


def open_case(source: Reported, inputs: Inputs, es_result: Reported | None = None) -> Case:
    """Gather what a report shows.

    Parameters
    ----------
    source : RefineResult, SavedResult, CineResult, SavedCine or path-like
        A folder is read as `load_result` or `load_cine` does; that of a patient stands for its phases.
    inputs : Inputs
        The acquired stack, for what does not hold it.
    es_result : as `source`, optional
        End-systole of the same heart, where `source` is end-diastole alone; shown, judged and measured
        with it.

    Returns
    -------
    Case

    Raises
    ------
    InvalidInputError
        If a folder holds no result, or the inputs are not those that were refined.
    """
    files: tuple[Path, ...] = ()
    missing = ""
    subject = ""
    check_argument(source, _REPORTED, "report: the result")
    check_argument(es_result, (*_REPORTED, type(None)), "report: the result at end-systole")
    if isinstance(source, str | os.PathLike):
        place = Path(source)
        if es_result is None and (phases := phases_of_patient(place)):
            subject = place.resolve().name
            place, es_result = phases[0], phases[1] if len(phases) > 1 else None
        files = (place / "labels.nii.gz",)
        if (place / CINE_SUMMARY).is_file():
            source = load_cine(place)
            if inputs.segmentation is None:
                inputs, missing = _noted_for(source, place)
        else:
            source, missing = _load(place, inputs)
    if isinstance(source, _ANY_CINE):
        case = _cine_case(source, inputs, missing, files)
        return replace(case, name=subject or case.name)
    case = _frame_case(source, es_result, missing, files)
    case = replace(case, name=subject or case.name)
    if isinstance(es_result, str | os.PathLike):
        es_result = _load(Path(es_result), Inputs())[0]
    if es_result is None or isinstance(es_result, _ANY_CINE):
        return case
    return _with_systole(case, es_result)


def _with_systole(case: Case, es: RefineResult | SavedResult) -> Case:
    """Add end-systole to a case of end-diastole: its pictures, findings and warnings."""
    titles = ("End-diastole", "End-systole")
    phases = (replace(case.phases[0], title=titles[0]), replace(_phase(es), title=titles[1]))
    first = tuple((titles[0].lower(), finding) for _, finding in case.findings)
    return replace(
        case,
        phases=phases,
        findings=first + tuple((titles[1].lower(), finding) for finding in es.findings),
        agreement=_least_agreement([case.agreement, es.agreement]),
        warnings=tuple(dict.fromkeys((*case.warnings, *es.warnings))),
        minimum_jacobian=min(case.minimum_jacobian, es.minimum_jacobian),
    )


def _load(place: Path, inputs: Inputs) -> tuple[SavedResult, str]:
    """Read a result with its stack: the given one, or the one that the result says it was made from."""
    if inputs.segmentation is not None:
        return _with_inputs(place, inputs), ""
    found = load_result(place)
    noted = noted_inputs(place, found.provenance)
    if noted.segmentation is None:
        return found, "the folder does not say which segmentation was refined"
    try:
        return _with_inputs(place, noted), ""
    except (InvalidInputError, OSError) as error:
        return found, f"the segmentation it was made from cannot be read again ({error})"


def _with_inputs(place: Path, inputs: Inputs) -> SavedResult:
    """Read the stack as `refine` did; what it warned of then is in the result already."""
    found = load_result(place)
    with kept_warnings():
        target = gather_target(
            inputs.segmentation,
            inputs.image,
            None,
            inputs.preset,
            inputs.frame,
            check_spacing=False,
        )
    _check_same(target.labels, found.provenance)
    return replace(found, target=target)


def _check_same(labels: LabelMap, provenance: Mapping[str, Any]) -> None:
    """See to it that a segmentation is the one that was refined."""
    if hashlib.sha256(labels.array.tobytes()).hexdigest() != provenance["labels_sha256"]:
        raise InvalidInputError(
            "report: the segmentation is not the one that was refined; check the file, its frame and "
            "the preset.",
            code="TARGET_DIFFERS",
        )


def _frame_case(
    result: RefineResult | SavedResult,
    es_result: Reported | None,
    missing: str,
    files: tuple[Path, ...],
) -> Case:
    phase, target = _phase(result), result.target
    refined = phase.refined
    name = target.name if target is not None else ""
    sentence = "" if result.orientation is None else result.orientation.sentence
    ends = ", ".join(map(str, result.ends))
    models = [_model(result), *([] if es_result is None else [_model(es_result)])]
    es = [] if es_result is None else [_labels_of(es_result)]
    return Case(
        name=name or (files[0].parent.resolve().name if files else "result"),
        phases=(phase,),
        movie=(result.labels, *es),
        movie_titles=("end-diastole", "end-systole") if es else ("",),
        measured=tuple(models),
        findings=tuple(("", finding) for finding in result.findings),
        agreement=result.agreement,
        warnings=result.warnings,
        assumptions=tuple(text for text in (sentence, ends) if text),
        atlas_names=tuple(atlas.name for atlas in result.atlases),
        atlases=result.atlases,
        atlas_diversity=result.atlas_diversity,
        orientation=result.orientation,
        structures_from_atlases=result.structures_from_atlases,
        views=result.views,
        slice_shifts_mm=np.asarray(result.slice_shifts_mm),
        minimum_jacobian=result.minimum_jacobian,
        options=result.options,
        provenance=result.provenance,
        timings_seconds=result.timings_seconds,
        missing_input="" if refined else missing or "the acquired stack was not given",
        files=files,
    )


def _phase(result: RefineResult | SavedResult) -> Phase:
    return Phase(
        "", result.labels, result.landmarks, result.agreement, result.volumes,
        structure_masses_g(result.labels),
        None if result.target is None else _refined(result, result.target), result.views,
        np.asarray(result.slice_shifts_mm), result.atlases, result.atlas_diversity,
    )  # fmt: skip


def _refined(result: RefineResult | SavedResult, target: Subject) -> Refined:
    return Refined(result.labels, target, result.landmarks, np.asarray(result.slice_shifts_mm))


def _model(result: Reported) -> Any:
    """What `measures.measure` takes for a result."""
    if isinstance(result, SavedResult):
        return result.folder
    if isinstance(result, _ANY_CINE):
        return result.frames[result.es].labels
    return result


def _labels_of(result: Reported) -> LabelMap:
    if isinstance(result, str | os.PathLike):
        return load_result(Path(result)).labels
    if isinstance(result, _ANY_CINE):
        return result.frames[result.es].labels
    return result.labels


def _noted_for(cine: SavedCine, place: Path) -> tuple[Inputs, str]:
    """Return the series that a cine says it was made from, where it can be read; else why not."""
    noted = noted_inputs(place, cine.provenance)
    try:
        _stacks(cine, noted, [cine.ed, cine.es])
    except (InvalidInputError, OSError) as error:
        return Inputs(), f"the segmentation it was made from cannot be read again ({error})"
    return noted, ""


def _cine_case(
    cine: CineResult | SavedCine, inputs: Inputs, missing: str, files: tuple[Path, ...]
) -> Case:
    chosen = {"End-diastole": cine.ed, "End-systole": cine.es}
    stacks, name = _stacks(cine, inputs, list(chosen.values()))
    phases = tuple(
        replace(
            _cine_phase(cine, title, position, stacks.get(position)),
            views=cine.views if position == cine.ed else (),
        )
        for title, position in chosen.items()
    )
    found = [("", finding) for finding in cine.findings]
    for frame in cine.frames:
        found += [(f"frame {frame.number}", finding) for finding in frame.findings]
    return Case(
        name=name or (files[0].parent.resolve().name if files else "cine"),
        phases=phases,
        movie=tuple(frame.labels for frame in cine.frames),
        movie_titles=_titles(cine),
        measured=tuple(model_of_frame(cine.frames[position]) for position in chosen.values()),
        cine=cine,
        findings=tuple(found),
        agreement=_least_agreement([frame.agreement for frame in cine.frames]),
        warnings=cine.warnings,
        assumptions=tuple(
            text for text in (cine.orientation.sentence, ", ".join(map(str, cine.ends))) if text
        ),
        atlas_names=tuple(cine.atlases),
        orientation=cine.orientation,
        structures_from_atlases=_unseen(cine),
        views=cine.views,
        slice_shifts_mm=np.asarray(cine.slice_shifts_mm),
        minimum_jacobian=cine.minimum_jacobian,
        options=cine.options,
        provenance=cine.provenance,
        timings_seconds=cine.timings_seconds,
        missing_input="" if stacks else missing or "the acquired frames were not given",
        files=files,
    )


def _unseen(cine: CineResult | SavedCine) -> tuple[str, ...]:
    """Return the structures that no labelled frame shows, but the model has."""
    told = [frame.volumes for frame in cine.frames if frame.volumes]
    names = dict.fromkeys(name for each in told for name in each)
    return tuple(n for n in names if all(e[n].input_ml is None for e in told if n in e))


def _cine_phase(
    cine: CineResult | SavedCine, title: str, position: int, stack: Subject | None
) -> Phase:
    frame = cine.frames[position]
    refined, volumes = None, frame.volumes
    if stack is not None:
        refined = Refined(frame.labels, stack, cine.landmarks, np.asarray(cine.slice_shifts_mm))
        volumes = stack_volumes(
            stack.labels, frame.labels, base_at_last_slice=heart_axes(refined).to_base > 0
        )
    return Phase(
        title, frame.labels, cine.landmarks, frame.agreement, volumes,
        structure_masses_g(frame.labels), refined, slice_shifts_mm=np.asarray(cine.slice_shifts_mm),
    )  # fmt: skip


def _stacks(
    cine: CineResult | SavedCine, inputs: Inputs, positions: Sequence[int]
) -> tuple[dict[int, Subject], str]:
    """Read the acquired labels of some frames, and their images; one image goes with end-diastole."""
    if inputs.segmentation is None:
        return {}, ""
    numbers = [cine.frames[position].number for position in positions]
    with kept_warnings():
        gathered = gather_cine(
            inputs.segmentation, numbers, image=inputs.image, preset=inputs.preset
        )
        labels = dict(zip(gathered.numbers, gathered.labels, strict=True))
        images: dict[int, Volume | None] = {
            number: image_of_frame(inputs.image, number, gathered.n_series, labels[number])
            for number in (() if inputs.image is None else gathered.numbers)
        }
    _check_same(labels[cine.frames[cine.ed].number], cine.provenance)
    images[gathered.numbers[gathered.ed]] = gathered.image
    return {
        position: Subject(labels[number], images.get(number), name=gathered.name)
        for position, number in zip(positions, numbers, strict=True)
    }, gathered.name


def _titles(cine: CineResult | SavedCine) -> tuple[str, ...]:
    phases = {cine.ed: ", end-diastole", cine.es: ", end-systole"}
    frames: Sequence[CineFrame | SavedFrame] = cine.frames
    return tuple(
        f"frame {frame.number}"
        + ("" if frame.time_ms is None else f", {frame.time_ms:.0f} ms")
        + phases.get(position, "")
        + (" (filled in)" if frame.filled_in else "")
        for position, frame in enumerate(frames)
    )


def _least_agreement(many: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for each in many:
        for name, dice in each.items():
            before = found.get(name)
            if dice is not None and (before is None or dice < before):
                found[name] = dice
    return found
