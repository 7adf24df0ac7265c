"""Synthetic hearts: exact seeds, anatomy, calibration to the published population, and the image."""

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, label

from cardiacreg import InvalidInputError
from cardiacreg.phantoms.hearts import (
    FIRST_EVALUATION_SEED,
    HeartSpecification,
    population,
    sample_heart,
)
from cardiacreg.phantoms.population import GROUPS, PHASES, sample_shape, shape_volumes

SEED = FIRST_EVALUATION_SEED
CASES = [(group, phase) for group in GROUPS for phase in PHASES]


@pytest.fixture(scope="module")
def hearts():
    return {
        case: sample_heart(SEED + n, group=case[0], phase=case[1]) for n, case in enumerate(CASES)
    }


def lowest(array, value):
    return int(np.flatnonzero((array == value).any(axis=(0, 1)))[0])


def test_a_seed_gives_the_same_bits():
    first, again = (sample_heart(SEED, group="healthy", phase="ES") for _ in range(2))
    assert np.array_equal(first.labels.array, again.labels.array)
    assert np.array_equal(first.image.array, again.image.array)
    assert np.array_equal(first.landmarks.points_mm, again.landmarks.points_mm)
    assert first.metadata == again.metadata


def test_other_seeds_groups_and_phases_are_other_hearts():
    shapes = [
        sample_heart(seed, group=group, phase=phase, with_image=False).labels
        for seed, group, phase in [
            (SEED, "healthy", "ED"),
            (SEED + 1, "healthy", "ED"),
            (SEED, "dilated", "ED"),
            (SEED, "healthy", "ES"),
        ]
    ]
    for n, one in enumerate(shapes):
        for other in shapes[n + 1 :]:
            assert one.shape != other.shape or not np.array_equal(one.array, other.array)


@pytest.mark.parametrize("case", CASES)
def test_every_structure_is_one_piece_away_from_the_border(hearts, case):
    array = hearts[case].labels.array
    for value in (1, 2, 3, 4):
        assert label(array == value)[1] == 1
    inner = np.zeros(array.shape, dtype=bool)
    inner[3:-3, 3:-3, 2:-2] = True
    assert not (array[~inner] > 0).any()


@pytest.mark.parametrize("case", CASES)
def test_the_lv_cavity_is_closed_but_for_the_base(hearts, case):
    array = hearts[case].labels.array
    cavity = array == 1
    neighbours = binary_dilation(cavity) & ~cavity
    slices = np.flatnonzero(cavity.any(axis=(0, 1)))
    below = neighbours[:, :, : slices[0] + int(0.8 * (slices[-1] - slices[0]))]
    assert set(np.unique(array[:, :, : below.shape[2]][below])) == {2}
    outside = np.isin(array[:, :, slices[-1] :][neighbours[:, :, slices[-1] :]], (0, 2))
    assert outside.all()


@pytest.mark.parametrize("case", CASES)
def test_the_apices_and_the_rv_wall(hearts, case):
    heart = hearts[case]
    array = heart.labels.array
    assert lowest(array, 4) > lowest(array, 2)
    assert lowest(array, 3) >= lowest(array, 2) - 1
    assert lowest(array, 1) > lowest(array, 2)
    assert 2.0 <= heart.metadata["rv_wall_mm"] <= 5.0
    touching = binary_dilation(array == 4) & (array == 0)
    middle = slice(lowest(array, 4) + 4, lowest(array, 4) + 12)
    assert not touching[:, :, middle].any()


@pytest.mark.parametrize("case", CASES)
def test_landmarks_lie_where_their_names_say(hearts, case):
    heart = hearts[case]
    anterior, turning, inferior, lateral, apex, mitral = heart.landmarks.points_mm
    assert anterior[1] < inferior[1]
    assert turning[0] < min(anterior[0], inferior[0]) < lateral[0]
    assert apex[2] < lateral[2] < mitral[2]
    assert np.linalg.norm(mitral) < 15.0


def test_the_same_person_contracts():
    for group in GROUPS:
        relaxed, contracted = (
            shape_volumes(sample_shape(SEED, phase=phase, group=group)) for phase in PHASES
        )
        assert contracted.lv_cavity_ml < 0.95 * relaxed.lv_cavity_ml
        assert contracted.rv_cavity_ml < 0.95 * relaxed.rv_cavity_ml
        assert contracted.lv_wall_ml == pytest.approx(relaxed.lv_wall_ml, rel=0.05)


@pytest.mark.parametrize(
    ("group", "expected"),
    [("healthy", (148, 119, 172, 34)), ("pulmonary_hypertension", (115, 124, 204, 50))],
)
def test_group_means_follow_the_published_population(group, expected):
    # 24 draws with a spread of 20-29 %: a standard error near 5 %, so 15 % is three of them.
    volumes = [shape_volumes(sample_shape(SEED + n, group=group)) for n in range(24)]
    found = [
        np.mean([v.lv_cavity_ml for v in volumes]),
        np.mean([v.lv_mass_g for v in volumes]),
        np.mean([v.rv_cavity_ml for v in volumes]),
        np.mean([v.rv_mass_g for v in volumes]),
    ]
    assert found == pytest.approx(expected, rel=0.15)


def test_blood_is_brighter_than_muscle_and_muscle_than_lung(hearts):
    for heart in hearts.values():
        array, image = heart.labels.array, heart.image.array
        assert image.shape == array.shape
        assert image.min() >= 0
        blood, muscle = np.median(image[array == 1]), np.median(image[array == 2])
        assert blood > 1.5 * muscle > 1.5 * np.percentile(image[array == 0], 5)


def test_a_population_is_made_one_by_one():
    items = (HeartSpecification(SEED), HeartSpecification(SEED, "dilated", "ES"))
    made = population(items, with_image=False)
    assert [heart.name for heart in made] == [item.name for item in items]


def test_a_coarser_grid_holds_the_same_heart():
    fine, coarse = (
        sample_heart(SEED, spacing_mm=spacing, with_image=False).metadata["lv_volume_ml"]
        for spacing in [(1.25, 1.25, 2.0), (2.5, 2.5, 3.0)]
    )
    assert coarse == pytest.approx(fine, rel=0.04)


@pytest.mark.parametrize(
    "wrong",
    [{"seed": -1}, {"seed": 1, "phase": "MID"}, {"seed": 1, "group": "horse"}]
    + [{"seed": 1, "spacing_mm": spacing} for spacing in [(1, 1), (1, 1, 0), (1, -1, 1)]],
)
def test_wrong_requests_are_refused(wrong):
    with pytest.raises(InvalidInputError):
        sample_heart(**wrong)
