"""The baselines against plain PyTorch on the same rows, and what they may tell."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Message
from torch import nn

from conf.compose import compose
from conf.errors import FedproofError
from conf.schema import Settings
from task.flat import build_model
from task.seeding import derive
from task.source import DataSource
from task.wire import Cohort
from tests.server_app.test_faults import rewrite

SHORT = ("compare=true", "rounds=3", "model.hidden=[8]")


def baselines(ran: Any) -> dict[str, Any]:
    told = json.loads((ran.directory / "baselines.json").read_text())
    assert isinstance(told, dict)
    return told


def orders(count: int, settings: Settings) -> Iterator[torch.Tensor]:
    while True:
        yield from torch.randperm(count).split(settings.train.batch_size)


def plain_sgd(
    settings: Settings, rows: tuple[torch.Tensor, ...], seeds: list[int], steps: int
) -> nn.Sequential:
    """Train an ordinary module with an ordinary optimiser, so many steps for each seed."""
    model = nn.Sequential(nn.Linear(rows[0].shape[1], 8), nn.ReLU(), nn.Linear(8, 1))
    task = DataSource(settings).task
    model.load_state_dict(
        dict(zip(model.state_dict(), build_model(settings, task.spec({})).state_dict().values(),
                 strict=True))
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), settings.train.lr)
    for seed in seeds:
        torch.manual_seed(seed)
        batches = orders(len(rows[1]), settings)
        for _ in range(steps):
            index = next(batches)
            optimizer.zero_grad()
            logits = model(rows[0][index]).squeeze(1)
            nn.functional.binary_cross_entropy_with_logits(logits, rows[1][index]).backward()
            optimizer.step()
    return model


def held_out(model: nn.Module, test: Any) -> tuple[float, float]:
    with torch.no_grad():
        logits = model(test.x).squeeze(1)
        loss = nn.functional.binary_cross_entropy_with_logits(logits, test.y)
    return float(((logits >= 0) == test.y.bool()).float().mean()), float(loss)


def test_both_are_what_plain_pytorch_trains(federate: Callable[..., Any]) -> None:
    settings = compose(SHORT)
    told = baselines(federate(*SHORT))
    source = DataSource(settings)
    data = {client: source.data(client, {}) for client in source.clients}
    pooled = tuple(torch.cat([getattr(d.train, k) for d in data.values()]) for k in ("x", "y"))
    central = plain_sgd(settings, pooled, [derive(42, "pooled")], told["federated_steps"])
    for client, own in data.items():
        seeds = [derive(42, "train", number, client) for number in (1, 2, 3)]
        steps = 2 * -(-len(own.train) // 16)
        alone = plain_sgd(settings, (own.train.x, own.train.y), seeds, steps)
        assert told["clients"][client]["steps"] == 3 * steps
        for name, model in (("local", alone), ("central", central)):
            accuracy, loss = held_out(model, own.test)
            assert told["clients"][client][name]["accuracy"] == pytest.approx(accuracy)
            assert told["clients"][client][name]["loss"] == pytest.approx(loss, rel=1e-4)
    assert told["federated_steps"] == sum(c["steps"] for c in told["clients"].values())


def test_a_federation_of_one_is_training_alone(federate: Callable[..., Any]) -> None:
    ran = federate(*SHORT, "partition=iid", "federation.clients=1", "train.momentum=0.9")
    (client,) = baselines(ran)["clients"].values()
    assert client["local"] == client["federated"]
    assert client["alignment"] == pytest.approx(1)


def test_the_model_and_its_bytes_are_those_of_a_run_without(federate: Callable[..., Any]) -> None:
    plain, compared = federate(*SHORT[1:]), federate(*SHORT)
    assert plain.model == compared.model
    assert plain.summary["bytes_up"] == compared.summary["bytes_up"]


def test_the_nodes_do_not_matter(federate: Callable[..., Any]) -> None:
    one, many = (baselines(federate(*SHORT, nodes=n)) for n in (1, 3))
    assert one["clients"] == many["clients"] and one["likeness"] == many["likeness"]


def test_sampled_clients_train_alone_as_long_as_they_would_together(
    federate: Callable[..., Any],
) -> None:
    told = baselines(federate(*SHORT, "federation.fraction=0.5"))
    assert told["local_rounds"] == 2
    told = baselines(federate(*SHORT, "baselines.local_rounds=5", "baselines.centralised=false"))
    assert told["local_rounds"] == 5 and "likeness" not in told
    assert all(len(c["curve"]) == 5 and "central" not in c for c in told["clients"].values())


def test_a_client_that_answers_nonsense_is_left_out(federate: Callable[..., Any]) -> None:
    def tamper(reply: Message) -> Message:
        if reply.metadata.message_type != "evaluate.alone":
            return reply
        rewritten = rewrite(reply, lambda c: Cohort(_without(c.parts), c.errors, c.header))
        assert isinstance(rewritten, Message)
        return rewritten

    def _without(parts: Any) -> Any:
        parts["hungary"]["facts"]["alignment"] = float("nan")
        del parts["va"]["local"]
        return parts

    told = baselines(federate(*SHORT, tamper=tamper))
    assert set(told["clients"]) == {"cleveland", "switzerland"}
    assert told["failed"] == dict.fromkeys(("hungary", "va"), "its comparison cannot be read")


def test_a_node_trains_nobody_alone_unless_the_run_compares(federate: Callable[..., Any]) -> None:
    from client_app.app import app

    ran = federate(*SHORT)
    message = next(m for m in ran.grid.sent if m.metadata.message_type == "evaluate.alone")
    other = federate(*SHORT[1:])
    reply = app(message, next(iter(other.grid._contexts.values())))
    answer = Cohort.unpack(reply.content)
    assert not answer.parts and "no compare=true" in str(answer.header["refused"])


def test_a_silo_tells_nothing_that_its_privacy_does_not_cover(
    federate: Callable[..., Any], tmp_path: Path
) -> None:
    nodes = []
    for name in ("a", "b"):
        path = tmp_path / f"{name}.csv"
        path.write_text("age,ill\n" + "".join(f"{i},{i % 2}\n" for i in range(40)))
        nodes.append({"data": str(path), "state": str(tmp_path), "ledger": str(tmp_path / name)})
    # A server that calls itself a simulation, on silos with data of their own.
    run = ("task=tabular", "task.target=ill", "compare=true", "rounds=1", "task.scaling=local",
           "task.kind=binary", "baselines.centralised=false", "train.batch_size=8",
           "task.columns=[age]", "task.categories.ill=[0,1]")  # fmt: skip
    assert set(baselines(federate(*run, nodes=nodes))["clients"]) == {"a", "b"}
    with pytest.raises(FedproofError, match=r"not protected as it must be"):
        federate(*run, "privacy=record_dp", "privacy.sigma=1.0", nodes=nodes)


def test_there_must_be_clients_with_both_kinds_of_rows(federate: Callable[..., Any]) -> None:
    with pytest.raises(FedproofError, match=r"task\.split=rows"):
        federate("compare=true", "task=iot", "rounds=1", "train.epochs=1", "federation.clients=3")


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (("seeds=3",), "add it"),
        (("compare=true", "evaluate=x"), "give one of them"),
        (("compare=true", "aggregation=secagg"), "aggregation=none"),
        (("compare=true", "federation=remote", "federation.superlink=x", "privacy=client_dp",
          "privacy.sigma=1"), "does not cover"),
        (("compare=true", "federation=remote", "federation.superlink=x",
          "baselines.centralised=true"), "stay with their clients"),
        (("compare=true", "federation=remote", "federation.superlink=x",
          "baselines.unprotected=true"), "simulations only"),
        (("compare=true", "seeds=0"), "at least 1"),
        (("link.up_mbps=0",), "positive"),
    ],
)  # fmt: skip
def test_refused(overrides: tuple[str, ...], says: str) -> None:
    with pytest.raises(FedproofError, match=says):
        compose(overrides)
