"""Augmentation of whole batches on the training device; landmarks are moved analytically.

A source heart is sampled once, through one affine map from the network's box to the source: in-plane
shift, scale, rotation about one axis. High-resolution sources are degraded on the way as acquisitions
are: slices are averaged over their thickness, displaced in their planes and lost. Intensities follow.
Positions are in mm along (k, i, j), from the centre of the box or of the source.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from cardiacreg_nn.data.contrast_randomisation import paint
from cardiacreg_nn.data.scanner_effects import ScannerEffects, with_effects


class Target(NamedTuple):
    """What a batch should be predicted as.

    Parameters
    ----------
    structures : Tensor, shape (N, S, H, W), int64
    landmarks : Tensor, shape (N, landmarks, 3), float32
        Positions in voxels along (k, i, j); NaN where unknown.
    known : Tensor, shape (N, classes), bool
        Which structures the sample's labels tell apart; voxels of an unknown one carry label 0.
    """

    structures: Tensor
    landmarks: Tensor
    known: Tensor


@dataclass(frozen=True, slots=True)
class AugmentationOptions:
    """How far augmentation goes; standard deviations are of normal numbers clipped at two of them.

    Parameters
    ----------
    rotation_deg, shift_mm, scale : float
        Standard deviations of the angle about one axis, the in-plane shift, and the scale about 1.
    any_axis : bool
        Whether high-resolution hearts turn about a random axis (by the angle, at most 20 degrees)
        instead of the slice axis.
    level, gamma, noise, blur, bias, slice_gain : float
        Of brightness and contrast, of the logarithm of gamma, of added noise, of the share of a 3x3
        mean, of a smooth field, and of the brightness of single slices.
    tilt_deg : float
        Of a further turn of high-resolution hearts, about a random axis in the plane.
    mirror : float
        Probability that a heart is mirrored, as under a header of the wrong handedness: anterior and
        inferior change places, the landmarks of both insertions their names.
    recolour : float
        How far the tissues of synthetic images leave their brightness, as a share.
    repaint : float
        Probability that the image of a heart with a tissue map is synthesised anew.
    thick_slices : bool
        Whether high-resolution hearts are seen through thick slices.
    slice_shift_mm : float
        Standard deviation of a slice's displacement along each in-plane axis.
    drop_slice : float
        Probability that a slice at either end of a stack is lost; a second one with its square.
    stack_shift : float
        Standard deviation, in slices, of the stack's place in the box.
    gap : float
        Probability that neighbouring slices are black though they are labelled, for networks that are
        to fill gaps.
    gap_mm : float
        Height of the largest gap; all smaller ones are as likely.
    coarse, ghosts, fold, crop : float
        Probabilities of what other scanners do, see `ScannerEffects`.
    """

    rotation_deg: float = 15.0
    shift_mm: float = 8.0
    scale: float = 0.1
    any_axis: bool = True
    level: float = 0.1
    gamma: float = 0.2
    noise: float = 0.03
    blur: float = 0.3
    bias: float = 0.15
    slice_gain: float = 0.05
    tilt_deg: float = 0.0
    mirror: float = 0.0
    recolour: float = 0.3
    repaint: float = 0.0
    thick_slices: bool = True
    slice_shift_mm: float = 1.5
    drop_slice: float = 0.15
    stack_shift: float = 0.7
    gap: float = 0.0
    gap_mm: float = 40.0
    coarse: float = 0.0
    ghosts: float = 0.0
    fold: float = 0.0
    crop: float = 0.0

    @classmethod
    def none(cls) -> AugmentationOptions:
        """Return no augmentation: the centre of every source as it is."""
        return cls(
            **{k: False if isinstance(v, bool) else 0.0 for k, v in asdict(cls()).items()}  # type: ignore[arg-type]
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return asdict(self)


class Sources(NamedTuple):
    """A batch of hearts to sample from.

    Parameters
    ----------
    image : Tensor, shape (N, D, H, W), float32
        From 0 to 1.
    labels : Tensor, shape (N, D, H, W), uint8
    spacing_mm, centre : Tensor, shape (N, 3)
        Along (k, i, j): spacing, and the index of the source's centre.
    landmarks_mm : Tensor, shape (N, L, 3)
        From the centre.
    known : Tensor, shape (N, classes), bool
    fine : Tensor, shape (N,), bool
        Whether it is a synthetic high-resolution heart, to be recoloured and degraded.
    extent : Tensor, shape (N, 2)
        First and last slice that were acquired (thick sources) or show the heart (fine ones).
    tissues : Tensor, shape (N, D, H, W), uint8, or None
        Maps of tissues where any of the hearts has one; all 0 for the others.
    """

    image: Tensor
    labels: Tensor
    spacing_mm: Tensor
    centre: Tensor
    landmarks_mm: Tensor
    known: Tensor
    fine: Tensor
    extent: Tensor
    tissues: Tensor | None = None


class _Motion(NamedTuple):
    """Box positions to source positions: ``y = linear (x - shift) + slice shifts``, all in mm."""

    linear: Tensor  # (N, 3, 3)
    shift: Tensor  # (N, 3)
    slice_shift: Tensor  # (N, S, 2)
    spacing: Tensor  # (N, 3) of the box
    thickness: Tensor  # (N,)
    mirrored: Tensor  # (N,)


def augment(
    sources: Sources,
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    options: AugmentationOptions,
    generator: torch.Generator,
) -> tuple[Tensor, Target]:
    """Sample, degrade and recolour a batch.

    Parameters
    ----------
    sources : Sources
    shape : tuple of three int
        Voxels of the box along (S, H, W).
    spacing_mm : tuple of three float
        Spacing of the box along (k, i, j); thick sources keep their own slice distance.
    options : AugmentationOptions
    generator : torch.Generator
        On the CPU; the same state gives the same batch.

    Returns
    -------
    stack : Tensor, shape (N, S, H, W), float32
        From 0 to 1, 0 where no slice was acquired.
    target : Target
    """
    draw = Draw(generator, sources.image.device, len(sources.image))
    motion = _motion(sources, shape, spacing_mm, options, draw)
    given, painted = _painted(sources, options, draw)
    slabs = 3 if options.thick_slices and bool(sources.fine.any()) else 1
    image = sum(
        _sample(given, _indices(sources, shape, motion, (n - (slabs - 1) / 2) / slabs))
        for n in range(slabs)
    )
    image = torch.as_tensor(image) / slabs
    centre = _indices(sources, shape, motion, 0.0)
    labels = _sample(sources.labels.float(), centre, nearest=True).long()
    image = _recolour(image, labels, sources.fine & ~painted, options, draw)
    image = change_intensities(image, options, draw)
    effects = ScannerEffects(options.coarse, options.ghosts, options.fold, options.crop)
    if any(effects):
        image = with_effects(image, labels, effects, draw.uniform)
    kept = _kept(sources, centre[..., 0].mean(dim=(2, 3)), options, draw)[:, :, None, None]
    points = _move_landmarks(sources.landmarks_mm, motion, shape)
    shown = kept & ~_gaps(kept[:, :, 0, 0], motion, options, draw)[:, :, None, None]
    return image * shown, Target(labels * kept, points, sources.known)


class Draw:
    """Random numbers per sample, drawn on the CPU and used on the device."""

    def __init__(self, generator: torch.Generator, device: torch.device, n: int) -> None:
        self.generator, self.device, self.n = generator, device, n

    def normal(self, *shape: int, sd: float = 1.0) -> Tensor:
        """Normal numbers of shape (N, *shape), clipped at two standard deviations."""
        numbers = torch.randn(self.n, *shape, generator=self.generator).clamp(-2, 2) * sd
        return numbers.to(self.device)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Uniform numbers of shape (N, *shape)."""
        numbers = torch.rand(self.n, *shape, generator=self.generator) * (high - low) + low
        return numbers.to(self.device)


