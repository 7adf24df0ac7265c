"""What scanners do to an image: lost resolution, ghosts of motion, fold-over, a small field of view.

Resolution and ghosts are made where they arise, among the spatial frequencies: those beyond a share of
the highest ones are lost, and the lines along one axis are weighed periodically, as breathing does, which
repeats the image at a fraction of its field of view. Every effect has a probability of its own and works
on whole batches, on their device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Uniform = Callable[..., Tensor]
"""``uniform(*shape, low=, high=)`` of shape (N, *shape)."""
_COARSEST = 2.2
_STRONGEST_GHOST = 0.5
_FEWEST_GHOSTS, _MOST_GHOSTS = 2.0, 6.0
_WIDEST_FOLD, _WIDEST_CROP = 0.25, 0.3
_FREE_PIXELS = 4


class ScannerEffects(NamedTuple):
    """Probabilities of the effects.

    Parameters
    ----------
    coarse : float
        That in-plane resolution is lost, by up to a factor of 2.2 along each axis.
    ghosts : float
        That motion repeats the image along one axis.
    fold : float
        That what lies beyond one edge is folded over onto the other side.
    crop : float
        That the field of view ends near the heart; labelled pixels stay inside.
    """

    coarse: float = 0.0
    ghosts: float = 0.0
    fold: float = 0.0
    crop: float = 0.0


def with_effects(
    image: Tensor, labels: Tensor, effects: ScannerEffects, uniform: Uniform
) -> Tensor:
    """Return a batch as other scanners would have acquired it.

    Parameters
    ----------
    image : Tensor, shape (N, S, H, W)
        From 0 to 1.
    labels : Tensor, shape (N, S, H, W)
        Where they are above 0 the field of view is not cut.
    effects : ScannerEffects
    uniform : callable
        Draws uniform numbers of shape (N, ...).

    Returns
    -------
    Tensor, shape (N, S, H, W)
        From 0 to 1; equal to the image where no effect is asked for.
    """
    if effects.coarse or effects.ghosts:
        image = _filtered(image, effects, uniform)
    if effects.fold:
        image = _folded(image, effects.fold, uniform)
    if effects.crop:
        image = image * _field_of_view(labels, effects.crop, uniform)
    return image.clamp(0, 1)


def _filtered(image: Tensor, effects: ScannerEffects, uniform: Uniform) -> Tensor:
    height, width = image.shape[2:]
    rows = torch.fft.fftfreq(height, device=image.device).abs()
    columns = torch.fft.fftfreq(width, device=image.device).abs()
    weight = torch.ones(len(image), height, width, device=image.device)
    if effects.coarse:
        chosen = (uniform() < effects.coarse).float()
        factors = 1 + chosen[:, None] * uniform(2, high=_COARSEST - 1)
        kept_rows = rows[None] <= 0.5 / factors[:, :1]
        kept_columns = columns[None] <= 0.5 / factors[:, 1:]
        weight = weight * (kept_rows[:, :, None] & kept_columns[:, None])
    if effects.ghosts:
        weight = weight * _lines(image, effects.ghosts, uniform)
    spectrum = torch.fft.fft2(image) * weight[:, None]
    filtered: Tensor = torch.fft.ifft2(spectrum).real
    return filtered


def _lines(image: Tensor, probability: float, uniform: Uniform) -> Tensor:
    """Weights of frequencies (N, H, W) that vary periodically from line to line of one axis."""
    height, width = image.shape[2:]
    strength = (uniform() < probability).float() * uniform(high=_STRONGEST_GHOST)
    period = uniform(low=_FEWEST_GHOSTS, high=_MOST_GHOSTS)
    along_rows = uniform() < 0.5
    waves = []
    for size in (height, width):
        line = torch.fft.fftfreq(size, device=image.device) * size
        wave = torch.cos(2 * torch.pi * line[None] / period[:, None])
        waves.append(1 + strength[:, None] * (wave - 1) / 2)
    return torch.where(along_rows[:, None, None], waves[0][:, :, None], waves[1][:, None])


def _folded(image: Tensor, probability: float, uniform: Uniform) -> Tensor:
    """Add a strip of the far side to the near edge, along either axis and from either side."""
    share = (uniform() < probability).float() * uniform(high=_WIDEST_FOLD)
    brightness, along_rows, flipped = uniform(low=0.3), uniform() < 0.5, uniform() < 0.5
    folded = []
    for axis in (2, 3):
        size = image.shape[axis]
        place = torch.arange(size, device=image.device)
        strip = (share * size).long()[:, None]
        near = torch.where(flipped[:, None], size - 1 - place, place)
        source = (near - strip) % size
        source = torch.where(flipped[:, None], size - 1 - source, source)
        shape = [len(image), 1, 1, 1]
        shape[axis] = size
        moved = image.gather(axis, source.view(shape).expand_as(image))
        inside = (near < strip).view(shape) * brightness[:, None, None, None]
        folded.append(image + inside * moved)
    return torch.where(along_rows[:, None, None, None], folded[0], folded[1])


def _field_of_view(labels: Tensor, probability: float, uniform: Uniform) -> Tensor:
    """Return 1 inside a rectangle around all labels and 0 outside, shape (N, 1, H, W)."""
    chosen = (uniform() < probability).float()
    held = (labels > 0).any(dim=1)
    inside = torch.ones_like(held)
    for axis in (1, 2):
        size = held.shape[axis]
        place = torch.arange(size, device=labels.device)
        shown = held.any(dim=3 - axis)
        first = torch.where(shown, place, size).amin(1) - _FREE_PIXELS
        last = torch.where(shown, place, -1).amax(1) + _FREE_PIXELS
        widest = chosen * _WIDEST_CROP * size
        low = torch.minimum(uniform() * widest, first.clamp_min(0).float())
        high = torch.maximum(size - 1 - uniform() * widest, last.clamp_max(size - 1).float())
        own = (place >= low[:, None]) & (place <= high[:, None])
        inside &= own[:, :, None] if axis == 1 else own[:, None]
    return inside[:, None].float()
