"""Losses against loops written from the equations, their gradients, and the switches."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from cardiacreg_nn.data.augmentation import Target
from cardiacreg_nn.networks.sslln import SSLLN, NetworkConfig, Prediction
from cardiacreg_nn.training.losses import (
    LossConfig,
    coordinate_loss,
    dice_loss,
    known_log_probabilities,
    landmark_classes,
    landmark_loss,
    objective,
    weight_norm,
)

SHAPE = (2, 3, 4)
KNOWN = torch.ones(1, 5, dtype=torch.bool)


def softmax(logits):
    power = np.exp(logits - logits.max(axis=0))
    return power / power.sum(axis=0)


def naive_dice(logits, labels, epsilon):
    """Eq. (2) for one sample, as 1 - Dice, with explicit sums over classes and voxels."""
    p = softmax(logits)
    above = below = 0.0
    for k in range(len(p)):
        for j in np.ndindex(labels.shape):
            hit = float(labels[j] == k)
            above += hit * p[k][j]
            below += hit + p[k][j] ** 2
    return 1 - 2 * above / (below + epsilon)


def naive_landmarks(logits, classes):
    """Eq. (3) for one sample."""
    p, total = softmax(logits), 0.0
    for k in range(len(p)):
        members = [j for j in np.ndindex(classes.shape) if classes[j] == k]
        weight = 1 - len(members) / classes.size
        total -= weight * sum(math.log(p[k][j]) for j in members)
    return total


def example(seed, n=1):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 5, (n, *SHAPE))
    points = np.full((n, 6, 3), np.nan)
    points[:, :3] = rng.uniform(0, 1, (n, 3, 3)) * (np.array(SHAPE) - 1)
    target = Target(
        torch.as_tensor(labels), torch.as_tensor(points, dtype=torch.float32), KNOWN.repeat(n, 1)
    )
    return rng.normal(size=(n, 5, *SHAPE)), rng.normal(size=(n, 7, *SHAPE)), target


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_losses_are_the_printed_ones(seed):
    structures, landmarks, target = example(seed)
    config = LossConfig.paper()
    found = float(dice_loss(torch.as_tensor(structures), target, config))
    assert found == pytest.approx(
        naive_dice(structures[0], target.structures[0].numpy(), 1e-8), abs=1e-5
    )
    found = float(landmark_loss(torch.as_tensor(landmarks), target, config))
    classes = landmark_classes(target)[0].numpy()
    assert found == pytest.approx(naive_landmarks(landmarks[0], classes), rel=1e-4)


def test_the_released_dice_is_the_mean_of_one_ratio_per_class():
    logits, _, target = example(3)
    p, labels, ratios = softmax(logits[0]), target.structures[0].numpy(), []
    for k in range(5):
        hit = labels == k
        ratios.append(2 * p[k][hit].sum() / ((p[k] ** 2).sum() + hit.sum() + 1e-8))
    found = dice_loss(torch.as_tensor(logits), target, LossConfig.released())
    assert float(found) == pytest.approx(1 - np.mean(ratios), abs=1e-6)


def test_the_released_landmark_loss_weighs_background_fifty_times_and_averages():
    _, logits, target = example(4)
    classes = landmark_classes(target, 1)[0].numpy()
    p = softmax(logits[0])
    total = 0.0
    for j in np.ndindex(classes.shape):
        k = classes[j]
        weight = 1 - (classes == k).mean()
        total -= weight * (50 if k == 0 else 1) * math.log(p[k][j])
    found = landmark_loss(torch.as_tensor(logits), target, LossConfig.released())
    assert float(found) == pytest.approx(total / (classes.size * 7), rel=1e-5)


@pytest.mark.parametrize("config", [LossConfig(), LossConfig.paper(), LossConfig.released()])
def test_gradients_match_finite_differences(config):
    structures, landmarks, target = example(5, n=2)
    unknown = target.known.clone()
    unknown[1, 3] = False
    target = target._replace(known=unknown, structures=target.structures * (target.structures != 3))

    def losses(a, b):
        return dice_loss(a, target, config), landmark_loss(b, target, config)

    inputs = [torch.tensor(each, requires_grad=True) for each in (structures, landmarks)]
    assert torch.autograd.gradcheck(losses, inputs)


def test_a_perfect_prediction_costs_nothing():
    _, _, target = example(6)
    logits = 40.0 * torch.nn.functional.one_hot(target.structures, 5).movedim(-1, 1).double()
    for config in (LossConfig(), LossConfig.paper()):
        assert float(dice_loss(logits, target, config)) == pytest.approx(0, abs=1e-3)


def test_an_unknown_structure_counts_as_background():
    logits, _, _ = example(7)
    known = KNOWN.clone()
    known[0, 3] = False
    found = known_log_probabilities(torch.as_tensor(logits), known).exp()[0].numpy()
    p = softmax(logits[0])
    assert np.allclose(found[0], p[0] + p[3]) and np.allclose(found[[1, 2, 4]], p[[1, 2, 4]])
    assert found[3].max() < 1e-12


def test_landmarks_mark_their_voxel_and_neighbours_along_the_slices_only():
    points = torch.full((1, 6, 3), float("nan"))
    points[0, 0], points[0, 1] = torch.tensor([1.4, 2.0, 2.6]), torch.tensor([9.0, 0.0, 0.0])
    target = Target(torch.zeros(1, 4, 5, 5, dtype=torch.long), points, KNOWN)
    assert landmark_classes(target).nonzero().tolist() == [[0, 1, 2, 3]]
    assert landmark_classes(target, 1).nonzero().tolist() == [[0, k, 2, 3] for k in (0, 1, 2)]


def test_regressed_coordinates_are_shares_of_half_the_field():
    points = torch.tensor([[[0.0, 0.0, 8.0], [float("nan")] * 3]])
    target = Target(torch.zeros(1, 5, 9, 9, dtype=torch.long), points, KNOWN)
    exact = torch.tensor([[[-1.0, -1.0, 1.0], [0.3, 0.3, 0.3]]])
    assert float(coordinate_loss(exact, target, torch.Size((5, 9, 9)))) == pytest.approx(
        0, abs=1e-6
    )


class TestObjective:
    network = SSLLN(NetworkConfig(2, encoder=(2, 2, 2, 2, 2), side=2, fused=2))

    def test_is_the_weighted_sum(self):
        structures, landmarks, target = example(8)
        prediction = Prediction(torch.as_tensor(structures), torch.as_tensor(landmarks))
        with torch.no_grad():
            terms = objective(prediction, target, self.network, LossConfig.paper())
        wanted = terms["dice"] + 0.8 * terms["landmarks"] + 0.2 * terms["decay"]
        assert float(terms["total"]) == pytest.approx(float(wanted))
        assert float(terms["cross_entropy"]) == 0

    def test_the_released_one_has_neither_landmarks_nor_decay(self):
        structures, landmarks, target = example(8)
        prediction = Prediction(torch.as_tensor(structures), torch.as_tensor(landmarks))
        terms = objective(prediction, target, self.network, LossConfig.released())
        assert float(terms["landmarks"]) == float(terms["decay"]) == 0

    def test_decay_is_the_frobenius_norm_of_weights_not_of_biases(self):
        wanted = sum((p**2).sum().item() for p in self.network.parameters() if p.ndim > 1)
        assert weight_norm(self.network).item() == pytest.approx(wanted, rel=1e-5)

    def test_unknown_variants_are_refused(self):
        with pytest.raises(ValueError, match="dice"):
            LossConfig(dice="jaccard")
        with pytest.raises(ValueError, match="landmark_sum"):
            LossConfig(landmark_sum="max")
