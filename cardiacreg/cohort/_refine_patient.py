"""All of one patient: every frame refined, measured, and written to a folder of its own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import ArrayLike

from cardiacreg.cine._refine_cine import refine_cine
from cardiacreg.cine.files import FILE_NAMES as CINE_NAMES, cine_summary, save_cine
from cardiacreg.cine.frames import gather_cine
from cardiacreg.cine.result import CineResult
from cardiacreg.cohort.patients import PatientFiles, Preset, find_patient
from cardiacreg.compute.progress import part_of
from cardiacreg.compute.threads import ProgressCallable
from cardiacreg.errors import InvalidInputError, check_argument, kept_warnings, pass_on, warn
from cardiacreg.geometry import LV_CAVITY
from cardiacreg.io.atomic_write import write_bytes_atomically
from cardiacreg.io.kept_inputs import files_of
from cardiacreg.io.landmark_files import write_json
from cardiacreg.io.output_folder import all_or_nothing, check_output
from cardiacreg.measures.csv_files import write_measures_csv
from cardiacreg.measures.cycle import measure_cine
from cardiacreg.measures.heart import Measures, measure
from cardiacreg.refinement._refine import refine
from cardiacreg.refinement.options import RefineOptions
from cardiacreg.refinement.views import View
from cardiacreg.results.files import FILE_NAMES, ON_REQUEST, REPORT, save_result
from cardiacreg.results.folders import CINE_FOLDER, PATIENT_SUMMARY
from cardiacreg.results.guards import Finding
from cardiacreg.results.result import RefineResult

PATIENT_FILES = ("measures.csv", "measures_units.json", PATIENT_SUMMARY)
PHASES = ("ED", "ES")
SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True, eq=False)
class PatientResult:
    """The models of a patient.

    Parameters
    ----------
    patient : PatientFiles
    frames : dict of str to RefineResult
        Every frame by its name; empty where the whole series was refined together.
    cine : CineResult or None
        The series.
    phases : tuple of str
        Names of the frames at end-diastole and, where there is one, end-systole.
    measures : Measures or None
        EDV, ESV, stroke volume, ejection fraction, masses, wall thickness; None where end-systole is all
        there is.
    warnings : tuple of str
        Of reading and measuring; those of frames are theirs.
    input_files : tuple of pathlib.Path
        Which `save` never replaces.
    """

    patient: PatientFiles
    frames: dict[str, RefineResult]
    cine: CineResult | None
    phases: tuple[str, ...]
    measures: Measures | None
    warnings: tuple[str, ...] = ()
    input_files: tuple[Path, ...] = field(default=())

    @property
    def findings(self) -> list[tuple[str, Finding]]:
        """Every reason to look at a frame before it is used, with the frame's name."""
        found = [(name, each) for name, frame in self.frames.items() for each in frame.findings]
        if self.cine is not None:
            found += [("", each) for each in self.cine.findings]
            found += [
                (str(frame.number), each) for frame in self.cine.frames for each in frame.findings
            ]
        return found

    def save(
        self, folder: str | os.PathLike[str], *, overwrite: bool = False, page: bytes | None = None
    ) -> Path:
        """Write a folder per frame, ``measures.csv`` with its units, and, last, ``patient.json``.

        Parameters
        ----------
        folder : path-like
            Made when missing.
        overwrite : bool
            Replace an earlier result.
        page : bytes, optional
            Of ``report.html``, which is written beside them.

        Returns
        -------
        pathlib.Path
            The folder.

        Raises
        ------
        InvalidInputError
            OUTPUT_EXISTS, OUTPUT_IS_INPUT or OUTPUT_NOT_WRITABLE.
        """
        place = Path(folder)
        check_patient_output(place, list(self.frames), overwrite=overwrite, inputs=self.input_files)
        for name, result in self.frames.items():
            save_result(result, place / name, overwrite=overwrite)
        if self.cine is not None:
            save_cine(self.cine, place / CINE_FOLDER, overwrite=overwrite)
        names = PATIENT_FILES if page is None else (REPORT, *PATIENT_FILES)
        with all_or_nothing(
            place, names, overwrite=overwrite, outdated=(REPORT,), inputs=self.input_files
        ) as stage:
            if page is not None:
                write_bytes_atomically(stage / REPORT, page)
            told = {} if self.measures is None else {self.patient.subject: self.measures}
            write_measures_csv(stage / PATIENT_FILES[0], told)
            write_json(stage / PATIENT_FILES[2], patient_summary(self))
        return place


