"""When clients train several at once."""

import pytest

from conf.compose import compose
from conf.errors import FedproofError
from server_app import vectorizing
from server_app.vectorizing import choose_stack
from task.source import load_task
from task.stacking import MOST

MANY = [50] * 100


def choose(*overrides, rows=MANY):
    settings = compose(("task=synthetic", "federation.fraction=1", *overrides))
    return choose_stack(settings, load_task(settings), {}, rows)


def test_dense_models_of_many_clients_are_stacked():
    assert choose() == MOST
    assert choose("federation.vectorize=off") == 1
    assert choose(rows=[50] * 15) == 1
    assert choose("federation.vectorize=on", rows=[50] * 15) == MOST
    assert choose("federation.fraction=0.1") == 1
    assert choose("federation=remote", "federation.superlink=x") == 1


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("train.optimizer=adam", "needs train.optimizer=sgd"),
        ("model=conv_dropout", "its own dropout"),
    ],
)
def test_what_cannot_be_stacked(override, reason):
    shape = "task.shape=[1,8,8]"
    assert choose(override, shape) == 1
    with pytest.raises(FedproofError, match=f"vectorize=on does not fit this run: .*{reason}"):
        choose(override, shape, "federation.vectorize=on")


@pytest.mark.parametrize(("alone", "together", "size"), [(1.0, MOST / 2, MOST), (1.0, MOST, 1)])
def test_others_are_measured_where_it_pays(alone, together, size, monkeypatch):
    seconds = iter([alone, together])
    monkeypatch.setattr(vectorizing, "_fastest", lambda work: next(seconds))
    assert choose("model=cnn", "task.shape=[1,8,8]", "rounds=100") == size


def test_short_runs_are_not_measured(monkeypatch):
    seconds = iter([1e-5])
    monkeypatch.setattr(vectorizing, "_fastest", lambda work: next(seconds))
    assert choose("model=cnn", "task.shape=[1,8,8]", "rounds=1") == 1


def test_the_measurement_itself():
    settings = compose(("task=synthetic", "model=cnn", "task.shape=[1,8,8]", "rounds=100000"))
    task = load_task(settings)
    assert vectorizing._measured(settings, task, {}, 1000, MANY) in (True, False)


def test_stacked_or_not_the_model_is_the_same(federate):
    import torch

    from server_app import checkpoint

    common = ("task=synthetic", "task.clients=24", "federation.fraction=1", "rounds=3")
    models = []
    for more, nodes in (("vectorize=off", 1), ("vectorize=on", 1), ("vectorize=on", 3)):
        ran = federate(*common, f"federation.{more}", nodes=nodes)
        tensors, _ = checkpoint.load(ran.directory / "model.safetensors")
        models.append(torch.cat([torch.from_numpy(v).reshape(-1) for v in tensors.values()]))
    assert all((m - models[0]).norm() <= 1e-5 * models[0].norm() for m in models[1:])
