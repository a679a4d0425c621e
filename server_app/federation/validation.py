"""A client's answer is checked before anything is aggregated; the reasons name what is wrong."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from numpy.typing import NDArray

from conf.errors import FedproofError
from task.arrays import array_of, record_of, values_of
from task.wire import records


class InvalidAnswerError(ValueError):
    """An answer that must not be aggregated."""


class Reference:
    """The shapes and types that every update must have.

    Parameters
    ----------
    arrays : ArrayRecord
        The global model.
    """

    def __init__(self, arrays: ArrayRecord) -> None:
        self._arrays = {
            key: (tuple(array.shape), np.dtype(array.dtype)) for key, array in arrays.items()
        }

    def check_update(self, content: RecordDict, rows: int) -> None:
        """Refuse an update that is malformed, not finite, or weighs more than its rows.

        Parameters
        ----------
        content : RecordDict
            One ArrayRecord and one MetricRecord with ``num-examples``.
        rows : int
            Training rows of this client, as it said when it joined.

        Raises
        ------
        InvalidAnswerError
            With the reason.
        """
        models = records(content, ArrayRecord)
        if len(models) != 1:
            raise InvalidAnswerError("its answer does not hold exactly one model")
        self._check_arrays(models[0])
        check_metrics(content, rows)

    def _check_arrays(self, arrays: ArrayRecord) -> None:
        # The order counts: some strategies take arrays by position.
        if list(arrays) != list(self._arrays):
            raise InvalidAnswerError("its model has other parameters than the global model")
        for key, (shape, dtype) in self._arrays.items():
            values = decode(arrays[key], key)
            if values.shape != shape:
                raise InvalidAnswerError(f"'{key}' has shape {values.shape}, not {shape}")
            if values.dtype != dtype:
                raise InvalidAnswerError(f"'{key}' has type {values.dtype}, not {dtype}")
            if not np.isfinite(values).all():
                raise InvalidAnswerError(f"'{key}' holds NaN or infinity")


def check_metrics(content: RecordDict, rows: int) -> MetricRecord:
    """Refuse metrics that are not finite numbers, or an absurd count of examples.

    Returns
    -------
    MetricRecord
        The one that was checked.
    """
    found = records(content, MetricRecord)
    if len(found) != 1:
        raise InvalidAnswerError("its answer does not hold exactly one set of metrics")
    (metrics,) = found
    count = metrics.get("num-examples")
    if type(count) is not int or not 1 <= count <= rows:
        raise InvalidAnswerError(f"it claims {count} examples; it joined with {rows}")
    for key, value in metrics.items():
        if isinstance(value, list) or not math.isfinite(value):
            raise InvalidAnswerError(f"its '{key}' is not a finite number")
    return metrics


def check_statistics(content: RecordDict) -> dict[str, list[float]]:
    """Return the sums of an evaluation; refuse what are not lists of finite numbers."""
    record = content.get("statistics")
    if not isinstance(record, ConfigRecord) or not record:
        raise InvalidAnswerError("its evaluation holds no statistics")
    result: dict[str, list[float]] = {}
    for key, values in record.items():
        if not isinstance(values, list) or not all(
            isinstance(v, int | float) and math.isfinite(v) for v in values
        ):
            raise InvalidAnswerError(f"its statistics '{key}' are not finite numbers")
        result[key] = [float(v) for v in values]
    return result


def same_metrics(replies: list[Message]) -> list[Message]:
    """Drop metrics that not every answer has: Flower's strategies want equal keys everywhere.

    A client whose held-out rows are all of one class has no AUROC, for example.
    """
    found = [records(reply.content, MetricRecord)[0] for reply in replies]
    common = set.intersection(*(set(record) for record in found)) if found else set()
    for record in found:
        for key in set(record) - common:
            del record[key]
    return replies


def decode(array: Array, key: str) -> NDArray[np.generic]:
    """Return an array's values; refuse what cannot be read."""
    try:
        return values_of(array)
    except Exception:
        raise InvalidAnswerError(f"'{key}' cannot be decoded") from None


def sift(
    replies: Iterable[Message],
    name: Callable[[Message], str],
    check: Callable[[str, Message], None],
) -> tuple[list[Message], dict[str, str]]:
    """Part valid answers from failures.

    Parameters
    ----------
    replies : iterable of Message
        One per client.
    name : callable
        Tells a reply's client.
    check : callable
        Raises `InvalidAnswerError` for an answer that must not count.

    Returns
    -------
    list of Message, dict
        Valid replies, and why each other client failed.
    """
    valid: list[Message] = []
    failed: dict[str, str] = {}
    for reply in replies:
        client = name(reply)
        try:
            if reply.has_error():
                raise InvalidAnswerError(reply.error.reason or "no reason given")
            check(client, reply)
            valid.append(reply)
        except InvalidAnswerError as error:
            failed[client] = str(error)
    return valid, failed


def reasons(failed: Mapping[str, str]) -> str:
    """Return the first few failures, for a sentence."""
    return "; ".join(f"{client}: {reason}" for client, reason in sorted(failed.items())[:5])


def finite(number: int, updated: ArrayRecord, before: ArrayRecord) -> ArrayRecord:
    """Return the new model in the old one's key order and types.

    Raises
    ------
    FedproofError
        If it holds NaN or infinity.
    """
    values = {
        key: np.asarray(values_of(updated[key]), dtype=np.dtype(array.dtype))
        for key, array in before.items()
    }
    if not all(np.isfinite(value).all() for value in values.values()):
        raise FedproofError(
            f"round {number}: the aggregated model is not finite: lower the learning rates."
        )
    return record_of({key: array_of(value) for key, value in values.items()})
