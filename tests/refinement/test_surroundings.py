"""What an image shows around a heart is evidence of how it lies in its file."""

import csv
import json
import warnings

import numpy as np
import pytest

from cardiacreg import InputWarning, LabelMap, RefineOptions, Volume, refine
from cardiacreg.anatomy.landmarks import base_is_uncertain, landmarks_from_labels
from cardiacreg.atlases.embedded import default_atlases
from cardiacreg.atlases.view import AtlasView
from cardiacreg.geometry import LV_CAVITY, LV_WALL, RV_CAVITY
from cardiacreg.phantoms.toy_heart import make_toy_heart
from cardiacreg.refinement._refine import make_context, oriented_context
from cardiacreg.refinement.context import Clock
from cardiacreg.refinement.surroundings import weigh_surroundings
from cardiacreg.refinement.target import gather_atlases, gather_target
from cardiacreg.results.files import summary
from tests.helpers.small_hearts import data_folder, relabelled
from tests.helpers.tiny_bank import SPACING_MM, expect_tiny_findings, tiny_atlases, tiny_options

LUNG, LIVER = 15.0, 95.0
GREY = np.array([0.0, 200.0, 80.0, 80.0, 190.0])
MOST_BY_SIDES, MOST_BY_ENDS = np.log(18), np.log(7)
TINY = make_toy_heart().labels
"""Its own mirror image across j, with low j as its anterior side, an empty slice past either end."""


def scene(labels, *, lung="low", blood=()):
    """A heart with lung at low j, high j, both or neither, liver elsewhere, and blood past some ends."""
    grey = GREY[labels.array]
    low = np.arange(labels.shape[1])[None, :, None] * np.ones(labels.shape) < labels.shape[1] / 2
    dark = {"low": low, "high": ~low, "both": low | True, "neither": low & False}[lung]
    around = np.where(dark, LUNG, LIVER)
    grey = np.where(labels.array == 0, around, grey)
    shown = np.flatnonzero(labels.array.any(axis=(0, 1)))
    for end, past in ((shown[0], shown[0] - 1), (shown[-1], shown[-1] + 1)):
        cavities = np.isin(labels.array[:, :, end], (LV_CAVITY, RV_CAVITY))
        name = "first" if past < end else "last"
        if 0 <= past < labels.shape[2]:
            grey[:, :, past] = np.where(cavities & (name in blood), 200.0, grey[:, :, past])
    noise = np.random.default_rng(3).normal(0, 4, size=labels.shape)
    return Volume(grey + noise, labels.voxel_to_world)


def weigh(labels, image):
    return weigh_surroundings(labels, image, landmarks_from_labels(labels))


def flipped(volume, axis):
    """The same in the same world, its voxels in the opposite order."""
    matrix = np.array(volume.voxel_to_world)
    matrix[:3, 3] += matrix[:3, axis] * (volume.shape[axis] - 1)
    matrix[:3, axis] *= -1
    return type(volume)(np.flip(volume.array, axis), matrix)


def changed(image, change):
    return Volume(change(image.array), image.voxel_to_world)


