"""Updates that lie near their neighbours: Krum, Multi-Krum and Bulyan's choice."""

from __future__ import annotations

import torch
from torch import Tensor

from task.robust.distances import squared_distances


def scores(distances: Tensor, neighbours: int) -> Tensor:
    """Return each client's sum of squared distances to its nearest others, shape (clients,).

    Blanchard et al. 2017, section 4: ``neighbours`` = clients - malicious - 2.
    """
    others = distances.clone().fill_diagonal_(torch.inf)
    return others.sort(dim=1).values[:, :neighbours].sum(dim=1)


def multi_krum(updates: Tensor, malicious: int, count: int) -> Tensor:
    """Return the `count` clients of the lowest scores, ascending; Krum's is the first.

    Needs 2·malicious + 3 clients.
    """
    distances = squared_distances(updates)
    ranked = scores(distances, len(updates) - malicious - 2)
    return ranked.argsort(stable=True)[:count]


def repeated_krum(updates: Tensor, malicious: int, count: int) -> Tensor:
    """Return `count` clients by repeating Krum on those that are left, in the order of choice.

    El Mhamdi et al. 2018, section 4, selection phase; needs 4·malicious + 3 clients for
    ``count`` = clients - 2·malicious.
    """
    distances = squared_distances(updates)
    left = torch.arange(len(updates), device=updates.device)
    chosen = []
    for _ in range(count):
        among = distances[left][:, left]
        best = scores(among, max(1, len(left) - malicious - 2)).argmin()
        chosen.append(left[best])
        left = torch.cat([left[:best], left[best + 1 :]])
    return torch.stack(chosen)
