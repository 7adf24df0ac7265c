"""Hearts to train on: synthetic ones, ACDC, and high-resolution anatomies, all in the network's box.

Every heart is turned so that the base is at the last slice and the RV towards low i, laid on a canvas
larger than the network's box, and stored as bytes. Landmarks are derived from the labels by
`cardiacreg`'s own rule, whatever the origin of the labels.
"""

from __future__ import annotations

import csv
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cardiacreg.anatomy.label_presets import canonical_labels
from cardiacreg.anatomy.landmarks import base_is_at_last_slice, derive_landmarks
from cardiacreg.errors import InputWarning, InvalidInputError
from cardiacreg.geometry import LabelMap, Volume
from cardiacreg.io.nifti import read_labels, read_volume
from cardiacreg.phantoms.anatomy import heart_fields, structure_fractions
from cardiacreg.phantoms.mr_image import render_image
from cardiacreg.phantoms.population import GROUPS, PHASES, sample_shape
from cardiacreg_nn.data.augmentation import Sources
from cardiacreg_nn.data.tissue_map import make_tissue_map, whole_slices
from cardiacreg_nn.inference.preprocessing import (
    NetworkBox,
    Placement,
    acquired,
    place,
    rescale,
    sample_image,
    sample_labels,
    sub_stacks,
    turns,
)

CANVAS_MARGIN = 32
_FINE_MM = (1.75, 1.75, 2.5)
_FINE_SHAPE = (112, 112, 60)
_LEVELS = np.array([0.35, 0.85, 0.33, 0.33, 0.85])
_ALL_KNOWN = (True,) * 5
_FEWEST_SLICES = 3


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """One heart on its canvas.

    Parameters
    ----------
    image, labels : ndarray of uint8, shape (D, H, W)
        The image's 0 to 1 as 0 to 255, empty for hearts that views are cut from and painted; canonical
        labels.
    spacing_mm : ndarray, shape (3,)
        Along (k, i, j).
    landmarks_mm : ndarray, shape (6, 3)
        Along (k, i, j) from the canvas' centre.
    known : tuple of bool
        Which labels are told apart.
    fine : bool
        High resolution, to be degraded and recoloured.
    extent : tuple of two int
        First and last slice that were acquired, or that show the heart.
    name, group, phase : str
    tissues : ndarray of uint8, shape (D, H, W), or None
        Positions in `cardiacreg_nn.data.tissue_map.TISSUES`; synthetic hearts only.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    spacing_mm: NDArray[np.float64]
    landmarks_mm: NDArray[np.float64]
    known: tuple[bool, ...]
    fine: bool
    extent: tuple[int, int]
    name: str = ""
    group: str = ""
    phase: str = ""
    tissues: NDArray[np.uint8] | None = None


def collate(
    sources: Sequence[Source],
    device: torch.device | str = "cpu",
    held: dict[tuple[Source, str], torch.Tensor] | None = None,
) -> Sources:
    """Stack hearts into one batch, padded to the largest canvas at the end of each axis.

    What is in `held` is on the device already; what is not is put there, so that a heart travels once.
    """
    held = {} if held is None else held
    largest = np.max([s.image.shape for s in sources], axis=0).tolist()

    def stack(name: str) -> torch.Tensor:
        padded = torch.zeros((len(sources), *largest), dtype=torch.uint8, device=device)
        for row, source in zip(padded, sources, strict=True):
            array = getattr(source, name)
            if array is None:
                continue
            if (source, name) not in held:
                held[source, name] = torch.from_numpy(array).to(device)
            row[: array.shape[0], : array.shape[1], : array.shape[2]] = held[source, name]
        return padded

    def numbers(values: Iterable[Any], dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.as_tensor(np.array(list(values)), dtype=dtype).to(device)

    return Sources(
        stack("image").float() / 255,
        stack("labels"),
        numbers(s.spacing_mm for s in sources),
        numbers((np.array(s.image.shape) - 1) / 2 for s in sources),
        numbers(s.landmarks_mm for s in sources),
        numbers((s.known for s in sources), torch.bool),
        numbers((s.fine for s in sources), torch.bool),
        numbers(s.extent for s in sources),
        stack("tissues") if any(s.tissues is not None for s in sources) else None,
    )


def heart_turn(labels: LabelMap, points_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the rotation by right angles after which the base is last and the RV at low i.

    Parameters
    ----------
    labels : LabelMap
    points_mm : ndarray, shape (6, 3)
        Its landmarks in world mm.
    """
    spacing = labels.spacing_mm
    matrix = labels.voxel_to_world[:3, :3]
    up = np.linalg.solve(matrix, points_mm[5] - points_mm[4]) * spacing
    across = np.linalg.solve(matrix, points_mm[3] - points_mm[1]) * spacing
    flip = np.diag([1.0, 1.0, -1.0 if np.linalg.det(matrix) < 0 else 1.0])
    scores = []
    for turn in turns():
        box_up, box_across = turn.T @ flip @ up, turn.T @ flip @ across
        scores.append(1000 * np.sign(box_up[2]) + box_across[0])
    return turns()[int(np.argmax(scores))]


