"""One linear layer on flattened inputs: logistic, softmax or linear regression."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import nn

from task.base import ModelSpec


def build(options: Mapping[str, Any], spec: ModelSpec) -> nn.Module:
    """Build the layer."""
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(spec.input_shape), spec.outputs))
