import warnings
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from cardiacreg import (
    Affine,
    InputWarning,
    InvalidInputError,
    LabelMap,
    Landmarks,
    RefinementError,
    Subject,
    Volume,
)
from cardiacreg.anatomy.landmarks import landmarks_from_labels
from cardiacreg.anatomy.volumes import volumes_ml
from cardiacreg.atlases.bank_building import build_atlas_bank
from cardiacreg.atlases.ranking import with_metadata
from cardiacreg.compute.threads import Progress
from cardiacreg.errors import ResultWarning
from cardiacreg.fusion.label_fusion import FusionOptions
from cardiacreg.geometry import STRUCTURES
from cardiacreg.metrics.agreement import sample_at_slices, slice_agreement
from cardiacreg.phantoms.acquisition import simulate_low_resolution
from cardiacreg.phantoms.hearts import FIRST_EVALUATION_SEED, sample_heart
from cardiacreg.phantoms.toy_heart import make_toy_heart
from cardiacreg.refinement._refine import refine, warm_up
from cardiacreg.refinement.options import RefineOptions
from cardiacreg.slice_motion.rotations import rotate_labels
from cardiacreg.transforms.resampling import warp_labels
from tests.helpers import naive
from tests.helpers.strategies import rotation
from tests.helpers.tiny_bank import (
    SPACING_MM,
    expect_tiny_findings,
    tiny_atlases,
    tiny_options,
    tiny_target,
)

pytestmark = expect_tiny_findings

FACES = ndimage.generate_binary_structure(3, 1)
PHANTOM_MM = (1.75, 1.75, 3.0)


def refine_tiny(target=None, *, image=True, atlases=None, options=None, **keywords):
    target = tiny_target() if target is None else target
    return refine(
        target.labels,
        image=target.image if image else None,
        atlases=tiny_atlases() if atlases is None else atlases,
        spacing_mm=SPACING_MM,
        options=options or tiny_options(),
        threads=1,
        **keywords,
    )


def on(labels, grid):
    """Nearest labels of a map at the voxels of another."""
    return warp_labels(labels, Affine.identity(), grid, interpolation="nearest").array


@pytest.fixture(scope="module")
def phantom():
    """A synthetic heart cut into thick, shifted, incomplete slices, refined with three others."""
    truth = sample_heart(FIRST_EVALUATION_SEED + 1, spacing_mm=PHANTOM_MM)
    low = simulate_low_resolution(truth, seed=1, slice_thickness_mm=9.0)
    atlases = [sample_heart(seed, spacing_mm=PHANTOM_MM) for seed in (1, 2, 3)]
    result = refine(
        low.subject.labels,
        atlases=atlases,
        spacing_mm=PHANTOM_MM,
        options=RefineOptions(n_atlases=3),
        threads=1,
    )
    return low, result


@pytest.fixture(scope="module")
def tiny():
    return refine_tiny()


class TestPhantom:
    """End to end on synthetic truth: thick slices, breathing, a lost apex."""

    def test_model_is_closer_to_the_truth_than_the_input(self, phantom):
        low, result = phantom
        own, model = on(low.subject.labels, low.reference), on(result.labels, low.reference)
        gains = []
        for label in STRUCTURES:
            truth = low.reference.array == label
            gains.append(
                naive.dice(truth[::2], model[::2] == label)
                - naive.dice(truth[::2], own[::2] == label)
            )
        assert np.mean(gains) > 0.05
        assert min(gains) > 0

    def test_registration_never_lowers_consistency_and_never_folds(self, phantom):
        _, result = phantom
        assert len(result.atlases) == 3
        for atlas in result.atlases:
            assert 0 <= atlas.consistency_before <= atlas.consistency_after <= 1
        assert result.minimum_jacobian > 0
        assert result.minimum_jacobian == min(atlas.minimum_jacobian for atlas in result.atlases)

    def test_model_agrees_with_the_slices_it_was_made_from(self, phantom):
        _, result = phantom
        assert min(result.agreement[name] for name in ("LV cavity", "RV cavity")) > 0.9

    def test_slice_shifts_are_found_up_to_a_common_translation(self, phantom):
        low, result = phantom
        gap = result.slice_shifts_mm - low.slice_shifts_mm
        left = np.sqrt(((gap - gap.mean(axis=0)) ** 2).mean())
        given = np.sqrt(((low.slice_shifts_mm - low.slice_shifts_mm.mean(axis=0)) ** 2).mean())
        assert left < 0.75 * given

    def test_the_lost_apex_is_completed(self, phantom):
        low, result = phantom
        lowest = [
            grid.voxel_to_world[2, 3] + grid.spacing_mm[2] * np.argwhere(grid.array)[:, 2].min()
            for grid in (low.subject.labels, result.labels, low.reference)
        ]
        assert lowest[1] < lowest[0]
        assert lowest[1] == pytest.approx(lowest[2], abs=9.0)

    def test_atlases_are_reported_best_first(self, phantom):
        _, result = phantom
        scores = [atlas.nmi for atlas in result.atlases]
        assert scores == sorted(scores, reverse=True)
        assert sorted(atlas.index for atlas in result.atlases) == [0, 1, 2]