def source_from_pair(
    image: Volume,
    labels: LabelMap,
    box: NetworkBox,
    known: tuple[bool, ...] = _ALL_KNOWN,
    *,
    base_at_last_slice: bool | None = None,
    **about: Any,
) -> Source:
    """Lay an acquired stack and its labels on a canvas.

    Parameters
    ----------
    image : Volume
    labels : LabelMap
        Canonical, on the image's lattice, the LV in at least 3 slices.
    box : NetworkBox
        Of the network; the canvas is larger by 32 voxels in plane.
    known : tuple of bool
        Which labels the data set tells apart.
    base_at_last_slice : bool, optional
        Told by the labels when absent.
    **about : str
        ``name``, ``group``, ``phase``.
    """
    if image.shape != labels.shape:
        raise InvalidInputError(
            f"source_from_pair: image {image.shape} and labels {labels.shape}; needs one lattice.",
            code="GRID_MISMATCH",
        )
    points = derive_landmarks(labels, base_at_last_slice=base_at_last_slice).points_mm
    canvas = replace(
        box,
        shape=(box.shape[0] + CANVAS_MARGIN, box.shape[1] + CANVAS_MARGIN, box.shape[2]),
    )
    centre = np.argwhere(labels.array).mean(axis=0)
    centre[2] = (labels.shape[2] - 1) / 2
    placement = place(
        labels.shape, labels.voxel_to_world, canvas, centre=centre, turn=heart_turn(labels, points)
    )
    inside = acquired(placement)
    values = rescale(sample_image(image.array, placement), inside)
    held = np.flatnonzero(inside.any(axis=(1, 2)))
    spacing = _canvas_spacing(placement, labels)
    return Source(
        np.rint(255 * values).astype(np.uint8),
        sample_labels(labels.array, placement),
        spacing,
        _points_from_centre(points, labels, placement, spacing),
        known,
        False,
        (int(held[0]), int(held[-1])),
        **about,
    )


def sources_from_stack(
    image: Volume,
    labels: LabelMap,
    box: NetworkBox,
    known: tuple[bool, ...] = _ALL_KNOWN,
    **about: Any,
) -> list[Source]:
    """Lay a stack on canvases as `predict` looks at it: a fine one as interleaved parts.

    Parameters
    ----------
    image, labels, box, known, **about
        As for `source_from_pair`.

    Returns
    -------
    list of Source
        One of a usual stack. Parts that show the LV in fewer than 3 slices are left out.
    """
    distance = float(labels.spacing_mm[2])
    parts = sub_stacks(labels.shape[2], distance, box)
    if len(parts) == 1:
        return [source_from_pair(image, labels, box, known, **about)]
    found, base = [], base_is_at_last_slice(labels)  # a part may lack an end
    for slices in parts:
        left = np.isin(labels.array[:, :, slices], (1, 2)).any(axis=(0, 1))
        if left.sum() < _FEWEST_SLICES:
            continue
        matrix = np.array(labels.voxel_to_world)
        matrix[:3, 3] += matrix[:3, 2] * slices[0]
        matrix[:3, 2] *= slices.step
        own = replace(box, spacing_mm=(*box.spacing_mm[:2], distance * slices.step))
        pair = (
            Volume(image.array[:, :, slices], matrix),
            LabelMap(labels.array[:, :, slices], matrix),
        )
        found.append(source_from_pair(*pair, own, known, base_at_last_slice=base, **about))
    return found


def _canvas_spacing(placement: Placement, labels: LabelMap) -> NDArray[np.float64]:
    box = np.linalg.norm(labels.spacing_mm[:, None] * placement.to_native[:3, :3], axis=0)
    return np.asarray(box[[2, 0, 1]])


def _points_from_centre(
    points_mm: NDArray[np.float64],
    labels: LabelMap,
    placement: Placement,
    spacing_mm: NDArray[np.float64],
) -> NDArray[np.float64]:
    inverse = np.linalg.inv(labels.voxel_to_world)
    native = points_mm @ inverse[:3, :3].T + inverse[:3, 3]
    box = placement.points_to_box(native) - (np.array(placement.box.shape) - 1) / 2
    return np.asarray(box[:, [2, 0, 1]] * spacing_mm)


def acdc_sources(folder: Path | str, patients: Iterable[int], box: NetworkBox) -> list[Source]:
    """Read both labelled frames of ACDC patients; the RV wall is not labelled there.

    Parameters
    ----------
    folder : path-like
        Holds ``patientNNN/patientNNN_frameFF.nii.gz``, ``..._gt.nii.gz`` and ``index.csv``.
    patients : iterable of int
    box : NetworkBox
    """
    wanted, found = set(patients), []
    for row in _rows(Path(folder)):
        if int(row["file"][7:10]) not in wanted:
            continue
        path = Path(folder) / row["file"]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InputWarning)
            image = read_volume(path)
            stored = read_labels(str(path).replace(".nii.gz", "_gt.nii.gz"))
        labels = canonical_labels(LabelMap(stored.array, image.voxel_to_world), "acdc")
        found += sources_from_stack(
            image,
            labels,
            box,
            (True, True, True, False, True),
            name=path.name.removesuffix(".nii.gz"),
            group=row["group"],
            phase="ED" if int(path.name[16:18]) == int(row["ED"]) else "ES",
        )
    return found


