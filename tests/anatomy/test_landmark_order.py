import itertools

import numpy as np
import pytest

from cardiacreg import InputWarning, InvalidInputError, LabelMap, Landmarks, landmarks_from_labels
from cardiacreg.anatomy.landmark_order import check_landmark_order
from cardiacreg.geometry import RV_CAVITY
from cardiacreg.phantoms.toy_heart import make_toy_heart

LABELS = make_toy_heart().labels
POINTS = landmarks_from_labels(LABELS).points_mm
MIRRORED, TURNED = [2, 1, 0, 3, 4, 5], [2, 1, 0, 3, 5, 4]


def rotate_labels():
    """The same heart under the oblique matrix of a scanner."""
    angle = np.deg2rad(40)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    labels = LabelMap(LABELS.array, turn @ LABELS.voxel_to_world)
    return labels, landmarks_from_labels(labels).points_mm


def code_of(points, labels=LABELS):
    with pytest.raises(InvalidInputError) as caught:
        check_landmark_order(Landmarks(points), labels)
    return caught.value.code, str(caught.value)


def test_points_in_order_pass_even_when_rough():
    check_landmark_order(Landmarks(POINTS), LABELS)
    rough = POINTS + np.random.default_rng(0).normal(0, 6, POINTS.shape)
    check_landmark_order(Landmarks(rough), LABELS)
    check_landmark_order(Landmarks(POINTS + [20.0, -15, 10]), LABELS)


def test_every_other_order_is_told():
    for order in itertools.permutations(range(6)):
        if list(order) in (list(range(6)), MIRRORED):
            continue
        code, text = code_of(POINTS[list(order)])
        assert code in ("BAD_LANDMARKS", "LANDMARK_SPACE"), order
        assert code == "LANDMARK_SPACE" or "leave them out" in text


def test_points_of_a_network_are_doubted_but_used():
    found = Landmarks(POINTS[[4, 1, 2, 3, 0, 5]], source="network")
    with pytest.warns(InputWarning, match="do not fit the labels"):
        check_landmark_order(found, LABELS)


def test_the_order_that_fits_is_named():
    _, text = code_of(POINTS[[4, 1, 2, 3, 0, 5]])
    assert "in their order, apex; RV lateral-wall turning point; RV insertion, inferior" in text


def test_the_hand_is_refused_where_the_matrix_is_a_scanners_and_told_elsewhere():
    with pytest.warns(InputWarning, match="anterior and inferior RV insertion are exchanged"):
        check_landmark_order(Landmarks(POINTS[MIRRORED]), LABELS)
    labels, points = rotate_labels()
    check_landmark_order(Landmarks(points), labels)
    assert code_of(points[MIRRORED], labels)[0] == "BAD_LANDMARKS"


def test_points_of_another_frame_are_told():
    matrix = LABELS.voxel_to_world.copy()
    matrix[:3, 3] += [60.0, -40, 0]
    labels = LabelMap(LABELS.array, matrix)
    points = landmarks_from_labels(labels).points_mm
    code, text = code_of(points * [-1, -1, 1], labels)
    assert code == "LANDMARK_SPACE"
    assert "LPS" in text
    voxels = (points - matrix[:3, 3]) @ np.linalg.inv(matrix[:3, :3]).T
    code, text = code_of(voxels, labels)
    assert code == "LANDMARK_SPACE"
    assert "from_voxels" in text


def test_what_the_labels_do_not_show_is_not_judged():
    check_landmark_order(Landmarks(POINTS[::-1], source="labels"), LABELS)
    check_landmark_order(Landmarks(POINTS[:4]), LABELS)
    left = np.where(LABELS.array == RV_CAVITY, 0, LABELS.array)
    check_landmark_order(Landmarks(POINTS[::-1]), LabelMap(left, LABELS.voxel_to_world))
    flat = LABELS.array.copy()
    flat[:, :, 2:] = 0
    check_landmark_order(Landmarks(POINTS[::-1]), LabelMap(flat, LABELS.voxel_to_world))
