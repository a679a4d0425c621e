"""How long a round would take if nothing but its multiply-adds took time.

    python -m benchmarks.simulation.gemm_limit W1

These are counted from the layers' shapes and divided by the rate at which two processes of one
thread each multiply large square matrices at the same time; each "round" measures that rate anew.
"""

from __future__ import annotations

import math
import time
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier

import torch
from torch import Tensor, nn

from benchmarks.simulation.work import build
from benchmarks.simulation.worker import arguments, tell
from benchmarks.simulation.workloads import PROCESSES, WORKLOADS, Workload

_SIDE = 2048
_PRODUCTS = 8
"""One measurement: about two seconds, longer than what processors run faster for at first."""


def operations(workload: Workload) -> int:
    """Return the floating-point operations of a round: two per multiply-add.

    Backward multiplies as often as forward for the weights' gradients and once more for the
    inputs', which the first layer does not need.
    """
    products: list[int] = []

    def count(layer: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        weight = layer.get_parameter("weight")
        products.append(output.numel() * math.prod(weight.shape[1:]))

    network = build(workload)
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            layer.register_forward_hook(count)
    with torch.no_grad():
        network(torch.zeros(1, *workload.shape))
    per_row = 2 * (3 * sum(products) - products[0])
    return per_row * workload.rows * workload.sampled


def multiply(start: Barrier, rounds: int) -> list[float]:
    """Return the rate of each measurement, in operations per second."""
    torch.set_num_threads(1)
    a, b = torch.randn(2, _SIDE, _SIDE)
    product = a @ b
    rates = []
    for _ in range(rounds):
        start.wait()
        started = time.perf_counter()
        for _ in range(_PRODUCTS):
            torch.mm(a, b, out=product)
        rates.append(2 * _SIDE**3 * _PRODUCTS / (time.perf_counter() - started))
    return rates


def main() -> None:
    """Tell the limit once per measurement."""
    told = arguments(__doc__).parse_args()
    context = get_context("fork")
    start = context.Barrier(PROCESSES)
    with context.Pool(PROCESSES, _share, (start,)) as pool:
        rates = pool.map(_measure, [told.rounds] * PROCESSES, chunksize=1)
    wanted = operations(WORKLOADS[told.workload])
    for number, pair in enumerate(zip(*rates, strict=True), 1):
        tell(number, wanted / sum(pair))


_start: list[Barrier] = []


def _share(start: Barrier) -> None:
    _start.append(start)


def _measure(rounds: int) -> list[float]:
    return multiply(_start[0], rounds)


if __name__ == "__main__":
    main()
