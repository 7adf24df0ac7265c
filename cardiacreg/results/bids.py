"""A saved result as BIDS derivatives: files named and described as the Brain Imaging Data Structure asks.

BIDS has no modality of its own for cardiac MR, so that files lie in ``anat``; a frame's name is part of
``desc``. What BIDS has no name for (measures, pictures) is listed in ``.bidsignore``.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cardiacreg.errors import InvalidInputError
from cardiacreg.geometry import STRUCTURE_COLOURS, STRUCTURES
from cardiacreg.io.atomic_write import write_bytes_atomically
from cardiacreg.io.landmark_files import json_text, read_landmarks
from cardiacreg.io.nifti import read_labels
from cardiacreg.io.output_folder import all_or_nothing, check_output
from cardiacreg.results.folders import (
    CINE_SUMMARY,
    PATIENT_SUMMARY,
    RESULT_SUMMARY,
    results_inside,
)

BIDS_VERSION = "1.10.0"
MEASURES, UNITS = "measures.csv", "measures_units.json"
_DESCRIPTION, _LOOK_UP, _IGNORED = "dataset_description.json", "dseg.tsv", ".bidsignore"
_NAME = "cardiacreg"
_IN_PATH = re.compile(r"(?:^|[/\\_])(sub|ses)-([A-Za-z0-9]+)")
_ABBREVIATIONS = {"LV cavity": "LV", "LV wall": "MYO", "RV wall": "RVMYO", "RV cavity": "RV"}
_KEPT = (
    "volumes",
    "volumes_ml",
    "masses_g",
    "agreement_dice",
    "minimum_jacobian",
    "structures_from_atlases",
    "findings",
    "warnings",
    "options",
    "ejection_fractions",
    "ed_frame",
    "es_frame",
)
"""What a sidecar takes over of a result's summary."""


class BidsLabels(NamedTuple):
    """Labels of a subject and, where there are several, its session: letters and digits."""

    subject: str
    session: str | None = None

    @property
    def stem(self) -> str:
        """How names of its files begin."""
        session = f"_ses-{self.session}" if self.session else ""
        return f"sub-{self.subject}{session}"


def bids_labels(
    source: str | os.PathLike[str], subject: str | None = None, session: str | None = None
) -> BidsLabels:
    """Return the labels of a subject: those given, those in a path, or the letters of a name.

    Parameters
    ----------
    source : path-like
        Of the input: ``sub-01/ses-02/...`` says both, ``p_1.nii.gz`` is called p1.
    subject, session : str, optional
        With or without ``sub-`` and ``ses-``; a subject may be ``sub-01_ses-02``.

    Raises
    ------
    InvalidInputError
        If a label holds other than letters and digits, or nothing is left of the name (BAD_SUBJECT).
    """
    found = dict(_IN_PATH.findall(subject or os.fspath(source)))
    plain = re.sub(r"[^A-Za-z0-9]", "", Path(source).name.split(".")[0])
    named = found.get("sub") or subject or plain
    visit = session or found.get("ses")
    visit = visit and visit.removeprefix("ses-")
    for label in (named, *((visit,) if visit else ())):
        if not re.fullmatch(r"[A-Za-z0-9]+", label):
            raise InvalidInputError(
                f"BIDS label {label!r} of {os.fspath(source)!r}; needs letters and digits alone "
                "(subject= or --bids-subject).",
                code="BAD_SUBJECT",
            )
    return BidsLabels(named, visit)


