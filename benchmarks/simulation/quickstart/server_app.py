"""The ServerApp."""

from __future__ import annotations

from flwr.app import ArrayRecord, ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from benchmarks.simulation.work import build
from benchmarks.simulation.worker import Laps
from benchmarks.simulation.workloads import LR, WORKLOADS

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run federated averaging, telling each round."""
    workload = WORKLOADS[str(context.run_config["workload"])]
    laps = Laps()

    def clock(number: int, _: ArrayRecord) -> None:
        """Flower calls this before the first round and after each."""
        if number:
            laps.lap()
        else:
            laps.start()

    FedAvg(fraction_train=workload.sampled / workload.clients, fraction_evaluate=0.0).start(
        grid=grid,
        initial_arrays=ArrayRecord(build(workload).state_dict()),
        train_config=ConfigRecord({"lr": LR}),
        num_rounds=int(context.run_config["rounds"]),
        evaluate_fn=clock,
    )
