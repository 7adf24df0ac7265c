"""The 2.5D network of Duan et al. 2019, Fig. 4: labels and landmarks from one stack of slices.

SSLLN, the "simultaneous segmentation and landmark localization network", takes the S slices of a stack
as the channels of one image (H, W) and predicts for every voxel a structure and a landmark class. Shapes
in comments are for one stack; S, the widths and the numbers of classes are configuration, and the
defaults are the paper's, with 3,574,720 trainable parameters.
"""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

STRIDES = (1, 2, 2, 2, 2)
CONVOLUTIONS = (2, 2, 3, 3, 3)
FACTOR = 16
MOMENTUM, EPSILON = 0.01, 1e-3
"""Of batch normalisation in the released code's framework: .99 of the old mean is kept per step."""


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """What an SSLLN looks like; the defaults are the paper's.

    Parameters
    ----------
    slices : int
        S, the slices of a stack; they are the channels of the first layer.
    structures : int
        Segmentation classes with background.
    landmarks : int
        Landmarks; the landmark head has one class more, for "none".
    encoder : tuple of five int
        Feature maps at 1, 1/2, 1/4, 1/8 and 1/16 of the resolution.
    side : int
        Feature maps that each resolution contributes to the concatenation.
    fused : int
        Feature maps of the two convolutions after the concatenation.
    landmark_head : {"voxels", "coordinates"}
        Whether landmarks are classes of voxels (the paper) or coordinates regressed by a fully
        connected layer (its future work).
    """

    slices: int = 80
    structures: int = 5
    landmarks: int = 6
    encoder: tuple[int, ...] = (16, 32, 64, 128, 256)
    side: int = 32
    fused: int = 64
    landmark_head: str = "voxels"

    def __post_init__(self) -> None:
        object.__setattr__(self, "encoder", tuple(self.encoder))
        numbers = (self.slices, self.structures, self.landmarks, self.side, self.fused)
        if len(self.encoder) != 5 or min(*numbers, *self.encoder) < 1:
            raise ValueError(f"NetworkConfig: {asdict(self)}; needs five encoder widths, all >= 1.")
        if self.landmark_head not in ("voxels", "coordinates"):
            raise ValueError(
                f"NetworkConfig: landmark_head is {self.landmark_head!r}; needs 'voxels' or "
                "'coordinates'."
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, for a weight file's card."""
        return asdict(self) | {"encoder": list(self.encoder)}


class Prediction(NamedTuple):
    """What every network of this package returns, as logits.

    Parameters
    ----------
    structures : Tensor, shape (N, classes, S, H, W)
    landmarks : Tensor or None
        Shape (N, landmarks + 1, S, H, W), class 0 is "none"; or (N, landmarks, 3), positions along
        (k, i, j) as shares of half the field, when coordinates are regressed.
    """

    structures: Tensor
    landmarks: Tensor | None


class SSLLN(nn.Module):
    """Simultaneous segmentation and landmark localization network (Fig. 4).

    Parameters
    ----------
    config : NetworkConfig, optional
        The paper's when absent.
    """

    def __init__(self, config: NetworkConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or NetworkConfig()
        e, side = config.encoder, config.side
        self.blocks = nn.ModuleList(
            convolutions(before, after, stride, count)
            for before, after, stride, count in zip(
                (config.slices, *e[:4]), e, STRIDES, CONVOLUTIONS, strict=True
            )
        )
        self.sides = nn.ModuleList(
            nn.Sequential(convolutions(width, side, 1, 1), enlarge(side, 2**level))
            for level, width in enumerate(e)
        )
        self.fuse = convolutions(5 * side, config.fused, 1, 2)
        self.structure_head = nn.Conv2d(config.fused, config.slices * config.structures, 1)
        self.landmark_head: nn.Module
        if config.landmark_head == "voxels":
            self.landmark_head = nn.Conv2d(config.fused, config.slices * (config.landmarks + 1), 1)
        else:
            self.landmark_head = CoordinateHead(e[4], config.landmarks)
        self.apply(initialise)

    def forward(self, stack: Tensor) -> Prediction:
        """Predict from stacks of shape (N, S, H, W), H and W multiples of 16."""
        check_stack(stack, self.config.slices)
        x1 = self.blocks[0](stack)  # S x H x W -> 16 x H x W
        x2 = self.blocks[1](x1)  # -> 32 x H/2 x W/2
        x3 = self.blocks[2](x2)  # -> 64 x H/4 x W/4
        x4 = self.blocks[3](x3)  # -> 128 x H/8 x W/8
        x5 = self.blocks[4](x4)  # -> 256 x H/16 x W/16
        scales = [side(x) for side, x in zip(self.sides, (x1, x2, x3, x4, x5), strict=True)]
        # five times 32 x H x W
        features = self.fuse(torch.cat(scales, dim=1))  # 160 x H x W -> 64 x H x W
        structures = by_slice(self.structure_head(features), self.config.structures)
        # 64 x H x W -> 5 S x H x W -> 5 x S x H x W
        if self.config.landmark_head == "coordinates":
            return Prediction(structures, self.landmark_head(x5))  # 256 x H/16 x W/16 -> 6 x 3
        landmarks = by_slice(self.landmark_head(features), self.config.landmarks + 1)
        # 64 x H x W -> 7 S x H x W -> 7 x S x H x W
        return Prediction(structures, landmarks)


class CoordinateHead(nn.Module):
    """Regress landmark coordinates from the deepest features with fully connected layers."""

    def __init__(self, width: int, landmarks: int) -> None:
        super().__init__()
        self.landmarks = landmarks
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.reduce = nn.Conv2d(width, 64, 1)
        self.connect = nn.Sequential(
            nn.Linear(64 * 16, 128), nn.ReLU(), nn.Linear(128, landmarks * 3)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Map (N, width, h, w) to (N, landmarks, 3)."""
        pooled = self.pool(self.reduce(features))  # width x h x w -> 64 x 4 x 4
        found: Tensor = self.connect(pooled.flatten(1))  # 1024 -> 18
        return found.view(-1, self.landmarks, 3)  # 6 x 3


def convolutions(before: int, after: int, stride: int, count: int) -> nn.Sequential:
    """Return `count` times 3x3 convolution, batch normalisation, ReLU; the first one may stride."""
    layers: list[nn.Module] = []
    for number in range(count):
        channels, step = (before, stride) if number == 0 else (after, 1)
        layers += [
            nn.Conv2d(channels, after, 3, stride=step, padding=1, bias=False),
            nn.BatchNorm2d(after, eps=EPSILON, momentum=MOMENTUM),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


def enlarge(width: int, factor: int) -> nn.Module:
    """Return a transposed convolution that enlarges by `factor`, of kernel 2 factor - 1."""
    if factor == 1:
        return nn.Identity()
    return nn.ConvTranspose2d(
        width, width, 2 * factor - 1, stride=factor, padding=factor - 1, output_padding=factor - 1
    )


def initialise(module: nn.Module) -> None:
    """Initialise transposed convolutions as bilinear enlargement per map, the others as usual."""
    if isinstance(module, nn.ConvTranspose2d):
        size, factor = module.kernel_size[0], module.stride[0]
        ramp = 1 - (torch.arange(size) - (size - 1) / 2).abs() / factor
        with torch.no_grad():
            module.weight.normal_(0.0, 0.001)
            for channel in range(module.in_channels):
                module.weight[channel, channel] += torch.outer(ramp, ramp)
            if module.bias is not None:
                module.bias.zero_()
    elif isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def by_slice(logits: Tensor, classes: int) -> Tensor:
    """Turn channels that run slice by slice, class by class, into (N, classes, S, H, W)."""
    n, channels, height, width = logits.shape
    return logits.view(n, channels // classes, classes, height, width).transpose(1, 2)


def check_stack(stack: Tensor, slices: int | None = None) -> None:
    """Raise ValueError unless a batch is (N, S, H, W) with H and W multiples of 16."""
    if stack.ndim != 4 or stack.shape[2] % FACTOR or stack.shape[3] % FACTOR:
        raise ValueError(
            f"the stack has shape {tuple(stack.shape)}; needs (N, S, H, W), H and W multiples of "
            f"{FACTOR}: pad it (cardiacreg_nn.inference.preprocessing does)."
        )
    if slices is not None and stack.shape[1] != slices:
        raise ValueError(
            f"the stack has {stack.shape[1]} slices, the network is made for {slices}: pad or "
            "resample it (cardiacreg_nn.inference.preprocessing does)."
        )


def count_parameters(network: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def fold_normalisation(network: nn.Module) -> nn.Module:
    """Return a copy for evaluation, in which batch normalisation is part of the convolution before it.

    It predicts the same up to rounding, in less time, and can no longer be trained.
    """
    network = copy.deepcopy(network).eval()
    blocks = [module for module in network.modules() if isinstance(module, nn.Sequential)]
    for block in blocks:
        for number in range(len(block) - 1):
            layer, norm = block[number], block[number + 1]
            if isinstance(layer, nn.Conv2d | nn.Conv3d) and isinstance(
                norm, nn.BatchNorm2d | nn.BatchNorm3d
            ):
                block[number], block[number + 1] = fuse_conv_bn_eval(layer, norm), nn.Identity()
    return network
