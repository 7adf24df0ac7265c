"""Planes where ventricles have ended, in the objective: against a slow oracle and by differences."""

import numpy as np
import pytest
from hypothesis import given

from cardiacreg import LabelMap, RegistrationOptions
from cardiacreg.registration.label_consistency import ConsistencyObjective
from cardiacreg.registration.prepared_target import prepare_target
from cardiacreg.registration.target_sampling import sample_target
from cardiacreg.slices import EmptyPlane
from cardiacreg.transforms.atlas_lookup import build_lookup
from cardiacreg.transforms.ffd import lattice_over_box
from tests.helpers import naive
from tests.helpers.strategies import few, seeds
from tests.registration.test_label_consistency import (
    CODES,
    SPACING_MM,
    small_atlas,
    small_target,
    well_conditioned_matrix as affine_matrix,
)

LEFT, RIGHT = (1, 2), (4, 3)
MARGIN_MM = 3.0
REACH = np.ceil(MARGIN_MM / SPACING_MM[:2])
OPTIONS = RegistrationOptions(margin_mm=MARGIN_MM, class_weights=())


def planes_of(labels, right=RIGHT):
    """Planes of full and of little weight beyond both ends of each ventricle, and one between slices."""
    planes = []
    for structures in (LEFT, right):
        held = np.flatnonzero(np.isin(labels.array, structures).any(axis=(0, 1)))
        for last, side in ((held[0], -1), (held[-1], 1)) if len(held) else ():
            planes += [
                EmptyPlane(last + side * away, int(last), structures, weight)
                for away, weight in ((0.8, 0.12), (1.0, 1.0), (2.0, 1.0))
            ]
            planes.append(EmptyPlane(last - 0.4 * side, int(last), structures, 0.3))
    return tuple(planes)


class Problem:
    """A random target with planes, an atlas, a deformation and shifts, and the two answers."""

    def __init__(self, seed, planes=None, unknown=()):
        rng = np.random.default_rng(seed)
        self.target, self.atlas = small_target(rng), small_atlas(rng)
        self.planes = planes_of(self.target) if planes is None else planes
        self.affine, self.unknown, self.rng = affine_matrix(rng), unknown, rng
        self.shifts_mm = rng.uniform(-2, 2, size=(self.target.shape[2], 2))
        self.prepare()
        positions = self.prepared.samples.position_mm
        lower, upper = ([f(axis) + d for axis in positions] for f, d in ((np.min, -6), (np.max, 6)))
        self.spacing_mm = np.array([14.0, 11.0, 17.0])
        self.origin_mm, lattice = lattice_over_box(lower, upper, self.spacing_mm)
        self.displacements_mm = rng.normal(size=(*lattice, 3))

    def prepare(self):
        self.prepared = prepare_target(
            self.target, OPTIONS, unknown_labels=self.unknown, empty_planes=self.planes
        )

    def value(self, displacements_mm=None, shifts_mm=None):
        samples, codes = self.prepared.samples, self.prepared.codes
        objective = ConsistencyObjective(
            samples,
            build_lookup(self.atlas, codes.codes),
            self.affine @ samples.axes_to_world,
            codes.score,
        )
        moved = self.displacements_mm if displacements_mm is None else displacements_mm
        shifts = self.shifts_mm if shifts_mm is None else shifts_mm
        return objective(moved, self.origin_mm, self.spacing_mm, shifts[samples.slice_index])

    def oracle(self):
        axes, target = self.prepared.samples.axes_to_world, self.target
        local = np.diag([*self.spacing_mm, 1.0])
        local[:3, 3] = self.origin_mm
        transform = naive.deformation(
            self.affine, self.displacements_mm @ axes[:3, :3].T, axes @ local
        )
        voxels = naive.counted_voxels(target.array, REACH)
        matrix = target.voxel_to_world
        return naive.consistency_with_planes(
            naive.slice_samples(target.array, matrix, voxels, self.shifts_mm),
            naive.plane_samples(target.array, matrix, self.planes, REACH, self.shifts_mm),
            self.atlas.array,
            self.atlas.voxel_to_world,
            transform,
            [(0, label) for label in self.unknown],
        )


