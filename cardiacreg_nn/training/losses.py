"""The training objective, eqs. (1) to (3) of Duan et al. 2019, and what the released code did instead.

``L = L_D + alpha L_L + beta ||W||^2``: Dice loss over structures, class-balanced cross-entropy over
landmark voxels, weight decay. `LossConfig` holds one switch for every point in which the released code
differs from the text, and for the two points where we do.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from cardiacreg_nn.data.augmentation import Target
from cardiacreg_nn.networks.sslln import Prediction


@dataclass(frozen=True, slots=True)
class LossConfig:
    """Weights and variants of the objective; the defaults are what our weights are trained with.

    Parameters
    ----------
    dice : {"sample", "class"}
        One ratio per sample with sums over classes inside, eq. (2); or the mean of one ratio per class
        (released code).
    alpha : float
        Weight of the landmark loss; 0 in the released code.
    beta : float
        Weight of the squared Frobenius norm of all weights; 0 in the released code. The text gives
        three numbers (.8, .2 and 5e-5) for two weights; .2 is read literally by `paper`, and drives
        the weights to zero.
    landmark_sum : {"sum", "balanced"}
        Sum over voxels, eq. (3); or divided by the sum of weights, so that its size does not depend on
        the number of landmarks in the field. The released code's mean over voxels is ``"mean"``.
    background_factor : float
        Factor of the weight of voxels without a landmark; 50 in the released code.
    landmark_reach : int
        A landmark marks so many voxels on either side along the slice axis; 1 in the released code.
    cross_entropy : float
        Weight of a cross-entropy over structures, which the paper does not have.
    epsilon : float
        Keeps ratios from dividing by zero.
    """

    dice: str = "class"
    alpha: float = 0.8
    beta: float = 5e-5
    landmark_sum: str = "balanced"
    background_factor: float = 1.0
    landmark_reach: int = 0
    cross_entropy: float = 1.0
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        if self.dice not in ("sample", "class"):
            raise ValueError(f"LossConfig: dice is {self.dice!r}; needs 'sample' or 'class'.")
        if self.landmark_sum not in ("sum", "mean", "balanced"):
            raise ValueError(
                f"LossConfig: landmark_sum is {self.landmark_sum!r}; needs 'sum', 'mean' or 'balanced'."
            )

    @classmethod
    def paper(cls) -> LossConfig:
        """Return eqs. (1) to (3) as printed."""
        return cls("sample", 0.8, 0.2, "sum", 1.0, 0, 0.0)

    @classmethod
    def released(cls) -> LossConfig:
        """Return what the released code computed."""
        return cls("class", 0.0, 0.0, "mean", 50.0, 1, 0.0)

    def to_dict(self) -> dict[str, float | int | str]:
        """Return the fields as plain values."""
        return asdict(self)


def objective(
    prediction: Prediction, target: Target, network: nn.Module, config: LossConfig
) -> dict[str, Tensor]:
    """Return the terms of eq. (1) and their weighted sum.

    Parameters
    ----------
    prediction : Prediction
    target : Target
    network : Module
        Whose parameters decay.
    config : LossConfig

    Returns
    -------
    dict of str to Tensor
        ``dice``, ``landmarks``, ``cross_entropy``, ``decay`` and ``total``, scalars.
    """
    logits = prediction.structures.float()
    terms = {"dice": dice_loss(logits, target, config)}
    zero = logits.new_zeros(())
    terms["cross_entropy"] = (
        structure_cross_entropy(logits, target) if config.cross_entropy else zero
    )
    terms["landmarks"] = zero
    if config.alpha and prediction.landmarks is not None:
        if prediction.landmarks.ndim == 3:
            shape = target.structures.shape[1:]
            terms["landmarks"] = coordinate_loss(prediction.landmarks.float(), target, shape)
        else:
            terms["landmarks"] = landmark_loss(prediction.landmarks.float(), target, config)
    terms["decay"] = weight_norm(network) if config.beta else zero
    terms["total"] = (
        terms["dice"]
        + config.cross_entropy * terms["cross_entropy"]
        + config.alpha * terms["landmarks"]
        + config.beta * terms["decay"]
    )
    return terms


def known_log_probabilities(logits: Tensor, known: Tensor) -> Tensor:
    """Return log probabilities in which structures that a sample does not label count as background.

    Parameters
    ----------
    logits : Tensor, shape (N, classes, S, H, W)
    known : Tensor, shape (N, classes), bool
        Class 0 is always known.

    Returns
    -------
    Tensor, shape (N, classes, S, H, W)
        Unknown classes hold the logarithm of a probability near 0.
    """
    logs = functional.log_softmax(logits, dim=1)
    if bool(known.all()):
        return logs
    hidden = ~known[:, :, None, None, None]
    lowest = torch.full_like(logs, -30.0)
    merged = torch.where(hidden, logs, lowest)
    merged = torch.cat([logs[:, :1], merged[:, 1:]], dim=1).logsumexp(dim=1, keepdim=True)
    return torch.cat([merged, torch.where(hidden, lowest, logs)[:, 1:]], dim=1)


def dice_loss(logits: Tensor, target: Target, config: LossConfig) -> Tensor:
    """Return eq. (2) as 1 - Dice, averaged over samples; per class where the config says so."""
    probability = known_log_probabilities(logits, target.known).exp()
    truth = functional.one_hot(target.structures, logits.shape[1]).movedim(-1, 1).float()
    overlap = (probability * truth).sum(dim=(2, 3, 4))
    size = (probability.square() + truth).sum(dim=(2, 3, 4))
    if config.dice == "sample":
        return 1 - (2 * overlap.sum(1) / (size.sum(1) + config.epsilon)).mean()
    ratio = 2 * overlap / (size + config.epsilon)
    known = target.known.float()
    return 1 - ((ratio * known).sum(1) / known.sum(1)).mean()


def structure_cross_entropy(logits: Tensor, target: Target) -> Tensor:
    """Return the mean cross-entropy over voxels."""
    logs = known_log_probabilities(logits, target.known)
    return functional.nll_loss(logs, target.structures)


def landmark_classes(target: Target, reach: int = 0) -> Tensor:
    """Return the landmark class of every voxel, (N, S, H, W): 0 none, n the n-th landmark.

    A landmark that is unknown or outside the field marks nothing.
    """
    shape = torch.tensor(target.structures.shape[1:], device=target.landmarks.device)
    classes = torch.zeros_like(target.structures)
    nearest = torch.nan_to_num(target.landmarks, nan=-1e6).round().long()
    for offset in range(-reach, reach + 1):
        place = nearest + torch.tensor([offset, 0, 0], device=nearest.device)
        inside = ((place >= 0) & (place < shape)).all(-1)
        sample, number = inside.nonzero(as_tuple=True)
        k, i, j = place[sample, number].unbind(-1)
        classes[sample, k, i, j] = number + 1
    return classes


def landmark_loss(logits: Tensor, target: Target, config: LossConfig) -> Tensor:
    """Return eq. (3), averaged over samples: cross-entropy with weights ``1 - |Y_k| / |Y|``."""
    classes = landmark_classes(target, config.landmark_reach)
    counts = functional.one_hot(classes, logits.shape[1]).sum(dim=(1, 2, 3)).float()
    weights = 1 - counts / counts.sum(1, keepdim=True)
    weights = weights * torch.tensor(
        [config.background_factor] + [1.0] * (logits.shape[1] - 1), device=logits.device
    )
    logs = functional.log_softmax(logits, dim=1).clamp_min(-30.0)
    own = logs.gather(1, classes[:, None])[:, 0]
    weight = weights.gather(1, classes.flatten(1)).view_as(own)
    total = -(weight * own).sum(dim=(1, 2, 3))
    if config.landmark_sum == "sum":
        return total.mean()
    if config.landmark_sum == "mean":
        return (total / (own[0].numel() * logits.shape[1])).mean()
    return (total / weight.sum(dim=(1, 2, 3)).clamp_min(1e-6)).mean()


def coordinate_loss(found: Tensor, target: Target, shape: torch.Size) -> Tensor:
    """Return the mean absolute error of regressed coordinates, in shares of half the field."""
    half = (torch.tensor(shape, device=found.device, dtype=torch.float32) - 1) / 2
    truth = (target.landmarks - half) / half
    known = torch.isfinite(truth)
    error = (found - torch.nan_to_num(truth)).abs() * known
    return error.sum() / known.sum().clamp_min(1)


def weight_norm(network: nn.Module) -> Tensor:
    """Return the squared Frobenius norm of all convolution and linear weights."""
    weights = [p for p in network.parameters() if p.requires_grad and p.ndim > 1]
    return torch.stack([w.square().sum() for w in weights]).sum()
