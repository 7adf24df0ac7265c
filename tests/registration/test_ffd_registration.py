import dataclasses

import numpy as np
import pytest

from cardiacreg import Affine, InvalidInputError, LabelMap
from cardiacreg.io.nifti import write_labels
from cardiacreg.metrics.overlap import dice
from cardiacreg.phantoms.hearts import sample_heart
from cardiacreg.phantoms.toy_heart import make_toy_heart
from cardiacreg.registration.ffd_registration import (
    RegistrationOptions,
    StopReason,
    options_for,
    prepare_target,
    register_labels,
    register_prepared,
)
from cardiacreg.registration.landmark_affine import fit_landmark_affine
from cardiacreg.registration.multiresolution import MultiresolutionSolver
from cardiacreg.transforms.atlas_lookup import build_lookup
from cardiacreg.transforms.ffd import FFD
from cardiacreg.transforms.jacobian import jacobian_determinants
from cardiacreg.transforms.resampling import Lattice, warp_labels
from tests.helpers import naive
from tests.helpers.strategies import ball, oblique_matrix, well_conditioned_matrix

OPTIONS = RegistrationOptions(
    spacings_mm=(32.0, 16.0), strides=(2, 1), iterations=(15, 15), bending_weight=0.1
)


def heart():
    return make_toy_heart().labels


def squeezed_heart(strength_mm=4.0):
    """The tiny heart seen through a smooth map that is no affine, on a lattice of its own."""
    labels = heart()
    matrix = np.diag([30.0, 30.0, 30.0, 1.0])
    matrix[:3, 3] = labels.voxel_to_world[:3, 3] - 30
    moves = strength_mm * np.random.default_rng(0).normal(size=(7, 7, 6, 3))
    lattice = np.diag([2.3, 2.4, 4.1, 1.0])
    lattice[:3, 3] = labels.voxel_to_world[:3, 3] - 0.7
    transform = FFD(Affine.identity(), moves, matrix)
    return warp_labels(labels, transform, Lattice((44, 42, 15), lattice))


