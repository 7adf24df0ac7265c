"""Conventions of names: which file of a folder is which frame of which patient.

Every convention is a reader of one folder, which returns the patients it finds there, or none where the
names are not its own.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from io import StringIO
from pathlib import Path

from cardiacreg.anatomy.preset_tables import segment_mapping
from cardiacreg.cohort.patients import ONLY_FRAME, FrameFiles, PatientFiles, Preset, shortened
from cardiacreg.errors import InvalidInputError
from cardiacreg.io.regular_file import is_file, is_folder

TABLE = "patient.csv"
TABLE_COLUMNS = ("frame", "labels", "image", "landmarks", "view")
_END = r"\.nii(?:\.gz)?"
_ACDC = re.compile(rf"(?P<subject>.+)_frame(?P<frame>\d+)(?P<labels>_gt)?{_END}")
_MMS2 = re.compile(rf"(?P<subject>.+)_(?P<axis>SA|LA)_(?P<frame>ED|ES)(?P<labels>_gt)?{_END}")
_MMS = re.compile(rf"(?P<subject>.+)_sa(?P<labels>_gt)?{_END}")
_UKBB = re.compile(rf"(?P<labels>label\d?_|seg_)?(?P<axis>sa)_(?P<frame>ED|ES){_END}")
_UKBB_VIEW = re.compile(rf"(?P<labels>seg4_)?(?P<axis>la_4ch)_(?P<frame>ED|ES){_END}")
_UKBB_OTHER_VIEW = re.compile(rf"(?:label\d?|seg)_la_\dch_(?:ED|ES){_END}")
_WITH_ATRIA = {1: 1, 2: 2, 3: 4, 4: 0, 5: 0}
_MONAI = re.compile(rf"(?P<subject>.+)_(?:seg|trans|pred){_END}")
_CASE = re.compile(r"(?P<subject>.+?)_(?P<frame>frame\d+|ED|ES)", re.IGNORECASE)
_PHASES = ("ED", "ES")
_LARGEST_TEXT = 10_000_000
_HEIGHTS_CM, _WEIGHTS_KG = (30.0, 250.0), (1.0, 400.0)


def patients_in(folder: Path) -> list[PatientFiles]:
    """Return the patients whose files lie in a folder itself, by the one convention that fits.

    Parameters
    ----------
    folder : pathlib.Path

    Raises
    ------
    InvalidInputError
        NO_FOLDER, NO_PATIENT, AMBIGUOUS_PATIENT, BAD_PATIENT.
    """
    if not is_folder(folder):
        what = "no such folder; check the path"
        if is_file(folder):
            what = "is a file; needs the folder of a patient. Give a segmentation to refine with -i"
        raise InvalidInputError(f"{folder}: {what}.", code="NO_FOLDER")
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    found = [patients for read in CONVENTIONS if (patients := read(folder, names))]
    if len(found) == 1:
        return found[0]
    if found:
        which = " and ".join(patients[0].convention for patients in found)
        raise InvalidInputError(
            f"{folder}: holds files named as in {which}; needs one convention. Move the others away, or "
            f"list the files in a table {TABLE} with the columns {', '.join(TABLE_COLUMNS)}.",
            code="AMBIGUOUS_PATIENT",
        )
    raise InvalidInputError(
        f"{folder}: no segmentation under a name that is known ({shortened(names) or 'it is empty'}); "
        "needs names as in ACDC (patient001_frame01_gt.nii.gz), M&Ms-2 (001_SA_ED_gt.nii.gz), "
        "ukbb_cardiac (label_sa_ED.nii.gz), nnU-Net (labelsTr, imagesTr) or MONAI "
        f"(CASE/CASE_seg.nii.gz), or a table {TABLE} with the columns {', '.join(TABLE_COLUMNS)}.",
        code="NO_PATIENT",
    )


def _acdc(folder: Path, names: list[str]) -> list[PatientFiles]:
    """``patient001_frame01_gt.nii.gz`` and ``Info.cfg``."""
    found = _by_subject(folder, names, _ACDC)
    information = folder / "Info.cfg"
    known = _information(information) if information.is_file() else {}
    patients = []
    for subject, files in found.items():
        phases = {int(known[phase]): phase for phase in _PHASES if known.get(phase, "").isdecimal()}
        frames = [
            FrameFiles(phases.get(int(number), f"frame{number}"), *files[number])
            for number in sorted(files, key=int)
        ]
        absent = [phase for phase in phases.values() if phase not in {f.name for f in frames}]
        if absent and len(found) == 1:
            raise InvalidInputError(
                f"{folder}: Info.cfg calls a frame {' and another '.join(absent)} that has no "
                "segmentation here; complete the folder, or correct Info.cfg.",
                code="BAD_PATIENT",
            )
        patients.append(
            PatientFiles(
                subject, tuple(frames), "ACDC", "acdc",
                height_cm=_body(known.get("Height"), _HEIGHTS_CM),
                weight_kg=_body(known.get("Weight"), _WEIGHTS_KG),
                others=(information,) if known else (),
            )
        )  # fmt: skip
    return patients


def _mms2(folder: Path, names: list[str]) -> list[PatientFiles]:
    """``001_SA_ED_gt.nii.gz``, and ``001_LA_ED_gt.nii.gz`` for the four-chamber view."""
    short = _by_subject(folder, names, _MMS2, axis="SA")
    long = _by_subject(folder, names, _MMS2, axis="LA")
    return [
        PatientFiles(
            subject,
            tuple(
                _frame(phase, files[phase], {"4ch": long.get(subject, {})})
                for phase in _PHASES
                if phase in files
            ),
            "M&Ms-2", "mms2",
        )
        for subject, files in short.items()
    ]  # fmt: skip


def _mms(folder: Path, names: list[str]) -> list[PatientFiles]:
    """``A1B2C3_sa_gt.nii.gz``: every frame in one file, labels at end-diastole and end-systole."""
    found = _by_subject(folder, names, _MMS)
    return [
        PatientFiles(
            subject, (FrameFiles(ONLY_FRAME, *files[ONLY_FRAME]),), "M&Ms", "mms", series="ED,ES"
        )
        for subject, files in found.items()
    ]


def _ukbb(folder: Path, names: list[str]) -> list[PatientFiles]:
    """``label_sa_ED.nii.gz`` or ``seg_sa_ED.nii.gz``, and ``seg4_la_4ch_ED.nii.gz``.

    Other long-axis files of ukbb_cardiac hold atria alone, under the values of ventricles.
    """
    short = _by_subject(folder, names, _UKBB).get("", {})
    long = _by_subject(folder, names, _UKBB_VIEW).get("", {})
    others = [name for name in names if _UKBB_OTHER_VIEW.fullmatch(name)]
    frames = tuple(
        _frame(phase, short[phase], {"4ch": long}) for phase in _PHASES if phase in short
    )
    notes = (f"not used, as they may hold atria alone: {', '.join(others)}",) if others else ()
    found = PatientFiles(
        folder.resolve().name, frames, "ukbb_cardiac", "ukbb", _WITH_ATRIA, notes=notes
    )
    return [found] if frames else []


def _nnunet(folder: Path, names: list[str]) -> list[PatientFiles]:
    """``labelsTr/CASE.nii.gz`` and ``imagesTr/CASE_0000.nii.gz``; cases of one patient are its frames.

    Images without a channel, ``imagesTr/CASE.nii.gz``, are those of the Medical Decathlon and of MONAI.
    """
    if "labelsTr" not in names or not (folder / "labelsTr").is_dir():
        return []
    images = {path.name for path in (folder / "imagesTr").glob("*.nii*")}
    preset, others, notes = _nnunet_meaning(folder / "dataset.json")
    patients: dict[str, dict[str, FrameFiles]] = {}
    for labels in sorted((folder / "labelsTr").glob("*.nii*")):
        if labels.name.startswith("."):
            continue
        case = re.sub(rf"{_END}$", "", labels.name)
        channels = [f"{case}{part}{end}" for part in ("_0000", "") for end in (".nii.gz", ".nii")]
        image = next((folder / "imagesTr" / name for name in channels if name in images), None)
        split = _CASE.fullmatch(case)
        subject, frame = (split["subject"], split["frame"]) if split else (case, ONLY_FRAME)
        frame = frame.upper() if frame.upper() in _PHASES else frame
        own = patients.setdefault(subject, {})
        _check_new(frame, own, labels, lambda each: each.labels)
        own[frame] = FrameFiles(frame, labels, image)
    return [
        PatientFiles(subject, tuple(frames.values()), "nnU-Net", preset, others=others, notes=notes)
        for subject, frames in patients.items()
    ]


def _monai(folder: Path, names: list[str]) -> list[PatientFiles]:
    """``CASE/CASE_seg.nii.gz``: what MONAI's SaveImage writes, a folder for each case."""
    case = folder.resolve().name
    found = [name for name in names if (m := _MONAI.fullmatch(name)) and m["subject"] == case]
    if not found:
        return []
    if len(found) > 1:
        raise InvalidInputError(
            f"{folder}: {' and '.join(found)} are the same case; needs one of them. Move the other away.",
            code="AMBIGUOUS_PATIENT",
        )
    notes = ("MONAI's files do not say what the values mean: it has to be given",)
    return [PatientFiles(case, (FrameFiles(ONLY_FRAME, folder / found[0]),), "MONAI", notes=notes)]


