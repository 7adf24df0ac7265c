"""The view in three dimensions: what it holds, and that hearts are shown the right way round."""

import base64
import re
import zlib

import numpy as np
import pytest

from cardiacreg.geometry import LabelMap, Landmarks, Subject, apply_matrix
from cardiacreg.reports.case import Refined, open_case
from cardiacreg.reports.contents import axes_of
from cardiacreg.reports.inputs import Inputs
from cardiacreg.reports.viewer import OUTLINES, SURFACES, make_viewer
from cardiacreg.results.qc_views import heart_axes

pytest.importorskip("k3d", reason="k3d is not installed")
msgpack = pytest.importorskip("msgpack", reason="msgpack is not installed")


@pytest.fixture(scope="module")
def viewer(tiny_result):
    case = open_case(tiny_result, Inputs())
    return make_viewer(case, axes_of(case))


def objects_of(viewer):
    """What the document draws, read back."""
    data = re.search(r"var data = '([^']*)'", viewer.document)[1]
    return msgpack.unpackb(zlib.decompress(base64.b64decode(data)))["objects"]


def test_holds_surfaces_and_the_outlines_of_the_input(viewer):
    assert [layer.name for layer in viewer.layers] == [
        *(name for name, *_ in SURFACES.values()), OUTLINES
    ]  # fmt: skip
    found = objects_of(viewer)
    assert [each["id"] for each in found] == [layer.number for layer in viewer.layers]
    assert {each["type"] for each in found} == {"Mesh", "Lines"}


def test_is_one_document_with_its_licence(viewer):
    assert not re.search(r"<script[^>]+src=", viewer.document)
    assert "Permission is hereby granted" in viewer.licence


def test_surfaces_look_outwards_at_their_place(viewer, tiny_result):
    """The LV's cavity holds its volume, in the world of the result."""
    mesh = objects_of(viewer)[0]
    points, triangles = decoded(mesh["vertices"]), decoded(mesh["indices"])
    a, b, c = (points[triangles[:, corner]] for corner in range(3))
    volume_ml = float(np.einsum("ij,ij->", a, np.cross(b, c))) / 6000
    assert volume_ml == pytest.approx(tiny_result.volumes["LV cavity"].total_ml, rel=0.02)


def decoded(stored):
    data = stored["data"] if "data" in stored else zlib.decompress(stored["compressed_data"])
    return np.frombuffer(data, dtype=stored["dtype"]).reshape(stored["shape"]).astype(float if
        "float" in stored["dtype"] else int)  # fmt: skip


def mirrored(result):
    flip = np.diag([-1.0, 1.0, 1.0, 1.0])

    def turned(labels):
        return LabelMap(labels.array, flip @ labels.voxel_to_world)

    return Refined(
        turned(result.labels),
        Subject(turned(result.target.labels)),
        Landmarks(apply_matrix(flip, result.landmarks.points_mm)),
        result.slice_shifts_mm,
    )


@pytest.mark.parametrize("flipped", [False, True])
def test_the_rv_is_on_the_left_of_a_heart_seen_from_the_front(tiny_result, flipped):
    """Also where the file's coordinates mirror the heart: then it is mirrored back."""
    from cardiacreg.reports.viewer import _cameras, _placed

    shown = mirrored(tiny_result) if flipped else tiny_result
    axes = heart_axes(shown)
    heart = _placed(axes)
    camera = np.array(_cameras(np.eye(3), heart)["front"])
    eye, aim, up = camera[:3], camera[3:6], camera[6:]
    right = np.cross(up, eye - aim)
    assert right @ heart.rv < 0
    stored = axes.to_world[:3, :3] @ np.array([*axes.rv, 0.0])
    np.testing.assert_allclose(heart.from_world[:3, :3] @ stored, heart.rv, atol=1e-9)


def test_both_ways_of_storing_are_told_apart(tiny_result):
    from cardiacreg.reports.viewer import _placed

    found = {_placed(heart_axes(each)).mirrored for each in (tiny_result, mirrored(tiny_result))}
    assert found == {False, True}
