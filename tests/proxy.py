"""A network between a SuperNode and its SuperLink that can be cut, and healed."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self


class Proxy:
    """Forwards TCP connections on loopback to a port.

    Parameters
    ----------
    port : int
        Where to.

    Attributes
    ----------
    port : int
        Where it listens.
    swallow : bytes or None
        The next request that holds this is forwarded, and its connection ends before the answer
        comes back: what was asked for is done, and whoever asked does not know.
    swallowed : threading.Event
        Set when that has happened.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self._open: set[socket.socket] = set()
        self._there = True
        self.swallow: bytes | None = None
        self.swallowed = threading.Event()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._listening.close()
        self.cut()

    def cut(self) -> None:
        """End all connections, and every new one at once."""
        self._there = False
        for end in list(self._open):
            _end(end)

    def heal(self) -> None:
        """Forward again."""
        self._there = True

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._target), timeout=5)
            except OSError:
                _end(near)
                continue
            far.settimeout(None)
            if not self._there:
                _end(near)
                _end(far)
                continue
            self._open |= {near, far}
            for pair in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
                if self.swallow is not None and self.swallow in data:
                    self.swallow = None
                    # What the request asks for is done although its answer finds nobody.
                    threading.Event().wait(0.5)
                    self.swallowed.set()
                    break
        for end in (source, sink):
            self._open.discard(end)
            _end(end)


def _end(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
