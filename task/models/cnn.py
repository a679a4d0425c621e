"""A small convolutional network for images from 8×8 pixels on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from conf.errors import FedproofError
from task.base import ModelSpec
from task.models._norm import group_norm


def build(options: Mapping[str, Any], spec: ModelSpec) -> nn.Module:
    """Build a block for each of ``channels``, a dense layer of ``hidden`` units, and the output.

    A block is a 3×3 convolution, GroupNorm, ReLU and 2×2 max-pool.

    Raises
    ------
    FedproofError
        If the input is no image, or too small for so many poolings.
    """
    channels: list[int] = list(options["channels"])
    if len(spec.input_shape) != 3 or min(spec.input_shape[1:]) < 2 ** len(channels):
        raise FedproofError(
            f"model cnn with {len(channels)} poolings needs images of (channels, height, width), "
            f"{2 ** len(channels)} pixels or more a side, got inputs of shape {spec.input_shape}."
        )
    width, *size = spec.input_shape
    layers: list[nn.Module] = []
    for following in channels:
        layers += [
            nn.Conv2d(width, following, 3, padding=1),
            group_norm(following, options["groups"]),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]
        width, size = following, [side // 2 for side in size]
    hidden: int = options["hidden"]
    layers += [nn.Flatten(), nn.Linear(width * size[0] * size[1], hidden), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(hidden, spec.outputs))
