from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given

from cardiacreg import LabelMap, RegistrationOptions
from cardiacreg.geometry import Affine, apply_matrix
from cardiacreg.phantoms.long_axis_views import ViewAcquisition, simulate_views
from cardiacreg.phantoms.toy_heart import make_toy_heart
from cardiacreg.registration.ffd_registration import prepare_target, register_prepared
from cardiacreg.registration.label_consistency import total_weight
from cardiacreg.registration.target_objective import TargetObjective, ViewObjective
from cardiacreg.registration.view_samples import ViewPlane
from cardiacreg.transforms.atlas_lookup import build_lookup
from cardiacreg.transforms.bspline import lattice_over_box
from tests.helpers import naive
from tests.helpers.strategies import blobs, few, oblique_matrix, seeds, well_conditioned_matrix


class Problem:
    """A random stack with two random views, an atlas, a lattice, displacements and shifts."""

    def __init__(self, seed, class_weights=((3, 2.0), (1, 0.5))):
        rng = np.random.default_rng(seed)
        stack = np.zeros((14, 13, 4), dtype=np.uint8)
        stack[3:-3, 3:-3] = blobs(rng, (8, 7, 4))
        stack[7, 7] = 1
        self.stack = LabelMap(stack, oblique_matrix(rng, (2.0, 2.5, 8.0), centre_of=stack.shape))
        self.views = tuple(self.view(rng, drawn) for drawn in ((1, 2, 4), (1, 2, 3, 4)))
        array = blobs(rng, (14, 15, 17), labels=(1, 2, 3, 4))
        self.atlas = LabelMap(array, oblique_matrix(rng, (2.5, 2.2, 2.8), centre_of=array.shape))
        self.options = RegistrationOptions(margin_mm=3.0, class_weights=class_weights)
        missing = tuple(n for n in (1, 2, 3, 4) if n not in self.stack.present())
        self.prepared = prepare_target(
            self.stack, self.options, views=self.views, unknown_labels=missing
        )
        self.axes = self.prepared.samples.axes_to_world
        self.affine = well_conditioned_matrix(rng)
        self.spacing_mm = np.array([14.0, 11.0, 17.0])
        self.origin_mm, lattice = lattice_over_box(
            self.prepared.lower_mm, self.prepared.upper_mm, self.spacing_mm
        )
        self.displacements_mm = rng.normal(size=(*lattice, 3))
        self.shifts_mm = rng.uniform(-2, 2, size=(2, 2))
        self.rng = rng

    @staticmethod
    def view(rng, drawn):
        array = np.zeros((15, 14, 1), dtype=np.uint8)
        array[3:-3, 3:-3] = rng.choice((0, *drawn), size=(9, 8, 1))
        array[7, 7] = 1
        matrix = oblique_matrix(rng, (1.7, 1.7, 6.0), centre_of=array.shape)
        return ViewPlane(LabelMap(array, matrix), tuple(n for n in (1, 2, 3, 4) if n not in drawn))

    def objective(self):
        cells = build_lookup(self.atlas, self.prepared.codes.codes)
        views = self.prepared.views
        return ViewObjective(views, cells, self.affine @ self.axes, views.total_weight)

    def value(self, displacements_mm=None, shifts_mm=None):
        displacements_mm = self.displacements_mm if displacements_mm is None else displacements_mm
        shifts_mm = self.shifts_mm if shifts_mm is None else shifts_mm
        return self.objective()(displacements_mm, self.origin_mm, self.spacing_mm, shifts_mm)

    def oracle(self):
        """Loops over the pixels near labels, each moved along its view's axes and mapped."""
        local = np.diag([*self.spacing_mm, 1.0])
        local[:3, 3] = self.origin_mm
        transform = naive.deformation(
            self.affine, self.displacements_mm @ self.axes[:3, :3].T, self.axes @ local
        )
        weights, found, total = dict(self.options.class_weights), 0.0, 0.0
        for view, shift in zip(self.views, self.shifts_mm, strict=True):
            labels = view.labels
            axes = labels.voxel_to_world[:3, :2] / labels.spacing_mm[:2]
            held = np.argwhere(labels.array[:, :, 0] > 0) * labels.spacing_mm[:2]
            area = float(np.prod(labels.spacing_mm[:2]))
            for i, j in np.ndindex(labels.shape[:2]):
                if np.linalg.norm(held - [i, j] * labels.spacing_mm[:2], axis=1).min() > 3.0:
                    continue
                label = int(labels.array[i, j, 0])
                matches = {label} | (set(view.not_drawn) if label == 0 else set())
                weight = area * weights.get(label, 1.0)
                world = apply_matrix(labels.voxel_to_world, np.array([[i, j, 0.0]]))[0]
                point = transform(world + axes @ shift)
                position = naive.move(np.linalg.inv(self.atlas.voxel_to_world), point)
                corners = naive.corner_weights(position)
                found += weight * sum(
                    share for n, share in corners if naive.label_at(self.atlas.array, n) in matches
                )
                total += weight
        return found / total


