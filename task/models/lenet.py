"""The LeNet-size network of Flower's `niid_bench` (after Li et al. 2022, NIID-Bench)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from conf.errors import FedproofError
from task.base import ModelSpec


def build(options: Mapping[str, Any], spec: ModelSpec) -> nn.Module:
    """Build two 5×5 convolutions with max-pooling and three dense layers; no normalisation.

    Raises
    ------
    FedproofError
        If the input is no such image.
    """
    if len(spec.input_shape) != 3 or min(spec.input_shape[1:]) < 16:
        raise FedproofError(
            "model lenet needs images of (channels, height, width), 16 pixels or more a side, "
            f"got inputs of shape {spec.input_shape}."
        )
    channels, *size = spec.input_shape
    height, width = (((side - 4) // 2 - 4) // 2 for side in size)
    return nn.Sequential(
        nn.Conv2d(channels, 6, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * height * width, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, spec.outputs),
    )
