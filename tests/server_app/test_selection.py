import json

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord

from conf.compose import compose
from conf.errors import FedproofError
from server_app.selection import Selection


def model(value):
    return ArrayRecord({"w": Array(np.array([value]))})


def follow(selection, scores, metric="auroc", start=1):
    for number, score in enumerate(scores, start):
        selection.update(number, {metric: score, "loss": 1 - score}, model(float(number)))


def test_last_is_the_default_and_best_is_reported():
    selection = Selection(compose(("task.metric=auroc",)))
    follow(selection, [0.5, 0.9, 0.7])
    assert selection.choose(model(3.0))["w"].numpy() == [3.0]
    assert selection.best is None and not selection.stopped
    summary = selection.summary()
    assert (summary["evaluated_round"], summary["best_round"]) == (3, 2)
    assert summary["held_out"]["auroc"] == 0.7 and summary["best"]["auroc"] == 0.9


def test_best_is_chosen():
    selection = Selection(compose(("task.metric=auroc", "select=best")))
    follow(selection, [0.5, 0.9, 0.7])
    assert selection.choose(model(3.0))["w"].numpy() == [2.0]
    assert selection.summary()["evaluated_round"] == 2


def test_losses_improve_downwards():
    selection = Selection(compose(("stop.metric=loss", "select=best")))
    follow(selection, [0.5, 0.9, 0.7])
    assert selection.summary()["best_round"] == 2


def test_patience():
    selection = Selection(compose(("task.metric=auroc", "stop.patience=2")))
    follow(selection, [0.5, 0.6, 0.6])
    assert not selection.stopped
    follow(selection, [0.4], start=4)
    assert selection.stopped


def test_taking_up_again():
    settings = compose(("task.metric=auroc", "select=best", "stop.patience=2"))
    whole, first, second = (Selection(settings) for _ in range(3))
    follow(whole, [0.5, 0.9, 0.7, 0.8])
    follow(first, [0.5, 0.9])
    second.restore(json.loads(json.dumps(first.facts())), first.best)
    follow(second, [0.7, 0.8], start=3)
    assert second.summary() == whole.summary() and second.stopped is whole.stopped is True
    assert second.best["w"].numpy() == whole.best["w"].numpy()


def test_an_unknown_metric():
    with pytest.raises(FedproofError, match="no metric 'recall' here: choose .* among auroc, loss"):
        follow(Selection(compose(("task.metric=recall",))), [0.5])
