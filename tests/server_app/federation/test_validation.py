import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from server_app.federation.validation import (
    InvalidAnswerError,
    Reference,
    check_metrics,
    check_statistics,
    reasons,
)

MODEL = {"w": np.zeros((2, 3), np.float32), "b": np.zeros(2, np.float32)}


def record(**changes):
    return ArrayRecord({k: Array(v) for k, v in (MODEL | changes).items() if v is not None})


def answer(arrays=None, metrics=None):
    metrics = {"num-examples": 5, "loss": 0.5} if metrics is None else metrics
    return RecordDict({"arrays": arrays or record(), "metrics": MetricRecord(metrics)})


def test_a_good_update_passes():
    Reference(record()).check_update(answer(), rows=5)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (record(w=np.full((2, 3), np.nan, np.float32)), "'w' holds NaN or infinity"),
        (record(b=np.array([1, np.inf], np.float32)), "'b' holds NaN or infinity"),
        (record(w=np.zeros((3, 2), np.float32)), r"'w' has shape \(3, 2\), not \(2, 3\)"),
        (record(w=np.zeros((2, 3))), "'w' has type float64, not float32"),
        (record(b=None), "other parameters"),
        (record(extra=np.zeros(1, np.float32)), "other parameters"),
        (ArrayRecord({k: Array(MODEL[k]) for k in ("b", "w")}), "other parameters"),
        (
            ArrayRecord(
                {"w": Array("float32", (2, 3), "numpy.ndarray", b"junk"), "b": Array(MODEL["b"])}
            ),
            "'w' cannot be decoded",
        ),
    ],
)
def test_bad_models(arrays, message):
    with pytest.raises(InvalidAnswerError, match=message):
        Reference(record()).check_update(answer(arrays), rows=5)


def test_the_number_of_models():
    twice = answer()
    twice["more"] = record()
    for content in (twice, RecordDict({"metrics": MetricRecord({"num-examples": 1})})):
        with pytest.raises(InvalidAnswerError, match="exactly one model"):
            Reference(record()).check_update(content, rows=5)


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({"num-examples": 0}, "claims 0 examples; it joined with 5"),
        ({"num-examples": -3}, "claims -3 examples"),
        ({"num-examples": 6}, "claims 6 examples"),
        ({"num-examples": 5.0}, "claims 5.0 examples"),
        ({"loss": 1.0}, "claims None examples"),
        ({"num-examples": 5, "loss": float("nan")}, "'loss' is not a finite number"),
        ({"num-examples": 5, "loss": [1.0]}, "'loss' is not a finite number"),
    ],
)
def test_bad_metrics(metrics, message):
    with pytest.raises(InvalidAnswerError, match=message):
        check_metrics(answer(metrics=metrics), rows=5)


def test_statistics():
    def told(**values):
        return RecordDict({"statistics": ConfigRecord(values)})

    assert check_statistics(told(loss=[1.5], hits=[1, 2])) == {"loss": [1.5], "hits": [1.0, 2.0]}
    for content in (RecordDict(), told(loss=1.5), told(loss=[float("inf")]), told(loss=["x"])):
        with pytest.raises(InvalidAnswerError, match="statistics"):
            check_statistics(content)


def test_reasons_are_few():
    failed = {f"c{i}": "late" for i in range(9)}
    assert reasons(failed).count("late") == 5
