"""Federated against central DP-SGD at the same ε: ``python -m benchmarks.dp_central``.

Fashion-MNIST, ε of 3 at δ = 1e-5 for ten epochs, official test images; once by a client that holds
all rows, which is central DP-SGD, and by three and five clients with IID shares of them, each of
which adds its own noise.
"""

from __future__ import annotations

from benchmarks.niid_bench import unpacked
from benchmarks.runs import run, write_results
from conf.compose import quote

EPSILON = 3.0
BATCHES = {1: (600, 2.0), 3: (250, 2.0), 5: (300, 4.0)}
"""Batch size and learning rate: the less of the data a silo has, the larger its part of a batch."""
SETTINGS = (
    "task=vision", "task.dataset=fashion_mnist", "partition=iid", "rounds=10", "train.epochs=1",
    "train.momentum=0.0", "privacy=record_dp", f"privacy.epsilon={EPSILON}",
    "privacy.clip=0.5", "evaluate_every=10",
)  # fmt: skip


def main() -> None:
    """Run, and print each accuracy."""
    results = {}
    with unpacked() as root:
        for clients, (batch, rate) in BATCHES.items():
            told = [
                f"federation.clients={clients}", f"train.batch_size={batch}", f"train.lr={rate}",
            ]  # fmt: skip
            summary = run([*SETTINGS, f"task.path={quote(root)}", *told]).summary
            assert summary["privacy"]["epsilon_most"] <= EPSILON
            results[clients] = summary["held_out"]["accuracy"]
            print(f"{clients} clients: accuracy {results[clients]:.4f}", flush=True)
    print(write_results("dp_central", results))


if __name__ == "__main__":
    main()
