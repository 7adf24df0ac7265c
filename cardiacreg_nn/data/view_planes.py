"""Long-axis views cut from whole synthetic hearts, each planned, turned, warped and painted anew.

A view is one thick slice along the LV's axis, at an angle around it that is drawn about those of the
four-, two- and three-chamber planes. Tissues are sampled at several depths of the slice, painted and
averaged; the label of the largest share is the target. Long-axis label sets hold no RV wall.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from cardiacreg_nn.data.augmentation import (
    AugmentationOptions,
    Draw,
    Target,
    change_intensities,
    rotations,
)
from cardiacreg_nn.data.contrast_randomisation import paint
from cardiacreg_nn.data.scanner_effects import ScannerEffects, with_effects
from cardiacreg_nn.data.training_hearts import Source

VIEW_DEGREES = (0.0, 60.0, 120.0)
"""Four-, two- and three-chamber plane, as in `cardiacreg.phantoms.long_axis_views`."""
_RV_LATERAL, _RV_WALL, _APEX, _MITRAL = 1, 3, 4, 5
_CORNERS_MM = ((-0.5, -0.5), (0.5, 0.5), (-0.5, 0.5), (0.5, -0.5))
"""Where each depth of a slice is sampled within a pixel."""
_ELSEWHERE_MM = (40.0, 80.0)
_CONTROL_POINTS = 5
_PERCENTILES = (0.01, 0.99)


@dataclass(frozen=True, slots=True)
class ViewOptions:
    """How views are planned, and how they lie in the network's box.

    Parameters
    ----------
    angle_sd_degrees : float
        Around the LV's axis, about the angle of a view's kind.
    any_angle : float
        Share of views at any angle around the axis.
    tilt_sd_degrees, offset_sd_mm : float
        Of the planning: turns about the view's own axes in its plane, and a move across the plane.
    elsewhere : float
        Share of views that lie `_ELSEWHERE_MM` aside, where they show little of the heart or nothing.
    thickness_mm : tuple of two float
        Of the slice.
    turn : bool
        Whether views are turned in their plane by any angle and mirrored, half of them.
    shift_mm : float
        How far the heart lies from the middle at most, along each axis.
    scale, stretch : float
        Standard deviation of the logarithm of size and of the ratio of its axes.
    warp_mm : float
        Standard deviation of a smooth random displacement in the plane.
    """

    angle_sd_degrees: float = 12.0
    any_angle: float = 0.15
    tilt_sd_degrees: float = 6.0
    offset_sd_mm: float = 4.0
    elsewhere: float = 0.06
    thickness_mm: tuple[float, float] = (5.0, 9.0)
    turn: bool = True
    shift_mm: float = 28.0
    scale: float = 0.12
    stretch: float = 0.06
    warp_mm: float = 3.0

    @classmethod
    def none(cls) -> ViewOptions:
        """Return views as planned, in the middle, upright."""
        return cls(0.0, 0.0, 0.0, 0.0, 0.0, (8.0, 8.0), False, 0.0, 0.0, 0.0, 0.0)


class _Plane(NamedTuple):
    """Where the views of a batch lie, along (k, i, j), in mm from the hearts' centres."""

    middle: Tensor  # (N, 3)
    first: Tensor  # (N, 3), apex to base
    second: Tensor  # (N, 3)
    normal: Tensor  # (N, 3)


def cut_views(
    hearts: Sequence[Source],
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    options: ViewOptions,
    painting: AugmentationOptions,
    generator: torch.Generator,
) -> tuple[Tensor, Target]:
    """Cut one view from every heart, and paint it.

    Parameters
    ----------
    hearts : sequence of Source
        As from `view_heart`.
    shape, spacing_mm : tuple of three
        Of the box along (k, i, j); one slice.
    options : ViewOptions
    painting : AugmentationOptions
        Intensities, noise and what scanners do.
    generator : torch.Generator
        On the CPU; the same state gives the same batch.

    Returns
    -------
    image : Tensor, shape (N, 1, H, W), float32
        From 0 to 1.
    target : Target
        Without landmarks.
    """
    draw = Draw(generator, torch.device("cpu"), len(hearts))
    plane = _planned(hearts, options, draw)
    flat = _in_plane(shape[1:], spacing_mm[1:], options, draw)  # N x H x W x 2, mm
    low, high = options.thickness_mm
    thickness = draw.uniform(low=low, high=high)
    labels, tissues = _sampled(hearts, plane, flat, thickness)
    image = paint(tissues, draw.uniform).mean(dim=1, keepdim=True)
    target = _largest(labels)[:, None]
    image = change_intensities(image, painting, draw)
    effects = ScannerEffects(painting.coarse, painting.ghosts, painting.fold, painting.crop)
    image = _rescaled(with_effects(image, target, effects, draw.uniform))
    known = torch.tensor([heart.known for heart in hearts])
    nowhere = torch.full((len(hearts), 6, 3), math.nan)
    return image, Target(target, nowhere, known)


