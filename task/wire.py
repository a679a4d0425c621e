"""Cohort messages: what many clients are told, or answer, in one Flower message.

A cohort message carries one `RecordDict` per client. Records that several clients share (the
global model) are stored once. A header holds JSON: digests, what was agreed, errors.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from task.parcel import ParcelError, unwrap
from task.shown import shown

HEADER = "cohort"
TOTAL = "total"
VECTORS = "vectors"
"""The record of what travels beside models."""
UNSENT = "unsent"
"""In a header: the bytes of each client's compressed update that was added up, not sent."""


class WireError(ValueError):
    """A cohort message that does not follow the format.

    Parameters
    ----------
    reason : str
        May quote what the other side sent: it is made fit to be shown.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(shown(reason))


@dataclass(frozen=True)
class Cohort:
    """The content of a cohort message.

    Attributes
    ----------
    parts : mapping of client id to RecordDict
        What each client is told or answers.
    errors : mapping of client id to str
        Clients that have no answer, and why, in one sentence.
    header : mapping
        JSON values that concern the whole message.
    total : ArrayRecord or None
        The weighted sum of the clients' models, in place of each client's own.
    """

    parts: Mapping[str, RecordDict] = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)
    header: Mapping[str, Any] = field(default_factory=dict)
    total: ArrayRecord | None = None

    def pack(self) -> RecordDict:
        """Return the message content."""
        content = RecordDict()
        names: dict[int, str] = {}
        layout: dict[str, dict[str, str]] = {}
        for client, part in self.parts.items():
            layout[client] = {}
            for key, record in part.items():
                if id(record) not in names:
                    names[id(record)] = f"r{len(names)}"
                    content[names[id(record)]] = record
                layout[client][key] = names[id(record)]
        if self.total is not None:
            content[TOTAL] = self.total
        content[HEADER] = ConfigRecord(
            {
                "layout": json.dumps(layout),
                "errors": json.dumps(dict(self.errors)),
                "header": json.dumps(dict(self.header)),
            }
        )
        return content

    @classmethod
    def unpack(cls, content: RecordDict) -> Cohort:
        """Read a message content, or a parcel of one.

        Raises
        ------
        WireError
            If it does not follow the format.
        """
        try:
            content = unwrap(content)
            head = content[HEADER]
            assert isinstance(head, ConfigRecord)
            layout, errors, header = (
                json.loads(str(head[key])) for key in ("layout", "errors", "header")
            )
            parts = {
                client: RecordDict({key: content[name] for key, name in records.items()})
                for client, records in layout.items()
            }
        except ParcelError as error:
            raise WireError(f"not a cohort message: {error}") from None
        except (
            LookupError,
            AssertionError,
            AttributeError,
            TypeError,
            ValueError,
            RecursionError,
        ) as error:
            raise WireError(f"not a cohort message: {type(error).__name__}") from None
        if not (isinstance(errors, dict) and isinstance(header, dict)):
            raise WireError("not a cohort message: header")
        errors = {str(k): str(v) for k, v in errors.items()}
        total = content.get(TOTAL)
        return cls(parts, errors, header, total if isinstance(total, ArrayRecord) else None)


T = TypeVar("T")
R = TypeVar("R", ArrayRecord, ConfigRecord, MetricRecord)


def records(content: RecordDict, kind: type[R]) -> list[R]:
    """Return a content's records of one kind.

    Flower's own ``array_records`` and the like copy the content each time that they are read.
    """
    return [record for record in content.values() if isinstance(record, kind)]


def config(content: RecordDict, key: str) -> ConfigRecord:
    """Return one of a content's ConfigRecords.

    Raises
    ------
    WireError
        If there is none of that name.
    """
    record = content.get(key)
    if not isinstance(record, ConfigRecord):
        raise WireError(f"the message holds no '{key}' settings")
    return record


def blob(record: ConfigRecord, key: str) -> bytes:
    """Return bytes.

    Raises
    ------
    WireError
        If it is something else.
    """
    value = record.get(key)
    if not isinstance(value, bytes):
        raise WireError(f"the message's '{key}' cannot be read")
    return value


def listed(record: ConfigRecord, key: str, kind: type[T]) -> list[T]:
    """Return a list whose items are all of one type.

    Raises
    ------
    WireError
        If it is something else.
    """
    value = record.get(key)
    if not isinstance(value, list) or not all(isinstance(item, kind) for item in value):
        raise WireError(f"the message's '{key}' cannot be read")
    return cast(list[T], value)


def numbered(record: ConfigRecord, keys: str, values: str) -> dict[int, bytes]:
    """Return a list of bytes, by the numbers in another list.

    Raises
    ------
    WireError
        If they are not two such lists.
    """
    numbers, data = listed(record, keys, int), listed(record, values, bytes)
    if len(numbers) != len(data):
        raise WireError(f"the message's '{values}' cannot be read")
    return dict(zip(numbers, data, strict=True))


def wire_bytes(content: RecordDict) -> int:
    """Return the size of a content as Flower serialises it: array data and encoded records."""
    total = 0
    for record in content.values():
        if isinstance(record, ArrayRecord):
            total += sum(len(array.data) for array in record.values())
        elif isinstance(record, ConfigRecord | MetricRecord):
            total += len(record.deflate())
    return total