class TestRegistration:
    def test_gains_consistency_without_folding(self):
        found = register_labels(heart(), squeezed_heart(), options=OPTIONS)
        assert found.consistency_before < found.consistency_after <= 1
        assert found.consistency_after > 0.97
        assert found.minimum_jacobian >= OPTIONS.minimum_jacobian
        assert len(found.iterations) == 2
        assert not found.slice_shifts_mm.any()

    def test_reported_consistency_is_that_of_the_returned_transform(self):
        target, atlas = heart(), squeezed_heart()
        found = register_labels(target, atlas, options=OPTIONS)
        reach = np.ceil(OPTIONS.margin_mm / target.spacing_mm[:2] - 1e-6)
        voxels = naive.counted_voxels(target.array, reach)[::101]
        samples = naive.slice_samples(target.array, target.voxel_to_world, voxels, np.zeros((8, 2)))
        ffd = found.target_to_atlas
        transform = naive.deformation(ffd.affine.matrix, ffd.displacements_mm, ffd.lattice_to_world)
        expected = naive.label_consistency(
            samples, atlas.array, atlas.voxel_to_world, transform, dict(OPTIONS.class_weights)
        )
        assert found.consistency_after == pytest.approx(expected, abs=0.03)

    def test_warped_atlas_overlaps_better_than_before(self):
        target, atlas = heart(), squeezed_heart()
        found = register_labels(target, atlas, options=OPTIONS)
        warped = warp_labels(atlas, found.target_to_atlas, target)
        unmoved = warp_labels(atlas, Affine.identity(), target)
        for label in target.present():
            before = naive.dice(target.array == label, unmoved.array == label)
            after = naive.dice(target.array == label, warped.array == label)
            assert after > before

    def test_a_perfect_start_is_left_alone(self):
        found = register_labels(heart(), heart(), options=OPTIONS)
        assert found.consistency_before == pytest.approx(1)
        assert found.consistency_after == pytest.approx(1)
        assert not found.target_to_atlas.displacements_mm.any()
        assert found.minimum_jacobian == pytest.approx(1)

    def test_starts_from_the_affine_given(self):
        target = heart()
        affine = Affine(well_conditioned_matrix(np.random.default_rng(3)))
        atlas = LabelMap(target.array, affine.matrix @ target.voxel_to_world)
        found = register_labels(target, atlas, affine, options=OPTIONS)
        assert found.consistency_before == pytest.approx(1)
        assert found.target_to_atlas.affine is affine

    @pytest.mark.parametrize("left_handed", [False, True])
    def test_orientation_of_the_target_does_not_matter(self, left_handed):
        """Target and atlas moved together, mirrored or not, register to the same consistency."""
        target, atlas = heart(), squeezed_heart()
        matrix = oblique_matrix(
            np.random.default_rng(4), target.spacing_mm, left_handed=left_handed
        )
        moved = register_labels(
            LabelMap(target.array, matrix),
            LabelMap(
                atlas.array, matrix @ np.linalg.inv(target.voxel_to_world) @ atlas.voxel_to_world
            ),
            options=OPTIONS,
        )
        straight = register_labels(target, atlas, options=OPTIONS)
        assert moved.consistency_before == pytest.approx(straight.consistency_before, abs=1e-9)
        assert moved.consistency_after == pytest.approx(straight.consistency_after, abs=2e-3)

    def test_values_of_labels_do_not_matter(self):
        target, atlas = heart(), squeezed_heart()
        options = dataclasses.replace(OPTIONS, class_weights=())
        swap = np.array([0, 9, 2, 1, 4], dtype=np.uint8)
        found, changed = (
            register_labels(
                *(LabelMap(table[m.array], m.voxel_to_world) for m in (target, atlas)),
                options=options,
            )
            for table in (np.arange(5), swap)
        )
        assert changed.consistency_after == pytest.approx(found.consistency_after, abs=1e-9)

    def test_unknown_labels_are_matched_by_background(self):
        labels = heart()
        target = LabelMap(np.where(labels.array == 3, 0, labels.array), labels.voxel_to_world)
        known = register_labels(target, labels, options=OPTIONS)
        unknown = register_labels(target, labels, options=OPTIONS, unknown_labels=(3,))
        assert known.consistency_before < 1
        assert unknown.consistency_before == pytest.approx(1)

    def test_a_demanding_jacobian_limit_lets_small_deformations_pass(self):
        options = dataclasses.replace(OPTIONS, bending_weight=10.0)
        strict, loose = (
            register_labels(
                heart(),
                squeezed_heart(1.0),
                options=dataclasses.replace(options, minimum_jacobian=limit),
            )
            for limit in (0.5, 0.05)
        )
        assert loose.minimum_jacobian > 0.5
        assert strict.consistency_after == loose.consistency_after

    def test_no_dip_between_the_points_of_the_guard_folds(self):
        """At four points per control spacing this deformation looked safe, and folded between them."""
        target, atlas = ball(8.0, 32, 3.0), ball(24.0, 34, 2.83, 0.41)
        found = register_labels(target, atlas, options=RegistrationOptions.dense(8.0))
        ffd = found.target_to_atlas
        positions = [1 + np.arange(12 * (n - 3) + 1) / 12 for n in ffd.displacements_mm.shape[:3]]
        values = jacobian_determinants(ffd.displacements_mm, ffd.spacing_mm, positions)
        assert 0 < found.minimum_jacobian < values.min() + 0.02
        assert values.min() > 0

    def test_overlap_is_seen_where_background_outweighs_the_heart(self):
        """A large atlas on a small target agrees with less than an empty atlas would."""
        found = register_labels(
            ball(8.0, 40, 3.0, outer_mm=20.0),
            ball(30.0, 46, 2.83, 0.41, outer_mm=50.0),
            options=dataclasses.replace(OPTIONS, background_slices=True, margin_mm=40.0),
        )
        assert found.stop_reason is not StopReason.NO_OVERLAP
        assert found.consistency_after > found.consistency_before

    def test_a_jacobian_limit_is_kept(self):
        options = dataclasses.replace(OPTIONS, minimum_jacobian=0.8, bending_weight=0.0)
        found = register_labels(heart(), squeezed_heart(), options=options)
        assert found.minimum_jacobian >= 0.8

    @pytest.mark.parametrize("last", [True, False])
    def test_what_folds_is_pulled_back_where_it_folds(self, last):
        labels = heart()
        prepared = prepare_target(labels, OPTIONS)
        cells = build_lookup(labels, prepared.codes.codes)
        run = MultiresolutionSolver(prepared, OPTIONS, cells, Affine.identity(), 1)
        start = run.start(16.0, np.zeros((labels.shape[2], 2)))
        change = 0.5 * np.random.default_rng(5).normal(size=start.displacements_mm.shape)
        change[4, 4, 4] = (60.0, -30.0, 0.0)
        found = run._unfold(start, start._replace(displacements_mm=change), last)
        lowest = run.minimum_jacobian(found)
        assert lowest >= (OPTIONS.minimum_jacobian if last else OPTIONS.folding_threshold)
        assert run.folding_limited
        same = (found.displacements_mm == change).all(axis=3)
        assert not same[4, 4, 4]
        assert same[:1].all() and same[8:].all()

    def test_no_overlap_is_a_result_not_an_error(self):
        away = Affine(np.array([[1, 0, 0, 900], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]))
        found = register_labels(heart(), heart(), away, options=OPTIONS)
        assert found.stop_reason is StopReason.NO_OVERLAP
        assert found.consistency_after == found.consistency_before
        assert found.iterations == ()

    def test_a_limit_of_iterations_is_respected_and_reported(self):
        options = dataclasses.replace(OPTIONS, iterations=(2, 1), tolerance=0.0)
        found = register_labels(heart(), squeezed_heart(), options=options)
        assert found.iterations == (2, 1)
        assert found.stop_reason is StopReason.ITERATION_LIMIT

    def test_a_finer_lattice_starts_where_the_coarser_one_ended(self):
        """A second level without iterations changes no point of the domain."""
        coarse, fine = (
            register_labels(
                heart(), squeezed_heart(), options=dataclasses.replace(OPTIONS, **levels)
            )
            for levels in (
                {"spacings_mm": (32.0,), "strides": (1,), "iterations": (5,)},
                {"spacings_mm": (32.0, 16.0), "strides": (1, 1), "iterations": (5, 0)},
            )
        )
        assert fine.target_to_atlas.spacing_mm[0] == coarse.target_to_atlas.spacing_mm[0] / 2
        points = (
            np.argwhere(heart().array)[::97] * heart().spacing_mm + heart().voxel_to_world[:3, 3]
        )
        moved = coarse.target_to_atlas.displacement(points)
        assert np.abs(moved).max() > 0.1
        np.testing.assert_allclose(fine.target_to_atlas.displacement(points), moved, atol=1e-9)

    def test_every_stop_reason_gives_a_sentence(self):
        assert all(len(reason.value.split()) > 3 for reason in StopReason)


