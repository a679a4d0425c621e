"""A convolutional network over time, for windows of sensor readings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from conf.errors import FedproofError
from task.base import ModelSpec
from task.models._norm import group_norm


class ChannelsFirst(nn.Module):
    """Swap the last two axes: readings arrive as (n, length, channels)."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, length, channels) to (n, channels, length)."""
        return x.transpose(1, 2)


def build(options: Mapping[str, Any], spec: ModelSpec) -> nn.Module:
    """Build a block for each of ``channels``, an average over time, dropout, and the output.

    A block is a convolution of ``kernel`` steps, GroupNorm and ReLU; a max-pool over two steps
    follows every block but the last.

    Raises
    ------
    FedproofError
        If the input is no window of readings, or too short for so many poolings.
    """
    channels: list[int] = list(options["channels"])
    shortest = 2 ** (len(channels) - 1)
    if len(spec.input_shape) != 2 or spec.input_shape[0] < shortest:
        raise FedproofError(
            f"model cnn1d with {len(channels)} blocks needs windows of (length, channels), "
            f"{shortest} steps or longer, got inputs of shape {spec.input_shape}."
        )
    kernel: int = options["kernel"]
    width = spec.input_shape[1]
    layers: list[nn.Module] = [ChannelsFirst()]
    for following in channels:
        if len(layers) > 1:
            layers.append(nn.MaxPool1d(2))
        layers += [
            nn.Conv1d(width, following, kernel, padding="same"),
            group_norm(following, options["groups"]),
            nn.ReLU(),
        ]
        width = following
    layers += [nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Dropout(options["dropout"])]
    return nn.Sequential(*layers, nn.Linear(width, spec.outputs))
