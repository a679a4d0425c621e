"""A client's answer is checked before anything is aggregated; the reasons name what is wrong."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from numpy.typing import NDArray

from conf.errors import FedproofError
from task.arrays import array_of, record_of, values_of
from task.clusters import apart, joined, numbered
from task.metric_names import GLOBAL
from task.objectives import SHARES
from task.shown import is_plain, shown
from task.wire import VECTORS, records

MOST_FIGURES, LONGEST_NAME = 200, 100
"""How many metrics an answer may hold, and how long a name."""
_TAKEN = frozenset({"round", "client"})
"""Names that records of metrics have for something else."""


class InvalidAnswerError(ValueError):
    """An answer that must not be aggregated.

    Parameters
    ----------
    reason : str
        May quote what the client sent: it is made fit to be shown.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(shown(reason))


class Reference:
    """The shapes and types that every update must have.

    Parameters
    ----------
    arrays : ArrayRecord
        The global model, or several of which an update is about one.
    vectors : mapping of str to int
        Names and lengths of the vectors that must come beside the model.
    """

    def __init__(self, arrays: ArrayRecord, vectors: Mapping[str, int] | None = None) -> None:
        self._vectors = dict(vectors or {})
        whole = {key: (tuple(a.shape), np.dtype(a.dtype)) for key, a in arrays.items()}
        self._models = [whole]
        models = apart(whole)
        if joined(list(models.values())) == whole:
            self._models = [numbered(model, number) for number, model in models.items()]

    def check_update(self, content: RecordDict, rows: int) -> None:
        """Refuse an update that is malformed, not finite, or weighs more than its rows.

        Parameters
        ----------
        content : RecordDict
            One ArrayRecord, another one of vectors if the strategy wants any, and one
            MetricRecord with ``num-examples``.
        rows : int
            Training rows of this client, as it said when it joined.

        Raises
        ------
        InvalidAnswerError
            With the reason.
        """
        models = {k: r for k, r in content.items() if isinstance(r, ArrayRecord)}
        vectors = models.pop(VECTORS, ArrayRecord())
        if len(models) != 1:
            raise InvalidAnswerError("its answer does not hold exactly one model")
        self._check_arrays(*models.values())
        self._check_vectors(vectors)
        check_metrics(content, rows)

    def _check_vectors(self, vectors: ArrayRecord) -> None:
        for key in sorted(set(vectors) ^ set(self._vectors)):
            fault = "which nobody asked for" if key in vectors else "and must"
            holds = "holds" if key in vectors else "does not hold"
            raise InvalidAnswerError(f"its answer {holds} '{key}' beside the model, {fault}")
        for key, size in self._vectors.items():
            values = decode(vectors[key], key)
            if values.shape != (size,) or values.dtype != np.float32:
                raise InvalidAnswerError(f"its '{key}' does not fit the model")
            if not np.isfinite(values).all():
                raise InvalidAnswerError(f"its '{key}' holds NaN or infinity")

    def _check_arrays(self, arrays: ArrayRecord) -> None:
        # The order counts: some strategies take arrays by position.
        model = next((m for m in self._models if list(m) == list(arrays)), None)
        if model is None:
            raise InvalidAnswerError("its model has other parameters than the global model")
        for key, (shape, dtype) in model.items():
            values = decode(arrays[key], key)
            if values.shape != shape:
                raise InvalidAnswerError(f"'{key}' has shape {values.shape}, not {shape}")
            if values.dtype != dtype:
                raise InvalidAnswerError(f"'{key}' has type {values.dtype}, not {dtype}")
            if not np.isfinite(values).all():
                raise InvalidAnswerError(f"'{key}' holds NaN or infinity")


def check_metrics(content: RecordDict, rows: int) -> MetricRecord:
    """Refuse metrics that no model can have, or an absurd count of examples.

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
    if len(metrics) > MOST_FIGURES:
        raise InvalidAnswerError(f"it tells {len(metrics)} metrics, more than {MOST_FIGURES}")
    for key, value in metrics.items():
        if not is_plain(key, LONGEST_NAME) or key in _TAKEN:
            raise InvalidAnswerError(f"a metric has a name that none may have: '{shown(key, 40)}'")
        if isinstance(value, list) or not math.isfinite(value):
            raise InvalidAnswerError(f"its '{key}' is not a finite number")
        if key.removeprefix(GLOBAL) in SHARES and not 0 <= value <= 1:
            raise InvalidAnswerError(f"its '{key}' of {value:g} is not between 0 and 1")
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


def finite(number: int, updated: ArrayRecord, before: ArrayRecord) -> ArrayRecord:
    """Return a round's model in the key order and types of the one before.

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


def unnamed(failed: Mapping[str, str]) -> str:
    """Return why some failed, without telling who or how many: each reason once, in no order."""
    texts = set()
    for client, reason in failed.items():
        text = reason.replace(f"'{client}'", "").replace(client, "a client")
        texts.add(re.sub(r"\d+( of \d+)? clients", "… clients", text).rstrip("."))
    return "; ".join(sorted(texts))


def reasons(failed: Mapping[str, str]) -> str:
    """Return the first few failures, for a sentence."""
    first = sorted(failed.items())[:5]
    return "; ".join(f"{client}: {reason.rstrip('.')}" for client, reason in first)