class TestShifts:
    SHIFTS_MM = (
        np.array([[0, 0], [3, -2], [-3, 1], [2, 3], [-2, -3], [3, 2], [-3, -1], [0, 0]]) * 1.0
    )

    def shifted(self):
        """The heart with slices stored away from where they belong by whole voxels."""
        labels, array = heart(), np.array(heart().array)
        voxels = np.rint(self.SHIFTS_MM / labels.spacing_mm[:2]).astype(int)
        for k in range(array.shape[2]):
            array[:, :, k] = np.roll(array[:, :, k], -voxels[k], axis=(0, 1))
        return LabelMap(array, labels.voxel_to_world), voxels * labels.spacing_mm[:2]

    def test_known_shifts_put_slices_back(self):
        target, shifts = self.shifted()
        found = register_labels(target, heart(), options=OPTIONS, slice_shifts_mm=shifts)
        assert found.consistency_before == pytest.approx(1)
        np.testing.assert_array_equal(found.slice_shifts_mm, shifts)

    def test_large_known_shifts_put_slices_back_too(self):
        labels, shifts = heart(), np.tile([40.0, 0.0], (8, 1))
        moved = np.array(labels.voxel_to_world)
        moved[0, 3] += 40.0
        atlas = LabelMap(labels.array, moved)
        found = register_labels(labels, atlas, options=OPTIONS, slice_shifts_mm=shifts)
        assert found.consistency_before == pytest.approx(1)

    def test_shifts_are_estimated_and_explain_the_slices(self):
        target, shifts = self.shifted()
        options = RegistrationOptions(
            spacings_mm=(64.0,),
            strides=(1,),
            iterations=(40,),
            bending_weight=3.0,
            estimate_shifts=True,
        )
        found = register_labels(target, heart(), options=options)
        acquired = slice(1, 7)
        gap = (found.slice_shifts_mm - shifts)[acquired]
        gap = gap - gap.mean(axis=0)
        spread = shifts[acquired] - shifts[acquired].mean(axis=0)
        assert np.sqrt((gap**2).mean()) < 0.5 * np.sqrt((spread**2).mean())
        assert not found.slice_shifts_mm[[0, 7]].any()
        assert found.consistency_after > found.consistency_before

    @pytest.mark.parametrize(
        ("spacing", "dense"),
        [
            ((1.25, 1.25, 2.0), True),
            ((0.5, 0.5, 0.5), True),
            ((2.5, 2.0, 4.0), True),
            ((0.5, 0.5, 1.5), False),
            ((2.0, 2.0, 4.5), False),
            ((1.25, 1.25, 10.0), False),
        ],
    )
    def test_dense_maps_are_recognised(self, spacing, dense):
        target = LabelMap(np.ones((3, 3, 3)), np.diag([*spacing, 1.0]))
        expected = RegistrationOptions.dense() if dense else RegistrationOptions()
        assert options_for(target) == expected

    def test_dense_maps_overlap_without_options(self):
        """Given as files; with the options of thick stacks it is .973, .951 and .971."""
        target, atlas = (
            sample_heart(seed, spacing_mm=(2.5, 2.5, 2.5)) for seed in (10_021, 10_023)
        )
        affine = fit_landmark_affine(target.landmarks, atlas.landmarks).target_to_atlas
        found = register_labels(target.labels, atlas.labels, affine)
        moved = warp_labels(atlas.labels, found.target_to_atlas, target.labels)
        assert min(dice(moved, target.labels, n) for n in (1, 2, 4)) > 0.985

    def test_files_and_arrays_are_read(self, tmp_path):
        target, atlas = heart(), squeezed_heart()
        expected = register_labels(target, atlas, options=OPTIONS).consistency_after
        write_labels(tmp_path / "target.nii.gz", target)
        write_labels(tmp_path / "atlas.nii.gz", atlas)
        found = register_labels(
            tmp_path / "target.nii.gz", str(tmp_path / "atlas.nii.gz"), options=OPTIONS
        )
        assert found.consistency_after == pytest.approx(expected, abs=1e-3)
        pair = (target.array, target.voxel_to_world)
        found = register_labels(pair, atlas, options=OPTIONS)
        assert found.consistency_after == pytest.approx(expected, abs=1e-9)
        for wrong, code in ((tmp_path / "none.nii", "FILE_NOT_FOUND"), (3, "BAD_TYPE")):
            with pytest.raises(InvalidInputError) as caught:
                register_labels(target, wrong, options=OPTIONS)
            assert caught.value.code == code

    def test_shifts_that_do_not_fit_are_refused(self):
        with pytest.raises(InvalidInputError) as caught:
            register_labels(heart(), heart(), slice_shifts_mm=np.zeros((3, 2)))
        assert caught.value.code == "BAD_SHAPE"


