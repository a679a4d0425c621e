"""The ClientApp."""

from __future__ import annotations

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from benchmarks.simulation.quickstart import task
from benchmarks.simulation.work import build
from benchmarks.simulation.workloads import WORKLOADS

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train the model on the rows of this node's client."""
    workload = str(context.run_config["workload"])
    model = build(WORKLOADS[workload])
    model.load_state_dict(message.content.array_records["arrays"].to_torch_state_dict())
    loader = task.load_data(workload, int(context.node_config["partition-id"]))
    lr = message.content.config_records["config"]["lr"]
    assert isinstance(lr, float)
    loss = task.train(model, loader, lr)
    metrics: dict[str, int | float | list[int] | list[float]] = {
        "train_loss": loss,
        "num-examples": WORKLOADS[workload].rows,
    }
    arrays = ArrayRecord(model.state_dict())
    content = RecordDict({"arrays": arrays, "metrics": MetricRecord(metrics)})
    return Message(content=content, reply_to=message)
