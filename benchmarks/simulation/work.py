"""What every contender trains: the same networks on the same rows.

It needs torch and nothing else of this project, for it is imported in other environments, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.simulation.workloads import CLASSES, Workload

_NOISE = 1 << 20


def linear(channels: int, side: int) -> nn.Module:
    """Build one linear layer."""
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * side * side, CLASSES))


def cnn(channels: int, side: int) -> nn.Module:
    """Build the network that pfl-research trains on CIFAR-10 (Reddi et al. 2021, Table 4)."""
    pooled = (side - 4) // 2
    return nn.Sequential(
        nn.Conv2d(channels, 32, 3), nn.ReLU(),
        nn.Conv2d(32, 64, 3), nn.ReLU(),
        nn.MaxPool2d(2), nn.Dropout(0.25), nn.Flatten(),
        nn.Linear(64 * pooled * pooled, 128), nn.ReLU(),
        nn.Dropout(0.5), nn.Linear(128, CLASSES),
    )  # fmt: skip


def lenet(channels: int, side: int) -> nn.Module:
    """Build the network of Flower's `niid_bench`."""
    pooled = ((side - 4) // 2 - 4) // 2
    return nn.Sequential(
        nn.Conv2d(channels, 6, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(16 * pooled * pooled, 120), nn.ReLU(),
        nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, CLASSES),
    )  # fmt: skip


_NETWORKS: dict[str, Callable[[int, int], nn.Module]] = {
    "linear": linear,
    "cnn": cnn,
    "lenet": lenet,
}


def build(workload: Workload) -> nn.Module:
    """Build a workload's network, with the same initial weights everywhere."""
    torch.manual_seed(0)
    channels, side, _ = workload.shape
    return _NETWORKS[workload.network](channels, side)


class Rows:
    """Standard normal images of all clients, with labels at random.

    A client's images are a window of one stretch of noise: to hold or draw those of a thousand
    clients would drown what is measured.
    """

    def __init__(self, workload: Workload) -> None:
        self._shape = (workload.rows, *workload.shape)
        self._size = math.prod(self._shape)
        generator = torch.Generator().manual_seed(0)
        self._noise = torch.randn(_NOISE + self._size, generator=generator)

    def of(self, client: int) -> tuple[Tensor, Tensor]:
        """Return images, shape (rows, channels, height, width), and labels, shape (rows,)."""
        generator = torch.Generator().manual_seed(client)
        start = int(torch.randint(_NOISE, (), generator=generator))
        x = self._noise[start : start + self._size].view(self._shape)
        return x, torch.randint(CLASSES, (len(x),), generator=generator)