class TestPreparedTarget:
    def test_gives_what_register_labels_gives(self):
        prepared = prepare_target(heart(), OPTIONS)
        first = register_prepared(prepared, squeezed_heart(), Affine.identity(), OPTIONS)
        second = register_labels(heart(), squeezed_heart(), options=OPTIONS)
        np.testing.assert_array_equal(
            first.target_to_atlas.displacements_mm, second.target_to_atlas.displacements_mm
        )

    def test_one_sampling_serves_options_that_sample_alike(self):
        prepared = prepare_target(heart(), OPTIONS)
        other = dataclasses.replace(OPTIONS, bending_weight=30.0, minimum_jacobian=0.2)
        found = register_prepared(prepared, squeezed_heart(), Affine.identity(), other)
        asked = register_labels(heart(), squeezed_heart(), options=other)
        np.testing.assert_array_equal(
            found.target_to_atlas.displacements_mm, asked.target_to_atlas.displacements_mm
        )

    def test_another_sampling_is_refused(self):
        prepared = prepare_target(heart(), OPTIONS)
        wider = dataclasses.replace(OPTIONS, margin_mm=OPTIONS.margin_mm + 1)
        with pytest.raises(ValueError, match="sampled with other options"):
            register_prepared(prepared, squeezed_heart(), Affine.identity(), wider)

    def test_lattice_covers_the_domain_asked_for(self):
        domain = (np.array([-80.0, -60.0, -40.0]), np.array([180.0, 190.0, 140.0]))
        prepared = prepare_target(heart(), OPTIONS, domain_mm=domain)
        ffd = register_prepared(
            prepared, squeezed_heart(), Affine.identity(), OPTIONS
        ).target_to_atlas
        to_lattice = np.linalg.inv(ffd.lattice_to_world) @ prepared.samples.axes_to_world
        for corner, low in zip(domain, (True, False), strict=True):
            index = np.array(naive.move(to_lattice, corner))
            complete = (
                index >= 1 - 1e-9
                if low
                else index <= np.array(ffd.displacements_mm.shape[:3]) - 2 + 1e-9
            )
            assert complete.all()