def write_bids(
    folder: str | os.PathLike[str],
    root: str | os.PathLike[str],
    *,
    subject: str | None = None,
    session: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Add a saved result to a folder of BIDS derivatives.

    Parameters
    ----------
    folder : path-like
        What `RefineResult.save`, `CineResult.save` or `PatientResult.save` wrote; it stays as it is.
    root : path-like
        The dataset, as ``derivatives/cardiacreg``; made when missing, with
        ``dataset_description.json`` and ``dseg.tsv``, which says what label values mean.
    subject, session : str, optional
        Labels of letters and digits; of the name of `folder` when absent (`sub-01`, or its letters).
    overwrite : bool
        Replace files of this subject and session.

    Returns
    -------
    pathlib.Path
        The subject's folder: ``anat/sub-01_res-high_desc-cardiacreg_dseg.nii.gz`` (labels) with a
        sidecar, ``..._probseg.nii.gz`` (share of the winning votes), ``figures`` and, of a patient,
        ``..._morph.tsv`` (measures). Of a frame that has a name, ``desc`` is ``cardiacregED``.

    Raises
    ------
    InvalidInputError
        If the folder holds no result (NO_RESULT), a label is of no use (BAD_SUBJECT), the root is a
        dataset of another pipeline (NOT_OURS), or files exist or cannot be written (OUTPUT_EXISTS,
        OUTPUT_NOT_WRITABLE).

    Examples
    --------
    >>> import cardiacreg
    >>> cardiacreg.write_bids("out", "derivatives", subject="01")  # doctest: +SKIP
    """
    source, place = Path(folder), Path(root)
    labels = bids_labels(source, subject, session)
    parts = _parts(source)
    check_bids(place, labels, overwrite=overwrite)
    _write_root(place, _version(_summary(next(iter(parts.values())))))
    target = _target(place, labels)
    for name, part in parts.items():
        _write_part(part, target, f"{labels.stem}_res-high_desc-{_NAME}{name}", overwrite)
    if (source / PATIENT_SUMMARY).is_file():
        _write_measures(source, target / "anat", f"{labels.stem}_desc-{_NAME}", overwrite)
    return target


def check_bids(root: Path, labels: BidsLabels, *, overwrite: bool) -> None:
    """Check before long work that a subject can be added to a dataset.

    Raises
    ------
    InvalidInputError
        As `write_bids`.
    """
    description = root / _DESCRIPTION
    if description.exists() and not _is_ours(description):
        raise InvalidInputError(
            f"{root}: its {_DESCRIPTION} does not name {_NAME} under GeneratedBy; give a folder of its "
            f"own, as derivatives/{_NAME}.",
            code="NOT_OURS",
        )
    anat = _target(root, labels) / "anat"
    there = sorted(path.name for path in anat.glob(f"{labels.stem}_*desc-{_NAME}*"))
    check_output(anat, there, overwrite=overwrite)


def _is_ours(description: Path) -> bool:
    try:
        made_by = json.loads(description.read_text(encoding="utf-8"))["GeneratedBy"]
        return any(each["Name"] == _NAME for each in made_by)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _target(root: Path, labels: BidsLabels) -> Path:
    place = root / f"sub-{labels.subject}"
    return place / f"ses-{labels.session}" if labels.session else place


def _parts(folder: Path) -> dict[str, Path]:
    """Folders with a result each, by what is added to ``desc``: letters and digits."""
    if any((folder / name).is_file() for name in (RESULT_SUMMARY, CINE_SUMMARY)):
        return {"": folder}
    inside = results_inside(folder) if (folder / PATIENT_SUMMARY).is_file() else ()
    found = {re.sub(r"[^A-Za-z0-9]", "", name): folder / name for name in inside}
    if not found:
        raise InvalidInputError(
            f"{folder}: holds no result; give a folder that cardiacreg refine wrote.",
            code="NO_RESULT",
        )
    return found


def _write_root(root: Path, version: str) -> None:
    """Write what all subjects share, where it is not there."""
    contents = {
        _LOOK_UP: _look_up(),
        _IGNORED: "**/figures\n*_morph.tsv\n*_morph.json\n",
        "README": f"Models of the heart that {_NAME} {version} made; see {_DESCRIPTION}.\n",
        _DESCRIPTION: json_text(_description(version)) + "\n",
    }
    try:
        root.mkdir(parents=True, exist_ok=True)
        for name, text in contents.items():
            if not (root / name).exists():
                write_bytes_atomically(root / name, text.encode())
    except OSError as error:
        raise InvalidInputError(
            f"{root}: cannot be written ({error.strerror or error}); choose another folder or change its "
            "permissions.",
            code="OUTPUT_NOT_WRITABLE",
        ) from error


def _description(version: str) -> dict[str, Any]:
    return {
        "Name": "Bi-ventricular models of short-axis cardiac MR",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [
            {
                "Name": _NAME,
                "Version": version,
                "Description": "Refinement of a segmentation by registered atlases "
                "(Duan et al., doi:10.1109/TMI.2019.2894322)",
            }
        ],
    }


def _look_up() -> str:
    rows = [("index", "name", "abbreviation", "color"), (0, "background", "BG", "#000000")]
    for value, name in STRUCTURES.items():
        red, green, blue = STRUCTURE_COLOURS[value]
        rows.append((value, name, _ABBREVIATIONS[name], f"#{red:02x}{green:02x}{blue:02x}"))
    return _tsv(rows)


def _tsv(rows: Any) -> str:
    text = io.StringIO()
    csv.writer(text, delimiter="\t", lineterminator="\n").writerows(rows)
    return text.getvalue()


def _write_part(folder: Path, target: Path, stem: str, overwrite: bool) -> None:
    """Write one result: the sidecar of its labels comes last."""
    files = {f"{stem}_dseg.nii.gz": folder / "labels.nii.gz"}
    if (confidence := folder / "confidence.nii.gz").is_file():
        files[f"{stem}_probseg.nii.gz"] = confidence
    texts = dict(_sidecars(folder, stem, len(files) > 1))
    with all_or_nothing(target / "anat", (*files, *texts), overwrite=overwrite) as stage:
        for name, source in files.items():
            write_bytes_atomically(stage / name, source.read_bytes())
        for name, text in texts.items():
            write_bytes_atomically(stage / name, text.encode())
    picture = next((each for n in ("qc.png", "curves.png") if (each := folder / n).is_file()), None)
    if picture is not None:
        name = f"{stem}_dseg.png"
        with all_or_nothing(target / "figures", (name,), overwrite=overwrite) as stage:
            write_bytes_atomically(stage / name, picture.read_bytes())


def _sidecars(folder: Path, stem: str, confidence: bool) -> Iterator[tuple[str, str]]:
    """JSON beside the images."""
    told = _summary(folder)
    spacing = (told.get("output") or {}).get("spacing_mm")
    shared = {
        "Resolution": f"{' x '.join(f'{each:g}' for each in spacing)} mm"
        if spacing
        else "that of the model",
        "Sources": _sources(told),
        "SpatialReference": next(iter(_sources(told)), "that of the segmentation"),
    }
    if confidence:
        words = "Share of the atlases' votes that the label of a voxel won, 0 to 1."
        yield f"{stem}_probseg.json", json_text({"Description": words} | shared) + "\n"
    words = (
        "Model of both ventricles, made of thick slices by registered atlases; values: dseg.tsv."
    )
    content = {"Description": words, "Manual": False} | shared | _landmarks(folder)
    content[_NAME] = {"Version": _version(told)} | {n: told[n] for n in _KEPT if n in told}
    yield f"{stem}_dseg.json", json_text(content) + "\n"


def _summary(folder: Path) -> dict[str, Any]:
    place = next(each for n in (RESULT_SUMMARY, CINE_SUMMARY) if (each := folder / n).is_file())
    return dict(json.loads(place.read_text(encoding="utf-8")))


def _version(told: Mapping[str, Any]) -> str:
    """The version that made a result."""
    return str((told.get("provenance") or {}).get(_NAME, "unknown"))


def _sources(told: Mapping[str, Any]) -> list[str]:
    """Names of the files that a model was made of."""
    inputs = (told.get("provenance") or {}).get("inputs") or {}
    paths = [each.get("path") for each in inputs.values() if isinstance(each, dict)]
    return [Path(path).name for path in paths if path]


def _landmarks(folder: Path) -> dict[str, Any]:
    """Landmarks in voxels of the labels, as BIDS keeps them."""
    file = folder / "landmarks.json"
    if not file.is_file():
        return {}
    landmarks = read_landmarks(file)
    to_voxels = np.linalg.inv(read_labels(folder / "labels.nii.gz").voxel_to_world)
    voxels = landmarks.points_mm @ to_voxels[:3, :3].T + to_voxels[:3, 3]
    points = {
        name: voxel.round(3).tolist() for name, voxel in zip(landmarks.names, voxels, strict=True)
    }
    return {"AnatomicalLandmarkCoordinates": points}


def _write_measures(source: Path, target: Path, stem: str, overwrite: bool) -> None:
    """Write the measures of a patient as a table, with what its columns are."""
    with (source / MEASURES).open(encoding="utf-8", newline="") as stream:
        rows = list(csv.reader(stream))
    filled = [[cell or "n/a" for cell in row] for row in rows]
    units = json.loads((source / UNITS).read_text(encoding="utf-8"))
    columns = {
        n: {"Units": each["unit"], "Description": each["meaning"]} for n, each in units.items()
    }
    texts = {f"{stem}_morph.tsv": _tsv(filled), f"{stem}_morph.json": json_text(columns) + "\n"}
    with all_or_nothing(target, tuple(texts), overwrite=overwrite) as stage:
        for name, text in texts.items():
            write_bytes_atomically(stage / name, text.encode())