class TestSides:
    @pytest.mark.parametrize(("lung", "expected"), [("low", 1), ("high", -1)])
    def test_lung_lies_beside_the_anterior_wall(self, lung, expected):
        assert weigh(TINY, scene(TINY, lung=lung)).anterior == pytest.approx(
            expected * MOST_BY_SIDES
        )

    @pytest.mark.parametrize("lung", ["both", "neither"])
    def test_sides_alike_tell_nothing(self, lung):
        assert abs(weigh(TINY, scene(TINY, lung=lung)).anterior) < 0.3

    def test_traded_insertions_trade_the_sign(self):
        image, points = scene(TINY, lung="low"), landmarks_from_labels(TINY).points_mm
        traded = type(landmarks_from_labels(TINY))(points[[2, 1, 0, 3, 4, 5]])
        assert weigh_surroundings(TINY, image, traded).anterior == pytest.approx(-MOST_BY_SIDES)

    def test_what_was_not_measured_is_not_lung(self):
        def cropped(array):
            array = array.copy()
            array[:, : array.shape[1] // 2] = np.where(
                TINY.array[:, : array.shape[1] // 2] > 0, array[:, : array.shape[1] // 2], 0.0
            )
            return array

        image = changed(scene(TINY, lung="neither"), cropped)
        assert abs(weigh(TINY, image).anterior) < 0.3

    def test_a_wall_as_dark_as_lung_cannot_tell(self):
        image = scene(TINY, lung="low")
        nulled = np.where(np.isin(TINY.array, (LV_WALL,)), LUNG, image.array)
        assert weigh(TINY, Volume(nulled, image.voxel_to_world)).anterior == 0.0

    @pytest.mark.parametrize("missing", [LV_CAVITY, LV_WALL])
    def test_labels_without_blood_or_wall_tell_nothing(self, missing):
        image = scene(TINY, lung="low", blood=("last",))
        kept = LV_WALL if missing == LV_CAVITY else LV_CAVITY
        labels = relabelled(TINY, {missing: kept})
        assert weigh(labels, image) == (0.0, 0.0)


class TestEnds:
    def stack(self, *, past=True):
        """A heart with cavities in either outermost slice, and an empty slice past both."""
        array = np.array(TINY.array)
        array[:, :, 1] = array[:, :, 2]
        kept = LabelMap(array, TINY.voxel_to_world)
        shown = np.flatnonzero(array.any(axis=(0, 1)))
        part = slice(shown[0], shown[-1] + 1)
        return kept if past else LabelMap(array[:, :, part], TINY.voxel_to_world)

    @pytest.mark.parametrize(
        ("blood", "sign"), [(("last",), 1), (("first",), -1), (("first", "last"), 0)]
    )
    def test_blood_goes_on_past_the_base(self, blood, sign):
        labels = self.stack()
        found = weigh(labels, scene(labels, lung="both", blood=blood)).base_at_last_slice
        assert np.sign(found) == sign or (sign == 0 and abs(found) < 0.3)
        assert abs(found) <= MOST_BY_ENDS

    def test_a_stack_that_ends_with_its_labels_tells_nothing(self):
        labels = self.stack(past=False)
        assert weigh(labels, scene(labels)).base_at_last_slice == 0.0

    def test_nor_does_dark_blood(self):
        labels = self.stack()
        image = changed(scene(labels, blood=("last",)), lambda array: 255.0 - array)
        assert weigh(labels, image).base_at_last_slice == 0.0

    def test_nor_does_an_empty_slice(self):
        labels = self.stack()
        array = np.array(scene(labels, blood=("last",)).array)
        array[:, :, [0, -1]] = 0.0
        assert weigh(labels, Volume(array, labels.voxel_to_world)).base_at_last_slice == 0.0


class TestInvariance:
    labels = TestEnds().stack()
    image = scene(labels, lung="low", blood=("last",))

    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_a_flip_that_the_matrix_tells_changes_nothing(self, axis):
        kept = weigh(self.labels, self.image)
        turned = weigh(flipped(self.labels, axis), flipped(self.image, axis))
        assert turned.anterior == pytest.approx(kept.anterior, abs=1e-9)
        sign = -1 if axis == 2 else 1
        assert turned.base_at_last_slice == pytest.approx(sign * kept.base_at_last_slice, abs=1e-9)

    @pytest.mark.parametrize("change", [lambda a: 0.01 * a, lambda a: a - 1000.0])
    def test_the_unit_of_grey_levels_does_not_matter(self, change):
        weak = changed(self.image, lambda a: a + 40.0 * (a < 50))
        kept, found = weigh(self.labels, weak), weigh(self.labels, changed(weak, change))
        np.testing.assert_allclose(found, kept, atol=1e-3)


def run_of(labels, image=None):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        target = gather_target(labels, image, None, None, None)
        return make_context(target, SPACING_MM, RefineOptions(), 1, None, Clock())


@pytest.fixture(scope="module")
def bank():
    return AtlasView(tiny_atlases(), range(3))


def orientation(bank, labels, image=None):
    return oriented_context(run_of(labels, image), [], bank).orientation


class TestOrientation:
    @pytest.mark.parametrize(("lung", "name"), [("low", "as-stored"), ("high", "mirrored")])
    def test_lung_settles_a_symmetric_heart(self, bank, lung, name):
        assert orientation(bank, TINY).probability < 0.9
        found = orientation(bank, TINY, scene(TINY, lung=lung))
        assert found.name == name and found.probability > 0.9
        assert found.reason == "by the atlases' fit to 1 frame and by the image"

    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_a_flip_that_the_matrix_tells_changes_nothing(self, bank, axis):
        image = scene(TINY, lung="high")
        kept = orientation(bank, TINY, image)
        found = orientation(bank, flipped(TINY, axis), flipped(image, axis))
        assert found.name == kept.name == "mirrored"
        assert found.evidence["image"] == pytest.approx(kept.evidence["image"], abs=1e-9)

    def test_a_flip_that_was_lost_mirrors_the_heart(self, bank):
        image = scene(TINY, lung="low")
        labels = LabelMap(np.flip(TINY.array, 2), TINY.voxel_to_world)
        lost = Volume(np.flip(image.array, 2), image.voxel_to_world)
        assert orientation(bank, labels, lost).name == "mirrored"

    @pytest.mark.parametrize(("blood", "name"), [("first", "upside-down"), ("last", "as-stored")])
    def test_blood_past_one_end_turns_a_heart_in_doubt(self, bank, blood, name):
        """A barrel, whose ends look alike: whatever three atlases say of it, the image decides."""
        labels = self.barrel()
        assert base_is_uncertain(labels)
        alone = orientation(bank, labels)
        assert alone.name in ("as-stored", "upside-down") and alone.probability < 0.9
        found = orientation(bank, labels, scene(labels, lung="both", blood=(blood,)))
        assert found.name == name
        if name == alone.name:
            assert found.probability > alone.probability

    @staticmethod
    def barrel():
        i, j = np.meshgrid(*[np.arange(48) * 2.5] * 2, indexing="ij")
        plane = np.zeros((48, 48, 1), dtype=np.uint8)
        plane[np.hypot(i - 46, j - 60) < 24] = RV_CAVITY
        plane[np.hypot(i - 72, j - 60) < 27] = LV_WALL
        plane[np.hypot(i - 72, j - 60) < 18] = LV_CAVITY
        array = np.pad(np.repeat(plane, 8, axis=2), ((0, 0), (0, 0), (1, 1)))
        normal = np.array([0.55, 0.7, -0.2]) / np.linalg.norm([0.55, 0.7, -0.2])
        right = np.cross(normal, [0.0, 0.0, 1.0])
        right /= np.linalg.norm(right)
        matrix = np.eye(4)
        matrix[:3, :3] = np.column_stack([right, np.cross(normal, right), normal]) * (2.5, 2.5, 9.0)
        return LabelMap(array, matrix)

    def test_evidence_adds_up_to_the_odds(self, bank):
        found = orientation(bank, TINY, scene(TINY, lung="high"))
        assert set(found.evidence) == {"areas and header", "atlases", "image"}
        odds = np.log(found.probability / (1 - found.probability))
        assert sum(found.evidence.values()) == pytest.approx(odds, abs=0.01)
        assert abs(found.evidence["image"]) == pytest.approx(MOST_BY_SIDES)

    def test_without_an_image_there_is_no_evidence_of_one(self, bank):
        found = orientation(bank, TINY)
        assert set(found.evidence) == {"areas and header", "atlases"}
        assert found.reason == "by the atlases' fit to 1 frame"

    def test_an_image_that_tells_nothing_is_not_named(self, bank):
        nulled = changed(scene(TINY), lambda array: np.where(TINY.array == LV_WALL, LUNG, array))
        alone, found = orientation(bank, TINY), orientation(bank, TINY, nulled)
        assert (found.name, found.probability, found.reason) == (
            alone.name, alone.probability, alone.reason,
        )  # fmt: skip
        assert found.evidence["image"] == 0.0


@expect_tiny_findings
def test_result_json_lists_the_evidence():
    found = refine(
        TINY,
        image=scene(TINY, lung="high"),
        atlases=tiny_atlases(),
        spacing_mm=SPACING_MM,
        options=tiny_options(orientation="auto"),
        threads=1,
    )
    kept = json.loads(json.dumps(summary(found)["orientation"]))
    assert kept["name"] == "mirrored"
    assert kept["evidence"]["image"] == pytest.approx(MOST_BY_SIDES)


def patient_frames(number):
    """(labels, image) of both frames of an ACDC patient."""
    folder = data_folder("acdc")
    with (folder / "index.csv").open(encoding="utf-8") as table:
        names = [row["file"] for row in csv.DictReader(table)]
    images = [folder / name for name in names if name.startswith(f"patient{number:03d}/")]
    files = [(path.with_name(path.name.replace(".nii.gz", "_gt.nii.gz")), path) for path in images]
    if len(files) != 2 or not all(path.is_file() for pair in files for path in pair):
        pytest.skip(f"no patient{number:03d} in the acdc data")
    return files


def patient_targets(number):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        return [gather_target(*pair, None, "acdc", None) for pair in patient_frames(number)]


class TestPatients:
    """Every heart of ACDC is stored base first and mirrored against its matrix."""

    @pytest.mark.parametrize("number", [1, 25, 31, 37, 49, 61])
    def test_their_images_say_that_they_are_mirrored(self, number):
        for target in patient_targets(number):
            found = weigh(target.labels, target.image)
            assert -MOST_BY_SIDES <= found.anterior < -1.0
            assert -MOST_BY_ENDS <= found.base_at_last_slice <= 0.0

    @pytest.mark.parametrize("axis", [0, 2])
    def test_flips_that_the_matrix_tells_change_nothing(self, axis):
        subject = patient_targets(37)[0]
        kept = weigh(subject.labels, subject.image)
        found = weigh(flipped(subject.labels, axis), flipped(subject.image, axis))
        assert found.anterior == pytest.approx(kept.anterior, abs=1e-6)

    def test_an_image_settles_a_heart_in_doubt(self):
        targets = patient_targets(25)
        runs = [make_context(t, SPACING_MM, RefineOptions(), 1, None, Clock()) for t in targets]
        atlases = gather_atlases(default_atlases(), targets[0], 5)
        found = oriented_context(runs[0], [runs[1]], atlases).orientation
        assert found.name == "mirrored" and found.probability > 0.9
        assert found.evidence["image"] > 1.0
