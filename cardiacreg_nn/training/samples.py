"""One batch of a run: stacks out of hearts, or long-axis views cut from them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cardiacreg_nn.data.augmentation import AugmentationOptions, Target, augment
from cardiacreg_nn.data.training_hearts import Source, collate
from cardiacreg_nn.data.view_planes import cut_views
from cardiacreg_nn.training.configuration import Config


def sample(
    chosen: Sequence[Source],
    config: Config,
    rng: torch.Generator,
    device: torch.device | str = "cpu",
    held: dict[tuple[Source, str], Tensor] | None = None,
    *,
    plain: bool = False,
) -> tuple[Tensor, Target]:
    """Return what the network sees of some hearts, and what it should find.

    Parameters
    ----------
    chosen : sequence of Source
    config : Config
    rng : torch.Generator
    device : device or str
    held : dict, optional
        Hearts on the device, as for `collate`; views are cut on the CPU.
    plain : bool
        Stacks without augmentation, in the middle of the box; views stay as in training, since any
        other choice would be one of many.
    """
    shape, spacing_mm = box_shape(config), box_spacing(config)
    if config.data.long_axis:
        image, target = cut_views(chosen, shape, spacing_mm, config.views, config.augmentation, rng)
        return image.to(device), Target(*(part.to(device) for part in target))
    options = AugmentationOptions.none() if plain else config.augmentation
    return augment(collate(chosen, device, held), shape, spacing_mm, options, rng)


def box_shape(config: Config) -> tuple[int, int, int]:
    """Return the box's voxels along (S, H, W)."""
    height, width, slices = config.box.shape
    return slices, height, width


def box_spacing(config: Config) -> tuple[float, float, float]:
    """Return the box's spacing along (k, i, j) in mm."""
    i, j, k = config.box.spacing_mm
    return k, i, j
