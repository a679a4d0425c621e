import numpy as np
import pytest
import torch

from conf.compose import compose
from conf.errors import FedproofError
from task.source import DataSource
from task.tasks.synthetic import Blocks

SMALL = ("task=synthetic", "task.clients=12", "task.rows=5", "task.test_rows=2", "task.shape=[2,3]")


def source(*overrides):
    return DataSource(compose((*SMALL, *overrides)))


def test_every_client_has_its_own_rows_which_do_not_change():
    made = source()
    assert made.clients == [f"client-{i:02d}" for i in range(12)]
    assert all(made.size(client) == (5, 2) for client in made.clients)
    data = made.data("client-07", {})
    assert data.train.x.shape == (5, 2, 3) and data.test.x.shape == (2, 2, 3)
    assert data.train.x.dtype == torch.float32 and data.train.y.dtype == torch.int64
    assert torch.equal(data.train.x, source().data("client-07", {}).train.x)
    assert not torch.equal(data.train.x, made.data("client-08", {}).train.x)
    other = source("task.data_seed=1").data("client-07", {})
    assert not torch.equal(data.train.x, other.train.x)


def test_a_part_of_the_clients():
    assert source("federation.clients=3").clients == ["client-00", "client-01", "client-02"]
    with pytest.raises(FedproofError, match="more clients than the data has"):
        source("federation.clients=13").clients  # noqa: B018


def test_a_million_clients_cost_nothing_until_they_are_asked_for():
    blocks = Blocks(1_000_000, 50)
    assert len(blocks) == 1_000_000
    assert np.array_equal(blocks["client-999999"], np.arange(49_999_950, 50_000_000))
    for name in ("client-1000000", "client-1", "client-+00001", "other-000001", "client-x"):
        assert name not in blocks


def test_other_partitions_deal_its_rows_too():
    made = source("partition=iid", "federation.clients=4")
    assert sum(sum(made.size(client)) for client in made.clients) == 12 * 7


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("task.shape=[]", "task.shape must be positive"),
        ("task.shape=[0,3]", "task.shape must be positive"),
        ("task.clients=0", "task.clients must be at least 1"),
        ("task.classes=1", "task.classes must be at least 2"),
        ("task.path=here.csv", "makes its rows up"),
    ],
)
def test_refusals(override, message):
    with pytest.raises(FedproofError, match=message):
        made = source(override)
        made.task.spec({})
        made.data(made.clients[0], {})


def test_it_is_learned(federate):
    ran = federate(*SMALL[:2], "task.rows=200", "rounds=5", "federation.fraction=1",
                   "federation.fraction_evaluate=1", "task.test_rows=100")  # fmt: skip
    assert ran.summary["held_out"]["accuracy"] > 0.5
