import subprocess
import sys
import time

import psutil
import pytest

from conf.errors import FedproofError
from server_app.engines import superlink
from server_app.engines.superlink import (
    Server,
    end_tree,
    own_superlink,
    program,
    quiet_environment,
)
from task.ports import free_port
from tests.server_app.engines.conftest import LISTENS

TREE = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""


def test_a_tree_of_processes_ends_even_if_it_will_not():
    with subprocess.Popen([sys.executable, "-c", TREE], stdout=subprocess.PIPE) as parent:
        child = int(parent.stdout.readline())
        started = time.monotonic()
        end_tree(parent.pid)
        assert time.monotonic() - started < 30
        assert not psutil.pid_exists(child) and not psutil.pid_exists(parent.pid)
    end_tree(parent.pid)  # Gone already: nothing to do.


def test_environment(monkeypatch):
    monkeypatch.setenv("FEDPROOF_TEST", "kept")
    environment = quiet_environment()
    assert environment["FEDPROOF_TEST"] == "kept"
    assert environment["FLWR_TELEMETRY_ENABLED"] == "0"
    assert environment["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == "1"
    assert program("flwr").startswith(environment["PATH"].split(":")[0])
    with pytest.raises(FedproofError, match="'no-such-program' is not installed"):
        program("no-such-program")


RAY = Server("10.0.0.1:6379")


@pytest.mark.parametrize(("ray", "address"), [(None, "local"), (RAY, RAY.address)])
def test_a_superlink_keeps_to_its_own_ray_or_the_one_it_is_given(
    stand_in, monkeypatch, ray, address
):
    script = stand_in(superlink, LISTENS)
    monkeypatch.setenv("RAY_ADDRESS", "192.168.0.1:6379")
    with own_superlink(free_port(), ray) as link:
        link.ready()
        assert link.environment["RAY_ADDRESS"] == address
        [process] = [p for p in psutil.Process().children() if script in p.cmdline()]
        assert process.environ()["RAY_ADDRESS"] == address
        assert process.environ()["RAY_worker_niceness"] == "0"
    assert not process.is_running()


def test_a_simulation_waits_for_its_ray_too(stand_in):
    stand_in(superlink, LISTENS)

    def never():
        raise FedproofError("Ray did not start: no room.")

    with (
        own_superlink(free_port(), Server("127.0.0.1:1", never)) as link,
        pytest.raises(FedproofError, match=r"Ray did not start: no room\."),
    ):
        link.ready()


def test_a_superlink_that_ends_at_once(stand_in):
    stand_in(superlink, "#!/bin/sh\necho too old\nexit 1\n")
    with (
        own_superlink(free_port()) as link,
        pytest.raises(FedproofError, match="SuperLink did not start: too old$"),
    ):
        link.ready()