def _planned(hearts: Sequence[Source], options: ViewOptions, draw: Draw) -> _Plane:
    """Planes that hold the LV's axis, and errors of planning."""
    points = torch.tensor([heart.landmarks_mm.tolist() for heart in hearts])
    axis = functional.normalize(points[:, _MITRAL] - points[:, _APEX], dim=1)
    lateral = points[:, _RV_LATERAL] - points[:, _APEX]
    lateral = functional.normalize(lateral - (lateral * axis).sum(1, keepdim=True) * axis, dim=1)
    kind = (draw.uniform() * len(VIEW_DEGREES)).long().clamp_max(len(VIEW_DEGREES) - 1)
    degrees = torch.tensor(VIEW_DEGREES)[kind] + draw.normal(sd=options.angle_sd_degrees)
    anywhere = draw.uniform() < options.any_angle
    angle = torch.deg2rad(torch.where(anywhere, draw.uniform(high=180.0), degrees))[:, None]
    second = angle.cos() * lateral - angle.sin() * torch.linalg.cross(axis, lateral)
    for about in (axis, second):
        turn = rotations(about, torch.deg2rad(draw.normal(sd=options.tilt_sd_degrees)))
        axis, second = (torch.einsum("nab,nb->na", turn, each) for each in (axis, second))
    normal = torch.linalg.cross(axis, second)
    middle = points[:, [_APEX, _MITRAL]].mean(dim=1)
    aside, side = draw.uniform(low=_ELSEWHERE_MM[0], high=_ELSEWHERE_MM[1]), draw.uniform() - 0.5
    aside = torch.where(draw.uniform() < options.elsewhere, aside * side.sign(), 0.0)
    middle = middle + (draw.normal(sd=options.offset_sd_mm) + aside)[:, None] * normal
    return _Plane(middle, axis, second, normal)


def _in_plane(
    shape: tuple[int, ...], spacing_mm: tuple[float, ...], options: ViewOptions, draw: Draw
) -> Tensor:
    """Positions (N, H, W, 2) of the box's pixels along a view's axes, in mm."""
    height, width = (
        (torch.arange(n) - (n - 1) / 2) * step for n, step in zip(shape, spacing_mm, strict=True)
    )
    at = torch.stack(torch.meshgrid(height, width, indexing="ij"), dim=-1)
    at = at + draw.uniform(1, 1, 2, low=-1.0) * options.shift_mm
    if options.warp_mm:
        coarse = draw.normal(2, _CONTROL_POINTS, _CONTROL_POINTS, sd=options.warp_mm)
        fine = functional.interpolate(coarse, shape, mode="bicubic", align_corners=True)
        at = at + fine.movedim(1, -1)
    stretch = draw.normal(sd=options.stretch) / 2
    size = draw.normal(sd=options.scale)
    at = at * torch.stack([(size + stretch).exp(), (size - stretch).exp()], dim=-1)[:, None, None]
    if not options.turn:
        return at
    angle, side = draw.uniform(high=2 * math.pi), torch.where(draw.uniform() < 0.5, -1.0, 1.0)
    cosine, sine = angle.cos()[:, None, None], angle.sin()[:, None, None]
    first = cosine * at[..., 0] - sine * at[..., 1]
    second = sine * at[..., 0] + cosine * at[..., 1]
    return torch.stack([first, second * side[:, None, None]], dim=-1)


def _sampled(
    hearts: Sequence[Source], plane: _Plane, flat: Tensor, thickness: Tensor
) -> tuple[Tensor, Tensor]:
    """Labels and tissues (N, depths, H, W) over the thickness of every view, nearest."""
    count = len(_CORNERS_MM)
    depths = ((torch.arange(count) + 0.5) / count - 0.5)[None] * thickness[:, None]
    corners = torch.tensor(_CORNERS_MM)[:, None, None]
    labels, tissues = [], []
    for n, heart in enumerate(hearts):
        assert heart.tissues is not None
        size = torch.tensor(heart.labels.shape)
        step = torch.from_numpy(heart.spacing_mm).float()
        flat_here = flat[n] + corners  # depths x H x W x 2
        in_plane = flat_here[..., :1] * plane.first[n] + flat_here[..., 1:] * plane.second[n]
        at = plane.middle[n] + in_plane + depths[n, :, None, None, None] * plane.normal[n]
        index = (at / step + (size - 1) / 2).round().long()
        index = torch.minimum(index.clamp_min(0), size - 1)
        place = (index[..., 0] * size[1] + index[..., 1]) * size[2] + index[..., 2]
        labels.append(torch.from_numpy(heart.labels).reshape(-1)[place])
        tissues.append(torch.from_numpy(heart.tissues).reshape(-1)[place])
    return torch.stack(labels), torch.stack(tissues)


def _largest(labels: Tensor) -> Tensor:
    """Label of the largest share over depths (N, S, H, W); the RV wall counts as background."""
    shares = torch.stack([(labels == value).sum(dim=1) for value in range(5)])
    shares[0] += shares[_RV_WALL]
    shares[_RV_WALL] = -1
    return shares.argmax(dim=0)


def _rescaled(image: Tensor) -> Tensor:
    """Clip every image to its 1st and 99th percentile and scale it to [0, 1], as `predict_view` does."""
    ends = torch.quantile(image.flatten(1), torch.tensor(_PERCENTILES), dim=1)[
        ..., None, None, None
    ]
    return ((image - ends[0]) / (ends[1] - ends[0]).clamp_min(1e-6)).clamp(0, 1)
