"""What a SuperNode's loop has taken in, and what becomes of a message whose process died.

These are private parts of Flower: `conf.flower.require_tested` guards them.
"""

from __future__ import annotations

import threading
from functools import wraps
from types import ModuleType
from typing import Any

from flwr.common.constant import Status, SubStatus
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supernode.nodestate.nodestate import NodeState

_DIED = "the process that answered died"


class Inbox:
    """Watches a SuperNode's loop, which takes in one message and sends its answer, and so on.

    Attributes
    ----------
    arrived : threading.Event
        Set when a message is there with all of its parts.
    """

    def __init__(self) -> None:
        self.arrived = threading.Event()
        self._state: NodeState | None = None

    def watch(self, loop: ModuleType) -> None:
        """Watch Flower's module of that loop."""
        original = loop._pull_and_store_message

        @wraps(original)
        def watched(*args: Any, state: NodeState, **told: Any) -> int | None:
            self._state = state
            run: int | None = original(*args, state=state, **told)
            if run is None:
                self._drop()
            else:
                self.arrived.set()
            return run

        loop._pull_and_store_message = watched  # type: ignore[attr-defined]

    def crashed(self, run: int) -> None:
        """Answer a run's message with an error now; Flower does after a minute in silence."""
        state = self._state
        assert state is not None
        for task in state.get_tasks(run_ids=[run], statuses=[Status.STARTING, Status.RUNNING]):
            state.finish_task(task.task_id, SubStatus.FAILED, _DIED)
        self._forget_halves(state)
        for entry in list(state.msg_store.values()):  # type: ignore[attr-defined]
            # Flower answers for messages that a process fetched; it may have died before.
            entry.is_retrieved |= not entry.message.metadata.reply_to_message_id
        from flwr.supernode.nodestate.in_memory_nodestate import CLIENT_APP_CRASHED_ERROR

        state._store_error_replies({run}, CLIENT_APP_CRASHED_ERROR)  # type: ignore[attr-defined]

    def _drop(self) -> None:
        """Give up messages that were never complete because their run ended meanwhile.

        Flower keeps their tasks, and who takes one waits for its parts.
        """
        assert self._state is not None
        for task in self._state.get_tasks(statuses=[Status.PENDING]):
            self._state.finish_task(task.task_id, SubStatus.STOPPED, "its run ended")

    @staticmethod
    def _forget_halves(state: NodeState) -> None:
        """Give up answers of which parts are missing: the loop would wait for them for good."""
        store = state.object_store
        for entry in list(state.msg_store.values()):  # type: ignore[attr-defined]
            metadata = entry.message.metadata
            if not metadata.reply_to_message_id:
                continue
            parts = iterate_object_tree(store.get_object_tree(metadata.message_id))
            if any(store.get(part.object_id) == b"" for part in parts):
                store.delete(metadata.message_id)
