"""A SuperNode's key is the silo: what Flower 1.41 asks of who shows it, and what it does not."""

import datetime
import json
import ssl
from base64 import b64encode

import httpx
import pytest
from cryptography.hazmat.primitives.serialization.ssh import load_ssh_private_key
from flwr.common.constant import (
    SYSTEM_TIME_TOLERANCE,
    TIMESTAMP_HEADER,
    TIMESTAMP_TOLERANCE,
)
from flwr.proto.fleet_pb2 import ActivateNodeRequest, DeactivateNodeRequest
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.date import now
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message

from server_app.deploy.keys import make_node_key
from tests.flower import flwr_supernode, secured

pytestmark = pytest.mark.slow
SECOND = datetime.timedelta(seconds=1)


class Holder:
    """Who has a key, wherever that is: speaks to the SuperLink without a SuperNode."""

    def __init__(self, path, port, trusted):
        self._key = load_ssh_private_key(path.read_bytes(), None)
        self.public = public_key_to_bytes(self._key.public_key())
        self._url = f"https://127.0.0.1:{port}/v1/fleet"
        self._context = ssl.create_default_context(cafile=trusted)

    def headers(self, age=0 * SECOND):
        when = (now() - age).isoformat()
        signature = sign_message(self._key, when.encode("ascii"))
        return {
            FLEET_HTTP_PUBLIC_KEY_HEADER: b64encode(self.public).decode(),
            FLEET_HTTP_SIGNATURE_HEADER: b64encode(signature).decode(),
            TIMESTAMP_HEADER: when,
        }

    def say(self, what, request, headers=None):
        """Return the status of the answer."""
        told = {"content-type": "application/protobuf", "accept": "application/protobuf"}
        answer = httpx.post(
            f"{self._url}/{what}", content=request.SerializeToString(), timeout=20,
            headers=told | (self.headers() if headers is None else headers), verify=self._context,
        )  # fmt: skip
        return answer.status_code

    def join(self, headers=None):
        wanted = ActivateNodeRequest(public_key=self.public, heartbeat_interval=30)
        return self.say("activate-node", wanted, headers)

    def beat(self, node, headers=None):
        wanted = SendNodeHeartbeatRequest(node=Node(node_id=node), heartbeat_interval=30)
        return self.say("send-node-heartbeat", wanted, headers)

    def leave(self, node, headers=None):
        return self.say("deactivate-node", DeactivateNodeRequest(node_id=node), headers)


@pytest.fixture(scope="module")
def silo(tmp_path_factory):
    """A SuperLink that knows two keys of which none is in use, a holder of each, and of none."""
    folder = tmp_path_factory.mktemp("keys")
    with secured(folder / "f", ["va", "hungary"]) as (environment, port):
        trusted, nodes = str(folder / "f" / "ca" / "ca.crt"), []
        for name in ("va", "hungary", "stranger"):
            make_node_key(folder / f"{name}.key")
            if name != "stranger":
                flwr_supernode(environment, "register", str(folder / f"{name}.pub"), "silos")
            nodes.append(Holder(folder / f"{name}.key", port, trusted))
        listed = json.loads(flwr_supernode(environment, "ls", "silos", "--format", "json"))
        yield nodes, [int(node["node-id"]) for node in listed["nodes"]]


def test_a_key_lets_one_node_in_at_a_time_and_whoever_comes_first(silo):
    (va, _, stranger), ids = silo
    assert stranger.join() != 200
    assert va.join() == 200
    # The same key from elsewhere: the first one stays.
    assert va.join() != 200
    (mine,) = [node for node in ids if va.beat(node) == 200]
    assert stranger.beat(mine) == 401
    # Who holds the key speaks for the silo, wherever: also to log it out, and in again.
    assert va.leave(mine) == 200 and va.join() == 200
    assert va.leave(mine) == 200


def test_a_key_speaks_for_its_own_node_only(silo):
    (va, hungary, _), ids = silo
    allowed = {holder: [n for n in ids if holder.beat(n) == 200] for holder in (va, hungary)}
    assert sorted(n for nodes in allowed.values() for n in nodes) == sorted(ids)
    assert va.say(
        "activate-node", ActivateNodeRequest(public_key=hungary.public, heartbeat_interval=30)
    ) == 401  # fmt: skip


def test_what_was_signed_long_ago_or_by_another_is_refused(silo):
    (va, _, stranger), ids = silo
    (mine,) = [node for node in ids if va.beat(node) == 200]
    late = (TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE + 5) * SECOND
    assert va.beat(mine, va.headers(late)) == 401
    assert va.beat(mine, va.headers(-(SYSTEM_TIME_TOLERANCE + 5) * SECOND)) == 401
    mixed = stranger.headers() | {FLEET_HTTP_PUBLIC_KEY_HEADER: b64encode(va.public).decode()}
    assert va.beat(mine, mixed) == 401
    assert va.beat(mine, {}) == 401


def test_a_signature_is_good_for_five_minutes_and_any_request(silo):
    """Flower signs the time and nothing else: that nobody can copy it is TLS's doing alone."""
    (va, *_), ids = silo
    (mine,) = [node for node in ids if va.beat(node) == 200]
    copied = va.headers(SECOND * (TIMESTAMP_TOLERANCE - 60))
    assert [va.beat(mine, copied) for _ in range(2)] == [200, 200]
    assert (va.leave(mine, copied), va.join(copied), va.leave(mine)) == (200, 200, 200)
