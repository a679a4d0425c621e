import random
import socket
from pathlib import Path

import pytest

from conf.errors import FedproofError
from task import ports
from task.ports import PORTS, free_port, is_free


def test_a_port_is_free_until_somebody_has_it():
    port = free_port()
    assert is_free(port)
    with socket.create_server(("127.0.0.1", port)):
        assert not is_free(port)


def test_no_connection_gets_it():
    """A SuperNode was once seconds from listening, and the system gave its port to another."""
    given = Path("/proc/sys/net/ipv4/ip_local_port_range")
    if not given.exists():
        pytest.skip("only Linux tells which ports it gives")
    lowest, _ = map(int, given.read_text().split())
    assert 1024 < min(PORTS) < max(PORTS) < lowest


def test_ports_in_use_are_passed_over(monkeypatch):
    taken = free_port()
    with socket.create_server(("127.0.0.1", taken)):
        monkeypatch.setattr(random.SystemRandom, "randrange", lambda *_: taken - PORTS[0])
        assert free_port() != taken
        monkeypatch.setattr(ports, "PORTS", range(taken, taken + 1))
        monkeypatch.setattr(random.SystemRandom, "randrange", lambda *_: 0)
        with pytest.raises(
            FedproofError, match=f"^no port of 127.0.0.1 from {taken} to {taken} is"
        ):
            free_port()
