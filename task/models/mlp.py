"""A multilayer perceptron on flattened inputs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from torch import nn

from task.base import ModelSpec


def build(options: Mapping[str, Any], spec: ModelSpec) -> nn.Module:
    """Build layers of the widths in ``hidden``, each with ReLU and, if asked for, dropout."""
    widths = [math.prod(spec.input_shape), *options["hidden"]]
    layers: list[nn.Module] = [nn.Flatten()]
    for width, following in pairwise(widths):
        layers += [nn.Linear(width, following), nn.ReLU()]
        if options["dropout"]:
            layers.append(nn.Dropout(options["dropout"]))
    return nn.Sequential(*layers, nn.Linear(widths[-1], spec.outputs))
