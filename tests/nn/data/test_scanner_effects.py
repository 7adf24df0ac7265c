"""Effects of scanners: each by itself, none when not asked for, and never over the heart."""

import pytest
import torch

from cardiacreg_nn.data.augmentation import AugmentationOptions, augment
from cardiacreg_nn.data.scanner_effects import ScannerEffects, with_effects
from cardiacreg_nn.data.training_hearts import collate
from tests.nn.tiny_training import BOX, tiny_data

SIZE = 48


def uniform(seed=0, n=6):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape, low=0.0, high=1.0):
        return torch.rand(n, *shape, generator=generator) * (high - low) + low

    return draw


def stacks(n=6):
    place = torch.arange(SIZE) - SIZE // 2
    disc = ((place[:, None] ** 2 + place[None] ** 2) < 60).float()
    noise = torch.rand(n, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    labels = disc.expand(n, 3, SIZE, SIZE).long()
    return 0.3 + 0.3 * labels + 0.2 * noise, labels


def test_nothing_is_changed_where_nothing_is_asked_for():
    image, labels = stacks()
    assert torch.equal(with_effects(image, labels, ScannerEffects(), uniform()), image)


@pytest.mark.parametrize("name", ScannerEffects._fields)
def test_every_effect_changes_images_by_itself_and_stays_in_range(name):
    image, labels = stacks()
    found = with_effects(image, labels, ScannerEffects(**{name: 1.0}), uniform())
    assert found.shape == image.shape
    assert found.min() >= 0 and found.max() <= 1
    changed = (found - image).abs().flatten(1).amax(1) > 1e-3
    assert changed.all() if name != "crop" else changed.sum() >= 4


@pytest.mark.parametrize("name", ScannerEffects._fields)
def test_a_probability_is_one(name):
    image, labels = stacks(64)
    found = with_effects(image, labels, ScannerEffects(**{name: 0.5}), uniform(n=64))
    changed = int(((found - image).abs().flatten(1).amax(1) > 1e-3).sum())
    assert 16 <= changed <= 48


def test_lost_resolution_takes_fine_detail_only():
    image, labels = stacks()
    found = with_effects(image, labels, ScannerEffects(coarse=1.0), uniform())
    detail = [(x[..., 1:] - x[..., :-1]).abs().mean() for x in (image, found)]
    assert detail[1] < 0.9 * detail[0]
    torch.testing.assert_close(found.mean(dim=(2, 3)), image.mean(dim=(2, 3)), atol=5e-3, rtol=0)


def test_ghosts_lie_beside_the_image_and_take_their_light_from_it():
    image = torch.zeros(6, 1, SIZE, SIZE)
    image[:, :, SIZE // 2, SIZE // 2] = 1
    found = with_effects(image, image.long(), ScannerEffects(ghosts=1.0), uniform(3))
    for each in found[:, 0]:
        assert each[SIZE // 2, SIZE // 2] < 1
        beside = each.clone()
        beside[SIZE // 2, SIZE // 2] = 0
        rows, columns = torch.nonzero(beside > 0.01, as_tuple=True)
        assert len(rows) and bool((rows == SIZE // 2).all() or (columns == SIZE // 2).all())


def test_fold_over_adds_to_one_edge():
    image, labels = stacks()
    found = with_effects(image * 0.5, labels, ScannerEffects(fold=1.0), uniform())
    added = found - image * 0.5
    assert (added > -1e-6).all()
    middle = slice(SIZE // 4 + 1, -SIZE // 4 - 1)
    assert added[..., middle, middle].abs().max() < 1e-6


def test_the_field_of_view_never_cuts_the_heart():
    image, labels = stacks(64)
    found = with_effects(image, labels, ScannerEffects(crop=1.0), uniform(n=64))
    assert torch.equal(found[labels > 0], image[labels > 0])
    assert (found == 0).float().mean() > 0.1


def test_augmentation_passes_them_on_and_leaves_labels_alone():
    sources = collate(tiny_data().real)
    shape, spacing = (BOX.shape[2], *BOX.shape[:2]), (8.0, 2.5, 2.5)
    plain = AugmentationOptions.none()
    effects = {name: 1.0 for name in ScannerEffects._fields}
    changed = AugmentationOptions(**(plain.to_dict() | effects))
    results = [
        augment(sources, shape, spacing, options, torch.Generator().manual_seed(0))
        for options in (plain, changed)
    ]
    assert torch.equal(results[0][1].structures, results[1][1].structures)
    assert not torch.allclose(results[0][0], results[1][0])
