import numpy as np
import pytest
from hypothesis import given, strategies as st

from cardiacreg import InvalidInputError, LabelMap
from cardiacreg.registration.label_consistency import ConsistencyObjective, sample_target
from cardiacreg.slices import labelled_slices, stack_axes
from cardiacreg.transforms.atlas_lookup import build_lookup
from cardiacreg.transforms.ffd import lattice_over_box
from tests.helpers import naive
from tests.helpers.strategies import blobs, few, oblique_matrix, seeds, well_conditioned_matrix

CODES = np.minimum(np.arange(256), 5).astype(np.uint8)
SPACING_MM = np.array([2.0, 2.5, 8.0])


def small_target(rng, shape=(16, 13, 5)):
    """Labels in a window of a lattice, one slice in the middle without any."""
    array = np.zeros(shape, dtype=np.uint8)
    array[4:-4, 3:-4] = blobs(rng, (shape[0] - 8, shape[1] - 7, shape[2]))
    array[6, 6] = 1
    array[:, :, 2] = 0
    left_handed = bool(rng.integers(2))
    return LabelMap(
        array, oblique_matrix(rng, SPACING_MM, left_handed=left_handed, centre_of=shape)
    )


def small_atlas(rng):
    array = blobs(rng, (14, 15, 17), labels=(1, 2, 3, 4, 7))
    return LabelMap(array, oblique_matrix(rng, (2.5, 2.2, 2.8), centre_of=array.shape))


class Problem:
    """A random target, atlas, affine, lattice, displacement and shifts, and the two answers."""

    def __init__(self, seed, *, all_slices=False, weights=(), matches=()):
        rng = np.random.default_rng(seed)
        self.target, self.atlas = small_target(rng), small_atlas(rng)
        self.affine = well_conditioned_matrix(rng)
        self.all_slices = all_slices
        self.weights, self.matches = dict(weights), matches
        self.samples = sample_target(self.target, CODES, margin_mm=3.0, all_slices=all_slices)
        self.axes = self.samples.axes_to_world
        self.spacing_mm = np.array([14.0, 11.0, 17.0])
        lower = [axis.min() - 6 for axis in self.samples.position_mm]
        upper = [axis.max() + 6 for axis in self.samples.position_mm]
        self.origin_mm, lattice = lattice_over_box(lower, upper, self.spacing_mm)
        self.displacements_mm = rng.normal(size=(*lattice, 3))
        self.shifts_mm = rng.uniform(-2, 2, size=(self.target.shape[2], 2))
        self.rng = rng

    @property
    def score(self):
        score = np.diag([*(self.weights.get(label, 1.0) for label in range(5)), 0.0])
        for target_label, atlas_label in self.matches:
            score[target_label, atlas_label] = self.weights.get(target_label, 1.0)
        return score

    def objective(self, threads=1):
        cells = build_lookup(self.atlas, CODES)
        return ConsistencyObjective(
            self.samples, cells, self.affine @ self.axes, self.score, threads
        )

    def value(self, displacements_mm=None, shifts_mm=None, threads=1):
        displacements_mm = self.displacements_mm if displacements_mm is None else displacements_mm
        shifts_mm = self.shifts_mm if shifts_mm is None else shifts_mm
        return self.objective(threads)(
            displacements_mm, self.origin_mm, self.spacing_mm, shifts_mm[self.samples.slice_index]
        )

    def oracle(self):
        target, local = self.target, np.diag([*self.spacing_mm, 1.0])
        local[:3, 3] = self.origin_mm
        transform = naive.deformation(
            self.affine, self.displacements_mm @ self.axes[:3, :3].T, self.axes @ local
        )
        voxels = naive.counted_voxels(target.array, np.ceil(3.0 / SPACING_MM[:2]), self.all_slices)
        samples = naive.slice_samples(target.array, target.voxel_to_world, voxels, self.shifts_mm)
        return naive.label_consistency(
            samples,
            self.atlas.array,
            self.atlas.voxel_to_world,
            transform,
            self.weights,
            self.matches,
        )


