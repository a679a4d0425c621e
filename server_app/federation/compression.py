"""The server's side of compression: models on their way to clients, and updates from them."""

from __future__ import annotations

from collections.abc import Iterable

from flwr.app import ArrayRecord, Message, RecordDict

from server_app.federation.layout import ARRAYS, Layout
from server_app.federation.validation import InvalidAnswerError, decode
from task.compression.base import MalformedError
from task.packing import Packing
from task.wire import config


class Unpacker:
    """Turns one round's compressed updates into what clients would have answered without.

    Parameters
    ----------
    packing : Packing
        Of the model.
    arrays : ArrayRecord
        The global model. Updates are added to this one, also if clients were sent a compressed
        one: what that was rounded by must not become part of the model.
    number : int
        Of the round.
    clip : float or None
        Norm to which updates are shortened.
    updates : bool
        Whether updates are wanted, and not the models that come out.
    """

    def __init__(
        self,
        packing: Packing,
        arrays: ArrayRecord,
        number: int,
        clip: float | None,
        *,
        updates: bool,
    ) -> None:
        self._packing = packing
        self._like = Layout(arrays)
        self._number = number
        self._clip = clip
        self._start = None if updates else self._like.vector()

    def unpack(self, client: str, content: RecordDict) -> None:
        """Replace a client's compressed update in its answer; one without any stays as it is.

        Raises
        ------
        InvalidAnswerError
            If it cannot be read.
        """
        arrays = content.get(ARRAYS)
        if not isinstance(arrays, ArrayRecord):
            return
        packet = {name: decode(array, name) for name, array in arrays.items()}
        try:
            update = self._packing.unpack(packet, (self._number, client), self._clip)
        except MalformedError as error:
            raise InvalidAnswerError(f"its compressed update {error}") from None
        values = update if self._start is None else self._start + update
        content[ARRAYS] = self._like.arrays_of(values)


def pack_models(packing: Packing, messages: Iterable[Message]) -> None:
    """Compress the models in messages, each one once, however many clients get it."""
    known: dict[int, ArrayRecord] = {}
    kept = []
    contents = {id(message.content): message.content for message in messages}
    for content in contents.values():
        arrays = content.get(ARRAYS)
        if not isinstance(arrays, ArrayRecord):
            continue
        if id(arrays) not in known:
            number = int(str(config(content, "config")["server-round"]))
            known[id(arrays)] = packing.pack_model(arrays, number)
            # Alive, so that no other gets its id.
            kept.append(arrays)
        content[ARRAYS] = known[id(arrays)]
