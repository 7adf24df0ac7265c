"""Failures made on purpose: each does to a stack what it says, and nothing else."""

import numpy as np
import pytest

from benchmarks.accuracy import quality
from benchmarks.harness import failures
from cardiacreg.geometry import LV_CAVITY, RV_CAVITY, RV_WALL, Subject, Volume
from cardiacreg.phantoms.toy_heart import make_toy_heart
from cardiacreg.slices import labelled_slices


@pytest.fixture(scope="module")
def stack():
    return make_toy_heart()


@pytest.fixture(scope="module")
def other(stack):
    image = Volume(np.full((30, 50, 4), 7.0), np.eye(4))
    return Subject(make_toy_heart(size=0.9).labels, image)


def done(name, stack, other):
    return failures.FAILURES[name](stack, np.random.default_rng(3), other)


@pytest.mark.parametrize("name", [n for n in failures.FAILURES if n != "image of another patient"])
def test_each_changes_the_labels(name, stack, other):
    found = done(name, stack, other).labels
    same = found.shape == stack.labels.shape and (found.array == stack.labels.array).all()
    assert not same and found.array.any()


def test_the_wrong_preset_exchanges_cavities(stack, other):
    before, after = stack.labels.array, done("wrong preset", stack, other).labels.array
    np.testing.assert_array_equal(before == LV_CAVITY, after == RV_CAVITY)
    assert not (after == RV_WALL).any()


def test_swapping_keeps_every_slice(stack, other):
    before, after = stack.labels.array, done("swapped slices", stack, other).labels.array
    moved = np.flatnonzero((before != after).any(axis=(0, 1)))
    assert len(moved) == 2
    np.testing.assert_array_equal(before[:, :, moved], after[:, :, moved[::-1]])


@pytest.mark.parametrize("end", ["base", "apex"])
def test_a_missing_end_keeps_the_others_in_place(stack, other, end):
    found = done(f"missing {end}", stack, other).labels
    before, after = (len(labelled_slices(each.array)) for each in (stack.labels, found))
    assert after == before - 3
    first = stack.labels.array[:, :, 0], found.array[:, :, 0]
    corner = found.voxel_to_world[:3, 3] - stack.labels.voxel_to_world[:3, 3]
    k = round(float(np.linalg.norm(corner) / stack.labels.spacing_mm[2]))
    np.testing.assert_array_equal(stack.labels.array[:, :, k], first[1])


def test_another_image_lies_on_the_lattice_of_the_stack(stack, other):
    found = done("image of another patient", stack, other)
    assert found.labels is stack.labels and found.image.shape == stack.labels.shape
    assert (found.image.array == 7.0).all()


def record(failure, **more):
    return {
        "failure": failure,
        "verdict": "accept",
        "warnings": [],
        "orientation": "as-stored",
        "features": {"volume_change": 0.02},
    } | more


@pytest.mark.parametrize(
    ("found", "how"),
    [
        ({"failure": "wrong preset", "refused": "WRONG_PRESET"}, "refused"),
        (record("missing base", verdict="look"), "verdict"),
        (record("swapped slices", warnings=["slices were put in order"]), "warning"),
        (record("mirrored stack", orientation="mirrored"), "recognised"),
        (record("mirrored stack"), "missed"), (record("none"), "missed"),
    ],
)  # fmt: skip
def test_how_a_failure_is_caught(found, how):
    assert quality.how_caught(found) == how


def test_tables_count_failures_and_false_alarms():
    records = [record("none"), record("none", verdict="look"), record("missing base"),
               {"failure": "wrong preset", "refused": "WRONG_PRESET"}]  # fmt: skip
    found = quality.tables({"records": records})
    assert "| failures caught | 1 of 2 | 50 % |" in found["quality-summary"]
    assert "| false alarms | 1 of 2 | 50 % |" in found["quality-summary"]
    assert "wrong preset" in found["quality-failures"]
