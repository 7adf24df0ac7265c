"""The report of one patient: a page to look at before a result is believed."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cardiacreg.cine.models import PICTURES
from cardiacreg.compute.threads import Progress, ProgressCallable
from cardiacreg.errors import InvalidInputError, merged
from cardiacreg.io.kept_inputs import files_of
from cardiacreg.io.output_folder import all_or_nothing, check_output
from cardiacreg.reports import contents
from cardiacreg.reports.case import Case, Reported, open_case
from cardiacreg.reports.inputs import Inputs
from cardiacreg.reports.page import render
from cardiacreg.reports.reference_ranges import CITATION, POPULATION
from cardiacreg.reports.signs import measured_signs, quality_score, unusual_signs
from cardiacreg.reports.verdict import Verdict, judge, sentence
from cardiacreg.reports.viewer import NEEDED, Viewer, is_installed, make_viewer
from cardiacreg.results.guards import Finding
from cardiacreg.results.qc_views import heart_axes


def write_report(
    result: Reported,
    path: str | os.PathLike[str],
    *,
    segmentation: Any = None,
    image: Any = None,
    preset: str | Mapping[int, int] | None = None,
    frame: int | str | None = None,
    es_result: Reported | None = None,
    height_cm: float | None = None,
    weight_kg: float | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the report of a patient: one HTML file that opens offline.

    It begins with a verdict and its reasons (`judge`), and shows input and model in slices and long-axis
    cuts, surfaces in three dimensions (with k3d, extra ``report``), volumes, slice shifts, measures
    beside published ranges, wall thickness, atlases and provenance; of a cine also its curves and the
    model as it beats.

    Parameters
    ----------
    result : RefineResult, SavedResult, CineResult, SavedCine or path-like
        A result, or the folder one was saved to.
    path : path-like
        Ends with ``.html``; the folder must exist or is made.
    segmentation, image, preset, frame
        The acquired stack as it was given to the refinement. A `RefineResult` holds it; a folder that
        the command line wrote says where it is.
    es_result : as `result`, optional
        End-systole, where `result` is end-diastole alone.
    height_cm, weight_kg : float, optional
        Of the body, to index measures by its surface.
    overwrite : bool
        Replace an existing file.

    Returns
    -------
    pathlib.Path
        Of the file.

    Raises
    ------
    InvalidInputError
        If the name ends otherwise (BAD_FILE_NAME), the file exists and `overwrite` is not set
        (OUTPUT_EXISTS), a folder holds no result (NO_RESULT), or the segmentation is another one than
        was refined (TARGET_DIFFERS).

    Examples
    --------
    >>> import cardiacreg
    >>> cardiacreg.write_report("out", "report.html")  # doctest: +SKIP
    PosixPath('report.html')
    """
    inputs = Inputs(segmentation, image, preset, frame)
    case = open_case(result, inputs, es_result)
    return write_case(
        case, path, inputs=inputs, height_cm=height_cm, weight_kg=weight_kg, overwrite=overwrite
    )


def write_case(
    case: Case,
    path: str | os.PathLike[str],
    *,
    inputs: Inputs,
    height_cm: float | None = None,
    weight_kg: float | None = None,
    overwrite: bool = False,
    progress: ProgressCallable | None = None,
) -> Path:
    """Write the page of a case; arguments as those of `write_report`, progress as of `patient_page`."""
    place = Path(path)
    if place.suffix.lower() not in (".html", ".htm"):
        raise InvalidInputError(
            f"{place}: a report is a page; needs a name that ends with .html.", code="BAD_FILE_NAME"
        )
    kept = (*files_of(inputs.segmentation, inputs.image), *case.files)
    how: Any = {"overwrite": overwrite, "inputs": kept}
    check_output(place.parent, (place.name,), **how)
    page = patient_page(case, height_cm=height_cm, weight_kg=weight_kg, progress=progress)
    with all_or_nothing(place.parent, (place.name,), **how) as stage:
        (stage / place.name).write_text(page, encoding="utf-8")
    return place


def verdict_of(case: Case) -> Verdict:
    """Judge a case by its findings, those of frames among them, and by unusual signs of every phase."""
    found = (*case.findings, *_signs(case))
    reached = judge(
        [finding for _, finding in found],
        agreement=case.agreement,
        minimum_jacobian=case.minimum_jacobian,
    )
    if not found:
        return reached
    told = _told(case, found)
    folds = reached.reasons[len(dict.fromkeys(finding for _, finding in found)) :]
    return reached._replace(reasons=(*dict.fromkeys(told), *folds))


