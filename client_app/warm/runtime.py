"""A SuperNode's tasks over its Runtime API, as Flower's own ``flwr-clientapp`` does them.

These are private parts of Flower: `conf.flower.require_tested` guards them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from flwr.app import Context
from flwr.clientapp import ClientApp
from flwr.common.constant import SubStatus
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_http
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.protobuf.client import ProtobufClientInterceptor
from flwr.supercore.retry import make_simple_http_retry_invoker
from flwr.supercore.run import Run
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supernode.runtime.run_clientapp import pull_task_input, push_message, push_task_output

_ACQUIRE = "/flwr.proto.Runtime/AcquireTask"


@dataclass(frozen=True)
class Assigned:
    """One message to be answered: its run, and what lets a process fetch it."""

    run: int
    token: str


class Assignments:
    """The messages that a SuperNode on this machine has for its ClientApp.

    Parameters
    ----------
    address : str
        Of its Runtime API, on loopback.
    secret : bytes
        What it shares with who may take them.
    """

    def __init__(self, address: str, secret: bytes) -> None:
        auth = SuperExecAuthHttpInterceptor(master_secret=secret, protected_methods={_ACQUIRE})
        told = RuntimeVersionHttpInterceptor("SuperExec")
        self._client = _client(address, told, auth, again=False)

    def next(self) -> Assigned | None:
        """Return the oldest message that nobody took yet, if there is one."""
        wanted = AcquireTaskRequest(supported_task_types=[TaskType.CLIENT_APP])
        answer = self._client.AcquireTask(wanted)
        if not answer.HasField("task") or not answer.token:
            return None
        return Assigned(answer.task.run_id, answer.token)


def answer(address: str, token: str, app: ClientApp) -> None:
    """Fetch the message of a token, let `app` answer it, and hand in the answer.

    The application that came along with the run stays where it is: neither unpacked nor run.
    """
    client = _client(
        address, RuntimeVersionHttpInterceptor("flwr-clientapp"), RuntimeTokenHttpInterceptor(token)
    )
    context: Context | None = None
    done, details = SubStatus.FAILED, "the ClientApp did not answer"
    with _alive(client):
        try:
            message, context, run, _ = pull_task_input(client)
            push_message(client, app(message, told(context, run)), context)
            done, details = SubStatus.COMPLETED, ""
        finally:
            push_task_output(client=client, context=context, sub_status=done, details=details)
            client.close()


def told(context: Context, run: Run) -> Context:
    """Return a context for the app that holds what the SuperLink says of the run."""
    facts = {
        "run-submitter": run.account_name or run.flwr_aid,
        "run-app": run.fab_id,
        "run-app-hash": run.fab_hash,
    }
    return Context(
        context.run_id, context.node_id, {**context.node_config, **facts}, context.state,
        context.run_config,
    )  # fmt: skip


@contextmanager
def _alive(client: RuntimeHttpClient) -> Iterator[None]:
    """Tell the SuperNode that somebody works on the message until the block ends."""
    sender = HeartbeatSender(make_task_heartbeat_fn_http(client))
    sender.start()
    try:
        yield
    finally:
        sender.stop()


def _client(
    address: str, *interceptors: ProtobufClientInterceptor, again: bool = True
) -> RuntimeHttpClient:
    return RuntimeHttpClient.from_server_address(
        server_address=address, insecure=True, root_certificates=None,
        interceptors=interceptors, 
        retry_invoker=make_simple_http_retry_invoker() if again else None,
    )  # fmt: skip
