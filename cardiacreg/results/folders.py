"""What a folder holds that may or may not be one of a result: a frame's, a cine's, or a patient's."""

from __future__ import annotations

import json
from pathlib import Path

from cardiacreg.errors import InvalidInputError
from cardiacreg.io.regular_file import is_file, is_folder

RESULT_SUMMARY, CINE_SUMMARY, PATIENT_SUMMARY = "result.json", "cine.json", "patient.json"
"""What makes a folder one of a frame, of a cine or of a patient: what takes its place removes it."""
CINE_FOLDER = "cine"
"""Folder of a patient's cine, beside which there are none of single frames."""


def no_result(place: Path, wanted: str = RESULT_SUMMARY) -> InvalidInputError:
    """Return the error for a folder without the summary that is wanted: what it holds in its place.

    Examples
    --------
    >>> from pathlib import Path
    >>> from cardiacreg.results.folders import no_result
    >>> print(no_result(Path("nowhere")))
    nowhere: no such folder; check the path.
    """
    inside = ", ".join(results_inside(place))
    if not is_folder(place):
        told = "no such folder; check the path"
    elif wanted != CINE_SUMMARY and is_file(place / CINE_SUMMARY):
        told = (
            f"holds no {wanted}, but {CINE_SUMMARY}, of all frames together; cardiacreg.load_cine reads "
            "it, cardiacreg report and measure take it, surfaces and mesh one frame of it (--frame)"
        )
    elif inside:
        told = f"holds no {wanted}, but folders of results ({inside}); give one of them"
    else:
        told = f"holds no {wanted}; needs a folder that cardiacreg refine, or save() of its result, wrote"
    return InvalidInputError(f"{place}: {told}.", code="NO_RESULT")


def results_inside(place: Path) -> tuple[str, ...]:
    """Return the names of the folders in a folder that hold a result or a cine, in their order."""
    try:
        found = sorted(each.name for each in place.iterdir() if each.is_dir())
    except (OSError, ValueError):  # a name that no system takes
        return ()
    return tuple(
        n for n in found if is_file(place / n / RESULT_SUMMARY) or is_file(place / n / CINE_SUMMARY)
    )


def phases_of_patient(place: Path) -> tuple[Path, ...]:
    """Return the results in the folder of a patient: end-diastole and, where there is one, end-systole.

    Parameters
    ----------
    place : pathlib.Path

    Returns
    -------
    tuple of pathlib.Path
        The folder of the cine alone where all frames were refined together; none where the folder is
        not one of a patient.
    """
    if (
        is_file(place / RESULT_SUMMARY)
        or is_file(place / CINE_SUMMARY)
        or not is_file(place / PATIENT_SUMMARY)
    ):
        return ()
    if is_file(place / CINE_FOLDER / CINE_SUMMARY):
        return (place / CINE_FOLDER,)
    try:
        phases = json.loads((place / PATIENT_SUMMARY).read_text(encoding="utf-8"))["phases"]
        names = [str(phases[phase]) for phase in ("ED", "ES") if phase in phases]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInputError(
            f"{place / PATIENT_SUMMARY}: does not say which frames are its phases ({error!r}); give the "
            "folder of a frame.",
            code="BAD_RESULT",
        ) from error
    return tuple(place / name for name in names if is_file(place / name / RESULT_SUMMARY))