def check_patient_output(
    folder: Path, frames: Sequence[str], *, overwrite: bool, inputs: Sequence[Path] = ()
) -> None:
    """Check before long work that the files of a patient can be written.

    Raises
    ------
    InvalidInputError
        As `PatientResult.save`.
    """
    how: Any = {"overwrite": overwrite, "inputs": inputs}
    check_output(folder, (REPORT, *PATIENT_FILES), **how)
    for name in frames:
        check_output(folder / name, (*FILE_NAMES, *ON_REQUEST), **how)
    check_output(folder / CINE_FOLDER, CINE_NAMES, **how)


def refine_patient(
    patient: PatientFiles | str | os.PathLike[str],
    *,
    preset: Preset = None,
    view_preset: Preset = None,
    use_views: bool = True,
    atlases: Any = None,
    check_spacing: bool = True,
    spacing_mm: ArrayLike = (1.25, 1.25, 2.0),
    options: RefineOptions | None = None,
    threads: int | None = None,
    progress: ProgressCallable | None = None,
) -> PatientResult:
    r"""Refine every frame of a patient, each oriented together with the others, and measure the heart.

    Parameters
    ----------
    patient : path-like or PatientFiles
        A folder, as for `find_patient`, or what that returns.
    preset : str or mapping, optional
        Meaning of the label values, in place of what the convention of the files says.
    view_preset : str or mapping, optional
        The same of long-axis views.
    use_views : bool
        Whether long-axis views that were found take part (``views`` of `refine`).
    atlases, check_spacing, spacing_mm, options, threads, progress
        As for `refine`.

    Returns
    -------
    PatientResult
        End-diastole and end-systole are the frames that are called so; where none is, those with the
        largest and the smallest LV cavity.

    Raises
    ------
    InvalidInputError
        As `find_patient` and `refine`.
    RefinementError
        As `refine`.

    Warns
    -----
    InputWarning
        As `refine` and `measure`.

    Examples
    --------
    >>> from pathlib import Path
    >>> from cardiacreg import RefineOptions, refine_patient, write_labels
    >>> from cardiacreg.phantoms.toy_heart import make_toy_heart
    >>> Path("p1").mkdir()
    >>> table = Path("p1/patient.csv").write_text("frame,labels\nED,ed.nii.gz\nES,es.nii.gz\n")
    >>> for phase, size in (("ed", 1.0), ("es", 0.9)):
    ...     write_labels(f"p1/{phase}.nii.gz", make_toy_heart(size=size).labels)
    >>> found = refine_patient(
    ...     "p1", atlases=[make_toy_heart(size=size) for size in (0.85, 0.95, 1.05)],
    ...     options=RefineOptions(n_atlases=2, orientation="as-stored"), spacing_mm=(2.5, 2.5, 4))
    >>> found.phases, 10 < {row.name: row.value for row in found.measures.table()}["LVEF"] < 50
    (('ED', 'ES'), True)
    """
    check_argument(patient, (PatientFiles, str, os.PathLike), "refine_patient: patient")
    files = patient if isinstance(patient, PatientFiles) else find_patient(patient)
    if not use_views:
        files = replace(
            files, frames=tuple(replace(each, views={}, view_images={}) for each in files.frames)
        )
    meaning = files.preset if preset is None else preset
    how: dict[str, Any] = {
        "preset": meaning, "atlases": atlases, "spacing_mm": spacing_mm, "options": options,
        "threads": threads, "progress": progress,
    }  # fmt: skip
    with kept_warnings() as kept:
        if files.series is not None and any(frame.views for frame in files.frames):
            warn(f"{files.subject}: views of a series are not used.")
        if files.series is not None and files.series.upper() != ",".join(PHASES):
            found = _as_cine(files, how)
        elif files.series is not None:
            found = _phases_of_series(files, how | {"check_spacing": check_spacing})
        else:
            of_views = view_preset or files.view_preset
            found = _frame_by_frame(files, how | {"check_spacing": check_spacing}, of_views)
    notes = tuple(dict.fromkeys(kept))
    pass_on(notes)
    known = {text for frame in found.frames.values() for text in frame.warnings}
    known |= {str(finding) for _, finding in found.findings}
    own = tuple(note.message for note in notes if note.message not in known)
    inputs = files_of(*files.files().values(), atlases)
    return replace(found, warnings=own, input_files=inputs)


