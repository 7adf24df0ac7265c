"""The hearts of a run, and which of them make up which batch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from cardiacreg_nn.configuration import DataConfig
from cardiacreg_nn.preprocessing import Preset
from cardiacreg_nn.sources import (
    Source,
    acdc_folds,
    acdc_sources,
    anatomy_sources,
    synthetic_source,
)

DATA_VARIABLE = "CARDIACREG_DATA"


class TrainingData(NamedTuple):
    """Acquired stacks and high-resolution hearts to train on, and what to validate on."""

    real: list[Source]
    fine: list[Source]
    held_out: list[Source]


def gather(config: DataConfig, preset: Preset, cache: Path | None = None) -> TrainingData:
    """Read or make the hearts of a run.

    Parameters
    ----------
    config : DataConfig
    preset : Preset
    cache : path, optional
        Where synthetic hearts are kept between runs.

    Raises
    ------
    FileNotFoundError
        If data on disk are asked for and ``CARDIACREG_DATA`` does not hold them.
    """
    seeds = range(config.first_seed, config.first_seed + config.synthetic + config.held_out)
    hearts = [cached_synthetic(seed, cache, whole=config.whole_slices) for seed in seeds]
    fine, held_out = hearts[: config.synthetic], hearts[config.synthetic :]
    real: list[Source] = []
    if config.acdc:
        folder = data_folder("acdc")
        folds = acdc_folds(folder, config.folds, config.fold_seed)
        out = set(folds[config.fold]) if config.fold >= 0 else set()
        everyone = [patient for fold in folds for patient in fold]
        real = acdc_sources(folder, set(everyone) - out, preset)
        held_out = held_out + acdc_sources(folder, out, preset)
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
    if cache is None:
        return synthetic_source(seed, whole=whole)
    path = cache / f"{'whole' if whole else 'heart'}_{seed:06d}.npz"
    if path.is_file():
        with np.load(path) as held:
            if "tissues" in held:
                return _from_arrays(dict(held))
    source = synthetic_source(seed, whole=whole)
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