class TestSampling:
    @few
    @given(seeds)
    def test_voxels_of_planes_equal_the_oracle(self, seed):
        target = small_target(np.random.default_rng(seed))
        planes = planes_of(target)
        beyond = [(plane, 20 + n) for n, plane in enumerate(planes)]
        samples = sample_target(target, CODES, margin_mm=MARGIN_MM, beyond=beyond)
        rows, columns = (
            np.rint(samples.position_mm[a] / SPACING_MM[a]).astype(int) for a in (0, 1)
        )
        first = len(samples.labels) - len(planes)
        for n, plane in enumerate(planes):
            found = [
                (int(i), int(columns[c]))
                for r, i in enumerate(rows)
                for c in range(*samples.spans[first + n, r])
            ]
            assert found == naive.plane_voxels(target.array, plane, REACH)
            assert (samples.labels[first + n] == 20 + n).all()
            assert samples.position_mm[2][first + n] == pytest.approx(
                plane.position * SPACING_MM[2]
            )
            assert samples.slice_index[first + n] == plane.slice_before

    def test_slices_are_sampled_as_without_planes(self):
        target = small_target(np.random.default_rng(3))
        plain = sample_target(target, CODES, margin_mm=MARGIN_MM)
        beyond = [(planes_of(target)[0], 9)]
        planned = sample_target(target, CODES, margin_mm=MARGIN_MM, beyond=beyond)
        for name in ("labels", "spans", "slice_index"):
            np.testing.assert_array_equal(getattr(planned, name)[:-1], getattr(plain, name))
        np.testing.assert_array_equal(planned.axes_to_world, plain.axes_to_world)

    def test_a_stride_keeps_every_nth_position_of_planes(self):
        target = small_target(np.random.default_rng(4))
        beyond = [(plane, 9) for plane in planes_of(target)]
        samples = sample_target(target, CODES, margin_mm=MARGIN_MM, beyond=beyond)
        sparse, first = samples.every(2), len(samples.labels) - len(beyond)
        inside = np.zeros(samples.labels.shape, dtype=bool)
        for s, r in np.ndindex(samples.spans.shape[:2]):
            inside[s, r, slice(*samples.spans[s, r])] = True
        for s, r in np.ndindex(sparse.spans.shape[:2]):
            kept = np.flatnonzero(inside[s, 1 + 2 * r, 1::2]) if s >= first else []
            if len(kept):
                assert list(sparse.spans[s, r]) == [kept[0], kept[-1] + 1]


