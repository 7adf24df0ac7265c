"""Maps of tissues and images painted over them: the labels' tissues, in a cine's order of brightness."""

import numpy as np
import pytest
import torch

from cardiacreg.geometry import LV_CAVITY, LV_WALL, RV_CAVITY, RV_WALL
from cardiacreg.phantoms.anatomy import heart_fields, structure_fractions
from cardiacreg.phantoms.population import sample_shape
from cardiacreg_nn.data.contrast_randomisation import LEVELS, RELATIVE, paint
from cardiacreg_nn.data.tissue_map import TISSUES, make_tissue_map, whole_slices

STEP_MM = 3.5
AXES = (np.arange(-95, 95, STEP_MM), np.arange(-85, 105, STEP_MM), np.arange(-118, 32, STEP_MM))


@pytest.fixture(scope="module")
def heart():
    shape = sample_shape(20_001)
    fields = heart_fields(shape, AXES)
    fractions = structure_fractions(fields, shape.rv_wall_mm, STEP_MM)
    shares = np.stack([fractions[n] for n in ("lv_cavity", "lv_wall", "rv_wall", "rv_cavity")])
    labels = np.concatenate([1 - shares.sum(axis=0, keepdims=True), shares]).argmax(axis=0)
    return shape, fields, labels.astype(np.uint8)


def drawn(heart, seed):
    shape, fields, labels = heart
    return make_tissue_map(shape, fields, labels, AXES, np.random.default_rng(seed))


def share(tissues, where, *names):
    return np.isin(tissues[where], [TISSUES.index(name) for name in names]).mean()


def test_labelled_voxels_are_of_their_tissue(heart):
    tissues, labels = drawn(heart, 0), heart[2]
    assert share(tissues, labels == LV_WALL, "left muscle") == 1
    assert share(tissues, labels == RV_WALL, "right muscle") == 1
    assert share(tissues, labels == LV_CAVITY, "left blood", "left muscle") == 1
    assert share(tissues, labels == RV_CAVITY, "right blood", "right muscle") == 1
    assert 0.5 < share(tissues, labels == LV_CAVITY, "left blood") < 1


def test_surroundings_hold_what_surrounds_a_heart_and_differ_by_seed(heart):
    maps = [drawn(heart, seed) for seed in range(4)]
    seen = {TISSUES[n] for each in maps for n in np.unique(each)}
    assert seen >= {"lung", "liver", "chest muscle", "chest fat", "heart fat", "left blood", "rib"}
    outside = heart[2] == 0
    for one, other in zip(maps[:-1], maps[1:], strict=True):
        assert (one[outside] != other[outside]).mean() > 0.1
    assert np.array_equal(maps[0], drawn(heart, 0))


def test_blood_goes_on_above_the_base(heart):
    """The atrium is no edge of the image: what is above the mitral plane is blood like the cavity."""
    tissues, (_, fields, labels) = drawn(heart, 0), heart
    above = (fields.endocardium < -4) & (fields.mitral > 3) & (fields.mitral < 10)
    assert (labels[above] == 0).all() and share(tissues, above, "left blood") > 0.9


def test_whole_slices_show_the_ventricles_whole_or_not_at_all(heart):
    _, fields, labels = heart
    whole = whole_slices(labels, fields)
    inner = fields.endocardium < 0
    shown = whole.any(axis=(0, 1))
    last = np.flatnonzero(shown).max()
    assert shown[np.flatnonzero(labels.any(axis=(0, 1))).min() : last + 1].all()
    assert (whole[..., : last + 1][inner[..., : last + 1]] == LV_CAVITY).all()
    assert not whole[..., last + 1 :].any()
    tilted = (labels == LV_CAVITY).sum(axis=(0, 1)) / np.maximum(inner.sum(axis=(0, 1)), 1)
    assert (
        tilted[last] > 0.3 and tilted[last + 1] < 0.7
    )  # the half is counted without partial volume
    middle = AXES[2] < -40
    assert ((whole != labels)[..., middle]).mean() < 0.01


def uniform(seed, n):
    generator = torch.Generator().manual_seed(seed)

    def numbers(*shape, low=0.0, high=1.0):
        return torch.rand(n, *shape, generator=generator) * (high - low) + low

    return numbers


def test_every_image_has_levels_of_its_own_in_a_cines_order(heart):
    tissues = torch.from_numpy(np.moveaxis(drawn(heart, 0), 2, 0))[None].repeat(6, 1, 1, 1)
    images = paint(tissues, uniform(0, 6))
    blood, muscle, lung = (
        torch.stack(
            [
                image[own == TISSUES.index(name)].mean()
                for image, own in zip(images, tissues, strict=True)
            ]
        )
        for name in ("left blood", "left muscle", "lung")
    )
    assert (blood > 1.5 * muscle).all() and images.shape == tissues.shape
    assert blood.std() > 0.03 and muscle.std() > 0.03 and lung.std() > 0.001
    assert torch.equal(images, paint(tissues, uniform(0, 6)))


def test_every_tissue_has_a_level():
    assert set(LEVELS) == set(TISSUES) and set(RELATIVE) | set(RELATIVE.values()) <= set(TISSUES)
    assert all(0 <= low < high <= 2 for low, high in LEVELS.values())