def _table(folder: Path, names: list[str]) -> list[PatientFiles]:
    """``patient.csv``; a row with a view is a long-axis segmentation of its frame."""
    if TABLE not in names:
        return []
    place = folder / TABLE
    rows = list(csv.DictReader(StringIO(text_of(place))))
    unknown = set(rows[0] if rows else ()) - set(TABLE_COLUMNS)
    if not rows or "labels" not in rows[0] or unknown:
        raise InvalidInputError(
            f"{place}: needs rows, and the columns {', '.join(TABLE_COLUMNS)} or some of them, labels at "
            f"least{'; found ' + ', '.join(map(str, unknown)) if unknown else ''}.",
            code="BAD_PATIENT",
        )
    frames: dict[str, FrameFiles] = {}
    views: dict[str, dict[str, Path]] = {}
    for row in rows:
        given = {key: (value or "").strip() for key, value in row.items() if isinstance(value, str)}
        name, labels = given.get("frame") or ONLY_FRAME, _named_file(place, given.get("labels"))
        if view := given.get("view"):
            views.setdefault(name, {})[view] = labels
            continue
        _check_new(name, frames, labels, lambda each: each.labels)
        image, points = (
            _named_file(place, given[key]) if given.get(key) else None
            for key in ("image", "landmarks")
        )
        frames[name] = FrameFiles(name, labels, image, points)
    if lonely := sorted(set(views) - set(frames)):
        raise InvalidInputError(
            f"{place}: views of {', '.join(lonely)}, which has no short-axis segmentation; add its row.",
            code="BAD_PATIENT",
        )
    whole = tuple(
        FrameFiles(each.name, each.labels, each.image, each.landmarks, views.get(each.name, {}))
        for each in frames.values()
    )
    return [PatientFiles(folder.resolve().name, whole, others=(place,))]


