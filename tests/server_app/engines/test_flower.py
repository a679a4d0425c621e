import shlex
import socket
from contextlib import contextmanager, nullcontext

import pytest

from conf.compose import compose
from conf.errors import FedproofError
from server_app.engines import flower
from server_app.engines.flower import run_flower
from server_app.engines.superlink import Server
from task.ports import free_port
from tests.flower import ROOT


@pytest.fixture
def submitted(monkeypatch):
    """What would be submitted to which SuperLink."""

    @contextmanager
    def pretend(port, ray):
        yield port, ray

    monkeypatch.setattr(flower, "own_superlink", pretend)
    monkeypatch.setattr(flower, "own_ray", nullcontext)

    def run(*overrides):
        calls = []
        monkeypatch.setattr(flower, "submit", lambda *call: calls.append(call))
        run_flower(compose(overrides), overrides, ROOT, print)
        [(link, app_dir, told, simulation, _)] = calls
        assert app_dir == ROOT
        return link, shlex.split(told), set(simulation)

    return run


def test_as_many_nodes_and_actors_as_workers(submitted):
    (_, ray), told, simulation = submitted("federation=flower", "federation.workers=3", "seed=7")
    assert ray == 3
    assert told == ["federation=flower", "federation.workers=3", "seed=7", "federation.nodes=3"]
    assert simulation == {"num-supernodes=3", "client-resources-num-cpus=1"}


def test_nothing_starts_where_the_port_is_in_use(submitted, monkeypatch):
    monkeypatch.setattr(flower, "own_ray", lambda cores: pytest.fail("Ray was started"))
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(FedproofError, match=f"^federation.port={port} is in use: give another"):
            submitted("federation=flower", f"federation.port={port}")


def test_the_port_that_was_asked_for(submitted):
    port = free_port()
    (told, _), *_ = submitted("federation=flower", f"federation.port={port}")
    assert told == port


def test_a_cluster_knows_its_own_cores(submitted):
    with socket.create_server(("127.0.0.1", 0)) as cluster:
        address = f"127.0.0.1:{cluster.getsockname()[1]}"
        (_, ray), _, simulation = submitted(
            "federation=flower", f"federation.ray={address}", "federation.nodes=8"
        )
    assert ray == Server(address)
    assert simulation == {"num-supernodes=8", "client-resources-num-cpus=1"}


def test_a_cluster_that_does_not_answer(submitted):
    with socket.create_server(("127.0.0.1", 0)) as gone:
        address = f"127.0.0.1:{gone.getsockname()[1]}"
    with pytest.raises(FedproofError, match=f"no Ray cluster answers at federation.ray={address}"):
        submitted("federation=flower", f"federation.ray={address}", "federation.nodes=8")
