"""The hearts of a run, and which of them make up which batch."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from cardiacreg_nn.data.training_hearts import (
    Source,
    acdc_folds,
    acdc_sources,
    anatomy_sources,
    synthetic_source,
)
from cardiacreg_nn.data.view_hearts import view_heart
from cardiacreg_nn.inference.preprocessing import NetworkBox

DATA_VARIABLE = "CARDIACREG_DATA"


@dataclass(frozen=True, slots=True)
class DataConfig:
    """What to train on.

    Parameters
    ----------
    synthetic : int
        Number of synthetic hearts; further ones are held out.
    first_seed : int
        Seed of the first; from 10,000 on, where the embedded atlas bank has none.
    held_out : int
        Number of synthetic hearts to validate on.
    whole_slices : bool
        Whether synthetic hearts are labelled as people label stacks: at the base a slice shows the
        ventricles whole or not at all.
    long_axis : bool
        Whether synthetic hearts are made to cut long-axis views from: whole, with atria, at random times
        of the cycle.
    acdc : bool
        Whether to train on ACDC, from the folder ``acdc`` in the data folder.
    anatomies : tuple of str
        High-resolution label maps of ``hr_bank`` in the data folder.
    folds, fold, fold_seed : int
        The patients of one fold are held out; ``fold = -1`` trains on all.
    real_share : float
        Share of a batch that is drawn from acquired stacks.
    """

    synthetic: int = 200
    first_seed: int = 20_000
    held_out: int = 8
    whole_slices: bool = False
    long_axis: bool = False
    acdc: bool = False
    anatomies: tuple[str, ...] = ()
    folds: int = 5
    fold: int = 0
    fold_seed: int = 0
    real_share: float = 0.75


class TrainingData(NamedTuple):
    """Acquired stacks and high-resolution hearts to train on, and what to validate on."""

    real: list[Source]
    fine: list[Source]
    held_out: list[Source]


def gather(config: DataConfig, box: NetworkBox, cache: Path | None = None) -> TrainingData:
    """Read or make the hearts of a run.

    Parameters
    ----------
    config : DataConfig
    box : NetworkBox
    cache : path, optional
        Where synthetic hearts are kept between runs.

    Raises
    ------
    FileNotFoundError
        If data on disk are asked for and ``CARDIACREG_DATA`` does not hold them.
    """
    seeds = range(config.first_seed, config.first_seed + config.synthetic + config.held_out)
    if config.long_axis:
        hearts = [_cached(cache, f"view_{seed:06d}", partial(view_heart, seed)) for seed in seeds]
    else:
        hearts = [cached_synthetic(seed, cache, whole=config.whole_slices) for seed in seeds]
    fine, held_out = hearts[: config.synthetic], hearts[config.synthetic :]
    real: list[Source] = []
    if config.acdc:
        folder = data_folder("acdc")
        folds = acdc_folds(folder, config.folds, config.fold_seed)
        out = set(folds[config.fold]) if config.fold >= 0 else set()
        everyone = [patient for fold in folds for patient in fold]
        real = acdc_sources(folder, set(everyone) - out, box)
        held_out = held_out + acdc_sources(folder, out, box)
    if config.anatomies:
        fine = fine + anatomy_sources(data_folder("hr_bank"), config.anatomies)
    return TrainingData(real, fine, held_out)


def data_folder(name: str) -> Path:
    """Return a data set's folder under ``CARDIACREG_DATA``."""
    root = os.environ.get(DATA_VARIABLE)
    if root is None or not (Path(root) / name).is_dir():
        raise FileNotFoundError(
            f"the configuration asks for {name}; set {DATA_VARIABLE} to the folder that holds {name}/."
        )
    return Path(root) / name


def cached_synthetic(seed: int, cache: Path | None, *, whole: bool = False) -> Source:
    """Return a synthetic heart, from the cache where it is there."""
    name = f"{'whole' if whole else 'heart'}_{seed:06d}"
    return _cached(cache, name, partial(synthetic_source, seed, whole=whole))


def _cached(cache: Path | None, name: str, make: Callable[[], Source]) -> Source:
    if cache is None:
        return make()
    path = cache / f"{name}.npz"
    if path.is_file():
        with np.load(path) as held:
            if "tissues" in held:
                return _from_arrays(dict(held))
    source = make()
    cache.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.tmp")
    with part.open("wb") as file:
        arrays: dict[str, Any] = {n: np.asarray(getattr(source, n)) for n in Source.__slots__}
        np.savez_compressed(file, **arrays)
    part.replace(path)
    return source


def _from_arrays(held: dict[str, np.ndarray]) -> Source:
    return Source(
        held["image"],
        held["labels"],
        held["spacing_mm"],
        held["landmarks_mm"],
        tuple(bool(v) for v in held["known"]),
        bool(held["fine"]),
        (int(held["extent"][0]), int(held["extent"][1])),
        str(held["name"]),
        str(held["group"]),
        str(held["phase"]),
        held["tissues"],
    )


def step_generator(seed: int, step: int, rank: int) -> torch.Generator:
    """Return the random numbers of one step of one process: a resumed run draws the same."""
    numbers = np.random.SeedSequence([seed, step % 2**32, rank]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(numbers[0] >> np.uint64(1)))


def choose(data: TrainingData, batch: int, real_share: float, rng: torch.Generator) -> list[Source]:
    """Draw the hearts of one batch."""
    chosen = []
    for _ in range(batch):
        take_real = bool(torch.rand((), generator=rng) < real_share)
        pool = (data.real or data.fine) if take_real else (data.fine or data.real)
        chosen.append(pool[int(torch.randint(len(pool), (), generator=rng))])
    return chosen
