"""The benchmark of views: what it measures on one small heart, and its tables from known records."""

import numpy as np
import pytest

from benchmarks.accuracy import network_views, views
from benchmarks.harness.cases import Case
from cardiacreg import Subject
from cardiacreg.phantoms.long_axis_views import ViewAcquisition, simulate_views
from cardiacreg.phantoms.toy_heart import make_toy_heart

STRUCTURES = ("LV cavity", "LV wall", "RV cavity", "RV wall")


def record(case, method, dice, left_out=()):
    scores = {name: {"dice": dice, "volume_error_ml": 0.0} for name in STRUCTURES}
    return {
        "case": case, "seed": int(case[-2:]), "method": method, "seconds": 1.0,
        "scores": {"raw": scores, "translation": scores, "tilt": scores},
        "shifts": {
            "raw_mm": 0.75, "detrended_mm": 0.5, "untouched_mm": 2.0, "floor_mm": 0.55,
        },
        "left_out": {name: dict.fromkeys(STRUCTURES[:3], dice) | {"RV wall": None} for name in left_out},
    }  # fmt: skip


@pytest.fixture
def result():
    names = tuple(views.VIEW_DEGREES)
    records = []
    for number in range(6):
        case = f"subject{number:02d}"
        records.append(record(case, views.SHAPE_BASED, 0.80 + number / 1000))
        for step, (method, given) in enumerate(views.GIVEN.items()):
            left = [name for name in names if name not in given]
            records.append(record(case, method, 0.9 + 0.01 * step + number / 1000, left))
    for each in records:
        if each["method"] == views.SHAPE_BASED:
            del each["shifts"], each["left_out"]
    patient = {
        "case": "bivme", "left_out": 7, "method": "the other views",
        "found": [{"phase": 0, "dice": dict.fromkeys(STRUCTURES[:3], 0.95) | {"RV wall": None},
                   "ends_mm": {name: [1.0, 3.0] for name in views.plane_cuts_ends()}}],
    }  # fmt: skip
    return {"records": records, "patient": [patient]}


def test_tables_hold_what_was_measured(result):
    found = views.tables(result)
    assert "| four- and two-chamber | 0.922" in found["views-anatomies"]
    assert "| four-chamber | 0.75 | 0.55 | 0.50 | 2.00 |" in found["views-anatomies-shifts"]
    left_out = found["views-anatomies-left-out"]
    assert left_out.count("\n| no view") == 3 and "all three" not in left_out
    assert "| four- and two-chamber | three-chamber | 0.922" in left_out
    assert "| four-chamber | the other views | 0.950 |" in found["views-patient"]
    assert "+2.0" in found["views-patient"]


def test_a_left_out_view_is_compared_where_it_truly_lies():
    heart = make_toy_heart()
    how = ViewAcquisition(shift_sd_mm=6.0, thickness_mm=2.0)
    (view,) = simulate_views(heart, ["two_chamber"], seed=2, acquisition=how)
    there = views._left_out_dice(heart.labels, view)
    assert there["LV cavity"] > 0.95 and there["RV wall"] is None
    unmoved = type(view)(view.name, view.subject, 0 * view.shift_mm)
    assert views._left_out_dice(heart.labels, unmoved)["LV cavity"] < there["LV cavity"] - 0.05


def test_errors_of_shifts_are_raw_and_without_mean_and_trend():
    heart = make_toy_heart()
    slices = np.arange(heart.labels.shape[2])
    true = np.zeros((len(slices), 2))
    case = Case("toy", 0, "healthy", "ED", Subject(heart.labels), true, heart.labels)

    class Found:
        slice_shifts_mm = np.column_stack([1.0 + 0.1 * slices, np.zeros(len(slices))])

    figures = views._shift_figures(Found, case, ())
    assert figures["detrended_mm"] < 1e-9 < 1 < figures["raw_mm"]
    assert figures["untouched_mm"] == 0


class TestOfTheNetwork:
    """The benchmark of views by a network: its tables from known records, and Dice in a plane."""

    def of_patient(self, method, dice):
        kinds = [(phase, kind) for phase in (0, 9) for kind in network_views.KINDS.values()]
        found = [
            {
                "phase": phase,
                "view": kind,
                "dice": dict.fromkeys(STRUCTURES[:3], dice - phase / 100),
            }
            for phase, kind in kinds
        ]
        found[2]["dice"]["RV cavity"] = None  # the two-chamber view
        return {"case": "bivme", "method": method, "found": found}

    def test_tables_hold_what_was_measured(self):
        dice = dict.fromkeys(STRUCTURES[:3], 0.9)
        heart = {"method": network_views.ALONE, "found": [
            {"view": "two-chamber", "dice": dice}, {"view": "four-chamber", "dice": dice},
            {"view": "three-chamber", "dice": dice | {"RV cavity": None, "LV cavity": 0.8}},
        ]}  # fmt: skip
        models = [
            record(f"subject{number:02d}", method, 0.9 + step / 50 + number / 1000)
            for number in range(6)
            for step, method in enumerate(network_views.MODELS)
        ]
        patient = [self.of_patient(network_views.ALONE, 0.95), self.of_patient("shape-based", 0.85)]
        found = network_views.tables({"patient": patient, "views": [heart] * 2, "records": models})
        assert (
            "| four-chamber | network, each frame by itself | 0.905 ±"
            in found["network-views-patient"]
        )
        assert "| all views | shape-based | 0.805 ±" in found["network-views-patient"]
        assert found["network-views-worst"].count("| shape-based | ") == 3
        assert (
            "| three-chamber | 0.800 ± 0.000 | 0.900 ± 0.000 | – | 0.800 |"
            in found["network-views-hearts"]
        )
        assert "| images: stack and views | 0.922" in found["network-views-models"]
        assert "+0.020" in found["network-views-gain"]

    def test_dice_is_that_of_the_plane(self):
        (view,) = simulate_views(make_toy_heart(), ["four_chamber"], seed=2)
        truth = view.subject.labels
        assert network_views._dice(truth, truth) == dict.fromkeys(STRUCTURES[:3], 1.0)
        aside = truth.voxel_to_world.copy()
        aside[:3, 3] += 20 * aside[:3, 0] / np.linalg.norm(aside[:3, 0])
        moved = network_views._dice(type(truth)(truth.array, aside), truth)
        assert 0 < moved["LV cavity"] < 0.9
        empty = network_views._dice(type(truth)(0 * truth.array, truth.voxel_to_world), truth)
        assert set(empty.values()) == {0.0}
