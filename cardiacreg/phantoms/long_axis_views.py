"""Long-axis views of a high-resolution heart, as they are acquired beside a short-axis stack.

A view is one thick slice along the LV's axis: the four-chamber plane holds the axis and the centre of the
RV, the two- and the three-chamber planes are turned from it around the axis, by 60 and 120 degrees from
the RV towards its inferior insertion. It is planned a few degrees and millimetres off, moved in its plane
by its own breath-hold, and labelled by the largest share in each pixel. Long-axis label sets hold no RV
wall: it is background there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from cardiacreg.anatomy.landmarks import derive_landmarks
from cardiacreg.arrays import Float
from cardiacreg.errors import (
    InvalidInputError,
    check_argument,
    check_arguments,
    check_option_kinds,
)
from cardiacreg.geometry import (
    RV_CAVITY,
    RV_WALL,
    LabelMap,
    Subject,
    Volume,
    apply_matrix,
)
from cardiacreg.phantoms.population import check_seed

VIEW_DEGREES: dict[str, float] = {
    "four_chamber": 0.0,
    "two_chamber": 60.0,
    "three_chamber": 120.0,
}
"""Around the LV's axis, from the centre of the RV towards its inferior insertion."""
_LAYER_MM, _MARGIN_MM = 2.0, 25.0


class ViewAxes(NamedTuple):
    """Where a view is planned: a point of it and two perpendicular unit vectors, world mm."""

    through_mm: Float
    first: Float
    """Along the LV's axis, from apex to base."""
    second: Float


@dataclass(frozen=True, slots=True, eq=False)
class SimulatedView:
    """A simulated long-axis view and how it moved.

    Parameters
    ----------
    name : str
    subject : Subject
        One slice: labels, and the image if there was one.
    shift_mm : ndarray, shape (3,)
        Correction along the view's axes (i, j, normal): **true = stored position + shift_mm**.
    """

    name: str
    subject: Subject
    shift_mm: Float


@dataclass(frozen=True, slots=True)
class ViewAcquisition:
    """How long-axis views are acquired.

    Parameters
    ----------
    thickness_mm : float
        Of the slice.
    pixel_mm : float
    shift_sd_mm : float
        Standard deviation of a view's shift along each of its in-plane axes.
    through_plane_sd_mm : float
        The same across it.
    angle_sd_degrees, offset_sd_mm : float
        Of the planning: a turn about each of the view's axes, and a move across the plane.
    draw_rv_wall : bool
        Whether the views' labels hold the RV wall.
    """

    thickness_mm: float = 8.0
    pixel_mm: float = 1.5
    shift_sd_mm: float = 1.35
    through_plane_sd_mm: float = 0.0
    angle_sd_degrees: float = 5.0
    offset_sd_mm: float = 2.0
    draw_rv_wall: bool = False

    def __post_init__(self) -> None:
        check_option_kinds(self)
        sizes = (self.thickness_mm, self.pixel_mm)
        spreads = (
            self.shift_sd_mm, self.through_plane_sd_mm, self.angle_sd_degrees, self.offset_sd_mm,
        )  # fmt: skip
        if min(sizes) <= 0 or min(spreads) < 0:
            raise InvalidInputError(
                f"{self}: needs a positive thickness and pixel, and no negative standard deviation.",
                code="BAD_OPTION",
            )


def simulate_views(
    heart: Subject,
    names: Sequence[str] = tuple(VIEW_DEGREES),
    *,
    seed: int,
    acquisition: ViewAcquisition | None = None,
) -> list[SimulatedView]:
    """Acquire long-axis views of a high-resolution heart.

    Parameters
    ----------
    heart : Subject
        Labels and, optionally, an image on the same lattice.
    names : sequence of str
        Of ``"four_chamber"``, ``"two_chamber"`` and ``"three_chamber"``.
    seed : int
        Seed of planning and motion; a view is the same whichever others are asked for.
    acquisition : ViewAcquisition, optional

    Returns
    -------
    list of SimulatedView

    Raises
    ------
    InvalidInputError
        If a name is unknown (BAD_OPTION), or the labels show no LV.

    Examples
    --------
    >>> from cardiacreg.phantoms.hearts import sample_heart
    >>> from cardiacreg.phantoms.long_axis_views import simulate_views
    >>> heart = sample_heart(10_000, with_image=False, spacing_mm=(2.5, 2.5, 4.0))
    >>> (view,) = simulate_views(heart, ["two_chamber"], seed=1)
    >>> view.subject.labels.shape[2], view.subject.labels.present()
    (1, (1, 2, 4))
    """
    return simulate_view_frames([heart], names, seed=seed, acquisition=acquisition)[0]


