"""Closed contours in space become labels of the slices in which they lie."""

from __future__ import annotations

import numpy as np
import pytest

from cardiacreg import labels_from_contours
from cardiacreg.errors import InvalidInputError
from cardiacreg.geometry import apply_matrix


def lattice():
    """Turned and moved: columns of length 1.5, 1.5 and 8 mm."""
    rotation, _ = np.linalg.qr(np.random.default_rng(5).normal(size=(3, 3)))
    matrix = np.eye(4)
    matrix[:3, :3] = rotation * (1.5, 1.5, 8.0)
    matrix[:3, 3] = (12, -40, 7)
    return matrix


def circle(radius, k, centre=(30, 30), count=90):
    angles = np.linspace(0, 2 * np.pi, count, endpoint=False)
    pixels = np.column_stack([np.cos(angles), np.sin(angles)]) * radius + centre
    return apply_matrix(lattice(), np.column_stack([pixels, np.full(count, float(k))]))


def test_areas_are_those_of_the_contours_and_later_ones_lie_on_top():
    rings = [(circle(r, k), label) for k in (1, 2) for r, label in ((20 - k, 2), (12 - k, 1))]
    labels = labels_from_contours(rings, (64, 64, 4), lattice())
    for k in (1, 2):
        counts = np.bincount(labels.array[:, :, k].ravel(), minlength=3)
        assert counts[1] == pytest.approx(np.pi * (12 - k) ** 2, rel=0.03)
        assert counts[1:].sum() == pytest.approx(np.pi * (20 - k) ** 2, rel=0.03)
    assert not labels.array[:, :, [0, 3]].any()


def test_an_edge_through_outermost_pixels_reaches_half_a_pixel_farther():
    drawn = [(circle(10, 0), 1)]
    areas = [
        labels_from_contours(drawn, (64, 64, 1), lattice(), edge_pixels=edge).array.sum()
        for edge in (0.0, 0.5)
    ]
    np.testing.assert_allclose(areas, np.pi * np.array([10, 10.5]) ** 2, rtol=0.03)


@pytest.mark.parametrize(
    ("points", "label", "code"),
    [
        (circle(5, 0)[:2], 1, "BAD_CONTOUR"),
        (np.full((4, 3), np.nan), 1, "BAD_CONTOUR"),
        (circle(5, 0.5), 1, "OFF_SLICE"),
        (circle(5, 3), 1, "OFF_SLICE"),
        (circle(5, 1), 0, "UNKNOWN_LABEL"),
    ],
)
def test_what_cannot_be_painted_is_refused(points, label, code):
    with pytest.raises(InvalidInputError, match="contour 0") as raised:
        labels_from_contours([(points, label)], (64, 64, 3), lattice())
    assert raised.value.code == code
