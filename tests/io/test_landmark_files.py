import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from hypothesis.extra.numpy import arrays

from cardiacreg import InputWarning, InvalidInputError, Landmarks
from cardiacreg.cli.support import in_options
from cardiacreg.geometry import LANDMARK_NAMES
from cardiacreg.io.landmark_files import read_landmarks, write_json, write_landmarks

POINTS = np.arange(18.0).reshape(6, 3)


def write(folder, content, name="landmarks.json"):
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def refused(code, path, **options):
    with pytest.raises(InvalidInputError) as error:
        read_landmarks(path, **options)
    assert error.value.code == code, str(error.value)
    assert str(path) in str(error.value)
    return str(error.value)


@given(arrays(np.float64, (4, 3), elements=st.floats(-1e4, 1e4)))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_points_come_back_bit_for_bit(tmp_path, points):
    write_landmarks(tmp_path / "l.json", Landmarks(points, tuple("äbcd")))
    back = read_landmarks(tmp_path / "l.json")
    np.testing.assert_array_equal(back.points_mm, points)
    assert back.names == tuple("äbcd")


def test_the_six_points_are_put_into_the_order_of_the_paper(tmp_path):
    named = dict(zip(LANDMARK_NAMES, POINTS.tolist(), strict=True))
    shuffled = dict(reversed(named.items()))
    back = read_landmarks(write(tmp_path, {"space": "RAS", "unit": "mm", "points": shuffled}))
    assert back.names == LANDMARK_NAMES
    np.testing.assert_array_equal(back.points_mm, POINTS)


def test_lps_is_converted(tmp_path):
    path = write(tmp_path, {"space": "LPS", "unit": "mm", "points": {"a": [1, 2, 3]}})
    np.testing.assert_array_equal(read_landmarks(path).points_mm, [[-1, -2, 3]])


@pytest.mark.parametrize("space", [None, "ras", "LAS", 3, ["RAS"]])
def test_a_missing_or_unknown_space_is_refused(tmp_path, space):
    content = {"points": {"a": [1, 2, 3]}} | ({} if space is None else {"space": space})
    assert "RAS" in refused("UNKNOWN_SPACE", write(tmp_path, content))


def test_a_space_that_contradicts_the_file_is_refused(tmp_path):
    path = write(tmp_path, {"space": "RAS", "points": {"a": [1, 2, 3]}})
    refused("UNKNOWN_SPACE", path, space="LPS")
    read_landmarks(path, space="RAS")


def test_another_unit_is_refused(tmp_path):
    content = {"space": "RAS", "unit": "voxel", "points": {"a": [1, 2, 3]}}
    refused("UNKNOWN_UNIT", write(tmp_path, content))


@pytest.mark.parametrize(
    "content",
    ["", "{", "[1, 2]", "null", '{"space": "RAS"}', {"space": "RAS", "points": []}, "[" * 100_000],
)
def test_files_of_another_form_are_refused(tmp_path, content):
    assert '"points"' in refused("BAD_LANDMARK_FILE", write(tmp_path, content))


def test_no_points_at_all_are_refused(tmp_path):
    refused("BAD_LANDMARK_FILE", write(tmp_path, {"space": "RAS", "points": {}}))


def test_binary_and_huge_files_are_refused(tmp_path):
    (tmp_path / "l.json").write_bytes(b"\xff\xfe\x00")
    refused("BAD_LANDMARK_FILE", tmp_path / "l.json")
    (tmp_path / "l.json").write_bytes(b" " * 1_000_001)
    refused("BAD_LANDMARK_FILE", tmp_path / "l.json")


@pytest.mark.parametrize(
    "point",
    [
        "[1, 2]",
        "[1, 2, 3, 4]",
        '["1", 2, 3]',
        "[true, 2, 3]",
        "7",
        "null",
        "[NaN, 1, 2]",
        "[1e999, 1, 2]",
    ],
)
def test_points_that_are_not_three_finite_numbers_are_refused(tmp_path, point):
    refused("BAD_LANDMARKS", write(tmp_path, f'{{"space": "RAS", "points": {{"apex": {point}}}}}'))


def test_huge_numbers_are_refused(tmp_path):
    for digits, code in ((400, "BAD_LANDMARKS"), (5000, "BAD_LANDMARK_FILE")):
        text = f'{{"space": "RAS", "points": {{"apex": [{"9" * digits}, 1, 2]}}}}'
        refused(code, write(tmp_path, text))


def test_missing_files_and_folders_are_named(tmp_path):
    refused("FILE_NOT_FOUND", tmp_path / "gone.json")
    refused("UNREADABLE_FILE", tmp_path)


VTK = "# vtk DataFile Version 3.0\nvtk output\nASCII\nDATASET POLYDATA\nPOINTS 6 float\n"


def test_vtk_points_need_a_space(tmp_path):
    path = write(tmp_path, VTK + " ".join(map(str, POINTS.ravel())) + "\nVERTICES 0 0\n", "l.vtk")
    message = refused("UNKNOWN_SPACE", path)
    assert "not stated" in message and "to cardiacreg.read_landmarks" in message
    assert "cardiacreg convert FILE OUT.json --from LPS" in in_options(message)
    with pytest.warns(InputWarning, match="hardly make a heart"):
        assert read_landmarks(path, space="RAS").names == LANDMARK_NAMES
    with pytest.warns(InputWarning, match="hardly make a heart"):
        found = read_landmarks(path, space="LPS")
    np.testing.assert_array_equal(found.points_mm[1], [-3, -4, 5])


@pytest.mark.parametrize("content", ["", VTK, VTK + "1 2 3", VTK + "a " * 18, VTK[:-12] + "POINTS"])
def test_incomplete_vtk_files_are_refused(tmp_path, content):
    refused("BAD_LANDMARK_FILE", write(tmp_path, content, "l.vtk"), space="RAS")


def test_landmarks_that_cannot_be_written_are_refused(tmp_path):
    with pytest.raises(InvalidInputError, match="not unique"):
        write_landmarks(tmp_path / "l.json", Landmarks([[0, 0, 0], [1, 1, 1]], ("a", "a")))
    with pytest.raises(InvalidInputError, match=r"\.json"):
        write_landmarks(tmp_path / "l.txt", Landmarks(POINTS))


def test_json_may_hold_numpy_and_paths_and_no_nan(tmp_path):
    content = {
        "a": np.float32(0.5),
        "b": np.arange(3),
        1: [np.nan, np.array([np.inf, 1.0])],
        "d": (True, None, "ä"),
        "e": Path("x"),
        "f": {"g": np.bool_(True)},
    }
    write_json(tmp_path / "r.json", content)
    back = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert back == {
        "a": 0.5,
        "b": [0, 1, 2],
        "1": [None, [None, 1.0]],
        "d": [True, None, "ä"],
        "e": "x",
        "f": {"g": True},
    }
    with pytest.raises(TypeError):
        write_json(tmp_path / "r.json", {"a": object()})
    assert json.loads((tmp_path / "r.json").read_text(encoding="utf-8")) == back


@pytest.mark.parametrize(
    "text",
    [
        '{"space": "RAS", "points": {"apex": [1, 2, 3], "apex": [4, 5, 6]}}',
        '{"space": "RAS", "space": "LPS", "points": {"apex": [1, 2, 3]}}',
        '{"space": "RAS", "points": {"b": [1, 2, 3]}, "points": {"a": [1, 2, 3]}}',
    ],
)
def test_a_name_that_is_said_twice_is_refused(tmp_path, text):
    assert "more than once" in refused("REPEATED_NAME", write(tmp_path, text))
