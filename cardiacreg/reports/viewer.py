"""The interactive view of surfaces: a snapshot of k3d in one document, and what its controls need.

k3d (MIT, extra ``report``) brings the viewer along; nothing is fetched. Our own controls stand beside it
in the page, so that they can be labelled and used by keyboard.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import distribution
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from skimage.measure import find_contours

from cardiacreg.arrays import Float
from cardiacreg.errors import kept_warnings
from cardiacreg.geometry import LV_CAVITY, LV_WALL, RV_CAVITY, RV_WALL, LabelMap, apply_matrix
from cardiacreg.reports.case import Case, Refined
from cardiacreg.results.qc_figure import COLOURS
from cardiacreg.results.qc_views import HeartAxes
from cardiacreg.surfaces.extraction import surfaces_of
from cardiacreg.surfaces.triangles import Surface

NEEDED = "k3d"
SURFACES = {
    "LV_ENDO": ("LV cavity", LV_CAVITY, 1.0),
    "LV_EPI": ("LV, outside of the wall", LV_WALL, 0.35),
    "RV_ENDO": ("RV cavity", RV_CAVITY, 1.0),
    "RV_EPI": ("RV, outside of the wall", RV_WALL, 0.35),
}
"""Surface to its name for a reader, the label that lends its colour, and its opacity at first."""
OUTLINES = "input outlines, at their corrected place"
_OUTLINE_COLOUR = 0xD0208A
_TRIANGLES_ALTOGETHER = 60_000
_MOST_TRIANGLES, _FEWEST_TRIANGLES = 12_000, 2_500
_DISTANCE = 1.75
"""Of the camera, in sizes of the heart."""


class Layer(NamedTuple):
    """One object of the view: its number in the viewer, its name, colour and opacity at first."""

    number: int
    name: str
    colour: str
    opacity: float


class _Heart(NamedTuple):
    """Directions of the heart in the view, and the matrix from world mm to it."""

    rv: Float
    anterior: Float
    base: Float
    from_world: Float
    mirrored: bool


class Viewer(NamedTuple):
    """What the page needs for the view.

    Parameters
    ----------
    document : str
        HTML with everything in it.
    layers : tuple of Layer
    cameras : dict of str to list of float
        Name of a view to position, aim and upward direction.
    planes : dict of str to dict
        Name of a clipping plane to its normal and its range in mm.
    frames : tuple of str
        Titles; one where nothing moves.
    licence : str
        Of the viewer.
    mirrored : bool
        Whether the heart is mirrored in its file's coordinates, and was mirrored back here.
    """

    document: str
    layers: tuple[Layer, ...]
    cameras: dict[str, list[float]]
    planes: dict[str, dict[str, Any]]
    frames: tuple[str, ...]
    licence: str
    mirrored: bool


def is_installed() -> bool:
    """Whether the viewer can be made."""
    return find_spec(NEEDED) is not None


def make_viewer(case: Case, axes: HeartAxes) -> Viewer:
    """Make the view of a case.

    Parameters
    ----------
    case : Case
    axes : HeartAxes
        How the heart lies.

    Returns
    -------
    Viewer
    """
    import k3d

    heart = _placed(axes)
    meshes = _meshes(case.movie)
    plot = k3d.plot(
        menu_visibility=False, grid_visible=False, camera_auto_fit=False, axes_helper=0,
        background_color=0xFFFFFF, name="cardiacreg",
    )  # fmt: skip
    layers: list[Layer] = []
    for surface, (name, label, opacity) in SURFACES.items():
        own = [frame.get(surface) for frame in meshes]
        if any(each is None for each in own):
            continue
        layers.append(Layer(len(layers) + 1, name, COLOURS[label], opacity))
        plot += _mesh(k3d, layers[-1], [each for each in own if each is not None], heart)
    refined = case.phases[0].refined
    if refined is not None and len(case.movie) == 1:
        layers.append(Layer(len(layers) + 1, OUTLINES, f"#{_OUTLINE_COLOUR:06x}", 1.0))
        plot += _outlines(k3d, layers[-1], refined, axes, heart)
    points = apply_matrix(
        heart.from_world,
        np.concatenate([mesh.vertices_mm for frame in meshes for mesh in frame.values()]),
    )
    cameras = _cameras(points, heart)
    plot.camera = cameras["front"]
    return Viewer(
        plot.get_snapshot(), tuple(layers), cameras, _planes(points, heart), case.movie_titles,
        licence(), heart.mirrored,
    )  # fmt: skip


def licence() -> str:
    """Return the text of the viewer's licence."""
    found = distribution(NEEDED)
    for file in found.files or ():
        if file.name.upper().startswith("LICENSE"):
            return file.read_text(encoding="utf-8").strip()
    return f"{NEEDED} {found.version}, MIT"