class TestValue:
    @few
    @given(seeds)
    def test_equals_the_oracle(self, seed):
        problem = Problem(seed)
        assert problem.value().value == pytest.approx(problem.oracle(), rel=1e-10)

    @pytest.mark.parametrize("unknown", [(), (3,)])
    def test_equals_the_oracle_where_the_target_lacks_a_structure(self, unknown):
        problem = Problem(5)
        bare = np.where(problem.target.array == 3, 0, problem.target.array)
        problem.target = LabelMap(bare, problem.target.voxel_to_world)
        problem.unknown = unknown
        problem.planes = planes_of(problem.target, (4, 3) if unknown else (4,))
        problem.prepare()
        assert problem.value().value == pytest.approx(problem.oracle(), rel=1e-10)

    @pytest.mark.parametrize(
        ("atlas_label", "agrees"),
        [(0, True), (1, False), (2, False), (3, True), (4, True), (7, True)],
    )
    def test_a_plane_forbids_only_its_structures(self, atlas_label, agrees):
        """An atlas of one label agrees with a plane of the left ventricle wholly or not at all."""
        problem = Problem(6, planes=(EmptyPlane(5.0, 4, LEFT, 0.5),))
        everywhere = np.full((40, 40, 40), atlas_label)
        problem.atlas = LabelMap(everywhere, np.diag([4.0, 4.0, 4.0, 1.0]))
        problem.affine = np.eye(4)
        centre = problem.target.voxel_to_world @ [*(np.array(problem.target.shape) / 2), 1]
        problem.affine[:3, 3] = 80 - centre[:3]
        voxels = naive.counted_voxels(problem.target.array, REACH)
        same = sum(problem.target.array[v] == atlas_label for v in voxels)
        plane = 0.5 * len(naive.plane_voxels(problem.target.array, problem.planes[0], REACH))
        expected = (same + plane * agrees) / (len(voxels) + plane)
        found = problem.value(0 * problem.displacements_mm)
        assert found.value == pytest.approx(expected)

    def test_a_plane_without_weight_changes_nothing(self):
        with_plane = Problem(7, planes=(EmptyPlane(5.0, 4, LEFT, 0.0),))
        expected = with_plane.value()
        with_plane.planes = ()
        with_plane.prepare()
        assert with_plane.value().value == pytest.approx(expected.value, rel=1e-12)


class TestGradient:
    STEP_MM = 1e-5

    def slope(self, problem, displacements, shifts):
        values = [
            problem.value(
                problem.displacements_mm + step * displacements, problem.shifts_mm + step * shifts
            ).value
            for step in (self.STEP_MM, -self.STEP_MM)
        ]
        return (values[0] - values[1]) / (2 * self.STEP_MM)

    @few
    @given(seeds)
    def test_displacements_along_random_directions(self, seed):
        problem = Problem(seed)
        direction = problem.rng.normal(size=problem.displacements_mm.shape)
        expected = (problem.value().displacement_gradient * direction).sum()
        found = self.slope(problem, direction, 0 * problem.shifts_mm)
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-8)

    def test_planes_move_with_the_slice_before_them(self):
        problem = Problem(22)
        gradient = problem.value().shift_gradient
        for slice_index in range(problem.target.shape[2]):
            own = gradient[problem.prepared.samples.slice_index == slice_index].sum(axis=0)
            for axis in range(2):
                direction = np.zeros(problem.shifts_mm.shape)
                direction[slice_index, axis] = 1
                found = self.slope(problem, 0 * problem.displacements_mm, direction)
                assert found == pytest.approx(own[axis], rel=1e-5, abs=1e-9)

    def test_a_plane_pushes_its_structure_back(self):
        """The atlas ends 0.4 mm past the plane: only the plane asks for it to end earlier."""
        block = np.zeros((12, 12, 3), dtype=np.uint8)
        block[3:9, 3:9, 1] = 1
        problem = Problem(8)
        problem.target = LabelMap(block, np.diag([2.0, 2.5, 8.0, 1.0]))
        longer = np.zeros((12, 12, 9), dtype=np.uint8)
        longer[:, :, 1:4] = 1
        problem.atlas = LabelMap(longer, np.diag([2.0, 2.5, 4.0, 1.0]))
        problem.affine, problem.shifts_mm = np.eye(4), np.zeros((3, 2))
        problem.origin_mm, lattice = lattice_over_box([-20.0] * 3, [60.0] * 3, problem.spacing_mm)
        problem.displacements_mm = np.zeros((*lattice, 3))
        pull = {}
        for planes in ((), (EmptyPlane(15.6 / 8, 1, LEFT),), (EmptyPlane(15.6 / 8, 1, RIGHT),)):
            problem.planes = planes
            problem.prepare()
            pull[planes] = problem.value().displacement_gradient[..., 2].sum()
        nothing, left, right = pull.values()
        assert nothing == right == 0
        assert left == pytest.approx(1 / 2 / 4.0)  # half of all samples, one atlas voxel is 4 mm
