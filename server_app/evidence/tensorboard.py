"""Scalars for TensorBoard."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from server_app.evidence.events import complain


class Scalars:
    """Writes the numbers of each round as TensorBoard events.

    TensorBoard is imported with the first round, not with the application. If its events cannot
    be written, the run goes on without them.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._writer: Any = None
        self._failed = False

    def add(self, line: Mapping[str, Any]) -> None:
        """Write a round's metrics, bytes and seconds."""
        if not self._failed:
            with self._excused():
                self._add(line)

    def close(self) -> None:
        """Close the event file."""
        writer, self._writer = self._writer, None
        if writer is not None:
            with self._excused():
                writer.close()

    @contextmanager
    def _excused(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if not self._failed:
                complain(f"TensorBoard's events cannot be written ({error}): go on without them.")
            self._failed, self._writer = True, None

    def _add(self, line: Mapping[str, Any]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        if self._writer is None:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._writer = EventFileWriter(str(self._directory))
        values = [
            Summary.Value(tag=tag, simple_value=value) for tag, value in scalars(line).items()
        ]
        event = Event(step=line["round"], summary=Summary(value=values))
        self._writer.add_event(event)
        self._writer.flush()


def scalars(line: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers in a line of ``metrics.jsonl``, tagged ``group/name``."""
    tagged: dict[str, float] = {}
    for group, values in line.items():
        if isinstance(values, dict):
            numbers = {k: v for k, v in values.items() if isinstance(v, int | float)}
            tagged |= {f"{group}/{name}": float(value) for name, value in numbers.items()}
        elif isinstance(values, int | float) and group != "round":
            tagged[f"run/{group}"] = float(values)
    return tagged
