"""Ray's own command, with a stand-in for what it starts; it runs for real in tests/deployment."""

import socket
import sys

import psutil
import pytest

from conf.errors import FedproofError
from server_app.engines import ray
from server_app.engines.ray import own_ray

LISTENS = """#!{python}
import socket, sys, time
(port,) = (word[7:] for word in sys.argv if word.startswith("--port="))
server = socket.create_server(("127.0.0.1", int(port)))
time.sleep(600)
"""


@pytest.fixture
def program(tmp_path, monkeypatch):
    def pretend(text):
        script = tmp_path / "ray"
        script.write_text(text)
        script.chmod(0o755)
        monkeypatch.setattr(ray, "program", lambda _: str(script))
        return str(script)

    return pretend


def test_it_is_there_until_the_end_with_so_many_cores(program):
    script = program(LISTENS.format(python=sys.executable))
    with own_ray(3) as server:
        server.ready()
        host, port = server.address.split(":")
        socket.create_connection((host, int(port))).close()
        [process] = [p for p in psutil.Process().children() if script in p.cmdline()]
        assert "--num-cpus=3" in process.cmdline()
        # Ray lowers its workers' priority unless told otherwise.
        assert process.environ()["RAY_worker_niceness"] == "0"
    assert not process.is_running()


def test_what_it_says_when_it_cannot_start(program):
    program("#!/bin/sh\necho no room\nexit 1\n")
    with own_ray(1) as server, pytest.raises(FedproofError, match=r"^Ray did not start: no room$"):
        server.ready()