class TestRefusals:
    def refused(self, code, call, *arguments, **keywords):
        with pytest.raises(InvalidInputError) as caught:
            call(*arguments, **keywords)
        assert caught.value.code == code

    def test_empty_maps(self):
        empty = LabelMap(np.zeros((3, 3, 3)), np.eye(4))
        self.refused("EMPTY_LABELS", register_labels, empty, heart())
        self.refused("EMPTY_LABELS", register_labels, heart(), empty)

    def test_a_sheared_target(self):
        matrix = np.array(heart().voxel_to_world)
        matrix[0, 2] += 3.0
        self.refused("SHEARED_TARGET", register_labels, LabelMap(heart().array, matrix), heart())

    @pytest.mark.parametrize(
        "options",
        [
            {"spacings_mm": (32.0,)},
            {"spacings_mm": (32.0, 20.0, 10.0)},
            {"spacings_mm": (0.0, 0.0, 0.0)},
            {"strides": (0, 1, 1)},
            {"spacings_mm": (), "strides": (), "iterations": ()},
            {"spacings_mm": (np.inf, np.inf, np.inf)},
            {"spacings_mm": (np.nan, np.nan, np.nan)},
            {"bending_weight": np.nan},
            {"tolerance": -1.0},
            {"minimum_jacobian": 1.0},
            {"class_weights": ((1, 0.0),)},
            {"class_weights": ((1, np.nan),)},
        ],
    )
    def test_options_that_contradict_each_other(self, options):
        base = {"spacings_mm": (64.0, 32.0, 16.0), "strides": (2, 2, 1), "iterations": (5, 5, 5)}
        self.refused("BAD_OPTION", RegistrationOptions, **(base | options))

    def test_no_threads(self):
        self.refused("BAD_THREADS", register_labels, heart(), heart(), threads=0)

    def test_a_lattice_without_end(self):
        options = dataclasses.replace(OPTIONS, spacings_mm=(0.02, 0.01))
        self.refused("BAD_LATTICE", register_labels, heart(), heart(), options=options)