def _frame_by_frame(files: PatientFiles, how: dict[str, Any], view_preset: Preset) -> PatientResult:
    """Refine frames of files of their own, each with its own views."""
    frames: dict[str, RefineResult] = {}
    progress = how.pop("progress")
    for number, frame in enumerate(files.frames):
        own = part_of(progress, number, len(files.frames), frame.name)
        others = [other.labels for other in files.frames if other.name != frame.name]
        try:
            views = [
                View(path, image=frame.view_images.get(name), preset=view_preset, name=name)
                for name, path in frame.views.items()
            ]
            frames[frame.name] = refine(
                frame.labels, image=frame.image, landmarks=frame.landmarks, frames=others,
                views=views, progress=own, **how,
            )  # fmt: skip
        except InvalidInputError as problem:
            if problem.code == "FRAME_NEEDED" and len(files.frames) == 1:
                of_series = replace(files, series=",".join(PHASES))
                return _phases_of_series(of_series, how | {"progress": progress})
            if len(files.frames) == 1:
                raise
            raise InvalidInputError(f"{frame.name}: {problem}", code=problem.code) from problem
    phases = _phases(frames)
    measures = None
    if phases == ("ES",):
        warn(
            f"{files.subject}: end-systole is all there is; no volumes at end-diastole, no measures."
        )
    else:
        measures = _measured(files, [frames[name] for name in phases])
    return PatientResult(files, frames, None, phases, measures)


def _phases_of_series(files: PatientFiles, how: dict[str, Any]) -> PatientResult:
    """Refine end-diastole and end-systole of a 4-D file, found by the area of the LV cavity."""
    frame = _only(files)
    both = gather_cine(frame.labels, ",".join(PHASES), preset=how["preset"])
    numbers = [both.numbers[both.ed], both.numbers[both.es]]
    frames: dict[str, RefineResult] = {}
    progress = how["progress"]
    for name, number, other in zip(PHASES, numbers, reversed(numbers), strict=True):
        how = how | {"progress": part_of(progress, len(frames), len(PHASES), name)}
        frames[name] = refine(
            frame.labels, image=frame.image, landmarks=frame.landmarks if name == "ED" else None,
            frame=number, frames=[other], **how,
        )  # fmt: skip
    return PatientResult(files, frames, None, PHASES, _measured(files, list(frames.values())))


def _as_cine(files: PatientFiles, how: dict[str, Any]) -> PatientResult:
    """Refine frames of a 4-D file together."""
    frame, series = _only(files), str(files.series)
    frames = series if series.lower() == "all" else tuple(map(int, series.split(",")))
    result = refine_cine(
        frame.labels, image=frame.image,
        frames=frames.lower() if isinstance(frames, str) else frames, **how,
    )  # fmt: skip
    names = tuple(str(result.frames[each].number) for each in (result.ed, result.es))
    return PatientResult(files, {}, result, names, measure_cine(result, **body_of(files)))


def _only(files: PatientFiles) -> Any:
    if len(files.frames) != 1:
        raise InvalidInputError(
            f"{files.subject}: {len(files.frames)} files of frames, and frames {files.series} of a 4-D "
            "file; needs one or the other.",
            code="BAD_PATIENT",
        )
    return files.frames[0]


