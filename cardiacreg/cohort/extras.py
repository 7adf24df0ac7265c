"""What is made of a patient's saved models on request: the report, surfaces.

They are made after the status says that the models are done, from the files that were saved. So a report
that fails, or that ends its process, loses no model, and one that is asked for later is made without
refining again.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cardiacreg.cohort.patients import PatientFiles, Preset
from cardiacreg.cohort.status import EXTRAS, hashed_outputs
from cardiacreg.cohort.task import Settings
from cardiacreg.errors import InvalidInputError, kept_warnings
from cardiacreg.io.atomic_write import write_bytes_atomically
from cardiacreg.io.kept_inputs import files_of
from cardiacreg.io.output_folder import all_or_nothing
from cardiacreg.results.files import MESH_FORMATS, REPORT
from cardiacreg.results.folders import CINE_FOLDER, phases_of_patient, results_inside

REPORT_FAILED, SURFACES_FAILED = "REPORT_FAILED", "SURFACES_FAILED"
EXTRAS_FAILED = (REPORT_FAILED, SURFACES_FAILED)
"""Findings of a patient whose models are done and whose report, or surfaces, could not be made."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is still to be made of a patient's models.

    Parameters
    ----------
    report : bool
    surfaces : tuple of str
        Formats.
    """

    report: bool = False
    surfaces: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.report or bool(self.surfaces)

    @property
    def codes(self) -> tuple[str, ...]:
        """Findings where none of it can be made."""
        both = ((REPORT_FAILED, self.report), (SURFACES_FAILED, bool(self.surfaces)))
        return tuple(code for code, is_wanted in both if is_wanted)


def checked_formats(formats: Iterable[str]) -> tuple[str, ...]:
    """Return formats of surfaces in their order, each once.

    Raises
    ------
    InvalidInputError
        If one is unknown (BAD_OPTION).

    Examples
    --------
    >>> from cardiacreg.cohort.extras import checked_formats
    >>> checked_formats(["stl", "vtp", "stl"])
    ('vtp', 'stl')
    """
    given = [formats] if isinstance(formats, str) else list(formats)
    unknown = [str(each) for each in given if each not in MESH_FORMATS]
    if unknown:
        raise InvalidInputError(
            f"surfaces: {', '.join(unknown)} is no format (surfaces= or --surfaces); needs some of "
            f"{', '.join(MESH_FORMATS)}.",
            code="BAD_OPTION",
        )
    return tuple(each for each in MESH_FORMATS if each in given)


def still_wanted(settings: Settings, status: Mapping[str, Any], folder: Path) -> Wanted:
    """Return what is asked for and is not there as it was written.

    Parameters
    ----------
    settings : Settings
    status : mapping
        Of a patient that is done.
    folder : pathlib.Path
        Of the patient.
    """
    known = status.get(EXTRAS) or {}

    def is_whole(ending: str) -> bool:
        names = [name for name in known if name.endswith(ending)]
        return bool(names) and hashed_outputs(folder, names) == {n: known[n] for n in names}

    return Wanted(
        settings.report and not is_whole(REPORT),
        tuple(each for each in settings.surfaces if not is_whole(f".{each}")),
    )


def make_extras(
    wanted: Wanted, folder: Path, patient: PatientFiles, preset: Preset
) -> tuple[dict[str, bytes], dict[str, str]]:
    """Make what is wanted of the saved models of a patient; nothing that fails here raises.

    Parameters
    ----------
    wanted : Wanted
    folder : pathlib.Path
        Of the patient.
    patient : PatientFiles
    preset : str or mapping, optional
        With which the labels were read.

    Returns
    -------
    dict of str to bytes
        Files by their way from the folder.
    dict of str to str
        What failed: a code, and why.
    """
    made: dict[str, bytes] = {}
    failed: dict[str, str] = {}
    if wanted.report:
        _attempt(made, failed, REPORT_FAILED, _report, folder, patient, preset)
    if wanted.surfaces:
        _attempt(made, failed, SURFACES_FAILED, _surfaces, folder, wanted.surfaces)
    return made, failed


def write_extras(folder: Path, files: Mapping[str, bytes], patient: PatientFiles) -> None:
    """Write files by their way from a patient's folder; those of one folder appear together."""
    inputs = files_of(*patient.files().values())
    for place in dict.fromkeys((folder / name).parent for name in files):
        here = {
            Path(name).name: each for name, each in files.items() if (folder / name).parent == place
        }
        with all_or_nothing(place, list(here), overwrite=True, inputs=inputs) as stage:
            for name, content in here.items():
                write_bytes_atomically(stage / name, content)


def _attempt(
    made: dict[str, bytes], failed: dict[str, str], code: str, make: Any, *arguments: Any
) -> None:
    try:
        with kept_warnings():
            made |= make(*arguments)
    except (InvalidInputError, OSError, MemoryError) as error:
        failed[code] = str(error) or type(error).__name__
    except Exception:  # the models are done; the traceback tells what to mend
        failed[code] = traceback.format_exc(limit=-6)


def _report(folder: Path, patient: PatientFiles, preset: Preset) -> dict[str, bytes]:
    from cardiacreg.cohort._refine_patient import body_of
    from cardiacreg.reports.case import open_case
    from cardiacreg.reports.inputs import Inputs
    from cardiacreg.reports.report import patient_page

    is_cine = phases_of_patient(folder) == (folder / CINE_FOLDER,)
    frame = patient.frames[0]
    stack = Inputs(frame.labels, frame.image, preset) if is_cine else Inputs()
    page = patient_page(open_case(folder, stack), **body_of(patient))
    return {REPORT: page.encode()}


def _surfaces(folder: Path, formats: tuple[str, ...]) -> dict[str, bytes]:
    """Those of every frame in its own folder; of a cine those of end-diastole and end-systole."""
    from cardiacreg.surfaces.extraction import surfaces_of
    from cardiacreg.surfaces.files import file_contents

    return {
        f"{name}/{file}": content
        for name, model in _models(folder).items()
        for file, content in file_contents(surfaces_of(model), formats).items()
    }


def _models(folder: Path) -> dict[str, Any]:
    """Models by the names of the folders that their surfaces belong to."""
    from cardiacreg.cine.saved import load_cine

    names = results_inside(folder)
    if names != (CINE_FOLDER,):
        return {name: folder / name for name in names if name != CINE_FOLDER}
    cine = load_cine(folder / CINE_FOLDER)
    return {"ED": cine.frames[cine.ed].labels, "ES": cine.frames[cine.es].labels}
