"""Ports of loopback, for servers that need seconds until they listen."""

from __future__ import annotations

import itertools
import random
import socket

from conf.errors import FedproofError

PORTS = range(20_000, 32_768)
"""Below those that systems give to connections, and to servers that leave the choice to them."""


def free_port() -> int:
    """Return a port that is free, and that the system itself gives to nobody else.

    Raises
    ------
    FedproofError
        If there is none.
    """
    # From anywhere, not the first: other programs look for one, too.
    start = random.SystemRandom().randrange(len(PORTS))
    for port in itertools.chain(PORTS[start:], PORTS[:start]):
        if is_free(port):
            return port
    raise FedproofError(
        f"no port of 127.0.0.1 from {PORTS[0]} to {PORTS[-1]} is free: end what listens there."
    )


def is_free(port: int) -> bool:
    """Return whether a server could listen on this port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