class TestValue:
    @pytest.mark.parametrize(
        "case",
        [
            {},
            {"all_slices": True},
            {"weights": {3: 2.0, 1: 0.5}},
            {"matches": ((0, 3),), "weights": {0: 0.7}},
        ],
        ids=["plain", "all slices", "class weights", "unknown label"],
    )
    def test_equals_the_oracle(self, case):
        problem = Problem(11, **case)
        assert problem.value().value == pytest.approx(problem.oracle(), rel=1e-10)

    @few
    @given(seeds)
    def test_equals_the_oracle_for_any_seed_and_lies_in_the_unit_interval(self, seed):
        problem = Problem(seed)
        value = problem.value().value
        assert 0 <= value <= 1
        assert value == pytest.approx(problem.oracle(), rel=1e-10)

    def test_is_one_for_the_target_itself(self):
        problem = Problem(12)
        problem.atlas, problem.affine = problem.target, np.eye(4)
        found = problem.value(0 * problem.displacements_mm, 0 * problem.shifts_mm)
        assert found.value == pytest.approx(1)

    def test_on_atlas_voxels_it_is_the_share_of_equal_labels(self):
        """The sum of P(i, i) of the paper when T hits atlas voxels."""
        problem, rng = Problem(13), np.random.default_rng(13)
        other = small_target(rng)
        problem.atlas = LabelMap(other.array, problem.target.voxel_to_world)
        problem.affine = np.eye(4)
        voxels = naive.counted_voxels(problem.target.array, np.ceil(3.0 / SPACING_MM[:2]))
        expected = np.mean([problem.target.array[v] == other.array[v] for v in voxels])
        found = problem.value(0 * problem.displacements_mm, 0 * problem.shifts_mm)
        assert found.value == pytest.approx(expected)

    def test_labels_are_categories(self):
        """Swapping two label values in target and atlas changes nothing."""
        problem = Problem(14)
        before = problem.value()
        swap = np.array([0, 4, 2, 3, 1, 5, 6, 7])
        for name in ("target", "atlas"):
            grid = getattr(problem, name)
            setattr(problem, name, LabelMap(swap[grid.array], grid.voxel_to_world))
        problem.samples = sample_target(problem.target, CODES, margin_mm=3.0)
        after = problem.value()
        assert after.value == before.value
        np.testing.assert_array_equal(after.displacement_gradient, before.displacement_gradient)

    def test_far_away_only_background_matches(self):
        problem = Problem(15)
        problem.affine[:3, 3] += 1000
        voxels = naive.counted_voxels(problem.target.array, np.ceil(3.0 / SPACING_MM[:2]))
        found = problem.value()
        assert found.value == pytest.approx(np.mean([problem.target.array[v] == 0 for v in voxels]))
        assert not found.displacement_gradient.any()
        assert not found.shift_gradient.any()


class TestGradient:
    """Central differences are strict: away from cell boundaries the value is a polynomial."""

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
    def test_displacement_gradient_along_random_directions(self, seed):
        problem = Problem(seed, weights={3: 2.0})
        direction = problem.rng.normal(size=problem.displacements_mm.shape)
        expected = (problem.value().displacement_gradient * direction).sum()
        found = self.slope(problem, direction, 0 * problem.shifts_mm)
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-8)

    def test_displacement_gradient_of_single_control_points(self):
        problem = Problem(21)
        gradient = problem.value().displacement_gradient
        strongest = np.argsort(-np.abs(gradient).ravel())[:200:20]
        for index in zip(*np.unravel_index(strongest, gradient.shape), strict=True):
            direction = np.zeros(gradient.shape)
            direction[index] = 1
            found = self.slope(problem, direction, 0 * problem.shifts_mm)
            assert found == pytest.approx(gradient[index], rel=1e-5, abs=1e-9)

    def test_shift_gradient_of_every_slice_and_axis(self):
        problem = Problem(22)
        gradient = problem.value().shift_gradient
        for slice_index in range(problem.target.shape[2]):
            of_slice = gradient[problem.samples.slice_index == slice_index].sum(axis=0)
            for axis in range(2):
                direction = np.zeros(problem.shifts_mm.shape)
                direction[slice_index, axis] = 1
                found = self.slope(problem, 0 * problem.displacements_mm, direction)
                assert found == pytest.approx(of_slice[axis], rel=1e-5, abs=1e-9)

    def test_all_at_once(self):
        problem = Problem(23, all_slices=True)
        found = problem.value()
        shifts = problem.rng.normal(size=problem.shifts_mm.shape)
        displacements = problem.rng.normal(size=problem.displacements_mm.shape)
        expected = (found.displacement_gradient * displacements).sum()
        expected += (found.shift_gradient * shifts[problem.samples.slice_index]).sum()
        assert self.slope(problem, displacements, shifts) == pytest.approx(expected, rel=1e-5)


