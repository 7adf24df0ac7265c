"""Tables of the benchmark of cines, from records written by hand."""

import numpy as np
import pytest

from benchmarks.accuracy import cine
from cardiacreg.geometry import STRUCTURES

NAMES = list(STRUCTURES.values())


def ml(*curve):
    return [dict.fromkeys(NAMES, float(value)) for value in curve]


def method(curve, dice=0.9, **more):
    agreement = [dict.fromkeys(NAMES, 0.95) for _ in curve]
    return {
        "volumes_ml": ml(*curve),
        "dice": [dict.fromkeys(NAMES, dice) for _ in curve],
        "cpu_seconds": 12.0,
        "minimum_jacobian": 0.1,
        "agreement": agreement,
    } | more


def heart(case="healthy_10000"):
    curve = (100, 60, 80)
    return {
        "case": case,
        "data": "synthetic",
        "true_ml": ml(*curve),
        cine.SINGLE: method(curve),
        cine.CINE: method(curve, 0.95, shared_share=0.25),
        "own_shift_error_mm": [0.4, 0.6, 0.5],
        **{f"shift_error_{n}_mm": [0.3, 0.3, 0.3] for n in (1, 2, 3)},
    }


def patient():
    return {
        "case": "patient001",
        "data": "ACDC",
        "input_ml": ml(100, 110),
        cine.SINGLE: method((100, 110)),
        cine.CINE: method((100, 100), shared_share=0.5),
    }


def contoured():
    found = heart("bivme") | {"data": "bivme", "input_ml": ml(100, 60, 80)}
    one = {name: {"points": 3, "absolute": 2.0} for name in cine.long_axis.CONTOURS}
    for name in cine.METHODS:
        found[name] = found[name] | {"contours_mm": [one] * 3}
    return found


def test_tables_say_what_was_measured():
    failed = {"case": "patient007", "data": "ACDC", "error": "x"}
    tables = cine.tables({"records": [heart(), heart("b"), patient(), contoured(), failed]})
    assert "| cine, ES | 0.950 ± 0.000" in tables["cine-dice"]
    assert "| each frame its own | 0.500" in tables["cine-shifts"]
    assert "| one for all, from 3 frames | 0.300" in tables["cine-shifts"]
    assert "| healthy_10000 | 3 | 4.00 | 12.0 | 3.00 | 0.100 |" in tables["cine-cost"]
    assert "| frame by frame | -9.5 ± 0.0 | 9.5 | 0.950" in tables["cine-walls"]
    assert "| cine | 0.0 ± 0.0 | 0.0 | 0.950" in tables["cine-walls"].replace("+", "")
    assert "2.00" in tables["cine-contours"]


def test_nothing_measured_is_no_table():
    assert cine.tables({"records": []}) == {}


def test_roughness_is_that_of_a_zigzag():
    assert cine.roughness([9, 11, 9, 11]) == pytest.approx(40.0)
    assert cine.roughness(np.full(5, 7.0)) == 0.0


def test_patients_are_those_settings_were_chosen_on():
    assert cine.DEVELOPMENT == tuple(range(1, 100, 6))