CONVENTIONS: tuple[Callable[[Path, list[str]], list[PatientFiles]], ...] = (
    _table, _acdc, _mms2, _mms, _ukbb, _nnunet, _monai,
)  # fmt: skip


def _by_subject(
    folder: Path, names: Iterable[str], pattern: re.Pattern[str], axis: str | None = None
) -> dict[str, dict[str, tuple[Path, Path | None]]]:
    """Labels and image of every frame of every subject; a frame counts only where it has labels."""
    labels: dict[tuple[str, str], Path] = {}
    images: dict[tuple[str, str], Path] = {}
    for name in names:
        match = pattern.fullmatch(name)
        if match is None or not (folder / name).is_file():
            continue
        parts = match.groupdict()
        if axis is not None and parts["axis"] != axis:
            continue
        key = (parts.get("subject", ""), parts.get("frame", ONLY_FRAME))
        place = labels if parts["labels"] else images
        _check_new(key, place, folder / name, lambda each: each)
        place[key] = folder / name
    found: dict[str, dict[str, tuple[Path, Path | None]]] = {}
    for (subject, frame), path in sorted(labels.items()):
        found.setdefault(subject, {})[frame] = (path, images.get((subject, frame)))
    return found


def _check_new(key: object, there: dict, path: Path, file_of: Callable) -> None:  # type: ignore[type-arg]
    """Refuse a second file for what has one already."""
    if key in there:
        raise InvalidInputError(
            f"{path.parent}: {file_of(there[key]).name} and {path.name} are the same frame; needs one of "
            "them. Move the other away.",
            code="AMBIGUOUS_PATIENT",
        )


