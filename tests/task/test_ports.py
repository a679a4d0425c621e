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
    assert max(PORTS) < lowest


def test_ports_in_use_are_passed_over(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as first:
        taken, free = first.getsockname()[1], free_port()
        monkeypatch.setattr(random.SystemRandom, "sample", lambda *_: [taken, free])
        assert free_port() == free
        monkeypatch.setattr(random.SystemRandom, "sample", lambda *_: [taken])
        with pytest.raises(FedproofError, match=r"^no port of 127.0.0.1 from 20000 to 32767 is"):
            free_port()
    assert ports.PORTS[0] > 1024