def test_gradient_is_the_adjoint_of_the_spline():
    """<A d, y> = <d, A' y>: in one huge atlas cell the consistency is linear in the displacements.

    The atlas's eight voxels are 1000 mm apart and differ along i only, so that the consistency of a
    target of label 1 is the mean of the mapped points' i coordinate: y is constant, A the spline.
    """
    problem = Problem(31)
    problem.target = LabelMap(np.ones(problem.target.shape), problem.target.voxel_to_world)
    problem.samples = sample_target(problem.target, CODES, margin_mm=3.0)
    problem.axes = problem.samples.axes_to_world
    matrix = oblique_matrix(problem.rng, (1000.0, 1000.0, 1000.0), centre_of=(2, 2, 2))
    cube = np.zeros((2, 2, 2))
    cube[1] = 1
    problem.atlas = LabelMap(cube, matrix)
    lower, upper = ([f(axis) for axis in problem.samples.position_mm] for f in (np.min, np.max))
    problem.origin_mm, lattice = lattice_over_box(np.array(lower) - 6, np.array(upper) + 6, 15.0)
    problem.spacing_mm = np.full(3, 15.0)
    moved = problem.rng.normal(size=(*lattice, 3))
    at_rest = problem.value(0 * moved)
    local = np.diag([15.0, 15.0, 15.0, 1.0])
    local[:3, 3] = problem.origin_mm
    to_voxel = np.linalg.inv(matrix) @ problem.affine @ problem.axes
    voxels = list(np.ndindex(problem.target.shape))
    spline = [
        naive.displacement(
            moved,
            local,
            (*(np.array(v[:2]) * SPACING_MM[:2] + problem.shifts_mm[v[2]]), v[2] * 8.0),
        )
        for v in voxels
    ]
    expected = np.mean(np.array(spline) @ to_voxel[0, :3])
    assert problem.value(moved).value - at_rest.value == pytest.approx(expected, rel=1e-9)
    assert (at_rest.displacement_gradient * moved).sum() == pytest.approx(expected, rel=1e-10)