@few
@given(seeds)
def test_value_equals_the_oracle(seed):
    problem = Problem(seed)
    assert problem.value().value == pytest.approx(problem.oracle(), rel=1e-9)


@few
@given(seeds)
def test_gradients_are_slopes(seed):
    """Central differences along a random direction, which crosses few kinks of a linear weight."""
    problem = Problem(seed)
    found = problem.value()
    for kind in ("displacements_mm", "shifts_mm"):
        at = getattr(problem, kind)
        direction = problem.rng.normal(size=at.shape)
        step = 1e-6
        ahead = problem.value(**{kind: at + step * direction}).value
        behind = problem.value(**{kind: at - step * direction}).value
        gradient = (
            found.displacement_gradient if kind == "displacements_mm" else found.shift_gradient
        )
        told = float((gradient * direction).sum())
        assert (ahead - behind) / (2 * step) == pytest.approx(told, rel=1e-3, abs=1e-6)


def test_a_stride_keeps_the_pixels_of_a_coarser_plane():
    views = Problem(3).prepared.views
    coarse = views.every(2)
    assert (coarse.pixels % 2 == 1).all()
    assert coarse.starts[-1] == len(coarse.points_mm) == len(coarse.rows)
    assert 0.15 < len(coarse.rows) / len(views.rows) < 0.35


def test_slices_and_views_are_one_sum():
    problem = Problem(5)
    cells = build_lookup(problem.atlas, problem.prepared.codes.codes)
    prepared, matrix = problem.prepared, problem.affine @ problem.axes
    lattice = (problem.displacements_mm, problem.origin_mm, problem.spacing_mm)
    shifts = problem.rng.normal(size=(len(prepared.shift_index), 2))
    both = TargetObjective(prepared, cells, matrix, 1)(*lattice, shifts)
    slices = TargetObjective(replace(prepared, views=None), cells, matrix, 1)
    alone = slices(*lattice, shifts[:-2])
    seen = problem.value(shifts_mm=shifts[-2:])
    first = total_weight(prepared.samples, prepared.codes.score)
    second = prepared.views.total_weight
    expected = (first * alone.value + second * seen.value) / (first + second)
    assert both.value == pytest.approx(expected, rel=1e-12)
    gradient = first * alone.displacement_gradient + second * seen.displacement_gradient
    np.testing.assert_allclose(both.displacement_gradient, gradient / (first + second), atol=1e-15)
    np.testing.assert_allclose(
        both.shift_gradient[-2:], second * seen.shift_gradient / (first + second), atol=1e-15
    )


def test_a_registration_finds_how_a_view_moved():
    """A toy heart against itself: the stack lies right, the view is 3 mm off along its own axes."""
    heart = make_toy_heart()
    (view,) = simulate_views(
        heart,
        ["four_chamber"],
        seed=2,
        acquisition=ViewAcquisition(shift_sd_mm=3.0, thickness_mm=2.0, draw_rv_wall=True),
    )
    options = RegistrationOptions(
        spacings_mm=(64.0,), strides=(2,), iterations=(60,), bending_weight=30.0,
        estimate_shifts=True, shift_weight=1e-6, background_slices=True,
    )  # fmt: skip
    prepared = prepare_target(heart.labels, options, views=[ViewPlane(view.subject.labels)])
    beside = np.eye(4)  # off the lattice that target and atlas share, where consistency has a kink
    beside[:3, 3] = (0.4, 0.3, 0.6)
    found = register_prepared(prepared, heart.labels, Affine(beside), options)
    assert np.abs(view.shift_mm[:2]).max() > 1
    np.testing.assert_allclose(found.view_shifts_mm[0], view.shift_mm[:2], atol=0.7)
    assert np.abs(found.slice_shifts_mm).max() < 0.7
