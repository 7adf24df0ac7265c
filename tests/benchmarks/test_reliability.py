"""The benchmark of reliability: what it feeds is right before it is made wrong, and it notices errors."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from benchmarks.reliability import fuzzing, kills
from benchmarks.reliability.public_calls import Call, public_calls, wrongly
from benchmarks.reliability.wrong_values import HEART, POINTS, SPLINE, nearly
from cardiacreg.errors import kept_warnings

CALLS = fuzzing._call_names()
QUICK = [name for name, long in CALLS.items() if not long]


@pytest.mark.parametrize("name", QUICK)
def test_a_call_with_right_arguments_ends_well(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with kept_warnings():
        call = public_calls(tmp_path)[name]
        call.prepare()
        call.function(**call.arguments)


@pytest.mark.parametrize("name", fuzzing._kinds())
def test_a_whole_file_is_read(tmp_path, name):
    kind = fuzzing._kinds()[name]
    with kept_warnings():
        kind.read(kind.put(tmp_path))


@pytest.mark.parametrize(
    "name", [*QUICK, "build_atlas_bank", "append_to_atlas_bank", "fuse_labels"]
)
def test_wrong_arguments_end_in_our_own_errors(name):
    fed = fuzzing.feed({"what": "calls", "fed": name, "part": "tests", "inputs": 25})
    assert sum(fed["ends"].values()) == 25


def test_calls_are_listed_without_a_trace(tmp_path):
    public_calls(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_foreign_error_is_told(monkeypatch):
    def broken(a):
        raise KeyError(a)

    monkeypatch.setattr(fuzzing, "public_calls", lambda folder: {"broken": Call(broken, {"a": 1})})
    with pytest.raises(fuzzing.Foreign, match="broken.*KeyError"):
        fuzzing.feed({"what": "calls", "fed": "broken", "part": 0, "inputs": 3})


def test_arguments_are_changed_and_others_kept():
    call, draw = Call(print, {"a": 1, "b": 2, "c": 3}), Random(0)
    given = [wrongly(call, draw) for _ in range(50)]
    assert {sum(each[name] is not value for name, value in call.arguments.items()) for each in given} <= {
        0, 1, 2,
    }  # fmt: skip
    assert call.arguments == {"a": 1, "b": 2, "c": 3}


@pytest.mark.parametrize("value", [HEART, HEART.labels, HEART.image, POINTS, SPLINE, Path("a.nii")])
def test_nearly_right_is_another_value_each_time(value):
    found = [nearly(value, Random(n)) for n in range(40)]
    kinds = [each for each in found if isinstance(each, type(value))]
    assert 4 < len(kinds) and all(each is not value for each in kinds)


def test_as_many_inputs_and_kills_as_are_promised():
    units = [unit.key for unit in fuzzing.units(False)]
    assert sum(key["inputs"] for key in units) >= 1_000_000
    assert sum(kills._KILLS.values()) >= 300
    assert set(kills._KILLS) == set(kills.WORKS)
