"""What a client compresses on its way out, and what it keeps of that until its next update."""

from __future__ import annotations

from flwr.app import ArrayRecord
from torch import Tensor

from client_app.node import Node
from client_app.request import Request
from task.packing import Packing

FOLDER = "compression"
"""Where the node's clients keep it, beside what they keep of training."""


class Packer:
    """Compresses the updates of one cohort.

    Parameters
    ----------
    node : Node
        Whose clients they are.
    request : Request
        What was asked.
    packing : Packing
        Of the model.

    Attributes
    ----------
    unsent : dict of str to int
        The bytes of clients' updates that were added up instead of sent.
    """

    def __init__(self, node: Node, request: Request, packing: Packing) -> None:
        self._packing = packing
        self._resumable = request.checkpointed
        self._store = node.store(request.lineage, FOLDER) if packing.keeps else None
        self.unsent: dict[str, int] = {}

    def pack(
        self, client: str, number: int, update: Tensor, clip: float | None
    ) -> tuple[ArrayRecord, Tensor]:
        """Return what travels of a client's update in a round, and the update that it stands for.

        `clip` is the norm that this must not exceed. What is left of it is kept first.

        Raises
        ------
        FedproofError
            If that cannot be read or written.
        """
        memory = {} if self._store is None else self._store.load(client, number)
        arrays, read, kept = self._packing.pack(update, memory, (number, client), clip)
        if self._store is not None:
            self._store.save(client, number, kept, self._resumable)
        return arrays, read