class TestPoorInput:
    """What is hard but valid gives a finite result that says how it ended."""

    def check(self, found):
        assert np.isfinite(found.target_to_atlas.displacements_mm).all()
        assert np.isfinite([found.consistency_before, found.consistency_after]).all()
        assert found.consistency_after >= found.consistency_before - 1e-9
        assert found.minimum_jacobian > 0

    def only(self, labels, keep):
        return LabelMap(
            np.where(np.isin(labels.array, keep), labels.array, 0), labels.voxel_to_world
        )

    def test_one_label_only(self):
        self.check(register_labels(self.only(heart(), [1]), squeezed_heart(), options=OPTIONS))
        self.check(register_labels(heart(), self.only(squeezed_heart(), [1]), options=OPTIONS))

    def test_no_label_in_common_is_no_overlap(self):
        found = register_labels(
            self.only(heart(), [1]), self.only(squeezed_heart(), [4]), options=OPTIONS
        )
        assert found.stop_reason is StopReason.NO_OVERLAP
        self.check(found)

    @pytest.mark.parametrize("slices", [1, 2])
    def test_few_slices(self, slices):
        labels = heart()
        array = labels.array[:, :, 3 : 3 + slices]
        matrix = labels.voxel_to_world.copy()
        matrix[:3, 3] += 3 * matrix[:3, 2]
        self.check(register_labels(LabelMap(array, matrix), squeezed_heart(), options=OPTIONS))

    def test_a_single_voxel(self):
        array = np.zeros(heart().shape)
        array[20, 20, 4] = 1
        target = LabelMap(array, heart().voxel_to_world)
        self.check(register_labels(target, squeezed_heart(), options=OPTIONS))
        self.check(register_labels(heart(), target, options=OPTIONS))

    def test_an_affine_that_shrinks_everything_to_a_point(self):
        affine = Affine(np.diag([1e-5, 1e-5, 1e-5, 1.0]))
        self.check(register_labels(heart(), squeezed_heart(), affine, options=OPTIONS))

    def test_labels_that_only_the_unknown_share(self):
        target = self.only(heart(), [1, 2, 4])
        self.check(
            register_labels(target, squeezed_heart(), options=OPTIONS, unknown_labels=(3, 9))
        )

    def test_a_start_on_atlas_voxels_does_not_stall(self):
        """The target is the atlas moved by two whole voxels, where gradients are one-sided."""
        labels = heart()
        target = LabelMap(np.roll(labels.array, 2, axis=0), labels.voxel_to_world)
        found = register_labels(target, labels, options=OPTIONS)
        assert found.consistency_after > 0.97

    def test_dense_options_need_less_where_less_is_asked(self):
        for finest, stride in ((16.0, 4), (10.0, 2), (8.0, 1), (5.0, 1)):
            options = RegistrationOptions.dense(finest)
            assert (options.spacings_mm[-1], options.strides[-1]) == (finest, stride)
            assert 30 < options.spacings_mm[0] <= 64
            assert options.background_slices
        found = register_labels(heart(), squeezed_heart(), options=RegistrationOptions.dense(5.0))
        coarse = register_labels(heart(), squeezed_heart(), options=RegistrationOptions.dense(32.0))
        assert found.consistency_after > coarse.consistency_after
        self.check(found)