class TestSampling:
    @staticmethod
    def listed(samples, spacing):
        """The sampled voxels as a list of (i, j, k), and their codes."""
        voxels, codes = [], []
        rows, columns = (np.rint(samples.position_mm[a] / spacing[a]).astype(int) for a in range(2))
        for s, k in enumerate(samples.slice_index):
            for r, i in enumerate(rows):
                for c in range(*samples.spans[s, r]):
                    voxels.append((int(i), int(columns[c]), int(k)))
                    codes.append(int(samples.labels[s, r, c]))
        return voxels, codes

    @few
    @given(seeds, st.sampled_from([0.0, 2.0, 5.0, 30.0]), st.booleans())
    def test_voxels_and_codes_equal_the_oracle(self, seed, margin_mm, all_slices):
        target = small_target(np.random.default_rng(seed))
        samples = sample_target(target, CODES, margin_mm=margin_mm, all_slices=all_slices)
        voxels, codes = self.listed(samples, target.spacing_mm)
        reach = np.ceil(margin_mm / SPACING_MM[:2])
        expected = naive.counted_voxels(target.array, reach, all_slices)
        assert sorted(voxels) == sorted(expected)
        assert codes == [int(CODES[target.array[v]]) for v in voxels]

    def test_a_margin_wider_than_half_the_lattice_adds_no_far_rows(self):
        array = np.zeros((30, 6, 2), dtype=np.uint8)
        array[2:4, 2:4, 0] = array[26:28, 2:4, 1] = 1
        target = LabelMap(array, np.diag([*SPACING_MM, 1.0]))
        found, _ = self.listed(sample_target(target, CODES, margin_mm=10.0), SPACING_MM)
        assert sorted(found) == naive.counted_voxels(array, (5, 4))

    def test_a_turned_lattice_counts_the_same_voxels(self):
        """A margin of whole voxels must not grow when the spacing is off by a rounding error."""
        array = small_target(np.random.default_rng(45)).array
        straight = sample_target(
            LabelMap(array, np.diag([*SPACING_MM, 1.0])), CODES, margin_mm=10.0
        )
        for seed in range(5):
            matrix = oblique_matrix(np.random.default_rng(seed), SPACING_MM)
            turned = sample_target(LabelMap(array, matrix), CODES, margin_mm=10.0)
            np.testing.assert_array_equal(turned.spans, straight.spans)

    @pytest.mark.parametrize("stride", [1, 2, 3, 4])
    def test_a_stride_keeps_every_nth_position(self, stride):
        target = small_target(np.random.default_rng(41))
        samples = sample_target(target, CODES, margin_mm=4.0)
        sparse = samples.every(stride)
        for axis in range(2):
            expected = samples.position_mm[axis][stride // 2 :: stride]
            np.testing.assert_array_equal(sparse.position_mm[axis], expected)
        allowed = [np.rint(sparse.position_mm[a] / SPACING_MM[a]) for a in range(2)]
        voxels, codes = self.listed(samples, SPACING_MM)
        kept = [n for n, v in enumerate(voxels) if v[0] in allowed[0] and v[1] in allowed[1]]
        found = self.listed(sparse, SPACING_MM)
        assert found == ([voxels[n] for n in kept], [codes[n] for n in kept])

    def test_slices_without_labels_are_unknown_unless_asked_for(self):
        target = small_target(np.random.default_rng(43))
        assert labelled_slices(target.array).tolist() == [0, 1, 3, 4]
        assert sample_target(target, CODES, margin_mm=1).slice_index.tolist() == [0, 1, 3, 4]
        every = sample_target(target, CODES, margin_mm=1, all_slices=True)
        assert every.slice_index.tolist() == [0, 1, 2, 3, 4]

    def test_axes_keep_origin_and_directions_of_the_lattice(self):
        matrix = oblique_matrix(np.random.default_rng(44), SPACING_MM, left_handed=True)
        axes = stack_axes(matrix, "test")
        np.testing.assert_allclose(axes @ np.diag([*SPACING_MM, 1.0]), matrix, atol=1e-12)

    def test_a_sheared_lattice_is_refused(self):
        matrix = np.diag([1.0, 1.0, 2.0, 1.0])
        matrix[0, 2] = 0.5
        with pytest.raises(InvalidInputError) as caught:
            stack_axes(matrix, "test")
        assert caught.value.code == "SHEARED_TARGET"


class TestCells:
    def test_border_is_background_and_uniform_cells_are_marked(self):
        atlas = small_atlas(np.random.default_rng(51))
        cells = build_lookup(atlas, CODES)
        codes, uniform = cells.codes
        np.testing.assert_array_equal(codes, np.pad(CODES[atlas.array], 1))
        for i, j, k in np.ndindex(*(n - 1 for n in codes.shape)):
            found = set(codes[i : i + 2, j : j + 2, k : k + 2].ravel().tolist())
            assert uniform[i, j, k] == (found.pop() if len(found) == 1 else 255)

    def test_padded_voxels_lie_where_the_atlas_lies(self):
        atlas = small_atlas(np.random.default_rng(52))
        matrix = build_lookup(atlas, CODES).voxel_to_world
        for voxel in ([0, 0, 0], [3, 1, 2]):
            expected = naive.move(atlas.voxel_to_world, voxel)
            np.testing.assert_allclose(naive.move(matrix, np.array(voxel) + 1), expected)
