"""Hearts, a configuration and an oracle network small enough for tests."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

from cardiacreg.anatomy.landmarks import derive_landmarks
from cardiacreg.geometry import LabelMap, Volume
from cardiacreg.phantoms.toy_heart import make_toy_heart
from cardiacreg_nn.data.batches import TrainingData
from cardiacreg_nn.data.training_hearts import source_from_pair
from cardiacreg_nn.inference.preprocessing import NetworkBox
from cardiacreg_nn.inference.weights import Model
from cardiacreg_nn.networks.sslln import NetworkConfig, Prediction
from cardiacreg_nn.training.configuration import Config

BOX = NetworkBox((48, 48, 8), (2.5, 2.5, 8.0), native_slices=True)
VALUES = {
    "network": {"slices": 8, "encoder": [4, 6, 8, 8, 8], "side": 4, "fused": 8},
    "box": {"shape": [48, 48, 8], "spacing_mm": [2.5, 2.5, 8.0], "native_slices": True},
    "data": {"synthetic": 2, "held_out": 0},
    "training": {"steps": 6, "batch": 2, "log_every": 1, "checkpoint_every": 3, "warmup": 1},
}


def tiny_config(**training):
    values = VALUES | {"training": VALUES["training"] | training}
    return Config.from_dict(values)


def tiny_data():
    hearts = [make_toy_heart(size=size) for size in (1.0, 0.9)]
    sources = [source_from_pair(h.image, h.labels, BOX, name=h.name) for h in hearts]
    return TrainingData(sources, [], sources[:1])


def coded_heart():
    """The tiny heart with an image that is its labels, on a background of noise-free zeros."""
    heart = make_toy_heart()
    return Volume(heart.labels.array.astype(np.float32), heart.labels.voxel_to_world), heart.labels


class Oracle(nn.Module):
    """Reads the labels off a coded image, and is sure of itself only where the base is last.

    Its landmarks are blobs around those of the tiny heart's labels, seen in the box.
    """

    def __init__(self, missing=()):
        super().__init__()
        self.config = NetworkConfig(slices=8)
        self.unused = nn.Parameter(torch.zeros(1))
        self.missing = missing

    def forward(self, stack):
        labels = (stack * 4).round().long().clamp(0, 4)
        logits = 12.0 * nn.functional.one_hot(labels, 5).movedim(-1, 1).float()
        points = torch.zeros(len(stack), 7, *stack.shape[1:])
        points[:, 0] = 5.0
        for n, own in enumerate(labels):
            area = ((own == 1) | (own == 2)).sum(dim=(1, 2)).float()
            held = area.nonzero().flatten().float()
            upright = float((area[area > 0] * held).sum() / area.sum()) > float(held.mean())
            left = float((own == 4).nonzero()[:, 1].float().mean()) < 24
            if not (upright and left):
                logits[n] *= 0.05
                continue
            matrix = np.diag([2.5, 2.5, 8.0, 1.0])
            found = LabelMap(own.permute(1, 2, 0).numpy().astype(np.uint8), matrix)
            derived = derive_landmarks(found, base_at_last_slice=True).points_mm / (
                2.5,
                2.5,
                8.0,
            )
            for number, (i, j, k) in enumerate(np.rint(derived).astype(int)):
                if number not in self.missing and 0 <= k < 8:
                    points[n, number + 1, k, i - 1 : i + 2, j - 1 : j + 2] = 10.0
        return Prediction(logits, points)


def oracle_model(**keywords):
    card = {"name": "oracle", "licence": "Apache-2.0", "sha256": "0" * 64}
    return Model(Oracle(**keywords).eval(), BOX, card)


def other_classes():
    network = SimpleNamespace(config=NetworkConfig(slices=8, structures=4))
    return Model(network, BOX, {"name": "other"})
