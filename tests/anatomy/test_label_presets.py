from itertools import permutations

import nibabel
import numpy as np
import pytest
from hypothesis import given, strategies as st

from cardiacreg import InputWarning, InvalidInputError, LabelMap
from cardiacreg.anatomy.label_presets import (
    canonical_labels,
    check_anatomy,
    check_canonical,
    explained,
    fitting_presets,
)
from cardiacreg.anatomy.preset_tables import (
    ALIASES,
    DESCRIPTIONS,
    PRESETS,
    preset_mapping,
    segment_mapping,
)
from cardiacreg.anatomy.segmentation import read_segmentation
from cardiacreg.phantoms.acquisition import simulate_low_resolution
from cardiacreg.phantoms.hearts import sample_heart
from tests.helpers.small_hearts import data_folder, matrix, relabelled, small_heart

SCAR = 99
AS_STORED = {
    "sslln": {},
    "digital_heart": {},
    "acdc": {1: 3, 2: 2, 4: 1},
    "mms": {1: 1, 2: 2, 4: 3},
    "totalsegmentator": {1: 3, 2: 1, 4: 5},
    "totalsegmentator_v1": {1: 46, 2: 44, 4: 48},
    "mmwhs": {1: 500, 2: 205, 4: 600},
    "myops": {1: 500, 2: 200, 4: 600, SCAR: 2221},
    "emidec": {1: 1, 2: 2, 4: 0, SCAR: 3},
    "mms_scar": {1: 1, 2: 2, 4: 3, SCAR: 4},
    "acdc_scar": {1: 3, 2: 2, 4: 1, SCAR: 4},
}
"""What a preset calls our labels and a scar."""


def scarred_heart(*, part=(0.0, 0.6), sector=(0.3, 1.9), **options):
    """A small heart with a scar, as 99, in a sector of its wall: from the cavity (0) outwards (1)."""
    heart = small_heart(**options)
    i, j = np.meshgrid(*(np.arange(n) for n in heart.shape[:2]), indexing="ij")
    away, along = i - 0.6 * heart.shape[0], j - 0.5 * heart.shape[1]
    depth = (np.hypot(away, along) - 5) / 4
    angle = np.arctan2(along, away)
    inside = (depth >= part[0]) & (depth <= part[1]) & (angle > sector[0]) & (angle < sector[1])
    array = heart.array.copy()
    array[inside[:, :, None] & (array == 2)] = SCAR
    return LabelMap(array, heart.voxel_to_world)


def stored_as(preset, heart=None):
    """A heart in the values of a preset: codes and what they stand for."""
    names = {1: 1, 2: 2, 4: 4} | AS_STORED[preset]
    if heart is None:
        heart = scarred_heart() if SCAR in names else small_heart()
    present = {names.get(label, label): label for label in heart.present()}
    if max(present) <= 255:
        return relabelled(heart, {label: value for value, label in present.items()}), None
    codes = {label: number for number, label in enumerate(present.values(), start=101)}
    return relabelled(heart, codes), {codes[label]: value for value, label in present.items()}


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_recovers_the_canonical_labels(preset):
    heart = small_heart()
    stored, values = stored_as(preset)
    labels = canonical_labels(stored, preset, values=values)
    lost = {4: 0} if preset == "emidec" else {}
    np.testing.assert_array_equal(labels.array, relabelled(heart, lost).array)
    check_anatomy(stored, preset, values=values)
    assert preset in fitting_presets(stored, values=values)


# Without an RV wall, sslln and digital_heart are the same convention.
CONFUSED = [
    (preset, wrong)
    for preset, wrong in permutations(PRESETS, 2)
    if {preset, wrong}
    not in ({"sslln", "digital_heart"}, {"mms", "mms_scar"}, {"acdc", "acdc_scar"})
]


