"""Arguments of any kind end in our own errors, or in a TypeError: nothing else, and no silence."""

import dataclasses

import numpy as np
import pytest
from hypothesis import Phase, given, settings, strategies as st

import cardiacreg
from cardiacreg import (
    FusionOptions,
    InvalidInputError,
    RefinementError,
    RefineOptions,
    RegistrationOptions,
)
from cardiacreg.compute.threads import check_threads
from cardiacreg.errors import kept_warnings
from cardiacreg.io.nifti import read_labels, read_volume
from cardiacreg.phantoms.toy_heart import make_toy_heart

OURS = (InvalidInputError, RefinementError, TypeError)
HEART = make_toy_heart()
QUICK = {"phases": [Phase.generate], "deadline": None, "database": None}

numbers = st.one_of(st.integers(), st.floats(), st.complex_numbers(), st.booleans())
arrays = st.sampled_from(
    [np.array([1, 2]), np.array("a"), np.zeros((2, 3)), np.float64(1.5), np.bool_(True), np.int8(3)]
)
simple = st.one_of(st.none(), numbers, st.text(max_size=8), st.binary(max_size=4), arrays)
anything = st.recursive(
    simple | st.builds(object),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(st.text(max_size=3) | st.integers(0, 5), inner, max_size=3),
    ),
    max_leaves=6,
)
OPTIONS = [
    (kind, each.name)
    for kind in (RefineOptions, RegistrationOptions, FusionOptions)
    for each in dataclasses.fields(kind)
]


@pytest.mark.parametrize(
    ("kind", "name"), OPTIONS, ids=lambda value: getattr(value, "__name__", value)
)
@settings(max_examples=30, **QUICK)
@given(value=anything)
def test_options_are_right_or_refused(kind, name, value):
    try:
        made = kind(**{name: value})
    except InvalidInputError as error:
        assert error.code == "BAD_OPTION"
    else:
        assert type(getattr(made, name)).__name__ not in ("ndarray", "object", "complex", "bytes")


@settings(max_examples=150, **QUICK)
@given(value=anything)
def test_thread_counts_are_whole_numbers(value):
    try:
        assert check_threads(value) >= 1
    except InvalidInputError as error:
        assert error.code == "BAD_THREADS"


@settings(max_examples=150, **QUICK)
@given(value=anything)
@pytest.mark.parametrize("read", [read_labels, read_volume, cardiacreg.read_segmentation])
def test_readers_take_sources_and_frames_of_any_kind(read, value):
    four = (np.stack([HEART.labels.array] * 3, axis=-1), HEART.labels.voxel_to_world)
    for arguments, named in (((value,), {}), ((four,), {"frame": value})):
        with kept_warnings():
            try:
                read(*arguments, **named)
            except OURS:
                pass


REFUSED = {
    "segmentation": [None, 3, "nowhere.nii", b"x", (1, 2), {}, np.zeros((4, 4, 4))],
    "image": [3, "nowhere.nii", b"x", (1, 2), {}, np.zeros((4, 4, 4))],
    "landmarks": [3, "nowhere.json", np.array("a"), [[1, 2]], {}, b"x", [[None] * 3] * 6],
    "atlases": [3, "nowhere", (), {}, [None], np.zeros(3)],
    "preset": [3, "nowhere", (1, 2), [], np.zeros(3), {"a": 1}, {1: None}, {1: [1]}],
    "frame": [7, "7", "ED", 1.0, True, np.array([1, 2]), (0,)],
    "frames": [3, "nowhere", [None], [99], [object()]],
    "spacing_mm": [None, "a", 0, (1, 1), (1, 1, float("nan")), object(), np.zeros(3)],
    "options": [3, "fast", {}, RegistrationOptions(), np.zeros(2)],
    "threads": ["2", 0, -1, 1.5, float("inf"), np.zeros(2), (), object()],
}


@pytest.mark.parametrize("name", REFUSED)
def test_refine_refuses_what_it_cannot_use(name):
    for value in REFUSED[name]:
        given = {"segmentation": HEART.labels, "atlases": [HEART], "threads": 1, name: value}
        with kept_warnings(), pytest.raises(OURS):
            cardiacreg.refine(given.pop("segmentation"), **given)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("frames", ["some", [None], ["0"], [9], [1.5], object()]),
        ("ed", ["0", 9, 1.5, np.zeros(2)]),
        ("es", ["0", 9, 1.5, np.zeros(2)]),
        ("times_ms", ["ab", [1], [2, 1], [None, 3], 5]),
        ("options", [3, {}, RegistrationOptions()]),
        ("preset", [3, [], {1: "a"}]),
    ],
)
def test_refine_cine_refuses_what_it_cannot_use(name, values):
    series = [HEART.labels, make_toy_heart(size=0.9).labels]
    for value in values:
        with kept_warnings(), pytest.raises(OURS):
            cardiacreg.refine_cine(series, **({"atlases": [HEART], "threads": 1} | {name: value}))
