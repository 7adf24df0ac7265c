"""Slices and views together: what their crossings say, and what becomes of all estimates."""

import numpy as np
import pytest

from cardiacreg import RegistrationOptions, ViewAcquisition, sample_heart, simulate_views
from cardiacreg.geometry import Affine, LabelMap
from cardiacreg.phantoms.acquisition import Degradation
from cardiacreg.registration.aligned_atlas import AlignedAtlas
from cardiacreg.registration.prepared_target import prepare_target
from cardiacreg.registration.view_samples import ViewPlane
from cardiacreg.slice_motion.crossings import Crossings, crossings, information, settled
from cardiacreg.slice_motion.shifts_with_views import estimate_motion_with_views
from cardiacreg.slices import labelled_slices

OPTIONS = RegistrationOptions(
    spacings_mm=(64.0,), strides=(2,), iterations=(40,), bending_weight=30.0, estimate_shifts=True
)


class Patient:
    """A synthetic heart, its moved stack and views, and the table of true shifts."""

    def __init__(
        self, seed=10_001, names=("four_chamber", "two_chamber"), sd_mm=2.5, with_image=False
    ):
        heart = sample_heart(seed, with_image=with_image, spacing_mm=(1.5, 1.5, 2.0))
        self.heart = heart.labels
        self.low = Degradation(shift_sd_mm=sd_mm).of(heart, seed=seed)
        seen = simulate_views(
            heart, names, seed=seed, acquisition=ViewAcquisition(shift_sd_mm=sd_mm)
        )
        self.views = [
            ViewPlane(v.subject.labels, (3,), v.subject.image if with_image else None) for v in seen
        ]
        self.view_shifts_mm = np.stack([view.shift_mm[:2] for view in seen])
        self.prepared = prepare_target(self.low.subject.labels, OPTIONS, views=self.views)
        self.true = np.concatenate([self.low.slice_shifts_mm, self.view_shifts_mm])


@pytest.fixture(scope="module")
def patient():
    return Patient()


def test_the_true_shifts_solve_the_equations_of_the_lines(patient):
    found = crossings(patient.prepared, patient.views)
    assert len(found.rows) >= 14
    residual = (found.rows @ patient.true.ravel() - found.offsets_mm) / found.errors_mm
    untouched = found.offsets_mm / found.errors_mm
    assert np.sqrt((residual**2).mean()) < 2 < 3 < np.sqrt((untouched**2).mean())
    assert np.median(np.abs(residual)) < 1


def test_a_shift_common_to_slices_and_views_changes_nothing(patient):
    """The same step in the world for all: every line's equation has it on both sides."""
    found = crossings(patient.prepared, patient.views)
    axes = patient.prepared.views.axes
    n_slices = patient.low.subject.labels.shape[2]
    for step in np.eye(3)[:2]:
        same = np.concatenate([np.tile(step[:2], (n_slices, 1)), axes @ step])
        # A view's plane holds its part of the step only; along the lines nothing is missing.
        np.testing.assert_allclose(found.rows @ same.ravel(), 0, atol=1e-9)


def test_information_is_that_of_weighed_least_squares(patient):
    found = crossings(patient.prepared, patient.views)
    n_slices = patient.low.subject.labels.shape[2]
    kept = np.array([*labelled_slices(patient.low.subject.labels.array), n_slices, n_slices + 1])
    precision, weighed = information(found, kept)
    table = found.rows.reshape(len(found.rows), -1, 2)[:, kept]
    rows = table.transpose(0, 2, 1).reshape(len(found.rows), -1)
    weights = found.errors_mm**-2.0
    np.testing.assert_allclose(precision, (rows.T * weights) @ rows, atol=1e-9)
    np.testing.assert_allclose(weighed, rows.T @ (weights * found.offsets_mm), atol=1e-9)


def test_a_view_along_the_slices_gives_no_line(patient):
    stack = patient.low.subject.labels
    middle = stack.shape[2] // 2
    matrix = stack.voxel_to_world.copy()
    matrix[:3, 3] += middle * matrix[:3, 2]
    alike = type(stack)(stack.array[:, :, [middle]], matrix)
    views = [ViewPlane(alike)]
    assert len(crossings(prepare_target(stack, OPTIONS, views=views), views).rows) == 0


def test_the_heart_itself_as_atlas_finds_the_common_shift_too():
    """Without views the mean over the slices is a convention; with them it is found."""
    patient = Patient(names=("four_chamber", "two_chamber", "three_chamber"))
    patient.low.slice_shifts_mm.mean(axis=0)
    atlas = AlignedAtlas(patient.heart, Affine.identity())
    found = estimate_motion_with_views(patient.prepared, patient.views, [atlas] * 3, OPTIONS)
    slices = labelled_slices(patient.low.subject.labels.array)
    true = patient.low.slice_shifts_mm[slices]
    error = found.shifts_mm[slices] - true
    assert np.sqrt((error**2).sum(axis=1).mean()) < 0.5 * np.sqrt((true**2).sum(axis=1).mean())
    assert np.linalg.norm(error.mean(axis=0)) < 1.0
    assert np.abs(found.view_shifts_mm - patient.view_shifts_mm).mean() < 1.0
    assert (np.delete(found.shifts_mm, slices, axis=0) == 0).all()


def test_images_alone_tell_the_shifts_too():
    """Views without any label: their grey levels against the stack's."""
    patient = Patient(with_image=True)
    unlabelled = [
        view._replace(labels=LabelMap(0 * view.labels.array, view.labels.voxel_to_world))
        for view in patient.views
    ]
    stack = patient.low.subject
    prepared = prepare_target(stack.labels, OPTIONS, views=unlabelled)
    assert len(prepared.views.points_mm) == 0
    assert len(crossings(prepared, unlabelled).rows) <= 1  # of the two views, not of slices
    found = crossings(prepared, unlabelled, stack.image)
    assert len(found.rows) >= 12
    residual = found.rows @ patient.true.ravel() - found.offsets_mm
    assert np.median(np.abs(residual)) < 0.5 < 1 < np.median(np.abs(found.offsets_mm))


def test_a_line_that_the_others_contradict_loses_weight():
    rng = np.random.default_rng(3)
    true = rng.normal(size=6)
    rows = rng.normal(size=(40, 6))
    offsets = rows @ true + 0.1 * rng.normal(size=40)
    offsets[7] += 5.0
    found = Crossings(rows, offsets, np.full(40, 0.1))
    errors = settled(found).errors_mm
    assert errors[7] > 2.0 and np.median(np.delete(errors, 7)) == pytest.approx(0.1)


def test_without_lines_nothing_is_settled():
    nothing = Crossings(np.zeros((0, 6)), np.zeros(0), np.zeros(0))
    assert settled(nothing) == nothing
