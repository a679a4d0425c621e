"""Ray's own command, with a stand-in for what it starts; it runs for real in tests/deployment."""

import socket
import subprocess

import psutil
import pytest

from conf.errors import FedproofError
from server_app.engines import ray
from server_app.engines.ray import own_ray
from server_app.engines.superlink import prepared
from tests.server_app.engines.conftest import LISTENS


def test_it_is_there_until_the_end_with_so_many_cores(stand_in):
    script = stand_in(ray, LISTENS)
    with own_ray(3) as server:
        server.ready()
        host, port = server.address.split(":")
        socket.create_connection((host, int(port))).close()
        [process] = [p for p in psutil.Process().children() if script in p.cmdline()]
        assert "--num-cpus=3" in process.cmdline()
        # Ray lowers its workers' priority unless told otherwise.
        assert process.environ()["RAY_worker_niceness"] == "0"
    assert not process.is_running()


def test_what_it_says_when_it_cannot_start(stand_in):
    stand_in(ray, "import sys\nsys.exit('no room')\n")
    with own_ray(1) as server, pytest.raises(FedproofError, match=r"^Ray did not start: no room$"):
        server.ready()


def test_without_what_a_simulation_does_not_use(tmp_path):
    # As Ray asks itself before it starts its client's server.
    script = tmp_path / "program"
    script.write_text(
        "import sys\n"
        "from ray._private.utils import get_ray_client_dependency_error as missing\n"
        "assert missing() is not None and 'ray.serve.scripts' not in sys.modules\n"
        "import ray.scripts.scripts\n"
        "assert 'ray.serve.scripts' not in sys.modules\n"
        "print(*sys.argv[1:])\n"
    )
    command = [*prepared(ray.LEAN, str(script)), "start", "--head"]
    assert subprocess.check_output(command, text=True) == "start --head\n"