def _told(case: Case, found: Sequence[tuple[str, Finding]]) -> list[str]:
    """Say what was found and where; what several frames of a cine share is said once, with an example."""
    if case.cine is None:
        return [sentence(f"{where}: {f.message}" if where else f.message) for where, f in found]
    kinds: dict[tuple[str, str], list[tuple[str, Finding]]] = {}
    of_frames = {finding.code for where, finding in found if where}
    for where, finding in found:
        if where or finding.code not in of_frames:
            kinds.setdefault((finding.code, finding.found.partition(": ")[0]), []).append(
                (where, finding)
            )
    told = [_of_all(each, len(case.movie)) for each in kinds.values()]
    return [
        text.replace(PICTURES, "the pictures").replace("qc.png", "the pictures") for text in told
    ]


def _of_all(found: Sequence[tuple[str, Finding]], n_frames: int) -> str:
    where, first = found[0]
    if len(found) == 1:
        return sentence(f"{where}: {first.message}" if where else first.message)
    kind, _, detail = first.found.partition(": ")
    advice = first.message[len(first.found) :]
    numbers = ", ".join(place.removeprefix("frame ") for place, _ in found)
    example = f"; in {where} {detail}" if detail else ""
    return sentence(f"{len(found)} of {n_frames} frames ({numbers}): {kind}{example}{advice}")


def _signs(case: Case) -> list[tuple[str, Finding]]:
    """Signs of each frame that was refined by itself, with its title; of a cine those of end-diastole."""
    phases = case.phases if case.cine is None else case.phases[:1]
    return [
        (phase.title.lower() if len(phases) > 1 else "", sign)
        for phase in phases
        for sign in unusual_signs(
            phase.slice_shifts_mm,
            phase.atlases,
            None if phase.refined is None else phase.refined.target.labels,
            base_at_last_slice=phase.refined is None or heart_axes(phase.refined).to_base > 0,
        )
    ]


def score_of(case: Case) -> float:
    """Return the quality score of a case (`signs.quality_score`): the least over its phases."""
    word = verdict_of(case).word
    return min(
        quality_score(
            measured_signs(
                phase.agreement,
                phase.volumes,
                phase.slice_shifts_mm,
                phase.atlases,
                phase.atlas_diversity,
            ),
            word,
        )
        for phase in case.phases
    )


def patient_page(
    case: Case,
    *,
    height_cm: float | None = None,
    weight_kg: float | None = None,
    template: str = "patient.html.jinja",
    progress: ProgressCallable | None = None,
    **more: Any,
) -> str:
    """Return the page of a case.

    Parameters
    ----------
    case : Case
    height_cm, weight_kg : float, optional
    template : str
        One that extends that of patients.
    progress : callable, optional
        Told what is being made, and the share of it that is done.
    **more
        What such a template names beside it.
    """
    from cardiacreg import __version__

    tell = _Teller(progress, 3 + contents.N_PICTURES * len(case.phases))
    tell("measuring the heart")
    measures, notes = contents.measure_case(case, height_cm=height_cm, weight_kg=weight_kg)
    rows = contents.measure_rows(measures)
    phases = [contents.phase_pictures(case, phase, tell) for phase in case.phases]
    tell("making the view in 3D")
    viewer = _viewer(case)
    tell("writing the page")
    return render(
        template,
        title=f"cardiacreg report: {case.name}",
        case=case,
        verdict=verdict_of(case),
        score=score_of(case),
        warnings=[sentence(text) for text in merged((*case.warnings, *notes))],
        phases=phases,
        volumes=[(phase.title, contents.volume_rows(phase)) for phase in case.phases],
        measures=rows,
        intervals=any(row.interval for row in rows),
        bullseye=contents.bullseye_picture(measures),
        curves=contents.curves_picture(case),
        views=contents.view_pictures(case),
        viewer=viewer,
        viewer_package=NEEDED,
        reference=CITATION,
        population=POPULATION,
        made=contents.provenance_rows(case.provenance, case.timings_seconds),
        options=contents.options_text(case.options),
        citations=[text.format(version=__version__) for text in contents.CITATIONS],
        version=__version__,
        **more,
    )


class _Teller:
    """Tells what of a page is being made, and the share that is done."""

    def __init__(self, progress: ProgressCallable | None, total: int) -> None:
        self._progress, self._total, self._begun = progress, total, 0

    def __call__(self, what: str) -> None:
        if self._progress is not None:
            share = self._begun / self._total
            self._progress(Progress("report", 0, 1, f"report: {what}", share))
        self._begun += 1


def _viewer(case: Case) -> Viewer | None:
    return make_viewer(case, contents.axes_of(case)) if is_installed() else None
