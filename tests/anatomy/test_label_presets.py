from itertools import permutations

import nibabel
import numpy as np
import pytest
from hypothesis import given, strategies as st

from cardiacreg import InputWarning, InvalidInputError, LabelMap
from cardiacreg.anatomy.label_presets import (
    ALIASES,
    PRESETS,
    canonical_labels,
    check_anatomy,
    fitting_presets,
    preset_mapping,
)
from tests.helpers.small_hearts import data_folder, matrix, relabelled, small_heart

AS_STORED = {
    "sslln": {},
    "digital_heart": {},
    "acdc": {1: 3, 2: 2, 4: 1},
    "mms": {1: 1, 2: 2, 4: 3},
    "totalsegmentator": {1: 3, 2: 1, 4: 5},
    "totalsegmentator_v1": {1: 46, 2: 44, 4: 48},
}


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_recovers_the_canonical_labels(preset):
    heart = small_heart()
    stored = relabelled(heart, AS_STORED[preset])
    labels = canonical_labels(stored, preset)
    np.testing.assert_array_equal(labels.array, heart.array)
    check_anatomy(stored, preset)
    assert preset in fitting_presets(stored)


# Without an RV wall, sslln and digital_heart are the same convention.
CONFUSED = [
    (preset, wrong)
    for preset, wrong in permutations(PRESETS, 2)
    if {preset, wrong} != {"sslln", "digital_heart"}
]


@pytest.mark.parametrize(("preset", "wrong"), CONFUSED)
def test_every_wrong_preset_is_refused_and_the_right_one_named(preset, wrong):
    stored = relabelled(small_heart(), AS_STORED[preset])
    with pytest.raises(InvalidInputError, match=repr(preset)) as error:
        check_anatomy(stored, wrong)
    assert error.value.code in ("UNEXPECTED_LABEL", "WRONG_PRESET")


@pytest.mark.parametrize("alias", ALIASES)
def test_aliases_mean_their_preset(alias):
    assert preset_mapping(alias.upper()) == PRESETS[ALIASES[alias]]


def test_none_accepts_canonical_labels_with_and_without_the_rv_wall():
    for heart in (small_heart(), small_heart(rv_wall=True)):
        assert canonical_labels(heart) is heart
        check_anatomy(heart)


def test_rv_wall_makes_digital_heart_refuse_the_value():
    with pytest.raises(InvalidInputError, match=r"values \[3\].*'sslln'") as error:
        canonical_labels(small_heart(rv_wall=True), "digital_heart")
    assert error.value.code == "UNEXPECTED_LABEL"


def test_a_mapping_of_their_own_is_used_and_may_drop_labels():
    heart = small_heart()
    stored = relabelled(heart, {1: 100, 2: 200, 4: 50})
    labels = canonical_labels(stored, {100: 1, 200: 2, 50: 0})
    assert labels.present() == (1, 2)


def test_a_value_no_preset_knows_asks_for_a_mapping():
    with pytest.raises(InvalidInputError, match=r"values \[200\].*pass a mapping"):
        canonical_labels(relabelled(small_heart(), {4: 200}), "acdc")


@pytest.mark.parametrize("mapping", [{1: 9}, {300: 1}, {"a": 1}, {1.5: 1}, {-1: 2}, {0: 1}])
def test_a_mapping_with_impossible_labels_is_refused(mapping):
    with pytest.raises(InvalidInputError) as error:
        preset_mapping(mapping)
    assert error.value.code == "BAD_PRESET"


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(InvalidInputError, match="acdc") as error:
        preset_mapping("adcd")
    assert error.value.code == "UNKNOWN_PRESET"


def test_swapped_wall_and_cavity_are_refused():
    swapped = relabelled(small_heart(), {1: 2, 2: 1})
    with pytest.raises(InvalidInputError, match="LV cavity's outline") as error:
        check_anatomy(swapped)
    assert error.value.code == "WRONG_PRESET"


def test_an_rv_wall_around_no_cavity_is_refused():
    with pytest.raises(InvalidInputError, match="no RV cavity.*'mms'"):
        check_anatomy(relabelled(small_heart(), {4: 3}))


def test_an_rv_cavity_inside_the_wall_is_refused_even_without_lv_cavity():
    lone = relabelled(small_heart(), {4: 0, 1: 4})
    with pytest.raises(InvalidInputError, match="encloses the RV cavity"):
        check_anatomy(lone)


def test_a_mapping_of_their_own_may_ignore_everything_but_what_it_wants():
    with pytest.warns(InputWarning, match="cannot be checked"):
        check_anatomy(small_heart(), {1: 0, 2: 0, 4: 4})


@pytest.mark.parametrize("removed", [{2: 0}, {1: 0, 4: 0}])
def test_what_cannot_be_checked_is_said(removed):
    with pytest.warns(InputWarning, match="cannot be checked"):
        check_anatomy(relabelled(small_heart(), removed))


def test_a_missing_rv_is_no_reason_to_refuse():
    check_anatomy(relabelled(small_heart(), {4: 0}))


@pytest.mark.parametrize("wall_voxels", [1.5, 4.0, 9.0])
def test_thin_and_hypertrophic_walls_pass(wall_voxels):
    check_anatomy(small_heart(wall_voxels=wall_voxels))


def test_a_cavity_of_a_few_voxels_at_end_systole_passes():
    array = small_heart().array.copy()
    array[array == 1] = 2
    array[24, 20, 4] = 1
    check_anatomy(LabelMap(array, matrix()))


@given(st.permutations([1, 2, 3, 4]))
def test_translation_commutes_with_renaming(order):
    heart = small_heart(rv_wall=True)
    names = dict(zip([1, 2, 3, 4], order, strict=True))
    back = canonical_labels(relabelled(heart, names), {new: old for old, new in names.items()})
    np.testing.assert_array_equal(back.array, heart.array)


def _stored_labels(path):
    image = nibabel.load(path)
    array = np.asanyarray(image.dataobj)
    return LabelMap(array.reshape(array.shape[:3]), image.affine)


@pytest.mark.parametrize("patient", ["patient001", "patient030", "patient062", "patient100"])
def test_real_acdc_maps_pass_as_acdc_only(patient):
    for path in sorted((data_folder("acdc") / patient).glob("*_gt.nii.gz")):
        stored = _stored_labels(path)
        check_anatomy(stored, "acdc")
        assert fitting_presets(stored) == ("acdc",)
        for wrong in ("mms", "sslln"):
            with pytest.raises(InvalidInputError, match="'acdc'"):
                check_anatomy(stored, wrong)


@pytest.mark.parametrize("case", "ABCDEFG")
def test_real_digital_heart_maps_pass_as_digital_heart_only(case):
    stored = _stored_labels(data_folder("autofd") / case / "labels.nii.gz")
    check_anatomy(stored, "digital_heart")
    assert fitting_presets(stored) == ("sslln", "digital_heart")
    for wrong in ("acdc", "mms"):
        with pytest.raises(InvalidInputError, match="'digital_heart'"):
            canonical_labels(stored, wrong)
