"""A saved result made again from what it says of itself, and compared with what was saved."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cardiacreg.compute.threads import ProgressCallable
from cardiacreg.errors import InvalidInputError, RefinementError, kept_warnings
from cardiacreg.fusion.label_fusion import FusionOptions
from cardiacreg.geometry import STRUCTURES, Landmarks, same_lattice
from cardiacreg.io.input_records import DIGEST, IN_MEMORY, PATH, POINTS, digest_of
from cardiacreg.refinement._refine import refine
from cardiacreg.refinement.options import RefineOptions
from cardiacreg.refinement.views import View
from cardiacreg.registration.options import RegistrationOptions
from cardiacreg.results.result import RefineResult
from cardiacreg.results.saved import SavedResult, load_result

_FILES = ("segmentation", "image", "landmarks", "atlases")
_VERSIONS = ("cardiacreg", "python", "numpy", "scipy", "numba")
_LARGEST_MM = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class Verification:
    """How a result that was made again compares with the saved one.

    Parameters
    ----------
    folder : pathlib.Path
    same_labels : bool
        Whether shape, place and every voxel of the labels are equal.
    dice : dict
        Structure to the overlap of the saved and the new labels; None where the lattices differ, or
        neither has the structure.
    changed_inputs : tuple of str
        Inputs whose files hold something else than they did, or could not be compared.
    changed_versions : dict
        Package to its versions, then and now, where they differ.
    differences : tuple of str
        Everything else that differs, a sentence each.
    result : RefineResult
        The new one.
    """

    folder: Path
    same_labels: bool
    dice: dict[str, float | None]
    changed_inputs: tuple[str, ...]
    changed_versions: dict[str, tuple[str, str]]
    differences: tuple[str, ...]
    result: RefineResult

    @property
    def sentences(self) -> tuple[str, ...]:
        """What was found, for a user to read; the verdict first."""
        if self.same_labels:
            verdict = "the labels made again are the saved ones, voxel by voxel"
        else:
            shares = ", ".join(f"{k} {v:.3f}" for k, v in self.dice.items() if v is not None)
            verdict = (
                f"the labels made again differ from the saved ones ({shares or 'other lattice'})"
            )
        versions = [
            f"{name} was {before} and is {now}"
            for name, (before, now) in self.changed_versions.items()
        ]
        return (verdict, *self.changed_inputs, *versions, *self.differences)


def verify_result(
    folder: str | Path,
    *,
    segmentation: Any = None,
    image: Any = None,
    landmarks: Any = None,
    atlases: Any = None,
    threads: int | None = None,
    progress: ProgressCallable | None = None,
) -> Verification:
    """Make a saved result again from its ``result.json``, and compare the labels.

    Parameters
    ----------
    folder : path
        What `RefineResult.save` or ``cardiacreg refine`` wrote.
    segmentation, image, landmarks, atlases : optional
        Inputs in place of those that ``result.json`` names, where these were moved, or were objects in
        memory.
    threads, progress
        As for `cardiacreg.refine`.

    Returns
    -------
    Verification

    Raises
    ------
    InvalidInputError
        If the folder holds no whole result (as `load_result`), ``result.json`` does not say how it was
        made (NOT_RECORDED), an input is not there (INPUT_MISSING), or as `cardiacreg.refine`.

    Examples
    --------
    >>> import cardiacreg
    >>> from cardiacreg.phantoms.toy_heart import make_toy_heart
    >>> cardiacreg.write_labels("heart.nii.gz", make_toy_heart(size=0.95).labels)
    >>> bank = cardiacreg.build_atlas_bank("toy_bank", [make_toy_heart(size=s) for s in (0.9, 1.0)])
    >>> options = cardiacreg.RefineOptions(n_atlases=2, orientation="as-stored")
    >>> found = cardiacreg.refine("heart.nii.gz", atlases=bank, options=options)
    >>> folder = found.save("model", overwrite=True)
    >>> cardiacreg.verify_result(folder).sentences
    ('the labels made again are the saved ones, voxel by voxel',)
    """
    saved = load_result(folder)
    record = saved.provenance.get("inputs")
    if not isinstance(record, dict):
        raise InvalidInputError(
            f"{saved.folder}: result.json does not say from which files it was made, as those of earlier "
            "versions and of other ways than refine; refine anew.",
            code="NOT_RECORDED",
        )
    given = {
        "segmentation": segmentation,
        "image": image,
        "landmarks": landmarks,
        "atlases": atlases,
    }
    arguments, changed = _arguments(record, given, saved.folder)
    options, unknown = _options(saved.options)
    try:
        with kept_warnings():
            result = refine(
                arguments.pop("segmentation"), **arguments, options=options, threads=threads,
                progress=progress,
            )  # fmt: skip
    except (InvalidInputError, RefinementError) as error:
        if not changed:
            raise
        raise type(error)(f"{'; '.join(changed)}; {error}", code=error.code) from error
    return _compared(saved, result, changed, unknown)


def _arguments(
    record: dict[str, Any], given: dict[str, Any], folder: Path
) -> tuple[dict[str, Any], list[str]]:
    """Return the arguments of `refine`, and which inputs are not what they were."""
    changed: list[str] = []
    found = {name: _input(name, record.get(name), given[name], folder, changed) for name in _FILES}
    frames = record.get("frames") or []
    found["frames"] = [
        _input(f"frames[{n}]", each, None, folder, changed) for n, each in enumerate(frames)
    ]
    found["views"] = [
        _view(n, each, folder, changed) for n, each in enumerate(record.get("views") or [])
    ]
    found["probabilities"] = _input(
        "probabilities", record.get("probabilities"), None, folder, changed
    )
    found["preset"] = _meaning(record.get("preset"))
    found |= {name: record[name] for name in ("frame", "check_spacing", "spacing_mm")}
    return found, changed


def _view(number: int, said: dict[str, Any], folder: Path, changed: list[str]) -> View:
    names = ("segmentation", "image")
    labels, image = (
        _input(f"views[{number}].{name}", said[name], None, folder, changed) for name in names
    )
    return View(labels, image, _meaning(said["preset"]), said["frame"], said["name"])


def _meaning(said: Any) -> Any:
    """Return a preset, or a mapping that was recorded as pairs."""
    return dict(said) if isinstance(said, list) else said


def _input(name: str, said: Any, given: Any, folder: Path, changed: list[str]) -> Any:
    if given is not None:
        if not (isinstance(given, str | Path) and isinstance(said, dict) and DIGEST in said):
            changed.append(
                f"{name}: another one was given, which cannot be compared with the first"
            )
        elif digest_of(Path(given)) != said[DIGEST]:
            changed.append(f"{name}: {given} does not hold what the result was made from")
        return given
    if not isinstance(said, dict):
        return said
    if POINTS in said:
        return Landmarks(said[POINTS], tuple(said["names"]), said["source"])
    option = {"segmentation": "--input"}.get(name, f"--{name}")
    advice = f"give it ({name}= or {option})" if name in _FILES else "refine anew"
    if IN_MEMORY in said or PATH not in said:
        raise InvalidInputError(
            f"{folder}: {name} was in memory ({said.get(IN_MEMORY)}) and is not there any more; "
            f"{advice}.",
            code="INPUT_MISSING",
        )
    path = Path(said[PATH])
    if not path.exists():
        raise InvalidInputError(
            f"{folder}: {name} was {path}, which is not there any more; {advice}.",
            code="INPUT_MISSING",
        )
    if digest_of(path) != said[DIGEST]:
        changed.append(f"{name}: {path} was changed since")
    return path


def _options(said: dict[str, Any]) -> tuple[RefineOptions, list[str]]:
    """Return saved options, and the names of those that this version does not know."""
    kinds: dict[str, Any] = {
        "registration": RegistrationOptions,
        "slice_motion": RegistrationOptions,
        "fusion": FusionOptions,
    }
    values, unknown = {}, []
    for name, value in said.items():
        if name not in RefineOptions.__dataclass_fields__:
            unknown.append(name)
        elif name in kinds and value is not None:
            kind = kinds[name]
            known = {k: _as_tuple(v) for k, v in value.items() if k in kind.__dataclass_fields__}
            unknown += [f"{name}.{k}" for k in value if k not in kind.__dataclass_fields__]
            values[name] = kind(**known)
        else:
            values[name] = _as_tuple(value)
    return RefineOptions(**values), unknown


def _as_tuple(value: Any) -> Any:
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value


def _compared(
    saved: SavedResult, result: RefineResult, changed: list[str], unknown: list[str]
) -> Verification:
    before, now = saved.labels, result.labels
    there = same_lattice(before, now, tolerance_mm=_LARGEST_MM)
    versions = {
        name: (str(saved.provenance.get(name)), str(result.provenance[name])) for name in _VERSIONS
    }
    differences = [f"the option {name} is not known to this version" for name in unknown]
    for name in ("labels_sha256", "image_sha256", "bank_size"):
        if saved.provenance.get(name) != result.provenance.get(name):
            what = name.removesuffix("_sha256")
            differences.append(f"what was read is not what it was: {what.replace('_', ' ')}")
    apart = float(np.abs(saved.landmarks.points_mm - result.landmarks.points_mm).max())
    if apart > _LARGEST_MM:
        differences.append(f"landmarks are up to {apart:.3g} mm away from the saved ones")
    return Verification(
        folder=saved.folder,
        same_labels=there and bool(np.array_equal(before.array, now.array)),
        dice={
            name: _overlap(before.array == label, now.array == label) if there else None
            for label, name in STRUCTURES.items()
        },
        changed_inputs=tuple(changed),
        changed_versions={name: pair for name, pair in versions.items() if pair[0] != pair[1]},
        differences=tuple(differences),
        result=result,
    )


def _overlap(first: Any, second: Any) -> float | None:
    total = int(first.sum() + second.sum())
    return 2 * int((first & second).sum()) / total if total else None
