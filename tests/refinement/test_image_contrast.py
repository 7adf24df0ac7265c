"""An image that does not show the heart that it came with."""

import warnings

import numpy as np
import pytest

from cardiacreg import InputWarning, LabelMap, Volume
from cardiacreg.io.nifti import read_volume
from cardiacreg.refinement.image_placement import check_contrast, check_image
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


def test_an_image_that_lies_elsewhere_is_told_of():
    moved = np.roll(small_heart().array, 8, axis=1)
    image = image_of(LabelMap(moved, small_heart().voxel_to_world))
    with pytest.warns(InputWarning, match="12 mm away|hardly differ"):
        check_contrast(image, small_heart())


def test_labels_given_as_image_are_left_aside():
    heart = small_heart()
    with pytest.warns(InputWarning, match="as a label map does"):
        assert check_image(Volume(heart.array, heart.voxel_to_world), heart) is None


def own_and_other(patient):
    """Image and labels of a patient, and of the next one cut to one lattice."""
    stacks = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        for number in (patient, patient + 1):
            folder = data_folder("acdc") / f"patient{number:03d}"
            path = min(folder.glob("*_gt.nii.gz"))
            image = read_volume(str(path).replace("_gt", ""))
            labels = relabelled(_stored_labels(path), {1: 4, 3: 1})
            stacks.append((image, LabelMap(labels.array, image.voxel_to_world)))
    (own, labels), (other, _) = stacks
    box = tuple(slice(0, n) for n in np.minimum(labels.shape, other.shape))
    cut = LabelMap(labels.array[box], labels.voxel_to_world)
    return own, labels, Volume(other.array[box], labels.voxel_to_world), cut


def test_images_of_most_other_patients_are_told_of():
    flagged = 0
    for patient in range(1, 20, 2):
        own, labels, other, cut = own_and_other(patient)
        check_contrast(own, labels)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            check_contrast(other, cut)
        flagged += bool(told)
    assert flagged >= 8  # of 10
