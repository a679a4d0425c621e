"""A node's answers: to a server like itself, to another, and when its clients fail."""

import numpy as np
import pytest
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Context,
    Message,
    MessageType,
    RecordDict,
)  # fmt: skip

from client_app.app import app
from client_app.node import node_of
from client_app.site import site_of
from conf.errors import FedproofError
from server_app.compat import adopt_identity, stamp
from task.client_update import base
from task.wire import Cohort

SETTINGS = "model=logistic task.scaling=federated task.test_fraction=0.25"
HOSPITALS = ["cleveland", "hungary", "switzerland", "va"]


@pytest.fixture
def context():
    adopt_identity(1)
    return Context(1, 7, {}, RecordDict(), {"overrides": SETTINGS})


def ask(context, kind, cohort=None, content=None):
    content = cohort.pack() if content is None else content
    message = stamp(Message(content, dst_node_id=7, message_type=kind))
    return Cohort.unpack(app(message, context).content)


def known(context, **header):
    node = node_of(site_of(context))
    describes = [node.source.describe(client) for client in node.source.clients]
    return node.site.digests | {"shared": node.source.task.agree(describes)} | header


def told(context, number=1, **arrays):
    module = node_of(site_of(context)).learner(known(context)).model.module
    state = {key: Array(value.numpy()) for key, value in module.state_dict().items()} | arrays
    return RecordDict(
        {"arrays": ArrayRecord(state), "config": ConfigRecord({"server-round": number})}
    )


def test_a_query_lists_clients(context):
    answer = ask(context, MessageType.QUERY, Cohort(header=known(context)))
    listing = answer.header
    assert listing["clients"] == HOSPITALS
    rows = [sum(sizes) for sizes in zip(listing["train"], listing["test"], strict=True)]
    assert rows == [303, 294, 123, 200]
    assert set(listing["describes"]["va"]) == {"count", "mean", "remainder", "deviations"}
    assert answer.header["config"] == site_of(context).digests["config"]


@pytest.mark.parametrize("kind", [MessageType.QUERY, MessageType.TRAIN, MessageType.EVALUATE])
@pytest.mark.parametrize("digest", ["config", "code"])
def test_a_server_with_other_settings_or_code_is_refused(context, kind, digest):
    header = known(context) | {digest: "other"}
    answer = ask(context, kind, Cohort({"va": told(context)}, header=header))
    assert f"this node runs other {digest} than the server" in answer.header["refused"]
    assert not answer.parts and "clients" not in answer.header


def test_what_is_no_cohort_is_refused(context):
    answer = ask(context, MessageType.TRAIN, content=RecordDict())
    assert "not a cohort message" in answer.header["refused"]


def test_training_answers_model_and_metrics_only(context):
    part = told(context)
    before = {key: array.numpy().copy() for key, array in part["arrays"].items()}
    cohort = Cohort({"va": part, "hungary": part}, header=known(context))
    answer = ask(context, MessageType.TRAIN, cohort)
    assert list(answer.parts) == ["va", "hungary"] and not answer.errors
    for client, rows in (("va", 150), ("hungary", 220)):
        found = answer.parts[client]
        assert set(found) == {"arrays", "metrics"}
        assert abs(found["metrics"]["num-examples"] - rows) <= 1
        changed = [not np.array_equal(found["arrays"][key].numpy(), before[key]) for key in before]
        assert all(changed)
    again = ask(context, MessageType.TRAIN, Cohort({"hungary": part}, header=known(context)))
    for key in before:
        mine, other = (a.parts["hungary"]["arrays"][key].numpy() for a in (answer, again))
        assert np.array_equal(mine, other)


def test_the_round_changes_the_order_of_batches(context):
    answers = [
        ask(context, MessageType.TRAIN, Cohort({"va": told(context, n)}, header=known(context)))
        for n in (1, 2)
    ]
    first, second = (
        np.concatenate([a.numpy().ravel() for a in answer.parts["va"]["arrays"].values()])
        for answer in answers
    )
    assert not np.array_equal(first, second)


def test_a_client_that_is_not_here_fails_alone(context):
    cohort = Cohort({"atlantis": told(context), "va": told(context)}, header=known(context))
    answer = ask(context, MessageType.TRAIN, cohort)
    assert list(answer.parts) == ["va"]
    assert answer.errors == {"atlantis": "client 'atlantis' is not served by this node."}


@pytest.mark.parametrize(
    "groups", [[["va", "va"]], [["va"], ["va"]], [["va", "b"]], [[]], [[1]], 7, [[["va"]]]]
)
def test_nobody_trains_twice_or_is_left_out_of_stacks(context, groups):
    header = known(context, stack=2, stacks=groups)
    answer = ask(context, MessageType.TRAIN, Cohort({"va": told(context)}, header=header))
    assert "'stacks' do not name every client once" in answer.header["refused"]
    assert not answer.parts and answer.total is None


def test_a_model_that_does_not_fit(context):
    part = told(context, extra=Array(np.zeros(3, np.float32)))
    answer = ask(context, MessageType.EVALUATE, Cohort({"va": part}, header=known(context)))
    assert "the server's model does not fit this task" in answer.errors["va"]


def test_an_unforeseen_error_keeps_its_text_at_home(context, monkeypatch, caplog):
    def fail(*_, **__):
        raise ZeroDivisionError("patient 17 is rich")

    monkeypatch.setattr(base, "train", fail)
    answer = ask(context, MessageType.TRAIN, Cohort({"va": told(context)}, header=known(context)))
    assert answer.errors == {"va": "ZeroDivisionError: see the log of the client's node."}
    assert "patient 17" in caplog.text


def test_evaluation_answers_sums(context):
    cohort = Cohort({client: told(context) for client in HOSPITALS}, header=known(context))
    answer = ask(context, MessageType.EVALUATE, cohort)
    assert list(answer.parts) == HOSPITALS
    for part in answer.parts.values():
        assert set(part) == {"metrics", "statistics"}
        sums = part["statistics"]
        count = sum(sums["positives"]) + sum(sums["negatives"])
        assert count == part["metrics"]["num-examples"]


def test_node_config():
    def node(**config):
        return node_of(site_of(Context(1, 1, config, RecordDict(), {"overrides": ""})))

    assert node().source.clients == HOSPITALS
    halves = [node(**{"partition-id": i, "num-partitions": 2}) for i in range(2)]
    assert [half.source.clients for half in halves] == [HOSPITALS[::2], HOSPITALS[1::2]]
    assert node() is node()
    with pytest.raises(FedproofError, match="no heart-disease data at /nowhere.csv"):
        node(data="/nowhere.csv").source.clients  # noqa: B018
