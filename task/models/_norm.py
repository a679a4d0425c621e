"""Normalisation that federated and private training can use.

GroupNorm (Wu and He 2018) knows one example at a time: no running statistics that clients would
have to average, and no mixing of examples, which per-example gradients (Opacus) forbid.
"""

from __future__ import annotations

import math

from torch import nn


def group_norm(channels: int, groups: int) -> nn.GroupNorm:
    """Return GroupNorm with at most `groups` groups, and so many that they divide `channels`."""
    return nn.GroupNorm(math.gcd(channels, groups), channels)
