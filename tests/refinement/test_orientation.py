"""How a heart lies in its file: told by its shape, by a scanner's header, and by all of its frames."""

import warnings

import numpy as np
import pytest

from cardiacreg import Degradation, InvalidInputError, LabelMap, RefineOptions, sample_heart
from cardiacreg.anatomy.landmarks import landmarks_from_labels
from cardiacreg.atlases.view import AtlasView
from cardiacreg.phantoms.hearts import FIRST_EVALUATION_SEED
from cardiacreg.phantoms.toy_heart import make_toy_heart
from cardiacreg.refinement._refine import make_context, oriented_context, refine
from cardiacreg.refinement.context import Clock
from cardiacreg.refinement.options import ORIENTATIONS
from cardiacreg.refinement.target import gather_target
from cardiacreg.results.result import Orientation
from tests.helpers.tiny_bank import SPACING_MM, expect_tiny_findings, tiny_atlases, tiny_options

PHANTOM_MM = (1.75, 1.75, 3.0)
SEEDS = (FIRST_EVALUATION_SEED + 1, FIRST_EVALUATION_SEED + 2)
PHASES = ("ED", "ES")


@pytest.fixture(scope="module")
def bank():
    """Synthetic hearts, healthy and hypertensive, at both phases."""
    hearts = [
        sample_heart(seed, group=group, phase=phase, spacing_mm=PHANTOM_MM, with_image=False)
        for seed in (1, 2, 3)
        for group in ("healthy", "pulmonary_hypertension")
        for phase in PHASES
    ]
    return AtlasView(hearts, range(len(hearts)))


@pytest.fixture(scope="module")
def frames():
    """Both frames of clinical stacks of hearts that are not in the bank, by seed."""
    return {
        seed: [
            Degradation()
            .of(sample_heart(seed, phase=phase, spacing_mm=PHANTOM_MM, with_image=False), seed=seed)
            .subject.labels
            for phase in PHASES
        ]
        for seed in SEEDS
    }


def flipped(labels, axis, *, matrix_too=False):
    """The same voxels in the opposite order; in the same world where the matrix says so."""
    matrix = np.array(labels.voxel_to_world)
    if matrix_too:
        matrix[:3, 3] += matrix[:3, axis] * (labels.shape[axis] - 1)
        matrix[:3, axis] *= -1
    return LabelMap(np.flip(labels.array, axis), matrix)


def turned(labels, axes):
    """The same voxels in another world: the columns are the directions of i, j and k."""
    matrix = np.eye(4)
    matrix[:3, :3] = np.asarray(axes) * labels.spacing_mm
    return LabelMap(labels.array, matrix)


