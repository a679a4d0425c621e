"""Apple's pfl-research, in one process or, started by torchrun, in several.

    python -m torch.distributed.run --nproc-per-node 2 -m benchmarks.simulation.pfl_research W1

It runs in an environment of its own (`benchmarks.simulation.environments`).
"""

# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import numpy as np
import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.aggregate.weighting import WeightByDatapoints
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.sampling import get_user_sampler
from pfl.hyperparam.base import NNTrainHyperParams
from pfl.internal.ops.selector import get_framework_module
from pfl.metrics import Metrics, Weighted
from pfl.model.pytorch import PyTorchModel
from torch import Tensor, nn

from benchmarks.simulation.work import Rows, build
from benchmarks.simulation.worker import Laps, arguments
from benchmarks.simulation.workloads import LR, WORKLOADS, Workload


class Network(nn.Module):
    """A workload's network with the two functions that pfl asks for."""

    def __init__(self, workload: Workload) -> None:
        super().__init__()
        self.network = build(workload)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the loss to train on."""
        self.train()
        return nn.functional.cross_entropy(self.network(x), y)

    @torch.no_grad()
    def metrics(self, x: Tensor, y: Tensor) -> dict[str, Weighted]:
        """Return the loss summed up; pfl evaluates in the first round and in no other."""
        self.eval()
        loss = nn.functional.cross_entropy(self.network(x), y, reduction="sum")
        return {"loss": Weighted(loss.item(), len(y))}


class Timer(TrainingProcessCallback):  # type: ignore[misc]
    """Tells each round."""

    def __init__(self) -> None:
        self._laps = Laps()

    def on_train_begin(self, *, model: PyTorchModel) -> Metrics:
        """Start the first round."""
        self._laps.start()
        return Metrics()

    def after_central_iteration(
        self, aggregate_metrics: Metrics, model: PyTorchModel, *, central_iteration: int
    ) -> tuple[bool, Metrics]:
        """End a round."""
        self._laps.lap()
        return False, Metrics()


def train(workload: Workload, rounds: int) -> None:
    """Train; the first of the processes tells the rounds."""
    module = Network(workload)
    model = PyTorchModel(module, torch.optim.SGD, torch.optim.SGD(module.parameters(), lr=1.0))
    rows = Rows(workload)
    users = list(range(workload.clients))
    data = FederatedDataset(
        lambda user: Dataset(rows.of(user), user_id=user),
        get_user_sampler("minimize_reuse", users),
    )
    backend = SimulatedBackend(data, data, postprocessors=[WeightByDatapoints()])
    first = get_framework_module().distributed.global_rank == 0
    FederatedAveraging().run(
        NNAlgorithmParams(
            central_num_iterations=rounds,
            evaluation_frequency=rounds + 1,
            train_cohort_size=workload.sampled,
            val_cohort_size=None,
        ),
        backend,
        model,
        NNTrainHyperParams(
            local_num_epochs=1, local_learning_rate=LR, local_batch_size=workload.batch_size
        ),
        callbacks=[Timer()] if first else [],
        send_metrics_to_platform=False,
    )


def main() -> None:
    """Train, telling each round."""
    told = arguments(__doc__).parse_args()
    torch.set_num_threads(1)
    # The processes sample the same cohorts.
    np.random.seed(0)
    train(WORKLOADS[told.workload], told.rounds)
    if torch.distributed.is_initialized():
        # pfl leaves this to the interpreter's end, where one process may miss the other and abort.
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