def _motion(
    sources: Sources,
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    options: AugmentationOptions,
    draw: Draw,
) -> _Motion:
    fine = sources.fine
    angle = torch.deg2rad(draw.normal(sd=options.rotation_deg))
    axis = functional.normalize(draw.normal(3) + 1e-3, dim=1)
    tilted = fine & bool(options.any_axis)
    axis = torch.where(tilted[:, None], axis, axis.new_tensor([1.0, 0.0, 0.0]))
    angle = torch.where(tilted, angle.clamp(-math.radians(20), math.radians(20)), angle)
    scale = (1 + draw.normal(sd=options.scale))[:, None]
    along = torch.where(fine[:, None], scale, torch.ones_like(scale))
    stretch = torch.cat([along, scale, scale], dim=1)
    linear = rotations(axis, angle).transpose(1, 2) / stretch[:, None, :]
    mirrored = torch.zeros_like(fine)
    if options.tilt_deg:
        linear = _tilts(options.tilt_deg * fine, draw) @ linear
    if options.mirror:
        mirrored = draw.uniform() < options.mirror
        linear[:, :, 2] *= torch.where(mirrored, -1.0, 1.0)[:, None]
    spacing = torch.tensor(spacing_mm, device=draw.device).repeat(draw.n, 1)
    distance = spacing[:, 0] * (1 + draw.uniform(low=-0.2, high=0.2) * bool(options.thick_slices))
    spacing[:, 0] = torch.where(fine, distance, sources.spacing_mm[:, 0])
    jump = draw.normal(sd=options.stack_shift)
    jump = torch.where(fine, jump, jump.round()) * spacing[:, 0]
    shift = torch.cat([jump[:, None], draw.normal(2, sd=options.shift_mm)], dim=1)
    # Box slices fall on the slices of a thick source exactly, whatever the parities of their numbers.
    parity = ((shape[0] - 1) / 2 + sources.centre[:, 0]) % 1.0 * spacing[:, 0]
    shift[:, 0] = torch.where(fine, shift[:, 0], shift[:, 0] + parity)
    slice_shift = draw.normal(shape[0], 2, sd=options.slice_shift_mm)
    thickness = spacing[:, 0] * draw.uniform(low=0.6, high=1.0)
    thickness = torch.where(fine, thickness, 0.0)
    return _Motion(linear, shift, slice_shift, spacing, thickness, mirrored)


