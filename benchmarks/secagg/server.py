"""The server of a session in a process of its own, so that its memory is nobody else's."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.managers import BaseManager
from pathlib import Path
from typing import Any

import numpy as np

from task.secagg.masks import TYPES, Words, add_masks
from task.secagg.server import Aggregator
from task.secagg.session import Advert, FreshKeys, Session, pair_mask

_KIB = 1024


@dataclass(frozen=True)
class Unmasked:
    """What came of a session: the sum, the seconds to unmask it, the bytes that the server took."""

    total: Words
    seconds: float
    peak: int


class MeasuredServer(Aggregator):
    """An aggregator that knows what it takes."""

    def __init__(self, session: Session, adverts: Sequence[Advert]) -> None:
        warm_up(session)
        self._before = _memory("VmRSS")
        super().__init__(session, adverts)

    def whose_arrived(self) -> bytes:
        """Return `arrived`, which processes can ask for only if it is a method."""
        return self.arrived

    def unmask(self) -> Unmasked:
        """Take the masks off."""
        started = time.perf_counter()
        total = self.total()
        seconds = time.perf_counter() - started
        return Unmasked(total, seconds, _memory("VmHWM") - self._before)


class _Servers(BaseManager):
    """Starts the process."""


_Servers.register(
    "server",
    MeasuredServer,
    exposed=(
        "neighbours", "take_shares", "shares_for", "add", "whose_arrived", "take_signature",
        "signatures_for", "take_unmasking", "unmask",
    ),
)  # fmt: skip


@contextmanager
def server_process(session: Session, adverts: Sequence[Advert]) -> Iterator[Any]:
    """Run a `MeasuredServer` elsewhere as long as the block lasts."""
    with _Servers(ctx=multiprocessing.get_context("spawn")) as servers:
        yield servers.server(session, adverts)  # type: ignore[attr-defined]


def warm_up(session: Session) -> None:
    """Do what takes a process long only once, whatever the number of its sessions.

    Its first key and cipher load OpenSSL's (30 ms), its first large graph imports SciPy.
    """
    keys = FreshKeys.generate()
    seed = pair_mask(
        session.root, (0, 1), keys.masking, keys.masking.public_key().public_bytes_raw()
    )
    add_masks(np.zeros(1, TYPES[session.terms.bits]), [seed], [])
    assert session.graph


def _memory(what: str) -> int:
    """Return a figure of this process in bytes.

    Not `resource.getrusage`, whose maximum a process inherits from the one that started it.
    """
    for line in Path("/proc/self/status").read_text("ascii").splitlines():
        if line.startswith(f"{what}:"):
            return int(line.split()[1]) * _KIB
    raise OSError(f"/proc/self/status does not say {what}")
