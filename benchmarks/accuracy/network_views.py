"""Long-axis views by a network that saw synthetic views alone: its labels, and models from images alone.

The contoured patient of `benchmarks.accuracy.long_axis`: the cines of the four-, three- and two-chamber
plane at 25 phases, scored with the long-axis contours of each phase. Beside the network stand those who
know the patient's short-axis contours: the model that `refine` makes of them and the shape-based
interpolation of them, cut by the plane of the view. Nothing was chosen on this patient.

Synthetic hearts that no network saw, drawn by `cardiacreg.phantoms.mr_image`, another painter than
that of the training views: the network in each view; and models from images, from the stack alone,
from the stack and three views, and from the stack and true labels of these views.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from benchmarks.accuracy import guidepoints, long_axis
from benchmarks.accuracy.guidepoints import Plane
from benchmarks.harness import machine, measuring, scoring, tabulate
from benchmarks.harness.cases import Heart, data_folder, synthetic_hearts
from benchmarks.harness.measuring import heart_key, refine_quietly, rounded
from benchmarks.harness.store import Record, Unit, gather
from benchmarks.network.network import require_torch
from benchmarks.network.network_acdc import network_digest
from benchmarks.network.network_labels import network_labels
from cardiacreg.errors import InputWarning, InvalidInputError
from cardiacreg.geometry import (
    LV_CAVITY,
    LV_WALL,
    RV_CAVITY,
    STRUCTURES,
    LabelMap,
    Subject,
    Volume,
    apply_matrix,
    nearest_labels,
)
from cardiacreg.metrics import baselines
from cardiacreg.phantoms.anatomy import heart_fields, structure_fractions
from cardiacreg.phantoms.hearts import sample_heart
from cardiacreg.phantoms.long_axis_views import VIEW_DEGREES, SimulatedView, simulate_views
from cardiacreg.phantoms.mr_image import render_image
from cardiacreg.phantoms.population import sample_shape
from cardiacreg.refinement.views import View

ALONE, TOGETHER = "network, each frame by itself", "network, all frames together"
PEER, SHAPE_BASED = "model of the short-axis contours", "shape-based"
PATIENT_METHODS = (ALONE, TOGETHER, PEER, SHAPE_BASED)
FROM_STACK, FROM_VIEWS = "images: stack", "images: stack and views"
FROM_TRUE_VIEWS = "image of the stack, true labels of views"
MODELS = (FROM_STACK, FROM_VIEWS, FROM_TRUE_VIEWS)
KINDS = {7: "four-chamber", 8: "three-chamber", 9: "two-chamber"}
"""The patient's long-axis planes that show the LV."""
_ALL = "all views"
_WEIGHTS, _STACK_WEIGHTS = "unet2d_views", "unet2d_synthetic"
_STRUCTURES = (LV_CAVITY, LV_WALL, RV_CAVITY)
_HEARTS, _QUICK_PHASES = 12, (0, 9)
_IN_PLANE_MM = 0.5
_WIDER_MM, _HIGHER_MM = 50.0, 60.0


def run(quick: bool, cases: int = _HEARTS) -> dict[str, Any]:
    """Measure the contoured patient and some synthetic hearts; a quick run two phases and one heart."""
    require_torch()
    phases = _QUICK_PHASES if quick else guidepoints.PHASES
    patient = long_axis.present(
        "bivme", lambda: [_patient_unit(m, phases) for m in PATIENT_METHODS]
    )
    hearts = synthetic_hearts(1 if quick else cases)
    of_views = [_heart_unit(heart, ALONE) for heart in hearts]
    of_models = [_heart_unit(heart, method) for heart in hearts for method in MODELS]
    records = gather("network_views", [*patient, *of_views, *of_models])
    known = [record for record in records if "error" not in record]
    return {
        "patient": [r for r in known if r["case"] == "bivme"],
        "views": [r for r in known if r["case"] != "bivme" and r["method"] == ALONE],
        "records": [r for r in records if r["case"] != "bivme" and r["method"] != ALONE],
    }


def _code() -> str:
    """Digest of what makes a prediction of a view."""
    text = (machine.ROOT / "cardiacreg_nn" / "inference" / "view_prediction.py").read_bytes()
    return hashlib.sha256(text + network_digest().encode()).hexdigest()


def _digest(weights: str) -> str:
    from cardiacreg_nn.inference.shipped_weights import weight_path
    from cardiacreg_nn.inference.weights import read_card

    return str(read_card(weight_path(weights).with_suffix(".json"))["sha256"])


def _patient_unit(method: str, phases: tuple[int, ...]) -> Unit:
    key: Record = {"case": "bivme", "method": method, "phases": list(phases)}
    if method in (ALONE, TOGETHER):
        key |= {"sha256": _digest(_WEIGHTS), "code": _code()}
    return Unit(key, lambda: rounded(key | {"found": _patient(method, phases)}))