def simulate_view_frames(
    hearts: Sequence[Subject],
    names: Sequence[str] = tuple(VIEW_DEGREES),
    *,
    seed: int,
    acquisition: ViewAcquisition | None = None,
) -> list[list[SimulatedView]]:
    """Acquire long-axis views of a beating heart: each view shows all frames in one breath-hold.

    Parameters
    ----------
    hearts : sequence of Subject
        The frames, all on one lattice. Views are planned on the first.
    names, seed, acquisition
        As for `simulate_views`.

    Returns
    -------
    list of list of SimulatedView
        The views of every frame; each view has the same lattice and shift in all.

    Raises
    ------
    InvalidInputError
        As `simulate_views`.
    """
    check_arguments(hearts, Subject, "simulate_views: a heart")
    check_arguments(names, str, "simulate_views: names")
    check_argument(acquisition, (ViewAcquisition, type(None)), "simulate_views: acquisition")
    check_seed(seed, "simulate_views")
    how = acquisition or ViewAcquisition()
    unknown = sorted(set(names) - set(VIEW_DEGREES))
    if unknown:
        raise InvalidInputError(
            f"simulate_views: {', '.join(unknown)}; needs names of {', '.join(VIEW_DEGREES)}.",
            code="BAD_OPTION",
        )
    planned = plan_views(hearts[0].labels)
    views = [
        _acquire(hearts, name, planned[name], how, np.random.default_rng([seed, 17, _number(name)]))
        for name in names
    ]
    return [[view[n] for view in views] for n in range(len(hearts))]


def _number(name: str) -> int:
    return list(VIEW_DEGREES).index(name)


def plan_views(labels: LabelMap) -> dict[str, ViewAxes]:
    """Return where the long-axis views of a whole heart lie, without errors of planning.

    Parameters
    ----------
    labels : LabelMap
        Canonical labels of a whole heart.

    Returns
    -------
    dict of str to ViewAxes
    """
    points = derive_landmarks(labels).points_mm
    axis = _unit(points[5] - points[4])
    right = np.argwhere(np.isin(labels.array, (RV_CAVITY, RV_WALL))).mean(axis=0)
    towards = apply_matrix(labels.voxel_to_world, right[None])[0] - points[4]
    lateral = _unit(towards - (towards @ axis) * axis)
    anterior = np.cross(axis, lateral)
    middle = points[4:].mean(axis=0)
    angles = {name: np.radians(degrees) for name, degrees in VIEW_DEGREES.items()}
    return {
        name: ViewAxes(middle, axis, np.cos(angle) * lateral - np.sin(angle) * anterior)
        for name, angle in angles.items()
    }


def _unit(vector: Float) -> Float:
    return np.asarray(vector / np.linalg.norm(vector))


def _acquire(
    hearts: Sequence[Subject],
    name: str,
    planned: ViewAxes,
    how: ViewAcquisition,
    rng: np.random.Generator,
) -> list[SimulatedView]:
    """One view of all frames."""
    axes = np.stack([planned.first, planned.second, np.cross(planned.first, planned.second)])
    axes = _turned(axes, np.radians(rng.normal(0.0, abs(how.angle_sd_degrees), size=3)))
    through = planned.through_mm + rng.normal(0.0, abs(how.offset_sd_mm)) * axes[2]
    shift = rng.normal(size=3) * [how.shift_sd_mm, how.shift_sd_mm, how.through_plane_sd_mm]
    anywhere = np.max([heart.labels.array for heart in hearts], axis=0)
    matrix, shape = _lattice(
        LabelMap(anywhere, hearts[0].labels.voxel_to_world), through, axes, how
    )
    return [_seen(heart, name, matrix, shape, shift, how) for heart in hearts]


