"""Planes between two slices, where structures are that both show, in the objective."""

import numpy as np
import pytest
from hypothesis import assume, given

from cardiacreg import LabelMap
from cardiacreg.registration.prepared_target import prepare_target
from cardiacreg.slices import EmptyPlane, SharedPlane
from cardiacreg.transforms.ffd import lattice_over_box
from tests.helpers import naive
from tests.helpers.strategies import few, seeds
from tests.registration.test_empty_planes import LEFT, OPTIONS, REACH, RIGHT, Problem

WEIGHT = 0.5
PLANES = (
    SharedPlane(0.7, 0, 1, LEFT),
    SharedPlane(0.4, 1, 0, RIGHT),
    SharedPlane(2.6, 3, 2, (*LEFT, *RIGHT)),
)


class SharedProblem(Problem):
    """The same random target with planes between its slices, and the two answers."""

    shared = PLANES

    def prepare(self):
        self.prepared = prepare_target(
            self.target, OPTIONS, empty_planes=self.planes, shared_planes=self.shared
        )

    def both_show(self, plane):
        """Voxels in plane, and labels, that both slices show."""
        array = self.target.array
        for i, j in np.ndindex(array.shape[:2]):
            label = array[i, j, plane.outer]
            if label == array[i, j, plane.inner] and label in plane.structures:
                yield i, j, label

    def samples_between(self):
        """Labels and world points of what is between the slices; a plane moves with the outer one."""
        for plane in self.shared:
            moved = self.shifts_mm[plane.outer] / self.target.spacing_mm[:2]
            for i, j, label in self.both_show(plane):
                voxel = (i + moved[0], j + moved[1], plane.position)
                yield label, naive.move(self.target.voxel_to_world, voxel)

    def oracle(self):
        """The mean over slices, planes beyond the ends and, for half as much, planes between slices."""
        target, axes = self.target, self.prepared.samples.axes_to_world
        local = np.diag([*self.spacing_mm, 1.0])
        local[:3, 3] = self.origin_mm
        transform = naive.deformation(
            self.affine, self.displacements_mm @ axes[:3, :3].T, axes @ local
        )
        voxels = naive.counted_voxels(target.array, REACH)
        weighed = [
            (1.0, (label,), point)
            for label, point in naive.slice_samples(
                target.array, target.voxel_to_world, voxels, self.shifts_mm
            )
        ]
        weighed += [(WEIGHT, (label,), point) for label, point in self.samples_between()]
        beyond = naive.plane_samples(
            target.array, target.voxel_to_world, self.planes, REACH, self.shifts_mm
        )
        weighed += [
            (plane.weight, set(range(256)) - set(plane.structures), point)
            for plane, point in beyond
        ]
        to_voxel = np.linalg.inv(self.atlas.voxel_to_world)
        value = sum(
            weight * share
            for weight, right, point in weighed
            for index, share in naive.corner_weights(naive.move(to_voxel, transform(point)))
            if naive.label_at(self.atlas.array, index) in right
        )
        return value / sum(weight for weight, _, _ in weighed)


@few
@given(seeds)
def test_value_equals_the_oracle(seed):
    problem = SharedProblem(seed)
    assume(sum(1 for _ in problem.samples_between()) > 5)
    assert problem.value().value == pytest.approx(problem.oracle(), rel=1e-10)


@few
@given(seeds)
def test_gradient_equals_differences(seed):
    problem = SharedProblem(seed)
    direction = problem.rng.normal(size=problem.displacements_mm.shape)
    expected = (problem.value().displacement_gradient * direction).sum()
    step = 1e-5
    up, down = (
        problem.value(problem.displacements_mm + sign * step * direction).value for sign in (1, -1)
    )
    assert (up - down) / (2 * step) == pytest.approx(expected, rel=1e-5, abs=1e-8)


def test_slices_that_share_nothing_add_no_plane():
    problem = SharedProblem(3)
    apart = problem.target.array.copy()
    apart[..., 0] = 0
    apart[2:4, 2:4, 0] = 1
    apart[2:4, 2:4, 1] = 4
    problem.target = LabelMap(apart, problem.target.voxel_to_world)
    problem.shared = PLANES[:1]
    problem.prepare()
    with_planes = problem.prepared.samples
    problem.shared = ()
    problem.prepare()
    assert len(with_planes.labels) == len(problem.prepared.samples.labels)


def test_a_plane_leads_an_atlas_that_ends_too_early():
    """The atlas ends at a plane, 4 mm before the outer slice, which cannot tell; the plane can."""
    problem = SharedProblem(8, planes=())
    block = np.zeros((12, 12, 4), dtype=np.uint8)
    block[3:9, 3:9, 1] = 1
    block[3:6, 3:9, 2] = 1
    problem.target = LabelMap(block, np.diag([2.0, 2.5, 9.0, 1.0]))
    shorter = np.zeros((12, 12, 9), dtype=np.uint8)
    shorter[:, :, 1:4] = 1
    problem.atlas = LabelMap(shorter, np.diag([2.0, 2.5, 4.0, 1.0]))
    problem.affine, problem.shifts_mm = np.eye(4), np.zeros((4, 2))
    problem.origin_mm, lattice = lattice_over_box([-20.0] * 3, [60.0] * 3, problem.spacing_mm)
    problem.displacements_mm = np.zeros((*lattice, 3))
    pull = {}
    for shared in (
        (),
        (SharedPlane(1 + 5 / 9, 2, 1, LEFT),),
        (SharedPlane(1 + 5 / 9, 2, 1, RIGHT),),
    ):
        problem.shared = shared
        problem.prepare()
        pull[shared] = problem.value().displacement_gradient[..., 2].sum()
    nothing, left, right = pull.values()
    assert nothing == right == 0
    assert left < 0  # the atlas is met nearer to its middle: its structure moves outwards


def test_planes_beyond_and_between_have_codes_of_their_own():
    problem = SharedProblem(5, planes=(EmptyPlane(5.0, 4, LEFT, 0.5),))
    codes = problem.prepared.codes
    labelled = codes.of_structures
    assert not labelled[codes.first_shared : codes.first_doubtful].any()
    np.testing.assert_allclose(
        codes.score[codes.first_shared : codes.first_doubtful],
        WEIGHT * codes.score[: codes.n_labels],
    )
