"""Landmarks of atlases that have none are derived once."""

from dataclasses import replace

import numpy as np
import pytest

from cardiacreg.anatomy.landmarks import derive_landmarks
from cardiacreg.errors import InputWarning
from cardiacreg.geometry import LabelMap, Subject
from cardiacreg.phantoms.toy_heart import make_toy_heart
from cardiacreg.refinement import atlas_choice


@pytest.fixture
def derived(monkeypatch):
    """Labels of which landmarks were derived."""
    found = []

    def counted(labels):
        found.append(labels)
        return derive_landmarks(labels)

    monkeypatch.setattr(atlas_choice, "derive_landmarks", counted)
    monkeypatch.setattr(atlas_choice, "_DERIVED", {})
    return found


def without_landmarks(size):
    return replace(make_toy_heart(size=size), landmarks=None)


def test_once_for_equal_labels(derived):
    atlases = [without_landmarks(size) for size in (0.9, 1.0, 0.9)]
    found = [atlas_choice._atlas_landmarks(each, "labels") for each in atlases]
    assert len(derived) == 2
    for own, atlas in zip(found, atlases, strict=True):
        expected = derive_landmarks(atlas.labels)
        np.testing.assert_array_equal(own.points_mm, expected.points_mm)


def test_anew_where_the_lattice_lies_elsewhere(derived):
    heart = without_landmarks(1.0)
    matrix = heart.labels.voxel_to_world.copy()
    matrix[:3, 3] += 5.0
    moved = Subject(LabelMap(heart.labels.array, matrix))
    first, second = (atlas_choice._atlas_landmarks(each, "labels") for each in (heart, moved))
    np.testing.assert_allclose(second.points_mm, first.points_mm + 5.0)


def test_warnings_come_every_time(derived):
    labels = make_toy_heart().labels
    left = np.where(np.isin(labels.array, (3, 4)), 0, labels.array)
    atlas = Subject(LabelMap(left, labels.voxel_to_world))
    for _ in range(2):
        with pytest.warns(InputWarning, match="no RV is labelled"):
            atlas_choice._atlas_landmarks(atlas, "labels")
