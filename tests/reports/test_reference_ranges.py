"""Published ranges: of measures that exist, in order, and where a value lies in them."""

import pytest

from cardiacreg.measures.heart import measure
from cardiacreg.phantoms.toy_heart import make_toy_heart
from cardiacreg.reports.contents import measure_words
from cardiacreg.reports.reference_ranges import CITATION, RANGES


@pytest.fixture(scope="module")
def measured():
    """Names of what is measured in a heart of somebody of known height and weight."""
    rows = measure(make_toy_heart().labels, height_cm=180, weight_kg=80).table()
    return frozenset(row.name for row in rows)


@pytest.mark.parametrize("name", RANGES)
def test_are_of_measures_that_exist(measured, name):
    assert name in measured
    for low, high in RANGES[name]:
        assert 0 < low < high
    assert measure_words(name)


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (79.9, "below"), (80, "within women only"), (92.9, "within women only"), (93, "within"),
        (175, "within"), (175.1, "within men only"), (232, "within men only"), (232.1, "above"),
    ],
)  # fmt: skip
def test_a_value_is_outside_only_where_it_is_outside_both(value, place):
    assert RANGES["LVEDV"].place(value) == place


def test_of_the_ejection_fraction_are_mean_and_deviations_as_published():
    assert RANGES["LVEF"].men == (48.2, 67.8) and RANGES["LVEF"].women == (51.2, 70.8)


def test_the_source_is_cited():
    assert "doi:10.1186/s12968-017-0327-9" in CITATION
