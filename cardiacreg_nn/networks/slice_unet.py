"""A U-Net for short-axis stacks: slices in two dimensions, and a look along the stack where it is cheap.

Slices are far apart, so features are made within them; but whether a slice still shows the base is known
from its neighbours. Every slice is seen with the one below and above it, and at the two deepest levels
features are mixed along the stack. Half of the resolution is folded into the channels at the entrance
and unfolded at the exit, and slices that were not acquired cost nothing. Shapes in comments are for M
acquired slices of all stacks of a batch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from cardiacreg_nn.networks.sslln import (
    EPSILON,
    MOMENTUM,
    NetworkConfig,
    Prediction,
    check_stack,
    convolutions,
    initialise,
)

ABSENT_LOGIT = 12.0
"""Of background in slices that were not acquired."""


class SliceUNet(nn.Module):
    """Slice-wise U-Net with residual blocks and mixing along the stack; no landmark head.

    Parameters
    ----------
    config : NetworkConfig
        ``encoder`` holds the feature maps at 1, 1/2, 1/4, 1/8 and 1/16 of the resolution; ``side`` and
        ``fused`` are not used.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        finest, *widths = config.encoder
        self.enter = convolutions(12, widths[0], 1, 1)
        self.shrink = nn.ModuleList(
            convolutions(before, after, 2, 1)
            for before, after in zip(widths[:-1], widths[1:], strict=True)
        )
        self.down = nn.ModuleList(Residual(width) for width in widths)
        self.mix = nn.ModuleList(StackMixing(width) for width in widths[2:])
        self.lift = nn.ModuleList(
            nn.Conv2d(deep, shallow, 1)
            for deep, shallow in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.up = nn.ModuleList(Residual(width) for width in widths[-2::-1])
        self.unfold = nn.Conv2d(widths[0], 4 * finest, 1)
        self.last = convolutions(finest + 1, finest, 1, 1)
        self.head = nn.Conv2d(finest, config.structures, 1)
        self.apply(initialise)

    def forward(self, stack: Tensor) -> Prediction:
        """Predict from stacks of shape (N, S, H, W), H and W multiples of 16."""
        check_stack(stack, self.config.slices)
        held = acquired_slices(stack)  # N x S, M of them true
        image = stack[held][:, None]  # M x 1 x H x W
        near = with_neighbours(stack[:, :, None])[held]  # M x 3 x H x W
        near = near.contiguous(memory_format=torch.channels_last)
        x = self.enter(functional.pixel_unshuffle(near, 2))  # M x 12 x H/2 x W/2 -> 32
        skips: list[Tensor] = []
        for level, block in enumerate(self.down):
            if level:
                x = self.shrink[level - 1](
                    x
                )  # -> 64 x H/4 x W/4, 128 x H/8 x W/8, 128 x H/16 x W/16
            x = block(x)
            if level >= 2:
                x = self.mix[level - 2](x, held)
            skips.append(x)
        for lift, block, skip in zip(self.lift, self.up, skips[-2::-1], strict=True):
            x = functional.interpolate(lift(x), scale_factor=2.0, mode="nearest")
            x = block(x + skip)  # -> 128 x H/8 x W/8, 64 x H/4 x W/4, 32 x H/2 x W/2
        x = functional.pixel_shuffle(self.unfold(x), 2)  # -> 16 x H x W
        logits = self.head(self.last(torch.cat([x, image.to(x.dtype)], dim=1)))  # -> 5 x H x W
        return Prediction(self._in_stack(logits, held), None)  # N x 5 x S x H x W

    def _in_stack(self, logits: Tensor, held: Tensor) -> Tensor:
        found = logits.new_zeros(*held.shape, *logits.shape[1:])
        found[:, :, 0] = ABSENT_LOGIT
        found[held] = logits
        return found.transpose(1, 2)


class Residual(nn.Module):
    """Two 3x3 convolutions around which the input is added; the shape stays."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = convolutions(width, width, 1, 1)
        self.second = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width, eps=EPSILON, momentum=MOMENTUM),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (M, width, h, w) to the same shape."""
        return functional.relu(x + self.second(self.first(x)))


class StackMixing(nn.Module):
    """Add to every slice what it and its two neighbours say, position by position."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Sequential(
            nn.Conv2d(3 * width, width, 1, bias=False),
            nn.BatchNorm2d(width, eps=EPSILON, momentum=MOMENTUM),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor, held: Tensor) -> Tensor:
        """Map (M, width, h, w) to the same shape; `held` (N, S) says where the M slices lie."""
        stack = x.new_zeros(*held.shape, *x.shape[1:])
        stack[held] = x
        said: Tensor = self.mix(with_neighbours(stack)[held])  # 3 width x h x w -> width x h x w
        return x + said


def acquired_slices(stack: Tensor) -> Tensor:
    """Return which slices (N, S) hold anything; all of a stack that holds nothing."""
    held = stack.amax(dim=(2, 3)) > 0
    return held | ~held.any(dim=1, keepdim=True)


def with_neighbours(stack: Tensor) -> Tensor:
    """Return (N, S, 3 C, h, w) of (N, S, C, h, w): the slice below, the slice, the slice above."""
    padded = functional.pad(stack, (0, 0, 0, 0, 0, 0, 1, 1))
    return torch.cat([padded[:, :-2], stack, padded[:, 2:]], dim=2)
