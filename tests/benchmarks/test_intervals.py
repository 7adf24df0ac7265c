"""The fit of the intervals' constants finds those that errors were drawn with; the tables count right."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.accuracy import intervals as benchmark
from cardiacreg.anatomy.slice_volumes import StructureVolume
from cardiacreg.geometry import STRUCTURES
from cardiacreg.measures import intervals

SHARE, PER_SPREAD, MEAN = (0.02, 0.1), (1.0, 1.0), (0.01, 0.2)


def record(rng, number, data="synthetic"):
    """A heart whose errors are drawn: acquired and extrapolated, in one phase or two."""
    phases = {}
    for phase in ("ED", "ES")[: 2 if data == "synthetic" else 1]:
        phases[phase] = {name: structure(rng) for name in STRUCTURES.values()}
    return {"case": f"{data}{number}", "data": data, "phases": phases}


def structure(rng):
    inside, beyond, apex, base = rng.uniform((60, 20, 1, 5), (200, 40, 5, 25))
    spreads = rng.uniform((0.5, 0.2), (6, 6))
    sds = np.hypot(np.array(SHARE) * (inside, apex + base), np.array(PER_SPREAD) * spreads)
    acquired, extrapolated = rng.normal((inside * (1 + MEAN[0]), beyond + MEAN[1] * base), sds)
    atlases = [
        [m - s / np.sqrt(2), m + s / np.sqrt(2)]
        for m, s in zip((inside, beyond), spreads, strict=True)
    ]
    model = dict(
        input_ml=inside, inside_ml=inside, beyond_apex_ml=0.0, beyond_base_ml=beyond,
        total_ml=inside + beyond, beyond_apex_mm=0.0, beyond_base_mm=5.0, outermost_ml=[apex, base],
        atlases_inside_ml=atlases[0], atlases_beyond_ml=atlases[1],
    )  # fmt: skip
    true = {"acquired": acquired, "extrapolated": extrapolated, "whole": acquired + extrapolated}
    return {"model": model, "true": true}


@pytest.fixture(scope="module")
def constants():
    rng = np.random.default_rng(1)
    return benchmark.fitted([record(rng, n) for n in range(600)])


def test_the_fit_finds_what_errors_were_drawn_with(constants):
    for found in constants.values():
        assert found.acquired_mean == pytest.approx(MEAN[0], abs=0.003)
        assert found.extrapolated_mean == pytest.approx(MEAN[1], abs=0.02)
        own = np.array([found.acquired_sd, found.extrapolated_sd])
        np.testing.assert_allclose(own, np.transpose([SHARE, PER_SPREAD]), rtol=0.25)
        np.testing.assert_allclose(found.quantiles, [(-1.645, 1.645)] * 3, atol=0.25)
        assert abs(found.phases) < 0.15


def test_tables_count_what_lies_inside(constants, monkeypatch):
    for name, model in constants.items():
        monkeypatch.setitem(intervals.ERRORS, name, model)
    rng = np.random.default_rng(2)
    records = [
        {"case": each["case"], "data": each["data"]} | benchmark._measured(each["phases"])
        for n in range(150)
        for each in (record(rng, n), record(rng, n, "anatomies"))
    ]
    model, true, low, high = records[0]["measures"]["LV cavity, stroke volume"]
    assert low < high and low < model + 60 and high > model - 60
    found = benchmark.tables({"records": records})
    last = found["intervals-coverage"].splitlines()[-1].split("|")
    assert "all of them" in last[1]
    share, count = last[4].split(" of ")
    # Four structures in two phases and four measures of function; in one phase four structures.
    assert int(count) == 150 * 12 + 150 * 4 and 88 <= int(share) <= 92
    wrong = {name: [0.0, 1e9, 0.0, 1.0] for name in records[0]["measures"]}
    table = benchmark.tables({"records": [records[0] | {"measures": wrong}]})["intervals-coverage"]
    assert " 0 of 12 " in table and " 0, 100 " in table


def test_a_volume_without_an_interval_is_not_counted():
    unknown = {"LV wall, ED": [100.0, 101.0, None, None], "LV cavity, ED": [50.0, 51.0, 49.0, 52.0]}
    found = benchmark.tables({"records": [{"data": "synthetic", "measures": unknown}]})
    rows = found["intervals-coverage"].splitlines()
    assert "| – | – |" in next(row for row in rows if "LV wall" in row)
    assert "100 of 1" in next(row for row in rows if "LV cavity" in row)


def test_true_parts():
    volume = StructureVolume(90.0, 91.0, 1.0, 2.0, 94.0, 3.0, 4.0)
    parts = benchmark.true_parts_ml(volume)
    assert parts == {"whole": 94.0, "acquired": 91.0, "extrapolated": 3.0}