class TestModel:
    def test_one_component_per_structure(self, tiny):
        for label in STRUCTURES:
            assert ndimage.label(tiny.labels.array == label, FACES)[1] == 1

    @pytest.mark.filterwarnings(r"ignore:\[FAILED_AGREEMENT\] ")  # all voxels of one structure
    @pytest.mark.parametrize("wanted", [True, False])
    def test_topology_is_cleaned_last_if_wanted(self, wanted, monkeypatch):
        def mark(labels):
            return LabelMap(np.full(labels.shape, 4), labels.voxel_to_world)

        monkeypatch.setattr("cardiacreg.refinement.steps.clean_topology", mark)
        found = refine_tiny(image=False, options=tiny_options(clean_topology=wanted))
        assert (found.labels.array == 4).all() == wanted

    def test_left_and_right_do_not_touch(self, tiny):
        array = tiny.labels.array
        grown = ndimage.binary_dilation(array == 1, FACES)
        assert not (grown & np.isin(array, (3, 4))).any()

    def test_spacing_and_axes_are_those_asked_for(self, tiny):
        np.testing.assert_allclose(tiny.labels.spacing_mm, SPACING_MM)
        own = tiny.target.labels
        axes = own.voxel_to_world[:3, :3] / own.spacing_mm
        np.testing.assert_allclose(
            tiny.labels.voxel_to_world[:3, :3] / tiny.labels.spacing_mm, axes, atol=1e-9
        )

    def test_confidence_is_that_of_the_atlases_whatever_areas_are_matched(self):
        target, atlases = tiny_target(), tiny_atlases(5)
        matched, plain = (
            refine(
                target.labels, atlases=atlases, spacing_mm=SPACING_MM,
                options=replace(
                    tiny_options(), match_areas=match, fusion=None, clean_topology=False
                ),
            )
            for match in (True, False)
        )  # fmt: skip
        same = matched.labels.array == plain.labels.array
        same &= self.between_the_outermost_slices(target.labels, matched.labels)
        assert 0.3 < same.mean() < 1
        np.testing.assert_allclose(
            matched.confidence.array[same], plain.confidence.array[same], atol=1e-6
        )

    @staticmethod
    def between_the_outermost_slices(stack, model):
        """Where no end is smoothed, which changes labels after the vote."""
        held = np.flatnonzero((stack.array > 0).any(axis=(0, 1)))
        rows = np.linalg.inv(stack.voxel_to_world) @ model.voxel_to_world
        grid = np.stack(np.meshgrid(*map(np.arange, model.shape), indexing="ij"), axis=-1)
        heights = grid @ rows[2, :3] + rows[2, 3]
        return (heights >= held[0]) & (heights <= held[-1])

    def test_confidence_is_a_share_on_the_same_lattice(self, tiny):
        assert tiny.confidence.shape == tiny.labels.shape
        np.testing.assert_array_equal(tiny.confidence.voxel_to_world, tiny.labels.voxel_to_world)
        assert 0 < tiny.confidence.array.min() <= tiny.confidence.array.max() <= 1

    def test_result_says_how_it_came_about(self, tiny):
        assert tiny.structures_from_atlases == ()
        assert tiny.timings_seconds["total"] > 0
        assert tiny.provenance["bank_size"] == 3
        assert tiny.slice_shifts_mm.shape == (8, 2)
        assert tiny.landmarks.source == "labels"
        assert all(atlas.stop_reason and atlas.affine_model == "affine" for atlas in tiny.atlases)

    def test_the_diversity_of_the_chosen_atlases_is_reported(self, tiny):
        assert 0 < tiny.atlas_diversity < 1
        assert (
            refine_tiny(
                atlases=tiny_atlases(1), options=tiny_options(n_atlases=1, n_motion_atlases=1)
            ).atlas_diversity
            == 0
        )

    def test_atlases_are_chosen_among_those_of_a_phase(self, tmp_path):
        hearts = [
            replace(atlas, name=f"{n}", metadata={"phase": phase})
            for n, (atlas, phase) in enumerate(
                zip(tiny_atlases(3), ("ED", "ES", "ES"), strict=True)
            )
        ]
        bank = build_atlas_bank(tmp_path / "bank", hearts, threads=1)
        result = refine_tiny(atlases=bank.subset(with_metadata(bank, phase="ES")))
        assert {atlas.name for atlas in result.atlases} == {"1", "2"}
        for atlases in (bank, hearts):
            option = refine_tiny(atlases=atlases, options=tiny_options(metadata=(("phase", "ES"),)))
            assert {atlas.index for atlas in option.atlases} == {1, 2}
            assert option.provenance["bank_size"] == 2
            if atlases is bank:
                np.testing.assert_array_equal(option.labels.array, result.labels.array)
        with pytest.raises(InvalidInputError, match="phase ED, ES"):
            refine_tiny(atlases=bank, options=tiny_options(metadata=(("phase", "systole"),)))

    def test_atlases_are_numbered_in_the_whole_bank_when_some_repeat(self):
        first, second = tiny_atlases(2)
        hearts = [
            replace(atlas, metadata={"phase": phase})
            for atlas, phase in ((first, "ED"), (first, "ES"), (second, "ES"), (second, "ES"))
        ]
        options = tiny_options(metadata=(("phase", "ES"),))
        with pytest.warns(InputWarning, match="number 3 repeat"):
            result = refine_tiny(atlases=hearts, options=options)
        assert {atlas.index for atlas in result.atlases} == {1, 2}

    def test_atlases_are_chosen_by_image(self):
        target = tiny_target()
        *others, like = tiny_atlases(3)
        dull = [
            replace(atlas, image=Volume(np.random.default_rng(n).normal(size=atlas.image.shape),
                                        atlas.image.voxel_to_world))
            for n, atlas in enumerate(others)
        ]  # fmt: skip
        options = tiny_options(n_atlases=1, n_motion_atlases=1, selection="image")
        result = refine_tiny(target, atlases=[*dull, like], options=options)
        [chosen] = result.atlases
        assert chosen.index == 2 and 1 < chosen.nmi < 2
        again = refine_tiny(target, atlases=[like, *dull], options=options)
        assert again.atlases[0].index == 0
        np.testing.assert_array_equal(again.labels.array, result.labels.array)

    def test_selection_by_image_needs_images(self):
        options = tiny_options(selection="image")
        with pytest.raises(InvalidInputError, match="the target has no image") as error:
            refine_tiny(image=False, options=options)
        assert error.value.code == "NO_IMAGE"
        bare = [replace(atlas, image=None) for atlas in tiny_atlases()]
        with pytest.raises(InvalidInputError, match="none of 3 atlases") as error:
            refine_tiny(atlases=bare, options=options)
        assert error.value.code == "NO_IMAGE"

    @pytest.mark.parametrize(
        "wrong",
        [
            {"selection": "looks"},
            {"metadata": {"phase": "ED"}},
            {"metadata": ("phase", "ED")},
            {"metadata": (("phase", "ED"), ("phase", "ES"))},
        ],
    )
    def test_wrong_choices_are_refused(self, wrong):
        with pytest.raises(InvalidInputError) as error:
            RefineOptions(**wrong)
        assert error.value.code == "BAD_OPTION"

    def test_volumes_say_where_the_model_lies(self, tiny):
        entered, model = volumes_ml(tiny.target.labels), volumes_ml(tiny.labels)
        for name, volume in tiny.volumes.items():
            parts = (volume.inside_ml, volume.beyond_apex_ml, volume.beyond_base_ml)
            assert sum(parts) == pytest.approx(volume.total_ml) == pytest.approx(model[name])
            assert volume.input_ml == pytest.approx(entered[name])

    @pytest.mark.parametrize("fusion", [None, FusionOptions(mode="majority")])
    def test_volumes_of_the_deformed_atlases_are_kept(self, fusion):
        found = refine_tiny(options=tiny_options(fusion=fusion))
        for name in ("LV cavity", "LV wall", "RV cavity"):
            volume = found.volumes[name]
            whole = np.add(volume.atlases_inside_ml, volume.atlases_beyond_ml)
            assert len(whole) == len(found.atlases) and len(volume.outermost_ml) == 2
            np.testing.assert_allclose(whole, volume.total_ml, rtol=0.15)
            assert sum(volume.outermost_ml) < volume.input_ml

    def test_findings_are_kept_and_issued_as_warnings(self):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", InputWarning)
            found = refine_tiny(
                atlases=[make_toy_heart(size=0.6)], options=tiny_options(n_atlases=1)
            )
        issued = [str(w.message) for w in caught if w.category is ResultWarning]
        assert found.findings and issued == [str(finding) for finding in found.findings]
        assert all(w.filename == __file__ for w in caught if w.category is ResultWarning)
        assert not any(str(finding) in found.warnings for finding in found.findings)

    def test_refining_twice_gives_the_same_bits(self, tiny):
        np.testing.assert_array_equal(refine_tiny().labels.array, tiny.labels.array)