def _tilts(sd_deg: Tensor, draw: Draw) -> Tensor:
    """Rotations (N, 3, 3) about random axes in the plane, by normal angles."""
    heading = draw.uniform(high=2 * math.pi)
    axis = torch.stack([torch.zeros_like(heading), heading.cos(), heading.sin()], dim=1)
    return rotations(axis, torch.deg2rad(draw.normal() * sd_deg))


def rotations(axis: Tensor, angle: Tensor) -> Tensor:
    """Return rotation matrices (N, 3, 3) about unit axes (N, 3) by angles (N,) in radians."""
    x, y, z = axis.unbind(1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=1).view(-1, 3, 3)
    eye = torch.eye(3, device=axis.device)
    sine, cosine = angle.sin()[:, None, None], angle.cos()[:, None, None]
    return eye + sine * cross + (1 - cosine) * cross @ cross


def _indices(sources: Sources, shape: tuple[int, int, int], motion: _Motion, part: float) -> Tensor:
    """Source indices (N, S, H, W, 3) of box voxels, displaced by a part of the slice thickness."""
    axes = [
        (torch.arange(n, device=motion.shift.device) - (n - 1) / 2) * motion.spacing[:, d, None]
        for d, n in enumerate(shape)
    ]
    lead = axes[0] - motion.shift[:, :1] + part * motion.thickness[:, None]
    rows, columns = axes[1] - motion.shift[:, 1:2], axes[2] - motion.shift[:, 2:]
    linear = motion.linear
    moved = (
        lead[:, :, None, None, None] * linear[:, None, None, None, :, 0]
        + rows[:, None, :, None, None] * linear[:, None, None, None, :, 1]
        + columns[:, None, None, :, None] * linear[:, None, None, None, :, 2]
    )
    moved[..., 1:] += motion.slice_shift[:, :, None, None, :]
    step = sources.spacing_mm[:, None, None, None, :]
    return moved / step + sources.centre[:, None, None, None, :]


def _sample(field: Tensor, indices: Tensor, *, nearest: bool = False) -> Tensor:
    """Sample (N, D, H, W) at indices (N, S, H', W', 3), linearly or nearest, 0 outside."""
    size = torch.tensor(field.shape[1:], device=field.device)
    grid = (2 * indices / (size - 1).clamp_min(1) - 1).flip(-1)
    mode = "nearest" if nearest else "bilinear"
    found = functional.grid_sample(field[:, None], grid, mode=mode, align_corners=True)
    return found[:, 0]


def _move_landmarks(points_mm: Tensor, motion: _Motion, shape: tuple[int, int, int]) -> Tensor:
    """Return where landmarks lie in the box, in voxels: the map solved for x."""
    inverse = torch.linalg.inv(motion.linear)
    moved: Tensor = points_mm @ inverse.transpose(1, 2) + motion.shift[:, None]
    middle = (torch.tensor(shape, device=moved.device, dtype=moved.dtype) - 1) / 2
    moved = moved / motion.spacing[:, None] + middle
    if not bool(motion.mirrored.any()):
        return moved
    order = list(range(moved.shape[1]))
    order[0], order[2] = 2, 0  # anterior and inferior insertion
    return torch.where(motion.mirrored[:, None, None], moved[:, order], moved)


def _kept(sources: Sources, heights: Tensor, options: AugmentationOptions, draw: Draw) -> Tensor:
    """Return which slices (N, S) remain acquired; `heights` are their indices in the source."""
    first, last = sources.extent[:, :1], sources.extent[:, 1:]
    step = (heights[:, 1:2] - heights[:, :1]).abs().clamp_min(1e-3)
    below, above = draw.uniform(1, low=-0.5, high=2.5), draw.uniform(1, low=-0.5, high=2.5)
    fine = sources.fine[:, None]
    if options.thick_slices:
        first = torch.where(fine, first - below * step, first)
        last = torch.where(fine, last + above * step, last)
    if options.drop_slice:
        lost = draw.uniform(2) < options.drop_slice
        again = lost & (draw.uniform(2) < options.drop_slice)
        number = lost.float() + again.float()
        first, last = first + number[:, :1] * step, last - number[:, 1:] * step
    return (heights >= first - 0.01) & (heights <= last + 0.01)


