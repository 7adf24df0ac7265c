"""Contrast randomisation: images synthesised from tissue maps, with new levels and textures per sample.

A network that meets a tissue in every brightness that it may have learns shapes and neighbours instead
(Billot et al., SynthSeg, Medical Image Analysis 86:102789, 2023). Unlike there, levels stay within what
a cine image may show, but for a share of the surroundings, which take any level.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from cardiacreg_nn.data.tissue_map import TISSUES

LEVELS = {
    "lung": (0.0, 0.12),
    "left blood": (0.65, 1.0),
    "right blood": (0.55, 1.05),
    "left muscle": (0.12, 0.55),
    "right muscle": (0.8, 1.8),
    "heart fat": (0.25, 1.0),
    "lung vessel": (0.2, 1.0),
    "liver": (0.1, 0.5),
    "stomach": (0.03, 0.9),
    "bowel": (0.03, 1.0),
    "chest muscle": (0.1, 0.4),
    "chest fat": (0.45, 1.1),
    "rib": (0.03, 0.8),
    "artery": (0.6, 1.1),
}
"""Lowest and highest level by tissue, as a share of the left blood's, or of what `RELATIVE` names."""
RELATIVE = {
    "right blood": "left blood",
    "left muscle": "left blood",
    "artery": "left blood",
    "right muscle": "left muscle",
}
_HEART = ("left blood", "right blood", "left muscle", "right muscle", "artery")
_ANY_LEVEL = 0.2
_MOST_TEXTURE = 0.2
Uniform = Callable[..., Tensor]
"""Uniform numbers of shape (N, *shape) between ``low`` and ``high``."""


def paint(tissues: Tensor, uniform: Uniform) -> Tensor:
    """Paint images over maps of tissues.

    Parameters
    ----------
    tissues : Tensor, shape (N, D, H, W), uint8
        Positions in `TISSUES`.
    uniform : callable
        Where random numbers come from: ``uniform(*shape, low=, high=)``.

    Returns
    -------
    Tensor, shape (N, D, H, W), float32
        Mostly from 0 to 1.
    """
    flat = tissues.flatten(1).long()
    image = _levels(uniform).gather(1, flat).view(tissues.shape)
    strength = uniform(len(TISSUES), high=_MOST_TEXTURE).gather(1, flat).view(tissues.shape)
    return image * (1 + strength * _texture(tissues.shape, uniform))


def _levels(uniform: Uniform) -> Tensor:
    """Draw a level per sample and tissue, shape (N, tissues)."""
    share = uniform(len(TISSUES))
    found = {}
    for number, name in enumerate(TISSUES):
        low, high = LEVELS[name]
        found[name] = low + (high - low) * share[:, number]
    for name, other in RELATIVE.items():
        found[name] = found[name] * found[other]
    free, anything = uniform(len(TISSUES)) < _ANY_LEVEL, uniform(len(TISSUES))
    levels = torch.stack([found[name] for name in TISSUES], dim=1)
    free[:, [TISSUES.index(name) for name in _HEART]] = False
    return torch.where(free, anything, levels)


def _texture(shape: torch.Size, uniform: Uniform) -> Tensor:
    """Smooth noise of two scales, of about unit size."""
    total = torch.zeros(())
    for part in (16, 4):
        size = [max(2, n // part) for n in shape[1:]]
        coarse = uniform(*size, low=-1.7, high=1.7)[:, None]
        fine = functional.interpolate(coarse, shape[1:], mode="trilinear", align_corners=True)
        total = total.to(fine.device) + fine[:, 0]
    return total / 1.2