def run_of(labels, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        target = gather_target(labels, None, None, None, None)
        return make_context(target, PHANTOM_MM, RefineOptions(**options), 1, None, Clock())


def orientation(frames, bank, **options):
    """The orientation of the first frame, with the others."""
    first, *others = (run_of(labels, **options) for labels in frames)
    return oriented_context(first, others, bank)[:2]


class TestShape:
    @pytest.mark.parametrize("seed", SEEDS)
    @pytest.mark.parametrize("phase", [0, 1], ids=PHASES)
    def test_a_heart_as_stored_is_found_so(self, frames, bank, seed, phase):
        _, found = orientation([frames[seed][phase]], bank)
        assert found.name == "as-stored" and found.probability > 0.9
        assert found.sentence == ""

    @pytest.mark.parametrize("seed", SEEDS)
    @pytest.mark.parametrize("phase", [0, 1], ids=PHASES)
    @pytest.mark.parametrize("axis", [0, 1, 2], ids=["rows", "columns", "slices base first"])
    def test_a_mirrored_stack_is_found(self, frames, bank, seed, phase, axis):
        """A lost flip of any axis mirrors the heart against its matrix."""
        _, found = orientation([flipped(frames[seed][phase], axis)], bank)
        assert found.name == "mirrored" and found.probability > 0.9
        assert "mirrored with a probability of" in found.sentence and "1 frame" in found.sentence

    @pytest.mark.parametrize("axis", [0, 2], ids=["left-handed", "base first"])
    def test_a_stack_whose_matrix_tells_the_flip_lies_as_stored(self, frames, bank, axis):
        told = flipped(frames[SEEDS[0]][0], axis, matrix_too=True)
        _, found = orientation([told], bank)
        assert found.name == "as-stored" and found.probability > 0.9

    def test_landmarks_trade_the_insertions_of_a_mirrored_heart(self, frames, bank):
        """The anterior insertion is where it was in the voxels before the flip was lost."""
        labels = frames[SEEDS[0]][0]
        run, found = orientation([flipped(labels, 0)], bank)
        assert found.name == "mirrored"
        true = landmarks_from_labels(labels).points_mm
        to_voxel = np.linalg.inv(labels.voxel_to_world)
        voxels, own = (
            (np.column_stack([points, np.ones(6)]) @ to_voxel.T)[:, :3]
            for points in (true, run.landmarks.points_mm)
        )
        own[:, 0] = labels.shape[0] - 1 - own[:, 0]
        np.testing.assert_allclose(own, voxels, atol=1.5)


class TestFrames:
    @pytest.mark.parametrize("axis", [None, 0, 2])
    def test_two_frames_decide_alike(self, frames, bank, axis):
        pair = [each if axis is None else flipped(each, axis) for each in frames[SEEDS[1]]]
        _, first = orientation(pair, bank)
        _, second = orientation(pair[::-1], bank)
        assert first.name == second.name == ("as-stored" if axis is None else "mirrored")
        assert first.probability == pytest.approx(second.probability, abs=1e-9)
        assert first.reason == second.reason == "by the atlases' fit to 2 frames"

    def test_evidence_adds_up(self, frames, bank):
        pair = [flipped(each, 0) for each in frames[SEEDS[0]]]
        alone = [orientation([each], bank)[1].probability for each in pair]
        assert orientation(pair, bank)[1].probability >= max(alone)

    def test_a_frame_that_tells_little_follows_one_that_tells_much(self, frames, bank):
        """A tiny heart is its own mirror image."""
        symmetric, clear = make_toy_heart().labels, flipped(frames[SEEDS[0]][0], 0)
        _, alone = orientation([symmetric], bank)
        _, together = orientation([symmetric, clear], bank)
        assert alone.probability < 0.9
        assert together.name == "mirrored" and together.probability > 0.9


class TestHeader:
    """A short-axis stack of a scanner is oblique, and its matrix means what it says."""

    RIGHT = np.array([1.0, 1.0, 0.0]) / np.sqrt(2)
    TO_BASE = np.array([1.0, -1.0, 1.0]) / np.sqrt(3)

    def scanned(self, labels):
        """Labels with k from apex to base in a patient, and i and j square to it."""
        return turned(
            labels, np.column_stack([self.RIGHT, np.cross(self.TO_BASE, self.RIGHT), self.TO_BASE])
        )

    def test_is_trusted_over_weak_evidence(self, bank):
        labels = make_toy_heart().labels
        for each in (labels, flipped(labels, 0)):
            assert orientation([each], bank)[1].probability < 0.9
            _, found = orientation([self.scanned(each)], bank)
            assert found.name == "as-stored" and found.probability > 0.9

    def test_gives_way_to_two_frames_of_strong_evidence(self, frames, bank):
        pair = [self.scanned(flipped(each, 0)) for each in frames[SEEDS[1]]]
        assert orientation(pair, bank)[1].name == "mirrored"

    def test_agrees_with_a_heart_that_lies_as_it_says(self, frames, bank):
        _, found = orientation([self.scanned(frames[SEEDS[0]][0])], bank)
        assert found.name == "as-stored" and found.probability > 0.99


class TestGiven:
    @pytest.mark.parametrize("name", ORIENTATIONS[1:])
    def test_an_orientation_that_was_given_is_certain(self, frames, bank, name):
        _, found = orientation([frames[SEEDS[0]][0]], bank, orientation=name)
        assert found == Orientation(name, None, "the orientation was given")
        assert ("probability" in found.sentence, bool(found.sentence)) == (
            False,
            name != "as-stored",
        )

    def test_orientations_differ_in_the_side_of_the_insertions_and_the_end_of_the_base(
        self, frames, bank
    ):
        points, ends = {}, {}
        for name in ORIENTATIONS[1:]:
            run, _ = orientation([frames[SEEDS[0]][0]], bank, orientation=name, coverage="whole")
            points[name] = run.landmarks.points_mm
            ends[name] = run.coverage
        np.testing.assert_array_equal(points["mirrored"], points["as-stored"][[2, 1, 0, 3, 4, 5]])
        rise = {name: (p[5] - p[4])[2] for name, p in points.items()}
        assert rise["as-stored"] == rise["mirrored"]
        assert rise["as-stored"] * rise["upside-down"] < 0

    def test_landmarks_that_were_given_settle_it(self, frames, bank):
        labels = frames[SEEDS[0]][0]
        given = landmarks_from_labels(labels).points_mm
        target = gather_target(labels, None, given, None, None)
        run = make_context(target, PHANTOM_MM, RefineOptions(), 1, None, Clock())
        kept, found, _ = oriented_context(run, [], bank)
        assert found == Orientation("as-stored", None, "the landmarks were given")
        np.testing.assert_array_equal(kept.landmarks.points_mm, given)


@expect_tiny_findings
class TestRefine:
    def tiny(self, **keywords):
        return refine(
            make_toy_heart().labels,
            atlases=tiny_atlases(),
            spacing_mm=SPACING_MM,
            threads=1,
            **keywords,
        )

    def test_a_doubtful_orientation_is_a_finding_that_names_the_doors(self):
        found = self.tiny(options=tiny_options(orientation="auto"))
        (doubt,) = (f for f in found.findings if f.code == "ORIENTATION_DOUBTFUL")
        assert f"{found.orientation.probability:.2f}" in doubt.found
        for door in ("frames=", "--other-frame", "orientation=", "--orientation"):
            assert door in doubt.message

    def test_a_given_one_is_not(self):
        found = self.tiny(options=tiny_options(orientation="mirrored"))
        assert found.orientation.name == "mirrored"
        assert not [f for f in found.findings if f.code == "ORIENTATION_DOUBTFUL"]
        assert found.assumptions[0].startswith("the heart is taken as stored mirrored")

    def test_frames_are_read_as_the_segmentation_is(self):
        labels = make_toy_heart().labels
        pair = (labels.array, labels.voxel_to_world)
        options = tiny_options(orientation="auto")
        found = self.tiny(options=options, frames=[pair, make_toy_heart(size=0.95).labels])
        assert found.orientation.reason.endswith("3 frames")

    @pytest.mark.parametrize("axis", [0, 2])
    def test_a_frame_that_is_stored_otherwise_is_refused(self, axis):
        labels = make_toy_heart().labels
        matrix = labels.voxel_to_world.copy()
        matrix[:3, axis] *= -1
        other = LabelMap(labels.array, matrix)
        with pytest.raises(InvalidInputError, match=r"frames\[1\].*180 degrees.*stored alike"):
            self.tiny(options=tiny_options(orientation="auto"), frames=[labels, other])

    def test_a_frame_of_no_use_is_named(self):
        labels = make_toy_heart().labels
        empty = LabelMap(np.zeros_like(labels.array), labels.voxel_to_world)
        with pytest.raises(InvalidInputError, match=r"frames\[0\]: "):
            self.tiny(options=tiny_options(orientation="auto"), frames=[empty])
