"""Federated averaging in plain PyTorch, without any framework.

    python -m benchmarks.simulation.raw_loop W1 --processes 2

Processes fork from the one that holds the rows. Each takes the next client of the round until none
is left; the global model and each process's weighted sum are vectors in shared memory.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context

import torch
from torch import Tensor, nn

from benchmarks.simulation.work import Rows, build
from benchmarks.simulation.worker import Laps, arguments
from benchmarks.simulation.workloads import LR, WORKLOADS, Workload

_FORK = get_context("fork")
_END = -1


class Trainer:
    """One process's network, whose parameters are views into one vector.

    Images and kernels are in channels-last order, which trains both CNNs faster here.
    """

    def __init__(self, workload: Workload, rows: Rows) -> None:
        self._rows = rows
        self._batch_size = workload.batch_size
        self._network = build(workload)
        self._images = any(isinstance(m, nn.Conv2d) for m in self._network.modules())
        self._parameters: list[Tensor] = list(self._network.parameters())
        sizes = [p.numel() for p in self._parameters]
        self.vector = torch.empty(sum(sizes))
        for p, part in zip(self._parameters, torch.split(self.vector, sizes), strict=True):
            view = _view(part, p)
            view.copy_(p.detach())
            p.data = view

    def train(self, start: Tensor, client: int, seed: int) -> int:
        """Train `client` for an epoch from `start`; return its number of rows."""
        self.vector.copy_(start)
        x, y = self._rows.of(client)
        if self._images:
            x = x.to(memory_format=torch.channels_last)
        # Not torch.manual_seed, which also notes down where it was called, for every GPU.
        torch.default_generator.manual_seed(seed)
        for batch in torch.split(torch.randperm(len(x)), self._batch_size):
            loss = nn.functional.cross_entropy(self._network(x[batch]), y[batch])
            gradients = torch.autograd.grad(loss, self._parameters)
            with torch.no_grad():
                torch._foreach_add_(self._parameters, gradients, alpha=-LR)
        return len(x)


def _view(part: Tensor, parameter: Tensor) -> Tensor:
    if parameter.dim() != 4:
        return part.view_as(parameter)
    outputs, channels, tall, wide = parameter.shape
    return part.view(outputs, tall, wide, channels).permute(0, 3, 1, 2)


class Cohort:
    """What the processes share: the round's clients, its model, and the sums."""

    def __init__(self, workload: Workload, processes: int) -> None:
        self._trainer = Trainer(workload, Rows(workload))
        self._clients = _shared(torch.zeros(workload.sampled, dtype=torch.int64))
        self._next = _FORK.Value("q", 0)
        self._steps = _FORK.Barrier(processes)
        self.model = _shared(self._trainer.vector.clone())
        self.sums = _shared(torch.zeros(processes, len(self.model)))
        self.rows = _shared(torch.zeros(processes, dtype=torch.int64))

    def round(self, clients: list[int]) -> None:
        """Train `clients`, replace the model by the mean weighted by rows (process 0)."""
        self._clients.copy_(torch.tensor(clients))
        self._next.value = 0
        self._train(0)
        torch.sum(self.sums, 0, out=self.model)
        self.model /= self.rows.sum()

    def end(self) -> None:
        """Let the other processes end (process 0)."""
        self._next.value = _END
        self._steps.wait()

    def serve(self, process: int) -> None:
        """Train in every round until the end (all other processes)."""
        torch.set_num_threads(1)
        while self._train(process):
            pass

    def _train(self, process: int) -> bool:
        """Add up clients' models until none is left; tell whether there was a round."""
        self._steps.wait()
        if self._next.value == _END:
            return False
        total, rows = self.sums[process].zero_(), 0
        while (place := self._take()) < len(self._clients):
            client = int(self._clients[place])
            count = self._trainer.train(self.model, client, seed=client)
            total.add_(self._trainer.vector, alpha=count)
            rows += count
        self.rows[process] = rows
        self._steps.wait()
        return True

    def _take(self) -> int:
        with self._next.get_lock():
            place = int(self._next.value)
            self._next.value = place + 1
        return place


def _shared(values: Tensor) -> Tensor:
    values.share_memory_()  # type: ignore[no-untyped-call]
    return values


@contextmanager
def federation(workload: Workload, processes: int) -> Iterator[Cohort]:
    """Fork the other processes; end them at last."""
    cohort = Cohort(workload, processes)
    others = [_FORK.Process(target=cohort.serve, args=(i,)) for i in range(1, processes)]
    for other in others:
        other.start()
    try:
        yield cohort
        cohort.end()
    finally:
        for other in others:
            other.join(5)
            other.kill()


def main() -> None:
    """Train, telling each round."""
    parser = arguments(__doc__)
    parser.add_argument("--processes", type=int, default=1)
    told = parser.parse_args()
    torch.set_num_threads(1)
    workload = WORKLOADS[told.workload]
    sampler = random.Random(0)
    with federation(workload, told.processes) as cohort:
        laps = Laps()
        for _ in range(told.rounds):
            cohort.round(sampler.sample(range(workload.clients), workload.sampled))
            laps.lap()


if __name__ == "__main__":
    main()
