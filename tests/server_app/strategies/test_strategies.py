"""Flower's strategies on clients: closed forms of their papers, and what they refuse."""

from types import SimpleNamespace

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from conf.compose import compose
from conf.errors import FedproofError
from server_app.compat import adopt_identity
from task.registry import find, names

UPDATES = [np.array([1.0, 10.0]), np.array([2.0, 0.0]), np.array([6.0, 5.0])]
ROWS = [1, 2, 1]
START = np.array([1.0, 1.0])


@pytest.fixture(autouse=True)
def _identity():
    adopt_identity(1)


def build(*overrides):
    settings = compose(overrides)
    module = find("server_app.strategies", settings.strategy.name)
    return module.build(settings.strategy.options)


def reply(values, rows, number=0):
    content = RecordDict(
        {
            "arrays": ArrayRecord({"w": Array(values)}),
            "metrics": MetricRecord({"num-examples": rows, "loss": 0.5}),
        }
    )
    request = Message(RecordDict(), dst_node_id=number, message_type="train")
    return Message(content, reply_to=request)


def aggregate(strategy, updates=UPDATES, rows=ROWS, rounds=1):
    """Aggregate the same updates in each round; return the model after the last."""
    grid = SimpleNamespace(get_node_ids=lambda: list(range(1, len(rows) + 1)))
    arrays = ArrayRecord({"w": Array(START)})
    for number in range(1, rounds + 1):
        replies = [reply(u, n, i) for i, (u, n) in enumerate(zip(updates, rows, strict=True))]
        strategy.configure_train(number, arrays, ConfigRecord(), grid)
        arrays, _ = strategy.aggregate_train(number, replies)
    return arrays["w"].numpy()


WEIGHTED = (UPDATES[0] + 2 * UPDATES[1] + UPDATES[2]) / 4


def test_fedavg_and_fedprox_weigh_by_rows():
    assert aggregate(build("strategy=fedavg")) == pytest.approx(WEIGHTED)
    assert aggregate(build("strategy=fedprox")) == pytest.approx(WEIGHTED)


def test_median_and_trimmed_mean():
    assert aggregate(build("strategy=fedmedian")) == pytest.approx([2.0, 5.0])
    five = [np.array([v, -v]) for v in (0.0, 1.0, 2.0, 3.0, 100.0)]
    trimmed = aggregate(build("strategy=fedtrimmedavg", "strategy.beta=0.2"), five, [1] * 5)
    assert trimmed == pytest.approx([2.0, -2.0])


@pytest.mark.parametrize("strategy", ["krum", "multikrum", "bulyan"])
def test_an_outlier_is_left_out(strategy):
    honest = [np.array([1.0, 1.0]) + 0.01 * i for i in range(7)]
    updates = [*honest, np.array([1e6, -1e6])]
    options = ["strategy.malicious=1"] + (["strategy.select=3"] if strategy == "multikrum" else [])
    found = aggregate(build(f"strategy={strategy}", *options), updates, [1] * 8)
    assert found == pytest.approx([1.03, 1.03], abs=0.04)


def test_server_momentum():
    # Hsu et al. 2019: v <- beta v + (w - mean), w <- w - v.
    found = aggregate(build("strategy=fedavgm", "strategy.server_momentum=0.5"), rounds=2)
    first = START - (START - WEIGHTED)
    velocity = 0.5 * (START - WEIGHTED) + (first - WEIGHTED)
    assert found == pytest.approx(first - velocity)


@pytest.mark.parametrize("kind", ["fedadagrad", "fedadam", "fedyogi"])
def test_adaptive_servers(kind):
    """Reddi et al. 2021, Algorithm 2, without bias correction, two rounds."""
    eta, beta_1, beta_2, tau = 0.1, 0.9, 0.99, 1e-3
    overrides = [f"strategy={kind}", f"strategy.eta={eta}", f"strategy.tau={tau}"]
    if kind == "fedadagrad":
        beta_1 = 0.0
    else:
        overrides += [f"strategy.beta_1={beta_1}", f"strategy.beta_2={beta_2}"]
    if kind == "fedadam":
        overrides.append("strategy.bias_correction=false")
    w, m, v = START.copy(), np.zeros(2), np.zeros(2)
    for _ in range(2):
        delta = WEIGHTED - w
        m = beta_1 * m + (1 - beta_1) * delta
        v = {
            "fedadagrad": v + delta**2,
            "fedadam": beta_2 * v + (1 - beta_2) * delta**2,
            "fedyogi": v - (1 - beta_2) * delta**2 * np.sign(v - delta**2),
        }[kind]
        w = w + eta * m / (np.sqrt(v) + tau)
    assert aggregate(build(*overrides), rounds=2) == pytest.approx(w)


def test_bias_correction_is_flowers_default():
    plain = aggregate(build("strategy=fedadam", "strategy.bias_correction=false"))
    corrected = aggregate(build("strategy=fedadam"))
    factor = np.sqrt(1 - 0.99**2) / (1 - 0.9**2)
    assert corrected - START == pytest.approx((plain - START) * factor)


@pytest.mark.parametrize("name", names("server_app.strategies"))
def test_each_takes_every_client_it_sees(name):
    strategy = build(f"strategy={name}")
    assert strategy.fraction_train == strategy.fraction_evaluate == 1.0
    assert strategy.min_train_nodes == strategy.min_available_nodes == 1


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("strategy=fedadam", "strategy.eta=-1"), "strategy.eta must be at least 0"),
        (("strategy=fedadam", "strategy.beta_1=1"), r"strategy.beta_1 must lie in \[0, 1\)"),
        (("strategy=fedtrimmedavg", "strategy.beta=0.5"), r"must lie in \[0, 0.5\)"),
        (("strategy=krum", "strategy.malicious=-1"), "strategy.malicious must be at least 0"),
        (("strategy=multikrum", "strategy.select=0"), "strategy.select must be at least 1"),
        (("strategy=fedprox", "strategy.proximal_mu=-0.1"), "strategy.proximal_mu must be"),
        (("strategy=qfedavg", "strategy.client_learning_rate=0"), "must be positive"),
    ],
)
def test_options_out_of_range(overrides, message):
    with pytest.raises(FedproofError, match=message):
        build(*overrides)