class TestOrientation:
    """The target is used on its own lattice; how it is stored or lies in the world changes nothing."""

    def test_a_turned_target_gives_the_turned_model(self, tiny):
        turn = np.eye(4)
        turn[:3, :3] = rotation(np.random.default_rng(1))
        turn[:3, 3] = (40.0, -70.0, 15.0)
        target = tiny_target(turn @ tiny.target.labels.voxel_to_world)
        turned = refine_tiny(target)
        expected = LabelMap(tiny.labels.array, turn @ tiny.labels.voxel_to_world)
        same = on(turned.labels, expected) == expected.array
        assert same.mean() > 0.99

    @pytest.mark.parametrize(
        "axes", [(0,), (2,), (0, 1)], ids=["left-handed", "base first", "turned by 180"]
    )
    def test_a_target_stored_from_another_corner_gives_the_same_model(self, tiny, axes):
        target = tiny_target()
        matrix = np.array(target.labels.voxel_to_world)
        for axis in axes:
            matrix[:3, 3] += matrix[:3, axis] * (target.labels.shape[axis] - 1)
            matrix[:3, axis] *= -1
        flipped = Subject(
            LabelMap(np.flip(target.labels.array, axes), matrix),
            Volume(np.flip(target.image.array, axes), matrix),
        )
        found = refine_tiny(flipped).labels
        assert (on(found, tiny.labels) == tiny.labels.array).mean() > 0.97

    def test_the_base_is_found_in_a_stack_stored_from_either_end(self):
        """What lies beyond the base is reported there, whichever slice comes first."""
        labels = tiny_target().labels
        cut = labels.array[:, :, :5]
        flipped = np.array(labels.voxel_to_world)
        flipped[:3, 3] += flipped[:3, 2] * 4
        flipped[:3, 2] *= -1
        options = tiny_options(coverage=("auto", "partial"))
        for array, matrix in ((cut, labels.voxel_to_world), (cut[:, :, ::-1], flipped)):
            found = refine_tiny(Subject(LabelMap(array, matrix)), image=False, options=options)
            assert [end.coverage for end in found.ends] == ["empty slice", "partial"]
            assert found.volumes["LV cavity"].beyond_base_ml > 1.0
            assert found.volumes["LV cavity"].beyond_apex_ml == 0.0
            (beyond,) = (f for f in found.findings if f.code == "BEYOND_ENDS")
            assert "at the base: LV cavity" in beyond.found


