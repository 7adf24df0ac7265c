"""Whole refinements: models end where their stacks say, of synthetic hearts and of patients."""

import csv
import warnings
from functools import cache

import numpy as np
import pytest

from cardiacreg import InputWarning, RefineOptions, refine, sample_heart, simulate_low_resolution
from cardiacreg.atlases.embedded import default_atlases
from cardiacreg.phantoms.acquisition import Degradation
from cardiacreg.phantoms.hearts import FIRST_EVALUATION_SEED
from cardiacreg.refinement._refine import make_context, oriented_context
from cardiacreg.refinement.context import Clock
from cardiacreg.refinement.target import gather_atlases, gather_target
from tests.helpers.small_hearts import data_folder

pytestmark = pytest.mark.filterwarnings(
    "ignore::cardiacreg.errors.InputWarning", "ignore::cardiacreg.errors.ResultWarning"
)

PHANTOM_MM = (1.75, 1.75, 3.0)
SHOWN = ("LV cavity", "LV wall", "RV cavity")
CLINICAL = {
    "label_rule": "clinical", "tilt_sd_degrees": 5.3, "shift_sd_mm": 1.35, "lost_apical_slices": 0,
    "empty_slices": "random",
}  # fmt: skip


@pytest.fixture(scope="module")
def atlases():
    return [
        sample_heart(seed, group=group, phase=phase, spacing_mm=PHANTOM_MM, with_image=False)
        for seed in (1, 2)
        for group in ("healthy", "pulmonary_hypertension")
        for phase in ("ED", "ES")
    ]


class TestSyntheticStacks:
    def test_the_clinical_stack_is_the_default_degradation(self):
        heart = sample_heart(FIRST_EVALUATION_SEED, spacing_mm=PHANTOM_MM, with_image=False)
        one, other = (
            simulate_low_resolution(heart, seed=3, **CLINICAL),
            Degradation().of(heart, seed=3),
        )
        np.testing.assert_array_equal(one.subject.labels.array, other.subject.labels.array)

    @pytest.mark.parametrize(("number", "phase"), [(1, "ED"), (2, "ES"), (3, "ED"), (4, "ES")])
    def test_a_model_ends_less_than_a_slice_past_its_labels(self, atlases, number, phase):
        seed = FIRST_EVALUATION_SEED + number
        heart = sample_heart(seed, phase=phase, spacing_mm=PHANTOM_MM, with_image=False)
        stack = simulate_low_resolution(heart, seed=seed, **CLINICAL).subject.labels
        found = refine(stack, atlases=atlases, spacing_mm=PHANTOM_MM, threads=1)
        assert found.orientation.name == "as-stored"
        assert {end.coverage for end in found.ends} <= {"whole", "empty slice"}
        for name in SHOWN:
            volume = found.volumes[name]
            assert volume.beyond_apex_mm <= 10 and volume.beyond_base_mm <= 10
            assert volume.total_ml == pytest.approx(volume.input_ml, rel=0.1)
        assert not [finding for finding in found.findings if finding.code == "BEYOND_ENDS"]

    def test_a_stack_that_was_cut_is_completed_where_it_is_said_so(self, atlases):
        """The same labels, the base's two slices away: only a partial end reaches where they were."""
        heart = sample_heart(FIRST_EVALUATION_SEED + 1, spacing_mm=PHANTOM_MM, with_image=False)
        how = Degradation(tilt_sd_degrees=0.0, shift_sd_mm=0.0, empty_slices=(1, 0))
        stack = how.of(heart, seed=1).subject.labels
        cut = type(stack)(stack.array[:, :, :-2], stack.voxel_to_world)
        reach = {}
        for word in ("whole", "partial"):
            options = RefineOptions(coverage=("auto", word), orientation="as-stored")
            found = refine(cut, atlases=atlases, spacing_mm=PHANTOM_MM, options=options, threads=1)
            reach[word] = found.volumes["LV cavity"].beyond_base_mm
            assert found.ends[1].coverage == word
        assert reach["whole"] <= 10 < reach["partial"]


def patient_frames(number):
    """Label files of both frames of an ACDC patient: end-diastole, end-systole."""
    folder = data_folder("acdc")
    name = f"patient{number:03d}"
    with (folder / "index.csv").open(encoding="utf-8") as table:
        rows = [row for row in csv.DictReader(table) if row["file"].startswith(f"{name}/")]
    files = {}
    for row in rows:
        frame = int(row["file"].split("frame")[1].split(".")[0])
        path = folder / row["file"].replace(".nii.gz", "_gt.nii.gz")
        files["ED" if frame == int(row["ED"]) else "ES"] = path
    if len(files) < 2 or not all(path.is_file() for path in files.values()):
        pytest.skip(f"no {name} in the acdc data")
    return [files["ED"], files["ES"]]


class TestPatients:
    """ACDC stores every stack base first under a right-handed matrix, which mirrors the heart."""

    @pytest.mark.parametrize("number", [1, 25, 31, 49])
    def test_both_frames_are_mirrored_when_given_together(self, number):
        assert {found.name for found in self.orientations(number)} == {"mirrored"}

    @pytest.mark.parametrize("number", [1, 25, 31, 49])
    def test_both_frames_have_one_probability(self, number):
        first, second = self.orientations(number)
        assert first.probability == pytest.approx(second.probability, abs=1e-9)

    @staticmethod
    @cache
    def orientations(number):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InputWarning)
            targets = [gather_target(f, None, None, "acdc", None) for f in patient_frames(number)]
        runs = [
            make_context(target, (1.25, 1.25, 2.0), RefineOptions(), 1, None, Clock())
            for target in targets
        ]
        bank = gather_atlases(default_atlases(), targets[0], 5)
        return [oriented_context(runs[n], [runs[1 - n]], bank).orientation for n in (0, 1)]

    @pytest.mark.parametrize("number", [1, 67])
    def test_the_left_cavity_has_the_volume_of_its_outlines(self, number):
        diastole, systole = patient_frames(number)
        found = refine(diastole, preset="acdc", frames=[systole], threads=1)
        volume = found.volumes["LV cavity"]
        assert volume.total_ml == pytest.approx(volume.input_ml, rel=0.03)
        for name in SHOWN:
            assert found.volumes[name].beyond_base_mm <= found.target.labels.spacing_mm[2]