def _phases(frames: dict[str, RefineResult]) -> tuple[str, ...]:
    """Names of end-diastole and end-systole, by what they are called or by the LV cavity."""
    if "ED" in frames:
        return tuple(name for name in PHASES if name in frames)
    if len(frames) == 1:
        return tuple(frames)
    sizes = {
        name: float((each.labels.array == LV_CAVITY).sum()) * each.labels.spacing_mm.prod()
        for name, each in frames.items()
    }
    smallest = "ES" if "ES" in frames else min(sizes, key=lambda name: sizes[name])
    others = [name for name in sizes if name != smallest]
    return max(others, key=lambda name: sizes[name]), smallest


def _measured(files: PatientFiles, models: Sequence[Any]) -> Measures:
    return measure(*models[:2], **body_of(files))


def body_of(files: PatientFiles) -> dict[str, Any]:
    """Return height and weight, where both are known."""
    body = {"height_cm": files.height_cm, "weight_kg": files.weight_kg}
    return body if None not in body.values() else {}


def patient_summary(result: PatientResult) -> dict[str, Any]:
    """Return what ``patient.json`` says, in terms that `landmark_files.write_json` can write.

    Parameters
    ----------
    result : PatientResult

    Returns
    -------
    dict
        Files that were found, frames with their folders, agreement and findings, phases and measures.
    """
    files = result.patient
    frames = {
        name: {
            "folder": name,
            "agreement_dice": frame.agreement,
            "minimum_jacobian": frame.minimum_jacobian,
            "orientation": None if frame.orientation is None else frame.orientation.sentence,
            "findings": [{"code": f.code, "message": f.message} for f in frame.findings],
            "warnings": list(frame.warnings),
        }
        for name, frame in result.frames.items()
    }
    return {
        "schema_version": SCHEMA_VERSION,
        "subject": files.subject,
        "convention": files.convention,
        "preset": dict(files.preset) if isinstance(files.preset, dict) else files.preset,
        "found": {role: path for role, path in files.files().items()},
        "notes": list(files.notes),
        "frames": frames,
        "cine": None if result.cine is None else cine_summary(result.cine),
        "phases": dict(zip(PHASES, result.phases, strict=False)),
        "measures": measured(result),
        "findings": [
            {"frame": n, "code": f.code, "message": f.message} for n, f in result.findings
        ],
        "warnings": list(result.warnings),
    }


def measured(result: PatientResult) -> dict[str, float | None]:
    """Return every measure by the head of its column; empty where nothing was measured."""
    rows = () if result.measures is None else result.measures.table()
    return {row.column: row.value for row in rows}


class Judged(NamedTuple):
    """What is advised about a patient: the worst verdict of its frames, its reasons, the least score."""

    verdict: str
    codes: tuple[str, ...]
    score: float


def judged(result: PatientResult, preset: Preset = None) -> Judged:
    """Judge every frame by itself, or the series, as its report does.

    Parameters
    ----------
    result : PatientResult
    preset : str or mapping, optional
        With which the labels of a series were read; its stack is read again.

    Raises
    ------
    InvalidInputError
        If a series can no longer be read, or has changed.
    """
    from cardiacreg.reports.case import open_case
    from cardiacreg.reports.inputs import Inputs
    from cardiacreg.reports.report import score_of, verdict_of
    from cardiacreg.reports.verdict import WORDS

    if result.cine is None:
        cases = [open_case(frame, Inputs()) for frame in result.frames.values()]
    else:
        frame = result.patient.frames[0]
        cases = [open_case(result.cine, Inputs(frame.labels, frame.image, preset))]
    verdicts = [verdict_of(case) for case in cases]
    return Judged(
        max((each.word for each in verdicts), key=WORDS.index),
        tuple(sorted({code for each in verdicts for code in each.codes})),
        min(map(score_of, cases)),
    )


def agreements(result: PatientResult) -> dict[str, float | None]:
    """Return the least agreement with the input of every structure over the frames."""
    told = [frame.agreement for frame in result.frames.values()]
    if result.cine is not None:
        told = [frame.agreement for frame in result.cine.frames if not frame.filled_in]
    names = dict.fromkeys(name for each in told for name in each)
    return {
        name: min((d for each in told if (d := each.get(name)) is not None), default=None)
        for name in names
    }
