"""Rates of curves whose slope is known, and measures of a cine that beats as it should."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field

import numpy as np
import pytest

from cardiacreg import (
    RefineOptions,
    draw_bullseye,
    measure,
    measure_cine,
    refine_cine,
    volumes_ml,
    write_measures_csv,
)
from cardiacreg.anatomy.slice_volumes import stack_volumes
from cardiacreg.errors import InputWarning, InvalidInputError
from cardiacreg.geometry import LabelMap, Landmarks
from cardiacreg.measures.cycle import peak_rates
from cardiacreg.phantoms.toy_heart import make_toy_heart

CYCLE_MS = 900.0


def curve(times, *, shift=0.0):
    """Volumes of three harmonics, and the exact slope in ml/s."""
    w, t = 2 * np.pi / CYCLE_MS, np.asarray(times) - shift
    volumes = 110 + 45 * np.cos(w * t) + 9 * np.sin(2 * w * t) - 5 * np.cos(3 * w * t)
    slopes = -45 * w * np.sin(w * t) + 18 * w * np.cos(2 * w * t) + 15 * w * np.sin(3 * w * t)
    return volumes, 1000 * slopes


def test_rates_of_a_known_curve():
    times = np.arange(30) * 30.0
    volumes, _ = curve(times)
    ed, es = int(volumes.argmax()), int(volumes.argmin())
    fine = np.arange(times[ed], times[ed] + CYCLE_MS, 0.1)
    slopes = curve(fine)[1]
    falling = fine <= times[es]
    found = peak_rates(times, volumes, ed=ed, es=es)
    assert found.ejection_ml_per_s == pytest.approx(-slopes[falling].min(), rel=1e-3)
    assert found.filling_ml_per_s == pytest.approx(slopes[~falling].max(), rel=1e-3)
    assert found.ejection_ms == pytest.approx(fine[slopes[falling].argmin()] - times[ed], abs=1)
    after = fine[~falling][slopes[~falling].argmax()] - times[es]
    assert found.filling_ms == pytest.approx(after, abs=1)


@pytest.mark.parametrize("first", [7, 21])
def test_rates_do_not_depend_on_the_first_frame(first):
    times = np.arange(30) * 30.0
    volumes = np.roll(curve(times)[0], first)
    found = peak_rates(times, volumes, ed=int(volumes.argmax()), es=int(volumes.argmin()))
    plain = curve(times)[0]
    usual = peak_rates(times, plain, ed=int(plain.argmax()), es=int(plain.argmin()))
    np.testing.assert_allclose(found, usual, rtol=1e-6)


def test_noise_of_single_frames_hardly_matters():
    times = np.arange(30) * 30.0
    volumes, slopes = curve(times)
    noisy = volumes + np.random.default_rng(4).normal(0, 1.0, len(times))
    found = peak_rates(times, noisy, ed=int(volumes.argmax()), es=int(volumes.argmin()))
    assert found.ejection_ml_per_s == pytest.approx(-slopes.min(), rel=0.12)
    assert (
        np.abs(np.diff(noisy)).max() / 0.030 > 1.12 * np.abs(slopes).max()
    )  # a difference is worse


@pytest.mark.parametrize(
    "wrong",
    [
        {"times_ms": np.arange(5) * 30.0, "volumes_ml": np.ones(5)},
        {"times_ms": np.zeros(10)},
        {"volumes_ml": np.full(10, np.nan)},
        {"cycle_ms": 200.0},
        {"es": 0},
    ],
)
def test_curves_without_rates_are_refused(wrong):
    given = {"times_ms": np.arange(10) * 60.0, "volumes_ml": np.ones(10), "ed": 0, "es": 4}
    with pytest.raises(InvalidInputError) as raised:
        peak_rates(**(given | wrong))
    assert raised.value.code == "BAD_TIMES"


# --- a cine


@dataclass
class Frame:
    labels: LabelMap
    volumes: dict
    time_ms: float | None


@dataclass
class Cine:
    """Toy hearts that grow and shrink; points follow about the world's origin."""

    sizes: list
    times_ms: list
    landmarks: Landmarks
    ed: int = 0
    es: int = 4
    frames: list = field(default_factory=list)

    def __post_init__(self):
        for size, time in zip(self.sizes, self.times_ms, strict=True):
            labels = make_toy_heart(size=size).labels
            parts = stack_volumes(labels, labels, base_at_last_slice=True)
            self.frames.append(Frame(labels, parts, time))

    @property
    def volumes_ml(self):
        each = [volumes_ml(frame.labels) for frame in self.frames]
        return {name: np.array([one[name] for one in each]) for name in each[0]}

    def follow(self, points_mm, frame):
        moved = make_toy_heart(size=self.sizes[frame]).landmarks
        if moved is not None:
            return moved.points_mm
        from cardiacreg.anatomy.landmarks import landmarks_from_labels

        return landmarks_from_labels(self.frames[frame].labels).points_mm


