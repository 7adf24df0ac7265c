"""What belongs to one patient: its frames, images, views and whatever else its folder holds.

A folder is read by one convention of names, and only where exactly one fits (`conventions`). What is left
over is never guessed: it is refused, or named among what was not used.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from cardiacreg.errors import InvalidInputError, check_argument
from cardiacreg.results.folders import CINE_FOLDER

Preset = str | Mapping[int, int] | None
ONLY_FRAME = "frame"
"""What a frame is called where nothing says which it is."""
_FRAME_NAME = re.compile(r"[A-Za-z0-9][\w-]{0,39}")
_SUBJECT = re.compile(r"[^\W_][\w.@=+-]{0,99}")


@dataclass(frozen=True, slots=True)
class FrameFiles:
    """One frame of a patient.

    Parameters
    ----------
    name : str
        "ED", "ES", or what the files call it.
    labels : pathlib.Path
        Short-axis segmentation.
    image : pathlib.Path or None
    landmarks : pathlib.Path or None
    views : mapping of str to pathlib.Path
        Segmentations of long-axis views at this frame, by what the files call them.
    view_images : mapping of str to pathlib.Path
        Images of those of the views that have one.
    """

    name: str
    labels: Path
    image: Path | None = None
    landmarks: Path | None = None
    views: Mapping[str, Path] = field(default_factory=dict)
    view_images: Mapping[str, Path] = field(default_factory=dict)

    def files(self) -> Iterator[tuple[str, Path]]:
        """Every file of the frame with what it is."""
        given = (("labels", self.labels), ("image", self.image), ("landmarks", self.landmarks))
        yield from ((role, path) for role, path in given if path is not None)
        yield from ((f"view {name}", path) for name, path in self.views.items())
        yield from ((f"image of view {name}", path) for name, path in self.view_images.items())


@dataclass(frozen=True, slots=True)
class PatientFiles:
    """The files of a patient, as they were found or given.

    Parameters
    ----------
    subject : str
        Name of the patient, and of the folder with its results.
    frames : tuple of FrameFiles
    convention : str
        Whose names the files have, or "table" where they were listed.
    preset : str, mapping or None
        What the convention says that label values mean.
    view_preset : str, mapping or None
        The same of the views; as in the short-axis segmentations when absent.
    series : str or None
        Of a 4-D file: which of its frames, "all", "ED,ES" or numbers as "0,5,9".
    height_cm, weight_kg : float or None
        Of the body.
    others : tuple of pathlib.Path
        Further files that were read to know all this.
    notes : tuple of str
        What was found and is not used.
    """

    subject: str
    frames: tuple[FrameFiles, ...]
    convention: str = "table"
    preset: Preset = None
    view_preset: Preset = None
    series: str | None = None
    height_cm: float | None = None
    weight_kg: float | None = None
    others: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()

    def files(self) -> dict[str, Path]:
        """Return every file by what it is, such as "ED labels"."""
        found = {
            f"{frame.name} {role}": path for frame in self.frames for role, path in frame.files()
        }
        return found | {path.name: path for path in self.others}

    def lines(self) -> list[str]:
        """Return what was found, in words, a line each."""
        body = (
            f", {self.height_cm:g} cm, {self.weight_kg:g} kg"
            if self.height_cm and self.weight_kg
            else ""
        )
        lines = [f"{self.subject}: files named as in {self.convention}{body}"]
        for frame in self.frames:
            parts = [f"{role} {path.name}" for role, path in frame.files()]
            lines.append(f"  {frame.name}: {', '.join(parts)}")
        return lines + [f"  {note}" for note in self.notes]


def find_patient(folder: str | os.PathLike[str], *, subject: str | None = None) -> PatientFiles:
    """Find the frames of a patient in a folder, by the names of its files.

    Parameters
    ----------
    folder : path-like
        Named as in ACDC (``patient001_frame01_gt.nii.gz``, and ``Info.cfg``, which says which frames are
        end-diastole and end-systole), M&Ms-2 (``001_SA_ED_gt.nii.gz``, ``001_LA_ED_gt.nii.gz``), M&Ms
        (``A1B2C3_sa_gt.nii.gz``, 4-D), ukbb_cardiac (``label_sa_ED.nii.gz``, ``seg4_la_4ch_ED.nii.gz``)
        nnU-Net and the Decathlon (``labelsTr/CASE.nii.gz``, ``imagesTr/CASE_0000.nii.gz``) or MONAI
        (``CASE/CASE_seg.nii.gz``); or with a table
        ``patient.csv`` whose columns are ``frame``, ``labels`` and, where there are any, ``image``,
        ``landmarks`` and ``view``.
    subject : str, optional
        Name of the patient; that in the files' names when absent, or the folder's.

    Returns
    -------
    PatientFiles

    Raises
    ------
    InvalidInputError
        If the folder is no path (BAD_TYPE) or does not exist (NO_FOLDER), no convention fits
        (NO_PATIENT), several do or files say two things of one frame (AMBIGUOUS_PATIENT), it holds
        several patients (SEVERAL_PATIENTS), or a table or ``Info.cfg`` names what is not there
        (BAD_PATIENT).

    Examples
    --------
    >>> from pathlib import Path
    >>> from cardiacreg import find_patient, write_labels
    >>> from cardiacreg.phantoms.toy_heart import make_toy_heart
    >>> Path("007").mkdir()
    >>> for phase, size in (("ED", 1.0), ("ES", 0.9)):
    ...     write_labels(f"007/007_SA_{phase}_gt.nii.gz", make_toy_heart(size=size).labels)
    >>> patient = find_patient("007")
    >>> patient.convention, patient.preset, [frame.name for frame in patient.frames]
    ('M&Ms-2', 'mms2', ['ED', 'ES'])
    """
    from cardiacreg.cohort.conventions import patients_in

    check_argument(folder, (str, os.PathLike), "find_patient: folder")
    place = Path(folder)
    found = patients_in(place)
    if len(found) > 1:
        names = [each.subject for each in found]
        raise InvalidInputError(
            f"{place}: holds {len(names)} patients ({shortened(names)}); needs one. Give the folder of "
            "one patient, or refine all of them with cardiacreg cohort.",
            code="SEVERAL_PATIENTS",
        )
    patient = found[0] if subject is None else replace(found[0], subject=subject)
    check_subject(patient.subject)
    check_frames(patient)
    return patient


def check_subject(subject: str) -> None:
    """Refuse names that cannot be those of folders everywhere.

    Raises
    ------
    InvalidInputError
        BAD_SUBJECT.
    """
    if not _SUBJECT.fullmatch(subject) or subject.endswith("."):
        raise InvalidInputError(
            f"subject {subject!r}; needs a name of at most 100 letters, digits and any of _ . @ = + - "
            "that begins with a letter or a digit, as it becomes the name of a folder.",
            code="BAD_SUBJECT",
        )


def check_frames(patient: PatientFiles) -> None:
    """Refuse frames whose names cannot be those of folders, or stand twice.

    Raises
    ------
    InvalidInputError
        BAD_PATIENT.
    """
    names = [frame.name for frame in patient.frames]
    wrong = [
        name for name in names if not _FRAME_NAME.fullmatch(name) or name.lower() == CINE_FOLDER
    ]
    twice = sorted({name for name in names if [n.lower() for n in names].count(name.lower()) > 1})
    if wrong or twice or not names:
        found = f"frames called {', '.join(map(repr, wrong or twice))}" if names else "no frame"
        raise InvalidInputError(
            f"{patient.subject}: {found}; needs a frame or more, each with a name of its own of letters, "
            "digits, _ and -, such as ED and ES.",
            code="BAD_PATIENT",
        )


def shortened(names: Sequence[str], most: int = 3) -> str:
    """Return some names, and how many more there are."""
    shown = ", ".join(names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")