@pytest.mark.parametrize(("preset", "wrong"), CONFUSED)
def test_every_wrong_preset_is_refused_and_the_right_one_named(preset, wrong):
    stored, values = stored_as(preset)
    with pytest.raises(InvalidInputError, match=repr(preset)) as error:
        check_anatomy(stored, wrong, values=values)
    assert error.value.code in ("UNEXPECTED_LABEL", "WRONG_PRESET")


@pytest.mark.parametrize("preset", ["mms", "acdc"])
def test_a_preset_with_a_scar_reads_maps_without_one(preset):
    stored, _ = stored_as(preset)
    check_anatomy(stored, f"{preset}_scar")
    assert fitting_presets(stored) == (preset,)


SCARS = [
    (part, sector)
    for part in ((0.0, 0.6), (0.0, 1.1), (0.3, 0.7), (0.5, 1.1))
    for sector in ((0.3, 1.0), (0.3, 1.9), (-1.5, 1.5))
]


@pytest.mark.parametrize(("part", "sector"), SCARS)
@pytest.mark.parametrize("wall_voxels", [4.0, 6.0])
def test_no_scar_is_taken_for_an_rv_and_no_advice_leads_there(part, sector, wall_voxels):
    heart = scarred_heart(part=part, sector=sector, wall_voxels=wall_voxels)
    alone = relabelled(heart, {4: 0, SCAR: 3})
    for preset in (None, "mms"):
        with pytest.raises(InvalidInputError) as error:
            check_anatomy(alone, preset)
        assert error.value.code == "WRONG_PRESET"
        assert "'mms'" not in str(error.value).partition(";")[2]
    check_anatomy(alone, "emidec")
    beside = relabelled(heart, {4: 3, SCAR: 4})
    with pytest.raises(InvalidInputError):
        check_anatomy(beside, None)
    check_anatomy(beside, "mms_scar")


def test_no_reflow_within_an_infarct_belongs_to_the_wall():
    heart = relabelled(scarred_heart(), {4: 0, SCAR: 3})
    core = scarred_heart(part=(0.2, 0.45), sector=(0.8, 1.4))
    array = np.where(core.array == SCAR, 4, heart.array)
    stored = LabelMap(array, heart.voxel_to_world)
    check_anatomy(stored, "emidec")
    assert canonical_labels(stored, "emidec").present() == (1, 2)
    assert fitting_presets(stored) == ("emidec",)
    with pytest.raises(InvalidInputError, match="'emidec'"):
        check_anatomy(stored)


def test_an_rv_is_not_taken_for_a_scar():
    stored, _ = stored_as("mms")
    with pytest.raises(InvalidInputError, match="beside the LV, as an RV does.*'mms'"):
        check_anatomy(stored, "emidec")


def test_an_rv_of_a_few_voxels_is_too_small():
    array = relabelled(small_heart(), {4: 0}).array.copy()
    array[2:5, 2:7, 3:5] = 4
    with pytest.raises(InvalidInputError, match="far too small"):
        check_anatomy(LabelMap(array, matrix()))


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


def test_a_mapping_reads_negative_values_of_a_file(tmp_path):
    heart = small_heart()
    array = np.choose(heart.array, [-1, 1000, -5, 3, 7]).astype(np.int16)
    nibabel.Nifti1Image(array, heart.voxel_to_world).to_filename(tmp_path / "a.nii.gz")
    labels = read_segmentation(tmp_path / "a.nii.gz", preset={-1: 0, 1000: 1, -5: 2, 7: 4})
    np.testing.assert_array_equal(labels.array, heart.array)


def test_a_value_no_preset_knows_asks_for_a_mapping():
    with pytest.raises(InvalidInputError, match=r"values \[200\].*pass a mapping"):
        canonical_labels(relabelled(small_heart(), {4: 200}), "acdc")


@pytest.mark.parametrize("mapping", [{1: 9}, {2**40: 1}, {"a": 1}, {1.5: 1}, {-(2**40): 2}, {0: 1}])
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


