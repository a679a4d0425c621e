"""Training of one client."""

from __future__ import annotations

from functools import cache

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.simulation.work import Rows
from benchmarks.simulation.workloads import WORKLOADS


@cache
def _rows(workload: str) -> Rows:
    return Rows(WORKLOADS[workload])


def load_data(workload: str, client: int) -> DataLoader[tuple[torch.Tensor, ...]]:
    """Return a client's batches."""
    data = TensorDataset(*_rows(workload).of(client))
    return DataLoader(data, batch_size=WORKLOADS[workload].batch_size, shuffle=True)


def train(net: nn.Module, loader: DataLoader[tuple[torch.Tensor, ...]], lr: float) -> float:
    """Train for an epoch; return the mean loss."""
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=lr)
    net.train()
    running_loss = 0.0
    for images, labels in loader:
        optimizer.zero_grad()
        loss = criterion(net(images), labels)
        loss.backward()
        optimizer.step()
        running_loss += loss.item()
    return running_loss / len(loader)
