"""Letters of the patient's directions: only where the file's matrix can be believed."""

import dataclasses

import numpy as np
import pytest

from cardiacreg.geometry import LabelMap, Landmarks, Subject, apply_matrix
from cardiacreg.reports.case import Refined
from cardiacreg.reports.directions import directions_of, letters_of
from cardiacreg.results.qc_views import heart_axes
from cardiacreg.results.result import Orientation


@pytest.mark.parametrize(
    ("direction", "letters"),
    [
        ((1, 0, 0), "R"), ((-1, 0, 0), "L"), ((0, 1, 0), "A"), ((0, -1, 0), "P"), ((0, 0, 1), "S"),
        ((0, 0, -1), "I"), ((-0.7, 0.6, -0.3), "LA"), ((0.3, -0.6, -0.7), "IP"),
    ],
)  # fmt: skip
def test_letters(direction, letters):
    assert letters_of(np.array(direction, dtype=float)) == letters


def in_world(result, turn):
    """The same heart with its world turned."""
    matrix = np.eye(4)
    matrix[:3, :3] = turn

    def moved(labels):
        return LabelMap(labels.array, matrix @ labels.voxel_to_world)

    points = Landmarks(apply_matrix(matrix, result.landmarks.points_mm))
    return Refined(
        moved(result.labels), Subject(moved(result.target.labels)), points, result.slice_shifts_mm
    )


def as_in_people(result):
    """Turn so that the apex points left, forward and down, and the RV lies right and forward."""
    axes = heart_axes(result)
    base = np.array([0.0, 0.0, axes.to_base])
    rv = np.array([*axes.rv, 0.0])
    rv -= (rv @ base) * base
    own = np.stack([-base, rv / np.linalg.norm(rv), np.cross(-base, rv)])
    apex = np.array([-1.0, 1.0, -1.0]) / np.sqrt(3)
    right = np.array([1.0, 1.0, 0.0]) / np.sqrt(2)
    people = np.stack([apex, right, np.cross(apex, right)])
    turn = people.T @ own @ np.linalg.inv(axes.to_world[:3, :3])
    return in_world(result, turn)


def test_a_heart_that_lies_as_in_people_gets_letters(tiny_result):
    found = as_in_people(tiny_result)
    axes = heart_axes(found)
    directions = directions_of(found, axes)
    assert directions.believed and directions.reason == ""
    assert set(directions.letters(np.array([0.0, 0.0, -axes.to_base]))) <= set("LAI")
    assert directions.letters(np.array([*axes.rv, 0.0])) in ("RA", "AR")


def test_a_heart_that_lies_otherwise_gets_none(tiny_result):
    found = as_in_people(tiny_result)
    turned = in_world(found, np.diag([-1.0, -1.0, 1.0]))
    directions = directions_of(turned, heart_axes(turned))
    assert not directions.believed and "which is not how hearts lie" in directions.reason
    assert directions.letters(np.array([1.0, 0.0, 0.0])) == ""


@pytest.mark.parametrize("name", ["mirrored", "upside-down"])
def test_a_mirrored_heart_gets_none(tiny_result, name):
    found = as_in_people(tiny_result)
    orientation = Orientation(name, 0.99, "by the atlases")
    directions = directions_of(found, heart_axes(found), orientation)
    assert not directions.believed and name in directions.reason
    stored = dataclasses.replace(orientation, name="as-stored")
    assert directions_of(found, heart_axes(found), stored).believed
