"""The embedded bank: synthetic hearts, built once into the user's cache folder."""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import tempfile
import warnings
from functools import lru_cache
from pathlib import Path

from cardiacreg.anatomy import landmarks
from cardiacreg.atlases import bank_files
from cardiacreg.atlases.bank import AtlasBank
from cardiacreg.atlases.bank_building import build_atlas_bank
from cardiacreg.compute.cache_files import CACHE_VARIABLE, cache_folder
from cardiacreg.errors import CacheWarning, InvalidInputError
from cardiacreg.phantoms import anatomy, hearts, mr_image, population, published_measures, radii
from cardiacreg.phantoms.hearts import HeartSpecification

_temporary_banks: dict[Path, AtlasBank] = {}


def default_specifications() -> tuple[HeartSpecification, ...]:
    """Return what the default bank holds: 46 people, each at end-diastole and end-systole."""
    sizes = {"healthy": 10, "pulmonary_hypertension": 8, "hypertrophic": 24, "dilated": 4}
    return tuple(
        HeartSpecification(seed, group, phase)
        for group, count in sizes.items()
        for seed in range(count)
        for phase in population.PHASES
    )


def default_atlases(*, threads: int | None = None) -> AtlasBank:
    """Open the embedded bank, building it on first use.

    Parameters
    ----------
    threads : int, optional
        Threads for the build; every CPU by default. The result does not depend on it.

    Returns
    -------
    AtlasBank
        At least 64 synthetic hearts with image, labels and landmarks. It lives in the user's cache
        folder, or in the folder named by the environment variable ``CARDIACREG_CACHE``; a change of
        the population model gives a new one, and a damaged one is built again.

    Raises
    ------
    InvalidInputError
        If there is no bank, and neither the cache nor a temporary folder can be written
        (CACHE_NOT_WRITABLE).

    Warns
    -----
    CacheWarning
        If the cache cannot be written and the bank is built for this process only.

    Examples
    --------
    >>> from cardiacreg import default_atlases
    >>> bank = default_atlases()  # doctest: +SKIP
    >>> len(bank)  # doctest: +SKIP
    92
    """
    folder = default_bank_folder()
    try:
        return open_default_bank(folder)
    except InvalidInputError:
        pass  # there is none yet, or it is damaged
    if folder in _temporary_banks:
        return _temporary_banks[folder]
    try:
        return build_atlas_bank(folder, default_specifications(), threads=threads)
    except (OSError, InvalidInputError) as error:
        return _temporary_bank(folder, error, threads)


def default_bank_folder() -> Path:
    """Return where the embedded bank of this version is, or will be."""
    return cache_folder() / f"atlas_bank_{_model_key()}"


def open_default_bank(folder: Path) -> AtlasBank:
    """Open the embedded bank, and look at all of it but voxels, which takes a hundredth of a second.

    Raises
    ------
    InvalidInputError
        If it is missing or damaged (BAD_ATLAS_BANK).
    """
    bank, needed = AtlasBank(folder), len(default_specifications())
    try:
        whole = sum(bank.entry_is_intact(number) for number in range(len(bank)))
    except (ValueError, KeyError, TypeError, AttributeError):
        whole = 0
    if whole < max(needed, len(bank)):
        raise InvalidInputError(
            f"{folder}: holds {whole} whole atlases, needs {max(needed, len(bank))}; remove it with "
            "cardiacreg cache clear --banks.",
            code="BAD_ATLAS_BANK",
        )
    return bank


def _temporary_bank(folder: Path, reason: Exception, threads: int | None) -> AtlasBank:
    """Build the embedded bank for this process, because it cannot be where it should be."""
    why = getattr(reason, "strerror", None) or str(reason)
    try:
        place = Path(tempfile.mkdtemp(prefix="cardiacreg-bank-"))
        atexit.register(_remove, place, os.getpid())
        bank = build_atlas_bank(place / folder.name, default_specifications(), threads=threads)
    except OSError as error:
        raise InvalidInputError(
            f"default_atlases: {folder} cannot be written ({why}), and no temporary folder either "
            f"({error.strerror or error}); set {CACHE_VARIABLE} to a folder with room for 150 MB.",
            code="CACHE_NOT_WRITABLE",
        ) from error
    warnings.warn(
        f"default_atlases: {folder} cannot be written ({why}); the atlases were built for this process "
        f"only, as every process will, which takes about a minute. Set {CACHE_VARIABLE} to a folder "
        "that can be written.",
        CacheWarning,
        stacklevel=3,
    )
    _temporary_banks[folder] = bank
    return bank


def _remove(folder: Path, owner: int) -> None:
    """Remove a folder at the end of the process that made it, not of one forked from it."""
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)


@lru_cache(maxsize=1)
def _model_key() -> str:
    """Digest of what determines the default bank: format, contents and the model's source text."""
    digest = hashlib.sha256(f"{bank_files.FORMAT} {default_specifications()}".encode())
    modules = (
        published_measures,
        radii,
        anatomy,
        population,
        mr_image,
        hearts,
        landmarks,
    )
    for module in modules:
        source = Path(str(module.__file__))
        if source.suffix == ".py" and source.exists():
            digest.update(source.read_bytes())
    return digest.hexdigest()[:16]