def _placed(axes: HeartAxes) -> _Heart:
    """Find how the heart lies; one that is mirrored in its file's coordinates is mirrored back."""
    turned = axes.to_world[:3, :3]
    rv, anterior = (turned @ np.array([*each, 0.0]) for each in (axes.rv, axes.anterior))
    up = _unit(turned @ np.array([*(axes.axis_slope * axes.to_base), axes.to_base]))
    mirrored = float(np.cross(up, anterior) @ rv) > 0
    if not mirrored:
        return _Heart(rv, anterior, up, np.eye(4), False)
    flip = np.eye(4)
    flip[:3, :3] -= 2 * np.outer(rv, rv)
    return _Heart(-rv, flip[:3, :3] @ anterior, flip[:3, :3] @ up, flip, True)


def _meshes(movie: Sequence[LabelMap]) -> list[dict[str, Surface]]:
    """Surfaces of every frame, with fewer triangles where there are many frames."""
    triangles = int(np.clip(_TRIANGLES_ALTOGETHER / len(movie), _FEWEST_TRIANGLES, _MOST_TRIANGLES))
    found = []
    for labels in movie:
        with kept_warnings():
            found.append(surfaces_of(labels, triangles=triangles, structures=tuple(SURFACES)))
    return found


def _mesh(k3d: Any, layer: Layer, frames: Sequence[Surface], heart: _Heart) -> Any:
    """One surface over time; a single frame stands still."""
    vertices = {
        str(n): apply_matrix(heart.from_world, each.vertices_mm).astype(np.float32)
        for n, each in enumerate(frames)
    }
    outwards = slice(None, None, -1 if heart.mirrored else 1)
    triangles = {str(n): each.triangles[:, outwards].astype(np.uint32)
                 for n, each in enumerate(frames)}  # fmt: skip
    mesh = k3d.mesh(
        vertices if len(frames) > 1 else vertices["0"],
        triangles if len(frames) > 1 else triangles["0"],
        color=int(layer.colour[1:], 16), opacity=layer.opacity, name=layer.name, side="double",
        flat_shading=False,
    )  # fmt: skip
    mesh.id = layer.number
    return mesh


def _outlines(k3d: Any, layer: Layer, refined: Refined, axes: HeartAxes, heart: _Heart) -> Any:
    """Outlines of the input's labels in every slice, moved by its shift, as segments of lines."""
    points, segments, count = [], [], 0
    target = refined.target.labels
    for k in range(target.shape[2]):
        for label in COLOURS:
            for line in _contours(target.array[:, :, k] == label):
                plane = line * target.spacing_mm[:2] + refined.slice_shifts_mm[k]
                height = np.full((len(plane), 1), k * float(target.spacing_mm[2]))
                points.append(np.hstack([plane, height]))
                order = np.arange(len(plane) - 1) + count
                segments.append(np.stack([order, order + 1], axis=1))
                count += len(plane)
    placed = apply_matrix(heart.from_world @ axes.to_world, np.concatenate(points))
    lines = k3d.lines(
        placed.astype(np.float32), np.concatenate(segments).astype(np.uint32),
        indices_type="segment", color=_OUTLINE_COLOUR, shader="simple", name=layer.name,
    )  # fmt: skip
    lines.id = layer.number
    return lines


def _contours(mask: NDArray[np.bool_]) -> list[Float]:
    """Closed outlines of a mask in pixels; the border is padded, so that none is open."""
    return [line - 1.0 for line in find_contours(np.pad(mask.astype(np.float32), 1), 0.5)]


def _cameras(points: Float, heart: _Heart) -> dict[str, list[float]]:
    """Views of the whole heart, apex down."""
    low, high = points.min(axis=0), points.max(axis=0)
    aim, size = (low + high) / 2, float(np.linalg.norm(high - low)) / 2
    rv, anterior, base = heart.rv, heart.anterior, heart.base
    looks = {
        "front": (anterior + 0.35 * rv, base),
        "right": (rv - 0.25 * anterior, base),
        "back": (-anterior - 0.35 * rv, base),
        "left": (0.25 * anterior - rv, base),
        "apex": (-base, anterior),
        "base": (base, anterior),
    }
    return {
        name: [*(aim + _DISTANCE * size * _unit(towards)), *aim, *up]
        for name, (towards, up) in looks.items()
    }


def _unit(vector: Float) -> Float:
    return np.asarray(vector / np.linalg.norm(vector))


def _planes(points: Float, heart: _Heart) -> dict[str, dict[str, Any]]:
    """Planes to cut the surfaces with: what lies farther along the normal than the level goes."""
    names: Mapping[str, Float] = {
        "from the front": heart.anterior,
        "from the RV": heart.rv,
        "from the base": heart.base,
    }
    found = {}
    for name, normal in names.items():
        heights = points @ normal
        found[name] = {
            "normal": [float(x) for x in normal],
            "low": float(heights.min()) - 1.0,
            "high": float(heights.max()) + 1.0,
        }
    return found
