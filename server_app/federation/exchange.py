"""A Grid on which only whole exchanges are offered: messages out, and their answers back."""

from __future__ import annotations

from collections.abc import Iterable

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid


class ExchangeGrid(Grid):
    """What the Grids of this application share.

    Subclasses offer `send_and_receive` and `get_node_ids`, which is what strategies use.
    """

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Create a message."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Not offered: answers come with the call."""
        raise NotImplementedError("use send_and_receive")

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Not offered: answers come with the call."""
        raise NotImplementedError("use send_and_receive")
