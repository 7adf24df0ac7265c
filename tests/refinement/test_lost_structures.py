"""A structure that the model lost is never passed over: the input is refused, or the result says so."""

import numpy as np
import pytest

from cardiacreg import InvalidInputError, LabelMap, Subject
from cardiacreg.errors import kept_warnings
from cardiacreg.refinement._refine import refine
from tests.helpers.small_hearts import relabelled
from tests.helpers.tiny_bank import SPACING_MM, tiny_atlases, tiny_options, tiny_target


def with_scar(labels, *, rv):
    """A scar of label 3 in a third of the wall, in a map with or without an RV (4)."""
    array = np.where(labels.array == 3, 0, labels.array)
    i, j = np.indices(labels.shape[:2])
    sector = (np.arctan2(j - 20, i - 24) > 1.0)[:, :, None]
    array = np.where((array == 2) & sector, 3, array)
    return LabelMap(array if rv else np.where(array == 4, 0, array), labels.voxel_to_world)


def one_label(labels, wanted):
    return LabelMap(np.where(np.isin(labels.array, wanted), 1, 0), labels.voxel_to_world)


def others(mapping):
    """Atlases in another convention than they say."""
    return [Subject(relabelled(each.labels, mapping)) for each in tiny_atlases()]


TARGET = tiny_target().labels
KINDS = {
    "scar for RV": (with_scar(TARGET, rv=False), "mms", None),
    "scar for RV wall": (with_scar(TARGET, rv=True), None, None),
    "atlases: cavities exchanged": (TARGET, None, others({1: 4, 4: 1})),
    "atlases: as ACDC": (TARGET, None, others({1: 3, 3: 0, 4: 1})),
    "atlases: wall and cavity exchanged": (TARGET, None, others({1: 2, 2: 1})),
    "all myocardium as 1": (one_label(TARGET, (2, 3)), None, None),
    "whole heart as 1": (one_label(TARGET, (1, 2, 3, 4)), None, None),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_lost_structure_is_refused_or_told(kind):
    labels, preset, atlases = KINDS[kind]
    with kept_warnings() as notes:
        try:
            result = refine(
                labels, preset=preset, atlases=atlases or tiny_atlases(), threads=1,
                spacing_mm=SPACING_MM, options=tiny_options(),
            )  # fmt: skip
        except InvalidInputError as error:
            assert len(str(error)) > 60
            return
    lost = {name for name, dice in result.agreement.items() if dice is not None and dice < 0.05}
    failed = [found for found in result.findings if found.code == "FAILED_AGREEMENT"]
    assert notes and (not lost or failed)
    for name in lost:
        assert name in failed[0].message