def _patient(method: str, phases: tuple[int, ...]) -> list[Record]:
    """Dice in every view and phase."""
    read, planes = long_axis.read_patient(phases)
    truths = [phase.long_axis_labels() for phase in read]
    found: list[dict[int, LabelMap]]
    if method in (ALONE, TOGETHER):
        by_plane = {n: _seen(n, planes[n], phases, together=method == TOGETHER) for n in KINDS}
        found = [{n: by_plane[n][at] for n in KINDS} for at in range(len(phases))]
    else:
        frames = long_axis.stacks(read, planes)
        ours = long_axis.OURS if method == PEER else SHAPE_BASED
        found = [dict.fromkeys(KINDS, model) for model in long_axis.models(frames, ours)]
    return [
        {"phase": phase.number, "view": kind, "dice": _dice(own[n], true[n])}
        for phase, own, true in zip(read, found, truths, strict=True)
        for n, kind in KINDS.items()
    ]


def _seen(number: int, plane: Plane, phases: tuple[int, ...], *, together: bool) -> list[LabelMap]:
    """What the network finds in the cine of a plane."""
    from cardiacreg_nn import load_model, predict_view, predict_view_cine

    array, matrix = _cine_of(number, plane)
    model = load_model(_WEIGHTS, "cpu")
    if together:
        every = predict_view_cine((array, matrix), weights=model)
        return [every[n].labels for n in phases]
    return [_or_empty(predict_view, (array[..., n], matrix), model) for n in phases]


def _or_empty(predict_view: Any, image: Any, model: Any) -> LabelMap:
    """Labels of a view; none where no heart is found."""
    try:
        labels: LabelMap = predict_view(image, weights=model).labels
    except InvalidInputError as error:
        if error.code != "NO_HEART":
            raise
        shape = image.shape if isinstance(image, Volume) else image[0].shape
        matrix = image.voxel_to_world if isinstance(image, Volume) else image[1]
        return LabelMap(np.zeros(shape, dtype=np.uint8), matrix)
    return labels


@lru_cache(maxsize=1)
def _cines() -> list[Any]:
    from cardiacreg.doors.dicom_cine import read_dicom_cine

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        return [s for s in read_dicom_cine(data_folder("bivme") / "dicom") if s.array.shape[2] == 1]


def _cine_of(number: int, plane: Plane) -> tuple[Any, Any]:
    """The cine that was acquired in a plane: its corners lie there."""
    corners = [[0.0, 0.0], [200.0, 0.0], [0.0, 200.0]] @ plane.steps_mm + plane.origin_mm
    for cine in _cines():
        matrix = cine.voxel_to_world
        off = apply_matrix(np.linalg.inv(matrix), corners)[:, 2] * np.linalg.norm(matrix[:3, 2])
        if np.abs(off).max() < _IN_PLANE_MM:
            return cine.array, matrix
    raise ValueError(f"no cine lies in plane {number} of the contours")


def _dice(found: LabelMap, truth: LabelMap) -> dict[str, float | None]:
    """Dice at the pixels of a truth, of structures that it shows."""
    axes = (np.arange(n, dtype=np.float64) for n in truth.shape)
    to_found = np.linalg.inv(found.voxel_to_world) @ truth.voxel_to_world
    at = apply_matrix(to_found, np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1))
    if found.shape[2] == 1:
        at[..., 2] = 0.0
    own, true = nearest_labels(found, at), truth.array
    return {
        STRUCTURES[n]: float(
            2 * ((own == n) & (true == n)).sum() / ((own == n).sum() + (true == n).sum())
        )
        if (true == n).any()
        else None
        for n in _STRUCTURES
    }


def _heart_unit(heart: Heart, method: str) -> Unit:
    key = heart_key(heart, method) | {"stack_sha256": _digest(_STACK_WEIGHTS)}
    if method in (ALONE, FROM_VIEWS):
        key |= {"sha256": _digest(_WEIGHTS), "code": _code()}
    measure = _of_views if method == ALONE else _of_models
    return Unit(key, lambda: rounded(key | measure(heart, method)))


def _of_views(heart: Heart, method: str) -> Record:
    return {
        "found": [
            {"view": view.name.replace("_", "-"), "dice": _dice(found, view.subject.labels)}
            for view, found in zip(_views(heart), _view_labels(heart), strict=True)
        ]
    }