def _rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "index.csv").open(encoding="utf-8") as table:
        return list(csv.DictReader(table))


def acdc_folds(folder: Path | str, n_folds: int = 5, seed: int = 0) -> list[list[int]]:
    """Split the patients into folds, stratified by diagnosis; the same for the same seed."""
    groups: dict[str, list[int]] = {}
    for row in _rows(Path(folder)):
        groups.setdefault(row["group"], []).append(int(row["file"][7:10]))
    folds: list[list[int]] = [[] for _ in range(n_folds)]
    rng = np.random.default_rng(seed)
    for name in sorted(groups):
        for position, patient in enumerate(rng.permutation(sorted(set(groups[name])))):
            folds[position % n_folds].append(int(patient))
    return [sorted(fold) for fold in folds]


def synthetic_source(seed: int, *, whole: bool = False) -> Source:
    """Make one synthetic heart with its surroundings; the seed decides group and phase too.

    Where `whole`, its base is labelled in whole slices, as people do.
    """
    rng = np.random.default_rng([seed, 5])
    group = sorted(GROUPS)[int(rng.integers(len(GROUPS)))]
    phase = PHASES[int(rng.integers(2))]
    shape = sample_shape(seed, phase=phase, group=group)
    low = np.array([-95.0, -85.0, -118.0]) + rng.uniform(-8, 8, 3)
    x, y, z = (
        start + np.arange(n) * step
        for start, n, step in zip(low, _FINE_SHAPE, _FINE_MM, strict=True)
    )
    axes = (x, y, z)
    fields = heart_fields(shape, axes)
    fractions = structure_fractions(fields, shape.rv_wall_mm, _FINE_MM[0])
    image = render_image(fields, fractions, axes, rng)
    shares = np.stack([fractions[n] for n in ("lv_cavity", "lv_wall", "rv_wall", "rv_cavity")])
    winner = np.concatenate([1 - shares.sum(axis=0, keepdims=True), shares]).argmax(axis=0)
    array = winner.astype(np.uint8)
    array = whole_slices(array, fields) if whole else array
    tissues = make_tissue_map(shape, fields, array, axes, np.random.default_rng([seed, 7]))
    matrix = np.diag([*_FINE_MM, 1.0])
    matrix[:3, 3] = low
    labels = LabelMap(array, matrix)
    source = _fine_source(image, labels, name=f"synthetic_{seed:05d}", group=group, phase=phase)
    return replace(source, tissues=np.ascontiguousarray(np.moveaxis(tissues, 2, 0)))


def anatomy_source(labels: LabelMap, seed: int, **about: Any) -> Source:
    """Make a source of high-resolution labels without an image: levels by tissue, and texture."""
    rng = np.random.default_rng([seed, 6])
    low = labels.voxel_to_world[:3, 3]
    middle = low + labels.spacing_mm * (np.array(labels.shape) - 1) / 2
    target = np.diag([*_FINE_MM, 1.0])
    target[:3, 3] = middle - np.array(_FINE_MM) * (np.array(_FINE_SHAPE) - 1) / 2
    to_native = np.asarray(np.linalg.inv(labels.voxel_to_world) @ target, dtype=np.float64)
    placement = Placement(to_native, labels.shape, NetworkBox(_FINE_SHAPE))
    box = np.moveaxis(sample_labels(labels.array, placement), 0, 2)
    image = 255 * (_LEVELS[box] + 0.04 * rng.standard_normal(box.shape))
    return _fine_source(image.astype(np.float32), LabelMap(box, target), **about)


def _fine_source(image: NDArray[np.float32], labels: LabelMap, **about: Any) -> Source:
    low, high = np.percentile(image, (1, 99))
    scaled = np.clip((image - low) / (high - low), 0, 1)
    spacing = np.array(_FINE_MM)[[2, 0, 1]]
    points = derive_landmarks(labels, base_at_last_slice=True).points_mm
    middle = labels.voxel_to_world[:3, 3] + labels.spacing_mm * (np.array(labels.shape) - 1) / 2
    held = np.flatnonzero(labels.array.any(axis=(0, 1)))
    return Source(
        np.ascontiguousarray(np.moveaxis(np.rint(255 * scaled).astype(np.uint8), 2, 0)),
        np.ascontiguousarray(np.moveaxis(labels.array, 2, 0)),
        spacing,
        (points - middle)[:, [2, 0, 1]],
        _ALL_KNOWN,
        True,
        (int(held[0]), int(held[-1])),
        **about,
    )


def anatomy_sources(folder: Path | str, names: Iterable[str]) -> list[Source]:
    """Read high-resolution label maps (x from RV to LV, y anterior to inferior, z apex to base)."""
    return [
        anatomy_source(read_labels(Path(folder) / f"{name}.nii.gz"), number, name=name, phase="ED")
        for number, name in enumerate(names)
    ]