def _seen(
    heart: Subject,
    name: str,
    matrix: Float,
    shape: tuple[int, int],
    shift: Float,
    how: ViewAcquisition,
) -> SimulatedView:
    """What a view shows of one frame."""
    shares = _shares(heart.labels, matrix, shape, shift, how)
    labels = LabelMap(_largest(shares, how.draw_rv_wall)[..., None], matrix)
    image = None
    if heart.image is not None:
        seen = _mean(heart.image.array, heart.image.voxel_to_world, matrix, shape, shift, how)
        image = Volume(seen[..., None].astype(np.float32), matrix)
    subject = replace(heart, labels=labels, image=image, landmarks=None, name=name)
    return SimulatedView(name, subject, shift)


def _turned(axes: Float, radians: Float) -> Float:
    """Turn three axes (rows) about each of themselves in turn."""
    turn = np.eye(3)
    for axis, angle in enumerate(radians):
        first, second = (n for n in range(3) if n != axis)
        one = np.eye(3)
        one[first, first] = one[second, second] = np.cos(angle)
        one[first, second], one[second, first] = -np.sin(angle), np.sin(angle)
        turn = turn @ one
    return turn @ axes


def _lattice(
    labels: LabelMap, through_mm: Float, axes: Float, how: ViewAcquisition
) -> tuple[Float, tuple[int, int]]:
    """Lay a plane over all labels and a margin."""
    held = apply_matrix(labels.voxel_to_world, np.argwhere(labels.array > 0).astype(float))
    along = (held - through_mm) @ axes[:2].T
    low = along.min(axis=0) - _MARGIN_MM
    counts = np.ceil((along.max(axis=0) + _MARGIN_MM - low) / how.pixel_mm).astype(int) + 1
    matrix = np.eye(4)
    matrix[:3, :3] = axes.T * [how.pixel_mm, how.pixel_mm, how.thickness_mm]
    matrix[:3, 3] = through_mm + low @ axes[:2]
    return matrix, (int(counts[0]), int(counts[1]))


def _shares(
    labels: LabelMap, matrix: Float, shape: tuple[int, int], shift_mm: Float, how: ViewAcquisition
) -> Float:
    """Share of every label in every pixel, shape (labels, i, j)."""
    return np.stack(
        [
            _mean((labels.array == value).astype(np.float32), labels.voxel_to_world, matrix, shape,
                  shift_mm, how)
            for value in range(5)
        ]
    )  # fmt: skip


def _mean(
    array: NDArray[np.float32],
    voxel_to_world: Float,
    matrix: Float,
    shape: tuple[int, int],
    shift_mm: Float,
    how: ViewAcquisition,
) -> Float:
    """Mean over the thickness of a slice where it truly lies."""
    count = int(np.ceil(how.thickness_mm / _LAYER_MM))
    heights = (np.arange(count) - 0.5 * (count - 1)) / count
    axes = matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0)
    moved = matrix.copy()
    moved[:3, 3] += axes @ shift_mm
    to_voxel = np.linalg.inv(voxel_to_world) @ moved
    i, j = np.meshgrid(*(np.arange(n, dtype=float) for n in shape), indexing="ij")
    total = np.zeros(shape)
    for height in heights:
        at = apply_matrix(
            to_voxel, np.stack([i, j, np.full(shape, height)], axis=-1).reshape(-1, 3)
        )
        total += map_coordinates(array, at.T, order=1, mode="nearest").reshape(shape)
    return total / count


def _largest(shares: Float, draw_rv_wall: bool) -> NDArray[np.uint8]:
    """Label of the largest share; the RV wall counts as background where it is not drawn."""
    if not draw_rv_wall:
        shares = shares.copy()
        shares[0] += shares[RV_WALL]
        shares[RV_WALL] = -1.0
    return np.asarray(shares.argmax(axis=0).astype(np.uint8))