class TestInputs:
    def test_without_image_the_labels_alone_are_fused(self, tiny):
        found = refine_tiny(image=False)
        assert (on(found.labels, tiny.labels) == tiny.labels.array).mean() > 0.97

    def test_atlases_without_images_are_fused_by_labels(self):
        atlases = [Subject(atlas.labels) for atlas in tiny_atlases()]
        with pytest.warns(InputWarning, match="without images"):
            found = refine_tiny(atlases=atlases)
        expected = refine_tiny(image=False, atlases=atlases)
        np.testing.assert_array_equal(found.labels.array, expected.labels.array)
        assert any("without images" in note for note in found.warnings)

    def test_a_missing_rv_wall_comes_from_the_atlases_and_is_said(self):
        target = tiny_target()
        bare = np.where(target.labels.array == 3, 0, target.labels.array)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InputWarning)
            found = refine_tiny(Subject(LabelMap(bare, target.labels.voxel_to_world), target.image))
        assert found.structures_from_atlases == ("RV wall",)
        assert found.agreement["RV wall"] is None
        assert (found.labels.array == 3).sum() > 100

    def test_given_landmarks_are_used(self, tiny):
        found = refine_tiny(landmarks=tiny.landmarks.points_mm)
        np.testing.assert_array_equal(found.landmarks.points_mm, tiny.landmarks.points_mm)
        assert found.landmarks.source == "given"

    def test_a_truth_among_the_atlases_is_returned(self):
        """Thick slices of an atlas, without motion, give that atlas back."""
        truth = tiny_atlases(1)[0]
        labels = truth.labels
        matrix = labels.voxel_to_world @ np.diag([1.0, 1.0, 2.0, 1.0])
        slices = Subject(LabelMap(labels.array[:, :, ::2], matrix))
        found = refine_tiny(slices, image=False, atlases=[truth], options=tiny_options(n_atlases=1))
        model = on(found.labels, labels)
        for label in STRUCTURES:
            assert naive.dice(model == label, labels.array == label) > 0.9

    def test_paper_preset_runs(self):
        with pytest.warns(InputWarning, match="5 asked for, 3 there"):
            found = refine_tiny(options=RefineOptions.paper())
        assert any("5 asked for" in note for note in found.warnings)
        assert not found.slice_shifts_mm.any()
        assert set(found.labels.present()) == set(STRUCTURES)

    def test_fast_preset_differs_from_the_default_and_runs(self):
        with pytest.warns(InputWarning, match="5 asked for, 3 there"):
            found = refine_tiny(options=RefineOptions.fast())
        assert set(found.labels.present()) == set(STRUCTURES)
        assert found.options == RefineOptions.fast() != RefineOptions()

    def test_turned_slices_are_turned_back_where_asked_for(self):
        labels = make_toy_heart().labels
        truth = np.array([0, 0, -8, 5, 3, -6, 6, 0.0])
        slices = rotate_labels(labels, np.zeros((8, 2)), -truth)
        options = tiny_options(n_atlases=1, slice_turns=True)
        found = refine_tiny(
            Subject(slices), image=False, atlases=[make_toy_heart()], options=options
        )
        plain = replace(options, slice_turns=False)
        still = refine_tiny(Subject(slices), image=False, atlases=[make_toy_heart()], options=plain)
        gap = (found.slice_turns_degrees - truth)[2:7]
        assert np.std(gap) < 0.5 * np.std(truth[2:7])
        assert not still.slice_turns_degrees.any()
        assert naive.dice(on(found.labels, labels) == 4, labels.array == 4) > naive.dice(
            on(still.labels, labels) == 4, labels.array == 4
        )

    def test_fusion_by_majority_runs(self):
        options = tiny_options(fusion=FusionOptions(mode="majority"))
        assert set(refine_tiny(options=options).labels.present()) == set(STRUCTURES)

    def test_progress_names_every_step_and_can_cancel(self):
        seen = []
        refine_tiny(progress=seen.append)
        assert all(isinstance(p, Progress) and 1 <= p.done <= p.total for p in seen)
        assert {"align", "select", "slice motion", "register", "fuse"} <= {p.step for p in seen}
        shares = [p.share for p in seen]
        assert shares == sorted(shares) and shares[-1] == pytest.approx(1)

        def cancel(progress):
            if progress.step == "register":
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            refine_tiny(progress=cancel)

    def test_warm_up_runs_quietly(self):
        warm_up(threads=1)


