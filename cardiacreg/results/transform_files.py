"""The transforms of a result as files: all in one of ours, or one by one for MIRTK and ITK."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from cardiacreg.errors import InvalidInputError

if TYPE_CHECKING:
    from cardiacreg.results.result import RefineResult
    from cardiacreg.transforms.ffd import FFD
    from cardiacreg.transforms.ffd_chain import FFDChain

BUNDLE = "transforms.npz"
SINGLE_FORMATS = ("dof", "tfm", "h5")
FORMATS = ("npz", *SINGLE_FORMATS)
MOST_SINGLE_FILES = 99
"""So many names are known as ours, and removed with an earlier result."""
NAMES = (
    BUNDLE,
    *(f"atlas_{n}.{form}" for n in range(1, MOST_SINGLE_FILES + 1) for form in SINGLE_FORMATS),
)


def checked_formats(formats: str | Sequence[str]) -> tuple[str, ...]:
    """Return the formats of transforms that are asked for, each once.

    Parameters
    ----------
    formats : sequence of {"npz", "dof", "tfm", "h5"}, or one of them

    Raises
    ------
    InvalidInputError
        If one is unknown (BAD_OPTION), or needs h5py where that is not installed (NO_H5PY).
    """
    wanted = (formats,) if isinstance(formats, str) else tuple(formats)
    unknown = [each for each in wanted if each not in FORMATS]
    if unknown:
        raise InvalidInputError(
            f"transforms in the format {unknown[0]!r}; needs some of {', '.join(FORMATS)}.",
            code="BAD_OPTION",
        )
    if "h5" in wanted and find_spec("h5py") is None:
        raise InvalidInputError(
            "transforms in the format h5 need h5py; install it (pip install h5py) or take tfm.",
            code="NO_H5PY",
        )
    return tuple(dict.fromkeys(wanted))


def transform_contents(result: RefineResult, formats: str | Sequence[str]) -> dict[str, bytes]:
    """Return the files of a result's transforms, by name.

    Parameters
    ----------
    result : RefineResult
    formats : sequence of {"npz", "dof", "tfm", "h5"}

    Returns
    -------
    dict of str to bytes
        Names are among `NAMES`; empty where no format is given.

    Raises
    ------
    InvalidInputError
        As `checked_formats`; if the result holds no transforms (NO_TRANSFORMS), there are more than
        `MOST_SINGLE_FILES` for one file each, or MIRTK's format cannot hold them (BAD_TYPE).
    """
    wanted, transforms = checked_formats(formats), result.transforms
    if not wanted:
        return {}
    if not transforms:
        raise InvalidInputError(
            "the result holds no transforms to write; refine anew.", code="NO_TRANSFORMS"
        )
    found = {}
    if "npz" in wanted:
        from cardiacreg.transforms.files_bundle import bundle_content

        found[BUNDLE] = bundle_content(transforms, [atlas.name for atlas in result.atlases])
    singles = [each for each in wanted if each in SINGLE_FORMATS]
    if singles and len(transforms) > MOST_SINGLE_FILES:
        raise InvalidInputError(
            f"{len(transforms)} transforms in the format {singles[0]}, one file each; needs at most "
            f"{MOST_SINGLE_FILES}, or the format npz.",
            code="BAD_OPTION",
        )
    for number, transform in enumerate(transforms, start=1):
        found |= {f"atlas_{number}.{form}": _content(transform, form) for form in singles}
    return found


def _content(transform: FFD | FFDChain, form: str) -> bytes:
    from cardiacreg.transforms.ffd import FFD
    from cardiacreg.transforms.files_itk import itk_content
    from cardiacreg.transforms.files_mirtk import dof_content

    if form == "dof":
        if not isinstance(transform, FFD):
            raise InvalidInputError(
                "transforms in the format dof: a chain of deformations, which MIRTK's files cannot hold; "
                "take npz, tfm or h5.",
                code="BAD_TYPE",
            )
        return dof_content(transform)
    content = itk_content(transform, f".{form}")
    assert content is not None
    return content