def _of_models(heart: Heart, method: str) -> Record:
    from cardiacreg_nn import as_view
    from cardiacreg_nn.inference.shipped_weights import weight_path

    case = heart.case()
    stack = network_labels(heart, str(weight_path(_STACK_WEIGHTS)))
    given: Sequence[LabelMap | View] = ()
    if method == FROM_VIEWS:
        given = [as_view(Subject(labels)) for labels in _view_labels(heart) if labels.array.any()]
    elif method == FROM_TRUE_VIEWS:
        given = [view.subject.labels for view in _views(heart)]
    model = refine_quietly(
        stack.labels, landmarks=stack.landmarks, probabilities=stack.metadata["probabilities"],
        views=given, threads=1,
    )  # fmt: skip
    found = baselines.interpolate_nearest(model.labels, case.truth)
    seconds = model.timings_seconds["total"]
    return measuring.scored(case, method, found, seconds, score=scoring.raw_dice)


@lru_cache(maxsize=1)
def _view_labels(heart: Heart) -> list[LabelMap]:
    from cardiacreg_nn import load_model, predict_view

    model = load_model(_WEIGHTS, "cpu")
    return [_or_empty(predict_view, view.subject.image, model) for view in _views(heart)]


@lru_cache(maxsize=1)
def _views(heart: Heart) -> list[SimulatedView]:
    """The views of a heart that is drawn far into its surroundings, beyond the base too."""
    truth = sample_heart(heart.seed, group=heart.group, phase=heart.phase, with_image=False).labels
    wide, high = (int(mm / truth.spacing_mm[n]) for mm, n in ((_WIDER_MM, 0), (_HIGHER_MM, 2)))
    matrix = truth.voxel_to_world.copy()
    matrix[:3, 3] -= matrix[:3, :3] @ np.array([wide, wide, 0.0])
    array = np.pad(truth.array, ((wide, wide), (wide, wide), (0, high)))
    axes = tuple(
        matrix[n, 3] + matrix[n, n] * np.arange(size) for n, size in enumerate(array.shape)
    )
    shape = sample_shape(heart.seed, phase=heart.phase, group=heart.group)
    fields = heart_fields(shape, axes)
    fractions = structure_fractions(fields, shape.rv_wall_mm, float(truth.spacing_mm[:2].mean()))
    image = render_image(fields, fractions, axes, np.random.default_rng([heart.seed, 23]))
    subject = Subject(LabelMap(array, matrix), image=Volume(image, matrix))
    return simulate_views(subject, seed=heart.seed)


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return Dice by view of the patient and of synthetic hearts, worst cases, and models."""
    found: dict[str, str] = {}
    if result["patient"]:
        found["network-views-patient"] = _patient_table(result["patient"])
        found["network-views-worst"] = _worst_table(result["patient"])
    if result["views"]:
        found["network-views-hearts"] = _hearts_table(result["views"])
    if result["records"]:
        found["network-views-models"] = tabulate.figure_table(result["records"], "dice")
        found["network-views-gain"] = tabulate.comparison_table(
            result["records"], FROM_VIEWS, [FROM_STACK, FROM_TRUE_VIEWS], alignment="raw"
        )
    return found


def _patient_table(records: Sequence[Record]) -> str:
    rows = []
    for kind in (*KINDS.values(), _ALL):
        for record in records:
            own = [each["dice"] for each in record["found"] if kind in (each["view"], _ALL)]
            rows.append([kind, record["method"], *_cells(own)])
    return tabulate.markdown(["view", "labels from", *_names()], rows)


def _worst_table(records: Sequence[Record]) -> str:
    """The three worst phases by the LV cavity of every method."""
    rows = []
    for record in records:
        worst = sorted(record["found"], key=lambda each: each["dice"][STRUCTURES[LV_CAVITY]])[:3]
        rows += [
            [record["method"], each["view"], str(each["phase"]), *_cells([each["dice"]])]
            for each in worst
        ]
    return tabulate.markdown(["labels from", "view", "phase", *_names()], rows)


def _hearts_table(records: Sequence[Record]) -> str:
    every = [f for record in records for f in record["found"]]
    kinds = [name.replace("_", "-") for name in VIEW_DEGREES]
    rows = [
        [kind, *_cells(own), f"{min(_cavity(each) for each in own):.3f}"]
        for kind in kinds
        for own in [[f["dice"] for f in every if f["view"] == kind]]
    ]
    return tabulate.markdown(["view", *_names(), "worst LV cavity"], rows)


def _cavity(dice: dict[str, float | None]) -> float:
    return dice[STRUCTURES[LV_CAVITY]] or 0.0


def _names() -> list[str]:
    return [STRUCTURES[n] for n in _STRUCTURES]


def _cells(dice: Sequence[dict[str, float | None]]) -> list[str]:
    cells = []
    for name in _names():
        known = [each[name] for each in dice if each[name] is not None]
        cells.append(
            tabulate.mean_sd(known) if len(known) > 1 else f"{known[0]:.3f}" if known else "–"
        )
    return cells