class TestRefusals:
    def test_five_landmarks_do_for_atlases_with_the_same_five(self):
        def five(heart):
            return Landmarks(landmarks_from_labels(heart.labels).points_mm[:5])

        hearts = [make_toy_heart(size=size) for size in (0.85, 0.9, 1.0)]
        atlases = [replace(heart, landmarks=five(heart)) for heart in hearts]
        target = make_toy_heart(size=0.95)
        options = RefineOptions(n_atlases=2)
        found = refine(target.labels, landmarks=five(target), atlases=atlases, options=options)
        assert min(found.agreement.values()) > 0.75
        with pytest.raises(InvalidInputError, match="5 target points for 6 atlas points"):
            refine(target.labels, landmarks=five(target), options=options)

    def test_landmarks_in_the_wrong_order_are_refused_before_memory_runs_out(self):
        points = landmarks_from_labels(tiny_target().labels).points_mm[::-1]
        with warnings.catch_warnings(), pytest.raises(InvalidInputError) as refused:
            warnings.simplefilter("ignore", InputWarning)
            refine_tiny(landmarks=points)
        assert refused.value.code == "BAD_LANDMARKS"

    def test_an_atlas_without_usable_landmarks_is_left_out_and_named(self):
        labels = np.array(tiny_atlases()[0].labels.array)
        labels[:, :, :-3] = 0
        thin = Subject(LabelMap(labels, tiny_atlases()[0].labels.voxel_to_world), name="two slices")
        with pytest.warns(InputWarning, match="two slices is left out"):
            found = refine_tiny(image=False, atlases=[*tiny_atlases(), thin])
        assert "two slices" not in [atlas.name for atlas in found.atlases]

    def refused(self, code, **keywords):
        with pytest.raises(InvalidInputError) as caught:
            refine_tiny(**keywords)
        assert caught.value.code == code

    def test_spacing(self):
        with pytest.raises(InvalidInputError) as caught:
            refine(tiny_target().labels, atlases=tiny_atlases(), spacing_mm=(0.01, 1, 1))
        assert caught.value.code == "BAD_SPACING"

    def test_empty_bank(self):
        self.refused("EMPTY_BANK", atlases=[])

    def test_wrong_type_of_bank(self):
        self.refused("BAD_TYPE", atlases=3)

    def test_impossible_options(self):
        for changes in ({"n_atlases": 0}, {"margin_mm": -1.0}):
            with pytest.raises(InvalidInputError) as caught:
                RefineOptions(**changes)
            assert caught.value.code == "BAD_OPTION"

    def test_atlases_that_lie_elsewhere(self):
        """Landmarks that send every atlas away leave nothing to register."""
        atlases = [Subject(a.labels, None, self.away(a)) for a in tiny_atlases()]
        target = tiny_target()
        points = landmarks_from_labels(target.labels).points_mm
        with pytest.raises(RefinementError) as caught:
            refine_tiny(target, atlases=atlases, landmarks=points)
        assert caught.value.code == "NO_OVERLAP"

    @staticmethod
    def away(atlas):
        return Landmarks(landmarks_from_labels(atlas.labels).points_mm + 500.0)


class TestAgreement:
    def test_of_a_model_with_its_own_slices_is_one(self):
        labels = tiny_target().labels
        found = slice_agreement(labels, labels, np.zeros((8, 2)))
        assert found == dict.fromkeys(STRUCTURES.values(), 1.0)

    def test_shifted_slices_are_looked_up_where_they_truly_lie(self):
        labels = tiny_target().labels
        shifts = np.tile([5.0, -2.5], (8, 1))
        found = sample_at_slices(labels, labels, shifts)
        np.testing.assert_array_equal(found[:-2, 1:], labels.array[2:, :-1])
        assert not found[-2:].any()