def _frame(
    phase: str,
    files: tuple[Path, Path | None],
    by_view: dict[str, dict[str, tuple[Path, Path | None]]],
) -> FrameFiles:
    """A frame with the views of its phase."""
    views = {view: found[phase] for view, found in by_view.items() if phase in found}
    return FrameFiles(
        phase, *files,
        views={view: labels for view, (labels, _) in views.items()},
        view_images={view: image for view, (_, image) in views.items() if image is not None},
    )  # fmt: skip


def _information(place: Path) -> dict[str, str]:
    """Lines ``Key: value`` of ACDC's Info.cfg."""
    pairs = (line.partition(":") for line in text_of(place).splitlines())
    return {key.strip(): value.strip() for key, colon, value in pairs if colon}


def _body(text: str | None, allowed: tuple[float, float]) -> float | None:
    """Height or weight; nothing where it is not that of a body."""
    with suppress(ValueError, TypeError):
        value = float(text or "")
        return value if allowed[0] <= value <= allowed[1] else None
    return None


def _nnunet_meaning(place: Path) -> tuple[Preset, tuple[Path, ...], tuple[str, ...]]:
    """What ``dataset.json`` says that values mean, where its names are known."""
    if not place.is_file():
        return None, (), ("no dataset.json: the meaning of the values has to be given",)
    try:
        labels = json.loads(text_of(place))["labels"]
        pairs = {str(k): v for k, v in labels.items()}
        if all(isinstance(value, int) for value in pairs.values()):
            names = {int(value): name for name, value in pairs.items()}
        else:
            names = {int(value): str(name) for value, name in pairs.items()}
        return segment_mapping(names), (place,), ()
    except (InvalidInputError, ValueError, KeyError, TypeError, AttributeError):
        note = "dataset.json does not say what the values mean: it has to be given"
        return None, (place,), (note,)


def _named_file(table: Path, name: str | None) -> Path:
    if not name or not (table.parent / name).is_file():
        raise InvalidInputError(
            f"{table}: names {name or 'no file'!r}, which is not there; needs paths from the table's "
            "folder.",
            code="BAD_PATIENT",
        )
    return table.parent / name


def text_of(place: Path) -> str:
    """Return the text of a small file.

    Raises
    ------
    InvalidInputError
        If it is too large or not UTF-8 (UNREADABLE_FILE).
    """
    from cardiacreg.io.regular_file import check_regular_file, unreadable
    from cardiacreg.io.source_name import named_source

    with named_source(str(place)):
        if check_regular_file(place).st_size > _LARGEST_TEXT:
            raise unreadable(f"it has more than {_LARGEST_TEXT // 10**6} MB")
        try:
            return place.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise unreadable(getattr(error, "strerror", None) or "it is not UTF-8 text") from error
