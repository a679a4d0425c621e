"""The convolutional network with dropout of Reddi et al. 2021, Table 4.

TensorFlow Federated calls it ``conv_dropout``; pfl-research trains CIFAR-10 with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from conf.errors import FedproofError
from task.base import ModelSpec


def build(options: Mapping[str, Any], spec: ModelSpec) -> nn.Module:
    """Build two 3×3 convolutions, a max-pool, and two dense layers, with dropout before each.

    Raises
    ------
    FedproofError
        If the input is no image of 6 pixels or more a side.
    """
    if len(spec.input_shape) != 3 or min(spec.input_shape[1:]) < 6:
        raise FedproofError(
            "model conv_dropout needs images of (channels, height, width), 6 pixels or more a "
            f"side, got inputs of shape {spec.input_shape}."
        )
    channels, *size = spec.input_shape
    height, width = ((side - 4) // 2 for side in size)
    return nn.Sequential(
        nn.Conv2d(channels, 32, 3),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(0.25),
        nn.Flatten(),
        nn.Linear(64 * height * width, 128),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(128, spec.outputs),
    )