def _gaps(kept: Tensor, motion: _Motion, options: AugmentationOptions, draw: Draw) -> Tensor:
    """Return which slices (N, S) are black though they are labelled."""
    if not options.gap:
        return torch.zeros_like(kept)
    number = torch.arange(kept.shape[1], device=kept.device, dtype=torch.float32)
    first = torch.where(kept, number, kept.shape[1]).amin(1)
    last = torch.where(kept, number, -1.0).amax(1)
    middle = first + draw.uniform() * (last - first)
    half = draw.uniform(high=options.gap_mm) / motion.spacing[:, 0] / 2
    chosen = draw.uniform() < options.gap
    return chosen[:, None] & ((number - middle[:, None]).abs() <= half[:, None])


def _painted(sources: Sources, options: AugmentationOptions, draw: Draw) -> tuple[Tensor, Tensor]:
    """Return the hearts' images, some of them painted anew, and which."""
    none = torch.zeros_like(sources.fine)
    if not options.repaint or sources.tissues is None:
        return sources.image, none
    held = (sources.tissues > 0).flatten(1).any(dim=1)
    chosen = held & (draw.uniform() < options.repaint)
    new = paint(sources.tissues, draw.uniform)
    return torch.where(chosen[:, None, None, None], new, sources.image), chosen


def _recolour(
    image: Tensor, labels: Tensor, fine: Tensor, options: AugmentationOptions, draw: Draw
) -> Tensor:
    """Give the tissues of synthetic images new levels, and their surroundings new regions."""
    amount = options.recolour
    if not amount or not bool(fine.any()):
        return image
    gain = 1 + draw.normal(5, sd=amount / 2)
    gain[:, 3] = gain[:, 2]  # both walls are muscle
    gain[:, 4] = gain[:, 1] * (1 + 0.1 * (gain[:, 4] - 1))  # both cavities are blood
    gains = gain.gather(1, labels.flatten(1)).view_as(image)
    coloured = image * gains
    coarse = draw.normal(image.shape[1] // 2, 7, 7)
    regions = functional.interpolate(
        coarse[:, None], size=image.shape[1:], mode="trilinear", align_corners=True
    )[:, 0]
    share = torch.sigmoid(6 * (regions - draw.uniform(1, 1, 1, low=-0.2, high=1.2)))
    near = functional.max_pool2d((labels > 0).float(), 5, 1, 2)
    share = share * (1 - near)
    coloured = coloured * (1 - share) + share * draw.uniform(1, 1, 1)
    return torch.where(fine[:, None, None, None], coloured, image)


def change_intensities(image: Tensor, options: AugmentationOptions, draw: Draw) -> Tensor:
    """Change contrast, brightness, sharpness and noise; stay within 0 and 1."""
    n, slices, height, width = image.shape
    if options.blur:
        share = draw.normal(1, 1, 1, sd=options.blur).abs().clamp_max(0.9)
        image = image + share * (functional.avg_pool2d(image, 3, 1, 1) - image)
    if options.bias or options.slice_gain:
        ramp_i = torch.linspace(-1, 1, height, device=image.device)[None, :, None]
        ramp_j = torch.linspace(-1, 1, width, device=image.device)[None, None, :]
        a, b, c = draw.normal(3, 1, 1, 1, sd=options.bias).unbind(1)
        field = 1 + a * ramp_i + b * ramp_j + c * (ramp_i * ramp_i + ramp_j * ramp_j - 1)
        image = image * field * (1 + draw.normal(slices, 1, 1, sd=options.slice_gain))
    gain = 1 + draw.normal(1, 1, 1, sd=options.level)
    offset = draw.normal(1, 1, 1, sd=options.level / 2)
    image = ((image - 0.5) * gain + 0.5 + offset).clamp(0, 1)
    gamma = draw.normal(1, 1, 1, sd=options.gamma).exp()
    image = (image + 1e-4) ** gamma
    if options.noise:
        sd = draw.normal(1, 1, 1, sd=options.noise).abs()
        seed = int(torch.randint(2**31, (1,), generator=draw.generator))
        own = torch.Generator(device=image.device).manual_seed(seed)
        image = image + sd * torch.randn(image.shape, generator=own, device=image.device)
    return image.clamp(0, 1)
