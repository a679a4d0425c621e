"""The federations that are timed, as numbers; importing this must stay light."""

from __future__ import annotations

from dataclasses import dataclass

PROCESSES = 2
"""Of every contender that trains in several: one thread each."""
CLASSES = 10
LR = 0.1


@dataclass(frozen=True)
class Workload:
    """A federation of equal clients and what a round of it trains: one epoch of plain SGD.

    Attributes
    ----------
    title : str
        What plots call it.
    network : str
        A function of `benchmarks.simulation.work`.
    model : str
        The same network's name in Fedproof.
    shape : tuple of int
        Of one row: channels, height, width.
    clients, sampled : int
        In the federation, and in one round.
    rows, batch_size : int
        Of each client.
    timed : int
        Rounds of one run, unless told otherwise.
    """

    title: str
    network: str
    model: str
    shape: tuple[int, int, int]
    clients: int
    sampled: int
    rows: int
    batch_size: int
    timed: int


WORKLOADS = {
    "W0": Workload("linear model, 50 of 1000 clients", "linear", "logistic",
                   (3, 32, 32), 1000, 50, 50, 10, 20),
    "W1": Workload("CNN of 1.6 M parameters, 50 of 1000 clients", "cnn", "conv_dropout",
                   (3, 32, 32), 1000, 50, 50, 10, 5),
    "W2": Workload("LeNet, 10 silos of 5000 rows", "lenet", "lenet",
                   (1, 28, 28), 10, 10, 5000, 32, 5),
}  # fmt: skip
