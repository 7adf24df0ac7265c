"""Batches on the device: landmarks move with what they mark, and degradations do what they say."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cardiacreg_nn.data.augmentation import AugmentationOptions, Sources, augment, rotations

SHAPE, SPACING = (9, 48, 48), (4.0, 2.0, 2.0)
STILL = AugmentationOptions.none()
MOVING = replace(
    STILL, tilt_deg=4.0, rotation_deg=25.0, shift_mm=6.0, scale=0.15, any_axis=True, stack_shift=1.0
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def blobs(points_mm, *, fine=True, depth=31, step=2.0):
    """A source with a ball of radius 5 mm around each point."""
    size = (depth, 56, 56)
    spacing = np.array([step, 2.0, 2.0])
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in size), indexing="ij"), -1)
    position = (grid - (np.array(size) - 1) / 2) * spacing
    labels = np.zeros(size, dtype=np.uint8)
    for number, point in enumerate(points_mm):
        labels[np.linalg.norm(position - point, axis=-1) < 8] = number + 1
    tensor = torch.from_numpy(labels)[None]
    return Sources(
        tensor.float() / 5,
        tensor,
        torch.tensor(spacing, dtype=torch.float32)[None],
        torch.tensor((np.array(size) - 1) / 2, dtype=torch.float32)[None],
        torch.tensor(np.array(points_mm), dtype=torch.float32)[None],
        torch.ones(1, 5, dtype=torch.bool),
        torch.tensor([fine]),
        torch.tensor([[0.0, depth - 1.0]]),
    )


POINTS = [(-6.0, -14.0, 8.0), (5.0, 12.0, -10.0), (0.0, 14.0, 14.0), (3.0, -15.0, -12.0)]


@pytest.mark.parametrize("seed", range(8))
def test_landmarks_move_with_what_they_mark(seed):
    stack, target = augment(blobs(POINTS), SHAPE, SPACING, MOVING, generator(seed))
    for number, point in enumerate(target.landmarks[0]):
        where = (target.structures[0] == number + 1).nonzero().float()
        inside = ((where > 0) & (where < torch.tensor(SHAPE) - 1)).all()
        if len(where) and inside:
            assert (where.mean(0) - point).abs().max() < 0.6


def test_no_augmentation_is_the_centre_of_the_source():
    source = blobs(POINTS, step=4.0)
    stack, target = augment(source, SHAPE, SPACING, STILL, generator())
    assert torch.equal(target.structures[0], source.labels[0, 11:20, 4:52, 4:52].long())
    assert torch.allclose(stack[0], source.image[0, 11:20, 4:52, 4:52], atol=2e-4)


def test_the_same_random_numbers_give_the_same_batch():
    first = augment(blobs(POINTS), SHAPE, SPACING, AugmentationOptions(), generator(4))
    second = augment(blobs(POINTS), SHAPE, SPACING, AugmentationOptions(), generator(4))
    other = augment(blobs(POINTS), SHAPE, SPACING, AugmentationOptions(), generator(5))
    assert torch.equal(first[0], second[0]) and not torch.equal(first[0], other[0])
    assert first[0].min() >= 0 and first[0].max() <= 1


@pytest.mark.parametrize("depth", [9, 8])
@pytest.mark.parametrize("seed", range(4))
def test_slices_of_an_acquired_stack_are_never_mixed(depth, seed):
    """Every slice holds its own number; after augmentation each is still one whole number."""
    source = blobs([(0.0, 0.0, 0.0)], fine=False, depth=depth, step=10.0)
    levels = torch.arange(1, depth + 1).float()[None, :, None, None] / 10
    source = source._replace(image=levels.expand(1, depth, 56, 56).contiguous())
    options = replace(MOVING, shift_mm=0.0, rotation_deg=5.0, scale=0.0)
    stack, _ = augment(source, SHAPE, (10.0, 2.0, 2.0), options, generator(seed))
    tenths = 10 * stack[0, :, 16:32, 16:32]
    assert torch.allclose(tenths, tenths.round(), atol=0.01)


def test_lost_slices_carry_neither_image_nor_labels():
    options = replace(STILL, drop_slice=1.0)
    source = blobs(POINTS, step=4.0)._replace(extent=torch.tensor([[11.0, 19.0]]))
    source = source._replace(image=torch.ones_like(source.image))
    stack, target = augment(source, SHAPE, SPACING, options, generator())
    assert stack[0].amax(dim=(1, 2)).gt(0).tolist() == [False] * 2 + [True] * 5 + [False] * 2
    assert not target.structures[0, [0, 1, 7, 8]].any()


def test_gaps_are_black_and_labelled():
    source = blobs(POINTS, step=4.0)._replace(labels=torch.ones(1, 31, 56, 56, dtype=torch.uint8))
    source = source._replace(image=torch.ones_like(source.image))
    options, heights = replace(STILL, gap=1.0, gap_mm=16.0), set()
    for seed in range(8):
        stack, target = augment(source, SHAPE, SPACING, options, generator(seed))
        assert bool((target.structures == 1).all())
        black = (stack[0].amax(dim=(1, 2)) == 0).nonzero()[:, 0]
        heights.add(len(black))
        assert len(black) == 0 or int(black[-1] - black[0]) == len(black) - 1
    assert max(heights) in (3, 4, 5) and len(heights) > 2


def test_thick_slices_average_what_lies_within_them():
    source = blobs([(0.0, 0.0, 0.0)])
    stripes = (torch.arange(31) % 2).float()[None, :, None, None].expand(1, 31, 56, 56)
    source = source._replace(image=stripes.contiguous())
    thin, _ = augment(source, SHAPE, SPACING, STILL, generator(1))
    thick, _ = augment(
        source, SHAPE, (8.0, 2.0, 2.0), replace(STILL, thick_slices=True), generator(1)
    )
    contrast = [float(stack[0, 3:6, 20, 20].std()) for stack in (thin, thick)]
    assert float(stripes[0, :, 20, 20].std()) > 0.4 and contrast[1] < 0.35


def test_acquired_images_are_not_recoloured():
    options = replace(STILL, recolour=0.5)
    for fine in (True, False):
        source = blobs(POINTS, fine=fine, step=4.0)
        stack, _ = augment(source, SHAPE, SPACING, options, generator())
        plain, _ = augment(source, SHAPE, SPACING, STILL, generator())
        assert torch.allclose(stack, plain, atol=1e-3) is not fine


@pytest.mark.parametrize("fine", [True, False])
def test_a_mirrored_heart_is_the_other_way_round_and_its_insertions_change_names(fine):
    source = blobs(POINTS, fine=fine, step=4.0)
    stack, target = augment(source, SHAPE, SPACING, replace(STILL, mirror=1.0), generator())
    plain, straight = augment(source, SHAPE, SPACING, STILL, generator())
    assert torch.allclose(stack, plain.flip(3), atol=2e-4)
    assert torch.equal(target.structures, straight.structures.flip(3))
    expected = straight.landmarks[0, [2, 1, 0, 3]].clone()
    expected[:, 2] = SHAPE[2] - 1 - expected[:, 2]
    assert torch.allclose(target.landmarks[0], expected, atol=1e-3)


def test_only_fine_hearts_tilt():
    options = replace(STILL, tilt_deg=10.0)
    for fine in (True, False):
        source = blobs(POINTS, fine=fine, step=4.0)
        stack, target = augment(source, SHAPE, SPACING, options, generator(2))
        plain, straight = augment(source, SHAPE, SPACING, STILL, generator(2))
        assert torch.allclose(stack, plain, atol=2e-4) is not fine
        moved = (target.landmarks - straight.landmarks).abs()[0, :, 0].max()
        assert (moved > 0.3) == fine


def test_only_hearts_with_a_map_of_tissues_are_painted():
    source = blobs(POINTS, step=4.0)
    options = replace(STILL, repaint=1.0)
    plain, _ = augment(source, SHAPE, SPACING, STILL, generator())
    tissues = source.labels * 2
    for held in (None, torch.zeros_like(tissues), tissues):
        stack, _ = augment(source._replace(tissues=held), SHAPE, SPACING, options, generator())
        assert torch.allclose(stack, plain, atol=1e-3) is (held is not tissues)


def test_rotations_are_rotations():
    axis = torch.nn.functional.normalize(torch.randn(6, 3, generator=generator()), dim=1)
    found = rotations(axis, torch.linspace(-2, 2, 6))
    assert torch.allclose(found @ found.transpose(1, 2), torch.eye(3).expand(6, 3, 3), atol=1e-5)
    assert torch.allclose(torch.linalg.det(found), torch.ones(6), atol=1e-5)
    assert torch.allclose((found @ axis[..., None])[..., 0], axis, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_batches_are_made_on_the_gpu():
    source = Sources(*(each if each is None else each.cuda() for each in blobs(POINTS)))
    stack, target = augment(source, SHAPE, SPACING, AugmentationOptions(), generator())
    assert stack.is_cuda and target.landmarks.is_cuda
