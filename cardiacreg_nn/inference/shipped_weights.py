"""The weights that come with the project: where they lie, which one is the default, what they must be.

The free ones are part of this package. Those under another licence are a distribution of their own, which
names its package under the entry point ``cardiacreg.weights``; a checkout has them in ``weights``. Their
packages are never imported, and nothing is ever downloaded. Needs no torch.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

from cardiacreg.errors import InputWarning, InvalidInputError

GROUP = "cardiacreg.weights"
SHIPPED = Path(__file__).parents[1] / "shipped"
CHECKOUT = Path(__file__).parents[2] / "weights"
SUFFIX = ".safetensors"

DEFAULTS = ("unet2d_acdc", "unet2d_synthetic")
"""The first of these that is there is used where none is named."""

VIEW_DEFAULT = "unet2d_views"
"""Used for long-axis views where none is named."""

PINNED = {
    "acdc": {
        "fcn2d_acdc": "dbf7f89d18d67e18927e9f6adaae55744f50464a6f1621675d5930002bcca03c",
        "sslln_lr_acdc": "3143243170f4b3eedf0e6c814a113a31e310df1733f1e57a2259a9e2cc6c6b61",
        "unet2d_acdc": "e4281e1cdddec170b3d959f5c711147f0f904ef82bfb58130622aec4bb5e2877",
    },
    "synthetic": {
        "sslln_lr_synthetic": "4e6d1bdc41c79652df3c8e5e17515b1609b0ddb5f2af05634d584fd4512e2908",
        "unet2d_synthetic": "896cbd80da17ff1f01282319567ebbb6fa5505ebf4fe4b985f22caa054de8940",
        "unet2d_views": "8e4de0b52f5c8cd9ebd09296cea822cc2237d197052ad54dfed10bfbbdf5e09e",
    },
}
"""SHA-256 of every weight file of this project, by set and name."""


def weight_folders() -> dict[str, Path]:
    """Return the folders of the weights that are there, by the name of their set.

    Returns
    -------
    dict of str to Path
        Those of this package first, then those of the checkout, then those of installed distributions;
        a set that was found once is not replaced.
    """
    found: dict[str, Path] = {}
    for name, folder in (*_own(), *_of_the_checkout(), *_installed()):
        found.setdefault(name, folder)
    return found


def weight_files() -> dict[str, Path]:
    """Return the weight files that are there by their names, ordered by set and name."""
    files: dict[str, Path] = {}
    for _, folder in sorted(weight_folders().items()):
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            files.setdefault(path.stem, path)
    return files


def default_weights() -> Path:
    """Return the weight file that is used where none is named.

    Raises
    ------
    InvalidInputError
        If none of `DEFAULTS` is there (NO_WEIGHTS).

    Warns
    -----
    InputWarning
        If it is not the first of `DEFAULTS`.
    """
    files = weight_files()
    best, *_ = DEFAULTS
    for name in DEFAULTS:
        if name not in files:
            continue
        if name != best:
            warnings.warn(
                f"predict: the weights {best} are not installed, so {name} are used, which saw no "
                f"patient and agree less with experts. For {best}, which are not for commercial use: "
                f"{how_to_install(best)}. To ask for {name}, name them as the weights.",
                InputWarning,
                stacklevel=2,
            )
        return files[name]
    raise _missing(best)


def weight_path(weights: str | os.PathLike[str]) -> Path:
    """Return the file of weights that are given by their path or, those of the project, by their name.

    Raises
    ------
    InvalidInputError
        If the name is of this project and its distribution is not installed (NO_WEIGHTS).
    """
    path = Path(weights)
    if path.suffix or path.exists():
        return path
    name = os.fspath(weights)
    if name in (files := weight_files()):
        return files[name]
    if any(name in pins for pins in PINNED.values()):
        raise _missing(name)
    return path


def pinned_sha256(path: Path) -> str | None:
    """Return the SHA-256 that a file must have; none for a file that is not of this project."""
    folder = path.resolve().parent
    for name, own in weight_folders().items():
        if own.resolve() == folder:
            return PINNED.get(name, {}).get(path.stem)
    return None


def how_to_install(name: str) -> str:
    """Return the command that brings weights of this project."""
    if name not in PINNED["acdc"]:
        return 'pip install --force-reinstall "cardiacreg[nn]"'
    return "pip install cardiacreg-weights-acdc (in a checkout: pip install ./weights/acdc)"


def _missing(name: str) -> InvalidInputError:
    return InvalidInputError(
        f"cardiacreg_nn: the weights {name} are not installed; {how_to_install(name)}.",
        code="NO_WEIGHTS",
    )


def _own() -> Iterator[tuple[str, Path]]:
    for folder in sorted(SHIPPED.glob("*/")):
        yield folder.name, folder


def _of_the_checkout() -> Iterator[tuple[str, Path]]:
    for project in sorted(CHECKOUT.glob("*/pyproject.toml")):
        name = project.parent.name
        folder = project.parent / f"cardiacreg_weights_{name}"
        if folder.is_dir():
            yield name, folder


def _installed() -> Iterator[tuple[str, Path]]:
    """View at what distributions say of themselves, without importing them."""
    for point in sorted(entry_points(group=GROUP)):
        spec = find_spec(point.module.partition(".")[0])
        if spec is not None and spec.origin is not None:
            yield point.name, Path(spec.origin).parent
