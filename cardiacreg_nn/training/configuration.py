"""What a training run is: one TOML file, checked before any work starts."""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from cardiacreg_nn.data.augmentation import AugmentationOptions
from cardiacreg_nn.data.batches import DataConfig
from cardiacreg_nn.data.view_planes import ViewOptions
from cardiacreg_nn.inference.preprocessing import NetworkBox
from cardiacreg_nn.networks.sslln import NetworkConfig
from cardiacreg_nn.training.losses import LossConfig

KINDS = ("sslln", "unet2d", "fcn2d", "fcn3d", "unet3d")


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """How to train.

    Parameters
    ----------
    kind : {"sslln", "unet2d", "fcn2d", "fcn3d", "unet3d"}
    steps, batch : int
        Optimiser steps; volumes per step and process.
    learning_rate : float
        Of Adam at its peak; it rises over `warmup` steps and falls along a cosine where `cosine`.
    cosine : bool
        Otherwise the rate stays (the paper).
    warmup : int
    mixed : bool
        bfloat16 where numbers allow it and the device computes in it.
    average : float
        Share of the old mean kept per step in the running mean of weights that is exported; 0 exports
        the last weights.
    statistics : int
        Batches over which the exported network's batch normalisation is measured.
    log_every, checkpoint_every : int
        In steps; a checkpoint includes a validation.
    seed : int
    """

    kind: str = "sslln"
    steps: int = 1000
    batch: int = 8
    learning_rate: float = 1e-3
    cosine: bool = True
    warmup: int = 20
    mixed: bool = True
    average: float = 0.98
    statistics: int = 24
    log_every: int = 10
    checkpoint_every: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"training.kind is {self.kind!r}; needs one of {', '.join(KINDS)}.")
        if min(self.steps, self.batch, self.log_every, self.checkpoint_every) < 1:
            raise ValueError("training: steps, batch, log_every and checkpoint_every need >= 1.")


@dataclass(frozen=True, slots=True)
class Config:
    """A whole run."""

    network: NetworkConfig = field(default_factory=NetworkConfig)
    box: NetworkBox = field(default_factory=NetworkBox)
    loss: LossConfig = field(default_factory=LossConfig)
    augmentation: AugmentationOptions = field(default_factory=AugmentationOptions)
    views: ViewOptions = field(default_factory=ViewOptions)
    data: DataConfig = field(default_factory=DataConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        if self.network.slices != self.box.shape[2]:
            raise ValueError(
                f"network.slices is {self.network.slices} and box.shape is {self.box.shape}; "
                "the third number of the shape must be the number of slices."
            )
        if self.data.long_axis and (self.network.slices != 1 or self.data.acdc):
            raise ValueError(
                "data.long_axis cuts single slices from synthetic hearts: needs network.slices = 1 and "
                "no acquired stacks (data.acdc)."
            )

    def to_dict(self) -> dict[str, Any]:
        """Return nested plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Config:
        """Make a configuration from nested plain values; unknown names are refused."""
        parts = {f.name: f.default_factory for f in fields(cls)}
        _refuse_unknown("the configuration", values, parts)
        made = {}
        for name, make in parts.items():
            part = make  # the class of the part
            known = {f.name: f for f in fields(part)}  # type: ignore[arg-type]
            given = dict(values.get(name, {}))
            _refuse_unknown(f"[{name}]", given, known)
            given = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
            made[name] = part(**given)  # type: ignore[operator]
        return cls(**made)


def read_config(path: Path | str) -> Config:
    """Read a TOML file.

    Raises
    ------
    ValueError
        If it is not TOML, holds an unknown name, or a value that cannot be.
    """
    try:
        values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        return Config.from_dict(values)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error


def _refuse_unknown(where: str, given: dict[str, Any], known: dict[str, Any]) -> None:
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ValueError(f"{where} holds {unknown}; known are {sorted(known)}.")
