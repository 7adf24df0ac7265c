"""The networks that the paper compares with, behind the interface of `SSLLN`.

`SliceNetwork` is the 2D FCN (each slice on its own, Bai et al. 2018); `VolumeNetwork` the 3D FCN with
half the maps; `UNet3D` a plain 3D U-Net. The first has a landmark head too; the 3D networks have none,
as in the paper.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from cardiacreg_nn.networks.slice_unet import SliceUNet
from cardiacreg_nn.networks.sslln import (
    CONVOLUTIONS,
    EPSILON,
    MOMENTUM,
    SSLLN,
    STRIDES,
    NetworkConfig,
    Prediction,
    check_stack,
)


def build_network(kind: str, config: NetworkConfig) -> nn.Module:
    """Return a network by name: ``"sslln"``, ``"unet2d"``, ``"fcn2d"``, ``"fcn3d"`` or ``"unet3d"``."""
    kinds: dict[str, Callable[[NetworkConfig], nn.Module]] = {
        "sslln": SSLLN,
        "unet2d": SliceUNet,
        "fcn2d": SliceNetwork,
        "fcn3d": VolumeNetwork,
        "unet3d": UNet3D,
    }
    if kind not in kinds:
        raise ValueError(f"build_network: {kind!r}; needs one of {', '.join(kinds)}.")
    return kinds[kind](config)


class SliceNetwork(nn.Module):
    """2D FCN: the same network for every slice, which sees nothing but that slice."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.plane = SSLLN(replace(config, slices=1, landmark_head="voxels"))

    def forward(self, stack: Tensor) -> Prediction:
        """Predict from stacks of shape (N, S, H, W)."""
        check_stack(stack, self.config.slices)
        n, slices = stack.shape[:2]
        found = self.plane(stack.reshape(n * slices, 1, *stack.shape[2:]))  # N S x C x 1 x H x W
        structures, landmarks = (
            logits[:, :, 0].unflatten(0, (n, slices)).transpose(1, 2) for logits in found
        )
        return Prediction(structures, landmarks)  # N x C x S x H x W


class VolumeNetwork(nn.Module):
    """3D FCN: the topology of `SSLLN` in three dimensions with half the maps, and no landmark head.

    The transposed convolutions, of up to 31x31x31 weights in three dimensions, are replaced by trilinear
    enlargement. Strides along the slices stop where fewer than four slices would be left.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        widths = [max(1, width // 2) for width in config.encoder]
        side, fused = max(1, config.side // 2), max(1, config.fused // 2)
        depth, before = config.slices, 1
        blocks, sides = [], []
        for width, stride, count in zip(widths, STRIDES, CONVOLUTIONS, strict=True):
            along = stride if depth >= 8 else 1
            depth = -(-depth // along)
            blocks.append(convolutions_3d(before, width, (along, stride, stride), count))
            sides.append(convolutions_3d(width, side, (1, 1, 1), 1))
            before = width
        self.blocks, self.sides = nn.ModuleList(blocks), nn.ModuleList(sides)
        self.fuse = convolutions_3d(5 * side, fused, (1, 1, 1), 2)
        self.head = nn.Conv3d(fused, config.structures, 1)

    def forward(self, stack: Tensor) -> Prediction:
        """Predict from stacks of shape (N, S, H, W)."""
        check_stack(stack, self.config.slices)
        x, scales = stack[:, None], []  # 1 x S x H x W
        for block, side in zip(self.blocks, self.sides, strict=True):
            x = block(x)
            scales.append(_enlarge_3d(side(x), stack.shape[1:]))  # 16 x S x H x W
        return Prediction(self.head(self.fuse(torch.cat(scales, dim=1))), None)  # 5 x S x H x W


class UNet3D(nn.Module):
    """3D U-Net: four levels, two convolutions each, skip connections, trilinear enlargement."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.encoder[:4]
        depth, before = config.slices, 1
        down = []
        for level, width in enumerate(widths):
            stride = 1 if level == 0 else 2
            along = stride if depth >= 8 else 1
            depth = -(-depth // along)
            down.append(convolutions_3d(before, width, (along, stride, stride), 2))
            before = width
        self.down = nn.ModuleList(down)
        self.up = nn.ModuleList(
            convolutions_3d(deep + shallow, shallow, (1, 1, 1), 2)
            for deep, shallow in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.head = nn.Conv3d(widths[0], config.structures, 1)

    def forward(self, stack: Tensor) -> Prediction:
        """Predict from stacks of shape (N, S, H, W)."""
        check_stack(stack, self.config.slices)
        x, skips = stack[:, None], []  # 1 x S x H x W
        for block in self.down:
            x = block(x)
            skips.append(x)
        for block, skip in zip(self.up, skips[-2::-1], strict=True):
            x = block(torch.cat([_enlarge_3d(x, skip.shape[2:]), skip], dim=1))
        return Prediction(self.head(x), None)  # 5 x S x H x W


def convolutions_3d(
    before: int, after: int, stride: tuple[int, int, int], count: int
) -> nn.Sequential:
    """Return `count` times 3x3x3 convolution, batch normalisation, ReLU; the first one may stride."""
    layers: list[nn.Module] = []
    for number in range(count):
        channels, step = (before, stride) if number == 0 else (after, (1, 1, 1))
        layers += [
            nn.Conv3d(channels, after, 3, stride=step, padding=1, bias=False),
            nn.BatchNorm3d(after, eps=EPSILON, momentum=MOMENTUM),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


def _enlarge_3d(field: Tensor, shape: torch.Size) -> Tensor:
    if field.shape[2:] == shape:
        return field
    return functional.interpolate(field, size=shape, mode="trilinear", align_corners=False)
