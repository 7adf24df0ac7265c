"""Long-axis views to train on: whole hearts with atria, planes, labels by convention, and randomness."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import cardiacreg_nn
from cardiacreg.geometry import LV_CAVITY, LV_WALL, RV_CAVITY, RV_WALL
from cardiacreg_nn.data.augmentation import AugmentationOptions
from cardiacreg_nn.data.batches import DataConfig, TrainingData, gather
from cardiacreg_nn.data.tissue_map import TISSUES
from cardiacreg_nn.data.view_hearts import view_heart
from cardiacreg_nn.data.view_planes import ViewOptions, cut_views
from cardiacreg_nn.inference.preprocessing import NetworkBox
from cardiacreg_nn.training.configuration import Config, read_config
from cardiacreg_nn.training.export import validate
from cardiacreg_nn.training.samples import sample
from cardiacreg_nn.training.train import Run

CONFIGS = Path(cardiacreg_nn.__file__).parent / "configs"
SHAPE, SPACING = (1, 80, 80), (8.0, 2.5, 2.5)
PLAIN = AugmentationOptions.none()
VALUES = {
    "network": {"slices": 1, "encoder": [4, 8, 8, 8, 8]},
    "box": {"shape": [80, 80, 1], "spacing_mm": [2.5, 2.5, 8.0]},
    "loss": {"alpha": 0.0},
    "data": {"synthetic": 1, "held_out": 0, "long_axis": True},
    "views": {"turn": False, "elsewhere": 0.0, "warp_mm": 0.0, "any_angle": 0.0},
    "training": {
        "kind": "unet2d",
        "steps": 20,
        "warmup": 1,
        "batch": 4,
        "learning_rate": 1e-2,
        "mixed": False,
    },
}


@pytest.fixture(scope="module")
def heart():
    return view_heart(41_000)


def cut(heart, n=3, options=None, seed=0, painting=PLAIN):
    generator = torch.Generator().manual_seed(seed)
    return cut_views([heart] * n, SHAPE, SPACING, options or ViewOptions(), painting, generator)


def test_a_heart_ends_at_its_valves_and_its_blood_does_not(heart):
    labels, tissues = heart.labels, heart.tissues
    assert set(np.unique(labels)) == {0, LV_CAVITY, LV_WALL, RV_WALL, RV_CAVITY}
    top = np.flatnonzero((labels == LV_CAVITY).any(axis=(1, 2))).max()
    rows, columns = np.nonzero(labels[top - 2] == LV_CAVITY)
    i, j = int(rows.mean()), int(columns.mean())
    above = tissues[top + 3 : top + 9, i - 3 : i + 4, j - 3 : j + 4]
    assert (above == TISSUES.index("left blood")).mean() > 0.5
    assert (labels[top + 3 :] == LV_CAVITY).sum() == 0


def test_views_have_the_boxes_shape_and_long_axis_labels(heart):
    image, target = cut(heart, n=4)
    assert image.shape == target.structures.shape == (4, *SHAPE)
    assert float(image.min()) >= 0 and float(image.max()) <= 1
    assert RV_WALL not in target.structures and {0, LV_CAVITY, LV_WALL} <= set(
        target.structures.unique().tolist()
    )
    assert target.known.tolist() == [[True, True, True, False, True]] * 4


def test_planned_views_hold_the_whole_length_of_the_ventricle(heart):
    _, target = cut(heart, n=6, options=ViewOptions.none())
    length = np.linalg.norm(heart.landmarks_mm[5] - heart.landmarks_mm[4])
    for view in target.structures[:, 0]:
        held = torch.isin(view, torch.tensor([LV_CAVITY, LV_WALL])).any(dim=1)
        assert abs(float(held.sum()) * SPACING[1] - length) < 12
        assert not held[0] and not held[-1]


def test_batches_repeat_and_differ_by_seed(heart):
    first, second, other = (cut(heart, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1].structures, second[1].structures)
    assert not torch.equal(first[1].structures, other[1].structures)


def test_views_that_lie_elsewhere_show_little_of_the_heart(heart):
    here = cut(heart, n=8, options=ViewOptions.none())[1].structures
    aside = cut(heart, n=8, options=replace(ViewOptions.none(), elsewhere=1.0))[1].structures
    assert int((aside > 0).sum()) < 0.3 * int((here > 0).sum())


def test_the_wall_is_darker_than_the_blood(heart):
    image, target = cut(heart, n=8)
    for picture, labels in zip(image, target.structures, strict=True):
        if (labels == LV_CAVITY).sum() > 50:
            assert picture[labels == LV_CAVITY].mean() > picture[labels == LV_WALL].mean()


def test_a_tiny_network_learns_views(heart):
    config = Config.from_dict(VALUES)
    run, data = Run(config), TrainingData([], [heart], [heart])
    losses = [run.advance(data)["cross_entropy"] for _ in range(20)]
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])
    figures = validate(run.network, [heart], config)
    assert set(figures) == {"dice_synthetic_1", "dice_synthetic_2", "dice_synthetic_4"}


def test_a_seed_is_a_heart_and_is_kept_in_the_cache(heart, tmp_path):
    config = DataConfig(synthetic=1, held_out=0, first_seed=41_000, long_axis=True)
    for _ in range(2):
        (found,) = gather(config, NetworkBox(), tmp_path).fine
        assert np.array_equal(found.tissues, heart.tissues) and found.known == heart.known


def test_stacks_cannot_be_cut_into_views():
    with pytest.raises(ValueError, match=r"needs network\.slices = 1"):
        Config.from_dict(VALUES | {"network": {"slices": 8}, "box": {"shape": [48, 48, 8]}})


def test_the_shipped_configuration_is_of_views(heart):
    config = read_config(CONFIGS / "unet2d_views.toml")
    image, _ = sample([heart], config, torch.Generator().manual_seed(0))
    assert config.data.long_axis and not config.data.acdc
    assert image.shape == (1, 1, *config.box.shape[:2])