def test_no_rv_wall_is_taken_for_an_rv_cavity():
    stack = simulate_low_resolution(sample_heart(10_022), seed=2).subject.labels
    walls = relabelled(stack, {4: 0})
    assert fitting_presets(walls) == ()
    with pytest.raises(InvalidInputError, match="no RV cavity; no preset fits clearly"):
        check_anatomy(walls)
    with pytest.warns(InputWarning, match="a thin shell.*no scar or wall"):
        check_anatomy(walls, "mms")


def test_an_rv_cavity_inside_the_wall_is_refused_even_without_lv_cavity():
    lone = relabelled(small_heart(), {4: 0, 1: 4})
    with pytest.raises(InvalidInputError, match="encloses the RV cavity"):
        check_anatomy(lone)


def test_a_mapping_of_their_own_may_ignore_everything_but_what_it_wants():
    with pytest.warns(InputWarning, match="cannot be checked"):
        check_anatomy(small_heart(), {1: 0, 2: 0, 4: 4})


def test_what_cannot_be_checked_is_said():
    with pytest.warns(InputWarning, match="cannot be checked"):
        check_anatomy(relabelled(small_heart(), {2: 0}))


def refused_alone(labels, preset=None):
    with pytest.raises(InvalidInputError) as error:
        check_anatomy(labels, preset)
    assert error.value.code == "ONE_STRUCTURE"
    return str(error.value)


ALONE = {
    "all myocardium": {1: 0, 4: 0, 2: 1, 3: 1},
    "LV wall": {1: 0, 4: 0, 3: 0, 2: 1},
    "LV cavity": {2: 0, 3: 0, 4: 0},
    "RV cavity": {1: 0, 2: 0, 3: 0, 4: 1},
    "whole heart": {2: 1, 3: 1, 4: 1},
}


@pytest.mark.parametrize("what", ALONE)
@pytest.mark.parametrize("label", [1, 2, 4])
def test_one_label_for_anything_is_refused(what, label):
    alone = relabelled(relabelled(small_heart(rv_wall=True), ALONE[what]), {1: label})
    refused_alone(alone)


def test_one_structure_that_was_named_is_checked_by_its_shape():
    heart = small_heart(rv_wall=True)
    wall, cavity = (relabelled(heart, ALONE[what]) for what in ("LV wall", "LV cavity"))
    for labels, role in ((wall, 2), (cavity, 1)):
        with pytest.warns(InputWarning, match="cannot be checked"):
            check_anatomy(labels, {1: role})
    assert "a wall and not a cavity" in refused_alone(wall, {1: 1})
    assert "not the wall" in refused_alone(cavity, {1: 2})
    assert "not the wall" in refused_alone(relabelled(heart, ALONE["all myocardium"]), {1: 2})


def test_names_of_segments_say_what_values_mean():
    names = {7: "LV cavity", 3: "Myocardium", 9: "right-ventricle", 4: "Left atrium"}
    assert segment_mapping(names) == {7: 1, 3: 2, 9: 4, 4: 0}
    with pytest.raises(InvalidInputError, match="'Segment_1'.*not known") as error:
        segment_mapping({1: "Segment_1", 2: "LV"})
    assert error.value.code == "UNKNOWN_SEGMENTS"


def test_canonical_labels_are_checked_where_they_are_expected():
    check_canonical(small_heart(rv_wall=True), "here")
    with pytest.raises(InvalidInputError, match="here: .*'acdc'"):
        check_canonical(stored_as("acdc")[0], "here")
    with pytest.raises(InvalidInputError, match="here: .*'mms'"):
        check_canonical(stored_as("mms")[0], "here")
    with pytest.warns(InputWarning, match="here: .*touches the LV wall"):
        check_canonical(relabelled(small_heart(), {1: 2, 2: 1}), "here")


def test_what_the_check_saw_is_told_for_every_preset():
    found = dict(explained(stored_as("acdc")[0]))
    assert set(found) == set(PRESETS)
    assert found["acdc"] == "fits" and "outline" in found["mms"] and "values" in found["myops"]


def test_every_preset_is_described():
    assert set(DESCRIPTIONS) == set(PRESETS)


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
