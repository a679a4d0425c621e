"""A message's content as few objects, for Flower asks for each object in a call of its own.

A model of six arrays is 17 of Flower's objects, each of which is pushed and pulled four times on
its way from a ServerApp to a ClientApp. A parcel is three: the message, its content, one record.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from task.arrays import record_of, serialized

Record = ArrayRecord | ConfigRecord | MetricRecord
PARCEL = "parcel"
"""The name of the one record that a parcel holds, or of the first of two."""
_VALUES = "values"
SMALL = 1 << 18
"""Bytes of arrays that travel in the record itself. More are an array of Flower's, which has parts
of a few MB, and of which a SuperLink keeps one however many nodes get it."""


class ParcelError(ValueError):
    """A parcel that cannot be opened."""


def wrap(content: RecordDict) -> RecordDict:
    """Return a content as a parcel; one of a single small record stays as it is."""
    if len(content) == 1 and not isinstance(next(iter(content.values())), ArrayRecord):
        return content
    index: list[list[Any]] = []
    records: list[bytes] = []
    values: list[bytes] = []
    for name, record in content.items():
        if isinstance(record, ArrayRecord):
            arrays = [
                [key, array.dtype, list(array.shape), array.stype, len(array.data)]
                for key, array in record.items()
            ]
            index.append([name, "arrays", arrays])
            values += [array.data for array in record.values()]
        else:
            kind = "metrics" if isinstance(record, MetricRecord) else "config"
            records.append(record.deflate())
            index.append([name, kind, len(records[-1])])
    told, joined = ConfigRecord(), b"".join(values)
    told["index"], told["records"] = json.dumps(index), b"".join(records)
    if len(joined) <= SMALL:
        told[_VALUES] = joined
        return RecordDict({PARCEL: told})
    array = serialized("uint8", (len(joined),), "bytes", joined)
    return RecordDict({PARCEL: told, _VALUES: record_of({_VALUES: array})})


def is_parcel(content: RecordDict) -> bool:
    """Return whether a content came as a parcel."""
    return isinstance(content.get(PARCEL), ConfigRecord)


def unwrap(content: RecordDict) -> RecordDict:
    """Return what `wrap` was given; what is no parcel stays as it is.

    Raises
    ------
    ParcelError
        If it says that it is one, and cannot be opened.
    """
    if not is_parcel(content):
        return content
    try:
        return RecordDict(dict(_opened(content)))
    except Exception as error:
        raise ParcelError(f"a parcel that cannot be opened: {type(error).__name__}") from None


def _opened(content: RecordDict) -> Iterator[tuple[str, Record]]:
    told: Any = content[PARCEL]
    values: Any = content.get(_VALUES)
    records = _Cut(told["records"])
    data = _Cut(told[_VALUES] if values is None else values[_VALUES].data)
    for name, kind, facts in json.loads(told["index"]):
        if kind == "arrays":
            yield name, record_of(dict(_array(data, *told) for told in facts))
        elif kind == "metrics":
            yield name, MetricRecord.inflate(records(facts))
        else:
            yield name, ConfigRecord.inflate(records(facts))
    records.finish()
    data.finish()


def _array(data: _Cut, key: Any, dtype: Any, shape: Any, *rest: Any) -> tuple[str, Array]:
    stype, size = rest
    return key, Array(dtype, tuple(shape), stype, data(size))


class _Cut:
    """Takes bytes apart, from the first to the last."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self._start = 0

    def __call__(self, size: int) -> bytes:
        end = self._start + size
        if type(size) is not int or not self._start <= end <= len(self._data):
            raise ValueError(size)
        start, self._start = self._start, end
        return bytes(self._data[start:end])

    def finish(self) -> None:
        """Refuse bytes that nobody asked for."""
        if self._start != len(self._data):
            raise ValueError(self._start)
