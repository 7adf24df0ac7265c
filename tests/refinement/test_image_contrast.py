"""An image that does not show the heart that it came with."""

import warnings

import numpy as np
import pytest

from cardiacreg import InputWarning, LabelMap, Volume
from cardiacreg.io.nifti import read_volume
from cardiacreg.refinement.image_placement import check_contrast, check_image, edge_agreement
from tests.anatomy.test_label_presets import _stored_labels
from tests.helpers.small_hearts import data_folder, relabelled, small_heart

GREY = np.array([60.0, 200.0, 90.0, 100.0, 190.0])


def image_of(heart, grey=GREY):
    noise = np.random.default_rng(0).normal(0, 15, heart.shape)
    return Volume(grey[heart.array] + noise, heart.voxel_to_world)


def test_bright_and_dark_blood_are_accepted():
    for grey in (GREY, 250 - GREY):
        check_contrast(image_of(small_heart(), grey), small_heart())


def test_an_image_without_this_heart_is_told_of():
    noise = np.random.default_rng(0).normal(size=small_heart().shape)
    with pytest.warns(InputWarning, match="image of this patient"):
        check_contrast(Volume(noise, small_heart().voxel_to_world), small_heart())


@pytest.mark.parametrize(("pixels", "words"), [(4, "6 mm away"), (8, "12 mm away|hardly differ")])
def test_an_image_that_lies_elsewhere_is_told_of(pixels, words):
    moved = np.roll(small_heart().array, pixels, axis=1)
    image = image_of(LabelMap(moved, small_heart().voxel_to_world))
    with pytest.warns(InputWarning, match=words):
        check_contrast(image, small_heart())


def test_labels_given_as_image_are_left_aside():
    heart = small_heart()
    with pytest.warns(InputWarning, match="as a label map does"):
        assert check_image(Volume(heart.array, heart.voxel_to_world), heart) is None


def own_and_other(patient, phase=0):
    """Image and labels of a patient, and of the next one cut to one lattice."""
    stacks = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        for number in (patient, patient + 1):
            folder = data_folder("acdc") / f"patient{number:03d}"
            path = sorted(folder.glob("*_gt.nii.gz"))[phase]
            image = read_volume(str(path).replace("_gt", ""))
            labels = relabelled(_stored_labels(path), {1: 4, 3: 1})
            stacks.append((image, LabelMap(labels.array, image.voxel_to_world)))
    (own, labels), (other, _) = stacks
    box = tuple(slice(0, n) for n in np.minimum(labels.shape, other.shape))
    cut = LabelMap(labels.array[box], labels.voxel_to_world)
    return own, labels, Volume(other.array[box], labels.voxel_to_world), cut


def test_edges_agree_with_outlines_of_bright_and_of_dark_blood():
    assert edge_agreement(image_of(small_heart()), small_heart()) > 0.8
    assert edge_agreement(image_of(small_heart(), 250 - GREY), small_heart()) < -0.8
    nothing = LabelMap(np.zeros((9, 9, 4), dtype=np.uint8), np.eye(4))
    assert edge_agreement(Volume(np.zeros((9, 9, 4)), np.eye(4)), nothing) is None


def test_outlines_that_follow_no_edges_are_told_of_where_the_contrast_is_good():
    """Blood that is a little brighter than its wall, in an image of nothing but texture."""
    heart = small_heart()
    image = np.random.default_rng(1).normal(100, 40, heart.shape)
    image[heart.array == 1] += 30
    with pytest.warns(InputWarning, match="outlines of the cavities hardly follow its edges"):
        check_contrast(Volume(image, heart.voxel_to_world), heart)


def test_images_of_most_other_patients_are_told_of():
    flagged = 0
    for patient in range(1, 20, 2):
        own, labels, other, cut = own_and_other(patient)
        check_contrast(own, labels)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            check_contrast(other, cut)
        flagged += bool(told)
    assert flagged == 10


def test_a_cavity_that_is_almost_closed_is_no_other_patient():
    """End-systole of a hypertrophic heart: its small cavity would contrast more in brighter tissue."""
    own, labels, *_ = own_and_other(34, phase=1)
    check_contrast(own, labels)