@pytest.fixture(scope="module")
def cine():
    from cardiacreg.anatomy.landmarks import landmarks_from_labels

    sizes = 0.95 + 0.05 * np.cos(2 * np.pi * np.arange(9) / 9)
    places = landmarks_from_labels(make_toy_heart().labels)
    return Cine(list(sizes), list(np.arange(9) * 100.0), places)


def test_a_cine(cine, tmp_path):
    found = measure_cine(cine, height_cm=180, weight_kg=80)
    volumes = cine.volumes_ml["LV cavity"]
    np.testing.assert_array_equal(found.curves_ml["LV cavity"], volumes)
    rows = {row.name: row.value for row in found.table()}
    assert rows["LVEDV"] == volumes[0] and rows["LVESV"] == volumes[4] and rows["LVEDVi"] > 0
    rates = peak_rates(found.times_ms, volumes, ed=0, es=4)
    assert found.rates["LV"] == rates and rows["LV peak filling rate"] == rates.filling_ml_per_s
    step = np.abs(np.diff(volumes)).max() / 0.1
    assert step < rates.ejection_ml_per_s < 1.6 * step
    plain = measure(cine.frames[0].labels, cine.frames[4].labels)
    np.testing.assert_allclose(found.thickening_percent(), plain.thickening_percent(), atol=1e-6)
    write_measures_csv(tmp_path / "cine.csv", {"toy": found})
    assert "LV peak ejection rate (mL/s)" in (tmp_path / "cine.csv").read_text()
    assert "Fourier" in (tmp_path / "cine_units.json").read_text()
    assert draw_bullseye(found).axes


def test_a_cine_without_times_has_no_rates(cine):
    for changed in ([None] * 9, [0.0, 100.0, *[None] * 7]):
        still = Cine(cine.sizes, changed, cine.landmarks)
        found = measure_cine(still)
        assert found.rates == {} and found.times_ms is None
        assert {row.name: row.value for row in found.table()}["LV peak filling rate"] is None


def test_a_wall_that_no_frame_shows_is_not_measured(cine):
    array = np.where(cine.frames[0].labels.array == 3, 0, cine.frames[0].labels.array)
    unseen = stack_volumes(
        LabelMap(array, cine.frames[0].labels.voxel_to_world), cine.frames[0].labels,
        base_at_last_slice=True,
    )  # fmt: skip
    other = Cine(cine.sizes, cine.times_ms, cine.landmarks)
    other.frames[0].volumes = unseen
    rows = {row.name: row.value for row in measure_cine(other).table()}
    assert rows["RVM"] is None and rows["RV_WT_Global ED"] is None


def test_a_refined_cine():
    """Nine toy frames refined together: its result is a `Cine`, landmarks move with the heart."""
    sizes = (1.0, 0.97, 0.9, 0.85, 0.82, 0.84, 0.89, 0.94, 0.98)
    options = RefineOptions(n_atlases=2, orientation="as-stored", affine_candidates=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        result = refine_cine(
            [make_toy_heart(size=size).labels for size in sizes],
            times_ms=[80.0 * n for n in range(9)],
            atlases=[make_toy_heart(size=size) for size in (0.8, 0.9, 1.02)],
            spacing_mm=(2.5, 2.5, 4.0),
            options=options,
            threads=2,
        )
        found = measure_cine(result)
    volumes = result.volumes_ml["LV cavity"]
    assert found.ed.lv_volume_ml == volumes[result.ed] > found.es.lv_volume_ml
    assert 0 < found.rates["LV"].ejection_ml_per_s < 10 * volumes.max()
    assert np.isfinite(found.thickening_percent()).sum() >= 12
