"""Python runs this first when its folder is on ``PYTHONPATH``: the clock on the wall may jump.

``CLOCK`` names a file that holds by how many seconds it is off, and is read ten times a second.
What counts seconds from anywhere (`time.monotonic`, sleeping) goes on as it does when an operator,
or a time server, sets a machine's clock.
"""

import datetime
import os
import time
from pathlib import Path

if "CLOCK" in os.environ:
    _file = Path(os.environ["CLOCK"])
    _time, _datetime = time.time, datetime.datetime

    _read = {"at": float("-inf"), "off": 0.0}

    def _off() -> float:
        now = time.monotonic()
        if now - _read["at"] > 0.1:
            # Servers ask for the time thousands of times a second.
            _read.update(at=now, off=float(_file.read_text(encoding="ascii")))
        return _read["off"]

    class _Any(type):
        """Takes what the C library made for an instance, too."""

        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, _datetime)

    class _Jumping(_datetime, metaclass=_Any):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:
            """Return the moment that the clock shows."""
            return cls.fromtimestamp(time.time(), tz)

    time.time = lambda: _time() + _off()
    time.time_ns = lambda: int(time.time() * 1e9)
    datetime.datetime = _Jumping  # type: ignore[misc]
