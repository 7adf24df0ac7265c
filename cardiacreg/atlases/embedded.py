"""The embedded bank: synthetic hearts that come with the package (`packed`)."""

from __future__ import annotations

from cardiacreg.atlases.bank import AtlasBank
from cardiacreg.atlases.packed import PackedBank, content_sha256
from cardiacreg.phantoms import population
from cardiacreg.phantoms.hearts import HeartSpecification

CONTENT_SHA256 = "e984d8c128560e57eeb6a1d7f635f2c44c1e765192564740932d07e8fb3161f9"
"""What `default_specifications` gave when the bank was written; of another processor's hearts single
voxels may differ, which is why they are stored."""


def default_specifications() -> tuple[HeartSpecification, ...]:
    """Return what the default bank holds: 46 people, each at end-diastole and end-systole."""
    sizes = {"healthy": 10, "pulmonary_hypertension": 8, "hypertrophic": 24, "dilated": 4}
    return tuple(
        HeartSpecification(seed, group, phase)
        for group, count in sizes.items()
        for seed in range(count)
        for phase in population.PHASES
    )


def default_atlases() -> AtlasBank:
    """Open the embedded bank.

    Returns
    -------
    AtlasBank
        92 synthetic hearts with labels and landmarks. It comes with the package. An image is made from
        the heart's seed when it is asked for, a quarter of a second each, and kept in the process.

    Raises
    ------
    InvalidInputError
        If the installation is damaged (BAD_ATLAS_BANK).

    Examples
    --------
    >>> from cardiacreg import default_atlases
    >>> bank = default_atlases()
    >>> len(bank), bank.names[0], bank.without_image(0).labels.shape
    (92, 'healthy_ED_00000', (109, 96, 60))
    """
    return PackedBank()


def default_bank_key() -> str:
    """Return what changes with the embedded bank."""
    return content_sha256()
